//! What the gateway can do, as ratios to what the same cores can do in the same run.
//!
//! Rounds measure every kind of work once, one after the other, so that whatever else the machine does falls on all
//! alike; the medians over rounds count. Server and load share the cores.

use std::{path::Path, sync::Arc, time::Duration};

use actors::Epoch;
use serde::Serialize;

use super::{
    LoadTestError, Verdict,
    board::Board,
    floor::{ConstantServer, Signatures},
    gate::Gate,
    hammer::{self, Rate},
    machine::Machine,
    options::CapacityOptions,
    player::Played,
    prepared::PreparedGroup,
    progress::Progress,
    report,
    run::observe,
    setup::{self, GroupPlan},
    target::{OwnGateway, Target},
    verify,
    wire::{Wire, request},
};
use crate::{
    api::{
        Endpoint as _,
        groups::{EpochRange, ListControlMessages},
        joining::GetGroupInfo,
        paths::{self, GroupPath},
    },
    config::Config,
};

/// How long a measurement without an end of its own takes.
const SLICE: Duration = Duration::from_secs(1);
/// How often the gateway writes snapshots of groups that changed, in seconds: all the time, as it were.
const SNAPSHOT_PERIOD_S: u64 = 2;
/// Epochs that one read of control messages asks for.
const READ_EPOCHS: u64 = 8;
/// The goal for the spread of latencies.
const SPREAD_MAX: f64 = 10.0;
/// A leaf node that is signed is about this long.
const LEAF_BYTES: usize = 180;

/// Medians over rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CapacityReport {
    machine: Machine,
    gateway: String,
    groups: usize,
    members: u32,
    connections: usize,
    signatures_per_commit: usize,
    /// Of a commit packet and its group info, in bytes.
    packet_bytes: (usize, usize),
    /// Of an answer to group-info and to control-msgs, in bytes.
    answer_bytes: (usize, usize),
    rounds: Vec<Round>,
    targets: Vec<TargetRow>,
    violations: Vec<String>,
}

/// What one round measured: operations a second, and latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    verified: Speed,
    accepted: Speed,
    accepted_p50_us: u64,
    accepted_p99_us: u64,
    stale: Speed,
    group_info: Speed,
    group_info_constant: Speed,
    control_msgs: Speed,
    control_msgs_constant: Speed,
    /// Of epochs that are in no group's memory any more.
    control_msgs_from_disk: Speed,
    half_load: Speed,
    half_load_p50_us: u64,
    half_load_p99_us: u64,
}

/// How often something was done.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Speed {
    per_s: f64,
    /// Processor time of server and load for one, in microseconds. Other programs on the machine hardly change it.
    cpu_us: f64,
}

impl From<&Rate> for Speed {
    fn from(rate: &Rate) -> Self {
        Self { per_s: rate.per_s, cpu_us: rate.cpu_us }
    }
}

/// A ratio, and what it should be.
#[derive(Clone, Debug, Serialize)]
struct TargetRow {
    what: &'static str,
    ratio: f64,
    /// The same by processor time, where that says the same.
    cpu_ratio: Option<f64>,
    goal: f64,
    /// Whether more is better.
    at_least: bool,
    is_reached: bool,
}

/// Measures a gateway in this process.
pub(super) fn run(
    options: &CapacityOptions,
    mut config: Config,
    inside: Option<&Path>,
    tell: &mut dyn FnMut(&str),
) -> Result<Verdict, LoadTestError> {
    let load = super::load_threads()?;
    config.passivation.snapshot_period_s = SNAPSHOT_PERIOD_S;
    let workers = config.internal.workers;
    let report = actix_web::rt::System::new().block_on(async {
        let gateway = OwnGateway::start(config, inside).await?;
        let constant = ConstantServer::start(workers)?;
        let target = gateway.target();
        tell(&format!("Measuring {}: {}\n", target.url, target.about));
        let measured = load.spawn(measure(target, constant.address.clone(), options.clone())).await;
        constant.stop().await;
        gateway.stop().await;
        measured.map_err(LoadTestError::panicked)?
    })?;
    tell(&report.table());
    if let Some(path) = &options.json {
        report::write_json(path, &report)?;
    }
    Ok(if report.violations.is_empty() { Verdict::Proven } else { Verdict::Broken })
}

