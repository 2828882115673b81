//! One MLS client: its keys and its state of one group. It computes and sends nothing.

use std::sync::Arc;

use actors::{ClientHandle, Epoch, GroupId};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, Credential, CredentialWithKey, KeyPackage, LeafNodeIndex,
    LeafNodeParameters, MlsGroup, MlsMessageBodyIn, OpenMlsProvider as _, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
    ProcessedMessageContent, ProtocolMessage, Sender, StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use super::{
    DuringLibrary as _, ToolError,
    mls_messages::{bytes_of, commit_body, join_config, key_package_in, message_in, tree_in, tree_of},
};
use crate::api::{
    groups::{CommitBody, EpochMessages, NewGroupBody},
    joining::{GroupInfo, JoinInfoBody},
    key_packages::{KeyPackageQuery, KeyPackageUploadBody, NewKeyQueueBody},
    text::Base64,
};

/// MLS 1.0 (RFC 9420 §6).
const PROTOCOL_VERSION: u16 = 1;
/// Suite 1, which every MLS client supports (RFC 9420 §17.1).
const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A client, and its only group.
pub(super) struct MlsClient {
    pub(super) handle: ClientHandle,
    provider: OpenMlsRustCrypto,
    signer: Arc<SignatureKeyPair>,
    credential: CredentialWithKey,
    /// It supports only its own type of credential.
    capabilities: Capabilities,
    group: Option<MlsGroup>,
    /// Its own commit, until the gateway has accepted or refused it.
    pending: Option<Base64>,
}

/// Outside of a group.
/// The key queue of a client's key packages.
pub(super) fn key_queue() -> NewKeyQueueBody {
    NewKeyQueueBody {
        protocol_version: PROTOCOL_VERSION,
        cipher_suite: CIPHER_SUITE.into(),
        app_label: String::new(),
    }
}

/// The query for a key package out of such a queue.
pub(super) fn key_package_query(receiver: String) -> KeyPackageQuery {
    KeyPackageQuery::new(PROTOCOL_VERSION, CIPHER_SUITE.into(), receiver)
}

impl MlsClient {
    /// A client with a basic credential of this handle.
    pub(super) fn basic(handle: &str) -> Result<Self, ToolError> {
        Self::new(|_| {
            let credential = BasicCredential::new(handle.as_bytes().to_vec()).into();
            Ok((ClientHandle::new(handle).during_library("naming a client")?, credential))
        })
    }

