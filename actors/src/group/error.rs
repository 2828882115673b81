//! Errors of requests to a group.

use snapshots::{ClientHandle, DomainName, Epoch, KeyPackageRef};

use crate::{
    mls::{MalformedMessage, Rule, UnknownKind},
    storage::StorageError,
};

/// Why a request to a group was refused. Nothing has changed when one of these is answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No group of that id was created in this application.
    #[error("no group with this id was created in this application")]
    UnknownGroup,
    /// Another group info created this group before.
    #[error("a group with this group_id exists already, created from other bytes")]
    GroupExists,
    /// The bytes are not the MLS message that belongs here.
    #[error(transparent)]
    MalformedMessage(#[from] MalformedMessage),
    /// The packet uses a type that this gateway does not know, and that members need not know either.
    #[error("{detail}")]
    UnknownKind {
        /// What the number is a type of.
        kind: UnknownKind,
        /// The number (RFC 9420 §17).
        value: u16,
        /// Why it is refused.
        detail: String,
    },
    /// The group info, or the tree that came with it, cannot start a group.
    #[error("{0}")]
    InvalidGroupInfo(String),
    /// A leaf in the tree of a group info is outside its lifetime.
    #[error("{detail}")]
    GroupInfoLifetime {
        /// [`Rule::Lifetime`] or [`Rule::LifetimeNotBegun`].
        rule: Rule,
        /// Which lifetime it is.
        detail: String,
    },
    /// The packet was made for an epoch that is over; `current` is the group's epoch now.
    #[error("the packet is for epoch {}, the group is at epoch {}", packet.0, current.0)]
    StaleEpoch {
        /// The packet's epoch.
        packet: Epoch,
        /// The group's epoch.
        current: Epoch,
    },
    /// The packet was made for an epoch that the group has not reached here.
    #[error("the packet is for epoch {}, the group is only at epoch {}", packet.0, current.0)]
    FutureEpoch {
        /// The packet's epoch.
        packet: Epoch,
        /// The group's epoch.
        current: Epoch,
    },
    /// A proposal broke a rule.
    #[error("{detail}")]
    InvalidProposal {
        /// The rule.
        rule: Rule,
        /// What was wrong with this one.
        detail: String,
    },
    /// A commit broke a rule.
    #[error("{detail}")]
    InvalidCommit {
        /// The rule.
        rule: Rule,
        /// What was wrong with this one.
        detail: String,
        /// The reference of the proposal that is the cause, where one that the commit refers to is.
        proposal: Option<Vec<u8>>,
    },
    /// The epoch holds as many proposals as it may.
    #[error("this epoch holds as many proposals as it may, {max} or fewer large ones; commit them first")]
    TooManyProposals {
        /// The limit by number.
        max: usize,
    },
    /// The group info that came with a commit does not describe the epoch that the commit creates.
    #[error("{0}")]
    GroupInfoMismatch(String),
    /// A commit that adds members came without a welcome.
    #[error("the commit adds {added} member(s) but came without welcomePacket")]
    WelcomeMissing {
        /// How many members the commit adds.
        added: usize,
    },
    /// The welcome's secrets are not for exactly the added key packages.
    #[error("{0}")]
    WelcomeMismatch(String),
    /// The commit keeps members whose credentials have expired, and the application wants them removed.
    #[error(
        "the commit keeps members whose credentials have expired, at the leaves {leaves:?}; remove them with it"
    )]
    ExpiredMembers {
        /// Their leaf indices, ascending.
        leaves: Vec<u32>,
    },
    /// A key package that is used once was used before.
    #[error("the key package {reference:?} was already used to add a client to a group")]
    KeyPackageReused {
        /// Its KeyPackageRef (RFC 9420 §5.2).
        reference: KeyPackageRef,
        /// The reference of the Add that carries it, where a commit refers to one.
        proposal: Option<Vec<u8>>,
    },
    /// The commit would leave a client more welcomes than may wait for it (*Joining*).
    #[error("{}", too_many_welcomes(.handle, .domain.as_ref(), *.of_inviter, *.max, *.counted_for_s))]
    TooManyWelcomes {
        /// The client's handle.
        handle: ClientHandle,
        /// Its domain.
        domain: Option<DomainName>,
        /// Whether it is the limit of one inviter, and not that of all inviters together.
        of_inviter: bool,
        /// The limit.
        max: u64,
        /// For how long the welcomes still count that were sent to a client of another gateway, in seconds; `None` for a
        /// client of this gateway, for which they count until it acknowledges them.
        counted_for_s: Option<u64>,
    },
    /// The epochs asked for are older than the history that is kept.
    #[error("epochs before {} are no longer kept", floor.0)]
    EpochsPruned {
        /// The oldest epoch that is kept.
        floor: Epoch,
    },
    /// Something in the request is larger than the gateway takes.
    #[error("{what} has more than {max} bytes")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// The limit, in bytes.
        max: usize,
    },
    /// Another gateway orders this group: the packet is to be passed to it.
    #[error("the gateway of {hub} orders this group")]
    NotHub {
        /// Its domain.
        hub: DomainName,
    },
    /// A delivery that the group's hub did not make, or that is not what a hub delivers.
    #[error("{0}")]
    NotFromHub(String),
    /// A peer has as many groups here as it may.
    #[error("the gateway of {hub} has {max} groups of this application here, the most that one may have")]
    TooManyGroups {
        /// The peer's domain.
        hub: DomainName,
        /// The limit.
        max: usize,
    },
    /// Too many requests wait for this group.
    #[error("too many requests wait for this group; try again in a moment")]
    Busy,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// The store failed, or held something that could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn too_many_welcomes(
    handle: &ClientHandle,
    domain: Option<&DomainName>,
    of_inviter: bool,
    max: u64,
    counted_for_s: Option<u64>,
) -> String {
    let whose = if of_inviter { "of this inviter" } else { "of all inviters together" };
    let handle = String::from_utf8_lossy(handle.as_bytes());
    let client = domain.map_or_else(|| handle.to_string(), |domain| format!("{handle} of {domain}"));
    match counted_for_s {
        None => format!(
            "{max} welcomes {whose} wait for {client}, the most that may: it must fetch and acknowledge them; until then \
             leave it out of the commit"
        ),
        Some(seconds) => format!(
            "{max} welcomes {whose} were sent to {client}, the most that may be within the time for which they count: \
             leave it out of the commit, and invite it in {seconds} seconds"
        ),
    }
}
