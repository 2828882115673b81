use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{crypto::OpenMlsCrypto as _, types::SignatureScheme};
use ring::{agreement, rand::SystemRandom};
use serde_json::Value;
use sha3::{
    Shake256,
    digest::{ExtendableOutput as _, Update as _, XofReader as _},
};

use super::*;

const ED25519: CipherSuite = CipherSuite::X25519Aes128Sha256Ed25519;
const ED448: CipherSuite = CipherSuite::X448Aes256Sha512Ed448;
const NIST: [CipherSuite; 3] =
    [CipherSuite::P256Aes128Sha256P256, CipherSuite::P384Aes256Sha384P384, CipherSuite::P521Aes256Sha512P521];

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn field(object: &Value, name: &str) -> Vec<u8> {
    bytes(object[name].as_str().unwrap())
}

fn cases(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap()
}

/// `ref_hash` and `sign_with_label` of the MLS working group, a case for each suite.
fn crypto_basics() -> Vec<(CipherSuite, Value)> {
    let cases = cases(include_str!("../../../tests/data/crypto-basics.json"));
    let with_suite = cases.into_iter().map(|case| {
        let number = u16::try_from(case["cipher_suite"].as_u64().unwrap()).unwrap();
        (CipherSuite::from_number(number).unwrap(), case)
    });
    with_suite.collect()
}

/// A signature of the working group.
struct Signed {
    suite: CipherSuite,
    key: Vec<u8>,
    label: String,
    content: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    fn all() -> Vec<Self> {
        let cases = crypto_basics().into_iter().map(|(suite, case)| {
            let case = &case["sign_with_label"];
            Self {
                suite,
                key: field(case, "pub"),
                label: case["label"].as_str().unwrap().to_owned(),
                content: field(case, "content"),
                signature: field(case, "signature"),
            }
        });
        cases.collect()
    }

    fn of(suite: CipherSuite) -> Self {
        Self::all().into_iter().find(|signed| signed.suite == suite).unwrap()
    }

    fn verifies(&self, signature: &[u8]) -> bool {
        self.suite.verify_with_label(&self.key, &self.label, &[&self.content], signature).is_ok()
    }
}

/// Whether the signature of a message without a label verifies.
fn verifies(suite: CipherSuite, case: &Value) -> bool {
    let [key, message, signature] = ["pub_key", "message", "signature"].map(|name| field(case, name));
    suite.verify(&key, &[], &[&message], &signature).is_ok()
}

#[test]
fn suites_have_the_numbers_of_the_registry() {
    for (at, suite) in (1..).zip(CipherSuite::ALL) {
        assert_eq!((suite.number(), CipherSuite::from_number(at)), (at, Some(suite)));
    }
    for unknown in [0, 8, 0x0a0a, 0xf001, u16::MAX] {
        assert_eq!(CipherSuite::from_number(unknown), None);
    }
}

#[test]
fn references_are_those_of_the_working_group() {
    let cases = crypto_basics();
    assert_eq!(cases.iter().map(|(suite, _)| *suite).collect::<Vec<_>>(), CipherSuite::ALL);
    for (suite, case) in cases {
        let case = &case["ref_hash"];
        let hash = suite.ref_hash(case["label"].as_str().unwrap(), &field(case, "value"));
        assert_eq!(hash.as_ref(), field(case, "out"), "{suite:?}");
        assert_eq!(hash.as_ref().len(), suite.hash_length());
    }
}

#[test]
fn parts_are_hashed_and_verified_as_their_concatenation() {
    for signed in Signed::all() {
        let Signed { suite, key, label, content, signature } = &signed;
        for at in [0, 1, content.len() / 2, content.len()] {
            let (head, tail) = content.split_at(at);
            let parts = [head, &[], tail];
            assert_eq!(suite.hash(&parts), suite.hash(&[content]), "{suite:?}");
            assert_eq!(suite.verify_with_label(key, label, &parts, signature), Ok(()), "{suite:?}");
        }
        assert_ne!(suite.hash(&[]), suite.hash(&[content]));
    }
}

#[test]
fn signatures_are_of_one_key_label_and_content() {
    for signed in Signed::all() {
        let Signed { suite, key, label, content, signature } = &signed;
        assert_eq!(suite.check_signature_key(key), Ok(()), "{suite:?}");
        assert!(signed.verifies(signature), "{suite:?}");
        let refuses = |key: &[u8], label: &str, content: &[u8], signature: &[u8]| {
            suite.verify_with_label(key, label, &[content], signature) == Err(InvalidSignature)
        };
        assert!(refuses(key, "SignWithLabe", content, signature), "{suite:?}");
        assert!(refuses(key, label, &content[1..], signature), "{suite:?}");
        // The label's end is not the content's beginning.
        assert!(refuses(key, &label[..label.len() - 1], &[b"l", &content[..]].concat(), signature));
        for at in [0, 1, signature.len() / 2, signature.len() - 1] {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            assert!(refuses(key, label, content, &changed), "{suite:?}, byte {at}");
        }
        for other in Signed::all() {
            if other.key != *key {
                assert!(refuses(&other.key, label, content, signature), "{suite:?}");
            }
        }
    }
}

