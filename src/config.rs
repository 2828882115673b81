//! Configuration: one TOML file over the defaults. Every setting is declared once, as a row of its table.
//!
//! The rows ([`actors::settings!`]) define the accepted values. `rows.rs` checks a file by them, and [`example()`] prints them
//! as `gateway.example.toml`. Conditions between settings are checked next to the table that they concern.

mod applications;
mod backup;
mod build;
mod environment;
mod example;
mod federation;
mod internal;
mod log;
mod operator;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod traces;
mod warnings;
mod x509;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use actors::{Application, DomainName, Limits, settings::Accepts};
use serde::{Deserialize, Serialize};
use toml::Table;

pub use self::{
    applications::{ApplicationSettings, QuotaSettings, TokenAccess, TokenRateSettings, TokenSettings},
    backup::BackupSettings,
    environment::Environment,
    example::example,
    federation::{FederationSettings, PeerSettings},
    internal::{Internal, ListenerSettings},
    log::LogFormat,
    operator::OperatorSettings,
    store::{DataDir, DurabilityMode, DurabilitySettings, PassivationSettings, RetentionSettings},
    traces::{CollectorUrl, CollectorUrlError, TracesSettings},
    x509::{ExternalSenderSettings, Pem, X509Settings},
};
pub(crate) use self::{federation::FederationTls, log::filter as log_filter};

actors::settings! {
    /// All settings.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Config {
        /// The data directory; `:memory:` keeps nothing. A relative path is relative to the working directory.
        pub data_dir: DataDir = DataDir::Directory("data".into())
            => Accepts::Text("the path of a directory, or `:memory:`", rows::is_path);
        /// The domains that are assigned to this gateway. None by default; they are needed for federation and by
        /// applications that support domains.
        pub domains: BTreeSet<DomainName> = BTreeSet::new() => Accepts::List(&rows::DOMAIN), e.g. r#"["a.example"]"#;
        /// The log filter, in the notation of `RUST_LOG`. The environment variable `RUST_LOG` takes precedence. Each request
        /// is a line of the target `access`, at the level info, or debug if it is of `/healthz` or `/readyz`; add
        /// `access=off` to leave these lines out.
        pub log: String = "info,actix_server=warn,actix_http=off".to_owned() => log::FILTER;
        /// The form of the log: lines of text, or a JSON object in each line.
        pub log_format: LogFormat = LogFormat::Text => LogFormat::ACCEPTS;
        /// How often the gateway looks for changed files of certificates, keys, trust roots and revocation lists, and reads
        /// them again, in seconds; 0 never. SIGHUP makes it read them at once, and the configuration as well.
        pub trust_reload_s: u64 = 60 => Accepts::from_to(0, 86_400);
        /// Threads that run groups and key queues; by default one per core.
        pub actor_threads: usize = cores() => rows::THREADS, e.g. "4";
        /// The listener for application servers, and the limits of a request.
        pub internal: Internal = Internal::default() => Accepts::Table(Internal::ROWS);
        /// An application. Without any, the gateway makes one Basic application at its first start and keeps it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub applications: Vec<ApplicationSettings> = Vec::new()
            => Accepts::List(&Accepts::Table(ApplicationSettings::ROWS));
        /// The limits on what groups, key queues and clients accept, hold and keep.
        pub limits: Limits = Limits::default() => Accepts::Table(Limits::ROWS);
        /// Retention of history and welcomes.
        pub retention: RetentionSettings = RetentionSettings::default() => Accepts::Table(RetentionSettings::ROWS);
        /// The durability of acknowledged writes, and the resources of the store.
        pub durability: DurabilitySettings = DurabilitySettings::default()
            => Accepts::Table(DurabilitySettings::ROWS);
        /// Snapshots and passivation of groups and key queues.
        pub passivation: PassivationSettings = PassivationSettings::default()
            => Accepts::Table(PassivationSettings::ROWS);
        /// The backups that the gateway makes while it serves.
        pub backup: BackupSettings = BackupSettings::default() => Accepts::Table(BackupSettings::ROWS);
        /// Federation with the gateways of other domains; off without this table.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub federation: Option<FederationSettings> = None => Accepts::Table(FederationSettings::ROWS);
        /// The listener for the people who run the gateway: health and readiness without a token, and the operators' API.
        /// Without a configuration it is on, at a free port if its own is taken; in a configuration it is off without this
        /// table.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub operator: Option<OperatorSettings> = None => Accepts::Table(OperatorSettings::ROWS);
        /// Traces of requests, sent to a collector of OpenTelemetry; off without this table.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub traces: Option<TracesSettings> = None => Accepts::Table(TracesSettings::ROWS);
    }
}

