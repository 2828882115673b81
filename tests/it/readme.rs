//! The README's commands for an X.509 application, as they are written there.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use actors::{
    Clock,
    identity::{ApplicationContext, Identity},
};
use mimi_gateway::{config::Config, tools::pki::credential_content};
use openmls::prelude::{Credential, CredentialType, Extensions};
use x509_parser::{pem::Pem, prelude::FromDer as _};

/// The first block of commands below a heading.
fn commands(heading: &str) -> String {
    let readme = include_str!("../../README.md");
    let section = readme.split_once(heading).unwrap().1;
    section.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0.to_owned()
}

#[test]
fn a_pki_that_is_made_by_the_readmes_commands_identifies_a_client() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        // Written past the test's capture, so that it is seen.
        writeln!(std::io::stderr(), "SKIPPED: the README's commands are not run: openssl is not installed")
            .unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = commands("## X.509 applications")
        .replace("cargo run --release --", env!("CARGO_BIN_EXE_mimi-gateway"));
    let output = Command::new("bash")
        .args(["-euc", &script])
        .current_dir(directory.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the configuration is good"), "{said}");

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
    let credential = Credential::new(CredentialType::X509, credential_content(&chain).unwrap());
    let identity =
        Identity { signature_key: &leaf.public_key().subject_public_key.data, credential: &credential };
    let context = ApplicationContext { msg_timestamp: Clock::system().now() };
    let provider = &application.identity;
    provider.validate(identity, &Extensions::empty(), context).unwrap();
    assert_eq!(provider.client_handle(identity).unwrap().as_bytes(), b"alice/phone");
    assert_eq!(provider.client_domain(identity).unwrap().unwrap().as_str(), "a.example");
}