#[test]
fn signatures_of_other_lengths_are_refused() {
    for signed in Signed::all() {
        let signature = &signed.signature;
        for length in 0..signature.len() {
            assert!(!signed.verifies(&signature[..length]), "{:?}, {length} bytes", signed.suite);
        }
        for tail in [0, 1] {
            assert!(!signed.verifies(&[&signature[..], &[tail]].concat()), "{:?}", signed.suite);
        }
    }
}

#[test]
fn signed_content_is_a_vector() {
    let head = |length| sign_content_head("X", length);
    assert_eq!(head(0), Some(b"\x09MLS 1.0 X\0".to_vec()));
    assert_eq!(head((1 << 30) - 1), Some(b"\x09MLS 1.0 X\xbf\xff\xff\xff".to_vec()));
    assert_eq!(head(1 << 30), None);
}

#[test]
fn signatures_of_rfc_8032_verify() {
    let mut counts = [0, 0];
    for case in cases(include_str!("../../../tests/data/rfc8032.json")) {
        let (suite, count) = match case["scheme"].as_str().unwrap() {
            "Ed25519" => (ED25519, 0),
            "Ed448" => (ED448, 1),
            other => panic!("{other}"),
        };
        counts[count] += 1;
        assert!(verifies(suite, &case), "{case}");
        let mut changed = case.clone();
        changed["message"] = Value::from(case["message"].as_str().unwrap().to_owned() + "00");
        assert!(!verifies(suite, &changed), "{case}");
    }
    assert_eq!(counts, [4, 3]);
}

#[test]
fn ed25519_signatures_on_which_libraries_differ_are_judged_as_openmls_judges_them() {
    let cases = cases(include_str!("../../../tests/data/ed25519-speccheck.json"));
    let library = RustCrypto::default();
    let accepted: Vec<usize> = (0..cases.len())
        .filter(|case| {
            let case = &cases[*case];
            let verdict = verifies(ED25519, case);
            let [key, message, signature] = ["pub_key", "message", "signature"].map(|name| field(case, name));
            let expected = library.verify_signature(SignatureScheme::ED25519, &message, &key, &signature);
            assert_eq!(verdict, expected.is_ok(), "{case}");
            verdict
        })
        .collect();
    assert_eq!(cases.len(), 12);
    // Key and R of mixed order, and valid with and without the cofactor.
    assert_eq!(accepted, [3]);
}

#[test]
fn keys_and_signatures_of_low_order_are_refused() {
    // With such a key, R the neutral point and S zero, every message would have a valid signature.
    let neutral_25519 = [&[1][..], &[0; 31]].concat();
    let signature = [&neutral_25519[..], &[0; 32]].concat();
    assert!(ED25519.check_signature_key(&neutral_25519).is_err());
    assert!(ED25519.verify(&neutral_25519, &[], &[b"any"], &signature).is_err());
    let unparsed = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &neutral_25519);
    assert!(unparsed.verify(b"any", &signature).is_ok(), "the equation holds");

    let neutral_448 = [&[1][..], &[0; 56]].concat();
    let signature = [&neutral_448[..], &[0; 57]].concat();
    assert!(ED448.check_signature_key(&neutral_448).is_err());
    assert!(ED448.verify(&neutral_448, &[], &[b"any"], &signature).is_err());
    let key = crrl::ed448::PublicKey::decode(&neutral_448).unwrap();
    assert!(key.verify_raw(&signature, b"any"), "the equation holds");

    // R alone, of a signer who chose the nonce 0: S is the challenge times the private key.
    let private = crrl::ed448::Scalar::decode_reduce(&[7; 56]);
    let key = crrl::ed448::PublicKey::from_point(&crrl::ed448::Point::mulgen(&private));
    let mut challenge = [0; 114];
    let mut shake = Shake256::default();
    for part in [b"SigEd448\0\0", &neutral_448[..], &key.encode(), b"any"] {
        shake.update(part);
    }
    shake.finalize_xof().read(&mut challenge);
    let s = crrl::ed448::Scalar::decode_reduce(&challenge) * private;
    let signature = [&neutral_448[..], &s.encode(), &[0]].concat();
    assert!(key.verify_raw(&signature, b"any"), "the equation holds");
    assert_eq!(ED448.check_signature_key(&key.encode()), Ok(()));
    assert!(ED448.verify(&key.encode(), &[], &[b"any"], &signature).is_err());
}

