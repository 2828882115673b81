//! Members whose certificates are revoked: what becomes of them after the lists were read again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actors::{AppId, Epoch, ExpiredMembers};
use mimi_gateway::{
    api::{groups::ProposalBody, problem::ProblemKind},
    config::{DataDir, ExternalSenderSettings, Pem},
    tools::pki::ClientKey,
};

use tempfile::TempDir;

use super::{
    DOMAIN, broke,
    expiry::{external_senders, pem_of},
};
use crate::{
    mls_support::{
        Member, MlsClient,
        pki::{Certified, ListedPki},
        refusal, refused,
    },
    support::{
        Setup, TestGateway,
        metrics::Metrics,
        peers::{GatewayPki, Link, Way},
    },
};

/// How long a search may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const OTHER_DOMAIN: &str = "b.example";

/// Clients, their authorities and a gateway that checks the lists of these, which are files.
struct World {
    pki: ListedPki,
    setup: Setup,
    /// Has the lists, the store and the key with which the gateway proposes.
    directory: TempDir,
}

impl World {
    fn new(policy: ExpiredMembers) -> Self {
        let pki = authorities();
        let directory = tempfile::tempdir().unwrap();
        let mut setup = Setup::x509(&pki.roots(), &[DOMAIN], &[]);
        setup.config.data_dir = DataDir::Directory(directory.path().join("data"));
        setup.watched_by(&[]);
        checks_lists(&mut setup, &pki, &directory);
        setup.policy().expired_members = policy;
        Self { pki, setup, directory }
    }

    async fn join(&self, gateway: &TestGateway, certified: &Certified) -> MlsClient {
        let client = MlsClient::register_certified(gateway, certified, &self.pki.roots()).await;
        client.upload_key_packages(4).await;
        client
    }

    /// Lists these certificates, and has the gateway read the lists.
    async fn revoke(&self, gateway: &TestGateway, revoked: &[&Certified]) {
        let leaves: Vec<&[u8]> = revoked.iter().map(|certified| &*certified.chain[0]).collect();
        publish(&self.pki, &self.directory, gateway, &leaves).await;
    }
}

fn authorities() -> ListedPki {
    ListedPki::new(&[
        ("alice", DOMAIN),
        ("bob", DOMAIN),
        ("carol", DOMAIN),
        ("gateway", DOMAIN),
        ("dave", OTHER_DOMAIN),
    ])
}

/// Has a gateway check lists in a directory, in which no certificate is revoked, and propose as an external sender.
fn checks_lists(setup: &mut Setup, pki: &ListedPki, directory: &TempDir) {
    pki.publish(directory.path(), &[]);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let private_key = directory.path().join("sender.key");
    std::fs::write(&private_key, key.serialize_pem()).unwrap();
    let chain = pki.chain_for(ClientKey::Ed25519(key.public_key_raw()), "gateway", "sender");
    let certificate = Some(Pem::new(chain.iter().map(|der| pem_of(der)).collect::<String>()));
    let settings = setup.policy();
    settings.external_senders = vec![ExternalSenderSettings { private_key, certificate }];
    settings.crls = pki.lists(directory.path());
}

/// Replaces the lists of a gateway, and has it read them.
async fn publish(pki: &ListedPki, directory: &TempDir, gateway: &TestGateway, revoked: &[&[u8]]) {
    pki.publish(directory.path(), revoked);
    assert!(gateway.reload_changed().await.unwrap());
}

/// A group of Alice with Bob and Carol, in which the gateway may propose.
struct Trio {
    at_alice: Member,
    at_bob: Member,
    bob: Certified,
    carol: Certified,
}

impl Trio {
    async fn new(world: &World, gateway: &TestGateway) -> Self {
        Self::of(world, gateway, "phone").await
    }

    /// One of these devices.
    async fn of(world: &World, gateway: &TestGateway, device: &str) -> Self {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|account| world.pki.certify(account, device));
        let of_alice = world.join(gateway, &alice).await;
        let (of_bob, of_carol) = (world.join(gateway, &bob).await, world.join(gateway, &carol).await);
        let (mut at_alice, new) = of_alice.make_group_with(external_senders(&of_alice).await);
        of_alice.api.create_group(&new).await.unwrap();
        at_alice.invite(&[&of_bob, &of_carol]).await;
        let at_bob = of_bob.join().await;
        Self { at_alice, at_bob, bob, carol }
    }
}

