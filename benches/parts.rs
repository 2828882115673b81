//! Costs outside groups: durable appends, the assignment of key packages, JSON and Base64.
//!
//! `cargo bench --bench parts`.

#![expect(clippy::unwrap_used, reason = "a benchmark that meets what it does not expect has failed")]

use std::{
    hint::black_box,
    sync::Barrier,
    time::{Duration, Instant},
};

use actors::{AppId, Durability, GroupId, Location, Store, StoreOptions, bench::BenchQueue};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mimi_gateway::api::{groups::CommitBody, text::Base64};
use snapshots::{Batch, LogId};

/// The size of an appended record, in bytes.
const RECORD_BYTES: usize = 512;

/// Durable appends: each writer waits for its append before the next, as actors do. The time of one is the total time divided
/// by the number.
fn appends(criterion: &mut Criterion) {
    let directory =
        tempfile::Builder::new().prefix("appends-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(&StoreOptions {
        location: Location::Directory(directory.path().join("store")),
        durability: Durability::Sync,
        ..StoreOptions::default()
    })
    .unwrap();
    let mut group = criterion.benchmark_group("durable append");
    let mut logs = 0_u32;
    for writers in [1_u32, 8, 64] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("writers", writers), |bencher| {
            bencher.iter_custom(|iterations| {
                let each = iterations.div_ceil(u64::from(writers));
                let took = append_at_once(&store, &mut logs, writers, each);
                // Only the requested number counts; the rest of the last round does not.
                took.mul_f64(count(iterations) / count(each * u64::from(writers)))
            });
        });
    }
    group.finish();
    store.close();
}

fn append_at_once(store: &Store, logs: &mut u32, writers: u32, each: u64) -> Duration {
    let start = Barrier::new(usize::try_from(writers).unwrap() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                *logs += 1;
                let (number, start) = (*logs, &start);
                scope.spawn(move || {
                    let app = AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001));
                    let log = LogId::Group(app, GroupId::new(number.to_be_bytes()).unwrap());
                    let mut create = Batch::new();
                    create.create_log(&log);
                    store.append_blocking(create).unwrap();
                    start.wait();
                    for head in 0..each {
                        let mut batch = Batch::new();
                        batch.append_record(&log, head, [7; RECORD_BYTES]);
                        store.append_blocking(batch).unwrap();
                    }
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        for thread in threads {
            thread.join().unwrap();
        }
        started.elapsed()
    })
}

fn assignment(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key assignment");
    for packages in [100_u32, 1000] {
        let queue = BenchQueue::holding(packages, &[7; 300]).unwrap();
        group.bench_function(BenchmarkId::new("all of a queue of", packages), |bencher| {
            bencher.iter_batched_ref(
                || queue.clone(),
                |queue| (0..packages).map(|number| queue.assign(&number.to_string())).sum::<usize>(),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn encodings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("JSON and Base64");
    for bytes in [1_usize << 10, 64 << 10] {
        let packet: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
        let body = CommitBody { commit_packet: Base64(packet), group_info: None, welcome_packet: None };
        let json = serde_json::to_vec(&body).unwrap();
        group.throughput(Throughput::Bytes(bytes.try_into().unwrap()));
        group.bench_function(BenchmarkId::new("encode a commit", bytes), |bencher| {
            bencher.iter(|| serde_json::to_vec(black_box(&body)).unwrap());
        });
        group.bench_function(BenchmarkId::new("decode a commit", bytes), |bencher| {
            bencher.iter(|| serde_json::from_slice::<CommitBody>(black_box(&json)).unwrap());
        });
    }
    group.finish();
}

#[expect(clippy::cast_precision_loss, reason = "iterations are far below 2^53")]
fn count(iterations: u64) -> f64 {
    iterations as f64
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .without_plots();
    targets = appends, assignment, encodings
}
criterion_main!(benches);
