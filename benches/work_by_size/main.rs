//! The cost of a message by its size: each rule that costs the gateway work, with inputs of n, 2n, 4n and 8n.
//!
//! `cargo bench --bench work_by_size` prints a table and fails when something grows faster than n·log n does. Only
//! times of one run are compared with each other.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that meets what it does not expect has failed"
)]

#[expect(dead_code, reason = "the tests of attacks use the rest")]
mod messages;

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use actors::{
    AppId, Application, CommitBundle, GroupError, Timestamp, identity::x509::TrustStore, observer::Observer,
};
use messages::{Client, NewGroup, add, requiring, setting, update, vector, welcome};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// The tolerance for growth above n·log n, for other load, caches and constant costs.
const SLACK: f64 = 2.0;

/// The number of runs; the shortest counts.
const RUNS: usize = 7;

/// A rule, the smallest n, and the measured function; its input is prepared before.
struct Case {
    rule: &'static str,
    n: usize,
    prepare: fn(usize) -> Box<dyn FnMut()>,
}

const CASES: &[Case] = &[
    Case { rule: "required types, looked up among as many of a leaf", n: 50_000, prepare: required_types },
    Case { rule: "members who are asked for a hundred required types", n: 50, prepare: required_of_members },
    Case {
        rule: "extensions of a context, and as many types of a leaf (refused)",
        n: 4_000,
        prepare: extensions_and_types,
    },
    Case { rule: "proposal types that nobody knows (refused)", n: 128, prepare: unknown_types },
    Case { rule: "references that nobody knows (refused)", n: 128, prepare: unknown_references },
    Case { rule: "Adds whose welcome is missing (refused)", n: 128, prepare: adds_without_welcome },
    Case { rule: "Adds with their welcome", n: 16, prepare: adds },
    Case { rule: "blank nodes of a tree (refused)", n: 1_000_000, prepare: blank_nodes },
    Case { rule: "leaves of a tree", n: 32, prepare: leaves },
    Case { rule: "extensions before the byte that does not belong (refused)", n: 20_000, prepare: misfit },
    Case {
        rule: "lists of the name of a chain that nobody signed (refused)",
        n: 25,
        prepare: unsigned_chain,
    },
    Case { rule: "entries of a revocation list that was seen before", n: 1_000, prepare: known_list },
];

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(now.as_millis()).unwrap())
}

fn observe(group_info: &[u8], tree: &[u8]) -> Result<Observer, GroupError> {
    Observer::open(Application::basic(AppId::random()), group_info, Some(tree), now())
}

fn open(group: &NewGroup) -> Observer {
    observe(&group.group_info(), &group.tree()).unwrap()
}

/// Observers in one state, one for each run.
fn several(snapshot: &[u8]) -> Vec<Observer> {
    let restore = |_| Observer::restore(Application::basic(AppId::random()), snapshot).unwrap();
    (0..=RUNS).map(restore).collect()
}

fn refused(result: Result<impl Sized, GroupError>, part: &str) {
    let reason = format!("{:?}", result.err().unwrap());
    assert!(reason.contains(part), "{part} is not in {reason}");
}

/// Refuses a commit without group info and welcome.
fn refusing(group: NewGroup, commit: Vec<u8>, part: &'static str) -> Box<dyn FnMut()> {
    let (tracked, bundle) = (open(&group), CommitBundle { commit, group_info: None, welcome: None });
    Box::new(move || refused(tracked.stage(&bundle, now()), part))
}

fn required_types(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, n);
    let packet = group.public(&[vec![2], requiring(n)].concat());
    let snapshot = open(&group).snapshot().unwrap();
    let mut fresh = several(&snapshot);
    Box::new(move || drop(fresh.pop().unwrap().propose(&packet, now()).unwrap()))
}

fn required_of_members(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(n, 400);
    let packet = group.public(&[vec![2], requiring(100)].concat());
    let snapshot = open(&group).snapshot().unwrap();
    let mut fresh = several(&snapshot);
    Box::new(move || drop(fresh.pop().unwrap().propose(&packet, now()).unwrap()))
}

fn extensions_and_types(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, 0);
    let commit = group.commit([setting(n), update(Client::new(0).leaf(40 * n))]);
    let (tracked, bundle) = (open(&group), CommitBundle { commit, group_info: None, welcome: None });
    Box::new(move || {
        // The smaller ones are compared, and refused because the leaf is the committer's own.
        assert!(tracked.stage(&bundle, now()).is_err());
    })
}

fn unknown_types(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, 0);
    let proposals =
        (0..n).map(|at| [&(0xf000 + u16::try_from(at).unwrap()).to_be_bytes()[..], &[0]].concat());
    let commit = group.commit(proposals);
    refusing(group, commit, "UnknownKind")
}

fn unknown_references(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, 0);
    let list: Vec<u8> = (0..n)
        .flat_map(|at| {
            [vec![2], vector(&[&[7; 24], &u64::try_from(at).unwrap().to_be_bytes()[..]].concat())].concat()
        })
        .collect();
    let commit = group.public(&[vec![3], vector(&list), vec![0]].concat());
    refusing(group, commit, "KnownProposals")
}

