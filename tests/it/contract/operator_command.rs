//! `mimi-gateway operator`: the binary as operators run it, against a gateway.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use mimi_gateway::{api::text::GroupIdText, config::TokenAccess, token::Token};
use serde_json::{Value, json};

use crate::{
    mls_support::clients,
    support::{Request, Setup, TestGateway, process::binary},
};

const APPLICATIONS: &str = "/operator/v1/applications";

/// A gateway with two tokens of operators.
struct Watched {
    gateway: TestGateway,
    writer: Token,
    reader: Token,
}

/// What a command did.
struct Ran {
    status: Option<i32>,
    printed: String,
    said: String,
}

/// Runs `operator` with a value of the environment variable for the token.
async fn run_with(token: Option<&str>, url: &str, arguments: &[&str]) -> Ran {
    let mut command = binary(&[&["operator", "--url", url], arguments].concat());
    command.env_remove("MIMI_OPERATOR_TOKEN");
    if let Some(token) = token {
        command.env("MIMI_OPERATOR_TOKEN", token);
    }
    let output = actix_web::rt::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { status: output.status.code(), printed: text(output.stdout), said: text(output.stderr) };
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        assert!(!ran.printed.contains(token) && !ran.said.contains(token), "{arguments:?} shows the token");
    }
    ran
}

impl Ran {
    #[track_caller]
    fn success(self) -> String {
        assert_eq!(self.status, Some(0), "{}", self.said);
        assert_eq!(self.said, "");
        self.printed
    }

    #[track_caller]
    fn failure(self, status: i32, parts: &[&str]) {
        assert_eq!((self.status, self.printed.as_str()), (Some(status), ""), "{}", self.said);
        for part in parts {
            assert!(self.said.contains(part), "{part} is not in {}", self.said);
        }
    }
}

impl Watched {
    async fn start() -> Self {
        let (writer, reader) = (Token::generate().unwrap(), Token::generate().unwrap());
        let mut setup = Setup::new();
        setup.watched_by(&[(&writer, TokenAccess::ReadWrite), (&reader, TokenAccess::Read)]);
        Self { gateway: setup.start().await, writer, reader }
    }

    fn url(&self) -> String {
        format!("http://{}", self.gateway.operator_address())
    }

    async fn run(&self, token: &Token, arguments: &[&str]) -> Ran {
        run_with(Some(token.reveal()), &self.url(), arguments).await
    }

    async fn ask(&self, path: &str) -> Value {
        self.gateway.operate(Request::new("GET", path).token(&self.reader)).await.success(200)
    }
}

/// The cells of each line, if all lines have their columns where the heading has them.
#[track_caller]
fn cells(table: &str) -> Vec<Vec<String>> {
    let lines: Vec<Vec<char>> = table.lines().map(|line| line.chars().collect()).collect();
    let heading = &lines[0];
    let is_start = |at: &usize| *at == 0 || heading[*at] != ' ' && heading[..*at].ends_with(&[' ', ' ']);
    let starts: Vec<usize> = (0..heading.len()).filter(is_start).collect();
    let cell = |line: &[char], column: usize| {
        let (start, end) = (starts[column], starts.get(column + 1).copied().unwrap_or(usize::MAX));
        assert!(start == 0 || line[start - 1] == ' ', "not aligned:\n{table}");
        line[start..end.min(line.len())].iter().collect::<String>().trim_end().to_owned()
    };
    lines.iter().map(|line| (0..starts.len()).map(|column| cell(line, column)).collect()).collect()
}

