//! *Group Creation*: each rule is broken by a validly signed request that keeps all the others.

mod new_group;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use self::new_group::{Leaf, NewGroup, vector};
use crate::support::{Request, TestGateway};

/// `group_id` in its text form.
fn group_id(group: &NewGroup) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&group.id)
}

/// The group is refused with 422 and these words, and does not exist afterwards.
async fn refused(gateway: &TestGateway, change: impl FnOnce(&mut NewGroup), part: &str) {
    let mut group = NewGroup::new("a new group");
    change(&mut group);
    let reply = gateway.put("/groups", group.body()).await;
    reply.problem(422, "invalid-group-info", part);
    let path = format!("/groups/{}", group_id(&group));
    gateway.get(&path).await.problem(404, "unknown-group", "");
}

#[actix_web::test]
async fn a_new_group_has_one_epoch_and_one_member() {
    let gateway = TestGateway::start().await;
    let group = NewGroup::new("a new group");
    let created = json!({ "groupId": group_id(&group), "epochId": 0 });
    assert_eq!(gateway.put("/groups", group.body()).await.success(201), created);
    let path = format!("/groups/{}", group_id(&group));
    let found = gateway.get(&path).await.success(200);
    assert_eq!(found["epochId"], 0);
    assert_eq!(found["members"], json!([{ "leafIndex": 0, "clientHandle": "alice" }]));
    let messages = gateway.get(&format!("{path}/control-msgs?startEpochId=0")).await.success(200);
    assert_eq!(messages, json!({ "messages": [], "epochs": [], "currentEpochId": 0 }));

    // The tree may be in the group info, and need not be given twice.
    let mut carrying = NewGroup::new("with its tree");
    carrying.carries_tree = true;
    let mut body = carrying.body();
    gateway.put("/groups", body.clone()).await.success(201);
    carrying.id = b"with its tree alone".to_vec();
    body = carrying.body();
    body.as_object_mut().unwrap().remove("ratchetTree");
    gateway.put("/groups", body).await.success(201);
    gateway.stop().await;
}

#[actix_web::test]
async fn group_info_is_an_mls_group_info() {
    let gateway = TestGateway::start().await;
    let good = NewGroup::new("a new group").group_info();
    let create = async |group_info: &[u8]| {
        let group_info = STANDARD.encode(group_info);
        gateway.put("/groups", json!({ "groupInfo": group_info, "ratchetTree": "" })).await
    };
    create(&good[..good.len() - 1]).await.problem(400, "malformed-mls-message", "");
    create(&[&good[..], &[0]].concat()).await.problem(400, "malformed-mls-message", "");
    let mut welcome = good.clone();
    welcome[3] = 3;
    create(&welcome).await.problem(400, "malformed-mls-message", "");
    let mut newer = good.clone();
    newer[1] = 2;
    create(&newer).await.problem(400, "malformed-mls-message", "");
    gateway.stop().await;
}

#[actix_web::test]
async fn group_info_is_signed_by_the_member() {
    let gateway = TestGateway::start().await;
    refused(&gateway, |group| group.forger = Some(Leaf::new("alice")), "ignature").await;
    refused(&gateway, |group| group.signer = 1, "").await;
    gateway.stop().await;
}

