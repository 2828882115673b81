//! The life of a group, told by real MLS clients: everything that they learn of each other goes through the gateway.

mod invitations;
mod proposals;

use actors::Epoch;
use mimi_gateway::api::{
    Limit,
    clients::TagQuery,
    groups::{CommitBody, EpochRange},
    joining::WelcomeQuery,
    problem::ProblemKind,
};

use crate::mls_support::{Member, MlsClient, assert_agree, clients, kept_in, refused};
use crate::support::{Setup, TestGateway};

/// A group of Alice and Bob.
async fn pair(alice: &MlsClient, bob: &MlsClient) -> (Member, Member) {
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[bob]).await;
    let at_bob = bob.join().await;
    assert_agree(&[&at_alice, &at_bob]);
    (at_alice, at_bob)
}

#[actix_web::test]
async fn a_group_lives_through_every_kind_of_change() {
    let gateway = TestGateway::start().await;
    let [alice, bob, carol, dave] = clients(&gateway, ["alice", "bob", "carol", "dave"]).await;

    // Alice finds the others by their tag and is given the same package of Bob's however often she asks.
    let query = TagQuery {
        tag: Some(MlsClient::TAG.to_owned()),
        domain: None,
        limit: Limit::default(),
        cursor: None,
    };
    let mut found: Vec<_> = alice
        .api
        .find_clients(&query)
        .await
        .unwrap()
        .identities
        .into_iter()
        .map(|one| one.client_id)
        .collect();
    found.sort();
    let mut registered = vec![alice.id, bob.id, carol.id, dave.id];
    registered.sort();
    assert_eq!(found, registered);
    let assigned = bob.assign_to(&alice.id.to_string()).await.unwrap();
    assert!(!assigned.is_final_key);
    assert_eq!(bob.assign_to(&alice.id.to_string()).await.unwrap(), assigned);

    // She makes a group and adds him.
    let mut at_alice = alice.create_group().await;
    at_alice.assert_gateway_agrees().await;
    assert_eq!(alice.groups().await, [(at_alice.id(), 0)]);
    assert!(bob.welcomes().await.is_empty());
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    assert!(bob.welcomes().await.is_empty(), "an acknowledged welcome is not delivered again");
    assert_agree(&[&at_alice, &at_bob]);
    at_bob.assert_gateway_agrees().await;
    assert_eq!(bob.groups().await, [(at_alice.id(), 1)]);

    // Bob updates his leaf.
    at_bob.update().await;
    at_alice.catch_up().await;
    assert_agree(&[&at_alice, &at_bob]);

    // Proposals of both, committed by reference; Carol comes in by one of them.
    let package = carol.assign_to(&alice.id.to_string()).await.unwrap().key_package;
    let (add, update) = (at_alice.make_add_proposal(&package), at_bob.make_update_proposal());
    at_alice.propose(&add).await.unwrap();
    let accepted = at_bob.propose(&update).await.unwrap();
    assert_eq!(at_bob.propose(&update).await.unwrap(), accepted, "a retry gets the first answer");
    assert_eq!(at_alice.fetch_proposals().await, 2);
    at_alice.update().await;
    let entries = at_alice.control_messages(at_alice.epoch()).await.epochs;
    assert_eq!(entries.len(), 1);
    let mut referenced = entries[0].proposals.iter().map(|packet| packet.0.clone()).collect::<Vec<_>>();
    let mut proposed = vec![add.packet.0, update.packet.0];
    referenced.sort();
    proposed.sort();
    assert_eq!(referenced, proposed);
    assert_eq!(at_alice.fetch_proposals().await, 0, "a new epoch begins without proposals");
    at_bob.catch_up().await;
    let mut at_carol = carol.join().await;
    assert_agree(&[&at_alice, &at_bob, &at_carol]);
    at_carol.assert_gateway_agrees().await;

    // Dave lets himself in with the group info that came with Alice's commit.
    let mut at_dave = dave.join_externally(&at_alice.id(), None, false).await;
    for member in [&mut at_alice, &mut at_bob, &mut at_carol] {
        member.catch_up().await;
    }
    assert_agree(&[&at_alice, &at_bob, &at_carol, &at_dave]);
    at_dave.assert_gateway_agrees().await;
    assert_eq!(dave.groups().await, [(at_alice.id(), 4)]);
    assert!(dave.welcomes().await.is_empty());

    // Carol removes Bob.
    at_carol.remove(&bob.handle).await;
    at_bob.learn_of_removal().await;
    at_alice.catch_up().await;
    at_dave.catch_up().await;
    assert_agree(&[&at_alice, &at_carol, &at_dave]);
    at_dave.assert_gateway_agrees().await;
    assert!(bob.groups().await.is_empty());
    assert_eq!(carol.groups().await, [(at_alice.id(), 5)]);

    // He may come back, and takes the free leaf.
    at_dave.invite(&[&bob]).await;
    let at_bob = bob.join().await;
    at_alice.catch_up().await;
    at_carol.catch_up().await;
    assert_agree(&[&at_alice, &at_bob, &at_carol, &at_dave]);
    assert_eq!(at_bob.leaf_of(&bob.handle), 1);
    at_bob.assert_gateway_agrees().await;
    gateway.stop().await;
}

