//! Reloading: tokens, certificates, trust roots and revocation lists of a running gateway.
//!
//! All files are read and checked first, and then everything is replaced, which cannot fail: a broken file changes nothing.
//! Connections stay open. Each keeps the TLS with which it began, and the next request on it is checked by the new tokens.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actors::{Application, Clock};
use toml::{Table, Value};

use super::{
    Running, StartError,
    listeners::{ListenerTls, federation_tls, internal_tls},
    watched_files::WatchedFiles,
};
use crate::{
    config::{ApplicationSettings, Config, FederationSettings, FederationTls, Pem},
    default_application::DefaultApplication,
    metrics::ReloadCounts,
    token::TokenHash,
};

/// The parts of a running gateway from which it can be reloaded.
pub(super) struct Reloadable {
    /// The configuration of the start.
    pub(super) config: Config,
    /// The applications of the configuration.
    pub(super) applications: Vec<Application>,
    pub(super) clock: Clock,
    latest: Mutex<Latest>,
    pub(super) counts: Arc<ReloadCounts>,
}

/// The latest configuration that was taken, and its files as they were before they were last read.
#[derive(Clone)]
struct Latest {
    config: Config,
    files: WatchedFiles,
}

impl Reloadable {
    /// The parts of a gateway that has read these files of its configuration.
    pub(super) fn new(
        config: Config,
        files: WatchedFiles,
        applications: Vec<Application>,
        clock: Clock,
    ) -> Self {
        let counts = Arc::new(ReloadCounts::new(clock.now()));
        let latest = Mutex::new(Latest { config: config.clone(), files });
        Self { config, applications, clock, latest, counts }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of a configuration, read and checked.
struct Prepared {
    applications: Vec<Application>,
    internal: Option<ListenerTls>,
    federation: Option<(FederationTls, ListenerTls)>,
}

impl Prepared {
    fn read(config: &Config, clock: &Clock) -> Result<Self, StartError> {
        config.check()?;
        let applications = config.build_applications()?;
        let internal = config.internal.credentials()?.map(|identity| internal_tls(&identity)).transpose()?;
        let federation = match &config.federation {
            None => None,
            Some(settings) => {
                let tls = settings.tls()?;
                let of_listener = federation_tls(&tls)?;
                Some((tls, of_listener))
            }
        };
        for warning in config.warnings(&applications, clock.now())? {
            tracing::warn!("{warning}");
        }
        Ok(Self { applications, internal, federation })
    }
}

/// Reads files on a thread of its own, which nobody waits for when the gateway stops: a file may hang.
pub(crate) async fn apart<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (done, result) = tokio::sync::oneshot::channel();
    let run = move || drop(done.send(read()));
    std::thread::Builder::new().name("reload".to_owned()).spawn(run).map_err(|error| error.to_string())?;
    result.await.map_err(|_| "reading the files has failed; see the log".to_owned())
}

impl Running {
    /// Takes tokens, certificates, trust roots and revocation lists from a configuration that was read again. Returns the
    /// settings that differ and need a restart, by their paths. It may be dropped before it ends: everything is replaced at
    /// once, or nothing.
    ///
    /// # Errors
    /// [`StartError`] states the obstacle; nothing has changed then.
    pub async fn reload(&self, next: Config) -> Result<Vec<String>, StartError> {
        let reloaded = self.replace(next).await;
        self.count_reload(reloaded.is_ok());
        reloaded
    }

    /// Reads the files of certificates, keys, trust roots and revocation lists again if one of them has changed since they were
    /// last read, and then does as [`Self::reload`] does with the latest configuration. Returns whether one has changed.
    ///
    /// # Errors
    /// [`StartError`] states the obstacle; nothing has changed then, and nothing is tried again before another change.
    pub async fn reload_changed(&self) -> Result<bool, StartError> {
        let Latest { config, mut files } = self.reloadable.latest().clone();
        if files.is_empty() {
            return Ok(false);
        }
        let looked = apart(move || (files.look_again(), files)).await;
        let (is_changed, files) = looked.map_err(StartError::Settings)?;
        self.reloadable.latest().files = files;
        if is_changed {
            self.reload(config).await?;
        }
        Ok(is_changed)
    }

