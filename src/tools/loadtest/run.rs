//! One run: it creates the groups, applies the load, makes every live member follow to the end, and verifies.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actors::{ClientId, Epoch};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, error::TrySendError},
    },
    task::JoinSet,
};

use super::{
    During as _, ToolError,
    options::{Kind, Mix, RunOptions},
    origin::Origin,
    player::{Intents, Played, Player, RunContext, ended},
    pool::ConnectionPool,
    progress::Progress,
    recorder::{Figures, Recorder},
    report::{Ending, Proof, RunReport, Shape},
    schedule::{ArrivalSchedule, Rng},
    scoreboard::{Ledger, Scoreboard},
    setup::{self, GroupPlan, MadeGroup, compute, fresh_handle},
    stop::Stop,
    target::Target,
    verify::{EpochCommit, Observations, Standing},
};
use crate::{
    api::{
        groups::{EpochMessages, EpochRange},
        joining::WelcomeQuery,
        text::GroupIdText,
    },
    tools::mls_client::{MlsClient, key_package_query},
};

/// Clients whose key packages are retrieved.
const KEY_CLIENTS: usize = 16;
/// The number of operations that may wait for one player of an open loop; further ones are dropped and counted.
const WAITING_MAX: usize = 64;
/// The number of concurrent requests without a player; further ones are dropped and counted.
const ONE_OFFS_MAX: usize = 1024;
/// The time for which an open loop continues after its last arrival, for operations in flight.
const GRACE: Duration = Duration::from_secs(30);
/// The schedule looks for signals at least this often.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// The number of epochs in a catch-up read.
const READ_EPOCHS: u64 = 16;

/// The state of a run.
struct Run {
    shared: Arc<RunContext>,
    scoreboards: Vec<Arc<Scoreboard>>,
    key_clients: Vec<ClientId>,
    receivers: AtomicU64,
}

/// Channels to the players of one group, by what they do.
type Channels = BTreeMap<Kind, Vec<mpsc::Sender<Instant>>>;

/// Runs all of it.
pub(super) async fn run(
    target: &Target,
    options: &RunOptions,
    progress: &Progress,
) -> Result<RunReport, ToolError> {
    options.check()?;
    let origin = Origin::now();
    let pool = ConnectionPool::new(target, options.connections)?;
    let plan = GroupPlan { members: count(options.members), live: count(options.live_members()).max(1) };
    progress.begin("making groups", options.groups as u64);
    let (counted, making) = (progress.clone(), Instant::now());
    let made = setup::groups(&pool, options.groups, plan, move || counted.one_more()).await?;
    let key_clients = match options.mix.weight(Kind::KeyPackage) {
        0 => Vec::new(),
        _ => setup::key_clients(&pool, KEY_CLIENTS).await?,
    };
    target.stop.check()?;
    let setup_s = making.elapsed().as_secs_f64();
    let (played, figures, seconds) = play(&pool, &target.stop, options, made, key_clients, progress).await?;
    let is_interrupted = target.stop.is_requested();
    progress.begin("verifying", played.len() as u64);
    let (mut proof, mut committers) = (Proof::default(), Vec::new());
    let mut failed_players = Vec::new();
    for (scoreboard, players) in played {
        failed_players.extend(players.iter().filter_map(|player| player.lost.clone()));
        match observe(&pool, &scoreboard, players).await {
            Ok((seen, ledger)) => {
                proof.add(&seen);
                committers.push(ledger.committers);
            }
            // The figures are valid all the same.
            Err(error) => {
                proof.unproven.push(format!("group {}: {error}", GroupIdText(scoreboard.id.clone())));
                committers.push(std::mem::take(&mut scoreboard.ledger().committers));
            }
        }
        progress.one_more();
    }
    progress.done();
    proof.unproven.extend(without_commits(&options.mix, figures.done.contains_key(&Kind::Commit)));
    let shape = Shape::of(target, options);
    let ending = Ending { is_interrupted, failed_players, proof };
    let mut report = RunReport::new(origin, shape, &figures, &committers, (setup_s, seconds), ending);
    report.judge(&options.report.fail_if);
    Ok(report)
}

