//! Peers: gateways of other domains, with good certificates, that lie, send too much, or take what is another's.

use std::{
    io::{Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actors::{AppId, SEQUENCE_MAX};
use mimi_gateway::{
    api::federation::CONFIGURATION_HEADER,
    config::PeerSettings,
    tools::pki::{CertificateAuthority, ClientKey},
};
use rustls::{ClientConfig, ClientConnection, ServerConnection, StreamOwned, pki_types::ServerName};
use serde_json::{Value, json};

use crate::{
    bystander::{Damage, succeeded},
    messages::{Client, NewGroup, requiring},
    packets::{KeyQueue, create, group_path, new_group, proposal},
    support::{
        Setup,
        peers::{GatewayPki, Issued, configuration, digest},
    },
    target::{ANSWER_TIMEOUT, Reply, Target, at_once, read_message, read_reply, request_with, scale},
    work::{blank_tree, is_refused},
};

const A: &str = "a.example";
const B: &str = "b.example";
const C: &str = "c.example";

/// What a bystander's requests may take, as a multiple of what they take while all is quiet.
const FACTOR: u32 = 20;

/// The gateway of `a.example`, under attack by `b.example`.
struct Federation {
    target: Target,
    app: AppId,
    pki: Arc<GatewayPki>,
    root: CertificateAuthority,
}

impl Federation {
    /// One that finds `b.example` at this address, and `c.example` nowhere.
    fn start(
        pki: Arc<GatewayPki>,
        b: SocketAddr,
        change: impl FnOnce(&mut mimi_gateway::config::FederationSettings),
    ) -> Self {
        let (app, root) = (AppId::random(), CertificateAuthority::root("Root", 2).unwrap());
        let mut setup = Setup::federated(&root.pem(), &pki, app, A, &[B, C]);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let peer = |(domain, address): (&str, SocketAddr)| PeerSettings {
            domain: domain.parse().unwrap(),
            url: format!("https://{address}").parse().unwrap(),
        };
        setup.federation().peers = [(B, b), (C, nowhere)].map(peer).to_vec();
        change(setup.federation());
        Self { target: Target::of(&setup), app, pki, root }
    }

    /// One whose peers are nowhere: they are those who ask.
    fn alone(change: impl FnOnce(&mut mimi_gateway::config::FederationSettings)) -> Self {
        Self::start(Arc::new(GatewayPki::new()), SocketAddr::from(([127, 0, 0, 1], 9)), change)
    }

    /// A client with a certificate of this domain.
    fn peer(&self, domain: &str) -> Peer {
        let issued = self.pki.issue(&[domain]);
        Peer {
            tls: Arc::new(self.pki.caller(Some(&issued))),
            address: self.target.federation.unwrap(),
            app: self.app,
            fields: format!("{CONFIGURATION_HEADER}: {}\r\n", digest(self.app)),
        }
    }

    /// A client of this domain with a certificate.
    fn client(&self, domain: &str) -> Client {
        let account = self.root.below(domain).unwrap().below("alice").unwrap();
        let chain = |key: &[u8]| {
            account.certify("phone", ClientKey::Ed25519(key), Duration::from_secs(3600)).unwrap()
        };
        Client::certified(0, chain)
    }

    /// The gateway that orders a group, by what the application is shown.
    fn hub(&self, id: &str) -> Value {
        let reply = self.target.call(&self.target.attacked, "GET", &group_path(id), None).unwrap();
        reply.json()["hubDomain"].clone()
    }
}

/// Another gateway that asks.
struct Peer {
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    app: AppId,
    fields: String,
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Peer {
    fn connect(&self) -> std::io::Result<TlsStream> {
        let name = ServerName::try_from(A).unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
        let stream = TcpStream::connect_timeout(&self.address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(StreamOwned::new(connection, stream))
    }

    /// A request below the application, as it is written.
    fn request(&self, method: &str, rest: &str, body: Option<&Value>) -> Vec<u8> {
        let body = body.map(Value::to_string);
        request_with(&self.fields, method, &format!("/apps/{}{rest}", self.app), body.as_deref())
    }

    fn call(&self, method: &str, rest: &str, body: Option<&Value>) -> std::io::Result<Reply> {
        let mut stream = self.connect()?;
        stream.write_all(&self.request(method, rest, body))?;
        read_reply(&mut stream)
    }

    /// Delivers something of a group.
    fn deliver(&self, id: &str, delivery: &Value) -> std::io::Result<Reply> {
        self.call("PUT", &(group_path(id) + "/log"), Some(delivery))
    }

    /// A bystander's request: it compares configurations, or delivers a group of its own domain.
    fn is_served(&self, domain: &str, client: &Client, number: u64) -> Result<(), String> {
        if number.is_multiple_of(2) {
            return succeeded(self.call("PUT", "/configuration", Some(&configuration(self.app))));
        }
        let id = format!("group {number} of {domain}");
        let group = NewGroup::of(&id, vec![client.clone()], 0);
        succeeded(self.deliver(&id, &entry(domain, 0, &creation(&group, &group.tree()))))
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn creation(group: &NewGroup, tree: &[u8]) -> Value {
    json!({ "creation": new_group(group, tree) })
}

/// A delivery of one entry.
fn entry(hub: &str, sequence: u64, content: &Value) -> Value {
    let entry = json!({ "sequence": sequence, "timestamp": now_ms(), "content": content });
    json!({ "hub": hub, "entries": [entry] })
}

/// A delivery of a whole group that stands at an entry.
fn transfer(hub: &str, sequence: u64, group: &NewGroup) -> Value {
    let mut transfer = new_group(group, &group.tree());
    transfer["sequence"] = sequence.into();
    transfer["timestamp"] = now_ms().into();
    json!({ "hub": hub, "transfer": transfer })
}

/// A follower's answer to a delivery: a status and a body.
type Answer = Box<dyn Fn(&Value) -> (u16, Value) + Send>;

/// A gateway that follows, and answers as it likes.
struct Follower {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    deliveries: Arc<AtomicUsize>,
}

impl Follower {
    /// One that holds everything that it is sent.
    fn start(issued: &Issued) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Arc::new(issued.server());
        let store = uuid::Uuid::new_v4();
        let honest: Answer = Box::new(move |delivery| (200, held(delivery, store)));
        let (answer, deliveries) = (Arc::new(Mutex::new(honest)), Arc::new(AtomicUsize::new(0)));
        let follower = Self { address, answer: Arc::clone(&answer), deliveries: Arc::clone(&deliveries) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
                let (answer, deliveries) = (Arc::clone(&answer), Arc::clone(&deliveries));
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(connection, stream);
                    while serve(&mut stream, &answer, &deliveries).is_ok() {}
                });
            }
        });
        follower
    }

    fn answers(&self, answer: impl Fn(&Value) -> (u16, Value) + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    fn deliveries(&self) -> usize {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// Waits until it has received this number of deliveries.
    fn until(&self, deliveries: usize) {
        let since = Instant::now();
        while self.deliveries() < deliveries {
            assert!(since.elapsed() < Duration::from_secs(20), "{} deliveries came", self.deliveries());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The answer of a follower that has all of a delivery.
fn held(delivery: &Value, store: uuid::Uuid) -> Value {
    let last = delivery["entries"].as_array().and_then(|entries| entries.last()?["sequence"].as_u64());
    json!({ "next": last.unwrap_or(0) + 1, "store": store, "revision": 1 })
}

/// Answers one request.
fn serve<S: Read + std::io::Write>(
    stream: &mut S,
    answer: &Mutex<Answer>,
    deliveries: &AtomicUsize,
) -> std::io::Result<()> {
    let (head, body) = read_message(stream)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, body) = if head.lines().next().is_some_and(|line| line.contains("/log ")) {
        deliveries.fetch_add(1, Ordering::Relaxed);
        answer.lock().unwrap()(&body)
    } else {
        (200, body)
    };
    let kind = if status == 200 { "json" } else { "problem+json" };
    let body = body.to_string();
    let head = format!("Content-Type: application/{kind}\r\nContent-Length: {}", body.len());
    stream.write_all(format!("HTTP/1.1 {status} Answer\r\n{head}\r\n\r\n{body}").as_bytes())?;
    stream.flush()
}

/// A gateway with a follower, and groups that the follower has.
fn with_follower(groups: usize) -> (Federation, Follower, Vec<NewGroup>) {
    let pki = Arc::new(GatewayPki::new());
    let follower = Follower::start(&pki.issue(&[B]));
    let federation = Federation::start(pki, follower.address, |_| ());
    let client = federation.client(A);
    let target = &federation.target;
    let groups: Vec<_> = (0..groups)
        .map(|number| {
            let group = NewGroup::of(&format!("group {number}"), vec![client.clone()], 0);
            create(target, &target.attacked, &group);
            group
        })
        .collect();
    follower.until(groups.len());
    (federation, follower, groups)
}

/// Writes to some groups, so that their follower has something to answer.
fn propose_to(target: &Target, groups: &[NewGroup]) {
    for (number, group) in groups.iter().enumerate() {
        let path = group_path(&format!("group {number}")) + "/proposals";
        let body = proposal(group, &requiring(0)).to_string();
        let reply = target.call(&target.attacked, "PUT", &path, Some(&body)).unwrap();
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    }
}

#[test]
fn a_follower_that_names_another_store_each_time_is_sent_everything_once() {
    let groups = 60 * scale();
    let (federation, follower, made) = with_follower(groups);
    let before = follower.deliveries();
    follower.answers(|delivery| (200, held(delivery, uuid::Uuid::new_v4())));
    let (damage, ()) = Damage::of(&federation.target, || {
        propose_to(&federation.target, &made[..5]);
        std::thread::sleep(Duration::from_secs(3));
    });
    damage.is_at_most(FACTOR);
    let more = follower.deliveries() - before;
    println!("{more} deliveries of {groups} groups");
    assert!(more > 5, "the follower was left alone");
    // Each group once more for the store that changed first, and what was under way when it changed again.
    assert!(more <= groups + 128, "{more} deliveries");
    // It was 941 MB when nothing bounded it; now it varies from 72 to 100.
    assert!(federation.target.peak_mb() < 200, "{} MB", federation.target.peak_mb());
    let log = federation.target.log();
    assert!(log.len() < 16 << 10, "{} bytes of log", log.len());
}

#[test]
fn what_a_follower_says_of_its_refusals_is_not_logged_whole() {
    let (federation, follower, made) = with_follower(30 * scale());
    let before = federation.target.log().len();
    let problem = json!({
        "type": "/problems/invalid-commit",
        "title": "No",
        "status": 422,
        "detail": "d".repeat(256 << 10),
        "instance": "/"
    });
    follower.answers(move |_| (422, problem.clone()));
    let refusals = || federation.target.log().matches("a peer refused a delivery").count();
    let (damage, ()) = Damage::of(&federation.target, || {
        propose_to(&federation.target, &made);
        let since = Instant::now();
        while refusals() < 20 {
            assert!(since.elapsed() < Duration::from_secs(20), "{} refusals are logged", refusals());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    damage.is_at_most(FACTOR);
    // Half a kilobyte of each of twenty; the others are counted.
    let more = federation.target.log().len() - before;
    println!("{more} bytes of log");
    assert!(more < 32 << 10, "{more} bytes of log");
    assert!(federation.target.peak_mb() < 200, "{} MB", federation.target.peak_mb());
}

#[test]
fn a_peer_that_holds_all_that_it_can_leaves_others_their_part() {
    let federation = Federation::alone(|settings| {
        settings.listener.connections_max = 40;
        settings.listener.requests_in_flight_max = 40;
        settings.listener.request_body_timeout_s = 2;
    });
    let (b, c, client) = (federation.peer(B), federation.peer(C), federation.client(C));
    let whole = b.request("PUT", &(group_path("held") + "/log"), Some(&json!({})));
    let text = String::from_utf8(whole).unwrap().replace("Content-Length: 2", "Content-Length: 100000");
    let (damage, statuses) = Damage::to(
        &federation.target,
        |number| c.is_served(C, &client, number),
        || {
            let open = |_| {
                let mut stream = b.connect().ok()?;
                stream.write_all(text.as_bytes()).ok()?;
                Some(stream)
            };
            let mut held: Vec<_> = (0..60 * scale()).filter_map(open).collect();
            held.iter_mut()
                .map(|stream| read_reply(stream).ok().map(|reply| reply.status))
                .collect::<Vec<_>>()
        },
    );
    damage.is_at_most(FACTOR);
    let of = |status: u16| statuses.iter().filter(|found| **found == Some(status)).count();
    println!("{} waited, {} were refused, of {}", of(408), of(429), statuses.len());
    // Half of 40.
    assert_eq!(of(408), 20, "{statuses:?}");
    assert!(federation.target.peak_mb() < 150, "{} MB", federation.target.peak_mb());
}

#[test]
fn a_peers_new_group_of_blank_nodes_is_refused_before_they_are_read() {
    let federation = Federation::alone(|_| ());
    let (b, c, client) = (federation.peer(B), federation.peer(C), federation.client(C));
    let creator = federation.client(B);
    let group = NewGroup::of("tree", vec![creator.clone()], 0);
    let delivery = entry(B, 0, &creation(&group, &blank_tree(&creator)));
    let (damage, replies) = Damage::to(
        &federation.target,
        |number| c.is_served(C, &client, number),
        || {
            let wave = || at_once(4, |_| b.deliver("tree", &delivery).unwrap());
            (0..scale()).flat_map(|_| wave()).collect::<Vec<_>>()
        },
    );
    replies.iter().for_each(|reply| is_refused(reply, 422, "invalid-group-info"));
    damage.is_at_most(FACTOR);
    assert!(federation.target.peak_mb() < 400, "{} MB", federation.target.peak_mb());
}

#[test]
fn a_transfer_takes_no_group_of_another_domain() {
    let federation = Federation::alone(|_| ());
    let (b, c, client) = (federation.peer(B), federation.peer(C), federation.client(C));
    let target = &federation.target;
    let own = NewGroup::of("of a", vec![federation.client(A)], 0);
    create(target, &target.attacked, &own);
    let of_c = NewGroup::of("of c", vec![client.clone()], 0);
    let (damage, replies) = Damage::to(
        target,
        |number| c.is_served(C, &client, number),
        || {
            let each = |number: usize| {
                let sequence = u64::try_from(number % 7).unwrap();
                let taken = b.deliver("of c", &transfer(B, sequence, &of_c)).unwrap();
                [taken, b.deliver("of a", &transfer(B, sequence, &own)).unwrap()]
            };
            (0..30 * scale()).flat_map(each).collect::<Vec<_>>()
        },
    );
    damage.is_at_most(FACTOR);
    for reply in &replies {
        assert_eq!(reply.status, 403, "{}", String::from_utf8_lossy(&reply.body));
    }
    assert_eq!(federation.hub("of a"), A);
    let delivered = c.deliver("of c", &entry(C, 0, &creation(&of_c, &of_c.tree()))).unwrap();
    assert_eq!(delivered.status, 200, "{}", String::from_utf8_lossy(&delivered.body));
    assert_eq!(federation.hub("of c"), C);
    assert!(target.peak_mb() < 150, "{} MB", target.peak_mb());
}

#[test]
fn numbers_of_entries_have_an_end_that_is_not_a_full_disk() {
    let federation = Federation::alone(|_| ());
    let (b, c, client) = (federation.peer(B), federation.peer(C), federation.client(C));
    let group = NewGroup::of("late", vec![federation.client(B)], 0);
    let content = proposal(&group, &requiring(0));
    let target = &federation.target;
    let (damage, ()) = Damage::to(
        target,
        |number| c.is_served(C, &client, number),
        || {
            for sequence in [u64::MAX, u64::MAX - 1, SEQUENCE_MAX + 1, SEQUENCE_MAX + 2] {
                let reply = b.deliver("late", &transfer(B, sequence, &group)).unwrap();
                is_refused(&reply, 400, "malformed-request");
                let reply = b.deliver("late", &entry(B, sequence, &json!({ "proposal": content }))).unwrap();
                is_refused(&reply, 400, "malformed-request");
            }
            // The last one that there may be is taken, and nothing after it.
            let reply = b.deliver("late", &transfer(B, SEQUENCE_MAX, &group)).unwrap();
            assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
            for _ in 0..10 * scale() {
                let next = entry(B, SEQUENCE_MAX + 1, &json!({ "proposal": content }));
                is_refused(&b.deliver("late", &next).unwrap(), 400, "malformed-request");
            }
        },
    );
    damage.is_at_most(FACTOR);
    assert!(!target.log().contains("ERROR"), "{}", target.log());
    assert!(target.peak_mb() < 150, "{} MB", target.peak_mb());
}

#[test]
fn key_packages_that_a_peer_claims_leave_others_theirs() {
    const PACKAGES: u64 = 150;
    // Without the rate, which would end the attack before the share does.
    let federation = Federation::alone(|settings| settings.client_rate_requests_max = 0);
    let (b, c) = (federation.peer(B), federation.peer(C));
    let target = &federation.target;
    let account = federation.root.below(A).unwrap().below("alice").unwrap();
    let packages: Vec<_> = (0..PACKAGES)
        .map(|number| {
            let chain = |key: &[u8]| {
                account.certify("phone", ClientKey::Ed25519(key), Duration::from_secs(3600)).unwrap()
            };
            Client::certified(number, chain).key_package()
        })
        .collect();
    let queue = KeyQueue::new(target, &target.attacked, "alice/phone");
    assert_eq!(queue.upload(target, &packages).unwrap().status, 200);
    let of_a = |receiver: &str| format!("{}&domain={A}", queue.assignment(receiver));
    let (damage, statuses) = Damage::to(
        target,
        // Each of these receivers has its package from the first time on.
        |number| succeeded(c.call("GET", &of_a(&format!("bystander-{}", number % 10)), None)),
        || {
            let claim =
                |receiver: usize| b.call("GET", &of_a(&format!("invented-{receiver}")), None).unwrap().status;
            (0..200 * scale()).map(claim).collect::<Vec<_>>()
        },
    );
    damage.is_at_most(FACTOR);
    let of = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    // `key_packages_per_peer_max` is 100.
    assert_eq!((of(200), of(404)), (100, statuses.len() - 100));
    // The application has what is left.
    let reply = target.call(&target.attacked, "GET", &of_a("carol"), None).unwrap();
    assert_eq!((reply.status, &reply.json()["isFinalKey"]), (200, &Value::Bool(false)));
    assert!(target.peak_mb() < 150, "{} MB", target.peak_mb());
}
