//! The gateways of other domains (*Operational Context*, *Group Evolution*): deliveries from a group's hub to its
//! followers, and the actor that keeps one follower up to date.
//!
//! The group's log is the only queue. A hub sends each entry once it is durable; a follower checks it by the same rules,
//! appends it to its own log under the same number and answers with the number that it needs next. Entries that are lost,
//! repeated or out of order do no harm: the answer tells where to continue.

mod actor;
mod compare;
mod outgoing;
mod pace;
mod progress;
mod retries;
mod schedule;
mod store_changes;

use std::{ops::RangeInclusive, pin::Pin, sync::Arc, time::Duration};

use snapshots::{AppId, DomainName, GroupId, Timestamp};

pub(crate) use self::actor::{LogGrew, PeerActor};
use crate::group::{GroupError, GroupTransfer, GroupView, LogEntry};

/// A hub's delivery for one group, in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The application.
    pub app: AppId,
    /// The group.
    pub group: GroupId,
    /// The domain of the hub.
    pub hub: DomainName,
    /// The time at which the entry before the first one was accepted, if that is still known. A follower that has a different
    /// entry there follows a different history.
    pub preceding: Option<Timestamp>,
    /// The entries, or the whole group.
    pub content: DeliveryContent,
}

/// The content of a [`Delivery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryContent {
    /// Consecutive entries, at least one.
    Entries(Vec<LogEntry>),
    /// The whole group.
    Transfer(Box<GroupTransfer>),
    /// The hub has deleted the group.
    Deletion {
        /// When.
        timestamp: Timestamp,
    },
}

/// The revision of the protocol between gateways that this gateway understands. From revision 1 on a follower
/// takes entries of its history after a transfer, and [`GroupTransfer::reinitialised`]; from revision 2 on, the deletion of a group.
pub const REVISION: u32 = 2;

/// The most used key packages that a transfer names; a follower accepts no more.
pub const USED_KEY_PACKAGES_MAX: usize = 4096;

/// A follower's acknowledgement: its position after a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationAck {
    /// The number of the entry that it needs next: 0 when it has nothing of the group.
    pub next: u64,
    /// It cannot take that entry and needs the whole group: it lacks a proposal that waits at the hub, has no room for another,
    /// or finds that a lifetime has ended.
    pub needs_transfer: bool,
    /// It can append that entry after this time, as followers of earlier versions say when a lifetime in it has not begun by
    /// their clocks.
    pub retry_after: Option<Duration>,
    /// Entries before `next` that it never received, because it received the group as a whole, and accepts for its history.
    pub missing: Option<RangeInclusive<u64>>,
    /// The revision of this protocol that it understands; see [`REVISION`].
    pub revision: u32,
    /// The store that holds its replicas: a new store has none of the entries that were sent before.
    pub store: uuid::Uuid,
}

/// The reason why a delivery did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The peer cannot be reached, by the transport's verdict, or did not answer as a gateway does. It is tried again.
    #[error("{0}")]
    Unreachable(String),
    /// The peer was reached and could not take this delivery at present. It is tried again; others of its groups are not
    /// affected.
    #[error("{0}")]
    Failed(String),
    /// As [`Self::Failed`]; the peer wants to be asked again no earlier than after this time.
    #[error("{reason}")]
    Later {
        /// The peer's description of the problem.
        reason: String,
        /// The time to wait.
        after: Duration,
    },
    /// The delivery was not made, or did not end in time, which does not show whether the peer can be reached. It is tried
    /// again; others of its groups are not affected.
    #[error("{0}")]
    Incomplete(String),
    /// This gateway has nothing that the peer could append. It is retried after a while.
    #[error("{0}")]
    NothingToSend(String),
    /// The peer refused it; `slug` is the problem's type. Others of its groups are not affected.
    #[error("refused as {slug}: {detail}")]
    Refused {
        /// The problem's slug.
        slug: String,
        /// The peer's description of the problem.
        detail: String,
    },
}

/// A delivery under way.
pub type Delivering = Pin<Box<dyn Future<Output = Result<ReplicationAck, DeliveryError>> + Send>>;

/// The transport of deliveries to the gateways of other domains. It alone decides whether a peer can be reached.
pub trait Transport: Send + Sync + 'static {
    /// Delivers to the gateway of a domain. It ends in bounded time.
    fn deliver(&self, peer: &DomainName, delivery: Delivery) -> Delivering;
}

/// Read access to the current views of groups, for the actors of peers.
pub(crate) trait GroupViews: Send + Sync {
    /// The current view of a group.
    fn group_view(&self, app: AppId, group: &GroupId) -> ReadingGroup;
}

/// A group that is being read.
pub(crate) type ReadingGroup = Pin<Box<dyn Future<Output = Result<Arc<GroupView>, GroupError>> + Send>>;
