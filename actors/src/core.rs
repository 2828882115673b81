//! The registry of active actors, and what they share: store, applications, limits.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use actix::{Actor as _, Addr, ArbiterHandle};
use dashmap::{DashMap, mapref::entry::Entry};
use snapshots::{AppId, ClientId, DomainName, GroupId, GroupRow, KeyQueueId, QueueRow, Store, Timestamp};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    application::Application,
    clock::Clock,
    group::{GroupActor, GroupOrigin, Published, RecentLimits, UsedPackages},
    judging::Judging,
    key_queue::{Advance, KeyQueueActor},
    limits::Limits,
    mls::Crypto,
    peer::{PeerActor, Wake},
    replica_count::ReplicaCount,
    resting::SnapshotPauses,
    router::{Activity, Awake},
    trusted_time::TrustedTime,
    turns::Turns,
};

/// An awake group: its actor and what it shows.
#[derive(Clone)]
pub(crate) struct AwakeGroup {
    pub(crate) actor: Awake<GroupActor>,
    pub(crate) published: watch::Receiver<Published>,
}

pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) applications: HashMap<AppId, Application>,
    pub(crate) limits: Limits,
    /// How much of their past groups keep in memory.
    pub(crate) recent: RecentLimits,
    pub(crate) clock: Clock,
    /// Up to when things may be deleted for their age.
    pub(crate) trusted_time: TrustedTime,
    pub(crate) crypto: Crypto,
    /// Where what may take long is judged.
    pub(crate) judging: Judging,
    pub(crate) groups: DashMap<(AppId, GroupId), AwakeGroup>,
    pub(crate) queues: DashMap<(AppId, KeyQueueId), Awake<KeyQueueActor>>,
    /// Whose turn it is to write the row of a client.
    pub(crate) client_turns: Turns<(AppId, ClientId)>,
    pub(crate) arbiters: Vec<ArbiterHandle>,
    pub(crate) stopping: AtomicBool,
    pub(crate) replicas: ReplicaCount,
    /// Whose snapshots could not be written, and when they are tried again.
    pub(crate) snapshot_pauses: SnapshotPauses,
    pub(crate) hasher: RandomState,
    /// Names this store for as long as it exists.
    pub(crate) store_id: Uuid,
    /// The actors of the gateways that are delivered to; set once, at the start.
    pub(crate) peers: OnceLock<HashMap<DomainName, Addr<PeerActor>>>,
}

impl Core {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The time by which things may be deleted for their age: the clock's, unless the clock has jumped.
    pub(crate) fn delete_until(&self) -> Timestamp {
        self.trusted_time.look(&self.clock).delete_until
    }

    /// How many actors are awake.
    pub(crate) fn awake(&self) -> usize {
        self.groups.len() + self.queues.len()
    }

    /// The arbiter where an actor of this key lives.
    pub(crate) fn arbiter(&self, key: &impl std::hash::Hash) -> Option<&ArbiterHandle> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 33).unwrap_or_default();
        self.arbiters.get(hash.checked_rem(self.arbiters.len())?)
    }

    /// The group's actor, woken if it sleeps; `None` when the gateway is stopping. The caller has seen the group's row.
    pub(crate) fn wake_group(
        self: &Arc<Self>,
        application: &Application,
        group: &GroupId,
        row: &GroupRow,
    ) -> Option<AwakeGroup> {
        let key = (application.id, group.clone());
        if let Some(awake) = self.groups.get(&key) {
            return Some(awake.clone());
        }
        if self.is_stopping() {
            return None;
        }
        let arbiter = self.arbiter(&key)?.clone();
        match self.groups.entry(key) {
            Entry::Occupied(awake) => Some(awake.get().clone()),
            Entry::Vacant(place) => {
                let activity = Activity::new(self.limits.waiting_requests_per_actor_max, self.clock.now());
                let (publish, published) = watch::channel(Published::Loading);
                let origin = GroupOrigin::new(application, group.clone(), row.clone());
                let (core, application) = (Arc::clone(self), application.clone());
                let actors_activity = Arc::clone(&activity);
                let address = GroupActor::start_in_arbiter(&arbiter, move |_| {
                    GroupActor::new(core, application, origin, actors_activity, publish)
                });
                let awake = AwakeGroup { actor: Awake { address, activity }, published };
                place.insert(awake.clone());
                Some(awake)
            }
        }
    }

    /// Forgets a group's actor, unless another one has taken its place.
    pub(crate) fn forget_group(&self, app: AppId, group: &GroupId, address: &Addr<GroupActor>) {
        self.groups.remove_if(&(app, group.clone()), |_, awake| awake.actor.address == *address);
    }

    /// The key queue's actor, woken if it sleeps; `None` when the gateway is stopping. The caller has seen the queue's row.
    pub(crate) fn wake_key_queue(
        self: &Arc<Self>,
        application: &Application,
        row: &QueueRow,
    ) -> Option<Awake<KeyQueueActor>> {
        let key = (application.id, row.queue_id);
        if let Some(awake) = self.queues.get(&key) {
            return Some(awake.clone());
        }
        if self.is_stopping() {
            return None;
        }
        let arbiter = self.arbiter(&key)?.clone();
        match self.queues.entry(key) {
            Entry::Occupied(awake) => Some(awake.get().clone()),
            Entry::Vacant(place) => {
                let activity = Activity::new(self.limits.waiting_requests_per_actor_max, self.clock.now());
                let (core, app, actors_activity) = (Arc::clone(self), application.id, Arc::clone(&activity));
                let (client, queue) = (row.client_id, row.queue_id);
                let address = KeyQueueActor::start_in_arbiter(&arbiter, move |_| {
                    KeyQueueActor::new(core, app, client, queue, actors_activity)
                });
                let awake = Awake { address, activity };
                place.insert(awake.clone());
                Some(awake)
            }
        }
    }

    /// Forgets a key queue's actor, unless another one has taken its place.
    pub(crate) fn forget_key_queue(&self, app: AppId, queue: KeyQueueId, address: &Addr<KeyQueueActor>) {
        self.queues.remove_if(&(app, queue), |_, awake| awake.address == *address);
    }

    /// Tells the peers of a group that there is something for them. One that does not hear of it finds its mark.
    pub(crate) fn wake_peers(&self, origin: &GroupOrigin) {
        let Some(peers) = self.peers.get() else { return };
        for address in origin.peers.iter().filter_map(|peer| peers.get(peer)) {
            address.do_send(Wake { app: origin.app, group: origin.group.clone() });
        }
    }

    /// Tells queues that are awake which of their packages were used. A queue that sleeps finds out when it wakes.
    pub(crate) fn wake_key_queues(&self, app: AppId, used: UsedPackages) {
        for (queue, reference) in used {
            if let Some(awake) = self.queues.get(&(app, queue)) {
                awake.address.do_send(Advance { reference });
            }
        }
    }
}
