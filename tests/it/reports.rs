//! A member that commits what the others cannot open, what they report of it, and the ways out.

use std::time::Duration;

use actors::Epoch;
use mimi_gateway::{
    api::{
        audit::AuditedEvent,
        clients::PageQuery,
        events::{EventData, EventQuery},
        problem::ProblemKind,
        reports::{ReportBody, ReportKindText},
        text::{GroupIdText, HandleText},
    },
    client::{EventReader, OperatorClient, RequestError},
    config::TokenAccess,
    token::Token,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    federation::world::{OPERATOR, World},
    mls_support::{Member, MlsClient, assert_agree, kept_in, refused},
    support::{Request, Setup, TestGateway},
};

/// How long an event may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn report(client: &MlsClient, epoch: Epoch) -> ReportBody {
    let client_handle = HandleText(client.handle.clone());
    ReportBody { epoch_id: epoch, client_handle, domain: None, kind: ReportKindText::CannotDecryptPath }
}

/// The number of members who have reported an epoch, after one more report.
async fn reporters(client: &MlsClient, of: &Member, epoch: Epoch) -> Result<u64, RequestError> {
    client.api.report_epoch(&of.id(), &report(client, epoch)).await.map(|answer| answer.reporters)
}

async fn next(reader: &mut EventReader) -> EventData {
    timeout(PATIENCE, reader.next()).await.expect("an event comes").unwrap().unwrap()
}

/// The next event of a reported epoch.
async fn next_report(reader: &mut EventReader) -> Value {
    loop {
        let event = next(reader).await;
        if let EventData::EpochReported(event) = event {
            return serde_json::to_value(event).unwrap();
        }
    }
}

/// A commit that only its committer can open; answers the epoch that it creates.
async fn lie(liar: &MlsClient, member: &mut Member) -> Epoch {
    liar.crypto.lie(true);
    let commit = member.make_update();
    liar.crypto.lie(false);
    member.commit(&commit).await;
    member.epoch()
}

/// Clients whose commits have an update path, and can bring a group info.
async fn clients<const N: usize>(gateway: &TestGateway, names: [&str; N]) -> [MlsClient; N] {
    let mut clients = Vec::new();
    for name in names {
        let client = MlsClient::register_with_paths(gateway, name).await;
        client.upload_key_packages(4).await;
        clients.push(client);
    }
    clients.try_into().unwrap_or_else(|_| panic!("as many clients as names"))
}

fn watched(setup: &mut Setup) -> Token {
    let operator = Token::generate().unwrap();
    setup.watched_by(&[(&operator, TokenAccess::Read)]);
    setup.config.limits.epoch_reports_percent = 50;
    operator
}

fn operators(gateway: &TestGateway, token: &Token) -> OperatorClient {
    OperatorClient::new(format!("http://{}", gateway.operator_address()), token.clone()).unwrap()
}

