//! Typed clients of a gateway's listeners: one method for each request of the [API](crate::api).

mod events;
mod exchange;
mod operator;
mod requests;

use std::error::Error;

use actors::{AppId, ClientHandle, ClientId, DeliveryId, DomainName, GroupId, KeyQueueId};

use crate::{
    api::{
        Endpoint, Nothing,
        applications::{ApplicationConfigurations, ListApplications},
        clients::{
            ChangeClient, ClientBody, ClientChangeBody, DeleteClient, FindClients, GetClient, GroupsOfClient,
            GroupsOfClientQuery, IdentitiesBody, ListGroupsOfClient, NewClientBody, PageQuery,
            RegisterClient, RegisteredClient, TagQuery,
        },
        external_senders::{ExternalSenders, ListExternalSenders},
        groups::{
            AcceptedCommitBody, AcceptedProposalBody, CommitBody, ControlMessagesBody, CreateGroup,
            CreatedGroupBody, DeleteGroup, EpochRange, GetGroup, Group, Groups, ListControlMessages,
            ListGroups, ListProposals, NewGroupBody, ProposalBody, Proposals, UploadCommit, UploadProposal,
        },
        joining::{
            AcknowledgeWelcome, GetGroupInfo, GroupInfos, HandleQuery, JoinInfos, ListWelcomes, WelcomeQuery,
        },
        key_packages::{
            CreateKeyQueue, CreatedKeyQueue, DeleteKeyQueue, KeyPackageQuery, KeyPackageUploadBody,
            KeyQueues, ListKeyQueues, NewKeyQueueBody, PoolSize, RetrieveKeyPackage, RetrievedKeyPackage,
            UploadKeyPackages,
        },
        paths::{AppPath, ClientPath, GroupPath, HandlePath, JoinInfoPath, KeyQueuePath, NoMembers},
        problem::{ProblemDocument, ProblemKind},
        reports::{ReportBody, ReportEpoch, Reporters},
    },
    tls,
    token::Token,
};

use self::requests::Requests;
pub use self::{
    events::{ActivityReader, EventReader},
    exchange::Exchange,
    operator::OperatorClient,
};

/// A client of one gateway for one application. Clones share their connections.
///
/// ```no_run
/// use actors::{AppId, Epoch, GroupId};
/// use mimi_gateway::{
///     api::{groups::EpochRange, problem::ProblemKind},
///     client::{GatewayClient, RequestError},
///     token::Token,
/// };
///
/// /// The number of commits of a group after an epoch in the gateway's first answer.
/// async fn commits_after(gateway: &GatewayClient, group: &GroupId, epoch: Epoch) -> Result<usize, RequestError> {
///     let range =
///         EpochRange::from(Epoch(epoch.0 + 1));
///     match gateway.control_messages(group, &range).await {
///         Ok(messages) => Ok(messages.epochs.len()),
///         // The group does not exist, or it is another application's.
///         Err(error) if error.kind() == Some(ProblemKind::UnknownGroup) => Ok(0),
///         Err(error) => Err(error),
///     }
/// }
///
/// # async fn example(app: AppId, token: Token, group: GroupId) -> Result<(), RequestError> {
/// let gateway = GatewayClient::new("http://127.0.0.1:8080", app, token)?;
/// let missed = commits_after(&gateway, &group, Epoch(7)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GatewayClient {
    app: AppId,
    requests: Requests,
}

/// The reason why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The gateway refused it.
    #[error("{}: {}", .0.slug(), .0.detail)]
    Problem(Box<ProblemDocument>),
    /// The request did not reach the gateway, or its answer did not arrive.
    #[error(transparent)]
    Transport(#[from] reqwest::Error),
    /// The answer is not one of a gateway of this version.
    #[error("the answer, status {status}, is not one of a gateway: {reason}")]
    Unexpected {
        /// The status of the answer.
        status: u16,
        /// The fault.
        reason: String,
    },
}

impl RequestError {
    /// The problem type of the answer, if this version knows it.
    pub fn kind(&self) -> Option<ProblemKind> {
        match self {
            Self::Problem(problem) => problem.kind(),
            Self::Transport(_) | Self::Unexpected { .. } => None,
        }
    }
}

/// A successful answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<T> {
    /// 200, 201 or 204.
    pub status: u16,
    /// The body.
    pub body: T,
}

impl GatewayClient {
    /// A client of the gateway at a base URL like `http://127.0.0.1:8080`, for an application and with its token.
    ///
    /// # Errors
    /// [`RequestError::Transport`] when there can be no HTTP client.
    pub fn new(base_url: impl Into<String>, app: AppId, token: Token) -> Result<Self, RequestError> {
        Ok(Self { app, requests: Requests::new(base_url, token)? })
    }

