//! Members whose credentials have expired, and the proposals that are to remove them (*Handing Timestamps*).

use openmls::{
    group::QueuedProposal,
    messages::external_proposals::ExternalProposal,
    prelude::{ExternalSender, LeafNodeIndex, Proposal, SenderExtensionIndex, tls_codec::Serialize as _},
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::signatures::Signer as _;
use snapshots::Timestamp;

use super::{Reader, TrackedGroup, storage::decode};
use crate::external_sender::ExternalSenderKey;

impl TrackedGroup {
    /// The leaves of the members whose credentials have expired at a moment, ascending.
    pub(crate) fn expired(&self, at: Timestamp) -> Vec<u32> {
        self.members.iter().filter(|(_, member)| member.is_expired(at)).map(|(leaf, _)| *leaf).collect()
    }

    /// A Remove proposal of the present epoch for each expired member who has none yet, at most `limit` of them. Empty
    /// when the group names none of the keys as an external sender.
    pub(crate) fn removals(&self, keys: &[ExternalSenderKey], at: Timestamp, limit: usize) -> Vec<Vec<u8>> {
        let expired = self.expired(at);
        if expired.is_empty() || self.reinitialised {
            return Vec::new();
        }
        let Some((sender, key)) = self.as_external_sender(keys) else { return Vec::new() };
        let proposed = self.proposed_removals();
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
        expired.into_iter().filter(|leaf| !proposed.contains(leaf)).take(limit).filter_map(packet).collect()
    }

    /// The first of the keys that the group's `external_senders` extension names, and its place there.
    fn as_external_sender<'a>(
        &self,
        keys: &'a [ExternalSenderKey],
    ) -> Option<(SenderExtensionIndex, &'a ExternalSenderKey)> {
        let scheme = self.public.ciphersuite().signature_algorithm();
        let senders = self.public.group_context().extensions().external_senders()?;
        keys.iter().filter(|key| key.signature_scheme() == scheme).find_map(|key| {
            let place = senders.iter().position(|sender| is_named(sender, key.public_key()))?;
            Some((SenderExtensionIndex::new(u32::try_from(place).ok()?), key))
        })
    }

    /// The leaves of which somebody has proposed the removal in this epoch.
    fn proposed_removals(&self) -> Vec<u32> {
        let removed = |queued: QueuedProposal| match queued.proposal() {
            Proposal::Remove(remove) => Some(remove.removed().u32()),
            Proposal::Add(_)
            | Proposal::Update(_)
            | Proposal::PreSharedKey(_)
            | Proposal::ReInit(_)
            | Proposal::ExternalInit(_)
            | Proposal::GroupContextExtensions(_)
            | Proposal::SelfRemove
            | Proposal::Custom(_) => None,
        };
        self.pending.iter().filter_map(|pending| decode(&pending.queued).ok().and_then(removed)).collect()
    }
}

/// Whether a sender has this key. The library shows an `ExternalSender` only in its serialised form, which begins with it.
fn is_named(sender: &ExternalSender, public_key: &[u8]) -> bool {
    let Ok(bytes) = sender.tls_serialize_detached() else { return false };
    Reader::new(&bytes).vector("signature key").is_ok_and(|key| key == public_key)
}
