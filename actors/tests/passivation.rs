//! Passivation: groups and key queues that are unloaded and loaded in between give the same answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actors::{
    AppId, Application, ClientHandle, Clock, CommitBundle, Epoch, Gateway, GatewayOptions, GroupError,
    JoinInfoQuery, KeyPackageRequest, KeyPackageUpload, KeyQueueError, Limits, Location, NewClient, NewGroup,
    NewKeyQueue, Outcome, Receiver, Requester, Retention, Source, Store, StoreOptions, Timestamp,
};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList,
    client_builder::MlsConfig,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider as MlsRsBasic},
    },
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use snapshots::LogId;

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

/// A gateway that passivates every actor as soon as no request waits for it.
fn drowsy(store: Store, app: AppId) -> Gateway {
    start(store, app, Duration::ZERO)
}

fn start(store: Store, app: AppId, passivate_after: Duration) -> Gateway {
    Gateway::start(options(app, passivate_after), store)
}

fn options(app: AppId, passivate_after: Duration) -> GatewayOptions {
    GatewayOptions {
        applications: vec![Application::basic(app)],
        limits: Limits::default(),
        retention: Retention::default(),
        snapshot_period: Duration::from_millis(3),
        retention_period: Duration::from_secs(3600),
        passivate_after,
        arbiters: 2,
        clock: Clock::system(),
        transport: None,
    }
}

fn store(directory: &Path) -> Store {
    store_with_batches_of(directory, StoreOptions::default().batch_bytes_max)
}

