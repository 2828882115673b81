//! Validation and tracking of MLS groups by an outsider.
//!
//! A packet is *staged* against `&self`: all checks, no change. The staged result is *applied* to `&mut self`: no checks. Nothing
//! here knows actors, disks or clocks: the time is an argument. An observer needs signatures and hashes, and no secrets.

mod admission;
mod app_data;
mod commit;
mod creation;
mod epoch;
mod expiry;
mod extensions;
mod external_senders;
mod group;
mod group_context;
mod group_info;
mod handshake;
mod key_package;
mod leaf;
mod legacy;
mod member_index;
mod openmls_storage;
mod proposal;
mod proposal_list;
mod ratchet_tree;
mod refusal;
mod rule;
mod stored;
mod suite;
mod syntax;
#[cfg(test)]
pub(crate) mod tests;
mod unseen;
mod welcome;
mod wire;
mod work;

pub use self::{
    commit::CommitBundle,
    refusal::{MalformedMessage, RequestMember},
    rule::Rule,
    syntax::UnknownKind,
};
pub(crate) use self::{
    commit::{AddedMember, CommitSender, Referenced, StagedEpoch},
    expiry::RevokedMembers,
    group::{Member, TrackedGroup},
    group_info::group_info_signer,
    key_package::{CredentialCheck, KeyPackageChecks, KeyPackageValidator, RefusedCredentials, check_fit},
    leaf::LeafChecks,
    legacy::{LegacyEpoch, LegacyGroup, LegacyProposal, LegacySnapshot},
    proposal::{PendingProposal, ProposalNeeds, StagedProposal},
    ratchet_tree::RatchetTree,
    refusal::Refusal,
    stored::{EpochRecord, FrozenGroup, GroupSnapshot},
    suite::{CipherSuite, Digest},
    unseen::{
        Unreadable, UnseenCommit, UnseenKeyPackage, UnseenProposal, carried_tree, cipher_suite,
        first_interim_hash, key_package_reference,
    },
    welcome::welcome_references,
};

use self::leaf::{Lifetime, Unfit};
use snapshots::{DomainName, Epoch, GroupId, Timestamp};

use crate::{
    application::{Application, ExpiredMembers, Source},
    identity::{ApplicationContext, IdentityProvider},
    limits::Limits,
};

/// The validation context of a packet. It is not used on replay.
#[derive(Clone, Copy)]
pub(crate) struct ValidationContext<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) application: &'a Application,
    /// Who sent the packet.
    pub(crate) source: &'a Source,
}

impl<'a> ValidationContext<'a> {
    pub(crate) fn provider(self) -> &'a dyn IdentityProvider {
        &*self.application.identity
    }

    /// The context in which an identity is validated at a time.
    fn identity_context(self, at: Timestamp) -> ApplicationContext {
        ApplicationContext { msg_timestamp: at, is_accepted: *self.source == Source::Hub }
    }

    /// Whether members whose credentials have ended are held to that. That is policy, and so the hub's alone: what a hub
    /// accepted, its replicas take.
    fn holds_members_to_expiry(self) -> bool {
        *self.source != Source::Hub && self.application.expired_members != ExpiredMembers::Ignore
    }

    /// Whether a commit has to remove members whose credentials have ended. The hub has applied this policy to what it
    /// accepted.
    pub(crate) fn refuses_expired_members(self) -> bool {
        *self.source != Source::Hub && self.application.expired_members == ExpiredMembers::Refuse
    }

    /// The checks of leaf nodes; `None` for an entry that a hub accepted, perhaps before it made these checks. A replica that
    /// refused such an entry would never get past it, though the group's members can: they remove the leaf.
    fn leaf_checks(self, cipher_suite: CipherSuite) -> Option<LeafChecks> {
        let lifetime_s_max = self.limits.lifetime_s_max();
        (*self.source != Source::Hub).then_some(LeafChecks { cipher_suite, lifetime_s_max })
    }

    /// Checks that a lifetime holds at the time of an entry. How far a clock may be ahead is for the hub to say.
    fn check_lifetime(self, lifetime: Lifetime, at: Timestamp) -> Result<(), Unfit> {
        let skew_s = (*self.source != Source::Hub).then_some(self.limits.clock_skew_s_max);
        lifetime.check(at, skew_s)
    }

    /// A client that the sender itself brings in is of a domain that the sender speaks for.
    fn check_own_domain(self, member: &Member) -> Result<(), String> {
        self.check_domain(member, self.application.speaks_for(self.source, member.domain.as_ref()))
    }

    /// A client that a commit adds is of a domain that the application knows.
    fn check_added_domain(self, member: &Member) -> Result<(), String> {
        let is_known = *self.source == Source::Hub || self.application.knows(member.domain.as_ref());
        self.check_domain(member, is_known)
    }

    fn check_domain(self, member: &Member, is_accepted: bool) -> Result<(), String> {
        if is_accepted {
            return Ok(());
        }
        let domain = member.domain.as_ref().map_or("", DomainName::as_str);
        Err(match self.source {
            Source::Application => {
                format!(
                    "{:?} is of the domain {domain}, which is not assigned to this gateway",
                    member.handle
                )
            }
            Source::Peer(_) | Source::Hub => {
                format!(
                    "{:?} is of the domain {domain}, which is not assigned to the sending gateway",
                    member.handle
                )
            }
        })
    }
}

/// The cipher suites that the gateway can verify, by their numbers (RFC 9420 §17.1).
pub fn supported_cipher_suites() -> Vec<u16> {
    CipherSuite::ALL.into_iter().map(CipherSuite::number).collect()
}

/// The MLS protocol version that the gateway speaks (RFC 9420 §6).
pub const PROTOCOL_VERSION: u16 = 1;

/// What a handshake packet says of itself before anything is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PacketHead {
    /// `None` if the bytes cannot be any group's id.
    pub(crate) group: Option<GroupId>,
    pub(crate) epoch: Epoch,
}

/// Reads a handshake packet's head; cheap.
pub(crate) fn packet_head(member: RequestMember, packet: &[u8]) -> Result<PacketHead, Refusal> {
    let header = handshake_header(member, packet)?;
    Ok(PacketHead { group: GroupId::new(header.group_id).ok(), epoch: header.epoch })
}

/// The leaf of the member that sent a handshake packet; `None` if no member sent it, or the packet does not say. Nothing is
/// verified.
pub(crate) fn sender_leaf(packet: &[u8]) -> Option<u32> {
    let header = handshake_header(RequestMember::Packet, packet).ok()?;
    match header.public?.sender {
        wire::SenderKind::Member(leaf) => Some(leaf),
        wire::SenderKind::External(_)
        | wire::SenderKind::NewMemberProposal
        | wire::SenderKind::NewMemberCommit => None,
    }
}

/// Reads the head of what must be a PublicMessage or a PrivateMessage.
fn handshake_header(member: RequestMember, packet: &[u8]) -> Result<wire::Header<'_>, Refusal> {
    let unreadable = |_| Refusal::unreadable(member, packet);
    let (format, body) = wire::message_body(packet).map_err(unreadable)?;
    if !matches!(format, wire::WireFormat::PublicMessage | wire::WireFormat::PrivateMessage) {
        return Err(Refusal::unexpected(member, WIRE_FORMAT, format.name(), "PublicMessage"));
    }
    wire::header(format, body).map_err(unreadable)
}

/// Where an MLSMessage says what it holds (RFC 9420 §6): behind its version.
const WIRE_FORMAT: (&str, usize) = ("MLSMessage.wire_format", 2);
