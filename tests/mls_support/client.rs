//! A client outside any group: its registration, its key queue and the ways into a group.

use std::time::Duration;

use actors::{ClientHandle, ClientId, DeliveryId, DomainName, GroupId, KeyQueueId};
use mimi_gateway::{
    api::{
        clients::{GroupsOfClientQuery, NewClientBody},
        groups::{CommitBody, NewGroupBody},
        joining::{JoinInfoBody, WelcomeQuery},
        key_packages::{
            KeyPackageQuery, KeyPackageUploadBody, KeyQueue, NewKeyQueueBody, PoolSize, RetrievedKeyPackage,
        },
        text::{Base64, HandleText},
    },
    client::{GatewayClient, RequestError},
};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList, MlsMessage,
    client_builder::PaddingMode,
    group::ExportedTree,
    identity::{SigningIdentity, basic::BasicCredential},
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
};
use mls_rs_core::crypto::SignatureSecretKey;
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

use super::{Config, Crypto, Identities, Member, pki::Certified};
use crate::support::TestGateway;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
/// How long leaves and key packages live.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A registered client with one key queue.
pub(crate) struct MlsClient {
    pub(crate) id: ClientId,
    pub(crate) domain: Option<DomainName>,
    suite: CipherSuite,
    pub(crate) handle: ClientHandle,
    pub(crate) queue: KeyQueueId,
    pub(crate) api: GatewayClient,
    /// Its cryptography, which can lie.
    pub(crate) crypto: Crypto,
    mls: Client<Config>,
}

impl MlsClient {
    /// What every client of these tests is found by.
    pub(crate) const TAG: &str = "team";

    /// Registers a client whose commits carry an update path only where MLS requires one.
    pub(crate) async fn register(gateway: &TestGateway, name: &str) -> Self {
        Self::register_with(gateway, name, CommitOptions::new()).await
    }

    /// Registers a client whose every commit carries an update path.
    pub(crate) async fn register_with_paths(gateway: &TestGateway, name: &str) -> Self {
        Self::register_with(gateway, name, CommitOptions::new().with_path_required(true)).await
    }

    async fn register_with(gateway: &TestGateway, name: &str, options: CommitOptions) -> Self {
        Self::register_as(connect(gateway), name, None, SUITE, Self::basic(name, options, YEAR)).await
    }

    /// Registers a client, over a connection that is there, whose leaf and key packages live this long.
    pub(crate) async fn register_over(api: GatewayClient, name: &str, lifetime: Duration) -> Self {
        Self::register_as(api, name, None, SUITE, Self::basic(name, CommitOptions::new(), lifetime)).await
    }

    /// A client that no application server knows, with a basic credential of this name.
    pub(crate) fn made_up(gateway: &TestGateway, name: &str) -> Self {
        let (crypto, mls) = Self::basic(name, CommitOptions::new(), YEAR);
        Self {
            id: ClientId::random(),
            domain: None,
            suite: SUITE,
            handle: ClientHandle::new(name.as_bytes()).unwrap(),
            queue: KeyQueueId::random(),
            api: connect(gateway),
            crypto,
            mls,
        }
    }

    fn basic(name: &str, options: CommitOptions, lifetime: Duration) -> (Crypto, Client<Config>) {
        let crypto = RustCryptoProvider::default();
        let (secret, public) = crypto.cipher_suite_provider(SUITE).unwrap().signature_key_generate().unwrap();
        let credential = BasicCredential::new(name.as_bytes().to_vec()).into_credential();
        let identity = SigningIdentity::new(credential, public);
        mls_client(SUITE, Identities::basic(), identity, secret, options, lifetime)
    }

    /// Registers a client that is identified by its certificate.
    pub(crate) async fn register_certified(
        gateway: &TestGateway,
        certified: &Certified,
        roots: &str,
    ) -> Self {
        Self::register_certified_as(gateway, certified, Identities::x509(roots)).await
    }

    /// As [`MlsClient::register_certified`], with what it takes of others.
    pub(crate) async fn register_certified_as(
        gateway: &TestGateway,
        certified: &Certified,
        identities: Identities,
    ) -> Self {
        Self::register_certified_over(connect(gateway), certified, identities).await
    }

    /// As [`MlsClient::register_certified_as`], over a connection that is there.
    pub(crate) async fn register_certified_over(
        api: GatewayClient,
        certified: &Certified,
        identities: Identities,
    ) -> Self {
        let name = std::str::from_utf8(certified.handle.as_bytes()).unwrap();
        let mls = Self::certified(certified, identities);
        Self::register_as(api, name, Some(certified.domain.clone()), certified.suite, mls).await
    }

    fn certified(certified: &Certified, identities: Identities) -> (Crypto, Client<Config>) {
        let options = CommitOptions::new();
        let (identity, secret) = (certified.signing_identity(), certified.secret.clone());
        mls_client(certified.suite, identities, identity, secret, options, YEAR)
    }

