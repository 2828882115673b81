//! A group of any size, and commits that leave the same epoch of it.

use actors::CommitBundle;
use mls_forge::{Client, Forged, Group, PathChoice, Proposal, Sender, SharedTree, Suite};
use openmls::{
    group::{GroupContext, GroupId, PublicGroup},
    prelude::{
        MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider as _, ProcessedMessageContent, ProposalStore,
        RatchetTreeIn,
    },
    treesync::TreeSync,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::public_storage::PublicStorageProvider as _;
use tls_codec::Deserialize as _;

pub(crate) const SUITE: Suite = Suite::Ed25519;

/// Commits that follow each other.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) commits: Vec<Step>,
}

/// A commit with its group info and welcome, and the proposals that it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) proposals: Vec<Vec<u8>>,
    pub(crate) bundle: CommitBundle,
    /// How long the messages are whose signatures an observer verifies: the commit with its context, the leaf of the path, the
    /// group info, and two of each key package.
    pub(crate) signed: Vec<usize>,
}

/// A group at one epoch.
pub(crate) struct Starting {
    pub(crate) id: GroupId,
    pub(crate) group_info: Vec<u8>,
    pub(crate) tree: Vec<u8>,
    pub(crate) cases: Vec<Case>,
}

/// The most commits of a case.
const COMMITS: usize = 16;
/// About the length of a GroupContext, of a leaf node of a path, and of a key package.
const CONTEXT_BYTES: usize = 130;
const LEAF_BYTES: usize = 220;
const KEY_PACKAGE_BYTES: usize = 330;

/// A group of this many members with every kind of commit. The committers are spread over the tree, whose parents are all populated.
pub(crate) fn start(members: usize) -> Starting {
    let group = Group::of_members(SUITE, members, SharedTree::Populated);
    let cases = vec![
        case("update", &group, COMMITS, 0, update),
        case("add", &group, COMMITS, 1, |group, number| {
            let add = group.add(&newcomer(number));
            group.commit(member(group, number)).with(add).path(PathChoice::With).sign()
        }),
        case("remove", &group, COMMITS.min(members - 1), 0, |group, number| {
            let (committer, removed) = (member(group, number), member(group, number + 1));
            group.commit(committer).with(Proposal::Remove(removed)).sign()
        }),
        case("external", &group, COMMITS, 0, |group, number| group.external_commit(&newcomer(number)).sign()),
        by_reference(&group),
    ];
    Starting {
        id: GroupId::from_slice(&group.context.group_id),
        group_info: group.group_info().to_message(),
        tree: group.tree_bytes(),
        cases,
    }
}

/// A group in whose tree all parents are blank, so that the path of the one commit is encrypted to each member.
pub(crate) fn start_blank(members: usize) -> Starting {
    let group = Group::of_members(SUITE, members, SharedTree::Blank);
    Starting {
        id: GroupId::from_slice(&group.context.group_id),
        group_info: group.group_info().to_message(),
        tree: group.tree_bytes(),
        cases: vec![case("update, blank tree", &group, 1, 0, update)],
    }
}

fn update(group: &mut Group, number: usize) -> Forged {
    group.commit(member(group, number)).path(PathChoice::With).sign()
}

fn newcomer(number: usize) -> Client {
    Client::new(SUITE, &format!("newcomer {number}"))
}

/// The leaf of one of the members.
fn member(group: &Group, number: usize) -> u32 {
    let members = group.members();
    *members.get(number * 7919 % members.len()).unwrap()
}

fn case(
    name: &'static str,
    group: &Group,
    count: usize,
    packages: usize,
    make: impl Fn(&mut Group, usize) -> Forged,
) -> Case {
    let mut group = group.clone();
    let step = |number| {
        let forged = make(&mut group, number);
        group.apply(&forged);
        Step::new(Vec::new(), &forged, packages)
    };
    Case { name, commits: (0..count).map(step).collect() }
}