/// Applies the load for its time; returns the players, the measurements, and the time in seconds.
async fn play(
    pool: &ConnectionPool,
    stop: &Stop,
    options: &RunOptions,
    made: Vec<MadeGroup>,
    key_clients: Vec<ClientId>,
    progress: &Progress,
) -> Result<(Vec<(Arc<Scoreboard>, Vec<Played>)>, Figures, f64), ToolError> {
    let started = Instant::now();
    let until = started + options.duration;
    let shared = Arc::new(RunContext {
        pool: pool.clone(),
        recorder: Recorder::new(),
        with_proposals: options.mix.weight(Kind::Proposal) > 0,
        stop: stop.clone(),
        give_up_at: if options.closed { until } else { until + GRACE },
    });
    let (mut scoreboards, mut channels, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    let (mut players, mut places) = (JoinSet::new(), HashMap::new());
    let committers = if options.mix.weight(Kind::Commit) > 0 { count(options.contention) } else { 0 };
    for (place, group) in made.into_iter().enumerate() {
        let MadeGroup { id, live, leaves, acknowledged } = group;
        let scoreboard = Arc::new(Scoreboard::new(id, leaves, acknowledged, committers));
        let (mut own, mut live) = (Channels::new(), live.into_iter());
        let mut cast: Vec<(Kind, MlsClient)> =
            live.by_ref().take(committers).map(|member| (Kind::Commit, member)).collect();
        if shared.with_proposals {
            cast.extend(live.next().map(|member| (Kind::Proposal, member)));
        }
        if options.mix.weight(Kind::Join) > 0 {
            cast.push((Kind::Join, compute(|| MlsClient::basic(&fresh_handle("joiner"))).await?));
        }
        for (number, (kind, member)) in cast.into_iter().enumerate() {
            let (intents, channel) = intents(options, until, stop);
            own.entry(kind).or_default().extend(channel);
            let player = Player::new(Arc::clone(&shared), Arc::clone(&scoreboard), member);
            places.insert(players.spawn(player.play(kind, number, intents)).id(), place);
        }
        let witnesses = live.map(|member| Played { member: Some(member), lost: None });
        idle.push((Arc::clone(&scoreboard), witnesses.collect::<Vec<_>>()));
        scoreboards.push(scoreboard);
        channels.push(own);
    }
    let receivers = AtomicU64::new(0);
    let run = Arc::new(Run { shared: Arc::clone(&shared), scoreboards, key_clients, receivers });
    let ticking = progress.running(options.duration, Arc::clone(&shared));
    let mut others = if options.closed {
        closed_loop(&run, options, until)
    } else {
        open_loop(&run, options, channels).await?
    };
    while others.join_next().await.is_some() {}
    while let Some(player) = players.join_next_with_id().await {
        // A panic ends the part of one player, too.
        let (id, player) = player.unwrap_or_else(|error| (error.id(), Played::panicked(error)));
        if let Some((_, played)) = places.get(&id).and_then(|place| idle.get_mut(*place)) {
            played.push(player);
        }
    }
    ticking.abort();
    // The last arrival may be long before the end of the run.
    let planned = if stop.is_requested() { Duration::ZERO } else { options.duration };
    let seconds = started.elapsed().max(planned).as_secs_f64();
    Ok((idle, shared.recorder.figures(), seconds))
}

/// The reason why a run without accepted commits proves nothing, if it was to make some.
fn without_commits(mix: &Mix, some_accepted: bool) -> Option<String> {
    (mix.weight(Kind::Commit) > 0 && !some_accepted)
        .then(|| "commits are in the mix, and not one was accepted".to_owned())
}

/// The source of a player's intents, and the channel that feeds it in an open loop.
fn intents(options: &RunOptions, until: Instant, stop: &Stop) -> (Intents, Option<mpsc::Sender<Instant>>) {
    if options.closed {
        return (Intents::Closed { until, stop: stop.clone() }, None);
    }
    let (channel, due) = mpsc::channel(WAITING_MAX);
    (Intents::Scheduled(due), Some(channel))
}

/// One more caller per group, for the rest of the mix.
fn closed_loop(run: &Arc<Run>, options: &RunOptions, until: Instant) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    let Some(mix) = options.mix.only(&[Kind::KeyPackage, Kind::Welcome, Kind::Read]) else { return callers };
    for (place, scoreboard) in run.scoreboards.iter().enumerate() {
        let (run, scoreboard, mix) = (Arc::clone(run), Arc::clone(scoreboard), mix.clone());
        let mut numbers = Rng::new(options.seed, u64::try_from(place).unwrap_or(0).wrapping_add(1));
        callers.spawn(async move {
            while Instant::now() < until && !run.shared.stop.is_requested() {
                run.one_off(mix.pick(numbers.next()), &scoreboard, numbers.next(), Instant::now()).await;
            }
        });
    }
    callers
}

