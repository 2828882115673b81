//! `mimi-gateway loadtest`: many real MLS clients who commit at once, and what comes of it in figures that can be trusted.
//!
//! - `options.rs` what it is told; `schedule.rs` when what happens, by a seed; `target.rs` and `gate.rs` where it goes.
//! - `member.rs` one MLS client, which only computes; `setup.rs` groups of them, made through the API; `player.rs` and
//!   `upload.rs` what they do; `board.rs` what the players of a group share.
//! - `recorder.rs` what happened; `verify.rs` the proof; `report/` the figures.
//! - `run.rs` one run; `sweep.rs` many; `capacity.rs` what the gateway can do, as ratios to what the machine can
//!   (`floor.rs`), with commits that were made before (`prepared.rs`) and bare connections (`hammer.rs`, `wire.rs`).
//!
//! In an open loop arrivals keep to their schedule whatever the gateway does, and latency counts from the scheduled
//! time, so that a stall is seen by everybody who would have met it.

mod board;
mod capacity;
mod floor;
mod gate;
mod hammer;
mod machine;
mod member;
pub mod options;
mod player;
mod prepared;
mod progress;
mod recorder;
pub mod report;
mod run;
mod schedule;
mod setup;
mod sweep;
mod target;
mod upload;
mod verify;
mod wire;

use std::path::{Path, PathBuf};

use self::{
    options::{LoadTestCommand, LoadTestOptions, TargetOptions},
    progress::Progress,
    target::{OwnGateway, Target},
};
use crate::{client::ClientError, config::Config, mls_messages::MessageError, serve::StartError};

pub use self::verify::Violation;

/// Why a load test has no figures.
#[derive(Debug, thiserror::Error)]
pub enum LoadTestError {
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway answered a request of the preparation, or of the proof, with something else.
    #[error("{step}: {source}")]
    Gateway {
        /// What was being done.
        step: &'static str,
        /// The answer.
        source: ClientError,
    },
    /// The MLS library refused.
    #[error("{step}: {reason}")]
    Mls {
        /// What was being done.
        step: &'static str,
        /// What the library said.
        reason: String,
    },
    /// A file or a thread that the operating system did not give.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// What must not happen.
    #[error("{0}")]
    Broken(String),
}

impl LoadTestError {
    fn panicked(error: tokio::task::JoinError) -> Self {
        Self::Broken(format!("a part of the load test ended early: {error}"))
    }
}

/// Whether every promise was kept, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every run was proven.
    Proven,
    /// Nothing was seen to be broken, but not everything could be looked at; the table says why.
    Unproven,
    /// The table names what was not kept.
    Broken,
}

/// Runs what the options say. `config` is for a gateway of its own, whose directory is made inside of `inside`. What
/// people should read is told to `tell`.
///
/// # Errors
/// [`LoadTestError`] says why there are no figures. A broken promise of the gateway is a [`Verdict`].
pub fn run(
    options: &LoadTestOptions,
    config: Config,
    inside: Option<&Path>,
    tell: &mut dyn FnMut(&str),
) -> Result<Verdict, LoadTestError> {
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
            let sweep = sweep.clone();
            let options = sweep.clone();
            let found = at_target(&sweep.target, config, inside, tell, move |target| async move {
                sweep::run(&target, &options, &Progress::new()).await
            })?;
            tell(&found.table());
            found.write(&sweep.report)?;
            Ok(found.verdict())
        }
        Some(LoadTestCommand::Capacity(options)) => capacity::run(options, config, inside, tell),
    }
}

/// Plays against the gateway that the options name, or one that is started for it. The load has threads of its own.
fn at_target<T, F>(
    options: &TargetOptions,
    config: Config,
    inside: Option<&Path>,
    tell: &mut dyn FnMut(&str),
    play: impl FnOnce(Target) -> F,
) -> Result<T, LoadTestError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, LoadTestError>> + Send + 'static,
{
    let load = load_threads()?;
    let mut say = |target: &Target| tell(&format!("Sending load to {}: {}\n", target.url, target.about));
    if let Some(target) = Target::named(options)? {
        say(&target);
        return load.block_on(play(target));
    }
    actix_web::rt::System::new().block_on(async {
        let gateway = OwnGateway::start(config, inside).await?;
        let target = gateway.target();
        say(&target);
        let played = load.spawn(play(target)).await.map_err(LoadTestError::panicked);
        gateway.stop().await;
        played?
    })
}

/// Threads of the load's own. Its cryptography is bounded to the cores: more at once would only make all of it slower.
fn load_threads() -> Result<tokio::runtime::Runtime, LoadTestError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .max_blocking_threads(cores)
        .enable_all()
        .build()
        .map_err(|source| LoadTestError::File { path: "threads for the load".into(), source })
}

/// An error together with what was being done.
trait During<T> {
    fn during(self, step: &'static str) -> Result<T, LoadTestError>;
}

impl<T> During<T> for Result<T, ClientError> {
    fn during(self, step: &'static str) -> Result<T, LoadTestError> {
        self.map_err(|source| LoadTestError::Gateway { step, source })
    }
}

/// As [`During`], for the many errors of the MLS library.
trait DuringMls<T> {
    fn during_mls(self, step: &'static str) -> Result<T, LoadTestError>;
}

impl From<MessageError> for LoadTestError {
    fn from(MessageError { step, reason }: MessageError) -> Self {
        Self::Mls { step, reason }
    }
}

impl<T, E: std::fmt::Display> DuringMls<T> for Result<T, E> {
    fn during_mls(self, step: &'static str) -> Result<T, LoadTestError> {
        self.map_err(|error| LoadTestError::Mls { step, reason: error.to_string() })
    }
}
