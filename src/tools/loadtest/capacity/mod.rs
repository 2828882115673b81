//! Throughput of the gateway, relative to the capacity of the same cores in the same run.
//!
//! Each round measures every kind of work once, one after the other, so that other load on the machine affects all alike; the
//! medians over rounds count. Server and load share the cores.
//!
//! - `prepared.rs` makes commits before the clock starts; `sender.rs` sends them over the bare connections of `wire.rs`.
//! - `baseline.rs` measures the machine; `report.rs` compares.

mod baseline;
mod prepared;
mod report;
mod sender;
mod wire;

use std::{path::Path, sync::Arc, time::Duration};

use actors::Epoch;

use self::{
    baseline::{ConstantServer, Signatures},
    prepared::PreparedGroup,
    report::{CapacityReport, Round, Speed, targets},
    sender::Rate,
    wire::{Wire, request},
};
use super::{
    ToolError, Verdict,
    machine::Machine,
    options::CapacityOptions,
    origin::Origin,
    player::Played,
    pool::ConnectionPool,
    progress::Progress,
    report::write_json,
    run::observe,
    scoreboard::Scoreboard,
    setup::{self, GroupPlan},
    stop::Stop,
    target::{OwnGateway, Target},
    verify,
};
use crate::{
    api::{
        Endpoint as _,
        groups::{EpochRange, ListControlMessages},
        joining::GetGroupInfo,
        paths::{self, GroupPath},
    },
    config::Config,
};

/// The length of a measurement that does not end by itself.
const SLICE: Duration = Duration::from_secs(1);
/// The period in which the gateway writes snapshots of changed groups, in seconds: as often as possible.
const SNAPSHOT_PERIOD_S: u64 = 2;
/// The number of epochs in one read of control messages.
const READ_EPOCHS: u64 = 8;
/// The approximate size of a signed leaf node, in bytes.
const LEAF_BYTES: usize = 180;

/// Measures a gateway in this process.
pub(super) fn run(
    options: &CapacityOptions,
    mut config: Config,
    inside: Option<&Path>,
    tell: &mut dyn FnMut(&str),
) -> Result<Verdict, ToolError> {
    let load = super::load_threads()?;
    let stop = {
        let _entered = load.enter();
        Stop::on_signals()?
    };
    config.passivation.snapshot_period_s = SNAPSHOT_PERIOD_S;
    let workers = config.internal.listener.workers;
    let report = actix_web::rt::System::new().block_on(async {
        let gateway = OwnGateway::start(config, inside).await?;
        let constant = ConstantServer::start(workers)?;
        let target = gateway.target(stop.clone());
        tell(&format!("Measuring {}: {}\n", target.url, target.about));
        let measuring = measure(target, constant.address.clone(), options.clone());
        let measured = load.spawn(async move { stop.unless(2, measuring).await }).await;
        constant.stop().await;
        gateway.stop().await;
        measured.map_err(ToolError::panicked)?
    })?;
    tell(&report.table());
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    Ok(match (report.violations.is_empty(), report.is_interrupted) {
        (true, false) => Verdict::Proven,
        (true, true) => Verdict::Interrupted,
        (false, _) => Verdict::Broken,
    })
}

async fn measure(
    target: Target,
    constant: String,
    options: CapacityOptions,
) -> Result<CapacityReport, ToolError> {
    let (progress, origin) = (Progress::new(), Origin::now());
    let pool = ConnectionPool::new(&target, options.connections)?;
    let members = usize::try_from(options.members).unwrap_or(usize::MAX);
    progress.begin("making groups", options.groups as u64);
    let counted = progress.clone();
    let plan = GroupPlan { members, live: 2 };
    let making = setup::groups(&pool, options.groups, plan, move || counted.one_more());
    let made = making.await?;
    let mut groups = made
        .into_iter()
        .map(|made| PreparedGroup::new(made, !options.without_group_info))
        .collect::<Result<Vec<_>, _>>()?;
    // The first commits are not measured: they warm up the gateway, and can be read later.
    (groups, _) = replay(&target, prepare(&target, groups, options.commits).await?, &options, None).await?;

    let sizes = groups.first().map_or((0, 0), |group| group.sizes);
    let mut signed = vec![sizes.0, LEAF_BYTES];
    if !options.without_group_info {
        signed.push(sizes.1);
    }
    let signatures = Arc::new(Signatures::new(&signed)?);
    let mut answer_bytes = (0, 0);
    let stale: Vec<_> = groups.iter().map(|group| Arc::clone(&group.stale)).collect();
    let mut rounds = Vec::with_capacity(options.rounds);
    progress.begin("rounds", options.rounds as u64);
    for _ in 0..options.rounds {
        if target.stop.is_requested() {
            break;
        }
        let round;
        (groups, round, answer_bytes) =
            measure_once(&target, &constant, &options, groups, &signatures, &stale).await?;
        rounds.push(round);
        progress.one_more();
    }
    if rounds.is_empty() {
        return Err(ToolError::Interrupted);
    }
    let mut violations = Vec::new();
    for group in groups {
        let players = group.pair.into_iter().map(|member| Played { member: Some(member), lost: None });
        let players = players.collect();
        let scoreboard = Scoreboard::new(group.id, Vec::new(), group.acknowledged, 0);
        let (seen, _) = observe(&pool, &scoreboard, players).await?;
        violations.extend(verify::violations(&seen));
    }
    progress.done();
    Ok(CapacityReport {
        origin,
        is_interrupted: rounds.len() < options.rounds,
        machine: Machine::this(),
        gateway: target.about.clone(),
        groups: options.groups,
        members: options.members,
        connections: options.connections,
        signatures_per_commit: signed.len(),
        packet_bytes: sizes,
        answer_bytes,
        targets: targets(&rounds),
        rounds,
        violations,
    })
}

