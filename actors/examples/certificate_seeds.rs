//! Seeds for the fuzz targets of certificate chains and revocation lists, in the forms that they read, and the certificates that these
//! targets know. The argument is the folder `fuzz`.
//!
//! Certificates and lists are without their signatures: the targets sign with the same keys. A few chains of NIST's suite are complete.

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, CustomExtension, DnType, GeneralSubtree, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ED25519, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivatePkcs8KeyDer, pem::PemObject as _,
};

type Made<T> = Result<T, Box<dyn Error>>;

/// Kinds of parts of an input; see the targets.
const CERTIFICATE: u8 = 0;
const LIST: u8 = 1;
const UNSIGNED_CERTIFICATE: u8 = 2;
const UNSIGNED_LIST: u8 = 3;
const LIST_ISSUER: u8 = 4;

/// The number of the key of the root; a device has 0, its account 1, its domain 2.
const ROOT: u8 = 3;

fn key(number: u8) -> Made<KeyPair> {
    // PKCS#8 of an Ed25519 key whose seed is its number, 32 times (RFC 8410 §7).
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let pkcs8 = PrivatePkcs8KeyDer::from([head.as_slice(), &[number + 1; 32]].concat());
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519)?)
}

fn params(name: &str, number: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(vec![number + 1]));
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
    if number == 0 {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    } else {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(number - 1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    params
}

fn names() -> [CertificateParams; 4] {
    [params("phone", 0), params("alice", 1), params("a.example", 2), params("Root", ROOT)]
}

/// The chain below the root, each signed by the next.
fn chain(params: &[CertificateParams; 4]) -> Made<Vec<Vec<u8>>> {
    let mut chain = Vec::new();
    for (number, pair) in (0..).zip(params.windows(2)) {
        let [own, above] = pair else { continue };
        let certificate = own.signed_by(&key(number)?, &Issuer::from_params(above, &key(number + 1)?))?;
        chain.push(certificate.der().to_vec());
    }
    Ok(chain)
}

/// The list of an authority with these serial numbers.
fn list(
    params: &[CertificateParams; 4],
    issuer: u8,
    revoked: &[(u8, Option<RevocationReason>)],
    point: Option<CrlIssuingDistributionPoint>,
) -> Made<Vec<u8>> {
    let entry = |(serial, reason): &(u8, Option<RevocationReason>)| RevokedCertParams {
        serial_number: SerialNumber::from(vec![*serial]),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: *reason,
        invalidity_date: Some(date_time_ymd(2025, 1, 1)),
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(vec![7]),
        issuing_distribution_point: point,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let own = params.get(usize::from(issuer)).ok_or("an issuer")?;
    Ok(list.signed_by(&Issuer::from_params(own, &key(issuer)?))?.der().to_vec())
}

/// The part that is signed: the first element of the SEQUENCE.
fn unsigned(der: &[u8]) -> Made<&[u8]> {
    let (_, body) = element(der)?;
    let (whole, _) = element(body)?;
    Ok(whole)
}

/// The first element of some DER, and its content.
fn element(der: &[u8]) -> Made<(&[u8], &[u8])> {
    let short = *der.get(1).ok_or("a length")?;
    let (head, length) = if short < 0x80 {
        (2, usize::from(short))
    } else {
        let bytes = der.get(2..2 + usize::from(short & 0x7f)).ok_or("a length")?;
        (2 + bytes.len(), bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    };
    let whole = der.get(..head + length).ok_or("an element")?;
    Ok((whole, whole.get(head..).unwrap_or_default()))
}

/// The parts of an input.
#[derive(Default)]
struct Seed(Vec<u8>);

impl Seed {
    fn part(&mut self, kind: u8, bytes: &[u8]) -> Made<()> {
        self.0.push(kind);
        self.0.extend(u16::try_from(bytes.len())?.to_be_bytes());
        self.0.extend(bytes);
        Ok(())
    }

    fn chain(&mut self, params: &[CertificateParams; 4]) -> Made<()> {
        chain(params)?.iter().try_for_each(|der| self.part(UNSIGNED_CERTIFICATE, unsigned(der)?))
    }

    fn list(&mut self, issuer: u8, list: &[u8]) -> Made<()> {
        self.part(UNSIGNED_LIST, &[&[issuer], unsigned(list)?].concat())
    }

    /// The lists of all issuers of a chain, without entries.
    fn lists(&mut self, params: &[CertificateParams; 4]) -> Made<()> {
        [1, 2, ROOT].into_iter().try_for_each(|issuer| self.list(issuer, &list(params, issuer, &[], None)?))
    }
}

/// An extension of a certificate by its number below 2.5.29.
fn extension(number: u64, value: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, number], value.to_vec())
}

fn chains() -> Made<BTreeMap<&'static str, Seed>> {
    let mut seeds = BTreeMap::new();
    let mut plain = Seed::default();
    plain.chain(&names())?;
    seeds.insert("plain", plain);

    let mut listed = Seed::default();
    listed.chain(&names())?;
    listed.lists(&names())?;
    seeds.insert("listed", listed);

    let mut revoked = Seed::default();
    revoked.chain(&names())?;
    let entries = [(9, None), (1, Some(RevocationReason::CertificateHold))];
    revoked.list(1, &list(&names(), 1, &entries, None)?)?;
    revoked.list(2, &list(&names(), 2, &[], None)?)?;
    revoked.list(ROOT, &list(&names(), ROOT, &[], None)?)?;
    seeds.insert("revoked", revoked);

    let mut points = names();
    points[0].crl_distribution_points =
        vec![CrlDistributionPoint { uris: vec!["http://a.example/a.crl".to_owned()] }];
    let point = CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint { uris: vec!["http://a.example/a.crl".to_owned()] },
        scope: Some(CrlScope::UserCertsOnly),
    };
    let mut pointed = Seed::default();
    pointed.chain(&points)?;
    pointed.list(1, &list(&points, 1, &[(9, None)], Some(point))?)?;
    pointed.list(2, &list(&points, 2, &[], None)?)?;
    pointed.list(ROOT, &list(&points, ROOT, &[], None)?)?;
    seeds.insert("points", pointed);

    let mut constrained = names();
    let subtree = |name: &str| GeneralSubtree::DnsName(name.to_owned());
    constrained[2].name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![subtree("example"), GeneralSubtree::Rfc822Name("a.example".to_owned())],
        excluded_subtrees: vec![subtree("b.example")],
    });
    constrained[0].subject_alt_names = vec![
        SanType::DnsName("phone.a.example".try_into()?),
        SanType::Rfc822Name("alice@a.example".try_into()?),
        SanType::URI("https://a.example/alice".try_into()?),
    ];
    let mut names_seed = Seed::default();
    names_seed.chain(&constrained)?;
    seeds.insert("constraints", names_seed);

    // certificatePolicies of one policy in all, mapped in the account's, and required from the domain's on.
    let mut policies = names();
    for params in policies.iter_mut().take(3) {
        params.custom_extensions.push(extension(32, &[0x30, 6, 0x30, 4, 6, 2, 0x2a, 3]));
    }
    policies[2].custom_extensions.push(extension(36, &[0x30, 3, 0x80, 1, 0]));
    policies[1].custom_extensions.push(extension(33, &[0x30, 10, 0x30, 8, 6, 2, 0x2a, 3, 6, 2, 0x2a, 3]));
    policies[1].custom_extensions.push(extension(54, &[2, 1, 1]));
    let mut policies_seed = Seed::default();
    policies_seed.chain(&policies)?;
    seeds.insert("policies", policies_seed);
    Ok(seeds)
}

