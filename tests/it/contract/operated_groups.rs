//! What operators see of groups: sizes and epochs, and nothing of what members say.

use actors::{Epoch, GroupId};
use mimi_gateway::{api::text::GroupIdText, config::TokenAccess, token::Token};
use serde_json::{Value, json};

use crate::{
    mls_support::clients,
    support::{Reply, Request, Setup, TestGateway},
};

/// A gateway and the token of its operator.
struct Watched {
    gateway: TestGateway,
    reader: Token,
}

impl Watched {
    async fn start() -> Self {
        let (mut setup, reader) = (Setup::new(), Token::generate().unwrap());
        setup.watched_by(&[(&reader, TokenAccess::Read)]);
        Self { gateway: setup.start().await, reader }
    }

    async fn ask(&self, path: &str) -> Reply {
        let path = format!("/operator/v1{path}");
        self.gateway.operate(Request::new("GET", &path).token(&self.reader)).await
    }

    /// What is below the path of the application's groups.
    async fn groups(&self, rest: &str) -> Reply {
        self.ask(&format!("/applications/{}/groups{rest}", self.gateway.app)).await
    }
}

fn text(group: &GroupId) -> String {
    GroupIdText(group.clone()).to_string()
}

#[actix_web::test]
async fn a_group_is_seen_by_its_sizes_and_epochs() {
    let watched = Watched::start().await;
    let [alice, bob, carol] = clients(&watched.gateway, ["alice", "bob", "carol"]).await;
    let mut at_alice = alice.create_group().await;
    let group = at_alice.id();
    let path = format!("/{}", text(&group));
    let epochs = format!("{path}/epochs");
    assert_eq!(watched.groups(&epochs).await.success(200), json!({ "epochs": [] }), "epoch 0 has no commit");
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    let by_reference = at_bob.make_update_proposal();
    at_bob.propose(&by_reference).await.unwrap();
    at_alice.fetch_proposals().await;
    at_alice.update().await;
    at_bob.catch_up().await;
    let commit = at_bob.make_update();
    at_bob.commit(&commit).await;
    let late = at_alice.make_update();
    at_alice.api.upload_commit(&group, &late).await.unwrap_err();
    let at_carol = carol.join_externally(&group, None, true).await;
    assert_eq!(at_carol.epoch(), Epoch(4));
    at_bob.catch_up().await;
    let waits = at_bob.make_update_proposal();
    at_bob.propose(&waits).await.unwrap();

    let seen = watched.groups(&path).await.success(200);
    let shown = alice.api.group(&group).await.unwrap();
    let expected = json!({
        "groupId": text(&group),
        "epochId": 4,
        "cipherSuite": shown.cipher_suite,
        "members": 3,
        "proposals": 1,
        "oldestEpochId": 1,
        "followers": [],
        "createdAt": seen["createdAt"],
        "ratchetTreeBytes": seen["ratchetTreeBytes"],
        // Four commits and two proposals.
        "logEntries": 6,
    });
    assert_eq!(seen, expected);
    assert!(
        seen["createdAt"].as_u64() > Some(1_600_000_000_000) && seen["ratchetTreeBytes"].as_u64() > Some(300)
    );
    let list = json!({ "groups": [{ "groupId": text(&group), "epochId": 4 }] });
    assert_eq!(watched.groups("").await.success(200), list);

    let reply = watched.groups(&epochs).await;
    let found = reply.success(200);
    let found: Vec<&Value> = found["epochs"].as_array().unwrap().iter().collect();
    let [fourth, third, second, first] = found[..] else { panic!("{found:?}") };
    assert!(fourth.get("committerLeafIndex").is_none(), "carol joined by an external commit: {fourth}");
    for (epoch, number, leaf, proposals) in [(third, 3, 1, 0), (second, 2, 0, 1), (first, 1, 0, 0)] {
        let about = (&epoch["epochId"], &epoch["committerLeafIndex"], &epoch["proposals"]);
        assert_eq!(about, (&json!(number), &json!(leaf), &json!(proposals)), "{epoch}");
    }
    let [loser] = &third["losers"].as_array().unwrap()[..] else { panic!("{third}") };
    assert_eq!(loser["leafIndex"], 0, "alice was late");
    assert!(loser["at"].as_u64() >= third["timestamp"].as_u64(), "{third}");
    for epoch in [fourth, second, first] {
        assert_eq!(epoch["losers"], json!([]), "{epoch}");
    }
    assert_eq!(third["commitBytes"], json!(commit.commit_packet.0.len()));
    let times: Vec<u64> = found.iter().map(|epoch| epoch["timestamp"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    // Nothing that members sent is shown.
    for packet in [json!(commit.commit_packet), json!(waits.packet)] {
        let packet = packet.as_str().unwrap();
        assert!(packet.len() > 100 && !reply.text().contains(packet) && !seen.to_string().contains(packet));
    }

    // By pages, and beyond the ends.
    for (query, expected) in [
        ("?limit=2", vec![4, 3]),
        ("?limit=2&before=3", vec![2, 1]),
        ("?before=1", vec![]),
        ("?before=0", vec![]),
        ("?before=99", vec![4, 3, 2, 1]),
    ] {
        let page = watched.groups(&format!("{epochs}{query}")).await.success(200);
        let page = page["epochs"].as_array().unwrap();
        let numbers: Vec<u64> = page.iter().map(|epoch| epoch["epochId"].as_u64().unwrap()).collect();
        assert_eq!(numbers, expected, "{query}");
    }
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn groups_that_are_not_there_are_refused() {
    let watched = Watched::start().await;
    let [alice] = clients(&watched.gateway, ["alice"]).await;
    let group = alice.create_group().await.id();
    for rest in ["", "/epochs"] {
        watched.groups(&format!("/AAEC{rest}")).await.problem(404, "unknown-group", "");
        watched.groups(&format!("/AAE={rest}")).await.problem(400, "malformed-request", "groupId");
        // It is another application's.
        let other = format!("/applications/{}/groups/{}{rest}", watched.gateway.other_app, text(&group));
        watched.ask(&other).await.problem(404, "unknown-group", "");
        let nobody = format!("/applications/{}/groups/{}{rest}", uuid::Uuid::new_v4(), text(&group));
        watched.ask(&nobody).await.problem(404, "unknown-application", "");
    }
    let epochs = format!("/{}/epochs", text(&group));
    for query in ["?limit=0", "?limit=1001", "?before=x", "?after=1"] {
        watched.groups(&format!("{epochs}{query}")).await.problem(400, "malformed-request", "");
    }
    watched.groups("?cursor=abcd").await.problem(400, "malformed-request", "cursor");
    let other = json!({ "groups": [] });
    let path = format!("/applications/{}/groups", watched.gateway.other_app);
    assert_eq!(watched.ask(&path).await.success(200), other);
    assert_eq!(watched.ask("/peers").await.success(200), json!({ "peers": [] }));
    watched.gateway.stop().await;
}
