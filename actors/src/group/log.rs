//! Entries of a group's log (*Group Evolution*), in the order in which the hub accepted them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use snapshots::{KeyPackageRef, Timestamp};

use super::GroupError;
use crate::{limits::Limits, mls::CommitBundle};

/// One accepted entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number: 0 is the group's creation, and there is no gap.
    pub sequence: u64,
    /// The time at which the hub accepted it. Certificates are validated at this time.
    pub timestamp: Timestamp,
    /// The accepted messages.
    pub content: EntryContent,
}

/// A group to create (*Group Creation*).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// MLSMessage with the GroupInfo of epoch 0.
    #[serde(with = "serde_bytes")]
    pub group_info: Vec<u8>,
    /// `optional<Node> ratchet_tree<V>`, length prefix included, unless the GroupInfo carries it.
    #[serde(with = "serde_bytes")]
    pub ratchet_tree: Option<Vec<u8>>,
}

/// The content of a log entry: the messages as uploaded. A clone shares them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryContent {
    /// *Group Creation*.
    Creation(#[serde(with = "shared")] Arc<NewGroup>),
    /// *Proposals*.
    Proposal {
        /// The proposal, a PublicMessage.
        #[serde(with = "crate::codec::shared_bytes")]
        packet: Arc<[u8]>,
    },
    /// *Commits*.
    Commit(#[serde(with = "shared")] Arc<CommitBundle>),
}

impl From<NewGroup> for EntryContent {
    fn from(new: NewGroup) -> Self {
        Self::Creation(Arc::new(new))
    }
}

impl From<CommitBundle> for EntryContent {
    fn from(bundle: CommitBundle) -> Self {
        Self::Commit(Arc::new(bundle))
    }
}

/// A shared value, stored as the value.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        T::serialize(value, serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// The state of a group after an entry, for a follower whose next entry is no longer kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTransfer {
    /// The last entry that it includes.
    pub sequence: u64,
    /// The time at which the hub accepted that entry.
    pub timestamp: Timestamp,
    /// MLSMessage with the GroupInfo of the current epoch, signed by a member.
    pub group_info: Vec<u8>,
    /// `optional<Node> ratchet_tree<V>` of the current epoch.
    pub ratchet_tree: Vec<u8>,
    /// The proposals that wait in the current epoch, in the order in which they were accepted.
    pub proposals: Vec<Vec<u8>>,
    /// The Welcome of the current epoch, if its commit added clients and is still known: a client that was added in an
    /// earlier epoch that the follower never saw joins by an external commit.
    pub welcome: Option<Vec<u8>>,
    /// Key packages whose use the follower has not seen, as far as they are still known.
    pub used: Vec<KeyPackageRef>,
    /// Whether the group was reinitialised, so that no commit can follow (RFC 9420 §11.2).
    pub reinitialised: bool,
}

/// The highest number of a log entry, 2⁵³ − 1: JSON carries it exactly, and no log reaches it.
pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;

impl EntryContent {
    /// Checks the size of each message.
    ///
    /// # Errors
    /// [`GroupError::TooLarge`].
    pub(crate) fn check_sizes(&self, limits: &Limits) -> Result<(), GroupError> {
        let max = limits.packet_bytes_max;
        let info_max = max.saturating_add(limits.ratchet_tree_bytes_max);
        let length = |message: &Option<Vec<u8>>| message.as_ref().map_or(0, Vec::len);
        match self {
            Self::Creation(new) => new.check_sizes(limits),
            Self::Proposal { packet } => within("packet", packet.len(), max),
            Self::Commit(bundle) => {
                within("commitPacket", bundle.commit.len(), max)?;
                within("groupInfo", length(&bundle.group_info), info_max)?;
                within("welcomePacket", length(&bundle.welcome), max)
            }
        }
    }

    /// The size that decides on which thread the entry is validated. The group info does not count: it may carry a whole tree,
    /// but is hardly more than compared.
    pub(crate) fn validated_bytes(&self) -> usize {
        let length = |message: &Option<Vec<u8>>| message.as_ref().map_or(0, Vec::len);
        match self {
            Self::Creation(new) => new.group_info.len() + length(&new.ratchet_tree),
            Self::Proposal { packet } => packet.len(),
            Self::Commit(bundle) => {
                bundle.commit.len() + length(&bundle.welcome) + length(&bundle.group_info) / 8
            }
        }
    }
}

/// Checks the size of a part of a request, in bytes.
///
/// # Errors
/// [`GroupError::TooLarge`].
pub(super) fn within(what: &'static str, length: usize, max: usize) -> Result<(), GroupError> {
    if length <= max { Ok(()) } else { Err(GroupError::TooLarge { what, max }) }
}

/// A digest of a commit with its group info and welcome, by which the winner of an epoch is recognised when it is uploaded
/// again.
pub(crate) fn commit_digest(bundle: &CommitBundle) -> [u8; 32] {
    digest(&[Some(&bundle.commit), bundle.group_info.as_deref(), bundle.welcome.as_deref()])
}

impl NewGroup {
    /// Checks the size of each message.
    ///
    /// # Errors
    /// [`GroupError::TooLarge`].
    pub(crate) fn check_sizes(&self, limits: &Limits) -> Result<(), GroupError> {
        let info_max = limits.packet_bytes_max.saturating_add(limits.ratchet_tree_bytes_max);
        within("groupInfo", self.group_info.len(), info_max)?;
        within("ratchetTree", self.ratchet_tree.as_ref().map_or(0, Vec::len), limits.ratchet_tree_bytes_max)
    }

    /// A digest of the creation, by which a retry is recognised.
    pub(crate) fn digest(&self) -> [u8; 32] {
        digest(&[Some(&self.group_info), self.ratchet_tree.as_deref()])
    }
}

fn digest(parts: &[Option<&[u8]>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        match part {
            Some(bytes) => {
                hash.update([1]);
                hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(bytes);
            }
            None => hash.update([0]),
        }
    }
    hash.finalize().into()
}
