//! Key packages and leaves that fit no group, wherever they come from.

use std::collections::BTreeSet;

use openmls::prelude::{MlsMessageBodyIn, MlsMessageIn, ProtocolVersion, tls_codec::DeserializeBytes as _};
use snapshots::KeyPackageRef;

use super::{forged::Forged, *};
use crate::mls::{KeyPackageChecks, KeyPackageValidator, LeafChecks, check_fit, leaf};

/// A package of now, changed, and what the refusal says of it; `None` if it is accepted.
type Case = (&'static str, fn(&mut Forged), Option<&'static str>);

const PRIVATE_USE: u16 = 0xf0a1;
const GREASE: u16 = 0x8a8a;

fn private_use() -> (u16, Vec<u8>) {
    (PRIVATE_USE, vec![1])
}

const UNFIT: &[Case] = &[
    ("as it should be", |_| {}, None),
    ("version", |it| it.versions = vec![2], Some("protocol version (1)")),
    ("suite", |it| it.suites = vec![2, 3], Some("cipher suite (1)")),
    ("credential", |it| it.credential_types = vec![2], Some("credential type (1)")),
    ("leaf extension", |it| it.leaf_extensions = vec![private_use()], Some("0xf0a1")),
    (
        "leaf extension that is listed",
        |it| (it.leaf_extensions, it.supported_extensions) = (vec![private_use()], vec![7, PRIVATE_USE]),
        None,
    ),
    ("package extension", |it| it.extensions = vec![private_use()], Some("0xf0a1")),
    (
        "package extension that is listed",
        |it| (it.extensions, it.supported_extensions) = (vec![private_use()], vec![PRIVATE_USE]),
        None,
    ),
    ("default extension", |it| it.leaf_extensions = vec![(1, vec![1, 7])], None),
    (
        "extension of a group",
        |it| it.leaf_extensions = vec![(3, vec![0, 0, 0])],
        Some("does not belong here"),
    ),
    (
        "GREASE in the leaf that is listed",
        |it| (it.leaf_extensions, it.supported_extensions) = (vec![(GREASE, vec![9])], vec![GREASE]),
        None,
    ),
    ("GREASE in lists", |it| (it.suites, it.versions) = (vec![GREASE, 1], vec![GREASE, 1]), None),
    (
        "two leaf extensions of a type",
        |it| {
            (it.leaf_extensions, it.supported_extensions) =
                (vec![private_use(), private_use()], vec![PRIVATE_USE]);
        },
        Some("is of a type that is in the list before"),
    ),
    (
        "two package extensions of a type",
        |it| {
            (it.extensions, it.supported_extensions) =
                (vec![private_use(), private_use()], vec![PRIVATE_USE]);
        },
        Some("is of a type that is in the list before"),
    ),
    ("the same key twice", |it| it.init_key = it.encryption_key.clone(), Some("encryption_key of its leaf")),
    (
        "init_key of low order",
        |it| it.init_key = vec![0; 32],
        Some("init_key is an X25519 point of low order"),
    ),
    (
        "encryption_key of low order",
        |it| it.encryption_key = vec![0; 32],
        Some("encryption_key is an X25519"),
    ),
    ("short init_key", |it| it.init_key.truncate(31), Some("init_key is not an X25519 key")),
    ("long encryption_key", |it| it.encryption_key.push(0), Some("encryption_key is not an X25519 key")),
    ("empty keys", |it| (it.init_key, it.encryption_key) = (vec![], vec![]), Some("encryption_key")),
    ("lifetime backwards", |it| it.not_before_s = it.not_after_s + 1, Some("not_before is later")),
    ("for ever", |it| (it.not_before_s, it.not_after_s) = (0, u64::MAX), None),
];

fn now_s() -> u64 {
    Clock::system().now().0 / 1000
}

fn checks(lifetime_s_max: u64) -> KeyPackageChecks<'static> {
    KeyPackageChecks {
        leaf: LeafChecks {
            cipher_suite: crate::mls::CipherSuite::from_number(1).unwrap(),
            lifetime_s_max: Some(lifetime_s_max).filter(|max| *max > 0),
        },
        handle: None,
        domain: None,
        now: Timestamp(now_s() * 1000),
        clock_skew_s_max: 300,
    }
}

fn check(checks: KeyPackageChecks<'_>, message: &[u8]) -> Result<KeyPackageRef, String> {
    let validator = Validator::new();
    let mut packages = KeyPackageValidator::new(checks, &*validator.application.identity);
    packages.check(message).map(|checked| checked.reference)
}

fn assert_says<T: std::fmt::Debug>(case: &str, result: Result<T, String>, expected: Option<&str>) {
    match (result, expected) {
        (Ok(_), None) => {}
        (Err(detail), Some(part)) if detail.contains(part) => {}
        (result, expected) => panic!("{case}: {result:?}, expected {expected:?}"),
    }
}

