//! A group of one member, who commits as fast as the gateway answers.

use actors::{Epoch, GroupId, Timestamp};
use mimi_gateway::{
    api::{
        Limit, Nothing,
        groups::{AcceptedCommitBody, CommitBody, EpochRange, NewGroupBody, UploadCommit},
        paths::GroupPath,
        problem::ProblemKind,
        text::Base64,
    },
    client::{ClientError, GatewayClient, Reply},
};
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, MlsGroup, OpenMlsProvider as _,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
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
    /// A commit that was sent and not answered, and another one for the same epoch that was never sent.
    pending: Option<(CommitBody, CommitBody)>,
}

impl GroupWriter {
    pub(crate) async fn create(api: &GatewayClient) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(b"writer".to_vec()).into(),
            signature_key: signer.public().into(),
        };
        let mls = MlsGroup::builder()
            .ciphersuite(CIPHER_SUITE)
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .build(&provider, &signer, credential)
            .unwrap();
        let info = mls.export_group_info(provider.crypto(), &signer, false).unwrap();
        let tree = mls.export_ratchet_tree().tls_serialize_detached().unwrap();
        let body =
            NewGroupBody { group_info: Base64(info.to_bytes().unwrap()), ratchet_tree: Some(Base64(tree)) };
        let id = api.create_group(&body).await.unwrap().group_id.0;
        Self { id, mls, provider, signer, epochs: Vec::new(), pending: None }
    }

    pub(crate) fn count(&self) -> usize {
        self.epochs.len()
    }

    /// Commits until the gateway is gone.
    pub(crate) async fn write(&mut self, api: &GatewayClient) {
        assert!(self.pending.is_none());
        loop {
            let rival = self.make_commit();
            self.mls.clear_pending_commit(self.provider.storage()).unwrap();
            let commit = self.make_commit();
            self.pending = Some((commit.clone(), rival));
            let Some(reply) = acknowledged(self.upload(api, &commit).await) else { return };
            assert_eq!(reply.status, 201);
            self.merge(commit, reply.body);
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
        if let Some((commit, rival)) = self.pending.take() {
            let reply = self.upload(api, &commit).await.unwrap();
            assert_eq!(reply.status, if unacknowledged == 1 { 200 } else { 201 });
            let again = self.upload(api, &commit).await.unwrap();
            assert_eq!((again.status, again.body), (200, reply.body));
            let Err(ClientError::Problem(refusal)) = self.upload(api, &rival).await else {
                panic!("two commits for one epoch were accepted");
            };
            assert_eq!(refusal.kind(), Some(ProblemKind::StaleEpoch));
            assert_eq!(refusal.members["currentEpochId"], acknowledged_epoch + 1);
            self.merge(commit, reply.body);
        }
        assert_eq!(self.download(api).await, self.epochs);
    }

    fn make_commit(&mut self) -> CommitBody {
        let bundle = self
            .mls
            .commit_builder()
            .force_self_update(true)
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        let (commit, _, group_info) = bundle.into_messages();
        CommitBody {
            commit_packet: Base64(commit.to_bytes().unwrap()),
            group_info: Some(Base64(group_info.unwrap().to_bytes().unwrap())),
            welcome_packet: None,
        }
    }

    async fn upload(
        &self,
        api: &GatewayClient,
        commit: &CommitBody,
    ) -> Result<Reply<AcceptedCommitBody>, ClientError> {
        let path = GroupPath { app: api.app(), group: self.id.clone() };
        api.send::<UploadCommit>(&path, &Nothing {}, commit).await
    }

    fn merge(&mut self, commit: CommitBody, accepted: AcceptedCommitBody) {
        self.mls.merge_pending_commit(&self.provider).unwrap();
        assert_eq!(accepted.epoch_id.0, self.mls.epoch().as_u64());
        self.epochs.push((commit.commit_packet, accepted.timestamp));
        self.pending = None;
    }

    /// The whole history, page by page.
    async fn download(&self, api: &GatewayClient) -> Vec<(Base64, Timestamp)> {
        let mut epochs = Vec::new();
        let mut next = Some(Epoch(1));
        while let Some(start_epoch_id) = next {
            let range =
                EpochRange { start_epoch_id, end_epoch_id: None, limit: Limit::try_from(1000).unwrap() };
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
