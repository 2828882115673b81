//! Groups whose members are all known: their context, tree, transcript and signature keys.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Client, CommitPlan, Content, Extension, ExternalSender, Forged, FramedContent, GroupContext, GroupInfo,
    LeafNode, LeafNodeSource, MLS_10, Proposal, PublicMessage, Randomness, Sender, SigningKey, Suite, Tls,
    Tree, extension,
};

/// A proposal that waits for a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its reference (RFC 9420 §5.2).
    pub reference: Vec<u8>,
    /// Its sender.
    pub sender: Sender,
    /// The proposal.
    pub proposal: Proposal,
}

/// Whether the parents of a new tree are populated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedTree {
    /// All parents are blank, as after a commit that added everybody without a path.
    Blank,
    /// All parents are populated, as after a commit of each member in turn.
    Populated,
}

/// A group at an epoch, with the signature keys of its members.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its cipher suite.
    pub suite: Suite,
    /// Its context (RFC 9420 §8.1).
    pub context: GroupContext,
    /// Its ratchet tree.
    pub tree: Tree,
    /// The interim transcript hash of the epoch (RFC 9420 §8.2).
    pub interim_transcript_hash: Vec<u8>,
    /// The confirmation tag of the commit that began the epoch.
    pub confirmation_tag: Vec<u8>,
    /// The proposals of the epoch that can be referred to.
    pub pending: Vec<Pending>,
    /// Where keys, tags and ciphertexts come from.
    pub randomness: Randomness,
    /// The clients, by their signature keys.
    clients: Arc<HashMap<Vec<u8>, Client>>,
}

impl Group {
    /// A group of its creator alone, at epoch 0 (RFC 9420 §11).
    pub fn create(creator: Client) -> Self {
        Self::create_with(creator, Vec::new())
    }

    /// A group of its creator alone, with extensions of its context.
    pub fn create_with(creator: Client, extensions: Vec<Extension>) -> Self {
        let mut leaf = creator.leaf(LeafNodeSource::KeyPackage(creator.lifetime.clone()));
        leaf.sign(&creator.key, &[], 0);
        let mut group = Self::new(creator.suite, Tree::of(leaf), extensions);
        group.know(&creator);
        group.settle();
        group
    }

    /// A group of `count` members, made at once; they are called `member 0` and so on.
    pub fn of_members(suite: Suite, count: usize, tree: SharedTree) -> Self {
        Self::of_clients((0..count).map(|at| Client::new(suite, &format!("member {at}"))).collect(), tree)
    }

    /// A group of these clients, made at once; the first one has the leaf 0, and so on.
    ///
    /// # Panics
    /// There are none.
    pub fn of_clients(clients: Vec<Client>, shared: SharedTree) -> Self {
        Self::of_clients_with(clients, shared, Vec::new())
    }

    /// A group of these clients, made at once, with extensions of its context.
    ///
    /// # Panics
    /// There are no clients.
    pub fn of_clients_with(clients: Vec<Client>, shared: SharedTree, extensions: Vec<Extension>) -> Self {
        let suite = clients[0].suite;
        let mut leaves: Vec<LeafNode> = clients
            .iter()
            .map(|client| client.leaf(LeafNodeSource::KeyPackage(client.lifetime.clone())))
            .collect();
        if shared == SharedTree::Blank {
            for (leaf, client) in leaves.iter_mut().zip(&clients) {
                leaf.sign(&client.key, &[], 0);
            }
        }
        let mut group = Self::new(suite, Tree::of_leaves(leaves), extensions);
        if shared == SharedTree::Populated {
            let (randomness, group_id) = (group.randomness.clone(), group.context.group_id.clone());
            group.tree.populate(suite, &mut || suite.hpke_key(&randomness), &mut |index, leaf| {
                leaf.sign(&clients[index as usize].key, &group_id, index);
            });
            group.context.epoch = clients.len() as u64;
        } else {
            group.context.epoch = u64::from(clients.len() > 1);
        }
        if group.context.epoch > 0 {
            group.context.confirmed_transcript_hash = group.randomness.bytes(suite.hash_length());
        }
        let by_key = clients.into_iter().map(|client| (client.key.public(), client));
        group.clients = Arc::new(by_key.collect());
        group.settle();
        group
    }

