//! Removal of members whose credentials have expired or were revoked: the gateway proposes it as an external sender (RFC 9420 §12.1.8.1).

use actix::ActorFutureExt as _;
use snapshots::Batch;
use tracing::Span;

use super::{
    EntryContent, GroupError, LogEntry,
    actor::{Append, GroupActor, Pending, ready},
    batch,
    guarded::broken_proposal,
    state::{StagedChange, StagedEntry, unencodable},
};
use crate::application::{ExpiredMembers, Source};

/// The approximate size of a proposal to remove a member, in bytes.
const REMOVAL_BYTES: usize = 320;

impl GroupActor {
    /// Proposes the removal of members whose credentials have ended, if this gateway orders the group, the group lists it as
    /// an external sender and the application wants it. Removals that cannot be proposed now are proposed at the next commit.
    pub(super) fn propose_removals(&mut self, source: &Source) -> Pending<()> {
        if self.application.expired_members == ExpiredMembers::Ignore || *source == Source::Hub {
            return ready(Ok(()));
        }
        let now = self.services.clock.now();
        let ended = self.durable.state().map_or(0, |state| state.ended_members(now));
        if ended == 0 {
            return ready(Ok(()));
        }
        let (keys, first) = (self.application.external_senders.clone(), self.next_sequence());
        let bytes = ended.saturating_mul(REMOVAL_BYTES);
        // They are handled like uploads: the rules of proposals apply to them.
        let staged = self.validate((bytes, broken_proposal), &Source::Application, move |state, context| {
            let timestamp = now.max(state.stamp());
            let packets = state.removals(&keys, context.limits, now);
            let staged = (first..).zip(packets).map_while(|(sequence, packet)| {
                let content = EntryContent::Proposal { packet: packet.into() };
                state.stage(context, LogEntry { sequence, timestamp, content }, &|_| false).ok()
            });
            Ok(staged.collect::<Vec<_>>())
        });
        Box::pin(staged.then(|staged, actor, _| {
            staged.and_then(|staged| actor.removals(staged)).map_or_else(
                |error| ready(Err(error)),
                |removals| removals.map_or_else(|| ready(Ok(())), |append| actor.append_removals(append)),
            )
        }))
    }

    fn removals(&self, staged: Vec<StagedEntry>) -> Result<Option<Append>, GroupError> {
        let mut batch = Batch::new();
        for staged in &staged {
            if let (StagedChange::Proposal(proposal), EntryContent::Proposal { packet }) =
                (&staged.change, &staged.entry.content)
            {
                batch::proposal(&mut batch, &self.meta, staged, (proposal, packet), None)
                    .map_err(|error| unencodable(&error))?;
            }
        }
        Ok((!staged.is_empty()).then_some(Append { batch, staged, repeated: None }))
    }

    fn append_removals(&self, append: Append) -> Pending<()> {
        Box::pin(self.append(append, &Span::none()).map(|appended, _, _| appended.map(drop)))
    }
}
