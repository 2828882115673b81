//! An application server: alice invites bob to a group, both commit at the same time, bob leaves.
//!
//! Start a gateway, set the three variables that it prints, and run
//! `cargo run --release -p application-server`.

mod device;

use std::{env, error::Error, process::ExitCode};

use actors::{ClientId, DeliveryId, Epoch, GroupId, KeyQueueId};
use mimi_gateway::{
    api::{
        clients::NewClientBody,
        events::{EventData, EventQuery},
        groups::{EpochRange, ProposalBody},
        joining::WelcomeQuery,
        key_packages::{KeyPackageQuery, KeyPackageUploadBody, NewKeyQueueBody},
        problem::ProblemKind,
        text::HandleText,
    },
    client::{EventReader, GatewayClient, RequestError},
    token::Token,
};
use serde::de::DeserializeOwned;

use device::{CIPHER_SUITE, Device};

/// MLS 1.0 (RFC 9420, section 6).
const PROTOCOL_VERSION: u16 = 1;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

async fn story(gateway: &GatewayClient) -> Result<()> {
    let mut events = gateway.application_events(&EventQuery::default()).await?;

    let (mut alice, mut bob) = (Device::new("alice")?, Device::new("bob")?);
    let (alice_id, bob_id) = (register(gateway, &alice).await?, register(gateway, &bob).await?);
    println!("alice and bob are registered");

    let queue = key_queue(gateway, bob_id).await?;
    let key_packages = vec![bob.key_package()?];
    let upload = KeyPackageUploadBody { key_packages, is_reset: true, ..KeyPackageUploadBody::default() };
    gateway.upload_key_packages(bob_id, queue, &upload).await?;
    println!("bob has uploaded a key package");

    let group_id = gateway.create_group(&alice.create_group()?).await?.group_id;
    println!("alice has created the group {group_id}");
    let group = group_id.0;

    let wanted = KeyPackageQuery::new(PROTOCOL_VERSION, CIPHER_SUITE.into(), alice_id.to_string());
    let key_package = gateway.retrieve_key_package(bob_id, &wanted).await?.key_package;
    gateway.upload_commit(&group, &alice.commit(Some(&key_package))?).await?;
    alice.commit_accepted()?;
    println!("alice has invited bob: epoch {}", alice.epoch());

    let id = next_welcome(&mut events, &group).await?;
    let waiting = gateway.welcomes(&bob.handle, &WelcomeQuery::default()).await?.join_infos;
    let info = waiting.iter().find(|info| info.id.0 == id).ok_or("the welcome is gone")?;
    bob.join(&info.welcome, info.ratchet_tree.as_ref().ok_or("the welcome has no tree")?)?;
    gateway.acknowledge_welcome(&bob.handle, None, id).await?;
    assert_eq!(bob.epoch_authenticator(), alice.epoch_authenticator());
    println!("bob has joined, and shares the keys of the epoch with alice");

    // Both commit in the same epoch. The gateway accepts the first commit only.
    let (first, second) = (alice.commit(None)?, bob.commit(None)?);
    gateway.upload_commit(&group, &first).await?;
    alice.commit_accepted()?;
    match gateway.upload_commit(&group, &second).await {
        Err(refusal) if refusal.kind() == Some(ProblemKind::StaleEpoch) => bob.commit_refused()?,
        Err(other) => return Err(other.into()),
        Ok(_) => return Err("the gateway has accepted two commits in one epoch".into()),
    }
    println!(
        "alice and bob have committed at once: alice won epoch {}, bob got 409 stale-epoch",
        alice.epoch()
    );

    // The member that lost catches up, and commits again.
    catch_up(gateway, &group, &mut bob).await?;
    gateway.upload_commit(&group, &bob.commit(None)?).await?;
    bob.commit_accepted()?;
    catch_up(gateway, &group, &mut alice).await?;
    assert_eq!(bob.epoch_authenticator(), alice.epoch_authenticator());
    println!("bob has caught up and committed again: epoch {}", bob.epoch());

    let history = gateway.control_messages(&group, &EpochRange::from(Epoch(1))).await?.epochs;
    let epochs: Vec<String> = history.iter().map(|epoch| epoch.epoch_id.to_string()).collect();
    println!("the history has the epochs {}", epochs.join(", "));

    // A member cannot remove itself: it proposes that, and another member commits to the proposal.
    gateway.upload_proposal(&group, &ProposalBody { packet: bob.propose_to_leave()? }).await?;
    next_proposal(&mut events, &group).await?;
    for proposal in gateway.proposals(&group).await?.messages {
        alice.receive(&proposal)?;
    }
    gateway.upload_commit(&group, &alice.commit(None)?).await?;
    alice.commit_accepted()?;
    catch_up(gateway, &group, &mut bob).await?;
    assert!(!bob.is_member());
    let members = gateway.group(&group).await?.members;
    let handles: Vec<String> = members.iter().map(|member| member.client_handle.to_string()).collect();
    println!("bob has left; the members in epoch {} are: {}", alice.epoch(), handles.join(", "));
    Ok(())
}

