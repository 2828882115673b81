//! The binary: its output, its refusals and its signals (*Starting it*).

use std::{
    io::{BufRead as _, BufReader},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use actors::AppId;
use mimi_gateway::{
    client::GatewayClient,
    config::{Config, OperatorSettings},
    token::Token,
};

use crate::support::process::{Process, binary};

/// How long gateways of other tests may have an address.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway in a directory of its own.
fn start(arguments: &[&str], directory: &Path) -> Process {
    Process::start(binary(arguments).current_dir(directory).stderr(Stdio::null()))
}

/// The value of a line that it printed.
fn line<'a>(process: &'a Process, name: &str) -> Option<&'a str> {
    process.printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Sends a signal and waits for the end.
fn end(mut process: Process, signal: &str) -> Option<i32> {
    process.signal(signal);
    process.ended()
}

fn run(arguments: &[&str]) -> Output {
    binary(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[actix_web::test]
async fn without_a_configuration_a_default_application_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let process = start(&["--listen", "127.0.0.1:0"], directory.path());
    let app: AppId = line(&process, "application").unwrap().parse().unwrap();
    let token = Token::new(line(&process, "token").unwrap());
    let operator = Token::new(line(&process, "operator token").unwrap());
    assert_eq!(applications(&process, &operator).await, [app]);
    let (url, revealed) = (process.internal(), token.reveal());
    let exports = format!("\n  export GATEWAY={url}\n  export APP={app}\n  export TOKEN={revealed}\n");
    assert!(process.printed.contains(&exports), "{}", process.printed);
    assert!(process.internal().starts_with("http://127.0.0.1:"), "{}", process.internal());
    let client = GatewayClient::new(process.internal(), app, token.clone()).unwrap();
    client.client(actors::ClientId::random()).await.unwrap_err().kind().expect("a problem of this gateway");
    assert!(directory.path().join("data").is_dir());
    assert_eq!(end(process, "TERM"), Some(0));

    let process = start(&["serve", "--listen", "127.0.0.1:0"], directory.path());
    assert_eq!(line(&process, "application").unwrap(), app.to_string());
    assert_eq!(line(&process, "token"), None, "the token is printed once");
    assert_eq!(line(&process, "operator token"), None, "nor is the operators'");
    assert!(!process.printed.contains(token.reveal()) && !process.printed.contains(operator.reveal()));
    assert_eq!(applications(&process, &operator).await, [app]);
    assert_eq!(end(process, "INT"), Some(0));
}

/// The applications that the operators' listener lists.
async fn applications(process: &Process, token: &Token) -> Vec<AppId> {
    let url = format!("{}/operator/v1/applications", process.operator().expect(&process.printed));
    let asked = mimi_gateway::client::plain_http().build().unwrap().get(url).bearer_auth(token.reveal());
    let answer: serde_json::Value = asked.send().await.unwrap().json().await.unwrap();
    let applications = answer["applications"].as_array().expect("a list").iter();
    applications.map(|application| application["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[actix_web::test]
async fn the_embedded_operators_address_gives_way_and_a_configured_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    // A gateway of another test may have it for a moment.
    let since = Instant::now();
    let _taken = loop {
        match std::net::TcpListener::bind("127.0.0.1:8081") {
            Ok(taken) => break Some(taken),
            // Then it is another program's for good, which will do as well.
            Err(_) if since.elapsed() > PATIENCE => break None,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let log = directory.path().join("log");
    let stderr = std::fs::File::create(&log).unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--data-dir", ":memory:"];
    let process = Process::start(binary(&arguments).stderr(stderr));
    let operator = process.operator().expect(&process.printed);
    let port = operator.strip_prefix("http://127.0.0.1:").unwrap();
    assert!(port.parse::<u16>().is_ok_and(|port| port != 8081), "{operator}");
    assert_eq!(end(process, "TERM"), Some(0));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("the operators' address is in use; a free port is taken instead"), "{logged}");

    let file = directory.path().join("gateway.toml");
    let settings = "data_dir = \":memory:\"\n[internal]\nlisten = \"127.0.0.1:0\"\n[operator]\nlisten = \"127.0.0.1:8081\"";
    std::fs::write(&file, settings).unwrap();
    let output = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    let expected =
        "127.0.0.1:8081 is in use by another program: choose another address with `listen` under [operator]";
    assert!(message.contains(expected), "{message}");
}

#[actix_web::test]
async fn a_configuration_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let token = Token::generate().unwrap();
    let config = format!(
        r#"
        data_dir = ":memory:"
        [internal]
        listen = "127.0.0.1:0"
        [[applications]]
        id = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11"
        public = true
        tokens = [{{ sha256 = "{}", access = "read-write" }}]
        "#,
        token.hash()
    );
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, config).unwrap();
    let process = start(&["serve", "--config", file.to_str().unwrap()], directory.path());
    assert_eq!(process.printed.lines().count(), 1, "{}", process.printed);
    let app: AppId = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11".parse().unwrap();
    let client = GatewayClient::new(process.internal(), app, token).unwrap();
    assert_eq!(client.applications().await.unwrap().0.len(), 1);
    assert_eq!(end(process, "TERM"), Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, ":memory: leaves nothing there");
}

#[actix_web::test]
async fn a_gateway_that_federates_says_where() {
    let pki = crate::support::peers::GatewayPki::new();
    let files = pki.settings(&["a.example"]);
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        r#"
        data_dir = ":memory:"
        domains = ["a.example"]
        [internal]
        listen = "127.0.0.1:0"
        [federation]
        listen = "127.0.0.1:0"
        certificate = {:?}
        private_key = {:?}
        ca = {:?}
        "#,
        files.certificate, files.private_key, files.ca
    );
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, config).unwrap();
    let process = start(&["--config", file.to_str().unwrap()], directory.path());
    let (internal, federation) = (process.internal(), process.federation().unwrap());
    let port = federation.strip_prefix("https://127.0.0.1:").unwrap();
    assert!(port.parse::<u16>().is_ok_and(|port| port != 0), "{federation}");
    let answer = mimi_gateway::client::plain_http()
        .build()
        .unwrap()
        .get(format!("{internal}/.well-known/mimi-gateway"));
    let description: serde_json::Value = answer.send().await.unwrap().json().await.unwrap();
    assert_eq!(description["federation"], federation);
    assert_eq!(end(process, "TERM"), Some(0));
}

