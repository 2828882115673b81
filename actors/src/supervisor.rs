//! The supervisor: it periodically has actors write snapshots, passivates idle ones and deletes what is too old. At the
//! end it stops them all.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Addr, Arbiter, AsyncContext as _, Context, Handler,
    Message, ResponseActFuture, WrapFuture as _,
};
use snapshots::{Batch, Retention, SweepError, Timestamp};

use crate::{
    core::Core,
    gateway::KNOWN_TIME,
    router::{Activity, Awake, Rest, Rested},
    trusted_time::KnownTime,
};

/// Stops every actor; answered when all have written their snapshots.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// How many actors are asked at the same time to rest.
const ASKED_AT_ONCE: usize = 64;

/// How often the awake actors are counted and weighed.
const RELIEF_PERIOD: Duration = Duration::from_secs(1);

pub(crate) struct Supervisor {
    pub(crate) core: Arc<Core>,
    pub(crate) arbiters: Vec<Arbiter>,
    pub(crate) snapshot_period: Duration,
    pub(crate) retention_period: Duration,
    pub(crate) passivate_after: Duration,
    pub(crate) retention: Retention,
    pub(crate) is_tidying: bool,
    pub(crate) is_sweeping: bool,
}

type Ask = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn ask<A>(awake: &Awake<A>, rest: Rest) -> Ask
where
    A: Handler<Rest>,
    A::Context: actix::dev::ToEnvelope<A, Rest>,
{
    ask_address(&awake.address, rest)
}

fn ask_address<A>(address: &Addr<A>, rest: Rest) -> Ask
where
    A: Handler<Rest>,
    A::Context: actix::dev::ToEnvelope<A, Rest>,
{
    let address = address.clone();
    Box::pin(async move {
        // Sent when its turn comes. An actor that is gone has nothing to write.
        let _: Result<Rested, _> = address.send(rest).await;
    })
}

