//! One listener: binding, serving, and stopping after the requests in flight are answered.
//!
//! It speaks HTTP/1.1 and nothing else (`docs/decisions/0009-http-1-1-only.md`). `connections.rs` counts the
//! connections and closes those that wait when another client connects; `watched.rs` is one connection with its
//! deadlines.

mod watched;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use actix_http::{
    HttpService, KeepAlive, Protocol as HttpVersion, Request, Response, body::BoxBody, error::DispatchError,
};
use actix_server::{Server, ServerHandle};
use actix_service::{ServiceFactory, ServiceFactoryExt as _, fn_service};
use actix_web::dev::Extensions;
use rustls::ServerConnection;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::watched::{ClientLimits, TimedConnection};
use crate::{
    config::ListenerSettings,
    connections::{Connection, Connections},
    http::{
        auth::Authenticator,
        counts::ListenerCounts,
        edge::{Edge, refusal_of_parser},
    },
    shares::Percent,
    start_error::StartError,
    tls::ServerTls,
};

/// Connections that the operating system holds until they are accepted.
const BACKLOG: u32 = 1024;
/// The time for which connections may stay open once every request is answered, in seconds.
const IDLE_CONNECTIONS_S: u64 = 1;
/// The time in which the threads of a listener must release their shared data.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for which a client that was refused early may continue to send before the connection is closed.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which a listener must accept its first connection, which is its own.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// An address that is bound to this process.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    listener: TcpListener,
    /// The address, with the chosen port.
    pub(crate) address: SocketAddr,
}

/// The protocol of a listener.
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls {
        /// Its TLS.
        config: ServerTls,
        /// The time limit of a handshake.
        handshake_timeout: Duration,
        /// The properties of a connection for the requests on it.
        on_connect: Option<fn(&ServerConnection, &mut Extensions)>,
    },
}

/// A running listener.
pub(crate) struct Listener<A: Authenticator> {
    pub(crate) address: SocketAddr,
    pub(crate) has_tls: bool,
    edge: Arc<Edge<A>>,
    connections: Arc<Connections>,
    server: ServerHandle,
    /// Whether its threads have ended.
    ended: watch::Receiver<bool>,
    shutdown_timeout: Duration,
}

impl BoundAddress {
    /// Binds the address that this section of the configuration names; port 0 picks a free one.
    pub(crate) fn to(address: SocketAddr, section: &'static str) -> Result<Self, StartError> {
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
                StartError::AddressInUse { address, section }
            } else {
                StartError::Listen { address, source }
            }
        })
    }
}

impl<A: Authenticator + Send + Sync> Listener<A> {
    /// Starts serving. When it returns, a connection has been accepted, so requests are answered.
    pub(crate) async fn start(
        bound: BoundAddress,
        edge: Edge<A>,
        limits: &ListenerSettings,
        protocol: Protocol,
        shutdown_timeout: Duration,
    ) -> Result<Self, StartError> {
        let (address, edge) = (bound.address, Arc::new(edge));
        let has_tls = matches!(protocol, Protocol::Tls { .. });
        let connections = Connections::new(limits.connections_max, Percent::new(limits.share_percent));
        let server = server(&edge, &connections, limits, bound, protocol)
            .map_err(|source| StartError::Listen { address, source })?;
        let (end, ended) = watch::channel(false);
        let handle = server.handle();
        actix_web::rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%address, %error, "the listener has failed");
            }
            end.send_replace(true);
        });
        let listener = Self { address, has_tls, edge, connections, server: handle, ended, shutdown_timeout };
        match listener.prove().await {
            Ok(()) => Ok(listener),
            Err(source) => {
                listener.server.stop(false).await;
                Err(StartError::Listen { address, source })
            }
        }
    }

    /// The callers that it knows.
    pub(crate) fn authority(&self) -> &A {
        self.edge.authority()
    }

    /// The counts of its requests.
    pub(crate) fn counts(&self) -> &Arc<ListenerCounts> {
        self.edge.counts()
    }

    /// Connects to the listener, and waits until that has been accepted.
    async fn prove(&self) -> io::Result<()> {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        let accepted = async {
            let _connection = TcpStream::connect(address).await?;
            while self.connections.accepted() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        tokio::select! {
            accepted = tokio::time::timeout(PROOF_TIMEOUT, accepted) => accepted.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the gateway's own connection to it is not accepted"))
            }),
            () = self.ended() => Err(io::Error::other("its threads have ended; see the log")),
        }
    }

    /// Waits until its threads end without being stopped: then it serves no more requests.
    pub(crate) async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Takes no new requests, and finishes those in flight, within the configured time.
    pub(crate) async fn finish(&self) {
        self.edge.refuse_new_requests();
        self.server.pause().await;
        if tokio::time::timeout(self.shutdown_timeout, self.edge.finish_requests()).await.is_err() {
            tracing::warn!(address = %self.address, "requests were still in flight when the gateway stopped");
        }
    }

    /// Closes the connections and ends the threads.
    pub(crate) async fn stop(self) -> Released<A> {
        self.connections.close_idle();
        self.server.stop(true).await;
        self.ended().await;
        Released(self.edge)
    }
}

