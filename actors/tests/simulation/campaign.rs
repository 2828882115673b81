//! Many histories: short by default, and long in parts whose results add up.

use std::{
    fmt::Write as _,
    io::Write as _,
    rc::Rc,
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    dice::Dice,
    faults::Fault,
    gateways::Settings,
    ledger::Violation,
    messages::Messages,
    shrink::shrink,
    steps::{self, Timed},
    world::{Outcome, PANICS, play},
};

/// The seeds of an ordinary test run.
const FIXED: u64 = 300;
/// Seeds of histories that broke a condition before the gateway was repaired. They mean these histories only as long as settings and
/// steps are drawn as they are now, so each fault has a test of its own as well.
const FOUND: [u64; 1] = [
    // A follower whose clock was behind refused a deletion, and was sent it again and again without a pause.
    4_294_979_679,
];
/// Histories in one part of a long run.
const PART: u64 = 10_000;

/// The settings and the steps of a seed.
fn history(seed: u64) -> (Settings, Vec<Timed>) {
    let mut dice = Dice::new(seed);
    let settings = Settings::draw(&mut dice);
    let steps = steps::draw(&mut dice);
    (settings, steps)
}

/// A history that broke a condition, shrunk.
struct Broken {
    seed: u64,
    settings: Settings,
    steps: Vec<Timed>,
    violation: Violation,
    steps_before: usize,
}

fn run(messages: &Rc<Messages>, seed: u64, fault: Option<Fault>) -> Result<Outcome, Box<Broken>> {
    catch_panics();
    messages.tidy();
    let (settings, steps) = history(seed);
    let steps_before = steps.len();
    play(messages, seed, (&settings, &steps), fault).map_err(|violation| {
        let (steps, violation) = shrink(messages, seed, (&settings, steps), fault, violation);
        Box::new(Broken { seed, settings, steps, violation, steps_before })
    })
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, settings, steps, violation, steps_before } = self;
        writeln!(f, "{violation}")?;
        writeln!(f, "{settings:?}")?;
        writeln!(f, "{} of {steps_before} steps:", steps.len())?;
        for Timed { step, wait_ms } in steps {
            writeln!(f, "  {step:?}, then {wait_ms} ms")?;
        }
        write!(
            f,
            "again: MIMI_SIMULATION_SEED={seed} cargo test --workspace --locked --test simulation histories_keep"
        )
    }
}

/// Keeps the panics of simulated tasks, which are printed with the history.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if snapshots::is_simulated() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

/// The sum of many outcomes.
#[derive(Default)]
struct Sum {
    histories: u64,
    entries: usize,
    runs: u64,
    transfers: usize,
    assignments: usize,
    broken: Vec<Broken>,
}

impl Sum {
    fn add(&mut self, outcome: Result<Outcome, Box<Broken>>) {
        self.histories += 1;
        match outcome {
            Ok(outcome) => {
                self.entries += outcome.entries;
                self.runs += outcome.runs;
                self.transfers += outcome.transfers;
                self.assignments += outcome.assignments;
            }
            Err(broken) => self.broken.push(*broken),
        }
    }

    fn assert_unbroken(&self) {
        let mut report = String::new();
        for broken in self.broken.iter().take(5) {
            writeln!(report, "\nseed {}: {broken}", broken.seed).unwrap();
        }
        assert!(self.broken.is_empty(), "{} of {} histories: {report}", self.broken.len(), self.histories);
    }
}

/// Plays seeds on all processors.
fn play_all(seeds: std::ops::Range<u64>) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let threads = number("MIMI_SIMULATION_THREADS")
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get() as u64));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let messages = Messages::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sum.lock().unwrap().broken.len() >= 5 {
                        return;
                    }
                    let outcome = run(&messages, seed, None);
                    sum.lock().unwrap().add(outcome);
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Plays parts, each with seeds of its own, and adds a line for each to a file, so that a run can be ended and gone on with.
fn play_parts(histories: u64) {
    let path = std::env::var("MIMI_SIMULATION_FILE").unwrap_or_else(|_| "simulation.parts".into());
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let mut played: u64 =
        written.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum();
    let mut first =
        written.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok()).max().unwrap_or(1 << 32);
    while played < histories {
        let since = Instant::now();
        let seeds = first..first + PART.min(histories - played);
        let sum = play_all(seeds.clone());
        let line = format!(
            "{} {} {} {} {:.1} {} {} {} {}\n",
            sum.histories,
            seeds.start,
            seeds.end,
            sum.broken.len(),
            since.elapsed().as_secs_f64(),
            sum.entries,
            sum.runs,
            sum.transfers,
            sum.assignments
        );
        let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
        sum.assert_unbroken();
        played += sum.histories;
        first = seeds.end;
    }
}

#[test]
fn histories_keep_every_condition() {
    if let Some(seed) = number("MIMI_SIMULATION_SEED") {
        let mut sum = Sum::default();
        sum.add(run(&Messages::new(), seed, None));
        return sum.assert_unbroken();
    }
    if let Some(histories) = number("MIMI_SIMULATION_HISTORIES") {
        return play_parts(histories);
    }
    let messages = Messages::new();
    let mut found = Sum::default();
    FOUND.into_iter().for_each(|seed| found.add(run(&messages, seed, None)));
    found.assert_unbroken();
    let fixed = play_all(0..FIXED);
    fixed.assert_unbroken();
    // They were histories in which something happened.
    assert!(fixed.entries > 1000 && fixed.runs > 1000 && fixed.transfers > 0 && fixed.assignments > 20);
}

#[test]
fn a_seed_replays_exactly() {
    let (first, second) = (Messages::new(), Messages::new());
    // Messages are the same whichever histories needed them before.
    for seed in 1000..1010 {
        let _ = run(&second, seed, None);
    }
    for seed in 0..number("MIMI_SIMULATION_REPLAYS").unwrap_or(40) {
        let digest = |messages| run(messages, seed, None).map(|outcome| outcome.digest).ok();
        assert_eq!(digest(&first), digest(&second), "seed {seed}");
    }
}

/// The seed that finds a fault first, of so many.
fn found(fault: Fault, seeds: u64) -> Option<(u64, Box<Broken>)> {
    let messages = Messages::new();
    (0..seeds).find_map(|seed| Some((seed, run(&messages, seed, Some(fault)).err()?)))
}

#[test]
fn every_injected_fault_is_found() {
    let mut table = String::new();
    let mut missed = Vec::new();
    for fault in FAULTS {
        let Some((seed, broken)) = found(*fault, 400) else {
            missed.push(fault);
            continue;
        };
        let Broken { steps, violation, steps_before, .. } = &*broken;
        writeln!(
            table,
            "| {fault:?} | {} | {seed} | {} of {steps_before} |",
            violation.condition,
            steps.len()
        )
        .unwrap();
    }
    println!("{table}");
    assert!(missed.is_empty(), "{missed:?} are not found; {table}");
}

const FAULTS: &[Fault] = &[
    Fault::AnswersEarly,
    Fault::TearsBatches,
    Fault::Loses("used_key_packages"),
    Fault::Loses("records"),
    Fault::Loses("outbox"),
    Fault::Loses("join_infos"),
    Fault::Loses("log_entries"),
    Fault::Loses("epochs"),
    Fault::Loses("events"),
    Fault::Loses("actor_snapshots"),
    Fault::Keeps("join_infos"),
    Fault::Keeps("outbox"),
];
