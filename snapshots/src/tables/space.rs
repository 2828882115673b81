//! Giving back the space on disk of what was deleted or overwritten.

use super::retention::SweepError;
use crate::{engine::Batch, errors::ReadError, ids::Timestamp, store::Store};

/// The setting that holds when it was last begun: milliseconds since 1970.
const BEGUN_AT: &str = "space_begun_at";
/// The setting that holds when the last one that ended was begun.
const GIVEN_BACK_AT: &str = "space_given_back_at";

impl Store {
    /// Gives back the space on disk of rows that were deleted or overwritten since the last time, or before the start. It takes
    /// long if there is much; other reads and writes go on. The store may be closed meanwhile.
    ///
    /// # Errors
    /// [`SweepError`] when the store cannot be read or written, or was closed.
    pub async fn give_space_back(&self, now: Timestamp) -> Result<(), SweepError> {
        // The engine lets go only of what was replaced before the newest write, so there is one before each of its steps.
        self.note_space(BEGUN_AT, now).await?;
        self.in_background(|disk, goes_on| disk.merge_fragmented(goes_on)).await?;
        self.note_space(GIVEN_BACK_AT, now).await?;
        self.in_background(|disk, goes_on| disk.flush(goes_on)).await?;
        Ok(())
    }

    /// When space was last given back; `None` if it never was, or that is not known.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn space_given_back_at(&self) -> Result<Option<Timestamp>, ReadError> {
        let bytes = self.view().setting(GIVEN_BACK_AT)?;
        Ok(bytes.and_then(|bytes| Some(Timestamp(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)))))
    }

    /// Notes that no space has to be given back before now, in a store that is new.
    ///
    /// # Errors
    /// [`SweepError`] when the store cannot be written.
    pub async fn begin_giving_space_back(&self, now: Timestamp) -> Result<(), SweepError> {
        self.note_space(GIVEN_BACK_AT, now).await
    }

    async fn note_space(&self, setting: &str, at: Timestamp) -> Result<(), SweepError> {
        let mut batch = Batch::new();
        batch.put_setting(setting, at.0.to_be_bytes());
        self.append(batch).await?;
        Ok(())
    }
}
