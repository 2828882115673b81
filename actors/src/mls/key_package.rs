//! Validation of one key package (*Key Package Validation*; RFC 9420 §10.1).

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use snapshots::{ClientHandle, DomainName, KeyPackageRef, Timestamp};

use super::{
    group::{Member, identify},
    leaf::{KeyPackage, LeafChecks, check_package_signatures},
    syntax::misfit_in_message,
    wire::{self, WireFormat},
};
use crate::identity::{ApplicationContext, Credential, GroupContextExtensions, IdentityProvider};

/// What a key package must be to enter a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyPackageChecks<'a> {
    pub(crate) leaf: LeafChecks,
    /// Whose it must be; `None` leaves that to its signature.
    pub(crate) handle: Option<&'a ClientHandle>,
    pub(crate) domain: Option<&'a DomainName>,
    pub(crate) now: Timestamp,
    /// How far in the future its lifetime may begin.
    pub(crate) clock_skew_s_max: u64,
}

/// A key package that is what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedKeyPackage {
    pub(crate) reference: KeyPackageRef,
    /// The begin of its lifetime.
    pub(crate) not_before: Timestamp,
    /// The end of its lifetime, or of its credential if that comes first.
    pub(crate) not_after: Timestamp,
    /// The signature key of its leaf.
    pub(crate) signature_key: Vec<u8>,
}

/// The KeyPackage in an MLSMessage.
fn package_in(message: &[u8]) -> Result<KeyPackage<'_>, String> {
    let malformed = |_| misfit_in_message(message).to_string();
    let (format, body) = wire::message_body(message).map_err(malformed)?;
    if format != WireFormat::KeyPackage {
        return Err(format!("expected an MLSMessage with a KeyPackage, found a {}", format.name()));
    }
    KeyPackage::of_bytes(body.rest()).map_err(malformed)
}

/// Checks that a package is fit which was stored before it had to be: no group could ever take in one that is not.
///
/// # Errors
/// Why it is not.
pub(crate) fn check_fit(checks: LeafChecks, message: &[u8]) -> Result<(), String> {
    package_in(message).and_then(|package| checks.check_key_package(&package).map_err(|unfit| unfit.detail))
}

/// The digest of a credential and its signature key.
type CredentialDigest = [u8; 32];

/// Credentials that were not acceptable, each until it is validated again: what is wrong may be this gateway's roots, a
/// revocation list that is late, or its clock.
#[derive(Debug, Default)]
pub(crate) struct RefusedCredentials(HashMap<CredentialDigest, Timestamp>);

impl RefusedCredentials {
    /// For how long a refusal stands.
    const STANDS_FOR: Duration = Duration::from_secs(10);

    fn stands(&mut self, credential: &CredentialDigest, now: Timestamp) -> bool {
        let Some(refused_at) = self.0.get(credential).copied() else { return false };
        let stands = refused_at <= now && now.saturating_sub(Self::STANDS_FOR) < refused_at;
        if !stands {
            self.0.remove(credential);
        }
        stands
    }

    /// Forgets refusals of credentials that were not asked for again since they ended.
    fn forget_old(&mut self, now: Timestamp) {
        let oldest = now.saturating_sub(Self::STANDS_FOR);
        self.0.retain(|_, refused_at| *refused_at <= now && oldest < *refused_at);
    }
}

/// Validates the credentials of packages that were checked before: certificates expire and are revoked. A queue full of
/// refused ones costs one validation per credential, and for the next requests nothing until the refusals end.
pub(crate) struct CredentialCheck<'a> {
    provider: &'a dyn IdentityProvider,
    now: Timestamp,
    refused: &'a mut RefusedCredentials,
}

impl<'a> CredentialCheck<'a> {
    pub(crate) fn new(
        provider: &'a dyn IdentityProvider,
        now: Timestamp,
        refused: &'a mut RefusedCredentials,
    ) -> Self {
        refused.forget_old(now);
        Self { provider, now, refused }
    }