#[test]
fn a_package_that_no_commit_could_use_is_refused_at_upload_and_not_kept() {
    for (case, change, expected) in UNFIT {
        let mut forged = Forged::good("alice", now_s() - 60);
        change(&mut forged);
        let message = forged.message();
        assert_says(case, check(checks(0), &message), *expected);
        assert_eq!(check_fit(checks(0).leaf, &message).is_ok(), expected.is_none(), "{case}: stored before");
    }
}

#[test]
fn an_add_of_such_a_package_is_refused_as_a_proposal_and_in_a_commit() {
    let mut validated = BTreeSet::new();
    for (case, change, expected) in UNFIT {
        let mut forged = Forged::good("bob", now_s() - 60);
        change(&mut forged);
        // What the client will not make, no client of its kind can send.
        let Ok(package) = MlsMessage::from_bytes(&forged.message()) else { continue };
        let mut story = Story::begin();
        let proposed = story.members[0].propose_add(package.clone(), vec![]);
        let Ok(proposal) = proposed.and_then(|proposal| proposal.to_bytes()) else { continue };
        validated.insert(*case);
        story.members[0].clear_proposal_cache();
        let Observer { live, validator, now, .. } = &story.observer;
        let staged = live.stage_proposal(validator.context(), &proposal, *now);
        assert_eq!(staged.is_ok(), expected.is_none(), "{case}: {:?}", staged.err());
        let builder = story.members[0].commit_builder().add_member(package);
        let Ok(output) = builder.and_then(|builder| builder.build()) else { continue };
        let (commit, welcome) = (
            output.commit_message.to_bytes().unwrap(),
            output.welcome_messages.first().unwrap().to_bytes().unwrap(),
        );
        let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };
        let staged = live.stage_commit(validator.context(), &input.into(), *now);
        assert_eq!(staged.is_ok(), expected.is_none(), "{case}: {:?}", staged.err());
    }
    for case in ["as it should be", "encryption_key of low order", "init_key of low order", "for ever"] {
        assert!(validated.contains(case), "{case} was not proposed");
    }
}

/// The key that freezes a group: a commit can take the leaf in, and none after it can encrypt to it.
#[test]
fn a_leaf_that_nobody_can_encrypt_to_stays_out_of_a_group() {
    let mut forged = Forged::good("bob", now_s() - 60);
    forged.encryption_key = vec![0; 32];
    let package = MlsMessage::from_bytes(&forged.message()).unwrap();
    let mut story = Story::begin();
    let output = story.members[0].commit_builder().add_member(package).unwrap().build().unwrap();
    let commit = output.commit_message.to_bytes().unwrap();
    let welcome = output.welcome_messages.first().unwrap().to_bytes().unwrap();
    let Observer { live, validator, now, .. } = &story.observer;
    let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };
    let refusal = live.stage_commit(validator.context(), &input.into(), *now).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Broken { rule: Rule::LeafNode, detail, .. } if detail.contains("low order")),
        "{refusal:?}"
    );
    // A replica follows a hub that did not ask for that, and is handed the group with it.
    let source = Source::Hub;
    let context = ValidationContext { source: &source, ..validator.context() };
    live.stage_commit(context, &input.into(), *now).unwrap();
    story.members[0].apply_pending_commit().unwrap();
    let group = &story.members[0];
    let info = group.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap();
    let tree = group.export_tree().to_bytes().unwrap();
    TrackedGroup::open(context, &info, Some(&tree), *now).unwrap();
    assert!(TrackedGroup::open(validator.context(), &info, Some(&tree), *now).is_err());
}

#[test]
fn the_keys_of_an_update_path_are_keys_of_the_suite() {
    let leaf = checks(0).leaf;
    let good = Forged::good("alice", 0).init_key;
    assert!(leaf.check_path_keys(&[&good, &good]).is_ok());
    for bad in [vec![0; 32], vec![1; 31], vec![]] {
        assert_eq!(leaf.check_path_keys(&[&good, &bad]).unwrap_err().rule, Rule::Path);
    }
}

#[test]
fn a_total_lifetime_is_bounded_wherever_a_leaf_has_one() {
    let package = |lifetime_s: u64| {
        let mut forged = Forged::good("bob", now_s() - 60);
        forged.not_after_s = forged.not_before_s.saturating_add(lifetime_s);
        forged.message()
    };
    for (max, lifetime_s, is_accepted) in
        [(3600, 3600, true), (3600, 3601, false), (0, 3601, true), (0, u64::MAX - now_s() + 60, true)]
    {
        let message = package(lifetime_s);
        assert_eq!(check(checks(max), &message).is_ok(), is_accepted, "upload: {max} {lifetime_s}");

        let mut story = Story::begin();
        story.observer.validator.limits.key_package_lifetime_s_max = max;
        let package = MlsMessage::from_bytes(&message).unwrap();
        let proposal = story.members[0].propose_add(package.clone(), vec![]).unwrap().to_bytes().unwrap();
        story.members[0].clear_proposal_cache();
        let output = story.members[0].commit_builder().add_member(package).unwrap().build().unwrap();
        let commit = output.commit_message.to_bytes().unwrap();
        let welcome = output.welcome_messages.first().unwrap().to_bytes().unwrap();
        let Observer { live, validator, now, .. } = &story.observer;
        for (source, is_accepted) in [(Source::Application, is_accepted), (Source::Hub, true)] {
            let context = ValidationContext { source: &source, ..validator.context() };
            let expected = (!is_accepted).then_some(Rule::Lifetime);
            assert_eq!(live.stage_proposal(context, &proposal, *now).err().map(rule), expected, "{source:?}");
            let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };
            assert_eq!(
                live.stage_commit(context, &input.into(), *now).err().map(rule),
                expected,
                "{source:?}"
            );
        }
    }

    // The creator's leaf: mls-rs gives it a year.
    let creator = client("alice").create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let info = creator.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap();
    let tree = creator.export_tree().to_bytes().unwrap();
    let mut validator = Validator::new();
    for (max, is_accepted) in [(0, true), (400 * 86_400, true), (300 * 86_400, false)] {
        validator.limits.key_package_lifetime_s_max = max;
        let opened = TrackedGroup::open(validator.context(), &info, Some(&tree), Clock::system().now());
        assert_eq!(opened.is_ok(), is_accepted, "{max}: {:?}", opened.err());
    }
}

