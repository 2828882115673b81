//! Mutated packets: a good packet with one byte changed is refused and leaves no trace, and the good packet is accepted
//! afterwards.

use std::ops::Range;

use actors::{Epoch, GroupId};
use mimi_gateway::{
    api::{
        groups::{CommitBody, ControlMessagesBody, Group, NewGroupBody, ProposalBody, Proposals},
        joining::{GroupInfos, JoinInfoBody},
        key_packages::KeyPackageUploadBody,
        problem::{ProblemDocument, ProblemKind},
        text::Base64,
    },
    client::GatewayClient,
};

use crate::mls_support::{Member, MlsClient, assert_agree, refusal, refused};
use crate::support::TestGateway;

/// Bytes of a hash or a tag in these tests' cipher suite.
const TAG_BYTES: usize = 32;

/// Bytes of a signature there.
const SIGNATURE_BYTES: usize = 64;

/// Where the epoch is in these tests' PublicMessages: behind version, wire format, and a group id of 32 bytes with its
/// length (RFC 9420 §6).
const EPOCH: Range<usize> = 4 + 1 + 32..4 + 1 + 32 + 8;

/// Two members, and Carol who is to be the third.
struct Stage {
    gateway: TestGateway,
    alice: Member,
    bob: Member,
    carol: MlsClient,
    before: Trace,
}

/// Everything that an accepted packet would change.
#[derive(Debug, PartialEq)]
struct Trace {
    group: Group,
    control: ControlMessagesBody,
    proposals: Proposals,
    group_info: GroupInfos,
    welcomes: Vec<JoinInfoBody>,
}

impl Trace {
    async fn of(api: &GatewayClient, group: &GroupId, carol: &MlsClient) -> Self {
        let range = mimi_gateway::api::groups::EpochRange::from(Epoch(0));
        Self {
            group: api.group(group).await.unwrap(),
            control: api.control_messages(group, &range).await.unwrap(),
            proposals: api.proposals(group).await.unwrap(),
            group_info: api.group_info(group).await.unwrap(),
            welcomes: carol.welcomes().await,
        }
    }
}

impl Stage {
    async fn new() -> Self {
        let gateway = TestGateway::start().await;
        let alice = MlsClient::register_with_paths(&gateway, "alice").await;
        let bob = MlsClient::register(&gateway, "bob").await;
        let carol = MlsClient::register(&gateway, "carol").await;
        bob.upload_key_packages(1).await;
        carol.upload_key_packages(1).await;
        let mut at_alice = alice.create_group().await;
        at_alice.invite(&[&bob]).await;
        let at_bob = bob.join().await;
        let before = Trace::of(&at_alice.api, &at_alice.id(), &carol).await;
        Self { gateway, alice: at_alice, bob: at_bob, carol, before }
    }

    /// Alice's commit that adds Carol, with path, welcome and group info.
    async fn good_commit(&mut self) -> CommitBody {
        let package = self.carol.assign_to("alice").await.unwrap().key_package;
        let commit = self.alice.make_adding(&[package]);
        assert!(commit.group_info.is_some() && commit.welcome_packet.is_some());
        commit
    }

    async fn check_unchanged(&self) {
        let now = Trace::of(&self.alice.api, &self.alice.id(), &self.carol).await;
        assert_eq!(now, self.before);
    }

    /// The upload is a refusal that blames the caller.
    #[track_caller]
    fn check_blame(problem: &ProblemDocument, what: &str) {
        assert!((400..500).contains(&problem.status), "{what}: {problem:?}");
        assert_ne!(problem.status, 429, "{what}: {problem:?}");
    }

    async fn refuse_commit(&self, commit: &CommitBody, what: &str) -> ProblemKind {
        let outcome = self.alice.upload(commit).await;
        assert!(outcome.is_err(), "accepted with {what}");
        let problem = refusal(outcome);
        Self::check_blame(&problem, what);
        problem.kind().expect("a known problem")
    }

