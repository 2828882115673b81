//! A typed client of a gateway's internal listener: one method for each request of the [`api`].

use std::time::Duration;

use actors::{AppId, ClientHandle, ClientId, DeliveryId, DomainName, GroupId, KeyQueueId};
use serde::de::DeserializeOwned;

use crate::{
    api::{
        self, Access, Body as _, Endpoint, Nothing,
        applications::{ApplicationConfigurations, ListApplications},
        clients::{
            ChangeClient, ClientBody, ClientChangeBody, DeleteClient, FindClients, GetClient, GroupsOfClient,
            GroupsOfClientQuery, IdentitiesBody, ListGroupsOfClient, NewClientBody, PageQuery,
            RegisterClient, RegisteredClient, TagQuery,
        },
        external_senders::{ExternalSenders, ListExternalSenders},
        groups::{
            AcceptedCommitBody, AcceptedProposalBody, CommitBody, ControlMessagesBody, CreateGroup,
            CreatedGroupBody, EpochRange, GetGroup, Group, Groups, ListControlMessages, ListGroups,
            ListProposals, NewGroupBody, ProposalBody, Proposals, UploadCommit, UploadProposal,
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
        problem::{PROBLEM_JSON, ProblemDocument, ProblemKind},
    },
    tls,
    token::Token,
};

/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks one gateway on behalf of one application. Clones share their connections.
///
/// ```no_run
/// use actors::{AppId, Epoch, GroupId};
/// use mimi_gateway::{
///     api::{groups::EpochRange, problem::ProblemKind},
///     client::{RequestError, GatewayClient},
///     token::Token,
/// };
///
/// /// The commits of a group after an epoch, as far as the gateway gives them in one answer.
/// async fn commits_after(gateway: &GatewayClient, group: &GroupId, epoch: Epoch) -> Result<usize, RequestError> {
///     let range =
///         EpochRange { start_epoch_id: Epoch(epoch.0 + 1), end_epoch_id: None, limit: None };
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
    http: reqwest::Client,
    base_url: String,
    app: AppId,
    token: Token,
}

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The gateway refused it.
    #[error("{}: {}", .0.slug(), .0.detail)]
    Problem(Box<ProblemDocument>),
    /// It did not get through.
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
    /// The type of problem, when the gateway answered with one that is known here.
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
    /// A client of the gateway at a base URL as `http://127.0.0.1:8080`, for an application and with its token.
    ///
    /// # Errors
    /// [`RequestError::Transport`] when there can be no HTTP client.
    pub fn new(base_url: impl Into<String>, app: AppId, token: Token) -> Result<Self, RequestError> {
        let base_url = base_url.into().trim_end_matches('/').to_owned();
        // Over TLS a gateway is believed when this machine trusts its certificate.
        let http = if base_url.starts_with("https:") {
            tls::install_provider();
            reqwest::Client::builder()
        } else {
            plain_http()
        };
        Ok(Self { http: http.timeout(REQUEST_TIMEOUT).build()?, base_url, app, token })
    }

    /// The same client over other connections: shared ones, or of another protocol.
    #[must_use]
    pub fn over(self, http: reqwest::Client) -> Self {
        Self { http, ..self }
    }

    /// The application that it asks for.
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
        let target = api::target::<E>(path, query).map_err(|error| unexpected(0, error))?;
        let url = format!("{}{target}", self.base_url);
        let method = reqwest::Method::from_bytes(E::METHOD.as_str().as_bytes()).unwrap_or_default();
        let mut request = self.http.request(method, url);
        if E::ACCESS != Access::Public {
            request = request.bearer_auth(self.token.reveal());
        }
        if E::Body::IS_SENT {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        if E::SUCCESS.iter().any(|success| success.status() == status) {
            let bytes = response.bytes().await?;
            let json: &[u8] = if status == 204 { b"{}" } else { &bytes };
            return Ok(Reply { status, body: decode(status, json)? });
        }
        let media_type = response.headers().get(reqwest::header::CONTENT_TYPE);
        if media_type.is_none_or(|media_type| media_type != PROBLEM_JSON) {
            return Err(unexpected(status, "neither a success nor a problem document"));
        }
        Err(RequestError::Problem(Box::new(decode(status, &response.bytes().await?)?)))
    }
}

