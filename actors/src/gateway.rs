//! The gateway's operations as async calls: start, stop, and everything about groups.

use std::{
    collections::{BTreeSet, HashMap},
    hash::RandomState,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::{Actor as _, Addr, Arbiter, Handler, MailboxError, Message};
use dashmap::DashMap;
use snapshots::{
    AppId, AppendError, Batch, DomainName, Epoch, GroupId, GroupRow, Retention, Store, Unmet, View,
};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::{
    application::{Application, Source},
    clock::Clock,
    core::{AwakeGroup, Core},
    group::{
        AcceptedCommit, AcceptedProposal, CommitUpload, ControlMessages, CreatedGroup, GroupActor,
        GroupError, GroupOrigin, GroupState, GroupView, NewGroup, Outcome, Published, RecentLimits,
        UploadCommit, UploadProposal, accepted_before, control_messages, creation, refused, winner_again,
    },
    judging::Judging,
    limits::Limits,
    mls::{Crypto, RequestMember, Rule, Rules, packet_head},
    peer::{PeerActor, PeerHealth, Transport},
    replica_count::ReplicaCount,
    resting::{SnapshotPauses, SnapshotStatus},
    storage::StorageError,
    supervisor::{Stop, Supervisor},
    trusted_time::{RememberedTime, TrustRules, TrustedTime},
    turns::Turns,
};

/// How a gateway is to run.
pub struct GatewayOptions {
    /// The applications whose clients, queues and groups it keeps.
    pub applications: Vec<Application>,
    /// Limits on what callers can make grow.
    pub limits: Limits,
    /// For how long history, welcomes and the like are kept.
    pub retention: Retention,
    /// How often actors with something new write a snapshot.
    pub snapshot_period: Duration,
    /// How often what is too old is dropped.
    pub retention_period: Duration,
    /// After what quiet time an actor goes to sleep.
    pub passivate_after: Duration,
    /// How many threads the actors of groups and key queues share; at least one.
    pub arbiters: usize,
    /// Where the time comes from.
    pub clock: Clock,
    /// How entries reach the gateways of other domains; without it nothing is delivered.
    pub transport: Option<Arc<dyn Transport>>,
}

/// How it goes with the gateway of another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its domain.
    pub domain: DomainName,
    /// Whether the last delivery reached it. The entries that it lacks are kept.
    pub is_reachable: bool,
    /// The number of groups whose next entry it refuses, as far as is known since the start.
    pub refused_groups: usize,
}

/// A running gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) core: Arc<Core>,
    supervisor: Addr<Supervisor>,
    peers: Arc<HashMap<DomainName, Arc<PeerHealth>>>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

/// How often a request is sent again when its actor has just gone to sleep.
pub(crate) const WAKE_ATTEMPTS: usize = 4;

/// The setting that names a store.
const STORE_ID: &str = "store_id";
/// The setting that holds a [`RememberedTime`].
pub(crate) const KNOWN_TIME: &str = "known_time";

impl Gateway {
    /// Starts the actors over an open store. Must be called inside a running actix system.
    pub fn start(options: GatewayOptions, store: Store) -> Self {
        let arbiters: Vec<Arbiter> = (0..options.arbiters.max(1)).map(|_| Arbiter::new()).collect();
        let rules = TrustRules::of(&options.limits);
        // Before the store is given a name: a store without one is new.
        let trusted_time = trusted_time(rules, &options.clock, &store);
        let core = Arc::new(Core {
            store_id: store_id(&store),
            store,
            judging: Judging::new(
                options.applications.iter().map(|application| application.id),
                arbiters.len(),
                options.limits.judgements_per_application_max,
            ),
            trusted_time,
            applications: options.applications.into_iter().map(|app| (app.id, app)).collect(),
            recent: RecentLimits::new(options.limits.recent_bytes_per_group_max, &options.retention),
            client_turns: Turns::new(options.limits.waiting_requests_per_actor_max),
            limits: options.limits,
            clock: options.clock,
            crypto: Crypto::default(),
            groups: DashMap::new(),
            queues: DashMap::new(),
            arbiters: arbiters.iter().map(Arbiter::handle).collect(),
            stopping: AtomicBool::new(false),
            replicas: ReplicaCount::default(),
            snapshot_pauses: SnapshotPauses::default(),
            hasher: RandomState::new(),
            peers: OnceLock::new(),
        });
        let peers = start_peers(&core, options.transport);
        let supervisor = Supervisor {
            core: Arc::clone(&core),
            arbiters,
            snapshot_period: options.snapshot_period,
            retention_period: options.retention_period,
            passivate_after: options.passivate_after,
            retention: options.retention,
            is_tidying: false,
            is_sweeping: false,
        };
        Self { core, supervisor: supervisor.start(), peers }
    }

