//! `mimi-gateway loadtest`: many real MLS clients commit at once, and the results are measured and proven.
//!
//! - `options.rs` the command line; `schedule.rs` seeded arrivals; `target.rs` the gateway under load and `pool.rs` the
//!   connections to it.
//! - `stop.rs` ends a run on signals; `cleanup.rs` deletes what it made at a gateway that was running before.
//! - `setup.rs` makes groups through the API; `player.rs` and `upload.rs` are the actions of their members; `scoreboard.rs` is
//!   the state that the members of one group share.
//! - `recorder.rs` counts and latencies; `verify.rs` the proof; `report/` the figures; `machine.rs` the machine.
//! - `origin.rs` when and how a report was made; `thresholds.rs` conditions for its figures.
//! - `run.rs` one run; `sweep.rs` many; `compare.rs` two reports; `capacity/` the gateway's capacity as ratios to that of the machine.
//!
//! In an open loop, arrivals keep to their schedule whatever the gateway does, and latency counts from the scheduled
//! time, so a stall counts for every request that was due during it.

mod capacity;
mod cleanup;
mod compare;
mod machine;
pub mod options;
mod origin;
mod player;
mod pool;
mod progress;
mod recorder;
pub mod report;
mod run;
mod schedule;
mod scoreboard;
mod setup;
mod stop;
mod sweep;
mod target;
pub mod thresholds;
mod upload;
mod verify;

use std::path::Path;

use self::{
    options::{LoadTestCommand, LoadTestOptions, TargetOptions},
    progress::Progress,
    stop::Stop,
    target::{OwnGateway, Target},
};
use super::{During, DuringLibrary, ToolError};
use crate::config::Config;

/// The result of a run, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every run was proven.
    Proven,
    /// Signals ended it early; what was done is proven.
    Interrupted,
    /// A player could not continue; everything else is proven.
    PlayerFailed,
    /// A figure is beyond a threshold; the promises are proven.
    ThresholdBroken,
    /// No broken promise was found, but not everything could be checked; the table says why.
    Unproven,
    /// A promise was broken; the table names it.
    Broken,
}

/// Runs the load test by its options. `config` is for a gateway in this process, whose directory is created inside `inside`.
/// Text for people is reported to `tell`.
///
/// # Errors
/// [`ToolError`] is the reason why there are no figures. A broken promise of the gateway is a [`Verdict`].
pub fn run(
    options: &LoadTestOptions,
    config: Config,
    inside: Option<&Path>,
    tell: &mut dyn FnMut(&str),
) -> Result<Verdict, ToolError> {
    match &options.command {
        None => {
            options.run.check()?;
            let run = options.run.clone();
            let report = at_target(&options.run.target, config, inside, tell, move |target| async move {
                run::run(&target, &run, &Progress::new()).await
            })?;
            tell(&report.table());
            report.write(&options.run.report)?;
            Ok(report.verdict())
        }
        Some(LoadTestCommand::Sweep(sweep)) => {
            sweep.report.check()?;
            let sweep = sweep.clone();
            let options = sweep.clone();
            let found = at_target(&sweep.target, config, inside, tell, move |target| async move {
                sweep::run(&target, &options, &Progress::new()).await
            })?;
            tell(&found.table());
            found.write(&sweep.report)?;
            Ok(found.verdict())
        }
        Some(LoadTestCommand::Compare(options)) => {
            tell(&compare::compare(options)?);
            Ok(Verdict::Proven)
        }
        Some(LoadTestCommand::Capacity(options)) => {
            options.check()?;
            capacity::run(options, config, inside, tell)
        }
    }
}

/// Runs the load against the gateway of the options, or one started for it. The load has its own threads.
fn at_target<T, F>(
    options: &TargetOptions,
    config: Config,
    inside: Option<&Path>,
    tell: &mut dyn FnMut(&str),
    play: impl FnOnce(Target) -> F,
) -> Result<T, ToolError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ToolError>> + Send + 'static,
{
    let load = load_threads()?;
    let stop = {
        let _entered = load.enter();
        Stop::on_signals()?
    };
    let mut say = |target: &Target| tell(&format!("Sending load to {}: {}\n", target.url, target.about));
    if let Some(target) = Target::named(options, &stop)? {
        say(&target);
        return load.block_on(async {
            stop.unless(1, target.probe()).await?;
            let played = stop.unless(2, play(target.clone())).await;
            tell(&cleanup::clean_up(&target).await?);
            played
        });
    }
    actix_web::rt::System::new().block_on(async {
        let gateway = OwnGateway::start(config, inside).await?;
        let target = gateway.target(stop.clone());
        say(&target);
        let playing = play(target);
        let playing = load.spawn(async move { stop.unless(2, playing).await });
        let played = playing.await.map_err(ToolError::panicked);
        gateway.stop().await;
        played?
    })
}

/// The threads of the load. Its cryptography is limited to the number of cores: more at once would only be slower.
fn load_threads() -> Result<tokio::runtime::Runtime, ToolError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .max_blocking_threads(cores)
        .enable_all()
        .build()
        .map_err(ToolError::system("threads for the load"))
}
