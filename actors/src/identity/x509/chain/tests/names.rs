//! Names that match without being the same bytes, and name constraints of every form.

use super::*;
use crate::identity::x509::chain::tests::der::{extension, tlv};

/// nameConstraints with these bases of permitted and excluded subtrees.
fn constraints(permitted: &[Vec<u8>], excluded: &[Vec<u8>]) -> CustomExtension {
    let list = |tag: u8, bases: &[Vec<u8>]| {
        let subtrees: Vec<Vec<u8>> = bases.iter().map(|base| tlv(0x30, &[base])).collect();
        if bases.is_empty() { Vec::new() } else { tlv(tag, &subtrees) }
    };
    extension(30, true, tlv(0x30, &[list(0xa0, permitted), list(0xa1, excluded)]))
}

fn alternative_names(names: &[Vec<u8>]) -> CustomExtension {
    extension(17, false, tlv(0x30, names))
}

const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;
const REGISTERED: u8 = 0x88;

fn text(tag: u8, text: &str) -> Vec<u8> {
    tlv(tag, &[text.as_bytes()])
}

/// A directory name of one Common Name: a PrintableString.
fn directory(name: &str) -> Vec<u8> {
    let attribute = tlv(0x30, &[tlv(6, &[[0x55, 4, 3]]), tlv(0x13, &[name.as_bytes()])]);
    tlv(0xa4, &[tlv(0x30, &[tlv(0x31, &[attribute])])])
}

#[track_caller]
fn check(
    permitted: &[Vec<u8>],
    excluded: &[Vec<u8>],
    names: &[Vec<u8>],
    expected: Result<(), CertificateRule>,
) {
    let mut params = (ca("organisation"), leaf("device"));
    params.0.custom_extensions.push(constraints(permitted, excluded));
    if !names.is_empty() {
        params.1.custom_extensions.push(alternative_names(names));
    }
    let verdict = Pki::with(ca("root"), params.0, params.1).validate();
    let at_leaf = |rule| ChainError::Certificate { index: 0, rule };
    assert_eq!(verdict, expected.map_err(at_leaf));
}

#[test]
fn names_of_every_form_are_held_to_constraints() {
    let forbidden = |form| Err(CertificateRule::NameConstraints(form));
    let unsupported = |form| Err(CertificateRule::ConstraintNotSupported(form));
    let dns = |name| text(DNS, name);
    check(&[dns("example.org")], &[], &[dns("phone.example.org")], Ok(()));
    check(&[dns("example.org")], &[], &[dns("example.com")], forbidden(NameForm::Dns));
    check(&[], &[dns("example.org")], &[dns("*.org")], forbidden(NameForm::Dns));
    check(&[dns("a"), dns("b")], &[], &[dns("x.a"), dns("x.b")], Ok(()));
    check(&[dns("a")], &[], &[dns("x.a"), dns("x.b")], forbidden(NameForm::Dns));
    check(&[dns("a")], &[], &[dns("not a name")], unsupported(NameForm::Dns));

    let email = |name| text(EMAIL, name);
    check(&[email("example.org")], &[], &[email("a@example.org")], Ok(()));
    check(&[email("example.org")], &[], &[email("a@x.example.org")], forbidden(NameForm::Email));
    check(&[], &[email(".example.org")], &[email("a@x.example.org")], forbidden(NameForm::Email));
    check(&[email("example.org")], &[], &[email("a")], unsupported(NameForm::Email));

    let uri = |name| text(URI, name);
    check(&[uri("example.org")], &[], &[uri("spiffe://example.org/a")], Ok(()));
    check(&[uri("example.org")], &[], &[uri("spiffe://example.com/a")], forbidden(NameForm::Uri));
    check(&[], &[uri("example.org")], &[uri("urn:a")], unsupported(NameForm::Uri));

    let ip = |bytes: &[u8]| tlv(IP, &[bytes]);
    check(&[ip(&[10, 0, 0, 0, 255, 0, 0, 0])], &[], &[ip(&[10, 1, 2, 3])], Ok(()));
    check(&[ip(&[10, 0, 0, 0, 255, 0, 0, 0])], &[], &[ip(&[11, 1, 2, 3])], forbidden(NameForm::Ip));
    check(&[ip(&[10, 0, 0, 0, 255, 0, 0, 0])], &[], &[ip(&[0; 16])], forbidden(NameForm::Ip));

    // The subject is a directory name, compared without case.
    check(&[directory("DEVICE")], &[], &[], Ok(()));
    check(&[directory("other")], &[], &[], forbidden(NameForm::Directory));
    check(&[], &[directory("Device")], &[], forbidden(NameForm::Directory));
    check(&[directory("device")], &[], &[directory("other")], forbidden(NameForm::Directory));

    // Constraints on forms that the certificate does not have mean nothing, whatever the form.
    let registered = tlv(REGISTERED, &[[0x2a, 3]]);
    check(&[registered.clone(), dns("a")], &[], &[dns("x.a")], Ok(()));
    let registered = [registered];
    check(&registered, &[], &registered, unsupported(NameForm::RegisteredId));
}

