//! Rates of requests, and the header fields that tell of them.

use mimi_gateway::{config::TokenAccess, token::Token};

use crate::support::{Reply, Request, Setup};

/// The fields about rates: `RateLimit-Policy`, `RateLimit` and `Retry-After`.
fn fields(reply: &Reply) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| reply.header(name))
}

#[actix_web::test]
async fn a_token_makes_no_more_requests_than_its_rate_and_every_answer_says_what_is_left() {
    let mut setup = Setup::new();
    let operator = Token::generate().unwrap();
    setup.watched_by(&[(&operator, TokenAccess::ReadWrite)]);
    let rates = &mut setup.config.applications[0].rates;
    (rates.requests_max, rates.window_s) = (Some(3), 3600);
    let gateway = setup.start().await;
    let policy = Some("\"token\";q=3;w=3600");
    let reply = gateway.get("/clients?tag=x").await;
    reply.success(200);
    assert_eq!(fields(&reply), [policy, Some("\"token\";r=2;t=2400"), None]);
    // Errors and HEAD count as well.
    let reply = gateway.get("/nowhere").await;
    reply.problem(404, "unknown-route", "");
    assert_eq!(fields(&reply), [None; 3], "there is no caller where there is no route");
    let reply = gateway.get("/groups/Zw").await;
    reply.problem(404, "unknown-group", "");
    assert_eq!(fields(&reply), [policy, Some("\"token\";r=1;t=1200"), None]);
    let reply = gateway.call("HEAD", "/groups", None).await;
    assert_eq!((reply.status, fields(&reply)), (200, [policy, Some("\"token\";r=0;t=1200"), None]));
    for request in [
        Request::new("GET", &gateway.path("/groups")),
        Request::new("POST", &gateway.path("/clients")).json("{\"clientHandle\": \"alice\"}"),
        // A client that asks whether to send its body is answered before it does.
        Request::new("PUT", &gateway.path("/groups"))
            .header("Content-Type", "application/json")
            .header("Content-Length", "1000000")
            .header("Expect", "100-continue"),
    ] {
        let reply = gateway.send(request.token(&gateway.writer)).await;
        reply.problem(429, "too-many-requests", "3 requests with one token in 3600 s");
        let [found, limit, retry_after] = fields(&reply);
        let wait_s: u64 = retry_after.unwrap().parse().unwrap();
        assert!((1_100..=1_200).contains(&wait_s), "{wait_s}");
        assert_eq!((found, limit), (policy, Some(format!("\"token\";r=0;t={wait_s}").as_str())));
    }
    // Another token has a rate of its own, one that an operator makes as well; another application has none.
    let made = Request::new("POST", &format!("/operator/v1/applications/{}/tokens", gateway.app));
    let made = gateway.operate(made.token(&operator).json("{\"access\": \"read\"}")).await.success(201);
    let made = Token::new(made["token"].as_str().unwrap());
    for token in [&gateway.reader, &made] {
        let reply = gateway.send(Request::new("GET", &gateway.path("/groups")).token(token)).await;
        reply.success(200);
        assert_eq!(fields(&reply), [policy, Some("\"token\";r=2;t=2400"), None]);
    }
    let other = Request::new("GET", &format!("/apps/{}/groups", gateway.other_app));
    let reply = gateway.send(other.token(&gateway.other_writer)).await;
    reply.success(200);
    assert_eq!(fields(&reply), [None; 3]);
    assert_eq!(fields(&gateway.send(Request::new("GET", "/apps")).await), [None; 3]);
    let metrics = gateway.operate(Request::new("GET", "/metrics")).await.text();
    let line = "mimi_gateway_http_rate_exceeded_total{listener=\"internal\",policy=\"token\"} 3\n";
    assert!(metrics.contains(line), "{metrics}");
    gateway.stop().await;
}

#[actix_web::test]
async fn by_default_a_token_has_no_rate() {
    let gateway = crate::support::TestGateway::start().await;
    for _ in 0..200 {
        let reply = gateway.get("/groups").await;
        reply.success(200);
        assert_eq!(fields(&reply), [None; 3]);
    }
    gateway.stop().await;
}
