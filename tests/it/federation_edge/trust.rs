//! Gateways that tell each other what they trust in an application.

use mimi_gateway::{
    api::federation::TRUST_HEADER,
    config::{Pem, TokenAccess},
    token::Token,
};
use serde_json::{Value, json};

use super::{A, B, Caller, Two, digest, register};
use crate::{
    mls_support::pki::Pki,
    support::{Request, Setup, TestGateway, metrics::Metrics},
};

/// Two gateways that operators watch, each with these roots.
async fn watched(roots: [&str; 2]) -> (Two, Token) {
    let operator = Token::generate().unwrap();
    let mut two = Two::new().await;
    for (setup, roots) in [&mut two.a, &mut two.b].into_iter().zip(roots) {
        setup.watched_by(&[(&operator, TokenAccess::Read)]);
        setup.policy().trust_roots = Pem::new(roots);
    }
    (two, operator)
}

/// What a gateway lists of its only peer's trust.
async fn trust(gateway: &TestGateway, operator: &Token) -> Value {
    let peers = gateway.operate(Request::new("GET", "/operator/v1/peers").token(operator)).await.success(200);
    peers["peers"][0]["trust"].clone()
}

fn differing(gateway: &TestGateway, names: &[&str]) -> Value {
    json!([{ "application": gateway.app.to_string(), "differs": names }])
}

/// A request from one gateway to the other, which has to be answered whatever they trust.
async fn ask(from: &TestGateway, domain: &str) {
    from.get(&format!("/clients?tag=team&domain={domain}")).await.success(200);
}

#[actix_web::test]
async fn operators_see_what_differs_and_nothing_is_blocked() {
    let [one, other] = [Pki::new(), Pki::new()].map(|pki| pki.roots());
    let (mut two, operator) = watched([&(one.clone() + &other), &(other.clone() + &one)]).await;
    let (a, b) = two.start().await;
    register(&b, &["carol"]).await;
    assert_eq!(trust(&a, &operator).await, json!([]), "nothing was told yet");
    // One request tells both.
    ask(&a, B).await;
    for gateway in [&a, &b] {
        assert_eq!(trust(gateway, &operator).await, differing(gateway, &[]), "the order does not matter");
    }

    // A root is taken away at one of them; then both come to the same again.
    let differs = async |gateway: &TestGateway, peer: &str, expected: f64| {
        let app = gateway.app.to_string();
        let labels = [("peer", peer), ("application", &*app)];
        // Metrics are computed at intervals.
        let is_shown =
            |metrics: &Metrics| metrics.find("mimi_gateway_peer_trust_differs", &labels) == Some(expected);
        Metrics::until(gateway.operator_address(), is_shown).await;
    };
    let reload = async |gateway: &TestGateway, setup: &mut Setup, roots: &str| {
        setup.policy().trust_roots = Pem::new(roots);
        assert_eq!(gateway.reload(&setup.config).await.unwrap(), [""; 0]);
    };
    reload(&a, &mut two.a, &one).await;
    assert_eq!(trust(&a, &operator).await, differing(&a, &["trust_roots"]));
    ask(&b, A).await;
    assert_eq!(trust(&b, &operator).await, differing(&b, &["trust_roots"]));
    differs(&b, A, 1.0).await;
    reload(&b, &mut two.b, &one).await;
    ask(&a, B).await;
    for (gateway, peer) in [(&a, B), (&b, A)] {
        assert_eq!(trust(gateway, &operator).await, differing(gateway, &[]));
        differs(gateway, peer, 0.0).await;
    }
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn policy_is_compared_and_gateways_that_tell_nothing_are_not() {
    let root = Pki::new().roots();
    let (mut two, operator) = watched([&root, &root]).await;
    two.a.policy().certificates_above_names_max = Some(1);
    let (a, b) = two.start().await;
    // An earlier version sends no header, and another one tells what nobody knows.
    let caller = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, a.federation_address());
    let path = a.path(&format!("/clients?tag=team&domain={A}"));
    let compared = digest(a.app);
    let send = async |told: Option<&str>| {
        let mut request = caller.request("GET", &path, Some(&compared));
        if let Some(told) = told {
            request = request.header(TRUST_HEADER, told);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        response.headers()[TRUST_HEADER].to_str().unwrap().to_owned()
    };
    let told = send(None).await;
    assert!(told.contains("certificates_above_names_max=1, crls=none, trust_roots="), "{told}");
    for nothing in ["nonsense", "=", "crls"] {
        assert_eq!(send(Some(nothing)).await, told);
        assert_eq!(trust(&a, &operator).await, json!([]));
    }
    send(Some("a_newer_setting=1, crls=some")).await;
    assert_eq!(trust(&a, &operator).await, differing(&a, &["crls"]));

    ask(&b, A).await;
    for gateway in [&a, &b] {
        assert_eq!(trust(gateway, &operator).await, differing(gateway, &["certificates_above_names_max"]));
    }
    a.stop().await;
    b.stop().await;
}
