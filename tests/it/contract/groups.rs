//! *Managing Groups* and *Joining*, without a member of a group.

use serde_json::json;

use crate::support::TestGateway;

const GROUP: &str = "/groups/AAEC";

#[actix_web::test]
async fn a_group_that_was_not_created_is_unknown() {
    let gateway = TestGateway::start().await;
    for reply in [
        gateway.get(GROUP).await,
        gateway.get(&format!("{GROUP}/proposals")).await,
        gateway.get(&format!("{GROUP}/control-msgs?startEpochId=1")).await,
        gateway.get(&format!("{GROUP}/control-msgs?startEpochId=1&endEpochId=1&limit=1000")).await,
        gateway.get(&format!("{GROUP}/group-info")).await,
    ] {
        reply.problem(404, "unknown-group", "");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_group_id_has_one_text_form() {
    let gateway = TestGateway::start().await;
    let long = format!("/groups/{}", "A".repeat(342));
    for segment in
        ["/groups/", "/groups/AAE=", "/groups/AAF", "/groups/%2B%2B8", "/groups/%FF", "/groups/%", &long]
    {
        for reply in [
            gateway.get(segment).await,
            gateway.get(&format!("{segment}/proposals")).await,
            gateway.get(&format!("{segment}/group-info")).await,
            gateway.get(&format!("{segment}/control-msgs?startEpochId=1")).await,
            gateway.put(&format!("{segment}/proposals"), json!({ "packet": "AA" })).await,
            gateway.put(&format!("{segment}/epochs"), json!({ "commitPacket": "AA" })).await,
        ] {
            reply.problem(400, "malformed-request", "groupId");
        }
    }
    gateway.get("/groups/%41AEC").await.problem(404, "unknown-group", "");
    gateway.stop().await;
}

#[actix_web::test]
async fn packets_that_are_no_mls_messages_are_malformed() {
    let gateway = TestGateway::start().await;
    // Nothing; one byte; the version of MLS 1.0 and a wire format that does not exist.
    for packet in ["", "AA", "AAH//w"] {
        let reply = gateway.put("/groups", json!({ "groupInfo": packet })).await;
        reply.problem(400, "malformed-mls-message", "");
        for (rest, member) in [("proposals", "packet"), ("epochs", "commitPacket")] {
            let reply = gateway.put(&format!("{GROUP}/{rest}"), json!({ member: packet })).await;
            assert!([400, 404].contains(&reply.status), "{}", reply.text());
        }
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn ranges_of_epochs_are_checked() {
    let gateway = TestGateway::start().await;
    for (query, part) in [
        ("", "missing field `startEpochId`"),
        ("endEpochId=1", "missing field `startEpochId`"),
        ("startEpochId=x", "`startEpochId`"),
        ("startEpochId=-1", "`startEpochId`"),
        ("startEpochId=18446744073709551616", "`startEpochId`"),
        ("startEpochId=2&endEpochId=1", "`endEpochId`"),
        ("startEpochId=1&endEpochId=", "`endEpochId`"),
        ("startEpochId=1&limit=0", "`limit`"),
        ("startEpochId=1&limit=1001", "`limit`"),
        ("startEpochId=1&cursor=x", "`cursor`"),
    ] {
        let reply = gateway.get(&format!("{GROUP}/control-msgs?{query}")).await;
        reply.problem(400, "malformed-request", part);
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn nobody_has_invited_an_unknown_handle() {
    let gateway = TestGateway::start().await;
    let empty = json!({ "joinInfos": [] });
    for query in [
        "",
        "?ratchetTree=true",
        "?ratchetTree=false",
        "?after=00000000000000ff",
        "?limit=1000&ratchetTree=false",
    ] {
        assert_eq!(gateway.get(&format!("/clients/nobody/welcome-msgs{query}")).await.success(200), empty);
    }
    for (query, part) in [("after=x", "`after`"), ("after=", "`after`"), ("ratchetTree=yes", "`ratchetTree`")]
    {
        let reply = gateway.get(&format!("/clients/nobody/welcome-msgs?{query}")).await;
        reply.problem(400, "malformed-request", part);
    }
    for _ in 0..2 {
        gateway.delete("/clients/nobody/welcome-msgs/00000000000000ff").await.success(204);
    }
    gateway.delete("/clients/nobody/welcome-msgs/FF").await.problem(400, "malformed-request", "id");
    gateway.stop().await;
}
