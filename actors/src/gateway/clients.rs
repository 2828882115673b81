//! The directory of clients (*Managing Identities*): rows in the store, written under preconditions, without an actor.

use std::{collections::BTreeSet, time::Duration};

use snapshots::{
    AppId, AppendError, Batch, Bytes, ClientHandle, ClientId, ClientRow, DeliveryId, DomainName, Epoch,
    GroupId, GroupRow, QuotaExceeded, Unmet,
};
use tokio::time::Instant;

use super::Gateway;
use crate::{
    application::{Application, DomainError},
    error::StorageError,
    group::GroupError,
};

/// How long a request waits until the owner of a group shows the epoch of a welcome that is written already.
const WELCOME_TREE_WAIT: Duration = Duration::from_secs(5);
/// How long it waits before it looks again.
const WELCOME_TREE_PAUSE: Duration = Duration::from_millis(20);

/// The reason why a request about clients was refused. A refused request has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No client of that id is registered in this application.
    #[error("this application has no client with this id")]
    UnknownClient,
    /// Another client has the handle.
    #[error("another client has this handle")]
    HandleTaken {
        /// The client that has it.
        client: ClientId,
    },
    /// A value cannot be used; the text names it.
    #[error("{0}")]
    Invalid(String),
    /// The domain cannot be used.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// A part of the request is larger or more numerous than the gateway accepts.
    #[error("{what}: at most {max}")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The application has as many clients as its quota allows.
    #[error(transparent)]
    Quota(QuotaExceeded),
    /// Too many requests wait to change the client, or another change came first.
    #[error("the gateway is busy with other changes of this client; try again in a moment")]
    Busy,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// The store failed, or its data could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A client to register (*Identity Registration*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClient {
    /// Its handle.
    pub handle: ClientHandle,
    /// Its domain; the gateway's only domain if there is none.
    pub domain: Option<DomainName>,
    /// Labels by which it can be found.
    pub tags: Vec<String>,
}

/// A change to a client (*Identity Registration*).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientChange {
    /// A new handle. Key packages that carry the old one are dropped.
    pub handle: Option<ClientHandle>,
    /// Tags to add.
    pub tags_to_add: Vec<String>,
    /// Tags to remove; one that is also added stays.
    pub tags_to_remove: Vec<String>,
}

/// A search for clients (*Client Discovery*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientQuery {
    /// The tag that they have; any clients without it.
    pub tag: Option<String>,
    /// Their domain, where the application uses domains.
    pub domain: Option<DomainName>,
    /// Only clients after this one, in the order of ids.
    pub after: Option<ClientId>,
    /// The greatest number of results.
    pub limit: usize,
}

/// The messages that an invited client needs to join (*Joining*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinInfo {
    /// Its position in the order of delivery.
    pub id: DeliveryId,
    /// The group that the client was added to.
    pub group: GroupId,
    /// The epoch that it joins in.
    pub epoch: Epoch,
    /// MLSMessage with the Welcome.
    pub welcome: Bytes,
    /// `optional<Node> ratchet_tree<V>` of that epoch, if it was asked for.
    pub ratchet_tree: Option<Bytes>,
}

impl JoinInfo {
    /// The size of its MLS messages, in bytes.
    fn message_bytes(&self) -> usize {
        self.welcome.len().saturating_add(self.ratchet_tree.as_ref().map_or(0, Bytes::len))
    }
}

/// A query for join infos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinInfoQuery {
    /// The client's domain, one of this gateway; its only one if there is none.
    pub domain: Option<DomainName>,
    /// Only those after this one, in the order of delivery.
    pub after: Option<DeliveryId>,
    /// Whether the ratchet trees come with them.
    pub with_ratchet_tree: bool,
    /// The greatest number of results.
    pub limit: usize,
}

/// One page of the join infos that wait for a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinInfoPage {
    /// The join infos in the order of delivery: at least one when one waits.
    pub join_infos: Vec<JoinInfo>,
    /// Whether more wait after the last of them.
    pub has_more: bool,
}

/// Bytes read for one page of join infos, as a multiple of the bytes that its answer may hold.
const READ_PER_ANSWER: usize = 4;

/// The number of retries when the row was changed by a writer that did not wait for a turn: another process, or a writer
/// outside this file.
const ATTEMPTS: usize = 16;

