//! Members whose certificates have expired: their removal, and what they can still do.

use actors::ExpiredMembers;
use mimi_gateway::{
    api::{groups::ProposalBody, problem::ProblemKind, text::Base64},
    config::{DataDir, ExternalSenderSettings, Pem},
    tools::pki::ClientKey,
};
use mls_rs::{CipherSuite, ExtensionList};
use mls_rs_core::extension::{Extension, ExtensionType};
use tls_codec::{Serialize as _, VLBytes};

use super::{DOMAIN, SHORT, broke, join};
use crate::{
    mls_support::{
        Member, MlsClient,
        pki::{LONG, Pki},
        refusal, refused,
    },
    support::{Setup, TestGateway},
};

/// The key of the gateway as an external sender, with a certificate for it that the clients accept.
fn external_sender(directory: &std::path::Path, pki: &Pki) -> ExternalSenderSettings {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let private_key = directory.join("sender.key");
    std::fs::write(&private_key, key.serialize_pem()).unwrap();
    let chain = pki.chain_for(ClientKey::Ed25519(key.public_key_raw()), [DOMAIN, "gateway", "sender"], LONG);
    let pem: String = chain.iter().map(|der| pem_of(der)).collect();
    ExternalSenderSettings { private_key, certificate: Some(Pem::new(pem)) }
}

