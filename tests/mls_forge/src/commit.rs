//! Commits: what they hold, what they do to a group, and the places where a test can make one wrong.

use crate::{
    Client, Commit, Content, EncryptedGroupSecrets, Extension, Group, GroupContext, GroupInfo,
    HpkeCiphertext, KeyPackage, LeafNode, LeafNodeSource, Node, Pending, Proposal, ProposalOrRef,
    PublicMessage, Sender, SigningKey, Tree, UpdatePath, UpdatePathNode, Welcome, group::external_pub,
};

/// Whether a commit has an update path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// If its proposals need one (RFC 9420 §12.4).
    AsNeeded,
    /// It has one.
    With,
    /// It has none.
    Without,
}

#[derive(Clone, Debug)]
enum Committer {
    Member(u32),
    Joiner(Box<Client>),
}

/// The content of a commit that is to be made.
#[derive(Clone, Debug)]
pub struct CommitPlan<'g> {
    group: &'g Group,
    committer: Committer,
    /// Its proposals, by value or reference. They are not checked; what cannot be applied is not.
    pub proposals: Vec<ProposalOrRef>,
    /// Whether it has a path.
    pub path: PathChoice,
    /// Its authenticated data.
    pub authenticated_data: Vec<u8>,
}

impl<'g> CommitPlan<'g> {
    pub(crate) fn by_member(group: &'g Group, committer: u32) -> Self {
        Self {
            group,
            committer: Committer::Member(committer),
            proposals: Vec::new(),
            path: PathChoice::AsNeeded,
            authenticated_data: Vec::new(),
        }
    }

    pub(crate) fn by_joiner(group: &'g Group, joiner: Client) -> Self {
        let kem_output = group.randomness.bytes(group.suite.kem_key_length());
        let committer = Committer::Joiner(Box::new(joiner));
        Self { committer, ..Self::by_member(group, 0) }.with(Proposal::ExternalInit(kem_output))
    }

    /// Adds a proposal by value.
    #[must_use]
    pub fn with(mut self, proposal: Proposal) -> Self {
        self.proposals.push(ProposalOrRef::Proposal(proposal));
        self
    }

    /// Adds proposals by value.
    #[must_use]
    pub fn with_all(mut self, proposals: impl IntoIterator<Item = Proposal>) -> Self {
        self.proposals.extend(proposals.into_iter().map(ProposalOrRef::Proposal));
        self
    }

    /// Adds a proposal by reference.
    #[must_use]
    pub fn with_reference(mut self, reference: &[u8]) -> Self {
        self.proposals.push(ProposalOrRef::Reference(reference.to_vec()));
        self
    }

    /// Adds all pending proposals by reference.
    #[must_use]
    pub fn with_pending(mut self) -> Self {
        let references = self.group.pending.iter().map(|pending| pending.reference.clone());
        self.proposals.extend(references.map(ProposalOrRef::Reference));
        self
    }

    /// Says whether it has a path.
    #[must_use]
    pub fn path(mut self, path: PathChoice) -> Self {
        self.path = path;
        self
    }

    /// Makes it as it should be.
    pub fn sign(self) -> Forged {
        self.draft().sign()
    }

    /// Makes all but hashes and signatures.
    pub fn draft(self) -> CommitDraft<'g> {
        let Self { group, committer, proposals, path, authenticated_data } = self;
        let (tree, extensions, added, needs_path) = applied(group, &committer, &proposals);
        let (sender, client) = match committer {
            Committer::Member(leaf_index) => (Sender::Member(leaf_index), group.client(leaf_index).clone()),
            Committer::Joiner(client) => (Sender::NewMemberCommit, *client),
        };
        let has_path = match path {
            PathChoice::With => true,
            PathChoice::Without => false,
            PathChoice::AsNeeded => needs_path || proposals.is_empty(),
        };
        let content = Content::Commit(Commit { proposals, path: None });
        let mut content = group.content(sender, content);
        content.authenticated_data = authenticated_data;
        let mut draft = CommitDraft {
            group,
            key: client.key.clone(),
            leaf_key: client.key.clone(),
            info_key: client.key.clone(),
            signed_context: group.context.clone(),
            message: PublicMessage {
                content,
                signature: Vec::new(),
                confirmation_tag: Some(group.randomness.bytes(group.suite.hash_length())),
                membership_tag: group.membership_tag(sender),
            },
            committer: 0,
            tree,
            extensions,
            added,
            path: Vec::new(),
            keep: Keep::default(),
            clients: Vec::new(),
        };
        draft.committer = match sender {
            Sender::Member(leaf_index) => leaf_index,
            Sender::External(_) | Sender::NewMemberProposal | Sender::NewMemberCommit => {
                draft.clients.push(client.clone());
                draft.tree.place(client.leaf(LeafNodeSource::Commit(Vec::new())))
            }
        };
        if has_path {
            draft.add_path(&client);
        }
        draft
    }
}

