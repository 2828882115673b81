//! The cost of refusals: checks without cryptography come first, and messages that would cost too much are refused
//! early.

use super::{CommitInput, Observer, Refusal, Rule, Story, refused, rule};
use crate::presentation::{Reader, write_vector_length};

fn vector(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_vector_length(&mut bytes, content.len());
    bytes.extend_from_slice(content);
    bytes
}

/// The head of a commit of the first member in the present epoch, to its content.
fn head(story: &mut Story) -> Vec<u8> {
    let output = story.members[0].commit(vec![]).unwrap();
    story.members[0].clear_pending_commit();
    let packet = output.commit_message.to_bytes().unwrap();
    // Version and format, the group id with its length, the epoch, the sender, no authenticated data.
    let group = story.observer.live.id().as_bytes().len();
    packet[..4 + 1 + group + 8 + 5 + 1].to_vec()
}

/// A commit with these proposals by value, no valid signature and no path.
fn unsigned_commit(story: &mut Story, proposals: &[Vec<u8>]) -> Vec<u8> {
    let list: Vec<u8> = proposals.iter().flat_map(|proposal| [&[1], proposal.as_slice()].concat()).collect();
    let tags = [vector(&[7; 64]), vector(&[7; 32]), vector(&[7; 32])].concat();
    [head(story), vec![3], vector(&list), vec![0], tags].concat()
}

/// A leaf that lists this many extension types and credential types.
fn leaf(extension_types: usize, credential_types: usize) -> Vec<u8> {
    let types = |count: usize| vector(&vec![0xf0; 2 * count]);
    let capabilities =
        [types(1), types(1), types(extension_types), types(0), types(credential_types)].concat();
    let leaf = [vector(b"enc"), vector(b"sig"), vec![0, 1], vector(b"who"), capabilities, vec![2]].concat();
    [leaf, vector(b""), vector(b"signed")].concat()
}

fn add(leaf: Vec<u8>) -> Vec<u8> {
    [vec![0, 1, 0, 1, 0, 1], vector(b"init"), leaf, vector(b""), vector(b"signed")].concat()
}

#[test]
fn a_tree_with_too_many_nodes_is_refused_by_their_number() {
    let story = Story::begin();
    let info = story.members[0].group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap();
    let tree = story.members[0].export_tree().to_bytes().unwrap();
    let mut wide = vec![0; 8 << 20];
    wide.splice(0..0, Reader::new(&tree).vector("tree").unwrap().iter().copied());
    let refusal = Observer::open(&info, Some(&vector(&wide))).err().unwrap();
    let Refusal::OpenedWith(detail) = refusal else { panic!("{refusal:?}") };
    assert_eq!(detail, "the ratchet tree has more than 39999 nodes");
}

#[test]
fn a_missing_welcome_is_noticed_before_a_wrong_signature() {
    let mut story = Story::begin();
    let commit = unsigned_commit(&mut story, &[add(leaf(0, 1))]);
    assert_eq!(refused(&mut story, &commit), Refusal::WelcomeMissing { added: 1 });
    // The group info is of this commit and no other.
    let info = story.members[0].group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap();
    let commit = unsigned_commit(&mut story, &[]);
    let input = CommitInput { commit: &commit, group_info: Some(&info), welcome: None };
    let refusal = story.observer.commit(input).unwrap_err();
    assert!(matches!(refusal, Refusal::GroupInfo(_)), "{refusal:?}");
}

#[test]
fn a_proposal_that_nobody_knows_is_noticed_before_a_wrong_signature() {
    let mut story = Story::begin();
    let tags = [vector(&[7; 64]), vector(&[7; 32]), vector(&[7; 32])].concat();
    let list = vector(&[vec![2], vector(&[9; 32])].concat());
    let commit = [head(&mut story), vec![3], list, vec![0], tags].concat();
    assert_eq!(rule(refused(&mut story, &commit)), Rule::KnownProposals);
}
