//! The working group's vectors of ratchet trees, in all cipher suites that they exist in.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect has failed"
)]

use std::{io::Write as _, path::PathBuf};

use mls_forge::{Proposal, Suite, Tls as _, Tree};
use serde_json::Value;

/// The vectors of a file in `MIMI_VECTORS`, or next to the checkout. If they are missing, says so where it is seen: a line
/// that a test merely prints is shown only when the test fails.
fn vectors(name: &str) -> Option<Vec<Value>> {
    let folder = match std::env::var_os("MIMI_VECTORS") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
    };
    let path = folder.join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        let why = format!("SKIPPED: {} is not there; MIMI_VECTORS names its folder", path.display());
        let mut seen = std::io::stderr();
        writeln!(seen, "{why}").unwrap();
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = value.as_str().unwrap();
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn suite(case: &Value) -> Suite {
    Suite::from_number(u16::try_from(case["cipher_suite"].as_u64().unwrap()).unwrap()).unwrap()
}

#[test]
fn trees_are_valid() {
    let Some(cases) = vectors("tree-validation.json") else { return };
    let mut suites = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let suite = suite(case);
        suites.push(suite);
        let (encoded, group_id) = (bytes(&case["tree"]), bytes(&case["group_id"]));
        let tree = Tree::from_bytes(&encoded).unwrap();
        assert_eq!(tree.to_bytes(), encoded, "case {number}");
        let hashes: Vec<_> = case["tree_hashes"].as_array().unwrap().iter().map(bytes).collect();
        assert_eq!(tree.hashes(suite), hashes, "case {number}");
        for node in 0..tree.node_count() {
            let resolution: Vec<_> = case["resolutions"][node].as_array().unwrap().to_vec();
            let resolution: Vec<_> =
                resolution.iter().map(|node| usize::try_from(node.as_u64().unwrap()).unwrap()).collect();
            assert_eq!(tree.resolution(node), resolution, "case {number}, node {node}");
        }
        tree.check_parent_hashes(suite).unwrap_or_else(|error| panic!("case {number}: {error}"));
        for (index, leaf) in tree.leaves() {
            leaf.verify(suite, &group_id, index).unwrap_or_else(|_| panic!("case {number}: leaf {index}"));
            assert!(
                leaf.verify(suite, b"another group", index).is_err()
                    || matches!(leaf.source, mls_forge::LeafNodeSource::KeyPackage(_))
            );
        }
    }
    suites.sort_unstable();
    suites.dedup();
    assert_eq!(suites, Suite::ALL);
}

#[test]
fn operations_give_the_trees_that_they_should() {
    let Some(cases) = vectors("tree-operations.json") else { return };
    for (number, case) in cases.iter().enumerate() {
        let suite = suite(case);
        let mut tree = Tree::from_bytes(&bytes(&case["tree_before"])).unwrap();
        assert_eq!(tree.hash(suite), bytes(&case["tree_hash_before"]), "case {number}");
        match Proposal::from_bytes(&bytes(&case["proposal"])).unwrap() {
            Proposal::Add(package) => {
                tree.add(package.leaf_node);
            }
            Proposal::Update(leaf) => {
                tree.update(u32::try_from(case["proposal_sender"].as_u64().unwrap()).unwrap(), leaf);
            }
            Proposal::Remove(leaf_index) => tree.remove(leaf_index),
            other => panic!("case {number}: {other:?}"),
        }
        assert_eq!(tree.to_bytes(), bytes(&case["tree_after"]), "case {number}");
        assert_eq!(tree.hash(suite), bytes(&case["tree_hash_after"]), "case {number}");
    }
    assert_eq!(cases.len(), 5);
}