#[test]
fn ed448_signatures_have_one_scalar_below_the_order() {
    // The order of the group, little-endian (RFC 8032 §5.2): S + L is another encoding of the same scalar.
    let mut order = bytes(
        "f34458ab92c27823558fc58d72c26c219036d6ae49db4ec4e923ca7cffffffffffffffffffffffffffffffffffffffffffffffffffffff3f",
    );
    order.push(0);
    let signed = Signed::of(ED448);
    let mut malleated = signed.signature.clone();
    let mut carry = 0;
    for (digit, addend) in malleated[57..].iter_mut().zip(order) {
        let sum = u16::from(*digit) + u16::from(addend) + carry;
        *digit = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_ne!(malleated, signed.signature);
    assert!(signed.verifies(&signed.signature) && !signed.verifies(&malleated));
}

/// An `ECDSA-Sig-Value` (RFC 3279 §2.2.3) of two INTEGERs that are given by their contents.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let length = |length: usize| match u8::try_from(length).unwrap() {
        short @ 0..0x80 => vec![short],
        long => vec![0x81, long],
    };
    let integer = |content: &[u8]| [&[2], &length(content.len())[..], content].concat();
    let body = [integer(r), integer(s)].concat();
    [&[0x30], &length(body.len())[..], &body].concat()
}

/// The contents of the two INTEGERs.
fn integers(signature: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let content = |bytes: &[u8]| {
        let length = usize::from(bytes[1]);
        (bytes[2..2 + length].to_vec(), bytes[2 + length..].to_vec())
    };
    let body = if signature[1] == 0x81 { &signature[3..] } else { &signature[2..] };
    let (r, rest) = content(body);
    (r, content(&rest).0)
}

#[test]
fn ecdsa_signatures_are_in_der() {
    for suite in NIST {
        let signed = Signed::of(suite);
        let (r, s) = integers(&signed.signature);
        assert_eq!(der(&r, &s), signed.signature);
        let padded = |number: &[u8]| [&[0], number].concat();
        let long_length = match signed.signature[1] {
            0x81 => [&[0x30, 0x82, 0], &signed.signature[2..]].concat(),
            length => [&[0x30, 0x81, length], &signed.signature[2..]].concat(),
        };
        let indefinite = {
            let body = signed.signature.len() - r.len() - s.len() - 4;
            [&[0x30, 0x80], &signed.signature[body..], &[0, 0]].concat()
        };
        let within = {
            let mut longer = der(&r, &[&s[..], &[5, 0]].concat());
            let at = longer.len() - s.len() - 3;
            longer[at] = s.len().to_le_bytes()[0];
            longer
        };
        let without_zero =
            |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
        let fixed = [without_zero(&r), without_zero(&s)].concat();
        for (what, other) in [
            ("r with a leading zero", der(&padded(&r), &s)),
            ("s with a leading zero", der(&r, &padded(&s))),
            ("r negative", der(&[0xff], &s)),
            ("s negative", der(&r, &[0xff])),
            ("r zero", der(&[0], &s)),
            ("s zero", der(&r, &[0])),
            ("r empty", der(&[], &s)),
            ("s empty", der(&r, &[])),
            ("a length that is not minimal", long_length),
            ("an indefinite length", indefinite),
            ("bytes behind s within the sequence", within),
            ("the two numbers without DER", fixed),
        ] {
            assert!(!signed.verifies(&other), "{suite:?}: {what}");
        }
    }
}

#[test]
fn ecdsa_numbers_are_below_the_order() {
    // P-256 (SP 800-186 §3.2.1.3): n - s is as good as s, n + s and n are not.
    let order = bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let signed = Signed::of(CipherSuite::P256Aes128Sha256P256);
    let (r, s) = integers(&signed.signature);
    let digits = |number: &[u8]| {
        let mut digits = [0; 34];
        digits[34 - number.len()..].copy_from_slice(number);
        digits
    };
    let content = |digits: &[u8]| {
        let start = digits.iter().position(|digit| *digit != 0).unwrap();
        let sign = if digits[start] >= 0x80 { &[0][..] } else { &[] };
        [sign, &digits[start..]].concat()
    };
    let combined = |sign: i32| {
        let mut result = [0; 34];
        let mut carry = 0;
        for (at, (order, s)) in digits(&order).into_iter().zip(digits(&s)).enumerate().rev() {
            let sum = i32::from(order) + sign * i32::from(s) + carry;
            result[at] = sum.rem_euclid(256).to_le_bytes()[0];
            carry = sum.div_euclid(256);
        }
        content(&result)
    };
    assert!(signed.verifies(&der(&r, &combined(-1))));
    assert!(!signed.verifies(&der(&r, &combined(1))));
    assert!(!signed.verifies(&der(&r, &content(&order))));
    assert!(!signed.verifies(&der(&content(&order), &s)));
}

