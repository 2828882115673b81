//! The listener for operators (*Operators*): its pages, its tokens, and readiness while the gateway stops.

use std::time::Duration;

use actors::AppId;
use mimi_gateway::{
    config::{Config, DataDir, OperatorSettings, TokenAccess, TokenSettings},
    serve::{self, StartError},
    token::Token,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    mls_support::clients,
    support::{Reply, Request, Setup, TestGateway},
};

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
    let none = json!({ "count": 0, "isMore": false });
    let unused = json!({ "used": 0 });
    let quotas = json!({ "clients": unused, "groups": unused, "keyPackages": unused, "storedBytes": unused });
    let empty = |app| {
        json!({
            "id": app,
            "federatesWith": [],
            "clients": none,
            "groups": none,
            "keyPackages": none,
            "quotas": quotas,
        })
    };
    let expected = json!({ "applications": apps.map(empty) });
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

/// The path of an application's tokens.
fn tokens_of(app: AppId) -> String {
    format!("{APPLICATIONS}/{app}/tokens")
}

fn make(token: &Token, app: AppId, access: &str) -> Request {
    Request::new("POST", &tokens_of(app)).token(token).json(&json!({ "access": access }).to_string())
}

impl Watched {
    async fn ids(&self) -> Vec<String> {
        let list = Request::new("GET", &tokens_of(self.gateway.app)).token(&self.reader);
        let listed = self.gateway.operate(list).await.success(200);
        let tokens = listed["tokens"].as_array().unwrap().iter();
        tokens.map(|token| token["tokenId"].as_str().unwrap().to_owned()).collect()
    }

    async fn revoke(&self, id: &str) -> Reply {
        let path = format!("{}/{id}", tokens_of(self.gateway.app));
        self.gateway.operate(Request::new("DELETE", &path).token(&self.writer)).await
    }

    /// The status of a request that reads, and of one that writes, with a token of the application.
    async fn statuses(&self, token: &Token) -> [u16; 2] {
        let path = self.gateway.path("/clients");
        let client = json!({ "clientHandle": uuid::Uuid::new_v4().to_string() }).to_string();
        let read = self.gateway.send(Request::new("GET", &path).token(token)).await.status;
        let write = self.gateway.send(Request::new("POST", &path).token(token).json(&client)).await.status;
        [read, write]
    }
}

#[actix_web::test]
async fn tokens_are_made_and_revoked_at_run_time_and_stay_so() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = (Token::generate().unwrap(), Token::generate().unwrap());
    let mut setup = Setup::new();
    setup.config.data_dir = DataDir::Directory(directory.path().to_owned());
    setup.watched_by(&[(&writer, TokenAccess::ReadWrite), (&reader, TokenAccess::Read)]);
    let watched = Watched { gateway: setup.start().await, writer: writer.clone(), reader: reader.clone() };
    let gateway = &watched.gateway;
    let configured = [gateway.writer.hash().id(), gateway.reader.hash().id()];
    assert_eq!(watched.ids().await, configured);

    let made = gateway.operate(make(&writer, gateway.app, "read")).await.success(201);
    let to_read = Token::new(made["token"].as_str().unwrap());
    assert_eq!(made["tokenId"], to_read.hash().id());
    let made = gateway.operate(make(&writer, gateway.app, "read-write")).await.success(201);
    let to_write = Token::new(made["token"].as_str().unwrap());
    assert_eq!(watched.statuses(&to_read).await, [200, 403]);
    assert_eq!(watched.statuses(&to_write).await, [200, 201]);
    let other = format!("/apps/{}/clients", gateway.other_app);
    gateway.send(Request::new("GET", &other).token(&to_read)).await.problem(403, "not-permitted", "another");
    gateway.operate(Request::new("GET", APPLICATIONS).token(&to_write)).await.problem(
        401,
        "not-authenticated",
        "",
    );
    let [first, second] = configured.clone();
    assert_eq!(watched.ids().await, [first, second.clone(), to_read.hash().id(), to_write.hash().id()]);

    // One that was made, and one of the configuration.
    for token in [&to_read, &gateway.writer] {
        watched.revoke(&token.hash().id()).await.success(204);
        assert_eq!(watched.statuses(token).await, [401, 401]);
        watched.revoke(&token.hash().id()).await.problem(404, "unknown-token", "this tokenId");
    }
    assert_eq!(watched.ids().await, [second.clone(), to_write.hash().id()]);
    watched.gateway.stop().await;

    let watched = Watched { gateway: setup.start().await, writer, reader };
    assert_eq!(watched.ids().await, [second, to_write.hash().id()]);
    assert_eq!(watched.statuses(&to_write).await, [200, 201]);
    for token in [&to_read, &watched.gateway.writer] {
        assert_eq!(watched.statuses(token).await, [401, 401]);
    }
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn what_an_operator_may_not_do_with_tokens_is_refused() {
    let watched = Watched::start(0).await;
    let Watched { gateway, writer, reader } = &watched;
    let path = tokens_of(gateway.app);
    gateway.operate(make(reader, gateway.app, "read")).await.problem(403, "not-permitted", "reading only");
    let id = gateway.reader.hash().id();
    let revoke = Request::new("DELETE", &format!("{path}/{id}"));
    gateway.operate(revoke.clone().token(reader)).await.problem(403, "not-permitted", "reading only");
    gateway.operate(revoke.clone()).await.problem(401, "not-authenticated", "");
    gateway.operate(revoke.token(&gateway.writer)).await.problem(401, "not-authenticated", "");
    // A token of another application, by its id.
    watched.revoke(&gateway.other_writer.hash().id()).await.problem(404, "unknown-token", "");
    for id in ["", "..", "%2e%2e", "%ff", &gateway.reader.hash().to_string()] {
        watched.revoke(id).await.problem(404, "unknown-token", "");
    }
    for (app, part) in
        [(uuid::Uuid::new_v4().to_string(), "no application of this id"), ("x".to_owned(), "not a UUID")]
    {
        for (method, rest) in [("GET", "tokens"), ("DELETE", "tokens/0123456789abcdef")] {
            let request = Request::new(method, &format!("{APPLICATIONS}/{app}/{rest}")).token(writer);
            gateway.operate(request).await.problem(404, "unknown-application", part);
        }
    }
    for body in [json!({}), json!({ "access": "all" }), json!({ "access": "read", "token": "mine" })] {
        let request = Request::new("POST", &path).token(writer).json(&body.to_string());
        gateway.operate(request).await.problem(400, "malformed-request", "");
    }
    for _ in 0..100 {
        gateway.operate(make(writer, gateway.app, "read")).await.success(201);
    }
    gateway.operate(make(writer, gateway.app, "read")).await.problem(422, "limit-reached", "100 tokens");
    gateway.operate(make(writer, gateway.other_app, "read")).await.success(201);
    assert_eq!(watched.ids().await.len(), 102);
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn the_streams_of_a_revoked_token_end() {
    let watched = Watched::start(0).await;
    let gateway = &watched.gateway;
    let [alice] = clients(gateway, ["alice"]).await;
    let open = Request::new("GET", &gateway.path("/events")).token(&gateway.reader);
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(&open.bytes()).await.unwrap();
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("id: ") {
        assert_ne!(stream.read_buf(&mut told).await.unwrap(), 0);
    }
    watched.revoke(&gateway.reader.hash().id()).await.success(204);
    alice.create_group().await;
    let rest = stream.read_to_end(&mut told);
    tokio::time::timeout(Duration::from_secs(10), rest).await.expect("the stream ends").unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(!told.contains("event: "), "nothing is told after that: {told}");
    watched.gateway.stop().await;
}
