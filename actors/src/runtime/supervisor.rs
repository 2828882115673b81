//! The supervisor of the actors. Periodically it makes them write snapshots, passivates idle ones and deletes data that is too
//! old; at the end it stops them all.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Arbiter, AsyncContext as _, Context, Handler, Message,
    ResponseActFuture, WrapFuture as _,
};
use snapshots::{Batch, Retention, SweepError, SweepProgress, Timestamp};

use super::{
    erasure,
    registry::{Registry, UpkeepTask},
    revocation, space,
};
use crate::{
    activity::{Activity, Upkeep},
    services::Services,
    trusted_time::KnownTime,
};

/// Stops every actor; answered when all have stopped. Those with new records have written a snapshot, unless one was already
/// being written; the records after it are kept.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// The setting that holds a [`RememberedTime`](crate::trusted_time::RememberedTime).
pub(crate) const KNOWN_TIME: &str = "known_time";

/// The number of actors that do their upkeep concurrently.
const UPKEEP_AT_ONCE: usize = 64;

/// The period in which the active actors are counted and weighed.
const RELIEF_PERIOD: Duration = Duration::from_secs(1);

/// The periods of the supervisor's tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Periods {
    pub(crate) snapshot: Duration,
    pub(crate) retention: Duration,
    /// The idle time after which an actor is passivated.
    pub(crate) passivate_after: Duration,
}

/// The supervisor.
pub(crate) struct Supervisor {
    services: Arc<Services>,
    registry: Registry,
    arbiters: Vec<Arbiter>,
    periods: Periods,
    retention: Retention,
    is_tidying: bool,
    is_sweeping: bool,
    sweep_progress: (SweepProgress, erasure::IdleProgress),
    is_compacting: bool,
}

/// Runs upkeep tasks, a bounded number at the same time.
async fn run(tasks: Vec<UpkeepTask>) {
    let mut tasks = tasks.into_iter();
    loop {
        let batch: Vec<_> = tasks.by_ref().take(UPKEEP_AT_ONCE).map(actix::spawn).collect();
        if batch.is_empty() {
            return;
        }
        for task in batch {
            if task.await.is_err() {
                tracing::error!("asking an actor for its upkeep failed");
            }
        }
    }
}

/// Ends the threads of the actors; blocks until they have ended.
fn end(arbiters: Vec<Arbiter>) {
    for arbiter in &arbiters {
        arbiter.stop();
    }
    for arbiter in arbiters {
        if arbiter.join().is_err() {
            tracing::error!("a thread of actors had panicked");
        }
    }
}

/// The last use up to which actors must be passivated so that the others are within both limits; `None` if all are within them.
fn excess_until(
    mut active: Vec<(Timestamp, usize)>,
    count_max: usize,
    bytes_max: usize,
) -> Option<Timestamp> {
    let mut bytes = active.iter().fold(0_usize, |sum, (_, weight)| sum.saturating_add(*weight));
    let mut count = active.len();
    if count <= count_max && bytes <= bytes_max {
        return None;
    }
    active.sort_unstable();
    let mut until = None;
    for (last_used, weight) in active {
        if count <= count_max && bytes <= bytes_max {
            break;
        }
        count -= 1;
        bytes = bytes.saturating_sub(weight);
        until = Some(last_used);
    }
    until
}

impl Supervisor {
    pub(crate) fn new(
        services: Arc<Services>,
        registry: Registry,
        arbiters: Vec<Arbiter>,
        periods: Periods,
        retention: Retention,
    ) -> Self {
        Self {
            services,
            registry,
            arbiters,
            periods,
            retention,
            is_tidying: false,
            is_sweeping: false,
            sweep_progress: Default::default(),
            is_compacting: false,
        }
    }

    /// The last use up to which actors are passivated because too many are active; `None` if not too many are.
    fn excess_until(&self) -> Option<Timestamp> {
        let limits = &self.services.limits;
        excess_until(self.registry.uses_and_weights(), limits.awake_actors_max, limits.awake_bytes_max)
    }

    /// The last use up to which actors are passivated: the idle time ago, or a later time if too many are active.
    fn passivate_before(&self) -> Timestamp {
        let idle = self.services.clock.now().saturating_sub(self.periods.passivate_after);
        self.excess_until().map_or(idle, |last_used| last_used.max(idle))
    }

    /// Whether actors cannot do their upkeep now. While the disk does not answer, every actor would fail to write, and log it.
    fn cannot_tidy(&self) -> bool {
        self.is_tidying || self.services.is_stopping() || self.services.store.is_stalled()
    }

    fn tidy(&mut self, ctx: &mut Context<Self>) {
        if self.cannot_tidy() {
            return;
        }
        // A clock that jumps is noticed between sweeps as well.
        self.services.delete_until();
        let passivate_before = self.passivate_before();
        self.upkeep(ctx, |activity| {
            let is_idle = !activity.is_waited_for() && activity.last_used() <= passivate_before;
            if is_idle { Some(Upkeep::Passivate) } else { activity.is_dirty().then_some(Upkeep::Snapshot) }
        });
    }

