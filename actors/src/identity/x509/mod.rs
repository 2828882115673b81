//! The draft's *X.509 Identity Provider*: clients are identified by certificate chains.
//!
//! Extracting names from a chain (`names.rs`) and validating it (`chain.rs`, with `trust.rs`) are separate. Extraction needs
//! neither a time nor a trust anchor, so a member can still be named after its certificates have expired.

mod certificate;
mod chain;
mod credential;
mod crl;
mod der;
mod disputes;
mod names;
mod parameters;
mod revocation;
mod signed;
mod trust;
mod trust_warnings;
mod validated_chains;

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use snapshots::{ClientHandle, DomainName, Timestamp};

pub use self::{
    certificate::NameForm,
    chain::{CertificateRule, ChainError},
    credential::ChainLimits,
    parameters::{DeviceHandleRange, NameOffsets, ParametersError, X509Parameters},
    trust::{TrustError, TrustStore},
};
use self::{
    chain::Standing,
    credential::{Claims, certificates},
    disputes::Disputes,
    validated_chains::{ChainDigest, Found, ValidatedChains, digest},
};
use super::{
    ApplicationContext, Credential, CredentialType, GroupContextExtensions, IdentifiedClient, Identity,
    IdentityError, IdentityProvider, ListCounts, TrustEnds, TrustSummary, TrustWarning,
};
pub use crate::limits::MAX_CERTIFICATES;

/// Accepts X.509 credentials whose chain is valid by RFC 5280 at the time of the message and leads to a trust root of the
/// application.
#[derive(Debug)]
pub struct X509IdentityProvider {
    offsets: NameOffsets,
    limits: ChainLimits,
    trusted: RwLock<Arc<Trusted>>,
    /// Chains that hubs accepted and the lists here refuse.
    disputed: AtomicU64,
}

/// The trust store of a provider, with the results of validation by it.
#[derive(Debug)]
pub struct Trusted {
    trust: TrustStore,
    /// A cache of the latest chains: a member sends its own with every commit.
    validated: ValidatedChains,
    disputes: Disputes,
    limits: ChainLimits,
    /// The number of this trust store in this process, from 1.
    number: u64,
    /// The chains that were validated by it.
    #[cfg(test)]
    validations: AtomicU64,
}

impl Trusted {
    fn new(trust: TrustStore, limits: ChainLimits) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (validated, number) =
            (ValidatedChains::new(limits.remembered_max), NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            trust,
            validated,
            disputes: Disputes::default(),
            limits,
            number,
            #[cfg(test)]
            validations: AtomicU64::new(0),
        }
    }

    /// A number that differs between trust stores with revocation lists, in one process; 0 if there is none, so that nothing is
    /// revoked.
    pub(crate) fn revocation_number(&self) -> u64 {
        if self.trust.has_no_lists() { 0 } else { self.number }
    }

    /// Whether a certificate of a credential that was valid once has been revoked since.
    pub(crate) fn revokes(&self, credential: Credential<'_>, at: Timestamp) -> bool {
        let chain = content(credential).and_then(|content| certificates(content, self.limits));
        chain.is_ok_and(|chain| self.trust.revokes(&chain, at))
    }

    /// Whether verdicts by another trust store are the same, and its members have the same places in the configuration.
    fn equals(&self, other: &Self) -> bool {
        self.limits == other.limits && self.trust.equals(&other.trust)
    }

    /// A digest of everything by which revocation is judged. It takes a moment if the lists are long.
    pub(crate) fn revocation_digest(&self) -> [u8; 32] {
        self.trust.revocation_digest()
    }
}

impl X509IdentityProvider {
    /// A provider that finds names at these offsets and trusts these roots.
    pub fn new(offsets: NameOffsets, trust: TrustStore, limits: ChainLimits) -> Self {
        let trusted = RwLock::new(Arc::new(Trusted::new(trust, limits)));
        Self { offsets, limits, trusted, disputed: AtomicU64::new(0) }
    }