/// Notifies the player of every arrival at its time, on a separate thread, so that it is on time.
async fn open_loop(
    run: &Arc<Run>,
    options: &RunOptions,
    channels: Vec<Channels>,
) -> Result<JoinSet<()>, ToolError> {
    let schedule = ArrivalSchedule::new(
        options.seed,
        options.mix.clone(),
        options.groups,
        options.rate,
        options.duration,
    );
    let mut numbers = Rng::new(options.seed, 1);
    let (run, runtime) = (Arc::clone(run), tokio::runtime::Handle::current());
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("schedule".into()).spawn(move || {
        let free = Arc::new(Semaphore::new(ONE_OFFS_MAX));
        let mut one_offs = JoinSet::new();
        let started = Instant::now();
        for arrival in schedule {
            let due = started + arrival.after;
            if !sleep_until(due, &run.shared.stop) {
                break;
            }
            let (Some(scoreboard), Some(channels)) =
                (run.scoreboards.get(arrival.group), channels.get(arrival.group))
            else {
                continue;
            };
            match arrival.kind {
                kind @ (Kind::Commit | Kind::Proposal | Kind::Join) => {
                    let channels = channels.get(&kind).into_iter().flatten();
                    channels.for_each(|channel| notify(&run, scoreboard, kind, channel, due));
                }
                kind @ (Kind::KeyPackage | Kind::Welcome | Kind::Read) => {
                    while one_offs.try_join_next().is_some() {}
                    let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
                        run.shared.recorder.shed();
                        continue;
                    };
                    let (run, scoreboard, number) =
                        (Arc::clone(&run), Arc::clone(scoreboard), numbers.next());
                    one_offs.spawn_on(
                        async move {
                            run.one_off(kind, &scoreboard, number, due).await;
                            drop(permit);
                        },
                        &runtime,
                    );
                }
            }
        }
        // It fails only if the run was given up.
        let _ = tell.send(one_offs);
    });
    thread.map_err(ToolError::system("the thread of the schedule"))?;
    told.await.map_err(|_| ToolError::Broken("the schedule panicked".into()))
}

/// Sleeps, but not past a signal; whether it slept to the end.
fn sleep_until(due: Instant, stop: &Stop) -> bool {
    while !stop.is_requested() {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(STOP_CHECK));
    }
    false
}

fn notify(run: &Run, scoreboard: &Scoreboard, kind: Kind, channel: &mpsc::Sender<Instant>, due: Instant) {
    scoreboard.begin();
    if let Err(refused) = channel.try_send(due) {
        scoreboard.finish();
        match refused {
            TrySendError::Full(_) => run.shared.recorder.shed(),
            // The player has failed.
            TrySendError::Closed(_) => run.shared.recorder.given_up(kind),
        }
    }
}

