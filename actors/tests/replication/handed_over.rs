//! Transfers of whole groups: their causes, the peers that may make them, and the history that follows.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use actors::{
    ClientHandle, CommitBundle, Delivery, DeliveryContent, DeliveryError, EntryContent, Epoch, GroupError,
    GroupId, GroupTransfer, LogEntry, NewGroup, Outcome, REVISION, ReplicationAck, Retention, Rule,
    SEQUENCE_MAX, Source, Timestamp,
};
use mls_rs::{ExtensionList, Group, client_builder::MlsConfig, time::MlsTime};
use snapshots::DomainName;

use crate::{
    members::{client, client_with, new_group, package, upload_of},
    net::{Net, domain},
};

/// A time at which what is made begins to be valid this much later than now.
fn valid_in(later: Duration) -> Option<MlsTime> {
    let now = Duration::from_millis(actors::Clock::system().now().0);
    Some(MlsTime::from(now + later))
}

fn now() -> Timestamp {
    actors::Clock::system().now()
}

async fn receive(
    net: &Net,
    (at, from): (&DomainName, &DomainName),
    group: &GroupId,
    preceding: Option<Timestamp>,
    content: DeliveryContent,
) -> Result<ReplicationAck, GroupError> {
    let delivery = Delivery { app: net.app, group: group.clone(), hub: from.clone(), preceding, content };
    net.at(at).receive(&BTreeSet::from([from.clone()]), delivery).await
}

fn entries<const N: usize>(entries: [(u64, Timestamp, &EntryContent); N]) -> DeliveryContent {
    let entry = |(sequence, timestamp, content): (u64, Timestamp, &EntryContent)| LogEntry {
        sequence,
        timestamp,
        content: content.clone(),
    };
    DeliveryContent::Entries(entries.map(entry).to_vec())
}

fn creation(new: &NewGroup) -> EntryContent {
    EntryContent::from(NewGroup {
        group_info: new.group_info.clone(),
        ratchet_tree: new.ratchet_tree.clone(),
    })
}

/// A group as it stands.
fn handed<C: MlsConfig>(group: &Group<C>, sequence: u64) -> GroupTransfer {
    GroupTransfer {
        sequence,
        timestamp: now(),
        group_info: group.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: group.export_tree().to_bytes().unwrap(),
        proposals: Vec::new(),
        welcome: None,
        used: Vec::new(),
        reinitialised: false,
    }
}

fn transfer(transfer: GroupTransfer) -> DeliveryContent {
    DeliveryContent::Transfer(Box::new(transfer))
}

fn check_refused(outcome: Result<ReplicationAck, GroupError>, part: &str) {
    match outcome {
        Err(GroupError::NotFromHub(detail)) => assert!(detail.contains(part), "{detail}"),
        other => panic!("{part}: {other:?}"),
    }
}

/// What a gateway calls its store.
fn store_id(net: &Net, at: &DomainName) -> uuid::Uuid {
    let kept = net.at(at).store().view().setting("store_id").unwrap().unwrap();
    uuid::Uuid::from_slice(&kept).unwrap()
}

/// A commit by a member at the hub, accepted there.
async fn commit<C: MlsConfig>(net: &Net, hub: &DomainName, id: &GroupId, group: &mut Group<C>) {
    let upload = upload_of(&group.commit(Vec::new()).unwrap());
    net.upload_commit(hub, id, upload).await.unwrap();
    group.apply_pending_commit().unwrap();
}

