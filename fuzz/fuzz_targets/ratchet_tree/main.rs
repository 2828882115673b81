//! Ratchet trees, as a hub or the creator of a group sends them: what can be read is written back as the same bytes, with the same hash.
//! The first byte of the input is the number of the cipher suite.

#![no_main]

use actors::bench::read_tree;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((suite, tree)) = input.split_first() else { return };
    if let Some((bytes, hash)) = read_tree(u16::from(*suite), tree) {
        assert_eq!(bytes, tree, "the tree that was read");
        assert_eq!(read_tree(u16::from(*suite), &bytes).map(|(_, hash)| hash), Some(hash), "its hash");
    }
});
