//! Who asks on the federation listener: the gateway of the domains that its client certificate names.

use std::{any::Any, collections::BTreeSet, sync::Arc};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{HttpRequest, dev::Extensions, rt::net::TcpStream};
use actors::{AppId, DomainName};

use super::{
    auth::{Authority, app_id},
    federation::PEER_ROUTES,
    problem::Problem,
    route::Route,
};
use crate::{
    api::{
        Access, Endpoint as _,
        federation::{CONFIGURATION_HEADER, CompareConfiguration},
        problem::ProblemKind,
    },
    federation::{Federation, SharedApplication},
    tls::{Holder, now_s},
};

/// The gateways of other domains may ask, each about the applications that federate with it.
pub(crate) struct Peers(pub(crate) Arc<Federation>);

/// A gateway that asks.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The domains that its certificate names, at least one; when it asks about an application, those of them that the
    /// application federates with.
    pub(crate) domains: BTreeSet<DomainName>,
}

/// Notes whose certificate a new connection was opened with; TLS has verified it. To be called for each connection.
pub(crate) fn note_certificate(connection: &dyn Any, data: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TlsStream<TcpStream>>() else { return };
    let (_, tls) = stream.get_ref();
    let leaf = tls.peer_certificates().and_then(<[_]>::first);
    if let Some(holder) = leaf.and_then(Holder::of) {
        data.insert(holder);
    }
}

impl Authority for Peers {
    type Caller = Peer;

    fn routes() -> &'static [Route<Self>] {
        PEER_ROUTES
    }

    fn admit(&self, request: &HttpRequest, route: &Route<Self>, members: &[&str]) -> Result<Peer, Problem> {
        let peer = Peer::of(request)?;
        match route.access {
            Access::Public => Ok(peer),
            Access::Read | Access::ReadWrite => {
                // Every path that is not public begins with its application.
                let app = members.first().and_then(|segment| app_id(segment));
                let (application, domain) = self.shared_with(app, &peer)?;
                if route.template != CompareConfiguration::PATH {
                    check_configuration(request, application, &domain)?;
                }
                Ok(Peer { domains: &application.federates_with & &peer.domains })
            }
        }
    }
}

impl Peers {
    /// An application that federates with the peer, and the domain by which it does.
    ///
    /// # Errors
    /// One and the same when there is no such application and when it does not federate with the peer.
    pub(crate) fn shared_with(
        &self,
        app: Option<AppId>,
        peer: &Peer,
    ) -> Result<(&SharedApplication, DomainName), Problem> {
        app.and_then(|app| self.0.application(app))
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

impl Peer {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
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
    request: &HttpRequest,
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
