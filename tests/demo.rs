//! The demo, as whoever tries the gateway runs it.

#![expect(clippy::unwrap_used, reason = "a test that meets what it does not expect has failed")]

use std::process::{Command, Output, Stdio};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mimi-gateway"))
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// What the demo tells, when it ends as it must.
fn told(arguments: &[&str]) -> String {
    let output = demo(arguments);
    let (told, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{told}{said}");
    assert_eq!(said, "");
    // Epoch 1 adds, 2 is the race, 3 the external join, 4 the removal.
    let last = "All 4 members (alice, carol, dave and erin) hold the same epoch authenticator in epoch 4.";
    assert_eq!(told.lines().last(), Some(last), "{told}");
    told
}

#[test]
fn it_ends_with_all_members_in_agreement() {
    assert!(!told(&["demo"]).contains("mallory"));
}

#[test]
fn it_ends_so_with_certificates_as_well() {
    let told = told(&["demo", "--x509"]);
    assert!(told.contains("harbour.example"), "{told}");
    assert!(told.contains("mallory") && told.contains("are refused"), "{told}");
}

#[test]
fn options_of_the_gateway_are_refused() {
    let output = demo(&["demo", "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("takes no options"));
}
