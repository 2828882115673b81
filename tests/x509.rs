//! Clients that are identified by certificates, told by real MLS clients: who gets in, who does not, and what becomes of
//! those whose certificates expire.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

#[expect(dead_code, reason = "every test target uses its part")]
mod mls_support;
#[expect(dead_code, reason = "every test target uses its part")]
mod support;

use std::time::{Duration, Instant};

use actors::ExpiredMembers;
use mimi_gateway::{
    api::{
        groups::ProposalBody,
        key_packages::KeyPackageUploadBody,
        problem::{ProblemDocument, ProblemKind},
        text::Base64,
    },
    config::{ExternalSenderSettings, Pem},
    demo::pki::ClientKey,
};
use mls_rs::{CipherSuite, ExtensionList};
use mls_rs_core::extension::{Extension, ExtensionType};

use mls_support::{
    Identities, Member, MlsClient, assert_agree,
    pki::{Certified, LONG, Pki},
    refusal, refused,
};
use support::{Setup, TestGateway};
use tls_codec::{Serialize as _, VLBytes};

const DOMAIN: &str = "a.example";

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
    let gateway = Setup::x509(&pki.roots(), &[DOMAIN, "c.example"], &["b.example"]).start().await;
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
    let short = pki.certify_for(suite, DOMAIN, "alice", "phone", Duration::from_secs(1));
    let package = MlsClient::unregistered(&gateway, &short, &pki.roots()).key_package();
    tokio::time::sleep(Duration::from_secs(2)).await;
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
    assert!(federated.welcomes().await.is_empty(), "its own gateway has its welcome");
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
    for left in [1, 0] {
        let leaf = at_bob.leaf_of(&here.handle);
        let commit = at_bob.make_commit(|builder| builder.remove_member(leaf).unwrap());
        at_bob.commit(&commit).await;
        assert_eq!(alice.groups().await.len(), left);
    }
    gateway.stop().await;
}

/// The key of the gateway as an external sender, with a certificate for it that the clients accept.
fn external_sender(directory: &std::path::Path, pki: &Pki) -> ExternalSenderSettings {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let private_key = directory.join("sender.key");
    std::fs::write(&private_key, key.serialize_pem()).unwrap();
    let chain = pki.chain_for(ClientKey::Ed25519(key.public_key_raw()), [DOMAIN, "gateway", "sender"], LONG);
    let pem: String = chain.iter().map(|der| pem_of(der)).collect();
    ExternalSenderSettings { private_key, certificate: Some(Pem::new(pem)) }
}