    async fn refuse_proposal(&self, packet: Vec<u8>, what: &str) -> ProblemKind {
        let outcome = self.alice.propose(&ProposalBody { packet: Base64(packet) }).await;
        assert!(outcome.is_err(), "accepted with {what}");
        let problem = refusal(outcome);
        Self::check_blame(&problem, what);
        problem.kind().expect("a known problem")
    }

    /// Nothing has changed, the good commit is accepted and brings all three together.
    async fn finish(mut self, good: &CommitBody) {
        self.check_unchanged().await;
        self.alice.commit(good).await;
        self.bob.catch_up().await;
        let joined = self.carol.join().await;
        assert_agree(&[&self.alice, &self.bob, &joined]);
        joined.assert_gateway_agrees().await;
        self.gateway.stop().await;
    }
}

/// The packet with some bits of one byte flipped.
fn flipped(packet: &[u8], at: usize, bits: u8) -> Vec<u8> {
    let mut changed = packet.to_vec();
    changed[at] ^= bits;
    changed
}

/// The bits to flip in the byte at an offset: each offset has its own single bit, so that neighbours differ.
fn bit(at: usize) -> u8 {
    1 << (at % 8)
}

/// A packet cut short, empty, and with something behind it.
fn misfits(packet: &[u8]) -> [Vec<u8>; 4] {
    let mut longer = packet.to_vec();
    longer.push(0);
    [packet[..packet.len() - 1].to_vec(), packet[..packet.len() / 2].to_vec(), Vec::new(), longer]
}

/// Where the parts at the end of a member's PublicMessage are (RFC 9420 §6, §6.2): the length of the confirmation tag,
/// which only commits carry, and the membership tag's bytes, which no outsider can check.
struct Tail {
    confirmation_tag: Range<usize>,
    membership_tag: Range<usize>,
}

/// The confirmation tag of a commit whose signature, with its length, begins at this offset, if the end of the packet can be
/// read.
fn confirmation_tag_of(packet: &[u8], signature: usize) -> Option<&[u8]> {
    let mut rest = &packet[signature..];
    let [_, tag, _] = [vector(&mut rest)?, vector(&mut rest)?, vector(&mut rest)?];
    rest.is_empty().then_some(tag)
}

/// The next vector, of at most 2^14 − 1 bytes (RFC 9420 §2.1.2).
fn vector<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = match **rest {
        [length @ 0..64, ref after @ ..] => (usize::from(length), after),
        [high @ 64..128, low, ref after @ ..] => (usize::from(high - 64) << 8 | usize::from(low), after),
        _ => return None,
    };
    let is_shortest = rest.len() - after.len() == 1 || length >= 64;
    let (vector, after) = after.split_at_checked(length)?;
    *rest = after;
    is_shortest.then_some(vector)
}

fn tail(packet: &[u8]) -> Tail {
    let end = packet.len();
    let membership_tag = end - TAG_BYTES..end;
    let confirmation_end = membership_tag.start - 1;
    assert_eq!(usize::from(packet[confirmation_end]), TAG_BYTES, "the membership tag's length");
    Tail { confirmation_tag: confirmation_end - TAG_BYTES..confirmation_end, membership_tag }
}

