//! Requests forwarded to the gateway of another domain, and its answers.

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::json;

use mimi_gateway::{api::text::HandleText, config::TokenAccess, token::Token};

use super::{B, Two, Way, register};
use crate::{
    mls_support::MlsClient,
    support::{Request, peers::Issued},
};

#[actix_web::test]
async fn clients_of_other_domains_are_found() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    register(&a, &["alice"]).await;
    register(&b, &["carol", "dave", "erin"]).await;
    let here = a.get("/clients?tag=team&domain=a.example").await.success(200);
    assert_eq!(here["identities"].as_array().unwrap().len(), 1);

    // Page by page, with the other gateway's cursors.
    let (mut found, mut cursor) = (Vec::new(), String::new());
    for page in 0..2 {
        let reply = a.get(&format!("/clients?tag=team&domain=b.example&limit=2{cursor}")).await.success(200);
        let identities = reply["identities"].as_array().unwrap().clone();
        found.extend(identities.iter().map(|identity| identity["clientHandle"].as_str().unwrap().to_owned()));
        match reply["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => assert_eq!(page, 1),
        }
    }
    found.sort();
    assert_eq!(found, ["carol", "dave", "erin"]);
    let as_there = b.get("/clients?tag=team&domain=b.example").await.success(200);
    assert_eq!(a.get("/clients?tag=team&domain=b.example").await.success(200), as_there);

    a.get("/clients?tag=team&domain=b.example&cursor=x").await.problem(400, "malformed-request", "cursor");
    a.get("/clients?tag=team&domain=c.example").await.problem(400, "malformed-request", "not assigned");
    a.get("/clients?tag=team").await.problem(400, "malformed-request", "name one with `domain`");
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn problems_come_back_as_the_peer_gave_them() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let nobody = uuid::Uuid::new_v4();
    let query = "protocolVersion=1&cipherSuite=1&receiverClientId=alice&domain=b.example";
    let path = format!("/clients/{nobody}/keyPackage?{query}");
    let mut passed = a.get(&path).await.problem(404, "unknown-client", "");
    let mut given = b.get(&path).await.problem(404, "unknown-client", "");
    // Each gateway names the request that it got.
    for problem in [&mut passed, &mut given] {
        assert!(problem.as_object_mut().unwrap().remove("requestId").is_some());
    }
    assert_eq!(passed, given);
    for (method, path, status) in [("HEAD", &path, 404), ("HEAD", &format!("/clients/{nobody}"), 404)] {
        assert_eq!(a.call(method, path, None).await.status, status);
    }
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn key_packages_are_assigned_to_the_receivers_of_a_peer() {
    let mut two = Two::new().await;
    let operator = Token::generate().unwrap();
    two.b.watched_by(&[(&operator, TokenAccess::Read)]);
    let (a, b) = two.start().await;
    let roots = two.clients.roots();
    let carol = MlsClient::register_certified(&b, &two.clients.certify(B, "carol", "phone"), &roots).await;
    carol.upload_key_packages(3).await;
    let path = |receiver: &str| {
        let query = format!("protocolVersion=1&cipherSuite=1&receiverClientId={receiver}&domain=b.example");
        format!("/clients/{}/keyPackage?{query}", carol.id)
    };
    let first = a.get(&path("alice")).await.success(200);
    assert_eq!(first["isFinalKey"], false);
    assert_eq!(a.get(&path("alice")).await.success(200), first, "the same receiver gets the same package");
    // A receiver of the same name at home is another one.
    let at_home = carol.assign_to("alice").await.unwrap();
    assert_ne!(json!(at_home.key_package), first["keyPackage"]);
    assert_ne!(a.get(&path("adam")).await.success(200)["keyPackage"], first["keyPackage"]);
    a.get(&path("anna")).await.problem(404, "no-key-package", "");
    // Reading is not enough: a package is assigned.
    let request = Request::new("GET", &a.path(&path("alice"))).token(&a.reader);
    a.send(request).await.problem(403, "not-permitted", "read-write");
    // The operators of the gateway that gave them see who took whose packages; answers that were repeated do not count.
    let audit = Request::new("GET", &format!("/operator/v1/applications/{}/audit", b.app)).token(&operator);
    let audit = b.operate(audit).await.success(200);
    let entry = |place: usize| {
        let mut entry = audit["entries"][place].clone();
        let times = [entry["at"].take(), entry["lastAt"].take()].map(|time| time.as_u64().unwrap());
        assert!(times.is_sorted());
        entry
    };
    let queue = json!({ "clientId": carol.id, "clientHandle": HandleText(carol.handle.clone()), "keyQueueId": carol.queue });
    let expected = |number: u64, taken: u64, receivers: &[&str]| {
        json!({
            "number": number, "at": null, "kind": "key-packages-claimed", "queue": queue, "taken": taken,
            "lastAt": null, "receivers": receivers,
        })
    };
    assert_eq!(entry(0), expected(2, 1, &["alice"]));
    let mut of_peer = expected(1, 2, &["alice", "adam"]);
    of_peer["peer"] = json!("a.example");
    assert_eq!(entry(1), of_peer);
    assert_eq!(audit["entries"].as_array().unwrap().len(), 2);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_peer_asks_for_the_key_packages_of_one_client_no_more_often_than_its_rate() {
    let mut two = Two::new().await;
    let settings = two.b.federation();
    (settings.client_rate_requests_max, settings.client_rate_window_s) = (2, 7200);
    settings.peer_rate_requests_max = 50;
    let operator = Token::generate().unwrap();
    for setup in [&mut two.a, &mut two.b] {
        setup.watched_by(&[(&operator, TokenAccess::Read)]);
    }
    let (a, b) = two.start().await;
    let roots = two.clients.roots();
    let carol = MlsClient::register_certified(&b, &two.clients.certify(B, "carol", "phone"), &roots).await;
    let dave = MlsClient::register_certified(&b, &two.clients.certify(B, "dave", "phone"), &roots).await;
    let ask = async |client: &MlsClient| {
        let query = "protocolVersion=1&cipherSuite=1&receiverClientId=alice&domain=b.example";
        a.get(&format!("/clients/{}/keyPackage?{query}", client.id)).await
    };
    for client in [&carol, &dave] {
        client.upload_key_packages(2).await;
        for _ in 0..2 {
            ask(client).await.success(200);
        }
    }
    // More often than the circuit has failures until it opens.
    for _ in 0..8 {
        let reply = ask(&carol).await;
        reply.problem(429, "too-many-requests", "one peer for the key packages of one client in 7200 s");
        // What the peer says, and not a second as usual.
        let wait_s: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((3_000..=3_600).contains(&wait_s), "{wait_s}");
    }
    let peers = a.operate(Request::new("GET", "/operator/v1/peers").token(&operator)).await.success(200);
    assert_eq!(peers["peers"][0]["isReachable"], true, "{peers}");
    a.get("/clients?tag=x&domain=b.example").await.success(200);
    let metrics = b.operate(Request::new("GET", "/metrics")).await.text();
    let line = "mimi_gateway_http_rate_exceeded_total{listener=\"federation\",policy=\"client\"} 8\n";
    assert!(metrics.contains(line), "{metrics}");
    a.stop().await;
    b.stop().await;
}

/// A peer has its share of each client, over the client's queues, resets and queues made again, and no more of it than its
/// receivers use.
#[actix_web::test]
async fn a_peer_takes_no_more_than_its_share_of_each_client() {
    let mut two = Two::new().await;
    two.b.config.limits.key_packages_per_peer_max = 2;
    let (a, b) = two.start().await;
    let roots = two.clients.roots();
    let carol = MlsClient::register_certified(&b, &two.clients.certify(B, "carol", "phone"), &roots).await;
    let dave = MlsClient::register_certified(&b, &two.clients.certify(B, "dave", "phone"), &roots).await;
    let claim = async |of: &MlsClient, label: &str, receiver: &str| {
        let query = "protocolVersion=1&cipherSuite=1&domain=b.example";
        let path =
            format!("/clients/{}/keyPackage?{query}&appLabel={label}&receiverClientId={receiver}", of.id);
        a.get(&path).await
    };
    let refused = async |label: &str, receiver: &str| {
        claim(&carol, label, receiver).await.problem(404, "no-key-package", "");
    };
    let create = async |label: &str| {
        let attributes = json!({ "protocolVersion": 1, "cipherSuite": 1, "appLabel": label });
        let created = b.post(&format!("/clients/{}/queues", carol.id), attributes).await.success(201);
        format!("/clients/{}/queues/{}", carol.id, created["keyQueueId"].as_str().unwrap())
    };
    let packages = || json!([carol.key_package(), carol.key_package(), carol.key_package()]);
    carol.upload_key_packages(3).await;
    dave.upload_key_packages(1).await;
    let first = claim(&carol, "", "1").await.success(200);
    claim(&carol, "", "2").await.success(200);
    refused("", "3").await;
    // Another queue.
    let other = create("other").await;
    b.patch(&other, json!({ "keyPackages": packages() })).await.success(200);
    refused("other", "3").await;
    // A reset.
    let queue = format!("/clients/{}/queues/{}", carol.id, carol.queue);
    b.patch(&queue, json!({ "isReset": true, "keyPackages": packages() })).await.success(200);
    refused("", "3").await;
    // A queue that is made again.
    b.delete(&queue).await.success(204);
    let queue = create("").await;
    b.patch(&queue, json!({ "keyPackages": packages() })).await.success(200);
    refused("", "3").await;
    // What others may have is still there.
    claim(&dave, "", "3").await.success(200);
    carol.assign_to("3").await.unwrap();
    // What was assigned is its receiver's where it comes back.
    let back = json!({ "keyPackages": [first["keyPackage"]] });
    b.patch(&queue, back).await.success(200);
    assert_eq!(claim(&carol, "", "1").await.success(200), first);
    // A package that is used makes room.
    let mut member = dave.create_group().await;
    let used = serde_json::from_value(first["keyPackage"].clone()).unwrap();
    let commit = member.make_adding(&[used]);
    member.commit(&commit).await;
    claim(&carol, "", "3").await.success(200);
    refused("", "4").await;
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn an_answer_that_is_too_large_is_not_taken() {
    let mut two = Two::new().await;
    two.a.federation().answer_bytes_max = 1024;
    let (a, b) = two.start().await;
    let handles: Vec<String> = (0..20).map(|number| format!("client {number}")).collect();
    register(&b, &handles.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let reply = a.get("/clients?tag=team&domain=b.example").await;
    reply.problem(502, "peer-unreachable", "more than 1024 bytes");
    // The peer is well: less of it gets through.
    a.get("/clients?tag=team&domain=b.example&limit=2").await.success(200);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn what_does_not_answer_as_a_gateway_is_none() {
    let two = Two::new().await;
    let a = two.a.start().await;
    let ask = async |answer: fn() -> HttpResponse| {
        let server = impostor(&two.pki.issue(&[B]), answer);
        two.to_b.lead(Way::To(server.address)).await;
        let (handle, task) = (server.handle, actix_web::rt::spawn(server.server));
        let reply = a.get("/clients?tag=team&domain=b.example").await;
        handle.stop(false).await;
        task.await.unwrap().unwrap();
        reply
    };
    let no_gateway = "is not one of a gateway";
    ask(|| HttpResponse::Ok().body("<html>")).await.problem(502, "peer-unreachable", "cannot be read");
    ask(|| HttpResponse::NotFound().body("<html>")).await.problem(502, "peer-unreachable", no_gateway);
    ask(|| HttpResponse::BadGateway().body("<html>")).await.problem(502, "peer-unreachable", no_gateway);
    ask(|| HttpResponse::Found().insert_header(("Location", "/elsewhere")).finish()).await.problem(
        502,
        "peer-unreachable",
        no_gateway,
    );
    ask(|| HttpResponse::NotFound().content_type("application/problem+json").body("{}")).await.problem(
        502,
        "peer-unreachable",
        no_gateway,
    );
    // A problem that only the peer knows is passed as it is.
    let reply = ask(|| {
        HttpResponse::PaymentRequired().content_type("application/problem+json").body(
            json!({ "type": "/problems/no-credit", "title": "No credit", "status": 402, "detail": "pay", "due": 5 })
                .to_string(),
        )
    })
    .await;
    assert_eq!(reply.problem(402, "no-credit", "pay")["due"], 5);
    a.stop().await;
}

/// A server with a certificate of the CA that answers everything alike.
fn impostor(identity: &Issued, answer: fn() -> HttpResponse) -> Impostor {
    let server =
        HttpServer::new(move || App::new().default_service(web::to(move || async move { answer() })))
            .disable_signals()
            .workers(1)
            .bind_rustls_0_23("127.0.0.1:0", identity.server())
            .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    Impostor { handle: server.handle(), server, address }
}

struct Impostor {
    handle: actix_web::dev::ServerHandle,
    server: actix_web::dev::Server,
    address: std::net::SocketAddr,
}
