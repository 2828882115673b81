//! Certificates for the demo and for tests: a root, issuers, clients and gateways.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm,
};
use tls_codec::{Serialize as _, VLBytes};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// The time by which validity begins before now, so that clocks need not agree.
const BEFORE: Duration = Duration::from_secs(3600);
/// The lifetime of a certificate authority.
const AUTHORITY_LASTS: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// The time until the next update of a revocation list.
const LIST_LASTS: Duration = Duration::from_secs(3600);

/// An authority that issues certificates: a root, or one below it. In the draft's terms, the subject of one below a root may be
/// a domain or an account.
#[derive(Debug)]
pub struct CertificateAuthority {
    parameters: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
    /// This certificate and those above it, except the root.
    chain: Vec<Certificate>,
    /// The number of authorities that may follow below this one in a chain.
    depth: u8,
}

/// A gateway's certificate and key for peers, in PEM.
pub struct GatewayCertificate {
    /// Its certificate and the chain above it without the root.
    pub certificate: String,
    /// The key of its certificate.
    pub private_key: String,
}

/// A client's public key in the form of MLS (RFC 9420 §5.1.1).
#[derive(Clone, Copy, Debug)]
pub enum ClientKey<'a> {
    /// The 32 bytes of Ed25519.
    Ed25519(&'a [u8]),
    /// An uncompressed point on P-256.
    P256(&'a [u8]),
}

impl CertificateAuthority {
    /// A root with this Common Name and this path length: two for a root above domains, accounts and devices. Without a path
    /// length, every account could issue domains.
    ///
    /// # Errors
    /// No key or certificate can be made.
    pub fn root(name: &str, depth: u8) -> Result<Self, rcgen::Error> {
        let parameters = authority(name, depth);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = parameters.self_signed(&key)?;
        Ok(Self { parameters, key, certificate, chain: Vec::new(), depth })
    }

    /// An authority below this one, with this Common Name. Below one with a path length of 0, nothing is valid.
    ///
    /// # Errors
    /// No key or certificate can be made.
    pub fn below(&self, name: &str) -> Result<Self, rcgen::Error> {
        let depth = self.depth.saturating_sub(1);
        let parameters = authority(name, depth);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = parameters.signed_by(&key, &Issuer::from_params(&self.parameters, &self.key))?;
        let chain = [vec![certificate.clone()], self.chain.clone()].concat();
        Ok(Self { parameters, key, certificate, chain, depth })
    }

    /// A client's certificate with this Common Name, valid for this time from now, and the chain above it without the root:
    /// DER, the client's first.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn certify(
        &self,
        name: &str,
        key: ClientKey<'_>,
        lasts: Duration,
    ) -> Result<Vec<Vec<u8>>, rcgen::Error> {
        let mut parameters = named(name, lasts);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.signed_by(&key, &Issuer::from_params(&self.parameters, &self.key))?;
        Ok([&certificate].into_iter().chain(&self.chain).map(|one| one.der().to_vec()).collect())
    }

    /// Its revocation list of this number, with these certificates in DER, current from now for an hour.
    ///
    /// # Errors
    /// No list can be made, or a certificate cannot be read.
    pub fn revocation_list(&self, number: u64, revoked: &[&[u8]]) -> Result<Vec<u8>, rcgen::Error> {
        let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch();
        let entry = |der: &&[u8]| {
            let (_, certificate) =
                X509Certificate::from_der(der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(certificate.raw_serial()),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + LIST_LASTS,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_, rcgen::Error>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&Issuer::from_params(&self.parameters, &self.key))?.der().to_vec())
    }

    /// Whether it is named as the issuer of a certificate in DER.
    pub fn issued(&self, certificate: &[u8]) -> bool {
        let read =
            (X509Certificate::from_der(certificate), X509Certificate::from_der(self.certificate.der()));
        matches!(&read, (Ok((_, issued)), Ok((_, own))) if issued.issuer() == own.subject())
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// A key and a certificate for the gateway of a domain, as a server and as a client, valid for this time from now.
    ///
    /// # Errors
    /// No key or certificate can be made, or the domain is not a DNS name.
    pub fn certify_gateway(&self, domain: &str, lasts: Duration) -> Result<GatewayCertificate, rcgen::Error> {
        let mut parameters = named(domain, lasts);
        parameters.subject_alt_names = vec![SanType::DnsName(domain.try_into()?)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = parameters.signed_by(&key, &Issuer::from_params(&self.parameters, &self.key))?;
        let certificate = [&certificate].into_iter().chain(&self.chain).map(Certificate::pem).collect();
        Ok(GatewayCertificate { certificate, private_key: key.serialize_pem() })
    }

    /// The certificate in PEM; that of a root is a trust anchor for applications and gateways.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }
}

/// The content of an X.509 credential: `Certificate certificates<V>` without its length (RFC 9420 §5.3).
///
/// # Errors
/// A certificate is too long for MLS.
pub fn credential_content(chain: &[Vec<u8>]) -> Result<Vec<u8>, tls_codec::Error> {
    let mut content = Vec::new();
    for certificate in chain {
        VLBytes::new(certificate.clone()).tls_serialize(&mut content)?;
    }
    Ok(content)
}

fn authority(name: &str, depth: u8) -> CertificateParams {
    let mut parameters = named(name, AUTHORITY_LASTS);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn named(name: &str, lasts: Duration) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let (epoch, now) = (rcgen::date_time_ymd(1970, 1, 1), since_epoch());
    parameters.not_before = epoch + now.saturating_sub(BEFORE);
    parameters.not_after = epoch + now.saturating_add(lasts);
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl PublicKeyData for ClientKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) | Self::P256(key) => key,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Ed25519(_) => &PKCS_ED25519,
            Self::P256(_) => &PKCS_ECDSA_P256_SHA256,
        }
    }
}
