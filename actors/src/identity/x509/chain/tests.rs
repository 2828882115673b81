//! Chains made on the spot: one for each rule, and one for each violation.

mod der;
mod lists;
mod mutation;
mod names;
mod policies;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList, CertificateRevocationListParams,
    CrlDistributionPoint, CrlIssuingDistributionPoint, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use snapshots::Timestamp;

use super::{Certificate, CertificateRule, ChainError, Standing};
use crate::identity::x509::{NameForm, TrustError, TrustStore, crl::Crl};
use crate::limits::MAX_CERTIFICATES;

/// 2026-01-01, the moment that most chains are validated at.
const NOW: Timestamp = Timestamp(1_767_225_600_000);
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// Serial numbers in [`Pki`].
const ORGANISATION: u8 = 2;
const DEVICE: u8 = 3;

/// A certificate and its key.
struct Entity {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

/// Parameters of a certificate that is valid from 2025 to 2027.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

impl Entity {
    fn root(params: CertificateParams) -> Self {
        Self::root_with(params, key())
    }

    fn root_with(params: CertificateParams, key: KeyPair) -> Self {
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    fn issue(&self, params: CertificateParams) -> Self {
        self.issue_with(params, key())
    }

    fn issue_with(&self, params: CertificateParams, key: KeyPair) -> Self {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    fn key_again(&self) -> KeyPair {
        KeyPair::from_pem(&self.key.serialize_pem()).unwrap()
    }

    /// A CRL of this issuer, valid for a year from the first of January, with these revoked.
    fn crl(&self, year: i32, revoked: &[u8], point: Option<&str>) -> Vec<u8> {
        self.crl_object(year, revoked, point).der().to_vec()
    }

    fn crl_object(&self, year: i32, revoked: &[u8], point: Option<&str>) -> CertificateRevocationList {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(year + 1, 1, 1),
            crl_number: SerialNumber::from(u64::try_from(year).unwrap()),
            issuing_distribution_point: point.map(|uri| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
                scope: None,
            }),
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(vec![*serial]),
                    revocation_time: date_time_ymd(year, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap()
    }
}

/// A root, an organisation below it, and a device below that; leaf first in a chain.
struct Pki {
    root: Entity,
    organisation: Entity,
    device: Entity,
}

impl Pki {
    fn new() -> Self {
        Self::with(ca("root"), ca("organisation"), leaf("device"))
    }

    fn with(
        root: CertificateParams,
        mut organisation: CertificateParams,
        mut device: CertificateParams,
    ) -> Self {
        organisation.serial_number = Some(vec![ORGANISATION].into());
        device.serial_number = Some(vec![DEVICE].into());
        let root = Entity::root(root);
        let organisation = root.issue(organisation);
        let device = organisation.issue(device);
        Self { root, organisation, device }
    }

    fn store(&self) -> TrustStore {
        self.store_with(&[])
    }

    fn store_with(&self, crls: &[Vec<u8>]) -> TrustStore {
        TrustStore::new(self.root.pem.as_bytes(), crls).unwrap()
    }

    fn validate(&self) -> Result<(), ChainError> {
        self.validate_by(&self.store(), NOW)
    }

    fn validate_by(&self, store: &TrustStore, at: Timestamp) -> Result<(), ChainError> {
        store.validate(&[&self.device.der, &self.organisation.der], at)
    }
}

fn broken(index: usize, rule: CertificateRule) -> Result<(), ChainError> {
    Err(ChainError::Certificate { index, rule })
}

#[test]
fn a_chain_is_valid_with_and_without_its_root() {
    let pki = Pki::new();
    let chain: [&[u8]; 3] = [&pki.device.der, &pki.organisation.der, &pki.root.der];
    assert_eq!(pki.store().validate(&chain, NOW), Ok(()));
    assert_eq!(pki.store().validate(&chain[..2], NOW), Ok(()));

    let direct = pki.root.issue(leaf("device"));
    assert_eq!(pki.store().validate(&[&direct.der], NOW), Ok(()));
    assert_eq!(pki.store().validate(&[&direct.der, &pki.root.der], NOW), Ok(()));
}

#[test]
fn every_accepted_key_signs() {
    let check = |algorithm: &'static SignatureAlgorithm| {
        let key = || KeyPair::generate_for(algorithm).unwrap();
        let root = Entity::root_with(ca("root"), key());
        let organisation = root.issue_with(ca("organisation"), key());
        let device = organisation.issue_with(leaf("device"), key());
        let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();
        assert_eq!(store.validate(&[&device.der, &organisation.der], NOW), Ok(()), "{algorithm:?}");
        assert_eq!(
            store.validate(&[&device.der, &root.issue_with(ca("organisation"), key()).der], NOW),
            broken(0, CertificateRule::Signature),
            "{algorithm:?}"
        );
    };
    check(&PKCS_ED25519);
    check(&PKCS_ECDSA_P256_SHA256);
    check(&PKCS_ECDSA_P384_SHA384);
}

#[test]
fn the_order_of_the_chain_is_the_order_of_the_path() {
    let pki = Pki::new();
    let store = pki.store();
    let (device, organisation, root) = (&*pki.device.der, &*pki.organisation.der, &*pki.root.der);
    let check = |chain: &[&[u8]], expected| assert_eq!(store.validate(chain, NOW), expected);

    check(&[], Err(ChainError::Empty));
    check(&[root], Err(ChainError::OnlyRoot));
    check(&[device], broken(0, CertificateRule::UnknownIssuer));
    check(&[device, root], broken(0, CertificateRule::Order));
    check(&[device, root, organisation], broken(1, CertificateRule::RootInside));
    check(&[organisation, root], broken(0, CertificateRule::CaAsLeaf));
    check(&[organisation, device], broken(1, CertificateRule::NotCa));
    check(&[device, organisation, organisation], broken(2, CertificateRule::Repeated));
    check(&[device, organisation, root, root], broken(2, CertificateRule::RootInside));

    let stranger = Entity::root(ca("stranger"));
    check(&[device, organisation, &stranger.der], broken(1, CertificateRule::Order));
    check(&[device, &stranger.der, organisation], broken(0, CertificateRule::Order));
    let impostor = Entity::root(ca("root"));
    check(&[device, organisation, &impostor.der], broken(2, CertificateRule::Signature));
}

/// Two certificates for the same name and key fit wherever one does, so a search could leave either out.
#[test]
fn a_decoy_cannot_shift_the_offsets() {
    let root = Entity::root(ca("root"));
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let organisation = root.issue_with(ca("organisation"), key);
    let device = organisation.issue(leaf("device"));
    let again = root.issue_with(ca("organisation"), organisation.key_again());
    let own = organisation.issue_with(ca("organisation"), organisation.key_again());
    let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();

    for issuer in [&organisation, &again] {
        assert_eq!(store.validate(&[&device.der, &issuer.der], NOW), Ok(()));
    }
    for (decoy, is_below) in [(&again, false), (&again, true), (&own, false)] {
        let chain = if is_below { [&device, decoy, &organisation] } else { [&device, &organisation, decoy] };
        let chain = chain.map(|entity| &*entity.der);
        assert!(store.validate(&chain, NOW).is_err(), "{chain:?}");
    }
    // A self-issued certificate is a part of the path, which none that names the client may be.
    let chain: [&[u8]; 3] = [&device.der, &own.der, &organisation.der];
    assert_eq!(store.validate(&chain, NOW), Ok(()));
    assert_eq!(store.validate_naming(&chain, NOW, 1), Ok(Standing::Good));
    let self_issued = ChainError::Certificate { index: 1, rule: CertificateRule::SelfIssued };
    assert_eq!(store.validate_naming(&chain, NOW, 2), Err(self_issued));
}

#[test]
fn key_usages_allow_what_certificates_are_used_for() {
    let check = |organisation: &[KeyUsagePurpose], device: &[KeyUsagePurpose], expected| {
        let mut params = (ca("organisation"), leaf("device"));
        params.0.key_usages = organisation.to_vec();
        params.1.key_usages = device.to_vec();
        assert_eq!(Pki::with(ca("root"), params.0, params.1).validate(), expected);
    };
    let (certs, crls) = (KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign);
    let (signs, agrees) = (KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement);

    check(&[], &[], Ok(()));
    check(&[certs, signs], &[signs, agrees], Ok(()));
    check(&[crls, signs], &[signs], broken(1, CertificateRule::KeyCertSign));
    check(&[certs], &[agrees], broken(0, CertificateRule::DigitalSignature));
}

#[test]
fn issuers_are_cas_and_leaves_are_not() {
    let check = |organisation: IsCa, device: IsCa, expected| {
        let mut params = (ca("organisation"), leaf("device"));
        params.0.is_ca = organisation;
        params.1.is_ca = device;
        assert_eq!(Pki::with(ca("root"), params.0, params.1).validate(), expected);
    };
    let any = || IsCa::Ca(BasicConstraints::Unconstrained);
    check(any(), IsCa::ExplicitNoCa, Ok(()));
    check(IsCa::ExplicitNoCa, IsCa::NoCa, broken(1, CertificateRule::NotCa));
    check(IsCa::NoCa, IsCa::NoCa, broken(1, CertificateRule::NotCa));
    check(any(), any(), broken(0, CertificateRule::CaAsLeaf));
}

#[test]
fn every_certificate_is_valid_at_the_moment_it_is_validated() {
    let check = |years: [(i32, i32); 3], expected| {
        let [root, organisation, device] = years.map(|(from, to)| {
            move |mut params: CertificateParams| {
                params.not_before = date_time_ymd(from, 1, 1);
                params.not_after = date_time_ymd(to, 1, 1);
                params
            }
        });
        let pki = Pki::with(root(ca("root")), organisation(ca("organisation")), device(leaf("device")));
        assert_eq!(pki.validate(), expected);
    };
    const NOW: (i32, i32) = (2025, 2027);
    const PAST: (i32, i32) = (2024, 2025);
    const FUTURE: (i32, i32) = (2027, 2028);
    check([NOW, NOW, NOW], Ok(()));
    check([(2026, 2026), (2026, 2026), (2026, 2026)], Ok(()));
    check([NOW, NOW, PAST], broken(0, CertificateRule::Expired));
    check([NOW, NOW, FUTURE], broken(0, CertificateRule::NotValidYet));
    check([NOW, PAST, NOW], broken(1, CertificateRule::Expired));
    check([NOW, FUTURE, NOW], broken(1, CertificateRule::NotValidYet));
    check([PAST, NOW, NOW], broken(1, CertificateRule::RootValidity));
    check([FUTURE, NOW, NOW], broken(1, CertificateRule::RootValidity));
}

#[test]
fn the_moment_is_an_argument() {
    let pki = Pki::new();
    let check = |at: u64, expected| assert_eq!(pki.validate_by(&pki.store(), Timestamp(at)), expected);
    // 2025-01-01 and 2027-01-01, whose first second belongs to the validity.
    let (first, last) = (1_735_689_600_000, 1_798_761_600_000);
    check(0, broken(0, CertificateRule::NotValidYet));
    check(first - 1, broken(0, CertificateRule::NotValidYet));
    check(first, Ok(()));
    check(last + 999, Ok(()));
    check(last + 1000, broken(0, CertificateRule::Expired));
    check(u64::MAX, broken(0, CertificateRule::Expired));
}

#[test]
fn of_two_roots_with_one_name_the_valid_one_counts() {
    let mut old = ca("root");
    old.not_after = date_time_ymd(2025, 6, 1);
    let (old, new) = (Entity::root(old), Entity::root(ca("root")));
    let store = TrustStore::new(format!("{}{}", old.pem, new.pem).as_bytes(), &[]).unwrap();
    let (by_old, by_new) = (old.issue(leaf("device")), new.issue(leaf("device")));
    assert_eq!(store.validate(&[&by_new.der], NOW), Ok(()));
    assert_eq!(store.validate(&[&by_new.der, &new.der], NOW), Ok(()));
    assert_eq!(store.validate(&[&by_old.der], NOW), broken(0, CertificateRule::Signature));
    assert_eq!(store.validate(&[&by_old.der, &old.der], NOW), broken(0, CertificateRule::RootValidity));
    assert_eq!(store.validate(&[&by_new.der, &old.der], NOW), broken(0, CertificateRule::RootValidity));
}

#[test]
fn critical_extensions_are_known_ones() {
    let check = |critical: bool, on_device: bool, expected| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(critical);
        let mut params = (ca("organisation"), leaf("device"));
        let owner = if on_device { &mut params.1 } else { &mut params.0 };
        owner.custom_extensions.push(extension);
        assert_eq!(Pki::with(ca("root"), params.0, params.1).validate(), expected);
    };
    check(false, false, Ok(()));
    check(false, true, Ok(()));
    check(true, false, broken(1, CertificateRule::CriticalExtension));
    check(true, true, broken(0, CertificateRule::CriticalExtension));
}

#[test]
fn any_extended_key_usage_will_do() {
    let mut device = leaf("device");
    device.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    assert_eq!(Pki::with(ca("root"), ca("organisation"), device).validate(), Ok(()));
}

#[test]
fn paths_are_as_long_as_their_cas_allow() {
    let check = |root: BasicConstraints, upper: BasicConstraints, lower: BasicConstraints, expected| {
        let with = |name, constraints| {
            let mut params = ca(name);
            params.is_ca = IsCa::Ca(constraints);
            params
        };
        let root = Entity::root(with("root", root));
        let upper = root.issue(with("upper", upper));
        let lower = upper.issue(with("lower", lower));
        let device = lower.issue(leaf("device"));
        let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();
        assert_eq!(store.validate(&[&device.der, &lower.der, &upper.der], NOW), expected);
    };
    let any = BasicConstraints::Unconstrained;
    let limit = BasicConstraints::Constrained;
    check(limit(2), limit(1), limit(0), Ok(()));
    check(any, limit(0), any, broken(2, CertificateRule::PathLength { limit: 0, found: 1 }));
    check(limit(1), any, any, broken(2, CertificateRule::RootPathLength { limit: 1, found: 2 }));
}

#[test]
fn a_chain_has_a_longest_length() {
    let root = Entity::root(ca("root"));
    let mut entities = vec![root.issue(ca("1"))];
    while entities.len() < MAX_CERTIFICATES {
        let issuer = entities.last().unwrap();
        entities.push(issuer.issue(ca(&format!("{}", entities.len() + 1))));
    }
    let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();
    let check = |issuers: usize, with_root: bool, expected| {
        let device = entities[issuers - 1].issue(leaf("device"));
        let mut chain: Vec<&[u8]> = vec![&device.der];
        chain.extend(entities[..issuers].iter().rev().map(|entity| &*entity.der));
        if with_root {
            chain.push(&root.der);
        }
        assert_eq!(store.validate(&chain, NOW), expected);
    };
    check(6, false, Ok(()));
    check(6, true, Ok(()));
    check(7, false, Err(ChainError::TooLong { found: 8 }));
    check(7, true, Err(ChainError::TooLong { found: 9 }));
}

#[test]
fn names_keep_within_constraints() {
    let constrained = |subtree| {
        let mut params = ca("organisation");
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: Vec::new() });
        params
    };
    let check = |subtree, name: &str, valid: bool| {
        let mut device = leaf("device");
        device.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        match Pki::with(ca("root"), constrained(subtree), device).validate() {
            Ok(()) => assert!(valid),
            Err(ChainError::Certificate {
                index: 0,
                rule: CertificateRule::NameConstraints(NameForm::Dns),
            }) => {
                assert!(!valid);
            }
            Err(error) => panic!("{error}"),
        }
    };
    check(GeneralSubtree::DnsName("example.org".into()), "phone.example.org", true);
    check(GeneralSubtree::DnsName("example.org".into()), "phone.example.com", false);
}

