//! The configuration: one TOML file, a default for everything, units in the names.

mod applications;
mod check;
mod federation;
mod x509;

use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use actors::{AppId, Application, DomainName, Limits};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(crate) use self::federation::FederationTls;
pub use self::federation::{Federation, PeerSettings};
pub use self::x509::{ExternalSenderSettings, Pem, X509Settings};
use crate::{api::applications::IdentityConfiguration, tls::Credentials, token::TokenHash};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the gateway keeps what it acknowledged; `:memory:` keeps nothing.
    pub data_dir: DataDir,
    /// The domains that are assigned to this gateway.
    pub domains: BTreeSet<DomainName>,
    /// What is logged, in the notation of `RUST_LOG`, which goes before it.
    pub log: String,
    /// Threads that run groups and key queues.
    pub actor_threads: usize,
    /// The listener for application servers.
    pub internal: Internal,
    /// The applications. When there are none, the gateway makes one Basic application the first time and keeps it.
    pub applications: Vec<ApplicationSettings>,
    /// What the actors accept and hold.
    pub limits: Limits,
    /// How long history and welcomes are kept.
    pub retention: RetentionSettings,
    /// What an acknowledged write survives, and what the store may use.
    pub durability: DurabilitySettings,
    /// When actors are written as snapshots and put to sleep.
    pub passivation: PassivationSettings,
    /// How it works with the gateways of other domains; without it, it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federation: Option<Federation>,
}

/// The listener for application servers, and what one request may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Internal {
    /// Where it listens; port 0 picks a free one. HTTP/1.1, over TLS when there is a certificate.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
    /// A PEM file with a certificate and the chain to it. Without one there is no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections at once on all threads. When one more comes, one that is idle is closed; a few beyond the limit are
    /// answered probes.
    pub connections_max: usize,
    /// Requests at once; more are answered 429.
    pub requests_in_flight_max: usize,
    /// The largest part that one token may hold of the connections, of the requests, and of the bytes of requests and
    /// answers, in percent.
    pub share_percent: u8,
    /// Largest body of one request, in bytes.
    pub request_bytes_max: usize,
    /// Bodies of all requests at once, in bytes; more are answered 429.
    pub requests_in_flight_bytes_max: usize,
    /// Answers that are not yet read, in bytes. Beyond it large answers wait until others are read, for half of
    /// `answer_read_timeout_s`, and are then 429.
    pub answers_unread_bytes_max: usize,
    /// Largest request line and header fields together, in bytes.
    pub header_bytes_max: usize,
    /// How long an idle connection is kept, in seconds.
    pub keep_alive_s: u64,
    /// How long a client may take for the header of a request, its first byte included, in seconds.
    pub request_header_timeout_s: u64,
    /// How long a client may take for the body of a request, in seconds.
    pub request_body_timeout_s: u64,
    /// How long a client may pause in reading an answer, in seconds.
    pub answer_read_timeout_s: u64,
    /// How long requests in flight may take to finish when the gateway stops, in seconds.
    pub shutdown_timeout_s: u64,
}

/// What a listener and the requests on it may use.
#[derive(Clone, Debug)]
pub(crate) struct ListenerLimits {
    pub(crate) workers: usize,
    pub(crate) connections_max: usize,
    pub(crate) requests_in_flight_max: usize,
    pub(crate) share_percent: u8,
    pub(crate) request_bytes_max: usize,
    pub(crate) requests_in_flight_bytes_max: usize,
    pub(crate) answers_unread_bytes_max: usize,
    pub(crate) header_bytes_max: usize,
    pub(crate) keep_alive_s: u64,
    pub(crate) request_header_timeout_s: u64,
    pub(crate) request_body_timeout_s: u64,
    pub(crate) answer_read_timeout_s: u64,
    pub(crate) shutdown_timeout_s: u64,
}