#[actix_web::test]
async fn the_tree_is_valid_and_that_of_the_group_info() {
    let gateway = TestGateway::start().await;
    refused(&gateway, |group| group.tree_hash = Some(vec![0; 32]), "tree_hash").await;
    refused(&gateway, |group| group.leaves[0].is_forged = true, "ignature").await;
    let expired = |group: &mut NewGroup| group.leaves[0].lifetime.1 = group.leaves[0].lifetime.0 + 60;
    refused(&gateway, expired, "ifetime").await;
    let not_yet = |group: &mut NewGroup| group.leaves[0].lifetime.0 = group.leaves[0].lifetime.1 - 60;
    refused(&gateway, not_yet, "ifetime").await;
    refused(&gateway, |group| group.leaves[0].suites = vec![2], "").await;
    refused(&gateway, |group| group.leaves[0].identity.clear(), "client handle").await;
    let other_tree = |group: &mut NewGroup| group.tree = Some(NewGroup::new("another").tree());
    refused(&gateway, other_tree, "").await;

    // The extension of the group info and `ratchetTree` are the same bytes, and one of them is there.
    let mut carrying = NewGroup::new("a new group");
    carrying.carries_tree = true;
    let mut body = carrying.body();
    body["ratchetTree"] = STANDARD.encode(NewGroup::new("another").tree()).into();
    gateway.put("/groups", body).await.problem(422, "invalid-group-info", "differs");
    let mut body = NewGroup::new("a new group").body();
    body.as_object_mut().unwrap().remove("ratchetTree");
    gateway.put("/groups", body).await.problem(422, "invalid-group-info", "neither");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_new_group_is_at_epoch_0_and_has_no_history() {
    let gateway = TestGateway::start().await;
    for epoch in [1, 7, u64::MAX] {
        refused(&gateway, |group| group.epoch = epoch, "a new group's is 0").await;
    }
    let history = |group: &mut NewGroup| group.confirmed_transcript_hash = vec![1; 32];
    refused(&gateway, history, "confirmed_transcript_hash").await;
    gateway.stop().await;
}

#[actix_web::test]
async fn a_new_group_has_one_node() {
    let gateway = TestGateway::start().await;
    refused(&gateway, |group| group.leaves.push(Leaf::new("bob")), "exactly one leaf").await;
    let blank_after = |group: &mut NewGroup| {
        let tree = group.tree();
        // The length prefix of a leaf has two bytes.
        group.tree = Some(vector(&[&tree[2..], &[0, 0]].concat()));
    };
    refused(&gateway, blank_after, "exactly one leaf").await;
    for tree in [vector(&[]), vector(&[0]), vector(&[1, 2, 0, 0, 0])] {
        refused(&gateway, |group| group.tree = Some(tree), "exactly one leaf").await;
    }
    let leaf_and_blank = |group: &NewGroup| vector(&[&group.tree()[2..], &[0]].concat());
    let bytes_follow = |group: &mut NewGroup| group.tree = Some([leaf_and_blank(group), vec![0]].concat());
    refused(&gateway, bytes_follow, "exactly one leaf").await;
    // One that cannot be read is malformed.
    let leaf = NewGroup::new("a new group").tree();
    let malformed = [vec![], vector(&[1]), vector(&[1, 7]), vector(&leaf[2..leaf.len() - 1])];
    for tree in malformed.into_iter().chain([[&leaf[..], &[0]].concat()]) {
        let mut group = NewGroup::new("a new group");
        group.tree = Some(tree);
        let reply = gateway.put("/groups", group.body()).await;
        reply.problem(400, "malformed-mls-message", "ratchet");
    }
    gateway.stop().await;
}

/// What cannot be a new group's is told before anything of the tree but its first node is read, and before signatures.
#[actix_web::test]
async fn epoch_and_nodes_are_checked_before_the_tree() {
    let gateway = TestGateway::start().await;
    let large = |group: &mut NewGroup, first: &[u8]| {
        let rest = vec![0xff; 1 << 20];
        group.tree = Some(vector(&[first, &rest].concat()));
        group.forger = Some(Leaf::new("alice"));
    };
    let leaf = NewGroup::new("a new group").tree()[2..].to_vec();
    refused(&gateway, |group| large(group, &leaf), "exactly one leaf").await;
    let carried = |group: &mut NewGroup| {
        large(group, &leaf);
        group.carries_tree = true;
    };
    refused(&gateway, carried, "exactly one leaf").await;
    let late = |group: &mut NewGroup| {
        large(group, &[]);
        group.epoch = 1;
    };
    refused(&gateway, late, "a new group's is 0").await;
    gateway.stop().await;
}

#[actix_web::test]
async fn the_creator_supports_what_the_group_sets_and_requires() {
    let gateway = TestGateway::start().await;
    const PRIVATE_USE: u16 = 0xf0a1;
    let set = |group: &mut NewGroup| group.context_extensions = vec![(PRIVATE_USE, vec![1])];
    refused(&gateway, set, "does not support the extension 0xf0a1").await;
    // RequiredCapabilities: this extension type, no proposal type, no credential type.
    let required = [vector(&PRIVATE_USE.to_be_bytes()), vector(&[]), vector(&[])].concat();
    let require = |group: &mut NewGroup| group.context_extensions = vec![(3, required.clone())];
    refused(&gateway, require, "").await;
    // It does once its capabilities say so.
    for (id, change) in [("set", &set as &dyn Fn(&mut NewGroup)), ("required", &require)] {
        let mut group = NewGroup::new(id);
        change(&mut group);
        group.leaves[0].extension_types.push(PRIVATE_USE);
        gateway.put("/groups", group.body()).await.success(201);
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn all_groups_are_listed_by_pages() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.get("/groups").await.success(200), json!({ "groups": [] }));
    let mut expected = Vec::new();
    for number in 0..5 {
        let group = NewGroup::new(&format!("group {number}"));
        gateway.put("/groups", group.body()).await.success(201);
        expected.push(json!({ "groupId": group_id(&group), "epochId": 0 }));
    }
    assert_eq!(gateway.get("/groups").await.success(200), json!({ "groups": expected }));
    for limit in [1, 2, 4, 5, 1000] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = gateway.get(&format!("/groups?limit={limit}{cursor}")).await.success(200);
            let groups = page["groups"].as_array().unwrap();
            assert!(!groups.is_empty() && groups.len() <= limit);
            found.extend(groups.iter().cloned());
            match page.get("nextCursor") {
                Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
                None => break,
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    // Those of another application are its own.
    let path = format!("/apps/{}/groups", gateway.other_app);
    let reply = gateway.send(Request::new("GET", &path).token(&gateway.other_writer)).await;
    assert_eq!(reply.success(200), json!({ "groups": [] }));
    gateway.send(Request::new("GET", &path).token(&gateway.writer)).await.problem(403, "not-permitted", "");
    gateway.send(Request::new("GET", &gateway.path("/groups")).token(&gateway.reader)).await.success(200);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_group_id_is_given_once() {
    let gateway = TestGateway::start().await;
    let group = NewGroup::new("a new group");
    let (first, other) = (group.body(), NewGroup::new("a new group").body());
    let created = gateway.put("/groups", first.clone()).await.success(201);
    assert_eq!(gateway.put("/groups", first.clone()).await.success(200), created, "a retry");
    gateway.put("/groups", other).await.problem(409, "group-exists", "");
    let path = format!("/groups/{}/group-info", group_id(&group));
    let kept: Value = gateway.get(&path).await.success(200);
    assert_eq!(kept["groupInfos"][0]["groupInfo"], first["groupInfo"], "the first one stays");
    gateway.stop().await;
}
