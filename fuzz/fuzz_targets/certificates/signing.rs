//! Signatures of certificates and lists by known keys, so that a change reaches the rules behind the signatures.

use std::sync::LazyLock;

use ring::signature::Ed25519KeyPair;

/// The keys of a device, its account, its domain and the root.
pub(crate) static KEYS: LazyLock<[Ed25519KeyPair; 4]> =
    LazyLock::new(|| [1, 2, 3, 4].map(|seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key")));

/// The number of the root's key.
pub(crate) const ROOT: usize = 3;

/// A certificate or list of this content, signed with Ed25519.
pub(crate) fn signed(content: &[u8], key: usize) -> Vec<u8> {
    const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    let signature = KEYS[key % KEYS.len()].sign(content);
    let bits = tlv(3, &[&[0], signature.as_ref()]);
    tlv(0x30, &[content, &ED25519, &bits])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len()).expect("a short input").to_be_bytes();
    let mut out = vec![tag];
    match body.len() {
        0..0x80 => out.push(length[3]),
        0x80..0x100 => out.extend([0x81, length[3]]),
        0x100..0x1_0000 => out.extend([0x82, length[2], length[3]]),
        _ => out.extend([0x83, length[1], length[2], length[3]]),
    }
    out.extend(body);
    out
}