    /// The same client, which reports each exchange of [`GatewayClient::send`]: for logs, and to show the requests of an
    /// application. The token is no part of it.
    #[must_use]
    pub fn reporting_to(self, observer: impl Fn(&Exchange<'_>) + Send + Sync + 'static) -> Self {
        Self { requests: self.requests.reporting_to(observer), ..self }
    }

    /// The same client over other connections, such as shared ones.
    #[must_use]
    pub fn over(self, http: reqwest::Client) -> Self {
        Self { requests: self.requests.over(http), ..self }
    }

    /// The client's application.
    pub fn app(&self) -> AppId {
        self.app
    }

    /// Makes any request of the API.
    ///
    /// # Errors
    /// [`RequestError::Problem`] when the gateway refuses it.
    pub async fn send<E: Endpoint>(
        &self,
        path: &E::Path,
        query: &E::Query,
        body: &E::Body,
    ) -> Result<Reply<E::Response>, RequestError> {
        self.requests.send::<E>(path, query, body).await
    }
}

/// One method for each endpoint; each fails as [`GatewayClient::send`] does.
impl GatewayClient {
    /// The public applications of the gateway.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn applications(&self) -> Result<ApplicationConfigurations, RequestError> {
        self.ask::<ListApplications>(&NoMembers, &Nothing {}, &Nothing {}).await
    }

