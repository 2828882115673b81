//! Errors of a certificate chain: the rule that a certificate breaks.

use super::MAX_PATH;
use crate::{identity::x509::certificate::NameForm, limits::MAX_CERTIFICATES};

/// The reason why a certificate chain is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is no certificate.
    #[error("the chain holds no certificate")]
    Empty,
    /// There are more certificates than a chain may have.
    #[error(
        "the chain holds {found} certificates; it may hold {MAX_CERTIFICATES}, or {MAX_PATH} without its root"
    )]
    TooLong {
        /// The number found.
        found: usize,
    },
    /// The only certificate is a trust root, which cannot be a client.
    #[error("the chain is a trust root and nothing else; it must begin with a certificate of the client")]
    OnlyRoot,
    /// One of the certificates breaks a rule.
    #[error("certificate {index} (0 is the leaf) {rule}")]
    Certificate {
        /// Its position in the chain; the leaf is 0.
        index: usize,
        /// The rule that it breaks.
        rule: CertificateRule,
    },
}

/// A rule that a certificate breaks; the text continues *certificate 1 …*. What RFC 5280 allows and this gateway does not
/// process is called *not supported*.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRule {
    /// It cannot be read (RFC 5280 §4.1).
    #[error("cannot be read: {0}")]
    Malformed(&'static str),
    /// It has a critical extension that is not processed (RFC 5280 §4.2).
    #[error("has a critical extension that is not supported")]
    CriticalExtension,
    /// It is in the chain twice (RFC 5280 §6.1).
    #[error("is in the chain before")]
    Repeated,
    /// It is a trust root, and not the last.
    #[error("is a trust root, after which nothing may follow")]
    RootInside,
    /// Its validity begins later (RFC 5280 §6.1.3 (a)(2)).
    #[error("is not valid yet")]
    NotValidYet,
    /// Its validity has ended (RFC 5280 §6.1.3 (a)(2)).
    #[error("has expired")]
    Expired,
    /// It is the leaf, and a CA certificate.
    #[error("is a CA certificate, which cannot be a leaf")]
    CaAsLeaf,
    /// It is the leaf, and its key usage does not allow it to sign messages (RFC 5280 §4.2.1.3).
    #[error("has a key usage without digitalSignature, which a leaf needs")]
    DigitalSignature,
    /// It issued another certificate, and is not a CA certificate (RFC 5280 §6.1.4 (k)).
    #[error("is not a CA certificate (basicConstraints with cA), which an issuer has to be")]
    NotCa,
    /// It issued another certificate, and its key usage does not allow that (RFC 5280 §6.1.4 (n)).
    #[error("has a key usage without keyCertSign, which an issuer needs")]
    KeyCertSign,
    /// There are more CA certificates below it than it allows (RFC 5280 §6.1.4 (l), (m)); self-issued ones do not count.
    #[error("allows {limit} CA certificates below it, and there are {found}")]
    PathLength {
        /// The number allowed.
        limit: u32,
        /// The number found.
        found: usize,
    },
    /// It names the client, or stands below or directly above one that does, and its issuer and subject are one name.
    #[error("is self-issued, which no certificate up to the one above the client's names may be")]
    SelfIssued,
    /// Its issuer is not the subject of the certificate after it (RFC 5280 §6.1.3 (a)(4)).
    #[error("was not issued by the certificate after it: each certificate must be followed by its issuer's")]
    Order,
    /// It is the last, and its issuer is not a trust root.
    #[error("was not issued by a trust root of this application")]
    UnknownIssuer,
    /// It is the last, and the trust root that issued it is not valid yet or has expired.
    #[error("was issued by a trust root that is outside of its validity")]
    RootValidity,
    /// It is the last, and the trust root that issued it allows fewer CA certificates.
    #[error("was issued by a trust root that allows {limit} CA certificates below it, and there are {found}")]
    RootPathLength {
        /// The number allowed.
        limit: u32,
        /// The number found.
        found: usize,
    },
    /// Its signature is not its issuer's (RFC 5280 §6.1.3 (a)(1)).
    #[error("is not signed with its issuer's key")]
    Signature,
    /// It is signed with an algorithm that is not accepted.
    #[error(
        "is signed in a way that is not accepted: use ECDSA with P-256 or P-384, Ed25519, or RSA with 2048 bits or more"
    )]
    Algorithm,
    /// It has a name that is excluded, or outside of those permitted, by name constraints above it (RFC 5280 §6.1.3 (b), (c)).
    #[error("has a name that the name constraints of its issuers forbid: the {0}")]
    NameConstraints(NameForm),
    /// It has a name that cannot be compared with the name constraints above it: its form is not processed, or it is malformed
    /// (RFC 5280 §4.2.1.10).
    #[error("has a name whose comparison with the name constraints of its issuers is not supported: the {0}")]
    ConstraintNotSupported(NameForm),
    /// It has too many names for the number of name constraints above it.
    #[error("has more names, and name constraints above them, than are supported in one chain")]
    TooManyComparisons,
    /// A certificate above it requires a certificate policy, and none is left (RFC 5280 §6.1.3 (f), §6.1.5 (g)).
    #[error("has no certificate policy that its issuers accept, although one is required")]
    Policy,
    /// It maps a policy from or to anyPolicy (RFC 5280 §6.1.4 (a)).
    #[error("maps the certificate policy anyPolicy, which is forbidden")]
    PolicyMapping,
    /// It is revoked (RFC 5280 §6.1.3 (a)(3)).
    #[error("is revoked")]
    Revoked,
    /// The application has revocation lists, but none covers it.
    #[error("is not covered by any of this application's revocation lists, so it may be revoked")]
    StatusUnknown,
    /// The revocation list that covers it is past its next update.
    #[error("is covered by a revocation list that is past its next update, so it may be revoked")]
    StaleCrl,
    /// The revocation list that covers it is signed by no certificate that may sign it and is valid (RFC 5280 §6.3.3 (f), (g)).
    #[error("is covered by a revocation list without a valid signer, so it may be revoked")]
    CrlSignature,
    /// The application has revocation lists, but the certificate's issuer may not sign any, and nobody else did
    /// (RFC 5280 §6.3.3 (f)).
    #[error(
        "may be revoked: its issuer has a key usage without cRLSign, and no other signer covers it by a revocation list"
    )]
    CrlSign,
    /// It would take too many comparisons, or signatures, to find the revocation lists that cover it.
    #[error("has more distribution points, or revocation lists to try, than are supported in one chain")]
    TooManyLists,
}
