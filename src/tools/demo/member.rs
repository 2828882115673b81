//! A member of the story: an MLS client and its requests to the gateway.

use actors::{ClientHandle, ClientId, DomainName, Epoch, GroupId};

use super::{During as _, DuringLibrary as _, ToolError, ensure, identity::Identities};
use crate::{
    api::{
        clients::NewClientBody,
        groups::EpochRange,
        joining::WelcomeQuery,
        key_packages::{KeyPackageQuery, PoolSize},
        problem::ProblemKind,
        text::{Base64, HandleText},
    },
    client::GatewayClient,
    tools::mls_client::{MlsClient, key_package_query, key_queue},
};

/// A registered client, and the one group that it is in.
pub(super) struct DemoMember {
    pub(super) name: &'static str,
    pub(super) id: ClientId,
    pub(super) mls: MlsClient,
    api: GatewayClient,
}

impl DemoMember {
    /// Makes signature keys and registers the client (*Identity Registration*).
    pub(super) async fn register(
        api: &GatewayClient,
        identities: &Identities,
        name: &'static str,
        tags: &[&str],
    ) -> Result<Self, ToolError> {
        let mls = MlsClient::new(|public_key| identities.identify(name, public_key))?;
        let client = NewClientBody {
            client_handle: HandleText(mls.handle.clone()),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            domain: None,
        };
        let id = api.register_client(&client).await.during("registering a client")?.client_id;
        Ok(Self { name, id, mls, api: api.clone() })
    }

    pub(super) fn handle(&self) -> &ClientHandle {
        &self.mls.handle
    }

    /// Creates a key queue and fills it with fresh key packages.
    pub(super) async fn upload_key_packages(&self, count: usize) -> Result<PoolSize, ToolError> {
        let queue = self.api.create_key_queue(self.id, &key_queue()).await;
        let queue = queue.during("creating a key queue")?.key_queue_id;
        let upload = self.mls.key_packages(count)?;
        self.api.upload_key_packages(self.id, queue, &upload).await.during("uploading key packages")
    }

    /// Retrieves a key package of another client, of a domain if the application uses domains; it is assigned to this client
    /// (*Key Package Retrieval*).
    pub(super) async fn retrieve_key_package(
        &self,
        of: ClientId,
        domain: Option<&DomainName>,
    ) -> Result<Base64, ToolError> {
        let query = KeyPackageQuery { domain: domain.cloned(), ..key_package_query(self.id.to_string()) };
        let package = self.api.retrieve_key_package(of, &query).await.during("retrieving a key package")?;
        ensure(!package.is_final_key, || "a final key was given where none was uploaded".to_owned())?;
        Ok(package.key_package)
    }

    /// Creates a group with this member alone (*Group Creation*).
    pub(super) async fn create_group(&mut self) -> Result<GroupId, ToolError> {
        let body = self.mls.create_group()?;
        Ok(self.api.create_group(&body).await.during("creating a group")?.group_id.0)
    }

    /// Whether a welcome waits for it.
    pub(super) async fn has_welcome(&self) -> Result<bool, ToolError> {
        let waiting = self.api.welcomes(self.handle(), &WelcomeQuery::default()).await;
        Ok(!waiting.during("asking for welcomes")?.join_infos.is_empty())
    }

    /// Joins with the only waiting welcome, and acknowledges it (*Joining*).
    pub(super) async fn join_by_welcome(&mut self) -> Result<Epoch, ToolError> {
        let query = WelcomeQuery::default();
        let waiting = self.api.welcomes(self.handle(), &query).await.during("asking for welcomes")?;
        let [join_info] = waiting.join_infos.as_slice() else {
            let count = waiting.join_infos.len();
            return Err(ToolError::Broken(format!(
                "{} has {count} welcomes waiting, and must have one",
                self.name
            )));
        };
        self.mls.join(join_info)?;
        self.api
            .acknowledge_welcome(self.handle(), None, join_info.id.0)
            .await
            .during("acknowledging a welcome")?;
        ensure(!self.has_welcome().await?, || {
            format!("{}'s welcome came again after it was acknowledged", self.name)
        })?;
        Ok(join_info.epoch_id)
    }

    /// Joins by an external commit, from the group info and ratchet tree that the gateway keeps (*Joining*).
    pub(super) async fn join_externally(&mut self, group: &GroupId) -> Result<Epoch, ToolError> {
        let infos = self.api.group_info(group).await.during("asking for the group info")?.group_infos;
        let info = infos.first().ok_or_else(|| ToolError::missing("a group info"))?;
        let (joined, commit) = self.mls.external_commit(info)?;
        let accepted =
            self.api.upload_commit(group, &commit).await.during("joining by an external commit")?;
        self.mls = joined;
        Ok(accepted.epoch_id)
    }

    /// Applies every commit since this member's epoch, and returns their number (*Group Evolution*).
    pub(super) async fn catch_up(&mut self) -> Result<usize, ToolError> {
        let range = EpochRange::from(Epoch(self.epoch()?.0.saturating_add(1)));
        let missed = self.api.control_messages(&self.mls.group_id()?, &range).await;
        let missed = missed.during("asking for control messages")?.epochs;
        self.mls.follow(&missed)?;
        Ok(missed.len())
    }

    /// All members commit at the same moment, each at her own gateway. Exactly one commit must be accepted, and the others are
    /// discarded; returns the winner and the epoch that it created.
    pub(super) async fn race(
        group: &GroupId,
        members: &mut [&mut Self],
    ) -> Result<(&'static str, Epoch), ToolError> {
        let mut uploads = Vec::new();
        for member in &mut *members {
            let (api, group) = (member.api.clone(), group.clone());
            let commit = member.mls.make_commit(&[], &[])?;
            uploads.push(actix_web::rt::spawn(async move { api.upload_commit(&group, &commit).await }));
        }
        let mut won = Vec::new();
        for (member, upload) in members.iter_mut().zip(uploads) {
            match upload.await.during_library("waiting for an answer")? {
                Ok(accepted) => {
                    member.mls.apply_commit()?;
                    won.push((member.name, accepted.epoch_id));
                }
                Err(error) if error.kind() == Some(ProblemKind::StaleEpoch) => member.mls.discard_commit()?,
                Err(source) => return Err(ToolError::Gateway { step: "racing", source }),
            }
        }
        let [winner] = won.as_slice() else {
            let (won, all) = (won.len(), members.len());
            return Err(ToolError::Broken(format!(
                "{won} of {all} commits for one epoch were accepted, and it must be exactly one"
            )));
        };
        Ok(*winner)
    }

    pub(super) fn epoch(&self) -> Result<Epoch, ToolError> {
        self.mls.epoch().ok_or_else(|| ToolError::missing("a group"))
    }

    /// The secret that only the members of an epoch share (RFC 9420 §8.7).
    pub(super) fn epoch_authenticator(&self) -> Result<Vec<u8>, ToolError> {
        self.mls.epoch_authenticator().ok_or_else(|| ToolError::missing("a group"))
    }
}
