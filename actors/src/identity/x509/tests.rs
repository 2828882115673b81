//! Every rule of the provider, and its violation, with certificates made on the spot.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
    string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::{external_sender::ExternalSenderKey, presentation::write_vector_length};

/// The middle of the validity of every certificate, in Unix seconds.
const NOW_S: u64 = 1_800_000_000;
/// How long before and after it they are valid, in seconds.
const AROUND_S: u64 = 86_400;

fn at(seconds: u64) -> ApplicationContext {
    ApplicationContext::at(Timestamp(seconds * 1000))
}

/// The subject and the window of one certificate.
#[derive(Clone)]
struct Subject {
    common_names: Vec<DnValue>,
    from_s: u64,
    until_s: u64,
}

fn named(name: impl Into<DnValue>) -> Subject {
    Subject { common_names: vec![name.into()], from_s: NOW_S - AROUND_S, until_s: NOW_S + AROUND_S }
}

/// A chain, the leaf first, under a root that is not in it.
struct Chain {
    root_pem: String,
    certificates: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl Chain {
    /// Certificates of these subjects, the leaf first; keys of this kind.
    fn issue(subjects: &[Subject], algorithm: &'static SignatureAlgorithm) -> Self {
        let root = (parameters(&named("root"), true), KeyPair::generate_for(algorithm).unwrap());
        let root_pem = root.0.self_signed(&root.1).unwrap().pem();
        let mut certificates = Vec::new();
        let mut above = root;
        for (place, subject) in subjects.iter().enumerate().rev() {
            let (own, key) = (parameters(subject, place > 0), KeyPair::generate_for(algorithm).unwrap());
            let certificate = own.signed_by(&key, &Issuer::from_params(&above.0, &above.1)).unwrap();
            certificates.insert(0, certificate.der().to_vec());
            above = (own, key);
        }
        Self { root_pem, certificates, key: above.1.public_key_raw().to_vec() }
    }

    fn of(names: &[&str]) -> Self {
        let subjects: Vec<Subject> = names.iter().map(|name| named(*name)).collect();
        Self::issue(&subjects, &PKCS_ED25519)
    }

    fn credential(&self) -> Credential<'static> {
        credential(&self.certificates)
    }
}

fn credential(certificates: &[Vec<u8>]) -> Credential<'static> {
    let mut content = Vec::new();
    for certificate in certificates {
        write_vector_length(&mut content, certificate.len());
        content.extend_from_slice(certificate);
    }
    x509(content)
}

/// A credential for the rest of the test run.
fn x509(content: Vec<u8>) -> Credential<'static> {
    Credential { credential_type: CredentialType::X509, content: content.leak() }
}

fn parameters(subject: &Subject, is_ca: bool) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut parameters = CertificateParams::default();
    parameters.not_before = epoch + Duration::from_secs(subject.from_s);
    parameters.not_after = epoch + Duration::from_secs(subject.until_s);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    for (place, name) in subject.common_names.iter().enumerate() {
        // The library keeps one value of each type, and takes the number of a known type for another one.
        let kind = if place == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
        parameters.distinguished_name.push(kind, name.clone());
    }
    if is_ca {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    } else {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    parameters
}

/// A provider of these parameters that trusts a root: device range, account and domain.
fn provider(root_pem: &str, offsets: Offsets) -> X509IdentityProvider {
    provider_with(root_pem, offsets, None)
}

/// As [`provider`], with this many certificates above the names.
fn provider_with(
    root_pem: &str,
    (device, account, domain): Offsets,
    above_names_max: Option<usize>,
) -> X509IdentityProvider {
    let offsets = X509Parameters {
        device_handle_range: DeviceHandleRange { start: device.0, end: device.1 },
        account_handle_offset: account,
        domain_name_offset: domain,
    };
    let offsets = offsets.check(account.is_some(), domain.is_some()).unwrap();
    let trust = TrustStore::new(root_pem.as_bytes(), &[]).unwrap();
    X509IdentityProvider::new(
        offsets,
        trust,
        ChainLimits { certificates_max: 6, bytes_max: 8192, above_names_max, remembered_max: 4 },
    )
}

type Offsets = ((u8, u8), Option<u8>, Option<u8>);