/// One application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationSettings {
    /// The draft's ApplicationID, a UUID of version 4 (*Applications*).
    pub id: AppId,
    /// Whether `GET /apps` shows it.
    #[serde(default)]
    pub public: bool,
    /// The domains of the gateways that it federates with.
    #[serde(default)]
    pub federates_with: BTreeSet<DomainName>,
    /// Who may use it.
    #[serde(default)]
    pub tokens: Vec<TokenSettings>,
    /// How its clients are identified; *Basic Identity Provider* when left out.
    #[serde(default)]
    pub identity_configuration: IdentityConfiguration,
    /// What it trusts; needed when its clients are identified by certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509: Option<X509Settings>,
}

/// One token of an application.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// The SHA-256 of the token.
    pub sha256: TokenHash,
    /// What it allows.
    pub access: TokenAccess,
}

impl PartialEq for TokenSettings {
    fn eq(&self, other: &Self) -> bool {
        self.access == other.access && bool::from(self.sha256.matches(&other.sha256))
    }
}

impl Eq for TokenSettings {}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenAccess {
    /// Only what changes nothing.
    Read,
    /// Everything.
    ReadWrite,
}

/// How long history and welcomes are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Epochs of one group.
    pub history_epochs_max: u64,
    /// Age of an epoch, in seconds.
    pub history_age_s_max: u64,
    /// Age of a welcome that nobody acknowledged, in seconds.
    pub welcome_age_s_max: u64,
    /// How long it is known that a key package was used, after its lifetime has ended, in seconds.
    pub expired_age_s_max: u64,
    /// How often what is older is dropped, in seconds.
    pub period_s: u64,
}

/// What an acknowledged write survives, and what the store may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DurabilitySettings {
    /// When a write is acknowledged.
    pub mode: DurabilityMode,
    /// What the store keeps in memory for reading, in bytes.
    pub cache_bytes: u64,
    /// Writes that may wait for the disk.
    pub queue_length_max: usize,
    /// Writes that may wait for the disk, in bytes.
    pub queue_bytes_max: usize,
    /// Largest single write, in bytes.
    pub batch_bytes_max: usize,
    /// How long the disk may take to write, in seconds. After that writes are answered 503 and the gateway is not ready, until
    /// the disk answers.
    pub write_timeout_s: u64,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DurabilityMode {
    /// When it is on the disk: it survives a loss of power.
    #[default]
    Sync,
    /// When the operating system has it: it survives a crash of the gateway, not of the machine.
    Buffer,
}

/// When actors are written as snapshots and put to sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassivationSettings {
    /// How long a group or key queue is idle before it is put to sleep, in seconds.
    pub after_s: u64,
    /// How often changed groups and key queues are written as snapshots, in seconds.
    pub snapshot_period_s: u64,
}

