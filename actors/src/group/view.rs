//! What readers see of a group: an immutable picture of its current epoch, published after the epoch is on disk.

use std::sync::{Arc, OnceLock};

use snapshots::{ClientHandle, DomainName, Epoch, GroupId, Timestamp};

use super::EpochEntry;
use crate::mls::SerialisedTree;

/// One member of a group, for readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The member's leaf index in the ratchet tree.
    pub leaf_index: u32,
    /// The member's client handle, by the application's identity provider.
    pub handle: ClientHandle,
    /// Its domain, where the application uses domains.
    pub domain: Option<DomainName>,
}

/// A group in its current epoch (*Group State*).
#[derive(Debug)]
pub struct GroupView {
    /// MLS's `group_id`.
    pub group: GroupId,
    /// The current epoch.
    pub epoch: Epoch,
    /// The domain of the gateway that orders the group; `None` where the application does not use domains.
    pub hub: Option<DomainName>,
    /// MLS protocol version.
    pub protocol_version: u16,
    /// MLS cipher suite.
    pub cipher_suite: u16,
    /// The members, by ascending leaf index.
    pub members: Arc<[MemberView]>,
    /// Packets of the proposals accepted in this epoch, oldest first: the draft's `currentProposals`.
    pub proposals: Vec<Arc<[u8]>>,
    /// The draft's `currentGroupInfo`, if the last committer gave one.
    pub group_info: Option<Arc<[u8]>>,
    /// The number of the newest entry in the group's log.
    pub(crate) sequence: u64,
    /// When that entry was accepted.
    pub(crate) stamp: Timestamp,
    /// The newest epochs, as far as they are kept in memory.
    pub(crate) recent: Arc<[Arc<EpochEntry>]>,
    pub(crate) tree: SerialisedTree,
    pub(crate) tree_bytes: OnceLock<Arc<[u8]>>,
}

impl GroupView {
    /// The draft's `currentTree`: the vector `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3), with its length
    /// prefix. Serialised once, when it is first asked for.
    pub fn ratchet_tree(&self) -> Arc<[u8]> {
        Arc::clone(self.tree_bytes.get_or_init(|| self.tree.to_bytes().into()))
    }
}
