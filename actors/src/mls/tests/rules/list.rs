//! Lists of proposals (RFC 9420 §12.2) in members' commits.

use mls_forge::{Client, Extension, Group, PathChoice, Proposal, Sender, SharedTree};

use super::{
    Answers, PRIVATE_USE, Scene, Way, answer, client, handshake, proposal::reinit, renewed, rules,
    scene::clients,
};

/// Commits pending proposals and these by value, by member 0.
fn committed(it: &mut Scene, by_value: Vec<Proposal>) -> Answers {
    let forged = it.group.commit(0).with_pending().with_all(by_value).sign();
    handshake(it.commit(&forged))
}

fn of_committer(broken: bool, self_remove: bool) -> Answers {
    let mut it = Scene::new(3);
    let who = u32::from(!broken);
    let proposal = if self_remove { Proposal::SelfRemove } else { it.group.update(who) };
    it.pend(Sender::Member(who), proposal);
    committed(&mut it, Vec::new())
}

fn removes_committer(broken: bool) -> Answers {
    let removed = u32::from(!broken);
    let mut it = Scene::new(3);
    let mut answers = committed(&mut it, vec![Proposal::Remove(removed)]);
    let mut it = Scene::new(3);
    it.pend(Sender::Member(2), Proposal::Remove(removed));
    answers.extend(committed(&mut it, Vec::new()));
    answers
}

/// Two proposals for the leaf 1, or for 1 and 2.
fn one_leaf(broken: bool) -> Answers {
    let other = if broken { 1 } else { 2 };
    let mut answers = Vec::new();
    let mut add = |way, list: Answers| {
        answers.extend(list.into_iter().map(|(_, answer)| (Way::Handshake(way), answer)));
    };

    let mut it = Scene::new(4);
    for who in [1, other] {
        let update = it.group.update(who);
        it.pend(Sender::Member(who), update);
    }
    add("two Updates", committed(&mut it, Vec::new()));

    let mut it = Scene::new(4);
    let update = it.group.update(1);
    it.pend(Sender::Member(1), update);
    add("an Update and a Remove", committed(&mut it, vec![Proposal::Remove(other)]));

    let mut it = Scene::new(4);
    add("two Removes", committed(&mut it, vec![Proposal::Remove(1), Proposal::Remove(other)]));

    let mut it = Scene::new(4);
    it.pend(Sender::Member(3), Proposal::Remove(1));
    add("a Remove by reference and one by value", committed(&mut it, vec![Proposal::Remove(other)]));

    let mut it = Scene::new(4);
    it.pend(Sender::Member(1), Proposal::SelfRemove);
    add("a SelfRemove and a Remove", committed(&mut it, vec![Proposal::Remove(other)]));

    let mut it = Scene::new(4);
    it.pend(Sender::Member(1), Proposal::SelfRemove);
    let update = it.group.update(other);
    it.pend(Sender::Member(other), update);
    add("a SelfRemove and an Update", committed(&mut it, Vec::new()));
    answers
}

/// Two Adds of clients, the second one of which is called `second`.
fn adds(second: &Client) -> Answers {
    let mut it = Scene::new(3);
    let (first, second) = (client("newcomer"), second.clone());
    let adds = [it.group.add(&first), it.group.add(&second)];
    committed(&mut it, adds.into())
}

fn add_of_a_member(broken: bool) -> Answers {
    let come_back = |with: fn(&str) -> Client| {
        let mut it = Scene::new(3);
        let add = it.group.add(&with("member 2"));
        let mut list = vec![add];
        list.extend((!broken).then_some(Proposal::Remove(2)));
        committed(&mut it, list)
    };
    let mut answers = come_back(renewed);
    // With its old key, which is free when its leaf is removed.
    answers.extend(if broken { Vec::new() } else { come_back(client) });
    answers
}

fn psks(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let suite = it.group.suite;
    let second: &[u8] = if broken { b"one" } else { b"two" };
    let list = vec![Proposal::external_psk(suite, b"one"), Proposal::external_psk(suite, second)];
    let mut answers = committed(&mut it, list.clone());
    let mut it = Scene::new(3);
    it.pend(Sender::Member(1), list[0].clone());
    it.pend(Sender::Member(2), list[1].clone());
    answers.extend(committed(&mut it, Vec::new()));
    answers
}

fn context_extensions(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let extension = |data| Proposal::GroupContextExtensions(vec![Extension { kind: PRIVATE_USE, data }]);
    let mut list = vec![extension(vec![1])];
    list.extend(broken.then(|| extension(vec![2])));
    committed(&mut it, list)
}

