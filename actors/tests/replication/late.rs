//! Late followers: gateways that were away for long, or are new.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use actors::{Epoch, GroupError, JoinInfoQuery, Retention, Source};

use crate::{
    handed_over::until_history,
    members::{client, client_with, new_group, package, upload_of},
    net::{Net, domain},
};

/// A gateway that joins when a group has a history gets all of it when it is kept, else the group as it stands.
async fn join_late(retention: Retention, first_kept: Epoch) {
    let mut net = Net::new(&["a.example", "b.example"], 3);
    let (a, b) = (domain("a.example"), domain("b.example"));
    net.retention = retention;
    // No peer yet.
    net.friends.insert(a.clone(), BTreeSet::from([domain("nobody.example")]));
    net.start(&a).await;
    let alice = client("alice", &a);
    let (mut group, new) = new_group(&alice);
    let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
    for _ in 0..6 {
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        net.upload_commit(&a, &id, upload).await.unwrap();
        group.apply_pending_commit().unwrap();
    }
    let bob = client("bob", &domain("nobody.example"));
    let output = group.commit_builder().add_member(package(&bob)).unwrap().build().unwrap();
    net.upload_commit(&a, &id, upload_of(&output)).await.unwrap();
    group.apply_pending_commit().unwrap();
    let proposal = group.propose_group_context_extensions(Default::default(), Vec::new()).unwrap();
    net.upload_proposal(&a, &id, proposal.to_bytes().unwrap()).await.unwrap();
    net.sweep(&a, &id).await;
    net.stop(&a).await;

    net.friends.clear();
    net.start_all().await;
    net.settle(&a, &id).await;
    let epoch = net.assert_same(&a, &id, first_kept).await;
    assert_eq!(epoch, Epoch(7));
    let view = net.at(&b).group(net.app, &id).await.unwrap();
    assert_eq!((view.members_count(), view.proposals.len()), (2, 1));
    let handle = actors::ClientHandle::new("bob").unwrap();
    let listed =
        net.at(&b).store().view().groups_of(net.app, &handle, Some(&domain("nobody.example")), None, 10);
    assert_eq!(listed.unwrap().len(), 1);

    // It continues from there, also after both were started again.
    for _ in 0..2 {
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        net.upload_commit(&b, &id, upload).await.unwrap();
        group.apply_pending_commit().unwrap();
        net.settle(&a, &id).await;
        net.stop_all().await;
        net.start_all().await;
    }
    assert_eq!(net.assert_same(&a, &id, Epoch(8)).await, Epoch(9));
    net.assert_nothing_waits().await;
    net.stop_all().await;
}

#[test]
fn a_gateway_that_joins_late_gets_the_whole_log() {
    actix::System::new().block_on(join_late(Retention::default(), Epoch(0)));
}

#[test]
fn a_gateway_that_joins_after_the_history_was_dropped_gets_the_group_as_it_stands() {
    let short = Retention { history_epochs_max: 2, ..Retention::default() };
    actix::System::new().block_on(join_late(short, Epoch(8)));
}

#[test]
fn a_replica_that_fell_behind_what_is_kept_is_replaced() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 4);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.retention = Retention { history_epochs_max: 2, ..Retention::default() };
        net.start_all().await;
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        let bob = client("bob", &b);
        let output = group.commit_builder().add_member(package(&bob)).unwrap().build().unwrap();
        net.upload_commit(&a, &id, upload_of(&output)).await.unwrap();
        group.apply_pending_commit().unwrap();
        let tree_of_bob = group.export_tree().to_bytes().unwrap();
        let mut commit = async |net: &Net| {
            let upload = upload_of(&group.commit(Vec::new()).unwrap());
            net.upload_commit(&a, &id, upload).await.unwrap();
            group.apply_pending_commit().unwrap();
        };
        commit(&net).await;
        net.settle(&a, &id).await;
        net.stop(&b).await;
        for _ in 0..6 {
            commit(&net).await;
        }
        net.sweep(&a, &id).await;
        net.start(&b).await;
        net.settle(&a, &id).await;
        assert_eq!(net.assert_same(&a, &id, Epoch(9)).await, Epoch(8));
        // A welcome of the replaced replica keeps its tree.
        let query = JoinInfoQuery { domain: None, after: None, with_ratchet_tree: true, limit: 10 };
        let handle = actors::ClientHandle::new("bob").unwrap();
        let waiting = net.at(&b).welcomes(net.app, &handle, query).await.unwrap().join_infos;
        let trees: Vec<_> = waiting.iter().map(|info| info.ratchet_tree.clone().unwrap().to_vec()).collect();
        assert_eq!(trees, [tree_of_bob]);
        // What was before the gap is gone, not shown as if it went on.
        let pruned = net.at(&b).control_messages(net.app, &id, Epoch(1), None, 100).await;
        assert!(pruned.is_err(), "{pruned:?}");
        commit(&net).await;
        net.settle(&a, &id).await;
        net.assert_same(&a, &id, Epoch(9)).await;
        net.assert_nothing_waits().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        net.stop_all().await;
    });
}

