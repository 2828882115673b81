//! The command line: `serve`, the default; `token`; `config check`; `operator`; `snapshot`; `completions` and `man`; with the feature
//! `tools`, `demo` and `loadtest`.

mod announcement;
mod manual;
mod operator;
mod snapshot;
mod table;
#[cfg(feature = "tools")]
mod tools;

use std::{
    io::{self, IsTerminal as _, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    time::Duration,
};

use actors::Clock;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};

use crate::{
    config::{self, Config, ConfigError, DataDir, Environment},
    logging::{self, Logging},
    notify::ServiceManager,
    serve::{self, Running, StopStep},
    token::Token,
    traces::TraceExport,
};

#[cfg(feature = "tools")]
pub use self::tools::ToolCommand;
pub use self::{operator::OperatorOptions, snapshot::SnapshotOptions};

/// A MIMI gateway: the server side of MLS (RFC 9420) for many applications.
#[derive(Debug, Parser)]
#[command(name = "mimi-gateway", version, after_long_help = manual::after_help())]
pub struct Cli {
    /// The command; `serve` by default.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of all commands.
    #[command(flatten)]
    pub options: Options,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    Serve,
    /// Run a tool.
    #[cfg(feature = "tools")]
    #[command(flatten)]
    Tool(ToolCommand),
    /// Make a token for an application or an operator: the token itself, and the hash for the configuration.
    Token,
    /// Ask a running gateway, or change it, with a token of an operator in the environment variable MIMI_OPERATOR_TOKEN.
    Operator(OperatorOptions),
    /// Work with backups and data directories.
    Snapshot(SnapshotOptions),
    /// Work with the configuration.
    Config {
        /// The command.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the script that completes this command line in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man {
        /// Write it and a page for each command to this directory instead.
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration without starting.
    Check {
        /// Print all of it, defaults included.
        #[arg(long)]
        print: bool,
    },
    /// Print an example with every setting: its documentation, its default and the values that it takes.
    Example,
}

/// Options of all commands.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The configuration, a TOML file. Without one, a default application is served on 127.0.0.1:8080.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data directory, instead of `data_dir`; `:memory:` keeps nothing.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address to listen on, instead of `internal.listen`; port 0 picks a free one.
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// The exit code of a bad configuration or command line; 1 is any other failure.
const BAD_CONFIGURATION: u8 = 2;
/// The signal of a write beyond the limit on the size of files (`ulimit -f`), on all systems of today.
const SIGXFSZ: i32 = 25;
/// The exit code of a gateway that could not stop in time.
const STUCK: i32 = 3;

/// Runs the command, and returns the exit code.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        None | Some(Command::Serve) => {
            let is_embedded = cli.options.config.is_none();
            cli.options.configured(|config| serve(&cli.options, config, is_embedded))
        }
        #[cfg(feature = "tools")]
        Some(Command::Tool(tool)) => tools::run(&cli.options, tool),
        Some(Command::Token) => token(),
        Some(Command::Operator(request)) => operator::run(&cli.options, request),
        Some(Command::Snapshot(request)) => snapshot::run(&cli.options, request),
        Some(Command::Config { command: ConfigCommand::Check { print } }) => {
            cli.options.configured(|config| check(&config, print))
        }
        Some(Command::Config { command: ConfigCommand::Example }) => {
            print(&config::example());
            ExitCode::SUCCESS
        }
        Some(Command::Completions { shell }) => manual::complete(shell),
        Some(Command::Man { directory }) => manual::manual(directory.as_deref()),
    }
}

impl Options {
    /// The configuration, with the settings of the environment and then the options of the command line over it.
    ///
    /// # Errors
    /// [`ConfigError`] names the member that is wrong and what it may be.
    pub fn configuration(&self) -> Result<Config, ConfigError> {
        let environment = Environment::of_process()?;
        let mut config = match &self.config {
            Some(path) => Config::read_over(path, &environment)?,
            None => Config::embedded_over(&environment)?,
        };
        if let Some(data_dir) = &self.data_dir {
            config.data_dir = DataDir::from(data_dir.clone());
        }
        if let Some(listen) = self.listen {
            config.internal.listen = listen;
        }
        config.check()?;
        config.build_applications()?;
        Ok(config)
    }