/// Waits until a gateway shows its history from an epoch on.
pub(crate) async fn until_history(net: &Net, at: &DomainName, id: &GroupId, from: Epoch) {
    let since = Instant::now();
    loop {
        let shown = net.at(at).control_messages(net.app, id, from, None, 1000).await;
        match shown {
            // An epoch that is not reached yet has no history, either.
            Ok(shown) if shown.current >= from => return,
            Ok(shown) => assert!(since.elapsed() < Duration::from_secs(20), "{:?}", shown.current),
            Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What begins in a moment for its hub may begin in a moment here: only the hub's time counts.
#[test]
fn a_follower_takes_what_begins_in_a_moment() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let later = valid_in(Duration::from_secs(4000));
        let group =
            client("alice", &a).create_group(ExtensionList::new(), ExtensionList::new(), later).unwrap();
        let id = GroupId::new(group.group_id()).unwrap();
        let handed = handed(&group, 0);
        let new = NewGroup { group_info: handed.group_info, ratchet_tree: Some(handed.ratchet_tree) };
        let refused = net.at(&a).create_group(net.app, new.clone(), Source::Application).await;
        assert!(matches!(refused, Err(GroupError::GroupInfoLifetime { .. })), "{refused:?}");
        let held = receive(&net, (&b, &a), &id, None, entries([(0, now(), &creation(&new))])).await.unwrap();
        assert_eq!((held.next, held.retry_after), (1, None));

        // A client that only the hub's clock lets in yet.
        let (mut group, new) = new_group(&client("anna", &a));
        let id = net.at(&a).create_group(net.app, new.clone(), Source::Application).await.unwrap().group;
        let made = client("bob", &b).generate_key_package_message(
            ExtensionList::new(),
            ExtensionList::new(),
            valid_in(Duration::from_secs(4000)),
        );
        let packet = group.propose_add(made.unwrap(), Vec::new()).unwrap().to_bytes().unwrap();
        let refused = net.at(&a).upload_proposal(net.app, &id, packet.clone(), Source::Application).await;
        assert!(
            matches!(refused, Err(GroupError::InvalidProposal { rule: Rule::Lifetime, .. })),
            "{refused:?}"
        );
        let (mut group, new) = new_group(&client("anna", &a));
        let id = GroupId::new(group.group_id()).unwrap();
        receive(&net, (&b, &a), &id, None, entries([(0, now(), &creation(&new))])).await.unwrap();
        let made = client("bob", &b).generate_key_package_message(
            ExtensionList::new(),
            ExtensionList::new(),
            valid_in(Duration::from_secs(4000)),
        );
        let packet = group.propose_add(made.unwrap(), Vec::new()).unwrap().to_bytes().unwrap();
        let proposal = EntryContent::Proposal { packet: packet.into() };
        let held = receive(&net, (&b, &a), &id, None, entries([(1, now(), &proposal)])).await.unwrap();
        assert_eq!((held.next, held.retry_after), (2, None));
        net.stop_all().await;
    });
}

#[test]
fn a_hub_waits_for_a_follower_whose_clock_is_behind() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let pause = Duration::from_millis(300);
        net.wires.answers.lock().unwrap().push_back(Ok(ReplicationAck {
            next: 0,
            needs_transfer: false,
            retry_after: Some(pause),
            missing: None,
            revision: REVISION,
            store: store_id(&net, &b),
        }));
        let (_, new) = new_group(&client("alice", &a));
        let since = Instant::now();
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        assert!(since.elapsed() >= pause);
        let made = net.wires.made.lock().unwrap().clone();
        assert_eq!(
            made.iter().map(|made| (&made.to, made.entries.clone())).collect::<Vec<_>>(),
            [(&b, vec![0]), (&b, vec![0])]
        );
        net.stop_all().await;
    });
}

#[test]
fn after_a_transfer_that_failed_the_log_is_tried_again() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (_, new) = new_group(&client("alice", &a));
        let held = ReplicationAck {
            next: 0,
            needs_transfer: true,
            retry_after: None,
            missing: None,
            revision: 0,
            store: store_id(&net, &b),
        };
        net.wires.answers.lock().unwrap().extend([Ok(held), Err(DeliveryError::Failed("not now".into()))]);
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        let made = net.wires.made.lock().unwrap().clone();
        let entries: Vec<_> = made.into_iter().map(|made| made.entries).collect();
        assert_eq!(entries, [vec![0], Vec::new(), vec![0]], "the cause is gone: the log does");
        net.stop_all().await;
    });
}

#[test]
fn a_delivery_that_a_peer_wants_later_waits_as_long_as_it_says() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let a = domain("a.example");
        let (_, new) = new_group(&client("alice", &a));
        let after = Duration::from_secs(3);
        let later = Err(DeliveryError::Later { reason: "too many requests".into(), after });
        net.wires.answers.lock().unwrap().push_back(later);
        let begun = Instant::now();
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        assert!(begun.elapsed() >= after, "{:?}", begun.elapsed());
        assert_eq!(net.wires.made.lock().unwrap().len(), 2);
        net.stop_all().await;
    });
}

