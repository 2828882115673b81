//! Starting a gateway in this process, and stopping it without losing acknowledged writes.

mod listeners;
pub(crate) mod reload;
mod watched_files;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::rt::task::JoinHandle;
use actors::{Application, Clock, Gateway, GatewayOptions, Store, Transport};

use self::{
    listeners::{BoundListeners, Listeners, fit_connections, operator_tokens, shutdown_timeout},
    reload::Reloadable,
    watched_files::WatchedFiles,
};
use crate::{
    api::{
        applications::ApplicationConfiguration,
        federation::{GatewayDescription, VERSION},
    },
    backups::Backups,
    config::{ApplicationSettings, Config, TokenSettings},
    default_application::{DefaultApplication, cursor_key},
    federation::{Federation, HttpsTransport},
    http::{callers::ListenerShares, cursor::Cursors, edge::Served, token_book::TokenBook},
    tls,
    token::Token,
};

pub use crate::start_error::StartError;

/// A running gateway. Dropping it does not stop it.
pub struct Running {
    default_application: Option<DefaultApplication>,
    gateway: Gateway,
    store: Store,
    listeners: Listeners,
    federation: Option<Arc<Federation>>,
    book: Arc<TokenBook>,
    backups: Arc<Backups>,
    /// The task that makes backups at intervals.
    making_backups: JoinHandle<()>,
    reloadable: Reloadable,
    operator_token: Option<Token>,
    /// The token that the gateway made for operators, if it uses one.
    made_for_operators: Vec<TokenSettings>,
    is_draining: Arc<AtomicBool>,
    shutdown_delay: Duration,
    stop_step: StopStep,
    shutdown_timeout: Duration,
}

