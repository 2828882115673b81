//! The owner of a group alone: a store, a clock and a place for its notices, and no gateway.

use std::{
    collections::{BTreeSet, HashMap},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use actix::{Actor as _, Addr};
use mls_rs::{ExtensionList, Group, MlsMessage, client_builder::MlsConfig, group::CommitOutput};
use snapshots::{
    AppId, Batch, DomainName, Epoch, GroupId, GroupRow, Invitation, Location, Retention, Store, StoreOptions,
};
use tokio::sync::{Semaphore, watch};
use tracing::Span;

use super::{
    Accepted, AcceptedCommit, EntryContent, GroupActor, GroupError, GroupMeta, GroupState, GroupTransfer,
    LogEntry, NewGroup, Outcome, Published, UploadEntry, batch,
    batch::{creation, creation_instead},
    state::StagedChange,
};
use crate::{
    activity::{Activity, ActorState, Upkeep},
    application::{Application, Source},
    clock::Clock,
    deletions::Deletions,
    disagreements::Disagreements,
    error::StorageError,
    limits::{Limits, RecentLimits},
    lost_commits::LostCommits,
    mls::{CommitBundle, ValidationContext, tests::client},
    replica_count::ReplicaCount,
    revocation_searches::RevocationSearches,
    services::{Notices, Services, UsedPackages},
    snapshot_pauses::SnapshotPauses,
    trusted_time::{RememberedTime, TrustRules, TrustedTime},
    validation::ValidationPool,
};

/// Counts the notices that the log has grown.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<usize>>);

impl Notices for Heard {
    fn log_grew(&self, _: &BTreeSet<DomainName>, _: AppId, _: &GroupId) {
        *self.0.lock().unwrap() += 1;
    }

    fn key_packages_used(&self, _: AppId, used: UsedPackages) {
        assert!(used.is_empty(), "nobody is added here");
    }
}

pub(crate) fn services(application: &Application, heard: Heard) -> Arc<Services> {
    let (limits, clock) = (Limits::default(), Clock::system());
    let store =
        Store::open(&StoreOptions { location: Location::Temporary, ..StoreOptions::default() }).unwrap();
    let trusted_time = TrustedTime::new(TrustRules::of(&limits), &clock, RememberedTime::default(), true);
    Arc::new(Services {
        store,
        applications: HashMap::from([(application.id, application.clone())]),
        recent: RecentLimits::new(limits.recent_bytes_per_group_max, &Retention::default()),
        validation: ValidationPool::new([application.id], 1, 8),
        limits,
        clock,
        trusted_time,
        snapshot_pauses: SnapshotPauses::default(),
        lost_commits: LostCommits::default(),
        replicas: ReplicaCount::default(),
        deletions: Deletions::default(),
        revocation: RevocationSearches::default(),
        epochs_reported: AtomicU64::new(0),
        audit: snapshots::ClaimLimits { queues_per_day_max: 1000, rows_max: 1000 },
        assignment_age_max: None,
        dropped_per_client_max: 0,
        disagreements: Disagreements::default(),
        notices: Box::new(heard),
        is_stopping: AtomicBool::new(false),
    })
}

/// Starts the owner of a stored group.
fn activate(
    services: &Arc<Services>,
    application: &Application,
    meta: &GroupMeta,
) -> (Addr<GroupActor>, watch::Receiver<Published>) {
    let (publish, published) = watch::channel(Published::Loading);
    let activity = Activity::new(8, services.clock.now());
    let actor = GroupActor::new(Arc::clone(services), application.clone(), meta.clone(), activity, publish);
    (actor.start(), published)
}

async fn upload(actor: &Addr<GroupActor>, bundle: &Arc<CommitBundle>) -> Result<AcceptedCommit, GroupError> {
    let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    let content = EntryContent::Commit(Arc::clone(bundle));
    let (source, span) = (Source::Application, Span::none());
    match actor.send(UploadEntry { content, source, span, permit }).await.unwrap()? {
        Accepted::Commit(commit) => Ok(commit),
        Accepted::Proposal(proposal) => panic!("a commit was accepted as {proposal:?}"),
    }
}

fn commit(group: &mut Group<impl MlsConfig>) -> Arc<CommitBundle> {
    bundle(&group.commit(Vec::new()).unwrap())
}

fn bundle(output: &CommitOutput) -> Arc<CommitBundle> {
    let bytes = |message: &MlsMessage| message.to_bytes().unwrap();
    Arc::new(CommitBundle {
        commit: bytes(&output.commit_message),
        group_info: output.external_commit_group_info.as_ref().map(bytes),
        welcome: output.welcome_messages.first().map(bytes),
    })
}

fn epoch(published: &watch::Receiver<Published>) -> Option<Epoch> {
    match &*published.borrow() {
        Published::Ready(view) => Some(view.epoch),
        Published::Loading | Published::Failed(_) | Published::Deleted => None,
    }
}

#[test]
fn an_owner_alone_lets_the_first_commit_win_and_comes_back_from_its_log() {
    actix::System::new().block_on(async {
        let application = Application::basic(AppId::random());
        let heard = Heard::default();
        let services = services(&application, heard.clone());
        let mut alice =
            client("alice").create_group(ExtensionList::new(), ExtensionList::new(), None).unwrap();
        let new = Arc::new(NewGroup {
            group_info: alice.group_info_message(true).unwrap().to_bytes().unwrap(),
            ratchet_tree: Some(alice.export_tree().to_bytes().unwrap()),
        });
        let now = services.clock.now();
        let state =
            GroupState::create(services.validation_context(&application, &Source::Application), &new, now)
                .unwrap();
        let row = GroupRow { epoch: Epoch(0), created_at: now, creation_digest: new.digest(), hub: None };
        let meta = GroupMeta::new(&application, state.id().clone(), row);
        services.store.append(creation(&meta, &state, &new).unwrap()).await.unwrap();

        let (actor, published) = activate(&services, &application, &meta);
        let first = commit(&mut alice);
        alice.clear_pending_commit();
        let second = commit(&mut alice);
        let won = upload(&actor, &first).await.unwrap();
        assert_eq!((won.epoch, won.outcome), (Epoch(1), Outcome::New));
        assert_eq!(epoch(&published), Some(Epoch(1)));
        assert_eq!(*heard.0.lock().unwrap(), 1);
        let stale = GroupError::StaleEpoch { packet: Epoch(0), current: Epoch(1) };
        assert_eq!(upload(&actor, &second).await, Err(stale.clone()));
        let repeated = AcceptedCommit { outcome: Outcome::Repeated, ..won };
        assert_eq!(upload(&actor, &first).await, Ok(repeated.clone()));
        assert_eq!(*heard.0.lock().unwrap(), 1, "nothing else was appended");

        assert_eq!(actor.send(Upkeep::Passivate).await.unwrap(), ActorState::Stopped);
        assert_eq!(
            epoch(&published),
            Some(Epoch(1)),
            "what was shown is true until another owner accepts something"
        );
        let (actor, published) = activate(&services, &application, &meta);
        assert_eq!(upload(&actor, &first).await, Ok(repeated));
        assert_eq!(upload(&actor, &second).await, Err(stale));
        assert_eq!(epoch(&published), Some(Epoch(1)));
        services.store.shutdown().await;
    });
}

fn context<'a>(
    application: &'a Application,
    limits: &'a Limits,
    source: &'a Source,
) -> ValidationContext<'a> {
    ValidationContext { limits, application, source }
}

