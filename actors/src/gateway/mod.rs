//! The gateway's public interface, as async calls. Each goes to the actor that owns the group or key queue, or to the store if
//! no actor owns the data.

mod catching_up;
mod clients;
mod deletion;
mod events;
mod figures;
mod groups;
mod key_packages;
mod replicas;
mod reports;
mod transfers;
mod turns;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Actor as _, Addr, Arbiter};
use snapshots::{AppId, Batch, ClaimLimits, ClientId, DomainName, Retention, Store, Timestamp};
use uuid::Uuid;

pub use self::clients::{
    ClientChange, ClientError, ClientQuery, JoinInfo, JoinInfoPage, JoinInfoQuery, NewClient,
};
pub use self::figures::{ApplicationFigures, ClientFigures, EpochFigures, GroupFigures, PeerLag};
pub use self::reports::{NewReport, ReportKind};
use self::turns::Turns;
use crate::{
    application::Application,
    clock::Clock,
    deletions::Deletions,
    disagreements::Disagreements,
    events::EventHub,
    limits::{Limits, RecentLimits},
    lost_commits::LostCommits,
    peer::{PeerActor, Transport},
    replica_count::ReplicaCount,
    revocation_searches::{RevocationSearch, RevocationSearches},
    runtime::{Directory, KNOWN_TIME, Periods, Registry, Stop, Supervisor},
    services::Services,
    snapshot_pauses::{SnapshotPauses, SnapshotStatus},
    trusted_time::{RememberedTime, TrustRules, TrustedTime},
    validation::ValidationPool,
};

/// Options of a gateway.
pub struct GatewayOptions {
    /// The applications whose clients, queues and groups it keeps.
    pub applications: Vec<Application>,
    /// Limits on what callers can make grow.
    pub limits: Limits,
    /// The times for which history, welcomes and other data are kept.
    pub retention: Retention,
    /// The period in which actors with new records write a snapshot.
    pub snapshot_period: Duration,
    /// The period in which data that is too old is deleted.
    pub retention_period: Duration,
    /// The idle time after which an actor is passivated.
    pub passivate_after: Duration,
    /// The number of threads of the actors of groups and key queues; at least one.
    pub arbiters: usize,
    /// The source of time.
    pub clock: Clock,
    /// The transport of log entries to the gateways of other domains; without it nothing is delivered.
    pub transport: Option<Arc<dyn Transport>>,
}

/// A running gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    services: Arc<Services>,
    registry: Registry,
    supervisor: Addr<Supervisor>,
    /// Turns to write the row of a client.
    client_turns: Arc<Turns<(AppId, ClientId)>>,
    events: Arc<EventHub>,
    /// The id of the store, for as long as it exists.
    store_id: Uuid,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway")
    }
}

/// The setting that holds the store's id.
const STORE_ID: &str = "store_id";

/// The settings of a store that a copy of it must not have: by its id, readers of events and other gateways tell that it is another
/// store, which lacks what they have seen.
pub const SETTINGS_OF_A_COPY: &[&str] = &[STORE_ID];

impl Gateway {
    /// Starts the actors over an open store. Must be called inside a running actix system.
    pub fn start(options: GatewayOptions, store: Store) -> Self {
        let arbiters = threads(options.arbiters.max(1));
        let directory = Arc::new(Directory::new(&arbiters));
        // Before the store gets its id: a store without one is new.
        let trusted_time = trusted_time(TrustRules::of(&options.limits), &options.clock, &store);
        let store_id = store_id(&store);
        let validation = ValidationPool::new(
            options.applications.iter().map(|application| application.id),
            options.arbiters,
            options.limits.judgements_per_application_max,
        );
        let events = event_hub(&options.applications, &store);
        let services = Arc::new(Services {
            store,
            applications: options.applications.into_iter().map(|app| (app.id, app)).collect(),
            recent: RecentLimits::new(options.limits.recent_bytes_per_group_max, &options.retention),
            limits: options.limits,
            clock: options.clock,
            trusted_time,
            validation,
            snapshot_pauses: SnapshotPauses::default(),
            lost_commits: LostCommits::default(),
            replicas: ReplicaCount::default(),
            deletions: Deletions::default(),
            revocation: RevocationSearches::default(),
            epochs_reported: AtomicU64::new(0),
            audit: ClaimLimits {
                queues_per_day_max: options.retention.audit_queues_per_day_max,
                rows_max: options.retention.audit_rows_max,
            },
            assignment_age_max: options.retention.assignment_age_max,
            dropped_per_client_max: options.retention.dropped_per_client_max,
            disagreements: Disagreements::default(),
            notices: Box::new(Arc::clone(&directory)),
            is_stopping: AtomicBool::new(false),
        });
        let registry = Registry::new(Arc::clone(&services), directory);
        start_peers(&services, &registry, options.transport);
        let periods = Periods {
            snapshot: options.snapshot_period,
            retention: options.retention_period,
            passivate_after: options.passivate_after,
        };
        let supervisor =
            Supervisor::new(Arc::clone(&services), registry.clone(), arbiters, periods, options.retention);
        Self {
            client_turns: Arc::new(Turns::new(services.limits.waiting_requests_per_actor_max)),
            services,
            registry,
            supervisor: supervisor.start(),
            events,
            store_id,
        }
    }

