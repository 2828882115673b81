//! Certificate chains and revocation lists, read and validated. Verdicts must not change, and those on members must agree with those
//! on chains: what is valid is not revoked, and what is refused as revoked is.
//!
//! Parts are complete certificates of the chain (0), complete lists (1), certificates of the chain (2) and lists (3) that are
//! signed here, the latter with the number of their signer's key in front, and complete certificates of signers of lists (4).

#![no_main]

#[path = "../parts.rs"]
mod parts;
mod signing;

use std::sync::LazyLock;

use actors::{
    Timestamp,
    bench::is_revoked,
    identity::{
        ApplicationContext, Credential, CredentialType, GroupContextExtensions, Identity, IdentityProvider as _,
        x509::{
            CertificateRule, ChainError, ChainLimits, DeviceHandleRange, TrustStore, X509IdentityProvider,
            X509Parameters,
        },
    },
};
use libfuzzer_sys::fuzz_target;
use ring::signature::KeyPair as _;

/// A moment at which the seeds are valid.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// The root of the seeds, and that of NIST's suite.
static ROOTS: LazyLock<String> = LazyLock::new(|| {
    let suite = include_str!("../../../actors/tests/pkits/certificates.pem");
    let (_, anchor) = suite.split_once("TrustAnchorRootCertificate\n").expect("the trust anchor");
    let end = "-----END CERTIFICATE-----";
    let (anchor, _) = anchor.split_once(end).expect("the end of the trust anchor");
    format!("{}{anchor}{end}\n", include_str!("root.pem"))
});

/// A certificate of the chain, complete or without its signature.
enum Given {
    Complete(Vec<u8>),
    Unsigned(Vec<u8>),
}

fn pem(ders: &[Vec<u8>]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for der in ders {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for three in der.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
                text.push(if place <= three.len() { char::from(digit) } else { '=' });
            }
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text
}

/// Names are extracted before anything is verified.
fn identify(chain: &[&[u8]]) {
    let mut content = Vec::new();
    for certificate in chain {
        let Ok(length) = u16::try_from(certificate.len()) else { return };
        content.extend((length | 0x4000).to_be_bytes());
        content.extend_from_slice(certificate);
    }
    let offsets = X509Parameters {
        device_handle_range: DeviceHandleRange { start: 0, end: 0 },
        account_handle_offset: Some(1),
        domain_name_offset: Some(2),
    };
    let limits =
        ChainLimits { certificates_max: 6, bytes_max: 1 << 16, above_names_max: None, remembered_max: 1 };
    let trust = TrustStore::new(ROOTS.as_bytes(), &[]).expect("the roots");
    let provider = X509IdentityProvider::new(offsets.check(true, true).expect("offsets"), trust, limits);
    let credential = Credential { credential_type: CredentialType::X509, content: &content };
    let identity = Identity { signature_key: signing::KEYS[0].public_key().as_ref(), credential };
    let identified =
        provider.identify(identity, GroupContextExtensions::empty(), ApplicationContext::at(NOW));
    if identified.is_ok() {
        let trust = TrustStore::new(ROOTS.as_bytes(), &[]).expect("the roots");
        assert_eq!(trust.validate(chain, NOW), Ok(()), "a chain that names somebody");
    }
}

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let (mut given, mut lists, mut issuers) = (Vec::new(), Vec::new(), Vec::new());
    while let Some((kind, part)) = parts::next_part(&mut rest) {
        match kind % 5 {
            0 => given.push(Given::Complete(part)),
            1 => lists.push(part),
            2 => given.push(Given::Unsigned(part)),
            3 => {
                if let Some((key, content)) = part.split_first() {
                    lists.push(signing::signed(content, usize::from(*key)));
                }
            }
            _ => issuers.push(part),
        }
    }
    let last = given.len().saturating_sub(1);
    let chain: Vec<Vec<u8>> = given
        .into_iter()
        .enumerate()
        .map(|(place, given)| match given {
            Given::Complete(der) => der,
            Given::Unsigned(content) => {
                signing::signed(&content, if place == last { signing::ROOT } else { place + 1 })
            }
        })
        .collect();
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    identify(&chain);
    // A list that cannot be read is none.
    lists.retain(|list| TrustStore::new(ROOTS.as_bytes(), std::slice::from_ref(list)).is_ok());
    let Ok(mut store) = TrustStore::new(ROOTS.as_bytes(), &lists) else { return };
    if !issuers.is_empty() {
        let Ok(with) = store.with_crl_issuers(pem(&issuers).as_bytes()) else { return };
        store = with;
    }
    let verdict = store.validate(&chain, NOW);
    assert_eq!(store.validate(&chain, NOW), verdict, "the second verdict");
    match verdict {
        Ok(()) => assert!(!is_revoked(&store, &chain, NOW), "a valid chain is revoked"),
        Err(ChainError::Certificate { rule: CertificateRule::Revoked, .. }) => {
            assert!(is_revoked(&store, &chain, NOW), "a revoked chain is not revoked for members");
        }
        Err(_) => {}
    }
});