    /// Counts a reload that failed before it reached [`Self::reload`], or one of that.
    pub(crate) fn count_reload(&self, is_ok: bool) {
        self.reloadable.counts.count(is_ok, self.reloadable.clock.now());
    }

    async fn replace(&self, next: Config) -> Result<Vec<String>, StartError> {
        let Reloadable { config: present, applications: running, clock, .. } = &self.reloadable;
        if next.applications.is_empty() && !present.applications.is_empty() {
            return Err(StartError::Settings(
                "the configuration has no applications any more; it may be half written".to_owned(),
            ));
        }
        let config = with_reloadable(present, &next);
        let (read, clock) = (config.clone(), clock.clone());
        let prepared = apart(move || {
            // Before the files are read, so that no change after that is missed.
            let files = WatchedFiles::new(read.reloaded_files());
            (files, Prepared::read(&read, &clock))
        });
        let (files, prepared) = prepared.await.map_err(StartError::Settings)?;
        let Prepared { applications: built, internal, federation } = prepared?;
        let mut applications = config.applications.clone();
        applications.extend(self.default_application.as_ref().map(DefaultApplication::settings));
        let named = config.operator.as_ref().map_or(&[][..], |operator| &operator.tokens);
        // A gateway that has made its own token for operators keeps it until others are named.
        let operators = if named.is_empty() { self.made_for_operators.as_slice() } else { named };
        let peers = match (&self.federation, &federation) {
            (Some(present), Some((tls, _))) => {
                Some(present.prepare_tls(tls).map_err(|error| StartError::Federation(error.to_string()))?)
            }
            (_, _) => None,
        };
        let tokens = self.book.lock().await;
        if let Some(place) = operators.iter().position(|token| {
            tokens.is_made(&token.sha256) || is_of_applications(&applications, &token.sha256)
        }) {
            return Err(StartError::SharedToken { place });
        }

        // Nothing fails or waits from here on.
        tokens.replace_given(&applications);
        if let (Some(present), Some(newer)) = (&self.listeners.internal_tls, &internal) {
            present.take(newer);
        }
        if let (Some(present), Some((_, newer))) = (&self.listeners.federation_tls, &federation) {
            present.take(newer);
        }
        if let Some(peers) = peers {
            peers.apply();
        }
        for application in running {
            if let Some(newer) = built.iter().find(|newer| newer.id == application.id) {
                application.identity.take_trust(&*newer.identity);
            }
        }
        if let Some(federation) = &self.federation {
            federation.take_trust(running);
        }
        self.gateway.trust_changed();
        if let Some(listener) = &self.listeners.operator {
            listener.authority().replace_tokens(operators);
        }
        let differing = needing_restart(present, &next);
        *self.reloadable.latest() = Latest { config: next, files };
        Ok(differing)
    }
}

fn is_of_applications(applications: &[ApplicationSettings], hash: &TokenHash) -> bool {
    let mut tokens = applications.iter().flat_map(|application| &application.tokens);
    tokens.any(|token| bool::from(token.sha256.matches(hash)))
}

/// The configuration of the start with what a reload takes from the next one.
fn with_reloadable(present: &Config, next: &Config) -> Config {
    let mut config = present.clone();
    config.log.clone_from(&next.log);
    if config.internal.has_tls() && next.internal.has_tls() {
        config.internal.certificate.clone_from(&next.internal.certificate);
        config.internal.private_key.clone_from(&next.internal.private_key);
    }
    if let (Some(federation), Some(next)) = (&mut config.federation, &next.federation) {
        federation.certificate.clone_from(&next.certificate);
        federation.private_key.clone_from(&next.private_key);
        federation.ca.clone_from(&next.ca);
    }
    if let Some(operator) = &mut config.operator {
        operator.tokens = next.operator.as_ref().map(|next| next.tokens.clone()).unwrap_or_default();
    }
    for application in &mut config.applications {
        let next = next.applications.iter().find(|next| next.id == application.id);
        application.tokens = next.map(|next| next.tokens.clone()).unwrap_or_default();
        if let (Some(x509), Some(next)) = (&mut application.x509, next.and_then(|next| next.x509.as_ref())) {
            x509.trust_roots.clone_from(&next.trust_roots);
            x509.crls.clone_from(&next.crls);
            x509.crl_issuers.clone_from(&next.crl_issuers);
        }
    }
    config
}

/// The settings that differ, without those that are reloaded.
fn needing_restart(present: &Config, next: &Config) -> Vec<String> {
    let (mut present, mut next) = (settings(present), settings(next));
    // A table that comes or goes is one difference.
    for table in ["federation", "operator", "traces"] {
        let is_inside = |path: &String| path.split('.').next() == Some(table);
        if present.keys().any(is_inside) != next.keys().any(is_inside) {
            present.retain(|path, _| !is_inside(path));
            next.retain(|path, _| !is_inside(path));
            next.insert(table.to_owned(), Value::Boolean(true));
        }
    }
    let differs = |path: &&String| present.get(*path) != next.get(*path);
    let mut paths: Vec<&String> = present.keys().chain(next.keys()).filter(differs).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().cloned().collect()
}

/// The values that need a restart, by their paths.
fn settings(config: &Config) -> BTreeMap<String, Value> {
    let mut config = config.clone();
    config.log = String::new();
    if let Some(operator) = &mut config.operator {
        operator.tokens.clear();
    }
    // Whether there is TLS cannot be changed; which files it comes from can.
    let any = |path: &mut PathBuf| *path = PathBuf::new();
    config.internal.certificate.iter_mut().chain(&mut config.internal.private_key).for_each(any);
    if let Some(FederationSettings { certificate, private_key, ca, .. }) = &mut config.federation {
        [certificate, private_key, ca].into_iter().for_each(any);
    }
    let mut found = BTreeMap::new();
    for ApplicationSettings { id, tokens, x509, .. } in &mut config.applications {
        tokens.clear();
        if let Some(x509) = x509 {
            x509.trust_roots = Pem::new("");
            x509.crls.clear();
            x509.crl_issuers = None;
        }
        found.insert(format!("applications[{id}]"), Value::Boolean(true));
    }
    let applications = std::mem::take(&mut config.applications);
    collect(&mut found, "", Table::try_from(&config).unwrap_or_default());
    for application in &applications {
        let at = format!("applications[{}].", application.id);
        collect(&mut found, &at, Table::try_from(application).unwrap_or_default());
    }
    found
}

/// Collects the values of a table and of those in it, by their paths.
fn collect(found: &mut BTreeMap<String, Value>, at: &str, table: Table) {
    for (name, value) in table {
        let path = format!("{at}{name}");
        if let Value::Table(inner) = value {
            collect(found, &format!("{path}."), inner);
        } else {
            found.insert(path, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two applications, and TLS.
    const FILE: &str = r#"
        log = "info"
        [limits]
        group_members_max = 100
        [operator]
        listen = "127.0.0.1:0"
        tokens = [{ sha256 = "00000000000000000000000000000000000000000000000000000000000000aa", access = "read" }]
        [[applications]]
        id = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11"
        tokens = [{ sha256 = "00000000000000000000000000000000000000000000000000000000000000bb", access = "read" }]
        [[applications]]
        id = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e12"
        tokens = []
    "#;

    fn check(from: &str, to: &str, expected: &[&str]) {
        assert!(FILE.contains(from), "{from}");
        let (present, next) = (Config::parse(FILE).unwrap(), Config::parse(&FILE.replace(from, to)).unwrap());
        assert_eq!(needing_restart(&present, &next), expected, "{to}");
        assert_eq!(needing_restart(&present, &present), [""; 0]);
    }

    #[test]
    fn settings_that_need_a_restart_are_named() {
        check("\"info\"", "\"debug\"", &[]);
        check("00aa\", access = \"read\"", "00ac\", access = \"read-write\"", &[]);
        check("00bb\"", "00bc\"", &[]);
        check("= 100", "= 200", &["limits.group_members_max"]);
        check("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:1\"", &["operator.listen"]);
        check(
            "\n        tokens = []",
            "\n        public = true",
            &["applications[7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e12].public"],
        );
        let gone = "applications[7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e12]";
        let found = {
            let end = FILE.rfind("[[applications]]").unwrap();
            let (present, next) = (Config::parse(FILE).unwrap(), Config::parse(&FILE[..end]).unwrap());
            needing_restart(&present, &next)
        };
        assert!(
            found.contains(&gone.to_owned()) && found.iter().all(|path| path.starts_with(gone)),
            "{found:?}"
        );
    }
}
