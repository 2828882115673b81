//! Checking one key package (*Key Package Validation*; RFC 9420 §10.1).

use openmls::prelude::{
    CredentialWithKey, Extensions, GroupContext, MlsMessageBodyIn, MlsMessageIn, ProtocolVersion,
    tls_codec::DeserializeBytes as _,
};
use snapshots::{ClientHandle, DomainName, KeyPackageRef, Timestamp};

use super::{Crypto, group::identify, group::identity_of, suite_number, syntax::misfit_in_message, wire};
use crate::identity::{Identity, IdentityProvider};

/// What a key package must be to enter a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyPackageChecks<'a> {
    pub(crate) cipher_suite: u16,
    /// Whose it must be; `None` leaves that to its signature.
    pub(crate) handle: Option<&'a ClientHandle>,
    pub(crate) domain: Option<&'a DomainName>,
    pub(crate) now: Timestamp,
    /// Longest remaining lifetime, in seconds; 0 means no bound.
    pub(crate) lifetime_s_max: u64,
}

/// A key package that is what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedKeyPackage {
    pub(crate) reference: KeyPackageRef,
    /// The end of its lifetime, or of its credential if that comes first.
    pub(crate) not_after: Timestamp,
    /// The signature key of its leaf.
    pub(crate) signature_key: Vec<u8>,
}

/// The most credentials that are refused to answer one request for a key package; beyond it every other one is.
const REFUSALS_MAX: usize = 16;

/// Judges the credentials of packages that were checked before, for one request: certificates expire and are revoked. Packages
/// of one client share few credentials, so each is judged once, and a queue full of refused ones costs little.
pub(crate) struct CredentialCheck<'a> {
    provider: &'a dyn IdentityProvider,
    now: Timestamp,
    refused: Vec<CredentialWithKey>,
}

impl<'a> CredentialCheck<'a> {
    pub(crate) fn new(provider: &'a dyn IdentityProvider, now: Timestamp) -> Self {
        Self { provider, now, refused: Vec::new() }
    }

    /// Whether the credential of a package, an MLSMessage, is acceptable now.
    pub(crate) fn accepts(&mut self, message: &[u8]) -> bool {
        let Ok(MlsMessageBodyIn::KeyPackage(package)) =
            MlsMessageIn::tls_deserialize_exact_bytes(message).map(MlsMessageIn::extract)
        else {
            return false;
        };
        let credential = package.unverified_credential();
        if self.refused.len() >= REFUSALS_MAX || self.refused.contains(&credential) {
            return false;
        }
        let identity = Identity {
            signature_key: credential.signature_key.as_slice(),
            credential: &credential.credential,
        };
        if let Err(reason) = identify(self.provider, identity, &Extensions::empty(), self.now) {
            tracing::debug!(%reason, "a key package is passed over: its credential is not acceptable now");
            self.refused.push(credential);
            return false;
        }
        true
    }
}

impl KeyPackageChecks<'_> {
    /// Checks an MLSMessage that must hold a key package.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn check(
        &self,
        crypto: &Crypto,
        provider: &dyn IdentityProvider,
        message: &[u8],
    ) -> Result<CheckedKeyPackage, String> {
        let malformed = || misfit_in_message(message).to_string();
        let (format, _) = wire::message_body(message).map_err(|_| malformed())?;
        let package = match MlsMessageIn::tls_deserialize_exact_bytes(message).map(MlsMessageIn::extract) {
            Ok(MlsMessageBodyIn::KeyPackage(package)) => package,
            Ok(_) => {
                return Err(format!("expected an MLSMessage with a KeyPackage, found a {}", format.name()));
            }
            Err(_) => return Err(malformed()),
        };
        let package = package
            .validate(&crypto.0, ProtocolVersion::Mls10)
            .map_err(|error| format!("not valid by RFC 9420 section 10.1: {error}"))?;
        let suite = suite_number(package.ciphersuite());
        if suite != self.cipher_suite {
            return Err(format!("its cipher suite is {suite}, the queue's is {}", self.cipher_suite));
        }
        let not_before = package.life_time().not_before().saturating_mul(1000);
        let not_after = package.life_time().not_after().saturating_mul(1000);
        if not_before > self.now.0 {
            return Err("it is not valid yet".into());
        }
        if not_after <= self.now.0 {
            return Err("it has expired".into());
        }
        let longest = self.lifetime_s_max.saturating_mul(1000);
        if longest > 0 && not_after - self.now.0 > longest {
            return Err(format!("it is valid for more than {} seconds from now", self.lifetime_s_max));
        }
        let no_extensions = Extensions::<GroupContext>::empty();
        let member = identify(provider, identity_of(package.leaf_node()), &no_extensions, self.now)
            .map_err(|reason| reason.to_string())?;
        if let Some(expected) = self.handle.filter(|expected| member.handle != **expected) {
            return Err(format!(
                "its credential names {:?}, the queue belongs to {expected:?}",
                member.handle
            ));
        }
        if member.domain.as_ref() != self.domain {
            return Err("its credential names another domain than the client's".into());
        }
        let reference = package
            .hash_ref(&crypto.0)
            .ok()
            .and_then(|reference| KeyPackageRef::new(reference.as_slice()).ok())
            .ok_or("it has no reference")?;
        let lifetime_ends = Timestamp(not_after);
        let not_after = member.valid_until.map_or(lifetime_ends, |until| until.min(lifetime_ends));
        let signature_key = package.leaf_node().signature_key().as_slice().to_vec();
        Ok(CheckedKeyPackage { reference, not_after, signature_key })
    }
}