    /// The application of this id.
    pub fn application(&self, app: AppId) -> Option<&Application> {
        self.core.applications.get(&app)
    }

    /// All applications, in no order.
    pub fn applications(&self) -> impl Iterator<Item = &Application> {
        self.core.applications.values()
    }

    /// The limits it runs with.
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// The store it writes to.
    pub fn store(&self) -> &Store {
        &self.core.store
    }

    /// Whether it takes requests: it is not stopping, and its store is well and answers.
    pub fn is_ready(&self) -> bool {
        !self.core.is_stopping() && !self.core.store.is_failed() && !self.core.store.is_stalled()
    }

    /// How many groups and key queues are awake; the others rest on disk until they are asked for.
    pub fn awake(&self) -> usize {
        self.core.awake()
    }

    /// How it goes with the snapshots of groups and key queues.
    pub fn snapshots(&self) -> SnapshotStatus {
        self.core.snapshot_pauses.status()
    }

    /// How it goes with the gateways that entries are delivered to, by domain.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let status = |(domain, health): (&DomainName, &Arc<PeerHealth>)| PeerStatus {
            domain: domain.clone(),
            is_reachable: health.is_reachable.load(Ordering::Relaxed),
            refused_groups: health.refused_groups.load(Ordering::Relaxed),
        };
        self.peers.iter().map(status).collect()
    }

    /// Refuses new work, waits until every actor has written its snapshot and stopped. The store may then be closed.
    pub async fn stop(&self) {
        self.core.stopping.store(true, Ordering::Release);
        if self.supervisor.send(Stop).await.is_err() {
            tracing::debug!("the gateway was stopped before");
        }
    }

    /// Creates a group (*Group Creation*).
    ///
    /// # Errors
    /// [`GroupError::GroupExists`], [`GroupError::InvalidGroupInfo`], [`GroupError::MalformedMessage`],
    /// [`GroupError::TooLarge`], or that the gateway cannot write.
    pub async fn create_group(
        &self,
        app: AppId,
        new: NewGroup,
        source: Source,
    ) -> Result<CreatedGroup, GroupError> {
        let application = self.group_application(app)?.clone();
        let digest = new.digest();
        let core = Arc::clone(&self.core);
        let now = core.clock.now();
        let judged = self.core.judging.place(app).ok_or(GroupError::Busy)?.run(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let rules = Rules { crypto, limits, application: &application, source: &source };
            GroupState::create(rules, &new, now).map(|state| (state, new))
        });
        let (state, new) = judged
            .await
            .ok_or_else(|| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))??;
        let group = state.id().clone();
        let row =
            GroupRow { epoch: Epoch(0), created_at: now, creation_digest: digest, hub: state.hub().cloned() };
        let origin = GroupOrigin::new(self.group_application(app)?, group.clone(), row);
        match self.core.store.append(creation(&origin, &state, &new)?).await {
            Ok(_) => {
                self.core.wake_peers(&origin);
                Ok(CreatedGroup { group, outcome: Outcome::New })
            }
            Err(AppendError::Precondition(Unmet::LogExists)) => {
                if self.group_row(app, &group)?.creation_digest == digest {
                    Ok(CreatedGroup { group, outcome: Outcome::Repeated })
                } else if self.create_instead(self.group_application(app)?, &origin, &state, &new).await? {
                    self.core.wake_peers(&origin);
                    Ok(CreatedGroup { group, outcome: Outcome::New })
                } else {
                    Err(GroupError::GroupExists)
                }
            }
            Err(AppendError::TooLarge { limit, .. }) => {
                Err(GroupError::TooLarge { what: "the group", max: limit })
            }
            Err(
                error @ (AppendError::Precondition(_)
                | AppendError::Closed
                | AppendError::Stalled { .. }
                | AppendError::Storage(_)),
            ) => Err(StorageError::from_append(&error).into()),
        }
    }

    /// A group as it is now: nothing in it can still be lost.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub async fn group(&self, app: AppId, group: &GroupId) -> Result<Arc<GroupView>, GroupError> {
        shown_view(&self.core, self.group_application(app)?, group).await
    }

    /// The packets of the proposals that wait in the current epoch and can still be committed, oldest first (*Proposals*).
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub async fn current_proposals(
        &self,
        app: AppId,
        group: &GroupId,
    ) -> Result<(Epoch, Vec<Arc<[u8]>>), GroupError> {
        let application = self.group_application(app)?;
        let view = shown_view(&self.core, application, group).await?;
        let now = self.core.clock.now();
        let current = view.current_proposals(application, &self.core.store.view(), now)?;
        Ok((view.epoch, current))
    }

    /// Uploads a proposal of the current epoch (*Proposals*).
    ///
    /// # Errors
    /// What is wrong with it, [`GroupError::UnknownGroup`], [`GroupError::TooManyProposals`],
    /// [`GroupError::KeyPackageReused`], or that the gateway cannot write.
    pub async fn upload_proposal(
        &self,
        app: AppId,
        group: &GroupId,
        packet: Vec<u8>,
        source: Source,
    ) -> Result<AcceptedProposal, GroupError> {
        let application = self.group_application(app)?;
        let row = self.group_row(app, group)?;
        within("packet", &packet, self.core.limits.packet_bytes_max)?;
        let broken = |rule, detail| GroupError::InvalidProposal { rule, detail };
        let epoch = self.routed_epoch(group, (RequestMember::Packet, &packet), broken)?;
        if epoch < row.epoch {
            let view = self.core.store.view();
            let stale = GroupError::StaleEpoch { packet: epoch, current: row.epoch };
            return match accepted_before(&view, app, group, epoch, &packet)? {
                Some(accepted) => Ok(accepted),
                None => Err(unless_unknown(&view, application, group, epoch, row.hub, stale)),
            };
        }
        check_source(application, &source, row.hub)?;
        self.ask_group(application, group, |permit| UploadProposal {
            packet: packet.clone(),
            source: source.clone(),
            permit,
        })
        .await
    }

    /// Uploads a commit of the current epoch with its companions (*Commits*). The first valid one wins the epoch; the
    /// winner, uploaded again, gets its first answer again.
    ///
    /// # Errors
    /// [`GroupError::StaleEpoch`] for everybody else, found before any signature is verified; what is wrong with it;
    /// [`GroupError::UnknownGroup`], [`GroupError::KeyPackageReused`], or that the gateway cannot write.
    pub async fn upload_commit(
        &self,
        app: AppId,
        group: &GroupId,
        upload: CommitUpload,
        source: Source,
    ) -> Result<AcceptedCommit, GroupError> {
        let application = self.group_application(app)?;
        let (current, hub) = match self.shown(app, group) {
            Some(view) => (view.epoch, view.hub.clone()),
            None => {
                let row = self.group_row(app, group)?;
                (row.epoch, row.hub)
            }
        };
        within("commitPacket", &upload.commit, self.core.limits.packet_bytes_max)?;
        let broken = |rule, detail| GroupError::InvalidCommit { rule, detail, proposal: None };
        let epoch = self.routed_epoch(group, (RequestMember::CommitPacket, &upload.commit), broken)?;
        if epoch < current {
            let view = self.core.store.view();
            let stale = GroupError::StaleEpoch { packet: epoch, current };
            return match winner_again(&view, app, group, epoch, &upload.digest())? {
                Some(accepted) => Ok(accepted),
                None => Err(unless_unknown(&view, application, group, epoch, hub, stale)),
            };
        }
        check_source(application, &source, hub)?;
        let upload = Arc::new(upload);
        self.ask_group(application, group, |permit| UploadCommit {
            upload: Arc::clone(&upload),
            source: source.clone(),
            permit,
        })
        .await
    }

    /// The packets that lead from one epoch to another (*Commits*, `control-msgs`), read from disk unless they are recent.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::EpochsPruned`], or that the store cannot be read.
    pub async fn control_messages(
        &self,
        app: AppId,
        group: &GroupId,
        from: Epoch,
        to: Option<Epoch>,
        limit: usize,
    ) -> Result<ControlMessages, GroupError> {
        self.group_application(app)?;
        // The answer names every packet twice: in the draft's list and in its epoch.
        let bytes_max = self.core.limits.answer_bytes_max / 2;
        if let Some(view) = self.shown(app, group) {
            let (now, limits) = (self.core.clock.now(), self.core.recent);
            if let Some(recent) = view.recent_messages((from, to), limit, bytes_max, now, limits) {
                return Ok(recent);
            }
        }
        control_messages(&self.core.store.view(), app, group, (from, to), limit, bytes_max)
    }

    pub(crate) fn group_application(&self, app: AppId) -> Result<&Application, GroupError> {
        if self.core.is_stopping() {
            return Err(GroupError::Stopping);
        }
        self.application(app).ok_or(GroupError::UnknownGroup)
    }

    pub(crate) fn group_row(&self, app: AppId, group: &GroupId) -> Result<GroupRow, GroupError> {
        let row = self.core.store.view().group(app, group).map_err(StorageError::from)?;
        row.ok_or(GroupError::UnknownGroup)
    }

    /// What an awake group shows at this moment.
    fn shown(&self, app: AppId, group: &GroupId) -> Option<Arc<GroupView>> {
        let awake = self.core.groups.get(&(app, group.clone()))?;
        let shown = awake.published.borrow();
        match &*shown {
            Published::Ready(view) => Some(Arc::clone(view)),
            Published::Loading | Published::Failed(_) => None,
        }
    }

    /// The epoch of a packet that is for this group.
    fn routed_epoch(
        &self,
        group: &GroupId,
        (member, packet): (RequestMember, &[u8]),
        broken: impl Fn(Rule, String) -> GroupError,
    ) -> Result<Epoch, GroupError> {
        let head = packet_head(member, packet)
            .map_err(|refusal| refused(refusal, |rule, detail, _| broken(rule, detail)))?;
        if head.group.as_ref() != Some(group) {
            return Err(broken(Rule::Group, "the packet was made for another group".into()));
        }
        Ok(head.epoch)
    }

    /// Asks a group's actor; one that has just gone to sleep is woken again.
    pub(crate) async fn ask_group<M, T>(
        &self,
        application: &Application,
        group: &GroupId,
        message: impl Fn(OwnedSemaphorePermit) -> M,
    ) -> Result<T, GroupError>
    where
        M: Message<Result = Result<T, GroupError>> + Send + 'static,
        GroupActor: Handler<M>,
        T: Send + 'static,
    {
        for _ in 0..WAKE_ATTEMPTS {
            let awake = awake(&self.core, application, group)?;
            let permit = awake.actor.activity.permit().ok_or(GroupError::Busy)?;
            match awake.actor.address.send(message(permit)).await {
                Ok(answer) => return answer,
                Err(MailboxError::Closed | MailboxError::Timeout) => {
                    self.core.forget_group(application.id, group, &awake.actor.address);
                }
            }
        }
        Err(StorageError::Unreadable.into())
    }
}

