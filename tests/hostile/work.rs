//! Validation work: messages that are expensive to validate. That large groups which are idle are passivated is tested in
//! `actors/tests/passivation.rs`: in the memory of the process, what the allocator keeps hides a dozen of them.

use std::time::Duration;

use mimi_gateway::tools::pki::{CertificateAuthority, ClientKey};
use serde_json::Value;

use crate::{
    bystander::Damage,
    messages::{Client, NewGroup, requiring, vector},
    packets::{KeyQueue, adding, create, group_path, new_group, proposal, write_to_groups},
    support::Setup,
    target::{Application, Reply, Target, at_once, scale},
};

/// What a bystander's requests to groups may take, as a multiple of what they take while all is quiet: two cores do the
/// attacker's work as well.
const FACTOR: u32 = 40;

#[track_caller]
pub(crate) fn is_refused(reply: &Reply, status: u16, slug: &str) {
    assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.slug(), slug, "{}", String::from_utf8_lossy(&reply.body));
}

fn put(target: &Target, application: &Application, path: &str, body: &str) -> Reply {
    target.call(application, "PUT", path, Some(body)).unwrap()
}

/// A tree of a leaf, as many blank nodes as there is room for, and a leaf.
pub(crate) fn blank_tree(client: &Client) -> Vec<u8> {
    let leaf = [&[1, 1], client.leaf(0).as_slice()].concat();
    vector(&[leaf.as_slice(), &[0; (8 << 20) - 20_001], &leaf].concat())
}

#[test]
fn a_new_group_of_blank_nodes_is_refused_before_they_are_read() {
    let target = Target::start("", "");
    let group = NewGroup::new(1, 0);
    let body = new_group(&group, &blank_tree(&Client::new(0))).to_string();
    let (damage, replies) = Damage::to(
        &target,
        |number| write_to_groups(&target, number),
        || {
            let wave = || at_once(4, |_| put(&target, &target.attacked, "/groups", &body));
            (0..scale()).flat_map(|_| wave()).collect::<Vec<_>>()
        },
    );
    replies.iter().for_each(|reply| is_refused(reply, 422, "invalid-group-info"));
    damage.is_at_most(FACTOR);
    assert!(target.peak_mb() < 400, "{} MB", target.peak_mb());
}

#[test]
fn required_types_are_looked_up_among_those_of_a_leaf_in_one_pass() {
    const TYPES: usize = 100_000;
    let target = Target::start("", "");
    let packets: Vec<_> = (0..4 * scale())
        .map(|number| {
            let id = format!("group {number}");
            let group = NewGroup::of(&id, vec![Client::new(0)], TYPES);
            create(&target, &target.attacked, &group);
            (group_path(&id) + "/proposals", proposal(&group, &requiring(TYPES)).to_string())
        })
        .collect();
    let (damage, replies) = Damage::to(
        &target,
        |number| write_to_groups(&target, number),
        || {
            let wave = |wave: &[(String, String)]| {
                at_once(wave.len(), |number| put(&target, &target.attacked, &wave[number].0, &wave[number].1))
            };
            packets.chunks(4).flat_map(wave).collect::<Vec<_>>()
        },
    );
    for reply in replies {
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    }
    damage.is_at_most(FACTOR);
    assert!(target.peak_mb() < 300, "{} MB", target.peak_mb());
}

/// A commit of many Adds that is refused for its last one, and the same without a welcome.
fn expensive_commits(group: &NewGroup) -> [Value; 2] {
    let mut packages: Vec<_> = (1..=100).map(|number| Client::new(number).key_package()).collect();
    let signature = packages.last_mut().unwrap().last_mut().unwrap();
    *signature ^= 1;
    let forged = adding(group, &packages);
    let mut alone = forged.clone();
    alone.as_object_mut().unwrap().remove("welcomePacket");
    [forged, alone]
}

#[test]
fn refused_commits_of_one_application_do_not_delay_another() {
    let target = Target::start("", "");
    let group = NewGroup::new(1, 0);
    create(&target, &target.attacked, &group);
    let path = group_path("group") + "/epochs";
    let [forged, alone] = expensive_commits(&group).map(|body| body.to_string());
    let (damage, replies) = Damage::to(
        &target,
        |number| write_to_groups(&target, number),
        || {
            let each = |number: usize| {
                let body = if number.is_multiple_of(2) { &forged } else { &alone };
                (0..scale()).map(|_| put(&target, &target.attacked, &path, body)).collect::<Vec<_>>()
            };
            at_once(60, each)
        },
    );
    for (number, replies) in replies.iter().enumerate() {
        let slug = if number.is_multiple_of(2) { "invalid-commit" } else { "welcome-missing" };
        replies.iter().for_each(|reply| is_refused(reply, 422, slug));
    }
    damage.is_at_most(FACTOR);
    assert!(target.peak_mb() < 200, "{} MB", target.peak_mb());
}

#[test]
fn certificate_chains_that_nobody_signed_cost_little() {
    // Every issuer has the name of the root, and none its key.
    let [root, impostor] = [0, 1].map(|_| CertificateAuthority::root("alice", 7).unwrap());
    let target = Target::of(&Setup::x509(&root.pem(), &["a.example"], &[]));
    let issuer = (0..6).fold(impostor, |above, _| above.below("alice").unwrap());
    let packages: Vec<_> = (0..100)
        .map(|number| {
            let chain = |key: &[u8]| {
                issuer.certify("phone", ClientKey::Ed25519(key), Duration::from_secs(3600)).unwrap()
            };
            Client::certified(number, chain).key_package()
        })
        .collect();
    let queue = KeyQueue::new(&target, &target.attacked, "alice/phone");
    let (damage, replies) = Damage::to(
        &target,
        |number| write_to_groups(&target, number),
        || {
            at_once(4, |_| {
                let upload = |_| queue.upload(&target, &packages).unwrap();
                (0..scale()).map(upload).collect::<Vec<_>>()
            })
        },
    );
    replies.iter().flatten().for_each(|reply| is_refused(reply, 422, "invalid-key-package"));
    damage.is_at_most(FACTOR);
    assert!(target.peak_mb() < 200, "{} MB", target.peak_mb());
}

#[test]
fn a_gateway_with_much_to_validate_stops_in_time() {
    let mut target = Target::start("shutdown_timeout_s = 1", "");
    let group = NewGroup::new(1, 0);
    create(&target, &target.attacked, &group);
    let [forged, _] = expensive_commits(&group);
    let request = crate::target::request(
        &target.attacked,
        "PUT",
        &(group_path("group") + "/epochs"),
        Some(&forged.to_string()),
    );
    // No client waits for the answers, and no connection is closed.
    let asked: Vec<_> = (0..200 * scale())
        .map(|_| {
            let mut stream = target.connect();
            std::io::Write::write_all(&mut stream, &request).unwrap();
            stream
        })
        .collect();
    let (took, code) = target.terminate(Duration::from_secs(30));
    println!("it stopped after {took:?}, asked for {} validations", asked.len());
    // Requests have a second, what is written after them has another one, and threads a moment each.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(code, Some(0), "{}", target.log());
}
