//! Real MLS clients of a gateway: each keeps its own secrets and uses the typed client.

mod client;
mod identity;
mod lying;
mod member;
pub(crate) mod pki;

use mimi_gateway::{
    api::problem::{ProblemDocument, ProblemKind},
    client::RequestError,
};
use mls_rs::{
    client_builder::{BaseConfig, IntoConfigOutput, WithCryptoProvider, WithIdentityProvider, WithMlsRules},
    mls_rules::DefaultMlsRules,
};

pub(crate) use client::MlsClient;
pub(crate) use identity::Identities;
pub(crate) use member::Member;

use self::lying::Crypto;

use crate::support::{Setup, TestGateway};

/// What the clients are made of.
type Config = IntoConfigOutput<
    WithIdentityProvider<Identities, WithCryptoProvider<Crypto, WithMlsRules<DefaultMlsRules, BaseConfig>>>,
>;

/// Registered clients with key packages for everyone.
pub(crate) async fn clients<const N: usize>(gateway: &TestGateway, names: [&str; N]) -> [MlsClient; N] {
    let mut clients = Vec::new();
    for name in names {
        let client = MlsClient::register(gateway, name).await;
        client.upload_key_packages(4).await;
        clients.push(client);
    }
    clients.try_into().unwrap_or_else(|_| panic!("as many clients as names"))
}

/// A setup that keeps its data in a directory, so that it can be stopped and started again.
pub(crate) fn kept_in(directory: &tempfile::TempDir) -> Setup {
    let mut setup = Setup::new();
    setup.config.data_dir = mimi_gateway::config::DataDir::Directory(directory.path().join("data"));
    setup
}

/// The problem that a request was refused with.
#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, RequestError>) -> ProblemDocument {
    match outcome {
        Err(RequestError::Problem(problem)) => *problem,
        Err(error @ (RequestError::Transport(_) | RequestError::Unexpected { .. })) => panic!("{error}"),
        Ok(answer) => panic!("accepted: {answer:?}"),
    }
}

/// The request was refused with this type of problem.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, RequestError>, kind: ProblemKind) {
    let problem = refusal(outcome);
    assert_eq!(problem.kind(), Some(kind), "{problem:?}");
}

/// All are in the same epoch of the same group and hold the same secrets.
#[track_caller]
pub(crate) fn assert_agree(members: &[&Member]) {
    let states: Vec<_> = members.iter().map(|member| member.state()).collect();
    for state in &states {
        assert_eq!(*state, states[0]);
    }
}