#[test]
fn constraints_add_up_from_the_root_down() {
    let check = |of_root: &str, of_upper: &str, of_lower: &str, name: &str, expected| {
        let with = |params: CertificateParams, base: &str| {
            let mut params = params;
            params.custom_extensions.push(constraints(&[text(DNS, base)], &[]));
            params
        };
        let root = Entity::root(with(ca("root"), of_root));
        let upper = root.issue(with(ca("upper"), of_upper));
        let lower = upper.issue(with(ca("lower"), of_lower));
        let mut device = leaf("device");
        device.custom_extensions.push(alternative_names(&[text(DNS, name)]));
        let device = lower.issue(device);
        let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();
        assert_eq!(store.validate(&[&device.der, &lower.der, &upper.der], NOW), expected);
    };
    let forbidden = || broken(0, CertificateRule::NameConstraints(NameForm::Dns));
    check("org", "org", "org", "a.org", Ok(()));
    check("com", "org", "org", "a.org", forbidden());
    check("org", "com", "org", "a.org", forbidden());
    check("org", "org", "com", "a.org", forbidden());
    check("a.org", "org", "", "a.org", Ok(()));
}

#[test]
fn constraints_that_cannot_be_meant_are_refused() {
    let check = |value: Vec<u8>, fault: &'static str| {
        let mut params = ca("organisation");
        params.custom_extensions.push(extension(30, true, value));
        let verdict = Pki::with(ca("root"), params, leaf("device")).validate();
        assert_eq!(verdict, broken(1, CertificateRule::Malformed(fault)));
    };
    const EMPTY: &str = "its name constraints are empty";
    check(tlv::<Vec<u8>>(0x30, &[]), EMPTY);
    check(tlv(0x30, &[tlv::<Vec<u8>>(0xa0, &[])]), EMPTY);
    check(tlv(0x30, &[tlv::<Vec<u8>>(0xa0, &[]), tlv::<Vec<u8>>(0xa1, &[])]), EMPTY);
    let subtree = tlv(0x30, &[text(DNS, "a"), vec![0x80, 1, 1]]);
    check(
        tlv(0x30, &[tlv(0xa0, &[subtree])]),
        "its name constraints have a minimum or maximum, which are not supported",
    );
    let subtree = tlv(0x30, &[tlv(IP, &[[10, 0, 0, 0, 255, 0, 255, 0]])]);
    check(
        tlv(0x30, &[tlv(0xa0, &[subtree])]),
        "its name constraints have an IP address without a mask of leading bits",
    );
    // An email address in a subject counts, whether there are alternative names or not.
    let mut params = (ca("organisation"), leaf("device"));
    params.0.custom_extensions.push(constraints(&[text(EMAIL, "example.org")], &[]));
    params.1.distinguished_name.push(
        DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]),
        rcgen::DnValue::Ia5String("a@example.com".try_into().unwrap()),
    );
    params.1.custom_extensions.push(alternative_names(&[text(EMAIL, "a@example.org")]));
    let verdict = Pki::with(ca("root"), params.0, params.1).validate();
    assert_eq!(verdict, broken(0, CertificateRule::NameConstraints(NameForm::Email)));
}

