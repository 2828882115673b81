//! Requests between gateways of different domains over mutual TLS. Shared groups are in other tests.

mod absence;
mod certificates;
mod discovery;
mod listener;
mod passing;
mod reload;
mod trust;
mod writes;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actors::AppId;
use mimi_gateway::api::federation::CONFIGURATION_HEADER;
use serde_json::{Value, json};

use crate::mls_support::pki::Pki;
use crate::support::{
    Setup, TestGateway,
    peers::{GatewayPki, Issued, Link, Way, configuration, digest},
};

const A: &str = "a.example";
const B: &str = "b.example";

/// What two gateways are started with.
struct Two {
    pki: Arc<GatewayPki>,
    clients: Pki,
    a: Setup,
    b: Setup,
    to_a: Link,
    to_b: Link,
}

impl Two {
    async fn new() -> Self {
        let (pki, clients) = (Arc::new(GatewayPki::new()), Pki::new());
        let app = AppId::random();
        let (to_a, to_b) = (Link::new().await, Link::new().await);
        let mut a = Setup::federated(&clients.roots(), &pki, app, A, &[B]);
        let mut b = Setup::federated(&clients.roots(), &pki, app, B, &[A]);
        a.federation().peers = vec![to_b.peer(B)];
        b.federation().peers = vec![to_a.peer(A)];
        Self { pki, clients, a, b, to_a, to_b }
    }

    async fn start(&self) -> (TestGateway, TestGateway) {
        let (a, b) = (self.a.start().await, self.b.start().await);
        self.to_a.lead(Way::To(a.federation_address())).await;
        self.to_b.lead(Way::To(b.federation_address())).await;
        (a, b)
    }
}

/// Asks a federation listener as a gateway would.
struct Caller {
    http: reqwest::Client,
    base_url: String,
}

impl Caller {
    /// With a certificate or without; `domain` is who is at the address.
    fn new(pki: &GatewayPki, identity: Option<&Issued>, domain: &str, address: SocketAddr) -> Self {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(pki.caller(identity))
            .resolve(domain, address)
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self { http, base_url: format!("https://{domain}:{}", address.port()) }
    }

    /// A request that names this configuration.
    fn request(&self, method: &str, path: &str, digest: Option<&str>) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}{path}", self.base_url));
        match digest {
            Some(digest) => request.header(CONFIGURATION_HEADER, digest),
            None => request,
        }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        digest: Option<&str>,
        body: Option<Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let mut request = self.request(method, path, digest);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.json().await?))
    }

    async fn get(&self, path: &str) -> Result<(u16, Value), reqwest::Error> {
        self.send("GET", path, None, None).await
    }

    /// The problem that a request is answered with.
    async fn problem(&self, path: &str, digest: Option<&str>) -> (u16, String, Value) {
        let (status, document) = self.send("GET", path, digest, None).await.unwrap();
        (status, slug(&document), document)
    }
}

fn slug(document: &Value) -> String {
    document["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned()
}

/// Registers clients that have the tag `team`.
async fn register(gateway: &TestGateway, handles: &[&str]) {
    for handle in handles {
        let client = json!({ "clientHandle": handle, "tags": ["team"] });
        gateway.post("/clients", client).await.success(201);
    }
}