    /// A client with new signature keys. `identify` gives the handle and the credential for its public key.
    pub(super) fn new(
        identify: impl FnOnce(&[u8]) -> Result<(ClientHandle, Credential), ToolError>,
    ) -> Result<Self, ToolError> {
        let signer = SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm())
            .during_library("making signature keys")?;
        let (handle, credential) = identify(signer.public())?;
        let capabilities = Capabilities::new(None, None, None, None, Some(&[credential.credential_type()]));
        Ok(Self {
            handle,
            provider: OpenMlsRustCrypto::default(),
            credential: CredentialWithKey { credential, signature_key: signer.public().into() },
            signer: Arc::new(signer),
            capabilities,
            group: None,
            pending: None,
        })
    }

    pub(super) fn key_package(&self) -> Result<Base64, ToolError> {
        let package = KeyPackage::builder()
            .leaf_node_capabilities(self.capabilities.clone())
            .build(CIPHER_SUITE, &self.provider, &*self.signer, self.credential.clone())
            .during_library("making a key package")?;
        bytes_of(&package.into_key_package().into())
    }

    /// An upload of fresh key packages.
    pub(super) fn key_packages(&self, count: usize) -> Result<KeyPackageUploadBody, ToolError> {
        let key_packages = (0..count).map(|_| self.key_package()).collect::<Result<_, _>>()?;
        Ok(KeyPackageUploadBody { key_packages, ..KeyPackageUploadBody::default() })
    }

    /// Creates a group with this member alone (*Group Creation*).
    pub(super) fn create_group(&mut self) -> Result<NewGroupBody, ToolError> {
        let group = MlsGroup::builder()
            .ciphersuite(CIPHER_SUITE)
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(false)
            .with_capabilities(self.capabilities.clone())
            .build(&self.provider, &*self.signer, self.credential.clone())
            .during_library("creating a group")?;
        let info = group
            .export_group_info(self.provider.crypto(), &*self.signer, false)
            .during_library("exporting a group info")?;
        let tree = tree_of(&group.export_ratchet_tree())?;
        self.group = Some(group);
        Ok(NewGroupBody { group_info: bytes_of(&info)?, ratchet_tree: Some(tree) })
    }

    /// Joins by a welcome that came with its tree (*Joining*).
    pub(super) fn join(&mut self, join_info: &JoinInfoBody) -> Result<(), ToolError> {
        let MlsMessageBodyIn::Welcome(welcome) = message_in(&join_info.welcome)?.extract() else {
            return Err(ToolError::missing("a welcome"));
        };
        let tree = join_info.ratchet_tree.as_ref();
        let tree = tree_in(tree.ok_or_else(|| ToolError::missing("the ratchet tree of a welcome"))?)?;
        let group = StagedWelcome::new_from_welcome(&self.provider, &join_config(), welcome, Some(tree))
            .during_library("opening a welcome")?
            .into_group(&self.provider)
            .during_library("joining by a welcome")?;
        self.group = Some(group);
        Ok(())
    }

    /// The external commit of this client, and the client as it is when the commit is accepted. A client that is already a
    /// member replaces its old leaf (RFC 9420 §12.4.3.2).
    pub(super) fn external_commit(&self, info: &GroupInfo) -> Result<(Self, CommitBody), ToolError> {
        let step = "making an external commit";
        let MlsMessageBodyIn::GroupInfo(group_info) = message_in(&info.group_info)?.extract() else {
            return Err(ToolError::missing("a group info"));
        };
        let provider = OpenMlsRustCrypto::default();
        let leaf = LeafNodeParameters::builder().with_capabilities(self.capabilities.clone()).build();
        let (group, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree_in(&info.ratchet_tree)?)
            .with_config(join_config())
            .build_group(&provider, group_info, self.credential.clone())
            .during_library(step)?
            .leaf_node_parameters(leaf)
            .load_psks(provider.storage())
            .during_library(step)?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(provider.rand(), provider.crypto(), &*self.signer, |_| true)
            .during_library(step)?
            .finalize(&provider)
            .during_library(step)?;
        let joined = Self {
            handle: self.handle.clone(),
            provider,
            signer: Arc::clone(&self.signer),
            credential: self.credential.clone(),
            capabilities: self.capabilities.clone(),
            group: Some(group),
            pending: None,
        };
        Ok((joined, commit_body(bundle.into_messages())?))
    }
}

/// Inside a group.
impl MlsClient {
    /// A commit that adds the clients of these key packages, removes these members and includes the received proposals. With
    /// none of them, it updates the member's own keys. It stays pending until it is applied or discarded.
    pub(super) fn make_commit(
        &mut self,
        added: &[Base64],
        removed: &[&Self],
    ) -> Result<CommitBody, ToolError> {
        let step = "making a commit";
        if self.pending.is_some() {
            self.discard_commit()?;
        }
        let (group, provider, signer) = self.joined_mut()?;
        let packages = added.iter().map(|package| key_package_in(package, provider));
        let packages = packages.collect::<Result<Vec<_>, _>>()?;
        let leaves = removed.iter().map(|member| member.leaf_in(group)).collect::<Result<Vec<_>, _>>()?;
        let bundle = group
            .commit_builder()
            .force_self_update(true)
            .propose_adds(packages)
            .propose_removals(leaves)
            .load_psks(provider.storage())
            .during_library(step)?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(provider.rand(), provider.crypto(), signer, |_| true)
            .during_library(step)?
            .stage_commit(provider)
            .during_library(step)?;
        let commit = commit_body(bundle.into_messages())?;
        self.pending = Some(commit.commit_packet.clone());
        Ok(commit)
    }

    /// An Update proposal of this member.
    pub(super) fn make_update_proposal(&mut self) -> Result<Base64, ToolError> {
        let (group, provider, signer) = self.joined_mut()?;
        let (message, _) = group
            .propose_self_update(provider, signer, LeafNodeParameters::default())
            .during_library("making a proposal")?;
        bytes_of(&message)
    }

