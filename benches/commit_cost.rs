//! The cost of an accepted commit, next to the work that no gateway can avoid.
//!
//! A gateway in this process, with its own directory and synced writes, is measured over loopback HTTP/1.1 on one kept-alive
//! connection. Each round measures every kind of work once, in a shuffled order, so that other load of the machine affects all
//! alike. Preparing packets is not timed; a request is timed from its first byte to the last byte of its answer. `cargo bench
//! --bench commit_cost`.

use std::{
    error::Error,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use actors::{AppId, GroupId};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use mimi_gateway::{
    api::{
        Endpoint,
        groups::{CommitBody, CreateGroup, NewGroupBody, UploadCommit},
        paths::{self, AppPath, GroupPath},
        text::Base64,
    },
    config::{Config, DataDir},
    serve,
};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, Group, MlsMessage,
    client_builder::MlsConfig,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use snapshots::{Batch, Durability, Location, LogId, Store, StoreOptions};

/// Rounds before the first that counts.
const WARM_UP_ROUNDS: usize = 60;
/// Rounds that count.
const ROUNDS: usize = 600;
/// The approximate size of the signed content in a two-member group, in bytes.
const SIGNED_BYTES: usize = 300;
/// The record of a bare append.
const RECORD_BYTES: usize = 512;
/// Longest answer that is expected.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The time limit of an answer, after which the run fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An accepted commit costs at most this many times its verifications, an append and a round trip together.
const ACCEPTED_TO_FLOOR_MAX: f64 = 3.0;
/// A stale commit costs at most this part of an accepted one.
const STALE_TO_ACCEPTED_MAX: f64 = 0.25;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The measured kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Two Ed25519 verifications, keys decoded: a commit's framing and its leaf node (RFC 9420 §6.1, §7.3).
    Verifications,
    /// One record appended to a log of another store on the same disk.
    Append,
    /// `GET /healthz`.
    RoundTrip,
    /// The first commit of an epoch: 201.
    Accepted,
    /// A commit that lost an earlier epoch: 409.
    Stale,
}

impl Work {
    const ALL: [Self; 5] = [Self::Verifications, Self::Append, Self::RoundTrip, Self::Accepted, Self::Stale];

    fn about(self) -> &'static str {
        match self {
            Self::Verifications => "a  two Ed25519 verifications",
            Self::Append => "b  one durable append, 512 B",
            Self::RoundTrip => "c  empty HTTP round trip",
            Self::Accepted => "d  accepted commit, 201",
            Self::Stale => "e  stale commit, 409",
        }
    }
}

fn main() -> Outcome<()> {
    let directory =
        tempfile::Builder::new().prefix("commit-cost-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    actix_web::rt::System::new().block_on(run(directory.path().to_owned()))
}

async fn run(directory: PathBuf) -> Outcome<()> {
    let config = Config::embedded()
        .listening_on(SocketAddr::from(([127, 0, 0, 1], 0)))
        .kept_in(DataDir::Directory(directory.join("gateway")));
    let running = serve::start(config).await?;
    let application = running.default_application().ok_or("the gateway made no application")?;
    let token = application.token.as_ref().ok_or("the gateway's application is not new")?.reveal().to_owned();
    let (app, address) = (application.id, running.address());
    let bare = Store::open(&StoreOptions {
        location: Location::Directory(directory.join("bare")),
        durability: Durability::Sync,
        ..StoreOptions::default()
    })?;
    let store = bare.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let mut connection = Connection::open(address, token)?;
        let mut rounds = prepare(&mut connection, app, store)?;
        rounds.measure(&mut connection)
    })
    .await;
    bare.shutdown().await;
    running.stop().await;
    measured??.print();
    Ok(())
}

/// The state of the rounds.
struct Rounds<C: MlsConfig> {
    pair: Pair<C>,
    path: String,
    /// The body of a commit that lost an epoch before the current one.
    stale: Vec<u8>,
    store: Store,
    log: LogId,
    log_head: u64,
    signatures: [Signed; 2],
}

/// A group of two on the gateway, an empty log in the other store, signatures to verify.
fn prepare(connection: &mut Connection, app: AppId, store: Store) -> Outcome<Rounds<impl MlsConfig + use<>>> {
    let mut pair = create_pair(connection, app)?;
    let path = pair.epochs_path(app)?;
    let (winner, loser) = pair.commits()?;
    connection.expect(
        201,
        "epochId",
        &request("PUT", &path, connection.token(), &commit_body(winner.clone())?),
    )?;
    pair.accepted(&winner)?;
    let log = LogId::Group(app, GroupId::new(b"bare".to_vec())?);
    let mut batch = Batch::new();
    batch.create_log(&log);
    store.append_blocking(batch)?;
    Ok(Rounds {
        pair,
        path,
        stale: commit_body(loser)?,
        store,
        log,
        log_head: 0,
        signatures: [Signed::new(1), Signed::new(2)],
    })
}

