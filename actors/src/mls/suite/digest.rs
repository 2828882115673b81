//! Hash values.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest hash, of SHA-512, in bytes.
const LENGTH_MAX: usize = 64;

/// A hash value of at most 64 bytes. The default one is empty, as the interim transcript hash before the first epoch
/// (RFC 9420 §8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest {
    /// Zero behind the value, so that the derived comparisons are those of the values.
    bytes: [u8; LENGTH_MAX],
    length: u8,
}

/// Bytes that are too long for a hash value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash value has at most 64 bytes")]
pub(crate) struct DigestTooLong;

impl Digest {
    /// The value of these bytes; longer ones are cut off.
    pub(super) fn of(value: &[u8]) -> Self {
        let mut bytes = [0; LENGTH_MAX];
        let length = value.len().min(LENGTH_MAX);
        if let (Some(to), Some(from)) = (bytes.get_mut(..length), value.get(..length)) {
            to.copy_from_slice(from);
        }
        Self { bytes, length: u8::try_from(length).unwrap_or(0) }
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self { bytes: [0; LENGTH_MAX], length: 0 }
    }
}

impl From<[u8; 32]> for Digest {
    fn from(value: [u8; 32]) -> Self {
        let mut bytes = [0; LENGTH_MAX];
        if let Some(begin) = bytes.first_chunk_mut() {
            *begin = value;
        }
        Self { bytes, length: 32 }
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = DigestTooLong;

    fn try_from(value: &[u8]) -> Result<Self, DigestTooLong> {
        if value.len() <= LENGTH_MAX { Ok(Self::of(value)) } else { Err(DigestTooLong) }
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_ref())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {LENGTH_MAX} bytes")
            }

            fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Digest, E> {
                Digest::try_from(value).map_err(|_| E::invalid_length(value.len(), &self))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}