async fn waiting(member: &Member) -> usize {
    member.api.proposals(&member.id()).await.unwrap().messages.len()
}

/// Waits until this many proposals wait in the group, and for no longer than the patience allows.
async fn until_proposed(member: &Member, expected: usize) {
    let began = Instant::now();
    while waiting(member).await != expected {
        assert!(began.elapsed() < PATIENCE, "{} proposals, not {expected}", waiting(member).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a search has found this many revoked members, and has ended.
async fn until_searched(gateway: &TestGateway, expected: f64) {
    let app = gateway.app.to_string();
    let value = |metrics: &Metrics, name| metrics.find(name, &[("application", &app)]);
    Metrics::until(gateway.operator_address(), |metrics| {
        value(metrics, "mimi_gateway_revoked_members") == Some(expected)
            && value(metrics, "mimi_gateway_revocation_search_running") == Some(0.0)
    })
    .await;
}

#[actix_web::test]
async fn the_removal_of_revoked_members_is_proposed_after_a_reload() {
    let world = World::new(ExpiredMembers::Propose);
    let gateway = world.setup.start().await;
    let Trio { mut at_alice, mut at_bob, bob, carol } = Trio::new(&world, &gateway).await;
    let mut alone = Trio::of(&world, &gateway, "desk").await.at_alice;
    assert_eq!(waiting(&at_alice).await, 0);

    // Nobody commits; the removal waits for the next who does.
    world.revoke(&gateway, &[&bob]).await;
    until_proposed(&at_alice, 1).await;
    until_searched(&gateway, 1.0).await;
    assert_eq!(waiting(&alone).await, 0, "Bob's other certificate is not on the list");
    alone.update().await;
    assert_eq!(waiting(&alone).await, 0);

    // What is left to Bob: to leave, or to renew his certificate.
    let remove = at_bob.make_remove_proposal(&carol.handle);
    let problem = refusal(at_bob.propose(&remove).await);
    broke(&problem, ProblemKind::InvalidProposal, "identity");
    assert!(problem.detail.contains("is revoked"), "{problem:?}");
    at_bob.clear_proposals();
    let commit = at_bob.make_update();
    let problem = refusal(at_bob.upload(&commit).await);
    broke(&problem, ProblemKind::InvalidCommit, "identity");
    at_bob.clear_pending();

    // A commit that keeps him is accepted, and he is proposed again; the next one removes him.
    at_alice.update().await;
    assert_eq!(at_alice.roster().len(), 3);
    assert_eq!(at_alice.fetch_proposals().await, 1);
    at_alice.update().await;
    assert_eq!(at_alice.roster().len(), 2);
    at_alice.assert_gateway_agrees().await;
    assert_eq!(at_alice.fetch_proposals().await, 0);
    gateway.stop().await;
}

#[actix_web::test]
async fn groups_that_sleep_are_searched_and_a_restart_changes_nothing() {
    let world = World::new(ExpiredMembers::Propose);
    let gateway = world.setup.start().await;
    let Trio { mut at_alice, bob, carol, .. } = Trio::new(&world, &gateway).await;
    gateway.stop().await;

    // All groups sleep after a start. The lists changed while the gateway did not run.
    world.pki.publish(world.directory.path(), &[&bob.chain[0]]);
    let gateway = world.setup.start().await;
    until_searched(&gateway, 1.0).await;
    at_alice.reconnect(&gateway);
    assert_eq!(waiting(&at_alice).await, 1);
    gateway.stop().await;

    // The same lists again: what was proposed is, and no search is made.
    let gateway = world.setup.start().await;
    at_alice.reconnect(&gateway);
    assert_eq!(waiting(&at_alice).await, 1);
    // They change while the group sleeps and the gateway runs.
    gateway.stop().await;
    let gateway = world.setup.start().await;
    world.revoke(&gateway, &[&bob, &carol]).await;
    until_searched(&gateway, 2.0).await;
    at_alice.reconnect(&gateway);
    assert_eq!(waiting(&at_alice).await, 2);
    assert_eq!(at_alice.fetch_proposals().await, 2);
    at_alice.update().await;
    assert_eq!(at_alice.roster().len(), 1);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_commit_that_keeps_revoked_members_may_be_refused() {
    let world = World::new(ExpiredMembers::Refuse);
    let gateway = world.setup.start().await;
    let Trio { mut at_alice, bob, .. } = Trio::new(&world, &gateway).await;
    let leaf = at_alice.leaf_of(&bob.handle);
    at_alice.update().await;
    world.revoke(&gateway, &[&bob]).await;
    // Whether the search has come to the group or not.
    let commit = at_alice.make_update();
    let problem = refusal(at_alice.upload(&commit).await);
    assert_eq!(problem.kind(), Some(ProblemKind::ExpiredMembers), "{problem:?}");
    assert_eq!(problem.members["leafIndices"], serde_json::json!([leaf]), "{problem:?}");
    at_alice.clear_pending();
    until_proposed(&at_alice, 1).await;
    assert_eq!(at_alice.fetch_proposals().await, 1);
    at_alice.update().await;
    assert_eq!(at_alice.roster().len(), 2);
    gateway.stop().await;
}

#[actix_web::test]
async fn revoked_members_may_be_ignored() {
    let world = World::new(ExpiredMembers::Ignore);
    let gateway = world.setup.start().await;
    let Trio { mut at_alice, mut at_bob, bob, carol } = Trio::new(&world, &gateway).await;
    world.revoke(&gateway, &[&bob]).await;
    at_alice.update().await;
    at_bob.catch_up().await;
    let remove = at_bob.make_remove_proposal(&carol.handle);
    at_bob.propose(&remove).await.unwrap();
    assert_eq!(waiting(&at_alice).await, 1, "Bob's own proposal");
    gateway.stop().await;
}

#[actix_web::test]
async fn who_is_no_longer_listed_or_has_a_new_certificate_goes_on() {
    let world = World::new(ExpiredMembers::Propose);
    let gateway = world.setup.start().await;
    let Trio { mut at_alice, mut at_bob, bob, carol } = Trio::new(&world, &gateway).await;
    world.revoke(&gateway, &[&bob]).await;
    until_proposed(&at_alice, 1).await;
    let remove = at_bob.make_remove_proposal(&carol.handle);
    let ProposalBody { packet } = &remove;
    broke(&refusal(at_bob.propose(&remove).await), ProblemKind::InvalidProposal, "identity");

    // The same proposal is good once he is off the list. His removal stays proposed until the epoch ends.
    world.revoke(&gateway, &[]).await;
    at_bob.propose(&ProposalBody { packet: packet.clone() }).await.unwrap();
    at_bob.clear_proposals();
    assert_eq!(waiting(&at_alice).await, 2);
    at_alice.update().await;
    assert_eq!(waiting(&at_alice).await, 0);

    // Listed again, he renews his certificate and is as good as any.
    at_bob.catch_up().await;
    world.revoke(&gateway, &[&bob]).await;
    until_proposed(&at_alice, 1).await;
    let renewed = world.pki.certify("bob", "phone");
    let commit = at_bob.make_commit(|builder| {
        builder.set_new_signing_identity(renewed.secret.clone(), renewed.signing_identity())
    });
    at_bob.commit(&commit).await;
    at_alice.catch_up().await;
    assert_eq!(waiting(&at_alice).await, 0);
    at_bob.update().await;
    at_alice.catch_up().await;
    at_alice.assert_gateway_agrees().await;

    // An account that is revoked takes its devices with it.
    publish(&world.pki, &world.directory, &gateway, &[&renewed.chain[1]]).await;
    until_proposed(&at_alice, 1).await;
    gateway.stop().await;
}

#[actix_web::test]
async fn a_revoked_client_cannot_come_in() {
    let world = World::new(ExpiredMembers::Propose);
    let gateway = world.setup.start().await;
    let Trio { at_alice, bob, .. } = Trio::new(&world, &gateway).await;
    let tablet = world.pki.certify("bob", "tablet");
    let of_tablet = world.join(&gateway, &tablet).await;
    world.revoke(&gateway, &[&bob, &tablet]).await;
    refused(of_tablet.assign_to("alice").await, ProblemKind::NoKeyPackage);
    let (at_tablet, commit) = of_tablet.make_external_commit(&at_alice.id(), None, true).await;
    broke(&refusal(at_tablet.upload(&commit).await), ProblemKind::InvalidCommit, "identity");
    gateway.stop().await;
}

/// Waits until a member's gateway shows the group in an epoch.
async fn until_shows(member: &Member, epoch: Epoch) {
    let began = Instant::now();
    while member.api.group(&member.id()).await.map(|group| group.epoch_id).ok() != Some(epoch) {
        assert!(began.elapsed() < PATIENCE, "the follower does not reach {epoch:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The lists of a follower are ahead of its hub's: it takes what the hub accepted, and the hub's lists decide.
#[actix_web::test]
async fn what_a_hub_accepted_stands_at_followers_with_other_lists() {
    let (pki, peers) = (authorities(), Arc::new(GatewayPki::new()));
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let app = AppId::random();
    let (to_hub, to_follower) = (Link::new().await, Link::new().await);
    let setup = |domain, other, link: &Link, directory| {
        let mut setup = Setup::federated(&pki.roots(), &peers, app, domain, &[other]);
        setup.federation().peers = vec![link.peer(other)];
        checks_lists(&mut setup, &pki, directory);
        setup
    };
    let hub = setup(DOMAIN, OTHER_DOMAIN, &to_follower, &directories[0]).start().await;
    let follower = setup(OTHER_DOMAIN, DOMAIN, &to_hub, &directories[1]).start().await;
    to_hub.lead(Way::To(hub.federation_address())).await;
    to_follower.lead(Way::To(follower.federation_address())).await;
    let [alice, bob, dave] = ["alice", "bob", "dave"].map(|account| pki.certify(account, "phone"));
    let join = async |gateway: &TestGateway, certified: &Certified| {
        let client = MlsClient::register_certified(gateway, certified, &pki.roots()).await;
        client.upload_key_packages(4).await;
        client
    };
    let (of_alice, of_bob) = (join(&hub, &alice).await, join(&hub, &bob).await);
    let of_dave = join(&follower, &dave).await;

    // The follower knows already that Bob is revoked when it takes over a group with him in it.
    let (mut at_alice, new) = of_alice.make_group_with(external_senders(&of_alice).await);
    of_alice.api.create_group(&new).await.unwrap();
    at_alice.invite(&[&of_bob]).await;
    let mut at_bob = of_bob.join().await;
    publish(&pki, &directories[1], &follower, &[&bob.chain[0]]).await;
    at_alice.invite(&[&of_dave]).await;
    let began = Instant::now();
    while of_dave.welcomes().await.is_empty() {
        assert!(began.elapsed() < PATIENCE, "the follower does not take the group over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut at_dave = of_dave.join().await;
    until_shows(&at_dave, at_dave.epoch()).await;

    // Bob goes on with a path, and so does Dave: the hub has no such list.
    at_bob.catch_up().await;
    at_bob.update().await;
    at_alice.catch_up().await;
    until_shows(&at_dave, at_bob.epoch()).await;
    at_dave.catch_up().await;
    at_dave.assert_gateway_agrees().await;

    // The follower's own are judged by the hub: it learns that Dave is revoked, and the follower does not.
    publish(&pki, &directories[0], &hub, &[&bob.chain[0], &dave.chain[0]]).await;
    until_proposed(&at_alice, 2).await;
    until_proposed(&at_dave, 2).await;
    let commit = at_dave.make_update();
    let problem = refusal(at_dave.upload(&commit).await);
    broke(&problem, ProblemKind::InvalidCommit, "identity");
    at_dave.clear_pending();
    assert_eq!(at_alice.fetch_proposals().await, 2);
    at_alice.update().await;
    assert_eq!(at_alice.roster().len(), 1);
    at_alice.assert_gateway_agrees().await;
    hub.stop().await;
    follower.stop().await;
}
