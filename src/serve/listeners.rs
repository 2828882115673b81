//! The listeners of a gateway, started and stopped together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actors::Store;

use super::{StartError, application_configuration};
use crate::{
    backups::Backups,
    config::{
        ApplicationSettings, Config, DataDir, FederationSettings, FederationTls, OperatorSettings,
        TokenAccess, TokenSettings,
    },
    default_application::operator_token,
    federation::{self, Federation, SharedApplication},
    http::{
        activity::Sampler,
        auth::{Authenticator, Tokens},
        callers::ListenerShares,
        edge::{Edge, Served},
        operator::{Operators, ShownMetrics},
        peer_auth::{Peers, note_certificate},
        token_book::TokenBook,
    },
    listener::{BoundAddress, Listener, Protocol, Released},
    metrics::{ListenerCertificate, Observed},
    open_files::{self, FewFiles},
    tls::{ServerTls, TlsIdentity},
    token::Token,
};

/// The running listeners.
pub(super) struct Listeners {
    pub(super) internal: Listener<Tokens>,
    pub(super) federation: Option<Listener<Peers>>,
    pub(super) operator: Option<Listener<Operators>>,
    /// The TLS of the internal listener, if it has any.
    pub(super) internal_tls: Option<ListenerTls>,
    /// The TLS of the listener for other gateways.
    pub(super) federation_tls: Option<ListenerTls>,
}

/// The TLS of a listener, with its certificate as operators see it.
#[derive(Clone, Debug)]
pub(super) struct ListenerTls {
    pub(super) tls: ServerTls,
    pub(super) certificate: Option<ListenerCertificate>,
}

impl Listeners {
    /// Waits until one of them ends without being stopped, and returns the consequence.
    pub(super) async fn ended(&self) -> &'static str {
        tokio::select! {
            () = self.internal.ended() => "the internal listener ended, so no request can be served; see the log",
            () = ended(self.federation.as_ref()) => {
                "the federation listener ended, so no peer can be served; see the log"
            }
            () = ended(self.operator.as_ref()) => {
                "the operators' listener ended, so the gateway cannot be watched; see the log"
            }
        }
    }

    /// Takes no new requests, and finishes those in flight, within the configured time.
    pub(super) async fn finish(&self) {
        tokio::join!(
            self.internal.finish(),
            finished(self.federation.as_ref()),
            finished(self.operator.as_ref())
        );
    }

    /// Closes the connections and ends the threads.
    pub(super) async fn stop(self) -> ReleasedListeners {
        ReleasedListeners {
            internal: self.internal.stop().await,
            federation: stopped(self.federation).await,
            operator: stopped(self.operator).await,
        }
    }
}

async fn ended<A: Authenticator + Send + Sync>(listener: Option<&Listener<A>>) {
    match listener {
        Some(listener) => listener.ended().await,
        None => std::future::pending().await,
    }
}

async fn finished<A: Authenticator + Send + Sync>(listener: Option<&Listener<A>>) {
    if let Some(listener) = listener {
        listener.finish().await;
    }
}

async fn stopped<A: Authenticator + Send + Sync>(listener: Option<Listener<A>>) -> Option<Released<A>> {
    Some(listener?.stop().await)
}

/// Stopped listeners whose threads may still hold their shared data.
pub(super) struct ReleasedListeners {
    internal: Released<Tokens>,
    federation: Option<Released<Peers>>,
    operator: Option<Released<Operators>>,
}

impl ReleasedListeners {
    /// Waits until the threads have released their data.
    pub(super) async fn wait(self) {
        self.internal.wait().await;
        if let Some(federation) = self.federation {
            federation.wait().await;
        }
        if let Some(operator) = self.operator {
            operator.wait().await;
        }
    }
}

/// The listeners with their addresses, before they serve.
pub(super) struct BoundListeners<'a> {
    inside: Inside<'a>,
    outside: Option<Outside<'a>>,
    for_operators: Option<ForOperators<'a>>,
}

impl<'a> BoundListeners<'a> {
    /// Binds the addresses. If that of operators is in use and `may_move`, it gets a free port.
    pub(super) fn open(config: &'a Config, may_move: bool) -> Result<Self, StartError> {
        let for_operators = |settings| ForOperators::open(settings, may_move);
        Ok(Self {
            inside: Inside::open(config)?,
            outside: config.federation.as_ref().map(Outside::open).transpose()?,
            for_operators: config.operator.as_ref().map(for_operators).transpose()?,
        })
    }