impl<C: MlsConfig> Rounds<C> {
    fn measure(&mut self, connection: &mut Connection) -> Outcome<Report> {
        let mut report = Report::default();
        let mut shuffle = Shuffle(0x9e37_79b9_7f4a_7c15);
        for round in 0..WARM_UP_ROUNDS + ROUNDS {
            let (winner, loser) = self.pair.commits()?;
            let body = commit_body(winner.clone())?;
            report.body_bytes = (body.len(), self.stale.len());
            let accepted = request("PUT", &self.path, connection.token(), &body);
            for work in shuffle.order() {
                let took = self.once(work, connection, &accepted)?;
                if round >= WARM_UP_ROUNDS {
                    report.samples.push((work, took));
                }
            }
            self.pair.accepted(&winner)?;
            self.stale = commit_body(loser)?;
        }
        Ok(report)
    }

    fn once(&mut self, work: Work, connection: &mut Connection, accepted: &[u8]) -> Outcome<Duration> {
        match work {
            Work::Verifications => {
                let started = Instant::now();
                for signed in &self.signatures {
                    black_box(signed).verify()?;
                }
                Ok(started.elapsed())
            }
            Work::Append => {
                let started = Instant::now();
                let mut batch = Batch::new();
                batch.append_record(&self.log, self.log_head, black_box([7; RECORD_BYTES]));
                self.store.append_blocking(batch)?;
                let took = started.elapsed();
                self.log_head += 1;
                Ok(took)
            }
            Work::RoundTrip => {
                connection.expect(200, "", &request("GET", "/healthz", connection.token(), b""))
            }
            Work::Accepted => connection.expect(201, "epochId", accepted),
            Work::Stale => connection.expect(
                409,
                "/problems/stale-epoch",
                &request("PUT", &self.path, connection.token(), &self.stale),
            ),
        }
    }
}

/// A signature with the data to verify it.
struct Signed {
    key: [u8; 32],
    message: Vec<u8>,
    signature: [u8; 64],
}

impl Signed {
    fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let message = vec![seed; SIGNED_BYTES];
        let signature = key.sign(&message).to_bytes();
        Self { key: key.verifying_key().to_bytes(), message, signature }
    }

    fn verify(&self) -> Outcome<()> {
        let key = VerifyingKey::from_bytes(&self.key)?;
        Ok(key.verify_strict(&self.message, &Signature::from_bytes(&self.signature))?)
    }
}

/// The two members of a group, which commit in turn.
struct Pair<C: MlsConfig> {
    committer: Group<C>,
    other: Group<C>,
}

/// Creates the group at the gateway: one member creates it and adds the other.
fn create_pair(connection: &mut Connection, app: AppId) -> Outcome<Pair<impl MlsConfig + use<>>> {
    let (alice, bobby) = (client("alice")?, client("bobby")?);
    let mut committer = alice.create_group(Default::default(), Default::default(), None)?;
    let new = NewGroupBody {
        group_info: Base64(committer.group_info_message_allowing_ext_commit(true)?.to_bytes()?),
        ratchet_tree: None,
    };
    let path = paths::fill(CreateGroup::PATH, &AppPath { app });
    connection.expect(
        201,
        "epochId",
        &request("PUT", &path, connection.token(), &serde_json::to_vec(&new)?),
    )?;

    let package = bobby.generate_key_package_message(Default::default(), Default::default(), None)?;
    let add = committer.commit_builder().add_member(package)?.build()?;
    let welcome = add.welcome_messages.first().ok_or("an Add makes a Welcome")?;
    let body = CommitBody {
        commit_packet: Base64(add.commit_message.to_bytes()?),
        group_info: None,
        welcome_packet: Some(Base64(welcome.to_bytes()?)),
    };
    let path = epochs_path(app, &committer)?;
    connection.expect(
        201,
        "epochId",
        &request("PUT", &path, connection.token(), &serde_json::to_vec(&body)?),
    )?;
    committer.apply_pending_commit()?;
    let (other, _) = bobby.join_group(None, welcome, None)?;
    Ok(Pair { committer, other })
}

impl<C: MlsConfig> Pair<C> {
    fn epochs_path(&self, app: AppId) -> Outcome<String> {
        epochs_path(app, &self.committer)
    }

    /// A self-update of each member in the same epoch: the one that will be accepted, and the one that will be too late.
    fn commits(&mut self) -> Outcome<(Vec<u8>, Vec<u8>)> {
        let loser = self.other.commit_builder().build()?.commit_message.to_bytes()?;
        self.other.clear_pending_commit();
        Ok((self.committer.commit_builder().build()?.commit_message.to_bytes()?, loser))
    }

    /// Both move into the epoch, and it is the other's turn.
    fn accepted(&mut self, winner: &[u8]) -> Outcome<()> {
        self.committer.apply_pending_commit()?;
        self.other.process_incoming_message(MlsMessage::from_bytes(winner)?)?;
        std::mem::swap(&mut self.committer, &mut self.other);
        Ok(())
    }
}