async fn all(asks: Vec<Ask>) {
    let mut asks = asks.into_iter();
    loop {
        let batch: Vec<_> = asks.by_ref().take(ASKED_AT_ONCE).map(actix::spawn).collect();
        if batch.is_empty() {
            return;
        }
        for asked in batch {
            if asked.await.is_err() {
                tracing::error!("asking an actor to rest failed");
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

/// When an actor was used last, and its weight.
fn use_and_weight(activity: &Activity) -> (Timestamp, usize) {
    (activity.last_used(), activity.weight())
}

/// The time of the last use up to which actors must go to sleep so that the others are within both limits; `None` if all
/// of them are.
fn excess_until(mut awake: Vec<(Timestamp, usize)>, count_max: usize, bytes_max: usize) -> Option<Timestamp> {
    let mut bytes = awake.iter().fold(0_usize, |sum, (_, weight)| sum.saturating_add(*weight));
    let mut count = awake.len();
    if count <= count_max && bytes <= bytes_max {
        return None;
    }
    awake.sort_unstable();
    let mut until = None;
    for (last_used, weight) in awake {
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
    /// What an actor should do now: nothing, write a snapshot, or sleep.
    fn rest_of(&self, activity: &Activity, sleep_before: Timestamp) -> Option<Rest> {
        if activity.is_waited_for() {
            return activity.is_dirty().then_some(Rest::Snapshot);
        }
        if activity.last_used() <= sleep_before {
            return Some(Rest::Sleep);
        }
        activity.is_dirty().then_some(Rest::Snapshot)
    }

    /// The time of the last use up to which actors are put to sleep because more are awake than may be; `None` if no more
    /// are.
    fn excess_until(&self) -> Option<Timestamp> {
        let groups = self.core.groups.iter().map(|awake| use_and_weight(&awake.actor.activity));
        let queues = self.core.queues.iter().map(|awake| use_and_weight(&awake.activity));
        let limits = &self.core.limits;
        excess_until(groups.chain(queues).collect(), limits.awake_actors_max, limits.awake_bytes_max)
    }

    /// The time of the last use up to which actors are put to sleep: the quiet time ago, or less when more are awake than
    /// may be.
    fn sleep_before(&self) -> Timestamp {
        let quiet = self.core.clock.now().saturating_sub(self.passivate_after);
        self.excess_until().map_or(quiet, |last_used| last_used.max(quiet))
    }

    /// Whether actors cannot be asked to rest now. A disk that does not answer would make every actor fail to write, and
    /// say so.
    fn cannot_tidy(&self) -> bool {
        self.is_tidying || self.core.is_stopping() || self.core.store.is_stalled()
    }

    fn tidy(&mut self, ctx: &mut Context<Self>) {
        if self.cannot_tidy() {
            return;
        }
        // A clock that jumps is noticed between sweeps as well.
        self.core.delete_until();
        let sleep_before = self.sleep_before();
        self.ask_each(ctx, |supervisor, activity| supervisor.rest_of(activity, sleep_before));
    }

    /// Puts actors to sleep if more are awake than may be: between two snapshots, readers can wake very many large groups.
    fn relieve(&mut self, ctx: &mut Context<Self>) {
        if self.cannot_tidy() {
            return;
        }
        let Some(until) = self.excess_until() else { return };
        self.ask_each(ctx, |_, activity| {
            (!activity.is_waited_for() && activity.last_used() <= until).then_some(Rest::Sleep)
        });
    }

    /// Asks each awake actor for the rest that is given for it, if any.
    fn ask_each(&mut self, ctx: &mut Context<Self>, rest_of: impl Fn(&Self, &Activity) -> Option<Rest>) {
        let mut asks = Vec::new();
        for awake in &self.core.groups {
            if let Some(rest) = rest_of(self, &awake.actor.activity) {
                asks.push(ask(&awake.actor, rest));
            }
        }
        for awake in &self.core.queues {
            if let Some(rest) = rest_of(self, &awake.activity) {
                asks.push(ask(awake.value(), rest));
            }
        }
        self.is_tidying = true;
        ctx.spawn(all(asks).into_actor(self).map(|(), supervisor, _| supervisor.is_tidying = false));
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        if self.is_sweeping || self.core.is_stopping() || self.core.store.is_stalled() {
            return;
        }
        self.is_sweeping = true;
        let (core, retention) = (Arc::clone(&self.core), self.retention.clone());
        let sweep = async move {
            let known = core.trusted_time.look(&core.clock);
            let swept = core.store.sweep(&retention, known.delete_until).await?;
            remember_time(&core, known).await?;
            Ok::<_, SweepError>(swept)
        };
        ctx.spawn(sweep.into_actor(self).map(|result, supervisor, _| {
            supervisor.is_sweeping = false;
            match result {
                Ok(swept) => tracing::debug!(?swept, "dropped what was too old"),
                Err(error) => tracing::error!(%error, "dropping what is too old failed"),
            }
        }));
    }
}

/// Keeps what is known of the time for the next start.
async fn remember_time(core: &Core, known: KnownTime) -> Result<(), SweepError> {
    let mut batch = Batch::new();
    batch.put_setting(KNOWN_TIME, known.remembered.to_bytes());
    core.store.append(batch).await?;
    Ok(())
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.snapshot_period, Self::tidy);
        ctx.run_interval(RELIEF_PERIOD, Self::relieve);
        ctx.run_interval(self.retention_period, Self::sweep);
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Stop, _: &mut Context<Self>) -> Self::Result {
        let groups = self.core.groups.iter().map(|awake| ask(&awake.actor, Rest::Sleep));
        let queues = self.core.queues.iter().map(|awake| ask(awake.value(), Rest::Sleep));
        let peers =
            self.core.peers.get().into_iter().flatten().map(|(_, address)| ask_address(address, Rest::Sleep));
        let asks: Vec<Ask> = groups.chain(queues).chain(peers).collect();
        let core = Arc::clone(&self.core);
        let asked = async move {
            all(asks).await;
            if let Err(error) = remember_time(&core, core.trusted_time.look(&core.clock)).await {
                tracing::warn!(%error, "the time of the stop was not written");
            }
        };
        let stopped = asked.into_actor(self).then(|(), supervisor, _| {
            // An actor lets go of the store a moment after it has answered; the end of its thread is certain.
            let arbiters = std::mem::take(&mut supervisor.arbiters);
            tokio::task::spawn_blocking(move || end(arbiters)).into_actor(supervisor)
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
    fn the_longest_idle_sleep_when_there_are_too_many_or_they_are_too_heavy() {
        let awake = || vec![(Timestamp(3), 10), (Timestamp(1), 100), (Timestamp(2), 1), (Timestamp(4), 10)];
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
            let until = excess_until(awake(), count_max, bytes_max);
            assert_eq!(until, expected.map(Timestamp), "{count_max} actors, {bytes_max} bytes");
        }
        assert_eq!(excess_until(Vec::new(), 0, 0), None);
    }
}
