//! A gateway in this process, and a bare HTTP/1.1 caller that sends exactly the bytes of a test.

pub(crate) mod metrics;
pub(crate) mod peers;
pub(crate) mod process;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::{AppId, Clock, DomainName, Timestamp};
use mimi_gateway::{
    api::applications::IdentityConfiguration,
    client::GatewayClient,
    config::{
        ApplicationSettings, Config, DataDir, FederationSettings, OperatorSettings, PeerSettings, Pem,
        TokenAccess, TokenSettings, X509Settings,
    },
    serve::{self, Running, StartError},
    token::Token,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::peers::GatewayPki;

/// How long an answer may take before a test has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A gateway with two applications; requests go to the first unless a test says otherwise.
pub(crate) struct TestGateway {
    running: Running,
    /// The application that is asked for.
    pub(crate) app: AppId,
    /// Another application.
    pub(crate) other_app: AppId,
    /// A `read-write` token of `app`.
    pub(crate) writer: Token,
    /// A `read` token of `app`.
    pub(crate) reader: Token,
    /// A `read-write` token of `other_app`.
    pub(crate) other_writer: Token,
}

/// The setup of a test's gateway.
pub(crate) struct Setup {
    /// The whole configuration; change it before [`Setup::start`].
    pub(crate) config: Config,
    pub(crate) app: AppId,
    pub(crate) other_app: AppId,
    pub(crate) writer: Token,
    reader: Token,
    pub(crate) other_writer: Token,
    /// How far the gateway's clock is ahead of the machine's, in milliseconds.
    ahead_ms: Arc<AtomicU64>,
    /// Keeps the files that the configuration names.
    _pki: Option<Arc<GatewayPki>>,
}

impl Setup {
    /// In memory, on a free port.
    pub(crate) fn new() -> Self {
        let token = || Token::generate().unwrap();
        let (writer, reader, other_writer) = (token(), token(), token());
        let (app, other_app) = (AppId::random(), AppId::random());
        let settings = |token: &Token, access| TokenSettings { sha256: token.hash(), access };
        let mut first = ApplicationSettings::basic(
            app,
            vec![settings(&writer, TokenAccess::ReadWrite), settings(&reader, TokenAccess::Read)],
        );
        first.public = true;
        let second =
            ApplicationSettings::basic(other_app, vec![settings(&other_writer, TokenAccess::ReadWrite)]);
        let mut config = Config::embedded()
            .listening_on(SocketAddr::from(([127, 0, 0, 1], 0)))
            .kept_in(DataDir::Memory)
            .with_application(first)
            .with_application(second);
        config.internal.listener.workers = 2;
        config.actor_threads = 2;
        Self { config, app, other_app, writer, reader, other_writer, ahead_ms: Arc::default(), _pki: None }
    }

    /// Adds a listener for operators with these tokens, on a free port.
    pub(crate) fn watched_by(&mut self, tokens: &[(&Token, TokenAccess)]) -> &mut OperatorSettings {
        let settings =
            |(token, access): &(&Token, TokenAccess)| TokenSettings { sha256: token.hash(), access: *access };
        self.config.operator.insert(OperatorSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tokens: tokens.iter().map(settings).collect(),
            ..OperatorSettings::default()
        })
    }

    /// As [`Setup::new`], for clients of these domains with certificates under these roots: the device, its account and its
    /// domain. The application federates with the others.
    pub(crate) fn x509(roots: &str, domains: &[&str], federates_with: &[&str]) -> Self {
        let mut setup = Self::new();
        let names = |names: &[&str]| names.iter().map(|name| DomainName::new(name).unwrap()).collect();
        setup.config.domains = names(domains);
        let application = &mut setup.config.applications[0];
        application.identity_configuration = IdentityConfiguration::x509();
        application.x509 = Some(X509Settings::trusting(Pem::new(roots)));
        application.federates_with = names(federates_with);
        if !federates_with.is_empty() {
            let pki = Arc::new(GatewayPki::new());
            let nowhere = |domain: &DomainName| PeerSettings {
                domain: domain.clone(),
                // No server listens at this address, and no discovery request is made for the domain.
                url: "https://127.0.0.1:9".parse().unwrap(),
            };
            let peers = setup.config.applications[0].federates_with.iter().map(nowhere).collect();
            setup.config.federation = Some(FederationSettings { peers, ..pki.settings(domains) });
            setup._pki = Some(pki);
        }
        setup
    }

    /// The gateway of a domain that federates an application with others, under certificates of this PKI.
    pub(crate) fn federated(
        roots: &str,
        pki: &Arc<GatewayPki>,
        app: AppId,
        domain: &str,
        others: &[&str],
    ) -> Self {
        let mut setup = Self::x509(roots, &[domain], others);
        setup.config.applications[0].id = app;
        setup.app = app;
        setup.config.federation = Some(pki.settings(&[domain]));
        setup._pki = Some(Arc::clone(pki));
        setup
    }

    /// How the gateway federates.
    pub(crate) fn federation(&mut self) -> &mut FederationSettings {
        self.config.federation.as_mut().expect("a gateway that federates")
    }

    /// The settings of the X.509 application besides its trust roots.
    pub(crate) fn policy(&mut self) -> &mut X509Settings {
        self.config.applications[0].x509.as_mut().expect("an X.509 application")
    }

    /// A client of the application at some address that leads to the gateway.
    pub(crate) fn client(&self, base_url: impl Into<String>) -> GatewayClient {
        GatewayClient::new(base_url, self.app, self.writer.clone()).unwrap()
    }

    /// Lets time pass for the gateway, one that runs as well; the clients' clock is the machine's.
    pub(crate) fn pass(&self, time: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// The gateway's time now.
    pub(crate) fn clock(&self) -> Clock {
        let (system, ahead_ms) = (Clock::system(), Arc::clone(&self.ahead_ms));
        Clock::new(move || Timestamp(system.now().0 + ahead_ms.load(Ordering::Relaxed)))
    }

    /// Starts it; the setup can start it again after it was stopped.
    pub(crate) async fn start(&self) -> TestGateway {
        self.start_with_clock(self.clock()).await
    }

    /// As [`Setup::start`], with another clock than [`Setup::clock`].
    pub(crate) async fn start_with_clock(&self, clock: Clock) -> TestGateway {
        TestGateway {
            running: serve::start_with_clock(self.config.clone(), clock).await.unwrap(),
            app: self.app,
            other_app: self.other_app,
            writer: self.writer.clone(),
            reader: self.reader.clone(),
            other_writer: self.other_writer.clone(),
        }
    }
}

impl TestGateway {
    /// One with the usual setup.
    pub(crate) async fn start() -> Self {
        Setup::new().start().await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address()
    }

    /// Where it listens for other gateways.
    pub(crate) fn federation_address(&self) -> SocketAddr {
        self.running.federation_address().expect("a gateway that federates")
    }

    /// Where it listens for operators.
    pub(crate) fn operator_address(&self) -> SocketAddr {
        self.running.operator_address().expect("a gateway with a listener for operators")
    }

    pub(crate) fn base_url(&self) -> String {
        self.running.base_url()
    }

    /// Reads certificates, trust roots and lists again if their files have changed; whether they have.
    pub(crate) async fn reload_changed(&self) -> Result<bool, StartError> {
        self.running.reload_changed().await
    }

    /// Takes what can be reloaded from a configuration; the settings that need a restart.
    pub(crate) async fn reload(&self, config: &Config) -> Result<Vec<String>, StartError> {
        self.running.reload(config.clone()).await
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }

    /// A path of the application: `/apps/{appId}` and the rest.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/apps/{}{rest}", self.app)
    }

    pub(crate) async fn get(&self, rest: &str) -> Reply {
        self.call("GET", rest, None).await
    }

    pub(crate) async fn post(&self, rest: &str, body: Value) -> Reply {
        self.call("POST", rest, Some(body)).await
    }

    pub(crate) async fn put(&self, rest: &str, body: Value) -> Reply {
        self.call("PUT", rest, Some(body)).await
    }

    pub(crate) async fn patch(&self, rest: &str, body: Value) -> Reply {
        self.call("PATCH", rest, Some(body)).await
    }

    pub(crate) async fn delete(&self, rest: &str) -> Reply {
        self.call("DELETE", rest, None).await
    }

    /// Asks under the application with its `read-write` token.
    pub(crate) async fn call(&self, method: &str, rest: &str, body: Option<Value>) -> Reply {
        let request = Request::new(method, &self.path(rest)).token(&self.writer);
        let request = match body {
            Some(body) => request.json(&body.to_string()),
            None => request,
        };
        self.send(request).await
    }

    /// Sends exactly this.
    pub(crate) async fn send(&self, request: Request) -> Reply {
        request.send_to(self.address()).await
    }

    /// Sends exactly this to the listener for operators.
    pub(crate) async fn operate(&self, request: Request) -> Reply {
        request.send_to(self.operator_address()).await
    }
}