fn adds_without_welcome(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, 0);
    let package = Client::new(1).key_package();
    let commit = group.commit((0..n).map(|_| add(package.clone())));
    refusing(group, commit, "WelcomeMissing")
}

fn adds(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, 0);
    let packages: Vec<_> =
        (1..=u64::try_from(n).unwrap()).map(|number| Client::new(number).key_package()).collect();
    let commit = group.commit(packages.iter().cloned().map(add));
    let bundle = CommitBundle { commit, group_info: None, welcome: Some(welcome(&packages)) };
    let tracked = open(&group);
    Box::new(move || drop(black_box(tracked.stage(&bundle, now()).unwrap())))
}

fn blank_nodes(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, 0);
    let (info, tree) = (group.group_info(), vector(&vec![0; n]));
    Box::new(move || refused(observe(&info, &tree), "nodes"))
}

fn leaves(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(n, 0);
    let (info, tree) = (group.group_info(), group.tree());
    Box::new(move || drop(black_box(observe(&info, &tree).unwrap())))
}

fn misfit(n: usize) -> Box<dyn FnMut()> {
    let group = NewGroup::new(1, 0);
    let (info, tree) = (group.followed_group_info(n.min(0xe000)), group.tree());
    // A list may name a type only once, so a list longer than the number of types is refused at the first repetition.
    let info = if n > 0xe000 { group.followed_group_info(n) } else { info };
    Box::new(move || refused(observe(&info, &tree), "Malformed"))
}

/// A certificate authority, or a device below one.
struct Entity {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

impl Entity {
    fn new(name: &str, is_ca: bool, issuer: Option<&Self>) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2035, 1, 1));
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = match issuer {
            Some(issuer) => {
                params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)).unwrap()
            }
            None => params.self_signed(&key).unwrap(),
        };
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    fn list(&self, entries: usize) -> Vec<u8> {
        let revoked = (0..u32::try_from(entries).unwrap()).map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial.to_be_bytes().to_vec()),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2035, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }
}

/// A time at which the certificates are valid, independent of the machine's clock.
const WITHIN: Timestamp = Timestamp(1_790_000_000_000);

fn unsigned_chain(n: usize) -> Box<dyn FnMut()> {
    let root = Entity::new("alice", true, None);
    let lists: Vec<_> = (0..n).map(|_| Entity::new("alice", true, None).list(10)).collect();
    let store = TrustStore::new(root.pem.as_bytes(), &lists).unwrap();
    let mut chain = vec![Entity::new("alice", true, None)];
    for _ in 0..5 {
        chain.push(Entity::new("alice", true, chain.last()));
    }
    chain.push(Entity::new("phone", false, chain.last()));
    Box::new(move || {
        let ders: Vec<&[u8]> = chain.iter().rev().map(|entity| entity.der.as_slice()).collect();
        assert!(store.validate(&ders, WITHIN).is_err());
    })
}

fn known_list(n: usize) -> Box<dyn FnMut()> {
    let root = Entity::new("root", true, None);
    let store = TrustStore::new(root.pem.as_bytes(), &[root.list(n)]).unwrap();
    let device = Entity::new("phone", false, Some(&root));
    Box::new(move || store.validate(&[&device.der], WITHIN).unwrap())
}

/// Longer than a time slice of the scheduler, which is also the precision of processor times.
const TURN: Duration = Duration::from_millis(8);

/// The processor time of this thread, if the system tells.
fn processor_time() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = counted.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

fn measure(case: &Case, n: usize) -> Duration {
    let mut run = (case.prepare)(n);
    run();
    let timed = |_| {
        let (started, on_processor) = (Instant::now(), processor_time());
        run();
        let (took, processor) = (started.elapsed(), processor_time().saturating_sub(on_processor));
        // Work longer than a time slice shares the processor with other threads.
        if took > TURN && processor > Duration::ZERO { processor.min(took) } else { took }
    };
    (0..RUNS).map(timed).min().unwrap()
}

fn main() -> ExitCode {
    println!(
        "{:<64} {:>9} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "rule", "n", "n", "2n", "4n", "8n", "growth", "n·log n"
    );
    let mut grows = Vec::new();
    for case in CASES {
        let times = [1, 2, 4, 8].map(|factor| measure(case, factor * case.n));
        let growth = times[3].as_secs_f64() / times[0].as_secs_f64();
        let n = f64::from(u32::try_from(case.n).unwrap());
        let expected = 8.0 * (8.0 * n).ln() / n.ln();
        let shown = times.map(|time| format!("{:.1?}", time));
        println!(
            "{:<64} {:>9} {:>10} {:>10} {:>10} {:>10} {:>8.1} {:>8.1}",
            case.rule, case.n, shown[0], shown[1], shown[2], shown[3], growth, expected
        );
        if growth > SLACK * expected {
            grows.push(case.rule);
        }
    }
    if grows.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("grows faster than n·log n: {}", grows.join("; "));
    ExitCode::FAILURE
}
