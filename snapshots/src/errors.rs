//! Errors: one enum for opening, one for appending, one for reading.

use std::path::PathBuf;

use crate::{
    ids::{ClientHandle, ClientId, DomainName, KeyPackageRef, KeyQueueId, Timestamp},
    quotas::QuotaExceeded,
};

/// The reason why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another [`Store`](crate::Store) of this one, has it open.
    #[error("{} is in use by another process: stop that one, or name another directory", path.display())]
    InUse {
        /// The directory.
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
    /// The files on disk are damaged.
    #[error(
        "the store in {} is damaged: {what}. Put back a copy that is whole, or import a backup into an empty directory",
        path.display()
    )]
    Damaged {
        /// The directory of the store.
        path: PathBuf,
        /// The damage.
        what: String,
    },
    /// A journal is damaged in a way that no crash leaves. Nothing was changed.
    #[error(
        "the journal of the store in {} is damaged: {what}. Put back a copy that is whole, or import a backup into an empty \
         directory; to go on without the damaged writes, run `mimi-gateway snapshot accept-loss` once",
        path.display()
    )]
    DamagedJournal {
        /// The directory of the store.
        path: PathBuf,
        /// The damage.
        what: String,
    },
    /// Writes are missing that were acknowledged. Nothing was changed.
    #[error(
        "the store in {} lacks its newest writes, which were acknowledged: it has those until {kept}, and the last one was \
         acknowledged at {acknowledged} ({batches} batches are missing). Its journal ends early or is damaged, an older store \
         was put in its place, or it was copied before the file `witness` while the gateway ran. Put back a copy that is \
         whole, or import a backup into an empty directory; to go on without these writes, run `mimi-gateway snapshot \
         accept-loss` once",
        path.display()
    )]
    Lost {
        /// The directory of the store.
        path: PathBuf,
        /// When the newest write was made that is there.
        kept: Timestamp,
        /// When the newest write was made that was acknowledged.
        acknowledged: Timestamp,
        /// The least number of disk batches that are missing.
        batches: u64,
    },
    /// The file system refused.
    #[error("cannot open the store in {}: {source}", path.display())]
    Io {
        /// The directory of the store.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
}

/// The reason why a batch was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A precondition failed. Nothing of the batch was written; the store works.
    #[error(transparent)]
    Precondition(#[from] Unmet),
    /// The store was closed before the batch was taken. Nothing of it was written.
    #[error("the store is closed")]
    Closed,
    /// The disk has not answered in time. If `is_queued`, the batch may still be written; otherwise none of it ever will be.
    #[error("the disk does not answer")]
    Stalled {
        /// Whether the batch still waits for the disk.
        is_queued: bool,
    },
    /// The disk failed. If the store [has failed](crate::Store::is_failed), the batch may or may not be there after a restart;
    /// otherwise nothing of it was written.
    #[error("the store cannot write: {0}")]
    Storage(String),
    /// The batch, or one key in it, is larger than the store takes. Nothing of it was written.
    #[error("a batch or key of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// The precondition that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// The log's last record is not the one that the batch expects.
    #[error("the log stands at {at:?}")]
    LogMoved {
        /// Its last sequence number; `None` when there is no such log.
        at: Option<u64>,
    },
    /// The log exists already.
    #[error("the log exists")]
    LogExists,
    /// Another client has this handle in this domain.
    #[error("the client handle is taken by {client}")]
    HandleTaken {
        /// The client that has it.
        client: ClientId,
    },
    /// A client with this id exists already.
    #[error("the client id is taken")]
    ClientExists,
    /// There is no such client.
    #[error("there is no such client")]
    ClientMissing,
    /// The client was changed since the batch was built.
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
    /// The queue was changed since the batch was built.
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
        /// The key package.
        reference: KeyPackageRef,
    },
    /// A queue holds the key package already: another queue, or this one as the other kind.
    #[error("the key package {reference:?} is held already")]
    KeyPackageHeld {
        /// The key package.
        reference: KeyPackageRef,
    },
    /// The key package is assigned to another receiver than was expected.
    #[error("the key package {reference:?} was assigned meanwhile")]
    KeyPackageAssigned {
        /// The key package.
        reference: KeyPackageRef,
    },
    /// The receivers of a peer have reached their limit of the client's key packages.
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
        /// The time at which the welcomes that were sent to a client of another gateway stop counting; `None` for a client of
        /// this gateway, where each counts until it is acknowledged.
        counted_until: Option<Timestamp>,
    },
    /// The missing entries of the replica were changed since the batch was built.
    #[error("the entries that the replica misses were changed meanwhile")]
    MissedEntriesChanged,
    /// The group's creation or hub was changed since the batch was built.
    #[error("the group was replaced meanwhile")]
    GroupReplaced,
    /// A group of this id was deleted, and the id is still taken.
    #[error("a group of this id was deleted")]
    GroupDeleted,
    /// The row of the epoch is missing: a commit has not created it, or it is no longer kept.
    #[error("the epoch is not there")]
    EpochMissing,
    /// Another snapshot of the log, at the same record or a later one, was begun or written meanwhile.
    #[error("another snapshot was written meanwhile")]
    SnapshotOvertaken,
    /// The application would have more of a resource than its quota.
    #[error(transparent)]
    QuotaExceeded(QuotaExceeded),
    /// A setting of this name exists already.
    #[error("the setting exists")]
    SettingExists,
}

/// The reason why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk failed, or a block on it has the wrong checksum.
    #[error("the store cannot read: {0}")]
    Storage(String),
    /// A row is damaged, or a row that must exist is missing.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// The damage and its place.
        what: String,
    },
}

impl ReadError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// The reason why an operation stopped its batch; only the caller of that batch gets it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Unmet(#[from] Unmet),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<Refusal> for AppendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unmet(unmet) => Self::Precondition(unmet),
            Refusal::Read(error) => Self::Storage(error.to_string()),
        }
    }
}
