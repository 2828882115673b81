//! The commands of `README.md`, `docs/x509.md` and `docs/federation.md`, run as they are written there.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use actors::{
    Clock,
    identity::{ApplicationContext, Credential, CredentialType, GroupContextExtensions, Identity},
};
use mimi_gateway::{config::Config, tools::pki::credential_content};
use serde_json::Value;
use x509_parser::{pem::Pem, prelude::FromDer as _};

use crate::support::process::{Process, binary};

pub(crate) const README: &str = include_str!("../../README.md");
const X509: &str = include_str!("../../docs/x509.md");
const FEDERATION: &str = include_str!("../../docs/federation.md");

/// The code blocks of one language in the section with this heading.
pub(crate) fn blocks<'a>(document: &'a str, heading: &str, language: &str) -> Vec<&'a str> {
    let section = document.split_once(&format!("\n## {heading}\n")).unwrap().1;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let begin = format!("```{language}\n");
    section.split(&begin).skip(1).map(|block| block.split_once("```").unwrap().0).collect()
}

/// Whether a program can be run; if not, the test says that it is skipped.
fn has(program: &str, skipped: &str) -> bool {
    let found = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        // Written past the test's capture, so that it is seen.
        let notice = format!("SKIPPED: {skipped}: {program} is not installed\n");
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
    }
    found.is_ok()
}