fn client(handle: &str) -> Outcome<Client<impl MlsConfig + use<>>> {
    let crypto = RustCryptoProvider::default();
    let suite = crypto.cipher_suite_provider(SUITE).ok_or("the cipher suite is not there")?;
    let (secret, public) = suite.signature_key_generate()?;
    let credential = BasicCredential::new(handle.as_bytes().to_vec()).into_credential();
    Ok(Client::builder()
        .identity_provider(BasicIdentityProvider::new())
        .crypto_provider(crypto)
        .signing_identity(SigningIdentity::new(credential, public), secret, SUITE)
        .build())
}

fn epochs_path<C: MlsConfig>(app: AppId, group: &Group<C>) -> Outcome<String> {
    let group = GroupId::new(group.group_id().to_vec())?;
    Ok(paths::fill(UploadCommit::PATH, &GroupPath { app, group }))
}

fn commit_body(commit: Vec<u8>) -> Outcome<Vec<u8>> {
    let body = CommitBody { commit_packet: Base64(commit), group_info: None, welcome_packet: None };
    Ok(serde_json::to_vec(&body)?)
}

fn request(method: &str, path: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// One connection, asked one request at a time by a thread that does nothing else.
struct Connection {
    stream: TcpStream,
    token: String,
    answer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr, token: String) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream, token, answer: vec![0; ANSWER_BYTES_MAX] })
    }

    fn token(&self) -> &str {
        &self.token
    }

    /// Sends a request and waits for all of its answer, which must have this status and name this member or problem. The time
    /// that it took.
    fn expect(&mut self, status: u16, part: &str, request: &[u8]) -> Outcome<Duration> {
        let started = Instant::now();
        self.stream.write_all(request)?;
        let mut filled = 0;
        loop {
            let room =
                self.answer.get_mut(filled..).filter(|room| !room.is_empty()).ok_or("a long answer")?;
            match self.stream.read(room)? {
                0 => return Err("the gateway closed the connection".into()),
                read => filled += read,
            }
            let answer = self.answer.get(..filled).unwrap_or_default();
            if is_whole(answer)? {
                let took = started.elapsed();
                let expected = format!("HTTP/1.1 {status} ");
                let text = String::from_utf8_lossy(answer);
                if text.starts_with(&expected) && text.contains(part) {
                    return Ok(took);
                }
                return Err(format!("expected {status} {part}, got {text}").into());
            }
        }
    }
}

/// Whether the answer is complete.
fn is_whole(answer: &[u8]) -> Outcome<bool> {
    let Some(header_bytes) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let header = std::str::from_utf8(answer.get(..header_bytes).unwrap_or_default())?;
    let length = header
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without a length")?;
    Ok(answer.len() >= header_bytes + 4 + length.1.trim().parse::<usize>()?)
}

/// Orders that are the same in every run.
struct Shuffle(u64);

impl Shuffle {
    fn order(&mut self) -> [Work; 5] {
        let mut order = Work::ALL;
        for last in (1..order.len()).rev() {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let other = usize::try_from(self.0 % (last as u64 + 1)).unwrap_or(last);
            order.swap(last, other);
        }
        order
    }
}

/// The measurements.
#[derive(Default)]
struct Report {
    samples: Vec<(Work, Duration)>,
    /// Of the last accepted and stale request.
    body_bytes: (usize, usize),
}

impl Report {
    fn print(&self) {
        println!("{}", machine());
        let (accepted, stale) = self.body_bytes;
        println!("{ROUNDS} rounds, bodies of {accepted} B (accepted) and {stale} B (stale); microseconds");
        println!("{:<32}{:>10}{:>10}{:>10}", "", "p50", "p90", "p99");
        for work in Work::ALL {
            let [p50, p90, p99] = [50, 90, 99].map(|percent| self.percentile(work, percent));
            println!("{:<32}{p50:>10.1}{p90:>10.1}{p99:>10.1}", work.about());
        }
        let [a, b, c, d, e] = Work::ALL.map(|work| self.percentile(work, 50));
        println!("d - (a + b + c) at p50: {:.1} microseconds", d - (a + b + c));
        print_ratio("d / (a + b + c)", d / (a + b + c), ACCEPTED_TO_FLOOR_MAX);
        print_ratio("e / d", e / d, STALE_TO_ACCEPTED_MAX);
    }

    /// The nearest-rank percentile, in microseconds.
    fn percentile(&self, work: Work, percent: usize) -> f64 {
        let mut samples: Vec<Duration> =
            self.samples.iter().filter(|(of, _)| *of == work).map(|(_, took)| *took).collect();
        samples.sort_unstable();
        let rank = (samples.len() * percent).div_ceil(100).saturating_sub(1);
        samples.get(rank).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    }
}

fn print_ratio(what: &str, ratio: f64, max: f64) {
    let verdict = if ratio <= max { "reached" } else { "not reached" };
    println!("{what} at p50: {ratio:.3} (goal: at most {max}): {verdict}");
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == "model name");
    format!("{cores} cores, {}", model.map_or("unknown CPU", |(_, model)| model.trim()))
}