impl Run {
    /// A request that needs no player.
    async fn one_off(&self, kind: Kind, scoreboard: &Scoreboard, number: u64, due: Instant) {
        let pool = &self.shared.pool;
        let pick = |length: usize| Rng::new(number, 0).below(length);
        let ended = match kind {
            Kind::KeyPackage => {
                let Some(client) = self.key_clients.get(pick(self.key_clients.len())) else { return };
                let receiver = format!("receiver {}", self.receivers.fetch_add(1, Ordering::Relaxed));
                let query = key_package_query(receiver);
                ended(&pool.request(pool.api.retrieve_key_package(*client, &query)).await)
            }
            Kind::Welcome => {
                let Some(handle) = scoreboard.leaves.get(pick(scoreboard.leaves.len())) else { return };
                let query = WelcomeQuery::default();
                ended(&pool.request(pool.api.welcomes(handle, &query)).await)
            }
            Kind::Read | Kind::Commit | Kind::Proposal | Kind::Join => {
                let newest = scoreboard.newest();
                let start = Epoch(newest.0.saturating_sub(READ_EPOCHS - 1).max(1));
                let range = EpochRange { end_epoch_id: Some(newest.max(start)), ..EpochRange::from(start) };
                ended(&pool.request(pool.api.control_messages(&scoreboard.id, &range)).await)
            }
        };
        self.shared.recorder.request(kind, due, ended);
    }
}

/// Makes every live member of a group follow to the end, and returns the observations.
pub(super) async fn observe(
    pool: &ConnectionPool,
    scoreboard: &Scoreboard,
    players: Vec<Played>,
) -> Result<(Observations, Ledger), ToolError> {
    let (history, current) =
        pool.history(&scoreboard.id, None).await.during("reading all control messages")?;
    let commit = |entry: &EpochMessages| EpochCommit::new(entry.epoch_id, entry.timestamp, &entry.commit.0);
    let kept: Vec<_> = history.iter().map(commit).collect();
    let history = Arc::new(history);
    let mut following = JoinSet::new();
    for player in players {
        // A player that failed is counted elsewhere, and a joiner that never joined is not a member.
        let is_member = |member: &MlsClient| player.lost.is_none() && member.epoch().is_some();
        let Some(member) = player.member.filter(is_member) else { continue };
        let history = Arc::clone(&history);
        following.spawn_blocking(move || standing(member, &history));
    }
    let mut standings = Vec::new();
    while let Some(standing) = following.join_next().await {
        standings.push(standing.map_err(ToolError::panicked)?);
    }
    let ledger = std::mem::take(&mut *scoreboard.ledger());
    let seen = Observations {
        group: GroupIdText(scoreboard.id.clone()).to_string(),
        acknowledged: ledger.acknowledged.clone(),
        unanswered: ledger.unanswered.clone(),
        kept,
        current,
        standings,
    };
    Ok((seen, ledger))
}

fn standing(mut member: MlsClient, history: &[EpochMessages]) -> Standing {
    let name = String::from_utf8_lossy(member.handle.as_bytes()).into_owned();
    let epoch = member.epoch().unwrap_or_default();
    let missed = history.partition_point(|entry| entry.epoch_id <= epoch);
    let followed =
        member.follow(history.get(missed..).unwrap_or_default()).map_err(|error| error.to_string());
    let epoch = followed
        .map(|()| (member.epoch().unwrap_or_default(), member.epoch_authenticator().unwrap_or_default()));
    Standing { name, epoch }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_that_were_to_be_made_are_missed() {
        for (mix, some_accepted, proves) in [
            ("commits=1,reads=1", false, false),
            ("commits=1,reads=1", true, true),
            ("reads=1", false, true),
            ("commits=0,reads=1", false, true),
        ] {
            let missed = without_commits(&mix.parse().unwrap(), some_accepted);
            assert_eq!(missed.is_none(), proves, "{mix}: {missed:?}");
        }
    }
}
