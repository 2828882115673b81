//! Generated certificates and lists.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CidrSubnet, CustomExtension,
    DistinguishedName, DnType, DnValue, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ED25519, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
    string::PrintableString,
};

/// Leaves of one batch.
const LEAVES: u64 = 40;

/// One root, CAs below it, and leaves below the last of these. PEM, and DER where that is needed.
pub(crate) struct Batch {
    pub(crate) root: String,
    /// The lowest first.
    pub(crate) cas: Vec<String>,
    pub(crate) ca_ders: Vec<Vec<u8>>,
    pub(crate) leaves: Vec<String>,
    pub(crate) leaf_ders: Vec<Vec<u8>>,
    /// Whether a leaf has a DNS name with a wildcard.
    pub(crate) has_wildcard: Vec<bool>,
    pub(crate) lists: Vec<String>,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut found = DistinguishedName::new();
    found.push(DnType::OrganizationName, "Example");
    found.push(DnType::CommonName, name);
    found
}

/// The same name in another case and type of string.
fn otherwise(name: &str) -> DistinguishedName {
    let printable = |text: &str| DnValue::PrintableString(PrintableString::try_from(text).unwrap());
    let mut found = DistinguishedName::new();
    found.push(DnType::OrganizationName, printable("EXAMPLE"));
    found.push(DnType::CommonName, printable(&name.to_uppercase()));
    found
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

fn extension(oid: &[u64], is_critical: bool, value: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, value);
    extension.set_criticality(is_critical);
    extension
}

fn tlv(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len() < 0x80, "short values only");
    [vec![tag, body.len() as u8], body].concat()
}

const ANY_POLICY: [u8; 6] = [6, 4, 0x55, 0x1d, 0x20, 0];

/// anyPolicy, or one of a few.
fn policy(random: &mut Random) -> Vec<u8> {
    if random.percent(25) { ANY_POLICY.to_vec() } else { own_policy(random) }
}

fn own_policy(random: &mut Random) -> Vec<u8> {
    vec![6, 1, 0x2a + random.below(3) as u8]
}

fn add_policies(random: &mut Random, params: &mut CertificateParams) {
    let mut policies: Vec<Vec<u8>> = (0..=random.below(2)).map(|_| policy(random)).collect();
    policies.sort();
    policies.dedup();
    let list: Vec<Vec<u8>> = policies.into_iter().map(|policy| tlv(0x30, &[policy])).collect();
    params.custom_extensions.push(extension(&[2, 5, 29, 32], random.percent(50), tlv(0x30, &list)));
}

fn add_unknown(random: &mut Random, params: &mut CertificateParams) {
    params.custom_extensions.push(extension(&[1, 2, 3, 4], random.percent(40), vec![5, 0]));
}

const HOSTS: [&str; 6] = ["a.example", "b.example", "x.a.example", "*.a.example", "*.example", "A.Example"];
const BASES: [&str; 5] = ["a.example", "example", "b.example", "x.a.example", ".a.example"];

fn subtree(random: &mut Random) -> GeneralSubtree {
    let base = (*random.pick(&BASES)).to_owned();
    match random.below(5) {
        0 | 1 => GeneralSubtree::DnsName(base.trim_start_matches('.').to_owned()),
        2 => GeneralSubtree::Rfc822Name(base),
        3 => GeneralSubtree::DirectoryName(distinguished(["phone", "ca 1"][random.below(2) as usize])),
        _ => GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix([10, 0, 0, 0].into(), 8)),
    }
}

fn alternative(random: &mut Random) -> SanType {
    match random.below(4) {
        0 | 1 => SanType::DnsName((*random.pick(&HOSTS)).try_into().unwrap()),
        2 => {
            let host = *random.pick(&["a.example", "x.a.example", "B.example"]);
            SanType::Rfc822Name(format!("alice@{host}").as_str().try_into().unwrap())
        }
        _ => SanType::IpAddress([10 + random.below(2) as u8, 1, 2, 3].into()),
    }
}