#[test]
fn signature_keys_have_one_form() {
    for signed in Signed::all() {
        let Signed { suite, key, label, content, signature } = &signed;
        let verified = |key: &[u8]| suite.verify_with_label(key, label, &[content], signature);
        assert_eq!((suite.check_signature_key(key), verified(key)), (Ok(()), Ok(())), "{suite:?}");
        let mut bad: Vec<Vec<u8>> = vec![Vec::new(), vec![0], key[1..].to_vec(), [&key[..], &[0]].concat()];
        bad.push(vec![0; key.len()]);
        let mut no_points = Vec::new();
        match suite.curve() {
            // Above the prime.
            Curve::Curve25519 => bad.push(vec![0xff; 32]),
            Curve::Curve448 => no_points.push(vec![0xff; 57]),
            Curve::Nist(_) => {
                bad.extend(other_forms(key));
                no_points.extend(off_the_curve(key));
            }
        }
        for bad in &bad {
            assert!(suite.check_signature_key(bad).is_err(), "{suite:?}: {bad:?}");
        }
        for bad in bad.iter().chain(&no_points) {
            assert_eq!(verified(bad), Err(InvalidSignature), "{suite:?}: {bad:?}");
        }
    }
}

/// The same point compressed, with both of its y-coordinates, in the hybrid form and in the forms of X.509.
fn other_forms(point: &[u8]) -> Vec<Vec<u8>> {
    let coordinate = point.len() / 2;
    let parity = point[point.len() - 1] & 1;
    let with_first = |first: u8, length: usize| {
        let mut other = point[..length].to_vec();
        other[0] = first;
        other
    };
    // The SubjectPublicKeyInfo of a key on P-256.
    let info = bytes("3059301306072a8648ce3d020106082a8648ce3d030107034200");
    vec![
        [&info[..], point].concat(),
        with_first(2 | parity, 1 + coordinate),
        with_first(2 | (parity ^ 1), 1 + coordinate),
        with_first(6 | parity, point.len()),
        with_first(0, point.len()),
        [&[0][..], point].concat(),
    ]
}

/// Uncompressed points with coordinates that are not on the curve, and with some that are not below the prime.
fn off_the_curve(point: &[u8]) -> [Vec<u8>; 3] {
    let mut changed = point.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let uncompressed = |coordinates: u8| [&[UNCOMPRESSED][..], &vec![coordinates; point.len() - 1]].concat();
    [changed, uncompressed(0), uncompressed(0xff)]
}

/// Whether another implementation agrees on a secret with the key.
fn agrees(algorithm: &'static agreement::Algorithm, key: &[u8]) -> bool {
    let secret = agreement::EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
    let key = agreement::UnparsedPublicKey::new(algorithm, key);
    agreement::agree_ephemeral(secret, &key, |_| ()).is_ok()
}

