//! Groups: their state, the actor that owns one, and what callers exchange with it
//! (*Managing Groups without Metadata Protection*).

mod actor;
mod error;
mod history;
mod inviters;
mod missed;
mod recent;
mod state;
mod view;
mod writes;

use snapshots::{Epoch, GroupId, Timestamp};

pub(crate) use self::{
    actor::{ApplyEntry, GroupActor, Published, UploadCommit, UploadProposal},
    history::{accepted_before, control_messages, winner_again},
    inviters::signer,
    missed::{Handed, Reached, Unseen, missed_after},
    recent::{RecentEpochs, RecentLimits},
    state::{GroupState, refused},
    writes::{
        GroupOrigin, UsedPackages, creation, creation_instead, filled, handed_over_row, is_handed_over,
        shows_creation, transfer,
    },
};
pub use self::{
    error::GroupError,
    history::{ControlMessages, EpochEntry},
    state::CommitUpload,
    view::{GroupView, MemberView, WaitingProposal},
};

/// A group to create (*Group Creation*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGroup {
    /// MLSMessage with the GroupInfo of epoch 0.
    pub group_info: Vec<u8>,
    /// `optional<Node> ratchet_tree<V>`, length prefix included, unless the GroupInfo carries it.
    pub ratchet_tree: Option<Vec<u8>>,
}

/// Whether a write did something or was done already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done now.
    New,
    /// The same bytes did it before; this is the answer of then.
    Repeated,
}

/// A group that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedGroup {
    /// MLS's `group_id`.
    pub group: GroupId,
    /// Whether it was created by this request.
    pub outcome: Outcome,
}

/// A proposal that waits to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedProposal {
    /// Its ProposalRef (RFC 9420 §5.2).
    pub reference: Vec<u8>,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// Whether it was accepted by this request.
    pub outcome: Outcome,
}

/// A commit that won its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedCommit {
    /// The epoch that the commit created.
    pub epoch: Epoch,
    /// The time that the gateway gave it.
    pub timestamp: Timestamp,
    /// Whether it was accepted by this request.
    pub outcome: Outcome,
}
