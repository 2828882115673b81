//! Deletion of groups, as applications and operators ask for it, with real MLS clients.

use std::time::{Duration, Instant};

use actors::Epoch;
use mimi_gateway::{
    api::{events::EventQuery, groups::EpochRange, problem::ProblemKind, text::GroupIdText},
    client::{EventReader, OperatorClient},
    config::TokenAccess,
    token::Token,
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    mls_support::{Member, MlsClient, clients, kept_in, refusal, refused},
    support::{Request, Setup, TestGateway},
};

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rest of a stream that ends.
async fn until_end(mut reader: EventReader) -> Vec<serde_json::Value> {
    let mut told = Vec::new();
    while let Some(event) = timeout(PATIENCE, reader.next()).await.expect("it ends").unwrap() {
        told.push(serde_json::to_value(event).unwrap());
    }
    told
}

/// Every request for a group is answered as for one that never was.
async fn assert_unknown(gateway: &TestGateway, member: &mut Member) {
    let group = format!("/groups/{}", GroupIdText(member.id()));
    for rest in ["", "/proposals", "/control-msgs?startEpochId=1", "/group-info", "/events"] {
        gateway.get(&format!("{group}{rest}")).await.problem(404, "unknown-group", "");
    }
    let (update, commit) = (member.make_update_proposal(), member.make_update());
    gateway.put(&format!("{group}/proposals"), json!(update)).await.problem(404, "unknown-group", "");
    gateway.put(&format!("{group}/epochs"), json!(commit)).await.problem(404, "unknown-group", "");
    member.clear_pending();
}

#[actix_web::test]
async fn a_deleted_group_is_unknown_and_its_id_is_taken_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let gateway = setup.start().await;
    let [alice, bob, carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let (mut at_alice, new) = alice.make_group();
    alice.api.create_group(&new).await.unwrap();
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    at_alice.invite(&[&carol]).await;
    let other = alice.create_group().await;
    let all = alice.api.application_events(&EventQuery::default()).await.unwrap();
    let of_group = alice.api.group_events(&at_alice.id(), &EventQuery::default()).await.unwrap();
    let of_other = alice.api.group_events(&other.id(), &EventQuery::default()).await.unwrap();

    let path = format!("/groups/{}", GroupIdText(at_alice.id()));
    // A token that only reads deletes nothing, nor does that of another application.
    let delete = Request::new("DELETE", &gateway.path(&path));
    for token in [&gateway.reader, &gateway.other_writer] {
        gateway.send(delete.clone().token(token)).await.problem(403, "not-permitted", "");
    }
    assert_eq!(carol.welcomes().await.len(), 1);
    gateway.delete(&path).await.success(204);
    assert_unknown(&gateway, &mut at_alice).await;
    assert!(carol.welcomes().await.is_empty());
    assert_eq!(alice.groups().await, [(other.id(), 0)]);
    assert!(bob.groups().await.is_empty());
    gateway.delete(&path).await.success(204);
    gateway.delete("/groups/AAEC").await.problem(404, "unknown-group", "");
    // The same bytes, too.
    refused(alice.api.create_group(&new).await, ProblemKind::GroupExists);

    let told = until_end(of_group).await;
    let deleted = json!({ "groupId": GroupIdText(at_alice.id()), "change": "deleted" });
    assert_eq!(told, std::slice::from_ref(&deleted));
    let mut all = all;
    let event = timeout(PATIENCE, all.next()).await.expect("it is told").unwrap().unwrap();
    assert_eq!(serde_json::to_value(event).unwrap(), deleted);
    let id = all.last_event_id();
    drop((all, of_other));

    gateway.stop().await;
    let gateway = setup.start().await;
    let (mut alice, mut carol) = (alice, carol);
    alice.reconnect(&gateway);
    carol.reconnect(&gateway);
    at_bob.reconnect(&gateway);
    assert_unknown(&gateway, &mut at_bob).await;
    gateway.delete(&path).await.success(204);
    refused(alice.api.create_group(&new).await, ProblemKind::GroupExists);
    assert!(carol.welcomes().await.is_empty());
    // A reader of the application that was told goes on; one of the group cannot.
    let after = EventQuery { after: id, packets: false };
    let mut all = alice.api.application_events(&after).await.unwrap();
    refused(
        alice.api.group_events(&at_alice.id(), &EventQuery::default()).await.map(drop),
        ProblemKind::UnknownGroup,
    );
    let third = alice.create_group().await;
    let event = timeout(PATIENCE, all.next()).await.expect("it goes on").unwrap().unwrap();
    let created = json!({ "groupId": GroupIdText(third.id()), "change": "created" });
    assert_eq!(serde_json::to_value(event).unwrap(), created);
    gateway.stop().await;
}

