//! Revocation lists that are delta, indirect, for some reasons or some certificates only, or signed by others.

use super::{
    der::{List, entry, extension, name_of, tlv},
    *,
};
use crate::identity::{ListCounts, TrustMember, x509::crl::ListedAs};

/// A URI as the name of a distribution point, with its tag `[0]`.
fn point(uri: &str) -> Vec<u8> {
    tlv(0xa0, &[tlv(0xa0, &[tlv(0x86, &[uri.as_bytes()])])])
}

/// cRLDistributionPoints of these points, each of these fields.
fn points(points: &[Vec<Vec<u8>>]) -> CustomExtension {
    let points: Vec<Vec<u8>> = points.iter().map(|fields| tlv(0x30, fields)).collect();
    extension(31, false, tlv(0x30, &points))
}

const USERS: [u8; 3] = [0x81, 1, 0xff];
const CAS: [u8; 3] = [0x82, 1, 0xff];
const ATTRIBUTES: [u8; 3] = [0x85, 1, 0xff];
const INDIRECT: [u8; 3] = [0x84, 1, 0xff];
/// keyCompromise, and all others.
const COMPROMISE: [u8; 4] = [0x83, 2, 6, 0x40];
const OTHERS: [u8; 5] = [0x83, 3, 7, 0x3f, 0x80];

fn pki_with(device: Option<CustomExtension>) -> Pki {
    let mut params = leaf("device");
    params.custom_extensions.extend(device);
    Pki::with(ca("root"), ca("organisation"), params)
}

/// The verdict by the root's list and these of the organisation.
#[track_caller]
fn check(pki: &Pki, lists: &[List], expected: Result<(), CertificateRule>) {
    let mut signed = vec![List::default().sign(&pki.root)];
    signed.extend(lists.iter().map(|list| list.sign(&pki.organisation)));
    let verdict = pki.validate_by(&pki.store_with(&signed), NOW);
    assert_eq!(verdict, expected.map_err(|rule| ChainError::Certificate { index: 0, rule }));
    signed.reverse();
    assert_eq!(verdict, pki.validate_by(&pki.store_with(&signed), NOW), "in another order");
}

fn scope(fields: &[&[u8]]) -> List {
    List { scope: fields.iter().map(|field| field.to_vec()).collect(), ..List::default() }
}

#[test]
fn lists_cover_the_certificates_of_their_scope() {
    let unknown = || Err(CertificateRule::StatusUnknown);
    let pki = pki_with(None);
    check(&pki, &[scope(&[&USERS])], Ok(()));
    check(&pki, &[scope(&[&CAS])], unknown());
    check(&pki, &[scope(&[&ATTRIBUTES])], unknown());
    check(&pki, &[scope(&[&INDIRECT])], Ok(()));

    // As step-ca makes them: a URI and only user certificates. The leaf has to name the same point.
    let of_point = [&point("http://a")[..], &USERS];
    check(&pki, &[scope(&of_point)], unknown());
    let pki = pki_with(Some(points(&[vec![point("http://a")]])));
    check(&pki, &[scope(&of_point)], Ok(()));
    check(&pki, &[scope(&[&point("http://b"), &USERS])], unknown());
    check(&pki, &[List::default()], Ok(()));
    let revoked = List { revoked: vec![entry(&[DEVICE], None, None)], ..scope(&of_point) };
    check(&pki, &[revoked], Err(CertificateRule::Revoked));
    // One of several names, or points, is enough.
    let pki = pki_with(Some(points(&[vec![point("http://b")], vec![point("http://a")]])));
    check(&pki, &[scope(&of_point)], Ok(()));

    // A name below the issuer's.
    let set = tlv(0x31, &[tlv(0x30, &[tlv(6, &[[0x55, 4, 3]]), tlv(0x0c, &[b"part 1"])])]);
    let relative = tlv(0xa0, &[tlv(0xa1, &[&set[2..]])]);
    let pki = pki_with(Some(points(&[vec![relative.clone()]])));
    check(&pki, &[scope(&[&relative])], Ok(()));
    check(&pki, &[scope(&[&point("http://a")])], unknown());

    let pki = pki_with(Some(points(&[vec![]])));
    const NAMELESS: &str = "a distribution point has neither a name nor an issuer";
    check(&pki, &[List::default()], Err(CertificateRule::Malformed(NAMELESS)));
    let too_many = vec![vec![point("http://a")]; 65];
    let pki = pki_with(Some(points(&too_many)));
    check(&pki, &[List::default()], Err(CertificateRule::Malformed("it has too many distribution points")));
    // Without lists, nobody asks.
    assert_eq!(pki.validate(), Ok(()));
}

