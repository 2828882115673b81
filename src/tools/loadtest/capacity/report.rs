//! The figures of a capacity measurement: medians over rounds, and their ratios.

use serde::Serialize;

use super::super::{machine::Machine, origin::Origin};

/// The goal for the spread of latencies.
const SPREAD_MAX: f64 = 10.0;

/// Medians over rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CapacityReport {
    pub(super) origin: Origin,
    /// Whether a signal ended it before its last round.
    pub(super) is_interrupted: bool,
    pub(super) machine: Machine,
    pub(super) gateway: String,
    pub(super) groups: usize,
    pub(super) members: u32,
    pub(super) connections: usize,
    pub(super) signatures_per_commit: usize,
    /// The sizes of a commit packet and its group info, in bytes.
    pub(super) packet_bytes: (usize, usize),
    /// The sizes of the answers to group-info and control-msgs, in bytes.
    pub(super) answer_bytes: (usize, usize),
    pub(super) rounds: Vec<Round>,
    pub(super) targets: Vec<TargetRow>,
    pub(super) violations: Vec<String>,
}

/// The measurements of one round: operations per second, and latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Round {
    pub(super) verified: Speed,
    pub(super) accepted: Speed,
    pub(super) accepted_p50_us: u64,
    pub(super) accepted_p99_us: u64,
    pub(super) stale: Speed,
    pub(super) group_info: Speed,
    pub(super) group_info_constant: Speed,
    pub(super) control_msgs: Speed,
    pub(super) control_msgs_constant: Speed,
    /// Reads of epochs that no group keeps in memory any more.
    pub(super) control_msgs_from_disk: Speed,
    pub(super) half_load: Speed,
    pub(super) half_load_p50_us: u64,
    pub(super) half_load_p99_us: u64,
}

/// The rate of one kind of work.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Speed {
    pub(super) per_s: f64,
    /// The processor time of server and load for one operation, in microseconds. Other programs on the machine hardly affect
    /// it.
    pub(super) cpu_us: f64,
}

/// A ratio, and its goal.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TargetRow {
    what: &'static str,
    ratio: f64,
    /// The ratio by processor time, where it is comparable.
    cpu_ratio: Option<f64>,
    goal: f64,
    /// Whether a higher ratio is better.
    at_least: bool,
    is_reached: bool,
}

pub(super) fn targets(rounds: &[Round]) -> Vec<TargetRow> {
    // The ratio of two rates, by the clock and by processor time.
    let row = |what, goal, of: fn(&Round) -> (Speed, Speed)| {
        let ratio = median(rounds.iter().map(of).map(|(part, whole)| part.per_s / whole.per_s));
        let cpu_ratio = median(rounds.iter().map(of).map(|(part, whole)| whole.cpu_us / part.cpu_us));
        // A busy machine favours the process with more threads, which is the gateway, so the clock alone proves nothing.
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
    pub(super) fn table(&self) -> String {
        let mut out = format!(
            "started {}\nmachine: {}; server and load share them\n{} groups of {}, {} connections; packets of {} B with group \
             infos of {} B, {} signatures a commit; medians of {} rounds\n\n",
            self.origin,
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
        if self.is_interrupted {
            out.push_str("INTERRUPTED: these are the rounds until then\n");
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

/// NaN for an empty list.
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
