//! The stream of the gateway's activity (*Operators*): what samples show, and who may read them.

use std::time::{Duration, Instant};

use mimi_gateway::{
    api::{activity::ActivitySample, problem::ProblemKind, text::GroupIdText},
    client::{ActivityReader, OperatorClient},
    config::{TokenAccess, TokenSettings},
    token::Token,
};
use serde_json::json;

use crate::{
    mls_support::{clients, kept_in, refusal, refused},
    support::{Request, Setup, TestGateway},
};

const PATH: &str = "/operator/v1/activity";
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway, its setup and an operator of it.
struct Watched {
    setup: Setup,
    gateway: TestGateway,
    token: Token,
    operator: OperatorClient,
}

impl Watched {
    async fn start(setup: Setup) -> Self {
        let (mut setup, token) = (setup, Token::generate().unwrap());
        setup.watched_by(&[(&token, TokenAccess::ReadWrite)]).listener.event_streams_max = 4;
        let gateway = setup.start().await;
        let operator = at(&gateway, &token);
        Self { setup, gateway, token, operator }
    }
}

fn at(gateway: &TestGateway, token: &Token) -> OperatorClient {
    OperatorClient::new(format!("http://{}", gateway.operator_address()), token.clone()).unwrap()
}

/// The next sample.
async fn next(reader: &mut ActivityReader) -> ActivitySample {
    let sample = tokio::time::timeout(PATIENCE, reader.next()).await.expect("a sample in time");
    sample.unwrap().expect("the stream goes on")
}

/// The first sample for which a condition holds.
async fn until(reader: &mut ActivityReader, holds: impl Fn(&ActivitySample) -> bool) -> ActivitySample {
    let since = Instant::now();
    loop {
        let sample = next(reader).await;
        if holds(&sample) {
            return sample;
        }
        assert!(since.elapsed() < PATIENCE, "{sample:?}");
    }
}

