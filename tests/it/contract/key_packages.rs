//! *Managing Key Packages*, with key packages made by an MLS client.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, KeyPackage, Lifetime,
    MlsMessageOut, tls_codec::Serialize as _,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use serde_json::{Value, json};

use crate::support::{Reply, Request, Setup, TestGateway};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const OTHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;

/// A fresh key package in an MLSMessage, as Base64.
fn key_package(handle: &str, suite: Ciphersuite, lifetime_s: u64) -> String {
    package_of(handle, suite, Lifetime::new(lifetime_s), Capabilities::default())
}

/// A fresh key package with this lifetime and these capabilities.
fn package_of(handle: &str, suite: Ciphersuite, lifetime: Lifetime, capabilities: Capabilities) -> String {
    let provider = OpenMlsRustCrypto::default();
    let signer = SignatureKeyPair::new(suite.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(handle.as_bytes().to_vec()).into(),
        signature_key: signer.public().into(),
    };
    let bundle = KeyPackage::builder()
        .key_package_lifetime(lifetime)
        .leaf_node_capabilities(capabilities)
        .build(suite, &provider, &signer, credential)
        .unwrap();
    let message = MlsMessageOut::from(bundle.key_package().clone());
    STANDARD.encode(message.tls_serialize_detached().unwrap())
}

fn good(handle: &str) -> String {
    key_package(handle, SUITE, 3600)
}

async fn register(gateway: &TestGateway, handle: &str) -> String {
    let created = gateway.post("/clients", json!({ "clientHandle": handle })).await.success(201);
    format!("/clients/{}", created["clientId"].as_str().unwrap())
}

fn attributes(label: &str) -> Value {
    json!({ "protocolVersion": 1, "cipherSuite": 1, "appLabel": label })
}

async fn create_queue(gateway: &TestGateway, client: &str, label: &str) -> String {
    let created = gateway.post(&format!("{client}/queues"), attributes(label)).await.success(201);
    assert_eq!(created.as_object().unwrap().len(), 1, "{created}");
    format!("{client}/queues/{}", created["keyQueueId"].as_str().unwrap())
}

fn counts(in_pool: usize, available: usize) -> Value {
    json!({ "keyPackagesInPool": in_pool, "keyPackagesAvailable": available })
}

fn wanted(client: &str, receiver: &str) -> String {
    format!("{client}/keyPackage?protocolVersion=1&cipherSuite=1&receiverClientId={receiver}")
}

#[actix_web::test]
async fn a_queue_is_created_once_listed_and_deleted() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    assert_eq!(gateway.get(&format!("{alice}/queues")).await.success(200), json!({ "queues": [] }));
    let queue = create_queue(&gateway, &alice, "").await;
    let id = queue.rsplit('/').next().unwrap();
    let again = gateway.post(&format!("{alice}/queues"), attributes("")).await;
    assert_eq!(again.problem(409, "key-queue-exists", "")["keyQueueId"], id);
    let labelled = create_queue(&gateway, &alice, "call").await;
    assert_ne!(labelled, queue);
    // The same attributes of another client are another queue.
    let bob = register(&gateway, "bob").await;
    create_queue(&gateway, &bob, "").await;

    let listed = gateway.get(&format!("{alice}/queues")).await.success(200);
    assert_eq!(listed["queues"].as_array().unwrap().len(), 2);
    let found = listed["queues"].as_array().unwrap().iter().find(|found| found["keyQueueId"] == id).unwrap();
    let expected = json!({
        "keyQueueId": id, "protocolVersion": 1, "cipherSuite": 1, "appLabel": "",
        "keyPackagesInPool": 0, "keyPackagesAvailable": 0, "hasFinalKey": false
    });
    assert_eq!(*found, expected);

    gateway.delete(&queue).await.success(204);
    gateway.delete(&queue).await.problem(404, "unknown-key-queue", "");
    gateway.patch(&queue, json!({})).await.problem(404, "unknown-key-queue", "");
    assert_ne!(create_queue(&gateway, &alice, "").await, queue);
    gateway.stop().await;
}