#[test]
fn no_commit_makes_the_tree_larger_than_the_limit() {
    let application = Application::basic(AppId::random());
    let now = Clock::system().now();
    let mut alice = client("alice").create_group(ExtensionList::new(), ExtensionList::new(), None).unwrap();
    let new = NewGroup {
        group_info: alice.group_info_message(true).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(alice.export_tree().to_bytes().unwrap()),
    };
    let limits = |ratchet_tree_bytes_max| Limits { ratchet_tree_bytes_max, ..Limits::default() };
    let stage = |state: &GroupState, bundle: &Arc<CommitBundle>, max, source| {
        let content = EntryContent::Commit(Arc::clone(bundle));
        let entry = LogEntry { sequence: 1, timestamp: now, content };
        state.stage(context(&application, &limits(max), &source), entry, &|_| false)
    };
    let mut state =
        GroupState::create(context(&application, &limits(8192), &Source::Application), &new, now).unwrap();

    let package = client("bob").generate_key_package_message(Default::default(), Default::default(), None);
    let output = alice.commit_builder().add_member(package.unwrap()).unwrap().build().unwrap();
    let growing = bundle(&output);
    alice.apply_pending_commit().unwrap();
    let grown = alice.export_tree().to_bytes().unwrap().len();
    let refused = stage(&state, &growing, grown - 1, Source::Application).unwrap_err();
    let too_large = GroupError::TooLarge { what: "the ratchet tree after the commit", max: grown - 1 };
    assert_eq!(refused, too_large);
    // A replica takes what its hub accepted.
    stage(&state, &growing, grown - 1, Source::Hub).unwrap();
    let staged = stage(&state, &growing, grown, Source::Application).unwrap();
    state.apply(staged);

    let update = commit(&mut alice);
    alice.apply_pending_commit().unwrap();
    state.apply(stage(&state, &update, 8192, Source::Application).unwrap());
    let grown = alice.export_tree().to_bytes().unwrap().len();
    // Beyond a limit that was lowered, a tree may get smaller, and stay as it is.
    for remove in [false, true] {
        let mut commit = alice.commit_builder();
        if remove {
            commit = commit.remove_member(1).unwrap();
        }
        let next = bundle(&commit.build().unwrap());
        alice.apply_pending_commit().unwrap();
        assert!(alice.export_tree().to_bytes().unwrap().len() <= grown);
        let staged = stage(&state, &next, 1, Source::Application).unwrap();
        state.apply(staged);
    }
}

