//! A client inside a group.

use actors::{ClientHandle, ClientId, Epoch, GroupId};
use mimi_gateway::{
    api::{
        Nothing,
        groups::{
            AcceptedCommitBody, AcceptedProposalBody, CommitBody, ControlMessagesBody, EpochRange,
            ProposalBody, UploadCommit,
        },
        paths::GroupPath,
        text::Base64,
    },
    client::{GatewayClient, Reply, RequestError},
};
use mls_rs::{
    Group,
    error::MlsError,
    group::{CommitBuilder, CommitEffect, ReceivedMessage},
};

use super::{
    Config, MlsClient,
    client::{bytes_of, connect, message_of},
    identity::handle_of,
};
use crate::support::TestGateway;

/// One member's state of one group.
pub(crate) struct Member {
    pub(crate) api: GatewayClient,
    pub(crate) handle: ClientHandle,
    client: ClientId,
    group: Group<Config>,
}

impl Member {
    pub(super) fn new(client: &MlsClient, group: Group<Config>) -> Self {
        Self { api: client.api.clone(), handle: client.handle.clone(), client: client.id, group }
    }

    /// Goes on with a gateway that was started again.
    pub(crate) fn reconnect(&mut self, gateway: &TestGateway) {
        self.api = connect(gateway);
    }