    /// Processes proposals of others, for the next commit.
    pub(super) fn take_in(&mut self, proposals: &[Base64]) -> Result<(), ToolError> {
        let step = "processing a proposal";
        let (group, provider, _) = self.joined_mut()?;
        for proposal in proposals {
            let message = message_in(proposal)?.try_into_protocol_message().during_library(step)?;
            let content = group.process_message(provider, message).during_library(step)?.into_content();
            let ProcessedMessageContent::ProposalMessage(proposal) = content else {
                return Err(ToolError::missing("a proposal"));
            };
            group.store_pending_proposal(provider.storage(), *proposal).during_library(step)?;
        }
        Ok(())
    }

    /// Moves to the epoch that this member's own commit created.
    pub(super) fn apply_commit(&mut self) -> Result<(), ToolError> {
        self.pending = None;
        let (group, provider, _) = self.joined_mut()?;
        group.merge_pending_commit(provider).during_library("applying an own commit")
    }

    /// Drops this member's own commit, and the proposals of the epoch.
    pub(super) fn discard_commit(&mut self) -> Result<(), ToolError> {
        self.pending = None;
        let (group, provider, _) = self.joined_mut()?;
        group.clear_pending_commit(provider.storage()).during_library("discarding a commit")
    }

    /// Applies commits, oldest first. The first may be this member's own, if it is pending.
    pub(super) fn follow(&mut self, epochs: &[EpochMessages]) -> Result<(), ToolError> {
        let step = "processing a commit";
        for epoch in epochs {
            match self.pending.take() {
                Some(own) if own == epoch.commit => {
                    self.apply_commit()?;
                    continue;
                }
                Some(_) => self.discard_commit()?,
                None => {}
            }
            self.take_in_foreign(&epoch.proposals)?;
            let (group, provider, _) = self.joined_mut()?;
            let message = message_in(&epoch.commit)?.try_into_protocol_message().during_library(step)?;
            let content = group.process_message(provider, message).during_library(step)?.into_content();
            let ProcessedMessageContent::StagedCommitMessage(staged) = content else {
                return Err(ToolError::missing("a commit"));
            };
            group.merge_staged_commit(provider, *staged).during_library("applying a commit")?;
        }
        Ok(())
    }

    /// Processes the proposals of a past commit, except this member's own, which it has.
    fn take_in_foreign(&mut self, proposals: &[Base64]) -> Result<(), ToolError> {
        if proposals.is_empty() {
            return Ok(());
        }
        let (group, provider, _) = self.joined_mut()?;
        let own = Sender::Member(group.own_leaf_index());
        let mut foreign = Vec::new();
        for proposal in proposals {
            let message =
                message_in(proposal)?.try_into_protocol_message().during_library("reading a proposal")?;
            let ProtocolMessage::PublicMessage(message) = message else {
                return Err(ToolError::missing("a public message"));
            };
            if *message.sender() != own {
                foreign.push(proposal.clone());
            }
        }
        if foreign.len() == proposals.len() {
            // The proposals processed before may not be the committed ones.
            group.clear_pending_proposals(provider.storage()).during_library("forgetting proposals")?;
        }
        self.take_in(&foreign)
    }

    pub(super) fn group_id(&self) -> Result<GroupId, ToolError> {
        GroupId::new(self.joined()?.group_id().as_slice()).during_library("reading the group id")
    }

    /// `None` outside of a group.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.group.as_ref().map(|group| Epoch(group.epoch().as_u64()))
    }

    /// The secret that only the members of an epoch share (RFC 9420 §8.7); `None` outside of a group.
    pub(super) fn epoch_authenticator(&self) -> Option<Vec<u8>> {
        self.group.as_ref().map(|group| group.epoch_authenticator().as_slice().to_vec())
    }

    /// Whether it is a member, as far as it knows.
    pub(super) fn is_active(&self) -> bool {
        self.group.as_ref().is_some_and(MlsGroup::is_active)
    }

    /// The leaf of this member in another member's group.
    fn leaf_in(&self, group: &MlsGroup) -> Result<LeafNodeIndex, ToolError> {
        group
            .members()
            .find(|member| member.signature_key == self.signer.public())
            .map(|member| member.index)
            .ok_or_else(|| ToolError::missing("the member to remove"))
    }

    fn joined(&self) -> Result<&MlsGroup, ToolError> {
        self.group.as_ref().ok_or_else(|| ToolError::missing("a group"))
    }

    fn joined_mut(&mut self) -> Result<(&mut MlsGroup, &OpenMlsRustCrypto, &SignatureKeyPair), ToolError> {
        let group = self.group.as_mut().ok_or_else(|| ToolError::missing("a group"))?;
        Ok((group, &self.provider, &self.signer))
    }
}

