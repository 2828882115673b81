//! *Managing Identities*.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Request, TestGateway};

async fn register(gateway: &TestGateway, handle: &str, tags: &[&str]) -> String {
    let created =
        gateway.post("/clients", json!({ "clientHandle": handle, "tags": tags })).await.success(201);
    assert_eq!(created.as_object().unwrap().len(), 1, "{created}");
    created["clientId"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn a_client_is_registered_read_changed_and_deleted() {
    let gateway = TestGateway::start().await;
    let id = register(&gateway, "alice", &["b", "a", "b"]).await;
    assert!(uuid::Uuid::parse_str(&id).is_ok_and(|id| id.get_version_num() == 4), "{id}");
    let path = format!("/clients/{id}");
    let alice = json!({ "clientId": id, "clientHandle": "alice", "tags": ["a", "b"] });
    assert_eq!(gateway.get(&path).await.success(200), alice);

    let change =
        json!({ "clientHandle": "alice/phone", "tagsToAdd": ["c", "a"], "tagsToRemove": ["b", "none"] });
    let changed = json!({ "clientId": id, "clientHandle": "alice/phone", "tags": ["a", "c"] });
    assert_eq!(gateway.patch(&path, change.clone()).await.success(200), changed);
    assert_eq!(gateway.patch(&path, change).await.success(200), changed, "it is safe to repeat");
    assert_eq!(gateway.patch(&path, json!({})).await.success(200), changed);
    assert_eq!(gateway.get(&path).await.success(200), changed);

    gateway.delete(&path).await.success(204);
    for reply in [
        gateway.get(&path).await,
        gateway.patch(&path, json!({})).await,
        gateway.delete(&path).await,
        gateway.get("/clients/alice").await,
        gateway.get("/clients/").await,
        gateway.get("/clients/9C6E5B1E3A0F4F5E8D436A3A3F1F0001").await,
    ] {
        reply.problem(404, "unknown-client", "");
    }
    let again = register(&gateway, "alice/phone", &[]).await;
    assert_ne!(again, id, "an id is never given twice");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_handle_is_registered_once() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice", &["old"]).await;
    let bob = register(&gateway, "bob", &[]).await;
    // A repeated POST finds what its first try made.
    let again = gateway.post("/clients", json!({ "clientHandle": "alice", "tags": ["old"] })).await;
    assert_eq!(again.problem(409, "client-handle-taken", "")["clientId"], alice.as_str());

    let rename = json!({ "clientHandle": "alice", "tagsToAdd": ["new"] });
    let reply = gateway.patch(&format!("/clients/{bob}"), rename).await;
    assert_eq!(reply.problem(409, "client-handle-taken", "")["clientId"], alice.as_str());
    let unchanged = gateway.get(&format!("/clients/{bob}")).await.success(200);
    assert_eq!(unchanged, json!({ "clientId": bob, "clientHandle": "bob", "tags": [] }));

    // To its own name is no conflict; the name that is left is free.
    gateway.patch(&format!("/clients/{alice}"), json!({ "clientHandle": "alice" })).await.success(200);
    gateway.patch(&format!("/clients/{alice}"), json!({ "clientHandle": "alicia" })).await.success(200);
    gateway.patch(&format!("/clients/{bob}"), json!({ "clientHandle": "alice" })).await.success(200);
    gateway.stop().await;
}

#[actix_web::test]
async fn concurrent_registrations_of_a_handle_make_one_client() {
    let gateway = TestGateway::start().await;
    let attempts = (0..16).map(|_| gateway.post("/clients", json!({ "clientHandle": "alice" })));
    let replies = join_all(attempts).await;
    let created: Vec<&_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert_eq!(created.len(), 1);
    let id = created[0].success(201)["clientId"].clone();
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!(reply.problem(409, "client-handle-taken", "")["clientId"], id);
    }
    gateway.stop().await;
}

async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).map(|future| (future, None)).collect();
    std::future::poll_fn(|cx| {
        let mut is_pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

#[actix_web::test]
async fn concurrent_changes_of_one_client_all_succeed() {
    let gateway = TestGateway::start().await;
    let id = register(&gateway, "alice", &["before"]).await;
    let path = format!("/clients/{id}");
    let (even, odd): (Vec<u32>, Vec<u32>) = (0..100).partition(|number| number % 2 == 0);
    let adding = even.iter().map(|number| json!({ "tagsToAdd": [format!("t{number}")] }));
    let renaming = odd.iter().map(|number| json!({ "clientHandle": format!("alice {number}") }));
    let changes = adding.chain(renaming).map(|change| gateway.patch(&path, change));
    for reply in join_all(changes).await {
        reply.success(200);
    }
    let alice = gateway.get(&path).await.success(200);
    assert_eq!(alice["tags"].as_array().unwrap().len(), 1 + even.len(), "{alice}");
    // Among many deletions one deletes.
    let replies = join_all((0..20).map(|_| gateway.delete(&path))).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [204, 404].contains(status)), "{statuses:?}");
    gateway.stop().await;
}

