//! One run: make the groups, play, let every live member follow to the end, and judge.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actors::{ClientId, Epoch};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    LoadTestError,
    board::{Board, Ledger},
    gate::Gate,
    member::{CIPHER_SUITE, MlsMember},
    options::{Kind, Mix, RunOptions},
    player::{Intents, Played, Player, Shared, ended},
    progress::Progress,
    recorder::{Figures, Recorder},
    report::{Proof, RunReport, Shape},
    schedule::{Schedule, Seeded},
    setup::{self, GroupPlan, MadeGroup, PROTOCOL_VERSION, compute, fresh_handle},
    target::Target,
    verify::{Kept, Observations, Standing, digest},
};
use crate::api::{
    groups::EpochRange, joining::WelcomeQuery, key_packages::KeyPackageQuery, text::GroupIdText,
};

/// Clients whose key packages are retrieved.
const KEY_CLIENTS: usize = 16;
/// What may wait for one player of an open loop; more is dropped and counted.
const WAITING_MAX: usize = 64;
/// Requests without a player that may be under way at once; more is dropped and counted.
const ONE_OFFS_MAX: usize = 1024;
/// How long an open loop goes on after its last arrival, for what is under way.
const GRACE: Duration = Duration::from_secs(30);
/// Epochs that a catch-up read asks for.
const READ_EPOCHS: u64 = 16;

/// What a run played with.
struct Table {
    shared: Arc<Shared>,
    boards: Vec<Arc<Board>>,
    key_clients: Arc<Vec<ClientId>>,
    receivers: AtomicU64,
}

/// Channels to the players of one group.
#[derive(Default)]
struct Bells {
    committers: Vec<mpsc::Sender<Instant>>,
    proposer: Option<mpsc::Sender<Instant>>,
    joiner: Option<mpsc::Sender<Instant>>,
}

/// Runs it all.
pub(super) async fn run(
    target: &Target,
    options: &RunOptions,
    progress: &Progress,
) -> Result<RunReport, LoadTestError> {
    options.check()?;
    let gate = Gate::new(target, options.connections)?;
    let plan = GroupPlan { members: count(options.members), live: count(options.live_members()).max(1) };
    progress.setting_up(options.groups);
    let (counted, making) = (progress.clone(), Instant::now());
    let made = setup::groups(&gate, options.groups, plan, move || counted.one_more()).await?;
    let key_clients = match options.mix.weight(Kind::KeyPackage) {
        0 => Vec::new(),
        _ => setup::key_clients(&gate, KEY_CLIENTS).await?,
    };
    let setup_s = making.elapsed().as_secs_f64();
    let (played, figures, seconds) = play(&gate, options, made, key_clients, progress).await?;
    progress.judging(played.len());
    let (mut proof, mut committers) = (Proof::default(), Vec::new());
    for (board, players) in played {
        match observe(&gate, &board, players).await {
            Ok((seen, ledger)) => {
                proof.add(&seen);
                committers.push(ledger.committers);
            }
            // The figures are there all the same.
            Err(error) => {
                proof.unproven.push(format!("group {}: {error}", GroupIdText(board.id.clone())));
                committers.push(std::mem::take(&mut board.ledger().committers));
            }
        }
        progress.one_more();
    }
    progress.done();
    proof.unproven.extend(without_commits(&options.mix, figures.done.contains_key(&Kind::Commit)));
    let shape = Shape::of(target, options);
    Ok(RunReport::new(shape, &figures, &committers, (setup_s, seconds), proof))
}