    pub(crate) fn id(&self) -> GroupId {
        GroupId::new(self.group.group_id()).unwrap()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.group.current_epoch())
    }

    /// The secret that only the members of an epoch share.
    pub(crate) fn state(&self) -> (GroupId, Epoch, Vec<u8>) {
        (self.id(), self.epoch(), self.group.epoch_authenticator().unwrap().as_bytes().to_vec())
    }

    /// The leaf of a member.
    pub(crate) fn leaf_of(&self, handle: &ClientHandle) -> u32 {
        let roster = self.roster();
        let (leaf, _) = roster.iter().find(|(_, member)| member == handle.as_bytes()).expect("a member");
        *leaf
    }

    /// The handles at the leaves of this member's own tree.
    pub(crate) fn roster(&self) -> Vec<(u32, Vec<u8>)> {
        let identity =
            |member: mls_rs::group::Member| (member.index, handle_of(&member.signing_identity.credential));
        self.group.roster().members().into_iter().map(identity).collect()
    }

    /// The gateway's tree is this member's tree.
    pub(crate) async fn assert_gateway_agrees(&self) {
        let group = self.api.group(&self.id()).await.unwrap();
        assert_eq!((&group.group_id.0, group.epoch_id), (&self.id(), self.epoch()));
        assert_eq!((group.protocol_version, group.cipher_suite), (1, u16::from(self.group.cipher_suite())));
        let members: Vec<_> = group
            .members
            .iter()
            .map(|member| (member.leaf_index, member.client_handle.0.as_bytes().to_vec()))
            .collect();
        assert_eq!(members, self.roster());
    }

    /// Makes a commit, which stays pending until it is applied or cleared.
    pub(crate) fn make_commit(
        &mut self,
        change: impl for<'a> FnOnce(CommitBuilder<'a, Config>) -> CommitBuilder<'a, Config>,
    ) -> CommitBody {
        let output = change(self.group.commit_builder()).build().unwrap();
        assert!(output.welcome_messages.len() <= 1, "one welcome for all");
        CommitBody {
            commit_packet: bytes_of(&output.commit_message),
            group_info: output.external_commit_group_info.as_ref().map(bytes_of),
            welcome_packet: output.welcome_messages.first().map(bytes_of),
        }
    }

    /// A commit of what was proposed; with nothing proposed, an update of this member's leaf.
    pub(crate) fn make_update(&mut self) -> CommitBody {
        self.make_commit(|builder| builder)
    }

    /// A commit that adds the clients of these key packages.
    pub(crate) fn make_adding(&mut self, packages: &[Base64]) -> CommitBody {
        self.make_commit(|mut builder| {
            for package in packages {
                builder = builder.add_member(message_of(package)).unwrap();
            }
            builder
        })
    }

    /// Uploads a commit; the status tells a first answer from a repeated one.
    pub(crate) async fn upload(
        &self,
        commit: &CommitBody,
    ) -> Result<Reply<AcceptedCommitBody>, RequestError> {
        Self::upload_aside(self.api.clone(), self.id(), commit.clone()).await
    }

    /// Uploads a commit while the member does something else.
    pub(crate) async fn upload_aside(
        api: GatewayClient,
        group: GroupId,
        commit: CommitBody,
    ) -> Result<Reply<AcceptedCommitBody>, RequestError> {
        let path = GroupPath { app: api.app(), group };
        api.send::<UploadCommit>(&path, &Nothing {}, &commit).await
    }

    /// Moves into the epoch of the pending commit.
    pub(crate) fn apply_pending(&mut self) {
        self.group.apply_pending_commit().unwrap();
    }

    /// Gives the pending commit up.
    pub(crate) fn clear_pending(&mut self) {
        self.group.clear_pending_commit();
    }

    /// Gives up what this member proposed or heard proposed in this epoch.
    pub(crate) fn clear_proposals(&mut self) {
        self.group.clear_proposal_cache();
    }

    /// Uploads the pending commit, which must win, and applies it.
    pub(crate) async fn commit(&mut self, commit: &CommitBody) -> AcceptedCommitBody {
        let accepted = self.upload(commit).await.unwrap();
        assert_eq!(accepted.status, 201);
        self.apply_pending();
        assert_eq!(accepted.body.epoch_id, self.epoch());
        accepted.body
    }

    /// Adds clients by the key packages that the gateway assigns to this member.
    pub(crate) async fn invite(&mut self, clients: &[&MlsClient]) {
        let mut packages = Vec::new();
        for client in clients {
            packages.push(client.assign_to(&self.client.to_string()).await.unwrap().key_package);
        }
        let commit = self.make_adding(&packages);
        self.commit(&commit).await;
    }

    /// Commits what was proposed; with nothing proposed, updates this member's leaf.
    pub(crate) async fn update(&mut self) {
        let commit = self.make_update();
        self.commit(&commit).await;
    }

    /// Removes a member.
    pub(crate) async fn remove(&mut self, handle: &ClientHandle) {
        let leaf = self.leaf_of(handle);
        let commit = self.make_commit(|builder| builder.remove_member(leaf).unwrap());
        self.commit(&commit).await;
    }

    pub(crate) fn make_add_proposal(&mut self, package: &Base64) -> ProposalBody {
        let message = self.group.propose_add(message_of(package), Vec::new()).unwrap();
        ProposalBody { packet: bytes_of(&message) }
    }

    pub(crate) fn make_update_proposal(&mut self) -> ProposalBody {
        ProposalBody { packet: bytes_of(&self.group.propose_update(Vec::new()).unwrap()) }
    }

    pub(crate) fn make_remove_proposal(&mut self, handle: &ClientHandle) -> ProposalBody {
        let leaf = self.leaf_of(handle);
        ProposalBody { packet: bytes_of(&self.group.propose_remove(leaf, Vec::new()).unwrap()) }
    }

    pub(crate) async fn propose(
        &self,
        proposal: &ProposalBody,
    ) -> Result<AcceptedProposalBody, RequestError> {
        self.api.upload_proposal(&self.id(), proposal).await
    }

    /// Takes in the proposals that wait at the gateway; the next commit carries them by reference.
    pub(crate) async fn fetch_proposals(&mut self) -> usize {
        let proposals = self.api.proposals(&self.id()).await.unwrap();
        assert_eq!(proposals.epoch_id, self.epoch());
        for message in &proposals.messages {
            self.group.process_incoming_message(message_of(message)).unwrap();
        }
        proposals.messages.len()
    }

    /// All control messages from an epoch on.
    pub(crate) async fn control_messages(&self, start: Epoch) -> ControlMessagesBody {
        let range = EpochRange::from(start);
        let messages = self.api.control_messages(&self.id(), &range).await.unwrap();
        assert_eq!(messages.next_epoch_id, None);
        messages
    }

    /// Takes in everything that happened since this member's epoch.
    pub(crate) async fn catch_up(&mut self) {
        let missed = self.control_messages(Epoch(self.epoch().0 + 1)).await;
        self.take_in(&missed);
    }

    /// Takes in control messages that follow this member's epoch.
    pub(crate) fn take_in(&mut self, missed: &ControlMessagesBody) {
        self.process(missed).unwrap();
    }

    /// As [`Member::take_in`]; the error of the first message that this member cannot process.
    pub(crate) fn process(&mut self, missed: &ControlMessagesBody) -> Result<(), MlsError> {
        for message in &missed.messages {
            self.group.process_incoming_message(message_of(message))?;
        }
        Ok(())
    }

    /// Takes in what happened up to the commit that removed this member.
    pub(crate) async fn learn_of_removal(&mut self) {
        let missed = self.control_messages(Epoch(self.epoch().0 + 1)).await;
        for message in &missed.messages {
            if let ReceivedMessage::Commit(commit) =
                self.group.process_incoming_message(message_of(message)).unwrap()
                && matches!(commit.effect, CommitEffect::Removed { .. })
            {
                return;
            }
        }
        panic!("nobody removed {:?}", self.handle);
    }
}
