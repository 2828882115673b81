//! Gateways as processes: each is a set of tasks over a simulated disk. Dropping the set is `kill -9`.

use std::{
    cell::Cell,
    collections::BTreeSet,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use actors::{
    AppId, Application, Clock, DomainName, Gateway, GatewayOptions, Limits, Retention, Store, StoreOptions,
    Timestamp,
};
use snapshots::{DiskFault, Session, SimulatedDisk};
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    task::LocalSet,
    time::Instant,
};
use uuid::Uuid;

use crate::{
    at_domains::AtDomains,
    dice::Dice,
    faults::Fault,
    messages::{BEGIN_S, NODES, domain_name},
    network::Wire,
};

pub(crate) const APP: AppId = AppId::new(Uuid::from_u128(0x4000_8000_0000_0000_0001));

pub(crate) fn domain(node: usize) -> DomainName {
    DomainName::new(domain_name(node)).unwrap()
}

/// Work that a gateway does for a caller.
pub(crate) type Job = Box<dyn FnOnce(Gateway) -> Pin<Box<dyn Future<Output = ()>>>>;

/// How gateways are configured in one history, and what their disks do.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) snapshot_period_ms: u64,
    pub(crate) retention_period_ms: u64,
    pub(crate) passivate_after_ms: u64,
    /// Epochs of history that are kept.
    pub(crate) history_epochs_max: u64,
    pub(crate) recent_bytes_max: usize,
    /// The longest pause of each phase of a write, and of work on another thread.
    pub(crate) disk_ms_max: u64,
    pub(crate) away_ms_max: u64,
    /// The longest way of a message.
    pub(crate) network_ms_max: u64,
    /// How often a message between gateways is lost, of a hundred.
    pub(crate) loss_percent: u64,
    /// Whether deliveries are repeated, cut short and reversed.
    pub(crate) is_unruly: bool,
    pub(crate) has_group_streams: bool,
}

impl Settings {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            snapshot_period_ms: dice.pick(&[40, 150, 600, 5000]),
            retention_period_ms: dice.pick(&[100, 400, 60_000]),
            passivate_after_ms: dice.pick(&[0, 50, 400, 60_000]),
            history_epochs_max: dice.pick(&[2, 4, 10_000, 10_000, 10_000]),
            recent_bytes_max: dice.pick(&[0, 4000, 16 << 10]),
            disk_ms_max: dice.pick(&[0, 2, 10]),
            away_ms_max: dice.pick(&[0, 1, 5]),
            network_ms_max: dice.pick(&[0, 3, 20, 60]),
            loss_percent: dice.pick(&[0, 0, 5, 20]),
            is_unruly: dice.percent(40),
            has_group_streams: dice.percent(40),
        }
    }

    /// Whether history is dropped so early that replicas may have to be transferred.
    pub(crate) fn drops_history(&self) -> bool {
        self.history_epochs_max < 100
    }
}

/// Where the process of a gateway ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendPoint {
    /// A batch was begun; it is on the disk afterwards or not.
    Begun,
    /// It is on the disk, and nobody was told.
    Written,
    /// The writers were told, and have not gone on.
    Answered,
}

/// A gateway's machine, and its process while it runs.
pub(crate) struct Machine {
    pub(crate) disk: SimulatedDisk,
    /// How far its wall clock is ahead, in milliseconds.
    pub(crate) ahead_ms: Arc<AtomicI64>,
    pub(crate) process: Option<Process>,
    /// Processes that it has had.
    pub(crate) runs: u64,
    /// The disk batches until the process ends, and where in the last of them.
    pub(crate) doom: Doom,
}

/// The end that a process is to have, which its committer counts down.
pub(crate) type Doom = Rc<Cell<Option<(u64, AppendPoint)>>>;

pub(crate) struct Process {
    pub(crate) tasks: LocalSet,
    pub(crate) gateway: Gateway,
    pub(crate) jobs: UnboundedSender<Job>,
}

/// What a process reports of its committer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    pub(crate) node: usize,
    pub(crate) run: u64,
}

/// The wall clock of a machine.
fn clock(ahead_ms: &Arc<AtomicI64>, begun: Instant) -> Clock {
    let ahead_ms = Arc::clone(ahead_ms);
    let since = move || Instant::now().saturating_duration_since(begun);
    let wall = move || {
        let ms = i64::try_from(since().as_millis()).unwrap();
        let base = i64::try_from(BEGIN_S * 1000).unwrap();
        Timestamp(u64::try_from(base + ms + ahead_ms.load(Ordering::Relaxed)).unwrap())
    };
    Clock::new(wall).with_monotonic(since)
}

