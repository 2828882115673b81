//! A group whose only member commits as fast as the gateway answers: it adds a guest and removes it again.

use actors::{ClientHandle, Epoch, GroupId, Timestamp};
use mimi_gateway::{
    api::{
        Limit, Nothing,
        groups::{AcceptedCommitBody, CommitBody, EpochRange, NewGroupBody, UploadCommit},
        joining::WelcomeQuery,
        paths::GroupPath,
        problem::ProblemKind,
        text::Base64,
    },
    client::{GatewayClient, Reply, RequestError},
};
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, LeafNodeIndex, MlsGroup,
    OpenMlsProvider as _, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::Serialize as _;

use crate::acknowledged;

const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

pub(crate) struct GroupWriter {
    id: GroupId,
    mls: MlsGroup,
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    /// The acknowledged commits, that of epoch 1 first.
    epochs: Vec<(Base64, Timestamp)>,
    /// What was sent and not answered.
    pending: Option<Pending>,
    /// The guests that acknowledged commits added since the last restart.
    guests: Vec<Guest>,
    /// The key package of the last guest ever added.
    used: Option<KeyPackage>,
    /// Of the commits that were sent and not answered, those that had won, and those that won when sent again.
    unanswered: (usize, usize),
}

struct Pending {
    commit: CommitBody,
    /// Another commit for the same epoch, never sent.
    rival: CommitBody,
    guest: Option<KeyPackage>,
}

struct Guest {
    handle: ClientHandle,
    epoch: Epoch,
    welcome: Base64,
}

/// A new group with its creator, and the request that creates it.
fn make_group(provider: &OpenMlsRustCrypto, signer: &SignatureKeyPair) -> (MlsGroup, NewGroupBody) {
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"writer".to_vec()).into(),
        signature_key: signer.public().into(),
    };
    let mls = MlsGroup::builder()
        .ciphersuite(CIPHER_SUITE)
        .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .build(provider, signer, credential)
        .unwrap();
    let info = mls.export_group_info(provider.crypto(), signer, false).unwrap();
    let tree = mls.export_ratchet_tree().tls_serialize_detached().unwrap();
    let body =
        NewGroupBody { group_info: Base64(info.to_bytes().unwrap()), ratchet_tree: Some(Base64(tree)) };
    (mls, body)
}

/// The creation of a group that nobody uses.
pub(crate) fn new_group() -> NewGroupBody {
    let signer = SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm()).unwrap();
    make_group(&OpenMlsRustCrypto::default(), &signer).1
}