#[actix_web::test]
async fn handles_have_one_text_form_in_bodies_and_paths() {
    let gateway = TestGateway::start().await;
    // The text form, and its percent-encoded forms in a path.
    let cases: [(&str, &[&str]); 9] = [
        ("alice/phone", &["alice%2Fphone", "alice%2fphone", "%61lice%2Fphone"]),
        ("a+b c%d", &["a+b%20c%25d", "a%2Bb%20c%25d"]),
        ("ålice@ørg", &["%C3%A5lice@%C3%B8rg", "%c3%a5lice%40%c3%b8rg"]),
        ("b64:_w", &["b64:_w", "b64%3A_w"]),
        ("b64:YjY0Og", &["b64:YjY0Og"]),
        ("b64:Lg", &["b64:Lg", "b64%3ALg"]),
        ("b64:Li4", &["b64:Li4"]),
        ("...", &["...", "%2E%2E%2E"]),
        ("?#\\\"", &["%3F%23%5C%22"]),
    ];
    for (text, segments) in cases {
        let id = register(&gateway, text, &[]).await;
        let read = gateway.get(&format!("/clients/{id}")).await.success(200);
        assert_eq!(read["clientHandle"], text);
        for segment in segments {
            let groups = gateway.get(&format!("/clients/{segment}/groups")).await.success(200);
            assert_eq!(groups, json!({ "groups": [] }), "{segment}");
            let welcomes = gateway.get(&format!("/clients/{segment}/welcome-msgs")).await.success(200);
            assert_eq!(welcomes, json!({ "joinInfos": [] }), "{segment}");
        }
    }
    let bob = register(&gateway, "bob", &[]).await;
    for text in ["", "b64:", "b64:YWxpY2U", "b64:_w==", "b64:_x", "b64:?", ".", "..", "b64:Li4u"] {
        let reply = gateway.post("/clients", json!({ "clientHandle": text })).await;
        reply.problem(400, "malformed-request", "`clientHandle`");
        let reply = gateway.patch(&format!("/clients/{bob}"), json!({ "clientHandle": text })).await;
        reply.problem(400, "malformed-request", "`clientHandle`");
    }
    let dots = [".", "..", "%2E", "%2E%2E", "%2e."];
    for segment in ["", "%FF", "%C3", "%", "%2", "%zz", "b64:YWxpY2U", "b64:_w%3D%3D", "b64:%2Fw"]
        .into_iter()
        .chain(dots)
    {
        for rest in ["groups", "welcome-msgs"] {
            let reply = gateway.get(&format!("/clients/{segment}/{rest}")).await;
            reply.problem(400, "malformed-request", "clientHandle");
        }
        let reply = gateway.delete(&format!("/clients/{segment}/welcome-msgs/0000000000000001")).await;
        reply.problem(400, "malformed-request", "clientHandle");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn handles_and_tags_have_limits() {
    let gateway = TestGateway::start().await;
    register(&gateway, &"h".repeat(1024), &[]).await;
    let reply = gateway.post("/clients", json!({ "clientHandle": "h".repeat(1025) })).await;
    reply.problem(400, "malformed-request", "1024");
    register(&gateway, "long tag", &[&"t".repeat(256)]).await;
    let reply = gateway.post("/clients", json!({ "clientHandle": "a", "tags": ["t".repeat(257)] })).await;
    reply.problem(413, "too-large", "256");
    let tags: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    let reply = gateway.post("/clients", json!({ "clientHandle": "a", "tags": tags })).await;
    reply.problem(413, "too-large", "100");
    gateway.stop().await;
}

#[actix_web::test]
async fn clients_are_found_by_a_tag_page_by_page() {
    let gateway = TestGateway::start().await;
    let mut expected = BTreeSet::new();
    for number in 0..25 {
        let handle = format!("client {number}");
        let tags = if number % 5 == 0 { vec!["other"] } else { vec!["account:alice@org", "other"] };
        let id = register(&gateway, &handle, &tags).await;
        if tags.len() == 2 {
            expected.insert((id, handle));
        }
    }
    let tag = "account%3Aalice%40org";
    let all = gateway.get(&format!("/clients?tag={tag}")).await.success(200);
    assert_eq!(all["identities"].as_array().unwrap().len(), 20);
    assert_eq!(all.get("nextCursor"), None);
    let first = &all["identities"][0];
    assert_eq!(first["tags"], json!(["account:alice@org", "other"]), "all tags of a client are shown");
    assert_eq!(first.as_object().unwrap().len(), 3, "{first}");

    for limit in [1, 3, 7, 19, 20, 21, 1000] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = gateway.get(&format!("/clients?tag={tag}&limit={limit}{cursor}")).await.success(200);
            let identities = page["identities"].as_array().unwrap();
            assert!(identities.len() <= limit && !identities.is_empty());
            found.extend(identities.iter().map(|identity| {
                let text = |member: &str| identity[member].as_str().unwrap().to_owned();
                (text("clientId"), text("clientHandle"))
            }));
            pages += 1;
            match page.get("nextCursor") {
                Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
                None => break,
            }
        }
        assert_eq!(pages, 20_usize.div_ceil(limit), "the last page of {limit} has no cursor");
        assert_eq!(found.len(), 20, "nobody twice");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn without_a_tag_all_clients_are_found() {
    let gateway = TestGateway::start().await;
    let mut expected = BTreeSet::new();
    for number in 0..7 {
        let tags: &[&str] = if number % 2 == 0 { &["t"] } else { &[] };
        expected.insert(register(&gateway, &format!("client {number}"), tags).await);
    }
    let all = gateway.get("/clients").await.success(200);
    let tagged = gateway.get("/clients?tag=t").await.success(200);
    let first = all["identities"].as_array().unwrap();
    assert_eq!(first[0].as_object().unwrap().len(), 3, "{all}");
    for identity in tagged["identities"].as_array().unwrap() {
        assert!(first.contains(identity), "the same shape as with a tag");
    }
    assert_eq!(gateway.get("/clients?tag=").await.success(200), json!({ "identities": [] }));
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("/clients?limit=3{cursor}")).await.success(200);
        for identity in page["identities"].as_array().unwrap() {
            found.push(identity["clientId"].as_str().unwrap().to_owned());
        }
        match page.get("nextCursor") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!(found.len(), expected.len(), "nobody twice");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_page_of_clients_has_a_size() {
    let gateway = TestGateway::start().await;
    let tags: Vec<String> = (0..100).map(|number| format!("{number:0>256}")).collect();
    for number in 0..60 {
        let client = json!({ "clientHandle": format!("{number}"), "tags": tags });
        gateway.post("/clients", client).await.success(201);
    }
    let (mut found, mut pages, mut cursor) = (0, 0, String::new());
    loop {
        let reply = gateway.get(&format!("/clients?limit=1000{cursor}")).await;
        assert!(reply.body.len() < 3 << 19, "{} bytes", reply.body.len());
        let page = reply.success(200);
        found += page["identities"].as_array().unwrap().len();
        pages += 1;
        match page.get("nextCursor") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!((found, pages), (60, 2));
    gateway.stop().await;
}

#[actix_web::test]
async fn limits_and_cursors_are_checked() {
    let gateway = TestGateway::start().await;
    for number in 0..3 {
        register(&gateway, &number.to_string(), &["t", "u"]).await;
    }
    let lists =
        ["/clients?tag=t", "/clients?", "/clients/alice/groups?", "/clients/alice/welcome-msgs?", "/groups?"];
    for list in lists {
        for limit in ["0", "1001", "-1", "x", "", "1.0", "4294967297"] {
            let reply = gateway.get(&format!("{list}&limit={limit}")).await;
            reply.problem(400, "malformed-request", "`limit`");
        }
        for limit in ["1", "1000"] {
            gateway.get(&format!("{list}&limit={limit}")).await.success(200);
        }
        for cursor in ["", "x", "AAAA", "9c6e5b1e-3a0f-4f5e-8d43-6a3a3f1f0001", "%F0%9F%A6%80"] {
            let reply = gateway.get(&format!("{list}&cursor={cursor}")).await;
            reply.problem(400, "malformed-request", "`cursor`");
        }
        gateway.get(&format!("{list}&surprise=1")).await.problem(400, "malformed-request", "`surprise`");
        gateway.get(&format!("{list}&limit=1&limit=1")).await.problem(400, "malformed-request", "`limit`");
        gateway.get(&format!("{list}&cursor=%")).await.problem(400, "malformed-request", "percent-encoded");
    }
    gateway.get("/clients?tag=t&domain=-").await.problem(400, "malformed-request", "`domain`");

    // A cursor is good for the list that it was given for.
    let page = gateway.get("/clients?tag=t&limit=1").await.success(200);
    let cursor = page["nextCursor"].as_str().unwrap();
    gateway.get(&format!("/clients?tag=t&cursor={cursor}")).await.success(200);
    for list in
        ["/clients?tag=u", "/clients?", "/clients/alice/groups?", "/clients/alice/welcome-msgs?", "/groups?"]
    {
        let reply = gateway.get(&format!("{list}&cursor={cursor}")).await;
        reply.problem(400, "malformed-request", "`cursor`");
    }
    let other = format!("/apps/{}/clients?tag=t&cursor={cursor}", gateway.other_app);
    let reply = gateway.send(Request::new("GET", &other).token(&gateway.other_writer)).await;
    reply.problem(400, "malformed-request", "`cursor`");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_domain_is_another_gateways_without_domains_here() {
    let gateway = TestGateway::start().await;
    let body = json!({ "clientHandle": "alice", "domain": "a.example" });
    gateway.post("/clients", body).await.problem(400, "malformed-request", "a.example");
    for path in ["/clients?tag=t&", "/clients?", "/clients/alice/groups?", "/clients/alice/welcome-msgs?"] {
        let reply = gateway.get(&format!("{path}domain=a.example")).await;
        reply.problem(400, "malformed-request", "a.example");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn what_is_deleted_is_not_found_by_its_tags() {
    let gateway = TestGateway::start().await;
    let id = register(&gateway, "alice", &["t"]).await;
    let path = format!("/clients/{id}");
    gateway.patch(&path, json!({ "tagsToRemove": ["t"], "tagsToAdd": ["u"] })).await.success(200);
    let found = async |tag: &str| {
        gateway.get(&format!("/clients?tag={tag}")).await.success(200)["identities"].clone()
    };
    assert_eq!(found("t").await, json!([]));
    assert_eq!(found("u").await[0]["clientId"], id.as_str());
    gateway.delete(&path).await.success(204);
    assert_eq!(found("u").await, Value::Array(Vec::new()));
    gateway.stop().await;
}
