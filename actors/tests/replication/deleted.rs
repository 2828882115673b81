//! Deletion of groups: it reaches every gateway, whatever happens on the way, and what was deleted does not come back.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use actors::{
    Clock, Delivery, DeliveryContent, DeliveryError, EntryContent, Epoch, GroupError, GroupId, JoinInfoQuery,
    LogEntry, NewGroup, Retention, Source, Timestamp,
};
use snapshots::{ClientHandle, DomainName};

use crate::{
    members::{client, group_of_all, new_group, package, upload_of},
    net::{Net, domain},
};

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tables in which something of a group may be, besides its id: what is told of it, and what others have as well.
const OTHERS: [&str; 7] = [
    "meta",
    "deleted_groups",
    "events",
    "event_heads",
    "used_key_packages",
    "expiries",
    // Invitations to clients of other gateways, which count for a time.
    "welcome_shares",
];

/// Waits until a gateway has nothing of any group but ids of deleted ones.
async fn await_nothing_left(net: &Net, at: &DomainName) {
    let since = Instant::now();
    loop {
        let counts = net.at(at).store().view().row_counts().unwrap();
        let left: Vec<_> =
            counts.into_iter().filter(|(table, count)| *count > 0 && !OTHERS.contains(table)).collect();
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{at} still has {left:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a gateway knows the group no more.
async fn await_unknown(net: &Net, at: &DomainName, group: &GroupId) {
    let since = Instant::now();
    while net.at(at).group(net.app, group).await.is_ok() {
        assert!(since.elapsed() < PATIENCE, "{at} still has the group");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every request for the group is answered as for one that never was.
async fn assert_unknown(net: &Net, at: &DomainName, group: &GroupId) {
    let (gateway, app) = (net.at(at), net.app);
    let unknown = Some(GroupError::UnknownGroup);
    assert_eq!(gateway.group(app, group).await.err(), unknown);
    assert_eq!(gateway.current_proposals(app, group).await.err(), unknown);
    assert_eq!(gateway.control_messages(app, group, Epoch(1), None, 9).await.err(), unknown);
    assert_eq!(gateway.entries_after(app, group, 0, 9).err(), unknown);
    assert_eq!(gateway.group_events(app, group, None).await.err(), unknown);
    assert_eq!(gateway.group_figures(app, group).err(), unknown);
    let guest = ClientHandle::new("guest0").unwrap();
    assert_eq!(gateway.groups_of_client(app, &guest, None, None, 9).await.unwrap(), []);
}

#[test]
fn a_group_is_deleted_everywhere_also_at_gateways_that_were_away() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example", "c.example", "d.example"], 11);
        let [a, b, c, d] = [0, 1, 2, 3].map(|place| net.domains[place].clone());
        net.start_all().await;
        let (id, mut members) = group_of_all(&net, &a, 0).await;
        net.settle(&a, &id).await;
        // c is away from here on; d stops.
        net.wires.cut_off.lock().unwrap().insert(c.clone());
        net.stop(&d).await;
        let upload = upload_of(&members[0].group.commit(Vec::new()).unwrap());
        net.upload_commit(&a, &id, upload).await.unwrap();
        members[0].group.apply_pending_commit().unwrap();
        let late = upload_of(&members[0].group.commit(Vec::new()).unwrap());

        let refused = net.at(&b).delete_group(net.app, &id).await;
        assert_eq!(refused, Err(GroupError::NotHub { hub: a.clone() }));
        net.at(&a).delete_group(net.app, &id).await.unwrap();
        assert_unknown(&net, &a, &id).await;
        assert_eq!(net.upload_commit(&a, &id, late.clone()).await.err(), Some(GroupError::UnknownGroup));
        net.at(&a).delete_group(net.app, &id).await.unwrap();
        await_unknown(&net, &b, &id).await;
        assert_unknown(&net, &b, &id).await;
        // Also the replica is not brought back, and the hub is named still.
        let refused = net.at(&b).delete_group(net.app, &id).await;
        assert_eq!(refused, Err(GroupError::NotHub { hub: a.clone() }));
        await_nothing_left(&net, &b).await;

        // The hub forgets neither over a restart.
        net.stop(&a).await;
        net.start(&a).await;
        net.start(&d).await;
        net.wires.cut_off.lock().unwrap().clear();
        for away in [&c, &d] {
            await_unknown(&net, away, &id).await;
            assert_unknown(&net, away, &id).await;
            await_nothing_left(&net, away).await;
        }
        assert_eq!(net.upload_commit(&c, &id, late).await.err(), Some(GroupError::UnknownGroup));
        await_nothing_left(&net, &a).await;
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

#[test]
fn a_deletion_that_a_follower_refuses_is_not_sent_again_at_once() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 22);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start_all().await;
        let (_, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        // As one whose clock is behind.
        let refused = || DeliveryError::Refused { slug: "not-from-hub".into(), detail: "too early".into() };
        net.wires.answers.lock().unwrap().extend((0..50).map(|_| Err(refused())));
        net.at(&a).delete_group(net.app, &id).await.unwrap();
        let left = || net.wires.answers.lock().unwrap().len();
        let since = Instant::now();
        while left() == 50 {
            assert!(since.elapsed() < PATIENCE, "the deletion is not sent");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(left() >= 48, "{} were left", left());
        // It waits for the next try, after which the follower has it.
        net.wires.answers.lock().unwrap().clear();
        net.stop(&a).await;
        net.start(&a).await;
        await_unknown(&net, &b, &id).await;
        net.stop_all().await;
    });
}

#[test]
fn a_follower_that_lost_everything_is_told_of_deletions_again() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 21);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start_all().await;
        let (_, new) = new_group(&client("gone", &a));
        let gone = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &gone).await;
        net.settle(&a, &id).await;
        net.at(&a).delete_group(net.app, &gone).await.unwrap();
        await_unknown(&net, &b, &gone).await;
        net.assert_nothing_waits().await;
        net.stop(&b).await;
        net.wipe(&b);
        net.start(&b).await;
        let is_taken = || net.at(&b).store().view().deleted_group(net.app, &gone).unwrap().is_some();
        assert!(!is_taken());
        // Whatever is delivered next tells the hub.
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        net.upload_commit(&a, &id, upload).await.unwrap();
        net.settle(&a, &id).await;
        let since = Instant::now();
        while !is_taken() {
            assert!(since.elapsed() < PATIENCE, "it is not told");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

#[test]
fn an_id_is_taken_until_its_time_is_over_and_every_follower_was_told() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 12);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.retention = Retention { deleted_age_max: Duration::from_millis(1), ..Retention::default() };
        net.retention_period = Duration::from_millis(50);
        net.start_all().await;
        let alice = client("alice", &a);
        let (_, new) = new_group(&alice);
        let create = async || net.at(&a).create_group(net.app, new.clone(), Source::Application).await;
        let id = create().await.unwrap().group;
        net.settle(&a, &id).await;
        net.wires.cut_off.lock().unwrap().insert(b.clone());
        net.at(&a).delete_group(net.app, &id).await.unwrap();
        // Its time is over soon, but b was not told.
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(create().await.err(), Some(GroupError::GroupExists));
        net.wires.cut_off.lock().unwrap().clear();
        let since = Instant::now();
        // Then it is free, here and there.
        while create().await.is_err() {
            assert!(since.elapsed() < PATIENCE, "the id stays taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        net.settle(&a, &id).await;
        net.stop_all().await;
    });
}

