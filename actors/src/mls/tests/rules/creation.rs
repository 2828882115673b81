//! New groups (RFC 9420 §11) and the GroupInfo that opens a group (§12.4.3).

use mls_forge::{Client, Extension, Group, GroupInfo, Lifetime, Proposal, SharedTree, Suite, extension};

use super::{
    super::{super::TrackedGroup, Validator},
    Answers, PRIVATE_USE, Scene, client, opening, plain, rules,
    scene::{clients, group, open_by},
};
use crate::clock::Clock;

/// Creates a group that is as a new one should be.
pub(super) fn create(group: &Group) -> Answers {
    create_within(&Validator::new(), group)
}

fn create_within(validator: &Validator, group: &Group) -> Answers {
    let info = group.group_info().to_message();
    let now = Clock::system().now();
    opening(TrackedGroup::create(validator.context(), &info, Some(&group.tree_bytes()), now).map(drop))
}

/// A new group, changed.
fn created(change: impl Fn(&mut Group)) -> Answers {
    let mut group = Group::create(client("alice"));
    change(&mut group);
    group.settle();
    create(&group)
}

/// A group of three, opened from a GroupInfo that is changed and signed again.
fn opened(change: impl Fn(&mut GroupInfo)) -> Answers {
    let group = group(3);
    let mut info = group.group_info_by(1);
    change(&mut info);
    info.sign(&group.client(1).key);
    opening(open_by(&info.to_message(), Some(&group.tree_bytes())))
}

fn one_leaf(broken: bool) -> Answers {
    let count = if broken { 2 } else { 1 };
    let mut group = Group::of_clients(clients(count), SharedTree::Blank);
    group.context.epoch = 0;
    group.context.confirmed_transcript_hash.clear();
    group.settle();
    create(&group)
}

fn supports_extensions(broken: bool) -> Answers {
    let creator = if broken { plain("alice") } else { client("alice") };
    create(&Group::create_with(creator, vec![Extension { kind: PRIVATE_USE, data: vec![1] }]))
}

fn total_lifetime(broken: bool) -> Answers {
    let mut validator = Validator::new();
    validator.limits.key_package_lifetime_s_max = 7200;
    let mut creator = client("alice");
    let not_before = Clock::system().now().0 / 1000 - 60;
    creator.lifetime = Lifetime { not_before, not_after: not_before + if broken { 7201 } else { 7200 } };
    create_within(&validator, &Group::create(creator))
}

fn expired(broken: bool) -> Answers {
    let mut creator = client("alice");
    let now_s = Clock::system().now().0 / 1000;
    creator.lifetime =
        Lifetime { not_before: now_s - 7200, not_after: if broken { now_s - 2 } else { now_s + 60 } };
    create(&Group::create(creator))
}

fn signer(broken: bool) -> Answers {
    let group = group(3);
    let mut info = group.group_info_by(1);
    info.sign(&group.client(if broken { 2 } else { 1 }).key);
    opening(open_by(&info.to_message(), Some(&group.tree_bytes())))
}

fn blank_signer(broken: bool) -> Answers {
    let mut it = Scene::new(4);
    let key = it.group.client(3).key.clone();
    let forged = it.group.commit(0).with(Proposal::Remove(3)).sign();
    it.proceed(&forged);
    let mut answers = Vec::new();
    for signer in if broken { vec![3, 900] } else { vec![2] } {
        let mut info = it.group.group_info_by(2);
        info.signer = signer;
        info.sign(if broken { &key } else { &it.group.client(2).key });
        answers.extend(opening(open_by(&info.to_message(), Some(&it.group.tree_bytes()))));
    }
    answers
}

fn trees_agree(broken: bool) -> Answers {
    let (mine, other) = (group(3), group(4));
    let tree = if broken { other.tree_bytes() } else { mine.tree_bytes() };
    let mut answers = opening(open_by(&mine.group_info_with_tree(0).to_message(), Some(&tree)));
    // The one in the GroupInfo is the wrong one.
    let mut info = mine.group_info_by(0);
    info.extensions.push(Extension { kind: extension::RATCHET_TREE, data: tree });
    info.sign(&mine.client(0).key);
    answers.extend(opening(open_by(&info.to_message(), Some(&mine.tree_bytes()))));
    answers
}

