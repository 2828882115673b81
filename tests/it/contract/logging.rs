//! The log of the binary: its formats, and a line for each request without anything secret in it.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use mimi_gateway::{client::plain_http, token::Token};
use serde_json::{Value, json};

use crate::support::process::{Process, binary};

const APP: &str = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11";
/// How long a line may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that logs to a file, with a token of its application.
struct Logged {
    process: Process,
    directory: tempfile::TempDir,
    token: Token,
}

impl Logged {
    /// Starts it with more settings at the top level.
    fn start(settings: &str) -> Self {
        let (directory, token) = (tempfile::tempdir().unwrap(), Token::generate().unwrap());
        let config = format!(
            "data_dir = \":memory:\"\n{settings}\n[internal]\nlisten = \"127.0.0.1:0\"\n[[applications]]\nid = \"{APP}\"\n\
             tokens = [{{ sha256 = \"{}\", access = \"read-write\" }}]\n",
            token.hash()
        );
        let file = directory.path().join("gateway.toml");
        fs::write(&file, config).unwrap();
        let mut command = binary(&["--config", file.to_str().unwrap()]);
        let log = File::create(directory.path().join("log")).unwrap();
        let process = Process::start(command.env_remove("NO_COLOR").stderr(log));
        Self { process, directory, token }
    }

    fn log(&self) -> String {
        log_in(self.directory.path())
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, id: &str, body: Value) -> u16 {
        let url = format!("{}{path}", self.process.internal());
        let method = method.parse().unwrap();
        let mut request = plain_http().build().unwrap().request(method, url).header("X-Request-Id", id);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.json(&body).send().await.unwrap().status().as_u16()
    }

    /// Stops it and returns its log.
    fn stopped(mut self) -> String {
        self.process.signal("TERM");
        assert_eq!(self.process.ended(), Some(0));
        self.log()
    }
}

fn log_in(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap()
}

#[actix_web::test]
async fn each_request_is_a_line_of_json_that_keeps_secrets() {
    let gateway = Logged::start("log_format = \"json\"");
    let token = gateway.token.reveal().to_owned();
    let clients = format!("/apps/{APP}/clients");
    let carol = json!({ "clientHandle": "carol-the-handle", "tags": ["the-tag"] });
    let secret = "guessed-token";
    assert_eq!(gateway.ask("POST", &clients, Some(&token), "r1", carol.clone()).await, 201);
    assert_eq!(gateway.ask("POST", &clients, Some(&token), "r2", carol.clone()).await, 409);
    assert_eq!(gateway.ask("POST", &clients, Some(secret), "r3", carol.clone()).await, 401);
    let groups = format!("{clients}/carol-the-handle/groups?limit=1");
    assert_eq!(gateway.ask("GET", &groups, Some(&token), "r4", carol.clone()).await, 200);
    assert_eq!(gateway.ask("GET", "/the-path", None, "r5", carol.clone()).await, 404);
    assert_eq!(gateway.ask("PURGE", &clients, Some(&token), "r6", carol.clone()).await, 405);
    assert_eq!(gateway.ask("GET", "/readyz", None, "r7", carol).await, 200);

    let log = gateway.stopped();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let access: Vec<&Value> = lines.iter().filter(|line| line["target"] == "access").collect();
    let expected = [
        ("r1", json!(APP), "POST", "/apps/{appId}/clients", 201, Value::Null),
        ("r2", json!(APP), "POST", "/apps/{appId}/clients", 409, json!("client-handle-taken")),
        ("r3", json!(APP), "POST", "/apps/{appId}/clients", 401, json!("not-authenticated")),
        ("r4", json!(APP), "GET", "/apps/{appId}/clients/{clientHandle}/groups", 200, Value::Null),
        ("r5", Value::Null, "GET", "-", 404, json!("unknown-route")),
        ("r6", Value::Null, "-", "-", 405, json!("method-not-allowed")),
    ];
    assert_eq!(access.len(), expected.len(), "{log}");
    for (line, (id, application, method, route, status, problem)) in access.into_iter().zip(expected) {
        let found = [
            &line["id"],
            &line["application"],
            &line["method"],
            &line["route"],
            &line["status"],
            &line["problem"],
            &line["listener"],
        ];
        let expected = [
            &json!(id),
            &application,
            &json!(method),
            &json!(route),
            &json!(status),
            &problem,
            &json!("internal"),
        ];
        assert_eq!(found, expected, "{line}");
        assert!(line["ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{line}");
        assert_eq!(line["level"], "INFO");
    }
    for hidden in [&token, secret, "carol-the-handle", "the-tag", "the-path", "PURGE"] {
        assert!(!log.contains(hidden), "{hidden} is in the log: {log}");
    }
    let start = lines.iter().find(|line| line["message"] == "listening").expect("the line of the start");
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&start["data_dir"], &start["durability"]), (&json!(":memory:"), &json!("sync")));
    assert_eq!(start["applications"], 1);
}

#[actix_web::test]
async fn text_in_a_file_has_no_colours_and_lines_come_while_it_runs() {
    let gateway = Logged::start("");
    assert_eq!(gateway.ask("GET", "/nothing", None, "r1", json!({})).await, 404);
    let since = Instant::now();
    while !gateway.log().contains("access: answered id=r1 ") {
        assert!(since.elapsed() < PATIENCE, "{}", gateway.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = gateway.stopped();
    assert!(log.contains(" INFO ") && !log.contains('\u{1b}'), "{log}");
}

#[actix_web::test]
async fn the_access_log_can_be_left_out() {
    let gateway = Logged::start("log = \"info,access=off\"");
    assert_eq!(gateway.ask("GET", "/nothing", None, "r1", json!({})).await, 404);
    let log = gateway.stopped();
    assert!(log.contains("listening") && log.contains("stopped"), "{log}");
    assert!(!log.contains("access"), "{log}");
}