#[actix_web::test]
async fn the_first_tokens_are_not_printed_into_a_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let output = std::fs::metadata(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    let mut command = binary(&["--listen", "127.0.0.1:0"]);
    command.current_dir(directory.path()).stderr(Stdio::null()).stdout(writer);
    command.env("JOURNAL_STREAM", format!("{}:{}", output.dev(), output.ino()));
    let _child = Killed(command.spawn().unwrap());
    drop(command);
    let mut lines: Vec<String> = Vec::new();
    let mut output = BufReader::new(reader).lines();
    while !lines.last().is_some_and(|line| line.starts_with("listening ")) {
        lines.push(output.next().expect("it listens").unwrap());
    }
    let printed = lines.join("\n");
    let file = directory.path().join("data/first-tokens");
    assert!(printed.contains("data/first-tokens") && !printed.contains("token: "), "{printed}");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let kept = std::fs::read_to_string(&file).unwrap();
    let token = |name: &str| {
        kept.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .unwrap_or_else(|| panic!("{kept}"))
    };
    let value = |line: &str, name: &str| {
        let part = line.split(' ').find_map(|part| part.strip_prefix(name)).map(str::to_owned);
        part.unwrap_or_else(|| panic!("{printed}"))
    };
    let app = lines.iter().find_map(|line| line.strip_prefix("application: ")).unwrap();
    let listening = lines.last().unwrap();
    let (internal, operator) = (value(listening, "internal="), value(listening, "operator="));
    let http = mimi_gateway::client::plain_http().build().unwrap();
    for (url, token) in [
        (format!("{internal}/apps/{app}/groups"), token("token")),
        (format!("{operator}/operator/v1/applications"), token("operator token")),
    ] {
        assert_eq!(http.get(url).bearer_auth(token).send().await.unwrap().status(), 200);
    }
}

/// A process that ends with its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It runs until here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_data_directory_is_for_the_user_of_the_gateway_alone() {
    let directory = tempfile::tempdir().unwrap();
    let process = start(&["--data-dir", "some/data", "--listen", "127.0.0.1:0"], directory.path());
    let mode = |path: &str| directory.path().join(path).metadata().unwrap().mode() & 0o777;
    assert_eq!(mode("some/data"), 0o700);
    std::fs::create_dir(directory.path().join("usual")).unwrap();
    assert_eq!(mode("some"), mode("usual"));
    assert_eq!(end(process, "TERM"), Some(0));
}