impl Gateway {
    /// Registers a client (*Identity Registration*).
    ///
    /// # Errors
    /// [`ClientError::HandleTaken`], [`ClientError::Domain`], [`ClientError::Invalid`], [`ClientError::TooLarge`], or
    /// that the gateway cannot write.
    pub async fn register_client(&self, app: AppId, new: NewClient) -> Result<ClientId, ClientError> {
        let application = self.client_application(app)?;
        self.check_handle(&new.handle)?;
        let tags: BTreeSet<String> = new.tags.into_iter().collect();
        self.check_tags(&tags)?;
        let row = ClientRow {
            client_id: ClientId::random(),
            handle: new.handle,
            domain: application.client_domain(new.domain)?,
            tags,
            handle_generation: 0,
            created_at: self.services.clock.now(),
        };
        let mut batch = Batch::new();
        batch.create_client(app, &row);
        batch.require_quotas(app, application.quotas);
        self.write_client(batch).await?;
        Ok(row.client_id)
    }

    /// One client (*Identity Retrieval*).
    ///
    /// # Errors
    /// [`ClientError::UnknownClient`], or that the store cannot be read.
    pub async fn client(&self, app: AppId, client: ClientId) -> Result<ClientRow, ClientError> {
        let row = self.services.store.view().client(app, client).map_err(StorageError::from)?;
        row.ok_or(ClientError::UnknownClient)
    }

