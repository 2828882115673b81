//! Gateways of two domains in this process, on free loopback ports, with new certificates and data in a temporary directory.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use actors::{AppId, DomainName};
use tempfile::TempDir;

use super::{
    During as _, DuringLibrary as _, FREE_PORT, ToolError,
    exchanges::Exchanges,
    identity::{Identities, Organisation},
};
use crate::{
    client::GatewayClient,
    config::{Config, DataDir, FederationSettings, PeerSettings, TokenAccess, TokenSettings},
    serve::{self, Running},
    token::Token,
    tools::pki::CertificateAuthority,
};

const DOMAIN_A: &str = "a.example";
const DOMAIN_B: &str = "b.example";
/// The lifetime of a gateway's certificate.
const GATEWAY_LASTS: Duration = Duration::from_secs(24 * 3600);
/// The period of the circuit breaker: in the demo, a peer comes back at once.
const CIRCUIT_OPEN_MS: u64 = 200;

/// Both gateways.
pub(super) struct Sites {
    pub(super) a: Site,
    pub(super) b: Site,
    // Declared after the gateways, whose data it contains.
    _directory: TempDir,
}

/// The gateway of one domain, which can be stopped and started again.
pub(super) struct Site {
    /// Its name in the draft.
    pub(super) name: &'static str,
    pub(super) domain: DomainName,
    /// The authority that certifies the clients of the domain.
    pub(super) identities: Identities,
    /// The token of the application that both gateways serve.
    pub(super) api: GatewayClient,
    config: Config,
    running: Option<Running>,
}

impl Sites {
    pub(super) async fn start(exchanges: &Exchanges) -> Result<Self, ToolError> {
        let stage = Stage::set(exchanges.clone())?;
        // Each must know the other's address, so the port of one is chosen before it starts.
        let reserved = TcpListener::bind(FREE_PORT).during("looking for a free port")?;
        let address = reserved.local_addr().during("looking for a free port")?;
        let b = stage.site("B", DOMAIN_B, FREE_PORT, (DOMAIN_A, address)).await?;
        drop(reserved);
        match stage.site("A", DOMAIN_A, address, (DOMAIN_B, b.federation_address()?)).await {
            Ok(a) => Ok(Self { a, b, _directory: stage.directory }),
            Err(error) => {
                b.end().await;
                Err(error)
            }
        }
    }

    /// Stops both, and removes their data.
    pub(super) async fn end(self) {
        tokio::join!(self.a.end(), self.b.end());
    }
}

impl Site {
    async fn open(
        name: &'static str,
        organisation: Organisation,
        (app, token): (AppId, Token),
        mut config: Config,
    ) -> Result<Self, ToolError> {
        let running = serve::start(config.clone()).await?;
        // It starts again on the same port.
        config.internal.listen = running.address();
        if let (Some(federation), Some(address)) = (&mut config.federation, running.federation_address()) {
            federation.listen = address;
        }
        let api = GatewayClient::new(running.base_url(), app, token).during("making an HTTP client")?;
        Ok(Self {
            name,
            domain: organisation.domain().clone(),
            identities: Identities::X509(Box::new(organisation)),
            api,
            config,
            running: Some(running),
        })
    }

    /// The base URL for its applications.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}", self.config.internal.listen)
    }

    /// The URL for other gateways.
    pub(super) fn federation_address(&self) -> Result<SocketAddr, ToolError> {
        let federation = self.config.federation.as_ref();
        federation
            .map(|federation| federation.listen)
            .ok_or_else(|| ToolError::Broken(format!("gateway {} does not federate", self.name)))
    }

    /// Stops it as an operator would. Its data stays.
    pub(super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Starts it again on the data that it left.
    pub(super) async fn start_again(&mut self) -> Result<(), ToolError> {
        self.running = Some(serve::start(self.config.clone()).await?);
        Ok(())
    }

    async fn end(mut self) {
        self.stop().await;
    }
}

/// The settings of the gateways.
struct Stage {
    directory: TempDir,
    /// The authority that certifies the gateways.
    gateways: CertificateAuthority,
    /// The authority that certifies the organisations whose clients they serve.
    organisations: CertificateAuthority,
    app: AppId,
    token: Token,
    exchanges: Exchanges,
}

impl Stage {
    fn set(exchanges: Exchanges) -> Result<Self, ToolError> {
        let root =
            |name, depth| CertificateAuthority::root(name, depth).during_library("making a root certificate");
        Ok(Self {
            directory: tempfile::Builder::new()
                .prefix("mimi-gateway-demo-")
                .tempdir()
                .during("making a temporary directory")?,
            gateways: root("Demo Root of Gateways", 0)?,
            organisations: root("Demo Root", 2)?,
            app: AppId::random(),
            token: Token::generate().during_library("making a token")?,
            exchanges,
        })
    }

    /// Starts the gateway of a domain, which listens there for the other one.
    async fn site(
        &self,
        name: &'static str,
        domain: &str,
        listen: SocketAddr,
        (peer, peer_address): (&str, SocketAddr),
    ) -> Result<Site, ToolError> {
        let organisation = Organisation::below(&self.organisations, domain)?;
        let peer = DomainName::new(peer).during_library("naming a domain")?;
        let tokens = vec![TokenSettings { sha256: self.token.hash(), access: TokenAccess::ReadWrite }];
        let mut application = organisation.application(self.app, tokens);
        application.federates_with.insert(peer.clone());
        let url = format!("https://{peer_address}").parse().during_library("naming a peer")?;
        let mut config = Config::embedded()
            .listening_on(FREE_PORT)
            .kept_in(DataDir::Directory(self.directory.path().join(domain)))
            .with_application(application);
        config.domains.insert(organisation.domain().clone());
        config.federation = Some(FederationSettings {
            listen,
            circuit_open_ms: CIRCUIT_OPEN_MS,
            peers: vec![PeerSettings { domain: peer, url }],
            ..self.certified(domain)?
        });
        let mut site = Site::open(name, organisation, (self.app, self.token.clone()), config).await?;
        site.api = self.exchanges.of_client(site.api);
        Ok(site)
    }

    /// The files for the TLS of a domain's gateway: its certificate, its key, and the authority of peers.
    fn certified(&self, domain: &str) -> Result<FederationSettings, ToolError> {
        let issued = self
            .gateways
            .certify_gateway(domain, GATEWAY_LASTS)
            .during_library("making a gateway's certificate")?;
        let file = |end: &str, content: &str| -> Result<PathBuf, ToolError> {
            let path = self.directory.path().join(format!("{domain}-{end}"));
            fs::write(&path, content).during("writing a certificate")?;
            Ok(path)
        };
        Ok(FederationSettings {
            certificate: file("gateway.pem", &issued.certificate)?,
            private_key: file("gateway.key", &issued.private_key)?,
            ca: file("peers-ca.pem", &self.gateways.pem())?,
            ..FederationSettings::default()
        })
    }
}
