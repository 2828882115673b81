//! Key packages and welcomes of one client: a hostile caller takes as many packages, and leaves as many welcomes, as it can.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    bystander::Damage,
    messages::{Client, NewGroup},
    packets::{KeyQueue, adding, create, group_path},
    target::{Target, at_once, scale},
    work::is_refused,
};

/// What a bystander's requests may take, as a multiple of what they take while all is quiet.
const FACTOR: u32 = 20;

/// Queues that hold 4 MiB, and are written as snapshots every second.
const SMALL_QUEUES: &str = "[limits]\nkey_queue_bytes_max = 4194304\n[durability]\nbatch_bytes_max = 6291456\n\
                            [passivation]\nsnapshot_period_s = 1";

/// Uploads packages of about 30 kB until the queue takes no more of them; answers how many it has taken.
fn fill(target: &Target, queue: &KeyQueue, handle: &str) -> usize {
    let mut taken = 0;
    for upload in 0_u64.. {
        let packages =
            (0..25).map(|number| Client::named(25 * upload + number, handle).key_package_of(15_000));
        let packages: Vec<_> = packages.collect();
        let reply = queue.upload(target, &packages).unwrap();
        if reply.status != 200 {
            is_refused(&reply, 422, "limit-reached");
            break;
        }
        taken += packages.len();
    }
    taken
}

#[test]
fn a_queue_is_full_when_its_packages_have_so_many_bytes() {
    let target = Target::start("", SMALL_QUEUES);
    let bystander = KeyQueue::new(&target, &target.attacked, "bystander");
    let names: Vec<String> = (0..2 * scale()).map(|number| format!("client-{number}")).collect();
    let queues: Vec<_> = names.iter().map(|name| KeyQueue::new(&target, &target.attacked, name)).collect();
    let (damage, taken) = Damage::to(
        &target,
        |number| bystander.is_used(&target, number),
        || {
            at_once(2, |half| {
                let own = (half..queues.len()).step_by(2);
                own.map(|number| fill(&target, &queues[number], &names[number])).collect::<Vec<_>>()
            })
        },
    );
    // 4 MiB have room for 136 of them, and the limit on their number is 1000.
    assert!(taken.iter().flatten().all(|taken| *taken == 125), "{taken:?}");
    damage.is_at_most(FACTOR);
    // An unoptimised build takes 140 to 175 MB, as other tests run beside it or not.
    let bound = 180 + 20 * scale() as u64;
    assert!(target.peak_mb() < bound, "{} MB", target.peak_mb());
}

#[test]
fn snapshots_of_a_full_queue_are_written_and_delay_no_other() {
    let target = Target::start("", SMALL_QUEUES);
    let bystander = KeyQueue::new(&target, &target.attacked, "bystander");
    let full = KeyQueue::new(&target, &target.attacked, "full");
    let taken = fill(&target, &full, "full");
    let (damage, ()) = Damage::to(
        &target,
        |number| bystander.is_used(&target, number),
        || {
            // Each assignment changes the queue, so that each period has a snapshot to write.
            let since = Instant::now();
            for receiver in 0..taken {
                let reply = full.assign(&target, &receiver.to_string()).unwrap();
                assert_eq!((reply.status, &reply.json()["isFinalKey"]), (200, &Value::Bool(false)));
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_millis(2500 * scale() as u64).saturating_sub(since.elapsed()));
        },
    );
    damage.is_at_most(FACTOR);
    assert!(target.peak_mb() < 150, "{} MB", target.peak_mb());
    let log = target.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// The ids of the groups that a client is invited to.
fn invitations(target: &Target, handle: &str) -> Vec<String> {
    let path = format!("/clients/{handle}/welcome-msgs?ratchetTree=false&limit=1000");
    let reply = target.call(&target.attacked, "GET", &path, None).unwrap();
    let infos = reply.json()["joinInfos"].as_array().unwrap().clone();
    infos.iter().map(|info| info["groupId"].as_str().unwrap().to_owned()).collect()
}

/// Invites the victim to a new group of an inviter; the status of the answer. No two have the same numbers.
fn invite(target: &Target, inviter: &Client, number: u64) -> u16 {
    let id = format!("group {number}");
    let group = NewGroup::of(&id, vec![inviter.clone()], 0);
    create(target, &target.attacked, &group);
    let commit = adding(&group, &[Client::named(1000 + number, "victim").key_package()]).to_string();
    let reply = target.call(&target.attacked, "PUT", &(group_path(&id) + "/epochs"), Some(&commit)).unwrap();
    if reply.status != 201 {
        is_refused(&reply, 429, "too-many-welcomes");
        assert_eq!(reply.json()["clientHandle"], "victim");
    }
    reply.status
}

#[test]
fn invitations_of_strangers_do_not_take_the_place_of_others() {
    let limits = "[limits]\nwelcomes_per_client_max = 60\nwelcomes_per_inviter_max = 20\n\
                  welcomes_reserved_max = 5\n[retention]\nperiod_s = 1";
    let target = Target::start("", limits);
    // The application knows the friend by a key package; strangers are made up.
    let friend = Client::named(1, "friend");
    let queue = KeyQueue::new(&target, &target.attacked, "friend");
    assert_eq!(queue.upload(&target, &[friend.key_package()]).unwrap().status, 200);
    assert_eq!(invite(&target, &friend, 0), 201);
    let first = invitations(&target, "victim");
    assert_eq!(first.len(), 1);
    let (damage, statuses) = Damage::of(&target, || {
        at_once(2, |half| {
            let strangers = (half as u64..6 * scale() as u64).step_by(2);
            let invited = strangers.flat_map(|stranger| (1..=22).map(move |number| (stranger, number)));
            let invite = |(stranger, number)| {
                let inviter = Client::named(2 + stranger, &format!("stranger {stranger}"));
                invite(&target, &inviter, 100 * (1 + stranger) + number)
            };
            invited.map(invite).collect::<Vec<_>>()
        })
    });
    let accepted = statuses.iter().flatten().filter(|status| **status == 201).count();
    assert_eq!(accepted, 59, "together with the friend's they are as many as may wait");
    damage.is_at_most(FACTOR);
    assert!(target.peak_mb() < 150, "{} MB", target.peak_mb());
    // The first welcome is still first, and a known client may leave another one.
    let waiting = invitations(&target, "victim");
    assert_eq!((waiting.len(), &waiting[0]), (60, &first[0]));
    assert_eq!(invite(&target, &friend, 1), 201);
    assert_eq!(invitations(&target, "victim").len(), 61);
}
