//! A person's device: an MLS client with its keys and its state of one group. It sends nothing itself.

use std::error::Error;

use actors::{ClientHandle, Epoch};
use mimi_gateway::api::{
    groups::{CommitBody, EpochMessages, NewGroupBody},
    text::Base64,
};
use openmls::prelude::*;
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::{Deserialize as _, Serialize as _};

/// The cipher suite of all devices (RFC 9420, section 17.1).
pub(crate) const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) struct Device {
    pub(crate) handle: ClientHandle,
    openmls: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    group: Option<MlsGroup>,
}

impl Device {
    /// A device with new keys. Its credential names its handle.
    pub(crate) fn new(handle: &str) -> Result<Self> {
        let signer = SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm())?;
        let credential = CredentialWithKey {
            credential: BasicCredential::new(handle.into()).into(),
            signature_key: signer.public().into(),
        };
        let handle = ClientHandle::new(handle)?;
        Ok(Self { handle, openmls: OpenMlsRustCrypto::default(), signer, credential, group: None })
    }

    pub(crate) fn key_package(&self) -> Result<Base64> {
        let made = KeyPackage::builder().build(
            CIPHER_SUITE,
            &self.openmls,
            &self.signer,
            self.credential.clone(),
        )?;
        to_base64(&made.key_package().clone().into())
    }

    /// Creates a group with this device alone.
    pub(crate) fn create_group(&mut self) -> Result<NewGroupBody> {
        let group = MlsGroup::builder()
            .ciphersuite(CIPHER_SUITE)
            // The gateway orders commits, so it has to see them.
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .build(&self.openmls, &self.signer, self.credential.clone())?;
        let group_info = to_base64(&group.export_group_info(self.openmls.crypto(), &self.signer, false)?)?;
        let ratchet_tree = Base64(group.export_ratchet_tree().tls_serialize_detached()?);
        self.group = Some(group);
        Ok(NewGroupBody { group_info, ratchet_tree: Some(ratchet_tree) })
    }

    /// Joins a group by a welcome, with the ratchet tree that the gateway delivers with it.
    pub(crate) fn join(&mut self, welcome: &Base64, ratchet_tree: &Base64) -> Result<()> {
        let MlsMessageBodyIn::Welcome(welcome) = from_base64(welcome)?.extract() else {
            return Err("not a welcome".into());
        };
        let tree = RatchetTreeIn::tls_deserialize_exact(&ratchet_tree.0)?;
        let config =
            MlsGroupJoinConfig::builder().wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY).build();
        let staged = StagedWelcome::new_from_welcome(&self.openmls, &config, welcome, Some(tree))?;
        self.group = Some(staged.into_group(&self.openmls)?);
        Ok(())
    }

    /// Commits to the proposals that it has received and to the addition of a key package; with neither, it renews its
    /// keys.
    pub(crate) fn commit(&mut self, added: Option<&Base64>) -> Result<CommitBody> {
        let added = added.map(|package| self.check_key_package(package)).transpose()?;
        let (openmls, signer) = (&self.openmls, &self.signer);
        let group = self.group.as_mut().ok_or("in no group")?;
        let (commit, welcome, group_info) = group
            .commit_builder()
            .propose_adds(added)
            .force_self_update(true)
            .load_psks(openmls.storage())?
            .create_group_info(true)
            .build(openmls.rand(), openmls.crypto(), signer, |_| true)?
            .stage_commit(openmls)?
            .into_messages();
        Ok(CommitBody {
            commit_packet: to_base64(&commit)?,
            group_info: group_info.as_ref().map(to_base64).transpose()?,
            welcome_packet: welcome.as_ref().map(to_base64).transpose()?,
        })
    }

    /// The gateway has accepted this device's commit: the device moves to the epoch that it created.
    pub(crate) fn commit_accepted(&mut self) -> Result<()> {
        Ok(self.group.as_mut().ok_or("in no group")?.merge_pending_commit(&self.openmls)?)
    }

    /// The gateway has refused this device's commit: the device stays in its epoch.
    pub(crate) fn commit_refused(&mut self) -> Result<()> {
        Ok(self.group.as_mut().ok_or("in no group")?.clear_pending_commit(self.openmls.storage())?)
    }

    /// Proposes to remove this device. Another member has to commit to it.
    pub(crate) fn propose_to_leave(&mut self) -> Result<Base64> {
        to_base64(&self.group.as_mut().ok_or("in no group")?.leave_group(&self.openmls, &self.signer)?)
    }

    /// Applies the commits of other members, oldest first. A device that has not received the proposals that a commit refers
    /// to takes them from `epoch.proposals`; in this story, it has.
    pub(crate) fn follow(&mut self, epochs: &[EpochMessages]) -> Result<()> {
        epochs.iter().try_for_each(|epoch| self.receive(&epoch.commit))
    }

    /// Processes a proposal or commit of another member.
    pub(crate) fn receive(&mut self, packet: &Base64) -> Result<()> {
        let group = self.group.as_mut().ok_or("in no group")?;
        let message = from_base64(packet)?.try_into_protocol_message()?;
        let content = group.process_message(&self.openmls, message)?.into_content();
        if let ProcessedMessageContent::ProposalMessage(proposal) = content {
            group.store_pending_proposal(self.openmls.storage(), *proposal)?;
        } else if let ProcessedMessageContent::StagedCommitMessage(commit) = content {
            group.merge_staged_commit(&self.openmls, *commit)?;
        } else {
            return Err("neither a proposal nor a commit".into());
        }
        Ok(())
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.group.as_ref().map_or(0, |group| group.epoch().as_u64()))
    }

    pub(crate) fn is_member(&self) -> bool {
        self.group.as_ref().is_some_and(MlsGroup::is_active)
    }

    /// A secret that only the members of an epoch share (RFC 9420, section 8.7).
    pub(crate) fn epoch_authenticator(&self) -> Option<&[u8]> {
        self.group.as_ref().map(|group| group.epoch_authenticator().as_slice())
    }

    fn check_key_package(&self, package: &Base64) -> Result<KeyPackage> {
        let MlsMessageBodyIn::KeyPackage(package) = from_base64(package)?.extract() else {
            return Err("not a key package".into());
        };
        Ok(package.validate(self.openmls.crypto(), ProtocolVersion::Mls10)?)
    }
}

fn to_base64(message: &MlsMessageOut) -> Result<Base64> {
    Ok(Base64(message.to_bytes()?))
}

fn from_base64(bytes: &Base64) -> Result<MlsMessageIn> {
    Ok(MlsMessageIn::tls_deserialize_exact(&bytes.0)?)
}
