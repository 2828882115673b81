//! Keys of the committer's leaf: they are a member's until the path of the commit replaces them (RFC 9420 §7.3, §12.2).

use mls_forge::{Client, CommitDraft, Group, PathChoice, Proposal, SharedTree, Suite};

use super::{CommitInput, Observer, rule};
use crate::mls::Rule;

/// What has the key of another leaf.
#[derive(Clone, Copy, Debug)]
enum Key {
    Encryption,
    Signature,
}

/// An addition of a client that has a key of a member.
fn add(group: &mut Group, of: u32, key: Key) -> Proposal {
    let mut client = Client::new(Suite::Ed25519, "newcomer");
    if let Key::Signature = key {
        client.key = group.client(of).key.clone();
    }
    let mut package = client.key_package();
    if let Key::Encryption = key {
        package.leaf_node.encryption_key = group.tree.leaf(of).unwrap().encryption_key.clone();
        package.sign_all(&client.key);
    }
    Proposal::Add(package)
}

/// The committer takes a new signature key, so that the old one is nobody's in the end.
fn renewed(mut draft: CommitDraft<'_>) -> CommitDraft<'_> {
    let mut client = Client::new(Suite::Ed25519, "renewed");
    client.credential = draft.leaf_mut().credential.clone();
    draft.pass_leaf_to(&client);
    draft
}

#[test]
fn nobody_comes_in_with_a_key_that_the_committer_gives_up() {
    for key in [Key::Encryption, Key::Signature] {
        for shared in [SharedTree::Blank, SharedTree::Populated] {
            let group = Group::of_members(Suite::Ed25519, 3, shared);
            let judge = |of: u32| {
                let mut after = group.clone();
                let add = add(&mut after, of, key);
                let plan = after.commit(0).with(add).with(Proposal::Remove(2)).path(PathChoice::With);
                let forged = renewed(plan.draft()).sign();
                let (commit, welcome) = (forged.commit_bytes(), forged.welcome_bytes());
                let input = CommitInput { commit: &commit, group_info: None, welcome: welcome.as_deref() };
                let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
                Observer::open(&info, Some(&tree)).unwrap().commit(input).err().map(rule)
            };
            assert_eq!(judge(0), Some(Rule::DistinctKeys), "{key:?} of the committer");
            assert_eq!(judge(1), Some(Rule::DistinctKeys), "{key:?} of a member who stays");
            // The proposals are applied together: a member who is removed has no key any more.
            assert_eq!(judge(2), None, "{key:?} of a member who is removed");
        }
    }
}