#[actix_web::test]
async fn no_byte_of_a_commit_can_be_changed() {
    let mut stage = Stage::new().await;
    let good = stage.good_commit().await;
    let packet = good.commit_packet.0.clone();
    let Tail { confirmation_tag, membership_tag } = tail(&packet);
    assert_eq!(usize::from(packet[confirmation_tag.start - 1]), TAG_BYTES, "the confirmation tag's length");
    eprintln!(
        "LEN {} TAG {:?} BYTES {:02x?}",
        packet.len(),
        confirmation_tag,
        &packet[600..760.min(packet.len())]
    );
    let signature = confirmation_tag.start - 1 - SIGNATURE_BYTES - 2;
    let good_tag = &packet[confirmation_tag.clone()];
    assert_eq!(confirmation_tag_of(&packet, signature), Some(good_tag));
    // A signature that seems to reach eight bytes into the tag, whose next byte is the length of the rest.
    let mut shifted = flipped(&packet, signature + 1, 8);
    shifted[confirmation_tag.start + 7] = 24;
    assert_eq!(
        confirmation_tag_of(&shifted, signature),
        Some(&packet[confirmation_tag.start + 8..confirmation_tag.end])
    );
    let commit = CommitBody { commit_packet: Base64(shifted), ..good.clone() };
    let kind = stage.refuse_commit(&commit, "a signature that reaches into the tag").await;
    assert_eq!(kind, ProblemKind::GroupInfoMismatch);
    for at in 0..membership_tag.start {
        for bits in [bit(at), 0xff] {
            let commit = CommitBody { commit_packet: Base64(flipped(&packet, at, bits)), ..good.clone() };
            let kind = stage.refuse_commit(&commit, &format!("byte {at} of the commit changed")).await;
            let tag = confirmation_tag_of(&commit.commit_packet.0, signature);
            // The companions are no help before the commit itself was found good, except that the confirmation tags are compared
            // before signatures are verified.
            let expected: &[ProblemKind] = match at {
                _ if tag.is_some_and(|tag| tag != good_tag) => &[ProblemKind::GroupInfoMismatch],
                at if EPOCH.contains(&at) => &[ProblemKind::FutureEpoch, ProblemKind::StaleEpoch],
                _ => {
                    &[ProblemKind::InvalidCommit, ProblemKind::MalformedMlsMessage, ProblemKind::UnknownKind]
                }
            };
            assert!(expected.contains(&kind), "byte {at} of the commit: {kind:?}");
        }
        if at % 64 == 0 {
            stage.check_unchanged().await;
        }
    }
    for misfit in misfits(&packet) {
        let commit = CommitBody { commit_packet: Base64(misfit), ..good.clone() };
        let kind = stage.refuse_commit(&commit, "a commit of another length").await;
        assert_eq!(kind, ProblemKind::MalformedMlsMessage);
    }
    stage.finish(&good).await;
}

#[actix_web::test]
async fn no_byte_of_a_group_info_can_be_changed() {
    let mut stage = Stage::new().await;
    let good = stage.good_commit().await;
    let packet = good.group_info.clone().unwrap().0;
    for at in 0..packet.len() {
        for bits in [bit(at), 0xff] {
            let commit = CommitBody { group_info: Some(Base64(flipped(&packet, at, bits))), ..good.clone() };
            let kind = stage.refuse_commit(&commit, &format!("byte {at} of the group info changed")).await;
            let expected = [ProblemKind::GroupInfoMismatch, ProblemKind::MalformedMlsMessage];
            assert!(expected.contains(&kind), "byte {at} of the group info: {kind:?}");
        }
    }
    for misfit in misfits(&packet) {
        let commit = CommitBody { group_info: Some(Base64(misfit)), ..good.clone() };
        let kind = stage.refuse_commit(&commit, "a group info of another length").await;
        assert_eq!(kind, ProblemKind::MalformedMlsMessage);
    }
    // The group info of the epoch before is good, but not for this commit.
    let old = stage.before.group_info.group_infos[0].group_info.clone();
    let commit = CommitBody { group_info: Some(old), ..good.clone() };
    let kind = stage.refuse_commit(&commit, "the group info of the epoch before").await;
    assert_eq!(kind, ProblemKind::GroupInfoMismatch);
    stage.finish(&good).await;
}

/// Where the parts of a Welcome with one secret are that an outsider can check (RFC 9420 §12.4.3.1).
struct WelcomeParts {
    /// Version, wire format, cipher suite, the secrets' length, the new member's key package reference.
    readable: Range<usize>,
    /// The first byte of the length of each ciphertext.
    lengths: [usize; 3],
}

