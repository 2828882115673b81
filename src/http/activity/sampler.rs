//! The sampler: it takes a sample of the gateway's activity each second, for all readers together, and rests while there are none.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{rt::task::spawn_blocking, web::Bytes};
use actors::{
    AppId, ClientHandle, ClientId, Event, Gateway, KeyPackagesChange, KeyQueueId, Timestamp,
    events::StreamContent,
};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    busiest::Busiest,
    rates::{Reading, Readings},
};
use crate::{
    api::{
        activity::{ActivityLoad, ActivitySample, BackupsSeen, BusyGroup, DiskUse, LowQueue, SnapshotsSeen},
        operated_groups::ListedPeer,
        text::{GroupIdText, HandleText},
    },
    http::{counts::ListenerCounts, edge::Edge, operations::listed_peers, operator::Operators},
    metrics::Observed,
};

/// The time between two samples.
const PERIOD: Duration = Duration::from_secs(1);
/// The samples after which what the disk must be read for is read again.
const SLOW_PERIOD: u32 = 10;
/// The groups of a sample.
const BUSIEST_MAX: usize = 10;
/// The queues of a sample.
const LOW_QUEUES_MAX: usize = 20;
/// The batches with events of each application that are read when the sampler begins.
const BATCHES_BACK: u64 = 1024;
/// The events after which other work on the thread has its turn.
const EVENTS_AT_ONCE: u32 = 64;
/// The pause after a stream of events that ended.
const PAUSE: Duration = Duration::from_secs(1);
/// The files of the data directory that are counted, and the depth of its folders.
const FILES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 8;

/// The sampler of a gateway.
pub(crate) struct Sampler {
    observed: Observed,
    /// The requests of applications and of peers.
    listeners: Vec<Arc<ListenerCounts>>,
    data_dir: Option<PathBuf>,
    /// The newest sample as an event of the stream; empty before the first.
    newest: watch::Sender<Bytes>,
    runs: Mutex<SamplerRuns>,
}

/// A run of the sampler. Dropping it lets the next reader begin another.
struct SamplerRun {
    sampler: Arc<Sampler>,
    number: u64,
}

impl Drop for SamplerRun {
    fn drop(&mut self) {
        let mut runs = self.sampler.runs();
        // Another one may have begun already.
        if runs.live == Some(self.number) {
            runs.live = None;
        }
    }
}

/// The runs of a sampler.
#[derive(Debug, Default)]
struct SamplerRuns {
    /// The one that takes samples, if there is one.
    live: Option<u64>,
    begun: u64,
}

impl Sampler {
    /// A sampler of a gateway that counts the requests on these listeners, and keeps its data there.
    pub(crate) fn new(
        observed: Observed,
        listeners: Vec<Arc<ListenerCounts>>,
        data_dir: Option<PathBuf>,
    ) -> Self {
        let newest = watch::Sender::new(Bytes::new());
        Self { observed, listeners, data_dir, newest, runs: Mutex::default() }
    }

    /// The samples from now on. It begins to take them if nobody reads yet.
    pub(super) fn samples(self: &Arc<Self>, edge: &Arc<Edge<Operators>>) -> watch::Receiver<Bytes> {
        let mut runs = self.runs();
        let mut samples = self.newest.subscribe();
        // The newest one comes at once.
        samples.mark_changed();
        if runs.live.is_none() {
            runs.begun += 1;
            runs.live = Some(runs.begun);
            self.newest.send_replace(Bytes::new());
            let run = SamplerRun { sampler: Arc::clone(self), number: runs.begun };
            actix_web::rt::spawn(run.take_samples(Arc::clone(edge)));
        }
        samples
    }

    fn runs(&self) -> MutexGuard<'_, SamplerRuns> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody reads. Then the run is over: the next reader begins another.
    fn has_no_readers(&self) -> bool {
        let mut runs = self.runs();
        let has_none = self.newest.receiver_count() == 0;
        if has_none {
            runs.live = None;
        }
        has_none
    }

