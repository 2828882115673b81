//! The unit of systemd, checked by systemd's own tool.

use std::process::{Command, Output};

use mimi_gateway::config::Config;

use super::skipped;

const UNIT: &str = include_str!("../../../deploy/mimi-gateway.service");
/// The highest exposure that the unit may have, in tenths: systemd calls 0 to 4 low.
const EXPOSURE_MAX_TENTHS: &str = "12";

/// What `systemd-analyze` says of the unit, with the binary of this build; `None` if there is no such tool.
fn analyze(arguments: &[&str]) -> Option<Output> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mimi-gateway.service");
    let installed = "/usr/bin/mimi-gateway ";
    assert_eq!(UNIT.matches(installed).count(), 1, "the program is named once");
    let unit = UNIT.replace(installed, &format!("{} ", env!("CARGO_BIN_EXE_mimi-gateway")));
    std::fs::write(&file, unit).unwrap();
    let output = Command::new("systemd-analyze").args(arguments).arg(&file).output();
    if output.is_err() {
        skipped("the checks of the unit: systemd-analyze is not installed");
    }
    output.ok()
}

/// The values of a setting of the unit.
fn values(name: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_understands_the_unit() {
    let Some(output) = analyze(&["verify", "--man=no"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_service_is_exposed_little() {
    let threshold = format!("--threshold={EXPOSURE_MAX_TENTHS}");
    let Some(output) = analyze(&["security", "--offline=true", "--no-pager", &threshold]) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Overall exposure level") && output.status.success(), "{said}");
}

#[test]
fn systemd_waits_longer_than_the_gateway_needs_to_stop() {
    let [limit] = values("TimeoutStopSec")[..] else { panic!("TimeoutStopSec is there once") };
    let limit_s: u64 = limit.strip_suffix('s').unwrap().parse().unwrap();
    // As docs/operating.md, *Stopping*, has it: requests, then snapshots, then 5 s.
    let needed_s = 2 * Config::embedded().internal.shutdown_timeout_s + 5;
    assert!(limit_s > needed_s, "{limit_s} s, and it needs {needed_s} s");
}

#[test]
fn the_unit_agrees_with_the_gateway() {
    // It sends READY=1, reloads on SIGHUP, and ends with 2 if its configuration is wrong.
    assert_eq!(values("Type"), ["notify"]);
    assert_eq!(values("ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    assert_eq!(values("RestartPreventExitStatus"), ["2"]);
    // Its metrics need /proc/stat.
    assert_eq!(values("ProcSubset"), [""; 0]);
    let [families] = values("RestrictAddressFamilies")[..] else {
        panic!("RestrictAddressFamilies is there once")
    };
    assert!(families.split(' ').any(|family| family == "AF_UNIX"), "notices go through a socket: {families}");
}
