//! Mutual TLS between gateways: the certificate shown and the authorities trusted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{ClientConfig, ServerConfig, server::WebPkiClientVerifier, version::TLS13};

use crate::{api::federation::GatewayUrl, config::FederationTls, tls::provider};

/// Idle connections to one peer that are kept for the next requests.
const IDLE_CONNECTIONS: usize = 32;
/// The period of keep-alive probes on a silent connection, which find out that its other end has vanished.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// TLS for the listener: it requires a client certificate of a CA that may certify peers.
pub(crate) fn server_config(tls: &FederationTls) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(tls.roots.clone()), provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(tls.credentials.chain.clone(), tls.credentials.key.clone_key())
}

/// TLS for requests to peers, which shows the same certificate that the listener has.
pub(super) fn client_config(tls: &FederationTls) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(tls.roots.clone())
        .with_client_auth_cert(tls.credentials.chain.clone(), tls.credentials.key.clone_key())?;
    // An HTTP client with a given TLS configuration does not add it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// An HTTP client for one peer or, without `at`, for the hosts in URLs.
///
/// URLs name the peer's domain, for which the certificate is checked; connections go to `at`.
pub(super) fn http_client(
    tls: &ClientConfig,
    connect_timeout: Duration,
    at: Option<&GatewayUrl>,
) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .https_only(true)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(connect_timeout)
        .http1_only()
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .tcp_keepalive(PROBE_INTERVAL)
        .tcp_keepalive_interval(PROBE_INTERVAL);
    if let Some(url) = at {
        builder = builder.dns_resolver(Arc::new(Elsewhere { host: url.host().into() }));
    }
    builder.build()
}

/// A resolver that resolves every name as another host.
struct Elsewhere {
    host: Arc<str>,
}

impl Resolve for Elsewhere {
    fn resolve(&self, _: Name) -> Resolving {
        let host = Arc::clone(&self.host);
        Box::pin(async move {
            // The port comes from the URL.
            let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
                Ok(ip) => vec![SocketAddr::new(ip, 0)],
                Err(_) => tokio::net::lookup_host((&*host, 0)).await?.collect(),
            };
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