    fn new(suite: Suite, tree: Tree, extensions: Vec<Extension>) -> Self {
        let first = tree.leaf(0).expect("a group has a first member");
        let randomness = Randomness::new(&first.encryption_key);
        Self {
            suite,
            context: GroupContext {
                version: MLS_10,
                cipher_suite: suite.number(),
                group_id: randomness.bytes(16),
                epoch: 0,
                tree_hash: Vec::new(),
                confirmed_transcript_hash: Vec::new(),
                extensions,
            },
            tree,
            interim_transcript_hash: Vec::new(),
            confirmation_tag: randomness.bytes(suite.hash_length()),
            pending: Vec::new(),
            randomness,
            clients: Arc::default(),
        }
    }

    /// Makes the context and the transcript fit the tree, after a test has changed it.
    pub fn settle(&mut self) {
        self.context.tree_hash = self.tree.hash(self.suite);
        self.interim_transcript_hash = interim_transcript_hash(
            self.suite,
            &self.context.confirmed_transcript_hash,
            &self.confirmation_tag,
        );
    }

    /// Learns a client's signature key, so that it can sign where its public key is used.
    pub fn know(&mut self, client: &Client) {
        Arc::make_mut(&mut self.clients).insert(client.key.public(), client.clone());
    }

    /// The client that has a leaf.
    ///
    /// # Panics
    /// The leaf is blank, or its signature key is unknown.
    pub fn client(&self, leaf_index: u32) -> &Client {
        let leaf = self.tree.leaf(leaf_index).expect("the leaf is blank");
        self.client_of(&leaf.signature_key)
    }

    /// The client with a signature key.
    ///
    /// # Panics
    /// It is unknown.
    pub fn client_of(&self, signature_key: &[u8]) -> &Client {
        self.clients.get(signature_key).expect("the client's key is not known")
    }

    /// The leaf indexes of its members.
    pub fn members(&self) -> Vec<u32> {
        self.tree.leaves().map(|(index, _)| index).collect()
    }

    /// The tree, as `ratchet_tree` extensions hold it (RFC 9420 §12.4.3.3).
    pub fn tree_bytes(&self) -> Vec<u8> {
        self.tree.to_bytes()
    }

    /// A GroupInfo of its first member, without the tree.
    pub fn group_info(&self) -> GroupInfo {
        self.group_info_by(self.members()[0])
    }

    /// A GroupInfo of a member, without the tree.
    pub fn group_info_by(&self, signer: u32) -> GroupInfo {
        let key = self.client(signer).key.clone();
        let mut info = GroupInfo {
            group_context: self.context.clone(),
            extensions: vec![external_pub(self.suite, &self.randomness)],
            confirmation_tag: self.confirmation_tag.clone(),
            signer,
            signature: Vec::new(),
        };
        info.sign(&key);
        info
    }

    /// A GroupInfo of a member, with the tree.
    pub fn group_info_with_tree(&self, signer: u32) -> GroupInfo {
        let mut info = self.group_info_by(signer);
        info.extensions.push(Extension { kind: extension::RATCHET_TREE, data: self.tree_bytes() });
        info.sign(&self.client(signer).key);
        info
    }

    /// A proposal that adds a client by a new key package.
    pub fn add(&mut self, client: &Client) -> Proposal {
        self.know(client);
        Proposal::Add(client.key_package())
    }

    /// A proposal that gives a member's leaf a new encryption key.
    pub fn update(&mut self, leaf_index: u32) -> Proposal {
        let client = self.client(leaf_index).clone();
        self.update_to(leaf_index, &client)
    }

    /// A proposal that replaces a member's leaf by one of this client.
    pub fn update_to(&mut self, leaf_index: u32, client: &Client) -> Proposal {
        self.know(client);
        let mut leaf = client.leaf(LeafNodeSource::Update);
        leaf.sign(&client.key, &self.context.group_id, leaf_index);
        Proposal::Update(leaf)
    }

    /// A signed message that holds a proposal. It is not pending.
    pub fn proposal(&self, sender: Sender, proposal: Proposal) -> PublicMessage {
        let mut message = PublicMessage {
            content: self.content(sender, Content::Proposal(proposal)),
            signature: Vec::new(),
            confirmation_tag: None,
            membership_tag: self.membership_tag(sender),
        };
        self.sign(&mut message);
        message
    }

