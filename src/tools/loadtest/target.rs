//! The gateway under load: an existing one, or one started for the run.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use actors::AppId;
use tempfile::TempDir;

use super::{
    During as _, ToolError, cleanup::Traces, options::TargetOptions, pool::ConnectionPool, stop::Stop,
};
use crate::{
    api::clients::PageQuery,
    client::RequestError,
    config::{ApplicationSettings, Config, DataDir, DurabilityMode, TokenAccess, TokenSettings},
    serve::{self, Running},
    token::Token,
};

/// The environment variable of the token, if the command line has none.
const TOKEN_VARIABLE: &str = "MIMI_TOKEN";

/// The number of epochs of a group that the started gateway keeps: more than any run makes.
const HISTORY_EPOCHS: u64 = 1 << 40;
/// The time for which it keeps them, in seconds: 30 days; the longest run is one day.
const HISTORY_AGE_S: u64 = 30 * 24 * 3600;

/// A gateway to load.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) app: AppId,
    pub(super) token: Token,
    /// Its properties, for readers of the figures.
    pub(super) about: String,
    /// Ends the load.
    pub(super) stop: Stop,
    /// What is made at it.
    pub(super) traces: Traces,
}

impl Target {
    /// The host and port of its URL.
    pub(super) fn address(&self) -> &str {
        self.url.trim_start_matches("http://").trim_end_matches('/')
    }

    /// The gateway of the options; `None` if they name none.
    pub(super) fn named(options: &TargetOptions, stop: &Stop) -> Result<Option<Self>, ToolError> {
        let (Some(url), Some(app)) = (&options.url, options.app) else { return Ok(None) };
        let token = options.token.clone().or_else(|| std::env::var(TOKEN_VARIABLE).ok());
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Err(ToolError::Options(format!(
                "--url needs a read-write token of the application: in {TOKEN_VARIABLE}, or with --token"
            )));
        };
        // The reports and the messages show it.
        if url.contains(['@', '?', '#']) {
            return Err(ToolError::Options(
                "--url must hold no password and no query: the token is all that the gateway asks for".into(),
            ));
        }
        let is_http = url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty());
        if !is_http {
            return Err(ToolError::Options(format!(
                "--url {url}: must begin with http://, as the gateway's internal listener does"
            )));
        }
        let about = "a gateway that was running already".to_owned();
        let (token, stop) = (Token::new(token), stop.clone());
        Ok(Some(Self { url: url.clone(), app, token, about, stop, traces: Traces::default() }))
    }

    /// Checks that the gateway answers, and knows the application and the token.
    pub(super) async fn probe(&self) -> Result<(), ToolError> {
        let pool = ConnectionPool::new(self, 1)?;
        let answer = pool.request(pool.api.groups(&PageQuery::default())).await;
        let unusable = |reason: String| Err(ToolError::Unusable(reason));
        match answer {
            Ok(_) => Ok(()),
            Err(RequestError::Transport(error)) if error.is_connect() || error.is_timeout() => unusable(
                format!("no gateway answers at {}: is it running, and is the address right?", self.url),
            ),
            Err(RequestError::Problem(problem)) if matches!(problem.status, 401 | 403) => unusable(format!(
                "the gateway at {} refuses the token for application {}: {}",
                self.url, self.app, problem.detail
            )),
            Err(
                error @ (RequestError::Transport(_)
                | RequestError::Problem(_)
                | RequestError::Unexpected { .. }),
            ) => Err(error).during("asking the gateway for its groups"),
        }
    }
}

/// A gateway in this process, with synced writes in a directory that is removed afterwards.
pub(super) struct OwnGateway {
    running: Running,
    app: AppId,
    token: Token,
    directory: TempDir,
}

impl OwnGateway {
    /// Starts it; its directory is created inside `inside`.
    pub(super) async fn start(config: Config, inside: Option<&Path>) -> Result<Self, ToolError> {
        let inside = inside.map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = tempfile::Builder::new()
            .prefix("mimi-loadtest-")
            .tempdir_in(&inside)
            .map_err(ToolError::system(inside.display()))?;
        let token = Token::generate().map_err(serve::StartError::from)?;
        let app = AppId::random();
        let only = ApplicationSettings::basic(
            app,
            vec![TokenSettings { sha256: token.hash(), access: TokenAccess::ReadWrite }],
        );
        let running = serve::start(alone(config, directory.path().join("data"), only)).await?;
        Ok(Self { running, app, token, directory })
    }

    pub(super) fn target(&self, stop: Stop) -> Target {
        let place = self.directory.path().display().to_string();
        let system = file_system(self.directory.path()).unwrap_or_else(|| "an unknown file system".into());
        Target {
            url: self.running.base_url(),
            app: self.app,
            token: self.token.clone(),
            about: format!("a gateway in this process, durable writes in {place} ({system})"),
            stop,
            traces: Traces::default(),
        }
    }

    pub(super) async fn stop(self) {
        self.running.stop().await;
    }
}

/// The configuration's threads and limits, for a gateway with one application, plain HTTP, no peers, synced writes, and the
/// whole history of a run.
fn alone(mut config: Config, directory: PathBuf, only: ApplicationSettings) -> Config {
    config.federation = None;
    config.operator = None;
    config.domains = BTreeSet::new();
    config.applications = Vec::new();
    config.internal.certificate = None;
    config.internal.private_key = None;
    config.durability.mode = DurabilityMode::Sync;
    config.retention.history_epochs_max = HISTORY_EPOCHS;
    config.retention.history_age_s_max = HISTORY_AGE_S;
    config.retention.welcome_age_s_max = HISTORY_AGE_S;
    config.retention.period_s = HISTORY_AGE_S;
    config
        .listening_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .kept_in(DataDir::Directory(directory))
        .with_application(only)
}

/// The type of the file system of a path, if the system tells.
fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (place, kind) = (fields.nth(1)?, fields.next()?);
        path.starts_with(place).then_some((place.len(), kind))
    });
    let (_, kind) = mounted.max_by_key(|(length, _)| *length)?;
    let warning = if kind == "tmpfs" { ", which is memory: nothing is synced" } else { "" };
    Some(format!("{kind}{warning}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_gateway_is_alone_and_keeps_everything() {
        let config = Config::parse(
            r#"
            domains = ["a.example"]
            [internal]
            workers = 3
            [durability]
            mode = "buffer"
            [retention]
            history_epochs_max = 5
            history_age_s_max = 1
            period_s = 1
            "#,
        );
        let mut config = config.unwrap();
        config.internal.certificate = Some("no.pem".into());
        config.internal.private_key = Some("no.key".into());
        config.federation = Some(crate::config::FederationSettings::default());
        let app = AppId::random();
        let config = alone(config, "data".into(), ApplicationSettings::basic(app, Vec::new()));
        assert_eq!((config.durability.mode, config.internal.listener.workers), (DurabilityMode::Sync, 3));
        assert_eq!((config.federation.is_none(), config.internal.has_tls()), (true, false));
        assert_eq!(config.applications.iter().map(|only| only.id).collect::<Vec<_>>(), [app]);
        assert!(config.retention.history_epochs_max > 1_000_000_000);
        assert!(config.retention.history_age_s_max.min(config.retention.period_s) > 24 * 3600);
        config.check().unwrap();
    }
}