pub(super) fn pem_of(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

/// The extension that lets the gateway propose, from what it says of itself.
pub(super) async fn external_senders(client: &MlsClient) -> ExtensionList {
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

/// A group of Alice, who stays, with Bob and Carol, who have just expired, in which the gateway may propose.
async fn expired_group(
    setup: &Setup,
    gateway: &TestGateway,
    pki: &Pki,
) -> (MlsClient, Member, [MlsClient; 2]) {
    expired_group_of(setup, gateway, pki, 2).await
}

/// As [`expired_group`], with this many members added by one commit.
async fn expired_group_of(
    setup: &Setup,
    gateway: &TestGateway,
    pki: &Pki,
    at_once: usize,
) -> (MlsClient, Member, [MlsClient; 2]) {
    let alice = join(gateway, pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let (mut at_alice, new) = alice.make_group_with(external_senders(&alice).await);
    alice.api.create_group(&new).await.unwrap();
    let short = |account| pki.certify_for(CipherSuite::CURVE25519_AES128, DOMAIN, account, "phone", SHORT);
    let bob = join(gateway, pki, &short("bob")).await;
    let carol = join(gateway, pki, &short("carol")).await;
    for invited in [&bob, &carol].chunks(at_once) {
        at_alice.invite(invited).await;
    }
    at_alice.update().await;
    assert_eq!(at_alice.fetch_proposals().await, 0, "nobody has expired yet");
    // Their packages were good a moment ago.
    bob.assign_to("early").await.unwrap();
    setup.pass(2 * SHORT);
    (alice, at_alice, [bob, carol])
}

#[actix_web::test]
async fn the_removal_of_expired_members_is_proposed() {
    let (pki, directory) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    setup.config.data_dir = DataDir::Directory(directory.path().join("data"));
    setup.policy().external_senders = vec![external_sender(directory.path(), &pki)];
    let gateway = setup.start().await;
    let (_, mut at_alice, [bob, carol]) = expired_group(&setup, &gateway, &pki).await;
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
    let (alice, mut at_alice, [bob, _]) = expired_group(&setup, &gateway, &pki).await;

    for _ in 0..2 {
        let commit = at_alice.make_update();
        let problem = refusal(at_alice.upload(&commit).await);
        assert_eq!(problem.kind(), Some(ProblemKind::ExpiredMembers), "{problem:?}");
        assert_eq!(problem.members["leafIndices"], serde_json::json!([1, 2]), "{problem:?}");
        at_alice.clear_pending();
        let waiting = at_alice.api.proposals(&at_alice.id()).await.unwrap().messages;
        assert_eq!(waiting.len(), 2, "each removal is proposed once");
    }
    // A client that joins by an external commit cannot remove others.
    let desk = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "desk")).await;
    desk.join_externally(&at_alice.id(), None, true).await;
    at_alice.catch_up().await;
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
    assert_eq!(at_alice.roster().len(), 2, "Alice's phone and desk");
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
    let (_, mut at_alice, _) = expired_group(&setup, &gateway, &pki).await;
    at_alice.update().await;
    assert_eq!(at_alice.fetch_proposals().await, 0);
    assert_eq!(at_alice.roster().len(), 3);
    gateway.stop().await;
}

#[actix_web::test]
async fn more_may_expire_than_one_commit_can_remove() {
    let (pki, directory) = (Pki::new(), tempfile::tempdir().unwrap());
    let setup = |per_commit, per_epoch| {
        let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
        setup.policy().external_senders = vec![external_sender(directory.path(), &pki)];
        setup.policy().expired_members = ExpiredMembers::Refuse;
        setup.config.limits.proposals_per_commit_max = per_commit;
        setup.config.limits.proposals_per_epoch_max = per_epoch;
        setup
    };
    // Half of what the epoch may hold is left to the members, however often they try.
    let half = setup(2, 2);
    let gateway = half.start().await;
    let (_, mut at_alice, _) = expired_group(&half, &gateway, &pki).await;
    for _ in 0..2 {
        let commit = at_alice.make_update();
        let problem = refusal(at_alice.upload(&commit).await);
        assert_eq!(problem.members["leafIndices"], serde_json::json!([1, 2]), "{problem:?}");
        at_alice.clear_pending();
        assert_eq!(at_alice.api.proposals(&at_alice.id()).await.unwrap().messages.len(), 1);
    }
    gateway.stop().await;

    // One removal is all that a commit can carry; the next one carries the other.
    let narrow = setup(1, 256);
    let gateway = narrow.start().await;
    let (_, mut at_alice, _) = expired_group_of(&narrow, &gateway, &pki, 1).await;
    let commit = at_alice.make_update();
    refused(at_alice.upload(&commit).await, ProblemKind::ExpiredMembers);
    at_alice.clear_pending();
    for members in [2, 1] {
        assert_eq!(at_alice.fetch_proposals().await, 1);
        at_alice.update().await;
        assert_eq!(at_alice.roster().len(), members);
    }
    at_alice.update().await;
    at_alice.assert_gateway_agrees().await;
    gateway.stop().await;
}

#[actix_web::test]
async fn who_has_expired_can_renew_and_nothing_else() {
    let pki = Pki::new();
    let setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    let gateway = setup.start().await;
    let short = |account| pki.certify_for(CipherSuite::CURVE25519_AES128, DOMAIN, account, "phone", SHORT);
    let alice = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let (bob, carol) =
        (join(&gateway, &pki, &short("bob")).await, join(&gateway, &pki, &short("carol")).await);
    let desk = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "desk")).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob, &carol]).await;
    let mut at_bob = bob.join().await;
    setup.pass(2 * SHORT);

    let add = at_bob.make_add_proposal(&desk.key_package());
    broke(&refusal(at_bob.propose(&add).await), ProblemKind::InvalidProposal, "identity");
    at_bob.clear_proposals();
    let remove = at_bob.make_remove_proposal(&carol.handle);
    broke(&refusal(at_bob.propose(&remove).await), ProblemKind::InvalidProposal, "identity");
    at_bob.clear_proposals();
    let update = at_bob.make_update_proposal();
    let problem = refusal(at_bob.propose(&update).await);
    broke(&problem, ProblemKind::InvalidProposal, "identity");
    assert!(problem.detail.contains("certificate 0 (0 is the leaf) has expired"), "{problem:?}");
    at_bob.clear_proposals();

    // Without a path, and with one that renews nothing.
    let commit = at_bob.make_adding(&[desk.key_package()]);
    let problem = refusal(at_bob.upload(&commit).await);
    broke(&problem, ProblemKind::InvalidCommit, "identity");
    assert!(problem.detail.contains("renew it first"), "{problem:?}");
    at_bob.clear_pending();
    let commit = at_bob.make_update();
    broke(&refusal(at_bob.upload(&commit).await), ProblemKind::InvalidCommit, "identity");
    at_bob.clear_pending();

    let renewed = pki.certify(DOMAIN, "bob", "phone");
    let commit = at_bob.make_commit(|builder| {
        builder.set_new_signing_identity(renewed.secret.clone(), renewed.signing_identity())
    });
    at_bob.commit(&commit).await;
    let commit = at_bob.make_adding(&[desk.key_package()]);
    at_bob.commit(&commit).await;
    at_bob.assert_gateway_agrees().await;
    gateway.stop().await;
}

#[actix_web::test]
async fn where_expiry_is_ignored_who_has_expired_goes_on() {
    let pki = Pki::new();
    let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    setup.policy().expired_members = ExpiredMembers::Ignore;
    let gateway = setup.start().await;
    let short = pki.certify_for(CipherSuite::CURVE25519_AES128, DOMAIN, "bob", "phone", SHORT);
    let bob = join(&gateway, &pki, &short).await;
    let desk = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "desk")).await;
    let mut at_bob = bob.create_group().await;
    setup.pass(2 * SHORT);
    let commit = at_bob.make_adding(&[desk.key_package()]);
    at_bob.commit(&commit).await;
    gateway.stop().await;
}