/// A stopped listener whose threads may still hold their shared data.
pub(crate) struct Released<A: Authenticator>(Arc<Edge<A>>);

impl<A: Authenticator> Released<A> {
    /// Waits until the threads have released their data, a moment after they have stopped.
    pub(crate) async fn wait(self) {
        let since = Instant::now();
        while Arc::strong_count(&self.0) > 1 && since.elapsed() < RELEASE_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn server<A: Authenticator + Send + Sync>(
    edge: &Arc<Edge<A>>,
    connections: &Arc<Connections>,
    limits: &ListenerSettings,
    bound: BoundAddress,
    protocol: Protocol,
) -> io::Result<Server> {
    let (edge, connections) = (Arc::clone(edge), Arc::clone(connections));
    let client = ClientLimits {
        header_bytes: limits.header_bytes_max,
        header: Duration::from_secs(limits.request_header_timeout_s),
        keep_alive: Duration::from_secs(limits.keep_alive_s),
        reading: Duration::from_secs(limits.answer_read_timeout_s),
    };
    let server = Server::build()
        .disable_signals()
        .workers(limits.workers)
        // This limit is per worker and makes further connections wait; `connections` counts all of them, and makes room.
        .max_concurrent_connections(Connections::accepted_max(limits.connections_max))
        .shutdown_timeout(IDLE_CONNECTIONS_S);
    let name = format!("listener {}", bound.address);
    let server = match protocol {
        Protocol::Plain => server.listen(name, bound.listener, move || {
            let connections = Arc::clone(&connections);
            fn_service(move |stream: TcpStream| {
                let place = connections.enter();
                async move {
                    let place = place.ok_or_else(no_room)?;
                    let address = prepare(&stream);
                    let watched = TimedConnection::new(stream, place, client, refusal_of_parser);
                    Ok::<_, DispatchError>((watched, HttpVersion::Http1, address))
                }
            })
            .and_then(http(Arc::clone(&edge), |_, _| {}))
        })?,
        Protocol::Tls { config, handshake_timeout, on_connect } => {
            server.listen(name, bound.listener, move || {
                let (connections, config) = (Arc::clone(&connections), config.clone());
                fn_service(move |stream: TcpStream| {
                    let (place, acceptor) = (connections.enter(), TlsAcceptor::from(config.present()));
                    async move {
                        let place = place.ok_or_else(no_room)?;
                        let address = prepare(&stream);
                        let shaken = unless_closed(&place.link.connection, acceptor.accept(stream));
                        let stream = tokio::time::timeout(handshake_timeout, shaken)
                            .await
                            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                        let watched = TimedConnection::new(stream, place, client, refusal_of_parser);
                        Ok::<_, DispatchError>((watched, HttpVersion::Http1, address))
                    }
                })
                .and_then(http(
                    Arc::clone(&edge),
                    move |stream: &TlsStream<TcpStream>, data| {
                        if let Some(note) = on_connect {
                            note(stream.get_ref().1, data);
                        }
                    },
                ))
            })?
        }
    };
    Ok(server.run())
}

/// HTTP/1.1 over a connection. The deadlines are [`TimedConnection`]'s.
fn http<A: Authenticator + Send + Sync, T: AsyncRead + AsyncWrite + Unpin + 'static>(
    edge: Arc<Edge<A>>,
    on_connect: impl Fn(&T, &mut Extensions) + 'static,
) -> impl ServiceFactory<
    (TimedConnection<T>, HttpVersion, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
> {
    let expecting = Arc::clone(&edge);
    HttpService::build()
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .on_connect_ext(move |watched: &TimedConnection<T>, data| {
            data.insert(watched.place().link.clone());
            on_connect(watched.io(), data);
        })
        .expect(fn_service(move |request: Request| std::future::ready(expecting.may_continue(request))))
        .finish(fn_service(move |request: Request| {
            let edge = Arc::clone(&edge);
            async move { Ok::<Response<BoxBody>, Infallible>(edge.answer(request).await) }
        }))
}

/// Waits for an event on a connection, or until the connection must close.
async fn unless_closed<T>(
    connection: &Connection,
    happening: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut happening = pin!(happening);
    std::future::poll_fn(|cx| {
        connection.wake_on_close(cx);
        if connection.is_closing() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        happening.as_mut().poll(cx)
    })
    .await
}

fn prepare(stream: &TcpStream) -> Option<SocketAddr> {
    // It fails only when the connection is gone already.
    let _ = stream.set_nodelay(true);
    stream.peer_addr().ok()
}

fn no_room() -> DispatchError {
    DispatchError::Io(io::Error::other("the listener has reached its limit of connections"))
}