    /// The trust store at present.
    fn present(&self) -> Arc<Trusted> {
        Arc::clone(&self.trusted.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The claims of a credential.
    fn claims(&self, credential: Credential<'_>) -> Result<Arc<Claims>, IdentityError> {
        let content = content(credential)?;
        self.claims_in(content, digest(content), &self.present())
    }

    fn claims_in(
        &self,
        content: &[u8],
        digest: ChainDigest,
        trusted: &Trusted,
    ) -> Result<Arc<Claims>, IdentityError> {
        if let Some(claims) = trusted.validated.claims(&digest) {
            return Ok(claims);
        }
        let chain = certificates(content, self.limits)?;
        let claims = Arc::new(Claims::of_chain(&chain, &self.offsets, &trusted.trust)?);
        trusted.validated.remember(digest, Arc::clone(&claims));
        Ok(claims)
    }

    /// The claims of an identity, if it is valid at this time.
    fn validated_claims(
        &self,
        identity: Identity<'_>,
        ApplicationContext { msg_timestamp: at, is_accepted }: ApplicationContext,
    ) -> Result<Arc<Claims>, IdentityError> {
        let content = content(identity.credential)?;
        let digest = digest(content);
        let trusted = self.present();
        let claims = self.claims_in(content, digest, &trusted)?;
        let Trusted { trust, validated, .. } = &*trusted;
        if claims.signature_key != identity.signature_key {
            return Err(IdentityError(
                "the leaf certificate is for another key than the MLS signature key of the leaf node".into(),
            ));
        }
        // Within one period of the trust store, the result for a chain within its own validity never changes, so the cache is
        // exact.
        let period = trust.period(at);
        let found = validated.found_in(&digest, period).filter(|_| claims.is_within_validity(at));
        let refused =
            |error: &ChainError| IdentityError(format!("the certificate chain is not valid: {error}"));
        match found {
            Some(Found::Valid) => return Ok(claims),
            Some(Found::Disputed) if is_accepted => return Ok(claims),
            Some(Found::Disputed) | None => {}
        }
        let chain = certificates(content, self.limits)?;
        self.check_above_names(trust.without_root(&chain).len())?;
        // Every certificate that names the client, and the one above them.
        let names = usize::from(self.offsets.highest()) + 2;
        #[cfg(test)]
        trusted.validations.fetch_add(1, Ordering::Relaxed);
        match trust.validate_naming(&chain, at, names).map_err(|error| refused(&error))? {
            Standing::Good => validated.note(digest, Arc::clone(&claims), period, Found::Valid),
            Standing::Disputed(error) if is_accepted => {
                self.disputed.fetch_add(1, Ordering::Relaxed);
                trusted.disputes.log(&claims.names.handle, &error);
                validated.note(digest, Arc::clone(&claims), period, Found::Disputed);
            }
            Standing::Disputed(error) => return Err(refused(&error)),
        }
        Ok(claims)
    }

    /// Checks the number of certificates above the names in a chain of this length, the root not counted.
    fn check_above_names(&self, length: usize) -> Result<(), IdentityError> {
        let Some(max) = self.limits.above_names_max else { return Ok(()) };
        let highest = usize::from(self.offsets.highest());
        let above = length.saturating_sub(highest + 1);
        if above <= max {
            return Ok(());
        }
        Err(IdentityError(format!(
            "{above} certificates stand between certificate {highest} of the chain, the highest that names the client, and \
             the root; the gateway's certificates_above_names_max for this application is {max}"
        )))
    }
}

fn content(credential: Credential<'_>) -> Result<&[u8], IdentityError> {
    if credential.credential_type == CredentialType::X509 {
        Ok(credential.content)
    } else {
        Err(IdentityError("this application accepts X.509 credentials only".into()))
    }
}

impl IdentityProvider for X509IdentityProvider {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::X509]
    }

    fn reads_extensions(&self) -> bool {
        false
    }

    fn trust_ends(&self) -> TrustEnds {
        self.present().trust.ends()
    }

    fn trust_warnings(&self, at: Timestamp) -> Vec<TrustWarning> {
        self.present().trust.warnings(at)
    }

    fn list_counts(&self, at: Timestamp) -> Option<ListCounts> {
        Some(self.present().trust.list_counts(at))
    }

    fn trust_summary(&self) -> Option<TrustSummary> {
        let trust = &self.present().trust;
        Some(TrustSummary {
            roots: trust.roots_digest(),
            above_names_max: self.limits.above_names_max,
            checks_revocation: !trust.has_no_lists(),
        })
    }

    fn disputed_chains(&self) -> Option<u64> {
        Some(self.disputed.load(Ordering::Relaxed))
    }

    fn trusted(&self) -> Option<Arc<Trusted>> {
        Some(self.present())
    }

    fn take_trust(&self, newer: &dyn IdentityProvider) {
        // The present one is kept if nothing has changed: what was found by it holds still.
        if let Some(trusted) = newer.trusted().filter(|newer| !self.present().equals(newer)) {
            *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = trusted;
        }
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        _: GroupContextExtensions<'_>,
        context: ApplicationContext,
    ) -> Result<(), IdentityError> {
        self.validated_claims(identity, context).map(drop)
    }

    fn identify(
        &self,
        identity: Identity<'_>,
        _: GroupContextExtensions<'_>,
        context: ApplicationContext,
    ) -> Result<IdentifiedClient, IdentityError> {
        let claims = self.validated_claims(identity, context)?;
        Ok(IdentifiedClient {
            handle: claims.names.handle.clone(),
            domain: claims.names.domain.clone(),
            valid_until: Some(claims.valid_until),
        })
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        self.claims(identity.credential).map(|claims| claims.names.handle.clone())
    }

    fn client_domain(&self, identity: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        self.claims(identity.credential).map(|claims| claims.names.domain.clone())
    }

    fn valid_until(&self, identity: Identity<'_>) -> Result<Option<Timestamp>, IdentityError> {
        self.claims(identity.credential).map(|claims| Some(claims.valid_until))
    }
}

#[cfg(test)]
mod tests;