#[actix_web::test]
async fn an_epoch_that_members_cannot_open_is_told_with_its_committer_and_the_group_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = kept_in(&directory);
    let operator = watched(&mut setup);
    let gateway = setup.start().await;
    let [alice, bob, carol, mallory] = clients(&gateway, ["alice", "bob", "carol", "mallory"]).await;
    let mut at_alice = alice.create_group().await;
    let group = at_alice.id();
    let mut of_group = alice.api.group_events(&group, &EventQuery::default()).await.unwrap();
    at_alice.invite(&[&bob, &carol, &mallory]).await;
    assert!(matches!(next(&mut of_group).await, EventData::Epoch(_)));
    let begun = of_group.last_event_id();
    let (mut at_bob, at_carol, mut at_mallory) = (bob.join().await, carol.join().await, mallory.join().await);
    assert_agree(&[&at_alice, &at_bob, &at_carol, &at_mallory]);
    let mut of_application = alice.api.application_events(&EventQuery::default()).await.unwrap();

    // The gateway accepts it, and nobody else in the group can open it.
    let broken = lie(&mallory, &mut at_mallory).await;
    let missed = at_bob.control_messages(broken).await;
    for member in [&mut at_alice, &mut at_bob] {
        assert!(member.process(&missed).is_err());
        assert!(member.epoch() < broken);
    }

    assert_eq!(reporters(&alice, &at_alice, broken).await.unwrap(), 1);
    assert_eq!(reporters(&alice, &at_alice, broken).await.unwrap(), 1, "the same report again");
    let other_kind = ReportBody { kind: ReportKindText::ConfirmationTag, ..report(&alice, broken) };
    assert_eq!(
        alice.api.report_epoch(&group, &other_kind).await.unwrap().reporters,
        1,
        "a member counts once"
    );
    let seen = operators(&gateway, &operator).reports(gateway.app, &PageQuery::default()).await.unwrap();
    assert_eq!((seen.epochs.len(), seen.epochs[0].reporters, seen.epochs[0].told_at), (1, 1, None));

    // The second of four members is the half of them; with the third, nothing more is told.
    let before = gateway.operate(Request::new("GET", "/metrics")).await.text();
    assert!(before.contains("mimi_gateway_epochs_reported_total 0\n"), "{before}");
    assert_eq!(reporters(&bob, &at_alice, broken).await.unwrap(), 2);
    assert_eq!(reporters(&carol, &at_alice, broken).await.unwrap(), 3);
    let committer = json!({ "leafIndex": at_alice.leaf_of(&mallory.handle), "clientHandle": "mallory" });
    let expected = json!({
        "groupId": GroupIdText(group.clone()),
        "epochId": broken,
        "reporters": 2,
        "committer": committer,
    });
    assert_eq!(next_report(&mut of_application).await, expected);
    assert_eq!(next_report(&mut of_group).await, expected);
    let after_report = of_group.last_event_id();
    let seen = operators(&gateway, &operator).reports(gateway.app, &PageQuery::default()).await.unwrap();
    assert!(seen.epochs[0].reporters == 3 && seen.epochs[0].told_at.is_some(), "{seen:?}");
    let audited = operators(&gateway, &operator).audit(gateway.app, &PageQuery::default()).await.unwrap();
    let told: Vec<Value> = audited
        .entries
        .iter()
        .filter_map(|entry| match &entry.entry {
            AuditedEvent::EpochReported(event) => Some(serde_json::to_value(event).unwrap()),
            AuditedEvent::KeyPackagesClaimed(_) => None,
        })
        .collect();
    assert_eq!(told, [expected]);

    // A first way out: the members who are shut out join again, and one of them removes the liar.
    let mut at_bob = bob.join_externally(&group, Some(at_alice.leaf_of(&bob.handle)), true).await;
    let mut at_carol = carol.join_externally(&group, Some(at_alice.leaf_of(&carol.handle)), true).await;
    at_bob.catch_up().await;
    at_bob.remove(&mallory.handle).await;
    at_carol.catch_up().await;
    assert_agree(&[&at_bob, &at_carol]);
    assert_eq!(at_bob.roster().len(), 3, "alice is still at her leaf, and can join again as well");
    refused(reporters(&mallory, &at_bob, broken).await, ProblemKind::InvalidReport);
    // A member that comes later was not shut out.
    let dave = MlsClient::register_with_paths(&gateway, "dave").await;
    dave.upload_key_packages(1).await;
    at_bob.invite(&[&dave]).await;
    let at_dave = dave.join().await;
    refused(reporters(&dave, &at_dave, broken).await, ProblemKind::InvalidReport);
    assert_eq!(reporters(&dave, &at_dave, at_dave.epoch()).await.unwrap(), 1);

    // Readers that come back are told in order and once, also after a restart.
    gateway.stop().await;
    let gateway = setup.start().await;
    let mut alice = alice;
    alice.reconnect(&gateway);
    let after = |id| EventQuery { after: id, packets: false };
    let mut again = alice.api.group_events(&group, &after(begun)).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(match next(&mut again).await {
            EventData::Epoch(event) => ("epoch", event.epoch_id.0 - broken.0),
            EventData::EpochReported(event) => ("reported", event.epoch_id.0 - broken.0),
            other @ (EventData::Proposal(_)
            | EventData::Group(_)
            | EventData::Welcome(_)
            | EventData::KeyPackages(_)
            | EventData::Reset(_)) => panic!("{other:?}"),
        });
    }
    let in_order = [("epoch", 0), ("reported", 0), ("epoch", 1), ("epoch", 2), ("epoch", 3), ("epoch", 4)];
    assert_eq!(told, in_order);
    let mut rest = alice.api.group_events(&group, &after(after_report)).await.unwrap();
    assert!(matches!(next(&mut rest).await, EventData::Epoch(event) if event.epoch_id.0 == broken.0 + 1));
    gateway.stop().await;
}

