//! Members whose credentials have expired, and the proposals for their removal (*Handing Timestamps*).

use std::collections::BTreeSet;

use openmls_traits::signatures::Signer as _;
use snapshots::Timestamp;

use super::{
    PROTOCOL_VERSION, Refusal, RequestMember, Rule, TrackedGroup, ValidationContext,
    handshake::{Handshake, Proposal, proposal_type},
    wire::ContentKind,
};
use crate::{external_sender::ExternalSenderKey, limits::Limits, presentation::write_vector};

impl TrackedGroup {
    /// The leaves of the members whose credentials have expired at a moment, ascending.
    pub(crate) fn expired(&self, at: Timestamp) -> Vec<u32> {
        self.index.ended(at)
    }

    /// A member whose credential has expired can do nothing but renew it: by an Update, or by the path of its commit.
    ///
    /// # Errors
    /// [`Rule::Identity`], if it does anything else.
    pub(super) fn check_in_date(
        &self,
        context: ValidationContext<'_>,
        leaf: u32,
        renews: bool,
        at: Timestamp,
    ) -> Result<(), Refusal> {
        let is_expired = self.member(leaf).is_some_and(|member| member.is_expired(at));
        if renews || !is_expired || !context.holds_members_to_expiry() {
            return Ok(());
        }
        Err(Refusal::broken(
            Rule::Identity,
            "the sender's credential has expired: renew it first, by an Update or by a commit with a path",
        ))
    }

    /// A Remove proposal of the present epoch for each expired member who has none yet, as many as there is room for: in
    /// one commit, and in the epoch without taking more than half of what it may hold, so that members can still
    /// propose. Empty when the group names none of the keys as an external sender.
    pub(crate) fn removals(
        &self,
        keys: &[ExternalSenderKey],
        limits: &Limits,
        at: Timestamp,
    ) -> Vec<Vec<u8>> {
        let expired = self.expired(at);
        if expired.is_empty() || self.reinitialised {
            return Vec::new();
        }
        let Some((sender, key)) = self.as_external_sender(keys) else { return Vec::new() };
        let proposed = self.proposed_removals();
        let epoch_max = limits.proposals_per_epoch_max;
        let own_max =
            epoch_max.div_ceil(2).min(limits.proposals_per_commit_max).saturating_sub(proposed.len());
        let limit = own_max.min(epoch_max.saturating_sub(self.pending.len()));
        let bytes_max = limits.proposal_bytes_per_epoch_max;
        let mut bytes = bytes_max.div_ceil(2).min(bytes_max.saturating_sub(self.pending_bytes()));
        let mut fits = |packet: &Vec<u8>| match bytes.checked_sub(packet.len()) {
            Some(left) => {
                bytes = left;
                true
            }
            None => false,
        };
        let packet = |leaf: u32| self.removal(leaf, sender, key);
        let leaves = expired.into_iter().filter(|leaf| !proposed.contains(leaf)).take(limit);
        leaves.filter_map(packet).take_while(|packet| fits(packet)).collect()
    }

    /// A PublicMessage in which an external sender proposes to remove a leaf (RFC 9420 §6.2, §12.1.8.1).
    fn removal(&self, leaf: u32, sender: u32, key: &ExternalSenderKey) -> Option<Vec<u8>> {
        const PUBLIC_MESSAGE: u16 = 1;
        const SENDER_EXTERNAL: u8 = 2;
        const CONTENT_PROPOSAL: u8 = 2;
        let mut packet = [PROTOCOL_VERSION, PUBLIC_MESSAGE].map(u16::to_be_bytes).concat();
        write_vector(&mut packet, self.context.group_id.as_bytes());
        packet.extend_from_slice(&self.context.epoch.0.to_be_bytes());
        packet.push(SENDER_EXTERNAL);
        packet.extend_from_slice(&sender.to_be_bytes());
        // No authenticated data.
        packet.extend_from_slice(&[0, CONTENT_PROPOSAL]);
        packet.extend_from_slice(&proposal_type::REMOVE.to_be_bytes());
        packet.extend_from_slice(&leaf.to_be_bytes());
        let mut signed = Vec::with_capacity(packet.len() + 32);
        write_vector(&mut signed, b"MLS 1.0 FramedContentTBS");
        write_vector(&mut signed, &packet);
        let signature = key.sign(&signed).ok()?;
        write_vector(&mut packet, &signature);
        Some(packet)
    }

    /// The first of the keys that the group's `external_senders` extension names, and its place there.
    fn as_external_sender<'a>(&self, keys: &'a [ExternalSenderKey]) -> Option<(u32, &'a ExternalSenderKey)> {
        let scheme = self.context.suite.signature_scheme();
        let mut keys = keys.iter().filter(|key| key.scheme() == scheme);
        keys.find_map(|key| {
            let mut senders = self.context.extensions.external_senders();
            let place = senders.position(|sender| sender.signature_key == key.public_key())?;
            Some((u32::try_from(place).ok()?, key))
        })
    }

    /// The leaves whose removal has been proposed in this epoch.
    fn proposed_removals(&self) -> BTreeSet<u32> {
        let read = |packet| Handshake::read(RequestMember::Packet, packet, ContentKind::Proposal, 0);
        let messages = self.pending.iter().filter_map(|pending| read(&pending.packet).ok().flatten());
        let proposals = messages.filter_map(|message| Some((message.proposal()?, message.sender)));
        proposals
            .filter(|(proposal, _)| !matches!(proposal, Proposal::Update(_)))
            .filter_map(|(proposal, sender)| proposal.replaced_leaf(sender))
            .collect()
    }
}
