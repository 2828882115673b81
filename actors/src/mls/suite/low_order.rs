//! Points of low order and encodings that are not canonical, on the curves of RFC 7748 and RFC 8032.
//!
//! A key exchange with such a point agrees on no secret, and a signature with such a key proves nothing. Field elements are
//! little-endian.

/// The prime of Curve25519 is 2^255 - 19; all of its bytes but these two are 0xff.
const P25519_FIRST: u8 = 0xed;
const P25519_LAST: u8 = 0x7f;

const MINUS_ONE_25519: [u8; 32] = {
    let mut minus_one = [0xff; 32];
    minus_one[0] = P25519_FIRST - 1;
    minus_one[31] = P25519_LAST;
    minus_one
};

/// The u-coordinates of the points on Curve25519 and its twist whose order divides 8: every multiplication by a clamped scalar
/// makes zero of them, which RFC 9180 §7.1.4 and RFC 7748 §6.1 refuse.
pub(super) const U_25519: [[u8; 32]; 5] = [
    [0; 32],
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    MINUS_ONE_25519,
];

/// The y-coordinates of the points on edwards25519 whose order divides 8.
pub(super) const Y_25519: [[u8; 32]; 5] = [
    [0; 32],
    small(1),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    MINUS_ONE_25519,
];

/// The prime of Curve448, 2^448 - 2^224 - 1.
const P448: [u8; 56] = {
    let mut prime = [0xff; 56];
    prime[28] = 0xfe;
    prime
};

/// Every encoding of 0, 1 and -1 below 2^448: the u-coordinates of the points on Curve448 and its twist whose order divides 4,
/// and the y-coordinates of those on edwards448.
pub(super) const CURVE448: [[u8; 56]; 5] = [
    [0; 56],
    small(1),
    {
        let mut minus_one = P448;
        minus_one[0] = 0xfe;
        minus_one
    },
    P448,
    // The prime and one, which is 2^448 - 2^224.
    [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff,
    ],
];

const fn small<const N: usize>(value: u8) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[0] = value;
    bytes
}

/// Whether an X25519 public key is of low order, in any encoding.
pub(super) fn is_x25519_key(u: [u8; 32]) -> bool {
    U_25519.contains(&reduced(without_high_bit(u)))
}

/// Whether an encoded point of edwards25519 is of low order, in any encoding.
pub(super) fn is_ed25519_point(point: [u8; 32]) -> bool {
    Y_25519.contains(&reduced(without_high_bit(point)))
}

/// Whether the y-coordinate of an encoded point of edwards25519 is below the prime (RFC 8032 §5.1.3).
pub(super) fn is_ed25519_canonical(point: [u8; 32]) -> bool {
    let y = without_high_bit(point);
    reduced(y) == y
}

/// Whether an X448 public key, or the y-coordinate of a point of edwards448, is one of a point of low order.
pub(super) fn is_curve448_coordinate(coordinate: [u8; 56]) -> bool {
    CURVE448.contains(&coordinate)
}

/// Without the highest bit, which X25519 ignores (RFC 7748 §5) and Ed25519 uses for the sign of x (RFC 8032 §5.1.2).
fn without_high_bit(mut bytes: [u8; 32]) -> [u8; 32] {
    let [.., last] = &mut bytes;
    *last &= 0x7f;
    bytes
}

/// A number below 2^255 modulo the prime.
fn reduced(mut number: [u8; 32]) -> [u8; 32] {
    let [first, middle @ .., last] = &mut number;
    if *last == P25519_LAST && *first >= P25519_FIRST && middle.iter().all(|byte| *byte == 0xff) {
        *first -= P25519_FIRST;
        middle.fill(0);
        *last = 0;
    }
    number
}
