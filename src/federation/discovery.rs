//! Discovery: the address of a domain's gateway, from the configuration or from the domain itself.

use std::time::{Duration, Instant};

use actors::DomainName;
use rustls::ClientConfig;

use super::{
    answer::{self, Failure},
    tls::http_client,
};
use crate::{
    api::{
        Endpoint as _,
        federation::{Discover, GatewayDescription, GatewayUrl, VERSION},
    },
    client::in_words,
    config::FederationSettings,
};

/// The HTTP client and the base URL of a peer.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) http: reqwest::Client,
    /// `https://{domain}:{port}`.
    pub(super) base_url: String,
}

impl Located {
    /// A gateway that federates at `url`; its certificate must name the domain.
    pub(super) fn new(
        domain: &DomainName,
        url: &GatewayUrl,
        tls: &ClientConfig,
        connect_timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let http = http_client(tls, connect_timeout, Some(url))?;
        Ok(Self { http, base_url: format!("https://{domain}:{}", url.port()) })
    }
}

/// Finds the gateway of one domain.
pub(super) enum Locator {
    /// From the configuration.
    Configured(Located),
    /// By discovery.
    Discovered(Box<Discovery>),
}

/// Discovery of a domain's gateway, with a cache of the result.
pub(super) struct Discovery {
    pub(super) domain: DomainName,
    pub(super) settings: FederationSettings,
    pub(super) tls: ClientConfig,
    /// Connections to the domain itself.
    pub(super) http: reqwest::Client,
    /// The discovered address, and the time until which it is used. One request at a time discovers.
    pub(super) found: tokio::sync::Mutex<Option<(Located, Instant)>>,
}

impl Locator {
    /// The gateway, discovered if need be.
    pub(super) async fn locate(&self) -> Result<Located, Failure> {
        match self {
            Self::Configured(located) => Ok(located.clone()),
            Self::Discovered(discovery) => discovery.locate().await,
        }
    }

    /// Forgets what was discovered: the gateway may have moved.
    pub(super) fn forget(&self) {
        if let Self::Discovered(discovery) = self
            // The holder of the lock is already discovering it again.
            && let Ok(mut found) = discovery.found.try_lock()
        {
            *found = None;
        }
    }
}

impl Discovery {
    async fn locate(&self) -> Result<Located, Failure> {
        let mut found = self.found.lock().await;
        if let Some((located, until)) = &*found
            && Instant::now() < *until
        {
            return Ok(located.clone());
        }
        let url = self.ask().await?;
        let connect_timeout = Duration::from_millis(self.settings.connect_timeout_ms);
        let located = Located::new(&self.domain, &url, &self.tls, connect_timeout)
            .map_err(|error| Failure::Answer(in_words(&error)))?;
        tracing::info!(domain = %self.domain, %url, "discovered a gateway");
        *found = Some((located.clone(), Instant::now() + Duration::from_secs(self.settings.discovery_ttl_s)));
        Ok(located)
    }

    async fn ask(&self) -> Result<GatewayUrl, Failure> {
        let url = format!("https://{}:{}{}", self.domain, self.settings.discovery_port, Discover::PATH);
        let refuse = |reason: &str| Failure::Answer(format!("{url} {reason}"));
        let response = self.http.get(&url).send().await.map_err(|error| Failure::of(&error))?;
        let answer = answer::receive(response, self.settings.answer_bytes_max, Discover::SUCCESS).await?;
        let description: GatewayDescription = match answer {
            Ok(answer) => serde_json::from_slice(&answer.body)
                .map_err(|error| refuse(&format!("does not describe a gateway: {error}")))?,
            Err(problem) => return Err(refuse(&format!("answers with a problem: {}", problem.detail))),
        };
        if !description.domains.contains(&self.domain) {
            return Err(refuse("describes a gateway of other domains"));
        }
        if !description.versions.contains(&VERSION) {
            return Err(refuse(&format!("describes a gateway that does not speak version {VERSION}")));
        }
        description.federation.ok_or_else(|| refuse("describes a gateway that does not federate"))
    }
}
