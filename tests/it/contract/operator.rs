//! The listener for operators (*Operators*): its pages, its tokens, and readiness while the gateway stops.

use std::time::Duration;

use mimi_gateway::{
    config::{Config, DataDir, OperatorSettings, TokenAccess, TokenSettings},
    serve::{self, StartError},
    token::Token,
};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Request, Setup, TestGateway};

const APPLICATIONS: &str = "/operator/v1/applications";

/// A gateway with two tokens of operators.
struct Watched {
    gateway: TestGateway,
    writer: Token,
    reader: Token,
}

impl Watched {
    async fn start(shutdown_delay_s: u64) -> Self {
        let (writer, reader) = (Token::generate().unwrap(), Token::generate().unwrap());
        let mut setup = Setup::new();
        let tokens = [(&writer, TokenAccess::ReadWrite), (&reader, TokenAccess::Read)];
        setup.watched_by(&tokens).shutdown_delay_s = shutdown_delay_s;
        Self { gateway: setup.start().await, writer, reader }
    }
}

#[actix_web::test]
async fn health_and_the_contents_need_no_token() {
    let Watched { gateway, .. } = Watched::start(0).await;
    let contents = gateway.operate(Request::new("GET", "/")).await;
    assert_eq!((contents.status, contents.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    for line in contents.text().lines().filter(|line| line.starts_with('/')) {
        let path = line.split_whitespace().next().unwrap();
        let status = gateway.operate(Request::new("GET", path)).await.status;
        assert!(matches!(status, 200 | 401), "{path}, of the contents, is answered {status}");
    }
    assert_eq!(
        gateway.operate(Request::new("GET", "/healthz")).await.success(200),
        json!({ "status": "up" })
    );
    assert_eq!(
        gateway.operate(Request::new("GET", "/readyz")).await.success(200),
        json!({ "status": "ready" })
    );
    gateway.operate(Request::new("POST", "/healthz")).await.problem(405, "method-not-allowed", "GET, HEAD");
    // Nothing of the listener for application servers is here.
    for path in ["/apps", "/openapi.json", "/docs", "/problems", &gateway.path("/clients")] {
        gateway.operate(Request::new("GET", path)).await.problem(404, "unknown-route", "");
    }
    // Nor is anything of this one there.
    let there = gateway.send(Request::new("GET", APPLICATIONS)).await;
    there.problem(404, "unknown-route", "");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_token_is_one_of_an_operator_or_of_an_application() {
    let Watched { gateway, writer, reader } = Watched::start(0).await;
    let ask = |token: &Token| Request::new("GET", APPLICATIONS).token(token);
    let mut apps = [gateway.app, gateway.other_app];
    apps.sort();
    let expected = json!({ "applications": apps.map(|app| json!({ "id": app, "federatesWith": [] })) });
    for token in [&writer, &reader] {
        assert_eq!(gateway.operate(ask(token)).await.success(200), expected);
    }
    for token in [&gateway.writer, &gateway.reader, &gateway.other_writer, &Token::new("guessed")] {
        gateway.operate(ask(token)).await.problem(401, "not-authenticated", "not one of an operator");
    }
    gateway.operate(Request::new("GET", APPLICATIONS)).await.problem(
        401,
        "not-authenticated",
        "no Authorization",
    );
    for token in [&writer, &reader] {
        let clients = Request::new("GET", &gateway.path("/clients")).token(token);
        gateway.send(clients).await.problem(401, "not-authenticated", "does not know the token");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn readiness_fails_first_and_the_listeners_close_later() {
    let Watched { gateway, reader, .. } = Watched::start(3).await;
    let (internal, operator) = (gateway.address(), gateway.operator_address());
    let ready = Request::new("GET", "/readyz");
    ready.send_to(internal).await.success(200);
    let register = |handle: &str| {
        let client = json!({ "clientHandle": handle }).to_string();
        Request::new("POST", &gateway.path("/clients")).token(&gateway.writer).json(&client)
    };
    let (early, late) = (register("early"), register("late"));
    let list = Request::new("GET", APPLICATIONS).token(&reader);
    early.send_to(internal).await.success(201);

    let stopped = actix_web::rt::spawn(gateway.stop());
    let is_unready = async {
        while ready.send_to(internal).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), is_unready).await.expect("readiness fails");
    for address in [internal, operator] {
        ready.send_to(address).await.problem(503, "shutting-down", "");
        Request::new("GET", "/healthz").send_to(address).await.success(200);
    }
    late.send_to(internal).await.success(201);
    list.send_to(operator).await.success(200);
    assert!(!stopped.is_finished());
    tokio::time::timeout(Duration::from_secs(20), stopped).await.expect("it stops").unwrap();
    for address in [internal, operator] {
        assert!(TcpStream::connect(address).await.is_err(), "{address} is closed");
    }
}

#[actix_web::test]
async fn the_token_of_the_application_that_a_gateway_made_is_no_operators() {
    let directory = tempfile::tempdir().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let operator = OperatorSettings { listen: free, ..OperatorSettings::default() };
    let config = Config::embedded()
        .listening_on(free)
        .kept_in(DataDir::Directory(directory.path().to_owned()))
        .with_operator(operator.clone());
    let running = serve::start(config.clone()).await.unwrap();
    let token = running.default_application().unwrap().token.clone().unwrap();
    assert_ne!(running.operator_token().unwrap().reveal(), token.reveal());
    running.stop().await;

    // The token that the first start made is still the operators'.
    let running = serve::start(config.clone()).await.unwrap();
    assert!(running.operator_token().is_none());
    running.stop().await;

    let tokens = vec![TokenSettings { sha256: token.hash(), access: TokenAccess::Read }];
    let shared = config.with_operator(OperatorSettings { tokens, ..operator });
    let error = serve::start(shared).await.err().unwrap();
    assert!(matches!(error, StartError::SharedToken { place: 0 }), "{error}");
    assert!(error.to_string().starts_with("operator.tokens[0].sha256: "), "{error}");
}
