//! Members whose certificates are on a revocation list, in a group that is awake and in one that sleeps.

use actix::{ActorFutureExt as _, AtomicResponse, Context, Handler};
use snapshots::{AppId, GroupId, Timestamp, View};

use super::{
    GroupError, GroupState, GroupView, RemoveRevoked,
    actor::{GroupActor, Pending, answered, ready},
    guarded::broken_commit,
    loading::load_group,
};
use crate::{
    application::{ExpiredMembers, Source},
    durable::LoadError,
    external_sender::ExternalSenderKey,
    identity::x509::Trusted,
    mls::RevokedMembers,
};

/// Bytes of certificates that are looked up in the time in which a byte of them is validated.
const LOOK_SHARE: usize = 64;

/// How many members of a group are revoked by a trust store: by the view of its owner if it is awake, else by the store. It blocks
/// while it reads; the group stays asleep.
///
/// # Errors
/// That the group cannot be loaded, which is not logged yet.
pub(crate) fn revoked_members(
    shown: Option<&GroupView>,
    (view, app, group): (&View, AppId, &GroupId),
    trusted: &Trusted,
    now: Timestamp,
) -> Result<usize, LoadError> {
    if let Some(shown) = shown {
        return Ok(RevokedMembers::find(&shown.tree, Some(trusted), now.max(shown.stamp)).count());
    }
    let loaded = load_group(view, app, group)?;
    Ok(loaded.map_or(0, |(_, loaded)| loaded.state.find_revoked(Some(trusted), now).count()))
}

impl GroupState {
    /// The length of the serialised tree, in bytes.
    fn ratchet_tree_length(&self) -> usize {
        self.tracked.tree().length()
    }

    /// Whether the revoked members are known by this trust store.
    fn knows_revoked_by(&self, trusted: Option<&Trusted>) -> bool {
        self.tracked.knows_revoked_by(trusted)
    }

    /// Looks for the members whose certificates this trust store revokes.
    fn find_revoked(&self, trusted: Option<&Trusted>, now: Timestamp) -> RevokedMembers {
        RevokedMembers::find(self.tracked.tree(), trusted, now.max(self.stamp()))
    }

    /// Takes the members who were found revoked.
    fn take_revoked(&mut self, revoked: RevokedMembers) {
        self.tracked.take_revoked(revoked);
    }

    /// How many members are revoked.
    fn revoked_count(&self) -> usize {
        self.tracked.revoked_count()
    }

    /// Whether the removal of a revoked member can be proposed with one of these keys, and has not been.
    fn lacks_removals(&self, keys: &[ExternalSenderKey]) -> bool {
        self.tracked.lacks_removals(keys)
    }
}

impl Handler<RemoveRevoked> for GroupActor {
    type Result = AtomicResponse<Self, Result<usize, GroupError>>;

    fn handle(&mut self, RemoveRevoked { permit }: RemoveRevoked, _: &mut Context<Self>) -> Self::Result {
        answered(self.remove_revoked(), permit)
    }
}

impl GroupActor {
    /// Finds the revoked members, if the trust store is another one than when they were last sought. A replica has none: its hub
    /// judges.
    pub(super) fn find_revoked(&mut self) -> Pending<()> {
        if self.meta.is_replica || self.application.expired_members == ExpiredMembers::Ignore {
            return ready(Ok(()));
        }
        let trusted = self.application.identity.trusted();
        let Ok(state) = self.durable.state() else { return ready(Ok(())) };
        if state.knows_revoked_by(trusted.as_deref()) {
            return ready(Ok(()));
        }
        let (now, bytes) = (self.services.clock.now(), state.ratchet_tree_length() / LOOK_SHARE);
        let found = self.validate((bytes, broken_commit), &Source::Application, move |state, _| {
            Ok(state.find_revoked(trusted.as_deref(), now))
        });
        Box::pin(found.map(|found, actor, _| {
            actor.durable.state_mut()?.take_revoked(found?);
            Ok(())
        }))
    }

    /// Finds the revoked members and proposes their removal; returns their number, or [`GroupError::TooManyProposals`] if there was no
    /// room for all. The next commit has the others proposed.
    pub(super) fn remove_revoked(&mut self) -> Pending<usize> {
        let removing = self.find_revoked().then(|found, actor, _| match found {
            Ok(()) if actor.revoked_count() > 0 => actor.propose_removals(&Source::Application),
            found => ready(found),
        });
        Box::pin(removing.map(|removed, actor, _| {
            removed?;
            let state = actor.durable.state()?;
            if state.lacks_removals(&actor.application.external_senders) {
                return Err(GroupError::TooManyProposals {
                    max: actor.services.limits.proposals_per_epoch_max,
                });
            }
            Ok(state.revoked_count())
        }))
    }

    fn revoked_count(&self) -> usize {
        self.durable.state().map_or(0, |state| state.revoked_count())
    }
}
