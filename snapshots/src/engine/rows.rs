//! Row encoding: one MessagePack map per row with the names of its members, so that members can be added later.

use serde::{Serialize, de::DeserializeOwned};

use super::{Slice, keys::Key, schema::Table};
use crate::errors::ReadError;

/// Access to single rows, in a [`View`](crate::View) or, in the committer, in an overlay.
pub(crate) trait Rows {
    /// The value at a key.
    fn value(&self, table: Table, key: &Key) -> Result<Option<Slice>, ReadError>;

    /// The decoded row at a key.
    fn row<T: DeserializeOwned>(&self, table: Table, key: &Key) -> Result<Option<T>, ReadError> {
        self.value(table, key)?.map(|value| decode(table, &value)).transpose()
    }

    /// Whether there is a row at a key.
    fn holds(&self, table: Table, key: &Key) -> Result<bool, ReadError> {
        Ok(self.value(table, key)?.is_some())
    }
}

pub(crate) fn encode<T: Serialize>(row: &T) -> Result<Slice, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(row).map(Slice::from)
}

pub(crate) fn decode<T: DeserializeOwned>(table: Table, value: &[u8]) -> Result<T, ReadError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(value);
    T::deserialize(&mut reader)
        .map_err(|error| ReadError::damaged(format!("a row of {} cannot be read: {error}", table.name())))
}

/// A number as the whole value.
pub(crate) fn number(table: Table, value: &[u8]) -> Result<u64, ReadError> {
    let bytes = value.try_into().map_err(|_| {
        ReadError::damaged(format!(
            "a row of {} has {} bytes where a number has 8",
            table.name(),
            value.len()
        ))
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// An id as the whole value.
pub(crate) fn uuid(table: Table, value: &[u8]) -> Result<uuid::Uuid, ReadError> {
    uuid::Uuid::from_slice(value).map_err(|_| {
        ReadError::damaged(format!("a row of {} has {} bytes where an id has 16", table.name(), value.len()))
    })
}