/// A packet is accepted only from a permitted sender, and only by the gateway that orders its group.
fn check_source(
    application: &Application,
    source: &Source,
    hub: Option<DomainName>,
) -> Result<(), GroupError> {
    let is_known = match source {
        Source::Application | Source::Hub => true,
        Source::Peer(domains) => application.federates_with_any(domains),
    };
    match hub {
        _ if !is_known => Err(GroupError::UnknownGroup),
        Some(hub) if !application.is_hub(Some(&hub)) => Err(GroupError::NotHub { hub }),
        Some(_) | None => Ok(()),
    }
}

/// That a packet is stale, unless this is a replica that does not know what came of the packet's epoch: then the hub is to
/// say it.
fn unless_unknown(
    view: &View,
    application: &Application,
    group: &GroupId,
    epoch: Epoch,
    hub: Option<DomainName>,
    stale: GroupError,
) -> GroupError {
    let Some(hub) = hub.filter(|hub| !application.is_hub(Some(hub))) else { return stale };
    match epoch.next().map(|created| view.epoch(application.id, group, created)) {
        Some(Ok(None)) => GroupError::NotHub { hub },
        Some(Ok(Some(_))) | None => stale,
        Some(Err(error)) => StorageError::from(error).into(),
    }
}

/// What names this store: made with it, and gone with it.
fn store_id(store: &Store) -> Uuid {
    let read = || store.view().setting(STORE_ID).ok()?.and_then(|kept| Uuid::from_slice(&kept).ok());
    if let Some(id) = read() {
        return id;
    }
    let id = Uuid::new_v4();
    let mut batch = Batch::new();
    batch.put_setting(STORE_ID, id.as_bytes());
    if let Err(error) = store.append_blocking(batch) {
        tracing::error!(%error, "the store could not be given a name");
    }
    id
}