/// Where the gateway keeps what it acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// A directory, made when it is not there.
    Directory(PathBuf),
    /// `:memory:`: nothing is kept.
    Memory,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The text is not a configuration.
    #[error("{member}: {reason}")]
    Malformed {
        /// The member that is wrong, as a path: `applications[0].tokens[1].access`.
        member: String,
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
    /// [`ConfigError`] names the file, or the member that is wrong and what it may be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config = Self::decode(&text)?;
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        config.check()?;
        Ok(config)
    }

    /// Reads and checks a configuration. Relative paths in it are taken from the current directory.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the member that is wrong and what it may be.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config = Self::decode(text)?;
        config.check()?;
        Ok(config)
    }

    fn decode(text: &str) -> Result<Self, ConfigError> {
        let malformed = |member: String, error: &toml::de::Error| ConfigError::Malformed {
            member,
            reason: match error.span() {
                Some(span) => format!("{} (line {})", error.message(), line_of(text, span.start)),
                None => error.message().to_owned(),
            },
        };
        let deserializer =
            toml::Deserializer::parse(text).map_err(|error| malformed("not TOML".to_owned(), &error))?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let member = match error.path().to_string() {
                root if root == "." => "configuration".to_owned(),
                member => member,
            };
            malformed(member, error.inner())
        })
    }

    /// Takes the relative paths of files that the configuration names from its own directory.
    fn resolve_paths(&mut self, directory: &Path) {
        for path in [&mut self.internal.certificate, &mut self.internal.private_key].into_iter().flatten() {
            resolve(path, directory);
        }
        if let Some(federation) = &mut self.federation {
            federation.resolve_paths(directory);
        }
        for x509 in self.applications.iter_mut().filter_map(|application| application.x509.as_mut()) {
            x509.resolve(directory);
        }
    }

    /// Checks what types cannot say. [`Config::parse`] has done it.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the member that is wrong and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(self)
    }

    /// The applications as the actors take them, made from the files that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the member whose file cannot be used, and why.
    pub fn build_applications(&self) -> Result<Vec<Application>, ConfigError> {
        let placed = self.applications.iter().enumerate();
        placed
            .map(|(place, settings)| applications::build(self, settings, &applications::Place(place)))
            .collect()
    }

    /// The whole configuration as TOML, defaults included.
    ///
    /// # Errors
    /// None is known: every value here has a TOML form.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

impl ApplicationSettings {
    /// An application of the Basic identity provider that is not public.
    pub fn basic(id: AppId, tokens: Vec<TokenSettings>) -> Self {
        Self {
            id,
            public: false,
            federates_with: BTreeSet::new(),
            tokens,
            identity_configuration: IdentityConfiguration::default(),
            x509: None,
        }
    }

    /// An application whose clients are identified by certificates, and that is not public.
    pub fn x509(
        id: AppId,
        tokens: Vec<TokenSettings>,
        identity_configuration: IdentityConfiguration,
        x509: X509Settings,
    ) -> Self {
        Self { identity_configuration, x509: Some(x509), ..Self::basic(id, tokens) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: DataDir::Directory(PathBuf::from("data")),
            domains: BTreeSet::new(),
            log: "info,actix_server=warn,actix_http=off".to_owned(),
            actor_threads: cores(),
            internal: Internal::default(),
            applications: Vec::new(),
            limits: Limits::default(),
            retention: RetentionSettings::default(),
            durability: DurabilitySettings::default(),
            passivation: PassivationSettings::default(),
            federation: None,
        }
    }
}

impl Default for Internal {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            certificate: None,
            private_key: None,
            workers: cores(),
            connections_max: 10_000,
            requests_in_flight_max: 4096,
            share_percent: 75,
            request_bytes_max: 24 << 20,
            requests_in_flight_bytes_max: 512 << 20,
            answers_unread_bytes_max: 256 << 20,
            header_bytes_max: 32 << 10,
            keep_alive_s: 75,
            request_header_timeout_s: 10,
            request_body_timeout_s: 60,
            answer_read_timeout_s: 30,
            shutdown_timeout_s: 15,
        }
    }
}

impl Internal {
    /// Whether it speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.certificate.is_some()
    }

    /// Reads the certificate and its key, where there are any.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, ConfigError> {
        let refuse = |name: &str, reason: String| ConfigError::Malformed {
            member: format!("internal.{name}"),
            reason,
        };
        match (&self.certificate, &self.private_key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(refuse("private_key", "must be there with `certificate`".to_owned())),
            (None, Some(_)) => Err(refuse("certificate", "must be there with `private_key`".to_owned())),
            (Some(certificate), Some(key)) => {
                Credentials::read(certificate, key).map(Some).map_err(|error| {
                    let name = error.member();
                    refuse(name, error.to_string())
                })
            }
        }
    }

    /// What the listener may use.
    pub(crate) fn listener_limits(&self) -> ListenerLimits {
        ListenerLimits {
            workers: self.workers,
            connections_max: self.connections_max,
            requests_in_flight_max: self.requests_in_flight_max,
            share_percent: self.share_percent,
            request_bytes_max: self.request_bytes_max,
            requests_in_flight_bytes_max: self.requests_in_flight_bytes_max,
            answers_unread_bytes_max: self.answers_unread_bytes_max,
            header_bytes_max: self.header_bytes_max,
            keep_alive_s: self.keep_alive_s,
            request_header_timeout_s: self.request_header_timeout_s,
            request_body_timeout_s: self.request_body_timeout_s,
            answer_read_timeout_s: self.answer_read_timeout_s,
            shutdown_timeout_s: self.shutdown_timeout_s,
        }
    }
}

