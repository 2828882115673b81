//! Support for gateways of several domains: certificates, and connections between them that can fail.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::AppId;
use mimi_gateway::config::{FederationSettings, ListenerSettings, PeerSettings};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Certifies gateways, and keeps what it certified in files.
pub(crate) struct GatewayPki {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    issued: AtomicUsize,
}

/// The files of one gateway.
pub(crate) struct Issued {
    certificate: PathBuf,
    key: PathBuf,
}

impl GatewayPki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        Self { directory, ca, issued: AtomicUsize::new(0) }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for these DNS names that is valid all the time.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| ())
    }

    /// A certificate that ends so long from now, or did so long ago.
    pub(crate) fn issue_until(&self, names: &[&str], seconds: i64) -> Issued {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = i64::try_from(since.as_secs()).unwrap();
        self.issue_with(names, |params| {
            let at = |seconds: i64| {
                date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now + seconds).unwrap())
            };
            params.not_before = at(seconds - 86_400);
            params.not_after = at(seconds);
        })
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let file = |end: &str| self.directory.path().join(format!("{number}.{end}"));
        std::fs::write(file("pem"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        Issued { certificate: file("pem"), key: file("key") }
    }

    /// A gateway of these domains on a free port, with short timeouts.
    pub(crate) fn settings(&self, domains: &[&str]) -> FederationSettings {
        let issued = self.issue(domains);
        let federation = FederationSettings::default();
        FederationSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            certificate: issued.certificate,
            private_key: issued.key,
            ca: self.ca(),
            listener: ListenerSettings { workers: 1, ..federation.listener },
            connect_timeout_ms: 1000,
            request_timeout_ms: 3000,
            retries: 1,
            retry_delay_ms: 20,
            circuit_failures: 4,
            circuit_open_ms: 500,
            ..federation
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        roots
    }

    /// TLS of a caller that believes this CA, with a certificate or without.
    pub(crate) fn caller(&self, identity: Option<&Issued>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match identity {
            Some(issued) => builder.with_client_auth_cert(issued.chain(), issued.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }
}

impl Issued {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.certificate).unwrap().map(Result::unwrap).collect()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }

    /// TLS of a server with this certificate that does not ask clients for one.
    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain(), self.key())
            .unwrap()
    }
}

/// The ApplicationConfiguration of an application of [`Setup::x509`](super::Setup::x509).
pub(crate) fn configuration(app: AppId) -> Value {
    json!({
        "id": app.to_string(),
        "identity_configuration": {
            "identity_provider_type": 2,
            "parameters": {
                "account_handle_offset": 1,
                "device_handle_range": { "end": 0, "start": 0 },
                "domain_name_offset": 2
            },
            "supports_accounts": true,
            "supports_domains": true
        }
    })
}

/// Its digest for the header: the hash of its JSON with sorted members and no spaces.
pub(crate) fn digest(app: AppId) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(configuration(app).to_string());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The way to a gateway: an address that exists before the gateway does, and that leads to a configurable one.
pub(crate) struct Link {
    address: SocketAddr,
    lead: Arc<Mutex<Lead>>,
}

/// The fate of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are closed.
    Closed,
    /// They are accepted, and nothing ever comes back.
    Silent,
    /// They go there.
    To(SocketAddr),
    /// They go there, slowly, and break off somewhere in the middle.
    Unsteady(SocketAddr),
}

/// A way, and what every connection on it holds.
#[derive(Clone)]
struct Lead {
    way: Way,
    held: Arc<()>,
}

impl Link {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let lead = Arc::new(Mutex::new(Lead { way: Way::Closed, held: Arc::default() }));
        let current = Arc::clone(&lead);
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(carry(from, Arc::clone(&current)));
            }
        });
        Self { address, lead }
    }

    /// Where connections go from now on; those that are open are cut.
    pub(crate) async fn lead(&self, way: Way) {
        let before = std::mem::replace(&mut *self.lead.lock().unwrap(), Lead { way, held: Arc::default() });
        while Arc::strong_count(&before.held) > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The gateway of this domain is at the end of the link.
    pub(crate) fn peer(&self, domain: &str) -> PeerSettings {
        PeerSettings {
            domain: domain.parse().unwrap(),
            url: format!("https://{}", self.address).parse().unwrap(),
        }
    }
}

async fn carry(mut from: TcpStream, current: Arc<Mutex<Lead>>) {
    let Lead { way, held } = current.lock().unwrap().clone();
    let changed = async {
        while Arc::ptr_eq(&current.lock().unwrap().held, &held) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let carried = async {
        match way {
            Way::Closed => {}
            Way::Silent => std::future::pending().await,
            Way::Unsteady(address) => {
                if let Ok(to) = TcpStream::connect(address).await {
                    unsteadily(from, to).await;
                }
            }
            Way::To(address) => {
                if let Ok(mut to) = TcpStream::connect(address).await {
                    // However it ends, both ends are closed.
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            }
        }
    };
    tokio::select! {
        () = carried => {}
        () = changed => {}
    }
}

/// Carries some bytes in each direction, late, and closes both ends within a message.
async fn unsteadily(from: TcpStream, to: TcpStream) {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let (from_there, from_here) = (from.into_split(), to.into_split());
    // Long enough for a handshake, and then for a few messages or none.
    let bytes_max = 2_500 + number.wrapping_mul(7_919) % 40_000;
    tokio::select! {
        () = dripping(from_there.0, from_here.1, bytes_max) => {}
        () = dripping(from_here.0, from_there.1, bytes_max) => {}
    }
}

async fn dripping(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes_max: usize) {
    let mut left = bytes_max;
    let mut buffer = [0; 1024];
    while left > 0 {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let count = count.min(left);
        left -= count;
        tokio::time::sleep(Duration::from_millis((left % 7) as u64)).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