/// What an earlier run knew of the time.
fn trusted_time(rules: TrustRules, clock: &Clock, store: &Store) -> TrustedTime {
    let view = store.view();
    let is_new = matches!(view.setting(STORE_ID), Ok(None));
    let before = view.setting(KNOWN_TIME).ok().flatten();
    let before = before.and_then(|bytes| RememberedTime::from_bytes(&bytes)).unwrap_or_default();
    TrustedTime::new(rules, clock, before, is_new)
}

/// Starts one actor for each gateway that an application federates with.
fn start_peers(
    core: &Arc<Core>,
    transport: Option<Arc<dyn Transport>>,
) -> Arc<HashMap<DomainName, Arc<PeerHealth>>> {
    let Some(transport) = transport else { return Arc::default() };
    let domains: BTreeSet<&DomainName> =
        core.applications.values().flat_map(|application| application.federates_with.iter()).collect();
    let mut addresses = HashMap::new();
    let mut healths = HashMap::new();
    for domain in domains {
        let Some(arbiter) = core.arbiter(domain) else { continue };
        let health = Arc::new(PeerHealth::default());
        let (core, transport, peer) = (Arc::clone(core), Arc::clone(&transport), domain.clone());
        let of_actor = Arc::clone(&health);
        let address =
            PeerActor::start_in_arbiter(arbiter, move |_| PeerActor::new(core, peer, transport, of_actor));
        addresses.insert(domain.clone(), address);
        healths.insert(domain.clone(), health);
    }
    // It is set only here.
    let _ = core.peers.set(addresses);
    Arc::new(healths)
}