    /// Takes a sample. It reads the disk now and then.
    fn sample(&self, state: &mut RunState, is_ready: bool) -> ActivitySample {
        let gateway = &self.observed.gateway;
        state.readings.push(Reading::of(&self.listeners, state.began.elapsed()));
        if state.taken.is_multiple_of(SLOW_PERIOD) {
            state.slow = self.read_slowly(&state.seen);
        }
        state.taken = state.taken.wrapping_add(1);
        let SlowPart { peers, disk, low_queues } = state.slow.clone();
        let (snapshots, backups) = (gateway.snapshots(), self.observed.backups.status());
        let now = gateway.now();
        ActivitySample {
            at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_ready,
            rates: state.readings.rates(),
            request_times: state.readings.request_times(),
            commit_times: state.readings.commit_times(),
            load: self.load(),
            busiest_groups: busiest_groups(&mut lock(&state.seen).busiest, now),
            low_queues,
            peers,
            disk,
            snapshots: SnapshotsSeen {
                newest_at: snapshots.newest.map(|newest| newest.at),
                failing: count(snapshots.failing),
            },
            backups: BackupsSeen {
                newest_at: backups.newest.map(|newest| newest.at),
                failed: backups.failed,
            },
        }
    }

    fn load(&self) -> ActivityLoad {
        let gateway = &self.observed.gateway;
        let held =
            |of: fn(&ListenerCounts) -> usize| count(self.listeners.iter().map(|counts| of(counts)).sum());
        ActivityLoad {
            groups_awake: count(gateway.awake_groups().count),
            key_queues_awake: count(gateway.awake_key_queues().count),
            requests_in_flight: held(|counts| counts.shares().requests().held()),
            event_streams: held(|counts| counts.shares().streams().held()),
            writes_waiting: count(gateway.store().counts().waiting),
        }
    }

    /// Reads what the disk must be read for. What cannot be read is left out.
    fn read_slowly(&self, seen: &Mutex<Seen>) -> SlowPart {
        let peers = match &self.observed.federation {
            None => Ok(Vec::new()),
            Some(federation) => listed_peers(federation, &self.observed.gateway),
        };
        let peers = peers.inspect_err(|error| tracing::warn!(%error, "what peers lack cannot be read"));
        let used = self.data_dir.as_deref().map(disk_use).transpose();
        let used = used.inspect_err(|error| tracing::warn!(%error, "the use of the disk cannot be read"));
        SlowPart {
            peers: peers.unwrap_or_default(),
            disk: used.ok().flatten(),
            low_queues: self.low_queues(seen),
        }
    }

    /// The queues that are still low, of those that ran low.
    fn low_queues(&self, seen: &Mutex<Seen>) -> Vec<LowQueue> {
        let gateway = &self.observed.gateway;
        let low = count(gateway.limits().key_packages_low);
        let noted: Vec<NotedQueue> = lock(seen).low_queues.iter().cloned().collect();
        let mut found = Vec::new();
        for noted in noted {
            let figures = gateway.queue_figures(noted.app, noted.client, noted.queue);
            match figures.map(|figures| figures.map(|figures| figures.available)) {
                Ok(Some(available)) if available <= low => found.push(LowQueue {
                    application_id: noted.app,
                    client_id: noted.client,
                    client_handle: HandleText(noted.handle),
                    key_queue_id: noted.queue,
                    key_packages_available: available,
                }),
                Ok(_) => lock(seen).low_queues.retain(|other| other.queue != noted.queue),
                Err(error) => tracing::warn!(%error, "a key queue cannot be read"),
            }
        }
        found.sort_by_key(|queue| (queue.key_packages_available, queue.key_queue_id));
        found
    }
}

impl SamplerRun {
    /// Takes samples until nobody reads or the gateway stops.
    async fn take_samples(self, edge: Arc<Edge<Operators>>) {
        let sampler = &self.sampler;
        let gateway = &sampler.observed.gateway;
        let mut state = RunState::new();
        let mut following = JoinSet::new();
        for application in gateway.applications() {
            following.spawn(follow(gateway.clone(), application.id, Arc::clone(&state.seen)));
        }
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = gateway.streams_ended() => break,
            }
            if sampler.has_no_readers() {
                return;
            }
            let (taker, is_ready) = (Arc::clone(sampler), edge.is_ready());
            let taking = spawn_blocking(move || {
                let text = event(&taker.sample(&mut state, is_ready));
                (state, text)
            });
            let Ok((kept, text)) = taking.await else {
                tracing::error!("taking a sample of the activity panicked");
                break;
            };
            state = kept;
            if let Some(text) = text {
                sampler.newest.send_replace(text);
            }
        }
        // Readers end, or wait for the next run.
        sampler.newest.send_replace(Bytes::new());
    }
}

/// What one run of the sampler knows.
struct RunState {
    began: Instant,
    taken: u32,
    readings: Readings,
    slow: SlowPart,
    seen: Arc<Mutex<Seen>>,
}

