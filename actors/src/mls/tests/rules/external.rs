//! External commits (RFC 9420 §12.2, §12.4.3.2).

use mls_forge::{
    Client, CommitDraft, CommitPlan, Extension, LeafNode, PathChoice, Proposal, ProposalOrRef, Sender,
};

use super::{
    Answers, PRIVATE_USE, Scene, Way, answer, client, handshake, proposal::reinit, renewed, rules,
    scene::SUITE,
};

/// An external commit of a client to a group of four, planned and then drafted with changes.
fn planned(
    joiner: &Client,
    plan: impl Fn(CommitPlan<'_>) -> CommitPlan<'_>,
    change: impl Fn(&mut CommitDraft<'_>),
) -> Answers {
    let mut it = Scene::new(4);
    let mut draft = plan(it.group.external_commit(joiner)).draft();
    change(&mut draft);
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

fn one_external_init(broken: bool) -> Answers {
    let joiner = client("joiner");
    let mut answers = planned(
        &joiner,
        |plan| plan,
        |draft| {
            if broken {
                draft.commit_mut().proposals.clear();
            }
        },
    );
    answers.extend(planned(
        &joiner,
        |plan| plan,
        |draft| {
            if broken {
                let twice = draft.commit_mut().proposals[0].clone();
                draft.commit_mut().proposals.push(twice);
            }
        },
    ));
    answers
}

/// A commit of a member that comes back, which removes these leaves.
fn removes(removed: &[u32]) -> Answers {
    let back = client("member 2");
    planned(&back, |plan| plan.with_all(removed.iter().map(|leaf| Proposal::Remove(*leaf))), |_| {})
}

fn other_proposals(broken: bool) -> Answers {
    let mut answers = Vec::new();
    let mut it = Scene::new(4);
    let newcomer = client("newcomer");
    let add = it.group.add(&newcomer);
    let update = it.group.update(1);
    let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
    let psk = Proposal::external_psk(it.group.suite, b"a key");
    let list = if broken {
        vec![
            add,
            update,
            Proposal::GroupContextExtensions(vec![extension]),
            Proposal::ReInit(reinit(&it.group)),
            Proposal::SelfRemove,
        ]
    } else {
        vec![psk]
    };
    for proposal in list {
        let mut it = Scene::new(4);
        it.group.know(&newcomer);
        let forged = it.group.external_commit(&client("joiner")).with(proposal).sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    answers
}

fn references(broken: bool) -> Answers {
    let mut answers = Vec::new();
    let psk = Proposal::external_psk(SUITE, b"a key");
    let list = if broken { vec![psk, Proposal::Remove(2)] } else { vec![Proposal::SelfRemove] };
    for proposal in list {
        let mut it = Scene::new(4);
        it.pend(Sender::Member(1), proposal);
        let forged = it.group.external_commit(&client("joiner")).with_pending().sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    answers
}

fn path(broken: bool) -> Answers {
    let joiner = client("joiner");
    let mut it = Scene::new(4);
    if !broken {
        let forged = it.group.external_commit(&joiner).sign();
        return handshake(it.commit(&forged));
    }
    let draft = it.group.external_commit(&joiner).path(PathChoice::Without).draft();
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

/// A joiner whose path is that of the free leaf in the middle, and whose leaf is signed for that place, or for the one at
/// the end.
fn place(broken: bool) -> Answers {
    let mut it = Scene::new(5);
    let forged = it.group.commit(0).with(Proposal::Remove(2)).sign();
    it.proceed(&forged);
    let joiner = client("joiner");
    let mut draft = it.group.external_commit(&joiner).draft();
    assert_eq!(draft.committer, 2);
    if broken {
        // The parent hash is computed with the first signature.
        let leaf = draft.clone().sign().tree.leaf(2).unwrap().clone();
        *draft.leaf_mut() = leaf;
        draft.leaf_mut().sign(&joiner.key, &it.group.context.group_id, 5);
        draft.keep.leaf_signature = true;
    }
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

/// The leaf of a member that comes back, changed.
fn resync(change: impl Fn(&mut LeafNode, &LeafNode)) -> Answers {
    let mut it = Scene::new(4);
    let back = it.group.client(2).clone();
    let old = it.group.tree.leaf(2).unwrap().clone();
    let mut draft = it.group.external_commit(&back).with(Proposal::Remove(2)).draft();
    change(draft.leaf_mut(), &old);
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

fn signed_by_joiner(broken: bool) -> Answers {
    let joiner = client("joiner");
    planned(
        &joiner,
        |plan| plan,
        |draft| {
            if broken {
                draft.key = client("another").key;
            }
        },
    )
}

/// A client that is a member joins again.
fn joins_again(broken: bool) -> Answers {
    let again = renewed("member 2");
    let removed: &[u32] = if broken { &[] } else { &[2] };
    planned(&again, |plan| plan.with_all(removed.iter().map(|leaf| Proposal::Remove(*leaf))), |_| {})
}

/// A commit of a member that says it comes from one who joins.
fn sender(broken: bool) -> Answers {
    let joiner = client("joiner");
    let mut answers = planned(
        &joiner,
        |plan| plan,
        |draft| {
            if broken {
                draft.message.content.sender = Sender::Member(1);
                draft.message.membership_tag = Some(vec![1; 32]);
                draft.key = client("member 1").key;
            }
        },
    );
    let mut it = Scene::new(4);
    let mut draft = it.group.commit(1).draft();
    if broken {
        // A member's commit with the proposal of a joiner's.
        let kem_output = draft.path_secret().kem_output;
        draft.commit_mut().proposals.push(ProposalOrRef::Proposal(Proposal::ExternalInit(kem_output)));
    }
    let forged = draft.sign();
    answers.push((Way::Handshake("by a member"), it.commit(&forged).map_err(answer)));
    answers
}

rules! {
    external_init_once ("§12.2", "external-commit"):
        "An external commit has exactly one ExternalInit.",
        accepted: "One.",
        one_external_init;
    external_init_for_joiners ("§12.2", "external-commit"):
        "Only one who joins commits an ExternalInit.",
        accepted: "One who joins.",
        sender;
    one_remove ("§12.2", "external-commit"):
        "An external commit removes at most one leaf.",
        accepted: "The joiner's old one.",
        |broken| removes(if broken { &[2, 3] } else { &[2] });
    remove_of_itself ("§12.2", "successor"):
        "The leaf that an external commit removes is one of the same client.",
        accepted: "It is.",
        |broken| removes(if broken { &[3] } else { &[2] });
    types_by_value ("§12.2", "external-commit"):
        "An external commit has no Add, Update, GroupContextExtensions, ReInit or SelfRemove by value.",
        accepted: "A PreSharedKey.",
        other_proposals;
    types_by_reference ("§12.4.3.2; MLS extensions, *SelfRemove Proposal*", "external-commit"):
        "An external commit refers to no proposal but SelfRemoves.",
        accepted: "A SelfRemove.",
        references;
    external_path ("§12.4.3.2", "path-required"):
        "An external commit has a path.",
        accepted: "It has.",
        path;
    external_signature ("§6.1, §12.4.3.2", "signature"):
        "An external commit is signed with the key of its path's leaf.",
        accepted: "It is.",
        signed_by_joiner;
    leftmost_leaf ("§12.4.2, §12.4.3.2", "leaf-node"):
        "One who joins takes the leftmost free leaf.",
        accepted: "The free leaf in the middle of a tree.",
        place;
    resync_encryption_key ("§7.3, §12.2", "distinct-keys"):
        "A member that comes back by an external commit has another encryption key than in the leaf that it removes.",
        accepted: "A new key, and the same signature key.",
        |broken| resync(|leaf, old| {
            if broken {
                leaf.encryption_key.clone_from(&old.encryption_key);
            }
        });
    joiner_is_no_member ("§12.2; the draft, *Identity Providers*", "distinct-clients"):
        "A client that is a member joins only if its old leaf is removed.",
        accepted: "It is.",
        joins_again;
}