/// Four Adds that one member proposed and another commits. The signatures of the proposals and of their key packages were verified on
/// arrival.
fn by_reference(group: &Group) -> Case {
    let mut group = group.clone();
    let step = |number| {
        let mut proposals = Vec::new();
        for of_step in 0..4 {
            let add = group.add(&newcomer(4 * number + of_step));
            let proposer = Sender::Member(member(&group, number + 1));
            proposals.push(group.propose(proposer, add).to_message());
        }
        let forged = group.commit(member(&group, number)).with_pending().path(PathChoice::With).sign();
        group.apply(&forged);
        Step::new(proposals, &forged, 0)
    };
    Case { name: "by reference", commits: (0..COMMITS).map(step).collect() }
}

impl Step {
    fn new(proposals: Vec<Vec<u8>>, forged: &Forged, packages: usize) -> Self {
        let (commit, info) = (forged.commit_bytes(), forged.group_info_bytes());
        let mut signed = vec![commit.len() + CONTEXT_BYTES, LEAF_BYTES, info.len()];
        signed.extend((0..packages).flat_map(|_| [KEY_PACKAGE_BYTES, LEAF_BYTES]));
        let bundle = CommitBundle { commit, group_info: Some(info), welcome: forged.welcome_bytes() };
        Self { proposals, bundle, signed }
    }
}

/// The same group as openmls tracks it, in its own memory storage.
pub(crate) struct LibraryGroup {
    provider: OpenMlsRustCrypto,
    group: PublicGroup,
}

impl LibraryGroup {
    /// Opens it once; its storage can then be copied.
    pub(crate) fn open(starting: &Starting) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let message = MlsMessageIn::tls_deserialize_exact(&starting.group_info).unwrap();
        let MlsMessageBodyIn::GroupInfo(info) = message.extract() else { panic!("not a group info") };
        let tree = RatchetTreeIn::tls_deserialize_exact(&starting.tree).unwrap();
        let opened = PublicGroup::from_external(
            provider.crypto(),
            provider.storage(),
            tree,
            info,
            ProposalStore::new(),
        );
        Self { group: opened.unwrap().0, provider }
    }

    /// The parts of it that grow with the group, as its storage has them.
    pub(crate) fn stored(&self, id: &GroupId) -> (TreeSync, GroupContext) {
        let storage = self.provider.storage();
        (storage.tree(id).unwrap().unwrap(), storage.group_context(id).unwrap().unwrap())
    }

    /// How many bytes its storage has.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.provider.storage().values.read().unwrap().values().map(Vec::len).sum()
    }

    /// Writes these parts as merging a commit writes them.
    pub(crate) fn store(&self, id: &GroupId, tree: &TreeSync, context: &GroupContext) {
        let storage = self.provider.storage();
        storage.write_tree(id, tree).unwrap();
        storage.write_context(id, context).unwrap();
    }

    /// Loads the group from its storage.
    pub(crate) fn load(&self, id: &GroupId) -> PublicGroup {
        PublicGroup::load(self.provider.storage(), id).unwrap().unwrap()
    }

    /// Another one in the same epoch.
    pub(crate) fn copy(&self, id: &GroupId) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let values = self.provider.storage().values.read().unwrap().clone();
        *provider.storage().values.write().unwrap() = values;
        let group = PublicGroup::load(provider.storage(), id).unwrap().unwrap();
        Self { provider, group }
    }

    fn process(&self, packet: &[u8]) -> ProcessedMessageContent {
        let message =
            MlsMessageIn::tls_deserialize_exact(packet).unwrap().try_into_protocol_message().unwrap();
        self.group.process_message(self.provider.crypto(), message).unwrap().into_content()
    }

    pub(crate) fn propose(&mut self, packet: &[u8]) {
        let ProcessedMessageContent::ProposalMessage(queued) = self.process(packet) else {
            panic!("not a proposal");
        };
        self.group.add_proposal(self.provider.storage(), *queued).unwrap();
    }

    pub(crate) fn commit(&mut self, packet: &[u8]) {
        let ProcessedMessageContent::StagedCommitMessage(staged) = self.process(packet) else {
            panic!("not a commit");
        };
        self.group.merge_commit(self.provider.storage(), *staged).unwrap();
    }
}
