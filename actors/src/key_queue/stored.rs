//! The stored forms of a key queue: the record of each change and the snapshot of the state, as MessagePack with the version
//! of the format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snapshots::KeyPackageRef;

use super::{
    record::QueueRecord,
    state::{FinalKey, QueuePosition, Removed, StoredPackage},
};

/// The version of the format of records and snapshots of key queues.
pub(super) const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
pub(super) struct StoredRecord {
    pub(super) format: u8,
    pub(super) record: QueueRecord,
}

#[derive(Deserialize)]
pub(super) struct Snapshot {
    pub(super) format: u8,
    pub(super) held: Vec<(QueuePosition, StoredPackage)>,
    pub(super) final_key: Option<FinalKey>,
    #[serde(default)]
    pub(super) earlier_final_key: Option<FinalKey>,
    pub(super) arrivals: u64,
    #[serde(default)]
    pub(super) removed: BTreeMap<KeyPackageRef, Removed>,
    #[serde(default)]
    pub(super) is_final_key_used: bool,
    #[serde(default)]
    pub(super) is_low_told: bool,
}

/// A [`Snapshot`] to be stored, in the same form, with references in place of copies.
#[derive(Serialize)]
pub(super) struct NewSnapshot<'a> {
    pub(super) format: u8,
    pub(super) held: Vec<(&'a QueuePosition, &'a StoredPackage)>,
    pub(super) final_key: Option<&'a FinalKey>,
    pub(super) earlier_final_key: Option<&'a FinalKey>,
    pub(super) arrivals: u64,
    pub(super) removed: &'a BTreeMap<KeyPackageRef, Removed>,
    pub(super) is_final_key_used: bool,
    pub(super) is_low_told: bool,
}
