//! One MLS client: its keys, its state of one group, and what it asks of the gateway.

use actors::{ClientHandle, ClientId, DomainName, Epoch, GroupId};
use openmls::prelude::{
    Capabilities, Ciphersuite, CredentialWithKey, KeyPackage, LeafNodeIndex, LeafNodeParameters, MlsGroup,
    MlsMessageBodyIn, OpenMlsProvider as _, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent,
    StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use super::{DemoError, During as _, DuringMls as _, ensure, identity::Identities};
use crate::{
    api::{
        clients::NewClientBody,
        groups::{CommitBody, EpochRange, NewGroupBody},
        joining::WelcomeQuery,
        key_packages::{KeyPackageQuery, KeyPackageUploadBody, NewKeyQueueBody, PoolSize},
        text::{Base64, HandleText},
    },
    client::GatewayClient,
    mls_messages::{bytes_of, commit_body, join_config, key_package_in, message_in, tree_in, tree_of},
};

const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// MLS 1.0 (RFC 9420 §6).
const PROTOCOL_VERSION: u16 = 1;

/// A registered client, and the one group that it is in.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) id: ClientId,
    pub(super) handle: ClientHandle,
    api: GatewayClient,
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    capabilities: Capabilities,
    group: Option<MlsGroup>,
}

