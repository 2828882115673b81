//! Ratchet trees from which groups are opened (RFC 9420 §7.9, §12.4.3.1, §12.4.3.3).

use mls_forge::{Group, LeafNodeSource, Node, ParentNode, Proposal, SharedTree, Tls as _};

use super::{
    Answers, opening, rules,
    scene::{clients, group, open, open_by},
};

/// Opens a group of five after a change to it, which is then made to fit the tree hash.
fn changed(change: impl Fn(&mut Group)) -> Answers {
    let mut group = group(5);
    change(&mut group);
    group.settle();
    opening(open(&group))
}

/// Four members and one blank leaf, 1, which no parent lists: member 3 removed it. The root's parent hash comes from the
/// right.
fn with_blank_leaf() -> Group {
    let mut group = group(4);
    let forged = group.commit(3).with(Proposal::Remove(1)).sign();
    group.apply(&forged);
    group
}

fn unmerged(at: usize, leaves: &[u32]) -> Answers {
    let mut group = with_blank_leaf();
    group.tree.parent_mut(at).unwrap().unmerged_leaves = leaves.to_vec();
    group.settle();
    opening(open(&group))
}

/// Eight members; the last one left and another came in its place: unmerged in all parents above it.
fn with_unmerged_leaf() -> Group {
    let mut group = group(8);
    let forged = group.commit(0).with(Proposal::Remove(5)).sign();
    group.apply(&forged);
    let forged = group.commit(7).sign();
    group.apply(&forged);
    let forged = group.commit(6).sign();
    group.apply(&forged);
    let newcomer = super::client("newcomer");
    let add = group.add(&newcomer);
    let forged = group.commit(0).with(add).path(mls_forge::PathChoice::Without).sign();
    group.apply(&forged);
    group
}

fn unmerged_between(broken: bool) -> Answers {
    let mut group = with_unmerged_leaf();
    let parents: Vec<_> =
        group.tree.direct_path(5).into_iter().filter(|node| group.tree.parent(*node).is_some()).collect();
    assert!(parents.len() > 1, "a parent between the leaf and the root");
    for node in &parents {
        assert_eq!(group.tree.parent(*node).unwrap().unmerged_leaves, [5]);
    }
    if broken {
        group.tree.parent_mut(parents[0]).unwrap().unmerged_leaves.clear();
    }
    group.settle();
    let mut answers = opening(open(&group));
    answers.extend(unmerged_at_root(broken));
    answers
}

/// Four members, the first of whom is unmerged in the root, and in the parent between them or not.
fn unmerged_at_root(broken: bool) -> Answers {
    let mut group = group(4);
    let root = group.tree.root();
    for node in if broken { vec![root] } else { vec![root, 1] } {
        group.tree.parent_mut(node).unwrap().unmerged_leaves = vec![0];
    }
    with_fitting_hashes(group)
}

/// The left parent of four members lists a leaf below it, or one of the other half.
fn unmerged_elsewhere(broken: bool) -> Answers {
    let mut group = group(4);
    group.tree.parent_mut(1).unwrap().unmerged_leaves = vec![if broken { 3 } else { 0 }];
    if !broken {
        let root = group.tree.root();
        group.tree.parent_mut(root).unwrap().unmerged_leaves = vec![0];
    }
    with_fitting_hashes(group)
}

/// Opens a group of four after its parent hashes were made to fit: from the left, since those of the right half cover the
/// left one.
fn with_fitting_hashes(mut group: Group) -> Answers {
    let (suite, root) = (group.suite, group.tree.root());
    for (leaf, parent, sibling) in [(1, 1, 0), (3, 5, 4)] {
        let of_root = group.tree.parent_hash(suite, root, 1);
        group.tree.parent_mut(5).unwrap().parent_hash = of_root;
        let source = LeafNodeSource::Commit(group.tree.parent_hash(suite, parent, sibling));
        let (key, group_id) = (group.client(leaf).key.clone(), group.context.group_id.clone());
        let node = group.tree.leaf_mut(leaf).unwrap();
        node.source = source;
        node.sign(&key, &group_id, leaf);
    }
    group.settle();
    opening(open(&group))
}

