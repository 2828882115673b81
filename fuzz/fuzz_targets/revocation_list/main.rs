//! One revocation list for a chain that is known: of the account, signed here, if the first byte of the input is the number of a key, and
//! complete otherwise.

#![no_main]

#[path = "../certificates/signing.rs"]
mod signing;

use actors::{
    Timestamp,
    bench::is_revoked,
    identity::x509::{CertificateRule, ChainError, TrustStore},
};
use libfuzzer_sys::fuzz_target;

/// A moment at which the seeds are valid.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

const CHAIN: [&[u8]; 3] = [
    include_bytes!("../certificates/phone.der"),
    include_bytes!("../certificates/alice.der"),
    include_bytes!("../certificates/domain.der"),
];

fuzz_target!(|input: &[u8]| {
    let Some((key, content)) = input.split_first() else { return };
    let key = usize::from(*key);
    let list = if key <= signing::ROOT { signing::signed(content, key) } else { content.to_vec() };
    let others: [&[u8]; 2] =
        [include_bytes!("../certificates/domain.crl"), include_bytes!("../certificates/root.crl")];
    let lists: Vec<Vec<u8>> = others.into_iter().map(<[u8]>::to_vec).chain([list]).collect();
    let Ok(store) = TrustStore::new(include_bytes!("../certificates/root.pem"), &lists) else { return };
    let verdict = store.validate(&CHAIN, NOW);
    assert_eq!(store.validate(&CHAIN, NOW), verdict, "the second verdict");
    match verdict {
        Ok(()) => assert!(!is_revoked(&store, &CHAIN, NOW), "a valid chain is revoked"),
        Err(ChainError::Certificate { rule: CertificateRule::Revoked, .. }) => {
            assert!(is_revoked(&store, &CHAIN, NOW), "a revoked chain is not revoked for members");
        }
        Err(_) => {}
    }
});