/// Whoever commits while a group is deleted is acknowledged before, or learns that there is no such group.
#[actix_web::test]
async fn no_commit_is_acknowledged_after_a_deletion() {
    let gateway = TestGateway::start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    for round in 0..8 {
        let mut at_alice = alice.create_group().await;
        let (api, group) = (at_alice.api.clone(), at_alice.id());
        let committing = actix_web::rt::spawn(async move {
            let mut acknowledged = 0;
            loop {
                let commit = at_alice.make_update();
                match at_alice.upload(&commit).await {
                    Ok(reply) => acknowledged = reply.body.epoch_id.0,
                    Err(error) => break (acknowledged, error, Instant::now()),
                }
                at_alice.apply_pending();
            }
        });
        tokio::time::sleep(Duration::from_millis(10 + 15 * round)).await;
        api.delete_group(&group).await.unwrap();
        let deleted = Instant::now();
        refused(api.group(&group).await, ProblemKind::UnknownGroup);
        let (acknowledged, error, at) = committing.await.unwrap();
        assert_eq!(error.kind(), Some(ProblemKind::UnknownGroup), "{error}");
        let range = EpochRange::from(Epoch(acknowledged));
        refused(api.control_messages(&group, &range).await, ProblemKind::UnknownGroup);
        println!(
            "round {round}: {acknowledged} commits, refused {:?} after the deletion",
            at.checked_duration_since(deleted)
        );
    }
    gateway.stop().await;
}

/// A wait for what would come ends when the group is deleted.
#[actix_web::test]
async fn whoever_waits_for_an_epoch_of_a_group_learns_that_it_was_deleted() {
    let gateway = TestGateway::start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let group = alice.create_group().await.id();
    let (api, of) = (alice.api.clone(), group.clone());
    let waiting = actix_web::rt::spawn(async move {
        let mut range = EpochRange::from(Epoch(1));
        range.wait_ms = 50_000.try_into().unwrap();
        api.control_messages(&of, &range).await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    alice.api.delete_group(&group).await.unwrap();
    let answer = timeout(PATIENCE, waiting).await.expect("the wait ends").unwrap();
    refused(answer, ProblemKind::UnknownGroup);
    gateway.stop().await;
}

#[actix_web::test]
async fn operators_delete_groups() {
    let (writer, reader) = (Token::generate().unwrap(), Token::generate().unwrap());
    let mut setup = Setup::new();
    setup.watched_by(&[(&writer, TokenAccess::ReadWrite), (&reader, TokenAccess::Read)]);
    let gateway = setup.start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let group = alice.create_group().await.id();
    let url = format!("http://{}", gateway.operator_address());
    let operator = |token: &Token| OperatorClient::new(&url, token.clone()).unwrap();
    refused(operator(&reader).delete_group(gateway.app, &group).await, ProblemKind::NotPermitted);
    let of_other = operator(&writer).delete_group(gateway.other_app, &group).await;
    refused(of_other, ProblemKind::UnknownGroup);
    alice.api.group(&group).await.unwrap();
    for _ in 0..2 {
        operator(&writer).delete_group(gateway.app, &group).await.unwrap();
    }
    refused(alice.api.group(&group).await, ProblemKind::UnknownGroup);
    refused(operator(&reader).group(gateway.app, &group).await, ProblemKind::UnknownGroup);
    gateway.stop().await;
}

/// A client's own things go with it, whatever it did.
#[actix_web::test]
async fn a_deleted_client_leaves_nothing_of_its_own() {
    let gateway = TestGateway::start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    bob.upload_final_key().await;
    bob.assign_to("somebody").await.unwrap();
    at_alice.invite(&[&bob]).await;
    assert_eq!(bob.welcomes().await.len(), 1);
    alice.api.delete_client(bob.id).await.unwrap();
    assert!(bob.welcomes().await.is_empty());
    let gone = refusal(bob.api.client(bob.id).await);
    assert_eq!(gone.kind(), Some(ProblemKind::UnknownClient));
    refused(bob.api.key_queues(bob.id).await, ProblemKind::UnknownClient);
    // It stays a member: that is the group's matter.
    assert_eq!(alice.api.group(&at_alice.id()).await.unwrap().members.len(), 2);
    // The handle is free.
    let again = MlsClient::register(&gateway, "bob").await;
    refused(again.assign_to("somebody").await, ProblemKind::NoKeyPackage);
    gateway.stop().await;
}