/// Two leaves added at once, in the order of their indexes or not.
fn unmerged_in_order(broken: bool) -> Answers {
    let mut group = group(6);
    let adds = ["one", "two"].map(|name| group.add(&super::client(name)));
    let forged = group.commit(0).with_all(adds).path(mls_forge::PathChoice::Without).sign();
    group.apply(&forged);
    let root = group.tree.root();
    assert_eq!(group.tree.parent(root).unwrap().unmerged_leaves, [6, 7]);
    if broken {
        group.tree.parent_mut(root).unwrap().unmerged_leaves = vec![7, 6];
    }
    group.settle();
    opening(open(&group))
}

/// All parents with one key, and parent hashes that fit.
fn parent_keys(broken: bool) -> Answers {
    let mut group = group(4);
    let (randomness, group_id) = (group.randomness.clone(), group.context.group_id.clone());
    let one_key = group.suite.hpke_key(&randomness);
    let keys: Vec<_> = (0..4).map(|member| group.client(member).key.clone()).collect();
    let suite = group.suite;
    group.tree.populate(
        suite,
        &mut || if broken { one_key.clone() } else { suite.hpke_key(&randomness) },
        &mut |index, leaf| leaf.sign(&keys[index as usize], &group_id, index),
    );
    group.settle();
    opening(open(&group))
}

/// A parent with the key of a leaf, and parent hashes that fit.
fn parent_key_of_leaf(broken: bool) -> Answers {
    let mut group = group(4);
    let (randomness, group_id) = (group.randomness.clone(), group.context.group_id.clone());
    let mut taken = broken.then(|| group.tree.leaf(0).unwrap().encryption_key.clone());
    let keys: Vec<_> = (0..4).map(|member| group.client(member).key.clone()).collect();
    let suite = group.suite;
    let mut calls = 0;
    group.tree.populate(
        suite,
        &mut || {
            calls += 1;
            // The first one becomes a hash and no key.
            let taken = if calls > 2 { taken.take() } else { None };
            taken.unwrap_or_else(|| suite.hpke_key(&randomness))
        },
        &mut |index, leaf| leaf.sign(&keys[index as usize], &group_id, index),
    );
    group.settle();
    let keys: Vec<_> = [1, 3, 5].map(|node| group.tree.parent(node).unwrap().encryption_key.clone()).into();
    assert_eq!(keys.contains(&group.tree.leaf(0).unwrap().encryption_key), broken);
    opening(open(&group))
}

/// Two leaves with the same key.
fn leaf_keys(broken: bool, change: fn(&mut Group)) -> Answers {
    let mut group = Group::of_clients(clients(4), SharedTree::Blank);
    if broken {
        change(&mut group);
    }
    group.settle();
    opening(open(&group))
}

fn last_node_blank(broken: bool) -> Answers {
    let group = group(3);
    let mut tree = mls_forge::Tree::to_bytes(&group.tree);
    if broken {
        // One more blank node: the vector has a length of two bytes.
        let length = u16::from_be_bytes([tree[0], tree[1]]);
        assert_eq!(length >> 14, 1);
        tree[..2].copy_from_slice(&(length + 1).to_be_bytes());
        tree.push(0);
    }
    opening(open_by(&group.group_info().to_message(), Some(&tree)))
}

/// One member, and behind its leaf a parent that the tree hash does not cover.
fn parent_at_end(broken: bool) -> Answers {
    let group = group(1);
    let mut nodes = [&[1, 1], group.tree.leaf(0).unwrap().to_bytes().as_slice()].concat();
    if broken {
        let parent =
            ParentNode { encryption_key: vec![7; 32], parent_hash: Vec::new(), unmerged_leaves: Vec::new() };
        nodes.extend([&[1, 2], parent.to_bytes().as_slice()].concat());
    }
    opening(open_by(&group.group_info().to_message(), Some(&nodes.to_bytes())))
}

/// A tree that has no nodes, or a node of the other kind in a place.
fn node_kinds(broken: bool) -> Answers {
    let mut group = group(3);
    if broken {
        let leaf = group.tree.leaf(0).unwrap().clone();
        group.tree.set_node(1, Some(Node::Leaf(leaf)));
        group.settle();
    }
    opening(open(&group))
}