#[test]
fn a_commit_costs_one_delivery_to_each_peer() {
    const COMMITS: u64 = 20;
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example", "c.example"], 5);
        net.start_all().await;
        let a = domain("a.example");
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        let before = net.wires.delivered.load(Ordering::Relaxed);
        for _ in 0..COMMITS {
            let upload = upload_of(&group.commit(Vec::new()).unwrap());
            net.upload_commit(&a, &id, upload).await.unwrap();
            group.apply_pending_commit().unwrap();
            net.settle(&a, &id).await;
        }
        net.assert_nothing_waits().await;
        let deliveries = net.wires.delivered.load(Ordering::Relaxed) - before;
        assert_eq!(deliveries, COMMITS * 2);
        net.stop_all().await;
    });
}

#[test]
fn a_replica_that_was_handed_its_group_knows_what_it_does_not_know() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 6);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.retention = Retention { history_epochs_max: 2, ..Retention::default() };
        net.start_all().await;
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        net.stop(&b).await;
        let mut winners = Vec::new();
        for _ in 0..6 {
            let upload = upload_of(&group.commit(Vec::new()).unwrap());
            net.upload_commit(&a, &id, upload.clone()).await.unwrap();
            group.apply_pending_commit().unwrap();
            winners.push(upload);
        }
        net.sweep(&a, &id).await;
        for (after, kept) in [(0, None), (3, None), (4, Some(2)), (5, Some(1)), (6, Some(0)), (7, None)] {
            let found = net.at(&a).entries_after(net.app, &id, after, 10).unwrap();
            assert_eq!((found.newest, found.entries.map(|entries| entries.len())), (6, kept), "{after}");
        }
        net.start(&b).await;
        net.settle(&a, &id).await;
        // What the hub still had of the history is here; what it had not is not, and nothing says that it is.
        until_history(&net, &b, &id, Epoch(5)).await;
        let kept = net.at(&b).control_messages(net.app, &id, Epoch(5), None, 10).await.unwrap();
        assert_eq!(kept, net.at(&a).control_messages(net.app, &id, Epoch(5), None, 10).await.unwrap());
        let missing = net.at(&b).control_messages(net.app, &id, Epoch(4), None, 10).await;
        assert_eq!(missing, Err(GroupError::EpochsPruned { floor: Epoch(5) }));
        let later = net.at(&b).control_messages(net.app, &id, Epoch(7), None, 10).await.unwrap();
        assert_eq!((later.epochs.len(), later.current), (0, Epoch(6)));
        // Whether a commit won, the hub knows.
        for (epoch, winner) in (1..).zip(winners) {
            let again = net.upload_commit(&b, &id, winner).await.map(|again| (again.epoch, again.outcome));
            let expected = if epoch < 5 {
                Err(GroupError::StaleEpoch { packet: Epoch(epoch - 1), current: Epoch(6) })
            } else {
                Ok((Epoch(epoch), actors::Outcome::Repeated))
            };
            assert_eq!(again, expected);
        }
        net.stop_all().await;
    });
}

#[test]
fn a_group_whose_creator_came_long_ago_arrives_as_it_stands() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 7);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start(&a).await;
        let alice = client_with("alice", &a, Duration::from_secs(2));
        let (mut group, new) = new_group(&alice);
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        // Her leaf is renewed by her commit, and the creation cannot be validated any more.
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        net.upload_commit(&a, &id, upload).await.unwrap();
        group.apply_pending_commit().unwrap();
        tokio::time::sleep(Duration::from_millis(3500)).await;
        net.start(&b).await;
        net.settle(&a, &id).await;
        assert_eq!(net.assert_same(&a, &id, Epoch(2)).await, Epoch(1));
        net.stop_all().await;
    });
}

