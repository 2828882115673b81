//! The gateways of other domains (*Operational Context*, *Group Evolution*): what travels between a group's hub and the
//! gateways that follow it, and the actor that keeps one of them up to date.
//!
//! The group's log is the only queue. A hub sends each entry once it is durable; a follower checks it by the same rules,
//! appends it to its own log under the same number and answers the number that it needs next. Whatever is lost, sent
//! twice or out of order changes nothing: the answer tells where to go on.

mod actor;
mod compare;
mod entries;
mod outgoing;
mod schedule;

use std::pin::Pin;

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
    /// The Welcome of the current epoch, if its commit added clients and is still known: whoever was added in an
    /// earlier epoch that the follower never saw joins by an external commit.
    pub welcome: Option<Vec<u8>>,
    /// Key packages that the follower has not seen used and that were, as far as is still known.
    pub used: Vec<KeyPackageRef>,
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

/// Where a follower stands after a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The number of the entry that it needs next: 0 when it has nothing of the group.
    pub next: u64,
    /// It cannot take that entry itself any more and needs the whole group: the entry's key packages have expired since,
    /// and the MLS library judges lifetimes by the present time.
    pub needs_transfer: bool,
    /// Which store it keeps its replicas in: another one than before has nothing of what was sent before.
    pub store: uuid::Uuid,
}

/// Why a delivery did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The peer could not be reached, did not answer in time, or did not answer as a gateway does. It is tried again.
    #[error("{0}")]
    Unreachable(String),
    /// The peer was reached and could not take this delivery at present, or did not end with it in time. It is tried again;
    /// others of its groups are not affected.
    #[error("{0}")]
    Failed(String),
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
