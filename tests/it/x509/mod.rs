//! Clients identified by certificates, told by real MLS clients: admission and refusal, and in `expiry.rs` and
//! `revocation.rs` the fate of members whose certificates have ended.

mod expiry;
mod revocation;

use std::time::Duration;

use actors::{Clock, DomainName, identity::x509::TrustStore};
use mimi_gateway::{
    api::{
        joining::WelcomeQuery,
        key_packages::KeyPackageUploadBody,
        problem::{ProblemDocument, ProblemKind},
        text::GroupIdText,
    },
    config::{DataDir, Pem},
};
use mls_rs::CipherSuite;

use crate::mls_support::{
    Identities, MlsClient, assert_agree,
    pki::{Certified, LONG, Pki},
    refusal, refused,
};
use crate::support::{Setup, TestGateway};

const DOMAIN: &str = "a.example";
/// How long the certificates of those are valid whose certificates expire.
const SHORT: Duration = Duration::from_secs(3600);

async fn start(pki: &Pki) -> TestGateway {
    Setup::x509(&pki.roots(), &[DOMAIN], &["b.example"]).start().await
}

async fn join(gateway: &TestGateway, pki: &Pki, certified: &Certified) -> MlsClient {
    let client = MlsClient::register_certified(gateway, certified, &pki.roots()).await;
    client.upload_key_packages(2).await;
    client
}

#[track_caller]
fn broke(problem: &ProblemDocument, kind: ProblemKind, rule: &str) {
    assert_eq!(problem.kind(), Some(kind), "{problem:?}");
    assert_eq!(problem.members.get("rule").and_then(|rule| rule.as_str()), Some(rule), "{problem:?}");
}

