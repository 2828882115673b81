//! Reasons for refusing a packet.

use snapshots::Epoch;

use super::{
    Rule,
    group::Unidentified,
    syntax::{Cause, Fault, Misfit, UnknownKind, misfit_in_message, misfit_in_ratchet_tree},
};

/// The member of a request that holds a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestMember {
    /// `packet`: a proposal.
    Packet,
    /// `commitPacket`.
    CommitPacket,
    /// `groupInfo`.
    GroupInfo,
    /// `welcomePacket`.
    WelcomePacket,
    /// `ratchetTree`.
    RatchetTree,
}

impl RequestMember {
    /// Its name in the request.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::CommitPacket => "commitPacket",
            Self::GroupInfo => "groupInfo",
            Self::WelcomePacket => "welcomePacket",
            Self::RatchetTree => "ratchetTree",
        }
    }
}

/// Bytes that are not the message that belongs there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {field}, at byte {offset}, {reason}", member.name())]
pub struct MalformedMessage {
    /// What of the request holds the bytes.
    pub member: RequestMember,
    /// The path to the first field that does not fit, by RFC 9420's names.
    pub field: String,
    /// Where the field begins, in bytes.
    pub offset: usize,
    /// What is wrong with the field.
    pub reason: String,
}

/// Why a packet, or what came with it, was refused. The group is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(MalformedMessage),
    /// The message uses a number that this gateway does not know, and that members need not know either.
    UnknownKind {
        kind: UnknownKind,
        value: u16,
        detail: String,
    },
    Stale {
        packet: Epoch,
        current: Epoch,
    },
    Future {
        packet: Epoch,
        current: Epoch,
    },
    Broken {
        rule: Rule,
        detail: String,
        /// The reference of the one proposal that is the cause, if one is.
        proposal: Option<Vec<u8>>,
    },
    /// A GroupInfo that cannot open a group.
    OpenedWith(String),
    /// A GroupInfo with a leaf that is outside its lifetime, which [`Rule::Lifetime`] tells.
    OpenedOutsideLifetime {
        rule: Rule,
        detail: String,
    },
    /// A GroupInfo that does not belong to the commit it came with.
    GroupInfo(String),
    WelcomeMissing {
        added: usize,
    },
    Welcome(String),
}

impl Refusal {
    /// Of an MLSMessage that was not understood.
    pub(crate) fn unreadable(member: RequestMember, message: &[u8]) -> Self {
        Self::of_misfit(member, misfit_in_message(message))
    }

    /// Of a ratchet tree (RFC 9420 §12.4.3.3) that was not understood.
    pub(crate) fn unreadable_tree(tree: &[u8]) -> Self {
        Self::of_misfit(RequestMember::RatchetTree, misfit_in_ratchet_tree(tree))
    }

    /// Of a message of another kind than belongs there: `field` is where it says so.
    pub(crate) fn unexpected(
        member: RequestMember,
        (field, offset): (&str, usize),
        found: &'static str,
        expected: &'static str,
    ) -> Self {
        let cause = Cause::Fault(Fault::Unexpected { found, expected });
        Self::of_misfit(member, Misfit { field: field.to_owned(), offset, cause })
    }

    /// Of a number that the gateway does not know; `reason` says why that matters.
    pub(super) fn unknown(kind: UnknownKind, value: u16, reason: &str) -> Self {
        Self::UnknownKind { kind, value, detail: format!("the {kind} type {value:#06x}: {reason}") }
    }

    /// Of an identity that may not enter.
    pub(super) fn of_identity(unidentified: Unidentified) -> Self {
        match unidentified {
            Unidentified::UnknownType(value) => {
                Self::unknown(UnknownKind::Credential, value, "this gateway does not know it")
            }
            Unidentified::Refused(detail) => Self::broken(Rule::Identity, detail),
        }
    }

    fn of_misfit(member: RequestMember, misfit: Misfit) -> Self {
        let detail = format!("{}: {misfit}", member.name());
        match (misfit.cause, member) {
            (Cause::Fault(fault), _) => Self::Malformed(MalformedMessage {
                member,
                field: misfit.field,
                offset: misfit.offset,
                reason: fault.to_string(),
            }),
            (Cause::UnknownKind { kind, value }, RequestMember::Packet | RequestMember::CommitPacket) => {
                Self::UnknownKind { kind, value, detail }
            }
            (Cause::UnknownSuite(_), RequestMember::Packet | RequestMember::CommitPacket) => {
                Self::broken(Rule::Proposal, detail)
            }
            (Cause::UnknownKind { .. } | Cause::UnknownSuite(_), RequestMember::WelcomePacket) => {
                Self::Welcome(detail)
            }
            (
                Cause::UnknownKind { .. } | Cause::UnknownSuite(_),
                RequestMember::GroupInfo | RequestMember::RatchetTree,
            ) => Self::OpenedWith(detail),
        }
    }

    pub(crate) fn broken(rule: Rule, detail: impl Into<String>) -> Self {
        Self::Broken { rule, detail: detail.into(), proposal: None }
    }

    /// Names the proposal that is the cause, unless one is named already.
    pub(super) fn caused_by(mut self, cause: Option<&[u8]>) -> Self {
        if let Self::Broken { proposal: proposal @ None, .. } = &mut self {
            *proposal = cause.map(<[u8]>::to_vec);
        }
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Stale { packet, current } | Self::Future { packet, current } => {
                write!(f, "the packet is of epoch {packet}, the group is in epoch {current}")
            }
            Self::UnknownKind { detail, .. }
            | Self::Broken { detail, .. }
            | Self::OpenedWith(detail)
            | Self::OpenedOutsideLifetime { detail, .. }
            | Self::GroupInfo(detail)
            | Self::Welcome(detail) => f.write_str(detail),
            Self::WelcomeMissing { added } => write!(f, "the commit adds {added} clients and has no welcome"),
        }
    }
}
