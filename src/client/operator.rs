//! A typed client of the operators' listener: one method for each request under `/operator/v1`.

use std::time::Duration;

use actors::{AppId, GroupId};

use super::{ActivityReader, RequestError, requests::Requests};
use crate::{
    api::{
        Nothing,
        audit::{AuditLog, ListAudit},
        backups::{ListBackups, ListedBackups, MadeBackup, MakeBackup},
        clients::PageQuery,
        groups::Groups,
        operated_clients::{ListOperatedClients, OperatedClients},
        operated_groups::{
            DeleteOperatedGroup, EpochsBefore, GroupEpochs, InspectGroup, InspectedGroup, ListGroupEpochs,
            ListOperatedGroups, ListPeers, ListedPeers, OperatedGroupPath,
        },
        operator::{
            ListOperatedApplications, ListTokens, ListedTokens, MadeTokenBody, MakeToken, NewTokenBody,
            OperatedApplications, OperatedPath, RevokeToken, TokenAccess, TokenPath,
        },
        paths::NoMembers,
        reports::{ListReportedEpochs, ListedReports},
    },
    token::Token,
};

/// The time limit of making a backup.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// A client of the operators' listener of one gateway. Clones share their connections.
///
/// ```no_run
/// use mimi_gateway::{
///     client::{OperatorClient, RequestError},
///     token::Token,
/// };
///
/// /// The domains of the peers that do not answer.
/// async fn unreachable(token: Token) -> Result<Vec<String>, RequestError> {
///     let operator = OperatorClient::new("http://127.0.0.1:8081", token)?;
///     let peers = operator.peers().await?.peers.into_iter();
///     Ok(peers.filter(|peer| !peer.is_reachable).map(|peer| peer.domain.to_string()).collect())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct OperatorClient {
    requests: Requests,
}

impl OperatorClient {
    /// A client of the listener at a base URL like `http://127.0.0.1:8081`, with a token of an operator.
    ///
    /// # Errors
    /// [`RequestError::Transport`] when there can be no HTTP client.
    pub fn new(base_url: impl Into<String>, token: Token) -> Result<Self, RequestError> {
        Ok(Self { requests: Requests::new(base_url, token)? })
    }

    /// The applications of the gateway.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn applications(&self) -> Result<OperatedApplications, RequestError> {
        self.requests.ask::<ListOperatedApplications>(&NoMembers, &Nothing {}, &Nothing {}).await
    }

    /// The tokens of an application.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn tokens(&self, app: AppId) -> Result<ListedTokens, RequestError> {
        self.requests.ask::<ListTokens>(&OperatedPath { app }, &Nothing {}, &Nothing {}).await
    }

    /// Makes a token for an application.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests. If the answer was lost, a token may have been made: see [`OperatorClient::tokens`].
    pub async fn make_token(&self, app: AppId, access: TokenAccess) -> Result<MadeTokenBody, RequestError> {
        self.requests.ask::<MakeToken>(&OperatedPath { app }, &Nothing {}, &NewTokenBody { access }).await
    }

    /// Revokes a token of an application, by its id.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn revoke_token(&self, app: AppId, token_id: &str) -> Result<(), RequestError> {
        let path = TokenPath { app, token: token_id.to_owned() };
        self.requests.ask::<RevokeToken>(&path, &Nothing {}, &Nothing {}).await.map(drop)
    }

    /// A page of the clients of an application.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn clients(&self, app: AppId, page: &PageQuery) -> Result<OperatedClients, RequestError> {
        self.requests.ask::<ListOperatedClients>(&OperatedPath { app }, page, &Nothing {}).await
    }

    /// A page of the groups of an application.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn groups(&self, app: AppId, page: &PageQuery) -> Result<Groups, RequestError> {
        self.requests.ask::<ListOperatedGroups>(&OperatedPath { app }, page, &Nothing {}).await
    }

    /// One group.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn group(&self, app: AppId, group: &GroupId) -> Result<InspectedGroup, RequestError> {
        self.requests.ask::<InspectGroup>(&at_group(app, group), &Nothing {}, &Nothing {}).await
    }

    /// Deletes a group that the gateway orders.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn delete_group(&self, app: AppId, group: &GroupId) -> Result<(), RequestError> {
        let path = at_group(app, group);
        self.requests.ask::<DeleteOperatedGroup>(&path, &Nothing {}, &Nothing {}).await.map(drop)
    }

    /// The epochs of a group, the newest first.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn epochs(
        &self,
        app: AppId,
        group: &GroupId,
        query: &EpochsBefore,
    ) -> Result<GroupEpochs, RequestError> {
        self.requests.ask::<ListGroupEpochs>(&at_group(app, group), query, &Nothing {}).await
    }

    /// A page of the epochs of an application that members have reported.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn reports(&self, app: AppId, page: &PageQuery) -> Result<ListedReports, RequestError> {
        self.requests.ask::<ListReportedEpochs>(&OperatedPath { app }, page, &Nothing {}).await
    }

    /// A page of the audit log of an application, the newest entries first.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn audit(&self, app: AppId, page: &PageQuery) -> Result<AuditLog, RequestError> {
        self.requests.ask::<ListAudit>(&OperatedPath { app }, page, &Nothing {}).await
    }

    /// The gateways of other domains.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn peers(&self) -> Result<ListedPeers, RequestError> {
        self.requests.ask::<ListPeers>(&NoMembers, &Nothing {}, &Nothing {}).await
    }

    /// The backups of the gateway.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests.
    pub async fn backups(&self) -> Result<ListedBackups, RequestError> {
        self.requests.ask::<ListBackups>(&NoMembers, &Nothing {}, &Nothing {}).await
    }

    /// Makes a backup, which takes as long as reading the whole store.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests. If no answer came, the backup may have been made: see [`OperatorClient::backups`].
    pub async fn make_backup(&self) -> Result<MadeBackup, RequestError> {
        let patient = self.requests.clone().within(BACKUP_TIMEOUT);
        patient.ask::<MakeBackup>(&NoMembers, &Nothing {}, &Nothing {}).await
    }

    /// Opens the stream of samples of the gateway's activity.
    ///
    /// # Errors
    /// [`RequestError`], as for all requests; 429 if too many streams are open.
    pub async fn activity(&self) -> Result<ActivityReader, RequestError> {
        ActivityReader::open(&self.requests).await
    }
}

fn at_group(app: AppId, group: &GroupId) -> OperatedGroupPath {
    OperatedGroupPath { application: OperatedPath { app }, group: group.clone() }
}