#[test]
fn lists_for_some_reasons_have_to_cover_all() {
    let pki = pki_with(None);
    let revoked = || vec![entry(&[DEVICE], Some(4), None)];
    check(&pki, &[scope(&[&COMPROMISE])], Err(CertificateRule::StatusUnknown));
    check(&pki, &[scope(&[&OTHERS])], Err(CertificateRule::StatusUnknown));
    check(&pki, &[scope(&[&COMPROMISE]), scope(&[&OTHERS])], Ok(()));
    let listed = List { revoked: revoked(), ..scope(&[&OTHERS]) };
    check(&pki, &[scope(&[&COMPROMISE]), listed], Err(CertificateRule::Revoked));
    let late = List { next_update: "251231000000Z", ..scope(&[&OTHERS]) };
    check(&pki, &[scope(&[&COMPROMISE]), late], Err(CertificateRule::StaleCrl));
}

#[test]
fn deltas_change_the_list_that_they_continue() {
    let pki = pki_with(None);
    let revoked = |reason| vec![entry(&[DEVICE], Some(reason), None)];
    let complete = |number, revoked| List { number, revoked, ..List::default() };
    let delta = |number, base, revoked| List { base: Some(base), ..complete(number, revoked) };
    const HOLD: u8 = 6;
    const REMOVED: u8 = 8;

    check(&pki, &[complete(5, vec![]), delta(6, 5, vec![])], Ok(()));
    check(&pki, &[complete(5, vec![]), delta(6, 5, revoked(1))], Err(CertificateRule::Revoked));
    check(&pki, &[complete(5, revoked(HOLD)), delta(6, 5, vec![])], Err(CertificateRule::Revoked));
    check(&pki, &[complete(5, revoked(HOLD)), delta(6, 5, revoked(REMOVED))], Ok(()));
    // The newest that fits counts.
    let lists =
        || vec![complete(5, revoked(HOLD)), delta(6, 5, revoked(REMOVED)), delta(7, 4, revoked(HOLD))];
    check(&pki, &lists(), Err(CertificateRule::Revoked));
    // It is for an older or a newer list, or of another scope, or not newer.
    for other in [
        delta(7, 6, revoked(REMOVED)),
        delta(5, 4, revoked(REMOVED)),
        List { scope: vec![USERS.to_vec()], ..delta(6, 5, revoked(REMOVED)) },
    ] {
        check(&pki, &[complete(5, revoked(HOLD)), other], Err(CertificateRule::Revoked));
    }
    // Both have to be current: what a late delta revoked is not valid again.
    for listed in [vec![], revoked(1), revoked(REMOVED)] {
        let late = List { next_update: "251231000000Z", ..delta(6, 5, listed) };
        check(&pki, &[complete(5, vec![]), late], Err(CertificateRule::StaleCrl));
    }
    // A delta alone covers nothing.
    check(&pki, &[delta(6, 5, vec![])], Err(CertificateRule::StatusUnknown));
    // Nor does one by another key change anything.
    let lists = [
        List::default().sign(&pki.root),
        complete(5, revoked(HOLD)).sign(&pki.organisation),
        delta(6, 5, revoked(REMOVED)).sign(&Entity::root(ca("organisation"))),
    ];
    assert_eq!(pki.validate_by(&pki.store_with(&lists), NOW), broken(0, CertificateRule::Revoked));
}