const DEVICE_ONLY: Offsets = ((0, 0), None, None);
const ALL: Offsets = ((0, 0), Some(1), Some(2));

/// What the provider says of a chain at a time: its handle and domain, or why it is refused.
#[track_caller]
fn check(chain: &Chain, offsets: Offsets, seconds: u64, expected: Result<(&str, Option<&str>), &str>) {
    check_identity(chain, &chain.key, &chain.credential(), offsets, seconds, expected);
}

#[track_caller]
fn check_identity(
    chain: &Chain,
    signature_key: &[u8],
    credential: &Credential<'_>,
    offsets: Offsets,
    seconds: u64,
    expected: Result<(&str, Option<&str>), &str>,
) {
    let provider = provider(&chain.root_pem, offsets);
    let identity = Identity { signature_key, credential: *credential };
    let found = provider.validate(identity, GroupContextExtensions::empty(), at(seconds)).map(|()| {
        let handle = provider.client_handle(identity).unwrap();
        (
            String::from_utf8(handle.as_bytes().to_vec()).unwrap(),
            provider.client_domain(identity).unwrap().map(|domain| domain.as_str().to_owned()),
        )
    });
    match (found, expected) {
        (Ok((handle, domain)), Ok(expected)) => assert_eq!((handle.as_str(), domain.as_deref()), expected),
        (Err(IdentityError(text)), Err(part)) => assert!(text.contains(part), "{part:?} is not in {text:?}"),
        (found, expected) => panic!("{found:?}, expected {expected:?}"),
    }
}

#[test]
fn handles_and_domains_are_read_at_their_offsets() {
    let chain = Chain::of(&["phone", "alice", "A.example", "unused"]);
    check(&chain, DEVICE_ONLY, NOW_S, Ok(("phone", None)));
    check(&chain, ((0, 1), None, None), NOW_S, Ok(("phone:alice", None)));
    check(&chain, ((1, 3), None, None), NOW_S, Ok(("alice:A.example:unused", None)));
    check(&chain, ((0, 0), Some(1), None), NOW_S, Ok(("alice/phone", None)));
    check(&chain, ((0, 1), Some(3), None), NOW_S, Ok(("unused/phone:alice", None)));
    check(&chain, ((0, 0), None, Some(2)), NOW_S, Ok(("phone", Some("a.example"))));
    check(&chain, ALL, NOW_S, Ok(("alice/phone", Some("a.example"))));
    check(&Chain::of(&["Phön 1 'x' (+,-.=?)"]), DEVICE_ONLY, NOW_S, Ok(("Phön 1 'x' (+,-.=?)", None)));
}

#[test]
fn keys_of_every_signature_scheme_are_compared_with_the_leaf_node() {
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let chain = Chain::issue(&[named("phone"), named("alice"), named("a.example")], algorithm);
        check(&chain, ALL, NOW_S, Ok(("alice/phone", Some("a.example"))));
        let mut other = chain.key.clone();
        other[5] ^= 1;
        check_identity(&chain, &other, &chain.credential(), ALL, NOW_S, Err("another key"));
        check_identity(&chain, &[], &chain.credential(), ALL, NOW_S, Err("another key"));
    }
}

