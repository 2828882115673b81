//! The proposal named when the MLS library refuses a commit as a whole.

use crate::mls::{
    Refusal, Rule,
    culprit::DECODED,
    wire::{CommitOutline, SenderKind},
};

use super::{Step, Story, client};

/// The reference that a refusal of a commit of these references names, by its place among them.
#[track_caller]
fn check(story: &Story, rule: Rule, sender: SenderKind, references: &[Vec<u8>], expected: Option<usize>) {
    let outline = CommitOutline {
        proposals: references.len(),
        references: references.iter().map(Vec::as_slice).collect(),
        path_ciphertexts: None,
        path_keys: Vec::new(),
        confirmation_tag: &[],
        adds: 0,
        listed: crate::mls::wire::Listed::default(),
        unknown_types: Default::default(),
    };
    let refusal = story.observer.live.with_culprit(Refusal::broken(rule, "of the library"), sender, &outline);
    let Refusal::Broken { proposal, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!(proposal.as_ref(), expected.map(|place| &references[place]), "{rule}");
}

/// The observer takes in a proposal; answers its reference.
fn propose(story: &mut Story, packet: &mls_rs::MlsMessage) -> Vec<u8> {
    story.observer.proposal(&packet.to_bytes().unwrap()).unwrap();
    story.observer.live.pending().last().unwrap().reference.clone()
}

#[test]
fn the_proposal_that_breaks_a_rule_is_found() {
    let mut story = Story::begin();
    story.step(&Step::Add { who: 0, count: 3 });
    let update = story.members[1].propose_update(vec![]).unwrap();
    let remove = story.members[0].propose_remove(1, vec![]).unwrap();
    let other = story.members[0].propose_remove(2, vec![]).unwrap();
    let package = |name: &str| {
        client(name).generate_key_package_message(Default::default(), Default::default(), None).unwrap()
    };
    let newcomer = package("newcomer");
    let add = story.members[0].propose_add(newcomer.clone(), vec![]).unwrap();
    let again = story.members[1].propose_add(newcomer, vec![]).unwrap();
    let [update, remove, other, add, again] =
        [update, remove, other, add, again].map(|packet| propose(&mut story, &packet));

    let member = |leaf| SenderKind::Member(leaf);
    let all = [update.clone(), other.clone(), remove.clone()];
    check(&story, Rule::OneProposalPerLeaf, member(0), &all, Some(2));
    check(&story, Rule::OneProposalPerLeaf, member(1), &all, Some(0));
    check(&story, Rule::OneProposalPerLeaf, member(3), &all[..2], None);
    check(&story, Rule::DistinctKeys, member(3), &[add.clone(), other.clone(), again], Some(2));
    check(&story, Rule::DistinctKeys, member(3), &[add.clone(), other.clone()], None);
    check(&story, Rule::LeafNode, member(3), &[other.clone(), add.clone()], Some(1));
    check(&story, Rule::LeafNode, member(3), &[update, add.clone()], None);
    check(&story, Rule::ExternalCommit, SenderKind::NewMemberCommit, std::slice::from_ref(&add), Some(0));
    check(&story, Rule::ExternalCommit, member(3), std::slice::from_ref(&add), None);
    check(&story, Rule::Signature, member(3), &[add], None);
}

#[test]
fn no_proposal_is_decoded_when_none_can_be_at_fault_alone() {
    let mut story = Story::begin();
    story.step(&Step::Add { who: 0, count: 2 });
    let remove = story.members[0].propose_remove(1, vec![]).unwrap();
    let other = story.members[0].propose_remove(2, vec![]).unwrap();
    let both = [remove, other].map(|packet| propose(&mut story, &packet));
    let decoded = |story: &Story, rule, sender, references: &[Vec<u8>], expected| {
        DECODED.set(0);
        check(story, rule, sender, references, None);
        assert_eq!(DECODED.get(), expected, "{rule}");
    };
    let member = SenderKind::Member(0);
    for rule in [Rule::Signature, Rule::Path, Rule::MemberCount, Rule::ExternalCommit, Rule::Identity] {
        decoded(&story, rule, member, &both, 0);
    }
    decoded(&story, Rule::DistinctProposals, member, &both[..1], 0);
    decoded(&story, Rule::OneProposalPerLeaf, member, &[], 0);
    decoded(&story, Rule::DistinctProposals, member, &both, 2);
}
