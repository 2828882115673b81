//! Proposals each by itself (RFC 9420 §12.1): proposed, and committed by value.

use mls_forge::{
    Extension, Group, MLS_10, PreSharedKeyId, Proposal, Psk, ReInit, Sender, SharedTree, extension,
};

use super::{
    Answers, PRIVATE_USE, Scene, UNLISTED, Way, answer, plain, rules,
    scene::{SUITE, clients},
};

/// A ReInit that is as it should be.
pub(super) fn reinit(group: &Group) -> ReInit {
    ReInit {
        group_id: b"the group after".to_vec(),
        version: MLS_10,
        cipher_suite: group.suite.number(),
        extensions: Vec::new(),
    }
}

/// Proposes it, commits it by reference if it is taken, and commits it by value. `scene` makes the scene.
pub(super) fn each_way(scene: impl Fn() -> Scene, proposal: impl Fn(&mut Scene) -> Proposal) -> Answers {
    let mut it = scene();
    let made = proposal(&mut it);
    let mut answers = by_reference(&mut it, made);
    let mut it = scene();
    let made = proposal(&mut it);
    let forged = it.group.commit(0).with(made).sign();
    answers.push((Way::Handshake("by value"), it.commit(&forged).map_err(answer)));
    answers
}

/// Proposes it, and commits it by reference if it is taken.
fn by_reference(it: &mut Scene, proposal: Proposal) -> Answers {
    let message = it.group.propose(Sender::Member(1), proposal);
    let proposed = it.propose(&message);
    let is_taken = proposed.is_ok();
    let mut answers = vec![(Way::Handshake("proposed"), proposed.map_err(answer))];
    if is_taken {
        let forged = it.group.commit(0).with_pending().sign();
        answers.push((Way::Handshake("by reference"), it.commit(&forged).map_err(answer)));
    }
    answers
}

fn in_three(proposal: impl Fn(&Scene) -> Proposal) -> Answers {
    each_way(|| Scene::new(3), |it| proposal(it))
}

/// A scene of three whose last member supports nothing that has to be listed.
fn with_plain_member() -> Scene {
    let mut members = clients(3);
    members[2] = plain("member 2");
    Scene::of(Group::of_clients(members, SharedTree::Populated))
}

fn psk(psk: Psk, nonce_bytes: usize) -> Answers {
    in_three(|_| Proposal::PreSharedKey(PreSharedKeyId { psk: psk.clone(), psk_nonce: vec![7; nonce_bytes] }))
}

fn resumption(usage: u8) -> Psk {
    Psk::Resumption { usage, psk_group_id: b"a group".to_vec(), psk_epoch: 3 }
}

/// A resumption key of a usage that has no place in a commit.
fn psk_usage(broken: bool) -> Answers {
    let usages: &[u8] = if broken { &[2, 3] } else { &[1] };
    usages.iter().flat_map(|usage| psk(resumption(*usage), SUITE.hash_length())).collect()
}

fn psk_nonce(broken: bool) -> Answers {
    let length = SUITE.hash_length();
    let lengths = if broken { vec![length - 1, length + 1, 0] } else { vec![length] };
    lengths.into_iter().flat_map(|length| psk(Psk::External(b"a key".to_vec()), length)).collect()
}

fn context_extensions(extensions: &[Extension]) -> Answers {
    each_way(with_plain_member, |_| Proposal::GroupContextExtensions(extensions.to_vec()))
}

/// `required_capabilities` of one type, of each list.
fn required_capabilities(broken: bool) -> Answers {
    let (extensions, proposals, credentials) =
        if broken { (PRIVATE_USE, PRIVATE_USE, PRIVATE_USE) } else { (1, 1, 1) };
    [
        Extension::required_capabilities(&[extensions], &[], &[]),
        Extension::required_capabilities(&[], &[proposals], &[]),
        Extension::required_capabilities(&[], &[], &[credentials]),
    ]
    .into_iter()
    .flat_map(|required| context_extensions(&[required]))
    .collect()
}

/// Types that a member does not support.
fn unsupported(broken: bool, proposals: &[Proposal]) -> Answers {
    proposals
        .iter()
        .flat_map(|proposal| {
            let scene = || if broken { with_plain_member() } else { Scene::new(3) };
            let mut answers = by_reference(&mut scene(), proposal.clone());
            // A SelfRemove is never by value.
            if *proposal != Proposal::SelfRemove {
                let mut it = scene();
                let forged = it.group.commit(0).with(proposal.clone()).sign();
                answers.push((Way::Handshake("by value"), it.commit(&forged).map_err(answer)));
            }
            answers
        })
        .collect()
}

