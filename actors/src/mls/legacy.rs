//! Groups as versions before stored them: in the forms of the MLS library that tracked them. They are read through that library and
//! converted; nothing is written in these forms.

use std::collections::BTreeMap;

use openmls::{
    group::{GroupId as MlsGroupId, PublicGroup, QueuedProposal, StagedCommit},
    prelude::{GroupContext as LibraryContext, tls_codec::Serialize as _},
};
use serde::Deserialize;
use std::sync::Arc;

use super::{
    TrackedGroup,
    group::Member,
    group_context::{GroupContext, interim_hash},
    openmls_storage::{GroupValues, Values},
    proposal::{PendingProposal, ProposalNeeds},
};
use crate::{
    codec::{CodecError, decode},
    presentation::Reader,
};

/// A group at rest.
#[derive(Debug, Deserialize)]
pub(crate) struct LegacySnapshot {
    values: GroupValues,
    members: BTreeMap<u32, Member>,
    pending: Vec<LegacyProposal>,
    reinitialised: bool,
}

/// A proposal that waits.
#[derive(Debug, Deserialize)]
pub(crate) struct LegacyProposal {
    #[serde(with = "serde_bytes")]
    packet: Vec<u8>,
    #[serde(with = "serde_bytes")]
    reference: Vec<u8>,
    /// The library's queued proposal, MessagePack with named fields.
    #[serde(with = "serde_bytes")]
    queued: Vec<u8>,
    #[serde(default)]
    needs: ProposalNeeds,
}

/// The record of a commit.
#[derive(Debug, Deserialize)]
pub(crate) struct LegacyEpoch {
    /// The library's staged commit, MessagePack with named fields.
    #[serde(with = "serde_bytes")]
    staged: Vec<u8>,
    left: Vec<u32>,
    joined: BTreeMap<u32, Member>,
    reinitialised: bool,
}

/// A group while its snapshot and records are read.
pub(crate) struct LegacyGroup {
    public: PublicGroup,
    members: BTreeMap<u32, Member>,
    pending: Vec<PendingProposal>,
    reinitialised: bool,
}

impl LegacyGroup {
    pub(crate) fn restore(snapshot: LegacySnapshot) -> Result<Self, CodecError> {
        let LegacySnapshot { values, members, pending, reinitialised } = snapshot;
        let context: LibraryContext = decode(&values.context)?;
        let id: &MlsGroupId = context.group_id();
        let public = PublicGroup::load(&Values::answering(&values), id)?
            .ok_or_else(|| CodecError::damaged("group"))?;
        let mut group = Self { public, members, pending: Vec::new(), reinitialised };
        for proposal in pending {
            group.apply_proposal(proposal)?;
        }
        Ok(group)
    }

    pub(crate) fn apply_proposal(&mut self, proposal: LegacyProposal) -> Result<(), CodecError> {
        let LegacyProposal { packet, reference, queued, needs } = proposal;
        let queued: QueuedProposal = decode(&queued)?;
        self.public.add_proposal(&Values::default(), queued)?;
        self.pending.push(PendingProposal { packet: Arc::from(packet), reference, needs, entry: None });
        Ok(())
    }

    pub(crate) fn apply_epoch(&mut self, epoch: LegacyEpoch) -> Result<(), CodecError> {
        let LegacyEpoch { staged, left, joined, reinitialised } = epoch;
        let staged: StagedCommit = decode(&staged)?;
        self.public.merge_commit(&Values::default(), staged).map_err(|error| CodecError::from(&error))?;
        for leaf in &left {
            self.members.remove(leaf);
        }
        self.members.extend(joined);
        self.pending.clear();
        self.reinitialised |= reinitialised;
        Ok(())
    }

    /// The group as it is tracked now.
    pub(crate) fn convert(self) -> Result<TrackedGroup, CodecError> {
        let damaged = |part| move |_| CodecError::damaged(part);
        let context = self
            .public
            .group_context()
            .tls_serialize_detached()
            .map_err(|_| CodecError::damaged("group context"))?;
        let context =
            GroupContext::read(&context).map_err(damaged("group context"))?.map_err(CodecError::new)?;
        let tree = self
            .public
            .export_ratchet_tree()
            .tls_serialize_detached()
            .map_err(|_| CodecError::damaged("tree"))?;
        let tag = self
            .public
            .confirmation_tag()
            .tls_serialize_detached()
            .map_err(|_| CodecError::damaged("confirmation tag"))?;
        let tag = Reader::new(&tag).vector("confirmation tag").map_err(damaged("confirmation tag"))?;
        let interim = interim_hash(context.suite, context.confirmed_transcript_hash.as_ref(), tag);
        let mut group = TrackedGroup::of_stored(context, &tree, self.members, interim)?;
        group.pending = self.pending;
        group.reinitialised = self.reinitialised;
        Ok(group)
    }
}
