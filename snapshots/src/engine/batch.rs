//! A batch of operations, composed outside the committer and run inside it: all or none.

use serde::Serialize;

use super::{
    Slice,
    feed::Announced,
    keys::{KEY_BYTES_MAX, Key},
    overlay::{Operation, Overlay},
    rows,
    schema::Table,
};
use crate::{
    errors::{AppendError, Refusal},
    ids::{DeliveryId, KeyPackageRef, KeyQueueId},
};

/// One atomic write with its preconditions: [`Store::append`](crate::Store::append) writes all of it or nothing.
///
/// Its operations run in the order in which they were added, and each sees what those before it wrote: a client and its
/// first queue can be created by one batch. The encoding is done here, in the caller's thread.
#[derive(Default)]
pub struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
    refused: Option<AppendError>,
}

/// Data that the store assigned or found while it wrote a batch.
#[derive(Debug, Default)]
pub struct Appended {
    /// The ids of the batch's join infos, in the order in which they were put.
    pub deliveries: Vec<DeliveryId>,
    /// The key packages that were used, each with a queue that held it until then.
    pub advanced: Vec<(KeyQueueId, KeyPackageRef)>,
    /// The outcome of the batch's report of an epoch.
    pub reported: Option<ReportOutcome>,
    /// The announcement of the batch's events. Drop it once readers can see what was written.
    pub announced: Announced,
}

/// The outcome of a report of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportOutcome {
    /// The number of distinct members who have reported the epoch.
    pub reporters: u64,
    /// Whether this report is the one with which the application is told.
    pub is_told_now: bool,
}

/// Two answers are equal if they say the same; announcements say nothing.
impl PartialEq for Appended {
    fn eq(&self, other: &Self) -> bool {
        let Self { deliveries, advanced, reported, announced: _ } = self;
        (deliveries, advanced, reported) == (&other.deliveries, &other.advanced, &other.reported)
    }
}

impl Eq for Appended {}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has nothing to check and nothing to write.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.refused.is_none()
    }

    /// Its size so far: keys and values, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The operations, unless the batch cannot be written at all.
    pub(crate) fn into_operations(self, bytes_max: usize) -> Result<Vec<Operation>, AppendError> {
        match self.refused {
            Some(error) => Err(error),
            None if self.bytes > bytes_max => {
                Err(AppendError::TooLarge { bytes: self.bytes, limit: bytes_max })
            }
            None => Ok(self.operations),
        }
    }

    pub(crate) fn operation(
        &mut self,
        operation: impl FnOnce(&mut Overlay<'_>) -> Result<(), Refusal> + Send + 'static,
    ) -> &mut Self {
        self.operations.push(Box::new(operation));
        self
    }

    /// Puts a row. [`Batch::key`] and [`Batch::row`] have counted its size.
    pub(crate) fn put(&mut self, table: Table, key: Key, value: Slice) -> &mut Self {
        self.operation(move |overlay| {
            overlay.put(table, &key, value);
            Ok(())
        })
    }

    /// Counts a key towards the batch's size. A key that is too long makes the whole batch fail.
    pub(crate) fn key(&mut self, key: Key) -> Key {
        let bytes = key.as_bytes().len();
        self.bytes = self.bytes.saturating_add(bytes);
        if key.is_too_long() {
            self.refused.get_or_insert(AppendError::TooLarge { bytes, limit: KEY_BYTES_MAX });
        }
        key
    }

    /// Counts a value that is written as it is.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Slice {
        self.bytes = self.bytes.saturating_add(bytes.len());
        Slice::from(bytes)
    }

    /// Encodes and counts a row.
    pub(crate) fn row<T: Serialize>(&mut self, row: &T) -> Slice {
        match rows::encode(row) {
            Ok(value) => {
                self.bytes = self.bytes.saturating_add(value.len());
                value
            }
            Err(error) => {
                self.refused.get_or_insert(AppendError::Storage(format!("a row cannot be encoded: {error}")));
                Slice::from([])
            }
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("operations", &self.operations.len())
            .field("bytes", &self.bytes)
            .finish()
    }
}