/// A group of this creator with an id that others have, too.
fn group_of_one_id(
    services: &Services,
    application: &Application,
    name: &str,
) -> (Group<impl MlsConfig + use<>>, Arc<NewGroup>, GroupState, GroupMeta) {
    let none = ExtensionList::new;
    let group = client(name).create_group_with_id(b"one id".to_vec(), none(), none(), None).unwrap();
    let new = Arc::new(NewGroup {
        group_info: group.group_info_message(true).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(group.export_tree().to_bytes().unwrap()),
    });
    let (now, source) = (services.clock.now(), Source::Application);
    let state = GroupState::create(services.validation_context(application, &source), &new, now).unwrap();
    let row = GroupRow { epoch: Epoch(0), created_at: now, creation_digest: new.digest(), hub: None };
    let meta = GroupMeta::new(application, state.id().clone(), row);
    (group, new, state, meta)
}

/// A creation can take the place of a replica whose log stands at the same number.
#[test]
fn an_owner_of_a_replaced_log_writes_nothing_into_the_new_one() {
    actix::System::new().block_on(async {
        let application = Application::basic(AppId::random());
        let services = services(&application, Heard::default());
        let made = |name: &str| group_of_one_id(&services, &application, name);
        let (mut first, new, state, meta) = made("mallory");
        services.store.append(creation(&meta, &state, &new).unwrap()).await.unwrap();
        let (outdated, mut published) = activate(&services, &application, &meta);
        let shown = published.wait_for(|shown| !matches!(shown, Published::Loading)).await.unwrap().clone();
        let Published::Ready(before) = shown else { panic!("{shown:?}") };
        let (_, new, state, meta) = made("alice");
        let no_history = RangeInclusive::new(1, 0);
        let replacing = creation_instead(&meta, &state, &new, (&before, None, no_history)).unwrap();
        services.store.append(replacing).await.unwrap();

        let refused = upload(&outdated, &commit(&mut first)).await;
        assert_eq!(refused, Err(GroupError::Storage(StorageError::Changed)));
        let row = services.store.view().group(meta.app, &meta.group).unwrap().unwrap();
        assert_eq!((row.creation_digest, row.epoch), (new.digest(), Epoch(0)));
        assert_eq!(epoch(&published), None, "the owner gave its state up");
        services.store.shutdown().await;
    });
}