fn welcome_parts(packet: &[u8]) -> WelcomeParts {
    // A length and the bytes that it takes itself (RFC 9420 §2.1.2).
    let length = |at: usize| match packet[at] >> 6 {
        0 => (usize::from(packet[at]), 1),
        1 => ((usize::from(packet[at] & 0x3f) << 8) | usize::from(packet[at + 1]), 2),
        wider => panic!("a length of form {wider} at {at}"),
    };
    let behind = |at: usize| {
        let (bytes, own) = length(at);
        at + own + bytes
    };
    let secrets = 6;
    let member = secrets + length(secrets).1;
    let kem_output = behind(member);
    let ciphertext = behind(kem_output);
    let group_info = behind(ciphertext);
    assert_eq!(behind(secrets), group_info, "one secret");
    assert_eq!(behind(group_info), packet.len());
    WelcomeParts { readable: 0..kem_output, lengths: [kem_output, ciphertext, group_info] }
}

#[actix_web::test]
async fn no_readable_byte_of_a_welcome_can_be_changed() {
    let mut stage = Stage::new().await;
    let good = stage.good_commit().await;
    let packet = good.welcome_packet.clone().unwrap().0;
    let WelcomeParts { readable, lengths } = welcome_parts(&packet);
    assert!(readable.len() > TAG_BYTES);
    let changes = readable
        .flat_map(|at| (0..8).map(move |shift| (at, 1_u8 << shift)))
        .chain(lengths.into_iter().map(|at| (at, 0x80)));
    for (at, bits) in changes {
        let commit = CommitBody { welcome_packet: Some(Base64(flipped(&packet, at, bits))), ..good.clone() };
        let kind = stage.refuse_commit(&commit, &format!("byte {at} of the welcome changed")).await;
        let expected = [ProblemKind::WelcomeMismatch, ProblemKind::MalformedMlsMessage];
        assert!(expected.contains(&kind), "byte {at} of the welcome: {kind:?}");
    }
    for misfit in misfits(&packet) {
        let commit = CommitBody { welcome_packet: Some(Base64(misfit)), ..good.clone() };
        let kind = stage.refuse_commit(&commit, "a welcome of another length").await;
        assert_eq!(kind, ProblemKind::MalformedMlsMessage);
    }
    let commit = CommitBody { welcome_packet: None, ..good.clone() };
    let kind = stage.refuse_commit(&commit, "no welcome").await;
    assert_eq!(kind, ProblemKind::WelcomeMissing);
    let swapped = CommitBody {
        welcome_packet: good.group_info.clone(),
        group_info: good.welcome_packet.clone(),
        ..good.clone()
    };
    let kind = stage.refuse_commit(&swapped, "companions in each other's place").await;
    assert_eq!(kind, ProblemKind::MalformedMlsMessage);
    stage.finish(&good).await;
}

#[actix_web::test]
async fn a_welcome_for_nobody_and_of_another_commit_are_refused() {
    let mut stage = Stage::new().await;
    let update = stage.alice.make_update();
    stage.alice.clear_pending();
    let dave = MlsClient::register(&stage.gateway, "dave").await;
    let other = stage.alice.make_adding(&[dave.key_package()]);
    stage.alice.clear_pending();
    let good = stage.good_commit().await;
    for (commit, expected) in [
        (CommitBody { welcome_packet: good.welcome_packet.clone(), ..update }, ProblemKind::WelcomeMismatch),
        (CommitBody { welcome_packet: other.welcome_packet, ..good.clone() }, ProblemKind::WelcomeMismatch),
        (CommitBody { group_info: other.group_info, ..good.clone() }, ProblemKind::GroupInfoMismatch),
        (CommitBody { commit_packet: other.commit_packet, ..good.clone() }, ProblemKind::GroupInfoMismatch),
    ] {
        assert_eq!(stage.refuse_commit(&commit, "companions of another commit").await, expected);
    }
    stage.finish(&good).await;
}