/// Outside of a group.
impl Member {
    /// Makes signature keys and registers the client (*Identity Registration*).
    pub(super) async fn register(
        api: &GatewayClient,
        identities: &Identities,
        name: &'static str,
        tags: &[&str],
    ) -> Result<Self, DemoError> {
        let signer =
            SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm()).during_mls("making signature keys")?;
        let (handle, credential) = identities.identify(name, signer.public())?;
        let credential = CredentialWithKey { credential, signature_key: signer.public().into() };
        let client = NewClientBody {
            client_handle: HandleText(handle.clone()),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            domain: None,
        };
        let id = api.register_client(&client).await.during("registering a client")?.client_id;
        let provider = OpenMlsRustCrypto::default();
        Ok(Self {
            name,
            id,
            handle,
            api: api.clone(),
            provider,
            signer,
            credential,
            capabilities: identities.capabilities(),
            group: None,
        })
    }

    /// Creates a key queue and fills it with fresh key packages.
    pub(super) async fn upload_key_packages(&self, count: usize) -> Result<PoolSize, DemoError> {
        let queue = NewKeyQueueBody {
            protocol_version: PROTOCOL_VERSION,
            cipher_suite: CIPHER_SUITE.into(),
            app_label: String::new(),
        };
        let queue =
            self.api.create_key_queue(self.id, &queue).await.during("creating a key queue")?.key_queue_id;
        let key_packages = (0..count).map(|_| self.make_key_package()).collect::<Result<_, _>>()?;
        let upload = KeyPackageUploadBody { key_packages, ..KeyPackageUploadBody::default() };
        self.api.upload_key_packages(self.id, queue, &upload).await.during("uploading key packages")
    }

    fn make_key_package(&self) -> Result<Base64, DemoError> {
        let package = KeyPackage::builder()
            .leaf_node_capabilities(self.capabilities.clone())
            .build(CIPHER_SUITE, &self.provider, &self.signer, self.credential.clone())
            .during_mls("making a key package")?;
        Ok(bytes_of(&package.into_key_package().into())?)
    }

    /// Asks for a key package of another client, of a domain if there are any; it is assigned to this one (*Key Package
    /// Retrieval*).
    pub(super) async fn retrieve_key_package(
        &self,
        of: ClientId,
        domain: Option<&DomainName>,
    ) -> Result<Base64, DemoError> {
        let mut query = KeyPackageQuery::new(PROTOCOL_VERSION, CIPHER_SUITE.into(), self.id.to_string());
        query.domain = domain.cloned();
        let package = self.api.retrieve_key_package(of, &query).await.during("retrieving a key package")?;
        ensure(!package.is_final_key, || "a final key was given where none was uploaded".to_owned())?;
        Ok(package.key_package)
    }

    /// Creates a group of this one member (*Group Creation*).
    pub(super) async fn create_group(&mut self) -> Result<GroupId, DemoError> {
        let group = MlsGroup::builder()
            .ciphersuite(CIPHER_SUITE)
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(false)
            .with_capabilities(self.capabilities.clone())
            .build(&self.provider, &self.signer, self.credential.clone())
            .during_mls("creating a group")?;
        let info = group
            .export_group_info(self.provider.crypto(), &self.signer, false)
            .during_mls("exporting the group info")?;
        let body = NewGroupBody {
            group_info: bytes_of(&info)?,
            ratchet_tree: Some(tree_of(&group.export_ratchet_tree())?),
        };
        let created = self.api.create_group(&body).await.during("creating a group")?;
        self.group = Some(group);
        Ok(created.group_id.0)
    }

    /// Whether a welcome waits for it.
    pub(super) async fn has_welcome(&self) -> Result<bool, DemoError> {
        let waiting = self.api.welcomes(&self.handle, &WelcomeQuery::default()).await;
        Ok(!waiting.during("asking for welcomes")?.join_infos.is_empty())
    }

    /// Joins with the one welcome that waits, and acknowledges it (*Joining*).
    pub(super) async fn join_by_welcome(&mut self) -> Result<Epoch, DemoError> {
        let query = WelcomeQuery::default();
        let mut waiting =
            self.api.welcomes(&self.handle, &query).await.during("asking for welcomes")?.join_infos;
        ensure(waiting.len() == 1, || {
            format!("{} has {} welcomes waiting, and must have one", self.name, waiting.len())
        })?;
        let Some(join_info) = waiting.pop() else { return Err(unexpected("a welcome")) };
        let MlsMessageBodyIn::Welcome(welcome) = message_in(&join_info.welcome)?.extract() else {
            return Err(unexpected("a welcome"));
        };
        let tree = join_info.ratchet_tree.ok_or_else(|| unexpected("the ratchet tree of a welcome"))?;
        let group =
            StagedWelcome::new_from_welcome(&self.provider, &join_config(), welcome, Some(tree_in(&tree)?))
                .during_mls("opening a welcome")?
                .into_group(&self.provider)
                .during_mls("joining by a welcome")?;
        self.group = Some(group);
        self.api
            .acknowledge_welcome(&self.handle, None, join_info.id.0)
            .await
            .during("acknowledging a welcome")?;
        let left = self.api.welcomes(&self.handle, &query).await.during("asking for welcomes")?.join_infos;
        ensure(left.is_empty(), || format!("{}'s welcome came again after it was acknowledged", self.name))?;
        Ok(join_info.epoch_id)
    }

    /// Joins by an external commit, from the group info and ratchet tree that the gateway keeps (*Joining*).
    pub(super) async fn join_externally(&mut self, group: &GroupId) -> Result<Epoch, DemoError> {
        let infos = self.api.group_info(group).await.during("asking for the group info")?.group_infos;
        let info = infos.first().ok_or_else(|| unexpected("a group info"))?;
        let MlsMessageBodyIn::GroupInfo(group_info) = message_in(&info.group_info)?.extract() else {
            return Err(unexpected("a group info"));
        };
        let (joined, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree_in(&info.ratchet_tree)?)
            .with_config(join_config())
            .build_group(&self.provider, group_info, self.credential.clone())
            .during_mls("preparing an external commit")?
            .leaf_node_parameters(
                LeafNodeParameters::builder().with_capabilities(self.capabilities.clone()).build(),
            )
            .load_psks(self.provider.storage())
            .during_mls("preparing an external commit")?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .during_mls("making an external commit")?
            .finalize(&self.provider)
            .during_mls("making an external commit")?;
        let commit = commit_body(bundle.into_messages())?;
        let accepted =
            self.api.upload_commit(group, &commit).await.during("joining by an external commit")?;
        self.group = Some(joined);
        Ok(accepted.epoch_id)
    }
}