#[test]
fn x25519_keys_of_low_order_are_refused_in_every_encoding() {
    let number = |hex: &str| <[u8; 32]>::try_from(bytes(hex)).unwrap();
    let prime = number("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    let prime_and_one = number("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    for low in low_order::U_25519.into_iter().chain([prime, prime_and_one]) {
        let mut high_bit = low;
        high_bit[31] |= 0x80;
        for key in [low, high_bit] {
            assert!(ED25519.check_hpke_key(&key).is_err(), "{key:?}");
            assert!(!agrees(&agreement::X25519, &key), "{key:?}");
        }
    }
    // Neighbours of those points, and what the RFC calls non-canonical, are keys.
    for first in [2, 3, 9, 0xeb, 0xef, 0xff] {
        for rest in [0, 0xff] {
            let mut key = [rest; 32];
            (key[0], key[31]) = (first, rest & 0x7f);
            assert!(ED25519.check_hpke_key(&key).is_ok() && agrees(&agreement::X25519, &key), "{key:?}");
        }
    }
    for length in [0, 31, 33, 56, 65] {
        assert!(ED25519.check_hpke_key(&vec![9; length]).is_err());
    }
}

#[test]
fn x448_keys_of_low_order_are_refused_in_every_encoding() {
    let agrees = |key: &[u8; 56]| crrl::x448::x448(key, &[0x5a; 56]) != [0; 56];
    for key in low_order::CURVE448 {
        assert!(ED448.check_hpke_key(&key).is_err() && !agrees(&key), "{key:?}");
    }
    // Neighbours of those points, and numbers above the prime, are keys.
    for key in low_order::CURVE448 {
        for (at, change) in [(0, 2), (1, 1), (27, 1), (28, 2), (55, 0x80)] {
            let mut neighbour = key;
            neighbour[at] ^= change;
            assert!(ED448.check_hpke_key(&neighbour).is_ok() && agrees(&neighbour), "{neighbour:?}");
        }
    }
    for length in [0, 32, 55, 57, 65] {
        assert!(ED448.check_hpke_key(&vec![9; length]).is_err());
    }
}

#[test]
fn hpke_keys_on_nist_curves_are_points_of_the_curve() {
    // What another implementation says; there is none for P-521.
    let second = [Some(&agreement::ECDH_P256), Some(&agreement::ECDH_P384), None];
    for (suite, second) in NIST.into_iter().zip(second) {
        let good = Signed::of(suite).key;
        assert_eq!(suite.check_hpke_key(&good), Ok(()), "{suite:?}");
        assert!(second.is_none_or(|algorithm| agrees(algorithm, &good)));
        let mut bad = other_forms(&good);
        bad.extend(off_the_curve(&good));
        bad.extend([vec![0; good.len()], vec![0], Vec::new(), good[1..].to_vec()]);
        bad.push([&good[..], &[0]].concat());
        for bad in bad {
            assert!(suite.check_hpke_key(&bad).is_err(), "{suite:?}: {bad:?}");
            assert!(second.is_none_or(|algorithm| !agrees(algorithm, &bad)), "{suite:?}: {bad:?}");
        }
        // A public key of another curve.
        for other in NIST.into_iter().filter(|other| *other != suite) {
            assert!(suite.check_hpke_key(&Signed::of(other).key).is_err());
        }
    }
}

#[test]
fn digests_compare_and_show_as_their_bytes_and_are_read_back() {
    let digest = |bytes: &[u8]| Digest::try_from(bytes).unwrap();
    assert_eq!(digest(&[]), Digest::default());
    let ascending: [&[u8]; 6] = [&[], &[0], &[0, 0], &[0, 1], &[1], &[1, 0]];
    for (at, low) in ascending.into_iter().enumerate() {
        assert_eq!(digest(low), digest(low));
        for high in &ascending[at + 1..] {
            assert!(digest(low) < digest(high), "{low:?} {high:?}");
        }
    }
    assert_eq!(format!("{:?}", digest(&[0x0a, 0xf0])), "0af0");
    assert!(Digest::try_from(&[0; 65][..]).is_err());

    for length in [0, 1, 32, 48, 64] {
        let value: Vec<u8> = (1..).take(length).collect();
        let encoded = rmp_serde::to_vec(&digest(&value)).unwrap();
        assert_eq!(encoded, rmp_serde::to_vec(serde_bytes::Bytes::new(&value)).unwrap());
        assert_eq!(rmp_serde::from_slice::<Digest>(&encoded).unwrap().as_ref(), value);
    }
    let long = rmp_serde::to_vec(serde_bytes::Bytes::new(&[0; 65])).unwrap();
    assert!(rmp_serde::from_slice::<Digest>(&long).is_err());
    assert!(rmp_serde::from_slice::<Digest>(&rmp_serde::to_vec("text").unwrap()).is_err());
}

#[test]
fn signatures_made_now_verify() {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    };
    let content: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    let mut signed = Vec::from(b"\x10MLS 1.0 ALabel!!");
    signed.extend([0x80, 0, 0x4e, 0x20]);
    signed.extend(&content);
    let verifies = |suite: CipherSuite, key: &[u8], signature: &[u8]| {
        assert_eq!(suite.check_signature_key(key), Ok(()), "{suite:?}");
        assert_eq!(suite.verify_with_label(key, "ALabel!!", &[&content], signature), Ok(()), "{suite:?}");
    };
    let algorithms =
        [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];
    for (suite, algorithm) in NIST.into_iter().zip(algorithms) {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), &signed).unwrap();
        verifies(suite, pair.public_key().as_ref(), signature.as_ref());
    }
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    verifies(ED25519, ring::signature::KeyPair::public_key(&pair).as_ref(), pair.sign(&signed).as_ref());
    let pair = crrl::ed448::PrivateKey::from_seed(&[1; 57]);
    verifies(ED448, &pair.public_key.encode(), &pair.sign_raw(&signed));
}
