//! X.509 applications, without a member of a group: domains, and the gateway as an external sender.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mimi_gateway::{
    config::{ExternalSenderSettings, Pem},
    tools::pki::{CertificateAuthority, ClientKey},
};
use serde_json::{Value, json};

use crate::support::{Reply, Request, Setup, TestGateway};

fn roots() -> String {
    CertificateAuthority::root("Root", 2).unwrap().pem()
}

#[actix_web::test]
async fn clients_are_of_a_domain_of_the_gateway() {
    let gateway = Setup::x509(&roots(), &["a.example"], &["b.example"]).start().await;
    let new = |domain: Option<&str>| {
        let mut new = json!({ "clientHandle": "alice/phone", "tags": ["alice"] });
        if let Some(domain) = domain {
            new["domain"] = domain.into();
        }
        new
    };
    let id = gateway.post("/clients", new(None)).await.success(201)["clientId"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(gateway.get(&format!("/clients/{id}")).await.success(200)["domain"], "a.example");
    let taken = gateway.post("/clients", new(Some("A.EXAMPLE"))).await;
    assert_eq!(taken.problem(409, "client-handle-taken", "")["clientId"], id);
    for domain in ["b.example", "c.example"] {
        let reply = gateway.post("/clients", new(Some(domain))).await;
        reply.problem(400, "malformed-request", "not assigned to this gateway");
    }
    gateway.get("/clients?tag=alice").await.problem(400, "malformed-request", "name one with `domain`");
    let found = gateway.get("/clients?tag=alice&domain=a.example").await.success(200);
    assert_eq!(found["identities"].as_array().unwrap().len(), 1);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_handle_is_of_a_domain() {
    let gateway = Setup::x509(&roots(), &["a.example"], &["c.example"]).start().await;
    let ask = async |gateway: &TestGateway, query: &str| {
        let welcomes = format!("/clients/alice/welcome-msgs{query}");
        let one = format!("/clients/alice/welcome-msgs/00000000000000ff{query}");
        let groups = format!("/clients/alice/groups{query}");
        [gateway.get(&groups).await, gateway.get(&welcomes).await, gateway.delete(&one).await]
    };
    let accepted = |[groups, welcomes, acknowledged]: [Reply; 3]| {
        assert_eq!(groups.success(200), json!({ "groups": [] }));
        assert_eq!(welcomes.success(200), json!({ "joinInfos": [] }));
        acknowledged.success(204);
    };
    // The only domain need not be named; another gateway's is refused.
    for query in ["", "?domain=a.example", "?domain=A.EXAMPLE"] {
        accepted(ask(&gateway, query).await);
    }
    for domain in ["c.example", "d.example"] {
        for reply in ask(&gateway, &format!("?domain={domain}")).await {
            reply.problem(400, "malformed-request", "not assigned to this gateway");
        }
    }
    gateway.stop().await;

    let gateway = Setup::x509(&roots(), &["a.example", "b.example"], &[]).start().await;
    for reply in ask(&gateway, "").await {
        reply.problem(400, "malformed-request", "name one with `domain`");
    }
    for domain in ["a.example", "b.example"] {
        accepted(ask(&gateway, &format!("?domain={domain}")).await);
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_handle_is_unique_in_its_domain() {
    let gateway = Setup::x509(&roots(), &["a.example", "b.example"], &[]).start().await;
    let new = json!({ "clientHandle": "alice/phone" });
    gateway.post("/clients", new.clone()).await.problem(400, "malformed-request", "name one with `domain`");
    let register = async |domain: &str, status: u16| {
        let mut new = new.clone();
        new["domain"] = domain.into();
        let reply = gateway.post("/clients", new).await;
        assert_eq!(reply.status, status, "{}", reply.text());
    };
    register("a.example", 201).await;
    register("b.example", 201).await;
    register("b.example", 409).await;
    gateway.stop().await;
}

#[actix_web::test]
async fn the_gateway_says_by_which_keys_it_proposes() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = Setup::x509(&roots(), &["a.example"], &[]);
    let mut keys = Vec::new();
    for (name, algorithm) in [("ed", &rcgen::PKCS_ED25519), ("p256", &rcgen::PKCS_ECDSA_P256_SHA256)] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let private_key = directory.path().join(name);
        std::fs::write(&private_key, key.serialize_pem()).unwrap();
        setup.policy().external_senders.push(ExternalSenderSettings { private_key, certificate: None });
        keys.push(key.public_key_raw().to_vec());
    }
    let chain = CertificateAuthority::root("Root", 2)
        .unwrap()
        .certify("gateway", ClientKey::Ed25519(&keys[0]), Duration::from_secs(60))
        .unwrap();
    let pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&chain[0]));
    let certified = ExternalSenderSettings {
        certificate: Some(Pem::new(pem)),
        ..setup.policy().external_senders[0].clone()
    };
    setup.policy().external_senders.push(certified);
    let gateway = setup.start().await;

    let found = gateway.get("/external-sender").await.success(200);
    let senders = found["externalSenders"].as_array().unwrap();
    assert_eq!(senders.len(), 3);
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    for (sender, key) in senders.iter().zip(&keys) {
        assert_eq!(bytes(&sender["publicKey"]), *key);
        // SignaturePublicKey, then a basic credential (1) that names the domain.
        let (length, name) = (u8::try_from(key.len()).unwrap(), b"a.example");
        let length = if length < 64 { vec![length] } else { vec![0x40, length] };
        let expected = [&length[..], key, &[0, 1, 9], name].concat();
        assert_eq!(bytes(&sender["externalSender"]), expected);
    }
    let schemes: Vec<_> = senders.iter().map(|sender| sender["signatureScheme"].as_u64().unwrap()).collect();
    assert_eq!(schemes, [0x0807, 0x0403, 0x0807]);
    assert!(bytes(&senders[2]["externalSender"])[33..].starts_with(&[0, 2]), "an X.509 credential");

    let request = Request::new("GET", &gateway.path("/external-sender"));
    gateway.send(request.clone().token(&gateway.reader)).await.success(200);
    gateway.send(request.clone()).await.problem(401, "not-authenticated", "");
    gateway.send(request.token(&gateway.other_writer)).await.problem(403, "not-permitted", "");
    let other = Request::new("GET", &format!("/apps/{}/external-sender", gateway.other_app));
    let none = gateway.send(other.token(&gateway.other_writer)).await.success(200);
    assert_eq!(none, json!({ "externalSenders": [] }));
    gateway.stop().await;
}