#[actix_web::test]
async fn no_byte_of_a_proposal_can_be_changed() {
    let mut stage = Stage::new().await;
    let package = stage.carol.assign_to("alice").await.unwrap().key_package;
    let bob = stage.bob.handle.clone();
    let proposals = [
        stage.bob.make_update_proposal(),
        stage.alice.make_add_proposal(&package),
        stage.alice.make_remove_proposal(&bob),
    ];
    for proposal in &proposals {
        let packet = &proposal.packet.0;
        for at in 0..tail(packet).membership_tag.start {
            let kind = stage
                .refuse_proposal(flipped(packet, at, bit(at)), &format!("byte {at} of the proposal changed"))
                .await;
            let expected: &[ProblemKind] = if EPOCH.contains(&at) {
                &[ProblemKind::FutureEpoch, ProblemKind::StaleEpoch]
            } else {
                &[ProblemKind::InvalidProposal, ProblemKind::MalformedMlsMessage, ProblemKind::UnknownKind]
            };
            assert!(expected.contains(&kind), "byte {at} of the proposal: {kind:?}");
        }
        for misfit in misfits(packet) {
            let kind = stage.refuse_proposal(misfit, "a proposal of another length").await;
            assert_eq!(kind, ProblemKind::MalformedMlsMessage);
        }
        stage.check_unchanged().await;
    }
    // A commit is no proposal and a proposal no commit.
    let commit = stage.bob.make_update();
    stage.bob.clear_pending();
    let kind = stage.refuse_proposal(commit.commit_packet.0, "a commit for a proposal").await;
    assert_eq!(kind, ProblemKind::MalformedMlsMessage);
    let body =
        CommitBody { commit_packet: proposals[0].packet.clone(), group_info: None, welcome_packet: None };
    assert_eq!(stage.refuse_commit(&body, "a proposal for a commit").await, ProblemKind::MalformedMlsMessage);
    stage.check_unchanged().await;

    // The good ones are accepted afterwards, and can be committed.
    for proposal in &proposals {
        stage.alice.propose(proposal).await.unwrap();
    }
    assert_eq!(stage.alice.fetch_proposals().await, 3);
    stage.alice.update().await;
    stage.bob.learn_of_removal().await;
    let joined = stage.carol.join().await;
    assert_agree(&[&stage.alice, &joined]);
    joined.assert_gateway_agrees().await;
    stage.gateway.stop().await;
}

#[actix_web::test]
async fn no_byte_of_a_key_package_can_be_changed() {
    let gateway = TestGateway::start().await;
    let bob = MlsClient::register(&gateway, "bob").await;
    let package = bob.key_package().0;
    let upload = |bytes: Vec<u8>| KeyPackageUploadBody {
        key_packages: vec![Base64(bytes)],
        ..KeyPackageUploadBody::default()
    };
    let changed = (0..package.len()).flat_map(|at| [bit(at), 0xff].map(|bits| flipped(&package, at, bits)));
    for bytes in changed.chain(misfits(&package)) {
        refused(bob.upload(&upload(bytes)).await, ProblemKind::InvalidKeyPackage);
    }
    assert_eq!(bob.key_queue().await.key_packages_in_pool, 0);
    let pool = bob.upload(&upload(package)).await.unwrap();
    assert_eq!(pool.key_packages_available, 1);
    gateway.stop().await;
}

