//! The first field that is wrong: cases by hand, and messages of another implementation, cut and changed.

use std::sync::OnceLock;

use mls_rs::ExtensionList;
use openmls::prelude::{MlsMessageIn, RatchetTreeIn, tls_codec::DeserializeBytes as _};
use proptest::prelude::*;

use super::{Step, Story, client};
use crate::{
    mls::{
        CipherSuite, Refusal, RequestMember,
        handshake::Handshake,
        leaf::KeyPackage,
        syntax::{Cause, Fault, Misfit, UnknownKind, misfit_in_message, misfit_in_ratchet_tree},
        welcome::read_welcome,
        wire::{self, ContentKind, WireFormat},
    },
    presentation::write_vector_length,
};

/// A vector (RFC 9420 §2.1.2) with this content.
fn vector(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_vector_length(&mut bytes, content.len());
    bytes.extend_from_slice(content);
    bytes
}

/// A vector that says it is longer by one byte.
fn overlong(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_vector_length(&mut bytes, content.len() + 1);
    bytes.extend_from_slice(content);
    bytes
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

const MLS_10: &[u8] = &[0, 1];

/// The head of a member's PublicMessage with this content.
fn public(content: &[u8]) -> Vec<u8> {
    joined(&[MLS_10, &[0, 1], &vector(b"group"), &[0; 8], &[1, 0, 0, 0, 0], &vector(b""), content])
}

/// Where the content of [`public`] begins.
const CONTENT: usize = 4 + 6 + 8 + 5 + 1;

fn signed(content: &[u8]) -> Vec<u8> {
    joined(&[&public(content), &vector(&[7; 64]), &vector(&[7; 32])])
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    joined(&[&kind.to_be_bytes(), &vector(data)])
}

fn group_info(extensions: &[u8]) -> Vec<u8> {
    let context =
        joined(&[MLS_10, &[0, 1], &vector(b"group"), &[0; 8], &vector(b"tree"), &vector(b""), &vector(b"")]);
    joined(&[
        MLS_10,
        &[0, 4],
        &context,
        &vector(extensions),
        &vector(&[7; 32]),
        &[0, 0, 0, 0],
        &vector(&[7; 64]),
    ])
}

/// Where the extensions of [`group_info`] begin, behind the length of their list.
const EXTENSIONS: usize = 4 + 2 + 2 + 6 + 8 + 5 + 1 + 1 + 1;

fn credential(kind: u16) -> Vec<u8> {
    joined(&[&kind.to_be_bytes(), &vector(b"alice")])
}

fn leaf_node(credential: &[u8], source: &[u8]) -> Vec<u8> {
    let capabilities = [&[0, 1][..], &[0, 1], &[], &[], &[0, 1]].map(vector).concat();
    joined(&[
        &vector(b"enc"),
        &vector(b"sig"),
        credential,
        &capabilities,
        source,
        &vector(b""),
        &vector(b"signed"),
    ])
}

fn fault(field: &str, offset: usize, fault: Fault) -> Misfit {
    Misfit { field: field.to_owned(), offset, cause: Cause::Fault(fault) }
}

fn unknown(field: &str, offset: usize, kind: UnknownKind, value: u16) -> Misfit {
    Misfit { field: field.to_owned(), offset, cause: Cause::UnknownKind { kind, value } }
}

#[test]
fn the_first_field_that_does_not_fit_is_named() {
    let proposal = "PublicMessage.content.proposal";
    let add = |leaf: &[u8]| {
        let package = joined(&[MLS_10, &[0, 1], &vector(b"init"), leaf, &vector(b""), &vector(b"signed")]);
        signed(&joined(&[&[2, 0, 1], &package]))
    };
    // Behind the content type, the proposal type, version, suite and init_key; encryption_key and signature_key.
    let in_add = CONTENT + 3 + 2 + 2 + 5 + 4 + 4;
    let update = |leaf: &[u8]| signed(&joined(&[&[2, 0, 2], leaf]));
    let good = leaf_node(&credential(1), &[2]);
    let cases: Vec<(&str, Vec<u8>, Misfit)> = vec![
        ("nothing", vec![], fault("MLSMessage.version", 0, Fault::CutShort)),
        ("half a version", vec![0], fault("MLSMessage.version", 0, Fault::CutShort)),
        ("another version", vec![0, 2, 0, 1], fault("MLSMessage.version", 0, Fault::Value(2))),
        ("no such format", vec![0, 1, 0, 9], fault("MLSMessage.wire_format", 2, Fault::Value(9))),
        (
            "a group id that is too long",
            joined(&[MLS_10, &[0, 1], &overlong(b"group")]),
            fault("PublicMessage.content.group_id", 4, Fault::TooLong),
        ),
        (
            "a group id whose length has two bytes instead of one",
            joined(&[MLS_10, &[0, 1, 0x40, 5], b"group"]),
            fault("PublicMessage.content.group_id", 4, Fault::PaddedLength),
        ),
        (
            "a length of eight bytes",
            vec![0, 1, 0, 1, 0xc0, 0],
            fault("PublicMessage.content.group_id", 4, Fault::Value(0xc0)),
        ),
        (
            "a sender of type 5",
            joined(&[MLS_10, &[0, 1], &vector(b"group"), &[0; 8], &[5]]),
            fault("PublicMessage.content.sender.sender_type", 18, Fault::Value(5)),
        ),
        (
            "content of type 4",
            public(&[4]),
            fault("PublicMessage.content.content_type", CONTENT, Fault::Value(4)),
        ),
        (
            "a proposal without signature",
            public(&[2, 0, 3, 0, 0, 0, 1]),
            fault("PublicMessage.auth.signature", CONTENT + 7, Fault::CutShort),
        ),
        (
            "a proposal without membership tag",
            joined(&[&public(&[2, 0, 3, 0, 0, 0, 1]), &vector(&[7; 64])]),
            fault("PublicMessage.membership_tag", CONTENT + 7 + 66, Fault::CutShort),
        ),
        (
            "bytes behind a message",
            joined(&[&signed(&[2, 0, 3, 0, 0, 0, 1]), b"!"]),
            fault("MLSMessage", CONTENT + 7 + 66 + 33, Fault::Followed),
        ),
        (
            "a proposal of a type that came later, with more than one vector",
            signed(&[2, 0xf0, 8, 0, 0, 0, 1, 0]),
            unknown(&format!("{proposal}.proposal_type"), CONTENT + 1, UnknownKind::Proposal, 0xf008),
        ),
        (
            "a pre-shared key of a type that came later",
            signed(&[2, 0, 4, 4, 0, 0, 0, 1, 0, 0]),
            unknown(&format!("{proposal}.proposal_type"), CONTENT + 1, UnknownKind::Proposal, 4),
        ),
        (
            "a pre-shared key of an application without nonce",
            public(&[2, 0, 4, 3, 0x80, 1, 0]),
            fault(&format!("{proposal}.psk.psk.psk_nonce"), CONTENT + 7, Fault::CutShort),
        ),
        (
            "a ReInit to a suite that came later, without signature",
            public(&joined(&[&[2, 0, 5], &vector(b"next"), MLS_10, &[0, 0x4d], &vector(b"")])),
            fault("PublicMessage.auth.signature", CONTENT + 3 + 5 + 2 + 2 + 1, Fault::CutShort),
        ),
        (
            "an AppDataUpdate that neither updates nor removes",
            signed(&[2, 0, 8, 0x80, 1, 3, 0]),
            fault(&format!("{proposal}.app_data_update.op"), CONTENT + 5, Fault::Value(3)),
        ),
        (
            "an AppDataUpdate without signature",
            public(&[2, 0, 8, 0x80, 1, 2]),
            fault("PublicMessage.auth.signature", CONTENT + 6, Fault::CutShort),
        ),
        (
            "an AppEphemeral without signature",
            public(&[2, 0, 9, 0x80, 1, 0]),
            fault("PublicMessage.auth.signature", CONTENT + 6, Fault::CutShort),
        ),
        (
            "a pre-shared key of type 0",
            signed(&[2, 0, 4, 0, 0, 0]),
            fault(&format!("{proposal}.psk.psk.psktype"), CONTENT + 3, Fault::Value(0)),
        ),
        (
            "an Add whose credential is of an unknown type",
            add(&leaf_node(&joined(&[&[0xf0, 1], &[9, 9]]), &[2])),
            unknown(
                &format!("{proposal}.add.key_package.leaf_node.credential.credential_type"),
                in_add,
                UnknownKind::Credential,
                0xf001,
            ),
        ),
        (
            "a key package of a suite that came later",
            signed(&joined(&[
                &[2, 0, 1],
                MLS_10,
                &[0, 0x4d],
                &vector(b"init"),
                &good,
                &vector(b""),
                &vector(b""),
            ])),
            Misfit {
                field: format!("{proposal}.add.key_package.cipher_suite"),
                offset: CONTENT + 5,
                cause: Cause::UnknownSuite(0x4d),
            },
        ),
        (
            "a leaf of source 4",
            update(&leaf_node(&credential(1), &[4])),
            fault(
                &format!("{proposal}.update.leaf_node.leaf_node_source"),
                // Keys, the credential, and capabilities of 2, 2, 0, 0 and 2 bytes.
                CONTENT + 3 + 8 + 8 + 11,
                Fault::Value(4),
            ),
        ),
        (
            "half a number among the capabilities",
            update(&joined(&[&vector(b"enc"), &vector(b"sig"), &credential(1), &vector(&[0, 1, 0])])),
            fault(
                &format!("{proposal}.update.leaf_node.capabilities.versions[1]"),
                CONTENT + 3 + 8 + 8 + 3,
                Fault::CutShort,
            ),
        ),
        (
            "a commit whose second proposal is neither by value nor by reference",
            signed(&joined(&[&[3], &vector(&joined(&[&[2], &vector(&[7; 32]), &[3]])), &[0]])),
            fault("PublicMessage.content.commit.proposals[1].type", CONTENT + 2 + 34, Fault::Value(3)),
        ),
        (
            "a commit whose path is there and is not",
            signed(&joined(&[&[3], &vector(b""), &[2]])),
            fault("PublicMessage.content.commit.path", CONTENT + 2, Fault::Value(2)),
        ),
        (
            "an external key that is longer than its extension",
            group_info(&joined(&[&extension(0xf001, b"any"), &extension(4, &overlong(b"key"))])),
            fault("GroupInfo.extensions[1].external_pub", EXTENSIONS + 6 + 3, Fault::TooLong),
        ),
        (
            "an external key that is shorter than its extension",
            group_info(&extension(4, &joined(&[&vector(b"key"), b"!"]))),
            fault("GroupInfo.extensions[0].extension_data", EXTENSIONS + 3 + 4, Fault::Followed),
        ),
        (
            "an extension that is longer than the list",
            group_info(&joined(&[&[0xf0, 1], &overlong(b"any")])),
            fault("GroupInfo.extensions[0].extension_data", EXTENSIONS + 2, Fault::TooLong),
        ),
        (
            "an extension twice",
            group_info(&joined(&[&extension(0xf001, b""), &extension(0xf001, b"")])),
            fault("GroupInfo.extensions[1].extension_type", EXTENSIONS + 3, Fault::Repeated),
        ),
        (
            "required capabilities outside of a group context",
            group_info(&extension(3, &[0, 0, 0])),
            fault("GroupInfo.extensions[0].extension_type", EXTENSIONS, Fault::Misplaced),
        ),
        (
            "a tree whose second node is of kind 3",
            group_info(&extension(2, &vector(&[0, 1, 3]))),
            fault(
                "GroupInfo.extensions[0].ratchet_tree[1].node_type",
                EXTENSIONS + 3 + 1 + 2,
                Fault::Value(3),
            ),
        ),
        (
            "a welcome of a suite that came later",
            joined(&[MLS_10, &[0, 3, 0, 0x4d], &vector(b""), &vector(b"")]),
            Misfit { field: "Welcome.cipher_suite".into(), offset: 4, cause: Cause::UnknownSuite(0x4d) },
        ),
        (
            "a welcome whose only secret has no ciphertext",
            joined(&[MLS_10, &[0, 3, 0, 1], &vector(&joined(&[&vector(b"ref"), &vector(b"kem")]))]),
            fault("Welcome.secrets[0].encrypted_group_secrets.ciphertext", 6 + 1 + 4 + 4, Fault::CutShort),
        ),
        (
            "a key package of another version than its message",
            joined(&[MLS_10, &[0, 5, 0, 2]]),
            fault("KeyPackage.version", 4, Fault::Value(2)),
        ),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(misfit_in_message(&bytes), expected, "{what}");
        assert!(MlsMessageIn::tls_deserialize_exact_bytes(&bytes).is_err(), "the library takes {what}");
    }
}

#[test]
fn the_first_node_that_does_not_fit_is_named() {
    let leaf = joined(&[&[1, 1], &leaf_node(&credential(1), &[2])]);
    let parent = |unmerged: &[u8]| joined(&[&[1, 2], &vector(b"enc"), &vector(b""), &vector(unmerged)]);
    let cases = [
        ("nothing", vec![], fault("ratchet_tree", 0, Fault::CutShort)),
        ("a longer tree", overlong(&leaf), fault("ratchet_tree", 0, Fault::TooLong)),
        (
            "a node that is neither there nor not",
            vector(&[0, 2]),
            fault("ratchet_tree[1]", 2, Fault::Value(2)),
        ),
        (
            "bytes behind the tree",
            joined(&[&vector(&leaf), &[0]]),
            fault("ratchet_tree", 1 + leaf.len(), Fault::Followed),
        ),
        (
            "unmerged leaves that do not ascend",
            vector(&parent(&[0, 0, 0, 4, 0, 0, 0, 4])),
            fault("ratchet_tree[0].parent_node.unmerged_leaves[1]", 1 + 2 + 4 + 1 + 1 + 4, Fault::Order),
        ),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(misfit_in_ratchet_tree(&bytes), expected, "{what}");
        assert!(RatchetTreeIn::tls_deserialize_exact_bytes(&bytes).is_err(), "the library takes {what}");
    }
}

#[test]
fn a_misfit_reads_as_a_sentence() {
    let misfit = misfit_in_message(&signed(&[2, 0xf0, 8, 0, 0, 0, 1, 0]));
    assert_eq!(
        misfit.to_string(),
        "PublicMessage.content.proposal.proposal_type, at byte 25, is 0xf008, a type of proposal that this gateway does \
         not know"
    );
    let misfit = misfit_in_message(&group_info(&extension(4, &overlong(b"key"))));
    assert_eq!(
        misfit.to_string(),
        format!(
            "GroupInfo.extensions[0].external_pub, at byte {}, says that it is longer than what follows",
            EXTENSIONS + 3
        )
    );
}

/// Whether the reader for a message of its kind refuses it.
fn is_unreadable(message: &[u8]) -> bool {
    let Ok((format, mut body)) = wire::message_body(message) else { return true };
    match format {
        WireFormat::PublicMessage => {
            let Ok(header) = wire::header(format, body) else { return true };
            let read = Handshake::read(RequestMember::Packet, message, header.content, usize::MAX);
            header.content != ContentKind::Application && read.is_err()
        }
        WireFormat::PrivateMessage => wire::header(format, body).is_err(),
        WireFormat::GroupInfo => wire::group_info_outline(body).is_err(),
        WireFormat::KeyPackage => KeyPackage::read(&mut body).is_err() || !body.is_empty(),
        WireFormat::Welcome => {
            let suite = CipherSuite::from_number(1).unwrap();
            matches!(read_welcome(Some(message), 1, suite), Err(Refusal::Malformed(_)))
        }
    }
}

/// Messages of every format, and the tree of the group, made by another implementation.
struct Samples {
    messages: Vec<Vec<u8>>,
    tree: Vec<u8>,
}

fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let mut story = Story::begin();
        story.step(&Step::Add { who: 0, count: 3 });
        story.step(&Step::Update { who: 1 });
        story.step(&Step::Remove { who: 0, whom: 2 });
        let newcomer = client("newcomer");
        let package =
            newcomer.generate_key_package_message(Default::default(), Default::default(), None).unwrap();
        let with_tree = story.members[0].group_info_message_allowing_ext_commit(true).unwrap();
        let (_, external) =
            client("joiner").external_commit_builder().unwrap().build(with_tree.clone()).unwrap();
        let proposer = &mut story.members[1];
        let private = proposer.encrypt_application_message(b"hello", vec![]).unwrap();
        let update = proposer.propose_update(vec![]).unwrap();
        let remove = proposer.propose_remove(0, vec![]).unwrap();
        let add = proposer.propose_add(package.clone(), vec![]).unwrap();
        let context = proposer.propose_group_context_extensions(ExtensionList::new(), vec![]).unwrap();
        let committer = &mut story.members[0];
        for proposal in [&update, &add] {
            committer.process_incoming_message(proposal.clone()).unwrap();
        }
        let mut builder = committer.commit_builder();
        builder = builder
            .add_member(
                client("another")
                    .generate_key_package_message(Default::default(), Default::default(), None)
                    .unwrap(),
            )
            .unwrap();
        let output = builder.build().unwrap();
        let mut messages: Vec<Vec<u8>> =
            [package, with_tree, external, update, remove, add, context, output.commit_message]
                .iter()
                .chain(&output.welcome_messages)
                .chain(&output.external_commit_group_info)
                .chain([&private])
                .map(|message| message.to_bytes().unwrap())
                .collect();
        messages.sort();
        messages.dedup();
        let formats: std::collections::BTreeSet<u8> = messages.iter().map(|message| message[3]).collect();
        assert_eq!(formats.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5], "messages of every format");
        Samples { messages, tree: story.observer.live.tree().to_bytes() }
    })
}

