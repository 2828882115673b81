//! The report of a run: figures for people (`table.rs`, `page.rs`) and for programs (JSON).

mod page;
mod plot;
mod table;

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

pub(super) use self::{
    page::of_sweep as sweep_page,
    plot::{Axis, Line, Plot},
};
pub use super::recorder::Second;
use super::{
    ToolError, Verdict,
    machine::Machine,
    options::{Kind, ReportOptions, RunOptions},
    origin::Origin,
    recorder::{Figures, Latencies, Span},
    target::Target,
    thresholds::{Threshold, ThresholdOutcome},
    verify::{self, Observations},
};

/// Percentiles of the latency curves.
const CURVE: [f64; 13] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];
/// The generator is late if its delay exceeds this part of the median latency, in percent.
const LAG_PERCENT_MAX: u64 = 25;

/// The parameters of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Shape {
    /// The gateway.
    pub gateway: String,
    /// Its address.
    pub url: String,
    /// Groups.
    pub groups: usize,
    /// Members of each.
    pub members: u32,
    /// The members of each that keep their keys.
    pub live_members: u32,
    /// Concurrent committers.
    pub contention: u32,
    /// Arrivals per second; `None` for a closed loop.
    pub rate_per_s: Option<f64>,
    /// The time during which operations arrived, in seconds.
    pub duration_s: f64,
    /// The mix.
    pub mix: String,
    /// The seed.
    pub seed: u64,
    /// Connections.
    pub connections: usize,
}

impl Shape {
    pub(super) fn of(target: &Target, options: &RunOptions) -> Self {
        Self {
            gateway: target.about.clone(),
            url: target.url.clone(),
            groups: options.groups,
            members: options.members,
            live_members: options.live_members(),
            contention: options.contention,
            rate_per_s: (!options.closed).then_some(options.rate),
            duration_s: options.duration.as_secs_f64(),
            mix: options.mix.to_string(),
            seed: options.seed,
            connections: options.connections,
        }
    }
}

/// The latencies of one kind of outcome, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyRow {
    /// The name of the measurement.
    pub what: String,
    /// The number of measurements.
    pub count: u64,
    /// Half are at most this.
    pub p50_us: u64,
    /// 90 % are at most this.
    pub p90_us: u64,
    /// 99 % are at most this.
    pub p99_us: u64,
    /// 99.9 % are at most this.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
    /// Percentile and microseconds.
    pub curve: Vec<(f64, u64)>,
}

impl LatencyRow {
    fn of(what: impl Into<String>, latencies: &Latencies) -> Option<Self> {
        if latencies.count() == 0 {
            return None;
        }
        let at = |percentile| latencies.percentile_us(percentile);
        Some(Self {
            what: what.into(),
            count: latencies.count(),
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: latencies.max_us(),
            curve: CURVE.iter().map(|percentile| (*percentile, at(*percentile))).collect(),
        })
    }
}

/// The proof of the run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Proof {
    /// Epochs that were compared with the acknowledged ones by SHA-256.
    pub epochs: usize,
    /// Live members that followed to the end and were compared with others of their group.
    pub members: usize,
    /// Groups with fewer than two live members, where agreement proves nothing.
    pub groups_without_agreement: usize,
    /// Broken promises.
    pub violations: Vec<String>,
    /// Checks that could not be made, with the reason: neither kept nor broken.
    pub unproven: Vec<String>,
}

impl Proof {
    /// Adds the observations of one more group.
    pub(super) fn add(&mut self, seen: &Observations) {
        self.epochs += seen.kept.len();
        match seen.standings.len() {
            0 | 1 => self.groups_without_agreement += 1,
            members => self.members += members,
        }
        self.violations.extend(verify::violations(seen));
    }

    /// Broken if any promise was, whatever else could not be checked.
    fn verdict(&self) -> Verdict {
        match (self.violations.is_empty(), self.unproven.is_empty()) {
            (true, true) => Verdict::Proven,
            (true, false) => Verdict::Unproven,
            (false, _) => Verdict::Broken,
        }
    }
}