/// The extension of external senders with one of this credential.
fn sender_of(key: &[u8], chain: &[Vec<u8>]) -> ExtensionList {
    let content = mimi_gateway::tools::pki::credential_content(chain).unwrap();
    let vector = |bytes: &[u8]| VLBytes::new(bytes.to_vec()).tls_serialize_detached().unwrap();
    let sender = [vector(key), vec![0, 2], vector(&content)].concat();
    let mut extensions = ExtensionList::new();
    extensions.set(Extension::new(ExtensionType::EXTERNAL_SENDERS, vector(&sender)));
    extensions
}

#[actix_web::test]
async fn the_certificates_of_external_senders_are_validated() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    let gateway = setup.start().await;
    // A client that takes whatever anybody certified.
    let roots = pki.roots() + &stranger.roots();
    let alice = MlsClient::register_certified(&gateway, &pki.certify(DOMAIN, "alice", "phone"), &roots).await;
    let sender = |pki: &Pki, lasts| {
        pki.certify_for(CipherSuite::CURVE25519_AES128, DOMAIN, "gateway", "sender", lasts)
    };
    let (good, short, foreign) = (sender(&pki, LONG), sender(&pki, SHORT), sender(&stranger, LONG));
    let extensions = |certified: &crate::mls_support::pki::Certified| {
        sender_of(certified.public.as_bytes(), &certified.chain)
    };

    let (_, new) = alice.make_group_with(extensions(&foreign));
    let problem = refusal(alice.api.create_group(&new).await);
    assert_eq!(problem.kind(), Some(ProblemKind::InvalidGroupInfo), "{problem:?}");
    assert!(problem.detail.contains("external sender 0: the certificate chain is not valid"), "{problem:?}");
    let (mut at_alice, new) = alice.make_group_with(extensions(&short));
    alice.api.create_group(&new).await.unwrap();

    let commit = at_alice.make_commit(|builder| builder.set_group_context_ext(extensions(&foreign)).unwrap());
    broke(&refusal(at_alice.upload(&commit).await), ProblemKind::InvalidCommit, "identity");
    at_alice.clear_pending();
    let commit = at_alice.make_commit(|builder| builder.set_group_context_ext(extensions(&good)).unwrap());
    at_alice.commit(&commit).await;
    // A sender that has expired may stay, and may not be set.
    setup.pass(2 * SHORT);
    let commit = at_alice.make_commit(|builder| builder.set_group_context_ext(extensions(&short)).unwrap());
    let problem = refusal(at_alice.upload(&commit).await);
    broke(&problem, ProblemKind::InvalidCommit, "identity");
    assert!(problem.detail.contains("external sender 0"), "{problem:?}");
    gateway.stop().await;
}

#[actix_web::test]
async fn proposals_whose_certificates_have_ended_are_not_current() {
    let pki = Pki::new();
    let setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
    let gateway = setup.start().await;
    let short = |account| pki.certify_for(CipherSuite::CURVE25519_AES128, DOMAIN, account, "phone", SHORT);
    let alice = join(&gateway, &pki, &pki.certify(DOMAIN, "alice", "phone")).await;
    let (bob, carol) =
        (join(&gateway, &pki, &short("bob")).await, join(&gateway, &pki, &short("carol")).await);
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    let add = at_alice.make_add_proposal(&carol.key_package());
    let add = at_alice.propose(&add).await.unwrap();
    let update = at_bob.make_update_proposal();
    at_bob.propose(&update).await.unwrap();
    let remove = at_alice.make_remove_proposal(&bob.handle);
    at_alice.propose(&remove).await.unwrap();
    let listed = async || at_alice.api.proposals(&at_alice.id()).await.unwrap().messages;
    assert_eq!(listed().await.len(), 3);
    setup.pass(2 * SHORT);
    assert_eq!(listed().await, [remove.packet], "what brings nobody in can still be committed");
    let commit = at_alice.make_update();
    let problem = refusal(at_alice.upload(&commit).await);
    broke(&problem, ProblemKind::InvalidCommit, "identity");
    assert_eq!(
        problem.members["proposalRef"],
        serde_json::to_value(&add.proposal_ref).unwrap(),
        "{problem:?}"
    );
    gateway.stop().await;
}
