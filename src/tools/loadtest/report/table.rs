//! A run as text.

use std::fmt::{self, Write as _};

use super::{Proof, RunReport};
use crate::tools::loadtest::Verdict;

/// The failed players that are printed, each with its reason.
const FAILED_PLAYERS_MAX: usize = 10;

/// The table that is printed at the end.
pub(super) fn of(report: &RunReport) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &RunReport) -> fmt::Result {
    write_shape(out, report)?;
    writeln!(out)?;
    write_commits(out, report)?;
    writeln!(out)?;
    write_latencies(out, report)?;
    writeln!(out)?;
    write_failures(out, report)?;
    write_ending(out, report)?;
    write_proof(out, &report.proof, report.proof.verdict())
}

fn write_shape(out: &mut String, report: &RunReport) -> fmt::Result {
    let shape = &report.shape;
    writeln!(out, "load test of {} at {}", shape.gateway, shape.url)?;
    writeln!(out, "started {}", report.origin)?;
    writeln!(out, "machine: {}", report.machine)?;
    let loop_kind = match shape.rate_per_s {
        Some(rate) => format!("open loop, {rate} arrivals/s; latency counts from the scheduled time"),
        None => "closed loop; latency counts from the request".to_owned(),
    };
    writeln!(
        out,
        "{} groups of {} members, {} of them live, {} commit at once; {loop_kind}",
        shape.groups, shape.members, shape.live_members, shape.contention
    )?;
    writeln!(
        out,
        "mix {}, seed {}, {} connections; groups made in {:.1} s, played for {:.1} s",
        shape.mix, shape.seed, shape.connections, report.setup_s, report.played_s
    )
}

fn write_commits(out: &mut String, report: &RunReport) -> fmt::Result {
    writeln!(out, "accepted commits     {:>12}   {:.1}/s", report.accepted, report.accepted_per_s)?;
    writeln!(
        out,
        "conflict rate        {:>11.1}%   of answered commits were too late",
        report.conflict_rate * 100.0
    )?;
    writeln!(
        out,
        "attempts             {:>12.2}   answered uploads for an accepted commit; {} at most for one",
        report.attempts_mean, report.attempts_max
    )?;
    writeln!(
        out,
        "given up             {:>12}   commits that never were accepted: not in resolution and settling times",
        report.given_up
    )?;
    if let Some(fairness) = report.fairness {
        writeln!(
            out,
            "fairness             {fairness:>12.3}   Jain's index; 1 is fair, 1/{} is not",
            report.shape.contention
        )?;
    }
    Ok(())
}

fn write_latencies(out: &mut String, report: &RunReport) -> fmt::Result {
    writeln!(
        out,
        "{:<40}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "milliseconds", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for row in &report.latencies {
        let cells = [row.p50_us, row.p90_us, row.p99_us, row.p999_us, row.max_us].map(millis);
        writeln!(
            out,
            "{:<40}{:>10}{}",
            row.what,
            row.count,
            cells.map(|cell| format!("{cell:>10}")).concat()
        )?;
    }
    Ok(())
}

fn write_failures(out: &mut String, report: &RunReport) -> fmt::Result {
    if report.errors.is_empty() {
        writeln!(out, "errors: none")?;
    }
    for (error, count) in &report.errors {
        writeln!(out, "error: {count} times {error}")?;
    }
    if report.shed > 0 {
        writeln!(out, "{} arrivals were dropped: too much was waiting; lower --rate", report.shed)?;
    }
    if report.given_up_others > 0 {
        writeln!(out, "{} proposals and joins were given up", report.given_up_others)?;
    }
    if report.generator_is_late {
        writeln!(
            out,
            "the generator was late: its own lag is more than a quarter of the median latency, so the latencies \
             say less about the gateway; lower --rate or give it more cores"
        )?;
    }
    Ok(())
}

fn write_ending(out: &mut String, report: &RunReport) -> fmt::Result {
    if report.is_interrupted {
        writeln!(
            out,
            "INTERRUPTED after {:.1} s of {} s: these are the figures until then",
            report.played_s, report.shape.duration_s
        )?;
    }
    for reason in report.failed_players.iter().take(FAILED_PLAYERS_MAX) {
        writeln!(out, "PLAYER FAILED: {reason}")?;
    }
    if let Some(more) = report.failed_players.len().checked_sub(FAILED_PLAYERS_MAX).filter(|more| *more > 0) {
        writeln!(out, "PLAYER FAILED: {more} more")?;
    }
    for outcome in &report.thresholds {
        writeln!(out, "{outcome}")?;
    }
    Ok(())
}

fn write_proof(out: &mut String, proof: &Proof, verdict: Verdict) -> fmt::Result {
    for violation in &proof.violations {
        writeln!(out, "BROKEN: {violation}")?;
    }
    for reason in &proof.unproven {
        writeln!(out, "not proven: {reason}")?;
    }
    if proof.groups_without_agreement > 0 {
        writeln!(
            out,
            "agreement not checked in {} groups, which have fewer than two live members",
            proof.groups_without_agreement
        )?;
    }
    if verdict == Verdict::Proven {
        write!(
            out,
            "proven: one winner in each of {} epochs, every acknowledged commit kept byte for byte",
            proof.epochs
        )?;
        if proof.members > 0 {
            write!(out, ", {} live members agree", proof.members)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Microseconds as milliseconds.
fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}
