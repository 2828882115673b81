//! Members whose credentials have ended: they have expired or were revoked. Proposals for their removal (*Handing Timestamps*).

use std::collections::BTreeSet;

use openmls_traits::signatures::Signer as _;
use snapshots::Timestamp;

use super::{
    PROTOCOL_VERSION, Refusal, RequestMember, Rule, TrackedGroup, ValidationContext,
    handshake::{Handshake, Proposal, proposal_type},
    ratchet_tree::{RatchetTree, Replaced},
    wire::ContentKind,
};
use crate::{
    external_sender::ExternalSenderKey, identity::x509::Trusted, limits::Limits, presentation::write_vector,
};

/// The members whose certificates a trust store revokes. It follows from the tree and the trust store, and is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RevokedMembers {
    /// The number of the trust store; 0 for none.
    trust: u64,
    leaves: BTreeSet<u32>,
}

impl RevokedMembers {
    /// Looks for the members of a tree whose certificates a trust store revokes at a time: a look into the lists for each
    /// certificate.
    pub(crate) fn find(tree: &RatchetTree, trusted: Option<&Trusted>, at: Timestamp) -> Self {
        let Some((trusted, trust)) =
            trusted.map(|trusted| (trusted, trusted.revocation_number())).filter(|(_, number)| *number > 0)
        else {
            return Self::default();
        };
        let revoked = tree
            .leaves()
            .filter(|(_, leaf)| leaf.node().is_some_and(|node| trusted.revokes(node.credential, at)));
        Self { trust, leaves: revoked.map(|(index, _)| index).collect() }
    }

    #[cfg(test)]
    pub(crate) fn of(leaves: impl IntoIterator<Item = u32>) -> Self {
        Self { trust: 1, leaves: leaves.into_iter().collect() }
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.leaves.len()
    }

    /// Forgets leaves that a commit replaces: the credentials that come in are validated with it.
    pub(super) fn apply(&mut self, replaced: &Replaced) {
        if !self.leaves.is_empty() {
            let leaves = replaced.leaves_out.iter().chain(&replaced.leaves_in);
            leaves.for_each(|(index, _)| _ = self.leaves.remove(index));
        }
    }
}

impl TrackedGroup {
    /// The leaves of the members whose credentials have ended at a moment, ascending.
    pub(crate) fn ended(&self, at: Timestamp) -> Vec<u32> {
        let mut leaves = self.index.ended(at);
        if !self.revoked.leaves.is_empty() {
            leaves.extend(&self.revoked.leaves);
            leaves.sort_unstable();
            leaves.dedup();
        }
        leaves
    }

    /// Whether the credential of a member has ended.
    pub(super) fn has_ended(&self, leaf: u32, at: Timestamp) -> bool {
        self.revoked.leaves.contains(&leaf) || self.member(leaf).is_some_and(|member| member.is_expired(at))
    }

    /// Whether the revoked members are known by this trust store.
    pub(crate) fn knows_revoked_by(&self, trusted: Option<&Trusted>) -> bool {
        self.revoked.trust == trusted.map_or(0, Trusted::revocation_number)
    }

    /// Takes the members who were found revoked.
    pub(crate) fn take_revoked(&mut self, revoked: RevokedMembers) {
        self.revoked = revoked;
    }

    /// How many members are revoked.
    pub(crate) fn revoked_count(&self) -> usize {
        self.revoked.count()
    }

    /// A member whose credential has ended can do nothing but renew it, by an Update or by the path of its commit, and propose that
    /// it is removed itself.
    ///
    /// # Errors
    /// [`Rule::Identity`], if it does anything else.
    pub(super) fn check_in_date(
        &self,
        context: ValidationContext<'_>,
        leaf: u32,
        is_free: bool,
        at: Timestamp,
    ) -> Result<(), Refusal> {
        if is_free || !self.has_ended(leaf, at) || !context.holds_members_to_expiry() {
            return Ok(());
        }
        let end = if self.revoked.leaves.contains(&leaf) { "is revoked" } else { "has expired" };
        Err(Refusal::broken(
            Rule::Identity,
            format!("the sender's credential {end}: renew it first, by an Update or by a commit with a path"),
        ))
    }

    /// A Remove proposal of the present epoch for each member whose credential has ended and who has none yet, as many as there is room for: in
    /// one commit, and in the epoch without taking more than half of what it may hold, so that members can still
    /// propose. Empty when the group names none of the keys as an external sender.
    pub(crate) fn removals(
        &self,
        keys: &[ExternalSenderKey],
        limits: &Limits,
        at: Timestamp,
    ) -> Vec<Vec<u8>> {
        let ended = self.ended(at);
        if ended.is_empty() || self.reinitialised {
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
        let leaves = ended.into_iter().filter(|leaf| !proposed.contains(leaf)).take(limit);
        leaves.filter_map(packet).take_while(|packet| fits(packet)).collect()
    }

    /// Whether one of the keys may propose the removal of a revoked member, and nobody has.
    pub(crate) fn lacks_removals(&self, keys: &[ExternalSenderKey]) -> bool {
        let revoked = &self.revoked.leaves;
        if revoked.is_empty() || self.reinitialised || self.as_external_sender(keys).is_none() {
            return false;
        }
        !revoked.is_subset(&self.proposed_removals())
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