rules! {
    tree_hash ("§12.4.3.1, §12.4.3.3", "invalid-group-info"):
        "The tree hash of the ratchet tree is the group context's.",
        accepted: "It is.",
        |broken| {
            let mut group = group(5);
            if broken {
                group.context.tree_hash[0] ^= 1;
            }
            let mut answers = opening(open(&group));
            answers.extend(parent_at_end(broken));
            answers
        };
    parent_hash_of_parent ("§7.9.2", "invalid-group-info"):
        "Each parent is parent-hash valid: a parent below has its parent hash.",
        accepted: "A tree in which every member has committed.",
        |broken| changed(|group| {
            if broken {
                // The right child of the root of the first four leaves.
                group.tree.parent_mut(5).unwrap().parent_hash[0] ^= 1;
            }
        });
    parent_hash_of_leaf ("§7.9.2", "invalid-group-info"):
        "Each parent is parent-hash valid: a leaf below has its parent hash.",
        accepted: "A tree in which every member has committed.",
        |broken| changed(|group| {
            if broken {
                let (key, group_id) = (group.client(3).key.clone(), group.context.group_id.clone());
                let leaf = group.tree.leaf_mut(3).unwrap();
                leaf.source = LeafNodeSource::Commit(vec![9; 32]);
                leaf.sign(&key, &group_id, 3);
            }
        });
    parent_key ("§7.9.2", "invalid-group-info"):
        "A parent has the key that its committer gave it.",
        accepted: "A tree in which every member has committed.",
        |broken| changed(|group| {
            if broken {
                let key = group.suite.hpke_key(&group.randomness);
                group.tree.parent_mut(3).unwrap().encryption_key = key;
            }
        });
    unmerged_leaf_blank ("§12.4.3.1", "invalid-group-info"):
        "An entry of `unmerged_leaves` is a leaf that is not blank.",
        accepted: "The leaf is blank and in no list.",
        |broken| unmerged(3, if broken { &[1] } else { &[] });
    unmerged_leaf_elsewhere ("§12.4.3.1", "invalid-group-info"):
        "An entry of `unmerged_leaves` is a leaf below the parent.",
        accepted: "A leaf below it.",
        |broken| {
            let mut answers = unmerged(3, if broken { &[9] } else { &[] });
            answers.extend(unmerged_elsewhere(broken));
            answers
        };
    unmerged_leaf_between ("§12.4.3.1", "invalid-group-info"):
        "A leaf that is unmerged in a parent is unmerged in all parents between the two.",
        accepted: "A leaf that was added without a path.",
        unmerged_between;
    unmerged_leaves_sorted ("§7.1", "malformed-mls-message"):
        "The entries of `unmerged_leaves` are in ascending order.",
        accepted: "They are.",
        unmerged_in_order;
    parent_keys_distinct ("§12.4.3.1", "invalid-group-info"):
        "No two parents have the same key.",
        accepted: "Each its own.",
        parent_keys;
    parent_and_leaf_keys_distinct ("§12.4.3.1", "invalid-group-info"):
        "No parent has the key of a leaf.",
        accepted: "Each its own.",
        parent_key_of_leaf;
    leaf_encryption_keys_distinct ("§7.3, §12.4.3.1", "invalid-group-info"):
        "No two leaves of a tree have the same encryption key.",
        accepted: "Each its own.",
        |broken| leaf_keys(broken, |group| {
            let (taken, key) =
                (group.tree.leaf(0).unwrap().encryption_key.clone(), group.client(2).key.clone());
            let leaf = group.tree.leaf_mut(2).unwrap();
            leaf.encryption_key = taken;
            leaf.sign(&key, &[], 2);
        });
    leaf_signature_keys_distinct ("§7.3, §12.4.3.1", "invalid-group-info"):
        "No two leaves of a tree have the same signature key.",
        accepted: "Each its own.",
        |broken| leaf_keys(broken, |group| {
            let key = group.client(0).key.clone();
            let leaf = group.tree.leaf_mut(2).unwrap();
            leaf.signature_key = key.public();
            leaf.sign(&key, &[], 2);
        });
    clients_distinct ("§5.3; the draft, *Identity Providers*", "invalid-group-info"):
        "No two leaves of a tree are of the same client.",
        accepted: "Each of its own.",
        |broken| leaf_keys(broken, |group| {
            let key = group.client(2).key.clone();
            let credential = group.tree.leaf(0).unwrap().credential.clone();
            let leaf = group.tree.leaf_mut(2).unwrap();
            leaf.credential = credential;
            leaf.sign(&key, &[], 2);
        });
    tree_ends_with_a_node ("§12.4.3.3", "invalid-group-info"):
        "The last node of a serialised tree is not blank.",
        accepted: "It is not.",
        last_node_blank;
    nodes_in_their_places ("§12.4.3.3", "invalid-group-info"):
        "Leaves are in even and parents in odd places of a serialised tree.",
        accepted: "They are.",
        node_kinds;
}