/// A follower that was away until every lifetime had ended, those of leaves that are still in the tree included.
async fn away_for_longer_than_every_lifetime(retention: Retention, first_kept: Epoch) {
    let mut net = Net::new(&["a.example", "b.example"], 12);
    net.retention = retention;
    let (a, b) = (domain("a.example"), domain("b.example"));
    let short = Duration::from_secs(2);
    net.start_all().await;
    let (mut group, new) = new_group(&client_with("alice", &a, short));
    let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
    net.settle(&a, &id).await;
    net.stop(&b).await;
    // Neither leaf is renewed: no commit has a path.
    for name in ["bob", "carol"] {
        let package = package(&client_with(name, &a, short));
        let output = group.commit_builder().add_member(package).unwrap().build().unwrap();
        net.upload_commit(&a, &id, upload_of(&output)).await.unwrap();
        group.apply_pending_commit().unwrap();
    }
    let waiting = group.propose_add(package(&client_with("erin", &a, short)), Vec::new()).unwrap();
    net.upload_proposal(&a, &id, waiting.to_bytes().unwrap()).await.unwrap();
    net.sweep(&a, &id).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;

    net.start(&b).await;
    net.settle(&a, &id).await;
    until_history(&net, &b, &id, first_kept.max(Epoch(1))).await;
    let epoch = net.assert_same(&a, &id, first_kept).await;
    assert_eq!(epoch, Epoch(2));
    let view = net.at(&b).group(net.app, &id).await.unwrap();
    assert_eq!((view.members_count(), view.proposals.len()), (3, 1));
    group.clear_proposal_cache();
    let upload = upload_of(&group.commit(Vec::new()).unwrap());
    net.upload_commit(&b, &id, upload).await.unwrap();
    net.settle(&a, &id).await;
    assert_eq!(net.assert_same(&a, &id, Epoch(3)).await, Epoch(3));
    net.stop_all().await;
}

#[test]
fn a_follower_that_was_away_for_longer_than_every_lifetime_follows_the_log() {
    actix::System::new().block_on(away_for_longer_than_every_lifetime(Retention::default(), Epoch(0)));
}

#[test]
fn a_follower_that_was_away_for_longer_than_every_lifetime_takes_the_group_as_it_stands() {
    let short = Retention { history_epochs_max: 1, ..Retention::default() };
    actix::System::new().block_on(away_for_longer_than_every_lifetime(short, Epoch(2)));
}

#[test]
fn a_transfer_brings_the_welcome_and_advances_the_queue() {
    actix::System::new().block_on(welcomed_by_a_transfer(false));
}

#[test]
fn a_transfer_brings_the_welcome_of_a_package_that_was_dropped_after_its_assignment() {
    actix::System::new().block_on(welcomed_by_a_transfer(true));
}