/// A delivery of before that comes late creates no replica.
#[test]
fn a_late_delivery_does_not_bring_a_group_back() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 13);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start_all().await;
        let alice = client("alice", &a);
        for is_known in [true, false] {
            let (_, new) = new_group(&alice);
            if !is_known {
                net.wires.cut_off.lock().unwrap().insert(b.clone());
            }
            let id = net.at(&a).create_group(net.app, new.clone(), Source::Application).await.unwrap().group;
            if is_known {
                net.settle(&a, &id).await;
            }
            net.at(&a).delete_group(net.app, &id).await.unwrap();
            net.wires.cut_off.lock().unwrap().clear();
            let since = Instant::now();
            while net.at(&b).store().view().deleted_group(net.app, &id).unwrap().is_none() {
                assert!(since.elapsed() < PATIENCE, "b is not told");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            await_unknown(&net, &b, &id).await;
            let late = |hub: &DomainName, content| Delivery {
                app: net.app,
                group: id.clone(),
                hub: hub.clone(),
                preceding: None,
                content,
            };
            let creation = |new: NewGroup| {
                let (timestamp, content) = (Clock::system().now(), EntryContent::from(new));
                DeliveryContent::Entries(vec![LogEntry { sequence: 0, timestamp, content }])
            };
            let receive = |from: &DomainName, delivery| {
                let (gateway, peer) = (net.at(&b), BTreeSet::from([from.clone()]));
                async move { gateway.receive(&peer, delivery).await }
            };
            let refused = receive(&a, late(&a, creation(new.clone()))).await;
            assert_eq!(refused.err(), Some(GroupError::UnknownGroup));
            let deletion = DeliveryContent::Deletion { timestamp: Timestamp(1) };
            assert_eq!(receive(&a, late(&a, deletion)).await.unwrap().next, 0, "told twice");
            assert_unknown(&net, &b, &id).await;
        }
        net.stop_all().await;
    });
}