#[test]
fn what_is_refused_here_is_not_taken_for_an_answer_of_the_peer() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 1);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.retention = Retention { history_epochs_max: 1, ..Retention::default() };
        net.wires.cut_off.lock().unwrap().insert(b.clone());
        net.start_all().await;
        let failed_deliveries = async |count| {
            let before = net.wires.spoiled.load(Ordering::Relaxed);
            let since = Instant::now();
            while net.wires.spoiled.load(Ordering::Relaxed) < before + count {
                assert!(since.elapsed() < Duration::from_secs(60), "the peer is not tried again");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        for name in ["amy", "ann", "ada"] {
            let (_, new) = new_group(&client(name, &a));
            net.at(&a).create_group(net.app, new, Source::Application).await.unwrap();
        }
        failed_deliveries(3).await;
        // Nothing of this group can be delivered: the entries that the peer needs are gone, and there is no group info.
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        for _ in 0..3 {
            let upload = CommitBundle { group_info: None, ..upload_of(&group.commit(Vec::new()).unwrap()) };
            net.upload_commit(&a, &id, upload).await.unwrap();
            group.apply_pending_commit().unwrap();
        }
        net.sweep(&a, &id).await;
        net.wires.cut_at_once_max.store(0, Ordering::SeqCst);
        // Long enough for the turn of every group. The peer is still unreachable, so they are tried one at a time.
        failed_deliveries(6).await;
        assert_eq!(net.wires.cut_at_once_max.load(Ordering::SeqCst), 1, "an answer was taken to have come");
        net.wires.cut_off.lock().unwrap().clear();
        net.stop_all().await;
    });
}

#[test]
fn a_follower_that_is_handed_a_group_gets_the_epochs_and_welcomes_that_the_hub_still_has() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 8);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start(&a).await;
        let (mut group, new) = new_group(&client_with("alice", &a, Duration::from_secs(2)));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        // Her leaf is renewed; only the creation cannot be validated any more.
        commit(&net, &a, &id, &mut group).await;
        let proposal = group.propose_group_context_extensions(Default::default(), Vec::new()).unwrap();
        net.upload_proposal(&a, &id, proposal.to_bytes().unwrap()).await.unwrap();
        commit(&net, &a, &id, &mut group).await;
        let carol = client("carol", &b);
        let output = group.commit_builder().add_member(package(&carol)).unwrap().build().unwrap();
        net.upload_commit(&a, &id, upload_of(&output)).await.unwrap();
        group.apply_pending_commit().unwrap();
        let tree = group.export_tree().into_owned();
        for _ in 0..100 {
            commit(&net, &a, &id, &mut group).await;
        }
        tokio::time::sleep(Duration::from_millis(3500)).await;
        net.start(&b).await;
        net.settle(&a, &id).await;
        until_history(&net, &b, &id, Epoch(1)).await;
        assert_eq!(net.assert_same(&a, &id, Epoch(1)).await, Epoch(103));
        net.assert_nothing_waits().await;

        let handle = ClientHandle::new("carol").unwrap();
        let query = actors::JoinInfoQuery {
            domain: Some(b.clone()),
            after: None,
            with_ratchet_tree: true,
            limit: 10,
        };
        let waiting = net.at(&b).welcomes(net.app, &handle, query).await.unwrap().join_infos;
        assert_eq!(waiting.len(), 1);
        let welcome = mls_rs::MlsMessage::from_bytes(&waiting[0].welcome).unwrap();
        let (joined, _) = carol.join_group(Some(tree), &welcome, None).unwrap();
        let mut carol = crate::members::Member { domain: b.clone(), group: joined };
        carol.catch_up(&net, &b, &id).await;
        assert_eq!(carol.epoch(), Epoch(103));
        // A proposal or commit of then, sent again at the follower, gets its answer of then.
        let at_b = net.at(&b);
        let again = at_b.upload_proposal(net.app, &id, proposal.to_bytes().unwrap(), Source::Application);
        let again = again.await.unwrap();
        assert_eq!((again.epoch, again.outcome), (Epoch(1), Outcome::Repeated));
        let again = at_b.upload_commit(net.app, &id, upload_of(&output), Source::Application).await.unwrap();
        assert_eq!((again.epoch, again.outcome), (Epoch(3), Outcome::Repeated));
        drop(at_b);
        // The group continues, also after a restart.
        commit(&net, &a, &id, &mut group).await;
        net.settle(&a, &id).await;
        net.stop_all().await;
        net.start_all().await;
        net.assert_same(&a, &id, Epoch(1)).await;
        net.stop_all().await;
    });
}

