//! Mutated chains: a valid chain with one byte changed is not valid.

use std::sync::OnceLock;

use proptest::{prelude::*, sample::Index};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::*;
use crate::identity::x509::trust::TrustRoot;

impl TrustStore {
    /// Whether it has the same names, keys and lists as another store.
    fn is_same(&self, other: &Self) -> bool {
        let of_root = |root: &TrustRoot| (root.subject.clone(), root.key.clone());
        let roots = |store: &Self| store.roots.iter().map(of_root).collect::<Vec<_>>();
        let crls = |store: &Self| {
            let signed = |crl: &Crl| (crl.signed().message.to_vec(), crl.signed().signature.to_vec());
            store.crls.iter().map(signed).collect::<Vec<_>>()
        };
        roots(self) == roots(other) && crls(self) == crls(other)
    }
}

/// A chain with its root, and who trusts that, revocation lists and all.
struct Valid {
    pki: Pki,
    store: TrustStore,
    chain: Vec<Vec<u8>>,
}

fn valid() -> &'static Valid {
    static VALID: OnceLock<Valid> = OnceLock::new();
    VALID.get_or_init(|| {
        let pki = Pki::new();
        let store = pki.store_with(&[pki.root.crl(2026, &[], None), pki.organisation.crl(2026, &[], None)]);
        let chain = vec![pki.device.der.clone(), pki.organisation.der.clone(), pki.root.der.clone()];
        let valid = Valid { pki, store, chain };
        assert_eq!(valid.validate(&valid.chain), Ok(()));
        valid
    })
}

impl Valid {
    fn validate(&self, chain: &[Vec<u8>]) -> Result<(), ChainError> {
        let chain: Vec<_> = chain.iter().map(Vec::as_slice).collect();
        self.store.validate(&chain, NOW)
    }

    /// Whether this is the chain, with or without its root.
    fn is(&self, chain: &[Vec<u8>]) -> bool {
        chain == self.chain || chain == &self.chain[..2]
    }
}

#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Truncate(Index),
    Insert(Index, u8),
    Remove(Index),
    Append(Vec<u8>),
    /// Bytes of another certificate in the place of these.
    Splice(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), 1..=255u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        1 => index().prop_map(Change::Truncate),
        1 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => index().prop_map(Change::Remove),
        1 => proptest::collection::vec(any::<u8>(), 1..8).prop_map(Change::Append),
        1 => (index(), index()).prop_map(|(at, from)| Change::Splice(at, from)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, other: &[u8]) {
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Self::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Self::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Self::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Self::Append(more) => bytes.extend(more),
            Self::Splice(at, from) => {
                let (at, from) = (at.index(bytes.len()), from.index(other.len()));
                for (byte, with) in bytes[at..].iter_mut().zip(&other[from..]).take(16) {
                    *byte = *with;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn changed_bytes(changes in proptest::collection::vec((any::<Index>(), change()), 1..3)) {
        let valid = valid();
        let mut chain = valid.chain.clone();
        for (which, change) in &changes {
            let other = valid.chain[which.index(2)].clone();
            let which = which.index(chain.len());
            change.apply(&mut chain[which], &other);
        }
        prop_assert!(valid.validate(&chain).is_err() || valid.is(&chain));
    }

    /// Names and keys are read from a certificate by another parser (`credential.rs`): whatever one accepts, both read alike.
    #[test]
    fn two_parsers_read_the_same(changes in proptest::collection::vec(change(), 0..3), which in 0..3usize) {
        let valid = valid();
        let mut der = valid.chain[which].clone();
        for change in &changes {
            change.apply(&mut der, &valid.chain[0]);
        }
        let (Ok(ours), Ok((rest, theirs))) = (Certificate::new(&der), X509Certificate::from_der(&der)) else {
            return Ok(());
        };
        prop_assert!(rest.is_empty());
        prop_assert_eq!(ours.subject.raw, theirs.subject().as_raw());
        prop_assert_eq!(ours.issuer.raw, theirs.issuer().as_raw());
        prop_assert_eq!(ours.key.bits, &*theirs.public_key().subject_public_key.data);
        prop_assert_eq!(ours.serial, theirs.raw_serial());
        prop_assert_eq!(ours.validity.not_after, theirs.validity().not_after.timestamp());
    }

    #[test]
    fn changed_order(picks in proptest::collection::vec(0..5usize, 0..9)) {
        let valid = valid();
        let stranger = [b"nonsense".to_vec(), Vec::new()];
        let chain: Vec<_> =
            picks.iter().map(|pick| valid.chain.iter().chain(&stranger).nth(*pick).unwrap().clone()).collect();
        prop_assert_eq!(valid.validate(&chain).is_ok(), valid.is(&chain));
    }

    /// Roots and revocation lists come from a file: a damaged one is an error, or is noticed when it is used. Nothing is revoked,
    /// so only the damage can be the reason.
    #[test]
    fn changed_trust(change in change(), which in 0..3usize) {
        let valid = valid();
        let original = [
            valid.pki.root.pem.clone().into_bytes(),
            valid.pki.root.crl(2026, &[], None),
            valid.pki.organisation.crl(2026, &[], None),
        ];
        let mut files = original.clone();
        change.apply(&mut files[which], &valid.pki.root.der);
        let store = |[roots, crls @ ..]: &[Vec<u8>; 3]| TrustStore::new(roots, crls);
        if let Ok(changed) = store(&files)
            && valid.pki.validate_by(&changed, NOW).is_ok()
        {
            prop_assert!(changed.is_same(&store(&original).unwrap()), "{change:?} in {which}");
        }
    }
}