#[actix_web::test]
async fn what_operators_see_is_printed_as_tables_and_as_json() {
    let watched = Watched::start().await;
    let [alice, bob] = clients(&watched.gateway, ["alice", "bob"]).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let left = alice.key_queue().await.key_packages_available.to_string();
    let (app, group) = (watched.gateway.app.to_string(), GroupIdText(at_alice.id()).to_string());
    let (app, group) = (app.as_str(), group.as_str());
    let of_app = format!("{APPLICATIONS}/{app}");
    for (arguments, path) in [
        (&["applications"][..], APPLICATIONS.to_owned()),
        (&["tokens", app], format!("{of_app}/tokens")),
        (&["groups", app], format!("{of_app}/groups")),
        (&["group", app, group], format!("{of_app}/groups/{group}")),
        (&["epochs", app, group], format!("{of_app}/groups/{group}/epochs")),
        (
            &["epochs", app, group, "--before", "2", "--limit", "3"],
            format!("{of_app}/groups/{group}/epochs?before=2"),
        ),
        (&["clients", app], format!("{of_app}/clients")),
        (&["audit", app], format!("{of_app}/audit")),
        (&["peers"], "/operator/v1/peers".to_owned()),
    ] {
        let printed = watched.run(&watched.reader, &[arguments, &["--json"]].concat()).await.success();
        let answer: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(answer, watched.ask(&path).await, "{arguments:?}");
    }
    let table = async |arguments: &[&str]| watched.run(&watched.reader, arguments).await.success();
    let applications = cells(&table(&["applications"]).await);
    assert_eq!(
        applications[0],
        ["APPLICATION", "CLIENTS", "GROUPS", "KEY PACKAGES", "STORED BYTES", "FEDERATES WITH"]
    );
    let ours = applications.iter().find(|row| row[0] == app).unwrap();
    assert_eq!((&ours[1..3], ours[5].as_str()), (&["2".to_owned(), "1".to_owned()][..], "-"));
    assert!(ours[4].parse::<u64>().unwrap() > 1000, "{ours:?}");
    assert_eq!(applications.len(), 3);
    let found = cells(&table(&["clients", app]).await);
    let row = found.iter().find(|row| row[1] == "alice").unwrap();
    assert_eq!(row[..5], [alice.id.to_string(), "alice".into(), "-".into(), "1".into(), left]);
    assert_eq!(cells(&table(&["groups", app]).await)[1], [group, "1", "-"]);
    let epochs = cells(&table(&["epochs", app, group]).await);
    assert_eq!((epochs.len(), epochs[1][0].as_str(), epochs[1][2].as_str()), (2, "1", "leaf 0"));
    let created = &epochs[1][1];
    assert!(created.starts_with("20") && created.ends_with('Z') && created.len() == 20, "{created}");
    let seen = table(&["group", app, group]).await;
    for line in [
        format!("group               {group}"),
        "epoch               1".into(),
        "members             2".into(),
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is not in {seen}");
    }
    let audited = cells(&table(&["audit", app]).await);
    assert_eq!((audited[1][0].as_str(), audited[1][2].as_str()), ("1", "key-packages-claimed"));
    let start = format!("1 of bob (queue {}), by the application; last: 20", bob.queue);
    let end = format!("receivers: {}", alice.id);
    assert!(audited[1][3].starts_with(&start) && audited[1][3].ends_with(&end), "{audited:?}");
    assert_eq!(cells(&table(&["peers"]).await).len(), 1);
    let tokens = cells(&table(&["tokens", app]).await);
    assert_eq!(tokens[1], [watched.gateway.writer.hash().id(), "read-write".into(), "-".into()]);

    // By pages.
    let page = watched.run(&watched.reader, &["clients", app, "--limit", "1"]).await;
    assert_eq!((page.status, page.printed.lines().count()), (Some(0), 2));
    let cursor = page.said.trim().split_once("continue with --cursor ").expect(&page.said).1;
    let rest = table(&["clients", app, "--cursor", cursor]).await;
    assert_eq!(rest.lines().count(), 2);
    assert_ne!(rest, page.printed);
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn a_token_that_is_made_is_printed_once_and_revoked_by_its_id() {
    let watched = Watched::start().await;
    let app = watched.gateway.app.to_string();
    let made = watched.run(&watched.writer, &["make-token", &app, "--access", "read"]).await.success();
    let lines: Vec<&str> = made.lines().collect();
    let [token, id] = lines[..] else { panic!("{made}") };
    let token = Token::new(token.strip_prefix("token:     ").expect(&made));
    let id = id.strip_prefix("token id:  ").expect(&made);
    assert_eq!(id, token.hash().id());
    let list = Request::new("GET", &watched.gateway.path("/clients")).token(&token);
    watched.gateway.send(list.clone()).await.success(200);
    for arguments in [&["tokens", &app][..], &["tokens", &app, "--json"]] {
        let listed = watched.run(&watched.reader, arguments).await.success();
        assert!(listed.contains(id) && !listed.contains(token.reveal()), "{listed}");
    }
    let refused = watched.run(&watched.reader, &["revoke-token", &app, id]).await;
    refused.failure(1, &["the token in MIMI_OPERATOR_TOKEN lacks access", "reading only"]);
    watched.gateway.send(list.clone()).await.success(200);
    assert_eq!(watched.run(&watched.writer, &["revoke-token", &app, id]).await.success(), "revoked\n");
    watched.gateway.send(list).await.problem(401, "not-authenticated", "");
    watched.run(&watched.writer, &["revoke-token", &app, id]).await.failure(1, &["unknown-token"]);

    let json = watched
        .run(&watched.writer, &["--json", "make-token", &app, "--access", "read-write"])
        .await
        .success();
    let made: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(made["tokenId"], Token::new(made["token"].as_str().unwrap()).hash().id());
    let revoke = ["revoke-token", &app, made["tokenId"].as_str().unwrap(), "--json"];
    assert_eq!(watched.run(&watched.writer, &revoke).await.success(), "");
    watched.gateway.stop().await;
}

/// A token whose answer was lost must be found and revoked.
#[cfg(target_os = "linux")]
#[actix_web::test]
async fn a_token_that_could_not_be_printed_is_told_of() {
    let watched = Watched::start().await;
    let app = watched.gateway.app.to_string();
    let mut command = binary(&["operator", "--url", &watched.url(), "make-token", &app, "--access", "read"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    command
        .env("MIMI_OPERATOR_TOKEN", watched.writer.reveal())
        .stdout(full)
        .stderr(std::process::Stdio::piped());
    let output = actix_web::rt::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("could not be printed and is lost"), "{said}");
    watched.gateway.stop().await;
}

/// The URL of a listener that answers each request with these bytes.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    format!("http://{address}")
}

#[actix_web::test]
async fn it_says_why_there_is_no_answer() {
    let watched = Watched::start().await;
    let (url, app) = (watched.url(), watched.gateway.app.to_string());
    let reader = Some(watched.reader.reveal());
    let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    run_with(reader, &closed, &["peers"]).await.failure(1, &["no gateway is at", &closed, "refused"]);
    for token in ["guessed", watched.gateway.writer.reveal()] {
        run_with(Some(token), &url, &["peers"]).await.failure(1, &["MIMI_OPERATOR_TOKEN is wrong"]);
    }
    let make = ["make-token", &app, "--access", "read"];
    run_with(reader, &url, &make).await.failure(1, &["MIMI_OPERATOR_TOKEN lacks access", "reading only"]);
    let nobody = uuid::Uuid::new_v4().to_string();
    run_with(reader, &url, &["groups", &nobody]).await.failure(1, &["unknown-application"]);
    // Ids of groups may begin with a hyphen.
    run_with(reader, &url, &["group", &app, "-AEC"]).await.failure(1, &["unknown-group"]);
    run_with(reader, &url, &["epochs", &app, "--limit", "9", "-AEC"]).await.failure(1, &["unknown-group"]);
    let internal = format!("http://{}", watched.gateway.address());
    run_with(reader, &internal, &["peers"]).await.failure(1, &[&internal, "is not the operators' listener"]);
    let silent = answering(b"");
    run_with(reader, &silent, &["peers"]).await.failure(1, &["no answer came from the gateway", &silent]);
    let other = answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi");
    run_with(reader, &other, &["peers"]).await.failure(1, &[&other, "not one of a gateway"]);

    // What cannot be a request is none: the status is that of a wrong command line.
    for token in [None, Some(""), Some("two words"), Some("tok\u{e9}n")] {
        run_with(token, &url, &["peers"]).await.failure(2, &["MIMI_OPERATOR_TOKEN"]);
    }
    for (arguments, part) in [
        (&["peers", "--data-dir", "data"][..], "no options of `serve`"),
        (&["groups", "x"], "<APP>"),
        (&["groups", &app, "--limit", "1001"], "must be from 1 to 1000"),
        (&["make-token", &app], "--access"),
        (&["make-token", &app, "--access", "write"], "possible values: read, read-write"),
        (&["group", &app, "AAE="], "base64url"),
    ] {
        run_with(reader, &url, arguments).await.failure(2, &[part]);
    }
    run_with(reader, "ftp://127.0.0.1", &["peers"]).await.failure(2, &["--url must begin with http://"]);
    watched.gateway.stop().await;
}

#[actix_web::test]
async fn a_terminal_is_sent_no_control_characters() {
    let watched = Watched::start().await;
    let app = watched.gateway.app.to_string();
    let handle = "m\u{1b}[31mallory\n\u{9b}\u{202e}";
    watched
        .gateway
        .post("/clients", json!({ "clientHandle": handle, "tags": ["a\u{7}b"] }))
        .await
        .success(201);
    for arguments in [&["clients", &app][..], &["clients", &app, "--json"]] {
        let printed = watched.run(&watched.reader, arguments).await.success();
        assert!(printed.contains("allory"), "{printed}");
        let is_text = |letter: char| letter == '\n' || !letter.is_control() && letter != '\u{202e}';
        assert!(printed.chars().all(is_text), "{printed:?}");
        if arguments.len() == 2 {
            assert_eq!(printed.lines().count(), 2, "a handle is in one line: {printed}");
        } else {
            let answer: Value = serde_json::from_str(&printed).unwrap();
            assert_eq!(answer["clients"][0]["clientHandle"], handle);
        }
    }
    // What a problem says is not passed on as it is either.
    let hostile = answering(
        b"HTTP/1.1 418 x\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n\
          {\"type\":\"/problems/odd\",\"title\":\"x\",\"status\":418,\"detail\":\"evil\\u001b[2Jtext here\"}",
    );
    let ran = run_with(Some(watched.reader.reveal()), &hostile, &["peers"]).await;
    assert_eq!(ran.status, Some(1));
    assert!(ran.said.contains("evil\u{fffd}[2Jtext here") && !ran.said.contains('\u{1b}'), "{:?}", ran.said);
    watched.gateway.stop().await;
}