fn reinit_alone(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let reinit = Proposal::ReInit(reinit(&it.group));
    let mut list = vec![reinit.clone()];
    list.extend(broken.then(|| Proposal::external_psk(it.group.suite, b"a key")));
    let mut answers = committed(&mut it, list);
    let mut it = Scene::new(3);
    it.pend(Sender::Member(1), reinit.clone());
    answers.extend(committed(&mut it, if broken { vec![Proposal::Remove(2)] } else { Vec::new() }));
    if broken {
        let mut it = Scene::new(3);
        answers.extend(committed(&mut it, vec![reinit.clone(), reinit]));
    }
    answers
}

fn after_reinit(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let first = if broken {
        Proposal::ReInit(reinit(&it.group))
    } else {
        Proposal::external_psk(it.group.suite, b"a key")
    };
    let forged = it.group.commit(0).with(first).sign();
    it.proceed(&forged);
    let proposed = it.try_proposal(Sender::Member(1), Proposal::Remove(2));
    let mut answers = vec![(Way::Handshake("a proposal"), proposed.map_err(answer))];
    let joiner = client("joiner");
    if broken {
        let forged = it.group.external_commit(&joiner).sign();
        answers.push((Way::Handshake("an external commit"), it.commit(&forged).map_err(answer)));
    }
    let forged = it.group.commit(1).sign();
    answers.push((Way::Handshake("a commit"), it.commit(&forged).map_err(answer)));
    answers
}