#[test]
fn the_newest_list_counts_even_if_it_is_late() {
    let pki = pki_with(None);
    let older = List { this_update: "250601000000Z", next_update: "290101000000Z", ..List::default() };
    let newer = List { this_update: "251201000000Z", next_update: "251231000000Z", ..List::default() };
    check(&pki, &[older, newer], Err(CertificateRule::StaleCrl));
}

/// A signer of lists for others, below the root, whose list names the device's issuer.
struct Indirect {
    pki: Pki,
    signer: Entity,
}

impl Indirect {
    fn new(signer: CertificateParams) -> Self {
        let root = Entity::root(ca("root"));
        let signer = root.issue(signer);
        let issuer = tlv(0xa2, &[tlv(0xa4, &[name_of(&signer)])]);
        let with = |mut params: CertificateParams, serial: u8| {
            params.custom_extensions.push(points(&[vec![issuer.clone()]]));
            params.serial_number = Some(vec![serial].into());
            params
        };
        let organisation = root.issue(ca("organisation"));
        let device = organisation.issue(with(leaf("device"), DEVICE));
        Self { pki: Pki { root, organisation, device }, signer }
    }

    /// The verdict by the root's list and one of the signer, whose certificate is known.
    #[track_caller]
    fn check(&self, list: &List, expected: Result<(), CertificateRule>) {
        self.check_with(&[list.sign(&self.signer)], Some(&self.signer.pem), expected);
    }

    #[track_caller]
    fn check_with(&self, lists: &[Vec<u8>], issuers: Option<&str>, expected: Result<(), CertificateRule>) {
        let lists = [vec![List::default().sign(&self.pki.root)], lists.to_vec()].concat();
        let mut store = self.pki.store_with(&lists);
        if let Some(issuers) = issuers {
            store = store.with_crl_issuers(issuers.as_bytes()).unwrap();
        }
        let verdict = self.pki.validate_by(&store, NOW);
        assert_eq!(verdict, expected.map_err(|rule| ChainError::Certificate { index: 0, rule }));
    }
}

fn signer() -> CertificateParams {
    let mut params = params("signer");
    params.serial_number = Some(vec![40].into());
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    params
}

#[test]
fn lists_of_other_signers_cover_certificates_that_name_them() {
    let world = Indirect::new(signer());
    let organisation = name_of(&world.pki.organisation);
    let indirect = || scope(&[&INDIRECT]);
    let listing = |revoked| List { revoked, ..indirect() };
    world.check(&indirect(), Ok(()));
    world.check(&List::default(), Err(CertificateRule::StatusUnknown));
    world.check(&listing(vec![entry(&[DEVICE], None, Some(&organisation))]), Err(CertificateRule::Revoked));
    // An entry without an issuer has that of the one before, and the first that of the list.
    let after = vec![entry(&[1], None, Some(&organisation)), entry(&[DEVICE], None, None)];
    world.check(&listing(after), Err(CertificateRule::Revoked));
    world.check(&listing(vec![entry(&[DEVICE], None, None)]), Ok(()));

    // The signer has to be known, allowed, valid, below the same root and not revoked.
    let list = [indirect().sign(&world.signer)];
    world.check_with(&list, None, Err(CertificateRule::CrlSignature));
    let foreign = Entity::root(ca("other root")).issue(signer());
    world.check_with(&[indirect().sign(&foreign)], Some(&foreign.pem), Err(CertificateRule::CrlSignature));
    let mut silent = signer();
    silent.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Indirect::new(silent).check(&indirect(), Err(CertificateRule::CrlSignature));
    let mut expired = signer();
    expired.not_after = date_time_ymd(2025, 12, 31);
    Indirect::new(expired).check(&indirect(), Err(CertificateRule::CrlSignature));
    let revoking = List { number: 2, revoked: vec![entry(&[40], None, None)], ..List::default() };
    let lists = [List { this_update: "260102000000Z", ..revoking }.sign(&world.pki.root), list[0].clone()];
    world.check_with(&lists, Some(&world.signer.pem), Err(CertificateRule::CrlSignature));
}