#[actix_web::test]
async fn a_member_that_slept_takes_every_kind_of_change_at_once() {
    let gateway = TestGateway::start().await;
    let [alice, bob, carol, dave, erin] = clients(&gateway, ["alice", "bob", "carol", "dave", "erin"]).await;
    let (mut at_alice, mut at_bob) = pair(&alice, &bob).await;
    let mut sleeper = bob.join_externally(&at_alice.id(), Some(1), true).await;
    at_alice.catch_up().await;
    at_bob.learn_of_removal().await;

    at_alice.invite(&[&carol, &dave, &erin]).await;
    let (mut at_carol, mut at_dave) = (carol.join().await, dave.join().await);
    let remove = at_carol.make_remove_proposal(&erin.handle);
    at_carol.propose(&remove).await.unwrap();
    let update = at_alice.make_update_proposal();
    at_alice.propose(&update).await.unwrap();
    assert_eq!(at_dave.fetch_proposals().await, 2);
    at_dave.update().await;
    at_carol.catch_up().await;
    at_carol.update().await;
    at_dave.catch_up().await;
    at_dave.remove(&carol.handle).await;

    sleeper.catch_up().await;
    at_alice.catch_up().await;
    assert_agree(&[&sleeper, &at_alice, &at_dave]);
    sleeper.assert_gateway_agrees().await;
    // Erin's welcome waits for her; its epoch is over and so is her membership.
    assert_eq!(erin.welcomes().await.len(), 1);
    assert!(erin.groups().await.is_empty());
    let mut at_erin = erin.join().await;
    at_erin.learn_of_removal().await;
    gateway.stop().await;
}

#[actix_web::test]
async fn a_group_info_is_there_exactly_when_the_last_committer_gave_one() {
    let gateway = TestGateway::start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    let infos = alice.api.group_info(&at_alice.id()).await.unwrap().group_infos;
    assert_eq!(infos.len(), 1, "the one that the group was made with");

    let with = at_alice.make_update();
    let without = CommitBody { group_info: None, ..with.clone() };
    at_alice.commit(&without).await;
    assert!(alice.api.group_info(&at_alice.id()).await.unwrap().group_infos.is_empty());

    let given = at_alice.make_update();
    at_alice.commit(&given).await;
    let infos = alice.api.group_info(&at_alice.id()).await.unwrap().group_infos;
    assert_eq!(infos.len(), 1);
    assert_eq!(Some(&infos[0].group_info), given.group_info.as_ref());

    // An external joiner may give one too; the next can join by it.
    let mut at_bob = bob.join_externally(&at_alice.id(), None, true).await;
    at_alice.catch_up().await;
    assert_agree(&[&at_alice, &at_bob]);
    let carol = MlsClient::register(&gateway, "carol").await;
    let at_carol = carol.join_externally(&at_alice.id(), None, false).await;
    assert!(alice.api.group_info(&at_alice.id()).await.unwrap().group_infos.is_empty());
    at_alice.catch_up().await;
    at_bob.catch_up().await;
    assert_agree(&[&at_alice, &at_bob, &at_carol]);
    at_carol.assert_gateway_agrees().await;
    gateway.stop().await;
}

#[actix_web::test]
async fn a_client_that_lost_its_state_takes_its_own_leaf_again() {
    let gateway = TestGateway::start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let (mut at_alice, mut lost) = pair(&alice, &bob).await;
    let group = at_alice.id();
    let mut at_bob = bob.join_externally(&group, Some(1), true).await;
    at_alice.catch_up().await;
    assert_agree(&[&at_alice, &at_bob]);
    at_bob.assert_gateway_agrees().await;
    assert_eq!(at_bob.leaf_of(&bob.handle), 1);
    assert_eq!(bob.groups().await, [(group.clone(), 2)], "he never left");
    lost.learn_of_removal().await;

    at_bob.update().await;
    at_alice.catch_up().await;
    assert_agree(&[&at_alice, &at_bob]);
    gateway.stop().await;
}