#[test]
fn common_names_that_cannot_be_handles_are_refused() {
    let chain = |name: DnValue| Chain::issue(&[named(name)], &PKCS_ED25519);
    for forbidden in ['@', '/', '#', '$', ':'] {
        let name = format!("pho{forbidden}ne");
        check(&chain(name.as_str().into()), DEVICE_ONLY, NOW_S, Err(&format!("{forbidden:?}")));
    }
    check(&chain("".into()), DEVICE_ONLY, NOW_S, Err("empty Common Name"));
    for invisible in [
        '\0',
        '\n',
        '\u{7f}',
        '\u{85}',
        '\u{ad}',
        '\u{200b}',
        '\u{200e}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{feff}',
        '\u{fe0f}',
        '\u{3164}',
        '\u{e0041}',
    ] {
        let name = format!("pho{invisible}ne");
        let found = format!("U+{:04X}", u32::from(invisible));
        check(&chain(name.as_str().into()), DEVICE_ONLY, NOW_S, Err(&found));
    }
    for spaced in [" phone", "phone ", "\u{a0}phone", "phone\u{2003}", " "] {
        check(&chain(spaced.into()), DEVICE_ONLY, NOW_S, Err("white space"));
    }
    check(&chain("my phone".into()), DEVICE_ONLY, NOW_S, Ok(("my phone", None)));
    check(&chain("téléphone 電話 टेलीफोन".into()), DEVICE_ONLY, NOW_S, Ok(("téléphone 電話 टेलीफोन", None)));
    let printable = |text: &str| DnValue::PrintableString(PrintableString::try_from(text).unwrap());
    check(&chain(printable("phone (1)")), DEVICE_ONLY, NOW_S, Ok(("phone (1)", None)));
    check(&chain(printable("alice/phone")), DEVICE_ONLY, NOW_S, Err("'/'"));
    for other in [
        DnValue::TeletexString(TeletexString::try_from("phone").unwrap()),
        DnValue::Ia5String(Ia5String::try_from("phone").unwrap()),
        DnValue::BmpString(BmpString::try_from("phone").unwrap()),
        DnValue::UniversalString(UniversalString::try_from("phone").unwrap()),
    ] {
        check(&chain(other), DEVICE_ONLY, NOW_S, Err("neither a UTF8String nor a PrintableString"));
    }
    let subject = |common_names: &[&str]| Subject {
        common_names: common_names.iter().map(|name| (*name).into()).collect(),
        ..named("")
    };
    let chain = |leaf| Chain::issue(&[leaf, named("alice")], &PKCS_ED25519);
    check(&chain(subject(&[])), DEVICE_ONLY, NOW_S, Err("certificate 0 of the chain has no Common Name"));
    check(&chain(subject(&["a", "b"])), DEVICE_ONLY, NOW_S, Err("more than one Common Name"));
    // Only the certificates that name something are asked for a name.
    check(&chain(subject(&["a", "b"])), ((1, 1), None, None), NOW_S, Ok(("alice", None)));
    let long = "a".repeat(64);
    let other = "b".repeat(64);
    let deep = Chain::of(&[long.as_str(), other.as_str()]);
    check(&deep, ((0, 1), None, None), NOW_S, Ok((&format!("{long}:{other}"), None)));
}

#[test]
fn a_chain_that_is_too_short_names_nobody() {
    let chain = Chain::of(&["phone", "alice"]);
    check(&chain, ((0, 0), Some(1), None), NOW_S, Ok(("alice/phone", None)));
    check(&chain, ALL, NOW_S, Err("the chain has 2 certificates, and certificate 2 is to name"));
    check(&chain, ((0, 2), None, None), NOW_S, Err("certificate 2"));
    check(&chain, ((0, 0), Some(255), None), NOW_S, Err("certificate 255"));
    let domain = |name: &str| Chain::of(&["phone", "alice", name]);
    for wrong in ["a..example", "-a.example", "a_b.example", "127.0.0.1", "ä.example"] {
        check(&domain(wrong), ALL, NOW_S, Err("certificate 2 is not a domain name"));
    }
}

#[test]
fn a_credential_is_a_bounded_vector_of_certificates() {
    let chain = Chain::of(&["phone", "alice"]);
    let check = |credential: Credential<'_>, part| {
        check_identity(&chain, &chain.key, &credential, DEVICE_ONLY, NOW_S, Err(part));
    };
    let content = |bytes: &[u8]| x509(bytes.to_vec());
    let of = |credential_type, content| Credential { credential_type, content };
    check(of(CredentialType::BASIC, b"phone"), "X.509 credentials only");
    check(of(CredentialType(9), &[]), "X.509 credentials only");
    check(content(&[]), "holds no certificate");
    check(content(&[5, 1]), "malformed");
    // A length that is not minimal (RFC 9420 §2.1.2).
    check(content(&[0x40, 1, 0]), "malformed");
    check(content(&[1, 0]), "certificate 0 of the chain is not X.509");
    let mut longer = chain.certificates.clone();
    longer[1].push(0);
    check(credential(&longer), "bytes follow certificate 1");
    let mut cut = chain.certificates.clone();
    cut[1].pop();
    check(credential(&cut), "certificate 1 of the chain is not X.509");
    check(credential(&vec![chain.certificates[0].clone(); 7]), "more than 6 certificates");
    check(content(&[0; 8193]), "more than 8192 bytes");
}