/// Lets everybody act until the time is over. Who they were, what was recorded, and for how many seconds.
async fn play(
    gate: &Gate,
    options: &RunOptions,
    made: Vec<MadeGroup>,
    key_clients: Vec<ClientId>,
    progress: &Progress,
) -> Result<(Vec<(Arc<Board>, Vec<Played>)>, Figures, f64), LoadTestError> {
    let started = Instant::now();
    let until = started + options.duration;
    let shared = Arc::new(Shared {
        gate: gate.clone(),
        recorder: Recorder::new(),
        with_proposals: options.mix.weight(Kind::Proposal) > 0,
        give_up_at: if options.closed { until } else { until + GRACE },
    });
    let (mut boards, mut bells, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    let mut players = JoinSet::new();
    let committers = if options.mix.weight(Kind::Commit) > 0 { count(options.contention) } else { 0 };
    for (place, group) in made.into_iter().enumerate() {
        let MadeGroup { id, live, leaves, acknowledged } = group;
        let board = Arc::new(Board::new(id, leaves, acknowledged, committers));
        let mut ringing = Bells::default();
        let mut live = live.into_iter();
        for (number, member) in live.by_ref().take(committers).enumerate() {
            let (intents, bell) = intents(options, until);
            ringing.committers.extend(bell);
            let player = Player::new(Arc::clone(&shared), Arc::clone(&board), member);
            players.spawn(async move { (place, player.commit_all(number, intents).await) });
        }
        if shared.with_proposals
            && let Some(member) = live.next()
        {
            let (intents, bell) = intents(options, until);
            ringing.proposer = bell;
            let player = Player::new(Arc::clone(&shared), Arc::clone(&board), member);
            players.spawn(async move { (place, player.propose_all(intents).await) });
        }
        if options.mix.weight(Kind::Join) > 0 {
            let (intents, bell) = intents(options, until);
            ringing.joiner = bell;
            let member = compute(|| MlsMember::new(&fresh_handle("joiner"))).await?;
            let player = Player::new(Arc::clone(&shared), Arc::clone(&board), member);
            players.spawn(async move { (place, player.join_all(intents).await) });
        }
        let witnesses = live.map(|member| Played { member: Some(member), lost: None });
        idle.push((Arc::clone(&board), witnesses.collect::<Vec<_>>()));
        boards.push(board);
        bells.push(ringing);
    }
    let table = Arc::new(Table {
        shared: Arc::clone(&shared),
        boards,
        key_clients: Arc::new(key_clients),
        receivers: AtomicU64::new(0),
    });
    let ticking = progress.running(options.duration, Arc::clone(&shared));
    let others = if options.closed {
        closed_loop(&table, options, until)
    } else {
        open_loop(&table, options, bells).await?
    };
    let mut others = others;
    while others.join_next().await.is_some() {}
    while let Some(player) = players.join_next().await {
        let (place, player) = player.map_err(LoadTestError::panicked)?;
        if let Some((_, played)) = idle.get_mut(place) {
            played.push(player);
        }
    }
    ticking.abort();
    // The last arrival may be long before the end.
    let seconds = started.elapsed().max(options.duration).as_secs_f64();
    Ok((idle, shared.recorder.figures(), seconds))
}

/// Why a run proves nothing in which commits were to be made and none was accepted.
fn without_commits(mix: &Mix, some_accepted: bool) -> Option<String> {
    (mix.weight(Kind::Commit) > 0 && !some_accepted)
        .then(|| "commits are in the mix, and not one was accepted".to_owned())
}

/// Where a player's intents come from, and the bell that makes them in an open loop.
fn intents(options: &RunOptions, until: Instant) -> (Intents, Option<mpsc::Sender<Instant>>) {
    if options.closed {
        return (Intents::Closed { until }, None);
    }
    let (bell, due) = mpsc::channel(WAITING_MAX);
    (Intents::Scheduled(due), Some(bell))
}

/// Beside the players, one caller for each group goes through the rest of the mix.
fn closed_loop(table: &Arc<Table>, options: &RunOptions, until: Instant) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    let Some(mix) = options.mix.only(&[Kind::KeyPackage, Kind::Welcome, Kind::Read]) else { return callers };
    for (place, board) in table.boards.iter().enumerate() {
        let (table, board, mix) = (Arc::clone(table), Arc::clone(board), mix.clone());
        let mut numbers = Seeded::new(options.seed, u64::try_from(place).unwrap_or(0).wrapping_add(1));
        callers.spawn(async move {
            while Instant::now() < until {
                table.one_off(mix.pick(numbers.next()), &board, numbers.next(), Instant::now()).await;
            }
        });
    }
    callers
}

/// Rings for every arrival at its time. The thread that does it does nothing else, so that it is on time.
async fn open_loop(
    table: &Arc<Table>,
    options: &RunOptions,
    bells: Vec<Bells>,
) -> Result<JoinSet<()>, LoadTestError> {
    let schedule =
        Schedule::new(options.seed, options.mix.clone(), options.groups, options.rate, options.duration);
    let mut numbers = Seeded::new(options.seed, 1);
    let (table, runtime) = (Arc::clone(table), tokio::runtime::Handle::current());
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("schedule".into()).spawn(move || {
        let free = Arc::new(Semaphore::new(ONE_OFFS_MAX));
        let mut one_offs = JoinSet::new();
        let started = Instant::now();
        for arrival in schedule {
            let due = started + arrival.after;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (Some(board), Some(bells)) = (table.boards.get(arrival.group), bells.get(arrival.group))
            else {
                continue;
            };
            match arrival.kind {
                Kind::Commit => bells.committers.iter().for_each(|bell| ring(&table, board, bell, due)),
                Kind::Proposal => bells.proposer.iter().for_each(|bell| ring(&table, board, bell, due)),
                Kind::Join => bells.joiner.iter().for_each(|bell| ring(&table, board, bell, due)),
                kind @ (Kind::KeyPackage | Kind::Welcome | Kind::Read) => {
                    while one_offs.try_join_next().is_some() {}
                    let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
                        table.shared.recorder.shed();
                        continue;
                    };
                    let (table, board, number) = (Arc::clone(&table), Arc::clone(board), numbers.next());
                    one_offs.spawn_on(
                        async move {
                            table.one_off(kind, &board, number, due).await;
                            drop(permit);
                        },
                        &runtime,
                    );
                }
            }
        }
        // It fails only when the run was given up.
        let _ = tell.send(one_offs);
    });
    thread.map_err(|source| LoadTestError::File { path: "the thread of the schedule".into(), source })?;
    told.await.map_err(|_| LoadTestError::Broken("the schedule panicked".into()))
}