    /// A client of a domain that is unknown to this gateway: it is registered nowhere.
    pub(crate) fn unregistered(gateway: &TestGateway, certified: &Certified, roots: &str) -> Self {
        Self::unregistered_as(gateway, certified, Identities::x509(roots))
    }

    /// As [`MlsClient::unregistered`], with what it takes of others.
    pub(crate) fn unregistered_as(
        gateway: &TestGateway,
        certified: &Certified,
        identities: Identities,
    ) -> Self {
        let (crypto, mls) = Self::certified(certified, identities);
        Self {
            id: ClientId::random(),
            domain: Some(certified.domain.clone()),
            suite: certified.suite,
            handle: certified.handle.clone(),
            queue: KeyQueueId::random(),
            api: connect(gateway),
            crypto,
            mls,
        }
    }

    async fn register_as(
        api: GatewayClient,
        name: &str,
        domain: Option<DomainName>,
        suite: CipherSuite,
        (crypto, mls): (Crypto, Client<Config>),
    ) -> Self {
        let handle = ClientHandle::new(name.as_bytes()).unwrap();
        let new = NewClientBody {
            client_handle: HandleText(handle.clone()),
            tags: vec![Self::TAG.to_owned(), name.to_owned()],
            domain: domain.clone(),
        };
        let id = api.register_client(&new).await.unwrap().client_id;
        let attributes =
            NewKeyQueueBody { protocol_version: 1, cipher_suite: u16::from(suite), app_label: String::new() };
        let queue = api.create_key_queue(id, &attributes).await.unwrap().key_queue_id;
        Self { id, domain, suite, handle, queue, api, crypto, mls }
    }

    /// Goes on with a gateway that was started again.
    pub(crate) fn reconnect(&mut self, gateway: &TestGateway) {
        self.api = connect(gateway);
    }

    /// A fresh key package whose secrets this client keeps.
    pub(crate) fn key_package(&self) -> Base64 {
        let message =
            self.mls.generate_key_package_message(Default::default(), Default::default(), None).unwrap();
        bytes_of(&message)
    }

    /// Puts some fresh key packages into the queue and returns them.
    pub(crate) async fn upload_key_packages(&self, count: usize) -> Vec<Base64> {
        let packages: Vec<_> = (0..count).map(|_| self.key_package()).collect();
        let upload =
            KeyPackageUploadBody { key_packages: packages.clone(), ..KeyPackageUploadBody::default() };
        self.upload(&upload).await.unwrap();
        packages
    }

    /// Puts a fresh final key into the queue and returns it.
    pub(crate) async fn upload_final_key(&self) -> Base64 {
        let package = self.key_package();
        let upload =
            KeyPackageUploadBody { final_key: Some(package.clone()), ..KeyPackageUploadBody::default() };
        self.upload(&upload).await.unwrap();
        package
    }

    pub(crate) async fn upload(&self, upload: &KeyPackageUploadBody) -> Result<PoolSize, RequestError> {
        self.api.upload_key_packages(self.id, self.queue, upload).await
    }

    /// The one key queue as the gateway lists it.
    pub(crate) async fn key_queue(&self) -> KeyQueue {
        let mut queues = self.api.key_queues(self.id).await.unwrap().queues;
        assert_eq!(queues.len(), 1, "{queues:?}");
        queues.remove(0)
    }

    /// The package of this client that is assigned to a receiver.
    pub(crate) async fn assign_to(&self, receiver: &str) -> Result<RetrievedKeyPackage, RequestError> {
        let mut query = KeyPackageQuery::new(1, u16::from(self.suite), receiver);
        query.domain = self.domain.clone();
        self.api.retrieve_key_package(self.id, &query).await
    }

    /// Makes a group of one and has the gateway hold it.
    pub(crate) async fn create_group(&self) -> Member {
        let (member, new) = self.make_group();
        let created = self.api.create_group(&new).await.unwrap();
        assert_eq!((&created.group_id.0, created.epoch_id), (&member.id(), member.epoch()));
        member
    }

    /// A group of one that the gateway does not know yet.
    pub(crate) fn make_group(&self) -> (Member, NewGroupBody) {
        self.make_group_with(ExtensionList::new())
    }

    /// As [`MlsClient::make_group`], with these extensions of its context.
    pub(crate) fn make_group_with(&self, extensions: ExtensionList) -> (Member, NewGroupBody) {
        let group = self.mls.create_group(extensions, Default::default(), None).unwrap();
        let new = NewGroupBody {
            group_info: bytes_of(&group.group_info_message_allowing_ext_commit(false).unwrap()),
            ratchet_tree: Some(Base64(group.export_tree().to_bytes().unwrap())),
        };
        (Member::new(self, group), new)
    }

