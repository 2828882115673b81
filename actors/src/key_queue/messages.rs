//! Messages to the owner of a key queue.

use actix::Message;
use snapshots::{KeyPackageRef, QueueRow};
use tokio::sync::OwnedSemaphorePermit;

use super::{AssignedKeyPackage, KeyQueueError, NewPackage, PoolCounts, Receiver};

/// The outcome of one attempt to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// Another write came first: the state must be read again.
    Overtaken,
}

/// Adds checked packages to the queue.
pub(crate) struct AddKeyPackages {
    pub(crate) row: QueueRow,
    pub(crate) is_reset: bool,
    pub(crate) packages: Vec<NewPackage>,
    pub(crate) final_key: Option<NewPackage>,
    pub(crate) app_label: Option<String>,
    /// The handle generation that the packages were checked against.
    pub(crate) generation: u64,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for AddKeyPackages {
    type Result = Result<Attempt<PoolCounts>, KeyQueueError>;
}

/// Assigns a package to a receiver.
pub(crate) struct Assign {
    pub(crate) receiver: Receiver,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for Assign {
    type Result = Result<Attempt<AssignedKeyPackage>, KeyQueueError>;
}

/// Looks whether there is a package for a receiver.
pub(crate) struct LookFor {
    pub(crate) receiver: Receiver,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for LookFor {
    type Result = Result<(), KeyQueueError>;
}

/// Asks for the numbers of packages in the queue.
pub(crate) struct Count {
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for Count {
    type Result = Result<PoolCounts, KeyQueueError>;
}

/// A package was used in a group. The notice may be lost: an assignment also asks the store.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Advance {
    pub(crate) reference: KeyPackageRef,
}

/// The queue was deleted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close;