    /// Runs a command with [`Options::configuration`], or prints why there is none.
    fn configured(&self, run: impl FnOnce(Config) -> ExitCode) -> ExitCode {
        self.configuration().map_or_else(
            |error| {
                // A variable of the environment is in no file.
                let file = self.config.as_ref().filter(|_| !error.is_of_environment());
                let file = file.map_or_else(String::new, |path| format!(" in {}", path.display()));
                fail(&format!("bad configuration{file}: {error}"));
                ExitCode::from(BAD_CONFIGURATION)
            },
            run,
        )
    }
}

fn serve(options: &Options, config: Config, is_embedded: bool) -> ExitCode {
    let traces = match config.traces.as_ref().map(TraceExport::start).transpose() {
        Ok(traces) => traces,
        Err(error) => return fail(&error.to_string()),
    };
    let logging = Logging::start(&config.log, config.log_format, traces.as_ref());
    let system = actix_web::rt::System::new();
    let (code, watchdog) = system.block_on(serve_until_told(options, config, is_embedded, logging.as_ref()));
    // The runtime waits for its blocking threads, which may hang as well.
    drop(system);
    drop(traces);
    drop(watchdog);
    code
}

/// Serves until a signal or a failure, and stops. The caller drops the watchdog once nothing can hang any more.
async fn serve_until_told(
    options: &Options,
    config: Config,
    is_embedded: bool,
    logging: Option<&Logging>,
) -> (ExitCode, Option<Watchdog>) {
    // Before anything is started, so that no signal is missed.
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [mut terminate, mut interrupt, mut hangup] = match signals {
        [Ok(terminate), Ok(interrupt), Ok(hangup)] => [terminate, interrupt, hangup],
        [Err(error), _, _] | [_, Err(error), _] | [_, _, Err(error)] => {
            return (fail(&format!("signals cannot be received: {error}")), None);
        }
    };
    // With it, a write beyond a limit on the size of files is an error instead of the end of the process.
    let _beyond_file_size = signal(SignalKind::from_raw(SIGXFSZ));
    let settings = config.clone();
    let started = if is_embedded { serve::start_embedded(config).await } else { serve::start(config).await };
    let running = match started {
        Ok(running) => running,
        Err(error) => return (fail(&error.to_string()), None),
    };
    let manager = ServiceManager::from_environment();
    let listening = announcement::listening(&running);
    print(&format!("{}{listening}\n", announcement::instructions(&running, &settings)));
    announcement::log(&running, &settings);
    manager.ready(&listening);
    let mut polls = tokio::time::interval(Duration::from_secs(settings.trust_reload_s.max(1)));
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let code = loop {
        tokio::select! {
            _ = terminate.recv() => break ExitCode::SUCCESS,
            _ = interrupt.recv() => break ExitCode::SUCCESS,
            reason = running.failed() => break fail(reason),
            _ = hangup.recv() => {
                if is_embedded && io::stdin().is_terminal() {
                    // The terminal of somebody who tries the gateway was closed.
                    break ExitCode::SUCCESS;
                }
                manager.reloading();
                let reloading = reload(options, &running, logging);
                match unless_told_to_stop(reloading, [&mut terminate, &mut interrupt], &running).await {
                    Ok(true) => manager.ready(&listening),
                    Ok(false) => manager
                        .ready(&format!("{listening}; the last reload failed and changed nothing: see the log")),
                    Err(code) => break code,
                }
            }
            _ = polls.tick(), if settings.trust_reload_s > 0 => {
                let reloading = reload_changed(&running);
                match unless_told_to_stop(reloading, [&mut terminate, &mut interrupt], &running).await {
                    Ok(()) => {}
                    Err(code) => break code,
                }
            }
        }
    };
    tracing::info!("stopping");
    manager.stopping(running.stop_timeout());
    let watchdog = Watchdog::start(running.stop_step(), running.stop_timeout());
    running.stop().await;
    tracing::info!("stopped");
    (code, Some(watchdog))
}

/// Waits for work that may hang, such as reading a file; the gateway stops all the same.
async fn unless_told_to_stop<T>(
    work: impl Future<Output = T>,
    [terminate, interrupt]: [&mut Signal; 2],
    running: &Running,
) -> Result<T, ExitCode> {
    tokio::select! {
        done = work => Ok(done),
        _ = terminate.recv() => Err(ExitCode::SUCCESS),
        _ = interrupt.recv() => Err(ExitCode::SUCCESS),
        reason = running.failed() => Err(fail(reason)),
    }
}