/// Inputs of the target of lists: the number of the key that signs, and a list.
fn lists() -> Made<BTreeMap<&'static str, Vec<u8>>> {
    let params = names();
    let signed = |list: &[u8]| Ok::<_, Box<dyn Error>>([&[1], unsigned(list)?].concat());
    let all = [
        RevocationReason::KeyCompromise,
        RevocationReason::CertificateHold,
        RevocationReason::RemoveFromCrl,
        RevocationReason::Superseded,
    ];
    let entries: Vec<_> = (2..).zip(all.map(Some)).collect();
    let scoped = |scope| {
        Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec!["http://a.example/a.crl".to_owned()] },
            scope,
        })
    };
    Ok(BTreeMap::from([
        ("empty", signed(&list(&params, 1, &[], None)?)?),
        ("entries", signed(&list(&params, 1, &entries, None)?)?),
        ("revoked", signed(&list(&params, 1, &[(1, None)], None)?)?),
        ("users", signed(&list(&params, 1, &[(1, None)], scoped(Some(CrlScope::UserCertsOnly)))?)?),
        ("authorities", signed(&list(&params, 1, &[], scoped(Some(CrlScope::CaCertsOnly)))?)?),
        ("complete", [vec![0xff], list(&params, 1, &entries, None)?].concat()),
    ]))
}

