//! Starting a gateway in this process, and stopping it so that nothing acknowledged is lost.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    web::{self, Payload},
};
use actors::{
    Application, Clock, Durability, Gateway, GatewayOptions, Location, Retention, Store, StoreOptions,
};
use snapshots::{AppendError, OpenError, ReadError};
use tokio::{net::TcpSocket, task::JoinHandle};

use crate::{
    api::applications::ApplicationConfiguration,
    config::{ApplicationSettings, Config, ConfigError, DataDir, DurabilityMode, Internal},
    default_application::{DefaultApplication, cursor_key},
    http::{auth::Tokens, cursor::Cursors, edge::Edge},
};

/// Connections that the operating system holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How long connections may stay open once every request is answered, in seconds.
const IDLE_CONNECTIONS_S: u64 = 1;
/// How long the threads of the listener may take to let go of the store.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another program listens there.
    #[error(
        "{address} is in use by another program: choose another address with --listen ADDRESS:PORT (port 0 picks a \
         free one) or with `listen` under [internal] in the configuration"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What the store keeps for the gateway itself is not what was written.
    #[error("a setting in the store cannot be used: {0}")]
    Settings(String),
    /// The operating system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A gateway that runs. Dropping it does not stop it.
pub struct Running {
    address: SocketAddr,
    default_application: Option<DefaultApplication>,
    edge: Arc<Edge>,
    store: Store,
    server: ServerHandle,
    server_task: JoinHandle<io::Result<()>>,
    shutdown_timeout: Duration,
}

/// Starts a gateway, inside a running actix system. When it answers, requests are answered.
///
/// # Errors
/// [`StartError`] says what is in the way and what to do about it.
pub async fn start(config: Config) -> Result<Running, StartError> {
    config.check()?;
    let mut built = config.build_applications()?;
    // First, so that a busy address changes nothing on disk.
    let (listener, address) = listen(config.internal.listen)?;
    let options = store_options(&config);
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

    let gateway = Gateway::start(gateway_options(&config, built), store.clone());
    let public =
        applications.iter().filter(|application| application.public).map(public_configuration).collect();
    let edge = Arc::new(Edge::new(gateway, tokens(&applications), cursors, public, &config.internal));
    let server = http_server(&edge, &config.internal, listener, address)?;
    let handle = server.handle();
    Ok(Running {
        address,
        default_application,
        edge,
        store,
        server: handle,
        server_task: actix_web::rt::spawn(server),
        shutdown_timeout: Duration::from_secs(config.internal.shutdown_timeout_s),
    })
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it listens at, as the beginning of URLs.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The application that the gateway made itself, when the configuration names none.
    pub fn default_application(&self) -> Option<&DefaultApplication> {
        self.default_application.as_ref()
    }

    /// Answers when the store failed: the gateway can acknowledge nothing any more and must be stopped.
    pub async fn failed(&self) {
        self.store.failed().await;
    }

    /// Finishes the requests in flight, for as long as the configuration says, writes what is not yet written, and
    /// closes the store.
    pub async fn stop(self) {
        self.edge.refuse_new_requests();
        self.server.pause().await;
        if tokio::time::timeout(self.shutdown_timeout, self.edge.finish_requests()).await.is_err() {
            tracing::warn!("requests were still in flight when the gateway stopped");
        }
        self.server.stop(true).await;
        if let Ok(Err(error)) = self.server_task.await {
            tracing::warn!(%error, "the listener did not stop cleanly");
        }
        self.edge.gateway.stop().await;
        // The threads of the listener let go of the store a moment after they have stopped.
        let since = Instant::now();
        while Arc::strong_count(&self.edge) > 1 && since.elapsed() < RELEASE_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.store.shutdown().await;
    }
}

fn listen(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), StartError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?.into_std()?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound().map_err(|source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            StartError::AddressInUse { address }
        } else {
            StartError::Listen { address, source }
        }
    })
}

fn http_server(
    edge: &Arc<Edge>,
    internal: &Internal,
    listener: std::net::TcpListener,
    address: SocketAddr,
) -> Result<actix_web::dev::Server, StartError> {
    let edge = Arc::clone(edge);
    let factory = move || {
        let edge = Arc::clone(&edge);
        App::new().default_service(web::to(move |request: actix_web::HttpRequest, payload: Payload| {
            Arc::clone(&edge).answer(request, payload)
        }))
    };
    let server = HttpServer::new(factory)
        .disable_signals()
        .workers(internal.workers)
        .max_connections((internal.connections_max / internal.workers).max(1))
        .keep_alive(Duration::from_secs(internal.keep_alive_s))
        .client_request_timeout(Duration::from_secs(internal.request_header_timeout_s))
        // How long a client that is refused early may go on sending before the connection is closed.
        .client_disconnect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .shutdown_timeout(IDLE_CONNECTIONS_S)
        .listen_auto_h2c(listener)
        .map_err(|source| StartError::Listen { address, source })?;
    Ok(server.run())
}

fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        location: match &config.data_dir {
            DataDir::Directory(path) => Location::Directory(path.clone()),
            DataDir::Memory => Location::Temporary,
        },
        durability: match config.durability.mode {
            DurabilityMode::Sync => Durability::Sync,
            DurabilityMode::Buffer => Durability::Buffer,
        },
        cache_bytes: config.durability.cache_bytes,
        queue_length_max: config.durability.queue_length_max,
        queue_bytes_max: config.durability.queue_bytes_max,
        batch_bytes_max: config.durability.batch_bytes_max,
    }
}

fn gateway_options(config: &Config, applications: Vec<Application>) -> GatewayOptions {
    let retention = &config.retention;
    GatewayOptions {
        applications,
        limits: config.limits.clone(),
        retention: Retention {
            history_epochs_max: retention.history_epochs_max,
            history_age_max: Duration::from_secs(retention.history_age_s_max),
            welcomes_per_handle_max: retention.welcomes_per_handle_max,
            welcome_age_max: Duration::from_secs(retention.welcome_age_s_max),
            expired_age_max: Duration::from_secs(retention.expired_age_s_max),
        },
        snapshot_period: Duration::from_secs(config.passivation.snapshot_period_s),
        retention_period: Duration::from_secs(retention.period_s),
        passivate_after: Duration::from_secs(config.passivation.after_s),
        arbiters: config.actor_threads,
        clock: Clock::system(),
        transport: None,
    }
}

fn public_configuration(settings: &ApplicationSettings) -> ApplicationConfiguration {
    ApplicationConfiguration {
        identity_configuration: settings.identity_configuration.clone(),
        id: settings.id,
    }
}

fn tokens(applications: &[ApplicationSettings]) -> Tokens {
    let mut tokens = Tokens::default();
    for application in applications {
        for token in &application.tokens {
            tokens.add(token.sha256, application.id, token.access);
        }
    }
    tokens
}