#[test]
fn comparisons_with_constraints_have_a_limit() {
    let bases: Vec<Vec<u8>> = (0..100).map(|number| text(DNS, &format!("a{number}.example"))).collect();
    let names = |count: usize| vec![text(DNS, "x.a0.example"); count];
    check(&bases, &[], &names(40), Ok(()));
    check(&bases, &[], &names(41), Err(CertificateRule::TooManyComparisons));
    // Names of other forms cost next to nothing.
    let others = vec![text(URI, "urn:x"); 900];
    check(&bases, &[], &[names(30), others].concat(), Ok(()));
    let too_many = vec![text(DNS, "x.a0.example"); 1025];
    check(&bases, &[], &too_many, Err(CertificateRule::Malformed("it has too many names")));
}

#[test]
fn issuers_are_found_by_names_that_match() {
    let check = |subject: rcgen::DnValue, issuer: rcgen::DnValue, is_valid: bool| {
        let with = |name: &rcgen::DnValue| {
            let mut params = ca("");
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name.clone());
            params
        };
        let root = Entity::root(with(&subject));
        let mut organisation = root.issue(with(&subject));
        // The certificates below name their issuer in another way.
        organisation.params = with(&issuer);
        let device = organisation.issue(leaf("device"));
        let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();
        let verdict = store.validate(&[&device.der, &organisation.der], NOW);
        assert_eq!(verdict, if is_valid { Ok(()) } else { broken(0, CertificateRule::Order) });
    };
    let utf8 = |text: &str| rcgen::DnValue::Utf8String(text.to_owned());
    let printable = |text: &str| rcgen::DnValue::PrintableString(text.try_into().unwrap());
    let bmp = |text: &str| rcgen::DnValue::BmpString(text.try_into().unwrap());
    let universal = |text: &str| rcgen::DnValue::UniversalString(text.try_into().unwrap());
    let teletex = |text: &str| rcgen::DnValue::TeletexString(text.try_into().unwrap());
    check(utf8("Good CA"), printable("good  ca"), true);
    check(utf8("Good CA"), bmp(" GOOD CA "), true);
    check(universal("Züri"), utf8("ZU\u{308}RI"), true);
    check(utf8("Good CA"), utf8("Good CB"), false);
    // The characters of a TeletexString are anybody's guess.
    check(utf8("Good CA"), teletex("Good CA"), false);
    check(teletex("Good CA"), teletex("Good CA"), true);
}

#[test]
fn names_that_cost_much_to_compare_have_a_limit() {
    let check = |letters: usize, expected: fn(usize) -> Result<(), ChainError>| {
        let name = |is_upper: bool| {
            let mut params = ca("");
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(DnType::CommonName, if is_upper { "Ж" } else { "ж" }.repeat(letters));
            params
        };
        let root = Entity::root(ca("root"));
        let mut chain = vec![root.issue(name(true))];
        for _ in 0..5 {
            let mut issuer = chain.pop().unwrap();
            let is_upper = chain.len() % 2 == 0;
            let subject = name(is_upper);
            chain.push(Entity {
                der: issuer.der.clone(),
                pem: issuer.pem.clone(),
                params: issuer.params.clone(),
                key: issuer.key_again(),
            });
            // It is named in the other case by the certificate below it.
            issuer.params = name(!is_upper);
            let next = issuer.issue(subject);
            chain.push(next);
        }
        let device = chain.last().unwrap().issue(leaf("device"));
        let mut ders = vec![device.der.as_slice()];
        ders.extend(chain.iter().rev().map(|entity| entity.der.as_slice()));
        let store = TrustStore::new(root.pem.as_bytes(), &[]).unwrap();
        let verdict = store.validate(&ders, NOW);
        assert_eq!(verdict, expected(ders.len()), "{letters} letters");
    };
    check(60, |_| Ok(()));
    check(500, |_| broken(2, CertificateRule::Malformed("the names up to here are too long to be compared")));
}
