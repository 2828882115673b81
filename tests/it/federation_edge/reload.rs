//! Gateways that move to another certificate authority while they run.

use std::sync::Arc;

use mimi_gateway::config::{Config, FederationSettings};

use super::{A, B, Caller, Two, digest, register};
use crate::support::{Setup, peers::GatewayPki};

/// The configuration with a certificate of another authority, which alone certifies peers.
fn certified_by(pki: &GatewayPki, setup: &Setup, domain: &str) -> Config {
    let FederationSettings { certificate, private_key, ca, .. } = pki.settings(&[domain]);
    let mut config = setup.config.clone();
    let federation = config.federation.take().unwrap();
    config.federation = Some(FederationSettings { certificate, private_key, ca, ..federation });
    config
}

#[actix_web::test]
async fn peers_move_to_another_authority_without_a_restart() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    register(&b, &["carol"]).await;
    let find = format!("/clients?tag=team&domain={B}");
    assert_eq!(a.get(&find).await.success(200)["identities"].as_array().unwrap().len(), 1);

    let newer = Arc::new(GatewayPki::new());
    assert_eq!(a.reload(&certified_by(&newer, &two.a, A)).await.unwrap(), [""; 0]);
    // They do not trust each other until both have moved.
    a.get(&find).await.problem(502, "peer-unreachable", "");
    let before = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, a.federation_address());
    let after = Caller::new(&newer, Some(&newer.issue(&[B])), A, a.federation_address());
    let path = a.path(&format!("/clients?tag=team&domain={A}"));
    before.send("GET", &path, Some(&digest(a.app)), None).await.unwrap_err();
    assert_eq!(after.send("GET", &path, Some(&digest(a.app)), None).await.unwrap().0, 200);

    b.reload(&certified_by(&newer, &two.b, B)).await.unwrap();
    let mut found = a.get(&find).await;
    // The circuit may be open for a moment.
    for _ in 0..100 {
        if found.status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        found = a.get(&find).await;
    }
    assert_eq!(found.success(200)["identities"].as_array().unwrap().len(), 1);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_certificate_must_be_of_the_domains_that_are_in_use() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let mut config = certified_by(&GatewayPki::new(), &two.a, "c.example");
    config.domains = ["c.example".parse().unwrap()].into();
    let refused = a.reload(&config).await.unwrap_err();
    assert!(refused.to_string().contains("federation.certificate"), "{refused}");
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_certificate_of_another_domain_changes_nothing() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    register(&b, &["carol"]).await;
    let newer = GatewayPki::new();
    let refused = a.reload(&certified_by(&newer, &two.a, "c.example")).await.unwrap_err();
    assert!(refused.to_string().contains("federation.certificate"), "{refused}");
    a.get(&format!("/clients?tag=team&domain={B}")).await.success(200);
    a.stop().await;
    b.stop().await;
}
