//! The way in: everything a gateway can be asked, as plain async calls. Behind each call stands the actor that owns what
//! is asked for, or the store where nobody has to own it.

use std::{
    hash::RandomState,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use actix::{Actor as _, Addr, Arbiter, Handler, MailboxError, Message};
use dashmap::DashMap;
use snapshots::{AppId, AppendError, Epoch, GroupId, GroupRow, Retention, Store, Unmet};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    application::Application,
    clock::Clock,
    core::{AwakeGroup, Core},
    group::{
        AcceptedCommit, AcceptedProposal, CommitUpload, ControlMessages, CreatedGroup, GroupActor,
        GroupError, GroupOrigin, GroupState, GroupView, NewGroup, Outcome, Published, Rules, UploadCommit,
        UploadProposal, accepted_before, control_messages, creation, winner_again,
    },
    limits::Limits,
    mls::{Crypto, Refusal, Rule, packet_head},
    storage::StorageError,
    supervisor::{Stop, Supervisor},
};

/// How a gateway is to run.
#[derive(Debug)]
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
}

/// A running gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) core: Arc<Core>,
    supervisor: Addr<Supervisor>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

/// How often a request is sent again when its actor has just gone to sleep.
pub(crate) const WAKE_ATTEMPTS: usize = 4;

impl Gateway {
    /// Starts the actors over an open store. Must be called inside a running actix system.
    pub fn start(options: GatewayOptions, store: Store) -> Self {
        let arbiters: Vec<Arbiter> = (0..options.arbiters.max(1)).map(|_| Arbiter::new()).collect();
        let core = Arc::new(Core {
            store,
            applications: options.applications.into_iter().map(|app| (app.id, app)).collect(),
            limits: options.limits,
            clock: options.clock,
            crypto: Crypto::default(),
            groups: DashMap::new(),
            queues: DashMap::new(),
            arbiters: arbiters.iter().map(Arbiter::handle).collect(),
            stopping: AtomicBool::new(false),
            hasher: RandomState::new(),
        });
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
        Self { core, supervisor: supervisor.start() }
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

    /// Whether it takes requests: it is not stopping and its store is well.
    pub fn is_ready(&self) -> bool {
        !self.core.is_stopping() && !self.core.store.is_failed()
    }

    /// How many groups and key queues are awake; the others rest on disk until they are asked for.
    pub fn awake(&self) -> usize {
        self.core.awake()
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
    pub async fn create_group(&self, app: AppId, new: NewGroup) -> Result<CreatedGroup, GroupError> {
        let application = self.group_application(app)?.clone();
        let hub = application.supports_domains.then(|| application.domains.first().cloned()).flatten();
        let digest = new.digest();
        let core = Arc::clone(&self.core);
        let now = core.clock.now();
        let judged = tokio::task::spawn_blocking(move || {
            let rules =
                Rules { crypto: &core.crypto, provider: &*application.identity, limits: &core.limits };
            GroupState::create(rules, &new, hub.clone(), now).map(|state| (state, hub))
        });
        let (state, hub) = judged
            .await
            .map_err(|_| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))??;
        let group = state.id().clone();
        let origin = GroupOrigin {
            app,
            group: group.clone(),
            row: GroupRow { epoch: Epoch(0), created_at: now, creation_digest: digest, hub },
        };
        match self.core.store.append(creation(&origin, &state)?).await {
            Ok(_) => Ok(CreatedGroup { group, outcome: Outcome::New }),
            Err(AppendError::Precondition(Unmet::LogExists)) => {
                if self.group_row(app, &group)?.creation_digest == digest {
                    Ok(CreatedGroup { group, outcome: Outcome::Repeated })
                } else {
                    Err(GroupError::GroupExists)
                }
            }
            Err(AppendError::TooLarge { limit, .. }) => {
                Err(GroupError::TooLarge { what: "the group", max: limit })
            }
            Err(error @ (AppendError::Precondition(_) | AppendError::Closed | AppendError::Storage(_))) => {
                Err(StorageError::from_append(&error).into())
            }
        }
    }

    /// A group as it is now: nothing in it can still be lost.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub async fn group(&self, app: AppId, group: &GroupId) -> Result<Arc<GroupView>, GroupError> {
        let application = self.group_application(app)?;
        for _ in 0..WAKE_ATTEMPTS {
            let mut awake = self.wake(application, group)?;
            awake.actor.activity.touch(self.core.clock.now());
            let shown = awake.published.wait_for(|shown| !matches!(shown, Published::Loading)).await;
            match shown.as_deref() {
                Ok(Published::Ready(view)) => return Ok(Arc::clone(view)),
                Ok(Published::Failed(error)) => return Err(error.clone().into()),
                // The actor went to sleep before it had read anything.
                Ok(Published::Loading) | Err(_) => {
                    self.core.forget_group(app, group, &awake.actor.address);
                }
            }
        }
        Err(StorageError::Unreadable.into())
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
    ) -> Result<AcceptedProposal, GroupError> {
        let application = self.group_application(app)?;
        let current = self.group_row(app, group)?.epoch;
        within("packet", &packet, self.core.limits.packet_bytes_max)?;
        let wrong_group = |rule, detail| GroupError::InvalidProposal { rule, detail };
        let epoch = self.routed_epoch(group, &packet, wrong_group)?;
        if epoch < current {
            return accepted_before(&self.core.store.view(), app, group, epoch, &packet)?
                .ok_or(GroupError::StaleEpoch { packet: epoch, current });
        }
        self.ask_group(application, group, |permit| UploadProposal { packet: packet.clone(), permit }).await
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
    ) -> Result<AcceptedCommit, GroupError> {
        let application = self.group_application(app)?;
        let current = match self.shown(app, group) {
            Some(view) => view.epoch,
            None => self.group_row(app, group)?.epoch,
        };
        within("commitPacket", &upload.commit, self.core.limits.packet_bytes_max)?;
        let wrong_group = |rule, detail| GroupError::InvalidCommit { rule, detail };
        let epoch = self.routed_epoch(group, &upload.commit, wrong_group)?;
        if epoch < current {
            return winner_again(&self.core.store.view(), app, group, epoch, &upload.digest())?
                .ok_or(GroupError::StaleEpoch { packet: epoch, current });
        }
        let upload = Arc::new(upload);
        self.ask_group(application, group, |permit| UploadCommit { upload: Arc::clone(&upload), permit })
            .await
    }

