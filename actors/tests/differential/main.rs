//! The gateway's observer of MLS groups next to those of openmls and mls-rs.
//!
//! Groups of forged members live through random histories; after each commit all observers must have the forged group's
//! context and tree. On the way, messages are changed in one place and signed again, so that the change reaches a rule and
//! not the signature: nobody may be changed by what it refuses, and the observers must say the same. Where they
//! differ and the gateway is right, [`explained::explained`] says why.
//!
//! `MIMI_DIFFERENTIAL_COMMITS`, `MIMI_DIFFERENTIAL_MUTATIONS` and `MIMI_DIFFERENTIAL_SEED` make the run longer, or another one.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect has failed"
)]

mod clients;
mod dice;
mod explained;
mod followed;
mod history;
mod ledger;
mod libraries;
mod mutate;
mod mutations;
mod seeds;

use actors::Clock;
use mls_forge::Suite;

use crate::{
    dice::Dice,
    explained::explained,
    history::History,
    ledger::Ledger,
    mutations::{Rate, around_commit, key_packages, openings},
};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// The suites of the histories: those that the libraries have more often than the others.
fn suite_of(seed: u64) -> Suite {
    match seed % 10 {
        0..=4 => Suite::Ed25519,
        5 => Suite::P256,
        6 => Suite::Ed25519ChaCha,
        7 => Suite::Ed448,
        8 => Suite::P384,
        _ => *Dice::new(seed).pick(&[Suite::P521, Suite::Ed448ChaCha]),
    }
}

/// One history of some commits.
fn live(seed: u64, suite: Suite, size_max: usize, commits: u64, rate: Rate) -> Ledger {
    let mut ledger = Ledger::new(seed);
    ledger.rate = rate;
    let now = Clock::system().now();
    let mut history = History::begin(suite, size_max, Dice::new(seed), now, &mut ledger);
    for _ in 1..commits {
        let planned = history.plan(&mut ledger);
        around_commit(&mut history, &planned, &mut ledger);
        let forged = planned.draft(&history.followed.group).sign();
        history.followed.commit(planned.name, &forged, &mut ledger);
        key_packages(&mut history, &mut ledger);
        openings(&mut history, &mut ledger);
    }
    history.followed.check_unchanged();
    let planned = history.end(&mut ledger);
    around_commit(&mut history, &planned, &mut ledger);
    let forged = planned.draft(&history.followed.group).sign();
    history.followed.commit(planned.name, &forged, &mut ledger);
    history.followed.check_is_over();
    ledger
}

/// Runs histories until enough was done, and reports.
fn run(is_enough: impl Fn(&Ledger) -> bool, one: impl Fn(u64) -> Ledger) {
    let mut sum = Ledger::new(0);
    let mut seed = setting("MIMI_DIFFERENTIAL_SEED", 1);
    let mut said = std::time::Instant::now();
    while !is_enough(&sum) {
        sum.add(one(seed));
        seed += 1;
        if said.elapsed().as_secs() >= 60 {
            said = std::time::Instant::now();
            eprintln!("until seed {seed}: {sum}");
        }
    }
    eprintln!("until seed {seed}: {sum}");
    for (one, used) in explained().zip(&sum.used) {
        eprintln!("{used:>8} times: {}", one.because);
    }
    let unexplained = sum.unexplained.len();
    assert_eq!(unexplained, 0, "{unexplained} unexplained:\n{}", sum.unexplained.join("\n"));
}

#[test]
fn random_histories_are_followed_alike() {
    let commits = setting("MIMI_DIFFERENTIAL_COMMITS", 150);
    run(
        |sum| sum.commits >= commits,
        |seed| {
            let size_max = if seed % 8 == 0 { 40 } else { 12 };
            live(seed, suite_of(seed), size_max, 30, Rate::default())
        },
    );
}

#[test]
fn changed_messages_are_judged_alike() {
    let mutations = setting("MIMI_DIFFERENTIAL_MUTATIONS", 600);
    let rate = Rate { per_commit: 12, per_proposal: 6, per_opening: 3, per_key_package: 3 };
    run(
        |sum| sum.mutations >= mutations,
        |seed| {
            // Signatures of P-256 cost the most.
            let suite = if seed % 10 == 9 { Suite::P256 } else { Suite::Ed25519 };
            live(seed, suite, 8, 15, rate)
        },
    );
}