fn remove_nobody(broken: bool) -> Answers {
    let scene = || {
        let mut it = Scene::new(5);
        let forged = it.group.commit(0).with(Proposal::Remove(3)).sign();
        it.proceed(&forged);
        it
    };
    let leaves: &[u32] = if broken { &[3, 5, 8, u32::MAX] } else { &[4] };
    leaves.iter().flat_map(|leaf| each_way(scene, |_| Proposal::Remove(*leaf))).collect()
}

fn self_remove_of_others(broken: bool) -> Answers {
    let mut it = super::framing::with_service(3);
    let sender = if broken { Sender::External(0) } else { Sender::Member(1) };
    vec![(Way::Handshake("proposed"), it.try_proposal(sender, Proposal::SelfRemove).map_err(answer))]
}

rules! {
    remove_of_a_member ("§12.1.3", "proposal"):
        "A Remove names a leaf that is not blank.",
        accepted: "The leaf next to a blank one.",
        remove_nobody;
    psk_nonce_length ("§12.1.4", "proposal"):
        "The nonce of a PreSharedKey has the length of the suite's hash.",
        accepted: "Of just that length.",
        psk_nonce;
    psk_resumption_usage ("§12.1.4", "proposal"):
        "A PreSharedKey of type `resumption` has the usage `application`, except in the first commit of a group.",
        accepted: "It has.",
        psk_usage;
    reinit_version ("§12.1.5", "proposal"):
        "A ReInit does not lead to an older version.",
        accepted: "To the same version.",
        |broken| in_three(|it| {
            let version = if broken { 0 } else { MLS_10 };
            Proposal::ReInit(ReInit { version, ..reinit(&it.group) })
        });
    external_init_by_member ("§12.1.6, §12.2", "external-commit"):
        "No member proposes or commits an ExternalInit.",
        accepted: "An external PSK in its place.",
        |broken| in_three(|it| {
            if broken {
                Proposal::ExternalInit(vec![1; 32])
            } else {
                Proposal::external_psk(it.group.suite, b"a key")
            }
        });
    context_required_capabilities ("§12.1.7", "group-context-extensions"):
        "All members support what a GroupContextExtensions requires.",
        accepted: "It requires default types and the credential type of all.",
        required_capabilities;
    context_extensions_supported ("§13.4", "unknown-kind"):
        "All members support the types of a GroupContextExtensions.",
        accepted: "A default type.",
        |broken| {
            let senders = Extension::of(extension::EXTERNAL_SENDERS, &Vec::<mls_forge::ExternalSender>::new());
            let private_use = Extension { kind: PRIVATE_USE, data: vec![1] };
            context_extensions(&[if broken { private_use } else { senders }])
        };
    context_extensions_once ("§13.4", "malformed-mls-message"):
        "A GroupContextExtensions has at most one extension of a type.",
        accepted: "One.",
        |broken| in_three(|_| {
            let extension = Extension { kind: PRIVATE_USE, data: vec![1] };
            Proposal::GroupContextExtensions(vec![extension; if broken { 2 } else { 1 }])
        });
    context_extensions_in_their_places ("§17.3", "malformed-mls-message"):
        "A GroupContextExtensions has none of the extensions that RFC 9420 defines for other places.",
        accepted: "`external_senders`.",
        |broken| in_three(|_| {
            let (kind, data) = if broken { (1, vec![1, 7]) } else { (5, vec![0]) };
            Proposal::GroupContextExtensions(vec![Extension { kind, data }])
        });
    proposal_type_supported ("§12.2", "capabilities"):
        "All members that process a commit support the types of its proposals.",
        accepted: "All members list the type.",
        |broken| unsupported(broken, &[
            Proposal::AppEphemeral { component_id: 0x8001, data: vec![1] },
            Proposal::SelfRemove,
        ]);
    proposal_type_known ("§12.2", "unknown-kind"):
        "A type that nobody supports is none that a proposal can have.",
        accepted: "A type that all members list.",
        |broken| in_three(|_| Proposal::Other(if broken { UNLISTED } else { PRIVATE_USE }, vec![1, 9]));
    proposal_type_means_something ("§13.5", "unknown-kind"):
        "That holds for GREASE types, too.",
        accepted: "A type that all members list.",
        |broken| in_three(|_| {
            Proposal::Other(if broken { super::scene::GREASE } else { PRIVATE_USE }, vec![1, 9])
        });
    self_remove_by_member ("MLS extensions, *SelfRemove Proposal*", "sender"):
        "A SelfRemove is a member's.",
        accepted: "It is.",
        self_remove_of_others;
}
