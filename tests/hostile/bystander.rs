//! A bystander: an ordinary user of the gateway, with a token of another application than the attacker's, that measures
//! its latencies.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::target::{Reply, Target};

/// How long the bystander is measured while all is quiet.
const QUIET: Duration = Duration::from_millis(700);
/// How long it is measured after an attack.
const AFTERMATH: Duration = Duration::from_millis(300);
/// A percentile below this says more about the machine than about the gateway.
const FLOOR: Duration = Duration::from_millis(25);
/// The bystander's pause between one request and the next.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the requests of a bystander took, ascending.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    took: Vec<Duration>,
    failed: Vec<String>,
}

impl Observation {
    /// The latency at this percentile.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let place = (self.took.len() * percent).div_ceil(100).saturating_sub(1);
        self.took.get(place).copied().unwrap_or_default()
    }
}

/// The effect of an attack on a bystander.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) quiet: Observation,
    pub(crate) attacked: Observation,
}

impl Damage {
    /// Measures a bystander while all is quiet, and again from the beginning of an attack to its end.
    pub(crate) fn of<T>(target: &Target, attack: impl FnOnce() -> T) -> (Self, T) {
        Self::to(target, |number| ask(target, number), attack)
    }

    /// As [`Damage::of`], to a bystander who makes these requests, numbered from 0 on.
    pub(crate) fn to<T>(
        target: &Target,
        ask: impl Fn(u64) -> Result<(), String> + Sync,
        attack: impl FnOnce() -> T,
    ) -> (Self, T) {
        let asked = AtomicU64::new(0);
        let ask = || ask(asked.fetch_add(1, Ordering::Relaxed));
        let quiet = observe(&ask, || std::thread::sleep(QUIET)).0;
        let (attacked, outcome) = observe(&ask, || {
            let outcome = attack();
            std::thread::sleep(AFTERMATH);
            outcome
        });
        let damage = Self { quiet, attacked };
        println!(
            "bystander: quiet p50 {:?} p99 {:?}, attacked p50 {:?} p99 {:?} ({} requests, {} failed); gateway {} MB, at \
             most {} MB",
            damage.quiet.percentile(50),
            damage.quiet.percentile(99),
            damage.attacked.percentile(50),
            damage.attacked.percentile(99),
            damage.attacked.took.len(),
            damage.attacked.failed.len(),
            target.resident_mb(),
            target.peak_mb(),
        );
        (damage, outcome)
    }

    /// Nothing of the bystander's failed, and its 99th percentile is at most this multiple of the quiet one.
    #[track_caller]
    pub(crate) fn is_at_most(&self, factor: u32) {
        assert!(self.quiet.failed.is_empty(), "{:?}", self.quiet.failed);
        assert!(self.attacked.failed.is_empty(), "{:?}", self.attacked.failed);
        assert!(self.attacked.took.len() >= 10, "the bystander was hardly there");
        let (quiet, attacked) = (self.quiet.percentile(99), self.attacked.percentile(99));
        assert!(attacked <= quiet.max(FLOOR) * factor, "p99 quiet {quiet:?}, attacked {attacked:?}");
    }
}

/// Sets a flag when it is dropped, also by a panic: the bystander must not go on for ever when an attack's test has failed.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Measures a bystander while something happens.
fn observe<T>(
    ask: &(impl Fn() -> Result<(), String> + Sync),
    happening: impl FnOnce() -> T,
) -> (Observation, T) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            let mut observation = Observation::default();
            while !is_over.load(Ordering::Acquire) {
                let started = Instant::now();
                match ask() {
                    Ok(()) => observation.took.push(started.elapsed()),
                    Err(failure) => observation.failed.push(failure),
                }
                std::thread::sleep(PAUSE);
            }
            observation.took.sort_unstable();
            observation
        });
        let outcome = {
            let _over = OnDrop(&is_over);
            happening()
        };
        (bystander.join().unwrap(), outcome)
    })
}

/// One request, of each kind in turn, on a connection of its own.
fn ask(target: &Target, number: u64) -> Result<(), String> {
    let reply = match number % 4 {
        0 => target.get("/healthz"),
        1 => target.call(&target.other, "GET", "/clients?tag=none", None),
        2 => {
            let client = format!(r#"{{"clientHandle":"bystander-{number}"}}"#);
            target.call(&target.other, "POST", "/clients", Some(&client))
        }
        _ => target.get("/readyz"),
    };
    succeeded(reply)
}

/// A request of the bystander that was answered with a success.
pub(crate) fn succeeded(reply: std::io::Result<Reply>) -> Result<(), String> {
    match reply {
        Ok(reply) if matches!(reply.status, 200 | 201) => Ok(()),
        Ok(reply) => Err(format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body))),
        Err(error) => Err(error.to_string()),
    }
}