#[test]
fn revoked_certificates_are_refused() {
    let pki = Pki::new();
    let root = |year, revoked| pki.root.crl(year, revoked, None);
    let organisation = |year, revoked| pki.organisation.crl(year, revoked, None);
    let check = |crls: &[Vec<u8>], at, expected| {
        assert_eq!(pki.validate_by(&pki.store_with(crls), at), expected);
        let reversed: Vec<_> = crls.iter().rev().cloned().collect();
        assert_eq!(pki.validate_by(&pki.store_with(&reversed), at), expected);
    };
    let later = Timestamp(NOW.0 + YEAR_MS - 1);

    check(&[root(2026, &[9]), organisation(2026, &[9])], NOW, Ok(()));
    check(&[root(2026, &[]), organisation(2026, &[DEVICE])], NOW, broken(0, CertificateRule::Revoked));
    check(&[root(2026, &[ORGANISATION]), organisation(2026, &[])], NOW, broken(1, CertificateRule::Revoked));
    check(&[root(2026, &[DEVICE]), organisation(2026, &[ORGANISATION])], NOW, Ok(()));

    // A list is good until its next update, and the newest counts.
    check(&[root(2026, &[]), organisation(2026, &[])], later, Ok(()));
    check(&[root(2026, &[]), organisation(2025, &[])], later, broken(0, CertificateRule::StaleCrl));
    check(&[root(2025, &[]), organisation(2026, &[])], NOW, broken(1, CertificateRule::StaleCrl));
    let (old, new) = (organisation(2025, &[]), organisation(2026, &[DEVICE]));
    check(&[root(2026, &[]), old, new], NOW, broken(0, CertificateRule::Revoked));
    let (old, new) = (organisation(2025, &[DEVICE]), organisation(2026, &[]));
    check(&[root(2026, &[]), old, new], NOW, Ok(()));

    // Lists come in PEM, too.
    let pem = pki.organisation.crl_object(2026, &[DEVICE], None).pem().unwrap().into_bytes();
    check(&[root(2026, &[]), pem], NOW, broken(0, CertificateRule::Revoked));

    // As soon as there is one list, every certificate has to be covered by one.
    check(&[root(2026, &[])], NOW, broken(0, CertificateRule::StatusUnknown));
    check(&[organisation(2026, &[])], NOW, broken(1, CertificateRule::StatusUnknown));
}