fn known(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let reference = it.pend(Sender::Member(1), Proposal::Remove(2));
    let reference = if broken { vec![9; 32] } else { reference };
    let forged = it.group.commit(0).with_reference(&reference).path(PathChoice::With).sign();
    let mut answers = handshake(it.commit(&forged));
    if broken {
        // One of the epoch before.
        let mut it = Scene::new(3);
        let reference = it.pend(Sender::Member(1), Proposal::Remove(2));
        let forged = it.group.commit(0).sign();
        it.proceed(&forged);
        let forged = it.group.commit(0).with_reference(&reference).path(PathChoice::With).sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    answers
}

fn referenced_once(broken: bool) -> Answers {
    // Of a type of which a commit may have several, with the same content.
    let mut it = Scene::new(3);
    let reference = it.pend(Sender::Member(1), Proposal::Other(PRIVATE_USE, vec![1, 9]));
    let mut plan = it.group.commit(0).with_reference(&reference);
    if broken {
        plan = plan.with_reference(&reference);
    }
    let forged = plan.sign();
    handshake(it.commit(&forged))
}

fn self_remove_by_value(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    if broken {
        return committed(&mut it, vec![Proposal::SelfRemove]);
    }
    it.pend(Sender::Member(1), Proposal::SelfRemove);
    committed(&mut it, Vec::new())
}

fn update_by_value(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let update = it.group.update(u32::from(!broken));
    if broken {
        return committed(&mut it, vec![update]);
    }
    it.pend(Sender::Member(1), update);
    committed(&mut it, Vec::new())
}

fn proposal_count(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    it.observer.validator.limits.proposals_per_commit_max = 4;
    let suite = it.group.suite;
    let count = if broken { 5 } else { 4 };
    committed(&mut it, (0..count).map(|at| Proposal::external_psk(suite, &[at])).collect())
}

fn member_count(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    it.observer.validator.limits.group_members_max = 4;
    let names: &[&str] = if broken { &["one", "two"] } else { &["one"] };
    let adds = names.iter().map(|name| it.group.add(&client(name))).collect();
    let mut answers = committed(&mut it, adds);
    // Beside a proposal that removes nobody, and by one who joins.
    let scene = || {
        let mut it = Scene::new(if broken { 4 } else { 3 });
        it.observer.validator.limits.group_members_max = 4;
        it
    };
    let mut it = scene();
    let list = vec![it.group.add(&client("one")), Proposal::external_psk(it.group.suite, b"a key")];
    answers.extend(committed(&mut it, list));
    let mut it = scene();
    let forged = it.group.external_commit(&client("joiner")).sign();
    answers.extend(handshake(it.commit(&forged)));
    answers
}

/// A member that does not support a type may be removed by the commit that uses it, but not stay.
fn supported_by_those_who_stay(broken: bool) -> Answers {
    let mut members = clients(4);
    members[3] = super::plain("member 3");
    let mut it = Scene::of(Group::of_clients(members, SharedTree::Populated));
    let removed = if broken { 2 } else { 3 };
    let mut answers = committed(
        &mut it,
        vec![Proposal::Remove(removed), Proposal::AppEphemeral { component_id: 0x8001, data: vec![1] }],
    );
    answers.extend(context_without(broken));
    answers
}

/// An extension of the context needs no support by a member whom the same commit removes.
fn context_without(broken: bool) -> Answers {
    let mut members = clients(4);
    members[3] = super::plain("member 3");
    let mut it = Scene::of(Group::of_clients(members, SharedTree::Populated));
    let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
    let removed = if broken { 2 } else { 3 };
    let list = vec![Proposal::GroupContextExtensions(vec![extension]), Proposal::Remove(removed)];
    // The first of these lists breaks a rule of another name.
    if broken { Vec::new() } else { committed(&mut it, list) }
}

/// A commit whose new context asks for what an added leaf lacks.
fn new_context(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let newcomer = super::plain("newcomer");
    let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
    let extensions = if broken { vec![extension] } else { Vec::new() };
    let list = vec![Proposal::GroupContextExtensions(extensions), it.group.add(&newcomer)];
    let mut answers = committed(&mut it, list);
    if !broken {
        // The context had the extension that the newcomer lacks, and drops it.
        let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
        let mut it = Scene::of(super::scene::group_with(3, vec![extension]));
        let list = vec![Proposal::GroupContextExtensions(Vec::new()), it.group.add(&newcomer)];
        answers.extend(committed(&mut it, list));
    }
    answers
}

rules! {
    update_of_committer ("§12.2", "one-proposal-per-leaf"):
        "A commit has no Update of its committer.",
        accepted: "An Update of another member.",
        |broken| of_committer(broken, false);
    self_remove_of_committer ("§12.2; MLS extensions, *SelfRemove Proposal*", "one-proposal-per-leaf"):
        "A commit has no SelfRemove of its committer.",
        accepted: "A SelfRemove of another member.",
        |broken| of_committer(broken, true);
    remove_of_committer ("§12.2", "one-proposal-per-leaf"):
        "A commit does not remove its committer.",
        accepted: "It removes another member.",
        removes_committer;
    one_proposal_per_leaf ("§12.2", "one-proposal-per-leaf"):
        "At most one Update, Remove or SelfRemove applies to a leaf.",
        accepted: "They apply to two leaves.",
        one_leaf;
    added_clients_distinct ("§12.2", "distinct-clients"):
        "A commit adds a client once.",
        accepted: "Two clients.",
        |broken| adds(&renewed(if broken { "newcomer" } else { "another" }));
    added_signature_keys_distinct ("§7.3, §12.2", "distinct-keys"):
        "No two leaves that a commit adds have the same signature key.",
        accepted: "Two keys.",
        |broken| {
            let mut another = client("another");
            if broken {
                another.key = client("newcomer").key;
            }
            adds(&another)
        };
    added_client_is_not_a_member ("§12.2", "distinct-clients"):
        "A commit adds no client that is a member, unless it removes it.",
        accepted: "The same commit removes the client's old leaf.",
        add_of_a_member;
    psks_distinct ("§12.2", "distinct-proposals"):
        "A commit refers to a pre-shared key once.",
        accepted: "Two keys.",
        psks;
    one_context_extensions ("§12.2", "distinct-proposals"):
        "A commit has at most one GroupContextExtensions.",
        accepted: "One.",
        context_extensions;
    reinit_is_alone ("§12.2", "reinit-alone"):
        "A ReInit is the only proposal of its commit.",
        accepted: "It is.",
        reinit_alone;
    nothing_after_reinit ("§11.2, §12.4.2", "nothing-after-reinit"):
        "Nothing follows a ReInit.",
        accepted: "Something follows a commit with another proposal.",
        after_reinit;
    references_known ("§12.4", "known-proposals"):
        "A commit refers to proposals of its epoch.",
        accepted: "It does.",
        known;
    references_once ("§12.2", "distinct-proposals"):
        "A commit refers to a proposal once.",
        accepted: "It does.",
        referenced_once;
    self_remove_by_reference ("MLS extensions, *SelfRemove Proposal*", "one-proposal-per-leaf"):
        "A SelfRemove is committed by reference only.",
        accepted: "By reference.",
        self_remove_by_value;
    update_by_reference ("§12.2", "one-proposal-per-leaf"):
        "An Update is committed by reference only: by value, it would be the committer's own.",
        accepted: "By reference.",
        update_by_value;
    proposals_supported_by_those_who_stay ("§12.2", "capabilities"):
        "All members that stay support the types of a commit's proposals.",
        accepted: "The commit removes the only member that does not.",
        supported_by_those_who_stay;
    added_leaves_fit_new_context ("§12.3", "capabilities"):
        "Added leaves support the extensions that the commit gives the context.",
        accepted: "The commit takes the extension away that the added leaf does not support.",
        new_context;
    proposals_per_commit ("the gateway's limit `proposals_per_commit_max`", "proposal-count"):
        "A commit has no more proposals than the limit.",
        accepted: "Just as many.",
        proposal_count;
    members_per_group ("the gateway's limit `group_members_max`", "member-count"):
        "A commit makes a group no larger than the limit.",
        accepted: "Just as large.",
        member_count;
}