#[test]
fn signers_of_lists_may_have_issuers_of_their_own() {
    let mut world = Indirect::new(signer());
    let between = world.pki.root.issue(ca("between"));
    world.signer = between.issue(signer());
    let lists = [scope(&[&INDIRECT]).sign(&world.signer), List::default().sign(&between)];
    let both = format!("{}{}", world.signer.pem, between.pem);
    world.check_with(&lists, Some(&both), Ok(()));
    world.check_with(&lists, Some(&world.signer.pem), Err(CertificateRule::CrlSignature));
    world.check_with(&lists[..1], Some(&both), Err(CertificateRule::CrlSignature));

    // A list cannot vouch for the certificate of its own signer.
    let circle = [List { scope: vec![INDIRECT.to_vec()], ..List::default() }.sign(&world.signer)];
    let mut params = signer();
    let issuer = tlv(0xa2, &[tlv(0xa4, &[name_of(&world.signer)])]);
    params.custom_extensions.push(points(&[vec![issuer]]));
    let own = between.issue_with(params, world.signer.key_again());
    world.check_with(
        &circle,
        Some(&format!("{}{}", own.pem, between.pem)),
        Err(CertificateRule::CrlSignature),
    );
}

#[test]
fn the_search_for_signers_has_a_limit() {
    let pki = pki_with(None);
    // Lists of that name and no key identifier, by keys that nobody knows.
    let list = |number| List { number, this_update: "260102000000Z", ..List::default() };
    let forged = |count: u8| {
        let mut lists = vec![List::default().sign(&pki.root), List::default().sign(&pki.organisation)];
        lists.extend((0..count).map(|number| list(number).sign(&Entity::root(ca("organisation")))));
        pki.validate_by(&pki.store_with(&lists), NOW)
    };
    assert_eq!(forged(62), Ok(()));
    assert_eq!(forged(64), broken(0, CertificateRule::TooManyLists));
}

#[test]
fn lists_that_cannot_be_read_are_refused() {
    let pki = pki_with(None);
    let check = |list: &List, fault: &str| {
        let error =
            TrustStore::new(pki.root.pem.as_bytes(), &[list.sign(&pki.root)]).unwrap_err().to_string();
        assert_eq!(error, format!("revocation list 1 cannot be used: {fault}"));
    };
    let organisation = name_of(&pki.organisation);
    check(
        &List { revoked: vec![entry(&[1], None, Some(&organisation))], ..List::default() },
        "an entry names an issuer, and the list is not indirect",
    );
    check(
        &scope(&[&USERS, &CAS]),
        "it is only for users, only for CAs, or only for attributes, but not several of these",
    );
    check(&List { revoked: vec![entry(&[0, 1], None, None)], ..List::default() }, "an INTEGER is not DER");
    check(
        &List { next_update: "2026", ..List::default() },
        "a time has another form than RFC 5280 §4.1.2.5 requires",
    );
    check(&scope(&[&[0x86, 0]]), "there are bytes after its end");
}

#[test]
fn entries_are_found_among_many() {
    let pki = pki_with(None);
    let serial = |number: u32| {
        let bytes = number.to_be_bytes();
        [&[1][..], &bytes].concat()
    };
    // In an order of no use.
    let revoked: Vec<Vec<u8>> =
        (0..5_000u32).map(|n| entry(&serial(n * 7919 % 10_007), None, None)).collect();
    let list = Crl::new(&List { revoked, ..List::default() }.sign(&pki.root), 0).unwrap();
    let listed: std::collections::BTreeSet<u32> = (0..5_000).map(|n| n * 7919 % 10_007).collect();
    for number in 0..10_007 {
        let found = list.lists(&list.issuer, &serial(number));
        let expected = if listed.contains(&number) { ListedAs::Revoked } else { ListedAs::Absent };
        assert_eq!(found, expected, "{number}");
    }
}