/// What the proposals make of a group's tree and extensions, which leaves they add, and whether they need a path.
fn applied(
    group: &Group,
    committer: &Committer,
    proposals: &[ProposalOrRef],
) -> (Tree, Vec<Extension>, Vec<(u32, KeyPackage)>, bool) {
    let sender = match committer {
        Committer::Member(leaf_index) => Sender::Member(*leaf_index),
        Committer::Joiner(_) => Sender::NewMemberCommit,
    };
    let list: Vec<(Sender, &Proposal)> = proposals
        .iter()
        .filter_map(|proposal| match proposal {
            ProposalOrRef::Proposal(proposal) => Some((sender, proposal)),
            ProposalOrRef::Reference(reference) => {
                let is_it = |pending: &&Pending| pending.reference == *reference;
                group.pending.iter().find(is_it).map(|pending| (pending.sender, &pending.proposal))
            }
        })
        .collect();
    let (mut tree, mut extensions) = (group.tree.clone(), group.context.extensions.clone());
    let mut added = Vec::new();
    // The order of RFC 9420 §12.3.
    for (_, proposal) in &list {
        if let Proposal::GroupContextExtensions(new) = proposal {
            extensions.clone_from(new);
        }
    }
    for (sender, proposal) in &list {
        if let (Sender::Member(leaf_index), Proposal::Update(leaf)) = (sender, proposal) {
            tree.update(*leaf_index, leaf.clone());
        }
    }
    for (sender, proposal) in &list {
        let removed = match (sender, proposal) {
            (_, Proposal::Remove(leaf_index)) | (Sender::Member(leaf_index), Proposal::SelfRemove) => {
                *leaf_index
            }
            _ => continue,
        };
        if tree.leaf(removed).is_some() {
            tree.remove(removed);
        }
    }
    for (_, proposal) in &list {
        if let Proposal::Add(package) = proposal {
            added.push((tree.add(package.leaf_node.clone()), package.clone()));
        }
    }
    let needs_path = list.iter().any(|(_, proposal)| proposal.needs_path());
    (tree, extensions, added, needs_path)
}

/// What signing leaves as the test made it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// The source of the path's leaf, and in it the parent hash.
    pub parent_hash: bool,
    /// The signature of the path's leaf.
    pub leaf_signature: bool,
}

/// A commit that is not signed yet. A test may change any of its parts; [`CommitDraft::sign`] computes parent hashes, tree
/// hash, transcript and signatures from what it finds.
#[derive(Clone, Debug)]
pub struct CommitDraft<'g> {
    group: &'g Group,
    /// The key that signs the commit.
    pub key: SigningKey,
    /// The key that signs the path's leaf.
    pub leaf_key: SigningKey,
    /// The key that signs the GroupInfo.
    pub info_key: SigningKey,
    /// The context that the commit's signature covers.
    pub signed_context: GroupContext,
    /// The commit, with its tags.
    pub message: PublicMessage,
    /// The committer's leaf index, which the path begins at.
    pub committer: u32,
    /// The tree after the proposals, before the path. The proposals in the message have been applied to it: to change these
    /// now changes the message alone.
    pub tree: Tree,
    /// The extensions of the next epoch's context.
    pub extensions: Vec<Extension>,
    /// The added leaves, and their key packages, to which there is a welcome.
    pub added: Vec<(u32, KeyPackage)>,
    /// The parents that get the keys of the path, the lowest first, each with its child on the copath.
    pub path: Vec<(usize, usize)>,
    /// What signing leaves alone.
    pub keep: Keep,
    /// Clients that the group knows when the commit is applied.
    pub clients: Vec<Client>,
}

