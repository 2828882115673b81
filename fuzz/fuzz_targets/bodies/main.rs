//! JSON bodies of requests, and of the answers of other gateways: what can be read is written as a text that is read as the same again.
//! The first byte of the input is the number of the type.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mimi_gateway::api::{
    clients::{ClientChangeBody, IdentitiesBody, NewClientBody},
    federation::{ConfigurationBody, DeliveryBody, GatewayDescription, ReplicationAckBody},
    groups::{AcceptedCommitBody, AcceptedProposalBody, CommitBody, NewGroupBody, ProposalBody},
    key_packages::{KeyPackageUploadBody, NewKeyQueueBody, RetrievedKeyPackage},
    operator::NewTokenBody,
    problem::ProblemDocument,
    reports::ReportBody,
};
use serde::{Serialize, de::DeserializeOwned};

fn body<T: Serialize + DeserializeOwned>(json: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_string(&read).expect("a body");
    let again: T = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(serde_json::to_string(&again).expect("a body"), written);
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, json)) = input.split_first() else { return };
    match kind % 17 {
        0 => body::<NewClientBody>(json),
        1 => body::<ClientChangeBody>(json),
        2 => body::<NewKeyQueueBody>(json),
        3 => body::<KeyPackageUploadBody>(json),
        4 => body::<NewGroupBody>(json),
        5 => body::<ProposalBody>(json),
        6 => body::<CommitBody>(json),
        7 => body::<ReportBody>(json),
        8 => body::<NewTokenBody>(json),
        9 => body::<ConfigurationBody>(json),
        10 => body::<DeliveryBody>(json),
        11 => body::<ReplicationAckBody>(json),
        12 => body::<GatewayDescription>(json),
        13 => body::<ProblemDocument>(json),
        14 => body::<AcceptedCommitBody>(json),
        15 => body::<AcceptedProposalBody>(json),
        _ => {
            body::<IdentitiesBody>(json);
            body::<RetrievedKeyPackage>(json);
        }
    }
});