/// How a run ended.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) is_interrupted: bool,
    pub(super) failed_players: Vec<String>,
    pub(super) proof: Proof,
}

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The date, the version and the command line.
    pub origin: Origin,
    /// Whether a signal ended the load early.
    pub is_interrupted: bool,
    /// The parameters of the run.
    pub shape: Shape,
    /// The machine.
    pub machine: Machine,
    /// The time to create the groups, in seconds.
    pub setup_s: f64,
    /// The time of the load, including the end of operations in flight, in seconds.
    pub played_s: f64,
    /// Accepted commits.
    pub accepted: u64,
    /// Accepted commits per second.
    pub accepted_per_s: f64,
    /// The proportion of answered commits that were too late.
    pub conflict_rate: f64,
    /// Answered uploads, accepted or too late, per accepted one, including those of commits that were given up.
    pub attempts_mean: f64,
    /// The largest number of uploads of one accepted commit.
    pub attempts_max: u32,
    /// The number of accepted commits, by their number of uploads.
    pub attempts: BTreeMap<u32, u64>,
    /// Jain's index of the committers' shares of accepted uploads, the mean over groups: 1 is fair, and 1/n means that one
    /// committer always wins. `None` with a single committer.
    pub fairness: Option<f64>,
    /// Latencies.
    pub latencies: Vec<LatencyRow>,
    /// Errors by type.
    pub errors: BTreeMap<String, u64>,
    /// Arrivals that were dropped because too many waited.
    pub shed: u64,
    /// Commits that were given up, at the end of the run or after errors. A closed loop ends for all committers at once, so
    /// those that were losing then are included here: neither their attempts nor their waiting times are in `attempts` and the
    /// resolution.
    pub given_up: u64,
    /// Proposals and joins that were given up.
    pub given_up_others: u64,
    /// Whether the generator itself was late: its part of the latencies is significant.
    pub generator_is_late: bool,
    /// A line for each second.
    pub seconds: Vec<Second>,
    /// Players that could not continue, with the reason; the proof is about the others.
    pub failed_players: Vec<String>,
    /// The thresholds, each with its figure.
    pub thresholds: Vec<ThresholdOutcome>,
    /// The proof.
    pub proof: Proof,
}

impl RunReport {
    pub(super) fn new(
        origin: Origin,
        shape: Shape,
        figures: &Figures,
        committers: &[Vec<(u64, u64)>],
        (setup_s, played_s): (f64, f64),
        Ending { is_interrupted, failed_players, proof }: Ending,
    ) -> Self {
        let none = Latencies::default();
        let done = |kind| figures.done.get(&kind).unwrap_or(&none);
        let late = |kind| figures.late.get(&kind).unwrap_or(&none);
        let span = |span| figures.spans.get(&span).unwrap_or(&none);
        let accepted = done(Kind::Commit).count();
        let answered = accepted + late(Kind::Commit).count();
        let given_up = figures.given_up.get(&Kind::Commit).copied().unwrap_or_default();
        let lag = span(Span::Lag);
        let mut latencies = vec![
            LatencyRow::of("commit accepted", done(Kind::Commit)),
            LatencyRow::of("commit refused, too late", late(Kind::Commit)),
            LatencyRow::of("resolution: from losing to having won", span(Span::Resolution)),
            LatencyRow::of("from due to having won, all attempts", span(Span::Settled)),
            LatencyRow::of("lag of the generator", lag),
        ];
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Commit) {
            latencies.push(LatencyRow::of(kind.name(), done(kind)));
            latencies.push(LatencyRow::of(format!("{}, too late", kind.name()), late(kind)));
        }
        let lag_part = lag.percentile_us(50.0) * 100;
        Self {
            origin,
            is_interrupted,
            shape,
            machine: Machine::this(),
            setup_s,
            played_s,
            accepted,
            accepted_per_s: ratio(accepted, 1) / played_s.max(1e-9),
            conflict_rate: ratio(late(Kind::Commit).count(), answered),
            attempts_mean: ratio(answered, accepted),
            attempts_max: figures.attempts.keys().next_back().copied().unwrap_or_default(),
            attempts: figures.attempts.clone(),
            fairness: fairness(committers),
            latencies: latencies.into_iter().flatten().collect(),
            errors: figures.errors.clone(),
            shed: figures.shed,
            given_up,
            given_up_others: figures.given_up.values().sum::<u64>() - given_up,
            generator_is_late: lag_part > LAG_PERCENT_MAX * done(Kind::Commit).percentile_us(50.0),
            seconds: figures.seconds.clone(),
            failed_players,
            thresholds: Vec::new(),
            proof,
        }
    }

    /// The latencies of this name.
    pub(super) fn latency(&self, what: &str) -> Option<&LatencyRow> {
        self.latencies.iter().find(|row| row.what == what)
    }

    /// Compares the figures with the thresholds.
    pub(super) fn judge(&mut self, thresholds: &[Threshold]) {
        self.thresholds = thresholds.iter().map(|threshold| threshold.judge(self)).collect();
    }

    /// The verdict on the run: the worst that happened.
    pub fn verdict(&self) -> Verdict {
        let verdicts = [
            (self.is_interrupted, Verdict::Interrupted),
            (!self.failed_players.is_empty(), Verdict::PlayerFailed),
            (self.thresholds.iter().any(|outcome| outcome.is_broken), Verdict::ThresholdBroken),
        ];
        let happened = verdicts.into_iter().filter_map(|(happened, verdict)| happened.then_some(verdict));
        happened.fold(self.proof.verdict(), Verdict::max)
    }

    /// A table for people.
    pub fn table(&self) -> String {
        table::of(self)
    }

    /// Writes the requested files.
    pub(super) fn write(&self, options: &ReportOptions) -> Result<(), ToolError> {
        write(options, self, || page::of_run(self))
    }
}

