//! What somebody outside a group can know of it.
//!
//! Tracking stands on openmls's `PublicGroup`, behind a boundary of our own: a packet is *staged* against `&self`,
//! which makes every check an outsider can make and changes nothing, and what was staged is *applied* to
//! `&mut self`, which checks nothing and cannot be refused. Nothing here knows of actors or
//! disks, and time is handed in; only the library asks the wall clock when it judges a lifetime.

mod commit;
mod companions;
mod group;
mod key_package;
mod proposal;
mod refusal;
mod rule;
mod shape;
mod storage;
#[cfg(test)]
mod tests;
mod tree;
mod wire;

pub use self::rule::Rule;
pub(crate) use self::{
    commit::{AddedMember, CommitInput, EpochChange, StagedEpoch},
    group::{GroupSnapshot, Member, TrackedGroup},
    key_package::KeyPackageChecks,
    proposal::{PendingProposal, StagedProposal},
    refusal::Refusal,
    storage::{ValueError, decode, encode, encode_long},
    tree::SerialisedTree,
};

use openmls::prelude::Ciphersuite;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::crypto::OpenMlsCrypto as _;
use snapshots::{Epoch, GroupId};

/// The cryptography of every group; it holds no secrets of anyone's.
#[derive(Debug, Default)]
pub(crate) struct Crypto(pub(crate) RustCrypto);

/// The cipher suites that the gateway can verify, by their numbers (RFC 9420 §17.1).
pub fn supported_cipher_suites() -> Vec<u16> {
    RustCrypto::default().supported_ciphersuites().into_iter().map(u16::from).collect()
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
pub(crate) fn packet_head(packet: &[u8]) -> Result<PacketHead, Refusal> {
    let (format, body) = wire::message_body(packet).map_err(Refusal::malformed)?;
    let header = wire::header(format, body).map_err(Refusal::malformed)?;
    Ok(PacketHead { group: GroupId::new(header.group_id).ok(), epoch: header.epoch })
}

fn suite_number(suite: Ciphersuite) -> u16 {
    u16::from(suite)
}
