//! Readers that come back.

use mimi_gateway::api::{
    events::{EventData, EventQuery},
    text::EventIdText,
};

use super::{TOLD, TOLD_OF_GROUP, after, application_stream, clients, events, next, outline, tell};
use crate::{
    mls_support::kept_in,
    support::{Request, Setup, TestGateway},
};

#[actix_web::test]
async fn a_reader_goes_on_after_any_event_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let gateway = setup.start().await;
    let [mut alice, bob, carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let mut all = application_stream(&alice.api).await;
    let at_alice = alice.create_group().await;
    let mut of_group = alice.api.group_events(&at_alice.id(), &EventQuery::default()).await.unwrap();
    let mut at_alice = tell([&alice, &bob, &carol], at_alice).await;
    let told = events(&mut all, TOLD.len()).await;
    let told_of_group = events(&mut of_group, TOLD_OF_GROUP.len()).await;

    let mut gateway = gateway;
    for is_restarted in [false, true] {
        if is_restarted {
            gateway.stop().await;
            gateway = setup.start().await;
            alice.reconnect(&gateway);
            at_alice.reconnect(&gateway);
        }
        for (place, (id, _)) in told.iter().enumerate() {
            let mut reader = alice.api.application_events(&after(Some(*id))).await.unwrap();
            assert_eq!(events(&mut reader, told.len() - place - 1).await, told[place + 1..], "{place}");
        }
        for (place, (id, _)) in told_of_group.iter().enumerate() {
            let mut reader = alice.api.group_events(&at_alice.id(), &after(Some(*id))).await.unwrap();
            let rest = &told_of_group[place + 1..];
            assert_eq!(events(&mut reader, rest.len()).await, rest, "{place}");
        }
    }
    // A reader that is cut off before the first event goes on from where it was.
    let reader = alice.api.application_events(&after(Some(told[4].0))).await.unwrap();
    assert_eq!(reader.last_event_id(), Some(told[4].0));
    drop(reader);
    // What comes later follows without a gap, and goes on.
    let mut all = alice.api.application_events(&after(Some(told[4].0))).await.unwrap();
    let of_group = after(Some(told_of_group[2].0));
    let mut of_group = alice.api.group_events(&at_alice.id(), &of_group).await.unwrap();
    at_alice.update().await;
    at_alice.update().await;
    let more = events(&mut all, 4).await;
    assert_eq!(outline(&more), [("epoch", 2), ("welcome", 2), ("epoch", 3), ("epoch", 4)]);
    assert_eq!(outline(&events(&mut of_group, 3).await), [("epoch", 2), ("epoch", 3), ("epoch", 4)]);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_new_stream_begins_with_its_id() {
    let gateway = TestGateway::start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let mut at_alice = alice.create_group().await;
    let stream = format!("/groups/{}/events", mimi_gateway::api::text::GroupIdText(at_alice.id()));
    for path in ["/events", &stream] {
        // A HEAD has the headers of the stream and ends.
        let head = gateway.call("HEAD", path, None).await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        let id = first_id(&gateway, path).await;
        at_alice.update().await;
        let query = after(Some(id));
        let mut reader = if path == "/events" {
            alice.api.application_events(&query).await.unwrap()
        } else {
            alice.api.group_events(&at_alice.id(), &query).await.unwrap()
        };
        assert_eq!(outline(&events(&mut reader, 1).await), [("epoch", at_alice.epoch().0)]);
    }
    gateway.stop().await;
}

/// The id with which a new stream begins.
async fn first_id(gateway: &TestGateway, path: &str) -> EventIdText {
    let url = format!("{}{}", gateway.base_url(), gateway.path(path));
    let http = mimi_gateway::client::plain_http().build().unwrap();
    let mut response = http.get(url).bearer_auth(gateway.reader.reveal()).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let first = response.chunk().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap();
    first.strip_prefix("id: ").and_then(|rest| rest.strip_suffix("\n\n")).expect(first).parse().unwrap()
}

#[actix_web::test]
async fn ids_that_were_never_given_here_get_a_reset() {
    let gateway = TestGateway::start().await;
    let elsewhere = TestGateway::start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let (mut one, two) = (alice.create_group().await, alice.create_group().await);
    let group = |member: &crate::mls_support::Member| {
        format!("/groups/{}/events", mimi_gateway::api::text::GroupIdText(member.id()))
    };
    let of_all = first_id(&gateway, "/events").await;
    let of_two = first_id(&gateway, &group(&two)).await;
    for foreign in [of_two, first_id(&elsewhere, "/events").await] {
        let mut reader = alice.api.application_events(&after(Some(foreign))).await.unwrap();
        assert!(matches!(next(&mut reader).await, EventData::Reset(_)));
        // The stream goes on from now, and its new id is good.
        one.update().await;
        assert_eq!(outline(&events(&mut reader, 1).await), [("epoch", one.epoch().0)]);
        let id = reader.last_event_id();
        one.update().await;
        let mut reader = alice.api.application_events(&after(id)).await.unwrap();
        assert_eq!(outline(&events(&mut reader, 1).await), [("epoch", one.epoch().0)]);
    }
    for foreign in [of_all, of_two] {
        let mut reader = alice.api.group_events(&one.id(), &after(Some(foreign))).await.unwrap();
        assert!(matches!(next(&mut reader).await, EventData::Reset(_)));
    }

    // The header wins over the query; an empty one counts as none.
    let ask = |header: &str, query: &str| {
        let path = format!("{}{query}", gateway.path("/events"));
        Request::new("HEAD", &path).token(&gateway.reader).header("Last-Event-ID", header)
    };
    let good = of_all.to_string();
    assert_eq!(gateway.send(ask(&good, "?after=nonsense")).await.status, 400);
    for (header, query, status) in [
        (good.as_str(), "", 200),
        ("", "", 200),
        ("", "?after=", 200),
        ("nonsense", "", 400),
        ("nonsense", &format!("?after={good}"), 400),
        ("", "?after=nonsense", 400),
        ("", "?packets=maybe", 400),
        ("", "?later=1", 400),
    ] {
        assert_eq!(gateway.send(ask(header, query)).await.status, status, "{header:?} {query:?}");
    }
    gateway.get("/events?after=nonsense").await.problem(400, "malformed-request", "not the id of an event");
    gateway.get("/groups/AAAA/events").await.problem(404, "unknown-group", "");
    gateway.stop().await;
    elsewhere.stop().await;
}

#[actix_web::test]
async fn events_that_are_no_longer_kept_are_missing_and_said_to_be() {
    let mut setup = Setup::new();
    setup.config.retention.event_rows_max = 2;
    setup.config.retention.period_s = 1;
    let gateway = setup.start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let mut at_alice = alice.create_group().await;
    let mut all = application_stream(&alice.api).await;
    for _ in 0..6 {
        at_alice.update().await;
    }
    let told = events(&mut all, 6).await;
    // What another reader has in memory would still be told.
    drop(all);
    let mut reset = None;
    for _ in 0..100 {
        let mut reader = alice.api.application_events(&after(Some(told[0].0))).await.unwrap();
        if let EventData::Reset(event) = next(&mut reader).await {
            reset = Some((event, reader));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (event, mut reader) = reset.expect("the oldest events go");
    assert!(event.reason.contains("no longer kept"), "{}", event.reason);
    at_alice.update().await;
    assert_eq!(outline(&events(&mut reader, 1).await), [("epoch", 7)]);
    // The newest are kept.
    let mut reader = alice.api.application_events(&after(Some(told[4].0))).await.unwrap();
    assert_eq!(outline(&events(&mut reader, 2).await), [("epoch", 6), ("epoch", 7)]);
    gateway.stop().await;
}