#[test]
fn history_that_does_not_lead_to_the_handed_group_is_refused() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 8);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (mut group, new) = new_group(&client("alice", &a));
        let id = GroupId::new(group.group_id()).unwrap();
        let commits: Vec<EntryContent> = (0..3)
            .map(|number| {
                if number == 2 {
                    group.clear_pending_commit();
                }
                let upload = upload_of(&group.commit(Vec::new()).unwrap());
                if number != 1 {
                    group.apply_pending_commit().unwrap();
                }
                EntryContent::from(CommitBundle { commit: upload.commit, group_info: None, welcome: None })
            })
            .collect();
        // Epoch 2 was created by the third of them, not by the second.
        let at = now();
        let held = receive(&net, (&b, &a), &id, None, transfer(handed(&group, 2))).await.unwrap();
        assert_eq!((held.next, held.missing), (3, Some(0..=2)));
        let created = entries([(0, at, &creation(&new)), (1, at, &commits[0])]);
        let held = receive(&net, (&b, &a), &id, None, created).await.unwrap();
        assert_eq!((held.next, held.missing), (3, Some(2..=2)));
        let shown = net.at(&b).control_messages(net.app, &id, Epoch(1), None, 10).await;
        assert_eq!(shown, Err(GroupError::EpochsPruned { floor: Epoch(3) }), "not before it is whole");
        let other = receive(&net, (&b, &a), &id, None, entries([(2, at, &commits[1])])).await;
        check_refused(other, "transcript");
        let early = receive(&net, (&b, &a), &id, None, entries([(2, Timestamp(1), &commits[2])])).await;
        check_refused(early, "before the entry that precedes it");
        let right = || entries([(2, at, &commits[2])]);
        let held = receive(&net, (&b, &a), &id, None, right()).await.unwrap();
        assert_eq!((held.next, held.missing), (3, None));
        let again = receive(&net, (&b, &a), &id, None, right()).await.unwrap();
        assert_eq!((again.next, again.missing), (3, None), "twice is once");
        let shown = net.at(&b).control_messages(net.app, &id, Epoch(1), None, 10).await.unwrap();
        let kept: Vec<_> = shown.epochs.iter().map(|entry| entry.commit.clone()).collect();
        let expected: Vec<_> = [&commits[0], &commits[2]]
            .map(|content| match content {
                EntryContent::Commit(bundle) => bundle.commit.clone(),
                other => panic!("{other:?}"),
            })
            .to_vec();
        assert_eq!(kept, expected);
        net.stop_all().await;
    });
}

#[test]
fn a_proposal_that_expired_does_not_keep_a_group_from_being_handed_over() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 8);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start(&a).await;
        let short = Duration::from_secs(2);
        let (mut group, new) = new_group(&client_with("alice", &a, short));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        commit(&net, &a, &id, &mut group).await;
        let proposal = group.propose_add(package(&client_with("bob", &a, short)), Vec::new()).unwrap();
        net.upload_proposal(&a, &id, proposal.to_bytes().unwrap()).await.unwrap();
        let kept = group.propose_group_context_extensions(Default::default(), Vec::new()).unwrap();
        net.upload_proposal(&a, &id, kept.to_bytes().unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3500)).await;
        net.start(&b).await;
        let since = Instant::now();
        while net.head(&b, &id) != net.head(&a, &id) {
            assert!(since.elapsed() < Duration::from_secs(20), "the group is not handed over");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let view = net.at(&b).group(net.app, &id).await.unwrap();
        assert_eq!(
            view.proposals.iter().map(|waiting| waiting.packet.to_vec()).collect::<Vec<_>>(),
            [proposal.to_bytes().unwrap(), kept.to_bytes().unwrap()],
            "what the hub accepted, it accepted in time"
        );
        group.clear_proposal_cache();
        commit(&net, &a, &id, &mut group).await;
        net.settle(&a, &id).await;
        until_history(&net, &b, &id, Epoch(1)).await;
        net.assert_same(&a, &id, Epoch(1)).await;
        net.stop_all().await;
    });
}