async fn welcomed_by_a_transfer(is_dropped: bool) {
    let mut net = Net::new(&["a.example", "b.example"], 8);
    net.retention.history_epochs_max = 1;
    net.retention.assignment_age_max = is_dropped.then_some(Duration::from_millis(1));
    let (a, b) = (domain("a.example"), domain("b.example"));
    net.start_all().await;
    let carol = client("carol", &b);
    let handle = actors::ClientHandle::new("carol").unwrap();
    let new_client = actors::NewClient { handle: handle.clone(), domain: None, tags: Vec::new() };
    let at_b = net.at(&b);
    let id = at_b.register_client(net.app, new_client).await.unwrap();
    let attributes = actors::NewKeyQueue { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
    let queue = at_b.create_key_queue(net.app, id, attributes).await.unwrap();
    let packages = [package(&carol), package(&carol)];
    let upload = actors::KeyPackageUpload {
        key_packages: packages.iter().map(|package| package.to_bytes().unwrap()).collect(),
        is_reset: false,
        app_label: None,
        final_key: None,
    };
    at_b.upload_key_packages(net.app, id, queue, upload).await.unwrap();
    let wanted = actors::KeyPackageRequest {
        protocol_version: 1,
        cipher_suite: 1,
        app_label: String::new(),
        domain: Some(b.clone()),
        receiver: actors::Receiver { caller: actors::Requester::Application, id: "alice".to_owned() },
    };
    let first = at_b.assign_key_package(net.app, id, wanted).await.unwrap().key_package;
    let [one, other] = packages;
    let invited = if one.to_bytes().unwrap() == first { one } else { other };
    if is_dropped {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let swept = at_b.store().sweep(&net.retention, actors::Clock::system().now()).await.unwrap();
        assert_eq!(swept.unused_key_packages, 1);
    }
    drop(at_b);

    // The group's creation cannot be validated by the time that B is back.
    net.stop(&b).await;
    let (mut group, new) = new_group(&client_with("alice", &a, Duration::from_secs(2)));
    let group_id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
    // Her leaf is renewed by a commit of hers.
    let upload = upload_of(&group.commit(Vec::new()).unwrap());
    net.upload_commit(&a, &group_id, upload).await.unwrap();
    group.apply_pending_commit().unwrap();
    let again = invited.clone();
    let output = group.commit_builder().add_member(invited).unwrap().build().unwrap();
    net.upload_commit(&a, &group_id, upload_of(&output)).await.unwrap();
    group.apply_pending_commit().unwrap();
    // Nor does A have the log any more.
    net.sweep(&a, &group_id).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    net.start(&b).await;
    net.settle(&a, &group_id).await;
    let query = JoinInfoQuery { domain: Some(b.clone()), after: None, with_ratchet_tree: true, limit: 10 };
    let waiting = net.at(&b).welcomes(net.app, &handle, query).await.unwrap().join_infos;
    assert_eq!(waiting.len(), 1);
    let tree = waiting[0].ratchet_tree.as_ref().unwrap();
    let tree = mls_rs::group::ExportedTree::from_bytes(tree).unwrap();
    let welcome = mls_rs::MlsMessage::from_bytes(&waiting[0].welcome).unwrap();
    let (joined, _) = carol.join_group(Some(tree), &welcome, None).unwrap();
    assert_eq!(joined.current_epoch(), 2);
    let queues = net.at(&b).key_queues(net.app, id).await.unwrap();
    assert_eq!(queues[0].in_pool, 1, "the package that was used is gone");
    // B knows that it was used.
    let (mut group, new) = new_group(&client("bob", &b));
    let group_id = net.at(&b).create_group(net.app, new, Source::Application).await.unwrap().group;
    let output = group.commit_builder().add_member(again).unwrap().build().unwrap();
    let refused = net.upload_commit(&b, &group_id, upload_of(&output)).await;
    assert!(matches!(refused, Err(GroupError::KeyPackageReused { .. })), "{refused:?}");
    net.stop_all().await;
}

#[test]
fn a_follower_that_lost_everything_gets_quiet_groups_back() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 9);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start_all().await;
        let (_, new) = new_group(&client("quiet", &a));
        let quiet = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &quiet).await;
        net.settle(&a, &id).await;
        net.assert_nothing_waits().await;
        net.stop(&b).await;
        net.wipe(&b);
        net.start(&b).await;
        // Whatever is delivered next tells the hub.
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        net.upload_commit(&a, &id, upload).await.unwrap();
        net.settle(&a, &id).await;
        net.settle(&a, &quiet).await;
        net.assert_same(&a, &quiet, Epoch(0)).await;
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

#[test]
fn groups_that_fail_do_not_hold_up_others() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 10);
        net.start_all().await;
        let a = domain("a.example");
        let mut failing = Vec::new();
        for number in 0..40 {
            let (group, new) = new_group(&client(&format!("failing{number}"), &a));
            let id = actors::GroupId::new(group.group_id()).unwrap();
            net.wires.failing.lock().unwrap().insert(id.clone());
            net.at(&a).create_group(net.app, new, Source::Application).await.unwrap();
            failing.push(id);
        }
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        for _ in 0..5 {
            let upload = upload_of(&group.commit(Vec::new()).unwrap());
            net.upload_commit(&a, &id, upload).await.unwrap();
            group.apply_pending_commit().unwrap();
            net.settle(&a, &id).await;
        }
        assert!(failing.iter().all(|id| net.head(&domain("b.example"), id).is_none()));
        net.wires.failing.lock().unwrap().clear();
        for id in &failing {
            net.settle(&a, id).await;
        }
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

#[test]
fn marks_of_what_is_not_federated_any_more_go() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 11);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start(&a).await;
        let gone = actors::AppId::random();
        let mut batch = snapshots::Batch::new();
        for number in 0..3 {
            batch.mark_outbox(&b, gone, &actors::GroupId::new([number; 4]).unwrap());
        }
        net.at(&a).store().append(batch).await.unwrap();
        net.stop(&a).await;
        net.start_all().await;
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}