impl Default for RetentionSettings {
    fn default() -> Self {
        let store = actors::Retention::default();
        Self {
            history_epochs_max: store.history_epochs_max,
            history_age_s_max: store.history_age_max.as_secs(),
            welcome_age_s_max: store.welcome_age_max.as_secs(),
            expired_age_s_max: store.expired_age_max.as_secs(),
            period_s: 300,
        }
    }
}

impl Default for DurabilitySettings {
    fn default() -> Self {
        let store = actors::StoreOptions::default();
        Self {
            mode: DurabilityMode::Sync,
            cache_bytes: store.cache_bytes,
            queue_length_max: store.queue_length_max,
            queue_bytes_max: store.queue_bytes_max,
            batch_bytes_max: store.batch_bytes_max,
            write_timeout_s: store.stalled_after.as_secs(),
        }
    }
}

impl Default for PassivationSettings {
    fn default() -> Self {
        Self { after_s: 600, snapshot_period_s: 60 }
    }
}

impl fmt::Display for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Memory => f.write_str(MEMORY),
        }
    }
}

impl From<PathBuf> for DataDir {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == MEMORY { Self::Memory } else { Self::Directory(path) }
    }
}

impl Serialize for DataDir {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Directory(path) => path.serialize(serializer),
            Self::Memory => serializer.serialize_str(MEMORY),
        }
    }
}

impl<'de> Deserialize<'de> for DataDir {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(deserializer).map(Self::from)
    }
}

