//! Messages to the actor of a group, and its published state.

use std::sync::Arc;

use actix::Message;
use snapshots::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

use super::{Accepted, EntryContent, GroupError, GroupView, LogEntry};
use crate::{application::Source, error::StorageError};

/// The state that a group's actor publishes to readers.
#[derive(Clone, Debug)]
pub(crate) enum Published {
    /// The state is being loaded, or no longer kept.
    Loading,
    Ready(Arc<GroupView>),
    Failed(StorageError),
    /// The group was deleted.
    Deleted,
}

/// The group was deleted: its owner stops.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseGroup;

/// Looks for members whose certificates are revoked, and proposes their removal if the application wants it; answered with their
/// number, or an error if not all could be proposed.
pub(crate) struct RemoveRevoked {
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for RemoveRevoked {
    type Result = Result<usize, GroupError>;
}

/// Uploads a proposal or a commit; answered when it is durable, or refused.
pub(crate) struct UploadEntry {
    pub(crate) content: EntryContent,
    pub(crate) source: Source,
    /// The span of the request.
    pub(crate) span: Span,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for UploadEntry {
    type Result = Result<Accepted, GroupError>;
}

/// Appends an entry of the hub's log to this replica; answered with the number of the entry that is needed next.
pub(crate) struct Replicate {
    pub(crate) entry: LogEntry,
    /// The time at which the hub accepted the entry before it, if the hub says so.
    pub(crate) preceding: Option<Timestamp>,
    /// The span of the delivery.
    pub(crate) span: Span,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for Replicate {
    type Result = Result<u64, GroupError>;
}