#[test]
fn a_gateway_that_does_not_order_a_group_cannot_hand_it_over() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example", "c.example"], 1);
        net.start_all().await;
        let (a, b, c) = (domain("a.example"), domain("b.example"), domain("c.example"));
        // First no client of c is in it, then one is.
        let (mut group, _) = new_group(&client("alice", &a));
        let id = GroupId::new(group.group_id()).unwrap();
        check_refused(receive(&net, (&b, &c), &id, None, transfer(handed(&group, 5))).await, "of a.example");
        group.commit_builder().add_member(package(&client("carl", &c))).unwrap().build().unwrap();
        group.apply_pending_commit().unwrap();
        check_refused(receive(&net, (&b, &c), &id, None, transfer(handed(&group, 5))).await, "of a.example");
        assert_eq!(net.head(&b, &id), None, "nothing of it was kept");
        // Its hub may.
        let held = receive(&net, (&b, &a), &id, None, transfer(handed(&group, 5))).await.unwrap();
        assert_eq!(held.next, 6);
        check_refused(
            receive(&net, (&b, &c), &id, None, transfer(handed(&group, 9))).await,
            "another gateway",
        );
        let forged = client("carl", &c)
            .create_group_with_id(id.as_bytes().to_vec(), Default::default(), Default::default(), None)
            .unwrap();
        let forged = handed(&forged, 0);
        let forged = NewGroup { group_info: forged.group_info, ratchet_tree: Some(forged.ratchet_tree) };
        let outcome = receive(&net, (&b, &c), &id, None, entries([(0, now(), &creation(&forged))])).await;
        check_refused(outcome, "another gateway");
        assert_eq!(net.at(&b).group(net.app, &id).await.unwrap().hub, Some(a.clone()));

        // A group of this gateway's own client that another hands over first.
        let (mut group, new_here) = new_group(&client("bea", &b));
        let id = GroupId::new(group.group_id()).unwrap();
        check_refused(receive(&net, (&b, &c), &id, None, transfer(handed(&group, 5))).await, "no member");
        group.commit_builder().add_member(package(&client("carl", &c))).unwrap().build().unwrap();
        group.apply_pending_commit().unwrap();
        receive(&net, (&b, &c), &id, None, transfer(handed(&group, 5))).await.unwrap();
        assert_eq!(net.at(&b).group(net.app, &id).await.unwrap().hub, Some(c.clone()));
        // Her own creation says who orders it.
        let created = net.at(&b).create_group(net.app, new_here.clone(), Source::Application).await.unwrap();
        assert_eq!((created.group.clone(), created.outcome), (id.clone(), Outcome::New));
        let view = net.at(&b).group(net.app, &id).await.unwrap();
        assert_eq!((view.hub.clone(), view.epoch, view.members_count()), (Some(b.clone()), Epoch(0), 1));
        check_refused(
            receive(&net, (&b, &c), &id, None, transfer(handed(&group, 9))).await,
            "another gateway",
        );
        let again = net.at(&b).create_group(net.app, new_here, Source::Application).await.unwrap();
        assert_eq!(again.outcome, Outcome::Repeated);
        net.stop_all().await;
    });
}

#[test]
fn nothing_follows_a_reinitialisation_that_was_handed_over() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (mut group, _) = new_group(&client("alice", &a));
        let id = GroupId::new(group.group_id()).unwrap();
        let whole = GroupTransfer { reinitialised: true, ..handed(&group, 0) };
        receive(&net, (&b, &a), &id, None, transfer(whole)).await.unwrap();
        let upload = upload_of(&group.commit(Vec::new()).unwrap());
        let next =
            EntryContent::from(CommitBundle { commit: upload.commit, group_info: None, welcome: None });
        let refused = receive(&net, (&b, &a), &id, None, entries([(1, now(), &next)])).await;
        assert!(
            matches!(refused, Err(GroupError::InvalidCommit { rule: Rule::NothingAfterReInit, .. })),
            "{refused:?}"
        );
        net.stop_all().await;
    });
}