/// PEM sections by the line before each.
fn sections(text: &str) -> BTreeMap<&str, String> {
    let mut sections: BTreeMap<&str, String> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            sections.insert(name, String::new());
        }
        match sections.get_mut(name) {
            Some(section) if !section.contains("-----END ") => section.push_str(&format!("{line}\n")),
            Some(_) | None => name = line,
        }
    }
    sections
}

/// The first chain of each kind of NIST's suite, complete.
fn of_nist(folder: &Path) -> Made<BTreeMap<String, Seed>> {
    let read = |name: &str| fs::read_to_string(folder.join(name));
    let (certificates, lists, tests) = (read("certificates.pem")?, read("crls.pem")?, read("tests.txt")?);
    let (certificates, lists) = (sections(&certificates), sections(&lists));
    let certificate = |name: &str| {
        let pem = certificates.get(name).ok_or_else(|| name.to_owned())?;
        Ok::<_, Box<dyn Error>>(CertificateDer::from_pem_slice(pem.as_bytes())?.to_vec())
    };
    let mut seeds = BTreeMap::new();
    for line in tests.lines() {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [number, _, path, of_path, issuers @ ..] = &*fields else { continue };
        let Some((section, "1" | "5" | "13" | "22")) = number.rsplit_once('.') else { continue };
        let mut seed = Seed::default();
        for name in path.split_whitespace() {
            seed.part(CERTIFICATE, &certificate(name)?)?;
        }
        for name in ["TrustAnchorRootCRL"].into_iter().chain(of_path.split_whitespace()) {
            let pem = lists.get(name).ok_or_else(|| name.to_owned())?;
            seed.part(LIST, &CertificateRevocationListDer::from_pem_slice(pem.as_bytes())?)?;
        }
        for name in issuers.iter().flat_map(|issuers| issuers.split_whitespace()) {
            seed.part(LIST_ISSUER, &certificate(name)?)?;
        }
        seeds.insert(format!("nist-{section}-{number}"), seed);
    }
    Ok(seeds)
}

fn main() -> Made<()> {
    let folder = std::env::args_os().nth(1).ok_or("the folder `fuzz` is an argument")?;
    let folder = Path::new(&folder);
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = folder.join("seeds").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    for (name, Seed(bytes)) in chains()? {
        write("certificates", name, &bytes)?;
    }
    for (name, Seed(bytes)) in of_nist(&folder.join("../actors/tests/pkits"))? {
        write("certificates", &name, &bytes)?;
    }
    for (name, bytes) in lists()? {
        write("revocation_list", name, &bytes)?;
    }
    let [.., root] = names();
    let known = folder.join("fuzz_targets/certificates");
    fs::write(known.join("root.pem"), root.self_signed(&key(ROOT)?)?.pem())?;
    for (name, der) in ["phone.der", "alice.der", "domain.der"].into_iter().zip(chain(&names())?) {
        fs::write(known.join(name), der)?;
    }
    for (name, issuer) in [("domain.crl", 2), ("root.crl", ROOT)] {
        fs::write(known.join(name), list(&names(), issuer, &[], None)?)?;
    }
    Ok(())
}
