//! Data directories of older versions: each is opened, serves what it held, and is written to.
//!
//! `golden/` holds them, each with requests and the answers that the version gave which wrote it. `record.rs` makes new ones.

mod golden;
mod record;

use actors::Clock;
use mimi_gateway::config::DataDir;
use snapshots::Store;

use self::golden::Golden;
use crate::support::Setup;

/// Opens a directory as it was recorded, and asks for the same things in the same order.
async fn check(name: &str, golden: &Golden) {
    let directory = tempfile::tempdir().unwrap();
    golden.unpack(&directory.path().join("data"));
    let mut setup = Setup::new();
    setup.config.data_dir = DataDir::Directory(directory.path().join("data"));
    setup.config.applications[0].id = golden.application;
    setup.app = golden.application;
    // The time of the recording: later, retention would delete what is asked for.
    let recorded = golden.recorded;
    let gateway = setup.start_with_clock(Clock::new(move || recorded)).await;
    for request in &golden.requests {
        let reply = gateway.send(request.with_token(golden.application, &setup.writer)).await;
        request.assert_answered(&reply, name);
    }
    gateway.stop().await;

    // What was written to it since is there as well.
    let gateway = setup.start_with_clock(Clock::new(move || recorded)).await;
    for request in golden.requests_at_the_end() {
        let reply = gateway.send(request.with_token(golden.application, &setup.writer)).await;
        request.assert_answered(&reply, name);
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn data_directories_of_older_versions_are_opened_and_used() {
    for (name, golden) in Golden::all() {
        check(&name, &golden).await;
    }
}

/// A new format needs golden directories of its own: CONTRIBUTING.md says how they are made.
#[test]
fn the_present_format_has_golden_directories() {
    let is_present = |(_, golden): &(String, Golden)| golden.format == Store::FORMAT;
    let names: Vec<_> = Golden::all().into_iter().filter(is_present).map(|(name, _)| name).collect();
    let expected = ["killed", "stopped"].map(|end| format!("format-{}-{end}.json", Store::FORMAT));
    assert_eq!(names, expected);
}