#[test]
fn numbers_that_no_log_reaches_are_refused() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (mut group, _) = new_group(&client("alice", &a));
        let id = GroupId::new(group.group_id()).unwrap();
        for number in [u64::MAX, u64::MAX - 1, SEQUENCE_MAX + 1] {
            check_refused(
                receive(&net, (&b, &a), &id, None, transfer(handed(&group, number))).await,
                "no entry",
            );
        }
        receive(&net, (&b, &a), &id, None, transfer(handed(&group, SEQUENCE_MAX))).await.unwrap();
        let packet = group.propose_update(Vec::new()).unwrap().to_bytes().unwrap();
        let next = entries([(SEQUENCE_MAX + 1, now(), &EntryContent::Proposal { packet: packet.into() })]);
        check_refused(receive(&net, (&b, &a), &id, None, next).await, "no entry");
        net.stop_all().await;
    });
}

/// The first entry that the replica has not must follow the one that it has.
#[test]
fn entries_that_are_held_already_do_not_use_up_what_precedes_the_first_new_one() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (mut group, new) = new_group(&client("alice", &a));
        let id = GroupId::new(group.group_id()).unwrap();
        let mut proposal = || EntryContent::Proposal {
            packet: group.propose_update(Vec::new()).unwrap().to_bytes().unwrap().into(),
        };
        let (first, second) = (proposal(), proposal());
        let at = |later: u64| Timestamp(now().0 / 1000 * 1000 + later);
        let begin = at(0);
        let later = |ms: u64| Timestamp(begin.0 + ms);
        let created = creation(&new);
        let both = entries([(0, begin, &created), (1, later(1), &first)]);
        assert_eq!(receive(&net, (&b, &a), &id, None, both).await.unwrap().next, 2);
        // The hub has another entry 1.
        let forked = entries([(1, later(2), &first), (2, later(3), &second)]);
        check_refused(receive(&net, (&b, &a), &id, Some(begin), forked).await, "histories");
        let right = entries([(0, begin, &created), (1, later(1), &first), (2, later(3), &second)]);
        assert_eq!(receive(&net, (&b, &a), &id, None, right).await.unwrap().next, 3);
        net.stop_all().await;
    });
}

/// A peer that names another store each time, or two behind one address.
#[test]
fn a_store_that_changes_all_the_time_costs_little() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let mut groups = Vec::new();
        for number in 0..20 {
            let (_, new) = new_group(&client(&format!("alice{number}"), &a));
            groups.push(net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group);
        }
        for id in &groups {
            net.settle(&a, id).await;
        }
        let before = net.wires.made.lock().unwrap().len();
        let changing = (1..=2000).map(|number| {
            Ok(ReplicationAck {
                next: 1,
                needs_transfer: false,
                retry_after: None,
                missing: None,
                revision: REVISION,
                store: uuid::Uuid::from_u128(number),
            })
        });
        net.wires.answers.lock().unwrap().extend(changing);
        let (_, new) = new_group(&client("amy", &a));
        let last = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        tokio::time::sleep(Duration::from_secs(2)).await;
        // The first change is believed at once, and everything is sent again; the next has to wait.
        let made = net.wires.made.lock().unwrap().len() - before;
        assert!((2..=64).contains(&made), "{made} deliveries");
        net.wires.answers.lock().unwrap().clear();
        for id in groups.iter().chain([&last]) {
            net.settle(&a, id).await;
        }
        assert!(net.head(&b, &last).is_some());
        net.stop_all().await;
    });
}

/// MLS gives the first free leaf to the client that is added, so that a client of another domain may take the creator's.
#[test]
fn a_client_that_takes_the_first_leaf_later_does_not_take_the_group_over() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example", "c.example"], 1);
        net.start_all().await;
        let (a, b, c) = (domain("a.example"), domain("b.example"), domain("c.example"));
        let anna = client("anna", &a);
        let (mut alice, _) = new_group(&client("alice", &a));
        let id = GroupId::new(alice.group_id()).unwrap();
        let output = alice.commit_builder().add_member(package(&anna)).unwrap().build().unwrap();
        alice.apply_pending_commit().unwrap();
        receive(&net, (&b, &a), &id, None, transfer(handed(&alice, 1))).await.unwrap();
        let (mut anna, _) = anna
            .join_group(Some(alice.export_tree().into_owned()), &output.welcome_messages[0], None)
            .unwrap();
        let carl = client("carl", &c);
        for sequence in [2, 3] {
            let builder = anna.commit_builder();
            let builder = match sequence {
                2 => builder.remove_member(0).unwrap(),
                _ => builder.add_member(package(&carl)).unwrap(),
            };
            let upload = upload_of(&builder.build().unwrap());
            anna.apply_pending_commit().unwrap();
            let content = EntryContent::from(CommitBundle {
                commit: upload.commit,
                group_info: upload.group_info,
                welcome: upload.welcome,
            });
            receive(&net, (&b, &a), &id, None, entries([(sequence, now(), &content)])).await.unwrap();
        }
        let view = net.at(&b).group(net.app, &id).await.unwrap();
        let first = view.members().next().unwrap();
        assert_eq!((first.leaf_index, first.domain), (0, Some(&c)));
        let forged = carl
            .create_group_with_id(id.as_bytes().to_vec(), Default::default(), Default::default(), None)
            .unwrap();
        let forged = handed(&forged, 0);
        let forged = NewGroup { group_info: forged.group_info, ratchet_tree: Some(forged.ratchet_tree) };
        let outcome = receive(&net, (&b, &c), &id, None, entries([(0, now(), &creation(&forged))])).await;
        check_refused(outcome, "another gateway");
        let view = net.at(&b).group(net.app, &id).await.unwrap();
        assert_eq!((view.hub.as_ref(), view.epoch), (Some(&a), Epoch(3)));
        net.stop_all().await;
    });
}

