//! All seven cipher suites: what the forger writes verifies, reads back, and has valid parent hashes.

#![expect(clippy::unwrap_used, reason = "a test that meets what it does not expect has failed")]

use mls_forge::{
    Client, Extension, Group, GroupInfo, KeyPackage, LeafNodeSource, PathChoice, PreSharedKeyId, Proposal,
    Psk, PublicMessage, ReInit, Sender, SharedTree, Suite, Tls as _, Tree, Welcome, read_message,
    wire_format,
};

/// The tree's leaves are signed for their places, and its parent hashes are valid.
fn check(group: &Group) {
    group.tree.check_parent_hashes(group.suite).unwrap();
    for (index, leaf) in group.tree.leaves() {
        leaf.verify(group.suite, &group.context.group_id, index).unwrap();
    }
    assert_eq!(group.context.tree_hash, group.tree.hash(group.suite));
    assert_eq!(Tree::from_bytes(&group.tree_bytes()).unwrap(), group.tree);
}

#[test]
fn groups_are_valid() {
    for suite in Suite::ALL {
        for count in [1, 2, 3, 6, 9] {
            for shared in [SharedTree::Blank, SharedTree::Populated] {
                let mut group = Group::of_members(suite, count, shared);
                check(&group);
                let newcomers = ["one", "two"].map(|name| Client::new(suite, name));
                let adds = newcomers.each_ref().map(|client| group.add(client));
                let forged = group.commit(0).with_all(adds).sign();
                assert!(forged.commit.clone().commit_mut().path.is_none());
                group.apply(&forged);
                check(&group);
                // The new members are unmerged now, and a path above one of them has a node for each.
                let last = u32::try_from(count + 1).unwrap();
                let forged = group.commit(last).sign();
                group.apply(&forged);
                check(&group);
                let forged = group.commit(last).with(Proposal::Remove(0)).sign();
                group.apply(&forged);
                check(&group);
                assert_eq!(group.members().len(), count + 1);
            }
        }
    }
}

#[test]
fn signatures_are_those_of_the_sender_and_of_the_content() {
    for suite in Suite::ALL {
        let mut group = Group::of_members(suite, 3, SharedTree::Populated);
        let message = group.propose(Sender::Member(1), Proposal::Remove(2));
        let (signed, keys) =
            (message.to_be_signed(&group.context), [0, 1].map(|at| group.client(at).key.public()));
        let label = "FramedContentTBS";
        suite.verify(&keys[1], label, &signed, &message.signature).unwrap();
        assert!(suite.verify(&keys[0], label, &signed, &message.signature).is_err());
        assert!(suite.verify(&keys[1], "LeafNodeTBS", &signed, &message.signature).is_err());
        let mut other = signed.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(suite.verify(&keys[1], label, &other, &message.signature).is_err());
        let mut broken = message.signature.clone();
        let middle = broken.len() / 2;
        broken[middle] ^= 1;
        assert!(suite.verify(&keys[1], label, &signed, &broken).is_err());

        let package = Client::new(suite, "newcomer").key_package();
        package.verify(suite).unwrap();
        let mut changed = package;
        changed.init_key[0] ^= 1;
        assert!(changed.verify(suite).is_err());
    }
}

#[test]
fn what_is_written_reads_back() {
    let suite = Suite::Ed25519;
    let mut group = Group::of_members(suite, 5, SharedTree::Populated);
    let newcomer = Client::new(suite, "newcomer");
    let nonce = vec![1; 32];
    let psk = |psk| Proposal::PreSharedKey(PreSharedKeyId { psk, psk_nonce: nonce.clone() });
    let extensions = vec![Extension { kind: 0xf001, data: vec![7; 70] }];
    let proposals = [
        group.add(&newcomer),
        group.update(1),
        Proposal::Remove(3),
        psk(Psk::External(vec![1])),
        psk(Psk::Resumption { usage: 1, psk_group_id: vec![2; 20_000], psk_epoch: 3 }),
        psk(Psk::Application { component_id: 4, psk_id: vec![5] }),
        Proposal::ReInit(ReInit {
            group_id: vec![6],
            version: 1,
            cipher_suite: 7,
            extensions: extensions.clone(),
        }),
        Proposal::ExternalInit(vec![8]),
        Proposal::GroupContextExtensions(extensions),
        Proposal::AppDataUpdate { component_id: 9, update: Some(vec![10]) },
        Proposal::AppDataUpdate { component_id: 9, update: None },
        Proposal::AppEphemeral { component_id: 11, data: vec![12] },
        Proposal::SelfRemove,
        Proposal::Other(0xf123, vec![2, 13, 14]),
    ];
    for proposal in &proposals {
        let message = group.proposal(Sender::Member(1), proposal.clone());
        let read: PublicMessage = read_message(wire_format::PUBLIC_MESSAGE, &message.to_message()).unwrap();
        assert_eq!(read, message);
    }
    for sender in [Sender::Member(2), Sender::External(3), Sender::NewMemberProposal, Sender::NewMemberCommit]
    {
        assert_eq!(Sender::from_bytes(&sender.to_bytes()).unwrap(), sender);
    }
    group.propose(Sender::Member(1), Proposal::Remove(4));
    let plan = group.commit(0).with_all(proposals).with_pending().path(PathChoice::With);
    let forged = plan.sign();
    let commit: PublicMessage = read_message(wire_format::PUBLIC_MESSAGE, &forged.commit_bytes()).unwrap();
    assert_eq!(commit, forged.commit);
    let info: GroupInfo = read_message(wire_format::GROUP_INFO, &forged.group_info_bytes()).unwrap();
    assert_eq!(info, forged.group_info);
    let welcome: Welcome = read_message(wire_format::WELCOME, &forged.welcome_bytes().unwrap()).unwrap();
    assert_eq!(Some(welcome), forged.welcome);
    let package = newcomer.key_package();
    let read: KeyPackage = read_message(wire_format::KEY_PACKAGE, &package.to_message()).unwrap();
    assert_eq!(read, package);
}

#[test]
fn a_draft_is_wrong_where_the_test_wants_it() {
    let group = Group::of_members(Suite::Ed25519, 4, SharedTree::Populated);
    let mut draft = group.commit(2).draft();
    draft.leaf_mut().source = LeafNodeSource::Commit(vec![7; 32]);
    draft.keep.parent_hash = true;
    let forged = draft.sign();
    assert!(forged.tree.check_parent_hashes(group.suite).is_err());
    // All else is right.
    let leaf = forged.tree.leaf(2).unwrap();
    leaf.verify(group.suite, &group.context.group_id, 2).unwrap();
    let signed = forged.commit.to_be_signed(&group.context);
    let key = group.client(2).key.public();
    group.suite.verify(&key, "FramedContentTBS", &signed, &forged.commit.signature).unwrap();
    assert_eq!(forged.group_info.group_context.tree_hash, forged.tree.hash(group.suite));
}
