//! Pauses before deliveries that failed are tried again.

use std::{hash::BuildHasher as _, time::Duration};

use actix::{AsyncContext as _, Context};

use super::{actor::PeerActor, schedule::GroupKey};

/// The pause before a failed delivery is retried.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a peer can ask for: what waits is in memory.
const LATER_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The pause after a first failure to reach the peer; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause after such failures.
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl PeerActor {
    /// Tries a delivery again after a pause, which is longer if the peer asks for it.
    pub(super) fn try_later(
        &mut self,
        place: GroupKey,
        reason: &str,
        after: Duration,
        ctx: &mut Context<Self>,
    ) {
        tracing::debug!(peer = %self.peer, group = ?place.1, reason, ?after, "a delivery failed, or did not end");
        let pause = after.min(LATER_PAUSE_MAX).saturating_add(self.jittered(FAILED_PAUSE));
        self.set_aside_for(place, pause, ctx);
    }

    /// Sets a group aside for a time.
    pub(super) fn set_aside_for(&mut self, place: GroupKey, pause: Duration, ctx: &mut Context<Self>) {
        if !self.schedule.set_aside_for(place.clone()) {
            return;
        }
        ctx.run_later(pause, move |actor, ctx| {
            actor.schedule.retry(place);
            actor.deliver(ctx);
        });
    }

    /// Waits before the next try: twice as long after each failure, with jitter.
    pub(super) fn pause(&mut self, reason: &str, ctx: &mut Context<Self>) {
        // Concurrent deliveries that fail together count as one failure.
        if self.is_paused {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        tracing::debug!(peer = %self.peer, reason, failures = self.failures, "a delivery did not reach its peer");
        self.is_paused = true;
        let longest = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        ctx.run_later(self.jittered(longest), |actor, ctx| {
            actor.is_paused = false;
            actor.deliver(ctx);
        });
    }

    /// A random duration between half of the given one and all of it.
    fn jittered(&self, longest: Duration) -> Duration {
        let seen = (&self.peer, self.services.clock.now(), self.failures);
        let jitter = self.hasher.hash_one(seen) % 512;
        longest / 2 + longest.mul_f64(f64::from(u16::try_from(jitter).unwrap_or(0)) / 1024.0)
    }
}