#[test]
fn what_does_not_work_is_warned_of() {
    let mut old = ca("old root");
    old.not_after = date_time_ymd(2026, 1, 20);
    let (root, other, old) = (Entity::root(ca("root")), Entity::root(ca("root")), Entity::root(old));
    let again = Entity::root_with(ca("root"), root.key_again());
    let organisation = root.issue(ca("organisation"));
    let roots = [&root, &old, &again].map(|root| root.pem.as_str()).concat();
    let term = |this_update, next_update| List { this_update, next_update, ..List::default() };
    let lists = [
        List::default().sign(&root),
        term("251001000000Z", "251231000000Z").sign(&root),
        term("251001000000Z", "260102000000Z").sign(&organisation),
        List::default().sign(&other),
        List { number: 9, base: Some(7), ..List::default() }.sign(&root),
    ];
    let mut signer = signer();
    signer.not_after = date_time_ymd(2025, 12, 31);
    let issuers = root.issue(signer).pem;
    let store = TrustStore::new(roots.as_bytes(), &lists).unwrap();
    let store = store.with_crl_issuers(issuers.as_bytes()).unwrap();
    let warnings = |at| store.warnings(at).into_iter().map(|warning| (warning.member, warning.text));
    let expected = [
        (TrustMember::Root(1), "it expires within 30 days"),
        (TrustMember::Root(2), "it has the name and the key of root 1"),
        (TrustMember::CrlIssuer(0), "outside of its validity"),
        (TrustMember::Crl(1), "it is past its next update"),
        (TrustMember::Crl(2), "its next update is due in 86400 s"),
        (TrustMember::Crl(3), "none of the trust roots and CRL issuers with its issuer's name signed it"),
        (TrustMember::Crl(4), "it is a delta CRL, and continues none"),
    ];
    let found: Vec<_> = warnings(NOW).collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((member, text), (expected, part)) in found.iter().zip(expected) {
        assert!(
            *member == expected && text.contains(part),
            "{member:?}: {text}, expected {expected:?}: {part}"
        );
    }
    let late = Timestamp(NOW.0 + YEAR_MS);
    assert!(
        warnings(late).any(|found| found.0 == TrustMember::Root(1) && found.1.contains("it has expired"))
    );
    let early = Timestamp(0);
    assert!(
        warnings(early).any(|found| found.0 == TrustMember::Root(0) && found.1.contains("not valid yet"))
    );

    let counts = ListCounts { current: 3, due: 1, late: 1, without_signer: 2 };
    assert_eq!(store.list_counts(NOW), counts);
    // An issuer becomes known with a chain below it.
    let lists = [List::default().sign(&root), List::default().sign(&organisation)];
    let store = TrustStore::new(root.pem.as_bytes(), &lists).unwrap();
    assert_eq!(store.list_counts(NOW).without_signer, 1);
    assert_eq!(store.warnings(NOW), []);
    let device = organisation.issue(leaf("device"));
    assert_eq!(store.validate(&[&device.der, &organisation.der], NOW), Ok(()));
    assert_eq!(store.list_counts(NOW).without_signer, 0);
}