fn store_with_batches_of(directory: &Path, batch_bytes_max: usize) -> Store {
    let location = Location::Directory(directory.to_path_buf());
    let options = StoreOptions { location, batch_bytes_max, ..StoreOptions::default() };
    let since = Instant::now();
    loop {
        match Store::open(&options) {
            Ok(store) => return store,
            // The threads of the gateway before this one are still letting go of it.
            Err(_) if since.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until every actor is passivated, as each must be without requests.
async fn passivated(gateway: &Gateway) {
    let since = Instant::now();
    while gateway.active() > 0 {
        assert!(since.elapsed() < Duration::from_secs(20), "{} actors are not passivated", gateway.active());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_group_that_sleeps_between_commits_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let app = AppId::random();
    let mut alice = client("alice").create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let new = NewGroup {
        group_info: alice.group_info_message(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(alice.export_tree().to_bytes().unwrap()),
    };
    let group = actors::GroupId::new(alice.group_id()).unwrap();
    let mut last = None;
    for round in 0..3_u64 {
        let (new, group) = (new.clone(), group.clone());
        let alice = &mut alice;
        let last = &mut last;
        let directory = directory.path();
        actix::System::new().block_on(async move {
            let gateway = drowsy(store(directory), app);
            let created = gateway.create_group(app, new, Source::Application).await.unwrap();
            assert_eq!(created.outcome == Outcome::New, round == 0);
            for step in 0..10_u64 {
                let output = alice.commit(vec![]).unwrap();
                let upload = CommitBundle {
                    commit: output.commit_message.to_bytes().unwrap(),
                    group_info: None,
                    welcome: None,
                };
                let accepted =
                    gateway.upload_commit(app, &group, upload.clone(), Source::Application).await.unwrap();
                assert_eq!(accepted.epoch, Epoch(round * 10 + step + 1));
                alice.apply_pending_commit().unwrap();
                tokio::time::sleep(Duration::from_millis(4)).await;
                let again =
                    gateway.upload_commit(app, &group, upload.clone(), Source::Application).await.unwrap();
                assert_eq!((again.epoch, again.outcome), (accepted.epoch, Outcome::Repeated));
                let view = gateway.group(app, &group).await.unwrap();
                assert_eq!(view.epoch, accepted.epoch);
                assert_eq!(view.ratchet_tree().to_vec(), alice.export_tree().to_bytes().unwrap());
                *last = Some((upload, accepted));
            }
            passivated(&gateway).await;
            let log = LogId::Group(app, group.clone());
            let log = gateway.store().view().load_log(&log).unwrap().unwrap();
            assert_eq!(log.snapshot.map(|(at, _)| at), Some(log.head), "a group sleeps on its snapshot");
            assert!(log.records.is_empty());
            gateway.stop().await;
            let refused = gateway.group(app, &group).await;
            assert!(matches!(refused, Err(GroupError::Stopping)));
            gateway.store().shutdown().await;
        });
    }
    actix::System::new().block_on(async {
        let gateway = drowsy(store(directory.path()), app);
        let (upload, accepted) = last.unwrap();
        let again = gateway.upload_commit(app, &group, upload, Source::Application).await.unwrap();
        assert_eq!((again.epoch, again.timestamp), (accepted.epoch, accepted.timestamp));
        let history = gateway.control_messages(app, &group, Epoch(0), None, 100).await.unwrap();
        assert_eq!(history.epochs.len(), 30);
        gateway.stop().await;
        gateway.store().shutdown().await;
    });
}

#[test]
fn what_is_recent_is_answered_as_it_is_from_disk() {
    const EPOCHS: u64 = 40;
    let directory = tempfile::tempdir().unwrap();
    let app = AppId::random();
    let mut alice = client("alice").create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let new = NewGroup {
        group_info: alice.group_info_message(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(alice.export_tree().to_bytes().unwrap()),
    };
    let group = actors::GroupId::new(alice.group_id()).unwrap();
    let ask = async |gateway: &Gateway| {
        let mut answers = Vec::new();
        for from in 0..=EPOCHS + 1 {
            for to in [None, Some(Epoch(from)), Some(Epoch(EPOCHS - 3)), Some(Epoch(EPOCHS + 5))] {
                for limit in [1, 2, 7, 100] {
                    answers.push(gateway.control_messages(app, &group, Epoch(from), to, limit).await);
                }
            }
        }
        answers
    };
    let active = actix::System::new().block_on(async {
        let gateway = start(store(directory.path()), app, Duration::from_secs(600));
        gateway.create_group(app, new, Source::Application).await.unwrap();
        for _ in 0..EPOCHS {
            let output = alice.commit(vec![]).unwrap();
            let upload = CommitBundle {
                commit: output.commit_message.to_bytes().unwrap(),
                group_info: None,
                welcome: None,
            };
            gateway.upload_commit(app, &group, upload, Source::Application).await.unwrap();
            alice.apply_pending_commit().unwrap();
        }
        let active = ask(&gateway).await;
        gateway.stop().await;
        gateway.store().shutdown().await;
        active
    });
    let passivated = actix::System::new().block_on(async {
        let gateway = start(store(directory.path()), app, Duration::from_secs(600));
        let passivated = ask(&gateway).await;
        gateway.stop().await;
        gateway.store().shutdown().await;
        passivated
    });
    assert_eq!(active, passivated);
}

#[test]
fn a_queue_that_sleeps_between_requests_assigns_no_package_twice() {
    let app = AppId::random();
    let bob = client("bob");
    let packages: Vec<Vec<u8>> = (0..12)
        .map(|_| {
            let package = bob.generate_key_package_message(Default::default(), Default::default(), None);
            package.unwrap().to_bytes().unwrap()
        })
        .collect();
    actix::System::new().block_on(async {
        let store =
            Store::open(&StoreOptions { location: Location::Temporary, ..StoreOptions::default() }).unwrap();
        let gateway = drowsy(store, app);
        let handle = ClientHandle::new(b"bob".to_vec()).unwrap();
        let client =
            gateway.register_client(app, NewClient { handle, domain: None, tags: vec![] }).await.unwrap();
        let new = NewKeyQueue { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
        let queue = gateway.create_key_queue(app, client, new).await.unwrap();
        let upload =
            KeyPackageUpload { key_packages: packages, is_reset: false, app_label: None, final_key: None };
        assert_eq!(gateway.upload_key_packages(app, client, queue, upload).await.unwrap().in_pool, 12);
        let mut assigned = BTreeSet::new();
        for round in 0..2 {
            for receiver in 0..12 {
                let request = KeyPackageRequest {
                    protocol_version: 1,
                    cipher_suite: 1,
                    app_label: String::new(),
                    domain: None,
                    receiver: Receiver { caller: Requester::Application, id: receiver.to_string() },
                };
                let package = gateway.assign_key_package(app, client, request).await.unwrap().key_package;
                assert_eq!(assigned.insert((receiver, package)), round == 0);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            passivated(&gateway).await;
        }
        let distinct: BTreeSet<&Vec<u8>> = assigned.iter().map(|(_, package)| package).collect();
        assert_eq!((assigned.len(), distinct.len()), (12, 12));
        gateway.stop().await;
        gateway.store().shutdown().await;
    });
}

/// A group, and the commit that brings it to this many members.
fn group_of(members: usize) -> (NewGroup, Option<CommitBundle>) {
    let mut creator = client("creator").create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let new = NewGroup {
        group_info: creator.group_info_message(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(creator.export_tree().to_bytes().unwrap()),
    };
    if members == 1 {
        return (new, None);
    }
    let mut commit = creator.commit_builder();
    for member in 1..members {
        let member = client(&format!("member {member}"));
        let package = member.generate_key_package_message(Default::default(), Default::default(), None);
        commit = commit.add_member(package.unwrap()).unwrap();
    }
    let output = commit.build().unwrap();
    let upload = CommitBundle {
        commit: output.commit_message.to_bytes().unwrap(),
        group_info: None,
        welcome: output.welcome_messages.first().map(|welcome| welcome.to_bytes().unwrap()),
    };
    (new, Some(upload))
}

/// A clock that shows a later time whenever it is looked at: nothing is used at the same time as something else.
fn never_the_same_time() -> Clock {
    let (system, last) = (Clock::system(), AtomicU64::new(0));
    Clock::new(move || {
        let now = system.now().0;
        let later = |last: u64| Some(now.max(last + 1));
        let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).unwrap_or_default();
        Timestamp(now.max(before + 1))
    })
}

/// Makes groups and reads each, so that they are active, and waits until this many of them still are.
async fn awake_in_the_end(
    awake_bytes_max: usize,
    groups: &[(NewGroup, Option<CommitBundle>)],
    expected: usize,
) {
    let app = AppId::random();
    let never = Duration::from_secs(3600);
    let options = GatewayOptions {
        limits: Limits { awake_bytes_max, ..Limits::default() },
        snapshot_period: never,
        clock: never_the_same_time(),
        ..options(app, never)
    };
    let store =
        Store::open(&StoreOptions { location: Location::Temporary, ..StoreOptions::default() }).unwrap();
    let gateway = Gateway::start(options, store);
    let mut ids = Vec::new();
    for (new, grown) in groups {
        let created = gateway.create_group(app, new.clone(), Source::Application).await.unwrap();
        if let Some(upload) = grown.clone() {
            gateway.upload_commit(app, &created.group, upload, Source::Application).await.unwrap();
        }
        gateway.group(app, &created.group).await.unwrap();
        ids.push(created.group);
    }
    let since = Instant::now();
    while gateway.active() > expected {
        assert!(since.elapsed() < Duration::from_secs(60), "{} stay active", gateway.active());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // They may be weighed again meanwhile, and no other one is too much.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(gateway.active(), expected);
    for id in &ids {
        gateway.group(app, id).await.unwrap();
    }
    gateway.stop().await;
    gateway.store().shutdown().await;
}

#[test]
fn large_groups_sleep_when_the_awake_ones_are_too_heavy() {
    let large = || (0..3).map(|_| group_of(40));
    let small = || (0..3).map(|_| group_of(1));
    let groups: Vec<_> = large().chain(small()).collect();
    actix::System::new().block_on(async {
        // Room for the small ones and not for one of the large ones, which have been idle for longer.
        awake_in_the_end(60 << 10, &groups, 3).await;
        // Room for two of the large ones as well: no more sleep than have to.
        awake_in_the_end(160 << 10, &groups, 5).await;
    });
}

#[test]
fn key_packages_wait_for_a_place_to_be_validated() {
    let package = client("bob").generate_key_package_message(Default::default(), Default::default(), None);
    let packages = vec![package.unwrap().to_bytes().unwrap()];
    actix::System::new().block_on(async {
        let app = AppId::random();
        for (places, is_validated) in [(0, false), (1, true)] {
            let limits = Limits { judgements_per_application_max: places, ..Limits::default() };
            let store =
                Store::open(&StoreOptions { location: Location::Temporary, ..StoreOptions::default() });
            let options = GatewayOptions { limits, ..options(app, Duration::from_secs(600)) };
            let gateway = Gateway::start(options, store.unwrap());
            let handle = ClientHandle::new(b"bob".to_vec()).unwrap();
            let client =
                gateway.register_client(app, NewClient { handle, domain: None, tags: vec![] }).await.unwrap();
            let new = NewKeyQueue { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
            let queue = gateway.create_key_queue(app, client, new).await.unwrap();
            let upload = KeyPackageUpload {
                key_packages: packages.clone(),
                is_reset: false,
                app_label: None,
                final_key: None,
            };
            let uploaded = gateway.upload_key_packages(app, client, queue, upload).await;
            match uploaded {
                Ok(counts) => assert_eq!((counts.in_pool, is_validated), (1, true)),
                Err(error) => assert!(matches!(error, KeyQueueError::Busy) && !is_validated, "{error}"),
            }
            gateway.stop().await;
            gateway.store().shutdown().await;
        }
    });
}

/// A gateway that writes no snapshot before it stops, and then cannot: what it was given is there as records.
async fn stop_without_snapshots(gateway: &Gateway) {
    gateway.store().shutdown().await;
    gateway.stop().await;
}

/// Waits until an actor sleeps on a snapshot that has all of its records. After one of several batches there is a pause, over
/// which it may sleep without the last one, so it is woken again.
async fn rested(gateway: &Gateway, log: &LogId, wake: impl AsyncFn()) {
    let since = Instant::now();
    loop {
        wake().await;
        passivated(gateway).await;
        let log = gateway.store().view().load_log(log).unwrap().unwrap();
        if log.snapshot.is_some_and(|(at, _)| at == log.head) {
            assert!(log.records.is_empty());
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{} records are left", log.records.len());
    }
}

/// Key packages of a client.
fn packages(name: &str, count: usize) -> Vec<Vec<u8>> {
    let client = client(name);
    let package = |_| {
        let package = client.generate_key_package_message(Default::default(), Default::default(), None);
        package.unwrap().to_bytes().unwrap()
    };
    (0..count).map(package).collect()
}

/// Registers a client with a queue that holds these packages.
async fn filled_queue(
    gateway: &Gateway,
    app: AppId,
    key_packages: Vec<Vec<u8>>,
) -> (actors::ClientId, actors::KeyQueueId) {
    let handle = ClientHandle::new(b"bob".to_vec()).unwrap();
    let client =
        gateway.register_client(app, NewClient { handle, domain: None, tags: vec![] }).await.unwrap();
    let new = NewKeyQueue { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
    let queue = gateway.create_key_queue(app, client, new).await.unwrap();
    let upload = KeyPackageUpload { key_packages, is_reset: false, app_label: None, final_key: None };
    gateway.upload_key_packages(app, client, queue, upload).await.unwrap();
    (client, queue)
}

fn request_of(receiver: usize) -> KeyPackageRequest {
    KeyPackageRequest {
        protocol_version: 1,
        cipher_suite: 1,
        app_label: String::new(),
        domain: None,
        receiver: Receiver { caller: Requester::Application, id: receiver.to_string() },
    }
}

#[test]
fn a_queue_that_is_larger_than_a_limit_that_was_lowered_gets_its_snapshot() {
    const PACKAGES: usize = 40;
    let directory = tempfile::tempdir().unwrap();
    let app = AppId::random();
    let never = Duration::from_secs(3600);
    let uploaded = packages("bob", PACKAGES);
    let (client, queue) = actix::System::new().block_on(async {
        let active = GatewayOptions { snapshot_period: never, ..options(app, never) };
        let gateway = Gateway::start(active, store(directory.path()));
        let filled = filled_queue(&gateway, app, uploaded.clone()).await;
        stop_without_snapshots(&gateway).await;
        filled
    });
    let mut assigned = BTreeSet::new();
    // Batches that hold the record of an assignment, and of a snapshot of the queue no more than a part.
    for (round, batch_bytes_max) in [(0, 2 << 10), (1, 2 << 10), (2, 32 << 20)] {
        actix::System::new().block_on(async {
            let limits = Limits { key_queue_bytes_max: 1 << 10, ..Limits::default() };
            let drowsy = GatewayOptions { limits, ..options(app, Duration::ZERO) };
            let gateway = Gateway::start(drowsy, store_with_batches_of(directory.path(), batch_bytes_max));
            for receiver in 10 * round..10 * round + 10 {
                let package = gateway.assign_key_package(app, client, request_of(receiver)).await.unwrap();
                assert!(assigned.insert(package.key_package));
            }
            rested(&gateway, &LogId::KeyQueue(app, queue), async || {
                gateway.key_queues(app, client).await.unwrap();
            })
            .await;
            let upload = KeyPackageUpload {
                key_packages: packages("bob", 1),
                is_reset: false,
                app_label: None,
                final_key: None,
            };
            let refused = gateway.upload_key_packages(app, client, queue, upload).await;
            assert!(matches!(refused, Err(KeyQueueError::TooManyBytes { max: 1024 })), "{refused:?}");
            gateway.stop().await;
            let log = gateway.store().view().load_log(&LogId::KeyQueue(app, queue)).unwrap().unwrap();
            assert_eq!(log.snapshot.as_ref().map(|(at, _)| *at), Some(log.head));
            assert!(log.records.is_empty());
            assert!(log.snapshot.is_some_and(|(_, bytes)| bytes.len() > 10 << 10));
            assert_eq!(gateway.snapshots().failures, 0);
            gateway.store().shutdown().await;
        });
    }
    assert!(assigned.is_subset(&uploaded.into_iter().collect()));
}

#[test]
fn a_group_that_is_larger_than_a_batch_gets_its_snapshot() {
    const BATCH_BYTES_MAX: usize = 24 << 10;
    let directory = tempfile::tempdir().unwrap();
    let app = AppId::random();
    let mut alice = client("alice").create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let new = NewGroup {
        group_info: alice.group_info_message(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(alice.export_tree().to_bytes().unwrap()),
    };
    let group = actors::GroupId::new(alice.group_id()).unwrap();
    actix::System::new().block_on(async {
        let gateway = drowsy(store_with_batches_of(directory.path(), BATCH_BYTES_MAX), app);
        gateway.create_group(app, new, Source::Application).await.unwrap();
        // It grows for as long as a commit with its welcome fits a batch, and then some large proposals wait in it.
        for member in 0.. {
            let member = client(&format!("member {member}"));
            let package = member.generate_key_package_message(Default::default(), Default::default(), None);
            let output = alice.commit_builder().add_member(package.unwrap()).unwrap().build().unwrap();
            let upload = CommitBundle {
                commit: output.commit_message.to_bytes().unwrap(),
                group_info: None,
                welcome: output.welcome_messages.first().map(|welcome| welcome.to_bytes().unwrap()),
            };
            match gateway.upload_commit(app, &group, upload, Source::Application).await {
                Ok(_) => alice.apply_pending_commit().unwrap(),
                Err(error) => {
                    let is_at_limit = matches!(error, GroupError::TooLarge { max: BATCH_BYTES_MAX, .. });
                    assert!(is_at_limit, "{error}");
                    break;
                }
            };
        }
        alice.clear_pending_commit();
        for number in 0..8 {
            let large = vec![number; BATCH_BYTES_MAX / 8];
            let proposal = alice.propose_group_context_extensions(Default::default(), large).unwrap();
            alice.clear_proposal_cache();
            let packet = proposal.to_bytes().unwrap();
            gateway.upload_proposal(app, &group, packet, Source::Application).await.unwrap();
        }
        rested(&gateway, &LogId::Group(app, group.clone()), async || {
            gateway.group(app, &group).await.unwrap();
        })
        .await;
        gateway.stop().await;
        assert_eq!(gateway.snapshots().failures, 0);
        let log = gateway.store().view().load_log(&LogId::Group(app, group.clone())).unwrap().unwrap();
        assert!(log.snapshot.is_some_and(|(_, bytes)| bytes.len() > BATCH_BYTES_MAX));
        gateway.store().shutdown().await;
    });
    actix::System::new().block_on(async {
        let gateway = drowsy(store(directory.path()), app);
        let view = gateway.group(app, &group).await.unwrap();
        assert_eq!(view.epoch, Epoch(alice.current_epoch()));
        assert_eq!(view.ratchet_tree().to_vec(), alice.export_tree().to_bytes().unwrap());
        gateway.stop().await;
        gateway.store().shutdown().await;
    });
}

#[test]
fn a_snapshot_that_cannot_be_written_is_counted_and_waits_also_when_its_queue_sleeps() {
    let directory = tempfile::tempdir().unwrap();
    let app = AppId::random();
    let never = Duration::from_secs(3600);
    let client = actix::System::new().block_on(async {
        let active = GatewayOptions { snapshot_period: never, ..options(app, never) };
        let gateway = Gateway::start(active, store(directory.path()));
        let (client, _) = filled_queue(&gateway, app, packages("bob", 4)).await;
        assert_eq!(gateway.snapshots().failures, 0);
        stop_without_snapshots(&gateway).await;
        client
    });
    actix::System::new().block_on(async {
        let seconds = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&seconds);
        let clock = Clock::system().with_monotonic(move || Duration::from_secs(read.load(Ordering::Relaxed)));
        // Too small for the key of a row.
        let store = store_with_batches_of(directory.path(), 20);
        let gateway = Gateway::start(GatewayOptions { clock, ..options(app, Duration::ZERO) }, store);
        for (second, failures) in [(0, 1), (59, 1), (60, 2), (179, 2), (180, 3), (419, 3), (420, 4)] {
            seconds.store(second, Ordering::Relaxed);
            for _ in 0..3 {
                let queues = gateway.key_queues(app, client).await.unwrap();
                assert_eq!(queues.first().map(|queue| queue.in_pool), Some(4));
                passivated(&gateway).await;
            }
            let status = gateway.snapshots();
            assert_eq!((status.failures, status.failing), (failures, 1), "at {second} s");
        }
        gateway.stop().await;
        assert_eq!(gateway.snapshots().failures, 4);
        gateway.store().shutdown().await;
    });
}

/// Copies a directory as a crash at this moment would leave it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The tree that comes with the one welcome of a client.
async fn tree_of_welcome(gateway: &Gateway, app: AppId, handle: &str) -> Vec<u8> {
    let handle = ClientHandle::new(handle.as_bytes().to_vec()).unwrap();
    let query = JoinInfoQuery { domain: None, after: None, with_ratchet_tree: true, limit: 10 };
    let mut page = gateway.welcomes(app, &handle, query).await.unwrap();
    assert_eq!(page.join_infos.len(), 1);
    page.join_infos.remove(0).ratchet_tree.unwrap().to_vec()
}

/// The tree of a welcome is stored with the first snapshot that finds it waiting; before that, it is made from the log.
#[test]
fn the_tree_of_a_welcome_is_there_before_and_after_it_is_stored() {
    let (directory, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let app = AppId::random();
    let mut alice = client("alice").create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let group = actors::GroupId::new(alice.group_id()).unwrap();
    let new = NewGroup {
        group_info: alice.group_info_message(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(alice.export_tree().to_bytes().unwrap()),
    };
    let row = |gateway: &Gateway, epoch| gateway.store().view().welcome(app, &group, Epoch(epoch)).unwrap();
    actix::System::new().block_on(async {
        let never = Duration::from_secs(3600);
        let rarely = || GatewayOptions { snapshot_period: never, ..options(app, never) };
        let gateway = Gateway::start(rarely(), store(directory.path()));
        gateway.create_group(app, new, Source::Application).await.unwrap();
        let mut trees = Vec::new();
        for name in ["bob", "carol", ""] {
            let mut commit = alice.commit_builder();
            if !name.is_empty() {
                let member = client(name);
                let package =
                    member.generate_key_package_message(Default::default(), Default::default(), None);
                commit = commit.add_member(package.unwrap()).unwrap();
            }
            let output = commit.build().unwrap();
            alice.apply_pending_commit().unwrap();
            let bytes = |message: &mls_rs::MlsMessage| message.to_bytes().unwrap();
            let upload = CommitBundle {
                commit: bytes(&output.commit_message),
                group_info: None,
                welcome: output.welcome_messages.first().map(bytes),
            };
            gateway.upload_commit(app, &group, upload, Source::Application).await.unwrap();
            trees.push(alice.export_tree().to_bytes().unwrap());
        }
        for (epoch, (name, tree)) in (1..).zip([("bob", &trees[0]), ("carol", &trees[1])]) {
            let stored = row(&gateway, epoch).unwrap();
            assert_eq!((stored.ratchet_tree.len(), stored.tree_bytes_to_store), (0, tree.len() as u64));
            assert_eq!(&tree_of_welcome(&gateway, app, name).await, tree);
        }
        copy(directory.path(), crashed.path());
        let carol = ClientHandle::new(b"carol".to_vec()).unwrap();
        let query = JoinInfoQuery { domain: None, after: None, with_ratchet_tree: false, limit: 10 };
        let id = gateway.welcomes(app, &carol, query).await.unwrap().join_infos[0].id;
        gateway.acknowledge_welcome(app, &carol, None, id).await.unwrap();
        gateway.stop().await;
        assert_eq!(row(&gateway, 1).unwrap().ratchet_tree.to_vec(), trees[0]);
        assert_eq!(row(&gateway, 2), None, "it is not written again");
        gateway.store().shutdown().await;
        drop(gateway);

        // After a crash the owner makes them from the log; then its snapshot stores them.
        // A stop does not wait for a snapshot that is being written.
        let gateway = Gateway::start(rarely(), store(crashed.path()));
        assert_eq!(tree_of_welcome(&gateway, app, "carol").await, trees[1]);
        assert_eq!(tree_of_welcome(&gateway, app, "bob").await, trees[0]);
        gateway.stop().await;
        for (epoch, tree) in [(1, &trees[0]), (2, &trees[1])] {
            let stored = row(&gateway, epoch).unwrap();
            assert_eq!((&stored.ratchet_tree.to_vec(), stored.tree_bytes_to_store), (tree, 0));
        }
        gateway.store().shutdown().await;
        drop(gateway);
        let gateway = drowsy(store(crashed.path()), app);
        assert_eq!(tree_of_welcome(&gateway, app, "carol").await, trees[1]);
        passivated(&gateway).await;
        gateway.stop().await;
        gateway.store().shutdown().await;
        drop(gateway);
    });
}
