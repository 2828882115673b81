//! Errors of requests to a group.

use snapshots::{ClientHandle, DomainName, Epoch, KeyPackageRef, QuotaExceeded};

use crate::{
    activity::AskError,
    error::StorageError,
    mls::{MalformedMessage, Refusal, Rule, UnknownKind},
    replica_count::NoRoom,
};

/// The reason why a request to a group was refused. A refused request has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No group of that id was created in this application.
    #[error("this application has no group with this id")]
    UnknownGroup,
    /// Another group info created this group before, or the group was deleted and its id is still taken.
    #[error("a group with this group_id already exists, created from other bytes, or was deleted")]
    GroupExists,
    /// The bytes are not an MLS message of the expected kind.
    #[error(transparent)]
    MalformedMessage(#[from] MalformedMessage),
    /// The packet uses a type that this gateway does not know, and that MLS does not require members to know.
    #[error("{detail}")]
    UnknownKind {
        /// The kind of type.
        kind: UnknownKind,
        /// The number (RFC 9420 §17).
        value: u16,
        /// The reason.
        detail: String,
    },
    /// The group info, or the tree that came with it, cannot start a group.
    #[error("{0}")]
    InvalidGroupInfo(String),
    /// A leaf in the tree of a group info is outside its lifetime.
    #[error("{detail}")]
    GroupInfoLifetime {
        /// [`Rule::Lifetime`].
        rule: Rule,
        /// The lifetime, and the reason why it is refused.
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
        /// The fault.
        detail: String,
    },
    /// A commit broke a rule.
    #[error("{detail}")]
    InvalidCommit {
        /// The rule.
        rule: Rule,
        /// The fault.
        detail: String,
        /// The reference of the proposal at fault, if the commit includes it by reference.
        proposal: Option<Vec<u8>>,
    },
    /// The epoch has reached its limit of proposals.
    #[error(
        "this epoch has reached the limit of proposals: {max}, or fewer if they are large; commit them first"
    )]
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
        /// The number of added members.
        added: usize,
    },
    /// The welcome's secrets are not for exactly the added key packages.
    #[error("{0}")]
    WelcomeMismatch(String),
    /// The commit keeps members whose credentials have expired or were revoked, and the application wants them removed.
    #[error(
        "the commit keeps members whose credentials have expired or were revoked, at the leaves {leaves:?}; remove them with it"
    )]
    ExpiredMembers {
        /// Their leaf indices, ascending.
        leaves: Vec<u32>,
    },
    /// A one-time key package was used before.
    #[error("the key package {reference:?} was already used to add a client to a group")]
    KeyPackageReused {
        /// Its KeyPackageRef (RFC 9420 §5.2).
        reference: KeyPackageRef,
        /// The reference of the Add that carries it, if a commit includes it by reference.
        proposal: Option<Vec<u8>>,
    },
    /// The commit would exceed the limit of welcomes that wait for a client (*Joining*).
    #[error("{}", too_many_welcomes(.handle, .domain.as_ref(), *.of_inviter, *.max, *.counted_for_s))]
    TooManyWelcomes {
        /// The client's handle.
        handle: ClientHandle,
        /// Its domain.
        domain: Option<DomainName>,
        /// Whether the limit is that of one inviter, rather than of all inviters together.
        of_inviter: bool,
        /// The limit.
        max: u64,
        /// For a client of another gateway, the time for which the welcomes sent to it still count, in seconds. `None` for a
        /// client of this gateway, where they count until it acknowledges them.
        counted_for_s: Option<u64>,
    },
    /// The requested epochs are older than the history that is kept.
    #[error("epochs before {} are no longer kept", floor.0)]
    EpochsPruned {
        /// The oldest epoch that is kept.
        floor: Epoch,
    },
    /// The application would have more than its quota of groups or of bytes.
    #[error(transparent)]
    Quota(QuotaExceeded),
    /// A report that cannot be: of no current member, or of no epoch that a commit created.
    #[error("{0}")]
    InvalidReport(String),
    /// Part of the request is larger than the gateway accepts.
    #[error("{what} has more than {max} bytes")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// The limit, in bytes.
        max: usize,
    },
    /// Another gateway orders this group: the packet must be forwarded to it.
    #[error("the gateway of {hub} orders this group")]
    NotHub {
        /// Its domain.
        hub: DomainName,
    },
    /// A delivery that is not from the group's hub, or that no hub would make.
    #[error("{0}")]
    NotFromHub(String),
    /// A peer has the largest allowed number of groups here.
    #[error(
        "the gateway of {hub} already has {max} groups of this application here, the most that a peer may have"
    )]
    TooManyGroups {
        /// The peer's domain.
        hub: DomainName,
        /// The limit.
        max: usize,
    },
    /// Too many requests wait for this group, or for the validation of long messages of its application.
    #[error("the gateway is busy with other requests for this group or application; try again in a moment")]
    Busy,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// The store failed, or its data could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<NoRoom> for GroupError {
    fn from(error: NoRoom) -> Self {
        match error {
            NoRoom::Full { hub, max } => Self::TooManyGroups { hub, max },
            NoRoom::Uncounted(error) => error.into(),
        }
    }
}

impl From<AskError> for GroupError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Busy => Self::Busy,
            AskError::NoAnswer => Self::Storage(StorageError::Unreadable),
        }
    }
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
            "{max} welcomes {whose} wait for {client}, the most that may wait: leave the client out of the commit until it \
             has fetched and acknowledged them"
        ),
        Some(seconds) => format!(
            "{max} welcomes {whose} were sent to {client}, the most that may be sent in this time: leave the client out of \
             the commit, and invite it in {seconds} seconds"
        ),
    }
}

/// The error of a refused proposal.
pub(crate) fn refused_proposal(refusal: Refusal) -> GroupError {
    refused(refusal, |rule, detail, _| GroupError::InvalidProposal { rule, detail })
}

/// The error of a refused commit, or of a group info that cannot open a group.
pub(crate) fn refused_commit(refusal: Refusal) -> GroupError {
    refused(refusal, |rule, detail, proposal| GroupError::InvalidCommit { rule, detail, proposal })
}

/// The error of a refused packet; `broken` makes the one for a broken rule.
pub(crate) fn refused(
    refusal: Refusal,
    broken: impl FnOnce(Rule, String, Option<Vec<u8>>) -> GroupError,
) -> GroupError {
    match refusal {
        Refusal::Malformed(malformed) => GroupError::MalformedMessage(malformed),
        Refusal::UnknownKind { kind, value, detail } => GroupError::UnknownKind { kind, value, detail },
        Refusal::Stale { packet, current } => GroupError::StaleEpoch { packet, current },
        Refusal::Future { packet, current } => GroupError::FutureEpoch { packet, current },
        Refusal::Broken { rule, detail, proposal } => broken(rule, detail, proposal),
        Refusal::OpenedWith(detail) => GroupError::InvalidGroupInfo(detail),
        Refusal::OpenedOutsideLifetime { rule, detail } => GroupError::GroupInfoLifetime { rule, detail },
        Refusal::GroupInfo(detail) => GroupError::GroupInfoMismatch(detail),
        Refusal::WelcomeMissing { added } => GroupError::WelcomeMissing { added },
        Refusal::Welcome(detail) => GroupError::WelcomeMismatch(detail),
    }
}