/// The reason why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("it cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("it is not TOML{}: {reason}", rows::at_line(*.line))]
    NotToml {
        /// The line, counted from 1.
        line: Option<usize>,
        /// The fault.
        reason: String,
    },
    /// A member is missing or has a value that is not accepted.
    #[error("{member}{}: {reason}", rows::at_line(*.line))]
    Malformed {
        /// The member that is wrong, as a path: `applications[0].tokens[1].access`.
        member: String,
        /// Its line in the file, or that of the table around it, counted from 1.
        line: Option<usize>,
        /// The fault, and the accepted form.
        reason: String,
    },
}

impl ConfigError {
    /// Whether it is about a variable of the environment.
    pub fn is_of_environment(&self) -> bool {
        matches!(self, Self::Malformed { member, .. } if member.starts_with(environment::PREFIX))
    }
}

impl Config {
    /// The configuration without a file: the default application on `127.0.0.1:8080`, with its data in `data`.
    pub fn embedded() -> Self {
        Self::default()
    }

    /// The same configuration with another address to listen on; port 0 picks a free one.
    #[must_use]
    pub fn listening_on(mut self, address: SocketAddr) -> Self {
        self.internal.listen = address;
        self
    }

    /// The same configuration with a listener for operators.
    #[must_use]
    pub fn with_operator(mut self, operator: OperatorSettings) -> Self {
        self.operator = Some(operator);
        self
    }

    /// The same configuration with another data directory.
    #[must_use]
    pub fn kept_in(mut self, data_dir: DataDir) -> Self {
        self.data_dir = data_dir;
        self
    }

    /// The same configuration with one more application; configured ones replace the default one.
    #[must_use]
    pub fn with_application(mut self, application: ApplicationSettings) -> Self {
        self.applications.push(application);
        self
    }