#[actix_web::test]
async fn certified_clients_form_a_group() {
    let pki = Pki::new();
    let gateway = start(&pki).await;
    for suite in [CipherSuite::CURVE25519_AES128, CipherSuite::P256_AES128] {
        let account = format!("alice {}", u16::from(suite));
        let certify = |device: &str| pki.certify_for(suite, DOMAIN, &account, device, LONG);
        let phone = certify("phone");
        let alice = join(&gateway, &pki, &phone).await;
        let tablet = join(&gateway, &pki, &certify("tablet")).await;
        let desk = join(&gateway, &pki, &certify("desk")).await;

        let mut at_alice = alice.create_group().await;
        at_alice.invite(&[&tablet]).await;
        let mut at_tablet = tablet.join().await;
        at_tablet.update().await;
        at_alice.catch_up().await;

        // A proposal and an external commit bring in others of this gateway's domain.
        let package = desk.assign_to(&alice.id.to_string()).await.unwrap().key_package;
        let add = at_alice.make_add_proposal(&package);
        at_alice.propose(&add).await.unwrap();
        at_alice.update().await;
        at_tablet.catch_up().await;
        let mut at_desk = desk.join().await;
        let watch = join(&gateway, &pki, &certify("watch")).await;
        let at_watch = watch.join_externally(&at_alice.id(), None, false).await;
        for member in [&mut at_alice, &mut at_tablet, &mut at_desk] {
            member.catch_up().await;
        }
        assert_agree(&[&at_alice, &at_tablet, &at_desk, &at_watch]);
        at_alice.assert_gateway_agrees().await;
        let group = at_alice.api.group(&at_alice.id()).await.unwrap();
        assert_eq!(group.hub_domain, Some(phone.domain.clone()));
        assert!(group.members.iter().all(|member| member.domain.as_ref() == Some(&phone.domain)));

        // A new certificate of the same client succeeds the old one; and the client may come back with yet another.
        let renewed = certify("phone");
        let commit = at_alice.make_commit(|builder| {
            builder.set_new_signing_identity(renewed.secret.clone(), renewed.signing_identity())
        });
        at_alice.commit(&commit).await;
        let again = MlsClient::unregistered(&gateway, &certify("phone"), &pki.roots());
        let leaf = at_alice.leaf_of(&phone.handle);
        again.join_externally(&at_alice.id(), Some(leaf), true).await.assert_gateway_agrees().await;
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_key_package_is_its_clients_own() {
    let (pki, others) = (Pki::new(), Pki::new());
    let setup = Setup::x509(&pki.roots(), &[DOMAIN, "c.example"], &["b.example"]);
    let gateway = setup.start().await;
    let phone = pki.certify(DOMAIN, "alice", "phone");
    let alice = join(&gateway, &pki, &phone).await;
    let refuses = async |certified: &Certified, roots: &Pki, part: &str| {
        let package = MlsClient::unregistered(&gateway, certified, &roots.roots()).key_package();
        let upload = KeyPackageUploadBody { key_packages: vec![package], ..KeyPackageUploadBody::default() };
        let problem = refusal(alice.upload(&upload).await);
        assert_eq!(problem.kind(), Some(ProblemKind::InvalidKeyPackage), "{problem:?}");
        let errors = problem.members["errors"].to_string();
        assert!(errors.contains(part), "{part:?} is not in {errors}");
    };
    refuses(&pki.certify(DOMAIN, "alice", "tablet"), &pki, "its credential names").await;
    refuses(&pki.certify(DOMAIN, "bob", "phone"), &pki, "its credential names").await;
    refuses(&pki.certify("b.example", "alice", "phone"), &pki, "another domain").await;
    refuses(&pki.certify("c.example", "alice", "phone"), &pki, "another domain").await;
    refuses(&others.certify(DOMAIN, "alice", "phone"), &others, "is not signed with its issuer's key").await;
    refuses(&pki.certify(DOMAIN, "ali@ce", "phone"), &pki, "'@'").await;
    let suite = CipherSuite::CURVE25519_AES128;
    let short = pki.certify_for(suite, DOMAIN, "alice", "phone", SHORT);
    let package = MlsClient::unregistered(&gateway, &short, &pki.roots()).key_package();
    setup.pass(2 * SHORT);
    let upload = KeyPackageUploadBody { key_packages: vec![package], ..KeyPackageUploadBody::default() };
    let problem = refusal(alice.upload(&upload).await);
    assert!(problem.members["errors"].to_string().contains("has expired"), "{problem:?}");
    assert_eq!(alice.key_queue().await.key_packages_in_pool, 2);

    // A client of a domain is found under this domain and no other.
    let mut elsewhere = alice;
    elsewhere.domain = Some("c.example".parse().unwrap());
    refused(elsewhere.assign_to("bob").await, ProblemKind::UnknownClient);
    elsewhere.domain = None;
    refused(elsewhere.assign_to("bob").await, ProblemKind::MalformedRequest);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_sender_speaks_for_its_own_domain() {
    let pki = Pki::new();
    let gateway = start(&pki).await;
    let alice = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let client = |domain| {
        let certified = pki.certify(domain, "bob", "phone");
        MlsClient::unregistered(&gateway, &certified, &pki.roots())
    };
    let (federated, foreign) = (client("b.example"), client("c.example"));

    let (_, new) = federated.make_group();
    let problem = refusal(federated.api.create_group(&new).await);
    assert_eq!(problem.kind(), Some(ProblemKind::InvalidGroupInfo), "{problem:?}");
    assert!(problem.detail.contains("b.example, which is not assigned to this gateway"), "{problem:?}");

    let mut at_alice = alice.create_group().await;
    for other in [&federated, &foreign] {
        let proposal = at_alice.make_add_proposal(&other.key_package());
        broke(&refusal(at_alice.propose(&proposal).await), ProblemKind::InvalidProposal, "domain");
    }
    // Members invite across domains, but only to where the application federates.
    let mut at_alice = alice.create_group().await;
    let commit = at_alice.make_adding(&[foreign.key_package()]);
    broke(&refusal(at_alice.upload(&commit).await), ProblemKind::InvalidCommit, "domain");
    at_alice.clear_pending();
    let commit = at_alice.make_adding(&[federated.key_package()]);
    at_alice.commit(&commit).await;
    // Its own gateway has its welcome: here nothing waits for that handle, and no client asks for it in that domain.
    let in_domain = |domain: Option<DomainName>| WelcomeQuery { domain, ..WelcomeQuery::default() };
    let here = federated.api.welcomes(&federated.handle, &in_domain(None)).await.unwrap();
    assert_eq!(here.join_infos, []);
    let there = federated.api.welcomes(&federated.handle, &in_domain(federated.domain.clone())).await;
    refused(there, ProblemKind::MalformedRequest);
    at_alice.update().await;

    let other = MlsClient::unregistered(&gateway, &pki.certify("b.example", "eve", "phone"), &pki.roots());
    let (outsider, commit) = other.make_external_commit(&at_alice.id(), None, false).await;
    broke(&refusal(outsider.upload(&commit).await), ProblemKind::InvalidCommit, "domain");
    gateway.stop().await;
}

#[actix_web::test]
async fn nobody_takes_the_place_of_another() {
    let pki = Pki::new();
    let gateway = start(&pki).await;
    let phone = pki.certify(DOMAIN, "alice", "phone");
    let gullible = || Identities::gullible(&pki.roots());
    let alice = MlsClient::register_certified_as(&gateway, &phone, gullible()).await;
    let bob = join(&gateway, &pki, &pki.certify(DOMAIN, "bob", "phone")).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;

    let eve = pki.certify(DOMAIN, "eve", "phone");
    let commit = at_alice
        .make_commit(|builder| builder.set_new_signing_identity(eve.secret.clone(), eve.signing_identity()));
    broke(&refusal(at_alice.upload(&commit).await), ProblemKind::InvalidCommit, "successor");
    at_alice.clear_pending();
    at_alice.update().await;

    let eve = MlsClient::register_certified_as(&gateway, &eve, gullible()).await;
    let leaf = at_alice.leaf_of(&bob.handle);
    let (outsider, commit) = eve.make_external_commit(&at_alice.id(), Some(leaf), false).await;
    broke(&refusal(outsider.upload(&commit).await), ProblemKind::InvalidCommit, "successor");

    // A second certificate of a member is the same client.
    let second = pki.certify(DOMAIN, "alice", "phone");
    let second = MlsClient::unregistered_as(&gateway, &second, gullible());
    let (twin, commit) = second.make_external_commit(&at_alice.id(), None, false).await;
    broke(&refusal(twin.upload(&commit).await), ProblemKind::InvalidCommit, "distinct-clients");
    gateway.stop().await;
}

#[actix_web::test]
async fn one_handle_in_two_domains_is_two_members() {
    let pki = Pki::new();
    let gateway = Setup::x509(&pki.roots(), &[DOMAIN, "b.example"], &[]).start().await;
    let [here, there] = [DOMAIN, "b.example"].map(|domain| pki.certify(domain, "alice", "phone"));
    let (alice, other) = (join(&gateway, &pki, &here).await, join(&gateway, &pki, &there).await);
    let bob = join(&gateway, &pki, &pki.certify(DOMAIN, "bob", "phone")).await;
    let mut at_bob = bob.create_group().await;
    at_bob.invite(&[&alice, &other]).await;
    at_bob.assert_gateway_agrees().await;
    assert_eq!(alice.groups().await.len(), 1);

    // Each has its own place in the group: when one goes, the other is still listed.
    assert_eq!(other.groups().await.len(), 1);
    // And its own welcome, which the other can neither see nor acknowledge.
    let [of_alice, of_other] = [alice.welcomes().await, other.welcomes().await];
    assert_eq!((of_alice.len(), of_other.len()), (1, 1));
    assert_ne!(of_alice[0].id, of_other[0].id);
    alice.acknowledge(of_other[0].id.0).await;
    assert_eq!(other.welcomes().await, of_other);
    alice.acknowledge(of_alice[0].id.0).await;
    assert_eq!(alice.welcomes().await, []);
    assert_agree(&[&at_bob, &other.join().await]);
    for left in [1, 0] {
        let leaf = at_bob.leaf_of(&here.handle);
        let commit = at_bob.make_commit(|builder| builder.remove_member(leaf).unwrap());
        at_bob.commit(&commit).await;
        let listed = [alice.groups().await.len(), other.groups().await.len()];
        assert_eq!(listed.iter().sum::<usize>(), left, "{listed:?}");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_client_of_another_gateway_is_invited_so_often_in_a_time() {
    let pki = Pki::new();
    let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &["b.example"]);
    setup.config.limits.welcomes_per_inviter_max = 2;
    setup.config.limits.welcomes_reserved_max = 0;
    setup.config.limits.welcomes_elsewhere_window_s = 3600;
    let gateway = setup.start().await;
    let alice = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let bob = MlsClient::unregistered(&gateway, &pki.certify("b.example", "bob", "phone"), &pki.roots());
    for _ in 0..2 {
        let mut at_alice = alice.create_group().await;
        let commit = at_alice.make_adding(&[bob.key_package()]);
        at_alice.commit(&commit).await;
    }
    let mut at_alice = alice.create_group().await;
    let commit = at_alice.make_adding(&[bob.key_package()]);
    setup.pass(Duration::from_secs(600));
    let path = format!("/groups/{}/epochs", GroupIdText(at_alice.id()));
    let reply = gateway.put(&path, serde_json::to_value(&commit).unwrap()).await;
    // Nothing is known here of its acknowledgements, which would change nothing.
    let problem = reply.problem(429, "too-many-welcomes", "b.example");
    assert!(!problem["detail"].as_str().unwrap().contains("acknowledge"), "{problem}");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((2900..=3000).contains(&wait), "{wait}");
    assert!(problem["detail"].as_str().unwrap().contains(&format!("{wait} seconds")), "{problem}");
    setup.pass(Duration::from_secs(wait));
    at_alice.commit(&commit).await;
    gateway.stop().await;
}

/// Alice may certify her devices, and tries to be others by certificates of her own.
#[actix_web::test]
async fn an_account_cannot_name_others() {
    let pki = Pki::new();
    let gateway = start(&pki).await;
    let honest = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let at_honest = honest.create_group().await;
    let trust = TrustStore::new(pki.roots().as_bytes(), &[]).unwrap();
    for (domain, account) in [(DOMAIN, "bob"), ("b.example", "carol")] {
        let forged = pki.certify_below([DOMAIN, "alice"], [domain, account, "phone"]);
        let eve = MlsClient::unregistered_as(&gateway, &forged, Identities::gullible(&pki.roots()));
        let package = eve.key_package();
        let upload = KeyPackageUploadBody { key_packages: vec![package], ..KeyPackageUploadBody::default() };
        let problem = refusal(honest.upload(&upload).await);
        let errors = problem.members["errors"].to_string();
        assert!(errors.contains("certificates_above_names_max for this application is 0"), "{errors}");
        let (outsider, commit) = eve.make_external_commit(&at_honest.id(), None, false).await;
        broke(&refusal(outsider.upload(&commit).await), ProblemKind::InvalidCommit, "identity");

        // The path lengths say the same to everybody else.
        let chain: Vec<&[u8]> = forged.chain.iter().map(Vec::as_slice).collect();
        let refused = trust.validate(&chain, Clock::system().now()).unwrap_err().to_string();
        assert!(refused.contains("allows 0 CA certificates below it"), "{refused}");
    }
    gateway.stop().await;
}

/// Roots, lists and the clock can be wrong for a moment; what they refuse then is not lost.
#[actix_web::test]
async fn key_packages_outlast_wrong_roots() {
    let (pki, directory) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    setup.config.data_dir = DataDir::Directory(directory.path().join("data"));
    let gateway = setup.start().await;
    let mut alice = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let assigned = alice.assign_to("bob").await.unwrap();
    gateway.stop().await;

    let right = std::mem::replace(&mut setup.policy().trust_roots, Pem::new(Pki::new().roots()));
    let gateway = setup.start().await;
    alice.reconnect(&gateway);
    for receiver in ["bob", "carol"] {
        refused(alice.assign_to(receiver).await, ProblemKind::NoKeyPackage);
    }
    assert_eq!(alice.key_queue().await.key_packages_in_pool, 2);
    gateway.stop().await;

    setup.policy().trust_roots = right;
    let gateway = setup.start().await;
    alice.reconnect(&gateway);
    assert_eq!(alice.assign_to("bob").await.unwrap().key_package, assigned.key_package);
    assert_ne!(alice.assign_to("carol").await.unwrap().key_package, assigned.key_package);
    gateway.stop().await;
}