/// An issuer with a new key, certified with the old one, has a list for each key.
#[test]
fn the_list_by_the_key_that_signed_a_certificate_counts() {
    let root = Entity::root(ca("root"));
    let old = root.issue(ca("organisation"));
    let new = old.issue(ca("organisation"));
    let mut params = leaf("device");
    params.serial_number = Some(vec![DEVICE].into());
    let device = new.issue(params);
    let newer = List { this_update: "260102000000Z", ..List::default() };
    let revoking = || List { revoked: vec![entry(&[DEVICE], None, None)], ..List::default() };
    let verdict = |lists: [Vec<u8>; 2]| {
        let lists = [&[List::default().sign(&root)][..], &lists].concat();
        let store = TrustStore::new(root.pem.as_bytes(), &lists).unwrap();
        store.validate(&[&device.der, &new.der, &old.der], NOW)
    };
    assert_eq!(verdict([newer.sign(&old), revoking().sign(&new)]), broken(0, CertificateRule::Revoked));
    assert_eq!(verdict([newer.sign(&new), revoking().sign(&old)]), Ok(()));
    // Without one by the new key, that by the old one is the issuer's list.
    assert_eq!(
        verdict([revoking().sign(&old), List::default().sign(&root)]),
        broken(0, CertificateRule::Revoked)
    );
    assert_eq!(verdict([newer.sign(&old), List::default().sign(&root)]), Ok(()));
}

/// Whether the device counts as revoked by the root's list and these of the organisation, when it is a member already.
#[track_caller]
fn member_is_revoked(pki: &Pki, lists: &[List], expected: bool) {
    let mut signed = vec![List::default().sign(&pki.root)];
    signed.extend(lists.iter().map(|list| list.sign(&pki.organisation)));
    assert_eq!(pki.store_with(&signed).revokes(&pki.chain(), NOW), expected);
}

impl Pki {
    fn chain(&self) -> [&[u8]; 2] {
        [&self.device.der, &self.organisation.der]
    }
}

#[test]
fn members_are_revoked_if_a_list_that_covers_them_has_them() {
    let pki = pki_with(None);
    let revoked = |reason| vec![entry(&[DEVICE], Some(reason), None)];
    let complete = |revoked| List { number: 5, revoked, ..List::default() };
    let delta = |revoked| List { number: 6, base: Some(5), revoked, ..List::default() };
    const LATE: &str = "251231000000Z";
    let late = |list: List| List { this_update: "250601000000Z", next_update: LATE, ..list };

    member_is_revoked(&pki, &[complete(vec![])], false);
    member_is_revoked(&pki, &[complete(vec![entry(&[DEVICE + 1], None, None)])], false);
    member_is_revoked(&pki, &[complete(revoked(1))], true);
    member_is_revoked(&pki, &[complete(vec![]), delta(revoked(1))], true);
    // A list of other certificates, or for no more than some reasons.
    member_is_revoked(&pki, &[List { scope: vec![CAS.to_vec()], ..complete(revoked(1)) }], false);
    member_is_revoked(&pki, &[List { scope: vec![COMPROMISE.to_vec()], ..complete(revoked(1)) }], true);
    // On hold, and no longer.
    member_is_revoked(&pki, &[complete(revoked(6))], true);
    member_is_revoked(&pki, &[complete(revoked(6)), delta(revoked(8))], false);
    let newer = List { number: 6, this_update: "260102000000Z", ..List::default() };
    member_is_revoked(&pki, &[complete(revoked(6)), newer], false);
    // Nobody is valid again because a list is late, and nobody is revoked because there is no current one.
    member_is_revoked(&pki, &[late(complete(revoked(1)))], true);
    member_is_revoked(&pki, &[late(complete(revoked(6))), late(delta(revoked(8)))], false);
    member_is_revoked(&pki, &[late(complete(vec![]))], false);
    member_is_revoked(&pki, &[], false);

    // The list of an issuer of the same name says nothing.
    let namesake = pki.root.issue(ca("organisation"));
    let foreign = [List::default().sign(&pki.root), complete(revoked(1)).sign(&namesake)];
    assert!(!pki.store_with(&foreign).revokes(&pki.chain(), NOW));
    // All below a revoked issuer is revoked. Who has expired is not.
    let of_root = List { revoked: vec![entry(&[ORGANISATION], None, None)], ..List::default() };
    let store = pki.store_with(&[of_root.sign(&pki.root)]);
    assert!(store.revokes(&pki.chain(), NOW));
    assert!(!store.revokes(&pki.chain(), Timestamp(NOW.0 + 2 * YEAR_MS)));
    assert!(!store.revokes(&[b"no certificate"], NOW) && !store.revokes(&[], NOW));
}