    /// The keys by which the gateway proposes the removal of expired members (*Handing Timestamps*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn external_senders(&self) -> Result<ExternalSenders, RequestError> {
        self.ask::<ListExternalSenders>(&self.at_application(), &Nothing {}, &Nothing {}).await
    }

    /// Registers a client (*Identity Registration*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn register_client(&self, client: &NewClientBody) -> Result<RegisteredClient, RequestError> {
        self.ask::<RegisterClient>(&self.at_application(), &Nothing {}, client).await
    }

    /// A registered client (*Identity Retrieval*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn client(&self, client: ClientId) -> Result<ClientBody, RequestError> {
        self.ask::<GetClient>(&self.at_client(client), &Nothing {}, &Nothing {}).await
    }

    /// Renames a client, adds and removes tags.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn change_client(
        &self,
        client: ClientId,
        change: &ClientChangeBody,
    ) -> Result<ClientBody, RequestError> {
        self.ask::<ChangeClient>(&self.at_client(client), &Nothing {}, change).await
    }

    /// Deletes a client (*Identity Deletion*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn delete_client(&self, client: ClientId) -> Result<(), RequestError> {
        self.ask::<DeleteClient>(&self.at_client(client), &Nothing {}, &Nothing {}).await.map(drop)
    }

    /// The clients that have a tag, or all (*Client Discovery*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn find_clients(&self, query: &TagQuery) -> Result<IdentitiesBody, RequestError> {
        self.ask::<FindClients>(&self.at_application(), query, &Nothing {}).await
    }

    /// The groups of which a client is a member, by its handle and its domain.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn groups_of_client(
        &self,
        handle: &ClientHandle,
        query: &GroupsOfClientQuery,
    ) -> Result<GroupsOfClient, RequestError> {
        self.ask::<ListGroupsOfClient>(&self.at_handle(handle), query, &Nothing {}).await
    }

    /// Creates a key queue (*Key Queue Creation*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn create_key_queue(
        &self,
        client: ClientId,
        queue: &NewKeyQueueBody,
    ) -> Result<CreatedKeyQueue, RequestError> {
        self.ask::<CreateKeyQueue>(&self.at_client(client), &Nothing {}, queue).await
    }

    /// The key queues of a client.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn key_queues(&self, client: ClientId) -> Result<KeyQueues, RequestError> {
        self.ask::<ListKeyQueues>(&self.at_client(client), &Nothing {}, &Nothing {}).await
    }

    /// Uploads key packages (*Key Queue Update*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn upload_key_packages(
        &self,
        client: ClientId,
        queue: KeyQueueId,
        upload: &KeyPackageUploadBody,
    ) -> Result<PoolSize, RequestError> {
        let path = KeyQueuePath { app: self.app, client, queue };
        self.ask::<UploadKeyPackages>(&path, &Nothing {}, upload).await
    }

    /// Deletes a key queue (*Key Pool Deletion*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn delete_key_queue(&self, client: ClientId, queue: KeyQueueId) -> Result<(), RequestError> {
        let path = KeyQueuePath { app: self.app, client, queue };
        self.ask::<DeleteKeyQueue>(&path, &Nothing {}, &Nothing {}).await.map(drop)
    }

    /// A key package of a client, assigned to the receiver (*Key Package Retrieval*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn retrieve_key_package(
        &self,
        client: ClientId,
        query: &KeyPackageQuery,
    ) -> Result<RetrievedKeyPackage, RequestError> {
        self.ask::<RetrieveKeyPackage>(&self.at_client(client), query, &Nothing {}).await
    }

    /// Creates a group (*Group Creation*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn create_group(&self, group: &NewGroupBody) -> Result<CreatedGroupBody, RequestError> {
        self.ask::<CreateGroup>(&self.at_application(), &Nothing {}, group).await
    }

    /// All groups of the application.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn groups(&self, page: &PageQuery) -> Result<Groups, RequestError> {
        self.ask::<ListGroups>(&self.at_application(), page, &Nothing {}).await
    }

    /// The current state of a group.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn group(&self, group: &GroupId) -> Result<Group, RequestError> {
        self.ask::<GetGroup>(&self.at_group(group), &Nothing {}, &Nothing {}).await
    }

    /// Deletes a group, at the gateway that orders it.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn delete_group(&self, group: &GroupId) -> Result<(), RequestError> {
        self.ask::<DeleteGroup>(&self.at_group(group), &Nothing {}, &Nothing {}).await.map(drop)
    }

    /// Reports that a member cannot open an epoch; answers how many members have.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn report_epoch(
        &self,
        group: &GroupId,
        report: &ReportBody,
    ) -> Result<Reporters, RequestError> {
        self.ask::<ReportEpoch>(&self.at_group(group), &Nothing {}, report).await
    }

    /// Uploads a proposal (*Proposals*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn upload_proposal(
        &self,
        group: &GroupId,
        proposal: &ProposalBody,
    ) -> Result<AcceptedProposalBody, RequestError> {
        self.ask::<UploadProposal>(&self.at_group(group), &Nothing {}, proposal).await
    }

    /// The proposals that wait (*Proposals*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn proposals(&self, group: &GroupId) -> Result<Proposals, RequestError> {
        self.ask::<ListProposals>(&self.at_group(group), &Nothing {}, &Nothing {}).await
    }

    /// Uploads a commit (*Commits*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn upload_commit(
        &self,
        group: &GroupId,
        commit: &CommitBody,
    ) -> Result<AcceptedCommitBody, RequestError> {
        self.ask::<UploadCommit>(&self.at_group(group), &Nothing {}, commit).await
    }

    /// The control messages of a range of epochs (*Commits*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn control_messages(
        &self,
        group: &GroupId,
        range: &EpochRange,
    ) -> Result<ControlMessagesBody, RequestError> {
        self.ask::<ListControlMessages>(&self.at_group(group), range, &Nothing {}).await
    }

    /// The group info and ratchet tree for an external joiner (*Joining*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn group_info(&self, group: &GroupId) -> Result<GroupInfos, RequestError> {
        self.ask::<GetGroupInfo>(&self.at_group(group), &Nothing {}, &Nothing {}).await
    }

    /// The welcomes that wait for a handle (*Joining*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn welcomes(
        &self,
        handle: &ClientHandle,
        query: &WelcomeQuery,
    ) -> Result<JoinInfos, RequestError> {
        self.ask::<ListWelcomes>(&self.at_handle(handle), query, &Nothing {}).await
    }

    /// Acknowledges a welcome of a client, by its handle and its domain (*Joining*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn acknowledge_welcome(
        &self,
        handle: &ClientHandle,
        domain: Option<DomainName>,
        id: DeliveryId,
    ) -> Result<(), RequestError> {
        let path = JoinInfoPath { app: self.app, handle: handle.clone(), id };
        self.ask::<AcknowledgeWelcome>(&path, &HandleQuery { domain }, &Nothing {}).await.map(drop)
    }

    /// As [`GatewayClient::send`], for the body alone.
    async fn ask<E: Endpoint>(
        &self,
        path: &E::Path,
        query: &E::Query,
        body: &E::Body,
    ) -> Result<E::Response, RequestError> {
        self.requests.ask::<E>(path, query, body).await
    }

    fn at_application(&self) -> AppPath {
        AppPath { app: self.app }
    }

    fn at_client(&self, client: ClientId) -> ClientPath {
        ClientPath { app: self.app, client }
    }

    fn at_group(&self, group: &GroupId) -> GroupPath {
        GroupPath { app: self.app, group: group.clone() }
    }

    fn at_handle(&self, handle: &ClientHandle) -> HandlePath {
        HandlePath { app: self.app, handle: handle.clone() }
    }
}

/// An HTTP client without TLS. Unlike the default client of `reqwest`, it needs no certificates on the machine.
pub fn plain_http() -> reqwest::ClientBuilder {
    // Directly to the named gateway, whatever proxy the environment names.
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    match tls::trusting_nobody() {
        Ok(config) => builder.tls_backend_preconfigured(config),
        Err(_) => builder,
    }
}

/// An error with its causes, without URLs.
pub(crate) fn in_words(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "it takes too long".to_owned() } else { String::new() };
    let mut cause = Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{said}");
        }
        cause = error.source();
    }
    if text.is_empty() { "the connection failed".to_owned() } else { text }
}