/// A lifetime that begins in a moment is accepted with every other check made.
#[test]
fn a_lifetime_may_begin_within_the_clock_skew() {
    for (begins_in_s, expected) in [
        (0, None),
        (1, None),
        (299, None),
        (300, None),
        (301, Some("300 seconds")),
        (86_400, Some("not valid yet")),
    ] {
        let forged = Forged::good("alice", checks(0).now.0 / 1000 + begins_in_s);
        let message = forged.message();
        let checks = checks(0);
        if begins_in_s != 301 || checks.now.0 / 1000 + 301 == forged.not_before_s {
            assert_says("skew", check(checks, &message), expected);
        }
        for at in [message.len() - 1, message.len() / 2] {
            let mut broken = message.clone();
            broken[at] ^= 1;
            assert!(check(checks, &broken).is_err(), "a signature does not fit");
        }
    }
    let mut expired = Forged::good("alice", now_s() - 7200);
    expired.not_after_s = now_s() - 1;
    assert_says("expired", check(checks(0), &expired.message()), Some("expired"));
}

#[test]
fn the_reference_is_the_librarys() {
    let message = Forged::good("alice", now_s() - 60).message();
    let MlsMessageBodyIn::KeyPackage(package) =
        MlsMessageIn::tls_deserialize_exact_bytes(&message).unwrap().extract()
    else {
        panic!("not a key package");
    };
    let crypto = openmls_rust_crypto::RustCrypto::default();
    let reference = package.validate(&crypto, ProtocolVersion::Mls10).unwrap().hash_ref(&crypto).unwrap();
    assert_eq!(check(checks(0), &message).unwrap().as_bytes(), reference.as_slice());
}

#[test]
fn a_last_resort_package_is_marked_by_the_extension_or_by_the_component() {
    // Components 3, with data, and 4, without.
    let (last_resort, other) = (vec![0, 4, 0], vec![0, 3, 1, 7]);
    let dictionary = |entries: &[&[u8]]| {
        let entries = entries.concat();
        [&[u8::try_from(entries.len()).unwrap()][..], &entries].concat()
    };
    for (case, extensions, expected) in [
        ("none", vec![], false),
        ("the extension", vec![(0x000a, vec![])], true),
        ("the component", vec![(0x0006, dictionary(&[&last_resort]))], true),
        ("the component after another", vec![(0x0006, dictionary(&[&other, &last_resort]))], true),
        ("another component", vec![(0x0006, dictionary(&[&other]))], false),
        ("the component with data", vec![(0x0006, dictionary(&[&[0, 4, 1, 7]]))], false),
        ("no dictionary", vec![(0x0006, vec![9])], false),
        ("another extension", vec![(PRIVATE_USE, dictionary(&[&last_resort]))], false),
    ] {
        let mut forged = Forged::good("bob", now_s() - 60);
        forged.supported_extensions = extensions.iter().map(|(kind, _)| *kind).collect();
        forged.extensions = extensions;
        let message = forged.message();
        let outline = leaf::KeyPackage::of_bytes(&message[4..]).unwrap();
        assert_eq!(outline.is_last_resort(), expected, "{case}");
        let unseen = crate::mls::UnseenKeyPackage::read(&message[4..]).unwrap();
        assert_eq!(unseen.last_resort, expected, "{case}: in an epoch that was not tracked");

        let mut story = Story::begin();
        let package = MlsMessage::from_bytes(&message).unwrap();
        let output = story.members[0].commit_builder().add_member(package).unwrap().build().unwrap();
        let (commit, welcome) = (
            output.commit_message.to_bytes().unwrap(),
            output.welcome_messages.first().unwrap().to_bytes().unwrap(),
        );
        let Observer { live, validator, now, .. } = &story.observer;
        let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };
        let staged = live.stage_commit(validator.context(), &input.into(), *now).unwrap();
        assert_eq!(staged.added[0].last_resort, expected, "{case}");
    }
}