#[actix_web::test]
async fn no_byte_of_a_new_group_can_be_changed() {
    let gateway = TestGateway::start().await;
    let alice = MlsClient::register(&gateway, "alice").await;
    let (member, good) = alice.make_group();
    let (info, tree) = (good.group_info.0.clone(), good.ratchet_tree.clone().unwrap().0);
    let infos = (0..info.len()).flat_map(|at| [bit(at), 0xff].map(|bits| flipped(&info, at, bits)));
    let infos = infos.chain(misfits(&info)).map(|info| (info, tree.clone()));
    let trees = (0..tree.len()).flat_map(|at| [bit(at), 0xff].map(|bits| flipped(&tree, at, bits)));
    let trees = trees.chain(misfits(&tree)).map(|tree| (info.clone(), tree));
    for (info, tree) in infos.chain(trees) {
        let new = NewGroupBody { group_info: Base64(info), ratchet_tree: Some(Base64(tree)) };
        let problem = refusal(alice.api.create_group(&new).await);
        let expected = [ProblemKind::InvalidGroupInfo, ProblemKind::MalformedMlsMessage];
        assert!(problem.kind().is_some_and(|kind| expected.contains(&kind)), "{problem:?}");
    }
    refused(alice.api.group(&member.id()).await, ProblemKind::UnknownGroup);
    assert!(alice.groups().await.is_empty());
    alice.api.create_group(&good).await.unwrap();
    member.assert_gateway_agrees().await;
    gateway.stop().await;
}

/// The member of the request, the field and the offset that a problem names.
fn place(problem: &ProblemDocument) -> (String, String, usize) {
    assert_eq!((problem.status, problem.slug()), (400, "malformed-mls-message"), "{problem:?}");
    let text = |name: &str| problem.members[name].as_str().unwrap().to_owned();
    let offset = problem.members["offset"].as_u64().unwrap();
    (text("member"), text("field"), usize::try_from(offset).unwrap())
}

#[track_caller]
fn assert_place(problem: &ProblemDocument, member: &str, field: &str, offset: usize) {
    assert_eq!(place(problem), (member.to_owned(), field.to_owned(), offset), "{problem:?}");
    assert!(problem.detail.contains(field) && problem.detail.contains(&offset.to_string()), "{problem:?}");
}

/// Where the content of a member's PublicMessage begins: behind the sender and the empty authenticated data (RFC 9420 §6).
const CONTENT: usize = EPOCH.end + 5 + 1;

