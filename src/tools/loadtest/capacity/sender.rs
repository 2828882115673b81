//! A sender of prepared requests over bare connections, as fast as they are answered or at a given rate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    super::{
        ToolError, machine::cpu_time, options::Mix, recorder::Latencies, schedule::ArrivalSchedule,
        verify::EpochCommit,
    },
    prepared::PreparedGroup,
    report::Speed,
    wire::Wire,
};
use crate::api::groups::AcceptedCommitBody;

/// The seed of a pace.
const SEED: u64 = 1;
/// Longest pace.
const PACE_MAX: Duration = Duration::from_secs(3600);

/// The result of a series of requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    pub(super) speed: Speed,
    pub(super) latencies: Latencies,
}

impl Rate {
    fn of(latencies: Latencies, started: Instant, cpu: Duration) -> Self {
        let count = f64::from(u32::try_from(latencies.count()).unwrap_or(u32::MAX)).max(1.0);
        let per_s = count / started.elapsed().as_secs_f64().max(1e-9);
        let cpu_us = cpu_time().saturating_sub(cpu).as_secs_f64() * 1e6 / count;
        Self { speed: Speed { per_s, cpu_us }, latencies }
    }
}

/// Sends these requests in turn over a number of connections for the given time. All must be answered with `status`.
pub(super) async fn send(
    address: String,
    requests: Vec<Arc<[u8]>>,
    connections: usize,
    status: u16,
    duration: Duration,
) -> Result<Rate, ToolError> {
    let (requests, address) = (Arc::new(requests), Arc::new(address));
    let wires = connect(&address, connections).await?;
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut tasks = JoinSet::new();
    for (offset, mut wire) in wires.into_iter().enumerate() {
        let (requests, address) = (Arc::clone(&requests), Arc::clone(&address));
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            for request in requests.iter().cycle().skip(offset) {
                if started.elapsed() >= duration {
                    break;
                }
                let due = Instant::now();
                let answer = wire.ask(request).await.map_err(ToolError::system(&address))?;
                if answer.status != status {
                    return Err(unexpected(answer.status, answer.body));
                }
                latencies.record(due.elapsed());
            }
            Ok(latencies)
        });
    }
    let mut latencies = Latencies::default();
    while let Some(task) = tasks.join_next().await {
        latencies.add(&task.map_err(ToolError::panicked)??);
    }
    Ok(Rate::of(latencies, started, cpu))
}

/// Sends every prepared commit, those of a group in their order. All must be accepted.
pub(super) async fn replay(
    address: String,
    groups: Vec<PreparedGroup>,
    connections: usize,
    rate: Option<f64>,
) -> Result<(Vec<PreparedGroup>, Rate), ToolError> {
    let address = Arc::new(address);
    let wires = connect(&address, connections.min(groups.len()).max(1)).await?;
    let mut shares: Vec<Vec<PreparedGroup>> = wires.iter().map(|_| Vec::new()).collect();
    for (place, group) in groups.into_iter().enumerate() {
        let share = place % shares.len().max(1);
        if let Some(share) = shares.get_mut(share) {
            share.push(group);
        }
    }
    let mut channels = Vec::new();
    let mut tasks = JoinSet::new();
    let (started, cpu) = (Instant::now(), cpu_time());
    for (mut wire, mut groups) in wires.into_iter().zip(shares) {
        let address = Arc::clone(&address);
        let mut dues = rate.map(|_| {
            let count: usize = groups.iter().map(|group| group.chain.len()).sum();
            let (channel, dues) = mpsc::channel(count.max(1));
            channels.push((channel, count));
            dues
        });
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            let longest = groups.iter().map(|group| group.chain.len()).max().unwrap_or_default();
            for step in 0..longest {
                for group in &mut groups {
                    let Some(commit) = group.chain.get(step) else { continue };
                    let due = match &mut dues {
                        Some(dues) => dues.recv().await.unwrap_or_else(Instant::now),
                        None => Instant::now(),
                    };
                    let answer = wire.ask(&commit.request).await.map_err(ToolError::system(&address))?;
                    latencies.record(due.elapsed());
                    if answer.status != 201 {
                        return Err(unexpected(answer.status, answer.body));
                    }
                    let accepted: AcceptedCommitBody = serde_json::from_slice(answer.body)
                        .map_err(|_| unexpected(answer.status, answer.body))?;
                    group.acknowledged.push(EpochCommit {
                        epoch: accepted.epoch_id,
                        timestamp: accepted.timestamp,
                        packet: commit.packet,
                    });
                }
            }
            Ok((groups, latencies))
        });
    }
    if let Some(rate) = rate {
        pace(channels, rate)?;
    }
    let (mut played, mut latencies) = (Vec::new(), Latencies::default());
    while let Some(task) = tasks.join_next().await {
        let (groups, recorded) = task.map_err(ToolError::panicked)??;
        played.extend(groups);
        latencies.add(&recorded);
    }
    Ok((played, Rate::of(latencies, started, cpu)))
}

/// Gives each connection in turn its next due time, at the times of a Poisson process. A separate thread keeps it on time.
fn pace(mut channels: Vec<(mpsc::Sender<Instant>, usize)>, rate: f64) -> Result<(), ToolError> {
    let schedule = ArrivalSchedule::new(SEED, Mix::default(), usize::MAX, rate, PACE_MAX);
    let run = move || {
        let started = Instant::now();
        for arrival in schedule {
            if channels.is_empty() {
                return;
            }
            let due = started + arrival.after;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let place = arrival.group % channels.len();
            let Some((channel, left)) = channels.get_mut(place) else { continue };
            // The channel has room for all commits; it is closed only if the run has failed.
            let _ = channel.try_send(due);
            *left = left.saturating_sub(1);
            if *left == 0 {
                channels.swap_remove(place);
            }
        }
    };
    let thread = std::thread::Builder::new().name("pace".into()).spawn(run);
    thread.map_err(ToolError::system("the thread of the pace"))?;
    Ok(())
}

async fn connect(address: &str, connections: usize) -> Result<Vec<Wire>, ToolError> {
    let mut wires = Vec::with_capacity(connections);
    for _ in 0..connections {
        wires.push(Wire::connect(address).await.map_err(ToolError::system(address))?);
    }
    Ok(wires)
}

fn unexpected(status: u16, body: &[u8]) -> ToolError {
    let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
    ToolError::Broken(format!("an unexpected answer, {status}: {body}"))
}