/// Registers a device. If that was done before, the problem document has its clientId.
async fn register(gateway: &GatewayClient, device: &Device) -> Result<ClientId> {
    let client_handle = HandleText(device.handle.clone());
    let tags = vec![format!("account:{client_handle}")];
    match gateway.register_client(&NewClientBody { client_handle, tags, domain: None }).await {
        Ok(registered) => Ok(registered.client_id),
        Err(refusal) => existing(refusal, ProblemKind::ClientHandleTaken, "clientId"),
    }
}

/// Creates a key queue. If that was done before, the problem document has its keyQueueId.
async fn key_queue(gateway: &GatewayClient, client: ClientId) -> Result<KeyQueueId> {
    let queue = NewKeyQueueBody {
        protocol_version: PROTOCOL_VERSION,
        cipher_suite: CIPHER_SUITE.into(),
        app_label: String::new(),
    };
    match gateway.create_key_queue(client, &queue).await {
        Ok(created) => Ok(created.key_queue_id),
        Err(refusal) => existing(refusal, ProblemKind::KeyQueueExists, "keyQueueId"),
    }
}

/// The id in a problem document of this kind. Another refusal is an error.
fn existing<T: DeserializeOwned>(refusal: RequestError, kind: ProblemKind, member: &str) -> Result<T> {
    if let RequestError::Problem(problem) = &refusal
        && problem.kind() == Some(kind)
        && let Some(id) = problem.members.get(member)
    {
        return Ok(T::deserialize(id)?);
    }
    Err(refusal.into())
}

/// Waits for a welcome to a group, and returns its id.
async fn next_welcome(events: &mut EventReader, group: &GroupId) -> Result<DeliveryId> {
    loop {
        let event = events.next().await?.ok_or("the gateway has closed the event stream")?;
        if let EventData::Welcome(welcome) = event
            && welcome.group_id.0 == *group
        {
            return Ok(welcome.id.0);
        }
    }
}

/// Waits for a proposal in a group.
async fn next_proposal(events: &mut EventReader, group: &GroupId) -> Result<()> {
    loop {
        let event = events.next().await?.ok_or("the gateway has closed the event stream")?;
        if let EventData::Proposal(proposal) = event
            && proposal.group_id.0 == *group
        {
            return Ok(());
        }
    }
}

/// Brings a device to the group's current epoch.
async fn catch_up(gateway: &GatewayClient, group: &GroupId, device: &mut Device) -> Result<()> {
    loop {
        let missed = EpochRange::from(Epoch(device.epoch().0 + 1));
        let answer = gateway.control_messages(group, &missed).await?;
        device.follow(&answer.epochs)?;
        // Only a part of a long history fits into one answer.
        if answer.next_epoch_id.is_none() {
            return Ok(());
        }
    }
}

async fn run() -> Result<()> {
    let setting = |name| {
        env::var(name).map_err(
            |_| "set GATEWAY, APP and TOKEN as the gateway prints them when it starts for the first time",
        )
    };
    let (url, app, token) = (setting("GATEWAY")?, setting("APP")?, setting("TOKEN")?);
    let app = app.parse().map_err(|_| format!("APP={app} is not the id of an application"))?;
    story(&GatewayClient::new(&url, app, Token::new(token))?).await.map_err(|error| {
        match error.downcast_ref() {
            Some(RequestError::Transport(fault)) if fault.is_connect() => {
                format!("the gateway at {url} cannot be reached; is it running?").into()
            }
            Some(RequestError::Transport(fault)) if fault.is_builder() => {
                format!("GATEWAY={url} is not a URL").into()
            }
            _ => error,
        }
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
