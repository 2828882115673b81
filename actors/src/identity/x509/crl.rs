//! Certificate revocation lists (RFC 5280 §5).

mod entries;
mod scope;

use std::ops::Range;

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject as _};

pub(super) use self::entries::ListedAs;
use self::{entries::Entries, scope::Scope};
use super::{
    certificate::{Certificate, DistributionPoint, FoldedName, Name, each_extension},
    der::{self, DerFault},
    signed::{KeyInfo, ListSigner, Signed},
};

/// A list of version 2: complete, delta or indirect. Its signature is verified when its signer is sought.
#[derive(Debug)]
pub(super) struct Crl {
    /// Its place in the configuration.
    pub(super) place: usize,
    der: Vec<u8>,
    message: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
    pub(super) issuer: FoldedName,
    /// In Unix seconds.
    pub(super) this_update: i64,
    /// In Unix seconds; the list counts until then.
    pub(super) next_update: i64,
    number: Option<CrlNumber>,
    /// The number of the list that it changes, if it is a delta.
    base: Option<CrlNumber>,
    /// The value of the extension authorityKeyIdentifier.
    authority_key: Option<Vec<u8>>,
    scope: Scope,
    entries: Entries,
    signer: ListSigner,
}

/// A CRL number: the length of its significant bytes, and these, so that numbers are ordered.
type CrlNumber = (usize, Vec<u8>);

/// The extensions of a list.
#[derive(Default)]
struct ListExtensions {
    number: Option<CrlNumber>,
    base: Option<CrlNumber>,
    authority_key: Option<Vec<u8>>,
    scope: Scope,
}

impl Crl {
    /// Reads a list in DER or PEM.
    ///
    /// # Errors
    /// The fault.
    pub(super) fn new(bytes: &[u8], place: usize) -> Result<Self, String> {
        // DER begins with the tag of a SEQUENCE.
        let der = if bytes.first() == Some(&der::SEQUENCE) {
            bytes.to_vec()
        } else {
            let list = CertificateRevocationListDer::from_pem_slice(bytes);
            list.map_err(|error| error.to_string())?.to_vec()
        };
        Self::read(der, place).map_err(str::to_owned)
    }

    fn read(bytes: Vec<u8>, place: usize) -> Result<Self, DerFault> {
        let signed = Signed::new(&bytes)?;
        let mut fields = der::whole_sequence(signed.message)?;
        if fields.peek() != Some(der::INTEGER) || fields.any()?.body != [1] {
            return Err("it is not of version 2");
        }
        if fields.expect(der::SEQUENCE)?.body != signed.algorithm {
            return Err("it names two signature algorithms");
        }
        let issuer = Name::new(fields.any()?)?;
        if issuer.is_empty() {
            return Err("its issuer has no name");
        }
        let issuer = issuer.folded().clone();
        let this_update = der::time(fields.any()?)?;
        let next_update = match fields.peek() {
            Some(der::UTC_TIME | der::GENERALIZED_TIME) => der::time(fields.any()?)?,
            _ => return Err("it has no next update"),
        };
        let revoked = fields.optional(der::SEQUENCE)?;
        let extensions = match fields.optional(der::constructed(0))? {
            Some(list) => ListExtensions::read(list.body, &issuer)?,
            None => ListExtensions::default(),
        };
        fields.end()?;
        let ListExtensions { number, base, authority_key, scope } = extensions;
        let entries = Entries::read(&bytes, revoked, &issuer, scope.is_indirect)?;
        let at = |part: &[u8]| place_in(&bytes, part);
        let (message, algorithm, signature) =
            (at(signed.message), at(signed.algorithm), at(signed.signature));
        Ok(Self {
            place,
            message,
            algorithm,
            signature,
            issuer,
            this_update,
            next_update,
            number,
            base,
            authority_key,
            scope,
            entries,
            signer: ListSigner::default(),
            der: bytes,
        })
    }

    /// Whether it only lists what changed since another list (RFC 5280 §5.2.4).
    pub(super) fn is_delta(&self) -> bool {
        self.base.is_some()
    }

    /// The number by which deltas are ordered.
    pub(super) fn number(&self) -> Option<&CrlNumber> {
        self.number.as_ref()
    }