    /// Changes a client's handle or tags, all or nothing.
    ///
    /// # Errors
    /// [`ClientError::UnknownClient`], [`ClientError::HandleTaken`], a limit, or that the gateway cannot write.
    pub async fn change_client(
        &self,
        app: AppId,
        client: ClientId,
        change: ClientChange,
    ) -> Result<ClientRow, ClientError> {
        self.client_application(app)?;
        if let Some(handle) = &change.handle {
            self.check_handle(handle)?;
        }
        let _turn = self.client_turns.take((app, client)).await.ok_or(ClientError::Busy)?;
        for _ in 0..ATTEMPTS {
            let old = self.client(app, client).await?;
            let mut new = old.clone();
            if let Some(handle) = &change.handle
                && *handle != old.handle
            {
                new.handle = handle.clone();
                new.handle_generation += 1;
            }
            for tag in &change.tags_to_remove {
                new.tags.remove(tag);
            }
            new.tags.extend(change.tags_to_add.iter().cloned());
            self.check_tags(&new.tags)?;
            if new == old {
                return Ok(old);
            }
            let mut batch = Batch::new();
            batch.replace_client(app, &old, &new);
            match self.write_client(batch).await {
                Ok(()) => return Ok(new),
                Err(ClientError::Busy) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Busy)
    }

    /// Deletes a client with its queues, assignments, tags and waiting welcomes (*Identity Deletion*).
    ///
    /// # Errors
    /// [`ClientError::UnknownClient`], or that the gateway cannot write.
    pub async fn delete_client(&self, app: AppId, client: ClientId) -> Result<(), ClientError> {
        self.client_application(app)?;
        let _turn = self.client_turns.take((app, client)).await.ok_or(ClientError::Busy)?;
        for _ in 0..ATTEMPTS {
            let row = self.client(app, client).await?;
            let queues = self.services.store.view().queues(app, client).map_err(StorageError::from)?;
            let mut batch = Batch::new();
            batch.delete_client(app, &row);
            match self.write_client(batch).await {
                Ok(()) => {
                    for queue in queues {
                        self.registry.close_key_queue(app, queue.queue_id);
                    }
                    return Ok(());
                }
                Err(ClientError::Busy) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Busy)
    }

    /// Clients by their tag, or all, in the order of their ids (*Client Discovery*).
    ///
    /// # Errors
    /// [`ClientError::Domain`], or that the store cannot be read.
    pub async fn find_clients(&self, app: AppId, query: ClientQuery) -> Result<Vec<ClientRow>, ClientError> {
        let application = self.client_application(app)?;
        let domain = match query.domain.clone() {
            None if application.supports_domains => return Err(DomainError::Required.into()),
            given => application.client_domain(given)?,
        };
        let view = self.services.store.view();
        let ClientQuery { tag, after, limit, .. } = query;
        self.read(move || view.clients(app, domain.as_ref(), tag.as_deref(), after, limit)).await
    }

    /// The groups whose current tree holds this client of a domain of this gateway, in the order of their ids.
    ///
    /// # Errors
    /// [`ClientError::Domain`], or that the store cannot be read.
    pub async fn groups_of_client(
        &self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<DomainName>,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<(GroupId, Epoch)>, ClientError> {
        let domain = self.client_application(app)?.client_domain(domain)?;
        let (view, handle) = (self.services.store.view(), handle.clone());
        self.read(move || view.groups_of(app, &handle, domain.as_ref(), after, limit)).await
    }

    /// The groups of an application, in the order of their ids.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub async fn groups(
        &self,
        app: AppId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<(GroupId, GroupRow)>, ClientError> {
        self.client_application(app)?;
        let view = self.services.store.view();
        self.read(move || view.groups(app, after, limit)).await
    }

    /// The join infos of a client for the groups to which it was invited, oldest first (*Joining*). An unknown handle has none.
    /// A page has at least one join info, if one waits, and at most `limit`; it ends before `answer_bytes_max` bytes, or before
    /// four times that size has been read.
    ///
    /// # Errors
    /// [`ClientError::Domain`], or that the store cannot be read.
    pub async fn welcomes(
        &self,
        app: AppId,
        handle: &ClientHandle,
        query: JoinInfoQuery,
    ) -> Result<JoinInfoPage, ClientError> {
        let application = self.client_application(app)?;
        let domain = application.client_domain(query.domain)?;
        let (view, handle) = (self.services.store.view(), handle.clone());
        let bytes_max = self.services.limits.answer_bytes_max;
        let page = self.read(move || {
            let mut join_infos: Vec<JoinInfo> = Vec::new();
            let mut without_tree = BTreeSet::new();
            let (mut bytes, mut bytes_read) = (0_usize, 0_usize);
            // One more than the limit tells whether there is more.
            let wanted = query.limit.saturating_add(1);
            for (id, info) in view.join_infos_in(app, &handle, domain.as_ref(), query.after, wanted)? {
                if join_infos.len() >= query.limit {
                    return Ok((JoinInfoPage { join_infos, has_more: true }, without_tree));
                }
                let Some(row) = view.welcome(app, &info.group, info.epoch)? else { continue };
                // A row is read whole, including a tree that the query may not ask for.
                bytes_read =
                    bytes_read.saturating_add(row.welcome.len()).saturating_add(row.ratchet_tree.len());
                let join_info = JoinInfo {
                    id,
                    group: info.group,
                    epoch: info.epoch,
                    welcome: row.welcome,
                    // `None` if the hub transferred the group later and had not kept the epoch's tree.
                    ratchet_tree: Some(row.ratchet_tree)
                        .filter(|tree| query.with_ratchet_tree && !tree.is_empty()),
                };
                bytes = bytes.saturating_add(join_info.message_bytes());
                let is_tree_elsewhere = query.with_ratchet_tree && row.tree_bytes_to_store > 0;
                if is_tree_elsewhere {
                    let tree_bytes = usize::try_from(row.tree_bytes_to_store).unwrap_or(usize::MAX);
                    bytes = bytes.saturating_add(tree_bytes);
                }
                let is_full = bytes > bytes_max || bytes_read > bytes_max.saturating_mul(READ_PER_ANSWER);
                if is_full && !join_infos.is_empty() {
                    return Ok((JoinInfoPage { join_infos, has_more: true }, without_tree));
                }
                if is_tree_elsewhere {
                    without_tree.insert(id);
                }
                join_infos.push(join_info);
            }
            Ok((JoinInfoPage { join_infos, has_more: false }, without_tree))
        });
        let (mut page, without_tree) = page.await?;
        for join_info in &mut page.join_infos {
            if without_tree.contains(&join_info.id) {
                let JoinInfo { group, epoch, .. } = &*join_info;
                join_info.ratchet_tree = self.welcome_tree(application, group, *epoch).await?;
            }
        }
        Ok(page)
    }

    /// The tree of a welcome that was not stored when the welcome was read: from the group's owner, or from the store by now.
    /// `None` if the welcome was acknowledged meanwhile.
    async fn welcome_tree(
        &self,
        application: &Application,
        group: &GroupId,
        epoch: Epoch,
    ) -> Result<Option<Bytes>, ClientError> {
        let deadline = Instant::now() + WELCOME_TREE_WAIT;
        loop {
            let view = self.registry.group_view(application, group).await.map_err(unreadable_group)?;
            if let Some(tree) = view.welcome_trees.get(&epoch).cloned() {
                return self.read(move || Ok(Some(tree.to_bytes().into()))).await;
            }
            let stored = self.services.store.view().welcome(application.id, group, epoch);
            match stored.map_err(StorageError::from)? {
                None => return Ok(None),
                Some(row) if row.tree_bytes_to_store == 0 => return Ok(Some(row.ratchet_tree)),
                // It is written, and the owner has not shown the epoch yet.
                Some(_) if Instant::now() < deadline => tokio::time::sleep(WELCOME_TREE_PAUSE).await,
                Some(_) => return Err(ClientError::Busy),
            }
        }
    }

    /// Acknowledges a welcome: it is never delivered again. A missing one counts as acknowledged.
    ///
    /// # Errors
    /// [`ClientError::Domain`], or that the gateway cannot write.
    pub async fn acknowledge_welcome(
        &self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<DomainName>,
        id: DeliveryId,
    ) -> Result<(), ClientError> {
        let domain = self.client_application(app)?.client_domain(domain)?;
        let outcome = self.services.store.acknowledge_in(app, handle, domain.as_ref(), id).await;
        outcome.map_err(|error| refused(&error))
    }

    /// Runs a long read away from the threads that answer requests.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, snapshots::ReadError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let read = snapshots::away(read).await.map_err(|_| StorageError::Unreadable)?;
        read.map_err(|error| StorageError::from(error).into())
    }

    async fn write_client(&self, batch: Batch) -> Result<(), ClientError> {
        self.services.store.append(batch).await.map(drop).map_err(|error| refused(&error))
    }

    fn client_application(&self, app: AppId) -> Result<&Application, ClientError> {
        if self.services.is_stopping() {
            return Err(ClientError::Stopping);
        }
        self.application(app)
            .ok_or_else(|| ClientError::Invalid("this gateway has no such application".into()))
    }

    fn check_handle(&self, handle: &ClientHandle) -> Result<(), ClientError> {
        let max = self.services.limits.client_handle_bytes_max;
        if handle.as_bytes().len() > max {
            return Err(ClientError::TooLarge { what: "bytes in clientHandle", max });
        }
        Ok(())
    }

    fn check_tags(&self, tags: &BTreeSet<String>) -> Result<(), ClientError> {
        let (count, bytes) = (self.services.limits.tags_per_client_max, self.services.limits.tag_bytes_max);
        if tags.len() > count {
            return Err(ClientError::TooLarge { what: "tags of a client", max: count });
        }
        if tags.iter().any(String::is_empty) {
            return Err(ClientError::Invalid("a tag is empty".into()));
        }
        if tags.iter().any(|tag| tag.len() > bytes) {
            return Err(ClientError::TooLarge { what: "bytes in a tag", max: bytes });
        }
        Ok(())
    }
}

fn refused(error: &AppendError) -> ClientError {
    match error {
        AppendError::Precondition(Unmet::HandleTaken { client }) => {
            ClientError::HandleTaken { client: *client }
        }
        AppendError::Precondition(Unmet::ClientMissing) => ClientError::UnknownClient,
        AppendError::Precondition(Unmet::QuotaExceeded(quota)) => ClientError::Quota(*quota),
        AppendError::Precondition(_) => ClientError::Busy,
        AppendError::TooLarge { limit, .. } => {
            ClientError::TooLarge { what: "bytes that the request writes", max: *limit }
        }
        AppendError::Closed | AppendError::Stalled { .. } | AppendError::Storage(_) => {
            StorageError::from_append(error).into()
        }
    }
}

/// The error of a client's request for which a group cannot be read.
fn unreadable_group(error: GroupError) -> ClientError {
    if let GroupError::Storage(error) = error {
        ClientError::Storage(error)
    } else if error == GroupError::Busy {
        ClientError::Busy
    } else if error == GroupError::Stopping {
        ClientError::Stopping
    } else {
        StorageError::Unreadable.into()
    }
}
