//! The cost of following a group from outside: staging and applying each kind of commit, next to the unavoidable
//! signatures and the two MLS libraries' own observers; and the cost of passivating and activating a group, next to openmls's
//! of storing and loading one.
//!
//! `cargo bench --bench tracking`; one part of it: `cargo bench --bench tracking -- 'update/100'`. The sizes are those of
//! `MIMI_BENCH_MEMBERS`, as `2,10,100`, or all. Groups of more than 10,000 members are followed by the gateway alone, and
//! `grow/<members>` creates such a group by commits that add 1000 members each.

#![expect(clippy::unwrap_used, reason = "a benchmark that meets what it does not expect has failed")]

mod group;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use actors::{AppId, Application, CommitBundle, Limits, Timestamp, observer::Observer};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use group::{Case, LibraryGroup, Starting, Step};
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
use openmls::treesync::TreeSync;

const SIZES: [usize; 5] = [2, 10, 100, 1000, 10_000];

fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since_epoch.as_millis().try_into().unwrap())
}

/// An observer of a group of clients of the Basic identity provider.
fn open(group_info: &[u8], tree: &[u8], now: Timestamp) -> Observer {
    let application = Application::basic(AppId::random());
    Observer::open_within(limits(), application, group_info, Some(tree), now).unwrap()
}

/// Limits that let every size in.
fn limits() -> Limits {
    Limits { group_members_max: 1 << 20, ..Limits::default() }
}

fn restore(snapshot: &[u8]) -> Observer {
    Observer::restore_within(limits(), Application::basic(AppId::random()), snapshot).unwrap()
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
        let blank = group::start_blank(members);
        for case in &blank.cases {
            compare(criterion, members, &blank, case);
        }
        if members > LIBRARIES_MAX {
            grow(criterion, members);
        }
    }
}

/// The largest groups that the libraries follow here.
const LIBRARIES_MAX: usize = 10_000;

/// One kind of commit, four ways.
fn compare(criterion: &mut Criterion, members: usize, starting: &Starting, case: &Case) {
    let mut group = criterion.benchmark_group(format!("commit/{}", case.name));
    if members >= 1000 {
        // Each sixteenth commit begins on another copy of the group, whose making is not measured but takes most of the time.
        group.sample_size(10).measurement_time(Duration::from_secs(4));
    }
    let steps = &case.commits;
    let signed: Vec<Vec<_>> =
        steps.iter().map(|step| step.signed.iter().copied().map(Signed::new).collect()).collect();
    let signatures = signed.first().map_or(0, Vec::len);
    group.bench_function(BenchmarkId::new(format!("{signatures} signatures"), members), |bencher| {
        let mut all = signed.iter().cycle();
        bencher.iter(|| all.next().unwrap().iter().for_each(Signed::verify));
    });

    let now = now();
    let rested = open(&starting.group_info, &starting.tree, now).snapshot().unwrap();
    group.bench_function(BenchmarkId::new("gateway", members), |bencher| {
        let begin = || restore(&rested);
        let propose = |group: &mut Observer, packet: &[u8]| drop(group.propose(packet, now).unwrap());
        let commit = |group: &mut Observer, step: &Step| {
            let staged = group.stage(&step.bundle, now).unwrap();
            group.apply(staged).unwrap();
        };
        bencher.iter_custom(|count| follow(steps, count, (begin, propose, commit)));
    });
    if members > LIBRARIES_MAX {
        return;
    }

    let library = LibraryGroup::open(starting);
    group.bench_function(BenchmarkId::new("openmls PublicGroup", members), |bencher| {
        let begin = || library.copy(&starting.id);
        let commit = |group: &mut LibraryGroup, step: &Step| group.commit(&step.bundle.commit);
        bencher.iter_custom(|count| follow(steps, count, (begin, LibraryGroup::propose, commit)));
    });

    let observer = observe(starting);
    group.bench_function(BenchmarkId::new("mls-rs ExternalGroup", members), |bencher| {
        let process = |group: &mut ExternalGroup<LibraryObserver>, packet: &[u8]| {
            group.process_incoming_message(MlsMessage::from_bytes(packet).unwrap()).unwrap();
        };
        let commit = |group: &mut _, step: &Step| process(group, &step.bundle.commit);
        bencher.iter_custom(|count| follow(steps, count, (|| observer.clone(), process, commit)));
    });
    group.finish();
}

/// The time of this many commits. They follow each other; after the last one it begins again.
fn follow<G>(
    steps: &[Step],
    count: u64,
    (begin, propose, commit): (impl Fn() -> G, impl Fn(&mut G, &[u8]), impl Fn(&mut G, &Step)),
) -> Duration {
    let mut time = Duration::ZERO;
    let mut group = None;
    for (place, step) in steps.iter().enumerate().cycle().take(usize::try_from(count).unwrap()) {
        if place == 0 {
            group = None;
        }
        let group = group.get_or_insert_with(&begin);
        step.proposals.iter().for_each(|packet| propose(group, packet));
        let since = Instant::now();
        commit(black_box(group), step);
        time += since.elapsed();
    }
    time
}

