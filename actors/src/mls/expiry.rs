//! Members whose credentials have expired, and the proposals for their removal (*Handing Timestamps*).

use std::collections::BTreeSet;

use openmls::{
    group::QueuedProposal,
    messages::external_proposals::ExternalProposal,
    prelude::{LeafNodeIndex, SenderExtensionIndex, tls_codec::Serialize as _},
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::signatures::Signer as _;
use snapshots::Timestamp;

use super::{
    Refusal, Rule, TrackedGroup, ValidationContext, external_senders::parts, proposal_list::removed_leaf,
};
use crate::{
    codec::decode,
    {external_sender::ExternalSenderKey, limits::Limits},
};

impl TrackedGroup {
    /// The leaves of the members whose credentials have expired at a moment, ascending.
    pub(crate) fn expired(&self, at: Timestamp) -> Vec<u32> {
        self.members.iter().filter(|(_, member)| member.is_expired(at)).map(|(leaf, _)| *leaf).collect()
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
        let is_expired = self.members.get(&leaf).is_some_and(|member| member.is_expired(at));
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
        let context = self.public.group_context();
        let packet = |leaf: u32| {
            ExternalProposal::new_remove::<OpenMlsRustCrypto>(
                LeafNodeIndex::new(leaf),
                context.group_id().clone(),
                context.epoch(),
                key,
                sender,
            )
            .ok()?
            .tls_serialize_detached()
            .ok()
        };
        let leaves = expired.into_iter().filter(|leaf| !proposed.contains(leaf)).take(limit);
        leaves.filter_map(packet).take_while(|packet| fits(packet)).collect()
    }

    /// The first of the keys that the group's `external_senders` extension names, and its place there.
    fn as_external_sender<'a>(
        &self,
        keys: &'a [ExternalSenderKey],
    ) -> Option<(SenderExtensionIndex, &'a ExternalSenderKey)> {
        let scheme = self.public.ciphersuite().signature_algorithm();
        let senders = self.public.group_context().extensions().external_senders()?;
        keys.iter().filter(|key| key.signature_scheme() == scheme).find_map(|key| {
            let is_named =
                |sender| parts(sender).is_some_and(|(public_key, _)| public_key == key.public_key());
            let place = senders.iter().position(is_named)?;
            Some((SenderExtensionIndex::new(u32::try_from(place).ok()?), key))
        })
    }

    /// The leaves whose removal has been proposed in this epoch.
    fn proposed_removals(&self) -> BTreeSet<u32> {
        let queued = self.pending.iter().filter_map(|pending| decode::<QueuedProposal>(&pending.queued).ok());
        queued.filter_map(|queued| removed_leaf(&queued)).collect()
    }
}
