//! Errors of a certificate chain: the rule that a certificate breaks.

use super::MAX_PATH;
use crate::limits::MAX_CERTIFICATES;

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

/// A rule that a certificate breaks; the text continues *certificate 1 …*.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRule {
    /// It cannot be read (RFC 5280 §4.1).
    #[error("cannot be read: {0}")]
    Malformed(String),
    /// It has a critical extension that is not known (RFC 5280 §4.2).
    #[error("has a critical extension that this gateway does not know")]
    CriticalExtension,
    /// It restricts certificate policies; as they are not processed, they are refused, critical or not
    /// (RFC 5280 §4.2.1.5, §4.2.1.11, §4.2.1.14).
    #[error("restricts certificate policies ({0}), which this gateway does not process")]
    PolicyExtension(&'static str),
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
    /// There are more CA certificates below it than it allows (RFC 5280 §6.1.4 (m)); self-issued ones are counted too.
    #[error("allows {limit} CA certificates below it, and there are {found}")]
    PathLength {
        /// The number allowed.
        limit: u32,
        /// The number found.
        found: usize,
    },
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
    /// It, or one below it, has a name outside the name constraints of its issuer, or the issuer has name constraints that
    /// cannot be checked: only those on DNS names and IP addresses are supported (RFC 5280 §6.1.3 (b), (c)).
    #[error(
        "or one below it has a name that its issuer's name constraints do not permit or cannot be held against"
    )]
    NameConstraints,
    /// It is revoked (RFC 5280 §6.1.3 (a)(3)).
    #[error("is revoked")]
    Revoked,
    /// The application has revocation lists, but none covers it.
    #[error("is not covered by any of this application's revocation lists, so it may be revoked")]
    StatusUnknown,
    /// The revocation list that covers it is past its next update.
    #[error("is covered by a revocation list that is past its next update, so it may be revoked")]
    StaleCrl,
    /// The revocation list that covers it is not signed with its issuer's key (RFC 5280 §6.3.3 (g)).
    #[error("is covered by a revocation list that its issuer did not sign, so it may be revoked")]
    CrlSignature,
    /// The application has revocation lists, but the certificate's issuer may not sign any (RFC 5280 §6.3.3 (f)).
    #[error("may be revoked: its issuer has a key usage without cRLSign, so no revocation list can cover it")]
    CrlSign,
    /// Any other rule.
    #[error("does not pass validation: {0}")]
    Other(String),
}

impl From<webpki::Error> for CertificateRule {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors; all of them refuse")]
    fn from(error: webpki::Error) -> Self {
        use webpki::Error;
        match error {
            Error::BadDer | Error::BadDerTime | Error::MalformedExtensions | Error::TrailingData(_) => {
                Self::Malformed(error.to_string())
            }
            Error::UnsupportedCertVersion => Self::Malformed("it is not of version 3".into()),
            Error::UnsupportedCriticalExtension => Self::CriticalExtension,
            Error::CertExpired { .. } => Self::Expired,
            Error::CertNotValidYet { .. } => Self::NotValidYet,
            Error::CaUsedAsEndEntity => Self::CaAsLeaf,
            Error::EndEntityUsedAsCa => Self::NotCa,
            Error::UnknownIssuer => Self::UnknownIssuer,
            Error::InvalidSignatureForPublicKey => Self::Signature,
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            Error::NameConstraintViolation | Error::MalformedNameConstraint | Error::UnsupportedNameType => {
                Self::NameConstraints
            }
            Error::CertRevoked => Self::Revoked,
            Error::UnknownRevocationStatus => Self::StatusUnknown,
            Error::CrlExpired { .. } => Self::StaleCrl,
            Error::IssuerNotCrlSigner => Self::CrlSign,
            Error::InvalidCrlSignatureForPublicKey
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => Self::CrlSignature,
            other => Self::Other(other.to_string()),
        }
    }
}