/// Writes figures as JSON and as a page, where the options name a file.
pub(super) fn write(
    options: &ReportOptions,
    figures: &impl Serialize,
    page: impl FnOnce() -> String,
) -> Result<(), ToolError> {
    let json = options.json.as_ref().map_or(Ok(()), |path| write_json(path, figures));
    // A place where one cannot be written costs only that one.
    if let Some(path) = &options.html {
        std::fs::write(path, page()).map_err(ToolError::system(path.display()))?;
    }
    json
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ToolError> {
    let json = serde_json::to_vec_pretty(value)
        .map_err(|error| ToolError::Broken(format!("the figures have no JSON form: {error}")))?;
    std::fs::write(path, json).map_err(ToolError::system(path.display()))
}

/// 0 for an empty list.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Jain's index of the rates at which committers' uploads were accepted, as the mean over groups.
fn fairness(groups: &[Vec<(u64, u64)>]) -> Option<f64> {
    let indexes = groups.iter().filter_map(|committers| {
        let rates: Vec<f64> = committers
            .iter()
            .filter(|(uploads, _)| *uploads > 0)
            .map(|(uploads, accepted)| ratio(*accepted, *uploads))
            .collect();
        let (sum, squares) = (rates.iter().sum::<f64>(), rates.iter().map(|rate| rate * rate).sum::<f64>());
        (rates.len() > 1 && squares > 0.0).then(|| sum * sum / (ratio(rates.len() as u64, 1) * squares))
    });
    let indexes: Vec<f64> = indexes.collect();
    (!indexes.is_empty()).then(|| indexes.iter().sum::<f64>() / ratio(indexes.len() as u64, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::loadtest::verify::Standing;

    #[test]
    fn a_proof_says_what_was_not_looked_at() {
        let standing = |name: &str| Standing { name: name.into(), epoch: Ok(Default::default()) };
        let mut proof = Proof::default();
        proof.add(&Observations { standings: vec![standing("a"), standing("b")], ..Observations::default() });
        proof.add(&Observations { standings: vec![standing("a")], ..Observations::default() });
        assert_eq!((proof.members, proof.groups_without_agreement), (2, 1));
        assert_eq!(proof.verdict(), Verdict::Proven);
        proof.unproven.push("nothing was accepted".into());
        assert_eq!(proof.verdict(), Verdict::Unproven);
        proof.add(&Observations { current: actors::Epoch(1), ..Observations::default() });
        assert_eq!(proof.verdict(), Verdict::Broken);
    }

    #[test]
    fn fairness_is_jains_index() {
        fn check(groups: &[Vec<(u64, u64)>], expected: Option<f64>) {
            let found = fairness(groups);
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            let distance = found.unwrap_or_default() - expected.unwrap_or_default();
            assert!(distance.abs() < 1e-9, "{found:?}, expected {expected:?}");
        }
        check(&[], None);
        check(&[vec![(5, 5)]], None);
        check(&[vec![(4, 2), (8, 4)]], Some(1.0));
        check(&[vec![(4, 4), (4, 0)]], Some(0.5));
        check(&[vec![(4, 4), (4, 0)], vec![(1, 1), (2, 2)]], Some(0.75));
        check(&[vec![(4, 4), (4, 0), (4, 0), (4, 0)]], Some(0.25));
    }
}