    /// Makes a proposal pending, and returns its reference.
    ///
    /// # Panics
    /// The message holds none.
    pub fn pend(&mut self, message: &PublicMessage) -> Vec<u8> {
        let Content::Proposal(proposal) = &message.content.content else { panic!("not a proposal") };
        let reference = message.reference(self.suite);
        self.pending.push(Pending {
            reference: reference.clone(),
            sender: message.content.sender,
            proposal: proposal.clone(),
        });
        reference
    }

    /// A signed message that holds a proposal, which is pending then.
    pub fn propose(&mut self, sender: Sender, proposal: Proposal) -> PublicMessage {
        let message = self.proposal(sender, proposal);
        self.pend(&message);
        message
    }

    /// Signs a message for its sender again, after a test has changed it.
    pub fn sign(&self, message: &mut PublicMessage) {
        message.sign(&self.key_of(&message.content), &self.context);
    }

    /// The signature key of a message's sender (RFC 9420 §6.1).
    ///
    /// # Panics
    /// It is not known, or there is no such sender.
    pub fn key_of(&self, content: &FramedContent) -> SigningKey {
        let client = match (content.sender, &content.content) {
            (Sender::Member(leaf_index), _) => self.client(leaf_index),
            (Sender::External(place), _) => {
                let senders = self.context.extension(extension::EXTERNAL_SENDERS).expect("external senders");
                let senders = Vec::<ExternalSender>::from_bytes(senders).expect("external senders");
                self.client_of(&senders[place as usize].signature_key)
            }
            (Sender::NewMemberProposal, Content::Proposal(Proposal::Add(package))) => {
                self.client_of(&package.leaf_node.signature_key)
            }
            (Sender::NewMemberCommit, Content::Commit(commit)) => {
                let path = commit.path.as_ref().expect("an external commit with a path");
                self.client_of(&path.leaf_node.signature_key)
            }
            (Sender::NewMemberProposal | Sender::NewMemberCommit, _) => {
                panic!("a new member sends no such thing")
            }
        };
        client.key.clone()
    }

    /// A commit by a member, to be filled.
    pub fn commit(&self, committer: u32) -> CommitPlan<'_> {
        CommitPlan::by_member(self, committer)
    }

    /// An external commit by a client (RFC 9420 §12.4.3.2), to be filled; it holds an ExternalInit.
    pub fn external_commit(&self, joiner: &Client) -> CommitPlan<'_> {
        CommitPlan::by_joiner(self, joiner.clone())
    }

    /// Goes on to the epoch that a commit begins.
    pub fn apply(&mut self, forged: &Forged) {
        self.context.clone_from(&forged.context);
        self.tree.clone_from(&forged.tree);
        self.confirmation_tag = forged.commit.confirmation_tag.clone().unwrap_or_default();
        self.interim_transcript_hash = interim_transcript_hash(
            self.suite,
            &self.context.confirmed_transcript_hash,
            &self.confirmation_tag,
        );
        self.pending.clear();
        for client in &forged.clients {
            self.know(client);
        }
    }

    pub(crate) fn content(&self, sender: Sender, content: Content) -> FramedContent {
        FramedContent {
            group_id: self.context.group_id.clone(),
            epoch: self.context.epoch,
            sender,
            authenticated_data: Vec::new(),
            content,
        }
    }

    pub(crate) fn membership_tag(&self, sender: Sender) -> Option<Vec<u8>> {
        matches!(sender, Sender::Member(_)).then(|| self.randomness.bytes(self.suite.hash_length()))
    }
}

/// RFC 9420 §8.2.
fn interim_transcript_hash(suite: Suite, confirmed: &[u8], confirmation_tag: &[u8]) -> Vec<u8> {
    let mut input = confirmed.to_vec();
    confirmation_tag.to_vec().write(&mut input);
    suite.hash(&input)
}

/// `external_pub` (RFC 9420 §12.4.3.2).
pub(crate) fn external_pub(suite: Suite, randomness: &Randomness) -> Extension {
    Extension::of(extension::EXTERNAL_PUB, &suite.hpke_key(randomness))
}
