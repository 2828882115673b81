//! Errors: one enum for opening, one for appending, one for reading.

use std::path::PathBuf;

use crate::ids::{ClientHandle, ClientId, DomainName, KeyPackageRef, KeyQueueId, Timestamp};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another [`Store`](crate::Store) of this one, has it open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The directory that was to be opened.
        path: PathBuf,
    },
    /// A later version of this program wrote it.
    #[error("the store has format {found}, this program reads up to {supported}: use a newer program")]
    NewerFormat {
        /// The format on disk.
        found: u64,
        /// The newest format that this program reads.
        supported: u64,
    },
    /// What is on disk cannot be what was written.
    #[error("the store in {} is damaged: {what}", path.display())]
    Damaged {
        /// The directory of the store.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file system refused.
    #[error("cannot open the store in {}: {source}", path.display())]
    Io {
        /// The directory of the store.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
}

/// Why a batch was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A precondition did not hold. Nothing of the batch was written; the store is well.
    #[error(transparent)]
    Precondition(#[from] Unmet),
    /// The store was closed before the batch was taken. Nothing of it was written.
    #[error("the store is closed")]
    Closed,
    /// The disk has not answered for as long as it may. With `is_queued` it is not known whether the batch will be written;
    /// otherwise nothing of it was or will be.
    #[error("the disk does not answer")]
    Stalled {
        /// Whether the batch waits for the disk all the same.
        is_queued: bool,
    },
    /// The disk failed. When the store [is failed](crate::Store::is_failed) it is not known whether the batch will be
    /// there after a restart; otherwise nothing of it was written.
    #[error("the store cannot write: {0}")]
    Storage(String),
    /// The batch, or one key in it, is larger than the store takes. Nothing of it was written.
    #[error("a batch or key of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// The size that was asked for.
        bytes: usize,
        /// The limit that it is over.
        limit: usize,
    },
}

/// The precondition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// The log does not stand where the batch needs it.
    #[error("the log stands at {at:?}")]
    LogMoved {
        /// Its last sequence number; `None` when there is no such log.
        at: Option<u64>,
    },
    /// There already is such a log.
    #[error("the log exists")]
    LogExists,
    /// Another client has this handle in this domain.
    #[error("the client handle is taken by {client}")]
    HandleTaken {
        /// Who has it.
        client: ClientId,
    },
    /// There already is a client of this id.
    #[error("the client id is taken")]
    ClientExists,
    /// There is no such client.
    #[error("there is no such client")]
    ClientMissing,
    /// The client is no longer what the batch was built from.
    #[error("the client was changed meanwhile")]
    ClientChanged,
    /// The client has a queue of this protocol version, cipher suite and label.
    #[error("the client has such a key queue: {queue}")]
    QueueExists {
        /// That queue.
        queue: KeyQueueId,
    },
    /// There is no such queue.
    #[error("there is no such key queue")]
    QueueMissing,
    /// The queue is no longer what the batch was built from.
    #[error("the key queue was changed meanwhile")]
    QueueChanged,
    /// The client has as many queues as it may have.
    #[error("the client has {max} key queues, the most that it may have")]
    QueueLimit {
        /// The limit.
        max: usize,
    },
    /// The key package was used before (*Key Package Retrieval*).
    #[error("the key package {reference:?} was used")]
    KeyPackageUsed {
        /// Which one.
        reference: KeyPackageRef,
    },
    /// A queue holds the key package already: another queue, or this one as the other kind.
    #[error("the key package {reference:?} is held already")]
    KeyPackageHeld {
        /// Which one.
        reference: KeyPackageRef,
    },
    /// The key package is assigned to another receiver than was expected.
    #[error("the key package {reference:?} was assigned meanwhile")]
    KeyPackageAssigned {
        /// Which one.
        reference: KeyPackageRef,
    },
    /// The receivers of a peer have as many key packages of the client as they may.
    #[error("the receivers of the peer have {max} key packages of the client, the most that they may")]
    PeerShareTaken {
        /// The limit.
        max: u64,
    },
    /// A client would have more join infos than it may (*Joining*).
    #[error("{max} welcomes wait for {handle:?}, the most that may")]
    TooManyWelcomes {
        /// The client.
        handle: ClientHandle,
        /// Its domain.
        domain: Option<DomainName>,
        /// Whether it is the limit of one inviter, and not that of all inviters together.
        of_inviter: bool,
        /// The limit.
        max: u64,
        /// When the welcomes that were sent to a client of another gateway end to count; `None` for a client of this
        /// gateway, for which they count until it acknowledges them.
        counted_until: Option<Timestamp>,
    },
    /// Which entries a replica misses is no longer what the batch was built from.
    #[error("the entries that the replica misses were changed meanwhile")]
    MissedEntriesChanged,
    /// The group has another creation or another hub than the batch was built from.
    #[error("the group was replaced meanwhile")]
    GroupReplaced,
    /// Another snapshot of the log was begun or written meanwhile, of the same record or a later one.
    #[error("another snapshot was written meanwhile")]
    SnapshotOvertaken,
    /// There already is a setting of this name.
    #[error("the setting exists")]
    SettingExists,
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk failed, or a block on it has the wrong checksum.
    #[error("the store cannot read: {0}")]
    Storage(String),
    /// A row is there but is not what was written, or one that must be there is missing.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What was found where.
        what: String,
    },
}

impl ReadError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// What stops one step of a batch: it is answered to its own caller and to no one else.
#[derive(Debug)]
pub(crate) enum Refusal {
    Unmet(Unmet),
    Read(ReadError),
}

impl From<Unmet> for Refusal {
    fn from(unmet: Unmet) -> Self {
        Self::Unmet(unmet)
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<Refusal> for AppendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unmet(unmet) => Self::Precondition(unmet),
            Refusal::Read(error) => Self::Storage(error.to_string()),
        }
    }
}