/// Runs commands in a directory with the binary of this build; returns standard output.
fn run(script: &str, directory: &Path, variables: &[(String, String)]) -> String {
    let script = script.replace("cargo run --release --", env!("CARGO_BIN_EXE_mimi-gateway"));
    let output = Command::new("bash")
        .args(["-euc", &script])
        .current_dir(directory)
        .env_remove("RUST_LOG")
        .envs(variables.iter().cloned())
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

/// The variables that a gateway tells its user to set.
pub(crate) fn exported(printed: &str) -> Vec<(String, String)> {
    let variables = printed.lines().filter_map(|line| line.strip_prefix("  export ")?.split_once('='));
    let variables: Vec<_> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(variables.len(), 3, "{printed}");
    variables
}

#[test]
fn the_readmes_tour_works_on_a_new_gateway() {
    if !has("curl", "the README's tour") {
        return;
    }
    let gateway = Process::start(&mut binary(&["--data-dir", ":memory:", "--listen", "127.0.0.1:0"]));
    let script = blocks(README, "A tour", "sh").concat();
    let directory = tempfile::tempdir().unwrap();
    let answers = run(&script, directory.path(), &exported(&gateway.printed));
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [registered, found, again, healthy, ready] = answers.as_slice() else {
        panic!("one answer for each request: {answers:?}");
    };
    assert!(registered["clientId"].is_string(), "{registered}");
    assert_eq!(found["identities"][0]["clientId"], registered["clientId"], "{found}");
    assert_eq!(again["type"], "/problems/client-handle-taken", "{again}");
    assert_eq!(again["clientId"], registered["clientId"], "{again}");
    assert_eq!((&healthy["status"], &ready["status"]), (&"up".into(), &"ready".into()));
}

#[test]
fn the_readmes_configuration_is_checked_by_its_commands() {
    let directory = tempfile::tempdir().unwrap();
    let [settings] = blocks(README, "Configuration", "toml")[..] else { panic!("one configuration") };
    let settings = settings.replace("64 hex digits, from `token`", &"0".repeat(64));
    std::fs::write(directory.path().join("gateway.toml"), settings).unwrap();
    let printed = run(&blocks(README, "Configuration", "sh").concat(), directory.path(), &[]);
    for part in ["data_dir = \"data\"\n", "\nsha256: ", "the configuration is good\n"] {
        assert!(printed.contains(part), "{part:?} is in {printed}");
    }
}

/// Free ports, in the place of those that commands name.
struct Ports([(&'static str, String); 4]);

impl Ports {
    fn free() -> Self {
        // All are bound before any is given back, so that they differ.
        let bound = ["8080", "9080", "8443", "9443"]
            .map(|name| (name, std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
        Self(bound.map(|(name, listener)| (name, listener.local_addr().unwrap().port().to_string())))
    }

    fn put_into(&self, script: &str) -> String {
        // A free port may be one of the names, so each word is replaced once.
        let words = script.split_inclusive([' ', '\n', ':', '/']);
        let replaced = words.map(|word| {
            let name = word.trim_end_matches([' ', '\n', ':', '/']);
            match self.0.iter().find(|(named, _)| *named == name) {
                Some((_, port)) => word.replacen(name, port, 1),
                None => word.to_owned(),
            }
        });
        replaced.collect()
    }
}

#[test]
fn two_domains_that_are_set_up_by_the_documented_commands_find_each_others_clients() {
    for program in ["openssl", "curl"] {
        if !has(program, "the commands of docs/federation.md") {
            return;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let scripts = blocks(FEDERATION, "Two domains, step by step", "sh");
    let [set_up, start_a, start_b, ask] = scripts[..] else { panic!("four blocks of commands") };
    let ports = Ports::free();
    let printed = run(&ports.put_into(set_up), directory.path(), &[]);
    assert_eq!(printed.matches("the configuration is good").count(), 2, "{printed}");
    let start = |script: &str| {
        let arguments: Vec<&str> =
            script.trim().strip_prefix("cargo run --release -- ").unwrap().split(' ').collect();
        Process::start(binary(&arguments).current_dir(directory.path()))
    };
    let _gateways = [start(start_a), start(start_b)];
    let answers = run(&ports.put_into(ask), directory.path(), &[]);
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [registered, found] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(registered["clientId"].is_string(), "{registered}");
    assert_eq!(found["identities"][0]["clientHandle"], "carol/phone", "{found}");
}

#[test]
fn a_pki_that_is_made_by_the_documented_commands_identifies_a_client() {
    if !has("openssl", "the commands of docs/x509.md") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [script] = blocks(X509, "A PKI and a configuration to start with", "sh")[..] else {
        panic!("one block of commands");
    };
    let printed = run(script, directory.path(), &[]);
    assert!(printed.contains("the configuration is good"), "{printed}");

    let config = Config::read(&directory.path().join("gateway.toml")).unwrap();
    let application = &config.build_applications().unwrap()[0];
    assert_eq!(application.external_senders.len(), 1);
    let chain = std::fs::read(directory.path().join("pki/phone-chain.pem")).unwrap();
    let chain: Vec<Vec<u8>> = Pem::iter_from_buffer(&chain).map(|pem| pem.unwrap().contents).collect();
    let path_length = |der: &Vec<u8>| {
        let (_, issuer) = x509_parser::certificate::X509Certificate::from_der(der).unwrap();
        issuer.basic_constraints().unwrap().unwrap().value.path_len_constraint
    };
    let lengths: Vec<_> = chain[1..].iter().map(path_length).collect();
    assert_eq!(lengths, [Some(0), Some(1)], "no account can make domains");
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    let content = credential_content(&chain).unwrap();
    let credential = Credential { credential_type: CredentialType::X509, content: &content };
    let identity = Identity { signature_key: &leaf.public_key().subject_public_key.data, credential };
    let context = ApplicationContext::at(Clock::system().now());
    let provider = &application.identity;
    provider.validate(identity, GroupContextExtensions::default(), context).unwrap();
    assert_eq!(provider.client_handle(identity).unwrap().as_bytes(), b"alice/phone");
    assert_eq!(provider.client_domain(identity).unwrap().unwrap().as_str(), "a.example");

    // With lists on which nothing is, and then with the phone on its account's.
    let [lists] = blocks(X509, "Revoking certificates", "sh")[..] else { panic!("one block of commands") };
    let verdict = |script: &str| {
        let printed = run(script, directory.path(), &[]);
        let config = Config::read(&directory.path().join("gateway.toml")).unwrap();
        let application = &config.build_applications().unwrap()[0];
        assert_eq!(application.identity.trust_warnings(context.msg_timestamp), []);
        let verdict = application.identity.validate(identity, GroupContextExtensions::default(), context);
        (printed, verdict.map_err(|error| error.to_string()))
    };
    let (printed, before) = verdict(lists);
    assert!(printed.contains("the configuration is good") && before == Ok(()), "{printed}{before:?}");
    let (function, _) = lists.split_once("\nlist root\n").unwrap();
    let (_, after) = verdict(&format!("{function}\nlist alice phone"));
    assert!(
        after.as_ref().is_err_and(|text| text.contains("certificate 0 (0 is the leaf) is revoked")),
        "{after:?}"
    );
}
