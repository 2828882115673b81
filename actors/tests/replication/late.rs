//! Followers that were away for long, or were never there before.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use actors::{Epoch, Retention, Source};

use crate::{
    members::{client, new_group, package, upload_of},
    net::{Net, domain},
};

/// A gateway that joins when a group has a history gets all of it when it is kept, else the group as it stands.
async fn join_late(retention: Retention, first_kept: Epoch) {
    let mut net = Net::new(&["a.example", "b.example"], 3);
    let (a, b) = (domain("a.example"), domain("b.example"));
    net.retention = retention;
    // Nobody to federate with yet.
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
    let bob = client("bob", &b);
    let output = group.commit_builder().add_member(package(&bob)).unwrap().build().unwrap();
    net.upload_commit(&a, &id, upload_of(&output)).await.unwrap();
    group.apply_pending_commit().unwrap();
    let proposal = group.propose_group_context_extensions(Default::default(), Vec::new()).unwrap();
    net.upload_proposal(&a, &id, proposal.to_bytes().unwrap()).await.unwrap();
    net.at(&a).store().sweep(&net.retention, actors::Clock::system().now()).await.unwrap();
    net.stop(&a).await;

    net.friends.clear();
    net.start_all().await;
    net.settle(&a, &id).await;
    let epoch = net.assert_same(&a, &id, first_kept).await;
    assert_eq!(epoch, Epoch(7));
    let view = net.at(&b).group(net.app, &id).await.unwrap();
    assert_eq!((view.members.len(), view.proposals.len()), (2, 1));
    let handle = actors::ClientHandle::new("bob").unwrap();
    assert_eq!(net.at(&b).groups_of_client(net.app, &handle, None, 10).await.unwrap().len(), 1);

    // It goes on from there, also after both were started again.
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
        let mut commit = async |net: &Net| {
            let upload = upload_of(&group.commit(Vec::new()).unwrap());
            net.upload_commit(&a, &id, upload).await.unwrap();
            group.apply_pending_commit().unwrap();
        };
        commit(&net).await;
        commit(&net).await;
        net.settle(&a, &id).await;
        net.stop(&b).await;
        for _ in 0..6 {
            commit(&net).await;
        }
        net.at(&a).store().sweep(&net.retention, actors::Clock::system().now()).await.unwrap();
        net.start(&b).await;
        net.settle(&a, &id).await;
        assert_eq!(net.assert_same(&a, &id, Epoch(9)).await, Epoch(8));
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