    /// Reads and checks a file. The paths of certificates and keys are relative to its directory, so that all can be moved
    /// together; `data_dir` is relative to the working directory, as on the command line.
    ///
    /// # Errors
    /// [`ConfigError`] names the wrong member, its line, and the accepted form.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::read_over(path, &Environment::default())
    }

    /// As [`Config::read`], with settings of the environment over those of the file.
    ///
    /// # Errors
    /// As [`Config::read`]; a member that comes from the environment is named with its variable.
    pub fn read_over(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::decode(&text, Some(path.parent().unwrap_or(Path::new(""))), environment)
    }

    /// [`Config::embedded`] with a listener for operators, and settings of the environment over it.
    ///
    /// # Errors
    /// As [`Config::read_over`].
    pub fn embedded_over(environment: &Environment) -> Result<Self, ConfigError> {
        Self::parse_over("[operator]", environment)
    }

    /// As [`Config::parse`], with settings of the environment over those of the text.
    ///
    /// # Errors
    /// As [`Config::read_over`].
    pub fn parse_over(text: &str, environment: &Environment) -> Result<Self, ConfigError> {
        Self::decode(text, None, environment)
    }

    /// Reads and checks a configuration. Relative paths in it are relative to the current directory.
    ///
    /// # Errors
    /// [`ConfigError`] names the wrong member, its line, and the accepted form.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::decode(text, None, &Environment::default())
    }

    fn decode(text: &str, directory: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let mut file = rows::parse(text)?;
        environment.lay_over(&mut file);
        let checked = || {
            let mut table = defaults(&file)?;
            rows::lay_over(&mut table, file.clone());
            rows::check(Self::ROWS, &table, "")?;
            let mut config: Self = table.try_into().map_err(rows::not_a_configuration)?;
            if let Some(directory) = directory {
                config.change_paths(&|path| *path = directory.join(&*path));
            }
            config.check()?;
            Ok(config)
        };
        checked().map_err(|error: ConfigError| match environment.variable_of(&error) {
            Some(variable) => rows::of_variable(error, variable),
            None => rows::located(error, text),
        })
    }

    /// Changes the paths of all files that the configuration names.
    fn change_paths(&mut self, change: &dyn Fn(&mut PathBuf)) {
        let internal = [&mut self.internal.certificate, &mut self.internal.private_key].into_iter().flatten();
        let federation = self.federation.iter_mut().flat_map(FederationSettings::paths);
        let traces = self.traces.iter_mut().filter_map(|traces| traces.ca.as_mut());
        internal.chain(federation).chain(traces).for_each(change);
        for x509 in self.applications.iter_mut().filter_map(|application| application.x509.as_mut()) {
            x509.change_paths(change);
        }
    }

    /// The files that are read again while the gateway runs: those of certificates, keys, trust roots and revocation lists.
    pub(crate) fn reloaded_files(&self) -> Vec<PathBuf> {
        let internal = [&self.internal.certificate, &self.internal.private_key].into_iter().flatten();
        let mut files: Vec<PathBuf> = internal.cloned().collect();
        if let Some(FederationSettings { certificate, private_key, ca, .. }) = &self.federation {
            files.extend([certificate, private_key, ca].into_iter().cloned());
        }
        for x509 in self.applications.iter().filter_map(|application| application.x509.as_ref()) {
            files.extend(
                x509.trust_roots.path().into_iter().chain(x509.crl_issuers.as_ref().and_then(Pem::path)),
            );
            files.extend(x509.crls.iter().cloned());
        }
        files
    }

    /// Checks every setting by its row, and the conditions between settings. [`Config::read`] and [`Config::parse`] do it
    /// already.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the wrong member and the accepted form.
    pub fn check(&self) -> Result<(), ConfigError> {
        // TOML cannot hold every path, and the rows only check the text of a path.
        let mut readable = self.clone();
        let to_text = |path: &mut PathBuf| *path = path.to_string_lossy().into_owned().into();
        readable.change_paths(&to_text);
        if let DataDir::Directory(path) = &mut readable.data_dir {
            to_text(path);
        }
        readable.backup.directory.iter_mut().for_each(to_text);
        let table = Table::try_from(readable).map_err(rows::not_a_configuration)?;
        rows::check(Self::ROWS, &table, "")?;
        self.internal.credentials()?;
        applications::check(self)?;
        self.traces.as_ref().map_or(Ok(()), TracesSettings::check)?;
        federation::check(self)
    }

    /// Builds the applications for the actors, from the files that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the member whose file cannot be used, and the reason.
    pub fn build_applications(&self) -> Result<Vec<Application>, ConfigError> {
        let placed = self.applications.iter().enumerate();
        placed.map(|(place, settings)| build::build(self, settings, &applications::at(place))).collect()
    }

    /// The whole configuration as TOML, defaults included.
    ///
    /// # Errors
    /// A path in it is not UTF-8, which TOML requires.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// The defaults of the tables that a file has.
fn defaults(file: &Table) -> Result<Table, ConfigError> {
    let federation = file.contains_key("federation").then(FederationSettings::default);
    let operator = file.contains_key("operator").then(OperatorSettings::default);
    let traces = file.contains_key("traces").then(TracesSettings::default);
    Table::try_from(Config { federation, operator, traces, ..Config::default() })
        .map_err(rows::not_a_configuration)
}

/// The cores of the machine.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