    /// Whether the credential of a package, an MLSMessage, is acceptable now.
    pub(crate) fn accepts(&mut self, message: &[u8]) -> bool {
        let Ok(package) = package_in(message) else { return false };
        let Credential { credential_type, content } = package.leaf.credential;
        let digest = Sha256::new()
            .chain_update(package.leaf.signature_key.len().to_be_bytes())
            .chain_update(package.leaf.signature_key)
            .chain_update(credential_type.0.to_be_bytes())
            .chain_update(content)
            .finalize()
            .into();
        if self.refused.stands(&digest, self.now) {
            return false;
        }
        if let Err(reason) = identify_member(self.provider, &package, self.now) {
            tracing::debug!(reason, "a key package is passed over: its credential is not acceptable now");
            self.refused.0.insert(digest, self.now);
            return false;
        }
        true
    }
}

fn identify_member(
    provider: &dyn IdentityProvider,
    package: &KeyPackage<'_>,
    now: Timestamp,
) -> Result<Member, String> {
    identify(provider, package.leaf.identity(), GroupContextExtensions::empty(), ApplicationContext::at(now))
        .map_err(|reason| reason.to_string())
}

/// A credential and its signature key.
type LeafCredential<'m> = (Credential<'m>, &'m [u8]);

/// Checks the key packages of one request. Packages of one client share few credentials, so each is validated once.
pub(crate) struct KeyPackageValidator<'a, 'm> {
    checks: KeyPackageChecks<'a>,
    provider: &'a dyn IdentityProvider,
    members: HashMap<LeafCredential<'m>, Result<Member, String>>,
}

impl<'a, 'm> KeyPackageValidator<'a, 'm> {
    pub(crate) fn new(checks: KeyPackageChecks<'a>, provider: &'a dyn IdentityProvider) -> Self {
        Self { checks, provider, members: HashMap::new() }
    }

    /// Checks an MLSMessage that must hold a key package: first all that needs no cryptography.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn check(&mut self, message: &'m [u8]) -> Result<CheckedKeyPackage, String> {
        let checks = self.checks;
        let package = package_in(message)?;
        let suite = checks.leaf.cipher_suite;
        if package.cipher_suite != suite.number() {
            let (own, queue) = (package.cipher_suite, suite.number());
            return Err(format!("its cipher suite is {own}, the queue's is {queue}"));
        }
        checks.leaf.check_key_package(&package).map_err(|unfit| unfit.detail)?;
        let lifetime = package.leaf.lifetime().ok_or("its leaf has no lifetime")?;
        let not_before = Timestamp(lifetime.not_before_s.saturating_mul(1000));
        let lifetime_ends = Timestamp(lifetime.not_after_s.saturating_mul(1000));
        if lifetime_ends <= checks.now {
            return Err("it has expired".into());
        }
        let skew = checks.clock_skew_s_max;
        if not_before.0 > checks.now.0.saturating_add(skew.saturating_mul(1000)) {
            return Err(format!("it is not valid yet, and will not be within {skew} seconds"));
        }
        check_package_signatures(&package, suite).map_err(|unfit| unfit.detail)?;
        let member = self.member(&package)?;
        if let Some(expected) = checks.handle.filter(|expected| member.handle != **expected) {
            return Err(format!(
                "its credential names {:?}, the queue belongs to {expected:?}",
                member.handle
            ));
        }
        if member.domain.as_ref() != checks.domain {
            return Err("its credential names another domain than the client's".into());
        }
        let not_after = member.valid_until.map_or(lifetime_ends, |until| until.min(lifetime_ends));
        let reference = package.reference(suite).ok_or("it has no reference")?;
        let signature_key = package.leaf.signature_key.to_vec();
        Ok(CheckedKeyPackage { reference, not_before, not_after, signature_key })
    }

    fn member(&mut self, package: &KeyPackage<'m>) -> Result<Member, String> {
        let leaf = &package.leaf;
        match self.members.entry((leaf.credential, leaf.signature_key)) {
            Entry::Occupied(validated) => validated.get().clone(),
            Entry::Vacant(place) => {
                place.insert(identify_member(self.provider, package, self.checks.now)).clone()
            }
        }
    }
}
