//! HPKE public keys. A key to which no member can encrypt would block its group (RFC 9180 §7.1.4; RFC 9420 §5.1).

/// The key encapsulation mechanism of a cipher suite, as far as the gateway verifies suites (RFC 9420 §17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kem {
    /// DHKEM(X25519, HKDF-SHA256), of the suites 1 and 3.
    X25519,
    /// DHKEM(P-256, HKDF-SHA256), of the suite 2.
    P256,
}

/// The field's prime is 2^255 - 19; in little-endian order all of its bytes but these two are 0xff.
const P_FIRST: u8 = 0xed;
const P_LAST: u8 = 0x7f;

/// The u-coordinates of the points on Curve25519 and its twist whose order divides 8, little-endian and below the prime:
/// every multiplication by a clamped scalar makes zero of them, which RFC 9180 §7.1.4 and RFC 7748 §6.1 refuse.
const LOW_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = P_FIRST - 1;
        minus_one[31] = P_LAST;
        minus_one
    },
];

impl Kem {
    /// The mechanism of a cipher suite; `None` for a suite that the gateway does not verify.
    pub(crate) fn of_suite(cipher_suite: u16) -> Option<Self> {
        match cipher_suite {
            1 | 3 => Some(Self::X25519),
            2 => Some(Self::P256),
            _ => None,
        }
    }

    /// Checks that the bytes are a public key that can be encrypted to: it has the right length, is a point of the curve
    /// and is not of low order.
    ///
    /// # Errors
    /// Says what the bytes are instead.
    pub(crate) fn check(self, key: &[u8]) -> Result<(), &'static str> {
        match self {
            Self::X25519 => {
                let key: [u8; 32] = key.try_into().map_err(|_| "is not an X25519 key of 32 bytes")?;
                if LOW_ORDER.contains(&reduced(key)) {
                    Err("is an X25519 point of low order")
                } else {
                    Ok(())
                }
            }
            Self::P256 => {
                if key.len() != 65 || key.first() != Some(&4) {
                    return Err("is not an uncompressed P-256 point of 65 bytes");
                }
                p256::PublicKey::from_sec1_bytes(key)
                    .map(drop)
                    .map_err(|_| "is not a point on the curve P-256")
            }
        }
    }
}

/// A u-coordinate as X25519 reads it: without its highest bit, modulo the prime (RFC 7748 §5).
fn reduced(mut key: [u8; 32]) -> [u8; 32] {
    let [first, middle @ .., last] = &mut key;
    *last &= 0x7f;
    if *last == P_LAST && *first >= P_FIRST && middle.iter().all(|byte| *byte == 0xff) {
        *first -= P_FIRST;
        middle.fill(0);
        *last = 0;
    }
    key
}

#[cfg(test)]
mod tests {
    use ring::{agreement, rand::SystemRandom};

    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    /// Whether another implementation agrees on a secret with the key.
    fn agrees(algorithm: &'static agreement::Algorithm, key: &[u8]) -> bool {
        let secret = agreement::EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
        let key = agreement::UnparsedPublicKey::new(algorithm, key);
        agreement::agree_ephemeral(secret, &key, |_| ()).is_ok()
    }

    #[test]
    fn x25519_keys_of_low_order_are_refused_in_every_encoding() {
        let prime = bytes("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        let prime_and_one = bytes("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        for low in LOW_ORDER.into_iter().chain([prime, prime_and_one]) {
            let mut high_bit = low;
            high_bit[31] |= 0x80;
            for key in [low, high_bit] {
                assert!(Kem::X25519.check(&key).is_err(), "{key:?}");
                assert!(!agrees(&agreement::X25519, &key), "{key:?}");
            }
        }
        // Neighbours of those points, and what the RFC calls non-canonical, are keys.
        for first in [2, 3, 9, 0xeb, 0xef, 0xff] {
            for rest in [0, 0xff] {
                let mut key = [rest; 32];
                (key[0], key[31]) = (first, rest & 0x7f);
                assert!(Kem::X25519.check(&key).is_ok() && agrees(&agreement::X25519, &key), "{key:?}");
            }
        }
        for length in [0, 31, 33, 65] {
            assert!(Kem::X25519.check(&vec![9; length]).is_err());
        }
    }

    #[test]
    fn p256_keys_are_points_of_the_curve() {
        let secret =
            agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &SystemRandom::new()).unwrap();
        let good = secret.compute_public_key().unwrap().as_ref().to_vec();
        assert_eq!(Kem::P256.check(&good), Ok(()));
        let mut off_the_curve = good.clone();
        off_the_curve[64] ^= 1;
        let mut compressed = good[..33].to_vec();
        compressed[0] = 2 | (good[64] & 1);
        let mut hybrid = good.clone();
        hybrid[0] = 6 | (good[64] & 1);
        let beyond_the_field = [&[4][..], &[0xff; 64]].concat();
        for bad in [off_the_curve, compressed, hybrid, beyond_the_field, vec![0; 65], vec![0], Vec::new()] {
            assert!(Kem::P256.check(&bad).is_err() && !agrees(&agreement::ECDH_P256, &bad), "{bad:?}");
        }
    }

    #[test]
    fn every_suite_that_is_verified_has_a_mechanism() {
        for suite in crate::mls::supported_cipher_suites() {
            assert!(Kem::of_suite(suite).is_some(), "{suite}");
        }
    }
}