#[actix_web::test]
async fn unknown_clients_and_queues_are_told_apart() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let bob = register(&gateway, "bob").await;
    let of_bob = create_queue(&gateway, &bob, "").await;
    let id = of_bob.rsplit('/').next().unwrap();
    for client in ["/clients/9c6e5b1e-3a0f-4f5e-8d43-6a3a3f1f0001", "/clients/x", "/clients/"] {
        for reply in [
            gateway.post(&format!("{client}/queues"), attributes("")).await,
            gateway.get(&format!("{client}/queues")).await,
            gateway.patch(&format!("{client}/queues/{id}"), json!({})).await,
            gateway.delete(&format!("{client}/queues/{id}")).await,
            gateway.get(&wanted(client, "r")).await,
        ] {
            reply.problem(404, "unknown-client", "");
        }
    }
    for queue in ["9c6e5b1e-3a0f-4f5e-8d43-6a3a3f1f0001", "x", "", id] {
        for reply in [
            gateway.patch(&format!("{alice}/queues/{queue}"), json!({})).await,
            gateway.delete(&format!("{alice}/queues/{queue}")).await,
        ] {
            reply.problem(404, "unknown-key-queue", "");
        }
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn attributes_that_no_package_can_have_are_refused() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    for (version, suite, label) in [(2, 1, ""), (0, 1, ""), (1, 0, ""), (1, 65535, "")] {
        let body = json!({ "protocolVersion": version, "cipherSuite": suite, "appLabel": label });
        gateway.post(&format!("{alice}/queues"), body).await.problem(400, "malformed-request", "");
    }
    for (query, part) in [
        ("protocolVersion=1&cipherSuite=1", "missing field `receiverClientId`"),
        ("protocolVersion=1&receiverClientId=r", "missing field `cipherSuite`"),
        ("cipherSuite=1&receiverClientId=r", "missing field `protocolVersion`"),
        ("protocolVersion=1&cipherSuite=1&receiverClientId=r&receiver_client_id=r", "duplicate field"),
        ("protocolVersion=65536&cipherSuite=1&receiverClientId=r", "`protocolVersion`"),
        ("protocolVersion=1&cipherSuite=x&receiverClientId=r", "`cipherSuite`"),
        ("protocolVersion=1&cipherSuite=1&receiverClientId=r&label=x", "unknown field `label`"),
    ] {
        let reply = gateway.get(&format!("{alice}/keyPackage?{query}")).await;
        reply.problem(400, "malformed-request", part);
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn packages_are_uploaded_counted_once_and_reset() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    assert_eq!(gateway.patch(&queue, json!({})).await.success(200), counts(0, 0));

    let packages = [good("alice"), good("alice"), good("alice")];
    let upload = json!({ "keyPackages": packages, "isReset": false });
    assert_eq!(gateway.patch(&queue, upload.clone()).await.success(200), counts(3, 3));
    assert_eq!(gateway.patch(&queue, upload).await.success(200), counts(3, 3), "a package is counted once");
    let twice = json!({ "keyPackages": [packages[0], packages[0], good("alice")] });
    assert_eq!(gateway.patch(&queue, twice).await.success(200), counts(4, 4));

    gateway.get(&wanted(&alice, "bob")).await.success(200);
    assert_eq!(
        gateway.patch(&queue, json!({})).await.success(200),
        counts(4, 3),
        "assigned ones are still held"
    );

    let reset = json!({ "isReset": true, "keyPackages": [good("alice")], "finalKey": good("alice") });
    assert_eq!(gateway.patch(&queue, reset).await.success(200), counts(1, 1));
    let listed = gateway.get(&format!("{alice}/queues")).await.success(200);
    assert_eq!(listed["queues"][0]["hasFinalKey"], true);
    gateway.stop().await;
}

#[actix_web::test]
async fn one_bad_package_refuses_the_upload() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    let group_like = STANDARD.encode([0, 1, 0, 1]);
    let mut trailing = STANDARD.decode(good("alice")).unwrap();
    trailing.push(0);
    let mut forged = STANDARD.decode(good("alice")).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let bad = [
        good("mallory"),
        key_package("alice", OTHER_SUITE, 3600),
        STANDARD.encode(trailing),
        STANDARD.encode(forged),
        group_like,
        String::new(),
    ];
    for package in bad {
        let reply = gateway.patch(&queue, json!({ "keyPackages": [good("alice"), package] })).await;
        let problem = reply.problem(422, "invalid-key-package", "");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{problem}");
        assert_eq!(errors[0]["index"], 1, "{problem}");
        assert!(errors[0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        let reply =
            gateway.patch(&queue, json!({ "keyPackages": [good("alice")], "finalKey": package })).await;
        let problem = reply.problem(422, "invalid-key-package", "");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
        assert_eq!(problem["errors"][0]["index"], 1, "the final key comes after the last: {problem}");
        let detail = problem["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.starts_with("finalKey: "), "{problem}");
        assert_eq!(gateway.patch(&queue, json!({})).await.success(200), counts(0, 0), "nothing was stored");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_package_is_assigned_to_one_receiver() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    gateway.get(&wanted(&alice, "bob")).await.problem(404, "no-key-package", "");

    // The one that expires first is handed out first.
    let (late, early) = (key_package("alice", SUITE, 7200), key_package("alice", SUITE, 3600));
    gateway.patch(&queue, json!({ "keyPackages": [late, early] })).await.success(200);
    let assigned = gateway.get(&wanted(&alice, "bob")).await.success(200);
    assert_eq!(assigned, json!({ "keyPackage": early, "isFinalKey": false }));
    assert_eq!(
        gateway.get(&wanted(&alice, "bob")).await.success(200),
        assigned,
        "the same receiver gets the same"
    );
    let draft =
        format!("{alice}/keyPackage?protocolVersion=1&cipherSuite=1&receiver_client_id=bob&appLabel=");
    assert_eq!(gateway.get(&draft).await.success(200), assigned, "the draft's name is the same parameter");
    assert_eq!(gateway.get(&wanted(&alice, "carol")).await.success(200)["keyPackage"], late);
    gateway.get(&wanted(&alice, "dave")).await.problem(404, "no-key-package", "");

    // The final key comes last, to everybody, with a warning.
    let last = good("alice");
    gateway.patch(&queue, json!({ "finalKey": last })).await.success(200);
    for receiver in ["dave", "erin"] {
        let assigned = gateway.get(&wanted(&alice, receiver)).await.success(200);
        assert_eq!(assigned, json!({ "keyPackage": last, "isFinalKey": true }));
    }
    assert_eq!(gateway.get(&wanted(&alice, "bob")).await.success(200)["isFinalKey"], false);
    for other in ["&appLabel=x", "&domain=b.example"] {
        let reply = gateway.get(&format!("{}{other}", wanted(&alice, "bob"))).await;
        assert!([400, 404].contains(&reply.status), "{}", reply.text());
    }
    let other_suite = format!("{alice}/keyPackage?protocolVersion=1&cipherSuite=3&receiverClientId=bob");
    gateway.get(&other_suite).await.problem(404, "no-key-package", "");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_queue_is_relabelled_unless_the_label_is_taken() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let (first, second) =
        (create_queue(&gateway, &alice, "a").await, create_queue(&gateway, &alice, "b").await);
    let reply = gateway.patch(&second, json!({ "appLabel": "a", "keyPackages": [good("alice")] })).await;
    assert_eq!(reply.problem(409, "key-queue-exists", "")["keyQueueId"], first.rsplit('/').next().unwrap());
    assert_eq!(gateway.patch(&second, json!({})).await.success(200), counts(0, 0), "nothing was stored");
    gateway.patch(&second, json!({ "appLabel": "c", "keyPackages": [good("alice")] })).await.success(200);
    let labelled = |label: &str| format!("{}&appLabel={label}", wanted(&alice, "bob"));
    gateway.get(&labelled("b")).await.problem(404, "no-key-package", "");
    gateway.get(&labelled("c")).await.success(200);
    gateway.stop().await;
}

#[actix_web::test]
async fn renaming_a_client_drops_the_packages_of_its_old_handle() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    gateway
        .patch(&queue, json!({ "keyPackages": [good("alice")], "finalKey": good("alice") }))
        .await
        .success(200);
    gateway.patch(&alice, json!({ "clientHandle": "alicia" })).await.success(200);
    gateway.get(&wanted(&alice, "bob")).await.problem(404, "no-key-package", "");
    assert_eq!(gateway.patch(&queue, json!({})).await.success(200), counts(0, 0));
    gateway.patch(&queue, json!({ "keyPackages": [good("alice")] })).await.problem(
        422,
        "invalid-key-package",
        "",
    );
    gateway.patch(&queue, json!({ "keyPackages": [good("alicia")] })).await.success(200);
    gateway.stop().await;
}

#[actix_web::test]
async fn deleting_a_client_deletes_its_queues() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    gateway.patch(&queue, json!({ "keyPackages": [good("alice")] })).await.success(200);
    gateway.delete(&alice).await.success(204);
    for reply in [gateway.get(&wanted(&alice, "bob")).await, gateway.patch(&queue, json!({})).await] {
        reply.problem(404, "unknown-client", "");
    }
    let again = register(&gateway, "alice").await;
    assert_eq!(gateway.get(&format!("{again}/queues")).await.success(200), json!({ "queues": [] }));
    gateway.stop().await;
}

#[actix_web::test]
async fn a_client_has_a_number_of_queues_and_a_queue_of_packages() {
    let mut setup = Setup::new();
    setup.config.limits.key_queues_per_client_max = 2;
    setup.config.limits.key_packages_per_queue_max = 2;
    setup.config.limits.key_packages_per_request_max = 3;
    let gateway = setup.start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    create_queue(&gateway, &alice, "b").await;
    let reply = gateway.post(&format!("{alice}/queues"), attributes("c")).await;
    reply.problem(422, "limit-reached", "2");
    let packages = |count: usize| (0..count).map(|_| good("alice")).collect::<Vec<_>>();
    gateway.patch(&queue, json!({ "keyPackages": packages(4) })).await.problem(413, "too-large", "3");
    gateway.patch(&queue, json!({ "keyPackages": packages(3) })).await.problem(422, "limit-reached", "2");
    gateway.patch(&queue, json!({ "keyPackages": packages(2) })).await.success(200);
    gateway.patch(&queue, json!({ "keyPackages": packages(1) })).await.problem(422, "limit-reached", "2");
    gateway.stop().await;
}

#[actix_web::test]
async fn queue_bodies_name_what_is_wrong() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    for (body, part) in [
        (r#"{"keyPackages":["!"]}"#, "`keyPackages[0]`: not Base64"),
        (r#"{"finalKey":"AA="}"#, "`finalKey`: not Base64"),
        (r#"{"isReset":"yes"}"#, "`isReset`: invalid type"),
        (r#"{"isReset":true,"isReset":true}"#, "duplicate field `isReset`"),
        (r#"{"keyPackage":[]}"#, "unknown field `keyPackage`"),
    ] {
        let request = Request::new("PATCH", &gateway.path(&queue)).token(&gateway.writer).json(body);
        gateway.send(request).await.problem(400, "malformed-request", part);
    }
    gateway.stop().await;
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The indexes that a refused upload names.
fn refused_at(reply: &Reply) -> Vec<u64> {
    let problem = reply.problem(422, "invalid-key-package", "");
    problem["errors"].as_array().unwrap().iter().map(|error| error["index"].as_u64().unwrap()).collect()
}

#[actix_web::test]
async fn every_package_that_no_group_could_take_in_is_named() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    let incapable = || {
        let capabilities = Capabilities::builder().credentials(vec![CredentialType::X509]).build();
        package_of("alice", SUITE, Lifetime::new(3600), capabilities)
    };
    // Forty bad ones, and a good one after each.
    let packages: Vec<String> = (0..40).flat_map(|_| [incapable(), good("alice")]).collect();
    let reply = gateway.patch(&queue, json!({ "keyPackages": packages, "finalKey": incapable() })).await;
    let expected: Vec<u64> = (0..40).map(|number| 2 * number).chain([80]).collect();
    assert_eq!(refused_at(&reply), expected);
    assert_eq!(gateway.patch(&queue, json!({})).await.success(200), counts(0, 0), "nothing was stored");
    gateway.get(&wanted(&alice, "bob")).await.problem(404, "no-key-package", "");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_package_is_handed_out_once_its_lifetime_has_begun() {
    let setup = Setup::new();
    let gateway = setup.start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    let from_in = |seconds: u64| {
        let lifetime = Lifetime::init(now_s() + seconds, now_s() + 7200);
        package_of("alice", SUITE, lifetime, Capabilities::default())
    };
    let too_late = from_in(600);
    assert_eq!(refused_at(&gateway.patch(&queue, json!({ "keyPackages": [too_late] })).await), [0]);
    let reversed =
        package_of("alice", SUITE, Lifetime::init(now_s() + 60, now_s() + 30), Capabilities::default());
    assert_eq!(refused_at(&gateway.patch(&queue, json!({ "keyPackages": [reversed] })).await), [0]);

    let soon = from_in(200);
    let upload = json!({ "keyPackages": [soon], "finalKey": from_in(250) });
    assert_eq!(gateway.patch(&queue, upload).await.success(200), counts(1, 1));
    gateway.get(&wanted(&alice, "bob")).await.problem(404, "no-key-package", "");
    setup.pass(std::time::Duration::from_secs(210));
    assert_eq!(
        gateway.get(&wanted(&alice, "bob")).await.success(200),
        json!({ "keyPackage": soon, "isFinalKey": false })
    );
    gateway.get(&wanted(&alice, "carol")).await.problem(404, "no-key-package", "");
    setup.pass(std::time::Duration::from_secs(50));
    assert_eq!(gateway.get(&wanted(&alice, "carol")).await.success(200)["isFinalKey"], true);
    gateway.stop().await;
}

#[actix_web::test]
async fn the_total_lifetime_of_a_package_is_bounded_if_that_is_set() {
    let for_ever = || package_of("alice", SUITE, Lifetime::init(0, u64::MAX), Capabilities::default());
    for (lifetime_s_max, is_accepted) in [(0, true), (7_862_400, false)] {
        let mut setup = Setup::new();
        setup.config.limits.key_package_lifetime_s_max = lifetime_s_max;
        let gateway = setup.start().await;
        let alice = register(&gateway, "alice").await;
        let queue = create_queue(&gateway, &alice, "").await;
        let reply = gateway.patch(&queue, json!({ "keyPackages": [good("alice"), for_ever()] })).await;
        if is_accepted {
            assert_eq!(reply.success(200), counts(2, 2));
        } else {
            assert_eq!(refused_at(&reply), [1]);
        }
        gateway.stop().await;
    }
}

/// A package that is uploaded at once as the final key of one queue and to the pools of two others ends up in one place.
#[actix_web::test]
async fn a_package_is_held_in_one_way_however_uploads_race() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let mut queues = Vec::new();
    for label in ["a", "b", "c"] {
        queues.push(create_queue(&gateway, &alice, label).await);
    }
    for _ in 0..15 {
        let package = good("alice");
        let pool = json!({ "keyPackages": [package] });
        let (first, second, third) = tokio::join!(
            gateway.patch(&queues[0], pool.clone()),
            gateway.patch(&queues[1], pool),
            gateway.patch(&queues[2], json!({ "finalKey": package })),
        );
        let accepted: Vec<_> =
            [&first, &second, &third].into_iter().filter(|reply| reply.status == 200).collect();
        assert_eq!(accepted.len(), 1, "{} {} {}", first.text(), second.text(), third.text());
        for refused in [&first, &second, &third].into_iter().filter(|reply| reply.status != 200) {
            assert_eq!(refused_at(refused), [0]);
        }
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_queue_holds_a_number_of_bytes_and_assigned_packages_take_no_place_from_others() {
    let mut setup = Setup::new();
    setup.config.limits.key_queue_bytes_max = 4096;
    setup.config.limits.key_packages_per_queue_max = 2;
    let gateway = setup.start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    let packages = |count: usize| (0..count).map(|_| good("alice")).collect::<Vec<_>>();
    gateway.patch(&queue, json!({ "keyPackages": packages(2) })).await.success(200);
    gateway.patch(&queue, json!({ "keyPackages": packages(1) })).await.problem(422, "limit-reached", "2");
    for receiver in ["bob", "carol"] {
        gateway.get(&wanted(&alice, receiver)).await.success(200);
    }
    assert_eq!(
        gateway.patch(&queue, json!({ "keyPackages": packages(1) })).await.success(200),
        counts(3, 1),
        "the assigned ones are apart"
    );
    let reply = gateway.patch(&queue, json!({ "finalKey": good("alice"), "keyPackages": packages(1) })).await;
    reply.problem(422, "limit-reached", "4096 bytes");
    let reset = json!({ "isReset": true, "keyPackages": packages(2) });
    assert_eq!(gateway.patch(&queue, reset).await.success(200), counts(2, 2));
    gateway.stop().await;
}

/// An assigned package that a reset removed is not given to another receiver when it comes back.
#[actix_web::test]
async fn a_package_goes_to_one_receiver_over_resets() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    let (first, second) = (good("alice"), good("alice"));
    let reset = |package: &str| json!({ "isReset": true, "keyPackages": [package] });
    gateway.patch(&queue, reset(&first)).await.success(200);
    assert_eq!(gateway.get(&wanted(&alice, "bob")).await.success(200)["keyPackage"], first);
    gateway.patch(&queue, reset(&second)).await.success(200);
    assert_eq!(gateway.patch(&queue, reset(&first)).await.success(200), counts(1, 0));
    gateway.get(&wanted(&alice, "carol")).await.problem(404, "no-key-package", "");
    assert_eq!(gateway.get(&wanted(&alice, "bob")).await.success(200)["keyPackage"], first);
    gateway.stop().await;
}

/// A package that was assigned is its receiver's in a queue that is deleted and made again, and in another queue.
#[actix_web::test]
async fn a_package_goes_to_one_receiver_over_queues_made_again() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let queue = create_queue(&gateway, &alice, "").await;
    let (first, second) = (good("alice"), good("alice"));
    gateway.patch(&queue, json!({ "keyPackages": [first] })).await.success(200);
    assert_eq!(gateway.get(&wanted(&alice, "bob")).await.success(200)["keyPackage"], first);
    gateway.delete(&queue).await.success(204);
    let queue = create_queue(&gateway, &alice, "").await;
    let final_key = json!({ "keyPackages": [], "finalKey": first });
    let refused = gateway.patch(&queue, final_key).await.problem(422, "invalid-key-package", "");
    assert!(refused["errors"][0]["detail"].as_str().unwrap().contains("it was assigned"), "{refused}");
    let both = json!({ "keyPackages": [first, second] });
    assert_eq!(gateway.patch(&queue, both.clone()).await.success(200), counts(2, 1));
    assert_eq!(gateway.patch(&queue, both).await.success(200), counts(2, 1), "again");
    assert_eq!(gateway.get(&wanted(&alice, "carol")).await.success(200)["keyPackage"], second);
    gateway.get(&wanted(&alice, "dave")).await.problem(404, "no-key-package", "");
    assert_eq!(gateway.get(&wanted(&alice, "bob")).await.success(200)["keyPackage"], first);
    gateway.delete(&queue).await.success(204);
    let other = create_queue(&gateway, &alice, "other").await;
    let reset = json!({ "isReset": true, "keyPackages": [second] });
    assert_eq!(gateway.patch(&other, reset).await.success(200), counts(1, 0));
    let from_other = |receiver| format!("{}&appLabel=other", wanted(&alice, receiver));
    gateway.get(&from_other("bob")).await.problem(404, "no-key-package", "");
    assert_eq!(gateway.get(&from_other("carol")).await.success(200)["keyPackage"], second);
    gateway.stop().await;
}

/// Many may have a final key that was handed out, so it does not come back as a package that is used once.
#[actix_web::test]
async fn a_final_key_does_not_come_back_as_a_package_that_is_used_once() {
    let gateway = TestGateway::start().await;
    let alice = register(&gateway, "alice").await;
    let (first, second, third) = (good("alice"), good("alice"), good("alice"));
    let final_key = |package: &str| json!({ "keyPackages": [], "finalKey": package });
    let once = |package: &str| json!({ "keyPackages": [package] });
    let queue = create_queue(&gateway, &alice, "").await;
    gateway.patch(&queue, final_key(&first)).await.success(200);
    assert_eq!(gateway.get(&wanted(&alice, "bob")).await.success(200)["keyPackage"], first);
    // It is replaced, and its successor goes with the queue.
    gateway.patch(&queue, final_key(&second)).await.success(200);
    let refused = gateway.patch(&queue, once(&first)).await.problem(422, "invalid-key-package", "");
    assert!(refused["errors"][0]["detail"].as_str().unwrap().contains("it was a final key"), "{refused}");
    gateway.delete(&queue).await.success(204);
    let queue = create_queue(&gateway, &alice, "").await;
    for package in [&first, &second] {
        gateway.patch(&queue, once(package)).await.problem(422, "invalid-key-package", "");
    }
    gateway.patch(&queue, once(&third)).await.success(200);
    // As a final key it may come back.
    gateway.patch(&queue, final_key(&first)).await.success(200);
    gateway.patch(&queue, final_key(&first)).await.success(200);
    assert_eq!(gateway.get(&wanted(&alice, "carol")).await.success(200)["keyPackage"], third);
    assert_eq!(gateway.get(&wanted(&alice, "dave")).await.success(200)["keyPackage"], first);
    gateway.stop().await;
}