#[test]
fn a_chain_is_valid_only_at_the_time_of_the_message() {
    let early = Subject { from_s: NOW_S - 10, ..named("phone") };
    let chain = Chain::issue(&[early, Subject { until_s: NOW_S + 10, ..named("alice") }], &PKCS_ED25519);
    let accepted = Ok(("phone", None));
    check(&chain, DEVICE_ONLY, NOW_S - 11, Err("the certificate chain is not valid"));
    check(&chain, DEVICE_ONLY, NOW_S - 10, accepted);
    check(&chain, DEVICE_ONLY, NOW_S + 10, accepted);
    check(&chain, DEVICE_ONLY, NOW_S + 11, Err("the certificate chain is not valid"));

    // Its end is known, and a name can be read also after it.
    let provider = provider(&chain.root_pem, DEVICE_ONLY);
    let credential = chain.credential();
    let identity = Identity { signature_key: &chain.key, credential };
    assert_eq!(provider.valid_until(identity), Ok(Some(Timestamp((NOW_S + 10) * 1000 + 999))));
    assert_eq!(provider.client_handle(identity).unwrap().as_bytes(), b"phone");
}

/// A member does not outlive the last root that can have issued its chain.
#[test]
fn the_roots_end_is_the_end_of_what_is_below() {
    let longer = Subject { until_s: NOW_S + 10 * AROUND_S, ..named("phone") };
    let (chain, other) = (Chain::issue(&[longer], &PKCS_ED25519), Chain::of(&["phone"]));
    let root = CertificateDer::from_pem_slice(chain.root_pem.as_bytes()).unwrap();
    let later = parameters(&Subject { until_s: NOW_S + 5 * AROUND_S, ..named("root") }, true);
    let later = later.self_signed(&KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap().pem();
    let with_root = [chain.certificates.clone(), vec![root.to_vec()]].concat();
    for (roots, ends_s) in [
        (chain.root_pem.clone(), NOW_S + AROUND_S),
        (format!("{}{later}", chain.root_pem), NOW_S + 5 * AROUND_S),
        (format!("{later}{}", chain.root_pem), NOW_S + 5 * AROUND_S),
        (format!("{}{}", chain.root_pem, other.root_pem), NOW_S + AROUND_S),
    ] {
        let provider = provider(&roots, DEVICE_ONLY);
        for credential in [chain.credential(), credential(&with_root)] {
            let identity = Identity { signature_key: &chain.key, credential };
            assert_eq!(provider.valid_until(identity), Ok(Some(Timestamp(ends_s * 1000 + 999))));
        }
    }
}

/// What anybody can send does not drive out what was found valid.
#[test]
fn invalid_chains_do_not_drive_out_valid_ones() {
    let chain = Chain::of(&["phone"]);
    let provider = provider(&chain.root_pem, DEVICE_ONLY);
    let validate = |chain: &Chain| {
        let credential = chain.credential();
        let identity = Identity { signature_key: &chain.key, credential };
        let verdict = provider.validate(identity, GroupContextExtensions::empty(), at(NOW_S));
        (verdict.is_ok(), is_remembered(&provider, credential))
    };
    assert_eq!(validate(&chain), (true, true));
    for _ in 0..2 * 4 {
        assert_eq!(validate(&Chain::of(&["phone"])), (false, false));
    }
    assert!(is_remembered(&provider, chain.credential()));
}

fn is_remembered(provider: &X509IdentityProvider, credential: Credential<'_>) -> bool {
    let Trusted { trust, validated, .. } = &*provider.present();
    let period = trust.period(at(NOW_S).msg_timestamp);
    validated.found_in(&digest(credential.content), period) == Some(Found::Valid)
}

#[test]
fn a_provider_that_takes_newer_trust_forgets_what_it_found_valid_before() {
    let (before, after) = (Chain::of(&["phone"]), Chain::of(&["phone"]));
    let provider_of = |chain: &Chain| provider(&chain.root_pem, DEVICE_ONLY);
    let provider = provider_of(&before);
    let is_valid = |chain: &Chain| {
        let identity = Identity { signature_key: &chain.key, credential: chain.credential() };
        provider.validate(identity, GroupContextExtensions::empty(), at(NOW_S)).is_ok()
    };
    assert_eq!((is_valid(&before), is_valid(&after)), (true, false));
    provider.take_trust(&provider_of(&after));
    assert_eq!((is_valid(&before), is_valid(&after)), (false, true));
    // A provider without certificates has no trust to give.
    provider.take_trust(&crate::identity::BasicIdentityProvider);
    assert_eq!((is_valid(&before), is_valid(&after)), (false, true));
}

#[test]
fn a_provider_that_takes_the_same_trust_keeps_what_it_found() {
    let (chain, other) = (Chain::of(&["phone"]), Chain::of(&["phone"]));
    let provider_of = |roots: &[&Chain]| {
        let roots: String = roots.iter().map(|chain| &*chain.root_pem).collect();
        provider(&roots, DEVICE_ONLY)
    };
    let provider = provider_of(&[&chain]);
    let validate = || {
        let identity = Identity { signature_key: &chain.key, credential: chain.credential() };
        assert!(provider.validate(identity, GroupContextExtensions::empty(), at(NOW_S)).is_ok());
    };
    for (roots, is_kept) in [
        (&[&chain][..], true),
        (&[&chain, &other], false),
        (&[&chain, &other], true),
        // Warnings name roots by their places.
        (&[&other, &chain], false),
        (&[&chain], false),
    ] {
        validate();
        let before = provider.present();
        provider.take_trust(&provider_of(roots));
        assert_eq!(Arc::ptr_eq(&before, &provider.present()), is_kept, "{} roots", roots.len());
        assert_eq!(is_remembered(&provider, chain.credential()), is_kept);
    }
}

/// A list of the root that has been late for long.
fn late_list(root: &(CertificateParams, KeyPair)) -> Vec<u8> {
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2020, 2, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(&Issuer::from_params(&root.0, &root.1)).unwrap().der().to_vec()
}

/// A follower whose lists are late validates each chain that its hub accepted once, and refuses it elsewhere.
#[test]
fn chains_that_only_the_hub_accepts_are_validated_once() {
    let root = (parameters(&named("root"), true), KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let issuer = Issuer::from_params(&root.0, &root.1);
    let phone = parameters(&named("phone"), false).signed_by(&key, &issuer).unwrap().der().to_vec();
    let root_pem = root.0.self_signed(&root.1).unwrap().pem();
    let provider = provider(&root_pem, DEVICE_ONLY);
    let credential = credential(&[phone]);
    let validate = |is_accepted, seconds: u64| {
        let identity = Identity { signature_key: key.public_key_raw(), credential };
        let context = ApplicationContext { is_accepted, ..at(seconds) };
        provider.validate(identity, GroupContextExtensions::empty(), context)
    };
    let late = || TrustStore::new(root_pem.as_bytes(), &[late_list(&root)]).unwrap();
    provider.take_trust(&X509IdentityProvider::new(provider.offsets.clone(), late(), provider.limits));
    for (is_accepted, seconds, counted) in [
        (true, NOW_S, 1),
        (true, NOW_S + 1, 1),
        (false, NOW_S, 1),
        (true, NOW_S, 1),
        // Nothing else is left to the hub.
        (true, NOW_S + 2 * AROUND_S, 1),
    ] {
        let is_good = is_accepted && seconds < NOW_S + AROUND_S;
        assert_eq!(validate(is_accepted, seconds).is_ok(), is_good, "{is_accepted} at {seconds}");
        assert_eq!(provider.disputed_chains(), Some(counted));
        assert!(!is_remembered(&provider, credential));
    }
    let trusted = provider.present();
    assert_eq!(trusted.validations.load(Ordering::Relaxed), 3, "the first, the refused one and the late one");
}

#[test]
fn only_chains_to_an_anchor_in_order_are_trusted() {
    let chain = Chain::of(&["phone", "alice", "a.example"]);
    let refused = Err("the certificate chain is not valid");
    let other = Chain::of(&["phone", "alice", "a.example"]);
    let foreign = Chain { root_pem: other.root_pem, ..Chain::of(&["phone", "alice", "a.example"]) };
    check(&foreign, ALL, NOW_S, refused);
    let [leaf, account, domain] = &chain.certificates[..] else { panic!("three certificates") };
    for wrong in [
        vec![leaf, domain, account],
        vec![leaf, domain],
        vec![leaf, account],
        vec![leaf],
        vec![leaf, &other.certificates[1], account, domain],
        vec![leaf, account, domain, &other.certificates[2]],
    ] {
        let wrong: Vec<Vec<u8>> = wrong.into_iter().cloned().collect();
        check_identity(&chain, &chain.key, &credential(&wrong), DEVICE_ONLY, NOW_S, refused);
    }
    let mut forged = chain.certificates.clone();
    let last = forged[0].len() - 1;
    forged[0][last] ^= 1;
    check_identity(&chain, &chain.key, &credential(&forged), DEVICE_ONLY, NOW_S, refused);
}

#[test]
fn a_successor_has_the_same_handle_and_domain() {
    let root_and = |names: &[&str]| Chain::of(names);
    let alice = root_and(&["phone", "alice", "a.example"]);
    let provider = provider(&alice.root_pem, ALL);
    let credential = alice.credential();
    let before = Identity { signature_key: &alice.key, credential };
    for (names, is_successor) in [
        (["phone", "alice", "a.example"], true),
        (["phone", "alice", "A.EXAMPLE"], true),
        (["tablet", "alice", "a.example"], false),
        (["phone", "bob", "a.example"], false),
        (["phone", "alice", "b.example"], false),
    ] {
        let after = root_and(&names);
        let credential = after.credential();
        let after = Identity { signature_key: &after.key, credential };
        assert_eq!(provider.valid_successor(before, after), is_successor, "{names:?}");
    }
    let broken = x509(vec![1, 0]);
    assert!(!provider.valid_successor(before, Identity { signature_key: &alice.key, credential: broken }));
}

#[test]
fn a_chain_that_was_found_valid_is_validated_again_when_its_root_has_expired() {
    let longer = Subject { until_s: NOW_S + 10 * AROUND_S, ..named("phone") };
    let chain = Chain::issue(&[longer], &PKCS_ED25519);
    let provider = provider(&chain.root_pem, DEVICE_ONLY);
    let credential = chain.credential();
    let identity = Identity { signature_key: &chain.key, credential };
    let valid_at =
        |seconds| provider.validate(identity, GroupContextExtensions::empty(), at(seconds)).is_ok();
    for _ in 0..2 {
        assert!(valid_at(NOW_S) && valid_at(NOW_S + AROUND_S));
        assert!(!valid_at(NOW_S + AROUND_S + 1), "the root's last second is over");
        assert!(!valid_at(NOW_S - AROUND_S - 1));
        let other = Identity { signature_key: &[0; 32], ..identity };
        assert!(provider.validate(other, GroupContextExtensions::empty(), at(NOW_S)).is_err());
    }
}

/// Offsets count from the leaf, so an account that may issue CA certificates can put any names below its own.
#[test]
fn an_account_cannot_become_others_by_a_longer_chain() {
    const ACCOUNT: Offsets = ((0, 0), Some(1), None);
    let alice = ["alice", "a.example"];
    let check = |below: &[&str], offsets, above_names_max, expected: Result<&str, &str>| {
        let chain = Chain::of(&[below, &alice].concat());
        let root = CertificateDer::from_pem_slice(chain.root_pem.as_bytes()).unwrap();
        let provider = provider_with(&chain.root_pem, offsets, above_names_max);
        let with_root = [chain.certificates.clone(), vec![root.to_vec()]].concat();
        for credential in [chain.credential(), credential(&with_root)] {
            let identity = Identity { signature_key: &chain.key, credential };
            // Once more from what is remembered.
            for _ in 0..2 {
                match (provider.validate(identity, GroupContextExtensions::empty(), at(NOW_S)), expected) {
                    (Ok(()), Ok(handle)) => {
                        assert_eq!(provider.client_handle(identity).unwrap().as_bytes(), handle.as_bytes());
                    }
                    (Err(IdentityError(text)), Err(part)) => assert!(text.contains(part), "{text}"),
                    (found, expected) => panic!("{below:?}: {found:?}, expected {expected:?}"),
                }
            }
        }
    };
    let refused = |above: &str| format!("{above} certificates stand between certificate");
    check(&["phone"], ALL, Some(0), Ok("alice/phone"));
    // Another account of the same domain needs a domain of its own below Alice; and so does one of another domain.
    check(&["phone", "bob", "a.example"], ALL, Some(0), Err(&refused("2")));
    check(&["phone", "carol", "b.example"], ALL, Some(0), Err(&refused("2")));
    check(&["phone", "bob"], ALL, Some(0), Err(&refused("1")));
    // Then the account would be a domain of one label.
    check(&["phone", "bob"], ALL, Some(1), Ok("bob/phone"));
    check(
        &["phone", "bob", "a.example"],
        ALL,
        Some(1),
        Err("certificates_above_names_max for this application is 1"),
    );
    // What it would be good for without a bound, or path lengths in the certificates.
    check(&["phone", "bob", "a.example"], ALL, None, Ok("bob/phone"));
    check(&["phone", "bob"], ACCOUNT, None, Ok("bob/phone"));
    check(&["phone", "bob"], ACCOUNT, Some(1), Err(&refused("2")));
    check(&["phone"], ACCOUNT, Some(1), Ok("alice/phone"));
    check(&["phone"], ACCOUNT, Some(0), Err(&refused("1")));
    check(&["phone"], DEVICE_ONLY, Some(2), Ok("phone"));
    check(&["phone"], DEVICE_ONLY, Some(1), Err(&refused("2")));
}

/// Self-issued certificates do not count for path lengths (RFC 5280 §6.1.4 (l)), so an account that may issue no CA can still put
/// certificates of its own name, or of one that matches it, into the chain.
#[test]
fn self_issued_certificates_do_not_move_names() {
    /// Certificates below a root, the leaf first, each with its path length.
    fn issue(subjects: &[(DnValue, Option<u8>)]) -> Chain {
        let with = |name: &DnValue, path_len: Option<u8>, is_ca| {
            let mut parameters = parameters(&named(name.clone()), is_ca);
            if let Some(limit) = path_len {
                parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(limit));
            }
            parameters
        };
        let key = || KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let root = (with(&"root".into(), None, true), key());
        let root_pem = root.0.self_signed(&root.1).unwrap().pem();
        let (mut certificates, mut above) = (Vec::new(), root);
        for (place, (name, path_len)) in subjects.iter().enumerate().rev() {
            let (own, key) = (with(name, *path_len, place > 0), key());
            let certificate = own.signed_by(&key, &Issuer::from_params(&above.0, &above.1)).unwrap();
            certificates.insert(0, certificate.der().to_vec());
            above = (own, key);
        }
        Chain { root_pem, certificates, key: above.1.public_key_raw().to_vec() }
    }
    let printable = |text: &str| DnValue::PrintableString(PrintableString::try_from(text).unwrap());
    let check =
        |subjects: &[(DnValue, Option<u8>)], offsets, expected: Result<(&str, Option<&str>), &str>| {
            let chain = issue(subjects);
            let root = CertificateDer::from_pem_slice(chain.root_pem.as_bytes()).unwrap();
            let with_root = [chain.certificates.clone(), vec![root.to_vec()]].concat();
            for credential in [chain.credential(), credential(&with_root)] {
                check_identity(&chain, &chain.key, &credential, offsets, NOW_S, expected);
            }
        };
    let refused = |index: usize| format!("certificate {index} (0 is the leaf) is self-issued");
    const ACCOUNT: Offsets = ((0, 0), Some(1), None);
    let (phone, domain) = (("phone".into(), None), ("a.example".into(), Some(1)));
    let alice = |path_len| ("alice".into(), path_len);

    check(&[phone.clone(), alice(Some(0)), domain.clone()], ALL, Ok(("alice/phone", Some("a.example"))));
    // The account b.example of a.example would be the domain b.example; in any encoding that matches.
    for own in ["b.example".into(), printable("B.Example"), "B.EXAMPLE".into()] {
        let subjects = [phone.clone(), (own, Some(0)), ("b.example".into(), Some(0)), domain.clone()];
        check(&subjects, ALL, Err(&refused(1)));
    }
    // The account alice would be another account, whose handle differs in bytes only.
    let subjects = [phone.clone(), ("ALICE".into(), None), alice(Some(0)), domain.clone()];
    check(&subjects, ACCOUNT, Err(&refused(1)));
    // Devices that name their account twice, and accounts that are lifted over the domain.
    let subjects = [phone.clone(), alice(None), alice(None), alice(Some(0)), domain.clone()];
    check(&subjects, ((0, 1), Some(2), None), Err(&refused(1)));
    check(&subjects, ((0, 0), Some(3), Some(4)), Err(&refused(1)));
    // Directly above the names; and further up, where it moves nothing.
    let twice = |name: &str| [(name.into(), None), (name.into(), None)];
    let subjects = [&[phone.clone(), ("bob".into(), None)], &twice("alice")[..]].concat();
    check(&subjects, ACCOUNT, Err(&refused(2)));
    let subjects = [&[phone.clone(), ("bob".into(), None), domain.clone()], &twice("authority")[..]].concat();
    check(&subjects, ACCOUNT, Ok(("bob/phone", None)));
    // The leaf itself.
    check(&[alice(None), alice(Some(0)), domain.clone()], ALL, Err(&refused(0)));
    // What is not self-issued counts for the path length.
    let subjects = [phone, ("bob".into(), None), alice(Some(0)), domain];
    check(
        &subjects,
        ACCOUNT,
        Err("certificate 2 (0 is the leaf) allows 0 CA certificates below it, and there are 1"),
    );
}

#[test]
fn the_gateways_own_certificate_is_validated_as_groups_will() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let root = (parameters(&named("root"), true), KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let root_pem = root.0.self_signed(&root.1).unwrap().pem();
    let leaf = parameters(&named("gateway"), false);
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&root.0, &root.1)).unwrap().pem();
    let sender = |certificates: Option<&str>| {
        let certificates = certificates.map(str::as_bytes);
        ExternalSenderKey::from_pem(key.serialize_pem().as_bytes(), certificates, "a.example").unwrap()
    };
    let foreign = Chain::of(&["phone"]).root_pem;
    let check = |certificates, roots: &str, offsets, seconds, expected: Option<&str>| {
        let context = at(seconds);
        let verdict = sender(certificates).check_credential(&provider(roots, offsets), context.msg_timestamp);
        match (verdict, expected) {
            (Ok(()), None) => {}
            (Err(IdentityError(text)), Some(part)) => assert!(text.contains(part), "{text}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    };
    check(Some(&leaf), &root_pem, DEVICE_ONLY, NOW_S, None);
    check(Some(&leaf), &root_pem, DEVICE_ONLY, NOW_S + AROUND_S + 1, Some("has expired"));
    check(Some(&leaf), &foreign, DEVICE_ONLY, NOW_S, Some("is not valid"));
    check(Some(&leaf), &root_pem, ALL, NOW_S, Some("certificate 1 is to name"));
    check(None, &foreign, ALL, NOW_S, None);
}

/// What is told to other gateways does not depend on the order of the roots.
#[test]
fn a_summary_of_trust_is_of_the_set_of_roots() {
    let [one, other] = [Chain::of(&["phone"]), Chain::of(&["desk"])];
    let roots =
        |pems: &[&str], above| provider_with(&pems.concat(), DEVICE_ONLY, above).trust_summary().unwrap();
    let both = roots(&[&one.root_pem, &other.root_pem], None);
    assert_eq!(both, roots(&[&other.root_pem, &one.root_pem], None));
    assert_eq!(both, roots(&[&other.root_pem, &one.root_pem, &other.root_pem], None));
    let alone = roots(&[&one.root_pem], None);
    assert_ne!(both.roots, alone.roots);
    assert_ne!(alone.roots, roots(&[&other.root_pem], None).roots);
    let bounded = roots(&[&one.root_pem], Some(0));
    assert_eq!((bounded.roots, bounded.above_names_max), (alone.roots, Some(0)));
    assert!(!alone.checks_revocation);
}
