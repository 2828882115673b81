//! A forged group and the observer that follows it.

use mls_forge::{
    Client, Extension, Forged, Group, KeyPackage, LeafNode, Proposal, PublicMessage, Sender, SharedTree,
    Suite, proposal,
};

use super::{
    super::{CommitInput, Observer, Refusal, Validator},
    Answer, Answers, Way, answer,
};
use crate::mls::{CipherSuite, CommitBundle, KeyPackageChecks, KeyPackageValidator, LeafChecks};

pub(super) const SUITE: Suite = Suite::Ed25519;

/// An extension and a proposal type for private use, which every client of a scene supports.
pub(super) const PRIVATE_USE: u16 = 0xf001;
/// A type for private use that no client of a scene supports.
pub(super) const UNLISTED: u16 = 0xf0a1;
/// A value that means nothing (RFC 9420 §13.5).
pub(super) const GREASE: u16 = 0x8a8a;

/// A client that supports what the draft and the tests use.
pub(super) fn client(name: &str) -> Client {
    Client::new(SUITE, name)
        .supporting_extensions(&[PRIVATE_USE])
        .supporting_proposals(&[
            PRIVATE_USE,
            proposal::APP_DATA_UPDATE,
            proposal::APP_EPHEMERAL,
            proposal::SELF_REMOVE,
        ])
        .supporting_credentials(&[PRIVATE_USE])
}

/// The client of this name with the same signature key, which makes other HPKE keys than [`client`].
pub(super) fn again(name: &str) -> Client {
    Client { randomness: client("a source of keys").randomness, ..client(name) }
}

/// The client of this name with another signature key, which makes other HPKE keys than [`client`].
pub(super) fn renewed(name: &str) -> Client {
    Client { key: client("a source of keys").key, ..again(name) }
}

/// A client that supports nothing which has to be listed.
pub(super) fn plain(name: &str) -> Client {
    Client::new(SUITE, name)
}

/// The clients of a scene: `member 0` and so on.
pub(super) fn clients(count: usize) -> Vec<Client> {
    (0..count).map(|at| client(&format!("member {at}"))).collect()
}

/// A group of such clients; all parents are populated.
pub(super) fn group(count: usize) -> Group {
    Group::of_clients(clients(count), SharedTree::Populated)
}

/// Such a group with extensions of its context.
pub(super) fn group_with(count: usize, extensions: Vec<Extension>) -> Group {
    Group::of_clients_with(clients(count), SharedTree::Populated, extensions)
}

/// A forged group and its observer.
pub(super) struct Scene {
    pub(super) group: Group,
    pub(super) observer: Observer,
}

impl Scene {
    /// An observer of this group.
    pub(super) fn of(group: Group) -> Self {
        let info = group.group_info().to_message();
        let observer = Observer::open(&info, Some(&group.tree_bytes())).unwrap();
        Self { group, observer }
    }

    /// A scene of `count` members.
    pub(super) fn new(count: usize) -> Self {
        Self::of(group(count))
    }

    /// Uploads a commit with its GroupInfo and Welcome.
    pub(super) fn commit(&mut self, forged: &Forged) -> Result<(), Refusal> {
        let (commit, info, welcome) =
            (forged.commit_bytes(), forged.group_info_bytes(), forged.welcome_bytes());
        let input = CommitInput { commit: &commit, group_info: Some(&info), welcome: welcome.as_deref() };
        let before = self.observer.live.context_bytes();
        let answer = self.observer.commit(CommitBundle::from(input));
        let after = self.observer.live.context_bytes();
        let expected = if answer.is_ok() { mls_forge::Tls::to_bytes(&forged.context) } else { before };
        assert_eq!(after, expected, "the group's context");
        answer
    }

    /// Uploads a commit that is accepted, and goes on to its epoch.
    pub(super) fn proceed(&mut self, forged: &Forged) {
        self.commit(forged).unwrap();
        self.group.apply(forged);
    }

    /// Uploads a proposal.
    pub(super) fn propose(&mut self, message: &PublicMessage) -> Result<(), Refusal> {
        self.observer.proposal(&message.to_message())
    }

    /// Uploads a proposal that is accepted, and returns its reference.
    pub(super) fn pend(&mut self, sender: Sender, proposal: Proposal) -> Vec<u8> {
        let message = self.group.propose(sender, proposal);
        self.propose(&message).unwrap();
        message.reference(self.group.suite)
    }

    /// Uploads a signed proposal.
    pub(super) fn try_proposal(&mut self, sender: Sender, proposal: Proposal) -> Result<(), Refusal> {
        let message = self.group.proposal(sender, proposal);
        self.propose(&message)
    }
}

