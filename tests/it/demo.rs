//! The demo, run as a user runs it.

use std::process::Output;

use crate::support::process::binary;

fn demo(arguments: &[&str]) -> Output {
    let temporary = tempfile::tempdir().unwrap();
    let output = binary(arguments).env("TMPDIR", temporary.path()).output().unwrap();
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0, "it leaves nothing behind");
    output
}

/// What the demo tells, when it ends as it must: with this line.
fn told(arguments: &[&str], last: &str) -> String {
    let output = demo(arguments);
    let (told, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{told}{said}");
    assert_eq!(said, "");
    assert_eq!(told.lines().last(), Some(last), "{told}");
    told
}

/// Epoch 1 adds, 2 is the race, 3 the external join, 4 the removal.
const LAST: &str =
    "All 4 members (alice, carol, dave and erin) hold the same epoch authenticator in epoch 4.";

#[test]
fn it_ends_with_all_members_in_agreement() {
    assert!(!told(&["demo"], LAST).contains("mallory"));
}

#[test]
fn its_requests_are_shown_on_demand() {
    assert!(!told(&["demo"], LAST).contains("  > "));
    let told = told(&["demo", "--verbose"], LAST);
    let lines: Vec<&str> = told.lines().collect();
    let answer_to = |request: &str| {
        let place = lines.iter().position(|line| line.contains(request)).unwrap_or_else(|| panic!("{told}"));
        lines[place + 1]
    };
    assert!(
        answer_to(r#"/clients {"clientHandle":"alice""#).starts_with(r#"  < 201 {"clientId":""#),
        "{told}"
    );
    assert!(answer_to(r#"/groups {"groupInfo":"AAEA"#).starts_with(r#"  < 201 {"epochId":0"#), "{told}");
    assert!(told.contains("  < 409 ") && told.contains("/problems/stale-epoch"), "{told}");
    // A request stands before the step that it belongs to.
    let registered = lines.iter().position(|line| line.contains("register, and each uploads")).unwrap();
    let created = lines.iter().position(|line| line.contains("groupInfo")).unwrap();
    assert!(
        registered < created
            && lines[..registered]
                .iter()
                .any(|line| line.contains("/keyPackages") || line.contains("/queues")),
        "{told}"
    );
}

#[test]
fn it_ends_so_with_certificates_as_well() {
    let told = told(&["demo", "--x509"], LAST);
    assert!(told.contains("harbour.example"), "{told}");
    assert!(told.contains("mallory") && told.contains("are refused"), "{told}");
}

#[test]
fn two_domains_end_in_agreement_after_one_was_away() {
    // Epoch 1 adds, 2 is carol's, 3 the race, 4 and 5 are missed.
    let last = "Both gateways show the same epoch and members, and a.example as the hub. alice and carol hold the same \
                epoch authenticator in epoch 5.";
    let told = told(&["demo", "--federated"], last);
    for step in 1..=7 {
        let begin = format!("{step}. ");
        assert!(told.lines().any(|line| line.starts_with(&begin)), "{told}");
    }
    assert!(told.contains("B is started again"), "{told}");
}

#[test]
fn one_story_is_told_at_a_time() {
    let output = demo(&["demo", "--federated", "--x509"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn options_of_the_gateway_are_refused() {
    let output = demo(&["demo", "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("takes no options"));
}
