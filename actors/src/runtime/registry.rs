//! The registry of the gateway's actors: the owners of groups and key queues that are active, and the actors of peers. It
//! knows the actors; none of them knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, Hash, RandomState},
    pin::Pin,
    sync::{Arc, OnceLock},
};

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Context, Handler, Message};
use snapshots::{AppId, DomainName, GroupId, KeyQueueId, LogId, QueueRow, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::active::{Active, ActiveActors, AwakeActors, Owner};
use crate::{
    activity::{Activity, AskError, Upkeep},
    application::Application,
    error::StorageError,
    group::{CloseGroup, GroupActor, GroupError, GroupMeta, GroupView, Published},
    key_queue::{Advance, Close, KeyQueueActor, KeyQueueError},
    peer::{GroupViews, LogGrew, PeerActor, ReadingGroup},
    services::{Notices, Services, UsedPackages},
};

/// The number of tries to get a group's view from actors that stop before they show one.
const ATTEMPTS: usize = 4;

impl Owner for GroupActor {
    type Key = (AppId, GroupId);
    type Watch = watch::Receiver<Published>;
}

impl Owner for KeyQueueActor {
    type Key = (AppId, KeyQueueId);
    type Watch = ();
}

/// The addresses of the actors, and the threads that they run on.
pub(crate) struct Directory {
    groups: ActiveActors<GroupActor>,
    key_queues: ActiveActors<KeyQueueActor>,
    /// Set once, at the start.
    peers: OnceLock<BTreeMap<DomainName, Addr<PeerActor>>>,
    arbiters: Vec<ArbiterHandle>,
    hasher: RandomState,
}

impl Directory {
    /// A directory without actors; its actors share these threads.
    pub(crate) fn new(arbiters: &[Arbiter]) -> Self {
        Self {
            groups: ActiveActors::default(),
            key_queues: ActiveActors::default(),
            peers: OnceLock::new(),
            arbiters: arbiters.iter().map(Arbiter::handle).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The place of the actor with this key; `None` if there are no threads.
    fn place(&self, key: &impl Hash) -> Option<ActorPlace<'_>> {
        #[cfg(feature = "simulation")]
        if snapshots::is_simulated() {
            return Some(ActorPlace::Here);
        }
        let hash = usize::try_from(self.hasher.hash_one(key) >> 33).unwrap_or_default();
        self.arbiters.get(hash.checked_rem(self.arbiters.len())?).map(ActorPlace::Thread)
    }
}

/// The place where an actor runs.
enum ActorPlace<'a> {
    /// One of the threads of the actors.
    Thread(&'a ArbiterHandle),
    /// The thread that starts it, which is the only one of a simulation.
    #[cfg(feature = "simulation")]
    Here,
}

impl ActorPlace<'_> {
    fn start<A: Actor<Context = Context<A>> + Send>(&self, actor: A) -> Addr<A> {
        match self {
            Self::Thread(arbiter) => A::start_in_arbiter(arbiter, move |_| actor),
            #[cfg(feature = "simulation")]
            Self::Here => actor.start(),
        }
    }
}

impl Notices for Arc<Directory> {
    fn log_grew(&self, peers: &BTreeSet<DomainName>, app: AppId, group: &GroupId) {
        let Some(addresses) = self.peers.get() else { return };
        for address in peers.iter().filter_map(|peer| addresses.get(peer)) {
            address.do_send(LogGrew { app, group: group.clone() });
        }
    }

    fn key_packages_used(&self, app: AppId, used: UsedPackages) {
        for (queue, reference) in used {
            self.key_queues.notify(&(app, queue), Advance { reference });
        }
    }
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    services: Arc<Services>,
    directory: Arc<Directory>,
}

impl Registry {
    pub(crate) fn new(services: Arc<Services>, directory: Arc<Directory>) -> Self {
        Self { services, directory }
    }

    /// The number of active owners of groups and key queues.
    pub(crate) fn active(&self) -> usize {
        self.directory.groups.len() + self.directory.key_queues.len()
    }

    /// The active owners of groups.
    pub(crate) fn awake_groups(&self) -> AwakeActors {
        self.directory.groups.awake()
    }

    /// The active owners of key queues.
    pub(crate) fn awake_key_queues(&self) -> AwakeActors {
        self.directory.key_queues.awake()
    }

    /// The number of actors of peers.
    pub(crate) fn peers(&self) -> usize {
        self.directory.peers.get().map_or(0, BTreeMap::len)
    }

    /// The time of each active owner's last use, and its weight in bytes.
    pub(crate) fn uses_and_weights(&self) -> Vec<(Timestamp, usize)> {
        let Directory { groups, key_queues, .. } = &*self.directory;
        groups.uses_and_weights().chain(key_queues.uses_and_weights()).collect()
    }

    /// The upkeep tasks of the active owners, as `upkeep` decides.
    pub(crate) fn upkeep(&self, upkeep: impl Fn(&Activity) -> Option<Upkeep>) -> Vec<UpkeepTask> {
        let Directory { groups, key_queues, .. } = &*self.directory;
        let mut tasks = Vec::new();
        for (key, address, upkeep) in groups.due(&upkeep) {
            let directory = Arc::clone(&self.directory);
            tasks.push(Box::pin(async move {
                directory.groups.keep_up(&key, &address, upkeep).await;
            }) as UpkeepTask);
        }
        for (key, address, upkeep) in key_queues.due(&upkeep) {
            let directory = Arc::clone(&self.directory);
            tasks.push(Box::pin(async move {
                directory.key_queues.keep_up(&key, &address, upkeep).await;
            }));
        }
        tasks
    }

    /// The final upkeep of the actors of peers.
    pub(crate) fn stop_peers(&self) -> Vec<UpkeepTask> {
        let stop = |address: &Addr<PeerActor>| {
            let address = address.clone();
            let stopping = async move {
                // One that has stopped already has nothing to write.
                let _ = address.send(Upkeep::Passivate).await;
            };
            Box::pin(stopping) as UpkeepTask
        };
        self.directory.peers.get().into_iter().flat_map(BTreeMap::values).map(stop).collect()
    }

    /// Starts an actor for each of these peers.
    pub(crate) fn start_peers(
        &self,
        peers: impl IntoIterator<Item = DomainName>,
        actor: impl Fn(DomainName) -> PeerActor,
    ) where
        PeerActor: Send,
    {
        let mut addresses = BTreeMap::new();
        for peer in peers {
            let Some(place) = self.directory.place(&peer) else { continue };
            let actor = actor(peer.clone());
            addresses.insert(peer, place.start(actor));
        }
        if self.directory.peers.set(addresses).is_err() {
            tracing::error!("the actors of peers were started before");
        }
    }

    /// The owner of a group, activated if need be.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::Stopping`], or that the store cannot be read.
    fn group(&self, application: &Application, group: &GroupId) -> Result<Active<GroupActor>, GroupError> {
        let Self { services, directory } = self;
        let key = (application.id, group.clone());
        if let Some(active) = directory.groups.get(&key) {
            return Ok(active);
        }
        let row = services.store.view().group(application.id, group).map_err(StorageError::from)?;
        let row = row.ok_or(GroupError::UnknownGroup)?;
        let place = directory.place(&key).filter(|_| !services.is_stopping());
        let place = place.ok_or(GroupError::Stopping)?;
        Ok(directory.groups.get_or_start(key, || {
            let activity = self.activity();
            let (publish, watch) = watch::channel(Published::Loading);
            let meta = GroupMeta::new(application, group.clone(), row);
            let (services, application) = (Arc::clone(services), application.clone());
            let actor = GroupActor::new(services, application, meta, Arc::clone(&activity), publish);
            let address = place.start(actor);
            Active { address, activity, watch }
        }))
    }

    /// The owner of a key queue, activated if need be.
    ///
    /// # Errors
    /// [`KeyQueueError::UnknownKeyQueue`], [`KeyQueueError::Stopping`], or that the store cannot be read.
    fn key_queue(&self, app: AppId, row: &QueueRow) -> Result<Active<KeyQueueActor>, KeyQueueError> {
        let Self { services, directory } = self;
        let key = (app, row.queue_id);
        if let Some(active) = directory.key_queues.get(&key) {
            return Ok(active);
        }
        // It may have been deleted since the row was read.
        let stored = services.store.view().queue(app, row.client_id, row.queue_id);
        stored.map_err(StorageError::from)?.ok_or(KeyQueueError::UnknownKeyQueue)?;
        let place = directory.place(&key).filter(|_| !services.is_stopping());
        let place = place.ok_or(KeyQueueError::Stopping)?;
        Ok(directory.key_queues.get_or_start(key, || {
            let activity = self.activity();
            let (client, queue) = (row.client_id, row.queue_id);
            let actor = KeyQueueActor::new(Arc::clone(services), app, client, queue, Arc::clone(&activity));
            let address = place.start(actor);
            Active { address, activity, watch: () }
        }))
    }

    fn activity(&self) -> Arc<Activity> {
        Activity::new(self.services.limits.waiting_requests_per_actor_max, self.services.clock.now())
    }

    /// Asks the owner of a group.
    ///
    /// # Errors
    /// The owner's error, [`GroupError::UnknownGroup`], [`GroupError::Busy`], [`GroupError::Stopping`], or that the store
    /// cannot be read.
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
        let key = (application.id, group.clone());
        self.directory.groups.ask(&key, || self.group(application, group), message).await
    }

    /// Asks the owner of a key queue.
    ///
    /// # Errors
    /// The owner's error, [`KeyQueueError::UnknownKeyQueue`], [`KeyQueueError::Busy`], [`KeyQueueError::Stopping`], or that the
    /// store cannot be read.
    pub(crate) async fn ask_key_queue<M, T>(
        &self,
        app: AppId,
        row: &QueueRow,
        message: impl Fn(OwnedSemaphorePermit) -> M,
    ) -> Result<T, KeyQueueError>
    where
        M: Message<Result = Result<T, KeyQueueError>> + Send + 'static,
        KeyQueueActor: Handler<M>,
        T: Send + 'static,
    {
        let key = (app, row.queue_id);
        self.directory.key_queues.ask(&key, || self.key_queue(app, row), message).await
    }

    /// Tells the owner of a key queue that the queue was deleted.
    pub(crate) fn close_key_queue(&self, app: AppId, queue: KeyQueueId) {
        self.services.snapshot_pauses.forget(&LogId::KeyQueue(app, queue));
        self.directory.key_queues.notify(&(app, queue), Close);
    }

    /// The services of the actors.
    pub(super) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Forgets the owner of a group that was deleted. It stops once it has done what it is at.
    pub(crate) fn close_group(&self, app: AppId, group: &GroupId) {
        self.services.snapshot_pauses.forget(&LogId::Group(app, group.clone()));
        self.directory.groups.close(&(app, group.clone()), CloseGroup);
    }

    /// Passivates the owner of a group; the next request activates it again, from the store.
    pub(crate) async fn passivate_group(&self, app: AppId, group: &GroupId) {
        self.directory.groups.passivate(&(app, group.clone())).await;
    }

    /// Takes the places of all requests that may wait for an active group.
    #[cfg(test)]
    pub(crate) fn crowd_out(&self, app: AppId, group: &GroupId) -> Vec<OwnedSemaphorePermit> {
        let active = self.directory.groups.get(&(app, group.clone())).unwrap();
        std::iter::from_fn(|| active.activity.permit()).collect()
    }

    /// The current published state of an active group.
    pub(crate) fn shown(&self, app: AppId, group: &GroupId) -> Option<Arc<GroupView>> {
        let active = self.directory.groups.get(&(app, group.clone()))?;
        let shown = active.watch.borrow();
        match &*shown {
            Published::Ready(view) => Some(Arc::clone(view)),
            Published::Loading | Published::Failed(_) | Published::Deleted => None,
        }
    }

    /// The published state of an active group, as it changes.
    pub(crate) fn watch(&self, app: AppId, group: &GroupId) -> Option<watch::Receiver<Published>> {
        self.directory.groups.get(&(app, group.clone())).map(|active| active.watch)
    }

    /// The present view of a group, activated if need be; everything in it is durable.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::Stopping`], or that the store cannot be read.
    pub(crate) async fn group_view(
        &self,
        application: &Application,
        group: &GroupId,
    ) -> Result<Arc<GroupView>, GroupError> {
        for _ in 0..ATTEMPTS {
            let mut active = self.group(application, group)?;
            active.activity.touch(self.services.clock.now());
            let shown = active.watch.wait_for(|shown| !matches!(shown, Published::Loading)).await;
            match shown.as_deref() {
                Ok(Published::Ready(view)) => return Ok(Arc::clone(view)),
                Ok(Published::Failed(error)) => return Err(error.clone().into()),
                Ok(Published::Deleted) => return Err(GroupError::UnknownGroup),
                // The actor stopped before it had loaded anything.
                Ok(Published::Loading) | Err(_) => {
                    self.directory.groups.forget(&(application.id, group.clone()), &active.address);
                }
            }
        }
        Err(AskError::NoAnswer.into())
    }
}

/// A task of an actor's upkeep; it ends when the actor has done it.
pub(crate) type UpkeepTask = Pin<Box<dyn Future<Output = ()>>>;

impl GroupViews for Registry {
    fn group_view(&self, app: AppId, group: &GroupId) -> ReadingGroup {
        let (registry, group) = (self.clone(), group.clone());
        Box::pin(async move {
            let application = registry.services.applications.get(&app).ok_or(GroupError::UnknownGroup)?;
            Self::group_view(&registry, application, &group).await
        })
    }
}
