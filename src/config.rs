//! Configuration: one TOML file over the defaults. Every setting is declared once, as a row of its table.
//!
//! The rows ([`actors::settings!`]) say what a value may be. `rows.rs` checks a file by them, and [`example()`] writes them out as
//! `gateway.example.toml`. Conditions between settings are checked next to the table that they concern.

mod applications;
mod build;
mod example;
mod federation;
mod internal;
mod log;
mod rows;
mod store;
#[cfg(test)]
mod tests;
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
    applications::{ApplicationSettings, TokenAccess, TokenSettings},
    example::example,
    federation::{FederationSettings, PeerSettings},
    internal::{Internal, ListenerSettings},
    store::{DataDir, DurabilityMode, DurabilitySettings, PassivationSettings, RetentionSettings},
    x509::{ExternalSenderSettings, Pem, X509Settings},
};
pub(crate) use self::{federation::FederationTls, log::filter as log_filter};

actors::settings! {
    /// Everything that can be set.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Config {
        /// Where the gateway keeps what it acknowledged; `:memory:` keeps nothing. A relative path is taken from the working
        /// directory.
        pub data_dir: DataDir = DataDir::Directory("data".into())
            => Accepts::Text("the path of a directory, or `:memory:`", rows::is_path);
        /// The domains that are assigned to this gateway. None by default; they are needed for federation and by
        /// applications that support domains.
        pub domains: BTreeSet<DomainName> = BTreeSet::new() => Accepts::List(&rows::DOMAIN), e.g. r#"["a.example"]"#;
        /// What is logged, in the notation of `RUST_LOG`. The environment variable `RUST_LOG` takes precedence.
        pub log: String = "info,actix_server=warn,actix_http=off".to_owned() => log::FILTER;
        /// Threads that run groups and key queues; by default one per core.
        pub actor_threads: usize = cores() => rows::THREADS, e.g. "4";
        /// The listener for application servers, and what one request may use.
        pub internal: Internal = Internal::default() => Accepts::Table(Internal::ROWS);
        /// An application. Without any, the gateway makes one Basic application at its first start and keeps it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub applications: Vec<ApplicationSettings> = Vec::new()
            => Accepts::List(&Accepts::Table(ApplicationSettings::ROWS));
        /// The limits on what groups, key queues and clients accept, hold and keep.
        pub limits: Limits = Limits::default() => Accepts::Table(Limits::ROWS);
        /// How long history and welcomes are kept.
        pub retention: RetentionSettings = RetentionSettings::default() => Accepts::Table(RetentionSettings::ROWS);
        /// What an acknowledged write survives, and what the store may use.
        pub durability: DurabilitySettings = DurabilitySettings::default()
            => Accepts::Table(DurabilitySettings::ROWS);
        /// When groups and key queues are written as snapshots and passivated.
        pub passivation: PassivationSettings = PassivationSettings::default()
            => Accepts::Table(PassivationSettings::ROWS);
        /// How this gateway works with those of other domains; without this table it does not.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub federation: Option<FederationSettings> = None => Accepts::Table(FederationSettings::ROWS);
    }
}

/// Why a configuration is refused.
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
        /// Where, counted from 1.
        line: Option<usize>,
        /// What is wrong there.
        reason: String,
    },
    /// A member cannot be what it is.
    #[error("{member}{}: {reason}", rows::at_line(*.line))]
    Malformed {
        /// The member that is wrong, as a path: `applications[0].tokens[1].access`.
        member: String,
        /// Where the file has it, or else the table around it, counted from 1.
        line: Option<usize>,
        /// What is wrong with it, and what it may be.
        reason: String,
    },
}

impl Config {
    /// The configuration that is used when there is none: the default application on `127.0.0.1:8080`, kept in `data`.
    pub fn embedded() -> Self {
        Self::default()
    }

    /// Another address to listen on; port 0 picks a free one.
    #[must_use]
    pub fn listening_on(mut self, address: SocketAddr) -> Self {
        self.internal.listen = address;
        self
    }

    /// Another place to keep what was acknowledged.
    #[must_use]
    pub fn kept_in(mut self, data_dir: DataDir) -> Self {
        self.data_dir = data_dir;
        self
    }

    /// One more application, used instead of the default one.
    #[must_use]
    pub fn with_application(mut self, application: ApplicationSettings) -> Self {
        self.applications.push(application);
        self
    }

    /// Reads and checks a file. The certificates and keys that it names are relative to its
    /// own directory, so that all can be moved together; `data_dir` is relative to the working directory, as on the
    /// command line.
    ///
    /// # Errors
    /// [`ConfigError`] names the member that is wrong, its line, and what it may be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::decode(&text, Some(path.parent().unwrap_or(Path::new(""))))
    }

    /// Reads and checks a configuration. Relative paths in it are taken from the current directory.
    ///
    /// # Errors
    /// [`ConfigError`] names the member that is wrong, its line, and what it may be.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::decode(text, None)
    }

    fn decode(text: &str, directory: Option<&Path>) -> Result<Self, ConfigError> {
        let file = rows::parse(text)?;
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
        checked().map_err(|error: ConfigError| rows::located(error, text))
    }

    /// Changes the paths of all files that the configuration names.
    fn change_paths(&mut self, change: &dyn Fn(&mut PathBuf)) {
        let internal = [&mut self.internal.certificate, &mut self.internal.private_key].into_iter().flatten();
        let federation = self.federation.iter_mut().flat_map(FederationSettings::paths);
        internal.chain(federation).for_each(change);
        for x509 in self.applications.iter_mut().filter_map(|application| application.x509.as_mut()) {
            x509.change_paths(change);
        }
    }

    /// Checks every setting by its row, and what must hold between settings. [`Config::read`] and [`Config::parse`] have done
    /// it.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the member that is wrong and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        // TOML cannot hold every path, and the rows look at their text only.
        let mut readable = self.clone();
        let to_text = |path: &mut PathBuf| *path = path.to_string_lossy().into_owned().into();
        readable.change_paths(&to_text);
        if let DataDir::Directory(path) = &mut readable.data_dir {
            to_text(path);
        }
        let table = Table::try_from(readable).map_err(rows::not_a_configuration)?;
        rows::check(Self::ROWS, &table, "")?;
        self.internal.credentials()?;
        applications::check(self)?;
        federation::check(self)
    }

    /// The applications as the actors take them, made from the files that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the member whose file cannot be used, and why.
    pub fn build_applications(&self) -> Result<Vec<Application>, ConfigError> {
        let placed = self.applications.iter().enumerate();
        placed.map(|(place, settings)| build::build(self, settings, &applications::at(place))).collect()
    }

    /// The whole configuration as TOML, defaults included.
    ///
    /// # Errors
    /// That a path in it is not UTF-8, which TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// The defaults of the tables that a file has.
fn defaults(file: &Table) -> Result<Table, ConfigError> {
    let federation = file.contains_key("federation").then(FederationSettings::default);
    Table::try_from(Config { federation, ..Config::default() }).map_err(rows::not_a_configuration)
}

/// The cores of the machine.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
