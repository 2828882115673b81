//! Authentication on the federation listener: a peer is identified by its client certificate.

use std::{collections::BTreeSet, sync::Arc};

use actix_http::{HttpMessage as _, Request};
use actix_web::{
    dev::Extensions,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use actors::{AppId, DomainName};
use rustls::ServerConnection;

use super::{
    auth::{Admitted, Authenticator, app_id},
    callers::{CallerShares, ListenerShares},
    federation::PEER_ROUTES,
    problem::Problem,
    rates::CallerRates,
    route::Route,
};
use crate::{
    api::{
        Access, Endpoint as _,
        federation::{CONFIGURATION_HEADER, CompareConfiguration, TRUST_HEADER},
        problem::ProblemKind,
    },
    config::FederationSettings,
    federation::{Federation, SharedApplication},
    shares::Accounts,
    tls::{Holder, now_s},
};

/// The authenticator of peers: each may ask about the applications that federate with it.
pub(crate) struct Peers {
    /// The federation of this gateway.
    pub(crate) federation: Arc<Federation>,
    /// The shares of each peer, by the domain with which an application federates, so that no number of certificates makes them
    /// forgotten. Other callers have no shares of their own.
    shares: Accounts<DomainName, CallerShares>,
}

/// An authenticated peer.
#[derive(Clone, Debug)]
pub(crate) struct AuthenticatedPeer {
    /// The domains that its certificate names, at least one; in a request about an application, those with which the
    /// application federates.
    pub(crate) domains: BTreeSet<DomainName>,
}

/// The name of the listener for other gateways.
pub(crate) const PEERS: &str = "federation";

/// Notes the holder of the certificate of a new connection, which TLS has verified. To be called for each connection.
pub(crate) fn note_certificate(tls: &ServerConnection, data: &mut Extensions) {
    let leaf = tls.peer_certificates().and_then(<[_]>::first);
    if let Some(holder) = leaf.and_then(Holder::of) {
        data.insert(holder);
    }
}

impl Authenticator for Peers {
    const LISTENER: &'static str = PEERS;

    type Caller = AuthenticatedPeer;

    fn routes() -> &'static [Route<Self>] {
        PEER_ROUTES
    }

    fn admit(
        &self,
        request: &Request,
        route: &Route<Self>,
        members: &[&str],
    ) -> Result<Admitted<AuthenticatedPeer>, Problem> {
        let peer = AuthenticatedPeer::of(request)?;
        match route.access {
            Access::Public => {
                let known = peer.domains.iter().find(|domain| self.federation.has_peer(domain));
                let shares = known.map(|domain| self.shares.of(domain));
                Ok((peer, shares))
            }
            Access::Read | Access::ReadWrite => {
                // Every path that is not public begins with its application.
                let app = members.first().and_then(|segment| app_id(segment));
                let (application, domain) = self.shared_with(app, &peer)?;
                if route.template != CompareConfiguration::PATH {
                    check_configuration(request, application, &domain)?;
                }
                if let (Some(app), Some(told)) = (app, request.headers().get(TRUST_HEADER)) {
                    self.federation.note_trust(&domain, app, told.as_bytes());
                }
                let domains = &application.federates_with & &peer.domains;
                Ok((AuthenticatedPeer { domains }, Some(self.shares.of(&domain))))
            }
        }
    }

    fn complete(&self, members: &[&str], headers: &mut HeaderMap) {
        let app = members.first().and_then(|segment| app_id(segment));
        let trust = app.and_then(|app| self.federation.application(app)?.trust());
        if let Some(Ok(told)) = trust.map(|trust| HeaderValue::from_str(&trust.to_header())) {
            headers.insert(HeaderName::from_static(TRUST_HEADER), told);
        }
    }
}

impl Peers {
    /// The peers of a gateway, each with its share of `shares` and with the rates of these settings.
    pub(crate) fn new(
        federation: Arc<Federation>,
        shares: ListenerShares,
        settings: &FederationSettings,
    ) -> Self {
        let settings = settings.clone();
        let caller = move || shares.caller_at(CallerRates::of_peer(&settings));
        Self { federation, shares: Accounts::new(caller) }
    }

    /// An application that federates with the peer, and the peer's domain for it.
    ///
    /// # Errors
    /// The same problem for an unknown application and for one that does not federate with the peer.
    pub(crate) fn shared_with(
        &self,
        app: Option<AppId>,
        peer: &AuthenticatedPeer,
    ) -> Result<(&SharedApplication, DomainName), Problem> {
        app.and_then(|app| self.federation.application(app))
            .and_then(|application| {
                let domain = application.federates_with.intersection(&peer.domains).next()?;
                Some((application, domain.clone()))
            })
            .ok_or_else(|| {
                let domains: Vec<&str> = peer.domains.iter().map(DomainName::as_str).collect();
                Problem::new(
                    ProblemKind::NotPermitted,
                    format!("no such application federates with {} here", domains.join(", ")),
                )
            })
    }
}

impl AuthenticatedPeer {
    fn of(request: &Request) -> Result<Self, Problem> {
        let refuse = |detail| Problem::new(ProblemKind::NotAuthenticated, detail);
        let holder = request
            .conn_data::<Holder>()
            .ok_or_else(|| refuse("the connection has no client certificate that can be read"))?;
        // TLS checked this when the connection was opened, which may be long ago.
        if !holder.is_valid_at(now_s()) {
            return Err(refuse("the client certificate has expired; open a new connection with a valid one"));
        }
        if holder.domains.is_empty() {
            return Err(refuse("the client certificate names no domain among its DNS names"));
        }
        Ok(Self { domains: holder.domains.clone() })
    }
}

fn check_configuration(
    request: &Request,
    application: &SharedApplication,
    domain: &DomainName,
) -> Result<(), Problem> {
    let named = request.headers().get(CONFIGURATION_HEADER).ok_or_else(|| {
        Problem::malformed(format!(
            "the request has no {CONFIGURATION_HEADER} header, which names the configuration of the application that \
             was compared before"
        ))
    })?;
    if named.as_bytes() == application.digest.as_bytes() {
        return Ok(());
    }
    let path = CompareConfiguration::PATH;
    Err(Problem::configuration_mismatch(
        format!(
            "the configuration of the application here is not the one of {domain}; compare them with PUT {path}"
        ),
        Vec::new(),
    ))
}