fn is_cut(misfit: &Misfit, at: usize) -> bool {
    matches!(misfit.cause, Cause::Fault(Fault::CutShort | Fault::TooLong)) && misfit.offset <= at
}

#[test]
fn every_sample_is_walked_to_its_end() {
    for message in &samples().messages {
        MlsMessageIn::tls_deserialize_exact_bytes(message).unwrap();
        assert_eq!(misfit_in_message(message), fault("MLSMessage", 0, Fault::Unreadable));
    }
    assert_eq!(misfit_in_ratchet_tree(&samples().tree), fault("ratchet_tree", 0, Fault::Unreadable));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Wherever a message is cut, the field that is cut is found.
    #[test]
    fn a_cut_is_found(which in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>()) {
        let message = which.get(&samples().messages);
        let at = at.index(message.len());
        let misfit = misfit_in_message(&message[..at]);
        prop_assert!(is_cut(&misfit, at), "{at}: {misfit:?}");
        let tree = &samples().tree;
        let at = at % tree.len();
        let misfit = misfit_in_ratchet_tree(&tree[..at]);
        prop_assert!(is_cut(&misfit, at), "{at}: {misfit:?}");
    }

    /// What follows a message is found where it begins.
    #[test]
    fn what_follows_is_found(
        which in any::<proptest::sample::Index>(),
        more in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let message = which.get(&samples().messages);
        let expected = fault("MLSMessage", message.len(), Fault::Followed);
        prop_assert_eq!(misfit_in_message(&joined(&[message, &more])), expected);
    }

    /// Whatever makes a message that was good unreadable, here or for a library, a field is named.
    #[test]
    fn a_change_is_found(
        which in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        bits in 1_u8..,
    ) {
        let mut message = which.get(&samples().messages).clone();
        let at = at.index(message.len());
        message[at] ^= bits;
        let misfit = misfit_in_message(&message);
        if is_unreadable(&message) || MlsMessageIn::tls_deserialize_exact_bytes(&message).is_err() {
            prop_assert_ne!(misfit.cause, Cause::Fault(Fault::Unreadable), "byte {} of {:?}", at, message);
        }
    }

    /// Whatever arrives, the walk ends inside of it.
    #[test]
    fn any_bytes_are_walked(bytes in proptest::collection::vec(any::<u8>(), 0..400), format in 1_u8..6) {
        let framed = joined(&[MLS_10, &[0, format], &bytes]);
        prop_assert!(misfit_in_message(&framed).offset <= framed.len());
        prop_assert!(misfit_in_message(&bytes).offset <= bytes.len());
        prop_assert!(misfit_in_ratchet_tree(&bytes).offset <= bytes.len());
    }
}