    /// Passivates actors if too many are active: between two snapshots, readers can activate very many large groups.
    fn relieve(&mut self, ctx: &mut Context<Self>) {
        if self.cannot_tidy() {
            return;
        }
        let Some(until) = self.excess_until() else { return };
        self.upkeep(ctx, |activity| {
            (!activity.is_waited_for() && activity.last_used() <= until).then_some(Upkeep::Passivate)
        });
    }

    fn upkeep(&mut self, ctx: &mut Context<Self>, upkeep: impl Fn(&Activity) -> Option<Upkeep>) {
        self.is_tidying = true;
        let running = run(self.registry.upkeep(upkeep));
        ctx.spawn(running.into_actor(self).map(|(), supervisor, _| supervisor.is_tidying = false));
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        if self.is_sweeping || self.services.is_stopping() || self.services.store.is_stalled() {
            return;
        }
        self.is_sweeping = true;
        let (services, retention) = (Arc::clone(&self.services), self.retention.clone());
        let registry = self.registry.clone();
        // A sweep that fails begins anew.
        let mut progress = std::mem::take(&mut self.sweep_progress);
        let sweep = async move {
            let known = services.trusted_time.look(&services.clock);
            let swept = services.store.sweep_part(&mut progress.0, &retention, known.delete_until).await?;
            remember_time(&services, known).await?;
            erasure::sweep(&registry, &retention, known.delete_until, &mut progress.1).await?;
            Ok::<_, SweepError>((swept, progress))
        };
        ctx.spawn(sweep.into_actor(self).map(|result, supervisor, ctx| {
            supervisor.is_sweeping = false;
            match result {
                Ok((swept, progress)) => {
                    tracing::debug!(?swept, "dropped what was too old");
                    supervisor.sweep_progress = progress;
                }
                Err(error) => tracing::error!(%error, "dropping what is too old failed"),
            }
            supervisor.give_space_back(ctx);
        }));
    }

    fn give_space_back(&mut self, ctx: &mut Context<Self>) {
        if self.is_compacting || self.services.is_stopping() || self.services.store.is_stalled() {
            return;
        }
        self.is_compacting = true;
        let giving = space::give_back(Arc::clone(&self.services), self.retention.compaction_period);
        ctx.spawn(giving.into_actor(self).map(|given, supervisor, _| {
            supervisor.is_compacting = false;
            if let Err(error) = given {
                tracing::error!(%error, "the space of what was deleted could not be given back");
            }
        }));
    }
}

/// Stores the trusted time for the next start.
async fn remember_time(services: &Services, known: KnownTime) -> Result<(), SweepError> {
    let mut batch = Batch::new();
    batch.put_setting(KNOWN_TIME, known.remembered.to_bytes());
    services.store.append(batch).await?;
    Ok(())
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.periods.snapshot, Self::tidy);
        ctx.run_interval(RELIEF_PERIOD, Self::relieve);
        ctx.run_interval(self.periods.retention, Self::sweep);
        ctx.spawn(erasure::erase_always(Arc::clone(&self.services)).into_actor(self));
        // A stop may have interrupted it.
        self.services.deletions.wake();
        ctx.spawn(revocation::search_always(self.registry.clone()).into_actor(self));
        // The lists may have changed while the gateway did not run.
        self.services.revocation.wake();
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Stop, _: &mut Context<Self>) -> Self::Result {
        let mut tasks = self.registry.upkeep(|_| Some(Upkeep::Passivate));
        tasks.extend(self.registry.stop_peers());
        let services = Arc::clone(&self.services);
        let asked = async move {
            run(tasks).await;
            if let Err(error) = remember_time(&services, services.trusted_time.look(&services.clock)).await {
                tracing::warn!(%error, "the time of the stop was not written");
            }
        };
        let stopped = asked.into_actor(self).then(|(), supervisor, _| {
            // An actor releases the store a moment after it has answered; only the end of its thread makes that certain.
            let arbiters = std::mem::take(&mut supervisor.arbiters);
            snapshots::away(move || end(arbiters)).into_actor(supervisor)
        });
        Box::pin(stopped.map(|ended, _, ctx| {
            if ended.is_err() {
                tracing::error!("ending the threads of the actors failed");
            }
            ctx.stop();
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_are_passivated_when_there_are_too_many_or_they_are_too_heavy() {
        let active = || vec![(Timestamp(3), 10), (Timestamp(1), 100), (Timestamp(2), 1), (Timestamp(4), 10)];
        for (count_max, bytes_max, expected) in [
            (4, 121, None),
            (3, 121, Some(1)),
            (4, 120, Some(1)),
            (2, 121, Some(2)),
            (4, 20, Some(2)),
            (4, 10, Some(3)),
            (4, 9, Some(4)),
            (0, 121, Some(4)),
        ] {
            let until = excess_until(active(), count_max, bytes_max);
            assert_eq!(until, expected.map(Timestamp), "{count_max} actors, {bytes_max} bytes");
        }
        assert_eq!(excess_until(Vec::new(), 0, 0), None);
    }
}
