//! Series of short runs that differ in one parameter: contention, members, or connections.

use serde::Serialize;

use super::{
    ToolError, Verdict,
    machine::Machine,
    options::{Mix, ReportOptions, RunOptions, SweepOptions},
    origin::Origin,
    progress::Progress,
    report::{self, Axis, LatencyRow, Line, Plot, RunReport},
    target::Target,
};

/// The numbers of concurrent committers.
const CONTENTIONS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Members of a group.
const MEMBERS: [u32; 4] = [2, 10, 100, 1000];
/// The numbers of connections, each with as many groups.
const CONNECTIONS: [u32; 5] = [1, 4, 16, 64, 256];
/// Groups of the runs over members.
const GROUPS: usize = 4;

/// The results of a sweep.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SweepReport {
    origin: Origin,
    /// Whether a signal ended it early: runs are missing.
    is_interrupted: bool,
    machine: Machine,
    /// One group; the committers are all of its members but the witness.
    contention: Vec<RunReport>,
    /// A few groups with one committer each.
    members: Vec<RunReport>,
    /// Groups of two that read their control messages; as many groups as connections.
    connections: Vec<RunReport>,
}

/// Runs all of them, one after the other.
pub(super) async fn run(
    target: &Target,
    options: &SweepOptions,
    progress: &Progress,
) -> Result<SweepReport, ToolError> {
    let origin = Origin::now();
    let (mut contention, mut members, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    for committers in CONTENTIONS.into_iter().filter(|committers| *committers <= options.contention_max) {
        let run = RunOptions { groups: 1, members: committers + 1, contention: committers, ..base(options) };
        contention.extend(one(target, &run, progress).await?);
    }
    for count in MEMBERS.into_iter().filter(|count| *count <= options.members_max) {
        let run = RunOptions { groups: GROUPS, members: count, ..base(options) };
        members.extend(one(target, &run, progress).await?);
    }
    let reads: Mix = "commits=1,reads=1".parse().map_err(ToolError::Options)?;
    for count in CONNECTIONS.into_iter().filter(|count| *count <= options.connections_max) {
        let at_once = usize::try_from(count).unwrap_or(1);
        let run = RunOptions { groups: at_once, connections: at_once, mix: reads.clone(), ..base(options) };
        connections.extend(one(target, &run, progress).await?);
    }
    let is_interrupted = target.stop.is_requested();
    let report =
        SweepReport { origin, is_interrupted, machine: Machine::this(), contention, members, connections };
    if report.runs().next().is_none() {
        return Err(ToolError::Interrupted);
    }
    Ok(report)
}

/// One run; none once the sweep was interrupted.
async fn one(
    target: &Target,
    options: &RunOptions,
    progress: &Progress,
) -> Result<Option<RunReport>, ToolError> {
    if target.stop.is_requested() {
        return Ok(None);
    }
    match super::run::run(target, options, progress).await {
        Ok(report) => Ok(Some(report)),
        Err(ToolError::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A closed loop with one committer and one witness per group.
fn base(options: &SweepOptions) -> RunOptions {
    RunOptions {
        target: options.target.clone(),
        groups: GROUPS,
        members: 2,
        contention: 1,
        witnesses: 1,
        rate: 0.0,
        closed: true,
        duration: options.duration,
        mix: Mix::default(),
        seed: options.seed,
        connections: 64,
        report: ReportOptions { fail_if: options.report.fail_if.clone(), ..ReportOptions::default() },
    }
}

impl SweepReport {
    fn runs(&self) -> impl Iterator<Item = &RunReport> {
        self.contention.iter().chain(&self.members).chain(&self.connections)
    }

    /// The verdict of the worst run.
    pub(super) fn verdict(&self) -> Verdict {
        let worst = self.runs().map(RunReport::verdict).max().unwrap_or(Verdict::Unproven);
        if self.is_interrupted { worst.max(Verdict::Interrupted) } else { worst }
    }

    /// A line for each run.
    pub(super) fn table(&self) -> String {
        let mut out = format!("started {}\nmachine: {}\n", self.origin, self.machine);
        for (what, _, runs, of) in self.parts() {
            out.push_str(&format!(
                "\n{what:<14}{:>12}{:>12}{:>12}{:>10}{:>12}{:>14}{:>14}{:>12}\n",
                "accepted/s",
                "conflicts",
                "attempts",
                "given up",
                "fairness",
                "accepted p50",
                "resolved p50",
                "reads p50"
            ));
            for run in runs {
                let p50 = |what| match run.latency(what) {
                    Some(row) => format!("{:.2} ms", millis(row.p50_us)),
                    None => "-".to_owned(),
                };
                out.push_str(&format!(
                    "{:<14}{:>12.1}{:>11.1}%{:>12.2}{:>10}{:>12}{:>14}{:>14}{:>12}\n",
                    of(run),
                    run.accepted_per_s,
                    run.conflict_rate * 100.0,
                    run.attempts_mean,
                    run.given_up,
                    run.fairness.map_or_else(|| "-".to_owned(), |index| format!("{index:.3}")),
                    p50("commit accepted"),
                    p50("resolution: from losing to having won"),
                    p50("reads"),
                ));
            }
        }
        for violation in self.runs().flat_map(|run| &run.proof.violations) {
            out.push_str(&format!("BROKEN: {violation}\n"));
        }
        for reason in self.runs().flat_map(|run| &run.proof.unproven) {
            out.push_str(&format!("not proven: {reason}\n"));
        }
        for (what, _, runs, of) in self.parts() {
            for run in runs {
                let place = format!("{what} {}", of(run));
                for reason in &run.failed_players {
                    out.push_str(&format!("PLAYER FAILED: {place}: {reason}\n"));
                }
                for outcome in run.thresholds.iter().filter(|outcome| outcome.is_broken) {
                    out.push_str(&format!("{place}: {outcome}\n"));
                }
            }
        }
        if self.is_interrupted {
            out.push_str("\nINTERRUPTED: these are the runs until then\n");
        }
        if self.verdict() == Verdict::Proven {
            out.push_str("\nproven: every run\n");
        }
        out
    }

    pub(super) fn write(&self, options: &ReportOptions) -> Result<(), ToolError> {
        let runs: Vec<_> = self.runs().collect();
        report::write(options, self, || report::sweep_page(&self.origin, &self.machine, &self.plots(), &runs))
    }

    #[expect(clippy::type_complexity, reason = "a local table: its name, its runs, and what varies")]
    fn parts(&self) -> [(&'static str, &'static str, &[RunReport], fn(&RunReport) -> f64); 3] {
        let connections = |run: &RunReport| u32::try_from(run.shape.connections).map_or(0.0, f64::from);
        [
            ("contention", "committers at once", &self.contention, |run| f64::from(run.shape.contention)),
            ("members", "members of each group", &self.members, |run| f64::from(run.shape.members)),
            ("connections", "connections", &self.connections, connections),
        ]
    }

    fn plots(&self) -> Vec<Plot> {
        let [(_, committers, contention, of), ..] = self.parts();
        let conflicts = line("conflict rate", contention, of, |run| Some(run.conflict_rate * 100.0));
        let too_late = Axis::linear("commits that were too late, %");
        let resolution = percentiles(contention, of, "resolution: from losing to having won");
        let resolved = Axis::log("milliseconds from losing to having won");
        let mut plots = vec![
            Plot::new("Conflict rate against contention", Axis::log(committers), too_late, vec![conflicts]),
            Plot::new("Resolution against contention", Axis::log(committers), resolved, resolution),
        ];
        for (what, x, runs, of) in self.parts() {
            let accepted = line("accepted", runs, of, |run| Some(run.accepted_per_s));
            let throughput = Axis::linear("accepted commits a second");
            let title = format!("Accepted commits a second against {what}");
            plots.push(Plot::new(title, Axis::log(x), throughput, vec![accepted]));
            let latency = Axis::log("milliseconds to an accepted commit's answer");
            let percentiles = percentiles(runs, of, "commit accepted");
            plots.push(Plot::new(format!("Latency against {what}"), Axis::log(x), latency, percentiles));
        }
        plots
    }
}

fn line(
    name: &str,
    runs: &[RunReport],
    x: impl Fn(&RunReport) -> f64,
    y: impl Fn(&RunReport) -> Option<f64>,
) -> Line {
    let points = runs.iter().filter_map(|run| Some((x(run), y(run)?)));
    Line { name: name.to_owned(), points: points.collect() }
}

fn percentiles(runs: &[RunReport], x: impl Fn(&RunReport) -> f64, what: &str) -> Vec<Line> {
    let line = |name: &str, of: fn(&LatencyRow) -> u64| {
        line(name, runs, &x, |run| run.latency(what).map(|row| millis(of(row))))
    };
    vec![
        line("p50", |row| row.p50_us),
        line("p90", |row| row.p90_us),
        line("p99", |row| row.p99_us),
        line("p99.9", |row| row.p999_us),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^53")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
