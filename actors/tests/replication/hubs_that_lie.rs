//! Dishonest hubs: a follower refuses deliveries that no honest hub makes.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use actors::{
    CommitBundle, Delivery, DeliveryContent, EntryContent, GroupError, GroupId, LogEntry, NewGroup,
    ReplicationAck, Source, Timestamp,
};
use snapshots::DomainName;

use crate::{
    members::{client, group_of_all, new_group, upload_of},
    net::{Net, domain},
};

fn entry(sequence: u64, timestamp: u64, content: EntryContent) -> LogEntry {
    LogEntry { sequence, timestamp: Timestamp(timestamp), content }
}

async fn deliver(
    net: &Net,
    from: &DomainName,
    group: &GroupId,
    hub: &DomainName,
    entries: Vec<LogEntry>,
) -> Result<u64, GroupError> {
    let content = DeliveryContent::Entries(entries);
    let delivery =
        Delivery { app: net.app, group: group.clone(), hub: hub.clone(), preceding: None, content };
    let held = net.at(&domain("b.example")).receive(&BTreeSet::from([from.clone()]), delivery).await?;
    assert!(!held.needs_transfer);
    Ok(held.next)
}

#[test]
fn a_follower_takes_only_what_the_hub_of_the_group_may_deliver() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example", "c.example"], 1);
        net.start_all().await;
        let (a, b, c) = (domain("a.example"), domain("b.example"), domain("c.example"));
        let alice = client("alice", &a);
        let (mut group, new) = new_group(&alice);
        let id = GroupId::new(group.group_id()).unwrap();
        let creation = || {
            EntryContent::from(NewGroup {
                group_info: new.group_info.clone(),
                ratchet_tree: new.ratchet_tree.clone(),
            })
        };
        let commits: Vec<EntryContent> = (0..3)
            .map(|_| {
                let upload = upload_of(&group.commit(Vec::new()).unwrap());
                group.apply_pending_commit().unwrap();
                EntryContent::from(CommitBundle {
                    commit: upload.commit,
                    group_info: upload.group_info,
                    welcome: None,
                })
            })
            .collect();
        let now = actors::Clock::system().now().0;
        let refused = |outcome: Result<u64, GroupError>, part: &str| match outcome {
            Err(GroupError::NotFromHub(detail)) => assert!(detail.contains(part), "{detail}"),
            other => panic!("{part}: {other:?}"),
        };

        // Nothing is there, so the creation is asked for.
        let early = deliver(&net, &a, &id, &a, vec![entry(1, now, commits[0].clone())]).await;
        assert_eq!(early, Ok(0));
        // From a peer that is not the hub.
        let created = || vec![entry(0, now, creation())];
        refused(deliver(&net, &c, &id, &a, created()).await, "not a domain of the peer");
        refused(deliver(&net, &a, &id, &c, created()).await, "not a domain of the peer");
        let other = GroupId::new([9; 16]).unwrap();
        refused(deliver(&net, &a, &other, &a, created()).await, "another group");
        refused(deliver(&net, &a, &id, &a, vec![entry(0, now + 3_600_000, creation())]).await, "future");
        assert_eq!(net.head(&b, &id), None, "nothing of it was kept");

        assert_eq!(deliver(&net, &a, &id, &a, created()).await, Ok(1));
        assert_eq!(deliver(&net, &a, &id, &a, created()).await, Ok(1), "twice is once");
        refused(deliver(&net, &c, &id, &c, created()).await, "another gateway orders");

        let first = || entry(1, now + 5, commits[0].clone());
        let gap = deliver(&net, &a, &id, &a, vec![entry(2, now + 6, commits[1].clone())]).await;
        assert_eq!(gap, Ok(1), "what does not follow is left");
        let swapped = vec![entry(1, now + 5, commits[1].clone())];
        assert!(matches!(deliver(&net, &a, &id, &a, swapped).await, Err(GroupError::FutureEpoch { .. })));
        let mut forged = commits[0].clone();
        if let EntryContent::Commit(bundle) = &mut forged {
            let commit = &mut Arc::make_mut(bundle).commit;
            let last = commit.len() - 40;
            commit[last] ^= 1;
        }
        let forged = deliver(&net, &a, &id, &a, vec![entry(1, now + 5, forged)]).await;
        assert!(
            matches!(
                forged,
                Err(GroupError::InvalidCommit { .. }
                    | GroupError::MalformedMessage(_)
                    | GroupError::GroupInfoMismatch(_))
            ),
            "{forged:?}"
        );
        refused(deliver(&net, &a, &id, &a, vec![entry(1, now - 1, commits[0].clone())]).await, "before");
        refused(deliver(&net, &a, &id, &a, vec![entry(1, now + 5, creation())]).await, "no other");
        assert_eq!(net.head(&b, &id), Some(0), "nothing of it was kept");

        let both = vec![first(), entry(2, now + 6, commits[1].clone())];
        assert_eq!(deliver(&net, &a, &id, &a, both).await, Ok(3));
        assert_eq!(deliver(&net, &a, &id, &a, vec![first()]).await, Ok(3), "what is held is passed over");
        // A fork: another commit under a number that is held already changes nothing.
        let fork = vec![entry(1, now + 5, commits[2].clone())];
        assert_eq!(deliver(&net, &a, &id, &a, fork).await, Ok(3));
        assert_eq!(net.at(&b).group(net.app, &id).await.unwrap().epoch.0, 2);
        net.stop_all().await;
    });
}