async fn measure_once(
    target: &Target,
    constant: &str,
    options: &CapacityOptions,
    groups: Vec<PreparedGroup>,
    signatures: &Arc<Signatures>,
    stale: &[Arc<[u8]>],
) -> Result<(Vec<PreparedGroup>, Round, (usize, usize)), ToolError> {
    let signatures = Arc::clone(signatures);
    let verified = setup::compute(move || signatures.commits_per_s(SLICE)).await?;
    let groups = prepare(target, groups, options.commits).await?;
    let (groups, accepted) = replay(target, groups, options, None).await?;
    let send = |requests: Vec<Arc<[u8]>>, address: String, status| {
        sender::send(address, requests, options.connections, status, SLICE)
    };
    let stale = send(stale.to_vec(), target.address().to_owned(), 409).await?;
    // The newest epochs: the commits of this round.
    let reads = Reads::of(target, constant, &groups).await?;
    let mut rates = [Speed::default(); 5];
    for (rate, (address, requests)) in rates.iter_mut().zip(&reads.kinds) {
        *rate = send(requests.clone(), address.clone(), 200).await?.speed;
    }
    let [group_info, group_info_constant, control_msgs, control_msgs_constant, control_msgs_from_disk] =
        rates;
    let groups = prepare(target, groups, options.commits).await?;
    let (groups, half) = replay(target, groups, options, Some(accepted.speed.per_s / 2.0)).await?;
    let round = Round {
        verified,
        accepted: accepted.speed,
        accepted_p50_us: accepted.latencies.percentile_us(50.0),
        accepted_p99_us: accepted.latencies.percentile_us(99.0),
        stale: stale.speed,
        group_info,
        group_info_constant,
        control_msgs,
        control_msgs_constant,
        control_msgs_from_disk,
        half_load: half.speed,
        half_load_p50_us: half.latencies.percentile_us(50.0),
        half_load_p99_us: half.latencies.percentile_us(99.0),
    };
    Ok((groups, round, reads.answer_bytes))
}

async fn prepare(
    target: &Target,
    groups: Vec<PreparedGroup>,
    commits: usize,
) -> Result<Vec<PreparedGroup>, ToolError> {
    let preparing: Vec<_> =
        groups.into_iter().map(|group| tokio::spawn(group.prepare(target.clone(), commits))).collect();
    let mut prepared = Vec::with_capacity(preparing.len());
    for group in preparing {
        prepared.push(group.await.map_err(ToolError::panicked)??);
    }
    Ok(prepared)
}

async fn replay(
    target: &Target,
    groups: Vec<PreparedGroup>,
    options: &CapacityOptions,
    rate: Option<f64>,
) -> Result<(Vec<PreparedGroup>, Rate), ToolError> {
    sender::replay(target.address().to_owned(), groups, options.connections, rate).await
}

/// Read requests, and the address for each kind: group-info and control-msgs, each before its constant body, and control-msgs
/// of the oldest epochs.
struct Reads {
    kinds: [(String, Vec<Arc<[u8]>>); 5],
    answer_bytes: (usize, usize),
}

impl Reads {
    async fn of(target: &Target, constant: &str, groups: &[PreparedGroup]) -> Result<Self, ToolError> {
        let token = target.token.reveal();
        let (mut infos, mut messages, mut oldest) = (Vec::new(), Vec::new(), Vec::new());
        for group in groups {
            let path = GroupPath { app: target.app, group: group.id.clone() };
            let newest = group.acknowledged.last().map_or(1, |newest| newest.epoch.0);
            let first_newest = newest.saturating_sub(READ_EPOCHS - 1).max(1);
            infos.push(request("GET", &paths::fill(GetGroupInfo::PATH, &path), token, None).into());
            // Epoch 1 added the members; later ones are as long as the newest.
            for (requests, first) in [(&mut messages, first_newest), (&mut oldest, first_newest.min(2))] {
                let range = EpochRange {
                    end_epoch_id: Some(Epoch(first + READ_EPOCHS - 1)),
                    ..EpochRange::from(Epoch(first))
                };
                let query = serde_urlencoded::to_string(range)
                    .map_err(|error| ToolError::Broken(format!("a range has no text: {error}")))?;
                let messages_path = format!("{}?{query}", paths::fill(ListControlMessages::PATH, &path));
                requests.push(request("GET", &messages_path, token, None).into());
            }
        }
        let answer_bytes =
            (answer_bytes(target.address(), &infos).await?, answer_bytes(target.address(), &messages).await?);
        let same = |length: usize| vec![request("GET", &format!("/{length}"), token, None).into()];
        let (address, constant) = (target.address().to_owned(), constant.to_owned());
        Ok(Self {
            kinds: [
                (address.clone(), infos),
                (constant.clone(), same(answer_bytes.0)),
                (address.clone(), messages),
                (constant, same(answer_bytes.1)),
                (address, oldest),
            ],
            answer_bytes,
        })
    }
}

/// The size of the answer to the first of these requests.
async fn answer_bytes(address: &str, requests: &[Arc<[u8]>]) -> Result<usize, ToolError> {
    let Some(request) = requests.first() else { return Ok(0) };
    let mut wire = Wire::connect(address).await.map_err(ToolError::system(address))?;
    Ok(wire.ask(request).await.map_err(ToolError::system(address))?.body.len())
}