/// Reads certificates, keys, trust roots and revocation lists again if their files have changed.
async fn reload_changed(running: &Running) {
    match running.reload_changed().await {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!("reloaded: files of certificates, trust roots or revocation lists have changed")
        }
        Err(error) => {
            let reason = error.to_string();
            tracing::error!(
                reason,
                "files have changed; nothing was reloaded, and nothing has changed in use"
            );
        }
    }
}

/// Reads the configuration and its files again. If anything in them is wrong, nothing changes, and this returns `false`.
async fn reload(options: &Options, running: &Running, logging: Option<&Logging>) -> bool {
    let read_again = options.clone();
    let read = serve::reload::apart(move || read_again.configuration()).await;
    let reloaded = match read {
        Ok(Ok(config)) => {
            let log = config.log.clone();
            running.reload(config).await.map(|differing| (log, differing)).map_err(|error| error.to_string())
        }
        Ok(Err(error)) => {
            running.count_reload(false);
            Err(error.to_string())
        }
        Err(reason) => {
            running.count_reload(false);
            Err(reason)
        }
    };
    let is_reloaded = reloaded.is_ok();
    match reloaded {
        Ok((log, differing)) => {
            if let Some(logging) = logging {
                logging.filter_by(&log);
            }
            if !differing.is_empty() {
                tracing::warn!(settings = differing.join(", "), "these settings differ and need a restart");
            }
            tracing::info!("reloaded");
        }
        Err(reason) => tracing::error!(reason, "nothing was reloaded, and nothing has changed"),
    }
    is_reloaded
}

/// Ends the process if it has not stopped in time. It is a separate thread, because a hang may block every other one.
struct Watchdog {
    /// Dropped when the process has stopped.
    _stopped: Option<mpsc::Sender<()>>,
}

impl Watchdog {
    fn start(step: StopStep, at_most: Duration) -> Self {
        let (stopped, waiting) = mpsc::channel::<()>();
        let watch = move || {
            if waiting.recv_timeout(at_most) == Err(mpsc::RecvTimeoutError::Timeout) {
                fail(&format!(
                    "it did not stop within {} s: {} did not end. What was acknowledged is on disk",
                    at_most.as_secs(),
                    step.get()
                ));
                std::process::exit(STUCK);
            }
        };
        match std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch) {
            Ok(_) => Self { _stopped: Some(stopped) },
            Err(error) => {
                tracing::warn!(%error, "the watchdog of the stop could not be started");
                Self { _stopped: None }
            }
        }
    }
}

fn token() -> ExitCode {
    match Token::generate() {
        Ok(token) => {
            print(&format!("token: {}\nsha256: {}\n", token.reveal(), token.hash()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("no random numbers: {error}")),
    }
}

fn check(config: &Config, is_printed: bool) -> ExitCode {
    let built = config.build_applications();
    let warnings = built.and_then(|built| config.warnings(&built, Clock::system().now()));
    let (_, rust_log) = logging::filter(&config.log);
    match warnings {
        Ok(warnings) => warnings.into_iter().chain(rust_log).for_each(|warning| warn(&warning)),
        Err(error) => return fail(&error.to_string()),
    }
    if !is_printed {
        print("the configuration is good\n");
        return ExitCode::SUCCESS;
    }
    match config.to_toml() {
        Ok(toml) => {
            print(&toml);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("the configuration cannot be printed: {error}")),
    }
}

/// Writes to standard output, which may be closed; that is no reason to stop.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn warn(message: &str) {
    let _ = writeln!(io::stderr(), "mimi-gateway: warning: {message}");
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "mimi-gateway: {message}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_go_before_and_after_a_command() {
        for line in ["--data-dir d --listen 127.0.0.1:0", "serve --data-dir d --listen 127.0.0.1:0"] {
            let cli = Cli::try_parse_from(["mimi-gateway"].into_iter().chain(line.split(' '))).unwrap();
            let config = cli.options.configuration().unwrap();
            assert_eq!(config.data_dir, DataDir::Directory("d".into()), "{line}");
            assert_eq!(config.internal.listen.port(), 0, "{line}");
        }
    }
}
