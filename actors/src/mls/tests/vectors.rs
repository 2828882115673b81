//! The working group's vectors, through the observer's own code, in every cipher suite that they exist in.

use std::{collections::BTreeSet, io::Write as _, path::PathBuf};

use serde_json::Value;
use snapshots::Timestamp;

use super::*;
use crate::{
    mls::{
        CipherSuite, RequestMember,
        epoch::{Listed, NameMembers, PathInTree, apply_proposals},
        extensions::ContextExtensions,
        handshake::{Handshake, Proposal},
        leaf::{KeyPackage, LeafNode},
        ratchet_tree::{FlatTree, Leaf, RatchetTree, Replaced},
        welcome::welcome_references,
        wire::{self, ContentKind, SenderKind},
    },
    presentation::Reader,
};

/// A moment at which every key package of the vectors is valid.
const TIME_OF_THE_VECTORS: Timestamp = Timestamp(1_738_000_000_000);

fn cases(text: &str) -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    assert!(!cases.is_empty());
    cases
}

/// A file of vectors in `MIMI_VECTORS`, or next to the checkout. If it is missing, says so where it is seen: a line that a test merely
/// prints is shown only when the test fails.
fn published(name: &str) -> Option<Vec<Value>> {
    let folder = match std::env::var_os("MIMI_VECTORS") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
    };
    let path = folder.join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        let why = format!("SKIPPED: {} is not there; MIMI_VECTORS names its folder", path.display());
        writeln!(std::io::stderr(), "{why}").unwrap();
        return None;
    };
    Some(cases(&text))
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    let hex = value.as_str()?;
    Some((0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect())
}

fn suite(case: &Value) -> CipherSuite {
    CipherSuite::from_number(u16::try_from(case["cipher_suite"].as_u64().unwrap()).unwrap()).unwrap()
}

/// Follows groups from the GroupInfo that a joiner got; answers how many commits there were.
fn follow(cases: &[Value]) -> usize {
    let mut commits = 0;
    for (number, case) in cases.iter().enumerate() {
        let refused = |refusal: Refusal| -> ! { panic!("case {number}: {refusal:?}") };
        let (info, tree) = (bytes(&case["group_info"]).unwrap(), bytes(&case["ratchet_tree"]));
        let opened = Observer::open_at(&info, tree.as_deref(), TIME_OF_THE_VECTORS);
        let mut observer = opened.unwrap_or_else(|refusal| refused(refusal));
        for epoch in case["epochs"].as_array().unwrap() {
            for proposal in epoch["proposals"].as_array().unwrap() {
                let packet = bytes(proposal).unwrap();
                observer.proposal(&packet).unwrap_or_else(|refusal| refused(refusal));
            }
            let commit = bytes(&epoch["commit"]).unwrap();
            let staged = observer.live.stage_alone(observer.validator.context(), &commit, observer.now);
            observer.take(&commit, staged.unwrap_or_else(|refusal| refused(refusal)));
            commits += 1;
        }
    }
    commits
}

#[test]
fn commits_of_other_implementations_are_followed() {
    let cases = cases(include_str!("../../../tests/data/passive-client.json"));
    let suites: BTreeSet<u16> = cases.iter().map(|case| suite(case).number()).collect();
    assert_eq!(suites, (1..=7).collect());
    assert_eq!(follow(&cases), 2 * cases.len());
    // The GroupInfo of a later epoch, with history, proposals by reference and external commits.
    if let Some(cases) = published("observer-handling-commit-suite1.json") {
        assert!(follow(&cases) >= cases.len());
    }
}

#[test]
fn all_that_other_implementations_write_is_read() {
    for (number, case) in cases(include_str!("../../../tests/data/messages.json")).iter().enumerate() {
        let of = |name: &str| bytes(&case[name]).unwrap_or_else(|| panic!("case {number}: {name}"));
        let info = of("mls_group_info");
        wire::group_info_outline(wire::message_body(&info).unwrap().1).unwrap();
        let package = of("mls_key_package");
        KeyPackage::of_bytes(wire::message_body(&package).unwrap().1.rest()).unwrap();
        assert!(!welcome_references(&of("mls_welcome")).is_empty());
        let tree = of("ratchet_tree");
        FlatTree::read(CipherSuite::from_number(1).unwrap(), &tree).unwrap().unwrap();
        for (name, kind) in [
            ("add_proposal", 1),
            ("update_proposal", 2),
            ("remove_proposal", 3),
            ("pre_shared_key_proposal", 4),
            ("re_init_proposal", 5),
            ("external_init_proposal", 6),
            ("group_context_extensions_proposal", 7),
        ] {
            // These are structures without their types.
            let mut framed = [&[0, kind][..], &of(name)].concat();
            if name == "re_init_proposal" {
                move_ratchet_tree(&mut framed);
            }
            let mut reader = Reader::new(&framed);
            let proposal =
                Proposal::read(&mut reader).unwrap_or_else(|error| panic!("case {number}: {name}: {error}"));
            assert_eq!((proposal.kind(), reader.is_empty()), (u16::from(kind), true), "{name}");
        }
        for (name, kind) in [
            ("public_message_proposal", ContentKind::Proposal),
            ("public_message_commit", ContentKind::Commit),
        ] {
            let packet = of(name);
            let read = Handshake::read(RequestMember::Packet, &packet, kind, usize::MAX);
            read.unwrap_or_else(|refusal| panic!("case {number}: {name}: {refusal:?}")).unwrap();
        }
        for name in ["public_message_application", "private_message"] {
            let packet = of(name);
            let (format, body) = wire::message_body(&packet).unwrap();
            wire::header(format, body).unwrap();
        }
    }
}