#[test]
fn revocation_lists_are_signed_by_the_issuer() {
    let pki = Pki::new();
    let check =
        |crls: &[Vec<u8>], expected| assert_eq!(pki.validate_by(&pki.store_with(crls), NOW), expected);
    let root = pki.root.crl(2026, &[], None);
    let forged = Entity::root(ca("organisation")).crl(2026, &[], None);
    check(&[root.clone(), forged], broken(0, CertificateRule::CrlSignature));

    let mut silent = ca("organisation");
    silent.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut pki = Pki::with(ca("root"), silent, leaf("device"));
    // The list is signed with the right key, which its certificate does not allow.
    pki.organisation.params.key_usages.push(KeyUsagePurpose::CrlSign);
    let crls = [pki.root.crl(2026, &[], None), pki.organisation.crl(2026, &[], None)];
    assert_eq!(pki.validate_by(&pki.store_with(&crls), NOW), broken(0, CertificateRule::CrlSign));

    let mut silent = ca("root");
    silent.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut pki = Pki::with(silent, ca("organisation"), leaf("device"));
    pki.root.params.key_usages.push(KeyUsagePurpose::CrlSign);
    let crls = [pki.root.crl(2026, &[], None), pki.organisation.crl(2026, &[], None)];
    assert_eq!(pki.validate_by(&pki.store_with(&crls), NOW), broken(1, CertificateRule::CrlSign));
    assert_eq!(pki.validate(), Ok(()));
}