impl CommitDraft<'_> {
    fn add_path(&mut self, client: &Client) {
        let suite = self.group.suite;
        self.path = self.tree.filtered_direct_path(self.committer);
        let is_added = |node: &usize| self.added.iter().any(|(leaf, _)| 2 * *leaf as usize == *node);
        let nodes = self.path.iter().map(|(_, copath)| {
            let receivers = self.tree.resolution(*copath).into_iter().filter(|node| !is_added(node));
            UpdatePathNode {
                encryption_key: suite.hpke_key(&self.group.randomness),
                encrypted_path_secret: receivers.map(|_| self.path_secret()).collect(),
            }
        });
        let nodes = nodes.collect();
        // A member's new leaf says what its old one said.
        let source = LeafNodeSource::Commit(Vec::new());
        let leaf_node = match self.group.tree.leaf(self.committer) {
            Some(old) if self.message.content.sender == Sender::Member(self.committer) => {
                let encryption_key = suite.hpke_key(&client.randomness);
                LeafNode { encryption_key, source, ..old.clone() }
            }
            _ => client.leaf(source),
        };
        self.message.commit_mut().path = Some(UpdatePath { leaf_node, nodes });
    }

    /// A path secret that is encrypted to somebody.
    pub fn path_secret(&self) -> HpkeCiphertext {
        let suite = self.group.suite;
        HpkeCiphertext {
            kem_output: suite.hpke_key(&self.group.randomness),
            ciphertext: self.group.randomness.bytes(suite.hash_length() + 16),
        }
    }

    /// The commit.
    pub fn commit_mut(&mut self) -> &mut Commit {
        self.message.commit_mut()
    }

    /// The leaf of the path.
    ///
    /// # Panics
    /// There is no path.
    pub fn leaf_mut(&mut self) -> &mut LeafNode {
        &mut self.commit_mut().path.as_mut().expect("a path").leaf_node
    }

    /// The nodes of the path, the lowest first.
    ///
    /// # Panics
    /// There is no path.
    pub fn nodes_mut(&mut self) -> &mut Vec<UpdatePathNode> {
        &mut self.commit_mut().path.as_mut().expect("a path").nodes
    }

    /// Makes the path's leaf one of this client, with another key, credential or other capabilities.
    ///
    /// # Panics
    /// There is no path.
    pub fn pass_leaf_to(&mut self, client: &Client) {
        let source = self.leaf_mut().source.clone();
        *self.leaf_mut() = client.leaf(source);
        self.leaf_key = client.key.clone();
        self.info_key = client.key.clone();
        self.clients.push(client.clone());
    }

    /// Computes all hashes, and signs.
    pub fn sign(mut self) -> Forged {
        let suite = self.group.suite;
        let (committer, group_id) = (self.committer, self.group.context.group_id.clone());
        if let Some(UpdatePath { leaf_node, nodes }) = &mut self.message.commit_mut().path {
            let mut leaf = leaf_node.clone();
            let keys: Vec<_> = nodes.iter().map(|node| node.encryption_key.clone()).collect();
            let parent_hash = self.tree.install_path(suite, committer, &self.path, &keys);
            if !self.keep.parent_hash {
                leaf.source = LeafNodeSource::Commit(parent_hash);
            }
            if !self.keep.leaf_signature {
                leaf.sign(&self.leaf_key, &group_id, committer);
            }
            self.tree.set_node(2 * committer as usize, Some(Node::Leaf(leaf.clone())));
            if let Some(path) = &mut self.message.commit_mut().path {
                path.leaf_node = leaf;
            }
        }
        self.message.sign(&self.key, &self.signed_context);
        let context = GroupContext {
            epoch: self.group.context.epoch.wrapping_add(1),
            tree_hash: self.tree.hash(suite),
            confirmed_transcript_hash: self
                .message
                .confirmed_transcript_hash(suite, &self.group.interim_transcript_hash),
            extensions: self.extensions.clone(),
            ..self.group.context.clone()
        };
        let mut group_info = GroupInfo {
            group_context: context.clone(),
            extensions: vec![external_pub(suite, &self.group.randomness)],
            confirmation_tag: self.message.confirmation_tag.clone().unwrap_or_default(),
            signer: committer,
            signature: Vec::new(),
        };
        group_info.sign(&self.info_key);
        let welcome = self.welcome();
        Forged {
            commit: self.message,
            group_info,
            info_key: self.info_key,
            welcome,
            context,
            tree: self.tree,
            clients: self.clients,
        }
    }

    fn welcome(&self) -> Option<Welcome> {
        let suite = self.group.suite;
        let secrets = self.added.iter().map(|(_, package)| EncryptedGroupSecrets {
            new_member: package.reference(suite),
            encrypted_group_secrets: HpkeCiphertext {
                kem_output: suite.hpke_key(&self.group.randomness),
                ciphertext: self.group.randomness.bytes(100),
            },
        });
        let secrets: Vec<_> = secrets.collect();
        let encrypted_group_info = self.group.randomness.bytes(300);
        (!secrets.is_empty()).then(|| Welcome { cipher_suite: suite.number(), secrets, encrypted_group_info })
    }
}

/// A signed commit, what is uploaded with it, and the epoch that it begins.
#[derive(Clone, Debug)]
pub struct Forged {
    /// The commit.
    pub commit: PublicMessage,
    /// The GroupInfo of the new epoch, without the tree.
    pub group_info: GroupInfo,
    /// The key that signed the GroupInfo.
    pub info_key: SigningKey,
    /// The Welcome, if clients are added.
    pub welcome: Option<Welcome>,
    /// The context of the new epoch.
    pub context: GroupContext,
    /// The tree of the new epoch.
    pub tree: Tree,
    /// Clients that the group knows when the commit is applied.
    pub clients: Vec<Client>,
}

impl Forged {
    /// The commit as an MLSMessage.
    pub fn commit_bytes(&self) -> Vec<u8> {
        self.commit.to_message()
    }

    /// The GroupInfo as an MLSMessage.
    pub fn group_info_bytes(&self) -> Vec<u8> {
        self.group_info.to_message()
    }

    /// The Welcome as an MLSMessage.
    pub fn welcome_bytes(&self) -> Option<Vec<u8>> {
        self.welcome.as_ref().map(Welcome::to_message)
    }

    /// Signs the GroupInfo again, after a test has changed it.
    pub fn sign_group_info(&mut self) {
        self.group_info.sign(&self.info_key);
    }
}
