//! Errors of requests about key packages.

use snapshots::KeyQueueId;

use crate::{application::DomainError, storage::StorageError};

/// Why a request about key packages was refused. Nothing has changed when one of these is answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyQueueError {
    /// No client of that id is registered in this application.
    #[error("no client with this id is registered in this application")]
    UnknownClient,
    /// The client has no queue of that id.
    #[error("this client has no key queue with this id")]
    UnknownKeyQueue,
    /// The client has a queue with these attributes already.
    #[error("this client has a key queue with this protocol version, cipher suite and label already")]
    QueueExists {
        /// The queue that exists.
        queue: KeyQueueId,
    },
    /// A protocol version, cipher suite, label or receiver that cannot be used; says which.
    #[error("{0}")]
    Unusable(String),
    /// The domain cannot be used.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The client has as many queues as it may.
    #[error("the client has {max} key queues, as many as it may")]
    TooManyQueues {
        /// The limit.
        max: usize,
    },
    /// The queue would hold more key packages than it may, or the request carries too many.
    #[error("{what}: at most {max} key packages")]
    TooManyKeyPackages {
        /// Which of the two.
        what: &'static str,
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
    /// No queue matches, or all its packages are assigned or used and there is no final key.
    #[error("no key package is available with these attributes")]
    NoKeyPackage,
    /// Too many requests wait for this queue.
    #[error("too many requests ask this key queue at once; try again in a moment")]
    Busy,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// The store failed, or held something that could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// One key package of an upload that was not acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidKeyPackage {
    /// Its place in the request's `keyPackages`; for `finalKey`, the place after the last.
    pub index: usize,
    /// What was wrong with it.
    pub detail: String,
}