#[test]
fn indirect_lists_revoke_members() {
    let world = Indirect::new(signer());
    let organisation = name_of(&world.pki.organisation);
    for (issuer, expected) in [(Some(&*organisation), true), (None, false)] {
        let list = List { revoked: vec![entry(&[DEVICE], None, issuer)], ..scope(&[&INDIRECT]) };
        let lists = [List::default().sign(&world.pki.root), list.sign(&world.signer)];
        let store = world.pki.store_with(&lists).with_crl_issuers(world.signer.pem.as_bytes()).unwrap();
        assert_eq!(store.revokes(&world.pki.chain(), NOW), expected);
    }
}

#[test]
fn no_signature_is_verified_for_members_that_no_list_has() {
    let pki = pki_with(None);
    let other = List { revoked: vec![entry(&[DEVICE + 1], None, None)], ..List::default() };
    let store = pki.store_with(&[List::default().sign(&pki.root), other.sign(&pki.organisation)]);
    assert!(!store.revokes(&pki.chain(), NOW));
    assert!(store.crls.iter().all(|list| list.verified() == 0));
    // A namesake of one that is listed costs them.
    let own = List { revoked: vec![entry(&[DEVICE], None, None)], ..List::default() };
    let store = pki.store_with(&[List::default().sign(&pki.root), own.sign(&pki.organisation)]);
    assert!(store.revokes(&pki.chain(), NOW));
    assert!(store.crls.iter().any(|list| list.verified() > 0));
}

/// What was revoked by others than the issuer stays revoked when their certificates end.
#[test]
fn lists_of_signers_that_have_expired_since_revoke_members() {
    let mut expired = signer();
    expired.not_after = date_time_ymd(2025, 12, 31);
    let world = Indirect::new(expired);
    let organisation = name_of(&world.pki.organisation);
    let revoked = || vec![entry(&[DEVICE], None, Some(&organisation))];
    let list =
        |this_update, next_update, revoked| List { this_update, next_update, revoked, ..scope(&[&INDIRECT]) };
    let check = |lists: &[Vec<u8>], refusal, expected| {
        let lists = [&[List::default().sign(&world.pki.root)][..], lists].concat();
        let store = world.pki.store_with(&lists).with_crl_issuers(world.signer.pem.as_bytes()).unwrap();
        assert_eq!(world.pki.validate_by(&store, NOW), refusal);
        assert_eq!(store.revokes(&world.pki.chain(), NOW), expected);
    };
    let unsigned = || broken(0, CertificateRule::CrlSignature);
    const LATE: &str = "251230000000Z";
    check(&[list("250601000000Z", LATE, revoked()).sign(&world.signer)], unsigned(), true);
    check(&[list("250601000000Z", "270101000000Z", revoked()).sign(&world.signer)], unsigned(), true);
    check(&[list("250601000000Z", LATE, vec![]).sign(&world.signer)], unsigned(), false);
    // It had expired already, or was not valid yet, when it signed the list.
    check(&[list("260101000000Z", "270101000000Z", revoked()).sign(&world.signer)], unsigned(), false);
    check(&[list("241231000000Z", LATE, revoked()).sign(&world.signer)], unsigned(), false);
    // A current list that covers the certificate settles it.
    let own = List { this_update: "250101000000Z", ..List::default() }.sign(&world.pki.organisation);
    let late = list("250601000000Z", LATE, revoked()).sign(&world.signer);
    check(&[late.clone(), own], Ok(()), false);
    // As for chains that come in, a list by the issuer's own key comes before those of others, late or not.
    let own = List { this_update: "250101000000Z", next_update: LATE, ..List::default() };
    check(&[late, own.sign(&world.pki.organisation)], broken(0, CertificateRule::StaleCrl), false);
}