#[actix_web::test]
async fn a_malformed_message_is_refused_with_the_place_of_its_fault() {
    let mut stage = Stage::new().await;
    let good = stage.good_commit().await;
    let bob = stage.bob.handle.clone();
    let proposal = stage.alice.make_remove_proposal(&bob).packet.0;
    let propose = |packet: Vec<u8>| ProposalBody { packet: Base64(packet) };
    let and_one = |packet: &[u8]| [packet, &[0]].concat();

    // A proposal: what follows it, what is missing of it, and what is no proposal.
    let problem = refusal(stage.alice.propose(&propose(and_one(&proposal))).await);
    assert_place(&problem, "packet", "MLSMessage", proposal.len());
    let problem = refusal(stage.alice.propose(&propose(proposal[..CONTENT + 5].to_vec())).await);
    assert_place(&problem, "packet", "PublicMessage.content.proposal.remove.removed", CONTENT + 3);
    let problem = refusal(stage.alice.propose(&propose(good.commit_packet.0.clone())).await);
    assert_place(&problem, "packet", "PublicMessage.content.content_type", CONTENT);
    let problem = refusal(stage.alice.propose(&propose(good.welcome_packet.clone().unwrap().0)).await);
    assert_place(&problem, "packet", "MLSMessage.wire_format", 2);

    // A commit and its companions.
    let commit = good.commit_packet.0.clone();
    let problem = refusal(
        stage.alice.upload(&CommitBody { commit_packet: Base64(and_one(&commit)), ..good.clone() }).await,
    );
    assert_place(&problem, "commitPacket", "MLSMessage", commit.len());
    let tag = tail(&commit).membership_tag.start - 1;
    let short = Base64(commit[..tag].to_vec());
    let problem = refusal(stage.alice.upload(&CommitBody { commit_packet: short, ..good.clone() }).await);
    assert_place(&problem, "commitPacket", "PublicMessage.membership_tag", tag);
    let info = good.group_info.clone().unwrap().0;
    let longer = Some(Base64(and_one(&info)));
    let problem = refusal(stage.alice.upload(&CommitBody { group_info: longer, ..good.clone() }).await);
    assert_place(&problem, "groupInfo", "MLSMessage", info.len());
    let welcome = good.welcome_packet.clone().unwrap().0;
    let longer = Some(Base64(and_one(&welcome)));
    let problem = refusal(stage.alice.upload(&CommitBody { welcome_packet: longer, ..good.clone() }).await);
    assert_place(&problem, "welcomePacket", "MLSMessage", welcome.len());

    // A new group, and its tree: the leaf is behind the length of the tree, and that it is there and is a leaf.
    let (_, new) = MlsClient::register(&stage.gateway, "dave").await.make_group();
    let create = |body: NewGroupBody| {
        let api = stage.alice.api.clone();
        async move { refusal(api.create_group(&body).await) }
    };
    let info = new.group_info.0.clone();
    let problem = create(NewGroupBody { group_info: Base64(and_one(&info)), ..new.clone() }).await;
    assert_place(&problem, "groupInfo", "MLSMessage", info.len());
    let tree = new.ratchet_tree.clone().unwrap().0;
    let prefix = match tree[0] >> 6 {
        0 => 1,
        1 => 2,
        _ => 4,
    };
    let problem =
        create(NewGroupBody { ratchet_tree: Some(Base64(flipped(&tree, prefix + 1, 2))), ..new.clone() })
            .await;
    assert_place(&problem, "ratchetTree", "ratchet_tree[0].node_type", prefix + 1);
    let problem = create(NewGroupBody { ratchet_tree: Some(Base64(and_one(&tree))), ..new }).await;
    assert_place(&problem, "ratchetTree", "ratchet_tree", tree.len());

    // Each bad key package is listed with its place.
    let package = stage.carol.key_package().0;
    let upload = KeyPackageUploadBody {
        key_packages: vec![Base64(and_one(&package))],
        ..KeyPackageUploadBody::default()
    };
    let problem = refusal(stage.carol.upload(&upload).await);
    let detail = problem.members["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("MLSMessage, at byte {}, is followed", package.len())), "{detail}");
    stage.finish(&good).await;
}

#[actix_web::test]
async fn a_type_that_the_gateway_does_not_know_is_named() {
    let mut stage = Stage::new().await;
    let good = stage.good_commit().await;
    let head = &good.commit_packet.0[..CONTENT];
    // None of these gets as far as the signature and the tags.
    let end = [&[0x40, 0x40][..], &[7; 64], &[32], &[7; 32]].concat();
    let commit_end = [&[0x40, 0x40][..], &[7; 64], &[32], &[7; 32], &[32], &[7; 32]].concat();
    for (what, kind, body) in [
        ("a proposal of private use that is one vector", 0xf001_u16, &[1, b'x'][..]),
        ("a proposal of private use that is none", 0xf001, &[0xff; 9]),
        ("GREASE", 0x0a0a, &[0]),
        ("a pre-shared key of an unknown kind", 4, &[9, 0, 1, b'x', 0]),
    ] {
        let of_kind = [&kind.to_be_bytes(), body].concat();
        let packet = [head, &[2], &of_kind, &end].concat();
        let problem = refusal(stage.alice.propose(&ProposalBody { packet: Base64(packet) }).await);
        let by_value = [&[1], &of_kind[..]].concat();
        let list = [&[u8::try_from(by_value.len()).unwrap()], &by_value[..]].concat();
        let packet = [head, &[3], &list, &[0], &commit_end].concat();
        let committed =
            refusal(stage.alice.upload(&CommitBody { commit_packet: Base64(packet), ..good.clone() }).await);
        for problem in [problem, committed] {
            assert_eq!((problem.status, problem.slug()), (422, "unknown-kind"), "{what}: {problem:?}");
            assert_eq!(problem.members["kind"], "proposal", "{what}");
            assert_eq!(problem.members["value"], kind, "{what}");
        }
    }
    stage.finish(&good).await;
}
