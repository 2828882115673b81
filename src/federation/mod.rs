//! Requests to the gateways of other domains (*Operational Context*).
//!
//! | file | |
//! |---|---|
//! | `peer.rs` | one peer: timeouts, retries, its circuit breaker, and the applications agreed with it |
//! | `discovery.rs` | its address |
//! | `configuration.rs`, `trust.rs` | the comparison of application configurations; of what they trust |
//! | `trust_log.rs` | what one peer trusts, and the log of where that differs |
//! | `transport.rs` | delivery of log entries |
//! | `answer.rs`, `circuit.rs`, `tls.rs` | reading answers, the circuit breaker, mutual TLS |
//!
//! Requests from peers are answered in `http/federation.rs`.

mod answer;
mod circuit;
mod configuration;
mod discovery;
mod peer;
pub(crate) mod tls;
mod transport;
mod trust;
mod trust_log;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use actors::{AppId, Application, DomainName};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tracing::Instrument as _;

use self::{
    answer::PeerAnswer,
    discovery::{Discovery, Located, Locator},
    peer::{Outgoing, Peer},
    trust::ApplicationTrust,
};
pub(crate) use self::{
    configuration::{SharedApplication, differences},
    peer::{DIFFERS, PeerStatus, PeerTrust},
    transport::HttpsTransport,
};
use crate::{
    api::{Endpoint, federation::GatewayUrl, problem::ProblemDocument},
    client::Reply,
    config::{FederationSettings, FederationTls},
    traces,
};

/// Client of the gateways of other domains.
pub(crate) struct Federation {
    /// The address for other gateways.
    pub(crate) url: GatewayUrl,
    applications: HashMap<AppId, Arc<SharedApplication>>,
    peers: BTreeMap<DomainName, Arc<Peer>>,
    settings: FederationSettings,
    /// The runtime of the requests: connections outlive the thread that first needed them, and every request is finished, in
    /// bounded time, even if its caller has gone.
    runtime: Handle,
}

/// The reason why a request to a peer failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// It refused.
    #[error("the gateway refused as {}: {}", .0.slug(), .0.detail)]
    Refused(Box<ProblemDocument>),
    /// It has another configuration of the application.
    #[error(
        "the gateway of {domain} has another configuration of this application, which differs in {}",
        members.join(", ")
    )]
    Differs {
        /// Its domain.
        domain: DomainName,
        /// The members that differ, by their dotted names.
        members: Vec<String>,
    },
    /// It was not reached, or the answer is not one of a gateway.
    #[error("the gateway of {domain} cannot be reached: {reason}")]
    Unreachable {
        /// Its domain.
        domain: DomainName,
        /// The cause.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the gateway of {domain} did not answer within {} ms", after.as_millis())]
    Timeout {
        /// Its domain.
        domain: DomainName,
        /// The time limit.
        after: Duration,
    },
    /// Too many requests to it are under way.
    #[error("{max} requests to the gateway of {domain} are under way, the limit; try again in a moment")]
    Busy {
        /// Its domain.
        domain: DomainName,
        /// The limit.
        max: usize,
    },
}

/// The reason why requests to peers are impossible.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FederationError {
    /// TLS refuses the certificate.
    #[error("TLS for peers: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be built.
    #[error("HTTP for peers: {0}")]
    Http(#[from] reqwest::Error),
}

/// Connections to peers that are ready to be used.
pub(crate) struct PreparedTls(Vec<(Arc<Peer>, Locator)>);

impl PreparedTls {
    /// Uses them for all requests that come later.
    pub(crate) fn apply(self) {
        self.0.into_iter().for_each(|(peer, locator)| peer.relocate(locator));
    }
}

impl Federation {
    /// The client of a gateway that other gateways reach at `url`. Requests run on the runtime of the caller.
    pub(crate) fn new(
        settings: &FederationSettings,
        tls: &FederationTls,
        url: GatewayUrl,
        applications: HashMap<AppId, Arc<SharedApplication>>,
    ) -> Result<Self, FederationError> {
        let tls = tls::client_config(tls)?;
        let mut peers = BTreeMap::new();
        for domain in applications.values().flat_map(|application| &application.federates_with) {
            if !peers.contains_key(domain) {
                let locator = locator(domain, settings, &tls)?;
                peers.insert(domain.clone(), Arc::new(Peer::new(domain.clone(), locator, settings)));
            }
        }
        Ok(Self { url, applications, peers, settings: settings.clone(), runtime: Handle::current() })
    }

    /// Connections to all peers by other certificates and authorities; [`PreparedTls::apply`] uses them.
    pub(crate) fn prepare_tls(&self, tls: &FederationTls) -> Result<PreparedTls, FederationError> {
        let tls = tls::client_config(tls)?;
        let locators = self
            .peers
            .iter()
            .map(|(domain, peer)| Ok((Arc::clone(peer), locator(domain, &self.settings, &tls)?)));
        Ok(PreparedTls(locators.collect::<Result<_, FederationError>>()?))
    }

    /// Whether an application federates with a domain.
    pub(crate) fn has_peer(&self, domain: &DomainName) -> bool {
        self.peers.contains_key(domain)
    }