    /// The packets that lead from one epoch to another (*Commits*, `control-msgs`), read from disk.
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
        control_messages(&self.core.store.view(), app, group, (from, to), limit, bytes_max)
    }

    fn group_application(&self, app: AppId) -> Result<&Application, GroupError> {
        if self.core.is_stopping() {
            return Err(GroupError::Stopping);
        }
        self.application(app).ok_or(GroupError::UnknownGroup)
    }

    fn group_row(&self, app: AppId, group: &GroupId) -> Result<GroupRow, GroupError> {
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
        packet: &[u8],
        wrong_group: impl FnOnce(Rule, String) -> GroupError,
    ) -> Result<Epoch, GroupError> {
        let head = packet_head(packet).map_err(|refusal| match refusal {
            Refusal::Malformed(detail) => GroupError::MalformedMessage(detail),
            Refusal::Stale { .. }
            | Refusal::Future { .. }
            | Refusal::Broken { .. }
            | Refusal::OpenedWith(_)
            | Refusal::GroupInfo(_)
            | Refusal::WelcomeMissing { .. }
            | Refusal::Welcome(_) => GroupError::MalformedMessage("the packet cannot be read".into()),
        })?;
        if head.group.as_ref() != Some(group) {
            return Err(wrong_group(Rule::Group, "the packet was made for another group".into()));
        }
        Ok(head.epoch)
    }

    fn wake(&self, application: &Application, group: &GroupId) -> Result<AwakeGroup, GroupError> {
        if let Some(awake) = self.core.groups.get(&(application.id, group.clone())) {
            return Ok(awake.clone());
        }
        let row = self.group_row(application.id, group)?;
        self.core.wake_group(application, group, &row).ok_or(GroupError::Stopping)
    }

    /// Asks a group's actor; one that has just gone to sleep is woken again.
    async fn ask_group<M, T>(
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
            let awake = self.wake(application, group)?;
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

fn within(what: &'static str, packet: &[u8], max: usize) -> Result<(), GroupError> {
    if packet.len() <= max { Ok(()) } else { Err(GroupError::TooLarge { what, max }) }
}
