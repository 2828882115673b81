//! Errors of the store, as seen by the actors.

use snapshots::{AppendError, ReadError};

/// The store could not do its work. The messages hold no paths or keys; the log has the details.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// A write has failed, which is permanent, or the store is closed: nothing more will be accepted.
    #[error("the store does not accept writes")]
    Unavailable,
    /// The data behind the decision changed before the write. Nothing was written; another try may succeed.
    #[error("the stored data changed while this request was being handled, and nothing was done; try again")]
    Changed,
    /// The disk did not answer in time. With `is_queued` it is unknown whether the write will be done; otherwise nothing
    /// was done.
    #[error("the disk does not answer")]
    Stalled {
        /// Whether the write still waits for the disk.
        is_queued: bool,
    },
    /// Stored bytes could not be read or understood.
    #[error("stored data could not be read")]
    Unreadable,
}

impl From<ReadError> for StorageError {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "reading from the store failed");
        Self::Unreadable
    }
}

impl StorageError {
    /// An append failed for another reason than a precondition that its caller expects.
    pub(crate) fn from_append(error: &AppendError) -> Self {
        match error {
            AppendError::Precondition(unmet) => {
                tracing::info!(%unmet, "a batch was not written: precondition failed");
                Self::Changed
            }
            // The store logs once that the disk hangs.
            AppendError::Stalled { is_queued } => Self::Stalled { is_queued: *is_queued },
            AppendError::TooLarge { .. } | AppendError::Closed | AppendError::Storage(_) => {
                tracing::error!(%error, "appending to the store failed");
                Self::Unavailable
            }
        }
    }
}
