//! Paths of commits (RFC 9420 §7.5, §7.6, §7.9, §12.4.2).

use mls_forge::{CommitDraft, PathChoice, Proposal, Sender};

use super::{Answers, Scene, client, handshake, rules};

/// An empty commit of member 1 of seven, drafted and changed.
fn drafted(change: impl Fn(&mut CommitDraft<'_>)) -> Answers {
    let mut it = Scene::new(7);
    let mut draft = it.group.commit(1).draft();
    change(&mut draft);
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

fn path_required(broken: bool) -> Answers {
    let path = if broken { PathChoice::Without } else { PathChoice::With };
    let mut answers = Vec::new();
    let mut it = Scene::new(4);
    let forged = it.group.commit(0).path(path).sign();
    answers.extend(handshake(it.commit(&forged)));
    for proposal in [Proposal::Remove(2), Proposal::GroupContextExtensions(Vec::new())] {
        let mut it = Scene::new(4);
        let forged = it.group.commit(0).with(proposal).path(path).sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    for is_update in [true, false] {
        let mut it = Scene::new(4);
        let proposal = if is_update { it.group.update(1) } else { Proposal::SelfRemove };
        it.pend(Sender::Member(1), proposal);
        let forged = it.group.commit(0).with_pending().path(path).sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    // One that needs none does not help one that does.
    let mut it = Scene::new(4);
    let add = it.group.add(&client("newcomer"));
    let forged = it.group.commit(0).with(add).with(Proposal::Remove(2)).path(path).sign();
    answers.extend(handshake(it.commit(&forged)));
    answers
}

fn path_length(broken: bool) -> Answers {
    let mut answers = drafted(|draft| {
        if broken {
            draft.nodes_mut().pop();
        }
    });
    answers.extend(drafted(|draft| {
        if broken {
            let more = draft.nodes_mut()[0].clone();
            draft.nodes_mut().push(more);
        }
    }));
    // A parent over blank leaves is not part of the filtered direct path: here the one over the leaves 6 and 7.
    let mut it = Scene::new(7);
    let mut draft = it.group.commit(6).draft();
    assert_eq!(draft.path.len(), 2);
    if broken {
        let node = draft.nodes_mut()[0].clone();
        draft.nodes_mut().insert(0, node);
        draft.nodes_mut()[0].encrypted_path_secret.clear();
        draft.nodes_mut()[0].encryption_key = draft.path_secret().kem_output;
        draft.path.insert(0, (13, 14));
    }
    let forged = draft.sign();
    answers.extend(handshake(it.commit(&forged)));
    answers
}

fn parent_hash(broken: bool) -> Answers {
    let mut answers = Vec::new();
    for hash in [vec![7; 32], Vec::new()] {
        answers.extend(drafted(|draft| {
            if broken {
                draft.leaf_mut().source = mls_forge::LeafNodeSource::Commit(hash.clone());
                draft.keep.parent_hash = true;
            }
        }));
    }
    answers
}

/// A path whose node `at` has a key that is in the new tree already.
fn path_key(at: usize, key: impl Fn(&mut CommitDraft<'_>) -> Option<Vec<u8>>) -> Answers {
    drafted(|draft| {
        if let Some(key) = key(draft) {
            draft.nodes_mut()[at].encryption_key = key;
        }
    })
}

fn key_of_leaf(broken: bool) -> Answers {
    path_key(1, |draft| broken.then(|| draft.tree.leaf(5).unwrap().encryption_key.clone()))
}

fn key_of_parent(broken: bool) -> Answers {
    // A parent that stays: it is over the leaves 4 and 5.
    path_key(1, |draft| broken.then(|| draft.tree.parent(9).unwrap().encryption_key.clone()))
}

fn key_of_replaced_parent(broken: bool) -> Answers {
    path_key(1, |draft| broken.then(|| draft.tree.parent(3).unwrap().encryption_key.clone()))
}

fn key_of_own_leaf(broken: bool) -> Answers {
    path_key(0, |draft| broken.then(|| draft.leaf_mut().encryption_key.clone()))
}

fn keys_of_path(broken: bool) -> Answers {
    path_key(2, |draft| broken.then(|| draft.nodes_mut()[0].encryption_key.clone()))
}

/// The path's leaf has the key of a parent.
fn leaf_key_of_parent(broken: bool) -> Answers {
    drafted(|draft| {
        if broken {
            draft.leaf_mut().encryption_key = draft.tree.parent(9).unwrap().encryption_key.clone();
        }
    })
}

/// A key that a leaf had whom the same commit removes is in no node of the new tree.
fn key_of_removed(broken: bool) -> Answers {
    let mut it = Scene::new(7);
    let removed = it.group.tree.leaf(5).unwrap().encryption_key.clone();
    let mut draft = it.group.commit(1).with(Proposal::Remove(if broken { 4 } else { 5 })).draft();
    draft.nodes_mut()[0].encryption_key = removed;
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

/// A path key that no member can encrypt to.
fn usable(broken: bool) -> Answers {
    let mut answers = Vec::new();
    for key in [vec![0; 32], vec![1; 31], Vec::new()] {
        answers.extend(path_key(1, |_| broken.then(|| key.clone())));
    }
    answers
}

fn ciphertexts(broken: bool) -> Answers {
    let mut answers = Vec::new();
    for is_more in [false, true] {
        answers.extend(drafted(|draft| {
            if broken {
                let secret = draft.path_secret();
                let secrets = &mut draft.nodes_mut()[2].encrypted_path_secret;
                if is_more { secrets.push(secret) } else { secrets.clear() }
            }
        }));
    }
    answers
}

/// The new members get no path secret by the path.
fn ciphertexts_of_added(broken: bool) -> Answers {
    let mut it = Scene::new(6);
    let add = it.group.add(&client("newcomer"));
    let mut draft = it.group.commit(0).with(add).path(PathChoice::With).draft();
    let secret = draft.path_secret();
    let copath = draft.path.last().unwrap().1;
    let count = draft.tree.resolution(copath).len();
    let secrets = &mut draft.nodes_mut().last_mut().unwrap().encrypted_path_secret;
    assert_eq!(secrets.len(), count - 1);
    if broken {
        secrets.push(secret);
    }
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

/// Unmerged leaves of a parent get a ciphertext each.
fn ciphertexts_of_unmerged(broken: bool) -> Answers {
    let mut it = Scene::new(6);
    let add = it.group.add(&client("newcomer"));
    let forged = it.group.commit(0).with(add).path(PathChoice::Without).sign();
    it.proceed(&forged);
    let mut draft = it.group.commit(0).draft();
    let last = draft.nodes_mut().last_mut().unwrap();
    assert!(last.encrypted_path_secret.len() > 1);
    if broken {
        last.encrypted_path_secret.pop();
    }
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

rules! {
    path_when_required ("§12.4", "path-required"):
        "An empty commit has a path, and so has one with an Update, Remove, SelfRemove or GroupContextExtensions.",
        accepted: "They have.",
        path_required;
    path_nodes ("§7.5, §12.4.1", "path"):
        "A path has one node for each parent of the filtered direct path.",
        accepted: "It has.",
        path_length;
    path_parent_hash ("§7.9.2", "path"):
        "The leaf of a path has the parent hash of the parents that the path makes.",
        accepted: "It has.",
        parent_hash;
    path_key_of_leaf ("§12.4.2", "distinct-keys"):
        "No key of a path is the key of a leaf of the new tree.",
        accepted: "New keys.",
        key_of_leaf;
    path_key_of_parent ("§12.4.2", "distinct-keys"):
        "No key of a path is the key of a parent that stays.",
        accepted: "New keys.",
        key_of_parent;
    path_key_of_replaced_parent ("§12.4.2", "distinct-keys"):
        "No key of a path is the key of a parent that the path replaces.",
        accepted: "New keys.",
        key_of_replaced_parent;
    path_key_of_own_leaf ("§12.4.2", "distinct-keys"):
        "No key of a path is that of the path's own leaf.",
        accepted: "New keys.",
        key_of_own_leaf;
    path_keys_distinct ("§12.4.2", "distinct-keys"):
        "No two nodes of a path have the same key.",
        accepted: "Each its own.",
        keys_of_path;
    path_leaf_key_of_parent ("§12.4.2", "distinct-keys"):
        "The leaf of a path does not have the key of a parent of the new tree.",
        accepted: "A new key.",
        leaf_key_of_parent;
    path_key_of_removed ("§12.4.2", "distinct-keys"):
        "What counts for the keys of a path is the tree after the commit's proposals.",
        accepted: "The key of a leaf that the same commit removes.",
        key_of_removed;
    path_keys_usable ("§5.1.1; RFC 9180 §7.1", "path"):
        "The keys of a path are public keys of the suite to which members can encrypt.",
        accepted: "They are.",
        usable;
    path_ciphertexts ("§7.6", "path-ciphertexts"):
        "Each node of a path has a ciphertext for each node of its copath's resolution.",
        accepted: "It has.",
        ciphertexts;
    path_ciphertexts_of_added ("§7.6", "path-ciphertexts"):
        "It has none for leaves that the same commit adds.",
        accepted: "None.",
        ciphertexts_of_added;
    path_ciphertexts_of_unmerged ("§4.1.1, §7.6", "path-ciphertexts"):
        "It has one for each unmerged leaf in the resolution.",
        accepted: "It has.",
        ciphertexts_of_unmerged;
}
