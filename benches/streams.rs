//! Open event streams: the gateway's memory for each, and the time from a commit's answer to its event at many readers.
//!
//! The gateway is a process of its own, on a directory with synced writes; the readers are bare connections in this process. First
//! `MIMI_BENCH_STREAMS` streams (10,000) of the application are opened and stay silent; then `MIMI_BENCH_READERS` streams (1,000)
//! of one group, to which a member commits. Readers share the machine with the gateway. `cargo bench --bench streams`.

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
    net::SocketAddr,
    time::{Duration, Instant},
};

use mimi_gateway::{api::text::GroupIdText, config::DataDir};
use mls_support::MlsClient;
use support::{
    Setup,
    process::{Process, binary},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

const WARM_UP_ROUNDS: usize = 5;
const ROUNDS: usize = 50;
/// How long the last reader may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

fn main() {
    actix_web::rt::System::new().block_on(run());
}

async fn run() {
    let (silent, readers) = (number("MIMI_BENCH_STREAMS", 10_000), number("MIMI_BENCH_READERS", 1000));
    let directory =
        tempfile::Builder::new().prefix("streams-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut setup = Setup::new();
    setup.config.data_dir = DataDir::Directory(directory.path().join("data"));
    setup.config.log = "error".to_owned();
    let listener = &mut setup.config.internal.listener;
    // One token may hold three quarters.
    listener.event_streams_max = (silent + readers) * 2;
    listener.connections_max = (silent + readers + 100) * 3 / 2;
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, setup.config.to_toml().unwrap()).unwrap();
    let process = Process::start(&mut binary(&["--config", file.to_str().unwrap()]));
    let address: SocketAddr = process.internal().split_once("://").unwrap().1.parse().unwrap();
    let api = setup.client(process.internal());
    let alice = MlsClient::register_over(api, "alice", Duration::from_secs(365 * 24 * 3600)).await;
    let mut at_alice = alice.create_group().await;
    let asked = |rest: &str| {
        let (app, token) = (setup.app, setup.writer.reveal());
        format!("GET /apps/{app}{rest} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n")
    };

    let before = memory_kb(process.id());
    let mut open = Vec::with_capacity(silent);
    for _ in 0..silent {
        open.push(opened(address, &asked("/events")).await);
    }
    let after = memory_kb(process.id());
    let each = (after - before) as f64 / silent.max(1) as f64;
    println!("{silent} silent streams: {before} kB before, {after} kB after, {each:.1} kB each");
    drop(open);

    let (sender, mut arrivals) = unbounded_channel();
    let request = asked(&format!("/groups/{}/events", GroupIdText(at_alice.id())));
    for _ in 0..readers {
        let stream = opened(address, &request).await;
        tokio::spawn(read(stream, sender.clone()));
    }
    let mut delays = Vec::with_capacity(readers * ROUNDS);
    let mut last = Vec::with_capacity(ROUNDS);
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        let commit = at_alice.make_update();
        at_alice.upload(&commit).await.unwrap();
        let answered = Instant::now();
        at_alice.apply_pending();
        let mut of_round = delays_of(&mut arrivals, answered, readers).await;
        if round >= WARM_UP_ROUNDS {
            last.push(of_round.iter().copied().fold(0.0, f64::max));
            delays.append(&mut of_round);
        }
    }
    println!("{readers} readers of one group, {ROUNDS} commits, ms from the commit's answer to the event:");
    println!("  p50 {:.2}  p99 {:.2}", at(&mut delays, 0.5), at(&mut delays, 0.99));
    println!("  the last reader of a commit: p50 {:.2}  p99 {:.2}", at(&mut last, 0.5), at(&mut last, 0.99));
}

/// An open stream, after its first block.
async fn opened(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !contains(&bytes, b"id: ") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{}", String::from_utf8_lossy(&bytes));
        assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes));
    }
    stream
}

/// Notes when each epoch arrives.
async fn read(mut stream: TcpStream, arrivals: UnboundedSender<Instant>) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        let now = Instant::now();
        while let Some(end) = bytes.windows(14).position(|window| window == b"\nevent: epoch\n") {
            bytes.drain(..end + 14);
            // The measurement may be over.
            let _ = arrivals.send(now);
        }
        bytes.drain(..bytes.len().saturating_sub(14));
    }
}

/// The delay of each reader, in milliseconds; an event may come before the answer.
async fn delays_of(arrivals: &mut UnboundedReceiver<Instant>, answered: Instant, readers: usize) -> Vec<f64> {
    let mut delays = Vec::with_capacity(readers);
    while delays.len() < readers {
        let arrival = tokio::time::timeout(PATIENCE, arrivals.recv()).await.expect("every reader is told");
        delays.push(arrival.unwrap().saturating_duration_since(answered).as_secs_f64() * 1e3);
    }
    delays
}

fn at(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part) as usize]
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The resident memory of a process, in kB.
fn memory_kb(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