fn awake(core: &Arc<Core>, application: &Application, group: &GroupId) -> Result<AwakeGroup, GroupError> {
    if let Some(awake) = core.groups.get(&(application.id, group.clone())) {
        return Ok(awake.clone());
    }
    let row = core.store.view().group(application.id, group).map_err(StorageError::from)?;
    let row = row.ok_or(GroupError::UnknownGroup)?;
    core.wake_group(application, group, &row).ok_or(GroupError::Stopping)
}

/// A group as it is now, woken if it sleeps.
pub(crate) async fn shown_view(
    core: &Arc<Core>,
    application: &Application,
    group: &GroupId,
) -> Result<Arc<GroupView>, GroupError> {
    for _ in 0..WAKE_ATTEMPTS {
        let mut awake = awake(core, application, group)?;
        awake.actor.activity.touch(core.clock.now());
        let shown = awake.published.wait_for(|shown| !matches!(shown, Published::Loading)).await;
        match shown.as_deref() {
            Ok(Published::Ready(view)) => return Ok(Arc::clone(view)),
            Ok(Published::Failed(error)) => return Err(error.clone().into()),
            // The actor went to sleep before it had read anything.
            Ok(Published::Loading) | Err(_) => {
                core.forget_group(application.id, group, &awake.actor.address);
            }
        }
    }
    Err(StorageError::Unreadable.into())
}

fn within(what: &'static str, packet: &[u8], max: usize) -> Result<(), GroupError> {
    if packet.len() <= max { Ok(()) } else { Err(GroupError::TooLarge { what, max }) }
}