/// A replica that was handed over, and the creation that takes its place, of other members.
#[test]
fn an_owner_of_a_replaced_log_leaves_no_snapshot_in_the_new_one() {
    actix::System::new().block_on(async {
        let application = Application::basic(AppId::random());
        let services = services(&application, Heard::default());
        let created = |name: &str| group_of_one_id(&services, &application, name);
        let (mut first, new, state, meta) = created("mallory");
        services.store.append(creation(&meta, &state, &new).unwrap()).await.unwrap();
        let (outdated, published) = activate(&services, &application, &meta);
        upload(&outdated, &commit(&mut first)).await.unwrap();
        let Published::Ready(before) = published.borrow().clone() else { panic!("it is shown") };

        let (mut second, new, state, meta) = created("alice");
        let replacing = creation_instead(&meta, &state, &new, (&before, None, 1..=1)).unwrap();
        services.store.append(replacing).await.unwrap();
        let (owner, _published) = activate(&services, &application, &meta);
        upload(&owner, &commit(&mut second)).await.unwrap();
        second.apply_pending_commit().unwrap();

        // Both logs stand at the same number.
        assert_eq!(outdated.send(Upkeep::Passivate).await.unwrap(), ActorState::Stopped);
        let log = services.store.view().load_log(&meta.log()).unwrap().unwrap();
        assert_eq!((log.snapshot.map(|(at, _)| at), log.records.len()), (Some(0), 1));
        assert_eq!(services.snapshot_pauses.status().failures, 0);
        assert_eq!(owner.send(Upkeep::Passivate).await.unwrap(), ActorState::Stopped);
        let (owner, _published) = activate(&services, &application, &meta);
        let next = upload(&owner, &commit(&mut second)).await.unwrap();
        assert_eq!(next.epoch, Epoch(2));
        services.store.shutdown().await;
    });
}

/// A commit with its group info and, of an Add, its welcome, in a group of `members`; and the state before it.
fn forged(members: usize, adds: bool, application: &Application) -> (GroupState, GroupMeta, CommitBundle) {
    let group =
        mls_forge::Group::of_members(mls_forge::Suite::Ed25519, members, mls_forge::SharedTree::Populated);
    let transfer = GroupTransfer {
        sequence: 7,
        timestamp: Clock::system().now(),
        group_info: group.group_info().to_message(),
        ratchet_tree: group.tree_bytes(),
        proposals: Vec::new(),
        welcome: None,
        used: Vec::new(),
        reinitialised: false,
    };
    let limits = Limits::default();
    let hub = DomainName::new("a.example").unwrap();
    let state =
        GroupState::from_transfer(context(application, &limits, &Source::Hub), &transfer, hub).unwrap();
    let row = GroupRow {
        epoch: state.epoch(),
        created_at: transfer.timestamp,
        creation_digest: [7; 32],
        hub: None,
    };
    let meta = GroupMeta::new(application, state.id().clone(), row);
    let plan = group.commit(1).path(mls_forge::PathChoice::With);
    let forged = if adds {
        let newcomer = mls_forge::Client::new(mls_forge::Suite::Ed25519, "newcomer");
        let mut group = group.clone();
        let add = group.add(&newcomer);
        plan.with(add).sign()
    } else {
        plan.sign()
    };
    let bundle = CommitBundle {
        commit: forged.commit_bytes(),
        group_info: Some(forged.group_info_bytes()),
        welcome: forged.welcome_bytes(),
    };
    (state, meta, bundle)
}

/// The batch of a commit.
fn batch_of(state: &GroupState, meta: &GroupMeta, bundle: &CommitBundle, application: &Application) -> Batch {
    let limits = Limits::default();
    let content = EntryContent::from(bundle.clone());
    let entry = LogEntry { sequence: 8, timestamp: Clock::system().now(), content };
    let staged = state.stage(context(application, &limits, &Source::Application), entry, &|_| false).unwrap();
    let StagedChange::Commit(epoch) = &staged.change else { panic!("a commit") };
    let mut batch = Batch::new();
    batch::commit(&mut batch, meta, &staged, (epoch, bundle), Invitation::AcceptedElsewhere).unwrap();
    batch
}

#[test]
fn the_messages_of_a_commit_are_written_once() {
    /// Keys, the change that a replay needs, and the rows of the epoch, the group and a member.
    const BESIDES: usize = 1200;
    let alone = Application::basic(AppId::random());
    let peers = BTreeSet::from([DomainName::new("b.example").unwrap()]);
    let federated = Application { federates_with: Arc::new(peers), ..alone.clone() };
    for (members, adds) in [(10, false), (1000, false), (10, true), (1000, true)] {
        for application in [&alone, &federated] {
            let (state, meta, bundle) = forged(members, adds, application);
            let batch = batch_of(&state, &meta, &bundle, application);
            let welcome = bundle.welcome.as_ref().map_or(0, Vec::len);
            let mut messages = bundle.commit.len() + bundle.group_info.as_ref().map_or(0, Vec::len) + welcome;
            if !meta.peers.is_empty() {
                // The peers' own, and that of the client here.
                messages += welcome;
            }
            let written = batch.bytes();
            assert!(written <= messages + BESIDES, "{members} {adds}: {written} bytes for {messages}");
        }
    }
}