impl GroupWriter {
    pub(crate) async fn create(api: &GatewayClient) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm()).unwrap();
        let (mls, body) = make_group(&provider, &signer);
        let id = api.create_group(&body).await.unwrap().group_id.0;
        Self {
            id,
            mls,
            provider,
            signer,
            epochs: Vec::new(),
            pending: None,
            guests: Vec::new(),
            used: None,
            unanswered: (0, 0),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.epochs.len()
    }

    /// Of the commits that were sent and not answered, those that had won, and those that won when sent again.
    pub(crate) fn unanswered(&self) -> (usize, usize) {
        self.unanswered
    }

    /// Commits until the gateway is gone.
    pub(crate) async fn write(&mut self, api: &GatewayClient) {
        assert!(self.pending.is_none());
        loop {
            let guest = (self.mls.members().count() == 1).then(|| self.make_guest());
            let rival = self.make_commit(guest.as_ref());
            self.mls.clear_pending_commit(self.provider.storage()).unwrap();
            let commit = self.make_commit(guest.as_ref());
            self.pending = Some(Pending { commit: commit.clone(), rival, guest });
            let Some(reply) = acknowledged(self.upload(api, &commit).await) else { return };
            assert_eq!(reply.status, 201);
            self.merge(reply.body);
        }
    }

    /// After a restart: nothing acknowledged is missing, and the commit on its way has won or wins now.
    pub(crate) async fn settle(&mut self, api: &GatewayClient) {
        let acknowledged_epoch = self.epochs.len() as u64;
        let epoch = api.group(&self.id).await.unwrap().epoch_id.0;
        let unacknowledged = epoch - acknowledged_epoch;
        assert!(
            unacknowledged <= u64::from(self.pending.is_some()),
            "epoch {epoch}, acknowledged {acknowledged_epoch}"
        );
        if let Some(Pending { commit, rival, .. }) = &self.pending {
            let reply = self.upload(api, commit).await.unwrap();
            if unacknowledged == 1 {
                self.unanswered.0 += 1;
                assert_eq!(reply.status, 200);
            } else {
                self.unanswered.1 += 1;
                assert_eq!(reply.status, 201);
            }
            let again = self.upload(api, commit).await.unwrap();
            assert_eq!((again.status, again.body), (200, reply.body));
            let Err(RequestError::Problem(refusal)) = self.upload(api, rival).await else {
                panic!("two commits for one epoch were accepted");
            };
            assert_eq!(refusal.kind(), Some(ProblemKind::StaleEpoch));
            assert_eq!(refusal.members["currentEpochId"], acknowledged_epoch + 1);
            self.merge(reply.body);
        }
        assert_eq!(self.download(api).await, self.epochs);
        self.check_welcomes(api).await;
        self.check_used(api).await;
    }

    /// Each guest has exactly the one welcome that came with its commit.
    async fn check_welcomes(&mut self, api: &GatewayClient) {
        for guest in std::mem::take(&mut self.guests) {
            let waiting = api.welcomes(&guest.handle, &WelcomeQuery::default()).await.unwrap().join_infos;
            let found: Vec<_> =
                waiting.into_iter().map(|info| (info.group_id.0, info.epoch_id, info.welcome)).collect();
            assert_eq!(found, [(self.id.clone(), guest.epoch, guest.welcome)]);
        }
    }

    /// A key package that a commit has used is refused for ever.
    async fn check_used(&mut self, api: &GatewayClient) {
        let (Some(used), 1) = (self.used.clone(), self.mls.members().count()) else { return };
        let commit = self.make_commit(Some(&used));
        self.mls.clear_pending_commit(self.provider.storage()).unwrap();
        let refusal = self.upload(api, &commit).await.unwrap_err();
        assert_eq!(refusal.kind(), Some(ProblemKind::KeyPackageReused), "{refusal}");
    }

    /// A key package of a client that only this group knows.
    fn make_guest(&self) -> KeyPackage {
        let signer = SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(uuid::Uuid::new_v4().to_string().into_bytes()).into(),
            signature_key: signer.public().into(),
        };
        let package = KeyPackage::builder().build(CIPHER_SUITE, &self.provider, &signer, credential).unwrap();
        package.into_key_package()
    }

    /// A commit that adds the guest, or removes the one there is.
    fn make_commit(&mut self, guest: Option<&KeyPackage>) -> CommitBody {
        let removed = guest.is_none().then(|| LeafNodeIndex::new(1));
        let bundle = self
            .mls
            .commit_builder()
            .force_self_update(true)
            .propose_adds(guest.cloned())
            .propose_removals(removed)
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        let (commit, welcome, group_info) = bundle.into_messages();
        CommitBody {
            commit_packet: Base64(commit.to_bytes().unwrap()),
            group_info: Some(Base64(group_info.unwrap().to_bytes().unwrap())),
            welcome_packet: welcome.map(|welcome| Base64(welcome.to_bytes().unwrap())),
        }
    }

    async fn upload(
        &self,
        api: &GatewayClient,
        commit: &CommitBody,
    ) -> Result<Reply<AcceptedCommitBody>, RequestError> {
        let path = GroupPath { app: api.app(), group: self.id.clone() };
        api.send::<UploadCommit>(&path, &Nothing {}, commit).await
    }

    /// Goes into the epoch of the commit that was on its way.
    fn merge(&mut self, accepted: AcceptedCommitBody) {
        let Pending { commit, guest, .. } = self.pending.take().unwrap();
        self.mls.merge_pending_commit(&self.provider).unwrap();
        assert_eq!(accepted.epoch_id.0, self.mls.epoch().as_u64());
        self.epochs.push((commit.commit_packet, accepted.timestamp));
        if let Some(package) = guest {
            let handle = package.leaf_node().credential().serialized_content();
            self.guests.push(Guest {
                handle: ClientHandle::new(handle).unwrap(),
                epoch: accepted.epoch_id,
                welcome: commit.welcome_packet.unwrap(),
            });
            self.used = Some(package);
        }
    }

    /// The whole history, page by page.
    async fn download(&self, api: &GatewayClient) -> Vec<(Base64, Timestamp)> {
        let mut epochs = Vec::new();
        let mut next = Some(Epoch(1));
        while let Some(start_epoch_id) = next {
            let range = EpochRange {
                limit: Some(Limit::try_from(1000).unwrap()),
                ..EpochRange::from(start_epoch_id)
            };
            let page = api.control_messages(&self.id, &range).await.unwrap();
            for epoch in page.epochs {
                assert_eq!(epoch.epoch_id.0, epochs.len() as u64 + 1, "epochs without a gap");
                assert!(epoch.proposals.is_empty());
                epochs.push((epoch.commit, epoch.timestamp));
            }
            next = page.next_epoch_id;
        }
        epochs
    }
}