impl Machine {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        let disk = SimulatedDisk::default();
        match fault {
            Some(Fault::TearsBatches) => disk.inject(DiskFault::TearsBatches),
            Some(Fault::Loses(table)) => disk.inject(DiskFault::Loses(table)),
            Some(Fault::Keeps(table)) => disk.inject(DiskFault::Keeps(table)),
            Some(Fault::AnswersEarly) | None => {}
        }
        Self { disk, ahead_ms: Arc::default(), process: None, runs: 0, doom: Doom::default() }
    }

    /// Starts the gateway, which federates with all others.
    pub(crate) fn start(
        &mut self,
        node: usize,
        settings: &Settings,
        (begun, dice): (Instant, Dice),
        wire: Wire,
        doomed: UnboundedSender<Doomed>,
        fault: Option<Fault>,
    ) {
        self.runs += 1;
        let store = Store::open_simulated(&StoreOptions::default(), &self.disk).unwrap();
        let application = Application {
            identity: Arc::new(AtDomains),
            supports_domains: true,
            domains: BTreeSet::from([domain(node)]),
            federates_with: Arc::new((0..NODES).filter(|other| *other != node).map(domain).collect()),
            ..Application::basic(APP)
        };
        let options = GatewayOptions {
            applications: vec![application],
            limits: Limits { recent_bytes_per_group_max: settings.recent_bytes_max, ..Limits::default() },
            retention: Retention { history_epochs_max: settings.history_epochs_max, ..Retention::default() },
            snapshot_period: Duration::from_millis(settings.snapshot_period_ms),
            retention_period: Duration::from_millis(settings.retention_period_ms),
            passivate_after: Duration::from_millis(settings.passivate_after_ms),
            arbiters: 1,
            clock: clock(&self.ahead_ms, begun),
            transport: Some(Arc::new(wire)),
        };
        let tasks = LocalSet::new();
        let guard = tasks.enter();
        let gateway = Gateway::start(options, store.clone());
        drop(guard);
        let (jobs, mut arriving) = mpsc::unbounded_channel::<Job>();
        let gateway_there = gateway.clone();
        tasks.spawn_local(async move {
            while let Some(job) = arriving.recv().await {
                tokio::task::spawn_local(job(gateway_there.clone()));
            }
        });
        let doom = Rc::clone(&self.doom);
        let end = Doomed { node, run: self.runs };
        let committing = commit(store, (settings.disk_ms_max, dice), doom, (end, doomed), fault);
        tasks.spawn_local(committing);
        self.process = Some(Process { tasks, gateway, jobs });
    }

    /// Ends the process. A batch on its way is on the disk afterwards, or not.
    pub(crate) fn kill(&mut self, keeps: bool) {
        self.process = None;
        self.doom.set(None);
        self.disk.crash(keeps);
    }
}

/// The committer of a store: it takes its time for each phase of a disk batch.
async fn commit(
    store: Store,
    (disk_ms_max, mut dice): (u64, Dice),
    doom: Doom,
    (end, doomed): (Doomed, UnboundedSender<Doomed>),
    fault: Option<Fault>,
) {
    let mut pause = async |most: u64| {
        let ms = dice.within(0, most);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    };
    loop {
        store.arrival().await;
        loop {
            pause(disk_ms_max / 2).await;
            let Some(mut write) = store.begin_write() else { break };
            let ends_at = match doom.get() {
                Some((0, point)) => Some(point),
                Some((left, point)) => {
                    doom.set(Some((left - 1, point)));
                    None
                }
                None => None,
            };
            if fault == Some(Fault::AnswersEarly) {
                write.answer_early();
            }
            pause(disk_ms_max).await;
            if ends_at != Some(AppendPoint::Begun) {
                write.reach_disk();
                pause(disk_ms_max / 2).await;
            }
            if matches!(ends_at, Some(AppendPoint::Begun | AppendPoint::Written)) {
                let _ = doomed.send(end);
                std::future::pending::<()>().await;
            }
            write.answer();
            if ends_at.is_some() {
                let _ = doomed.send(end);
                return;
            }
        }
    }
}

/// The randomness of one history on this thread.
pub(crate) fn session(seed: u64, settings: &Settings) -> Session {
    Session::begin(seed, settings.away_ms_max)
}
