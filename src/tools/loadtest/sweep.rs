//! Series of short runs that differ in one parameter: contention, members, or connections.

use serde::Serialize;

use super::{
    ToolError, Verdict,
    machine::Machine,
    options::{Mix, ReportOptions, RunOptions, SweepOptions},
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
    let (mut contention, mut members, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    for committers in CONTENTIONS.into_iter().filter(|committers| *committers <= options.contention_max) {
        let run = RunOptions { groups: 1, members: committers + 1, contention: committers, ..base(options) };
        contention.push(super::run::run(target, &run, progress).await?);
    }
    for count in MEMBERS.into_iter().filter(|count| *count <= options.members_max) {
        let run = RunOptions { groups: GROUPS, members: count, ..base(options) };
        members.push(super::run::run(target, &run, progress).await?);
    }
    let reads: Mix = "commits=1,reads=1".parse().map_err(ToolError::Options)?;
    for count in CONNECTIONS.into_iter().filter(|count| *count <= options.connections_max) {
        let at_once = usize::try_from(count).unwrap_or(1);
        let run = RunOptions {
            groups: at_once,
            members: 2,
            connections: at_once,
            mix: reads.clone(),
            ..base(options)
        };
        connections.push(super::run::run(target, &run, progress).await?);
    }
    Ok(SweepReport { machine: Machine::this(), contention, members, connections })
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
        report: ReportOptions::default(),
    }
}

impl SweepReport {
    fn runs(&self) -> impl Iterator<Item = &RunReport> {
        self.contention.iter().chain(&self.members).chain(&self.connections)
    }

    /// The verdict of the worst run.
    pub(super) fn verdict(&self) -> Verdict {
        self.runs().map(RunReport::verdict).max().unwrap_or(Verdict::Unproven)
    }

    /// A line for each run.
    pub(super) fn table(&self) -> String {
        let mut out = format!("machine: {}\n", self.machine);
        for (what, runs, of) in self.parts() {
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
        if self.verdict() == Verdict::Proven {
            out.push_str("\nproven: every run\n");
        }
        out
    }

    pub(super) fn write(&self, options: &ReportOptions) -> Result<(), ToolError> {
        if let Some(path) = &options.json {
            report::write_json(path, self)?;
        }
        if let Some(path) = &options.html {
            let runs: Vec<_> = self.runs().cloned().collect();
            report::write(path, &report::sweep_page(&self.machine, &self.plots(), &runs)?)?;
        }
        Ok(())
    }

    #[expect(clippy::type_complexity, reason = "a local table: its name, its runs, and what varies")]
    fn parts(&self) -> [(&'static str, &[RunReport], fn(&RunReport) -> f64); 3] {
        [
            ("contention", &self.contention, |run| f64::from(run.shape.contention)),
            ("members", &self.members, |run| f64::from(run.shape.members)),
            ("connections", &self.connections, |run| {
                u32::try_from(run.shape.connections).map_or(0.0, f64::from)
            }),
        ]
    }

    fn plots(&self) -> Vec<Plot> {
        let mut plots = vec![
            Plot {
                title: "Conflict rate against contention",
                x: Axis::log("committers at once"),
                y: Axis::linear("commits that were too late, %"),
                lines: vec![Line {
                    name: "conflict rate".into(),
                    points: points(
                        &self.contention,
                        |run| f64::from(run.shape.contention),
                        |run| run.conflict_rate * 100.0,
                    ),
                }],
            },
            Plot {
                title: "Resolution against contention",
                x: Axis::log("committers at once"),
                y: Axis::log("milliseconds from losing to having won"),
                lines: percentiles(
                    &self.contention,
                    |run| f64::from(run.shape.contention),
                    "resolution: from losing to having won",
                ),
            },
        ];
        let titles = [
            (
                "Accepted commits a second against contention",
                "committers at once",
                "Latency against contention",
            ),
            ("Accepted commits a second against members", "members of each group", "Latency against members"),
            ("Accepted commits a second against connections", "connections", "Latency against connections"),
        ];
        for ((throughput, x, latency), (_, runs, of)) in titles.into_iter().zip(self.parts()) {
            plots.push(Plot {
                title: throughput,
                x: Axis::log(x),
                y: Axis::linear("accepted commits a second"),
                lines: vec![Line {
                    name: "accepted".into(),
                    points: points(runs, of, |run| run.accepted_per_s),
                }],
            });
            plots.push(Plot {
                title: latency,
                x: Axis::log(x),
                y: Axis::log("milliseconds to an accepted commit's answer"),
                lines: percentiles(runs, of, "commit accepted"),
            });
        }
        plots
    }
}

fn points(
    runs: &[RunReport],
    x: impl Fn(&RunReport) -> f64,
    y: impl Fn(&RunReport) -> f64,
) -> Vec<(f64, f64)> {
    runs.iter().map(|run| (x(run), y(run))).collect()
}

fn percentiles(runs: &[RunReport], x: impl Fn(&RunReport) -> f64, what: &str) -> Vec<Line> {
    let line = |name: &str, of: fn(&LatencyRow) -> u64| Line {
        name: name.to_owned(),
        points: runs
            .iter()
            .filter_map(|run| run.latency(what).map(|row| (x(run), millis(of(row)))))
            .collect(),
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
