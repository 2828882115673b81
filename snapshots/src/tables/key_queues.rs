//! Key queues of clients, and the attributes by which they are found (*Managing Key Packages*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `queues` | application, client, queue | [`QueueRow`] |
//! | `queue_owners` | application, queue | the client's id |
//! | `queue_labels` | application, client, protocol version, cipher suite, label | the queue's id |
//!
//! The packages of a queue are the state of its actor, in the log [`LogId::KeyQueue`]; `key_packages.rs` indexes them.

use serde::{Deserialize, Serialize};

use super::{
    clients, key_packages,
    records::{self, LogId},
    table,
};
use crate::{
    engine::{Batch, Key, Overlay, Rows, Slice, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, ClientId, KeyQueueId},
};

/// A key queue (*Key Queue Creation*). A client has one for each protocol version, cipher suite and label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Its id, which never changes.
    pub queue_id: KeyQueueId,
    /// Its client, which never changes.
    pub client_id: ClientId,
    /// The MLS protocol version of its packages (RFC 9420 §17.6: 1 is `mls10`).
    pub protocol_version: u16,
    /// The MLS cipher suite of its packages (RFC 9420 §17.1).
    pub cipher_suite: u16,
    /// The application's label.
    pub app_label: String,
}

fn queues_of(app: AppId, client: ClientId) -> Key {
    Key::of_app(app).uuid(client.as_uuid())
}

fn queue_key(app: AppId, client: ClientId, queue: KeyQueueId) -> Key {
    queues_of(app, client).uuid(queue.as_uuid())
}

fn owner_key(app: AppId, queue: KeyQueueId) -> Key {
    Key::of_app(app).uuid(queue.as_uuid())
}

fn label_key(app: AppId, client: ClientId, version: u16, suite: u16, label: &str) -> Key {
    queues_of(app, client).u16(version).u16(suite).last(label.as_bytes())
}

pub(super) fn label_key_of(app: AppId, row: &QueueRow) -> Key {
    label_key(app, row.client_id, row.protocol_version, row.cipher_suite, &row.app_label)
}

impl Batch {
    /// Creates a queue and its log. Preconditions: its client is registered, else [`Unmet::ClientMissing`]; the client
    /// has none of this protocol version, cipher suite and label, else [`Unmet::QueueExists`]; its id is new, else
    /// [`Unmet::LogExists`].
    pub fn create_queue(&mut self, app: AppId, row: &QueueRow) -> &mut Self {
        let (client, queue) = (row.client_id, row.queue_id);
        let log = self.key(records::log_key(&LogId::KeyQueue(app, queue)));
        let key = self.key(queue_key(app, client, queue));
        let owner = self.key(owner_key(app, queue));
        let label = self.key(label_key_of(app, row));
        let value = self.row(row);
        self.operation(move |overlay| {
            clients::require_client(overlay, app, client)?;
            take_label(overlay, &label, queue)?;
            records::create_log(overlay, &log)?;
            overlay.put(table::QUEUES, &key, value);
            overlay.put(table::QUEUE_OWNERS, &owner, Slice::from(client.as_uuid().as_bytes()));
            Ok(())
        })
    }

    /// Changes the protocol version, cipher suite or label of a queue. Preconditions: it is still `old`, else
    /// [`Unmet::QueueMissing`] or [`Unmet::QueueChanged`] (also when the two rows are of different queues), and the client has
    /// no other queue with the new ones, else [`Unmet::QueueExists`].
    pub fn relabel_queue(&mut self, app: AppId, old: &QueueRow, new: &QueueRow) -> &mut Self {
        let queue = new.queue_id;
        let key = self.key(queue_key(app, new.client_id, queue));
        let (old_label, new_label) = (label_key_of(app, old), self.key(label_key_of(app, new)));
        let value = self.row(new);
        let old = old.clone();
        self.operation(move |overlay| {
            require_queue_unchanged(overlay, &key, &old)?;
            if old_label != new_label {
                take_label(overlay, &new_label, queue)?;
                overlay.delete(table::QUEUE_LABELS, &old_label);
            }
            overlay.put(table::QUEUES, &key, value);
            Ok(())
        })
    }

    /// Deletes a queue with its log, its snapshot and its rows in the index of key packages (*Key Pool Deletion*).
    /// Preconditions: it is still `row`, else [`Unmet::QueueMissing`] or [`Unmet::QueueChanged`].
    pub fn delete_queue(&mut self, app: AppId, row: &QueueRow) -> &mut Self {
        let row = row.clone();
        self.operation(move |overlay| {
            require_queue_unchanged(overlay, &queue_key(app, row.client_id, row.queue_id), &row)?;
            delete_queue(overlay, app, &row)
        })
    }

    /// Precondition: the queue is still `row`, else [`Unmet::QueueMissing`] or [`Unmet::QueueChanged`].
    pub fn require_queue(&mut self, app: AppId, row: &QueueRow) -> &mut Self {
        let row = row.clone();
        self.operation(move |overlay| {
            require_queue_unchanged(overlay, &queue_key(app, row.client_id, row.queue_id), &row)
        })
    }