async fn measure(
    target: Target,
    constant: String,
    options: CapacityOptions,
) -> Result<CapacityReport, LoadTestError> {
    let progress = Progress::new();
    let gate = Gate::new(&target, options.connections)?;
    let members = usize::try_from(options.members).unwrap_or(usize::MAX);
    progress.setting_up(options.groups);
    let counted = progress.clone();
    let made =
        setup::groups(&gate, options.groups, GroupPlan { members, live: 2 }, move || counted.one_more())
            .await?;
    let mut groups = made
        .into_iter()
        .map(|made| PreparedGroup::new(made, !options.without_group_info))
        .collect::<Result<Vec<_>, _>>()?;
    // The first commits are not measured: they warm everything up, and leave something to read.
    (groups, _) = replay(&target, prepare(&target, groups, options.commits).await?, &options, None).await?;

    let sizes = groups.first().map_or((0, 0), |group| group.sizes);
    let mut signed = vec![sizes.0, LEAF_BYTES];
    if !options.without_group_info {
        signed.push(sizes.1);
    }
    let signatures = Arc::new(Signatures::new(&signed)?);
    let mut answer_bytes = (0, 0);
    let stale: Vec<_> = groups.iter().map(|group| Arc::clone(&group.stale)).collect();
    let mut rounds = Vec::with_capacity(options.rounds);
    progress.rounds(options.rounds);
    for _ in 0..options.rounds {
        let round;
        (groups, round, answer_bytes) =
            measure_once(&target, &constant, &options, groups, &signatures, &stale).await?;
        rounds.push(round);
        progress.one_more();
    }
    let mut violations = Vec::new();
    for group in groups {
        let players = group.pair.into_iter().map(|member| Played { member: Some(member), lost: None });
        let players = players.collect();
        let board = Board::new(group.id, Vec::new(), group.acknowledged, 0);
        let (seen, _) = observe(&gate, &board, players).await?;
        violations.extend(verify::violations(&seen).iter().map(ToString::to_string));
    }
    progress.done();
    Ok(CapacityReport {
        machine: Machine::this(),
        gateway: target.about.clone(),
        groups: options.groups,
        members: options.members,
        connections: options.connections,
        signatures_per_commit: signed.len(),
        packet_bytes: sizes,
        answer_bytes,
        targets: targets(&rounds),
        rounds,
        violations,
    })
}

async fn measure_once(
    target: &Target,
    constant: &str,
    options: &CapacityOptions,
    groups: Vec<PreparedGroup>,
    signatures: &Arc<Signatures>,
    stale: &[Arc<[u8]>],
) -> Result<(Vec<PreparedGroup>, Round, (usize, usize)), LoadTestError> {
    let signatures = Arc::clone(signatures);
    let (per_s, cpu_us) = setup::compute(move || signatures.commits_per_s(SLICE)).await?;
    let groups = prepare(target, groups, options.commits).await?;
    let (groups, accepted) = replay(target, groups, options, None).await?;
    let hammer = |requests: Vec<Arc<[u8]>>, address: String, status| {
        hammer::hammer(address, requests, options.connections, status, SLICE)
    };
    let stale = hammer(stale.to_vec(), target.address().to_owned(), 409).await?;
    // What is newest now: the commits of this round.
    let reads = Reads::of(target, constant, &groups).await?;
    let mut rates = [Speed::default(); 5];
    for (rate, (address, requests)) in rates.iter_mut().zip(&reads.kinds) {
        *rate = Speed::from(&hammer(requests.clone(), address.clone(), 200).await?);
    }
    let [group_info, group_info_constant, control_msgs, control_msgs_constant, control_msgs_from_disk] =
        rates;
    let groups = prepare(target, groups, options.commits).await?;
    let (groups, half) = replay(target, groups, options, Some(accepted.per_s / 2.0)).await?;
    let round = Round {
        verified: Speed { per_s, cpu_us },
        accepted: Speed::from(&accepted),
        accepted_p50_us: accepted.latencies.percentile_us(50.0),
        accepted_p99_us: accepted.latencies.percentile_us(99.0),
        stale: Speed::from(&stale),
        group_info,
        group_info_constant,
        control_msgs,
        control_msgs_constant,
        control_msgs_from_disk,
        half_load: Speed::from(&half),
        half_load_p50_us: half.latencies.percentile_us(50.0),
        half_load_p99_us: half.latencies.percentile_us(99.0),
    };
    Ok((groups, round, reads.answer_bytes))
}