    /// The client for other gateways, if there is a listener for them.
    pub(super) fn federation(
        &self,
        applications: &[ApplicationSettings],
    ) -> Result<Option<Arc<Federation>>, StartError> {
        let federation = |outside: &Outside<'_>| outside.federation(applications).map(Arc::new);
        self.outside.as_ref().map(federation).transpose()
    }

    /// Starts all of them. The client in `served` is that of [`Self::federation`].
    pub(super) async fn serve(
        self,
        served: Served,
        (book, backups): (Arc<TokenBook>, Arc<Backups>),
        tokens_of_operators: &[TokenSettings],
    ) -> Result<Listeners, StartError> {
        let Self { inside, outside, for_operators } = self;
        let timeout = shutdown_timeout(inside.config);
        let (internal_tls, federation_tls) =
            (inside.tls.clone(), outside.as_ref().map(|outside| outside.listener_tls.clone()));
        let certificates = internal_tls.iter().chain(&federation_tls);
        let certificates = certificates.filter_map(|tls| tls.certificate.clone()).collect();
        let data_dir = match &inside.config.data_dir {
            DataDir::Directory(directory) => Some(directory.clone()),
            DataDir::Memory => None,
        };
        let internal = inside.serve(served.clone(), &book, timeout).await?;
        let federation = match (outside, served.federation.clone()) {
            (Some(outside), Some(federation)) => {
                Some(outside.serve(served.clone(), federation, timeout).await?)
            }
            (_, _) => None,
        };
        let operator = match for_operators {
            Some(bound) => {
                let others = [internal.counts()].into_iter().chain(federation.as_ref().map(Listener::counts));
                let observed = Observed {
                    gateway: served.gateway.clone(),
                    federation: served.federation.clone(),
                    certificates,
                    backups,
                    reloads: Arc::clone(&served.reloads),
                };
                let others: Vec<_> = others.map(Arc::clone).collect();
                let sampler = Sampler::new(observed.clone(), others.clone(), data_dir);
                let seen = (ShownMetrics::new(observed, others), sampler);
                Some(bound.serve(served, tokens_of_operators, (seen, book), timeout).await?)
            }
            None => None,
        };
        Ok(Listeners { internal, federation, operator, internal_tls, federation_tls })
    }
}

/// The listener for application servers, before it serves.
struct Inside<'a> {
    config: &'a Config,
    tls: Option<ListenerTls>,
    bound: BoundAddress,
}

impl<'a> Inside<'a> {
    fn open(config: &'a Config) -> Result<Self, StartError> {
        let identity = config.internal.credentials()?;
        let tls = identity.map(|identity| internal_tls(&identity)).transpose()?;
        Ok(Self { config, tls, bound: BoundAddress::to(config.internal.listen, "internal")? })
    }

    async fn serve(
        self,
        served: Served,
        book: &TokenBook,
        shutdown_timeout: Duration,
    ) -> Result<Listener<Tokens>, StartError> {
        let limits = &self.config.internal.listener;
        let edge = Edge::new(served, book.known(), book.shares(), limits);
        let protocol = self.protocol();
        Listener::start(self.bound, edge, limits, protocol, shutdown_timeout).await
    }

    fn protocol(&self) -> Protocol {
        let internal = &self.config.internal;
        match &self.tls {
            None => Protocol::Plain,
            Some(ListenerTls { tls, .. }) => Protocol::Tls {
                config: tls.clone(),
                handshake_timeout: Duration::from_secs(internal.listener.request_header_timeout_s),
                on_connect: None,
            },
        }
    }
}

/// The listener for other gateways, before it serves.
struct Outside<'a> {
    settings: &'a FederationSettings,
    tls: FederationTls,
    listener_tls: ListenerTls,
    bound: BoundAddress,
}

impl<'a> Outside<'a> {
    fn open(settings: &'a FederationSettings) -> Result<Self, StartError> {
        let tls = settings.tls()?;
        let listener_tls = federation_tls(&tls)?;
        Ok(Self { settings, tls, listener_tls, bound: BoundAddress::to(settings.listen, "federation")? })
    }

    /// The client for other gateways.
    fn federation(&self, applications: &[ApplicationSettings]) -> Result<Federation, StartError> {
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
        Federation::new(self.settings, &self.tls, url, shared)
            .map_err(|error| StartError::Federation(error.to_string()))
    }

