//! Groups: their state, the actor that owns one, and its requests and answers (*Managing Groups without Metadata Protection*).

mod actor;
mod batch;
mod error;
mod guarded;
mod history;
mod inviters;
mod loading;
mod log;
mod log_events;
mod messages;
mod meta;
mod missed;
mod package_use;
mod proposal_limits;
mod recent;
mod removals;
mod revoked;
mod state;
mod stored;
mod stored_entry;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use snapshots::{Epoch, GroupId, Timestamp};

pub(crate) use self::{
    actor::GroupActor,
    batch::{creation, creation_instead, deletion, filled, transfer},
    error::{refused, refused_commit, refused_proposal},
    history::{accepted_before, control_messages, entries_after},
    inviters::signer,
    log_events::{LoggedEvents, event_packets, logged_events},
    messages::{CloseGroup, Published, RemoveRevoked, Replicate, UploadEntry},
    meta::{GroupMeta, handed_over_row, is_handed_over, shows_creation},
    missed::{Handed, Reached, Unseen, missed_after},
    recent::RecentEpochs,
    revoked::revoked_members,
    state::GroupState,
};
pub use self::{
    error::GroupError,
    history::{ControlMessages, EntriesAfter, EpochEntry},
    log::{EntryContent, GroupTransfer, LogEntry, NewGroup, SEQUENCE_MAX},
    log_events::EventPackets,
    stored_entry::LoggedEntry,
    view::{GroupView, MemberView, WaitingProposal},
};

/// Whether a write was done now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done now.
    New,
    /// Duplicate upload: the answer is that of the first one.
    Repeated,
}

/// A created group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedGroup {
    /// MLS's `group_id`.
    pub group: GroupId,
    /// Whether it was created by this request.
    pub outcome: Outcome,
}

/// A proposal that is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedProposal {
    /// Its ProposalRef (RFC 9420 §5.2).
    pub reference: Vec<u8>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it was accepted by this request.
    pub outcome: Outcome,
}

/// A commit that won its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedCommit {
    /// The epoch that the commit created.
    pub epoch: Epoch,
    /// The time at which the hub accepted it.
    pub timestamp: Timestamp,
    /// Whether it was accepted by this request.
    pub outcome: Outcome,
}

/// An accepted upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    Proposal(AcceptedProposal),
    Commit(AcceptedCommit),
}
