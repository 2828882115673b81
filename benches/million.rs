//! A store with very many groups and clients: its size, the memory of a gateway on it, the time of a start, commits to groups that are
//! asleep, and what a sweep costs.
//!
//! Real clients make some groups of two through a gateway process. Then the store is filled in this process: the rows of one of these
//! groups are written again under `MIMI_BENCH_GROUPS` other ids (10,000), with as many clients, each with a key queue of
//! `MIMI_BENCH_PACKAGES` key packages (5). Last, the gateway is started on it, and each of the real groups, `MIMI_BENCH_SAMPLED` (500),
//! gets a commit. `cargo bench --bench million`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measurement that cannot go on ends"
)]

#[expect(dead_code, reason = "a measurement uses its part")]
#[path = "../tests/mls_support/mod.rs"]
mod mls_support;
#[expect(dead_code, reason = "a measurement uses its part")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mimi_gateway::config::DataDir;
use mls_support::{Member, MlsClient};
use snapshots::{
    AppId, Batch, ClientHandle, ClientId, ClientRow, Durability, Epoch, EpochRow, GroupId, GroupRow,
    KeyPackageRef, KeyPackageRow, KeyQueueId, Location, LogId, QueueRow, Retention, Store, StoreOptions,
    SweepProgress, Timestamp,
};
use support::{
    Setup,
    process::{Process, binary},
};
use uuid::Uuid;

/// Groups and clients that are written together.
const AT_ONCE: usize = 100;
/// Clients that the real groups share.
const SECOND_MEMBERS: usize = 50;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

fn main() {
    actix_web::rt::System::new().block_on(run());
}

