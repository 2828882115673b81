//! Discovery of the gateway of a domain that is not configured. `localhost` is a domain that every machine can resolve.

use std::sync::Arc;

use actors::AppId;

use super::{A, register};
use crate::{
    mls_support::pki::Pki,
    support::{Setup, peers::GatewayPki},
};

const HOME: &str = "localhost";

struct Discoverable {
    pki: Arc<GatewayPki>,
    a: Setup,
    home: Setup,
}

impl Discoverable {
    fn new() -> Self {
        let (pki, clients) = (Arc::new(GatewayPki::new()), Pki::new());
        let app = AppId::random();
        let a = Setup::federated(&clients.roots(), &pki, app, A, &[HOME]);
        let home = Setup::federated(&clients.roots(), &pki, app, HOME, &[A]);
        Self { pki, a, home }
    }
}

#[actix_web::test]
async fn a_peer_that_is_not_listed_is_found_by_its_domain() {
    let mut setup = Discoverable::new();
    let home = setup.home.start().await;
    setup.a.federation().discovery_port = home.federation_address().port();
    let a = setup.a.start().await;
    register(&home, &["carol"]).await;
    for _ in 0..2 {
        let found = a.get("/clients?tag=team&domain=localhost").await.success(200);
        assert_eq!(found["identities"][0]["clientHandle"], "carol");
    }
    a.stop().await;
    home.stop().await;
}

#[actix_web::test]
async fn a_gateway_that_does_not_claim_the_domain_is_not_asked() {
    let mut setup = Discoverable::new();
    // It may show a certificate for the domain, but is not assigned it.
    setup.home.config.domains = ["c.example".parse().unwrap()].into();
    let files = setup.pki.settings(&[HOME, "c.example"]);
    setup.home.federation().certificate = files.certificate;
    setup.home.federation().private_key = files.private_key;
    let home = setup.home.start().await;
    setup.a.federation().discovery_port = home.federation_address().port();
    let a = setup.a.start().await;
    let reply = a.get("/clients?tag=team&domain=localhost").await;
    reply.problem(502, "peer-unreachable", "describes a gateway of other domains");
    a.stop().await;
    home.stop().await;
}

#[actix_web::test]
async fn where_nobody_answers_nobody_is_found() {
    let mut setup = Discoverable::new();
    let home = setup.home.start().await;
    // The internal listener speaks no TLS.
    setup.a.federation().discovery_port = home.address().port();
    let a = setup.a.start().await;
    a.get("/clients?tag=team&domain=localhost").await.problem(502, "peer-unreachable", "localhost");
    a.stop().await;
    home.stop().await;
}
