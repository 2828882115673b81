//! A batch of operations, composed outside the committer and run inside it: all or none.

use fjall::Slice;
use serde::Serialize;

use crate::draft::{Draft, Step};
use crate::errors::{AppendError, Refusal};
use crate::ids::{DeliveryId, KeyPackageRef, KeyQueueId};
use crate::keys::{KEY_BYTES_MAX, Key};
use crate::rows;
use crate::tables::Table;

/// One atomic write with its preconditions: [`Store::append`](crate::Store::append) writes all of it or nothing.
///
/// Its steps run in the order in which they were added, and each sees what those before it wrote: a client and its
/// first queue can be created by one batch. The encoding is done here, in the caller's thread.
#[derive(Default)]
pub struct Batch {
    steps: Vec<Step>,
    bytes: usize,
    refused: Option<AppendError>,
}

/// What a batch was given when it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// The ids of the batch's join infos, in the order in which they were put.
    pub deliveries: Vec<DeliveryId>,
    /// The key packages that were used, each with a queue that held it until then.
    pub advanced: Vec<(KeyQueueId, KeyPackageRef)>,
}

impl Batch {
    /// One that writes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has nothing to check and nothing to write.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.refused.is_none()
    }

    /// Its size so far: keys and values, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The steps, unless the batch cannot be written at all.
    pub(crate) fn into_steps(self, bytes_max: usize) -> Result<Vec<Step>, AppendError> {
        match self.refused {
            Some(error) => Err(error),
            None if self.bytes > bytes_max => {
                Err(AppendError::TooLarge { bytes: self.bytes, limit: bytes_max })
            }
            None => Ok(self.steps),
        }
    }

    pub(crate) fn step(
        &mut self,
        step: impl FnOnce(&mut Draft<'_>) -> Result<(), Refusal> + Send + 'static,
    ) -> &mut Self {
        self.steps.push(Box::new(step));
        self
    }

    /// Puts a row of which [`Batch::key`] and [`Batch::row`] have counted the parts.
    pub(crate) fn put(&mut self, table: Table, key: Key, value: Slice) -> &mut Self {
        self.step(move |draft| {
            draft.put(table, &key, value);
            Ok(())
        })
    }

    /// A key that is about to be written: it counts towards the size, and one that is too long spoils the batch.
    pub(crate) fn key(&mut self, key: Key) -> Key {
        let bytes = key.as_bytes().len();
        self.bytes = self.bytes.saturating_add(bytes);
        if key.is_too_long() {
            self.refused.get_or_insert(AppendError::TooLarge { bytes, limit: KEY_BYTES_MAX });
        }
        key
    }

    /// A value that is about to be written as it is.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Slice {
        self.bytes = self.bytes.saturating_add(bytes.len());
        Slice::from(bytes)
    }

    /// A row that is about to be written.
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
        f.debug_struct("Batch").field("steps", &self.steps.len()).field("bytes", &self.bytes).finish()
    }
}
