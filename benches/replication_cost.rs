//! The time until an accepted commit is durable at a follower, next to one round trip between the two gateways.
//!
//! Two gateways in this process, each on a directory of its own with synced writes and with mutual TLS between them. A client
//! commits at the hub; after the hub's answer, the follower is polled until it shows the epoch, which it does once the epoch is
//! on its disk. The result is therefore too long by half of a poll, which is measured as well. `cargo bench --bench
//! replication_cost`.

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
    sync::Arc,
    time::{Duration, Instant},
};

use actors::AppId;
use mimi_gateway::config::{DataDir, PeerSettings};

use mls_support::{MlsClient, pki::Pki};
use support::{Setup, peers::GatewayPki};

const WARM_UP_ROUNDS: usize = 40;
const ROUNDS: usize = 400;
const A: &str = "a.example";
const B: &str = "b.example";

/// One kind of figure: microseconds.
struct Measured {
    about: &'static str,
    micros: Vec<f64>,
}

impl Measured {
    fn new(about: &'static str) -> Self {
        Self { about, micros: Vec::new() }
    }

    fn add(&mut self, took: Duration) {
        self.micros.push(took.as_secs_f64() * 1e6);
    }

    fn at(&self, part: f64) -> f64 {
        let mut sorted = self.micros[WARM_UP_ROUNDS..].to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part) as usize]
    }
}

fn main() {
    actix_web::rt::System::new().block_on(run());
}

async fn run() {
    let directory =
        tempfile::Builder::new().prefix("replication-cost-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (pki, clients) = (Arc::new(GatewayPki::new()), Pki::new());
    let app = AppId::random();
    let setup = |domain: &str, other: &str| {
        let mut setup = Setup::federated(&clients.roots(), &pki, app, domain, &[other]);
        setup.config.data_dir = DataDir::Directory(directory.path().join(domain));
        setup.config.log = "error".to_owned();
        setup
    };
    let follower = setup(B, A).start().await;
    let there = follower.federation_address();
    let mut hub = setup(A, B);
    hub.federation().peers =
        vec![PeerSettings { domain: B.parse().unwrap(), url: format!("https://{there}").parse().unwrap() }];
    let hub = hub.start().await;

    let roots = clients.roots();
    let (alice, carol) = (clients.certify(A, "alice", "phone"), clients.certify(B, "carol", "phone"));
    let mut alice = MlsClient::register_certified(&hub, &alice, &roots).await.create_group().await;
    let api = MlsClient::register_certified(&follower, &carol, &roots).await.api;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(pki.caller(Some(&pki.issue(&[A]))))
        .resolve(B, there)
        .no_proxy()
        .build()
        .unwrap();
    let empty = format!("https://{B}:{}/.well-known/mimi-gateway", there.port());

    let mut round_trip = Measured::new("a  one round trip over mutual TLS");
    let mut question = Measured::new("b  one question to the follower");
    let mut accepted = Measured::new("c  commit, from sending to the hub's answer");
    let mut replica = Measured::new("d  from the hub's answer to the follower's durable copy");
    for _ in 0..WARM_UP_ROUNDS + ROUNDS {
        let since = Instant::now();
        http.get(&empty).send().await.unwrap().bytes().await.unwrap();
        round_trip.add(since.elapsed());

        let commit = alice.make_update();
        let since = Instant::now();
        let reply = alice.upload(&commit).await.unwrap();
        accepted.add(since.elapsed());
        let since = Instant::now();
        loop {
            let asked = Instant::now();
            // The follower may not have the group yet.
            let epoch = api.group(&alice.id()).await.map(|group| group.epoch_id).ok();
            if epoch >= Some(reply.body.epoch_id) {
                replica.add(since.elapsed());
                question.add(asked.elapsed());
                break;
            }
        }
        alice.apply_pending();
    }
    follower.stop().await;
    hub.stop().await;

    println!("{ROUNDS} rounds; microseconds");
    println!("{:58}{:>9} {:>9} {:>9}", "", "p50", "p90", "p99");
    for measured in [&round_trip, &question, &accepted, &replica] {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|part| measured.at(part));
        println!("{:58}{p50:9.1} {p90:9.1} {p99:9.1}", measured.about);
    }
    println!("d / a at p50: {:.2}", replica.at(0.5) / round_trip.at(0.5));
}