/// Gives the extension of a ReInit, a ratchet tree, a type for private use: in a GroupContext there is none (RFC 9420 §17.3),
/// and the observer says so.
fn move_ratchet_tree(proposal: &mut [u8]) {
    let refused = Proposal::read(&mut Reader::new(proposal)).unwrap_err();
    assert_eq!(refused.0, "extensions");
    let is_ratchet_tree = |bytes: &[u8]| matches!(bytes, [0, 2, 0x40..=0x7f]);
    let at = proposal.windows(3).skip(2).position(is_ratchet_tree).unwrap() + 2;
    proposal[at] = 0xf0;
}

#[test]
fn trees_of_other_implementations_are_valid() {
    let Some(cases) = published("tree-validation.json") else { return };
    let mut suites = BTreeSet::new();
    for (number, case) in cases.iter().enumerate() {
        let suite = suite(case);
        suites.insert(suite.number());
        let (tree, group_id) = (bytes(&case["tree"]).unwrap(), bytes(&case["group_id"]).unwrap());
        let flat = FlatTree::read(suite, &tree).unwrap().unwrap();
        let of_vector =
            case["tree_hashes"].as_array().unwrap().iter().zip(case["resolutions"].as_array().unwrap());
        let of_vector: Vec<_> = of_vector
            .map(|(hash, resolution)| (bytes(hash).unwrap(), resolution.as_array().unwrap().len()))
            .collect();
        let nodes: Vec<_> =
            flat.nodes().map(|(hash, count)| (hash.as_ref().to_vec(), count as usize)).collect();
        assert_eq!(nodes, of_vector, "case {number}");
        flat.validate().unwrap_or_else(|fault| panic!("case {number}: the tree {fault}"));
        for (index, leaf) in flat.leaves() {
            assert!(leaf.has_valid_signature(suite, &group_id, index), "case {number}: leaf {index}");
            let elsewhere = leaf.has_valid_signature(suite, &group_id, index + 1);
            assert_eq!(elsewhere, leaf.lifetime().is_some(), "case {number}: leaf {index} in another place");
        }
        let kept = with_members(flat);
        assert_eq!(kept.to_bytes(), tree, "case {number}");
    }
    assert_eq!(suites, (1..=7).collect());
}

fn member(leaf: &LeafNode<'_>) -> Member {
    let handle =
        ClientHandle::new(leaf.signature_key.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    Member { handle: handle.unwrap(), domain: None, valid_until: None }
}

fn with_members(flat: FlatTree<'_>) -> RatchetTree {
    let named = |_, leaf: &LeafNode<'_>| Ok::<_, Infallible>(Leaf::new(leaf, member(leaf)));
    flat.with_members(named).unwrap()
}

/// Takes everybody in.
struct Anybody;

impl NameMembers for Anybody {
    fn extensions(&mut self, _: &ContextExtensions) {}

    fn update(&mut self, _: u32, leaf: &LeafNode<'_>, _: &Listed<'_>) -> Result<Member, Refusal> {
        Ok(member(leaf))
    }

    fn add(&mut self, _: u32, package: &KeyPackage<'_>, _: &Listed<'_>) -> Result<Member, Refusal> {
        Ok(member(&package.leaf))
    }

    fn path(&mut self, _: u32, in_tree: &PathInTree<'_>) -> Result<Member, Refusal> {
        Ok(member(&in_tree.path.leaf))
    }
}

#[test]
fn operations_of_other_implementations_give_the_same_trees() {
    let Some(cases) = published("tree-operations.json") else { return };
    for (number, case) in cases.iter().enumerate() {
        let suite = suite(case);
        let [before, after, proposal] =
            ["tree_before", "tree_after", "proposal"].map(|name| bytes(&case[name]).unwrap());
        let flat = FlatTree::read(suite, &before).unwrap().unwrap();
        assert_eq!(flat.hash().as_ref(), bytes(&case["tree_hash_before"]).unwrap(), "case {number}");
        let mut tree = with_members(flat);
        let sender = SenderKind::Member(u32::try_from(case["proposal_sender"].as_u64().unwrap()).unwrap());
        let proposal = Proposal::read(&mut Reader::new(&proposal)).unwrap();
        let listed = Listed { proposal, sender, reference: None, waiting: None };
        let mut replaced = Replaced::default();
        apply_proposals(&mut tree, &[listed], &mut Anybody, &mut replaced).unwrap();
        assert_eq!(tree.to_bytes(), after, "case {number}");
        assert_eq!(tree.hash().as_ref(), bytes(&case["tree_hash_after"]).unwrap(), "case {number}");
        assert!(!replaced.leaves_in.is_empty() || !replaced.leaves_out.is_empty(), "case {number}");
    }
}