/// Lists of the organisation's name, newer than those of its own, by keys that nobody knows.
fn forged_lists(count: usize) -> Vec<Vec<u8>> {
    let list = List { this_update: "260102000000Z", ..List::default() };
    (0..count).map(|_| list.sign(&Entity::root(ca("organisation")))).collect()
}

#[test]
fn members_whose_lists_cannot_all_be_tried_are_revoked_if_a_list_has_them() {
    let pki = pki_with(None);
    let of_root = |revoked| List { revoked, ..List::default() }.sign(&pki.root);
    let own = |revoked| List { revoked, ..List::default() }.sign(&pki.organisation);
    let is_revoked = |lists: [Vec<u8>; 2]| {
        let store = pki.store_with(&[&forged_lists(64)[..], &lists].concat());
        assert_eq!(store.validate(&pki.chain(), NOW), broken(0, CertificateRule::TooManyLists));
        store.revokes(&pki.chain(), NOW)
    };
    let entry = |serial| vec![entry(&[serial], None, None)];
    assert!(!is_revoked([of_root(vec![]), own(vec![])]));
    assert!(!is_revoked([of_root(vec![]), own(entry(DEVICE + 1))]));
    // Those for the device do not use up those for its issuer.
    assert!(is_revoked([of_root(entry(ORGANISATION)), own(vec![])]));
    assert!(is_revoked([of_root(vec![]), own(entry(DEVICE))]));
}

#[test]
fn members_whose_distribution_points_cannot_be_read_are_revoked_if_a_list_has_them() {
    let pki = pki_with(Some(points(&vec![vec![point("http://a")]; 65])));
    // Without lists they could come in.
    assert_eq!(pki.validate(), Ok(()));
    member_is_revoked(&pki, &[List::default()], false);
    member_is_revoked(&pki, &[List { revoked: vec![entry(&[DEVICE], None, None)], ..List::default() }], true);
}

/// What a hub accepted, a follower takes, whatever its lists say of revocation, and nothing else that breaks a rule. A hub without lists
/// does not read distribution points.
#[test]
fn revocation_is_left_to_the_hub_and_nothing_else() {
    let pki = pki_with(None);
    let revoked = List { revoked: vec![entry(&[DEVICE], None, None)], ..List::default() };
    let late = List { next_update: "251231000000Z", this_update: "250601000000Z", ..List::default() };
    for list in [revoked, late, List { scope: vec![CAS.to_vec()], ..List::default() }] {
        is_left_to_the_hub(&pki, &[list.sign(&pki.organisation)]);
    }
    is_left_to_the_hub(&pki, &[&forged_lists(64)[..], &[List::default().sign(&pki.organisation)]].concat());
    for unreadable in [
        points(&vec![vec![point("http://a")]; 65]),
        points(&[vec![]]),
        extension(31, false, Vec::new()),
        extension(31, false, b"no points".to_vec()),
    ] {
        let pki = pki_with(Some(unreadable));
        assert_eq!(pki.validate(), Ok(()), "without lists");
        is_left_to_the_hub(&pki, &[List::default().sign(&pki.organisation)]);
    }
}

/// Checks that these lists refuse the device, and a follower takes it all the same while it is valid.
#[track_caller]
fn is_left_to_the_hub(pki: &Pki, lists: &[Vec<u8>]) {
    let store = pki.store_with(&[&[List::default().sign(&pki.root)], lists].concat());
    let refusal = store.validate(&pki.chain(), NOW).unwrap_err();
    let left = |at| store.validate_naming(&pki.chain(), at, 0);
    assert_eq!(left(NOW), Ok(Standing::Disputed(refusal)));
    let expired = CertificateRule::Expired;
    assert_eq!(
        left(Timestamp(NOW.0 + 2 * YEAR_MS)),
        Err(ChainError::Certificate { index: 0, rule: expired })
    );
}
