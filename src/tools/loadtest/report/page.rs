//! A run or a sweep as one self-contained page.

use super::{
    LatencyRow, Plot, RunReport,
    plot::{Axis, Line, escaped},
};
use crate::tools::loadtest::{Verdict, machine::Machine, origin::Origin};

const STYLE: &str = concat!(include_str!("../../../http/style.css"), include_str!("page.css"));

/// The page of one run.
pub(super) fn of_run(report: &RunReport) -> String {
    let curves = report.latencies.iter().take(4).map(curve).collect();
    let (percentile, milliseconds) = (Axis::nines("percentile"), Axis::log("milliseconds"));
    let throughput = vec![
        by_second(report, "commits accepted", |second| second.accepted),
        by_second(report, "commits too late", |second| second.late),
        by_second(report, "other answers", |second| second.other),
        by_second(report, "failures", |second| second.failed),
    ];
    let (seconds, in_a_second) = (Axis::linear("seconds since the start"), Axis::linear("in a second"));
    let needed_more = Axis::linear("part of the accepted commits that needed more, %");
    let (uploads, attempts) = (Axis::linear("uploads"), vec![attempts(report)]);
    let plots = [
        Plot::new("Latency by percentile", percentile, milliseconds, curves),
        Plot::new("Throughput over time", seconds, in_a_second, throughput),
        Plot::new("Uploads until one was accepted", uploads, needed_more, attempts),
    ];
    let proof = match report.proof.verdict() {
        Verdict::Proven => {
            "<p class=\"good\">Proven: one winner for each epoch, nothing acknowledged is missing, all live members agree.</p>"
        }
        Verdict::Unproven => "<p class=\"bad\">Not proven: see the table.</p>",
        Verdict::Interrupted | Verdict::PlayerFailed | Verdict::ThresholdBroken | Verdict::Broken => {
            "<p class=\"bad\">Broken: see the table.</p>"
        }
    };
    let mut body = format!("{}{proof}", about(&report.origin, &report.machine));
    if report.is_interrupted {
        body.push_str("<p class=\"bad\">Interrupted: these are the figures until then.</p>");
    }
    if !report.failed_players.is_empty() {
        let failed = report.failed_players.len();
        body.push_str(&format!("<p class=\"bad\">{failed} players failed: see the table.</p>"));
    }
    for outcome in &report.thresholds {
        let class = if outcome.is_broken { "bad" } else { "good" };
        body.push_str(&format!("<p class=\"{class}\">{}</p>", escaped(&outcome.to_string())));
    }
    body.push_str(&tiles(report));
    for plot in &plots {
        body.push_str(&plot.figure());
    }
    body.push_str(&format!("<pre>{}</pre>", escaped(&report.table())));
    page("Load test of a MIMI gateway", &body)
}

/// The page of a sweep.
pub(crate) fn of_sweep(origin: &Origin, machine: &Machine, plots: &[Plot], runs: &[&RunReport]) -> String {
    let broken = runs.iter().filter(|run| run.verdict() != Verdict::Proven).count();
    let mut body = format!("{}<p>{} runs.</p>", about(origin, machine), runs.len());
    body.push_str(&match broken {
        0 => "<p class=\"good\">Every run was proven.</p>".to_owned(),
        some => {
            format!("<p class=\"bad\">{some} runs were interrupted, not proven, or broke a promise or a threshold: see their tables.</p>")
        }
    });
    for plot in plots {
        body.push_str(&plot.figure());
    }
    for run in runs {
        let shape = &run.shape;
        body.push_str(&format!(
            "<details><summary>{} groups of {}, contention {}, {} connections</summary><pre>{}</pre></details>",
            shape.groups,
            shape.members,
            shape.contention,
            shape.connections,
            escaped(&run.table())
        ));
    }
    page("Sweep of a MIMI gateway", &body)
}

fn tiles(report: &RunReport) -> String {
    let p99 = report.latency("commit accepted").map_or(0, |row| row.p99_us);
    let resolution = report.latency("resolution: from losing to having won").map_or(0, |row| row.p50_us);
    let tile = |value: String, what: &str| format!("<div><b>{value}</b><span>{what}</span></div>");
    format!(
        "<section class=\"tiles\">{}{}{}{}{}{}</section>",
        tile(format!("{:.1}", report.accepted_per_s), "accepted commits a second"),
        tile(format!("{:.1} %", report.conflict_rate * 100.0), "conflict rate"),
        tile(format!("{:.2}", report.attempts_mean), "answered uploads for an accepted commit"),
        tile(report.given_up.to_string(), "commits given up"),
        tile(format!("{:.1} ms", number(p99) / 1000.0), "p99 of accepted commits"),
        tile(format!("{:.1} ms", number(resolution) / 1000.0), "p50 of resolution"),
    )
}

fn curve(row: &LatencyRow) -> Line {
    let points = row.curve.iter().map(|(percentile, micros)| (*percentile, number(*micros) / 1000.0));
    Line { name: row.what.clone(), points: points.collect() }
}

fn by_second(report: &RunReport, name: &str, of: fn(&super::Second) -> u64) -> Line {
    let points = report.seconds.iter().enumerate();
    let points = points.map(|(second, line)| (number(second as u64), number(of(line)))).collect();
    Line { name: name.to_owned(), points }
}

fn attempts(report: &RunReport) -> Line {
    let all: u64 = report.attempts.values().sum();
    let mut left = all;
    let points = report.attempts.iter().map(|(attempts, count)| {
        left -= count;
        (f64::from(*attempts), 100.0 * super::ratio(left, all))
    });
    Line { name: "commits".into(), points: points.collect() }
}

fn about(origin: &Origin, machine: &Machine) -> String {
    // A line breaks between words, and not at the hyphens of an option.
    let words = origin.command.split(' ').map(|word| format!("<span>{}</span>", escaped(word)));
    format!(
        "<p class=\"about\"><time>{}</time> with version {} on {}<br><code>{}</code></p>",
        origin.started,
        origin.version,
        escaped(&machine.to_string()),
        words.collect::<Vec<_>>().join(" ")
    )
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head>\n\
         <body><main><h1>{title}</h1>{body}</main></body></html>\n"
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts and microseconds of a run are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