/// More epochs than a stream reads at once are reported between two entries of the group's log.
#[actix_web::test]
async fn a_reader_that_continues_before_many_reports_misses_none() {
    const EPOCHS: u64 = 70;
    let mut setup = Setup::new();
    watched(&mut setup);
    let gateway = setup.start().await;
    let alice = MlsClient::register(&gateway, "alice").await;
    let mut at_alice = alice.create_group().await;
    let group = at_alice.id();
    let mut first = alice.api.group_events(&group, &EventQuery::default()).await.unwrap();
    at_alice.update().await;
    assert!(matches!(next(&mut first).await, EventData::Epoch(_)));
    let mut after = first.last_event_id();
    drop(first);
    let mut rest = Vec::new();
    for epoch in 2..=EPOCHS {
        at_alice.update().await;
        rest.push(("epoch", epoch));
    }
    for epoch in 1..=EPOCHS {
        assert_eq!(reporters(&alice, &at_alice, Epoch(epoch)).await.unwrap(), 1);
        rest.push(("reported", epoch));
    }
    at_alice.update().await;
    rest.push(("epoch", EPOCHS + 1));
    // From the beginning, and from each place at which a reader of all of it is.
    let mut rest = rest.as_slice();
    while let [_, later @ ..] = rest {
        let query = EventQuery { after, packets: false };
        let mut reader = alice.api.group_events(&group, &query).await.unwrap();
        let mut told = Vec::new();
        after = None;
        for _ in rest {
            told.push(match next(&mut reader).await {
                EventData::Epoch(event) => ("epoch", event.epoch_id.0),
                EventData::EpochReported(event) => ("reported", event.epoch_id.0),
                other @ (EventData::Proposal(_)
                | EventData::Group(_)
                | EventData::Welcome(_)
                | EventData::KeyPackages(_)
                | EventData::Reset(_)) => panic!("{other:?}"),
            });
            after = after.or_else(|| reader.last_event_id());
        }
        assert_eq!(told, rest);
        rest = later;
    }
    gateway.stop().await;
}

/// The half of the present members must have reported an epoch: those who have left count on neither side.
#[actix_web::test]
async fn reports_of_members_who_have_left_do_not_count() {
    let mut setup = Setup::new();
    watched(&mut setup);
    let gateway = setup.start().await;
    let [alice, bob, carol, dave] = clients(&gateway, ["alice", "bob", "carol", "dave"]).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob, &carol, &dave]).await;
    let epoch = at_alice.epoch();
    assert_eq!(reporters(&bob, &at_alice, epoch).await.unwrap(), 1);
    at_alice.remove(&bob.handle).await;
    let mut events = alice.api.application_events(&EventQuery::default()).await.unwrap();
    // Two of three are needed, and bob is none of them.
    assert_eq!(reporters(&carol, &at_alice, epoch).await.unwrap(), 2);
    assert_eq!(reporters(&carol, &at_alice, epoch).await.unwrap(), 2);
    at_alice.update().await;
    assert!(matches!(next(&mut events).await, EventData::Epoch(_)), "nothing was told before");
    assert_eq!(reporters(&dave, &at_alice, epoch).await.unwrap(), 3);
    let told = next_report(&mut events).await;
    assert_eq!((&told["epochId"], &told["reporters"]), (&json!(epoch), &json!(3)));
    gateway.stop().await;
}