    /// Whether this delta continues a complete list (RFC 5280 §5.2.4, §6.3.3 (c)).
    pub(super) fn continues(&self, complete: &Self) -> bool {
        let (Some(base), Some(of), Some(number)) = (&self.base, &complete.number, &self.number) else {
            return false;
        };
        self.issuer == complete.issuer
            && self.scope == complete.scope
            && self.authority_key == complete.authority_key
            && base <= of
            && of < number
    }

    /// The reasons for which it covers a certificate, given its issuer and one of its distribution points
    /// (RFC 5280 §6.3.3 (b), (d)).
    pub(super) fn covers(&self, is_ca: bool, issuer: &FoldedName, point: &DistributionPoint) -> u16 {
        let is_of_issuer = if point.crl_issuers.is_empty() {
            self.issuer == *issuer
        } else {
            self.scope.is_indirect && point.crl_issuers.contains(&self.issuer)
        };
        if is_of_issuer { self.scope.covers(is_ca, point) } else { 0 }
    }

    /// The entry of a certificate.
    pub(super) fn lists(&self, issuer: &FoldedName, serial: &[u8]) -> ListedAs {
        self.entries.find(&self.der, issuer, serial, self.is_delta())
    }

    /// The issuers of the certificates that it has entries of.
    pub(super) fn issuers_of_entries(&self) -> impl Iterator<Item = &FoldedName> {
        self.entries.issuers()
    }

    /// The list in DER.
    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether a certificate may have signed it by its key identifier; the name is not compared. A list without one, or a
    /// certificate without one, does not say.
    pub(super) fn names_key(&self, key_identifier: Option<&[u8]>) -> bool {
        let named = self.authority_key.as_deref().and_then(key_identifier_of);
        named.is_none() || key_identifier.is_none() || named == key_identifier
    }

    /// Whether it is signed with a key.
    pub(super) fn is_signed_with(&self, key: KeyInfo<'_>) -> bool {
        self.signer.is(key, self.signed())
    }

    /// Whether its signer has been found.
    pub(super) fn has_known_signer(&self) -> bool {
        self.signer.is_known()
    }

    pub(super) fn signed(&self) -> Signed<'_> {
        let part = |place: &Range<usize>| self.der.get(place.clone()).unwrap_or_default();
        Signed {
            message: part(&self.message),
            algorithm: part(&self.algorithm),
            signature: part(&self.signature),
        }
    }

    /// The number of verifications of its signature.
    #[cfg(test)]
    pub(super) fn verified(&self) -> usize {
        self.signer.verified.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl ListExtensions {
    fn read(list: &[u8], issuer: &FoldedName) -> Result<Self, DerFault> {
        let mut found = Self::default();
        let has_unknown_critical = each_extension(list, |number, _, value| {
            match number {
                // cRLNumber, deltaCRLIndicator
                20 => found.number = Some(crl_number(value)?),
                27 => found.base = Some(crl_number(value)?),
                28 => found.scope = Scope::new(value, issuer)?,
                35 => found.authority_key = Some(value.to_vec()),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if has_unknown_critical {
            Err("it has a critical extension that is not supported")
        } else {
            Ok(found)
        }
    }
}

fn crl_number(value: &[u8]) -> Result<CrlNumber, DerFault> {
    let bytes = der::unsigned(der::whole(value, der::INTEGER)?)?;
    Ok((bytes.len(), bytes.to_vec()))
}

/// The keyIdentifier of an AuthorityKeyIdentifier (RFC 5280 §4.2.1.1).
fn key_identifier_of(value: &[u8]) -> Option<&[u8]> {
    let mut fields = der::whole_sequence(value).ok()?;
    fields.optional(der::primitive(0)).ok()?.map(|identifier| identifier.body)
}

/// The place of a part of these bytes.
fn place_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

impl Certificate<'_> {
    /// Its distribution points, and after them any list of its issuer.
    pub(super) fn distribution_points(&self) -> Result<Vec<DistributionPoint>, DerFault> {
        let issuer = self.issuer.folded();
        let mut points = match self.extensions.distribution_points {
            Some(value) => DistributionPoint::all(value, issuer)?,
            None => Vec::new(),
        };
        points.push(DistributionPoint::any_of(issuer));
        Ok(points)
    }
}