/// One method for each endpoint; each fails as [`GatewayClient::send`] does.
impl GatewayClient {
    /// The public applications of the gateway.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn applications(&self) -> Result<ApplicationConfigurations, RequestError> {
        Ok(self.send::<ListApplications>(&NoMembers, &Nothing {}, &Nothing {}).await?.body)
    }

    /// The keys by which the gateway proposes the removal of expired members (*Handing Timestamps*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn external_senders(&self) -> Result<ExternalSenders, RequestError> {
        let path = AppPath { app: self.app };
        Ok(self.send::<ListExternalSenders>(&path, &Nothing {}, &Nothing {}).await?.body)
    }

    /// Registers a client (*Identity Registration*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn register_client(&self, client: &NewClientBody) -> Result<RegisteredClient, RequestError> {
        Ok(self.send::<RegisterClient>(&AppPath { app: self.app }, &Nothing {}, client).await?.body)
    }

    /// A registered client (*Identity Retrieval*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn client(&self, client: ClientId) -> Result<ClientBody, RequestError> {
        Ok(self
            .send::<GetClient>(&ClientPath { app: self.app, client }, &Nothing {}, &Nothing {})
            .await?
            .body)
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
        Ok(self.send::<ChangeClient>(&ClientPath { app: self.app, client }, &Nothing {}, change).await?.body)
    }

    /// Deletes a client (*Identity Deletion*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn delete_client(&self, client: ClientId) -> Result<(), RequestError> {
        self.send::<DeleteClient>(&ClientPath { app: self.app, client }, &Nothing {}, &Nothing {})
            .await
            .map(drop)
    }

    /// The clients that have a tag, or all (*Client Discovery*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn find_clients(&self, query: &TagQuery) -> Result<IdentitiesBody, RequestError> {
        Ok(self.send::<FindClients>(&AppPath { app: self.app }, query, &Nothing {}).await?.body)
    }

    /// The groups that a client is a member of, by its handle and its domain.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn groups_of_client(
        &self,
        handle: &ClientHandle,
        query: &GroupsOfClientQuery,
    ) -> Result<GroupsOfClient, RequestError> {
        Ok(self
            .send::<ListGroupsOfClient>(
                &HandlePath { app: self.app, handle: handle.clone() },
                query,
                &Nothing {},
            )
            .await?
            .body)
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
        Ok(self.send::<CreateKeyQueue>(&ClientPath { app: self.app, client }, &Nothing {}, queue).await?.body)
    }

    /// The key queues of a client.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn key_queues(&self, client: ClientId) -> Result<KeyQueues, RequestError> {
        Ok(self
            .send::<ListKeyQueues>(&ClientPath { app: self.app, client }, &Nothing {}, &Nothing {})
            .await?
            .body)
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
        Ok(self.send::<UploadKeyPackages>(&path, &Nothing {}, upload).await?.body)
    }

    /// Deletes a key queue (*Key Pool Deletion*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn delete_key_queue(&self, client: ClientId, queue: KeyQueueId) -> Result<(), RequestError> {
        let path = KeyQueuePath { app: self.app, client, queue };
        self.send::<DeleteKeyQueue>(&path, &Nothing {}, &Nothing {}).await.map(drop)
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
        Ok(self
            .send::<RetrieveKeyPackage>(&ClientPath { app: self.app, client }, query, &Nothing {})
            .await?
            .body)
    }

    /// Creates a group (*Group Creation*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn create_group(&self, group: &NewGroupBody) -> Result<CreatedGroupBody, RequestError> {
        Ok(self.send::<CreateGroup>(&AppPath { app: self.app }, &Nothing {}, group).await?.body)
    }

    /// All groups of the application.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn groups(&self, page: &PageQuery) -> Result<Groups, RequestError> {
        Ok(self.send::<ListGroups>(&AppPath { app: self.app }, page, &Nothing {}).await?.body)
    }

    /// A group as it is now.
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn group(&self, group: &GroupId) -> Result<Group, RequestError> {
        Ok(self
            .send::<GetGroup>(&GroupPath { app: self.app, group: group.clone() }, &Nothing {}, &Nothing {})
            .await?
            .body)
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
        Ok(self
            .send::<UploadProposal>(&GroupPath { app: self.app, group: group.clone() }, &Nothing {}, proposal)
            .await?
            .body)
    }

    /// The proposals that wait (*Proposals*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn proposals(&self, group: &GroupId) -> Result<Proposals, RequestError> {
        Ok(self
            .send::<ListProposals>(
                &GroupPath { app: self.app, group: group.clone() },
                &Nothing {},
                &Nothing {},
            )
            .await?
            .body)
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
        Ok(self
            .send::<UploadCommit>(&GroupPath { app: self.app, group: group.clone() }, &Nothing {}, commit)
            .await?
            .body)
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
        Ok(self
            .send::<ListControlMessages>(
                &GroupPath { app: self.app, group: group.clone() },
                range,
                &Nothing {},
            )
            .await?
            .body)
    }

    /// The group info and ratchet tree for an external joiner (*Joining*).
    ///
    /// # Errors
    /// [`RequestError`] as [`GatewayClient::send`].
    pub async fn group_info(&self, group: &GroupId) -> Result<GroupInfos, RequestError> {
        Ok(self
            .send::<GetGroupInfo>(
                &GroupPath { app: self.app, group: group.clone() },
                &Nothing {},
                &Nothing {},
            )
            .await?
            .body)
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
        Ok(self
            .send::<ListWelcomes>(&HandlePath { app: self.app, handle: handle.clone() }, query, &Nothing {})
            .await?
            .body)
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
        self.send::<AcknowledgeWelcome>(&path, &HandleQuery { domain }, &Nothing {}).await.map(drop)
    }
}

/// Connections without TLS. A machine needs no certificates for them, as it does for what `reqwest` makes by itself.
pub fn plain_http() -> reqwest::ClientBuilder {
    // Straight to the gateway that was named, whatever the environment says.
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    match tls::trusting_nobody() {
        Ok(config) => builder.tls_backend_preconfigured(config),
        Err(_) => builder,
    }
}

fn decode<T: DeserializeOwned>(status: u16, json: &[u8]) -> Result<T, RequestError> {
    serde_json::from_slice(json).map_err(|error| unexpected(status, error))
}

fn unexpected(status: u16, reason: impl ToString) -> RequestError {
    RequestError::Unexpected { status, reason: reason.to_string() }
}