    async fn serve(
        self,
        served: Served,
        federation: Arc<Federation>,
        shutdown_timeout: Duration,
    ) -> Result<Listener<Peers>, StartError> {
        let limits = &self.settings.listener;
        let protocol = Protocol::Tls {
            config: self.listener_tls.tls,
            handshake_timeout: Duration::from_secs(self.settings.handshake_timeout_s),
            on_connect: Some(note_certificate),
        };
        let shares = ListenerShares::new(limits);
        let edge = Edge::new(served, Peers::new(federation, shares.clone(), self.settings), shares, limits);
        Listener::start(self.bound, edge, limits, protocol, shutdown_timeout).await
    }
}

/// The listener for operators, before it serves.
struct ForOperators<'a> {
    settings: &'a OperatorSettings,
    bound: BoundAddress,
}

impl<'a> ForOperators<'a> {
    /// Binds its address; if that is in use and `may_move`, a free port instead.
    fn open(settings: &'a OperatorSettings, may_move: bool) -> Result<Self, StartError> {
        let bound = match BoundAddress::to(settings.listen, "operator") {
            Err(StartError::AddressInUse { address, section }) if may_move => {
                tracing::warn!(%address, "the operators' address is in use; a free port is taken instead");
                BoundAddress::to(SocketAddr::new(address.ip(), 0), section)?
            }
            bound => bound?,
        };
        Ok(Self { settings, bound })
    }

    /// Serves callers with these tokens, and shows the metrics and samples.
    async fn serve(
        self,
        served: Served,
        tokens: &[TokenSettings],
        (seen, book): ((ShownMetrics, Sampler), Arc<TokenBook>),
        shutdown_timeout: Duration,
    ) -> Result<Listener<Operators>, StartError> {
        let limits = &self.settings.listener;
        let shares = ListenerShares::new(limits);
        let edge = Edge::new(served, Operators::new(tokens, &shares, seen, book), shares, limits);
        Listener::start(self.bound, edge, limits, Protocol::Plain, shutdown_timeout).await
    }
}

/// The tokens of operators. A gateway that makes its own application and has no token for operators makes one, which is
/// returned as well by the start that makes it.
pub(super) fn operator_tokens(
    settings: &OperatorSettings,
    makes_token: bool,
    book: &TokenBook,
    store: &Store,
) -> Result<(Vec<TokenSettings>, Option<Token>), StartError> {
    let known = book.known();
    if let Some(place) = settings.tokens.iter().position(|token| known.is_known(&token.sha256)) {
        return Err(StartError::SharedToken { place });
    }
    let mut tokens = settings.tokens.clone();
    if tokens.is_empty() && makes_token {
        let (sha256, made) = operator_token(store)?;
        tokens.push(TokenSettings { sha256, access: TokenAccess::ReadWrite });
        return Ok((tokens, made));
    }
    Ok((tokens, None))
}

/// The TLS of the internal listener.
pub(super) fn internal_tls(identity: &TlsIdentity) -> Result<ListenerTls, StartError> {
    let config = identity.server_config().map_err(|error| StartError::Tls(error.to_string()))?;
    Ok(ListenerTls { tls: ServerTls::new(config), certificate: certificate("internal", identity) })
}

/// The TLS of the listener for other gateways.
pub(super) fn federation_tls(tls: &FederationTls) -> Result<ListenerTls, StartError> {
    let config =
        federation::tls::server_config(tls).map_err(|error| StartError::Federation(error.to_string()))?;
    Ok(ListenerTls { tls: ServerTls::new(config), certificate: certificate("federation", &tls.credentials) })
}

fn certificate(listener: &'static str, identity: &TlsIdentity) -> Option<ListenerCertificate> {
    Some(ListenerCertificate::new(listener, identity.holder()?.not_after_s))
}

impl ListenerTls {
    /// Uses newer TLS for connections that come later.
    pub(super) fn take(&self, newer: &Self) {
        self.tls.take(&newer.tls);
        if let (Some(certificate), Some(newer)) = (&self.certificate, &newer.certificate) {
            certificate.take(newer);
        }
    }
}

/// The time in which requests in flight must finish when the gateway stops.
pub(super) fn shutdown_timeout(config: &Config) -> Duration {
    Duration::from_secs(config.internal.shutdown_timeout_s)
}

/// Lowers the limits on connections to what the operating system allows.
pub(super) fn fit_connections(config: &mut Config) -> Result<(), FewFiles> {
    let mut listeners = vec![("internal", &mut config.internal.listener.connections_max)];
    let federation = config.federation.as_mut();
    listeners.extend(federation.map(|settings| ("federation", &mut settings.listener.connections_max)));
    let operator = config.operator.as_mut();
    listeners.extend(operator.map(|settings| ("operator", &mut settings.listener.connections_max)));
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
