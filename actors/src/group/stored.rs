//! Stored forms of a group: the snapshot of the state, and the records of earlier versions, as MessagePack with the version of the
//! format. The records of this version are the entries of the log; see `stored_entry.rs`.

use std::iter::Peekable;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use snapshots::{DomainName, Timestamp};

use crate::{
    codec::{CodecError, decode, encode},
    mls::{
        EpochRecord, FrozenGroup, GroupSnapshot, LegacyEpoch, LegacyGroup, LegacyProposal, LegacySnapshot,
        PendingProposal, TrackedGroup,
    },
};

/// One accepted change of a group, as the version before kept it besides the entry.
#[derive(Debug, Deserialize)]
pub(super) enum GroupRecord {
    Proposal {
        pending: PendingProposal,
        stamp: Timestamp,
    },
    Epoch {
        #[serde(with = "serde_bytes")]
        commit: Vec<u8>,
        change: EpochRecord,
        stamp: Timestamp,
        #[serde(with = "serde_bytes")]
        group_info: Option<Vec<u8>>,
        /// The commit came with a welcome, whose tree the owner stores with its next snapshot.
        has_welcome: bool,
    },
}

/// The format of snapshots of groups, and of the records of the version before; it stands before each.
const FORMAT: u8 = 2;

/// The format of the versions that tracked groups by means of a library.
const LEGACY_FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    format: u8,
    value: T,
}

#[derive(Deserialize)]
struct OnlyFormat {
    format: u8,
}

/// The version of the format of a stored form.
pub(super) fn format_of(bytes: &[u8]) -> Result<u8, CodecError> {
    decode(bytes).map(|OnlyFormat { format }| format)
}

fn keep(value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    encode(&Versioned { format: FORMAT, value })
}

pub(super) fn kept<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    kept_in(FORMAT, bytes)
}

fn kept_in<T: DeserializeOwned>(format: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let kept: Versioned<T> = decode(bytes)?;
    if kept.format == format { Ok(kept.value) } else { Err(CodecError::damaged("format")) }
}

/// A group's state, with the tracked group in one of several forms.
#[derive(Serialize, Deserialize)]
pub(super) struct StateSnapshot<G = GroupSnapshot> {
    pub(super) group: G,
    pub(super) stamp: Timestamp,
    #[serde(with = "serde_bytes")]
    pub(super) group_info: Option<Vec<u8>>,
    pub(super) hub: Option<DomainName>,
    #[serde(default)]
    pub(super) lacks_proposals: bool,
}

/// A snapshot of this or of an older format.
pub(super) enum Kept {
    Present(StateSnapshot),
    Legacy(StateSnapshot<LegacySnapshot>),
}

pub(super) fn kept_snapshot(bytes: &[u8]) -> Result<Kept, CodecError> {
    match format_of(bytes)? {
        LEGACY_FORMAT => kept_in(LEGACY_FORMAT, bytes).map(Kept::Legacy),
        _ => kept(bytes).map(Kept::Present),
    }
}

impl<G> StateSnapshot<G> {
    fn with<H>(
        self,
        convert: impl FnOnce(G) -> Result<H, CodecError>,
    ) -> Result<StateSnapshot<H>, CodecError> {
        let Self { group, stamp, group_info, hub, lacks_proposals } = self;
        Ok(StateSnapshot { group: convert(group)?, stamp, group_info, hub, lacks_proposals })
    }
}

impl StateSnapshot<FrozenGroup> {
    /// The snapshot, as it is stored.
    pub(super) fn encode(self) -> Result<Vec<u8>, CodecError> {
        keep(&self.with(|group| Ok(group.snapshot()))?)
    }
}

impl StateSnapshot {
    pub(super) fn restored(self) -> Result<StateSnapshot<TrackedGroup>, CodecError> {
        self.with(TrackedGroup::restore)
    }
}

/// A [`GroupRecord`] of the older format.
#[derive(Deserialize)]
enum LegacyRecord {
    Proposal {
        pending: LegacyProposal,
        stamp: Timestamp,
    },
    Epoch {
        change: LegacyEpoch,
        stamp: Timestamp,
        #[serde(with = "serde_bytes")]
        group_info: Option<Vec<u8>>,
    },
}

impl StateSnapshot<LegacySnapshot> {
    /// The state after the records of the older format, which come first.
    pub(super) fn replayed<'a>(
        self,
        records: &mut Peekable<impl Iterator<Item = (u64, &'a [u8])>>,
    ) -> Result<StateSnapshot<TrackedGroup>, CodecError> {
        let mut state = self.with(LegacyGroup::restore)?;
        while let Some((_, record)) = records.peek().copied() {
            if format_of(record)? != LEGACY_FORMAT {
                break;
            }
            records.next();
            match kept_in(LEGACY_FORMAT, record)? {
                LegacyRecord::Proposal { pending, stamp } => {
                    state.stamp = stamp;
                    state.group.apply_proposal(pending)?;
                }
                LegacyRecord::Epoch { change, stamp, group_info } => {
                    (state.stamp, state.group_info) = (stamp, group_info);
                    state.lacks_proposals = false;
                    state.group.apply_epoch(change)?;
                }
            }
        }
        state.with(LegacyGroup::convert)
    }
}
