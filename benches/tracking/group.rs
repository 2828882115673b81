//! A group of real MLS clients, and commits that leave the same epoch of it.

use openmls::{
    group::{GroupId, PublicGroup},
    prelude::{
        BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, LeafNodeIndex, MlsGroup,
        MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsProvider as _,
        PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent, ProposalStore, RatchetTreeIn,
        StagedWelcome,
    },
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::{Deserialize as _, Serialize as _};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// The number of clients that one commit adds while a group is created.
const ADDED_AT_ONCE: usize = 2500;

/// A commit with its group info and welcome, and the proposals that it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) proposals: Vec<Vec<u8>>,
    pub(crate) commit: Vec<u8>,
    pub(crate) group_info: Vec<u8>,
    pub(crate) welcome: Option<Vec<u8>>,
    /// The number of signatures that an observer verifies: framing, path leaf, key packages (two each), updates, group info.
    pub(crate) signatures: usize,
}

/// A group at one epoch.
pub(crate) struct Starting {
    pub(crate) id: GroupId,
    pub(crate) group_info: Vec<u8>,
    pub(crate) tree: Vec<u8>,
    pub(crate) cases: Vec<Case>,
}

struct Client {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
}

impl Client {
    fn new(handle: &str) -> Self {
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(handle.as_bytes().to_vec()).into(),
            signature_key: signer.public().into(),
        };
        Self { provider: OpenMlsRustCrypto::default(), signer, credential }
    }

    fn key_package(&self) -> KeyPackage {
        let builder = KeyPackage::builder();
        let bundle = builder.build(SUITE, &self.provider, &self.signer, self.credential.clone()).unwrap();
        bundle.into_key_package()
    }

    fn commit(&self, group: &mut MlsGroup, added: Vec<KeyPackage>, removed: Option<u32>) -> Made {
        let bundle = group
            .commit_builder()
            .force_self_update(true)
            .propose_adds(added)
            .propose_removals(removed.map(LeafNodeIndex::new))
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        bundle.into_messages()
    }
}

type Made = (MlsMessageOut, Option<MlsMessageOut>, Option<MlsMessageOut>);

/// A group of this many members. Only two of them ever commit, so the tree is blank above the others, which is the worst case.
pub(crate) fn start(members: usize) -> Starting {
    let (alice, bob) = (Client::new("alice"), Client::new("bob"));
    let mut group = MlsGroup::builder()
        .ciphersuite(SUITE)
        .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(false)
        .build(&alice.provider, &alice.signer, alice.credential.clone())
        .unwrap();
    let mut left = members - 2;
    while left > 0 {
        let count = left.min(ADDED_AT_ONCE);
        let packages = (0..count).map(|number| Client::new(&format!("leaf {left} {number}")).key_package());
        alice.commit(&mut group, packages.collect(), None);
        group.merge_pending_commit(&alice.provider).unwrap();
        left -= count;
    }
    let (_, welcome, info) = alice.commit(&mut group, vec![bob.key_package()], None);
    group.merge_pending_commit(&alice.provider).unwrap();
    let tree = group.export_ratchet_tree().tls_serialize_detached().unwrap();
    let group_info = info.unwrap().to_bytes().unwrap();
    let mut of_bob = join(&bob, &welcome.unwrap(), &tree);

    let mut cases = Vec::new();
    cases.push(case("update", alice.commit(&mut group, Vec::new(), None), 3));
    group.clear_pending_commit(alice.provider.storage()).unwrap();
    cases.push(case("add", alice.commit(&mut group, vec![Client::new("carol").key_package()], None), 5));
    group.clear_pending_commit(alice.provider.storage()).unwrap();
    cases.push(case("remove", alice.commit(&mut group, Vec::new(), Some(1)), 3));
    group.clear_pending_commit(alice.provider.storage()).unwrap();
    cases.push(case("external", external(&Client::new("dave"), &group_info, &tree), 3));
    cases.push(by_reference(&alice, &mut group, &bob, &mut of_bob));
    Starting { id: group.group_id().clone(), group_info, tree, cases }
}

fn case(name: &'static str, (commit, welcome, info): Made, signatures: usize) -> Case {
    let bytes = |message: MlsMessageOut| message.to_bytes().unwrap();
    Case {
        name,
        proposals: Vec::new(),
        commit: bytes(commit),
        group_info: bytes(info.unwrap()),
        welcome: welcome.map(bytes),
        signatures,
    }
}

/// Four Adds that one member proposed and another commits.
fn by_reference(alice: &Client, group: &mut MlsGroup, bob: &Client, of_bob: &mut MlsGroup) -> Case {
    let mut proposals = Vec::new();
    for name in ["erin", "frank", "grace", "heidi"] {
        let package = Client::new(name).key_package();
        let (proposal, _) = of_bob.propose_add_member(&bob.provider, &bob.signer, &package).unwrap();
        let bytes = proposal.to_bytes().unwrap();
        let message =
            MlsMessageIn::tls_deserialize_exact(&bytes).unwrap().try_into_protocol_message().unwrap();
        let processed = group.process_message(&alice.provider, message).unwrap().into_content();
        let ProcessedMessageContent::ProposalMessage(queued) = processed else { panic!("not a proposal") };
        group.store_pending_proposal(alice.provider.storage(), *queued).unwrap();
        proposals.push(bytes);
    }
    let made = alice.commit(group, Vec::new(), None);
    // The proposals' signatures were verified on arrival; the checks of the commit include their key packages.
    Case { proposals, ..case("by reference", made, 3) }
}

fn external(client: &Client, group_info: &[u8], tree: &[u8]) -> Made {
    let MlsMessageBodyIn::GroupInfo(info) =
        MlsMessageIn::tls_deserialize_exact(group_info).unwrap().extract()
    else {
        panic!("not a group info");
    };
    let (_, bundle) = MlsGroup::external_commit_builder()
        .with_ratchet_tree(RatchetTreeIn::tls_deserialize_exact(tree).unwrap())
        .with_config(join_config())
        .build_group(&client.provider, info, client.credential.clone())
        .unwrap()
        .load_psks(client.provider.storage())
        .unwrap()
        .create_group_info(true)
        .use_ratchet_tree_extension(false)
        .build(client.provider.rand(), client.provider.crypto(), &client.signer, |_| true)
        .unwrap()
        .finalize(&client.provider)
        .unwrap();
    bundle.into_messages()
}

fn join(client: &Client, welcome: &MlsMessageOut, tree: &[u8]) -> MlsGroup {
    let bytes = welcome.to_bytes().unwrap();
    let MlsMessageBodyIn::Welcome(welcome) = MlsMessageIn::tls_deserialize_exact(&bytes).unwrap().extract()
    else {
        panic!("not a welcome");
    };
    let tree = RatchetTreeIn::tls_deserialize_exact(tree).unwrap();
    StagedWelcome::new_from_welcome(&client.provider, &join_config(), welcome, Some(tree))
        .unwrap()
        .into_group(&client.provider)
        .unwrap()
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(false)
        .build()
}

/// The same group as the MLS library tracks it, in its own memory storage.
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