/// A group whose first epoch had more proposals than those gateways take that start next, and that is in its second one.
/// Its creator's leaf lasts so long.
async fn with_many_proposals(
    net: &mut Net,
    hub: &DomainName,
    lasts: Duration,
) -> (GroupId, Group<impl MlsConfig + use<>>) {
    net.start(hub).await;
    let (mut group, new) = new_group(&client_with("alice", hub, lasts));
    let id = net.at(hub).create_group(net.app, new, Source::Application).await.unwrap().group;
    // As many as a follower with the limit below takes for its history, and one more.
    for number in 0..3 {
        let proposal = group.propose_group_context_extensions(Default::default(), vec![number]).unwrap();
        net.upload_proposal(hub, &id, proposal.to_bytes().unwrap()).await.unwrap();
        group.clear_proposal_cache();
    }
    commit(net, hub, &id, &mut group).await;
    net.limits.proposals_per_epoch_max = 1;
    (id, group)
}

/// Waits until a follower stands where the hub of a group does, and shows it.
async fn until_level(net: &Net, (at, hub): (&DomainName, &DomainName), id: &GroupId) {
    let since = Instant::now();
    while net.head(at, id) != net.head(hub, id) || net.shown(at, id).await != net.shown(hub, id).await {
        assert!(since.elapsed() < Duration::from_secs(20), "what is new does not arrive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_past_that_a_follower_cannot_take_is_left_aside_but_for_its_newest_entry() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 8);
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (id, mut group) = with_many_proposals(&mut net, &a, Duration::from_secs(2)).await;
        // The follower takes fewer proposals of an epoch, so that it needs the group as it stands.
        net.start(&b).await;
        // Nothing is newer than the group that it is handed: its newest entry ends the past.
        until_history(&net, &b, &id, Epoch(1)).await;
        for _ in 0..3 {
            commit(&net, &a, &id, &mut group).await;
            until_level(&net, (&b, &a), &id).await;
        }
        net.settle(&a, &id).await;
        net.assert_same(&a, &id, Epoch(1)).await;
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

#[test]
fn a_past_that_a_follower_cannot_take_does_not_keep_it_from_what_is_new() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 8);
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (id, mut group) = with_many_proposals(&mut net, &a, Duration::from_secs(86_400)).await;
        // The follower is handed the group; before it is shown the past, there is something new.
        net.wires.failing.lock().unwrap().insert(id.clone());
        net.start(&b).await;
        let history = net.at(&a).control_messages(net.app, &id, Epoch(1), None, 1).await.unwrap();
        let handed = GroupTransfer { timestamp: history.epochs[0].timestamp, ..handed(&group, 4) };
        receive(&net, (&b, &a), &id, None, transfer(handed)).await.unwrap();
        commit(&net, &a, &id, &mut group).await;
        net.wires.failing.lock().unwrap().clear();
        until_level(&net, (&b, &a), &id).await;
        for _ in 0..2 {
            commit(&net, &a, &id, &mut group).await;
            until_level(&net, (&b, &a), &id).await;
        }
        net.assert_same(&a, &id, Epoch(2)).await;
        let before = net.at(&b).control_messages(net.app, &id, Epoch(1), None, 10).await;
        assert_eq!(before, Err(GroupError::EpochsPruned { floor: Epoch(2) }));
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

#[test]
fn a_reinitialised_group_is_handed_to_a_follower_of_the_first_revision() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 8);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.retention = Retention { history_epochs_max: 1, ..Retention::default() };
        net.start(&a).await;
        let (mut group, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        commit(&net, &a, &id, &mut group).await;
        let builder = group.commit_builder();
        let output = builder
            .reinit(
                None,
                mls_rs::ProtocolVersion::MLS_10,
                mls_rs::CipherSuite::CURVE25519_AES128,
                Default::default(),
            )
            .unwrap()
            .build()
            .unwrap();
        net.upload_commit(&a, &id, upload_of(&output)).await.unwrap();
        assert!(net.at(&a).group(net.app, &id).await.unwrap().group_info.is_some());
        net.sweep(&a, &id).await;
        // It has not said yet what it understands.
        net.wires.are_of_first_revision.store(true, Ordering::Relaxed);
        net.start(&b).await;
        let since = Instant::now();
        while net.head(&b, &id) != net.head(&a, &id) {
            assert!(since.elapsed() < Duration::from_secs(20), "the group is not handed over");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        net.stop_all().await;
    });
}