#[test]
fn a_group_info_that_is_older_does_not_replace_a_replica() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new.clone(), Source::Application).await.unwrap().group;
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        net.upload_commit(&a, &id, upload).await.unwrap();
        group.apply_pending_commit().unwrap();
        net.settle(&a, &id).await;
        let old = actors::GroupTransfer {
            sequence: 7,
            timestamp: actors::Clock::system().now(),
            group_info: new.group_info,
            ratchet_tree: new.ratchet_tree.unwrap(),
            proposals: Vec::new(),
            welcome: None,
            used: Vec::new(),
            reinitialised: false,
        };
        let hand = |handed: actors::GroupTransfer| Delivery {
            app: net.app,
            group: id.clone(),
            hub: a.clone(),
            preceding: None,
            content: DeliveryContent::Transfer(Box::new(handed)),
        };
        let peer = BTreeSet::from([a.clone()]);
        let refused = net.at(&b).receive(&peer, hand(old.clone())).await;
        assert!(matches!(refused, Err(GroupError::NotFromHub(_))), "{refused:?}");
        // One that is behind is not even looked at.
        let behind = net.at(&b).receive(&peer, hand(actors::GroupTransfer { sequence: 1, ..old })).await;
        assert!(matches!(behind, Ok(ReplicationAck { next: 2, needs_transfer: false, .. })), "{behind:?}");
        assert_eq!(net.at(&b).group(net.app, &id).await.unwrap().epoch.0, 1);
        net.stop_all().await;
    });
}

/// A group of the same id and of a later epoch, whose members the replica does not know.
#[test]
fn a_group_that_nobody_known_has_signed_does_not_replace_a_replica() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (id, _members) = group_of_all(&net, &a, 0).await;
        net.settle(&a, &id).await;
        let mallory = client("mallory", &a);
        let mut forged = mallory
            .create_group_with_id(id.as_bytes().to_vec(), Default::default(), Default::default(), None)
            .unwrap();
        for epoch in 1..4 {
            forged.commit(Vec::new()).unwrap();
            forged.apply_pending_commit().unwrap();
            let handed = actors::GroupTransfer {
                sequence: 9,
                timestamp: actors::Clock::system().now(),
                group_info: forged.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap(),
                ratchet_tree: forged.export_tree().to_bytes().unwrap(),
                proposals: Vec::new(),
                welcome: None,
                used: Vec::new(),
                reinitialised: false,
            };
            let delivery = Delivery {
                app: net.app,
                group: id.clone(),
                hub: a.clone(),
                preceding: None,
                content: DeliveryContent::Transfer(Box::new(handed)),
            };
            let refused = net.at(&b).receive(&BTreeSet::from([a.clone()]), delivery).await;
            assert!(matches!(refused, Err(GroupError::NotFromHub(_))), "{epoch}: {refused:?}");
        }
        // What it has checked itself is still there.
        net.assert_same(&a, &id, actors::Epoch(0)).await;
        net.stop_all().await;
    });
}