/// One request, as it is written.
#[derive(Clone)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}
impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn token(self, token: &Token) -> Self {
        self.header("Authorization", &format!("Bearer {}", token.reveal()))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A body with its type and length.
    pub(crate) fn json(self, body: &str) -> Self {
        self.header("Content-Type", "application/json").body(body.as_bytes())
    }

    /// A body with its length.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.header("Content-Length", &body.len().to_string())
    }

    /// The bytes after the header, sent as they are, without a length.
    pub(crate) fn rest(mut self, rest: &[u8]) -> Self {
        self.body = rest.to_vec();
        self
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Sends it on a connection of its own.
    pub(crate) async fn send_to(&self, address: SocketAddr) -> Reply {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&self.bytes()).await.unwrap();
        Reply::read_to(stream, &self.path, self.method == "HEAD").await
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{headers}\r\n",
            self.method, self.path
        );
        [head.as_bytes(), &self.body].concat()
    }
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    path: String,
}

impl Reply {
    /// Reads one answer. A gateway may leave the connection open after it for a while.
    pub(crate) async fn read(stream: TcpStream, path: &str) -> Self {
        Self::read_to(stream, path, false).await
    }

    async fn read_to(mut stream: TcpStream, path: &str, is_head: bool) -> Self {
        let mut bytes = Vec::new();
        loop {
            let reading = stream.read_buf(&mut bytes);
            let count = tokio::time::timeout(ANSWER_TIMEOUT, reading).await.expect("no answer").unwrap();
            match Self::parse(&bytes, path, is_head) {
                Some(reply) => return reply,
                None => assert_ne!(count, 0, "the connection was closed within an answer"),
            }
        }
    }

    /// The answer in these bytes, once they are all there. The answer to a HEAD has no body.
    fn parse(bytes: &[u8], path: &str, is_head: bool) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Self { status, headers, body: bytes[end + 4..].to_vec(), path: path.to_owned() };
        if is_head {
            assert!(reply.body.is_empty(), "{path}: a body after a HEAD");
            return Some(reply);
        }
        let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        let is_whole = reply.body.len() >= length;
        reply.body.truncate(length);
        is_whole.then_some(reply)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body of a success of this status.
    #[track_caller]
    pub(crate) fn success(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.path, self.text());
        if status == 204 {
            assert_eq!(self.text(), "", "{}", self.path);
            return Value::Null;
        }
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.path);
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The document of a problem of this type, whose detail holds `part`.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str, part: &str) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.path, self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.path);
        let document: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["type"], format!("/problems/{slug}"), "{document}");
        assert_eq!(document["status"], status, "{document}");
        assert_eq!(document["instance"], self.path.split('?').next().unwrap(), "{document}");
        assert!(document["title"].as_str().is_some_and(|title| !title.is_empty()), "{document}");
        let detail = document["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(part), "{part:?} is not in {document}");
        document
    }
}