#[test]
fn the_environment_overrides_the_file_and_the_command_line_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("gateway.toml"),
        "data_dir = \"of the file\"\ndomains = [\"a.example\"]\n",
    )
    .unwrap();
    let printed = |arguments: &[&str]| {
        let mut command =
            binary(&[arguments, &["--config", "gateway.toml", "config", "check", "--print"]].concat());
        command.current_dir(directory.path()).env("MIMI_GATEWAY__DATA_DIR", "of the environment");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    assert!(printed(&[]).contains("data_dir = \"of the environment\"\ndomains = [\"a.example\"]"));
    assert!(printed(&["--data-dir", "of the line"]).contains("data_dir = \"of the line\""));
    let mut command = binary(&["config", "check"]);
    let output = command.env("MIMI_GATEWAY__INTERNAL__LISTN", "127.0.0.1:0").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = "mimi-gateway: bad configuration: MIMI_GATEWAY__INTERNAL__LISTN: internal.listn is not a setting of this table";
    assert!(text(&output.stderr).starts_with(message), "{}", text(&output.stderr));
}

#[test]
fn a_bad_configuration_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    for (config, message) in [
        (
            "[internal]\nlisten = \"nowhere\"",
            "internal.listen (line 2): must be an IP address and a port, as 127.0.0.1:8080",
        ),
        ("[intern]\n", "intern (line 1): is not a setting of this table, which has `data_dir`"),
        (
            "[federation]\nlisten = \"127.0.0.1:8443\"",
            "federation.certificate (line 1): must be the path of a PEM file",
        ),
        (
            "[limits]\npacket_bytes_max = 0",
            "limits.packet_bytes_max (line 2): must be a whole number of bytes from 1024",
        ),
        ("log = \"debgu\"", "log (line 1): must be a level (off, error, warn, info, debug, trace)"),
        ("= 1", "it is not TOML (line 1)"),
    ] {
        std::fs::write(&file, config).unwrap();
        for command in [&["serve"][..], &["config", "check"]] {
            let output = run(&[command, &["--config", file.to_str().unwrap()]].concat());
            assert_eq!(output.status.code(), Some(2), "{config}");
            let expected = format!("mimi-gateway: bad configuration in {}: {message}", file.display());
            assert!(text(&output.stderr).starts_with(&expected), "{config}: {}", text(&output.stderr));
            assert_eq!(text(&output.stdout), "");
        }
    }
    let output = run(&["serve", "--config", "/nonexistent/gateway.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("in /nonexistent/gateway.toml: it cannot be read: No such file"));
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    let application = "[[applications]]\nid = \"7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11\"";
    std::fs::write(
        &file,
        format!("data_dir = \":memory:\"\n[internal]\nlisten = \"127.0.0.1:0\"\n{application}"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let tokenless = "applications[0].tokens: application 7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11 cannot be used";

    let output = binary(&["--config", file, "config", "check"]).env("RUST_LOG", "debgu").output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "the configuration is good\n");
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    let [first, second] = lines[..] else { panic!("{lines:?}") };
    assert!(first.starts_with(&format!("mimi-gateway: warning: {tokenless}")), "{first}");
    assert!(second.starts_with("mimi-gateway: warning: RUST_LOG is ignored: \"debgu\""), "{second}");

    let log = directory.path().join("log");
    let stderr = std::fs::File::create(&log).unwrap();
    let process = Process::start(binary(&["--config", file]).env("RUST_LOG", "wran").stderr(stderr));
    assert_eq!(end(process, "TERM"), Some(0));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("RUST_LOG is ignored: \"wran\""), "{logged}");
    assert!(logged.lines().any(|line| line.contains("WARN") && line.contains(tokenless)), "{logged}");
}

#[test]
fn the_example_is_printed() {
    let output = run(&["config", "example"]);
    assert!(output.status.success());
    let committed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.example.toml")).unwrap();
    assert_eq!(text(&output.stdout), committed);
}

#[test]
fn the_whole_configuration_is_printed() {
    let output = run(&["config", "check", "--print"]);
    assert!(output.status.success());
    let printed = Config::parse(text(&output.stdout)).unwrap();
    assert_eq!(printed, Config::embedded().with_operator(OperatorSettings::default()));
    assert!(run(&["config", "check"]).status.success());
}

#[test]
fn a_token_is_printed_with_its_hash() {
    let output = run(&["token"]);
    assert!(output.status.success());
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let [token, hash] = lines[..] else { panic!("{lines:?}") };
    let token = token.strip_prefix("token: ").unwrap();
    assert_eq!(hash.strip_prefix("sha256: ").unwrap(), Token::new(token).hash().to_string());
    assert!(
        token.len() >= 43 && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    );
    assert_ne!(run(&["token"]).stdout, output.stdout);
}

#[actix_web::test]
async fn a_busy_address_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = directory.path().join("data");
    let output = run(&["--listen", &address, "--data-dir", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains(&address) && message.contains("--listen"), "{message}");
    assert!(!data.exists(), "nothing was made, so the token of the default application is still to come");
}