#[cfg(test)]
mod tests {
    use actors::{DeliveryId, Timestamp};

    use super::*;
    use crate::api::{joining::JoinInfoId, text::GroupIdText};

    /// The control messages of the epoch that a commit creates.
    fn epoch(commit: &CommitBody, proposals: &[Base64]) -> EpochMessages {
        EpochMessages {
            epoch_id: Epoch(0),
            timestamp: Timestamp(0),
            proposals: proposals.to_vec(),
            commit: commit.commit_packet.clone(),
        }
    }

    fn tree(member: &MlsClient) -> Base64 {
        tree_of(&member.joined().unwrap().export_ratchet_tree()).unwrap()
    }

    #[track_caller]
    fn assert_agree(members: &[&MlsClient], epoch: u64) {
        for member in members {
            assert_eq!(member.epoch(), Some(Epoch(epoch)));
            assert!(member.is_active());
            assert_eq!(member.epoch_authenticator(), members[0].epoch_authenticator());
        }
    }

    /// A group of Alice and Bob in epoch 1.
    fn pair() -> [MlsClient; 2] {
        let [mut alice, mut bob] = ["alice", "bob"].map(|handle| MlsClient::basic(handle).unwrap());
        alice.create_group().unwrap();
        let commit = alice.make_commit(&[bob.key_package().unwrap()], &[]).unwrap();
        alice.apply_commit().unwrap();
        let join_info = JoinInfoBody {
            id: JoinInfoId(DeliveryId(1)),
            group_id: GroupIdText(alice.group_id().unwrap()),
            epoch_id: Epoch(1),
            welcome: commit.welcome_packet.unwrap(),
            ratchet_tree: Some(tree(&alice)),
        };
        assert_eq!(bob.epoch(), None);
        bob.join(&join_info).unwrap();
        assert_agree(&[&alice, &bob], 1);
        [alice, bob]
    }

    #[test]
    fn a_pending_commit_is_applied_or_gives_way() {
        let [mut alice, mut bob] = pair();
        let accepted = alice.make_commit(&[], &[]).unwrap();
        bob.make_commit(&[], &[]).unwrap();
        // Both follow the same control messages: one finds its own commit there, the other loses its own.
        for member in [&mut alice, &mut bob] {
            member.follow(&[epoch(&accepted, &[])]).unwrap();
        }
        assert_agree(&[&alice, &bob], 2);
    }

    #[test]
    fn a_commit_carries_the_proposals_that_were_taken_in() {
        let [mut alice, mut bob] = pair();
        let update = [bob.make_update_proposal().unwrap()];
        alice.take_in(&update).unwrap();
        let commit = alice.make_commit(&[], &[]).unwrap();
        alice.apply_commit().unwrap();
        bob.follow(&[epoch(&commit, &update)]).unwrap();
        assert_agree(&[&alice, &bob], 2);
    }

    #[test]
    fn a_client_joins_from_outside_and_a_removed_one_is_out() {
        let [mut alice, mut bob] = pair();
        let commit = alice.make_commit(&[], &[]).unwrap();
        alice.apply_commit().unwrap();
        let info = GroupInfo { group_info: commit.group_info.clone().unwrap(), ratchet_tree: tree(&alice) };
        let (carol, joining) = MlsClient::basic("carol").unwrap().external_commit(&info).unwrap();
        bob.follow(&[epoch(&commit, &[]), epoch(&joining, &[])]).unwrap();
        alice.follow(&[epoch(&joining, &[])]).unwrap();
        assert_agree(&[&alice, &bob, &carol], 3);

        let removal = alice.make_commit(&[], &[&bob]).unwrap();
        alice.apply_commit().unwrap();
        bob.follow(&[epoch(&removal, &[])]).unwrap();
        assert!(!bob.is_active());
        assert_ne!(bob.epoch_authenticator(), alice.epoch_authenticator());
    }
}