fn has_tree(broken: bool) -> Answers {
    let group = group(3);
    let info = if broken { group.group_info_by(0) } else { group.group_info_with_tree(0) };
    opening(open_by(&info.to_message(), None))
}

fn suite_known(broken: bool) -> Answers {
    let mut group = Group::create(Client::new(Suite::Ed25519, "alice"));
    if broken {
        group.context.cipher_suite = 0xf001;
    }
    group.settle();
    create(&group)
}

rules! {
    new_epoch ("§11", "invalid-group-info"):
        "A new group is at epoch 0.",
        accepted: "It is.",
        |broken| created(|group| group.context.epoch = u64::from(broken));
    new_transcript ("§8.2, §11", "invalid-group-info"):
        "The confirmed transcript hash of a new group is empty.",
        accepted: "It is.",
        |broken| created(|group| {
            if broken {
                group.context.confirmed_transcript_hash = vec![1; 32];
            }
        });
    new_tree ("§11; the draft, *Group Creation*", "invalid-group-info"):
        "A new group has its creator as its only member.",
        accepted: "It has.",
        one_leaf;
    new_extensions ("§13.4", "invalid-group-info"):
        "The creator supports the extensions of the group.",
        accepted: "It does.",
        supports_extensions;
    new_lifetime ("§7.3", "invalid-group-info"):
        "The lifetime of the creator's leaf has not ended.",
        accepted: "It ends in a minute.",
        expired;
    new_total_lifetime ("§7.2", "invalid-group-info"):
        "The total lifetime of the creator's leaf is at most the limit `key_package_lifetime_s_max`.",
        accepted: "A lifetime of just that length.",
        total_lifetime;
    known_cipher_suite ("§6.1", "invalid-group-info"):
        "A group is of a cipher suite that the gateway can verify.",
        accepted: "The suite 1.",
        suite_known;
    known_version ("§6", "invalid-group-info"):
        "A group is of the protocol version 1.0.",
        accepted: "It is.",
        |broken| created(|group| group.context.version = if broken { 2 } else { 1 });
    members_in_tree ("the gateway's limit `group_members_max`", "invalid-group-info"):
        "A group that is opened has no more members than the limit.",
        accepted: "Just as many.",
        |broken| {
            let mut validator = Validator::new();
            validator.limits.group_members_max = 4;
            let group = group(if broken { 5 } else { 4 });
            let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
            let now = Clock::system().now();
            opening(TrackedGroup::open(validator.context(), &info, Some(&tree), now).map(drop))
        };
    context_extensions_once_in_info ("§13.4", "malformed-mls-message"):
        "A group context has at most one extension of a type.",
        accepted: "One.",
        |broken| {
            let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
            create(&Group::create_with(client("alice"), vec![extension; if broken { 2 } else { 1 }]))
        };
    info_signature ("§12.4.3", "invalid-group-info"):
        "A GroupInfo is signed with the key of the leaf that it names.",
        accepted: "It is.",
        signer;
    info_signer ("§12.4.3", "invalid-group-info"):
        "The leaf that signs a GroupInfo is not blank.",
        accepted: "A leaf next to a blank one.",
        blank_signer;
    info_extensions_once ("§13.4", "malformed-mls-message"):
        "A GroupInfo has at most one extension of a type.",
        accepted: "One.",
        |broken| opened(|info| {
            let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
            info.extensions.extend(vec![extension; if broken { 2 } else { 1 }]);
        });
    info_tree ("§12.4.3.3", "invalid-group-info"):
        "A tree in the GroupInfo is the one that is uploaded with it.",
        accepted: "It is.",
        trees_agree;
    info_has_tree ("§12.4.3.3", "invalid-group-info"):
        "A group is opened with a tree: uploaded, or in the GroupInfo.",
        accepted: "The tree in the GroupInfo.",
        has_tree;
}