fn ring(table: &Table, board: &Board, bell: &mpsc::Sender<Instant>, due: Instant) {
    board.begin();
    if bell.try_send(due).is_err() {
        board.finish();
        table.shared.recorder.shed();
    }
}

impl Table {
    /// A request that needs no player.
    async fn one_off(&self, kind: Kind, board: &Board, number: u64, due: Instant) {
        let gate = &self.shared.gate;
        let pick = |length: usize| Seeded::new(number, 0).below(length);
        let ended = match kind {
            Kind::KeyPackage => {
                let Some(client) = self.key_clients.get(pick(self.key_clients.len())) else { return };
                let receiver = format!("receiver {}", self.receivers.fetch_add(1, Ordering::Relaxed));
                let query = KeyPackageQuery::new(PROTOCOL_VERSION, CIPHER_SUITE.into(), receiver);
                ended(&gate.through(gate.api.retrieve_key_package(*client, &query)).await)
            }
            Kind::Welcome => {
                let Some(handle) = board.leaves.get(pick(board.leaves.len())) else { return };
                let query = WelcomeQuery::default();
                ended(&gate.through(gate.api.welcomes(handle, &query)).await)
            }
            Kind::Read | Kind::Commit | Kind::Proposal | Kind::Join => {
                let newest = board.newest();
                let start = Epoch(newest.0.saturating_sub(READ_EPOCHS - 1).max(1));
                let range =
                    EpochRange { start_epoch_id: start, end_epoch_id: Some(newest.max(start)), limit: None };
                ended(&gate.through(gate.api.control_messages(&board.id, &range)).await)
            }
        };
        self.shared.recorder.request(kind, due, ended);
    }
}

/// Lets every live member of a group follow to the end, and tells what was seen.
pub(super) async fn observe(
    gate: &Gate,
    board: &Board,
    players: Vec<Played>,
) -> Result<(Observations, Ledger), LoadTestError> {
    let (history, current) = gate
        .history(&board.id, None)
        .await
        .map_err(|source| LoadTestError::Gateway { step: "reading all control messages", source })?;
    let kept = history.iter().map(|entry| Kept {
        epoch: entry.epoch_id,
        timestamp: entry.timestamp,
        packet: digest(&entry.commit.0),
    });
    let kept: Vec<_> = kept.collect();
    let history = Arc::new(history);
    let mut following = JoinSet::new();
    for player in players {
        // A joiner that never got in is no member.
        let Some(member) = player.member.filter(|member| member.epoch().is_some()) else {
            if let Some(reason) = player.lost {
                following.spawn(async { Standing { name: "a player".into(), epoch: Err(reason) } });
            }
            continue;
        };
        let history = Arc::clone(&history);
        following.spawn_blocking(move || standing(member, player.lost, &history));
    }
    let mut standings = Vec::new();
    while let Some(standing) = following.join_next().await {
        standings.push(standing.map_err(LoadTestError::panicked)?);
    }
    let ledger = std::mem::take(&mut *board.ledger());
    let seen = Observations {
        group: GroupIdText(board.id.clone()).to_string(),
        acknowledged: ledger.acknowledged.clone(),
        unanswered: ledger.unanswered.clone(),
        kept,
        current,
        standings,
    };
    Ok((seen, ledger))
}

fn standing(
    mut member: MlsMember,
    lost: Option<String>,
    history: &[crate::api::groups::EpochMessages],
) -> Standing {
    let name = String::from_utf8_lossy(member.handle.as_bytes()).into_owned();
    let epoch = member.epoch().unwrap_or_default();
    let missed = history.partition_point(|entry| entry.epoch_id <= epoch);
    let followed = match lost {
        Some(reason) => Err(reason),
        None => member.follow(history.get(missed..).unwrap_or_default()).map_err(|error| error.to_string()),
    };
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
