//! Starting a gateway in this process, and stopping it without losing acknowledged writes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actors::{Application, Clock, Gateway, GatewayOptions, Store, Transport};
use rustls::ServerConfig;

use crate::{
    api::{
        applications::ApplicationConfiguration,
        federation::{GatewayDescription, VERSION},
    },
    config::{ApplicationSettings, Config, FederationSettings, FederationTls},
    default_application::{DefaultApplication, cursor_key},
    federation::{self, HttpsTransport, SharedApplication},
    http::{
        auth::Tokens,
        callers::ListenerShares,
        cursor::Cursors,
        edge::{Edge, Served},
        peer_auth::{Peers, note_certificate},
    },
    listener::{BoundAddress, Listener, Protocol},
    open_files::{self, FewFiles},
    tls,
};

pub use crate::start_error::StartError;

/// A running gateway. Dropping it does not stop it.
pub struct Running {
    default_application: Option<DefaultApplication>,
    gateway: Gateway,
    store: Store,
    internal: Listener<Tokens>,
    federation: Option<Listener<Peers>>,
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

/// As [`start`], with another clock, by which packets are validated and stamped.
///
/// # Errors
/// [`StartError`] states the obstacle and the remedy.
pub async fn start_with_clock(mut config: Config, clock: Clock) -> Result<Running, StartError> {
    tls::install_provider();
    config.check()?;
    fit_connections(&mut config)?;
    let mut built = config.build_applications()?;
    for warning in config.warnings(&built, clock.now())? {
        tracing::warn!("{warning}");
    }
    let shutdown_timeout = Duration::from_secs(config.internal.shutdown_timeout_s);
    // Before the store is opened, so that a busy address changes nothing on disk.
    let internal = BoundAddress::to(config.internal.listen)?;
    let outside = config.federation.as_ref().map(Outside::open).transpose()?;
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

    let federation =
        outside.as_ref().map(|outside| outside.federation(&applications).map(Arc::new)).transpose()?;
    let mut options = gateway_options(&config, built, clock);
    options.transport =
        federation.clone().map(|federation| Arc::new(HttpsTransport(federation)) as Arc<dyn Transport>);
    let gateway = Gateway::start(options, store.clone());
    let served = Served {
        gateway: gateway.clone(),
        cursors: Arc::new(cursors),
        public_applications: applications
            .iter()
            .filter(|application| application.public)
            .map(application_configuration)
            .collect(),
        description: Arc::new(GatewayDescription {
            domains: config.domains.clone(),
            federation: federation.as_ref().map(|federation| federation.url.clone()),
            versions: vec![VERSION],
        }),
        federation: federation.clone(),
    };
    let limits = &config.internal.listener;
    let shares = ListenerShares::new(limits);
    let edge = Edge::new(served.clone(), tokens(&applications, &shares), shares, limits);
    let protocol = internal_protocol(&config)?;
    let internal = Listener::start(internal, edge, limits, protocol, shutdown_timeout).await?;
    let federation = match (outside, federation) {
        (Some(outside), Some(federation)) => Some(outside.serve(served, federation, shutdown_timeout).await?),
        (_, _) => None,
    };
    Ok(Running {
        default_application,
        gateway,
        store,
        internal,
        federation,
        stop_step: StopStep::new(),
        shutdown_timeout,
    })
}

impl Running {
    /// The address of the listener for application servers.
    pub fn address(&self) -> SocketAddr {
        self.internal.address
    }

    /// The base URL for application servers.
    pub fn base_url(&self) -> String {
        let scheme = if self.internal.has_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.internal.address)
    }

    /// The address of the listener for other gateways, if it federates.
    pub fn federation_address(&self) -> Option<SocketAddr> {
        self.federation.as_ref().map(|listener| listener.address)
    }

    /// The default application, if the configuration names none.
    pub fn default_application(&self) -> Option<&DefaultApplication> {
        self.default_application.as_ref()
    }

    /// Waits until the gateway must be stopped, and returns the reason: the store failed, so no write can be acknowledged, or a
    /// listener ended, so the gateway cannot be reached.
    pub async fn failed(&self) -> &'static str {
        let outside = async {
            match &self.federation {
                Some(listener) => listener.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.store.failed() => "the store failed, so no write can be acknowledged; see the log",
            () = self.internal.ended() => "the internal listener ended, so no request can be served; see the log",
            () = outside => "the federation listener ended, so no peer can be served; see the log",
        }
    }

    /// The step of [`Running::stop`], also while it runs.
    pub fn stop_step(&self) -> StopStep {
        self.stop_step.clone()
    }

    /// The time limit of [`Running::stop`], unless something hangs: requests have the configured time, and the writes after
    /// them have as much again.
    pub fn stop_timeout(&self) -> Duration {
        self.shutdown_timeout.saturating_mul(2).saturating_add(STOP_GRACE)
    }