/// Creates a group of this many members by commits that add 1000 each.
fn grow(criterion: &mut Criterion, members: usize) {
    const ADDED_AT_ONCE: usize = 1000;
    let mut forged = mls_forge::Group::create(mls_forge::Client::new(group::SUITE, "creator"));
    let (info, tree) = (forged.group_info().to_message(), forged.tree_bytes());
    let mut commits = Vec::new();
    for first in (1..members).step_by(ADDED_AT_ONCE) {
        let adds: Vec<_> = (first..members.min(first + ADDED_AT_ONCE))
            .map(|member| forged.add(&mls_forge::Client::new(group::SUITE, &format!("member {member}"))))
            .collect();
        let commit = forged.commit(0).with_all(adds).sign();
        let (group_info, welcome) = (Some(commit.group_info_bytes()), commit.welcome_bytes());
        commits.push(CommitBundle { commit: commit.commit_bytes(), group_info, welcome });
        forged.apply(&commit);
    }
    let now = now();
    let mut group = criterion.benchmark_group("grow");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("gateway", members), |bencher| {
        bencher.iter_batched_ref(
            || open(&info, &tree, now),
            |group| {
                for commit in &commits {
                    let staged = group.stage(commit, now).unwrap();
                    group.apply(staged).unwrap();
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn at_rest(criterion: &mut Criterion, members: usize, starting: &Starting) {
    let tracked = open(&starting.group_info, &starting.tree, now());
    let rested = tracked.snapshot().unwrap();
    let mut group = criterion.benchmark_group("group at rest");
    if members >= 1000 {
        group.sample_size(10);
    }
    group.throughput(Throughput::Bytes(rested.len().try_into().unwrap()));
    group.bench_function(BenchmarkId::new("snapshot, encode", members), |bencher| {
        bencher.iter(|| black_box(&tracked).snapshot().unwrap());
    });
    group.bench_function(BenchmarkId::new("activate, decode", members), |bencher| {
        bencher.iter(|| restore(black_box(&rested)));
    });
    if members <= LIBRARIES_MAX {
        at_rest_in_library(&mut group, members, starting);
    }
    group.finish();
}

/// The same for openmls: what it writes to its storage of a whole group, and loading a group from there. Its memory storage writes
/// JSON; the tree alone is measured as MessagePack, too, which is what the gateway writes.
fn at_rest_in_library(group: &mut BenchmarkGroup<'_, WallTime>, members: usize, starting: &Starting) {
    let library = LibraryGroup::open(starting);
    let (tree, context) = library.stored(&starting.id);
    let packed = rmp_serde::to_vec(&tree).unwrap();
    group.throughput(Throughput::Bytes(library.stored_bytes().try_into().unwrap()));
    group.bench_function(BenchmarkId::new("openmls, store", members), |bencher| {
        bencher.iter(|| library.store(&starting.id, black_box(&tree), &context));
    });
    group.bench_function(BenchmarkId::new("openmls, load", members), |bencher| {
        bencher.iter(|| library.load(&starting.id));
    });
    group.throughput(Throughput::Bytes(packed.len().try_into().unwrap()));
    group.bench_function(BenchmarkId::new("openmls, tree to MessagePack", members), |bencher| {
        bencher.iter(|| rmp_serde::to_vec(black_box(&tree)).unwrap());
    });
    group.bench_function(BenchmarkId::new("openmls, tree from MessagePack", members), |bencher| {
        bencher.iter(|| rmp_serde::from_slice::<TreeSync>(black_box(&packed)).unwrap());
    });
}

/// The type of mls-rs's observer.
type LibraryObserver =
    WithCryptoProvider<RustCryptoProvider, WithIdentityProvider<BasicIdentityProvider, ExternalBaseConfig>>;

/// mls-rs's observer in the starting epoch.
fn observe(starting: &Starting) -> ExternalGroup<LibraryObserver> {
    let client = ExternalClient::builder()
        .identity_provider(BasicIdentityProvider::new())
        .crypto_provider(RustCryptoProvider::default())
        .build();
    let info = MlsMessage::from_bytes(&starting.group_info).unwrap();
    let tree = ExportedTree::from_bytes(&starting.tree).unwrap();
    client.observe_group(info, Some(tree), None).unwrap()
}

/// An Ed25519 signature with the data to verify it, by the library with which the gateway verifies; the key is decoded each time.
struct Signed {
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    fn new(length: usize) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let message = vec![7; length];
        let signature = key.sign(&message).as_ref().to_vec();
        Self { key: key.public_key().as_ref().to_vec(), message, signature }
    }

    fn verify(&self) {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(&self.message, &self.signature).unwrap();
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
