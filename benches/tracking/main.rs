//! The cost of following a group from outside: staging and applying each kind of commit, next to the unavoidable
//! signatures and the two MLS libraries' own observers; and the cost of passivating and activating a group.
//!
//! `cargo bench --bench tracking`; one part of it: `cargo bench --bench tracking -- 'update/100'`. The sizes are those of
//! `MIMI_BENCH_MEMBERS`, as `2,10,100`, or all.

#![expect(clippy::unwrap_used, reason = "a benchmark that meets what it does not expect has failed")]

mod group;

use std::{hint::black_box, time::Duration};

use actors::{CommitBundle, Timestamp, bench::BenchGroup};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use group::{Case, LibraryGroup, Starting};
use mls_rs::{
    MlsMessage,
    external_client::{
        ExternalClient, ExternalGroup,
        builder::{ExternalBaseConfig, WithCryptoProvider, WithIdentityProvider},
    },
    group::ExportedTree,
    identity::basic::BasicIdentityProvider,
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

const SIZES: [usize; 5] = [2, 10, 100, 1000, 10_000];

fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since_epoch.as_millis().try_into().unwrap())
}

fn sizes() -> Vec<usize> {
    match std::env::var("MIMI_BENCH_MEMBERS") {
        Ok(list) => list.split(',').map(|size| size.parse().unwrap()).collect(),
        Err(_) => SIZES.to_vec(),
    }
}

fn tracking(criterion: &mut Criterion) {
    for members in sizes() {
        let starting = group::start(members);
        for case in &starting.cases {
            compare(criterion, members, &starting, case);
        }
        at_rest(criterion, members, &starting);
    }
}

/// One kind of commit, four ways.
fn compare(criterion: &mut Criterion, members: usize, starting: &Starting, case: &Case) {
    let mut group = criterion.benchmark_group(format!("commit/{}", case.name));
    if members >= 1000 {
        group.sample_size(10);
    }
    let signed = Signed::new(case.commit.len().min(400));
    group.bench_function(BenchmarkId::new(format!("{} signatures", case.signatures), members), |bencher| {
        bencher.iter(|| (0..case.signatures).for_each(|_| black_box(&signed).verify()));
    });

    let now = now();
    let mut gateway = BenchGroup::open(&starting.group_info, &starting.tree, now).unwrap();
    for proposal in &case.proposals {
        gateway.propose(proposal, now).unwrap();
    }
    let rested = gateway.snapshot().unwrap();
    let bundle = CommitBundle {
        commit: case.commit.clone(),
        group_info: Some(case.group_info.clone()),
        welcome: case.welcome.clone(),
    };
    group.bench_function(BenchmarkId::new("gateway", members), |bencher| {
        bencher.iter_batched_ref(
            || BenchGroup::restore(&rested).unwrap(),
            |group| {
                let staged = group.stage(&bundle, now).unwrap();
                group.apply(staged).unwrap();
            },
            BatchSize::PerIteration,
        );
    });

    let library = LibraryGroup::open(starting);
    group.bench_function(BenchmarkId::new("openmls PublicGroup", members), |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut copy = library.copy(&starting.id);
                case.proposals.iter().for_each(|proposal| copy.propose(proposal));
                copy
            },
            |group| group.commit(&case.commit),
            BatchSize::PerIteration,
        );
    });

    let mut observer = observe(starting);
    for proposal in &case.proposals {
        observer.process_incoming_message(MlsMessage::from_bytes(proposal).unwrap()).unwrap();
    }
    group.bench_function(BenchmarkId::new("mls-rs ExternalGroup", members), |bencher| {
        bencher.iter_batched_ref(
            || observer.clone(),
            |group| {
                let commit = MlsMessage::from_bytes(&case.commit).unwrap();
                group.process_incoming_message(commit).unwrap();
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn at_rest(criterion: &mut Criterion, members: usize, starting: &Starting) {
    let tracked = BenchGroup::open(&starting.group_info, &starting.tree, now()).unwrap();
    let rested = tracked.snapshot().unwrap();
    let mut group = criterion.benchmark_group("group at rest");
    if members >= 1000 {
        group.sample_size(10);
    }
    group.throughput(criterion::Throughput::Bytes(rested.len().try_into().unwrap()));
    group.bench_function(BenchmarkId::new("snapshot, encode", members), |bencher| {
        bencher.iter(|| black_box(&tracked).snapshot().unwrap());
    });
    group.bench_function(BenchmarkId::new("activate, decode", members), |bencher| {
        bencher.iter(|| BenchGroup::restore(black_box(&rested)).unwrap());
    });
    group.finish();
}

/// The type of mls-rs's observer.
type Observer =
    WithCryptoProvider<RustCryptoProvider, WithIdentityProvider<BasicIdentityProvider, ExternalBaseConfig>>;

/// mls-rs's observer in the starting epoch.
fn observe(starting: &Starting) -> ExternalGroup<Observer> {
    let client = ExternalClient::builder()
        .identity_provider(BasicIdentityProvider::new())
        .crypto_provider(RustCryptoProvider::default())
        .build();
    let info = MlsMessage::from_bytes(&starting.group_info).unwrap();
    let tree = ExportedTree::from_bytes(&starting.tree).unwrap();
    client.observe_group(info, Some(tree), None).unwrap()
}

/// An Ed25519 signature with the data to verify it; its key is decoded each time.
struct Signed {
    key: [u8; 32],
    message: Vec<u8>,
    signature: [u8; 64],
}

impl Signed {
    fn new(length: usize) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let message = vec![7; length];
        let signature = key.sign(&message).to_bytes();
        Self { key: key.verifying_key().to_bytes(), message, signature }
    }

    fn verify(&self) {
        let key = VerifyingKey::from_bytes(&self.key).unwrap();
        key.verify_strict(&self.message, &Signature::from_bytes(&self.signature)).unwrap();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .without_plots();
    targets = tracking
}
criterion_main!(benches);