#[actix_web::test]
async fn welcomes_wait_in_order_until_they_are_acknowledged() {
    let gateway = TestGateway::start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let mut groups = Vec::new();
    for _ in 0..3 {
        let mut at_alice = alice.create_group().await;
        at_alice.invite(&[&bob]).await;
        groups.push(at_alice);
    }
    let waiting = bob.welcomes().await;
    let order = waiting.iter().map(|info| info.group_id.0.clone()).collect::<Vec<_>>();
    assert_eq!(order, groups.iter().map(Member::id).collect::<Vec<_>>());

    // Trees come unless they are excluded; `after` continues behind the one it names.
    assert!(waiting.iter().all(|info| info.ratchet_tree.is_some()));
    let query = WelcomeQuery { after: Some(waiting[0].id), ratchet_tree: false, ..WelcomeQuery::default() };
    let rest = bob.api.welcomes(&bob.handle, &query).await.unwrap().join_infos;
    assert_eq!(rest.iter().map(|info| info.id).collect::<Vec<_>>(), [waiting[1].id, waiting[2].id]);
    assert!(rest.iter().all(|info| info.ratchet_tree.is_none()));

    for _ in 0..2 {
        bob.acknowledge(waiting[1].id.0).await;
        let left = bob.welcomes().await;
        assert_eq!(left, [waiting[0].clone(), waiting[2].clone()]);
    }
    for (info, at_alice) in waiting.iter().zip(&groups) {
        assert_agree(&[at_alice, &bob.join_by(info)]);
    }
    assert_eq!(bob.groups().await.len(), 3);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_page_of_welcomes_ends_at_the_size_limit_of_an_answer() {
    let mut setup = Setup::new();
    setup.config.limits.answer_bytes_max = 2048;
    let gateway = setup.start().await;
    let [alice, bob, carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let mut groups = Vec::new();
    for _ in 0..4 {
        let mut at_alice = alice.create_group().await;
        at_alice.invite(&[&bob]).await;
        let at_invitation = at_alice.state();
        // The group continues; a welcome keeps the tree of the epoch that it leads into.
        at_alice.invite(&[&carol]).await;
        at_alice.update().await;
        groups.push(at_invitation);
    }
    // Every page holds at least one welcome, however small the limit, and says that there is more.
    let (mut query, mut found, mut pages) = (WelcomeQuery::default(), Vec::new(), 0);
    loop {
        let page = bob.api.welcomes(&bob.handle, &query).await.unwrap();
        let bytes: usize = page
            .join_infos
            .iter()
            .map(|info| info.welcome.0.len() + info.ratchet_tree.as_ref().expect("a tree").0.len())
            .sum();
        assert!(
            page.join_infos.len() == 1 || bytes <= 2048,
            "{} welcomes of {bytes} bytes",
            page.join_infos.len()
        );
        found.extend(page.join_infos);
        pages += 1;
        match page.next_cursor {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    assert!(pages > 1, "the limit was never reached");
    let joined: Vec<_> = found.iter().map(|info| bob.join_by(info).state()).collect();
    assert_eq!(joined, groups);
    // Without trees more of them go into one answer.
    let query = WelcomeQuery { ratchet_tree: false, ..WelcomeQuery::default() };
    let page = bob.api.welcomes(&bob.handle, &query).await.unwrap();
    assert!(page.join_infos.len() > found.len() / pages);
    gateway.stop().await;

    // Trees that are stored and not asked for are read with their welcomes, so they count in what one request may cost.
    let directory = tempfile::tempdir().unwrap();
    let mut setup = kept_in(&directory);
    setup.config.limits.answer_bytes_max = 4608;
    let gateway = setup.start().await;
    let names = ["alice", "bob", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10"];
    let [alice, mut bob, others @ ..] = clients(&gateway, names).await;
    for client in others.iter().chain([&bob]) {
        client.upload_key_packages(9).await;
    }
    for _ in 0..9 {
        let mut at_alice = alice.create_group().await;
        at_alice.invite(&others.each_ref()).await;
        at_alice.invite(&[&bob]).await;
    }
    gateway.stop().await;
    let gateway = setup.start().await;
    bob.reconnect(&gateway);
    let query = WelcomeQuery { ratchet_tree: false, ..WelcomeQuery::default() };
    let page = bob.api.welcomes(&bob.handle, &query).await.unwrap();
    let answered: usize = page.join_infos.iter().map(|info| info.welcome.0.len()).sum();
    assert!(answered * 9 / page.join_infos.len() < 4608, "all welcomes would fit");
    assert!(page.next_cursor.is_some(), "{} welcomes", page.join_infos.len());
    gateway.stop().await;
}

#[actix_web::test]
async fn the_story_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let gateway = setup.start().await;
    let [mut alice, mut bob, mut carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let (mut at_alice, mut at_bob) = pair(&alice, &bob).await;
    at_alice.invite(&[&carol]).await;
    at_bob.catch_up().await;
    let update = at_bob.make_update_proposal();
    let accepted = at_bob.propose(&update).await.unwrap();
    let before = at_alice.control_messages(Epoch(1)).await;
    let group = at_alice.api.group(&at_alice.id()).await.unwrap();
    let info = at_alice.api.group_info(&at_alice.id()).await.unwrap();
    let welcomes = carol.welcomes().await;
    gateway.stop().await;

    let gateway = setup.start().await;
    for client in [&mut alice, &mut bob, &mut carol] {
        client.reconnect(&gateway);
    }
    for member in [&mut at_alice, &mut at_bob] {
        member.reconnect(&gateway);
    }
    assert_eq!(at_alice.control_messages(Epoch(1)).await, before);
    assert_eq!(at_alice.api.group(&at_alice.id()).await.unwrap(), group);
    assert_eq!(at_alice.api.group_info(&at_alice.id()).await.unwrap(), info);
    assert_eq!(carol.welcomes().await, welcomes);
    assert_eq!(at_bob.propose(&update).await.unwrap(), accepted, "a retry across the restart");
    let mut at_carol = carol.join().await;
    assert_agree(&[&at_alice, &at_bob, &at_carol]);

    // The proposal of before is committed after.
    assert_eq!(at_carol.fetch_proposals().await, 1);
    at_carol.update().await;
    at_alice.catch_up().await;
    at_bob.catch_up().await;
    assert_agree(&[&at_alice, &at_bob, &at_carol]);
    at_bob.assert_gateway_agrees().await;
    let entries = at_alice.control_messages(at_alice.epoch()).await.epochs;
    assert_eq!(entries[0].proposals, [update.packet]);
    gateway.stop().await;
}

#[actix_web::test]
async fn control_messages_come_by_range() {
    let gateway = TestGateway::start().await;
    let alice = MlsClient::register(&gateway, "alice").await;
    let mut at_alice = alice.create_group().await;
    for _ in 0..5 {
        at_alice.update().await;
    }
    let ask = async |start: u64, end: Option<u64>, limit: u64| {
        let range = EpochRange {
            end_epoch_id: end.map(Epoch),
            limit: Some(Limit::try_from(limit).unwrap()),
            ..EpochRange::from(Epoch(start))
        };
        alice.api.control_messages(&at_alice.id(), &range).await
    };
    for (start, end, limit, expected, next) in [
        (0, None, 100, vec![1, 2, 3, 4, 5], None),
        (1, Some(3), 100, vec![1, 2, 3], None),
        (4, Some(9), 100, vec![4, 5], None),
        (5, None, 1, vec![5], None),
        (1, None, 2, vec![1, 2], Some(3)),
        (1, Some(2), 2, vec![1, 2], None),
        (6, None, 100, vec![], None),
        (0, Some(0), 100, vec![], None),
    ] {
        let answer = ask(start, end, limit).await.unwrap();
        let found: Vec<u64> = answer.epochs.iter().map(|entry| entry.epoch_id.0).collect();
        assert_eq!((found, answer.next_epoch_id), (expected, next.map(Epoch)), "{start} {end:?} {limit}");
        assert_eq!(answer.current_epoch_id, Epoch(5));
        assert_eq!(answer.messages.len(), answer.epochs.len());
    }
    refused(ask(3, Some(2), 100).await, ProblemKind::MalformedRequest);
    gateway.stop().await;
}

#[actix_web::test]
async fn control_messages_without_a_limit_go_to_the_end_or_to_the_size_of_an_answer() {
    const EPOCHS: u64 = 103;
    for (answer_bytes_max, is_cut) in [(16 << 20, false), (8 << 10, true)] {
        let mut setup = Setup::new();
        setup.config.limits.answer_bytes_max = answer_bytes_max;
        let gateway = setup.start().await;
        let alice = MlsClient::register(&gateway, "alice").await;
        let mut at_alice = alice.create_group().await;
        for _ in 0..EPOCHS {
            at_alice.update().await;
        }
        let mut range = EpochRange::from(Epoch(1));
        let (mut found, mut answers) = (Vec::new(), 0);
        loop {
            let answer = alice.api.control_messages(&at_alice.id(), &range).await.unwrap();
            assert!(!answer.epochs.is_empty());
            found.extend(answer.epochs.iter().map(|entry| entry.epoch_id.0));
            answers += 1;
            match answer.next_epoch_id {
                Some(next) => range.start_epoch_id = next,
                None => break,
            }
        }
        assert_eq!(found, (1..=EPOCHS).collect::<Vec<_>>());
        assert_eq!(answers > 1, is_cut, "{answers} answers");
        gateway.stop().await;
    }
}