#[test]
fn a_list_for_a_distribution_point_covers_who_names_it() {
    let check = |named: Option<&str>, points: &[&str], expected| {
        let mut device = leaf("device");
        device.crl_distribution_points =
            named.map(|uri| CrlDistributionPoint { uris: vec![uri.to_owned()] }).into_iter().collect();
        let pki = Pki::with(ca("root"), ca("organisation"), device);
        let mut crls = vec![pki.root.crl(2026, &[], None)];
        crls.extend(points.iter().map(|uri| pki.organisation.crl(2026, &[], Some(uri))));
        assert_eq!(pki.validate_by(&pki.store_with(&crls), NOW), expected);
    };
    check(Some("http://a"), &["http://b", "http://a"], Ok(()));
    check(Some("http://a"), &["http://b"], broken(0, CertificateRule::StatusUnknown));
    check(None, &["http://a"], broken(0, CertificateRule::StatusUnknown));
}

#[test]
fn a_trust_store_says_what_it_cannot_use() {
    let pki = Pki::new();
    let check = |roots: &str, crls: &[Vec<u8>], expected: &str| {
        let error = TrustStore::new(roots.as_bytes(), crls).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let root = &pki.root.pem;
    check("", &[], "at least one CERTIFICATE section");
    check(&pki.root.key.serialize_pem(), &[], "at least one CERTIFICATE section");
    check(&format!("{root}{}", pki.device.pem), &[], "trust root 2 cannot be used: it is not a CA");
    check(&root.replace("MII", "AAA"), &[], "trust root 1 cannot be used");
    check(&root.repeat(257), &[], "more than 256 trust roots");
    check(root, &[pki.root.crl(2026, &[], None), b"nonsense".to_vec()], "revocation list 2 cannot be used");
    check(root, &[vec![0x30, 0]], "revocation list 1 cannot be used");
    check(root, &vec![Vec::new(); 1025], "more than 1024 revocation lists");
    let mut signs_nothing = ca("root");
    signs_nothing.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    check(&Entity::root(signs_nothing).pem, &[], "keyCertSign");
    assert!(matches!(TrustStore::new(b"", &[]), Err(TrustError::NoRoots)));
}

/// Names are unique below one issuer and no further.
#[test]
fn accounts_of_one_name_below_two_domains_have_lists_of_their_own() {
    let root = Entity::root(ca("root"));
    let serial = |mut params: CertificateParams, serial: u8| {
        params.serial_number = Some(vec![serial].into());
        params
    };
    let domains = [root.issue(serial(ca("a.example"), 10)), root.issue(serial(ca("b.example"), 11))];
    let accounts = [domains[0].issue(serial(ca("alice"), 12)), domains[1].issue(serial(ca("alice"), 12))];
    let devices = [0, 1].map(|at: usize| accounts[at].issue(serial(leaf("phone"), DEVICE)));
    let validate = |of_accounts: [Vec<u8>; 2]| {
        let [first, second] = of_accounts;
        let shared =
            [root.crl(2026, &[], None), domains[0].crl(2026, &[], None), domains[1].crl(2026, &[], None)];
        [vec![first.clone(), second.clone()], vec![second, first]].map(|lists| {
            let crls = [shared.to_vec(), lists].concat();
            let store = TrustStore::new(root.pem.as_bytes(), &crls).unwrap();
            [0, 1].map(|at: usize| {
                store.validate(&[&devices[at].der, &accounts[at].der, &domains[at].der], NOW)
            })
        })
    };
    let (good, bad) = (Ok(()), broken(0, CertificateRule::Revoked));
    let list = |at: usize, revoked| accounts[at].crl(2026, revoked, None);
    assert_eq!(
        validate([list(0, &[]), list(1, &[])]),
        [[good.clone(), good.clone()], [good.clone(), good.clone()]]
    );
    let expected = [good.clone(), bad.clone()];
    assert_eq!(validate([list(0, &[]), list(1, &[DEVICE])]), [expected.clone(), expected]);
    let expected = [bad, good];
    assert_eq!(validate([list(0, &[DEVICE]), list(1, &[])]), [expected.clone(), expected]);
    // Lists that no issuer in the path signed cover nothing, however many there are.
    let forged = || Entity::root(ca("alice")).crl(2026, &[], None);
    let expected = [broken(0, CertificateRule::CrlSignature), broken(0, CertificateRule::CrlSignature)];
    assert_eq!(validate([forged(), forged()]), [expected.clone(), expected]);
}

/// How often the signature of any list was verified.
fn verified(store: &TrustStore) -> usize {
    store.crls.iter().map(Crl::verified).sum()
}

#[test]
fn a_chain_that_nobody_signed_costs_no_look_at_the_lists() {
    let root = Entity::root(ca("root"));
    let mut lists = vec![root.crl(2026, &[], None)];
    lists.extend((0..50).map(|_| Entity::root(ca("alice")).crl(2026, &[], None)));
    let store = TrustStore::new(root.pem.as_bytes(), &lists).unwrap();
    // All issuers have the name of the lists', and each certificate is signed by the key of the next but the last one.
    let mut chain = vec![Entity::root(ca("alice"))];
    for _ in 0..4 {
        chain.push(chain.last().unwrap().issue(ca("alice")));
    }
    let device = chain.last().unwrap().issue(leaf("phone"));
    let mut top = Entity::root(ca("root"));
    top.params = ca("root");
    let alone = top.issue_with(ca("alice"), chain[0].key_again());
    let mut ders = vec![device.der.as_slice()];
    ders.extend(chain[1..].iter().rev().map(|entity| entity.der.as_slice()));
    ders.push(&alone.der);
    assert_eq!(store.validate(&ders, NOW), broken(5, CertificateRule::Signature));
    assert_eq!(verified(&store), 0);
    // Signatures are verified from the root down.
    let strangers = Entity::root(ca("alice")).issue(leaf("phone"));
    ders[0] = &strangers.der;
    assert_eq!(store.validate(&ders, NOW), broken(5, CertificateRule::Signature));
    assert_eq!(verified(&store), 0);
}

#[test]
fn the_signature_of_a_list_is_verified_once() {
    let pki = Pki::new();
    let lists = [pki.root.crl(2026, &[], None), pki.organisation.crl(2026, &[], None)];
    let store = pki.store_with(&lists);
    for _ in 0..3 {
        assert_eq!(pki.validate_by(&store, NOW), Ok(()));
        assert_eq!(verified(&store), 2);
    }
    // What is remembered is the signature, not the verdict.
    let lists = [pki.root.crl(2026, &[], None), pki.organisation.crl(2026, &[DEVICE], None)];
    let store = pki.store_with(&lists);
    for _ in 0..2 {
        assert_eq!(pki.validate_by(&store, NOW), broken(0, CertificateRule::Revoked));
    }
    // Nor is somebody else's list remembered as the issuer's.
    let forged = Entity::root(ca("organisation")).crl(2026, &[], None);
    let store = pki.store_with(&[pki.root.crl(2026, &[], None), forged]);
    for _ in 0..2 {
        assert_eq!(pki.validate_by(&store, NOW), broken(0, CertificateRule::CrlSignature));
    }
}