async fn run() {
    let groups = number("MIMI_BENCH_GROUPS", 10_000);
    let (packages, sampled) = (number("MIMI_BENCH_PACKAGES", 5), number("MIMI_BENCH_SAMPLED", 500));
    let directory =
        tempfile::Builder::new().prefix("million-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = directory.path().join("data");
    let mut setup = Setup::new();
    setup.config.data_dir = DataDir::Directory(data.clone());
    setup.config.log = "warn".to_owned();
    let file = directory.path().join("gateway.toml");
    fs::write(&file, setup.config.to_toml().unwrap()).unwrap();
    let start = || Process::start(&mut binary(&["--config", file.to_str().unwrap()]));

    let mut process = start();
    let api = setup.client(process.internal());
    let first = MlsClient::register_over(api.clone(), &name(0), YEAR).await;
    let mut others = Vec::new();
    for other in 0..SECOND_MEMBERS {
        others.push(MlsClient::register_over(api.clone(), &name(1 + other), YEAR).await);
    }
    first.upload_key_packages(packages).await;
    let mut members = Vec::new();
    for group in 0..sampled {
        members.push(pair(&first, &others[group % SECOND_MEMBERS]).await);
    }
    stop(&mut process);

    let store = open(&data);
    let template = Template::read(&store, setup.app, &first, &members[0]);
    let since = Instant::now();
    fill(&store, &template, groups, packages);
    store.close();
    drop(store);
    println!(
        "{groups} groups, {groups} clients with {packages} key packages each: filled in {:.0?}",
        since.elapsed()
    );

    let since = Instant::now();
    let mut process = start();
    println!("ready after {:.0?}, on {} MB of disk", since.elapsed(), space(&data) >> 20);
    println!("resident: {} kB", memory_kb(process.id()));
    let api = setup.client(process.internal());
    members.iter_mut().for_each(|member| member.api = api.clone());
    commit("asleep", &mut members).await;
    println!("resident: {} kB, with {sampled} groups awake", memory_kb(process.id()));
    commit("awake", &mut members).await;
    stop(&mut process);

    let store = open(&data);
    let mut progress = SweepProgress::default();
    for _ in 0..2 {
        let (since, work) = (Instant::now(), work());
        let swept = store.sweep_part(&mut progress, &Retention::default(), now()).await.unwrap();
        println!("a sweep: {:.1?}, {:.1} s of work, {swept:?}", since.elapsed(), self::work() - work);
    }
    let (since, before) = (Instant::now(), space(&data));
    store.give_space_back(now()).await.unwrap();
    println!(
        "space given back in {:.0?}: {} MB, then {} MB",
        since.elapsed(),
        before >> 20,
        space(&data) >> 20
    );
    store.close();
}

/// A group of two, of which the first member's state is returned.
/// Makes a commit in the group of each member, one after another.
async fn commit(state: &str, members: &mut [Member]) {
    let mut times = Vec::new();
    for member in members {
        let commit = member.make_update();
        let since = Instant::now();
        member.upload(&commit).await.unwrap();
        times.push(since.elapsed().as_secs_f64() * 1e3);
        member.apply_pending();
    }
    let (half, most) = (at(&mut times, 0.5), at(&mut times, 0.99));
    println!("a commit to a group {state}, ms: p50 {half:.2}  p99 {most:.2}");
}

async fn pair(first: &MlsClient, second: &MlsClient) -> Member {
    let mut member = first.create_group().await;
    let commit = member.make_adding(&[second.key_package()]);
    member.commit(&commit).await;
    second.join().await;
    member
}

fn stop(process: &mut Process) {
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
}

fn open(data: &Path) -> Store {
    let location = Location::Directory(data.to_owned());
    Store::open(&StoreOptions { location, durability: Durability::Buffer, ..StoreOptions::default() })
        .unwrap()
}

/// The name of a client; all have the same length.
fn name(number: usize) -> String {
    format!("client {number:09}")
}

/// The rows of a group of two, and of a client with its key queue.
struct Template {
    app: AppId,
    group: GroupId,
    row: GroupRow,
    head: u64,
    snapshot: Vec<u8>,
    entries: Vec<Vec<u8>>,
    epochs: Vec<(Epoch, EpochRow)>,
    names: [String; 2],
    client: ClientRow,
    queue: QueueRow,
    queue_head: u64,
    queue_snapshot: Vec<u8>,
}

impl Template {
    fn read(store: &Store, app: AppId, first: &MlsClient, member: &Member) -> Self {
        let (view, group) = (store.view(), member.id());
        let log = view.load_log(&LogId::Group(app, group.clone())).unwrap().unwrap();
        assert!(log.records.is_empty(), "the stop wrote a snapshot");
        let entries = view.log_entries(app, &group, 0, 100, usize::MAX).unwrap();
        let queue = view.queue_by_id(app, first.queue).unwrap().unwrap();
        let queue_log = view.load_log(&LogId::KeyQueue(app, first.queue)).unwrap().unwrap();
        assert!(queue_log.records.is_empty());
        Self {
            app,
            row: view.group(app, &group).unwrap().unwrap(),
            head: log.head,
            snapshot: log.snapshot.unwrap().1.to_vec(),
            entries: entries.into_iter().map(|(_, bytes)| bytes.to_vec()).collect(),
            epochs: view.epochs(app, &group, Epoch(0), Epoch(u64::MAX), 100).unwrap(),
            group,
            names: [name(0), name(1)],
            client: view.client(app, first.id).unwrap().unwrap(),
            queue,
            queue_head: queue_log.head,
            queue_snapshot: queue_log.snapshot.unwrap().1.to_vec(),
        }
    }

    /// Writes the group again under another id, of two other clients.
    fn put_group(&self, batch: &mut Batch, number: usize, clients: [usize; 2]) {
        let mut id = self.group.as_bytes().to_vec();
        id[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let group = GroupId::new(id).unwrap();
        let log = LogId::Group(self.app, group.clone());
        let names = clients.map(name);
        let changed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            replace(&mut bytes, self.group.as_bytes(), group.as_bytes());
            for (from, to) in self.names.iter().zip(&names) {
                replace(&mut bytes, from.as_bytes(), to.as_bytes());
            }
            bytes
        };
        batch.start_log_at(&log, None, self.head).put_snapshot(&log, self.head, changed(&self.snapshot));
        batch.put_group(self.app, &group, &self.row);
        for (sequence, entry) in self.entries.iter().enumerate() {
            batch.put_log_entry(self.app, &group, sequence as u64, changed(entry));
        }
        for (epoch, row) in &self.epochs {
            batch.put_epoch(self.app, &group, *epoch, row);
        }
        for name in &names {
            batch.put_membership(
                self.app,
                &ClientHandle::new(name.as_bytes()).unwrap(),
                None,
                (&group, Epoch(0)),
            );
        }
    }

    /// Registers another client, with a key queue.
    fn put_client(&self, batch: &mut Batch, number: usize, packages: usize) {
        // Ids are random.
        let scattered = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let id = Uuid::from_u128(scattered);
        let handle = ClientHandle::new(name(number).as_bytes()).unwrap();
        let client = ClientRow { client_id: ClientId::new(id), handle, ..self.client.clone() };
        let queue_id = KeyQueueId::new(id);
        let queue = QueueRow { queue_id, client_id: client.client_id, ..self.queue.clone() };
        batch.create_client(self.app, &client).create_queue(self.app, &queue);
        let log = LogId::KeyQueue(self.app, queue_id);
        batch.start_log_at(&log, Some(0), self.queue_head);
        batch.put_snapshot(&log, self.queue_head, &self.queue_snapshot);
        for package in 0..packages {
            let reference = [scattered.to_be_bytes(), (scattered ^ package as u128).to_be_bytes()].concat();
            let not_after = Timestamp(now().0 + (30_000_000 + number as u64 % 1_000_000) * 1000);
            let row = KeyPackageRow { is_final: false, not_after, signer: Some([7; 32]) };
            batch.put_key_package(self.app, queue_id, &KeyPackageRef::new(reference).unwrap(), &row);
        }
    }
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
        at += to.len();
    }
}

/// Writes groups and clients; another thread writes what this one makes.
fn fill(store: &Store, template: &Template, count: usize, packages: usize) {
    let (sender, batches) = sync_channel::<Batch>(8);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for batch in batches {
                store.append_blocking(batch).unwrap();
            }
        });
        // The first numbers are those of the real clients.
        let numbers: Vec<usize> = (0..count).map(|number| 1000 + number).collect();
        for numbers in numbers.chunks(AT_ONCE) {
            let mut batch = Batch::new();
            for number in numbers {
                template.put_client(&mut batch, *number, packages);
                template.put_group(&mut batch, *number, [*number, 1000 + (number + 1) % count]);
            }
            sender.send(batch).unwrap();
        }
        drop(sender);
    });
}

/// The space that the files below a directory have on disk, in bytes.
fn space(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let space_of = |path: PathBuf| {
        if path.is_dir() { space(&path) } else { fs::metadata(&path).map_or(0, |found| found.blocks() * 512) }
    };
    entries.map(space_of).sum()
}

/// The resident memory of a process, in kB.
fn memory_kb(id: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The processor time of this process, in seconds.
fn work() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // User and system time, in hundredths of a second.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// A quantile of times.
fn at(times: &mut [f64], quantile: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * quantile) as usize]
}
