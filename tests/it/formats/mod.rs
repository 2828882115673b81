//! Data directories of older versions: each is opened, serves what it held, and is written to.
//!
//! `golden/` holds them, each with requests and the answers that the version gave which wrote it. `record.rs` makes new ones.

mod golden;
mod record;

use std::path::Path;

use actors::Clock;
use mimi_gateway::config::DataDir;
use snapshots::Store;

use self::golden::Golden;
use crate::support::{Setup, process::binary};

/// Opens a directory as it was recorded, and asks for the same things in the same order.
async fn check(name: &str, golden: &Golden) {
    let directory = tempfile::tempdir().unwrap();
    golden.unpack(&directory.path().join("data"));
    check_in(directory.path(), name, golden).await;
}

/// As [`check`], in a directory with the data directory `data`.
async fn check_in(directory: &Path, name: &str, golden: &Golden) {
    let mut setup = Setup::new();
    setup.config.data_dir = DataDir::Directory(directory.join("data"));
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

/// What `snapshot` prints for the data directory `data`; it succeeds.
fn snapshot(directory: &Path, data: &str, arguments: &[&str]) -> String {
    let command = [&["--data-dir", data, "snapshot"], arguments].concat();
    let output = binary(&command).current_dir(directory).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (printed, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{command:?}: {printed}{said}");
    printed
}

#[actix_web::test]
async fn a_backup_of_each_data_directory_serves_the_same() {
    for (name, golden) in Golden::all() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        golden.unpack(&place.join("recorded"));
        let verified = snapshot(place, "recorded", &["verify"]);
        assert!(verified.starts_with("good: ") && !verified.contains(" 0 groups"), "{name}: {verified}");
        snapshot(place, "recorded", &["export", "backup"]);
        let inspected = snapshot(place, "nowhere", &["inspect", "backup"]);
        for table in ["clients", "groups", "log_heads"] {
            let row = inspected.lines().find(|line| line.starts_with(&format!("{table} "))).unwrap();
            assert!(!row.contains(" 0 "), "{name}: {inspected}");
        }
        assert_eq!(snapshot(place, "nowhere", &["verify", "--backup", "backup"]), verified, "{name}");
        snapshot(place, "data", &["import", "backup"]);
        assert_eq!(snapshot(place, "data", &["verify"]), verified, "{name}");
        check_in(place, &name, &golden).await;
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