/// Only the hub of a group deletes it.
#[test]
fn another_gateway_cannot_delete_a_group() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example", "c.example"], 14);
        let [a, b, c] = [0, 1, 2].map(|place| net.domains[place].clone());
        net.start_all().await;
        let (_, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        for (at, from, named) in [(&b, &c, &c), (&a, &c, &c), (&b, &c, &a)] {
            let delivery = Delivery {
                app: net.app,
                group: id.clone(),
                hub: named.clone(),
                preceding: None,
                content: DeliveryContent::Deletion { timestamp: Timestamp(1) },
            };
            let refused = net.at(at).receive(&BTreeSet::from([from.clone()]), delivery).await;
            assert!(matches!(refused, Err(GroupError::NotFromHub(_))), "{refused:?}");
        }
        for at in [&a, &b, &c] {
            net.at(at).group(net.app, &id).await.unwrap();
        }
        net.stop_all().await;
    });
}

/// A follower of an earlier version keeps the replica; once it is upgraded, it is told.
#[test]
fn a_follower_that_knows_no_deletions_is_told_when_it_does() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 15);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start_all().await;
        let (id, _members) = group_of_all(&net, &a, 0).await;
        let (other, _others) = group_of_all(&net, &a, 1).await;
        net.settle(&a, &id).await;
        net.settle(&a, &other).await;
        net.wires.know_no_deletions.store(true, Ordering::Relaxed);
        net.at(&a).delete_group(net.app, &id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        net.at(&b).group(net.app, &id).await.unwrap();
        // Others of its groups go on.
        let (_, new) = new_group(&client("alice", &a));
        let third = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &third).await;
        net.wires.know_no_deletions.store(false, Ordering::Relaxed);
        // The hub tries again by itself after a while, or at its next start.
        net.stop(&a).await;
        net.start(&a).await;
        await_unknown(&net, &b, &id).await;
        net.at(&b).group(net.app, &other).await.unwrap();
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

/// Commits, deletions and a faulty network at once: nothing is acknowledged after a deletion, and nothing is left.
#[test]
fn deletions_and_commits_on_a_faulty_network_end_the_same_everywhere() {
    for seed in 0..4 {
        println!("seed {seed}");
        actix::System::new().block_on(async {
            let net = Net::new(&["a.example", "b.example", "c.example"], seed);
            let a = domain("a.example");
            net.start_all().await;
            net.wires.are_faulty.store(true, Ordering::Relaxed);
            let mut ids = Vec::new();
            for number in 0..3 {
                let (group, new) = new_group(&client(&format!("creator{number}"), &a));
                let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
                let (gateway, app, of) = (net.at(&a), net.app, id.clone());
                let committing = actix::spawn(async move {
                    let mut group = group;
                    loop {
                        let output = group.commit(Vec::new()).unwrap();
                        match gateway.upload_commit(app, &of, upload_of(&output), Source::Application).await {
                            Ok(_) => group.apply_pending_commit().map(drop).unwrap(),
                            Err(error) => break error,
                        }
                    }
                });
                tokio::time::sleep(Duration::from_millis(20 + 30 * seed)).await;
                net.at(&a).delete_group(net.app, &id).await.unwrap();
                assert_eq!(net.at(&a).group(net.app, &id).await.err(), Some(GroupError::UnknownGroup));
                assert_eq!(committing.await.unwrap(), GroupError::UnknownGroup);
                ids.push(id);
            }
            net.wires.are_faulty.store(false, Ordering::Relaxed);
            net.stop(&a).await;
            net.start(&a).await;
            for at in &net.domains {
                for id in &ids {
                    await_unknown(&net, at, id).await;
                }
                await_nothing_left(&net, at).await;
            }
            net.assert_nothing_waits().await;
            net.stop_all().await;
        });
    }
}

