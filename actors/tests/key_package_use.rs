//! Uses of key packages: the proposals that can no longer be committed after one, and uploads that race with one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use actors::{
    AppId, Application, ClientHandle, Clock, CommitBundle, Gateway, GatewayOptions, GroupError, GroupId,
    KeyPackageRequest, KeyPackageUpload, KeyQueueError, Limits, NewClient, NewGroup, NewKeyQueue, Receiver,
    Requester, Retention, Source, Store, StoreOptions,
};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList, Group, MlsMessage,
    client_builder::MlsConfig,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider as MlsRsBasic},
    },
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

fn client(name: &str) -> Client<impl MlsConfig + use<>> {
    let crypto = RustCryptoProvider::default();
    let (secret, public) = crypto.cipher_suite_provider(SUITE).unwrap().signature_key_generate().unwrap();
    let identity =
        SigningIdentity::new(BasicCredential::new(name.as_bytes().to_vec()).into_credential(), public);
    Client::builder()
        .crypto_provider(crypto)
        .identity_provider(MlsRsBasic::new())
        .signing_identity(identity, secret, SUITE)
        .build()
}

fn package(name: &str) -> MlsMessage {
    client(name).generate_key_package_message(Default::default(), Default::default(), None).unwrap()
}

/// A client's new group, which the gateway has.
async fn create(gateway: &Gateway, app: AppId, name: &str) -> (Group<impl MlsConfig + use<>>, GroupId) {
    let group = client(name).create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let new = NewGroup {
        group_info: group.group_info_message(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(group.export_tree().to_bytes().unwrap()),
    };
    let id = gateway.create_group(app, new, Source::Application).await.unwrap().group;
    (group, id)
}

/// The commit that adds a package.
fn adding(group: &mut Group<impl MlsConfig>, package: MlsMessage) -> CommitBundle {
    let output = group.commit_builder().add_member(package).unwrap().build().unwrap();
    CommitBundle {
        commit: output.commit_message.to_bytes().unwrap(),
        group_info: None,
        welcome: output.welcome_messages.first().map(|welcome| welcome.to_bytes().unwrap()),
    }
}

fn start(app: AppId, limits: Limits) -> Gateway {
    start_with(app, limits, Retention::default())
}

fn start_with(app: AppId, limits: Limits, retention: Retention) -> Gateway {
    let never = Duration::from_secs(3600);
    let options = GatewayOptions {
        applications: vec![Application::basic(app)],
        limits,
        retention,
        snapshot_period: never,
        retention_period: never,
        passivate_after: never,
        arbiters: 2,
        clock: Clock::system(),
        transport: None,
    };
    Gateway::start(options, Store::open(&StoreOptions::default()).unwrap())
}

#[test]
fn an_upload_that_races_with_the_use_of_its_package_leaves_nothing_used_in_the_queue() {
    const ROUNDS: u64 = 200;
    let app = AppId::random();
    actix::System::new().block_on(async {
        let gateway = start(app, Limits::default());
        let handle = ClientHandle::new("bob").unwrap();
        let bob =
            gateway.register_client(app, NewClient { handle, domain: None, tags: vec![] }).await.unwrap();
        let new = NewKeyQueue { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
        let queue = gateway.create_key_queue(app, bob, new).await.unwrap();
        let (mut taken, mut refused) = (0, 0);
        for round in 0..ROUNDS {
            let (mut alice, group) = create(&gateway, app, "alice").await;
            let package = package("bob");
            let upload = KeyPackageUpload {
                key_packages: vec![package.to_bytes().unwrap()],
                is_reset: false,
                app_label: None,
                final_key: None,
            };
            let commit = adding(&mut alice, package);
            // Each comes first by ever less.
            let [before_upload, before_commit] = if round % 2 == 0 { [round, 0] } else { [0, round] };
            let pause = |length: u64| tokio::time::sleep(Duration::from_micros(20 * (ROUNDS - length)));
            let (uploaded, committed) = tokio::join!(
                async {
                    if before_upload > 0 {
                        pause(before_upload).await;
                    }
                    gateway.upload_key_packages(app, bob, queue, upload).await
                },
                async {
                    if before_commit > 0 {
                        pause(before_commit).await;
                    }
                    gateway.upload_commit(app, &group, commit, Source::Application).await
                },
            );
            committed.unwrap();
            match uploaded {
                Ok(_) => taken += 1,
                Err(KeyQueueError::InvalidKeyPackages(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            let queues = gateway.key_queues(app, bob).await.unwrap();
            let left = queues.first().map(|queue| (queue.in_pool, queue.available));
            assert_eq!(left, Some((0, 0)), "in round {round}");
            let request = KeyPackageRequest {
                protocol_version: 1,
                cipher_suite: 1,
                app_label: String::new(),
                domain: None,
                receiver: Receiver { caller: Requester::Application, id: "alice".to_owned() },
            };
            let assigned = gateway.assign_key_package(app, bob, request).await;
            assert!(matches!(assigned, Err(KeyQueueError::NoKeyPackage)), "{assigned:?}");
        }
        println!("{taken} uploads were taken and {refused} refused");
        gateway.stop().await;
        gateway.store().shutdown().await;
    });
}

#[test]
fn proposals_that_can_no_longer_be_committed_keep_no_other_out() {
    let app = AppId::random();
    let limits = Limits { proposals_per_epoch_max: 2, ..Limits::default() };
    actix::System::new().block_on(async {
        let gateway = start(app, limits);
        let (mut alice, group) = create(&gateway, app, "alice").await;
        let packages: Vec<MlsMessage> = ["bob", "carol", "dave", "erin", "frank"].map(package).into();
        let packets: Vec<Vec<u8>> = packages
            .iter()
            .map(|package| alice.propose_add(package.clone(), vec![]).unwrap().to_bytes().unwrap())
            .collect();
        let propose = async |place: usize| {
            let packet = packets.get(place).unwrap().clone();
            gateway.upload_proposal(app, &group, packet, Source::Application).await
        };
        let is_refused =
            async |place| matches!(propose(place).await, Err(GroupError::TooManyProposals { max: 2 }));
        let current = async || gateway.current_proposals(app, &group).await.unwrap().1.len();
        // Uses a package in another group, so that its proposal is void.
        let (mut other, other_group) = create(&gateway, app, "grace").await;
        let mut use_package = async |place: usize| {
            let package = packages.get(place).unwrap().clone();
            let upload = adding(&mut other, package);
            gateway.upload_commit(app, &other_group, upload, Source::Application).await.unwrap();
            other.apply_pending_commit().unwrap();
        };
        propose(0).await.unwrap();
        propose(1).await.unwrap();
        assert!(is_refused(2).await, "two can be committed");
        use_package(0).await;
        propose(2).await.unwrap();
        assert!(is_refused(3).await, "two can be committed");
        assert_eq!(current().await, 2);
        use_package(1).await;
        use_package(2).await;
        propose(3).await.unwrap();
        assert_eq!(current().await, 1);
        assert!(is_refused(4).await, "four wait, and no more may");
        gateway.stop().await;
        gateway.store().shutdown().await;
    });
}

#[test]
fn a_receiver_of_a_peer_gets_another_package_for_one_that_was_not_used_in_time_before_any_sweep() {
    let app = AppId::random();
    let age_max = Duration::from_millis(400);
    actix::System::new().block_on(async {
        let limits = Limits { key_packages_per_peer_max: 1, ..Limits::default() };
        let retention = Retention { assignment_age_max: Some(age_max), ..Retention::default() };
        let gateway = start_with(app, limits, retention);
        let handle = ClientHandle::new("bob").unwrap();
        let bob =
            gateway.register_client(app, NewClient { handle, domain: None, tags: vec![] }).await.unwrap();
        let new = NewKeyQueue { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
        let queue = gateway.create_key_queue(app, bob, new).await.unwrap();
        let upload = KeyPackageUpload {
            key_packages: (0..2).map(|_| package("bob").to_bytes().unwrap()).collect(),
            is_reset: false,
            app_label: None,
            final_key: None,
        };
        gateway.upload_key_packages(app, bob, queue, upload.clone()).await.unwrap();
        let of_peer = Requester::Peer(snapshots::DomainName::new("a.example").unwrap());
        let ask = async |caller: &Requester, id: &str| {
            let request = KeyPackageRequest {
                protocol_version: 1,
                cipher_suite: 1,
                app_label: String::new(),
                domain: None,
                receiver: Receiver { caller: caller.clone(), id: id.to_owned() },
            };
            gateway.assign_key_package(app, bob, request).await.map(|assigned| assigned.key_package)
        };
        let first = ask(&of_peer, "alice").await.unwrap();
        assert_eq!(ask(&of_peer, "carol").await, Err(KeyQueueError::NoKeyPackage), "the peer has its share");
        tokio::time::sleep(age_max * 2).await;
        let second = ask(&of_peer, "alice").await.unwrap();
        assert_ne!(second, first);
        assert_eq!(ask(&of_peer, "carol").await, Err(KeyQueueError::NoKeyPackage), "it still has it");
        tokio::time::sleep(age_max * 2).await;
        // Nothing is free, and the first package is not, although its client uploads it again.
        gateway.upload_key_packages(app, bob, queue, upload).await.unwrap();
        assert_eq!(ask(&of_peer, "alice").await, Err(KeyQueueError::NoKeyPackage));
        assert_eq!(ask(&Requester::Application, "dave").await, Err(KeyQueueError::NoKeyPackage));
        gateway.stop().await;
        gateway.store().shutdown().await;
    });
}
