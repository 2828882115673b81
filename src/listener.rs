//! One listener: bound, served, and stopped so that what is in flight is answered.

use std::{
    any::Any,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpRequest, HttpServer,
    dev::{Extensions, Server, ServerHandle},
    web::{self, Payload},
};
use rustls::ServerConfig;
use tokio::{net::TcpSocket, task::JoinHandle};

use crate::{
    config::ListenerLimits,
    http::{auth::Authority, edge::Edge},
    serve::StartError,
};

/// Connections that the operating system holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How long connections may stay open once every request is answered, in seconds.
const IDLE_CONNECTIONS_S: u64 = 1;
/// How long the threads of a listener may take to let go of what they share.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// An address that nobody else can listen on any more.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    /// With the port that was chosen.
    pub(crate) address: SocketAddr,
}

/// What is spoken on a listener.
pub(crate) enum Protocol {
    /// HTTP/1.1 and h2c.
    Plain,
    /// HTTP/1.1 and HTTP/2 over TLS.
    Tls {
        /// TLS without protocol names: they are added.
        config: Box<ServerConfig>,
        /// How long a handshake may take.
        handshake_timeout: Duration,
        /// What is noted of a connection for the requests on it.
        on_connect: Option<fn(&dyn Any, &mut Extensions)>,
    },
}

/// A listener that serves.
pub(crate) struct Listener<A: Authority> {
    pub(crate) address: SocketAddr,
    pub(crate) has_tls: bool,
    edge: Arc<Edge<A>>,
    server: ServerHandle,
    server_task: JoinHandle<io::Result<()>>,
    shutdown_timeout: Duration,
}

impl Bound {
    /// Binds an address; port 0 picks a free one.
    pub(crate) fn to(address: SocketAddr) -> Result<Self, StartError> {
        let bound = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?.into_std()?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound().map_err(|source: io::Error| {
            if source.kind() == io::ErrorKind::AddrInUse {
                StartError::AddressInUse { address }
            } else {
                StartError::Listen { address, source }
            }
        })
    }
}

impl<A: Authority + Send + Sync> Listener<A> {
    /// Serves; when it answers, requests are answered.
    pub(crate) fn start(
        bound: Bound,
        edge: Edge<A>,
        limits: &ListenerLimits,
        protocol: Protocol,
    ) -> Result<Self, StartError> {
        let (address, edge) = (bound.address, Arc::new(edge));
        let has_tls = matches!(protocol, Protocol::Tls { .. });
        let server = http_server(&edge, limits, bound, protocol)
            .map_err(|source| StartError::Listen { address, source })?;
        Ok(Self {
            address,
            has_tls,
            edge,
            server: server.handle(),
            server_task: actix_web::rt::spawn(server),
            shutdown_timeout: Duration::from_secs(limits.shutdown_timeout_s),
        })
    }

    /// Takes no new requests, and finishes those in flight, for as long as the configuration says.
    pub(crate) async fn finish(&self) {
        self.edge.refuse_new_requests();
        self.server.pause().await;
        if tokio::time::timeout(self.shutdown_timeout, self.edge.finish_requests()).await.is_err() {
            tracing::warn!(address = %self.address, "requests were still in flight when the gateway stopped");
        }
    }

    /// Closes the connections and ends the threads.
    pub(crate) async fn stop(self) -> Released<A> {
        self.server.stop(true).await;
        if let Ok(Err(error)) = self.server_task.await {
            tracing::warn!(%error, "the listener did not stop cleanly");
        }
        Released(self.edge)
    }
}

/// A listener that has stopped, while its threads may still hold what they shared.
pub(crate) struct Released<A: Authority>(Arc<Edge<A>>);

impl<A: Authority> Released<A> {
    /// Waits until the threads have let go: they do so a moment after they have stopped.
    pub(crate) async fn wait(self) {
        let since = Instant::now();
        while Arc::strong_count(&self.0) > 1 && since.elapsed() < RELEASE_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn http_server<A: Authority + Send + Sync>(
    edge: &Arc<Edge<A>>,
    limits: &ListenerLimits,
    bound: Bound,
    protocol: Protocol,
) -> io::Result<Server> {
    let edge = Arc::clone(edge);
    let factory = move || {
        let edge = Arc::clone(&edge);
        App::new().default_service(web::to(move |request: HttpRequest, payload: Payload| {
            Arc::clone(&edge).answer(request, payload)
        }))
    };
    let server = HttpServer::new(factory)
        .disable_signals()
        .workers(limits.workers)
        .max_connections((limits.connections_max / limits.workers).max(1))
        .keep_alive(Duration::from_secs(limits.keep_alive_s))
        .client_request_timeout(Duration::from_secs(limits.request_header_timeout_s))
        // How long a client that is refused early may go on sending before the connection is closed.
        .client_disconnect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .shutdown_timeout(IDLE_CONNECTIONS_S);
    let server = match protocol {
        Protocol::Plain => server.listen_auto_h2c(bound.listener)?,
        Protocol::Tls { config, handshake_timeout, on_connect } => {
            let server = server.tls_handshake_timeout(handshake_timeout);
            let server = match on_connect {
                Some(note) => server.on_connect(note),
                None => server,
            };
            server.listen_rustls_0_23(bound.listener, *config)?
        }
    };
    Ok(server.run())
}