    /// What waits for this client, oldest first, with ratchet trees.
    pub(crate) async fn welcomes(&self) -> Vec<JoinInfoBody> {
        let query = WelcomeQuery { domain: self.domain.clone(), ..WelcomeQuery::default() };
        let welcomes = self.api.welcomes(&self.handle, &query).await.unwrap();
        assert_eq!(welcomes.next_cursor, None);
        welcomes.join_infos
    }

    /// Joins by the oldest welcome and acknowledges it.
    pub(crate) async fn join(&self) -> Member {
        let welcomes = self.welcomes().await;
        let welcome = welcomes.first().expect("no welcome waits");
        let member = self.join_by(welcome);
        self.acknowledge(welcome.id.0).await;
        member
    }

    /// Joins by a welcome and the tree that the gateway gave with it.
    pub(crate) fn join_by(&self, info: &JoinInfoBody) -> Member {
        let tree = tree_of(info.ratchet_tree.as_ref().expect("a tree was asked for"));
        let (group, _) = self.mls.join_group(Some(tree), &message_of(&info.welcome), None).unwrap();
        let member = Member::new(self, group);
        assert_eq!((&info.group_id.0, info.epoch_id), (&member.id(), member.epoch()));
        member
    }

    pub(crate) async fn acknowledge(&self, id: DeliveryId) {
        self.api.acknowledge_welcome(&self.handle, self.domain.clone(), id).await.unwrap();
    }

    /// Joins by an external commit on the group info that the gateway gives out, in place of the leaf `replaced` if
    /// there is one. The next can only join in this way with the group info that this commit may bring along.
    pub(crate) async fn join_externally(
        &self,
        group: &GroupId,
        replaced: Option<u32>,
        with_group_info: bool,
    ) -> Member {
        let (member, commit) = self.make_external_commit(group, replaced, with_group_info).await;
        let accepted = member.upload(&commit).await.unwrap();
        assert_eq!((accepted.status, accepted.body.epoch_id), (201, member.epoch()));
        member
    }

    /// The commit of [`MlsClient::join_externally`], and the member that its sender is if it is accepted.
    pub(crate) async fn make_external_commit(
        &self,
        group: &GroupId,
        replaced: Option<u32>,
        with_group_info: bool,
    ) -> (Member, CommitBody) {
        let mut infos = self.api.group_info(group).await.unwrap().group_infos;
        assert_eq!(infos.len(), 1, "the gateway has a group info");
        let info = infos.remove(0);
        let mut builder =
            self.mls.external_commit_builder().unwrap().with_tree_data(tree_of(&info.ratchet_tree));
        if let Some(leaf) = replaced {
            builder = builder.with_removal(leaf);
        }
        let (joined, commit) = builder.build(message_of(&info.group_info)).unwrap();
        let group_info =
            with_group_info.then(|| bytes_of(&joined.group_info_message_allowing_ext_commit(false).unwrap()));
        let commit = CommitBody { commit_packet: bytes_of(&commit), group_info, welcome_packet: None };
        (Member::new(self, joined), commit)
    }

    /// The groups that the gateway lists for this client, with their epochs.
    pub(crate) async fn groups(&self) -> Vec<(GroupId, u64)> {
        let query = GroupsOfClientQuery { domain: self.domain.clone(), ..GroupsOfClientQuery::default() };
        let listed = self.api.groups_of_client(&self.handle, &query).await.unwrap();
        listed.groups.into_iter().map(|group| (group.group_id.0, group.epoch_id.0)).collect()
    }
}

/// A connection of its own to a gateway.
pub(super) fn connect(gateway: &TestGateway) -> GatewayClient {
    GatewayClient::new(gateway.base_url(), gateway.app, gateway.writer.clone()).unwrap()
}

pub(super) fn bytes_of(message: &MlsMessage) -> Base64 {
    Base64(message.to_bytes().unwrap())
}

pub(super) fn message_of(bytes: &Base64) -> MlsMessage {
    MlsMessage::from_bytes(&bytes.0).unwrap()
}

fn tree_of(bytes: &Base64) -> ExportedTree<'static> {
    ExportedTree::from_bytes(&bytes.0).unwrap()
}

/// A client that sends its handshakes in the clear, and its cryptography.
fn mls_client(
    suite: CipherSuite,
    identities: Identities,
    identity: SigningIdentity,
    secret: SignatureSecretKey,
    options: CommitOptions,
    lifetime: Duration,
) -> (Crypto, Client<Config>) {
    let crypto = Crypto::default();
    let rules = DefaultMlsRules::new()
        .with_encryption_options(EncryptionOptions::new(false, PaddingMode::None))
        .with_commit_options(options.with_ratchet_tree_extension(false).with_allow_external_commit(true));
    let client = Client::builder()
        .mls_rules(rules)
        .crypto_provider(crypto.clone())
        .identity_provider(identities)
        .key_package_lifetime(lifetime)
        .signing_identity(identity, secret, suite)
        .build();
    (crypto, client)
}
