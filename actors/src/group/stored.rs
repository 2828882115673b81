//! The stored forms of a group: the record of each entry and the snapshot of the state, as MessagePack with the version of
//! the format.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use snapshots::{DomainName, Timestamp};

use crate::{
    codec::{CodecError, decode, encode, encode_long},
    mls::{EpochChange, GroupSnapshot, PendingProposal},
};

/// One accepted change of a group, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GroupRecord {
    Proposal {
        pending: PendingProposal,
        stamp: Timestamp,
    },
    Epoch {
        change: EpochChange,
        stamp: Timestamp,
        #[serde(with = "serde_bytes")]
        group_info: Option<Vec<u8>>,
    },
}

/// A [`GroupRecord::Epoch`] that is about to be kept, in the same form, without copies of its content.
#[derive(Serialize)]
pub(super) enum NewRecord<'a> {
    Epoch {
        change: &'a EpochChange,
        stamp: Timestamp,
        #[serde(with = "serde_bytes")]
        group_info: Option<&'a [u8]>,
    },
}

/// The format of records and snapshots of groups; it stands before each.
const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    format: u8,
    value: T,
}

pub(super) fn keep(value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    encode(&Versioned { format: FORMAT, value })
}

/// As [`keep`], for a value of about `bytes` bytes.
pub(super) fn keep_long(value: &impl Serialize, bytes: usize) -> Result<Vec<u8>, CodecError> {
    encode_long(&Versioned { format: FORMAT, value }, bytes)
}

pub(super) fn kept<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let kept: Versioned<T> = decode(bytes)?;
    if kept.format == FORMAT { Ok(kept.value) } else { Err(CodecError::damaged("format")) }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StateSnapshot {
    pub(super) group: GroupSnapshot,
    pub(super) stamp: Timestamp,
    #[serde(with = "serde_bytes")]
    pub(super) group_info: Option<Vec<u8>>,
    pub(super) hub: Option<DomainName>,
    #[serde(default)]
    pub(super) lacks_proposals: bool,
}