/// The parameters of a CA.
fn ca(random: &mut Random, name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = match random.below(100) {
        0..3 => IsCa::ExplicitNoCa,
        3..30 => IsCa::Ca(BasicConstraints::Constrained(random.below(3) as u8)),
        _ => IsCa::Ca(BasicConstraints::Unconstrained),
    };
    params.key_usages = match random.below(100) {
        0..3 => vec![KeyUsagePurpose::CrlSign],
        3..6 => vec![KeyUsagePurpose::KeyCertSign],
        6..20 => Vec::new(),
        _ => vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
    };
    if random.percent(2) {
        params.not_after = date_time_ymd(2025, 6, 1);
    }
    if random.percent(25) {
        let mut subtrees = |most: u64| (0..random.below(most)).map(|_| subtree(random)).collect::<Vec<_>>();
        let (permitted_subtrees, excluded_subtrees) = (subtrees(3), subtrees(2));
        if !permitted_subtrees.is_empty() || !excluded_subtrees.is_empty() {
            params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
        }
    }
    if random.percent(60) {
        add_policies(random, &mut params);
    }
    if random.percent(15) {
        let skip = random.below(3) as u8;
        let tag = *random.pick(&[0x80u8, 0x80, 0x81]);
        params.custom_extensions.push(extension(&[2, 5, 29, 36], true, tlv(0x30, &[vec![tag, 1, skip]])));
    }
    if random.percent(15) {
        let pair = tlv(0x30, &[own_policy(random), own_policy(random)]);
        params.custom_extensions.push(extension(&[2, 5, 29, 33], true, tlv(0x30, &[pair])));
    }
    if random.percent(8) {
        params.custom_extensions.push(extension(&[2, 5, 29, 54], true, vec![2, 1, random.below(2) as u8]));
    }
    if random.percent(2) {
        add_unknown(random, &mut params);
    }
    params
}

fn leaf(random: &mut Random, serial: u64) -> CertificateParams {
    let mut params = named("phone");
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::ExplicitNoCa;
    if random.percent(80) {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    params.subject_alt_names = (0..random.below(3)).map(|_| alternative(random)).collect();
    if random.percent(70) {
        add_policies(random, &mut params);
    }
    if random.percent(4) {
        params.not_before = date_time_ymd(2026, 6, 1);
    }
    if random.percent(3) {
        add_unknown(random, &mut params);
    }
    params
}

fn list(random: &mut Random, issuer: &Issuer<'_, &KeyPair>) -> String {
    let last = if random.percent(4) { 2025 } else { 2026 };
    let revoked = (0..random.below(4)).map(|_| RevokedCertParams {
        serial_number: SerialNumber::from(100 + random.below(LEAVES)),
        revocation_time: date_time_ymd(2025, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 2, 1),
        next_update: date_time_ymd(last, 10, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

fn pem(der: &[u8]) -> String {
    use std::fmt::Write as _;
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits =
                three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for place in 0..4 {
                let character = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= three.len() { char::from(character) } else { '=' });
            }
        }
        writeln!(text).unwrap();
    }
    text + "-----END CERTIFICATE-----\n"
}

impl Batch {
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let mut root = named("root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root_key = key();
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let has_lists = random.percent(30);
        let mut lists = Vec::new();
        if has_lists {
            lists.push(list(random, &Issuer::from_params(&root, &root_key)));
        }
        let mut ca_ders = Vec::new();
        let mut above = (root, root_key, "root".to_owned());
        for number in 0..random.below(4) {
            let name = match number {
                1.. if random.percent(15) => above.2.clone(),
                _ => format!("ca {number}"),
            };
            let (params, key) = (ca(random, &name), key());
            ca_ders.insert(0, params.signed_by(&key, &issuer(random, &above)).unwrap().der().to_vec());
            if has_lists && !random.percent(3) {
                let mut signer = params.clone();
                // The library signs no list where the certificate does not allow it.
                signer.key_usages = vec![KeyUsagePurpose::CrlSign];
                lists.push(list(random, &Issuer::from_params(&signer, &key)));
            }
            above = (params, key, name);
        }
        let (mut leaf_ders, mut has_wildcard) = (Vec::new(), Vec::new());
        for serial in 0..LEAVES {
            let params = leaf(random, 100 + serial);
            let is_wildcard =
                |name: &SanType| matches!(name, SanType::DnsName(name) if name.as_str().starts_with('*'));
            has_wildcard.push(params.subject_alt_names.iter().any(is_wildcard));
            let mut der = params.signed_by(&key(), &issuer(random, &above)).unwrap().der().to_vec();
            if random.percent(3) {
                let last = der.len() - 5;
                der[last] ^= 1;
            }
            leaf_ders.push(der);
        }
        Self {
            root: root_pem,
            cas: ca_ders.iter().map(|der| pem(der)).collect(),
            ca_ders,
            leaves: leaf_ders.iter().map(|der| pem(der)).collect(),
            leaf_ders,
            has_wildcard,
            lists,
        }
    }
}

/// An issuer as certificates name it: now and then in another way.
fn issuer<'a>(
    random: &mut Random,
    (params, key, name): &'a (CertificateParams, KeyPair, String),
) -> Issuer<'a, &'a KeyPair> {
    if random.percent(10) {
        let mut params = params.clone();
        params.distinguished_name = otherwise(name);
        return Issuer::new(params, key);
    }
    Issuer::from_params(params, key)
}