/// Uploads a key package.
pub(super) fn upload(package: &KeyPackage) -> Result<(), Answer> {
    let validator = Validator::new();
    let checks = KeyPackageChecks {
        leaf: LeafChecks {
            cipher_suite: CipherSuite::from_number(SUITE.number()).unwrap(),
            lifetime_s_max: None,
        },
        handle: None,
        domain: None,
        now: crate::clock::Clock::system().now(),
        clock_skew_s_max: 300,
    };
    let mut packages = KeyPackageValidator::new(checks, &*validator.application.identity);
    let refused = packages.check(&package.to_message()).err();
    refused.map_or(Ok(()), |detail| Err(Answer { name: "invalid-key-package", detail }))
}

/// Opens a group.
pub(super) fn open(group: &Group) -> Result<(), Refusal> {
    open_by(&group.group_info().to_message(), Some(&group.tree_bytes()))
}

/// Opens a group from these messages.
pub(super) fn open_by(group_info: &[u8], tree: Option<&[u8]>) -> Result<(), Refusal> {
    Observer::open(group_info, tree).map(drop)
}

/// Tries a leaf, changed and then signed, wherever a leaf can be: in a key package, an Add by value and by reference, an
/// Update, an update path, the path of one who joins, and a tree. `extensions` are those of the group's context; where
/// there are some, uploaded key packages are left out, since they belong to no group.
pub(super) fn leaf_everywhere(extensions: &[Extension], change: impl Fn(&mut LeafNode)) -> Answers {
    let scene = || Scene::of(group_with(3, extensions.to_vec()));
    let newcomer = client("newcomer");
    let package = || {
        let mut package = newcomer.key_package();
        change(&mut package.leaf_node);
        package.sign_all(&newcomer.key);
        package
    };
    let mut answers = leaf_in_group(extensions, &change);
    if extensions.is_empty() {
        answers.push((Way::Upload, upload(&package())));
    }
    let mut it = scene();
    it.group.know(&newcomer);
    let proposed = it.try_proposal(Sender::Member(1), Proposal::Add(package()));
    answers.push((Way::Handshake("a proposed Add"), proposed.map_err(answer)));
    let proposed = it.try_proposal(Sender::NewMemberProposal, Proposal::Add(package()));
    answers.push((Way::Handshake("an Add that the newcomer proposes"), proposed.map_err(answer)));
    let forged = it.group.commit(0).with(Proposal::Add(package())).sign();
    answers.push((Way::Handshake("a committed Add"), it.commit(&forged).map_err(answer)));
    answers
}

/// As [`leaf_everywhere`], without key packages: a leaf that belongs to this group.
pub(super) fn leaf_in_group(extensions: &[Extension], change: impl Fn(&mut LeafNode)) -> Answers {
    let scene = || Scene::of(group_with(3, extensions.to_vec()));
    let newcomer = client("newcomer");
    let mut answers = Vec::new();
    let mut add = |way, answer| answers.push((way, answer));

    let mut it = scene();
    let mut update = it.group.update(1);
    if let Proposal::Update(leaf) = &mut update {
        change(leaf);
        let key = it.group.client(1).key.clone();
        leaf.sign(&key, &it.group.context.group_id, 1);
    }
    add(Way::Handshake("a proposed Update"), it.try_proposal(Sender::Member(1), update).map_err(answer));

    let mut it = scene();
    let mut draft = it.group.commit(1).draft();
    change(draft.leaf_mut());
    let forged = draft.sign();
    add(Way::Handshake("an update path"), it.commit(&forged).map_err(answer));

    let mut it = scene();
    let mut draft = it.group.external_commit(&newcomer).draft();
    change(draft.leaf_mut());
    let forged = draft.sign();
    add(Way::Handshake("an external commit"), it.commit(&forged).map_err(answer));

    let mut group = Group::of_clients_with(clients(3), SharedTree::Blank, extensions.to_vec());
    let key = group.client(1).key.clone();
    let leaf = group.tree.leaf_mut(1).unwrap();
    change(leaf);
    leaf.sign(&key, &[], 1);
    group.settle();
    add(Way::Opening, open(&group).map_err(answer));
    answers
}

/// Proposes and commits an Add of this package, and uploads it.
pub(super) fn package_everywhere(package: impl Fn() -> (Client, KeyPackage)) -> Answers {
    let mut it = Scene::new(3);
    let (newcomer, made) = package();
    let mut answers = vec![(Way::Upload, upload(&made))];
    it.group.know(&newcomer);
    let proposed = it.try_proposal(Sender::Member(1), Proposal::Add(made));
    answers.push((Way::Handshake("a proposed Add"), proposed.map_err(answer)));
    let forged = it.group.commit(0).with(Proposal::Add(package().1)).sign();
    answers.push((Way::Handshake("a committed Add"), it.commit(&forged).map_err(answer)));
    answers
}
