//! The supervisor: on its periods it has actors write snapshots, puts idle ones to sleep and drops what is too old; at
//! the end it stops them all.

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

    /// The time before which an actor must have been used last to be put to sleep: the quiet time, or less when more
    /// actors are awake than may be.
    fn sleep_before(&self) -> Timestamp {
        let quiet = self.core.clock.now().saturating_sub(self.passivate_after);
        let excess = self.core.awake().saturating_sub(self.core.limits.awake_actors_max);
        if excess == 0 {
            return quiet;
        }
        let groups = self.core.groups.iter().map(|awake| awake.actor.activity.last_used());
        let queues = self.core.queues.iter().map(|awake| awake.activity.last_used());
        let mut last_used: Vec<Timestamp> = groups.chain(queues).collect();
        last_used.sort_unstable();
        last_used.get(excess).copied().unwrap_or(quiet).max(quiet)
    }

    fn tidy(&mut self, ctx: &mut Context<Self>) {
        // A disk that does not answer would make every actor fail to write, and say so.
        if self.is_tidying || self.core.is_stopping() || self.core.store.is_stalled() {
            return;
        }
        // A clock that jumps is noticed between sweeps as well.
        self.core.delete_until();
        self.is_tidying = true;
        let sleep_before = self.sleep_before();
        let mut asks = Vec::new();
        for awake in &self.core.groups {
            if let Some(rest) = self.rest_of(&awake.actor.activity, sleep_before) {
                asks.push(ask(&awake.actor, rest));
            }
        }
        for awake in &self.core.queues {
            if let Some(rest) = self.rest_of(&awake.activity, sleep_before) {
                asks.push(ask(awake.value(), rest));
            }
        }
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