    /// Finishes the requests in flight within the configured time, writes all snapshots, and closes the store. It does not
    /// return if something hangs, such as a disk.
    pub async fn stop(self) {
        let step = self.stop_step;
        step.set("requests in flight");
        let outside = async {
            if let Some(listener) = &self.federation {
                listener.finish().await;
            }
        };
        tokio::join!(self.internal.finish(), outside);
        step.set("a listener");
        let internal = self.internal.stop().await;
        let federation = match self.federation {
            Some(listener) => Some(listener.stop().await),
            None => None,
        };
        step.set("the actors of groups and key queues");
        self.gateway.stop().await;
        drop(self.gateway);
        internal.wait().await;
        if let Some(federation) = federation {
            federation.wait().await;
        }
        step.set("the store");
        self.store.shutdown().await;
    }
}

/// Lowers the limits on connections to what the operating system allows.
fn fit_connections(config: &mut Config) -> Result<(), FewFiles> {
    let mut listeners = vec![("internal", &mut config.internal.listener.connections_max)];
    let federation = config.federation.as_mut();
    listeners.extend(federation.map(|settings| ("federation", &mut settings.listener.connections_max)));
    let wanted: Vec<usize> = listeners.iter().map(|(_, max)| **max).collect();
    let allowed = open_files::allowed();
    for ((section, max), fitting) in listeners.into_iter().zip(open_files::fitting(allowed, &wanted)?) {
        if fitting < *max {
            tracing::warn!(
                open_files = allowed,
                "{section}.connections_max is {max}, but the limit on open files leaves room for {fitting}: raise it \
                 (`ulimit -n`)"
            );
            *max = fitting;
        }
    }
    Ok(())
}

fn internal_protocol(config: &Config) -> Result<Protocol, StartError> {
    let Some(credentials) = config.internal.credentials()? else { return Ok(Protocol::Plain) };
    let tls = credentials.server_config().map_err(|error| StartError::Tls(error.to_string()))?;
    Ok(Protocol::Tls {
        config: Box::new(tls),
        handshake_timeout: Duration::from_secs(config.internal.listener.request_header_timeout_s),
        on_connect: None,
    })
}

/// The listener for other gateways, before it serves.
struct Outside<'a> {
    settings: &'a FederationSettings,
    tls: FederationTls,
    server_tls: Box<ServerConfig>,
    bound: BoundAddress,
}

impl<'a> Outside<'a> {
    fn open(settings: &'a FederationSettings) -> Result<Self, StartError> {
        let tls = settings.tls()?;
        let server_tls = federation::tls::server_config(&tls)
            .map_err(|error| StartError::Federation(error.to_string()))?;
        Ok(Self {
            settings,
            tls,
            server_tls: Box::new(server_tls),
            bound: BoundAddress::to(settings.listen)?,
        })
    }

    /// The client for other gateways.
    fn federation(&self, applications: &[ApplicationSettings]) -> Result<federation::Federation, StartError> {
        let address = self.bound.address;
        let url = match &self.settings.public_url {
            Some(url) => url.clone(),
            None => format!("https://{address}")
                .parse()
                .map_err(|error| StartError::Federation(format!("{address}: {error}")))?,
        };
        let shared = |settings: &ApplicationSettings| {
            let configuration = application_configuration(settings);
            let shared = SharedApplication::new(&configuration, settings.federates_with.clone());
            shared.map(|shared| (settings.id, Arc::new(shared)))
        };
        let shared = applications
            .iter()
            .map(shared)
            .collect::<Result<_, _>>()
            .map_err(|error| StartError::Federation(error.to_string()))?;
        federation::Federation::new(self.settings, &self.tls, url, shared)
            .map_err(|error| StartError::Federation(error.to_string()))
    }

    async fn serve(
        self,
        served: Served,
        federation: Arc<federation::Federation>,
        shutdown_timeout: Duration,
    ) -> Result<Listener<Peers>, StartError> {
        let limits = &self.settings.listener;
        let protocol = Protocol::Tls {
            config: self.server_tls,
            handshake_timeout: Duration::from_secs(self.settings.handshake_timeout_s),
            on_connect: Some(note_certificate),
        };
        let shares = ListenerShares::new(limits);
        let edge = Edge::new(served, Peers::new(federation, shares.clone()), shares, limits);
        Listener::start(self.bound, edge, limits, protocol, shutdown_timeout).await
    }
}

fn gateway_options(config: &Config, applications: Vec<Application>, clock: Clock) -> GatewayOptions {
    GatewayOptions {
        applications,
        limits: config.limits.clone(),
        retention: config.retention.retention(),
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

fn tokens(applications: &[ApplicationSettings], shares: &ListenerShares) -> Tokens {
    let mut tokens = Tokens::default();
    for application in applications {
        for token in &application.tokens {
            tokens.add(token.sha256, application.id, token.access, shares.caller());
        }
    }
    tokens
}
