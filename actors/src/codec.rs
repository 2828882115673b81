//! MessagePack with named fields, the form in which records, snapshots and log entries are stored.

use serde::{Deserialize, Serialize};

/// Shared bytes, stored as bytes.
pub(crate) mod shared_bytes {
    use std::sync::Arc;

    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        serde_bytes::deserialize::<Vec<u8>, D>(deserializer).map(Arc::from)
    }
}

/// A value that could not be encoded, or bytes that are not the value they should be.
#[derive(Debug, thiserror::Error)]
#[error("stored state could not be read or written: {0}")]
pub(crate) struct CodecError(String);

impl CodecError {
    /// An error for this reason.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Bytes that decoded to something that `part` cannot be.
    pub(crate) fn damaged(part: &str) -> Self {
        Self(format!("its {part} is damaged"))
    }
}

/// Encodes a value.
///
/// # Errors
/// A value that MessagePack cannot hold.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec_named(value).map_err(|error| CodecError(error.to_string()))
}

/// Encodes a value of about `bytes` bytes into a buffer of that capacity: a long value is written in many small pieces,
/// and growing the buffer would cost more than writing them.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_long(value: &impl Serialize, bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut encoded = Vec::with_capacity(bytes);
    rmp_serde::encode::write_named(&mut encoded, value).map_err(|error| CodecError(error.to_string()))?;
    Ok(encoded)
}

/// Decodes a value.
///
/// # Errors
/// Bytes that are not such a value.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    rmp_serde::from_slice(bytes).map_err(|error| CodecError(error.to_string()))
}