/// The present step of a stopping gateway. Clones share it.
#[derive(Clone, Debug)]
pub struct StopStep(Arc<Mutex<&'static str>>);

impl StopStep {
    fn new() -> Self {
        Self(Arc::new(Mutex::new("the gateway")))
    }

    fn set(&self, step: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// The part that must end next, as text.
    pub fn get(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The least time for stopping in addition to that of the requests in flight: idle connections have this long.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Starts a gateway, inside a running actix system. When it returns, requests are answered.
///
/// # Errors
/// [`StartError`] states the obstacle and the remedy.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_with_clock(config, Clock::system()).await
}

/// As [`start`], for a gateway without a configuration: if the operators' address is in use, their listener gets a free port.
///
/// # Errors
/// [`StartError`] states the obstacle and the remedy.
pub async fn start_embedded(config: Config) -> Result<Running, StartError> {
    start_as(config, Clock::system(), true).await
}

/// As [`start`], with another clock, by which packets are validated and stamped.
///
/// # Errors
/// [`StartError`] states the obstacle and the remedy.
pub async fn start_with_clock(config: Config, clock: Clock) -> Result<Running, StartError> {
    start_as(config, clock, false).await
}

async fn start_as(mut config: Config, clock: Clock, may_move: bool) -> Result<Running, StartError> {
    tls::install_provider();
    config.check()?;
    let given = config.clone();
    // Before the files are read, so that no change after that is missed.
    let files = WatchedFiles::new(config.reloaded_files());
    fit_connections(&mut config)?;
    let mut built = config.build_applications()?;
    for warning in config.warnings(&built, clock.now())? {
        tracing::warn!("{warning}");
    }
    // Before the store is opened, so that a busy address changes nothing on disk.
    let bound = BoundListeners::open(&config, may_move)?;
    let options = config.store_options();
    let store = match tokio::task::spawn_blocking(move || Store::open(&options)).await {
        Ok(opened) => opened?,
        Err(panic) => return Err(StartError::Settings(panic.to_string())),
    };
    let cursors =
        Cursors::new(&cursor_key(&store)?).map_err(|error| StartError::Settings(error.to_string()))?;
    let default_application =
        if config.applications.is_empty() { Some(DefaultApplication::load_or_create(&store)?) } else { None };
    let mut applications = config.applications.clone();
    applications.extend(default_application.as_ref().map(DefaultApplication::settings));
    built.extend(default_application.as_ref().map(|application| Application::basic(application.id)));
    let book = TokenBook::open(&store, &applications, ListenerShares::new(&config.internal.listener))?;
    let makes_token = default_application.is_some();
    let operators = config.operator.as_ref();
    let operators =
        operators.map(|settings| operator_tokens(settings, makes_token, &book, &store)).transpose()?;
    let (tokens_of_operators, operator_token) = operators.unwrap_or_default();
    let is_configured = config.operator.as_ref().is_some_and(|operator| !operator.tokens.is_empty());
    let made_for_operators = if is_configured { Vec::new() } else { tokens_of_operators.clone() };

    let federation = bound.federation(&applications)?;
    if let Some(federation) = &federation {
        federation.take_trust(&built);
    }
    let backups = Arc::new(Backups::open(&config, &store, clock.clone()));
    let reloadable = Reloadable::new(given, files, built.clone(), clock.clone());
    let mut options = gateway_options(&config, built, clock);
    options.transport =
        federation.clone().map(|federation| Arc::new(HttpsTransport(federation)) as Arc<dyn Transport>);
    let gateway = Gateway::start(options, store.clone());
    let is_draining = Arc::new(AtomicBool::new(false));
    let served = Served {
        gateway: gateway.clone(),
        cursors: Arc::new(cursors),
        public_applications: public(&applications),
        description: Arc::new(GatewayDescription {
            domains: config.domains.clone(),
            federation: federation.as_ref().map(|federation| federation.url.clone()),
            versions: vec![VERSION],
        }),
        federation: federation.clone(),
        is_draining: Arc::clone(&is_draining),
        reloads: Arc::clone(&reloadable.counts),
    };
    let listeners =
        bound.serve(served, (Arc::clone(&book), Arc::clone(&backups)), &tokens_of_operators).await?;
    let making_backups = actix_web::rt::spawn(Arc::clone(&backups).run());
    let delay_s = config.operator.as_ref().map_or(0, |operator| operator.shutdown_delay_s);
    Ok(Running {
        default_application,
        gateway,
        store,
        listeners,
        federation,
        book,
        backups,
        making_backups,
        reloadable,
        operator_token,
        made_for_operators,
        is_draining,
        shutdown_delay: Duration::from_secs(delay_s),
        stop_step: StopStep::new(),
        shutdown_timeout: shutdown_timeout(&config),
    })
}

impl Running {
    /// The address of the listener for application servers.
    pub fn address(&self) -> SocketAddr {
        self.listeners.internal.address
    }

    /// The base URL for application servers.
    pub fn base_url(&self) -> String {
        let scheme = if self.listeners.internal.has_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.listeners.internal.address)
    }

    /// The address of the listener for other gateways, if it federates.
    pub fn federation_address(&self) -> Option<SocketAddr> {
        self.listeners.federation.as_ref().map(|listener| listener.address)
    }

    /// The address of the listener for operators, if there is one.
    pub fn operator_address(&self) -> Option<SocketAddr> {
        self.listeners.operator.as_ref().map(|listener| listener.address)
    }

    /// The token of operators, if this start made it.
    pub fn operator_token(&self) -> Option<&Token> {
        self.operator_token.as_ref()
    }

    /// The default application, if the configuration names none.
    pub fn default_application(&self) -> Option<&DefaultApplication> {
        self.default_application.as_ref()
    }

    /// Waits until the gateway must be stopped, and returns the reason: the store failed, so no write can be acknowledged, or a
    /// listener ended, so the gateway cannot be reached.
    pub async fn failed(&self) -> &'static str {
        tokio::select! {
            () = self.store.failed() => {
                "a write failed, so no further one can be acknowledged. What was acknowledged is on the disk: remove the cause, \
                 which the log names, and start the gateway again"
            },
            reason = self.listeners.ended() => reason,
        }
    }

    /// The step of [`Running::stop`], also while it runs.
    pub fn stop_step(&self) -> StopStep {
        self.stop_step.clone()
    }

    /// The time limit of [`Running::stop`], unless something hangs: after the delay, requests have the configured time, and
    /// the writes after them have as much again.
    pub fn stop_timeout(&self) -> Duration {
        self.shutdown_timeout.saturating_mul(2).saturating_add(STOP_GRACE).saturating_add(self.shutdown_delay)
    }

    /// Fails readiness and goes on answering for the configured delay; then finishes the requests in flight within the
    /// configured time, writes all snapshots, and closes the store. It does not return if something hangs, such as a disk.
    pub async fn stop(self) {
        let step = self.stop_step;
        step.set("the delay of the stop");
        self.is_draining.store(true, Ordering::Release);
        tokio::time::sleep(self.shutdown_delay).await;
        self.making_backups.abort();
        self.backups.stop();
        step.set("requests in flight");
        self.listeners.finish().await;
        step.set("a listener");
        let released = self.listeners.stop().await;
        step.set("the actors of groups and key queues");
        self.gateway.stop().await;
        drop((self.gateway, self.book, self.backups, self.federation, self.reloadable));
        released.wait().await;
        step.set("the store");
        self.store.shutdown().await;
    }
}

fn gateway_options(config: &Config, applications: Vec<Application>, clock: Clock) -> GatewayOptions {
    GatewayOptions {
        applications,
        limits: config.limits.clone(),
        retention: config.retention.retention(&config.limits),
        snapshot_period: Duration::from_secs(config.passivation.snapshot_period_s),
        retention_period: Duration::from_secs(config.retention.period_s),
        passivate_after: Duration::from_secs(config.passivation.after_s),
        arbiters: config.actor_threads,
        clock,
        transport: None,
    }
}

fn application_configuration(settings: &ApplicationSettings) -> ApplicationConfiguration {
    ApplicationConfiguration {
        identity_configuration: settings.identity_configuration.clone(),
        id: settings.id,
    }
}

/// The applications that every caller may know.
fn public(applications: &[ApplicationSettings]) -> Arc<[ApplicationConfiguration]> {
    applications.iter().filter(|application| application.public).map(application_configuration).collect()
}