/// The `data_dir` that keeps nothing.
const MEMORY: &str = ":memory:";

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Takes a relative path from a directory.
fn resolve(path: &mut PathBuf, directory: &Path) {
    // An empty path is one that was not given.
    if !path.as_os_str().is_empty() {
        *path = directory.join(&*path);
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(|_| de::Error::custom("must be an IP address and a port, as 127.0.0.1:8080 or [::1]:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str, refusal: Option<(&str, &str)>) {
        match (Config::parse(toml), refusal) {
            (Ok(_), None) => {}
            (Err(ConfigError::Malformed { member, reason }), Some((expected, part))) => {
                assert_eq!(member, expected, "{toml}: {reason}");
                assert!(reason.contains(part), "{toml}: {reason}");
            }
            (outcome, _) => panic!("{toml}: {outcome:?}"),
        }
    }

    const APPLICATION: &str = r#"
        [[applications]]
        id = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11"
    "#;

    fn application(members: &str) -> String {
        format!("{APPLICATION}{members}")
    }

    /// An X.509 application with these parameters, and with what follows them.
    fn x509_application(flags: &str, parameters: &str, rest: &str) -> String {
        application(&format!(
            "[applications.identity_configuration]\nidentity_provider_type = 2\n{flags}\n\
             [applications.identity_configuration.parameters]\n{parameters}\n{rest}"
        ))
    }

    const TRUST: &str = "[applications.x509]\ntrust_roots = \"roots.pem\"";

    fn hash(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn an_empty_configuration_is_the_embedded_one() {
        assert_eq!(Config::parse("").unwrap(), Config::embedded());
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let text = application(&format!(
            "public = true\ntokens = [{{ sha256 = \"{}\", access = \"read\" }}]\n[internal]\nlisten = \"[::1]:0\"",
            hash('a')
        ));
        let config = Config::parse(&text).unwrap();
        let printed = config.to_toml().unwrap();
        assert_eq!(Config::parse(&printed).unwrap(), config, "{printed}");
        for member in [
            "request_bytes_max",
            "packet_bytes_max",
            "awake_bytes_max",
            "welcome_age_s_max",
            "snapshot_period_s",
            "mode",
        ] {
            assert!(printed.contains(member), "{member} is not printed");
        }
    }

    #[test]
    fn the_members_of_the_contract_are_read() {
        check(r#"data_dir = ":memory:""#, None);
        check(r#"domains = ["a.example"]"#, None);
        check("[internal]\nlisten = \"127.0.0.1:0\"", None);
        check(&application(""), None);
        check(
            &application(
                "[applications.identity_configuration]\nidentity_provider_type = 1\nsupports_accounts = false\n\
                 supports_domains = false\n[applications.identity_configuration.parameters]",
            ),
            None,
        );
    }

    #[test]
    fn a_wrong_member_is_named_with_what_it_may_be() {
        check("listen = 1", Some(("listen", "unknown field `listen`, expected one of `data_dir`")));
        check("data_dir = 1", Some(("data_dir", "expected path string (line 1)")));
        check("data_dir = \"\"", Some(("data_dir", "`:memory:`")));
        check("a = = 1", Some(("not TOML", "(line 1)")));
        check("domains = [\"-\"]", Some(("domains[0]", "DNS name")));
        check("log = \"mimi=loud\"", Some(("log", "RUST_LOG")));
        check("actor_threads = 0", Some(("actor_threads", "from 1 to")));
        check("[internal]\nlisten = \"localhost\"", Some(("internal.listen", "127.0.0.1:8080")));
        check("[internal]\nworkers = 0", Some(("internal.workers", "from 1 to")));
        check("[internal]\nrequest_bytes_max = -1", Some(("internal.request_bytes_max", "expected usize")));
        check(
            "[limits]\nclient_handle_bytes_max = 2000",
            Some(("limits.client_handle_bytes_max", "from 1 to 1024")),
        );
        check("[limits]\nawake_bytes_max = 1000", Some(("limits.awake_bytes_max", "from 1048576 to")));
        check("[limits]\npackets = 1", Some(("limits.packets", "unknown field")));
        check("[retention]\nperiod_s = 0", Some(("retention.period_s", "from 1 to")));
        check("[limits]\nwelcomes_per_client_max = 0", Some(("limits.welcomes_per_client_max", "from 1 to")));
        check(
            "[limits]\nwelcomes_per_client_max = 50\nwelcomes_reserved_max = 1",
            Some(("limits.welcomes_per_inviter_max", "from 1 to 50")),
        );
        check(
            "[limits]\nwelcomes_reserved_max = 101",
            Some(("limits.welcomes_reserved_max", "from 0 to 100")),
        );
        check("[durability]\nmode = \"none\"", Some(("durability.mode", "expected `sync` or `buffer`")));
        check("[passivation]\nafter_s = 0", Some(("passivation.after_s", "from 1 to")));
    }

    #[test]
    fn x509_applications_are_checked() {
        let parameters = |name: &str| format!("applications[0].identity_configuration.parameters{name}");
        let device = "device_handle_range = { start = 0, end = 0 }";
        let both = "supports_accounts = true\nsupports_domains = true";
        let offsets = |account: u8, domain: u8| {
            format!("{device}\naccount_handle_offset = {account}\ndomain_name_offset = {domain}")
        };
        let with_domains = |text: String| format!("domains = [\"a.example\"]\n{text}");

        check(&x509_application("", device, TRUST), None);
        check(&with_domains(x509_application(both, &offsets(1, 2), TRUST)), None);
        check(
            &x509_application(both, &offsets(1, 2), TRUST),
            Some(("domains", "applications[0] uses domains")),
        );
        check(&x509_application("", device, ""), Some(("applications[0].x509", "must be there")));
        check(&application(TRUST), Some(("applications[0].x509", "must be left out")));
        check(
            &x509_application("", device, "[applications.x509]"),
            Some(("applications[0].x509", "trust_roots")),
        );
        check(
            &x509_application("", device, &format!("{TRUST}\nexpired_members = \"keep\"")),
            Some(("applications[0].x509.expired_members", "expected one of `propose`, `refuse`, `ignore`")),
        );
        let above = |max: &str| format!("{TRUST}\ncertificates_above_names_max = {max}");
        check(&x509_application("", device, &above("0")), None);
        check(
            &x509_application("", device, &above("9")),
            Some(("applications[0].x509.certificates_above_names_max", "from 0 to 8")),
        );
        check(
            &x509_application("", device, &above("-1")),
            Some(("applications[0].x509.certificates_above_names_max", "expected usize")),
        );
        check(&with_domains(x509_application(both, &offsets(6, 7), TRUST)), None);
        check(
            &with_domains(x509_application(both, &offsets(1, 8), TRUST)),
            Some((&parameters(""), "limits.certificates_per_chain_max allows 8")),
        );
        check(
            &x509_application(
                "",
                "device_handle_range = { start = 0, end = 2 }",
                &format!("{TRUST}\n[limits]\ncertificates_per_chain_max = 2"),
            ),
            Some((&parameters(""), "the highest offset is 2")),
        );
        check(
            &x509_application("", "", TRUST),
            Some((&parameters(""), "missing field `device_handle_range`")),
        );
        check(
            &x509_application("", &format!("{device}\nhandle = 1"), TRUST),
            Some((&parameters(".handle"), "unknown field `handle`")),
        );
        check(
            &x509_application("", "device_handle_range = { start = 0, end = 256 }", TRUST),
            Some((&parameters(".device_handle_range.end"), "expected u8")),
        );
        check(
            &x509_application("", "device_handle_range = { start = 2, end = 1 }", TRUST),
            Some((&parameters(".device_handle_range.end"), "must not be before")),
        );
        check(
            &x509_application("supports_accounts = true", device, TRUST),
            Some((&parameters(".account_handle_offset"), "supports_accounts is true")),
        );
        check(
            &with_domains(x509_application(both, &offsets(0, 2), TRUST)),
            Some((&parameters(".account_handle_offset"), "greater than device_handle_range.end")),
        );
        check(
            &with_domains(x509_application("supports_domains = true", device, TRUST)),
            Some((&parameters(".domain_name_offset"), "supports_domains is true")),
        );
        check(
            &with_domains(x509_application("supports_domains = true", &offsets(9, 0), TRUST)),
            Some((&parameters(".domain_name_offset"), "greater than device_handle_range.end")),
        );
        check(
            &with_domains(x509_application(both, &offsets(2, 2), TRUST)),
            Some((&parameters(".domain_name_offset"), "greater than account_handle_offset")),
        );

        let federating = |domain: &str, flags: &str| {
            let text = x509_application(flags, &offsets(1, 2), TRUST);
            with_domains(text.replace("7e11\"", &format!("7e11\"\nfederates_with = [\"{domain}\"]")))
        };
        check(
            &federating("b.example", both),
            Some(("federation", "applications[0] federates with b.example")),
        );
        check(
            &federating("b.example", "supports_accounts = true"),
            Some(("applications[0].federates_with", "supports_domains")),
        );
        check(&federating("A.example", both), Some(("applications[0].federates_with", "this gateway's own")));
    }

    #[test]
    fn files_are_found_beside_the_configuration_and_judged_when_they_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        let device = "device_handle_range = { start = 0, end = 0 }";
        let refused = |rest: &str| {
            std::fs::write(&file, x509_application("", device, rest)).unwrap();
            match Config::read(&file).unwrap().build_applications() {
                Err(ConfigError::Malformed { member, reason }) => format!("{member}: {reason}"),
                outcome => panic!("{outcome:?}"),
            }
        };
        let roots = directory.path().join("roots.pem");
        let message = refused(TRUST);
        assert!(message.starts_with("applications[0].x509.trust_roots: "), "{message}");
        assert!(message.contains(roots.to_str().unwrap()), "{message}");
        std::fs::write(&roots, "nothing").unwrap();
        assert!(refused(TRUST).starts_with("applications[0].x509.trust_roots: "));

        let key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(&roots, root.self_signed(&key).unwrap().pem()).unwrap();
        let sender = |private_key: &str| {
            format!("{TRUST}\nexternal_senders = [{{ private_key = \"{private_key}\" }}]")
        };
        let missing = refused(&sender("missing.key"));
        assert!(missing.starts_with("applications[0].x509.external_senders[0].private_key: "), "{missing}");
        assert!(refused(&sender("roots.pem")).contains("PKCS#8"));
        let crl = refused(&format!("{TRUST}\ncrls = [\"crl.pem\"]"));
        assert!(crl.starts_with("applications[0].x509.crls[0]: "), "{crl}");

        std::fs::write(directory.path().join("sender.key"), key.serialize_pem()).unwrap();
        std::fs::write(&file, x509_application("", device, &sender("sender.key"))).unwrap();
        let config = Config::read(&file).unwrap();
        let printed = config.to_toml().unwrap();
        assert_eq!(Config::parse(&printed).unwrap(), config, "{printed}");
        let built = config.build_applications().unwrap();
        assert_eq!(built[0].external_senders[0].public_key(), key.public_key_raw());
        // ecdsa_secp256r1_sha256 in the registry of TLS.
        assert_eq!(built[0].external_senders[0].scheme(), 0x0403);
    }

    #[test]
    fn applications_are_checked() {
        let member = |name: &str| format!("applications[0].{name}");
        let identity = |name: &str| format!("applications[0].identity_configuration.{name}");
        check("[[applications]]\nid = \"1\"", Some((&member("id"), "not a UUID of version 4")));
        for other in ["7c0c7b44-5a0f-1a43-9a51-0a9f6b9c7e11", "7c0c7b44-5a0f-4a43-ca51-0a9f6b9c7e11"] {
            let text = format!("[[applications]]\nid = \"{other}\"");
            check(&text, Some((&member("id"), "not a UUID of version 4")));
        }
        check("[[applications]]\npublic = true", Some(("applications[0]", "missing field `id`")));
        check(&application(APPLICATION), Some(("applications[1].id", "already")));
        check(
            &application("[applications.identity_configuration]\nidentity_provider_type = 3"),
            Some((&identity("identity_provider_type"), "1 (Basic) or 2 (X.509)")),
        );
        check(
            &application(
                "[applications.identity_configuration]\nidentity_provider_type = 1\nsupports_domains = true",
            ),
            Some((&identity("supports_domains"), "must be false")),
        );
        check(
            &application(
                "[applications.identity_configuration]\nidentity_provider_type = 1\nparameters = { depth = 1 }",
            ),
            Some((&identity("parameters"), "must be empty")),
        );
        check(
            &application("federates_with = [\"b.example\"]"),
            Some((&member("federates_with"), "supports_domains")),
        );
        check(
            &application("tokens = [{ sha256 = \"ab\", access = \"read\" }]"),
            Some((&member("tokens[0].sha256"), "64 hexadecimal digits")),
        );
        check(
            &application(&format!("tokens = [{{ sha256 = \"{}\", access = \"write\" }}]", hash('a'))),
            Some((&member("tokens[0].access"), "expected `read` or `read-write`")),
        );
        let token = format!("{{ sha256 = \"{}\", access = \"read\" }}", hash('a'));
        check(
            &application(&format!("tokens = [{token}, {token}]")),
            Some((&member("tokens[1].sha256"), "already")),
        );
    }
}