#[test]
fn groups_that_are_idle_too_long_are_deleted_and_others_stay() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 16);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.retention = Retention { group_idle_max: Some(Duration::from_secs(2)), ..Retention::default() };
        net.retention_period = Duration::from_millis(100);
        net.start_all().await;
        let (mut used, new) = new_group(&client("alice", &a));
        let busy = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        let (_, new) = new_group(&client("bob", &a));
        let idle = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &busy).await;
        let (since, mut count) = (Instant::now(), 0);
        while net.at(&a).group(net.app, &idle).await.is_ok() || net.at(&b).group(net.app, &idle).await.is_ok()
        {
            assert!(since.elapsed() < PATIENCE, "the idle group stays");
            // Proposals count as commits do.
            let packet = used.propose_group_context_extensions(Default::default(), vec![count]).unwrap();
            net.upload_proposal(&a, &busy, packet.to_bytes().unwrap()).await.unwrap();
            count += 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        net.at(&a).group(net.app, &busy).await.unwrap();
        let counts = net.at(&a).deletions();
        assert_eq!((counts.idle, counts.requested), (1, 0));
        assert_eq!(net.at(&b).deletions().by_hub, 1);
        net.stop_all().await;
    });
}

/// The welcomes of a deleted group are not delivered, from the moment of its deletion on.
#[test]
fn welcomes_of_a_deleted_group_are_gone() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example"], 17);
        let a = domain("a.example");
        net.start_all().await;
        let bob = client("bob", &a);
        let mut ids = Vec::new();
        for number in 0..3 {
            let (mut group, new) = new_group(&client(&format!("alice{number}"), &a));
            let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
            let output = group.commit_builder().add_member(package(&bob)).unwrap().build().unwrap();
            net.upload_commit(&a, &id, upload_of(&output)).await.unwrap();
            ids.push(id);
        }
        let waiting = async || {
            let query = JoinInfoQuery { domain: None, after: None, with_ratchet_tree: true, limit: 1 };
            let handle = ClientHandle::new("bob").unwrap();
            let page = net.at(&a).welcomes(net.app, &handle, query).await.unwrap();
            (page.join_infos.into_iter().map(|info| info.group).collect::<Vec<_>>(), page.has_more)
        };
        assert_eq!(waiting().await, (vec![ids[0].clone()], true));
        net.at(&a).delete_group(net.app, &ids[0]).await.unwrap();
        net.at(&a).delete_group(net.app, &ids[1]).await.unwrap();
        assert_eq!(waiting().await, (vec![ids[2].clone()], false));
        net.at(&a).delete_group(net.app, &ids[2]).await.unwrap();
        assert_eq!(waiting().await, (vec![], false));
        await_nothing_left(&net, &a).await;
        net.stop_all().await;
    });
}

#[test]
fn space_is_given_back_once_in_a_period() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example"], 8);
        let a = domain("a.example");
        net.retention = Retention { compaction_period: Duration::from_millis(1), ..Retention::default() };
        net.retention_period = Duration::from_millis(20);
        net.start(&a).await;
        let given_back_at = || net.at(&a).store().space_given_back_at().unwrap();
        let mut times = BTreeSet::new();
        let since = Instant::now();
        // The first one is the start of the first period.
        while times.len() < 3 {
            assert!(since.elapsed() < Duration::from_secs(30), "{times:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
            times.extend(given_back_at());
        }
        net.stop_all().await;
        // A day is not over yet when it is started again.
        net.retention = Retention::default();
        net.start(&a).await;
        let last = net.at(&a).store().space_given_back_at().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(net.at(&a).store().space_given_back_at().unwrap(), last);
        net.stop_all().await;
    });
}
