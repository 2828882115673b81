//! One MLS client of a load test: its keys and its state of one group. It computes and asks nobody.

use std::sync::Arc;

use actors::{ClientHandle, Epoch, GroupId};
use openmls::{
    prelude::{
        BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, LeafNodeParameters, MlsGroup,
        MlsMessageBodyIn, OpenMlsProvider as _, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent,
        ProtocolMessage, Sender, StagedWelcome,
    },
    treesync::RatchetTree,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::Serialize as _;

use super::{DuringMls as _, LoadTestError};
use crate::api::{
    groups::{CommitBody, EpochMessages, NewGroupBody},
    joining::{GroupInfo, JoinInfoBody},
    text::Base64,
};
use crate::mls_messages::{bytes_of, commit_body, join_config, key_package_in, message_in, tree_in};

/// Suite 1, which every MLS client has (RFC 9420 §17.1).
pub(super) const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A client, and the one group that it is in.
pub(super) struct MlsMember {
    pub(super) handle: ClientHandle,
    provider: OpenMlsRustCrypto,
    signer: Arc<SignatureKeyPair>,
    credential: CredentialWithKey,
    group: Option<MlsGroup>,
    /// The own commit of which nobody knows yet whether it is accepted.
    pending: Option<Base64>,
}

impl MlsMember {
    /// Makes its signature keys.
    pub(super) fn new(handle: &str) -> Result<Self, LoadTestError> {
        let signer =
            SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm()).during_mls("making signature keys")?;
        let credential = CredentialWithKey {
            credential: BasicCredential::new(handle.as_bytes().to_vec()).into(),
            signature_key: signer.public().into(),
        };
        let signer = Arc::new(signer);
        let handle = ClientHandle::new(handle).during_mls("naming a client")?;
        Ok(Self {
            handle,
            provider: OpenMlsRustCrypto::default(),
            signer,
            credential,
            group: None,
            pending: None,
        })
    }

    pub(super) fn key_package(&self) -> Result<Base64, LoadTestError> {
        let package = KeyPackage::builder()
            .build(CIPHER_SUITE, &self.provider, &*self.signer, self.credential.clone())
            .during_mls("making a key package")?;
        Ok(bytes_of(&package.into_key_package().into())?)
    }

    /// Creates a group of this one member.
    pub(super) fn create_group(&mut self) -> Result<NewGroupBody, LoadTestError> {
        let group = MlsGroup::builder()
            .ciphersuite(CIPHER_SUITE)
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(false)
            .build(&self.provider, &*self.signer, self.credential.clone())
            .during_mls("creating a group")?;
        let info = group
            .export_group_info(self.provider.crypto(), &*self.signer, false)
            .during_mls("exporting a group info")?;
        let tree: RatchetTree = group.export_ratchet_tree();
        let tree = tree.tls_serialize_detached().during_mls("serialising a ratchet tree")?;
        self.group = Some(group);
        Ok(NewGroupBody { group_info: bytes_of(&info)?, ratchet_tree: Some(Base64(tree)) })
    }

    /// Joins by a welcome that came with its tree.
    pub(super) fn join(&mut self, join_info: &JoinInfoBody) -> Result<(), LoadTestError> {
        let MlsMessageBodyIn::Welcome(welcome) = message_in(&join_info.welcome)?.extract() else {
            return Err(unexpected("a welcome"));
        };
        let tree = join_info.ratchet_tree.as_ref().ok_or_else(|| unexpected("the tree of a welcome"))?;
        let group =
            StagedWelcome::new_from_welcome(&self.provider, &join_config(), welcome, Some(tree_in(tree)?))
                .during_mls("opening a welcome")?
                .into_group(&self.provider)
                .during_mls("joining by a welcome")?;
        self.group = Some(group);
        Ok(())
    }

    /// The commit of a client that joins from outside, and the client as it will be. If it is a member already, it
    /// comes back in the place of its old leaf (RFC 9420 §12.4.3.2).
    pub(super) fn external_commit(&self, info: &GroupInfo) -> Result<(Self, CommitBody), LoadTestError> {
        let step = "making an external commit";
        let MlsMessageBodyIn::GroupInfo(group_info) = message_in(&info.group_info)?.extract() else {
            return Err(unexpected("a group info"));
        };
        let provider = OpenMlsRustCrypto::default();
        let (group, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree_in(&info.ratchet_tree)?)
            .with_config(join_config())
            .build_group(&provider, group_info, self.credential.clone())
            .during_mls(step)?
            .load_psks(provider.storage())
            .during_mls(step)?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(provider.rand(), provider.crypto(), &*self.signer, |_| true)
            .during_mls(step)?
            .finalize(&provider)
            .during_mls(step)?;
        let joined = Self {
            handle: self.handle.clone(),
            provider,
            signer: Arc::clone(&self.signer),
            credential: self.credential.clone(),
            group: Some(group),
            pending: None,
        };
        Ok((joined, commit_body(bundle.into_messages())?))
    }

    /// A commit that adds the clients of key packages and carries the proposals that were taken in; with neither, an
    /// update of this member's own keys. It stays pending until it is applied or discarded.
    pub(super) fn make_commit(&mut self, added: &[Base64]) -> Result<CommitBody, LoadTestError> {
        let step = "making a commit";
        if self.pending.is_some() {
            self.discard_commit()?;
        }
        let (group, provider, signer) = self.joined()?;
        let packages = added.iter().map(|package| key_package_in(package, provider));
        let packages = packages.collect::<Result<Vec<_>, _>>()?;
        let bundle = group
            .commit_builder()
            .force_self_update(true)
            .propose_adds(packages)
            .load_psks(provider.storage())
            .during_mls(step)?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(provider.rand(), provider.crypto(), signer, |_| true)
            .during_mls(step)?
            .stage_commit(provider)
            .during_mls(step)?;
        let commit = commit_body(bundle.into_messages())?;
        self.pending = Some(commit.commit_packet.clone());
        Ok(commit)
    }

    /// An Update proposal of this member.
    pub(super) fn make_update_proposal(&mut self) -> Result<Base64, LoadTestError> {
        let step = "making a proposal";
        let (group, provider, signer) = self.joined()?;
        let (message, _) =
            group.propose_self_update(provider, signer, LeafNodeParameters::default()).during_mls(step)?;
        Ok(bytes_of(&message)?)
    }

    /// Takes in proposals of others, for the next commit.
    pub(super) fn take_in(&mut self, proposals: &[Base64]) -> Result<(), LoadTestError> {
        let step = "processing a proposal";
        let (group, provider, _) = self.joined()?;
        for proposal in proposals {
            let message = message_in(proposal)?.try_into_protocol_message().during_mls(step)?;
            let content = group.process_message(provider, message).during_mls(step)?.into_content();
            let ProcessedMessageContent::ProposalMessage(proposal) = content else {
                return Err(unexpected("a proposal"));
            };
            group.store_pending_proposal(provider.storage(), *proposal).during_mls(step)?;
        }
        Ok(())
    }

    /// Goes into the epoch that this member's own commit created.
    pub(super) fn apply_commit(&mut self) -> Result<(), LoadTestError> {
        self.pending = None;
        let (group, provider, _) = self.joined()?;
        group.merge_pending_commit(provider).during_mls("applying an own commit")
    }

    /// Forgets this member's own commit, which another one was faster than, and proposals of the epoch that is over.
    pub(super) fn discard_commit(&mut self) -> Result<(), LoadTestError> {
        self.pending = None;
        let (group, provider, _) = self.joined()?;
        group.clear_pending_commit(provider.storage()).during_mls("discarding a commit")
    }

    /// Applies commits, oldest first. The first may be this member's own, if it is pending.
    pub(super) fn follow(&mut self, epochs: &[EpochMessages]) -> Result<(), LoadTestError> {
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
            let (group, provider, _) = self.joined()?;
            let message = message_in(&epoch.commit)?.try_into_protocol_message().during_mls(step)?;
            let content = group.process_message(provider, message).during_mls(step)?.into_content();
            let ProcessedMessageContent::StagedCommitMessage(staged) = content else {
                return Err(unexpected("a commit"));
            };
            group.merge_staged_commit(provider, *staged).during_mls("applying a commit")?;
        }
        Ok(())
    }

    /// Takes in the proposals of a past commit, its own aside, which it has.
    fn take_in_foreign(&mut self, proposals: &[Base64]) -> Result<(), LoadTestError> {
        if proposals.is_empty() {
            return Ok(());
        }
        let (group, provider, _) = self.joined()?;
        let own = Sender::Member(group.own_leaf_index());
        let mut foreign = Vec::new();
        for proposal in proposals {
            let message =
                message_in(proposal)?.try_into_protocol_message().during_mls("reading a proposal")?;
            let ProtocolMessage::PublicMessage(message) = message else {
                return Err(unexpected("a public message"));
            };
            if *message.sender() != own {
                foreign.push(proposal.clone());
            }
        }
        if foreign.len() == proposals.len() {
            // What it took in before may not be what was committed.
            group.clear_pending_proposals(provider.storage()).during_mls("forgetting proposals")?;
        }
        self.take_in(&foreign)
    }

    pub(super) fn group_id(&self) -> Result<GroupId, LoadTestError> {
        let group = self.group.as_ref().ok_or_else(|| unexpected("a group"))?;
        GroupId::new(group.group_id().as_slice()).during_mls("reading the group id")
    }

    /// `None` outside of a group.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.group.as_ref().map(|group| Epoch(group.epoch().as_u64()))
    }

    /// What all members of an epoch have in common and nobody else knows (RFC 9420 §8.7).
    pub(super) fn epoch_authenticator(&self) -> Option<Vec<u8>> {
        self.group.as_ref().map(|group| group.epoch_authenticator().as_slice().to_vec())
    }

    fn joined(&mut self) -> Result<(&mut MlsGroup, &OpenMlsRustCrypto, &SignatureKeyPair), LoadTestError> {
        let group = self.group.as_mut().ok_or_else(|| unexpected("a group"))?;
        Ok((group, &self.provider, &self.signer))
    }
}

fn unexpected(missing: &str) -> LoadTestError {
    LoadTestError::Mls { step: "using an MLS message", reason: format!("{missing} was expected") }
}
