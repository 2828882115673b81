//! Key queues: their state, the actor that owns one, and its requests and answers (*Managing Key Packages*).

mod actor;
mod error;
mod messages;
mod package;
mod record;
mod state;
mod stored;

use snapshots::{DomainName, KeyQueueId};

pub(crate) use self::state::KeyQueueState;
pub(crate) use self::{
    actor::KeyQueueActor,
    messages::{AddKeyPackages, Advance, Assign, Attempt, Close, Count, LookFor},
    package::NewPackage,
};
pub use self::{
    error::{InvalidKeyPackage, KeyQueueError},
    package::{Receiver, Requester},
};
#[cfg(feature = "bench")]
pub(crate) use self::{record::QueueRecord, state::Choice};

/// A queue to create (*Key Queue Creation*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKeyQueue {
    /// MLS protocol version (RFC 9420 §6).
    pub protocol_version: u16,
    /// MLS cipher suite (RFC 9420 §17.1).
    pub cipher_suite: u16,
    /// The application's own label; may be empty.
    pub app_label: String,
}

/// A queue and the number of its packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyQueueStatus {
    /// The queue's id.
    pub id: KeyQueueId,
    /// MLS protocol version.
    pub protocol_version: u16,
    /// MLS cipher suite.
    pub cipher_suite: u16,
    /// The application's own label.
    pub app_label: String,
    /// Unexpired non-final packages held, assigned ones included.
    pub in_pool: usize,
    /// Those of them that are not assigned.
    pub available: usize,
    /// Whether the queue has an unexpired final key.
    pub has_final_key: bool,
}

/// Key packages to add to a queue (*Key Queue Update*): MLSMessages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPackageUpload {
    /// Packages to insert; one that the pool already holds counts once.
    pub key_packages: Vec<Vec<u8>>,
    /// Whether the pool is emptied first. The final key stays.
    pub is_reset: bool,
    /// Replaces the queue's label.
    pub app_label: Option<String>,
    /// Replaces the queue's final key.
    pub final_key: Option<Vec<u8>>,
}

/// The number of packages in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCounts {
    /// Unexpired non-final packages held, assigned ones included.
    pub in_pool: usize,
    /// Those of them that are not assigned.
    pub available: usize,
    /// Whether the queue has an unexpired final key.
    pub has_final_key: bool,
}

/// A request for a key package (*Key Package Retrieval*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPackageRequest {
    /// MLS protocol version.
    pub protocol_version: u16,
    /// MLS cipher suite.
    pub cipher_suite: u16,
    /// The queue's label.
    pub app_label: String,
    /// The client's domain, where the application uses domains.
    pub domain: Option<DomainName>,
    /// The receiver of the package.
    pub receiver: Receiver,
}

/// A key package for one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedKeyPackage {
    /// MLSMessage with the key package.
    pub key_package: Vec<u8>,
    /// Whether it is the final key. The draft's *Managing Key Packages* warns: once the queue is empty, every receiver gets
    /// this package, so groups share its keys.
    pub is_final_key: bool,
}