    /// The application of this id.
    pub fn application(&self, app: AppId) -> Option<&Application> {
        self.services.applications.get(&app)
    }

    /// All applications, in no order.
    pub fn applications(&self) -> impl Iterator<Item = &Application> {
        self.services.applications.values()
    }

    /// The limits it runs with.
    pub fn limits(&self) -> &Limits {
        &self.services.limits
    }

    /// The present time, by its clock.
    pub fn now(&self) -> Timestamp {
        self.services.clock.now()
    }

    /// The store it writes to.
    pub fn store(&self) -> &Store {
        &self.services.store
    }

    /// Whether it accepts requests: it is not stopping, and its store works and answers.
    pub fn is_ready(&self) -> bool {
        let Services { store, .. } = &*self.services;
        !self.services.is_stopping() && !store.is_failed() && !store.is_stalled()
    }

    /// Learns that trust roots or revocation lists of an application were replaced: members whose certificates are revoked are
    /// sought in all groups that this gateway orders, awake or asleep.
    pub fn trust_changed(&self) {
        self.services.revocation.wake();
    }

    /// The latest search for revoked members of an application since the start; `None` if there was none, as the lists are those of
    /// one that ended before. Without lists any more, it found none.
    pub fn revocation_search(&self, app: AppId) -> Option<RevocationSearch> {
        self.services.revocation.latest(app)
    }

    /// The registry of the actors.
    #[cfg(test)]
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The number of active groups and key queues; the others are only in the store until a request activates them.
    pub fn active(&self) -> usize {
        self.registry.active()
    }

    /// The state of the snapshots of groups and key queues.
    pub fn snapshots(&self) -> SnapshotStatus {
        self.services.snapshot_pauses.status()
    }

    /// Refuses new work, and waits until every actor has stopped, after a snapshot if it has new records. The store can then be
    /// closed.
    pub async fn stop(&self) {
        self.services.is_stopping.store(true, Ordering::Release);
        self.end_streams();
        if self.supervisor.send(Stop).await.is_err() {
            tracing::debug!("the gateway was stopped before");
        }
    }
}

/// The threads of the actors; a simulation has none.
fn threads(count: usize) -> Vec<Arbiter> {
    #[cfg(feature = "simulation")]
    if snapshots::is_simulated() {
        return Vec::new();
    }
    (0..count).map(|_| Arbiter::new()).collect()
}

/// The id of a store, created when the store is first opened.
fn store_id(store: &Store) -> Uuid {
    let read = || store.view().setting(STORE_ID).ok()?.and_then(|kept| Uuid::from_slice(&kept).ok());
    if let Some(id) = read() {
        return id;
    }
    let id = snapshots::random_uuid();
    let mut batch = Batch::new();
    batch.put_setting(STORE_ID, id.as_bytes());
    if let Err(error) = store.append_blocking(batch) {
        tracing::error!(%error, "the id of the store could not be written");
    }
    id
}

/// The hub of the events of these applications.
fn event_hub(applications: &[Application], store: &Store) -> Arc<EventHub> {
    let apps = applications.iter().map(|application| application.id);
    let hub = Arc::new(EventHub::new(apps));
    let receiver = Arc::clone(&hub);
    store.on_events(move |app, position, row| receiver.pass_on(app, position, row));
    hub.look(&store.view());
    hub
}

/// The trusted time, starting from that of an earlier run.
fn trusted_time(rules: TrustRules, clock: &Clock, store: &Store) -> TrustedTime {
    let view = store.view();
    let is_new = matches!(view.setting(STORE_ID), Ok(None));
    let before = view.setting(KNOWN_TIME).ok().flatten();
    let before = before.and_then(|bytes| RememberedTime::from_bytes(&bytes)).unwrap_or_default();
    TrustedTime::new(rules, clock, before, is_new)
}

/// Starts one actor for each gateway that an application federates with.
fn start_peers(services: &Arc<Services>, registry: &Registry, transport: Option<Arc<dyn Transport>>) {
    let Some(transport) = transport else { return };
    let applications = services.applications.values();
    let domains: BTreeSet<DomainName> =
        applications.flat_map(|application| application.federates_with.iter().cloned()).collect();
    let views: Arc<dyn crate::peer::GroupViews> = Arc::new(registry.clone());
    registry.start_peers(domains, |domain| {
        PeerActor::new(Arc::clone(services), Arc::clone(&views), domain, Arc::clone(&transport))
    });
}