/// Inside of a group.
impl Member {
    /// A commit that adds the clients of these key packages and removes these members; with neither, an update of this
    /// member's own keys. It stays pending until it is applied or discarded.
    pub(super) fn make_commit(
        &mut self,
        added: &[Base64],
        removed: &[&Self],
    ) -> Result<CommitBody, DemoError> {
        let Self { group: Some(group), provider, signer, .. } = self else {
            return Err(unexpected("a group"));
        };
        let packages =
            added.iter().map(|package| key_package_in(package, provider)).collect::<Result<Vec<_>, _>>()?;
        let leaves = removed.iter().map(|member| member.leaf_in(group)).collect::<Result<Vec<_>, _>>()?;
        let bundle = group
            .commit_builder()
            .force_self_update(true)
            .propose_adds(packages)
            .propose_removals(leaves)
            .load_psks(provider.storage())
            .during_mls("preparing a commit")?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(provider.rand(), provider.crypto(), signer, |_| true)
            .during_mls("making a commit")?
            .stage_commit(provider)
            .during_mls("staging a commit")?;
        Ok(commit_body(bundle.into_messages())?)
    }

    /// Goes into the epoch that this member's own commit created.
    pub(super) fn apply_commit(&mut self) -> Result<(), DemoError> {
        let Self { group: Some(group), provider, .. } = self else { return Err(unexpected("a group")) };
        group.merge_pending_commit(provider).during_mls("applying an own commit")
    }

    /// Forgets this member's own commit, which another one was faster than.
    pub(super) fn discard_commit(&mut self) -> Result<(), DemoError> {
        let Self { group: Some(group), provider, .. } = self else { return Err(unexpected("a group")) };
        group.clear_pending_commit(provider.storage()).during_mls("discarding a commit")
    }

    /// Applies every commit since this member's epoch, and answers how many there were (*Group Evolution*).
    pub(super) async fn catch_up(&mut self) -> Result<usize, DemoError> {
        let group_id = self.group_id()?;
        let start_epoch_id = Epoch(self.epoch()?.0.saturating_add(1));
        let range = EpochRange { start_epoch_id, end_epoch_id: None, limit: None };
        let missed =
            self.api.control_messages(&group_id, &range).await.during("asking for control messages")?.epochs;
        let Self { group: Some(group), provider, .. } = self else { return Err(unexpected("a group")) };
        for epoch in &missed {
            let message =
                message_in(&epoch.commit)?.try_into_protocol_message().during_mls("reading a commit")?;
            let processed =
                group.process_message(provider, message).during_mls("processing a commit")?.into_content();
            let ProcessedMessageContent::StagedCommitMessage(staged) = processed else {
                return Err(unexpected("a commit"));
            };
            group.merge_staged_commit(provider, *staged).during_mls("applying a commit")?;
        }
        Ok(missed.len())
    }

    pub(super) fn group_id(&self) -> Result<GroupId, DemoError> {
        GroupId::new(self.joined()?.group_id().as_slice()).during_mls("reading the group id")
    }

    pub(super) fn epoch(&self) -> Result<Epoch, DemoError> {
        Ok(Epoch(self.joined()?.epoch().as_u64()))
    }

    /// Whether it is still a member, as far as it knows.
    pub(super) fn is_active(&self) -> Result<bool, DemoError> {
        Ok(self.joined()?.is_active())
    }

    /// What all members of an epoch have in common and nobody else knows (RFC 9420 §8.7).
    pub(super) fn epoch_authenticator(&self) -> Result<&[u8], DemoError> {
        Ok(self.joined()?.epoch_authenticator().as_slice())
    }

    /// The leaf of this member in another one's group.
    fn leaf_in(&self, group: &MlsGroup) -> Result<LeafNodeIndex, DemoError> {
        group
            .members()
            .find(|member| member.signature_key == self.signer.public())
            .map(|member| member.index)
            .ok_or_else(|| unexpected("the member to remove"))
    }

    fn joined(&self) -> Result<&MlsGroup, DemoError> {
        self.group.as_ref().ok_or_else(|| unexpected("a group"))
    }
}

fn unexpected(missing: &str) -> DemoError {
    DemoError::Broken(format!("{missing} was expected and is not there"))
}