fn pem_of(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

/// The extension that lets the gateway propose, from what it says of itself.
async fn external_senders(client: &MlsClient) -> ExtensionList {
    let senders = client.api.external_senders().await.unwrap().external_senders;
    assert_eq!(senders.len(), 1);
    assert_eq!(senders[0].signature_scheme, 0x0807, "ed25519");
    let Base64(sender) = &senders[0].external_sender;
    assert!(sender.windows(senders[0].public_key.0.len()).any(|window| window == senders[0].public_key.0));
    // A vector of one sender has the form of its bytes with their length in front.
    let data = VLBytes::new(sender.clone()).tls_serialize_detached().unwrap();
    let mut extensions = ExtensionList::new();
    extensions.set(Extension::new(ExtensionType::EXTERNAL_SENDERS, data));
    extensions
}

/// How long the certificates of members that expire are valid.
const SHORT: Duration = Duration::from_secs(6);

/// A group of Alice, who stays, with Bob and Carol, who have just expired, in which the gateway may propose.
async fn expired_group(gateway: &TestGateway, pki: &Pki) -> (MlsClient, Member, [MlsClient; 2]) {
    let alice = join(gateway, pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let (mut at_alice, new) = alice.make_group_with(external_senders(&alice).await);
    alice.api.create_group(&new).await.unwrap();
    let since = Instant::now();
    let short = |account| pki.certify_for(CipherSuite::CURVE25519_AES128, DOMAIN, account, "phone", SHORT);
    let bob = join(gateway, pki, &short("bob")).await;
    let carol = join(gateway, pki, &short("carol")).await;
    at_alice.invite(&[&bob, &carol]).await;
    at_alice.update().await;
    assert_eq!(at_alice.fetch_proposals().await, 0, "nobody has expired yet");
    // Their packages were good a moment ago.
    bob.assign_to("early").await.unwrap();
    tokio::time::sleep((SHORT + Duration::from_secs(1)).saturating_sub(since.elapsed())).await;
    (alice, at_alice, [bob, carol])
}

#[actix_web::test]
async fn the_removal_of_expired_members_is_proposed() {
    let (pki, directory) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    setup.config.data_dir = mimi_gateway::config::DataDir::Directory(directory.path().join("data"));
    setup.policy().external_senders = vec![external_sender(directory.path(), &pki)];
    let gateway = setup.start().await;
    let (_, mut at_alice, [bob, carol]) = expired_group(&gateway, &pki).await;
    for receiver in ["early", "late"] {
        refused(bob.assign_to(receiver).await, ProblemKind::NoKeyPackage);
    }
    assert_eq!(bob.key_queue().await.key_packages_in_pool, 0);

    // The commit is accepted, and the epoch that it creates begins with the proposals.
    at_alice.update().await;
    gateway.stop().await;
    let gateway = setup.start().await;
    at_alice.reconnect(&gateway);
    let waiting = at_alice.api.proposals(&at_alice.id()).await.unwrap().messages;
    assert_eq!(waiting.len(), 2);
    // Sent again, one of them is the same; and it need not be proposed twice by hand.
    let again = at_alice.propose(&ProposalBody { packet: waiting[0].clone() }).await.unwrap();
    assert_eq!(again.epoch_id, at_alice.epoch());
    assert_eq!(at_alice.fetch_proposals().await, 2);
    at_alice.update().await;
    assert_eq!(at_alice.roster().len(), 1);
    at_alice.assert_gateway_agrees().await;
    assert_eq!(at_alice.fetch_proposals().await, 0);
    for mut gone in [bob, carol] {
        gone.reconnect(&gateway);
        assert!(gone.groups().await.is_empty());
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_commit_that_keeps_expired_members_may_be_refused() {
    let (pki, directory) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    setup.policy().external_senders = vec![external_sender(directory.path(), &pki)];
    setup.policy().expired_members = ExpiredMembers::Refuse;
    let gateway = setup.start().await;
    let (alice, mut at_alice, [bob, _]) = expired_group(&gateway, &pki).await;

    for _ in 0..2 {
        let commit = at_alice.make_update();
        let problem = refusal(at_alice.upload(&commit).await);
        assert_eq!(problem.kind(), Some(ProblemKind::ExpiredMembers), "{problem:?}");
        assert_eq!(problem.members["leafIndices"], serde_json::json!([1, 2]), "{problem:?}");
        at_alice.clear_pending();
        let waiting = at_alice.api.proposals(&at_alice.id()).await.unwrap().messages;
        assert_eq!(waiting.len(), 2, "each removal is proposed once");
    }
    // One of the two is not enough.
    let leaf = at_alice.leaf_of(&bob.handle);
    let commit = at_alice.make_commit(|builder| builder.remove_member(leaf).unwrap());
    let problem = refusal(at_alice.upload(&commit).await);
    assert_eq!(problem.members["leafIndices"], serde_json::json!([2]), "{problem:?}");
    at_alice.clear_pending();
    assert_eq!(at_alice.fetch_proposals().await, 2);
    // New extensions are a reason to look at every identity again, of those who stay.
    let extensions = external_senders(&alice).await;
    let commit = at_alice.make_commit(|builder| builder.set_group_context_ext(extensions).unwrap());
    at_alice.commit(&commit).await;
    assert_eq!(at_alice.roster().len(), 1);
    at_alice.assert_gateway_agrees().await;
    gateway.stop().await;
}

#[actix_web::test]
async fn expired_members_may_be_ignored() {
    let (pki, directory) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    setup.policy().external_senders = vec![external_sender(directory.path(), &pki)];
    setup.policy().expired_members = ExpiredMembers::Ignore;
    let gateway = setup.start().await;
    let (_, mut at_alice, _) = expired_group(&gateway, &pki).await;
    at_alice.update().await;
    assert_eq!(at_alice.fetch_proposals().await, 0);
    assert_eq!(at_alice.roster().len(), 3);
    gateway.stop().await;
}
