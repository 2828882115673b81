//! Reloading: tokens, certificates, trust roots and revocation lists of a running gateway.
//!
//! All files are read and checked first, and then everything is replaced, which cannot fail: a broken file changes nothing.
//! Connections stay open. Each keeps the TLS with which it began, and the next request on it is checked by the new tokens.

use std::{collections::BTreeMap, path::PathBuf};

use actors::{Application, Clock};
use toml::{Table, Value};

use super::{
    Running, StartError,
    listeners::{ListenerTls, federation_tls, internal_tls},
};
use crate::{
    config::{ApplicationSettings, Config, FederationSettings, FederationTls, Pem},
    default_application::DefaultApplication,
};

/// The parts of a running gateway from which it can be reloaded.
pub(super) struct Reloadable {
    /// The configuration of the start.
    pub(super) config: Config,
    /// The applications of the configuration.
    pub(super) applications: Vec<Application>,
    pub(super) clock: Clock,
}

/// A configuration that was read again, with what its files hold.
struct Prepared {
    config: Config,
    applications: Vec<Application>,
    internal: Option<ListenerTls>,
    federation: Option<(FederationTls, ListenerTls)>,
}

impl Prepared {
    /// Reads and checks the files.
    fn read(config: Config, clock: &Clock) -> Result<Self, StartError> {
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
        Ok(Self { config, applications, internal, federation })
    }
}

impl Running {
    /// Takes tokens, certificates, trust roots and revocation lists from a configuration that was read again. Returns the
    /// settings that differ and need a restart, by their paths.
    ///
    /// # Errors
    /// [`StartError`] states the obstacle; nothing has changed then.
    pub async fn reload(&self, next: Config) -> Result<Vec<String>, StartError> {
        let clock = self.reloadable.clock.clone();
        let read = tokio::task::spawn_blocking(move || Prepared::read(next, &clock)).await;
        let Prepared { config: next, applications: built, internal, federation } =
            read.map_err(|panic| StartError::Settings(panic.to_string()))??;
        self.check_operators(&next).await?;
        let peers = match (&self.federation, &federation) {
            (Some(present), Some((tls, _))) => {
                Some(present.prepare_tls(tls).map_err(|error| StartError::Federation(error.to_string()))?)
            }
            (_, _) => None,
        };

        // Nothing fails from here on.
        if let (Some(present), Some(newer)) = (&self.listeners.internal_tls, &internal) {
            present.take(newer);
        }
        if let (Some(present), Some((_, newer))) = (&self.listeners.federation_tls, &federation) {
            present.take(newer);
        }
        if let Some(peers) = peers {
            peers.apply();
        }
        for application in &self.reloadable.applications {
            if let Some(newer) = built.iter().find(|newer| newer.id == application.id) {
                application.identity.take_trust(&*newer.identity);
            }
        }
        let mut applications = next.applications.clone();
        applications.extend(self.default_application.as_ref().map(DefaultApplication::settings));
        self.book.replace_given(&applications).await;
        if let (Some(listener), Some(settings)) = (&self.listeners.operator, &next.operator) {
            // A gateway that has made its own token for operators keeps it.
            if self.default_application.is_none() || !settings.tokens.is_empty() {
                listener.authority().replace_tokens(&settings.tokens);
            }
        }
        Ok(needing_restart(&self.reloadable.config, &next))
    }

    /// Checks that no token is both an application's and an operator's.
    async fn check_operators(&self, next: &Config) -> Result<(), StartError> {
        let operators = next.operator.iter().flat_map(|operator| &operator.tokens);
        for (place, token) in operators.enumerate() {
            let mut of_applications = next.applications.iter().flat_map(|application| &application.tokens);
            let is_configured = of_applications.any(|other| bool::from(other.sha256.matches(&token.sha256)));
            if is_configured || self.book.is_made(&token.sha256).await {
                return Err(StartError::SharedToken { place });
            }
        }
        Ok(())
    }
}

/// The settings that differ, without those that are reloaded.
fn needing_restart(present: &Config, next: &Config) -> Vec<String> {
    let (present, next) = (settings(present), settings(next));
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