async fn prepare(
    target: &Target,
    groups: Vec<PreparedGroup>,
    commits: usize,
) -> Result<Vec<PreparedGroup>, LoadTestError> {
    let preparing: Vec<_> =
        groups.into_iter().map(|group| tokio::spawn(group.prepare(target.clone(), commits))).collect();
    let mut prepared = Vec::with_capacity(preparing.len());
    for group in preparing {
        prepared.push(group.await.map_err(LoadTestError::panicked)??);
    }
    Ok(prepared)
}

async fn replay(
    target: &Target,
    groups: Vec<PreparedGroup>,
    options: &CapacityOptions,
    rate: Option<f64>,
) -> Result<(Vec<PreparedGroup>, Rate), LoadTestError> {
    hammer::replay(target.address().to_owned(), groups, options.connections, rate).await
}

/// Requests that read, and the address for each kind: group-info and control-msgs, each before its constant, and
/// control-msgs of the oldest epochs.
struct Reads {
    kinds: [(String, Vec<Arc<[u8]>>); 5],
    answer_bytes: (usize, usize),
}

impl Reads {
    async fn of(target: &Target, constant: &str, groups: &[PreparedGroup]) -> Result<Self, LoadTestError> {
        let token = target.token.reveal();
        let (mut infos, mut messages, mut oldest) = (Vec::new(), Vec::new(), Vec::new());
        for group in groups {
            let path = GroupPath { app: target.app, group: group.id.clone() };
            let newest = group.acknowledged.last().map_or(1, |newest| newest.epoch.0);
            let first_newest = newest.saturating_sub(READ_EPOCHS - 1).max(1);
            infos.push(request("GET", &paths::fill(GetGroupInfo::PATH, &path), token, None).into());
            // Epoch 1 brought the members in; the ones after it are as long as the newest.
            for (requests, first) in [(&mut messages, first_newest), (&mut oldest, first_newest.min(2))] {
                let range = EpochRange {
                    start_epoch_id: Epoch(first),
                    end_epoch_id: Some(Epoch(first + READ_EPOCHS - 1)),
                    limit: None,
                };
                let query = serde_urlencoded::to_string(range)
                    .map_err(|error| LoadTestError::Broken(format!("a range has no text: {error}")))?;
                let messages_path = format!("{}?{query}", paths::fill(ListControlMessages::PATH, &path));
                requests.push(request("GET", &messages_path, token, None).into());
            }
        }
        let answer_bytes =
            (answer_bytes(target.address(), &infos).await?, answer_bytes(target.address(), &messages).await?);
        let same = |length: usize| vec![request("GET", &format!("/{length}"), token, None).into()];
        let (address, constant) = (target.address().to_owned(), constant.to_owned());
        Ok(Self {
            kinds: [
                (address.clone(), infos),
                (constant.clone(), same(answer_bytes.0)),
                (address.clone(), messages),
                (constant, same(answer_bytes.1)),
                (address, oldest),
            ],
            answer_bytes,
        })
    }
}

/// How long the answer to the first of these is.
async fn answer_bytes(address: &str, requests: &[Arc<[u8]>]) -> Result<usize, LoadTestError> {
    let broken = |source| LoadTestError::File { path: address.into(), source };
    let Some(request) = requests.first() else { return Ok(0) };
    let mut wire = Wire::connect(address).await.map_err(broken)?;
    Ok(wire.ask(request).await.map_err(broken)?.body.len())
}

