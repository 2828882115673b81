//! Accepted changes of a key queue, as they are kept on disk.

use serde::{Deserialize, Serialize};
use snapshots::{KeyPackageRef, Timestamp};

use super::{
    package::{NewPackage, Receiver},
    stored::{FORMAT, StoredRecord},
};
use crate::codec::{CodecError, decode, encode};

/// One accepted change of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum QueueRecord {
    Uploaded {
        is_reset: bool,
        packages: Vec<NewPackage>,
        final_key: Option<NewPackage>,
        /// The client's handle generation that the packages were checked against.
        generation: u64,
        /// The time of the upload. Older records lack it and count as later than the beginning of any lifetime.
        #[serde(default = "after_all")]
        at: Timestamp,
    },
    Assigned {
        reference: KeyPackageRef,
        receiver: Receiver,
        /// Few packages are left, which is told for the first time since packages were uploaded.
        #[serde(default)]
        is_low: bool,
    },
    /// The final key was given out, for the first time since packages were uploaded.
    FinalKeyUsed,
}

fn after_all() -> Timestamp {
    Timestamp(u64::MAX)
}

impl QueueRecord {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        encode(&StoredRecord { format: FORMAT, record: self.clone() })
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let kept: StoredRecord = decode(bytes)?;
        if kept.format == FORMAT { Ok(kept.record) } else { Err(CodecError::damaged("format")) }
    }
}