#[test]
fn a_follower_that_asks_for_no_pause_is_not_asked_without_one() {
    actix::System::new().block_on(async {
        let net = Net::new(&["a.example", "b.example"], 1);
        net.start_all().await;
        let (a, b) = (domain("a.example"), domain("b.example"));
        let held = |retry_after| ReplicationAck {
            next: 0,
            needs_transfer: false,
            retry_after: Some(retry_after),
            missing: None,
            revision: REVISION,
            store: store_id(&net, &b),
        };
        net.wires.answers.lock().unwrap().push_back(Ok(held(Duration::ZERO)));
        let (_, new) = new_group(&client("alice", &a));
        let since = Instant::now();
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        net.settle(&a, &id).await;
        assert!(since.elapsed() >= Duration::from_secs(1));
        net.stop_all().await;
    });
}

/// How long a lifetime may be is what each gateway asks of its own clients.
#[test]
fn a_follower_takes_a_creation_whose_lifetime_is_longer_than_its_own_clients_may_have() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 1);
        let (a, b) = (domain("a.example"), domain("b.example"));
        net.start(&a).await;
        net.limits.key_package_lifetime_s_max = 3600;
        net.start(&b).await;
        let (_, new) = new_group(&client("alice", &a));
        let id = net.at(&a).create_group(net.app, new, Source::Application).await.unwrap().group;
        let since = Instant::now();
        while net.head(&b, &id) != Some(0) {
            assert!(since.elapsed() < Duration::from_secs(20), "the group is not taken");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (_, new) = new_group(&client("bob", &b));
        let refused = net.at(&b).create_group(net.app, new, Source::Application).await;
        assert!(matches!(refused, Err(GroupError::InvalidGroupInfo(_))), "{refused:?}");
        net.stop_all().await;
    });
}

#[test]
fn groups_of_peers_wait_for_a_place_to_be_validated() {
    actix::System::new().block_on(async {
        for (places, is_validated) in [(0, false), (1, true)] {
            let mut net = Net::new(&["a.example", "b.example"], 1);
            net.limits.judgements_per_application_max = places;
            net.start_all().await;
            let (a, b) = (domain("a.example"), domain("b.example"));
            let (created, new) = new_group(&client("alice", &a));
            let (mut transferred, _) = new_group(&client("anna", &a));
            transferred.commit(Vec::new()).unwrap();
            transferred.apply_pending_commit().unwrap();
            let deliveries = [
                (&created, entries([(0, now(), &creation(&new))])),
                (&transferred, transfer(handed(&transferred, 1))),
            ];
            for (group, content) in deliveries {
                let id = GroupId::new(group.group_id()).unwrap();
                let received = receive(&net, (&b, &a), &id, None, content).await;
                match received {
                    Ok(_) => assert!(is_validated),
                    Err(error) => assert!(matches!(error, GroupError::Busy) && !is_validated, "{error}"),
                }
                assert_eq!(net.at(&b).group(net.app, &id).await.is_ok(), is_validated);
            }
            net.stop_all().await;
        }
    });
}
