//! Errors of requests about key packages.

use snapshots::{KeyQueueId, QuotaExceeded};

use crate::{activity::AskError, application::DomainError, error::StorageError};

/// The reason why a request about key packages was refused. A refused request has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyQueueError {
    /// No client of that id is registered in this application.
    #[error("this application has no client with this id")]
    UnknownClient,
    /// The client has no queue of that id.
    #[error("this client has no key queue with this id")]
    UnknownKeyQueue,
    /// The client has a queue with these attributes already.
    #[error("this client already has a key queue with this protocol version, cipher suite and label")]
    QueueExists {
        /// The queue that exists.
        queue: KeyQueueId,
    },
    /// A protocol version, cipher suite, label or receiver cannot be used; the text names it.
    #[error("{0}")]
    Unusable(String),
    /// The domain cannot be used.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The client has the largest allowed number of queues.
    #[error("the client already has {max} key queues, the most that a client may have")]
    TooManyQueues {
        /// The limit.
        max: usize,
    },
    /// One upload carries more key packages than it may.
    #[error("`keyPackages` holds at most {max} key packages; send the others in another request")]
    TooManyInRequest {
        /// The limit.
        max: usize,
    },
    /// The queue would hold more key packages than it may.
    #[error("the queue: at most {max} key packages")]
    TooManyKeyPackages {
        /// The limit.
        max: usize,
    },
    /// The queue would hold more bytes than it may.
    #[error("the queue would hold more than {max} bytes of key packages")]
    TooManyBytes {
        /// The limit.
        max: usize,
    },
    /// At least one key package is not acceptable; none was stored.
    #[error("{} of the key packages cannot be accepted; none was stored", .0.len())]
    InvalidKeyPackages(Vec<InvalidKeyPackage>),
    /// No queue matches, or all its packages are assigned or used and it has no final key.
    #[error("no key package is available with these attributes")]
    NoKeyPackage,
    /// Too many requests wait for this queue or for validation, or other writes were quicker each time.
    #[error("the gateway is busy with other requests about key packages; try again in a moment")]
    Busy,
    /// The application would have more than its quota of key packages or of bytes.
    #[error(transparent)]
    Quota(QuotaExceeded),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// The store failed, or its data could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<AskError> for KeyQueueError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Busy => Self::Busy,
            AskError::NoAnswer => Self::Storage(StorageError::Unreadable),
        }
    }
}

/// One key package of an upload that was not acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidKeyPackage {
    /// Its index in the request's `keyPackages`; for `finalKey`, the index after the last.
    pub index: usize,
    /// The fault.
    pub detail: String,
}
