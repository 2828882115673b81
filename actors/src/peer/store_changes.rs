//! Changes of the store in which a peer keeps its replicas: a peer with a new store has none of the entries that it was sent
//! before.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use snapshots::Batch;

use super::{
    actor::PeerActor,
    compare::{Trust, compare_all},
    pace::Pace,
};
use crate::error::StorageError;

/// The pause after a change of a peer's store before the next change is accepted; it doubles with each change.
const STORE_PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest such pause.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(600);
/// After this time with one store, the pauses begin anew.
const STORE_QUIET: Duration = Duration::from_secs(3600);

/// The pace at which the store of a peer may change.
pub(super) fn store_changes() -> Pace {
    Pace::new(STORE_PAUSE_MIN, STORE_PAUSE_MAX, STORE_QUIET)
}

impl PeerActor {
    /// Notes the store in which the peer keeps its replicas; returns whether the peer's acknowledgement must be ignored because
    /// the store changed. All positions then begin anew, which costs a look at every group, so it is done one at a time and
    /// after a growing pause, and nothing is delivered meanwhile.
    pub(super) fn is_other_store(&mut self, store: uuid::Uuid, ctx: &mut Context<Self>) -> bool {
        if self.is_store_unsettled {
            return true;
        }
        if self.store == Some(store) {
            return false;
        }
        let setting = format!("peer_store:{}", self.peer);
        let before = self.services.store.view().setting(&setting);
        let is_other = matches!(&before, Ok(Some(before)) if before.as_ref() != store.as_bytes());
        if is_other {
            if let Err(pause) = self.store_changes.admit(tokio::time::Instant::now().into_std()) {
                self.unsettled_for(pause, ctx);
                return true;
            }
            tracing::warn!(peer = %self.peer, "a peer has another store than before; it is sent everything again");
            self.positions.clear();
            self.refused.clear();
            self.is_store_unsettled = true;
        } else {
            self.store = Some(store);
        }
        let mut batch = Batch::new();
        batch.put_setting(&setting, store.as_bytes());
        let (services, peer) = (Arc::clone(&self.services), self.peer.clone());
        let noting = async move {
            if is_other {
                compare_all(Arc::clone(&services), peer, Trust::Nothing).await?;
            }
            services.store.append(batch).await.map(drop).map_err(|error| StorageError::from_append(&error))
        };
        ctx.spawn(noting.into_actor(self).map(move |result, actor, ctx| {
            match result {
                Ok(()) => actor.store = Some(store),
                Err(error) => {
                    tracing::error!(peer = %actor.peer, %error, "the store of a peer could not be noted");
                    actor.store = None;
                }
            }
            if is_other {
                actor.settle(ctx);
            }
        }));
        is_other
    }

    /// Delivers nothing for a time, since the peer's store changes too often.
    fn unsettled_for(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        tracing::warn!(peer = %self.peer, ?pause, "a peer's store changes too often; nothing is sent to it for a while");
        self.is_store_unsettled = true;
        ctx.run_later(pause, Self::settle);
    }

    fn settle(&mut self, ctx: &mut Context<Self>) {
        self.is_store_unsettled = false;
        self.schedule.retry_all();
        self.deliver(ctx);
    }
}