impl RunState {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            taken: 0,
            readings: Readings::default(),
            slow: SlowPart::default(),
            seen: Arc::default(),
        }
    }
}

/// The part of a sample for which the disk is read.
#[derive(Clone, Default)]
struct SlowPart {
    peers: Vec<ListedPeer>,
    disk: Option<DiskUse>,
    low_queues: Vec<LowQueue>,
}

/// What was seen in the events of applications.
#[derive(Default)]
struct Seen {
    busiest: Busiest,
    /// The queues that ran low last, the newest at the end.
    low_queues: VecDeque<NotedQueue>,
}

/// A queue that ran low.
#[derive(Clone)]
struct NotedQueue {
    app: AppId,
    client: ClientId,
    handle: ClientHandle,
    queue: KeyQueueId,
}

impl Seen {
    fn note(&mut self, app: AppId, event: &Event, now: Timestamp) {
        match event {
            Event::Epoch { group, epoch, timestamp, .. } => {
                self.busiest.count(app, group, *epoch, *timestamp, now);
            }
            Event::KeyPackages { client, handle, queue, change, .. } => match change {
                KeyPackagesChange::Low | KeyPackagesChange::FinalKeyUsed => {
                    self.low_queues.retain(|noted| noted.queue != *queue);
                    let (client, handle, queue) = (*client, handle.clone(), *queue);
                    self.low_queues.push_back(NotedQueue { app, client, handle, queue });
                    if self.low_queues.len() > LOW_QUEUES_MAX {
                        self.low_queues.pop_front();
                    }
                }
                KeyPackagesChange::Expired => {}
            },
            Event::GroupCreated { .. }
            | Event::GroupReplaced { .. }
            | Event::GroupDeleted { .. }
            | Event::EpochReported { .. }
            | Event::Proposal { .. }
            | Event::Welcome { .. } => {}
        }
    }
}

/// Follows the events of an application until it is aborted.
async fn follow(gateway: Gateway, app: AppId, seen: Arc<Mutex<Seen>>) {
    let mut batches = BATCHES_BACK;
    loop {
        if let Ok(mut stream) = gateway.recent_application_events(app, batches) {
            let mut noted = 0_u32;
            while let Ok(Some(item)) = stream.next().await {
                if let StreamContent::Event(event) = &item.content {
                    lock(&seen).note(app, &event.event, gateway.now());
                }
                noted = noted.wrapping_add(1);
                if noted.is_multiple_of(EVENTS_AT_ONCE) {
                    yield_now().await;
                }
            }
        }
        // It fell behind, or the gateway stops. What was counted is not counted again.
        batches = 0;
        sleep(PAUSE).await;
    }
}

fn busiest_groups(busiest: &mut Busiest, now: Timestamp) -> Vec<BusyGroup> {
    let most = busiest.most(BUSIEST_MAX, now).into_iter();
    most.map(|((app, group), epoch_id, commits)| BusyGroup {
        application_id: app,
        group_id: GroupIdText(group),
        epoch_id,
        commits,
    })
    .collect()
}

/// A sample as an event of the stream.
fn event(sample: &ActivitySample) -> Option<Bytes> {
    let json = serde_json::to_string(sample);
    let json = json.inspect_err(|error| tracing::error!(%error, "a sample cannot be encoded")).ok()?;
    Some(format!("event: sample\ndata: {json}\n\n").into())
}

/// The use of the file system with a directory.
fn disk_use(directory: &Path) -> Result<DiskUse, std::io::Error> {
    let system = rustix::fs::statvfs(directory)?;
    let mut files_left = FILES_MAX;
    Ok(DiskUse {
        used_bytes: bytes_below(directory, DEPTH_MAX, &mut files_left),
        free_bytes: system.f_bavail.saturating_mul(system.f_frsize),
        total_bytes: system.f_blocks.saturating_mul(system.f_frsize),
    })
}

/// The bytes of the files in a directory. Files may vanish meanwhile; links are not followed.
fn bytes_below(directory: &Path, depth: usize, files_left: &mut usize) -> u64 {
    let mut bytes = 0_u64;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Some(left) = files_left.checked_sub(1) else { break };
        *files_left = left;
        match entry.metadata() {
            Ok(found) if found.is_file() => bytes = bytes.saturating_add(found.len()),
            Ok(found) if found.is_dir() && depth > 0 => {
                bytes = bytes.saturating_add(bytes_below(&entry.path(), depth - 1, files_left));
            }
            Ok(_) | Err(_) => {}
        }
    }
    bytes
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