/// A second way out, where the liar gave no group info, so that nobody can join again.
#[actix_web::test]
async fn a_group_without_a_group_info_gets_a_successor() {
    let mut setup = Setup::new();
    let operator = watched(&mut setup);
    let gateway = setup.start().await;
    let [alice, bob, mallory] = clients(&gateway, ["alice", "bob", "mallory"]).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob, &mallory]).await;
    let (_, mut at_mallory) = (bob.join().await, mallory.join().await);
    mallory.crypto.lie(true);
    let mut commit = at_mallory.make_update();
    commit.group_info = None;
    at_mallory.commit(&commit).await;
    let (group, broken) = (at_alice.id(), at_mallory.epoch());
    assert!(alice.api.group_info(&group).await.unwrap().group_infos.is_empty());
    let mut events = alice.api.application_events(&EventQuery::default()).await.unwrap();
    for (client, expected) in [(&alice, 1), (&bob, 2)] {
        assert_eq!(reporters(client, &at_alice, broken).await.unwrap(), expected);
    }
    let told = next_report(&mut events).await;
    let liar = &told["committer"]["clientHandle"];
    // The members that the gateway lists, without the one who committed.
    let listed = alice.api.group(&group).await.unwrap().members;
    let names: Vec<String> = listed.iter().map(|member| member.client_handle.to_string()).collect();
    assert!(names.len() == 3 && names.iter().any(|name| liar == name), "{names:?}");
    let mut successor = alice.create_group().await;
    successor.invite(&[&bob]).await;
    assert_agree(&[&successor, &bob.join().await]);
    alice.api.delete_group(&group).await.unwrap();
    refused(reporters(&alice, &at_alice, broken).await, ProblemKind::UnknownGroup);
    // What was reported goes with the group.
    timeout(PATIENCE, async {
        let client = operators(&gateway, &operator);
        while !client.reports(gateway.app, &PageQuery::default()).await.unwrap().epochs.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the reports are erased");
    let audited = operators(&gateway, &operator).audit(gateway.app, &PageQuery::default()).await.unwrap();
    assert!(audited.entries.iter().any(|entry| matches!(entry.entry, AuditedEvent::EpochReported(_))));
    gateway.stop().await;
}

#[actix_web::test]
async fn a_report_that_cannot_be_is_refused_and_counts_nothing() {
    let mut setup = Setup::new();
    let operator = watched(&mut setup);
    setup.config.retention.history_epochs_max = 2;
    setup.config.retention.period_s = 1;
    setup.config.passivation.snapshot_period_s = 1;
    let gateway = setup.start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let group = at_alice.id();
    let stranger = MlsClient::register(&gateway, "stranger").await;
    refused(reporters(&stranger, &at_alice, Epoch(1)).await, ProblemKind::InvalidReport);
    for epoch in [Epoch(0), Epoch(2), Epoch(u64::MAX)] {
        refused(reporters(&bob, &at_alice, epoch).await, ProblemKind::InvalidReport);
    }
    let path = gateway.path(&format!("/groups/{}/reports", GroupIdText(group.clone())));
    let body = |changed: Value| {
        let mut body = json!({ "epochId": 1, "clientHandle": "bob", "kind": "other" });
        body.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        Request::new("POST", &path).json(&body.to_string())
    };
    for (wrong, detail) in [
        (json!({ "kind": "it-is-broken" }), "kind"),
        (json!({ "epochId": -1 }), "epochId"),
        (json!({ "secret": 1 }), "secret"),
        (json!({ "clientHandle": "b64:Ym9i" }), "clientHandle"),
    ] {
        gateway.send(body(wrong).token(&gateway.writer)).await.problem(400, "malformed-request", detail);
    }
    gateway.send(body(json!({})).token(&gateway.reader)).await.problem(403, "not-permitted", "");
    let seen = operators(&gateway, &operator).reports(gateway.app, &PageQuery::default()).await.unwrap();
    assert!(seen.epochs.is_empty(), "{seen:?}");

    // An epoch that is no longer kept, and what was reported of it.
    assert_eq!(reporters(&bob, &at_alice, Epoch(1)).await.unwrap(), 1);
    for _ in 0..3 {
        at_alice.update().await;
    }
    timeout(PATIENCE, async {
        let client = operators(&gateway, &operator);
        while !client.reports(gateway.app, &PageQuery::default()).await.unwrap().epochs.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the reports go with the epoch");
    refused(reporters(&bob, &at_alice, Epoch(1)).await, ProblemKind::EpochsPruned);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_follower_passes_reports_to_the_hub_which_counts_its_own_members_alike() {
    let world = World::new(&["a.example", "b.example"], false).await;
    let mut members = world.group_of_all(0, "wedged").await;
    let (_, hubs) = members.remove(0);
    let (at, theirs) = members.remove(0);
    assert_eq!(at, 1);
    let (group, epoch) = (hubs.id(), hubs.epoch());
    world.settle(&group, epoch).await;
    let of = |member: &Member| ReportBody {
        epoch_id: epoch,
        client_handle: HandleText(member.handle.clone()),
        domain: None,
        kind: ReportKindText::Other,
    };
    assert_eq!(theirs.api.report_epoch(&group, &of(&theirs)).await.unwrap().reporters, 1);
    assert_eq!(theirs.api.report_epoch(&group, &of(&theirs)).await.unwrap().reporters, 1);
    assert_eq!(hubs.api.report_epoch(&group, &of(&hubs)).await.unwrap().reporters, 2);
    // Each gateway speaks for its own members only.
    refused(theirs.api.report_epoch(&group, &of(&hubs)).await, ProblemKind::InvalidReport);
    let beyond = ReportBody { epoch_id: Epoch(epoch.0 + 1), ..of(&theirs) };
    refused(theirs.api.report_epoch(&group, &beyond).await, ProblemKind::InvalidReport);
    let operators = |site: usize| {
        let address = world.sites[site].operator_address();
        OperatorClient::new(format!("http://{address}"), Token::new(OPERATOR)).unwrap()
    };
    let app = hubs.api.app();
    assert_eq!(operators(0).reports(app, &PageQuery::default()).await.unwrap().epochs[0].reporters, 2);
    assert!(operators(1).reports(app, &PageQuery::default()).await.unwrap().epochs.is_empty());
    world.stop().await;
}