fn targets(rounds: &[Round]) -> Vec<TargetRow> {
    // How much of one kind is done while one of the other is, by the clock and by processor time.
    let row = |what, goal, of: fn(&Round) -> (Speed, Speed)| {
        let ratio = median(rounds.iter().map(of).map(|(part, whole)| part.per_s / whole.per_s));
        let cpu_ratio = median(rounds.iter().map(of).map(|(part, whole)| whole.cpu_us / part.cpu_us));
        // A busy machine favours whoever has more threads, and that is the gateway: the clock alone proves nothing.
        let is_reached = ratio >= goal && cpu_ratio >= goal;
        TargetRow { what, ratio, cpu_ratio: Some(cpu_ratio), goal, at_least: true, is_reached }
    };
    let spread =
        median(rounds.iter().map(|round| micros(round.half_load_p99_us) / micros(round.half_load_p50_us)));
    vec![
        row("accepted commits to commits whose signatures alone are verified", 0.5, |round| {
            (round.accepted, round.verified)
        }),
        row("stale answers to accepted commits", 10.0, |round| (round.stale, round.accepted)),
        row("group-info to a constant body of the same size", 0.6, |round| {
            (round.group_info, round.group_info_constant)
        }),
        row("control-msgs (newest epochs) to a constant body of the same size", 0.6, |round| {
            (round.control_msgs, round.control_msgs_constant)
        }),
        TargetRow {
            what: "p99 to p50 of accepted commits at half the load, snapshots running",
            ratio: spread,
            cpu_ratio: None,
            goal: SPREAD_MAX,
            at_least: false,
            is_reached: spread <= SPREAD_MAX,
        },
    ]
}

impl CapacityReport {
    fn table(&self) -> String {
        let mut out = format!(
            "machine: {}; server and load share them\n{} groups of {}, {} connections; packets of {} B with group \
             infos of {} B, {} signatures a commit; medians of {} rounds\n\n",
            self.machine,
            self.groups,
            self.members,
            self.connections,
            self.packet_bytes.0,
            self.packet_bytes.1,
            self.signatures_per_commit,
            self.rounds.len()
        );
        out.push_str(&format!("{:<44}{:>10}{:>14}\n", "", "a second", "CPU, us each"));
        let mut line = |what: &str, of: fn(&Round) -> Speed, rest: String| {
            let per_s = median(self.rounds.iter().map(|round| of(round).per_s));
            let cpu_us = median(self.rounds.iter().map(|round| of(round).cpu_us));
            out.push_str(&format!("{what:<44}{per_s:>10.0}{cpu_us:>14.1}  {rest}\n"));
        };
        let p = |of: fn(&Round) -> u64| median(self.rounds.iter().map(|round| micros(of(round)))) / 1000.0;
        let latencies = |p50: f64, p99: f64| format!("p50 {p50:.2} ms, p99 {p99:.2} ms");
        line("commits whose signatures are verified", |round| round.verified, String::new());
        let accepted = latencies(p(|round| round.accepted_p50_us), p(|round| round.accepted_p99_us));
        line("accepted durable commits", |round| round.accepted, accepted);
        line("stale answers", |round| round.stale, String::new());
        let (info, messages) = self.answer_bytes;
        line("group-info", |round| round.group_info, format!("{info} B"));
        line("  a constant body", |round| round.group_info_constant, String::new());
        line("control-msgs", |round| round.control_msgs, format!("{messages} B"));
        line("  a constant body", |round| round.control_msgs_constant, String::new());
        line("  of the oldest epochs, from disk", |round| round.control_msgs_from_disk, String::new());
        let half = latencies(p(|round| round.half_load_p50_us), p(|round| round.half_load_p99_us));
        line("accepted at half the load, open loop", |round| round.half_load, half);
        out.push('\n');
        for target in &self.targets {
            out.push_str(&format!(
                "{:<70}{:>7.2}{}  goal {} {}: {}\n",
                target.what,
                target.ratio,
                target.cpu_ratio.map_or_else(|| " ".repeat(16), |ratio| format!(" (by CPU {ratio:>5.2})")),
                if target.at_least { "at least" } else { "at most" },
                target.goal,
                if target.is_reached { "reached" } else { "not reached" }
            ));
        }
        for violation in &self.violations {
            out.push_str(&format!("BROKEN: {violation}\n"));
        }
        if self.violations.is_empty() {
            out.push_str("proven: every acknowledged commit kept, in its epoch alone\n");
        }
        out
    }
}

/// NaN of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    match (values.len() / 2, values.len() % 2) {
        (middle @ 1.., 0) => f64::midpoint(at(middle - 1), at(middle)),
        (middle, _) => at(middle),
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^53")]
fn micros(micros: u64) -> f64 {
    micros as f64
}
