//! Replication between gateways (*Operational Context*, *Group Evolution*): the messages between a group's hub and its
//! followers, and the actor that keeps one follower up to date.
//!
//! The group's log is the only queue. A hub sends each entry once it is durable; a follower validates it by the same rules,
//! appends it to its own log under the same number and answers the number that it needs next. Deliveries that are lost,
//! repeated or out of order change nothing: the answer tells where to continue.

mod actor;
mod compare;
mod entries;
mod outgoing;
mod pace;
mod schedule;

use std::{ops::RangeInclusive, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};
use snapshots::{AppId, DomainName, GroupId, KeyPackageRef, Timestamp};

pub(crate) use self::{
    actor::{PeerActor, PeerHealth, Wake},
    entries::{entry_from_bytes, entry_to_bytes},
};

/// One accepted entry of a group's log, as its hub sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number: 0 is the group's creation, and there is no gap.
    pub sequence: u64,
    /// When the hub accepted it. Certificates are judged at this time.
    pub timestamp: Timestamp,
    /// What was accepted.
    pub content: EntryContent,
}

/// What a log entry holds: the bytes as they were uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryContent {
    /// *Group Creation*.
    Creation {
        /// MLSMessage with the GroupInfo of epoch 0.
        #[serde(with = "serde_bytes")]
        group_info: Vec<u8>,
        /// `optional<Node> ratchet_tree<V>`, unless the GroupInfo carries it.
        #[serde(with = "serde_bytes")]
        ratchet_tree: Option<Vec<u8>>,
    },
    /// *Proposals*.
    Proposal {
        /// The proposal, a PublicMessage.
        #[serde(with = "serde_bytes")]
        packet: Vec<u8>,
    },
    /// *Commits*.
    Commit {
        /// The commit, a PublicMessage.
        #[serde(with = "serde_bytes")]
        commit: Vec<u8>,
        /// The GroupInfo of the epoch that the commit creates.
        #[serde(with = "serde_bytes")]
        group_info: Option<Vec<u8>>,
        /// The Welcome for the clients that the commit adds.
        #[serde(with = "serde_bytes")]
        welcome: Option<Vec<u8>>,
    },
}

/// A group as it stands after an entry, for a follower whose next entry is no longer kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTransfer {
    /// The last entry that is in it.
    pub sequence: u64,
    /// When the hub accepted that entry.
    pub timestamp: Timestamp,
    /// MLSMessage with the GroupInfo of the current epoch, signed by a member.
    pub group_info: Vec<u8>,
    /// `optional<Node> ratchet_tree<V>` of the current epoch.
    pub ratchet_tree: Vec<u8>,
    /// The proposals that wait in the current epoch, in the order in which they were accepted.
    pub proposals: Vec<Vec<u8>>,
    /// The Welcome of the current epoch, if its commit added clients and is still known. A client that was added in an
    /// earlier epoch that the follower never received joins by an external commit.
    pub welcome: Option<Vec<u8>>,
    /// Key packages that the follower has not seen used and that were, as far as is still known.
    pub used: Vec<KeyPackageRef>,
    /// Whether the group was re-initialised, so that nothing can follow (RFC 9420 §11.2).
    pub reinitialised: bool,
}

/// What a hub delivers for one group in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The application.
    pub app: AppId,
    /// The group.
    pub group: GroupId,
    /// The domain of the hub.
    pub hub: DomainName,
    /// When the entry before the first one was accepted, if that is still known: a follower that has another one there
    /// follows another history.
    pub preceding: Option<Timestamp>,
    /// What is delivered.
    pub content: DeliveryContent,
}

/// See [`Delivery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryContent {
    /// Consecutive entries, at least one.
    Entries(Vec<LogEntry>),
    /// The whole group.
    Transfer(Box<GroupTransfer>),
}

/// What this gateway understands beyond the first version of the protocol between gateways. From revision 1 on a follower
/// takes entries of its history after a transfer, and [`GroupTransfer::reinitialised`].
pub const REVISION: u32 = 1;

/// The highest number that an entry of a log may have, 2⁵³ − 1: what JSON carries exactly, and more than any log reaches.
pub const SEQUENCE_MAX: u64 = (1 << 53) - 1;

/// Where a follower stands after a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The number of the entry that it needs next: 0 when it has nothing of the group.
    pub next: u64,
    /// It cannot take that entry itself any more and needs the whole group: a lifetime in the entry has expired since,
    /// and the MLS library judges lifetimes by the present time.
    pub needs_transfer: bool,
    /// The follower can take that entry after this time: a lifetime in it has not begun by its clock.
    pub retry_after: Option<Duration>,
    /// Entries before `next` that it was never shown, since it was handed the group as a whole, and takes for its history.
    pub missing: Option<RangeInclusive<u64>>,
    /// What it understands beyond the first version of this protocol; see [`REVISION`].
    pub revision: u32,
    /// Which store it keeps its replicas in: another one than before has nothing of what was sent before.
    pub store: uuid::Uuid,
}

/// Why a delivery did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The peer could not be reached, did not answer in time, or did not answer as a gateway does. It is tried again.
    #[error("{0}")]
    Unreachable(String),
    /// The peer was reached and could not take this delivery at present. It is tried again; others of its groups are not
    /// affected.
    #[error("{0}")]
    Failed(String),
    /// The delivery was not made, or did not end in time, which does not show whether the peer can be reached. It is tried
    /// again; others of its groups are not affected.
    #[error("{0}")]
    Incomplete(String),
    /// There is nothing here that the peer could take. It is tried again after a while.
    #[error("{0}")]
    NothingToSend(String),
    /// The peer refused it; `slug` is the problem's type. Others of its groups are not affected.
    #[error("refused as {slug}: {detail}")]
    Refused {
        /// The problem's slug.
        slug: String,
        /// What the peer says is wrong.
        detail: String,
    },
}

/// A delivery under way.
pub type Delivering = Pin<Box<dyn Future<Output = Result<Held, DeliveryError>> + Send>>;

/// How deliveries reach the gateways of other domains.
pub trait Transport: Send + Sync + 'static {
    /// Delivers to the gateway of a domain. It ends in bounded time.
    fn deliver(&self, peer: &DomainName, delivery: Delivery) -> Delivering;
}