    /// Precondition: the client has fewer than `max` queues, else [`Unmet::QueueLimit`].
    pub fn require_queues_below(&mut self, app: AppId, client: ClientId, max: usize) -> &mut Self {
        self.operation(move |overlay| {
            let count = overlay.scan(table::QUEUES, queues_of(app, client).prefix())?.len();
            if count < max { Ok(()) } else { Err(Unmet::QueueLimit { max }.into()) }
        })
    }
}

/// Precondition of all rows that belong to a queue: it exists.
pub(crate) fn require_queue(overlay: &Overlay<'_>, app: AppId, queue: KeyQueueId) -> Result<(), Refusal> {
    if overlay.holds(table::QUEUE_OWNERS, &owner_key(app, queue))? {
        Ok(())
    } else {
        Err(Unmet::QueueMissing.into())
    }
}

pub(crate) fn delete_queues_of(
    overlay: &mut Overlay<'_>,
    app: AppId,
    client: ClientId,
) -> Result<(), Refusal> {
    for (_, value) in overlay.scan(table::QUEUES, queues_of(app, client).prefix())? {
        let row: QueueRow = rows::decode(table::QUEUES, &value)?;
        delete_queue(overlay, app, &row)?;
    }
    Ok(())
}

fn delete_queue(overlay: &mut Overlay<'_>, app: AppId, row: &QueueRow) -> Result<(), Refusal> {
    overlay.delete(table::QUEUES, &queue_key(app, row.client_id, row.queue_id));
    overlay.delete(table::QUEUE_OWNERS, &owner_key(app, row.queue_id));
    overlay.delete(table::QUEUE_LABELS, &label_key_of(app, row));
    records::delete_log(overlay, &LogId::KeyQueue(app, row.queue_id))?;
    key_packages::delete_key_packages_of(overlay, app, row.queue_id)
}

fn require_queue_unchanged(overlay: &Overlay<'_>, key: &Key, row: &QueueRow) -> Result<(), Refusal> {
    match overlay.row::<QueueRow>(table::QUEUES, key)? {
        Some(found) if found == *row => Ok(()),
        Some(_) => Err(Unmet::QueueChanged.into()),
        None => Err(Unmet::QueueMissing.into()),
    }
}

fn take_label(overlay: &mut Overlay<'_>, key: &Key, queue: KeyQueueId) -> Result<(), Refusal> {
    match overlay.value(table::QUEUE_LABELS, key)? {
        Some(taken) => {
            let queue = KeyQueueId::new(rows::uuid(table::QUEUE_LABELS, &taken)?);
            Err(Unmet::QueueExists { queue }.into())
        }
        None => {
            overlay.put(table::QUEUE_LABELS, key, Slice::from(queue.as_uuid().as_bytes()));
            Ok(())
        }
    }
}

impl View {
    /// A queue of a client.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn queue(
        &self,
        app: AppId,
        client: ClientId,
        queue: KeyQueueId,
    ) -> Result<Option<QueueRow>, ReadError> {
        self.row(table::QUEUES, &queue_key(app, client, queue))
    }

    /// A queue of any client.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged or missing.
    pub fn queue_by_id(&self, app: AppId, queue: KeyQueueId) -> Result<Option<QueueRow>, ReadError> {
        match self.owner(app, queue)? {
            Some(client) => self.listed_queue(app, client, queue).map(Some),
            None => Ok(None),
        }
    }

    /// All queues of a client, in the order of their ids.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn queues(&self, app: AppId, client: ClientId) -> Result<Vec<QueueRow>, ReadError> {
        let rows = self.scan(table::QUEUES, queues_of(app, client).prefix());
        rows.map(|row| rows::decode(table::QUEUES, &row?.1)).collect()
    }

    /// The queue of a retrieval (*Key Package Retrieval*).
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged or missing.
    pub fn queue_matching(
        &self,
        app: AppId,
        client: ClientId,
        protocol_version: u16,
        cipher_suite: u16,
        app_label: &str,
    ) -> Result<Option<QueueRow>, ReadError> {
        let key = label_key(app, client, protocol_version, cipher_suite, app_label);
        match self.value(table::QUEUE_LABELS, &key)? {
            Some(value) => {
                let queue = KeyQueueId::new(rows::uuid(table::QUEUE_LABELS, &value)?);
                self.listed_queue(app, client, queue).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The client of a queue.
    pub(crate) fn owner(&self, app: AppId, queue: KeyQueueId) -> Result<Option<ClientId>, ReadError> {
        let value = self.value(table::QUEUE_OWNERS, &owner_key(app, queue))?;
        value.map(|value| rows::uuid(table::QUEUE_OWNERS, &value).map(ClientId::new)).transpose()
    }

    /// The row of a queue that an index names.
    fn listed_queue(&self, app: AppId, client: ClientId, queue: KeyQueueId) -> Result<QueueRow, ReadError> {
        let row = self.queue(app, client, queue)?;
        row.ok_or_else(|| ReadError::damaged(format!("an index names a queue that does not exist: {queue}")))
    }
}