#[test]
fn a_hub_with_another_history_is_refused_and_reported() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        let content = EntryContent::from(CommitBundle {
            commit: upload.commit.clone(),
            group_info: None,
            welcome: None,
        });
        let now = actors::Clock::system().now();
        let delivery = |preceding| Delivery {
            app: net.app,
            group: id.clone(),
            hub: a.clone(),
            preceding: Some(preceding),
            content: DeliveryContent::Entries(vec![entry(1, now.0, content.clone())]),
        };
        let peer = BTreeSet::from([a.clone()]);
        let forked = net.at(&b).receive(&peer, delivery(Timestamp(now.0 - 100_000))).await;
        assert!(
            matches!(&forked, Err(GroupError::NotFromHub(detail)) if detail.contains("histories")),
            "{forked:?}"
        );
        // The follower's own history continues without the hub: the hub is told at its next entry.
        let other = upload_of(&{
            group.clear_pending_commit();
            group.commit(Vec::new()).unwrap()
        });
        let created = net.at(&b).group(net.app, &id).await.unwrap();
        assert_eq!(created.epoch.0, 0);
        let own = EntryContent::from(CommitBundle { commit: other.commit, group_info: None, welcome: None });
        let ahead =
            Delivery { content: DeliveryContent::Entries(vec![entry(1, now.0 + 1, own)]), ..delivery(now) };
        let taken = net.at(&b).receive(&peer, Delivery { preceding: None, ..ahead }).await;
        assert!(matches!(taken, Ok(ReplicationAck { next: 2, .. })), "{taken:?}");
        group.clear_pending_commit();
        for _ in 0..2 {
            let upload = upload_of(&group.commit(Vec::new()).unwrap());
            net.upload_commit(&a, &id, upload).await.unwrap();
            group.apply_pending_commit().unwrap();
        }
        let since = std::time::Instant::now();
        while net.wires.refused.load(Ordering::Relaxed) == 0 {
            assert!(since.elapsed() < std::time::Duration::from_secs(20), "the hub is not told");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        net.stop_all().await;
    });
}

#[test]
fn a_peer_has_no_more_groups_here_than_it_may() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example", "c.example"], 1);
        net.limits.groups_per_peer_max = 2;
        net.start_all().await;
        let (a, b, c) = (domain("a.example"), domain("b.example"), domain("c.example"));
        let create = async |net: &Net, from: &DomainName| {
            let (group, new) = new_group(&client("alice", from));
            let id = GroupId::new(group.group_id()).unwrap();
            let content =
                EntryContent::from(NewGroup { group_info: new.group_info, ratchet_tree: new.ratchet_tree });
            let now = actors::Clock::system().now().0;
            (deliver(net, from, &id, from, vec![entry(0, now, content.clone())]).await, id, content)
        };
        let too_many = |outcome: &Result<u64, GroupError>| {
            assert!(matches!(outcome, Err(GroupError::TooManyGroups { max: 2, .. })), "{outcome:?}");
        };
        for _ in 0..2 {
            assert_eq!(create(&net, &a).await.0, Ok(1));
        }
        let (third, id, _) = create(&net, &a).await;
        too_many(&third);
        assert_eq!(net.head(&b, &id), None);
        assert_eq!(create(&net, &c).await.0, Ok(1), "others have a bound of their own");
        // One that is refused for another reason takes no room.
        let now = actors::Clock::system().now().0;
        let (_, new) = new_group(&client("carl", &c));
        let content =
            EntryContent::from(NewGroup { group_info: new.group_info, ratchet_tree: new.ratchet_tree });
        let elsewhere = GroupId::new([7; 16]).unwrap();
        for _ in 0..3 {
            let refused = deliver(&net, &c, &elsewhere, &c, vec![entry(0, now, content.clone())]).await;
            assert!(matches!(refused, Err(GroupError::NotFromHub(_))), "{refused:?}");
        }
        assert_eq!(create(&net, &c).await.0, Ok(1));
        too_many(&create(&net, &c).await.0);
        // Groups on disk count, and existing replicas continue.
        net.stop_all().await;
        net.start_all().await;
        too_many(&create(&net, &a).await.0);
        net.stop_all().await;
    });
}