    /// The part of an application that peers may know.
    pub(crate) fn application(&self, app: AppId) -> Option<&SharedApplication> {
        self.applications.get(&app).map(Arc::as_ref)
    }

    /// The time for which a write that was forwarded to its group's hub waits for the replica here.
    pub(crate) fn replica_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.replica_timeout_ms)
    }

    /// The peers and their states.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&DomainName, PeerStatus)> {
        self.peers.iter().map(|(domain, peer)| (domain, peer.status()))
    }

    /// Takes from these applications what they trust from now on.
    pub(crate) fn take_trust(&self, applications: &[Application]) {
        for application in applications {
            if let Some(shared) = self.applications.get(&application.id) {
                let summary = application.identity.trust_summary();
                shared.take_trust(summary.as_ref().map(ApplicationTrust::of));
                for peer in self.peers.values() {
                    peer.trust().compare(application.id, shared);
                }
            }
        }
    }

    /// Notes what a peer trusts in an application, by its header.
    pub(crate) fn note_trust(&self, domain: &DomainName, app: AppId, header: &[u8]) {
        if let (Some(peer), Some(application)) = (self.peers.get(domain), self.applications.get(&app)) {
            peer.trust().note(app, application, header);
        }
    }

    /// The applications in which a peer has told what it trusts, and what of that differs from what is trusted here.
    pub(crate) fn peer_trust(&self, domain: &DomainName) -> Vec<PeerTrust> {
        self.peers.get(domain).map(|peer| peer.trust().present(&self.applications)).unwrap_or_default()
    }

    /// Counts a delivery that a peer refused.
    fn note_refusal(&self, domain: &DomainName) {
        if let Some(peer) = self.peers.get(domain) {
            peer.note_refusal();
        }
    }

    /// Notes the result of a comparison that a peer requested.
    pub(crate) fn note_comparison(&self, domain: &DomainName, app: AppId, differing: &[String]) {
        if let Some(peer) = self.peers.get(domain) {
            peer.note_comparison(app, differing);
        }
    }

    /// Makes a request of the API to the gateway of a domain.
    pub(crate) async fn ask<E: Endpoint>(
        &self,
        domain: &DomainName,
        app: AppId,
        path: &E::Path,
        query: &E::Query,
        body: &E::Body,
    ) -> Result<Reply<E::Response>, PeerError> {
        let unreachable = |reason| PeerError::Unreachable { domain: domain.clone(), reason };
        let request = Outgoing::new::<E>(path, query, body).map_err(unreachable)?;
        let answer = self.exchange(domain, app, request).await?;
        // An answer without a body has no JSON.
        let json: &[u8] = if answer.status == 204 { b"{}" } else { &answer.body };
        let body = serde_json::from_slice(json)
            .map_err(|error| unreachable(format!("its answer is not one of a gateway: {error}")))?;
        Ok(Reply { status: answer.status, body })
    }

    /// Makes a request of the API to the gateway of a domain by HEAD.
    pub(crate) async fn ask_head<E: Endpoint>(
        &self,
        domain: &DomainName,
        app: AppId,
        path: &E::Path,
        query: &E::Query,
        body: &E::Body,
    ) -> Result<(), PeerError> {
        let unreachable = |reason| PeerError::Unreachable { domain: domain.clone(), reason };
        let request = Outgoing::new::<E>(path, query, body).map_err(unreachable)?.head();
        self.exchange(domain, app, request).await.map(drop)
    }

    async fn exchange(
        &self,
        domain: &DomainName,
        app: AppId,
        request: Outgoing,
    ) -> Result<PeerAnswer, PeerError> {
        let unreachable =
            |reason: &str| PeerError::Unreachable { domain: domain.clone(), reason: reason.into() };
        let application = self
            .applications
            .get(&app)
            .filter(|application| application.federates_with.contains(domain))
            .ok_or_else(|| unreachable("the application does not federate with it"))?;
        let peer = self.peers.get(domain).ok_or_else(|| unreachable("it is no peer"))?;
        let (peer, application) = (Arc::clone(peer), Arc::clone(application));
        let span = traces::request_to_peer(domain, request.method());
        let exchanging = async move { peer.exchange(app, &application, &request).await };
        let asked = self.runtime.spawn(exchanging.instrument(span));
        asked.await.unwrap_or_else(|_| Err(unreachable("this gateway is stopping")))
    }
}

fn locator(
    domain: &DomainName,
    settings: &FederationSettings,
    tls: &ClientConfig,
) -> Result<Locator, reqwest::Error> {
    let connect_timeout = Duration::from_millis(settings.connect_timeout_ms);
    if let Some(peer) = settings.peers.iter().find(|peer| peer.domain == *domain) {
        return Ok(Locator::Configured(Located::new(domain, &peer.url, tls, connect_timeout)?));
    }
    Ok(Locator::Discovered(Box::new(Discovery {
        domain: domain.clone(),
        settings: settings.clone(),
        tls: tls.clone(),
        http: tls::http_client(tls, connect_timeout, None)?,
        found: tokio::sync::Mutex::default(),
    })))
}