#[actix_web::test]
async fn samples_show_commits_conflicts_and_busy_groups() {
    let directory = tempfile::tempdir().unwrap();
    let watched = Watched::start(kept_in(&directory)).await;
    let [alice, bob] = clients(&watched.gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    let quiet = alice.create_group().await;
    // This commit is older than the reader.
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;

    let mut reader = watched.operator.activity().await.unwrap();
    let first = next(&mut reader).await;
    assert_eq!((first.rates, first.commit_times), (None, None), "there is no sample before it");
    assert!(first.is_ready && first.peers.is_empty() && first.load.groups_awake > 0, "{first:?}");
    let disk = first.disk.expect("a data directory");
    assert!(disk.used_bytes > 0 && disk.free_bytes <= disk.total_bytes, "{disk:?}");
    let calm = next(&mut reader).await;
    assert_eq!(calm.rates.unwrap().commits, 0.0);

    let (late, proposal) = (at_bob.make_update(), at_alice.make_update_proposal());
    at_alice.propose(&proposal).await.unwrap();
    at_alice.update().await;
    refused(bob.api.upload_commit(&at_bob.id(), &late).await, ProblemKind::StaleEpoch);
    let seen = until(&mut reader, |sample| {
        let busy = sample.busiest_groups.first().is_some_and(|group| group.commits == 2);
        busy && sample.commit_times.is_some()
    })
    .await;
    let [busy] = &seen.busiest_groups[..] else { panic!("{seen:?}") };
    assert_eq!(busy.group_id, GroupIdText(at_alice.id()));
    assert_ne!(busy.group_id, GroupIdText(quiet.id()));
    assert_eq!((busy.application_id, busy.epoch_id.0), (watched.gateway.app, 2));
    let times = seen.commit_times.unwrap();
    assert!(0.0 < times.p50_ms && times.p50_ms <= times.p99_ms, "{times:?}");

    assert_eq!((first.backups.newest_at, first.backups.failed), (None, 0));
    let made = watched.operator.make_backup().await.unwrap();
    let seen = until(&mut reader, |sample| sample.backups.newest_at.is_some()).await;
    assert_eq!(seen.backups.newest_at, Some(made.created_at));

    // Another reader gets the newest sample at once, and this one a second's.
    let mut other = watched.operator.activity().await.unwrap();
    let since = Instant::now();
    let shared = next(&mut other).await;
    assert!(since.elapsed() < Duration::from_millis(900), "at once, not after {:?}", since.elapsed());
    assert!(shared.rates.is_some(), "the samples are those of the first reader");
    let mut taken = 1;
    while since.elapsed() < Duration::from_secs(3) {
        next(&mut other).await;
        taken += 1;
    }
    assert!((2..=6).contains(&taken), "{taken} samples in 3 s");
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn rates_are_those_of_the_last_second() {
    let watched = Watched::start(Setup::new()).await;
    let [alice, bob] = clients(&watched.gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    let mut reader = watched.operator.activity().await.unwrap();
    next(&mut reader).await;
    let late = at_bob.make_update();
    at_alice.update().await;
    refused(bob.api.upload_commit(&at_bob.id(), &late).await, ProblemKind::StaleEpoch);
    // What is counted once is in one sample, and no longer in those after it.
    let (mut commits, mut conflicts) = (0.0, 0.0);
    let sample = until(&mut reader, |sample| sample.rates.is_some_and(|rates| rates.conflicts > 0.0)).await;
    for rates in sample.rates.into_iter().chain(next(&mut reader).await.rates) {
        commits += rates.commits;
        conflicts += rates.conflicts;
    }
    assert!((0.1..=2.0).contains(&conflicts) && commits <= 2.0, "{commits} {conflicts}");
    let calm = until(&mut reader, |sample| sample.rates.is_some_and(|rates| rates.requests == 0.0)).await;
    assert_eq!((calm.disk, calm.rates.unwrap().conflicts), (None, 0.0), "nothing is kept, nothing happens");
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn a_queue_that_ran_low_is_shown_until_it_is_filled() {
    let watched = Watched::start(Setup::new()).await;
    let [alice] = clients(&watched.gateway, ["<script>alert(1)</script>"]).await;
    for receiver in ["bob", "carol", "dave"] {
        // Each gets one of alice's four key packages.
        alice.assign_to(receiver).await.unwrap();
    }
    let mut reader = watched.operator.activity().await.unwrap();
    let seen = until(&mut reader, |sample| !sample.low_queues.is_empty()).await;
    let [low] = &seen.low_queues[..] else { panic!("{seen:?}") };
    assert_eq!(
        (json!(low.client_handle), low.key_packages_available),
        (json!("<script>alert(1)</script>"), 1)
    );
    alice.upload_key_packages(20).await;
    until(&mut reader, |sample| sample.low_queues.is_empty()).await;
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn streams_are_for_operators_and_not_too_many() {
    let Watched { mut setup, gateway, token, operator } = Watched::start(Setup::new()).await;
    gateway.operate(Request::new("GET", PATH)).await.problem(401, "not-authenticated", "");
    for token in [&gateway.writer, &Token::new("guessed")] {
        gateway.operate(Request::new("GET", PATH).token(token)).await.problem(401, "not-authenticated", "");
    }
    gateway.send(Request::new("GET", PATH).token(&token)).await.problem(404, "unknown-route", "");
    let query = Request::new("GET", &format!("{PATH}?token={}", token.reveal())).token(&token);
    gateway.operate(query).await.problem(400, "malformed-request", "token");
    let head = gateway.operate(Request::new("HEAD", PATH).token(&token)).await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));

    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(operator.activity().await.unwrap());
    }
    let problem = refusal(operator.activity().await);
    assert_eq!((problem.status, problem.kind()), (429, Some(ProblemKind::TooManyStreams)));

    // The streams of a token end when it is no longer accepted, and others go on.
    let new = Token::generate().unwrap();
    let settings = TokenSettings { sha256: new.hash(), access: TokenAccess::Read };
    setup.config.operator.as_mut().unwrap().tokens.push(settings);
    gateway.reload(&setup.config).await.unwrap();
    let mut by_new = at(&gateway, &new).activity().await.unwrap();
    next(&mut by_new).await;
    setup.config.operator.as_mut().unwrap().tokens = vec![settings];
    gateway.reload(&setup.config).await.unwrap();
    for reader in &mut open {
        let ended = async { while reader.next().await.unwrap().is_some() {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    }
    next(&mut by_new).await;

    // It ends when the gateway stops, which waits for no reader.
    let since = Instant::now();
    gateway.stop().await;
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    while by_new.next().await.unwrap().is_some() {}
}
