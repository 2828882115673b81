//! Reloading a running gateway: tokens, certificates and trust roots by a new configuration, and the signal that asks for it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use mimi_gateway::{
    api::{
        key_packages::{KeyPackageUploadBody, PoolSize},
        problem::ProblemKind,
    },
    client::{RequestError, plain_http},
    config::{Pem, TokenAccess, TokenSettings},
    token::Token,
};

use crate::{
    mls_support::{MlsClient, pki::Pki, refused},
    support::{
        Request, Setup,
        metrics::Metrics,
        peers::GatewayPki,
        process::{Process, binary},
    },
};

/// How long a change may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const APP: &str = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11";

fn settings(token: &Token, access: TokenAccess) -> TokenSettings {
    TokenSettings { sha256: token.hash(), access }
}

#[actix_web::test]
async fn tokens_are_those_of_the_new_configuration() {
    let [new, operator, new_operator] = [(); 3].map(|()| Token::generate().unwrap());
    let mut setup = Setup::new();
    setup.watched_by(&[(&operator, TokenAccess::ReadWrite)]);
    let gateway = setup.start().await;
    let list = |token: &Token| Request::new("GET", &gateway.path("/groups")).token(token);
    let applications = |token: &Token| Request::new("GET", "/operator/v1/applications").token(token);
    let made = Request::new("POST", &format!("/operator/v1/applications/{}/tokens", gateway.app));
    let made = gateway.operate(made.token(&operator).json(r#"{"access":"read"}"#)).await.success(201);
    let made = Token::new(made["token"].as_str().unwrap());

    let mut config = setup.config.clone();
    let kept = config.applications[0].tokens[0];
    config.applications[0].tokens = vec![kept, settings(&new, TokenAccess::Read)];
    config.operator.as_mut().unwrap().tokens = vec![settings(&new_operator, TokenAccess::Read)];
    assert_eq!(gateway.reload(&config).await.unwrap(), [""; 0]);

    for token in [&gateway.writer, &new, &made] {
        gateway.send(list(token)).await.success(200);
    }
    gateway.send(list(&gateway.reader)).await.problem(401, "not-authenticated", "");
    gateway.operate(applications(&new_operator)).await.success(200);
    gateway.operate(applications(&operator)).await.problem(401, "not-authenticated", "");

    // A token cannot be an operator's and an application's, whether it is configured or was made.
    for shared in [&gateway.writer, &made] {
        let mut config = config.clone();
        config.operator.as_mut().unwrap().tokens.push(settings(shared, TokenAccess::Read));
        let refused = gateway.reload(&config).await.unwrap_err();
        assert!(refused.to_string().contains("operator.tokens[1]"), "{refused}");
        gateway.operate(applications(shared)).await.problem(401, "not-authenticated", "");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_renewed_certificate_is_used_for_new_connections() {
    let (before, after) = (GatewayPki::new(), GatewayPki::new());
    let mut setup = Setup::new();
    let files = before.settings(&["localhost"]);
    setup.config.internal.certificate = Some(files.certificate.clone());
    setup.config.internal.private_key = Some(files.private_key.clone());
    let gateway = setup.start().await;
    let port = gateway.address().port();
    let client = |pki: &GatewayPki| {
        let builder = reqwest::Client::builder().tls_backend_preconfigured(pki.caller(None)).no_proxy();
        builder.resolve("localhost", gateway.address()).build().unwrap()
    };
    let ask = async |client: &reqwest::Client| {
        let answer = client.get(format!("https://localhost:{port}/healthz")).send().await;
        answer.map(|answer| answer.status().as_u16())
    };
    let open = client(&before);
    assert_eq!(ask(&open).await.unwrap(), 200);
    ask(&client(&after)).await.unwrap_err();

    // Renewed in place, as certificates are; first half of it, with the other key.
    let newer = after.settings(&["localhost"]);
    let put = |from: &PathBuf, to: &PathBuf| fs::copy(from, to).unwrap();
    put(&newer.certificate, &files.certificate);
    let refused = gateway.reload(&setup.config).await.unwrap_err();
    assert!(refused.to_string().contains("internal.private_key"), "{refused}");
    assert_eq!(ask(&client(&before)).await.unwrap(), 200);
    put(&newer.private_key, &files.private_key);
    gateway.reload(&setup.config).await.unwrap();
    assert_eq!(ask(&client(&after)).await.unwrap(), 200);
    ask(&client(&before)).await.unwrap_err();
    assert_eq!(ask(&open).await.unwrap(), 200, "its connection stays open");
    gateway.stop().await;
}

/// Uploads a key package.
async fn upload(client: &MlsClient) -> Result<PoolSize, RequestError> {
    let key_packages = vec![client.key_package()];
    client.upload(&KeyPackageUploadBody { key_packages, ..KeyPackageUploadBody::default() }).await
}

#[actix_web::test]
async fn clients_are_judged_by_the_new_roots() {
    let (before, after) = (Pki::new(), Pki::new());
    let mut setup = Setup::x509(&before.roots(), &["a.example"], &[]);
    let gateway = setup.start().await;
    let join = async |pki: &Pki, account: &str| {
        let certified = pki.certify("a.example", account, "phone");
        MlsClient::register_certified(&gateway, &certified, &pki.roots()).await
    };
    let (alice, bob) = (join(&before, "alice").await, join(&after, "bob").await);
    upload(&alice).await.unwrap();
    refused(upload(&bob).await, ProblemKind::InvalidKeyPackage);

    let right = std::mem::replace(&mut setup.policy().trust_roots, Pem::new("nowhere.pem"));
    let refusal = gateway.reload(&setup.config).await.unwrap_err();
    assert!(refusal.to_string().contains("applications[0].x509.trust_roots"), "{refusal}");
    upload(&alice).await.unwrap();

    setup.policy().trust_roots = Pem::new(after.roots());
    assert_eq!(gateway.reload(&setup.config).await.unwrap(), [""; 0]);
    upload(&bob).await.unwrap();
    refused(upload(&alice).await, ProblemKind::InvalidKeyPackage);

    setup.policy().trust_roots = right;
    setup.policy().certificates_above_names_max = Some(1);
    let path = format!("applications[{}].x509.certificates_above_names_max", gateway.app);
    assert_eq!(gateway.reload(&setup.config).await.unwrap(), [path]);
    upload(&alice).await.unwrap();
    gateway.stop().await;
}

#[actix_web::test]
async fn files_that_change_are_read_without_being_asked_for() {
    let (before, after) = (Pki::new(), Pki::new());
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("roots.pem");
    let replace = |content: &str| {
        fs::write(directory.path().join("new"), content).unwrap();
        fs::rename(directory.path().join("new"), &roots).unwrap();
    };
    replace(&before.roots());
    let mut setup = Setup::x509(roots.to_str().unwrap(), &["a.example"], &[]);
    setup.watched_by(&[]);
    let gateway = setup.start().await;
    let join = async |pki: &Pki, account: &str| {
        let certified = pki.certify("a.example", account, "phone");
        MlsClient::register_certified(&gateway, &certified, &pki.roots()).await
    };
    let (alice, bob) = (join(&before, "alice").await, join(&after, "bob").await);
    let counted = |metrics: &Metrics| {
        ["succeeded", "failed"]
            .map(|outcome| metrics.value("mimi_gateway_reloads_total", &[("outcome", outcome)]))
    };
    assert!(!gateway.reload_changed().await.unwrap());
    upload(&alice).await.unwrap();
    refused(upload(&bob).await, ProblemKind::InvalidKeyPackage);

    // A broken file changes nothing, and is read once.
    replace("half of a ce");
    let refusal = gateway.reload_changed().await.unwrap_err();
    assert!(refusal.to_string().contains("applications[0].x509.trust_roots"), "{refusal}");
    assert!(!gateway.reload_changed().await.unwrap());
    upload(&alice).await.unwrap();
    Metrics::until(gateway.operator_address(), |metrics| counted(metrics) == [0.0, 1.0]).await;

    replace(&after.roots());
    assert!(gateway.reload_changed().await.unwrap());
    upload(&bob).await.unwrap();
    refused(upload(&alice).await, ProblemKind::InvalidKeyPackage);
    assert!(!gateway.reload_changed().await.unwrap());
    Metrics::until(gateway.operator_address(), |metrics| counted(metrics) == [1.0, 1.0]).await;

    // The files of a configuration that was taken later are looked at from then on.
    let others = directory.path().join("others.pem");
    fs::write(&others, before.roots()).unwrap();
    setup.policy().trust_roots = Pem::new(others.to_str().unwrap());
    gateway.reload(&setup.config).await.unwrap();
    replace(&before.roots());
    assert!(!gateway.reload_changed().await.unwrap(), "that file is no longer used");
    fs::write(&others, after.roots()).unwrap();
    assert!(gateway.reload_changed().await.unwrap());
    upload(&bob).await.unwrap();
    gateway.stop().await;
}

#[actix_web::test]
async fn a_token_that_stays_is_accepted_throughout_and_one_that_is_gone_is_not() {
    let operator = Token::generate().unwrap();
    let mut setup = Setup::new();
    setup.watched_by(&[(&operator, TokenAccess::ReadWrite)]);
    let gateway = setup.start().await;
    let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let events = Request::new("GET", &gateway.path("/events")).token(&gateway.writer);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &events.bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\n\n\r\n") {
        assert_ne!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut heard).await.unwrap(), 0);
    }

    // Another access: reading goes on, on the same stream, and writing ends.
    let mut config = setup.config.clone();
    config.applications[0].tokens[0].access = TokenAccess::Read;
    gateway.reload(&config).await.unwrap();
    gateway.get("/groups").await.success(200);
    gateway.post("/clients", serde_json::json!({ "clientHandle": "a" })).await.problem(
        403,
        "not-permitted",
        "",
    );
    gateway.reload(&setup.config).await.unwrap();
    gateway.post("/clients", serde_json::json!({ "clientHandle": "a" })).await.success(201);
    let more = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut heard);
    assert!(
        !matches!(tokio::time::timeout(Duration::from_millis(300), more).await, Ok(Ok(0))),
        "the stream has ended"
    );

    // One that an operator made and revoked stays revoked, whatever a configuration says.
    let tokens = format!("/operator/v1/applications/{}/tokens", gateway.app);
    let made = Request::new("POST", &tokens).token(&operator).json(r#"{"access":"read"}"#);
    let made = gateway.operate(made).await.success(201);
    let revoke = format!("{tokens}/{}", made["tokenId"].as_str().unwrap());
    let made = Token::new(made["token"].as_str().unwrap());
    let mut config = setup.config.clone();
    config.applications[0].tokens.push(settings(&made, TokenAccess::ReadWrite));
    assert_eq!(gateway.operate(Request::new("DELETE", &revoke).token(&operator)).await.status, 204);
    gateway.reload(&config).await.unwrap();
    let list = Request::new("GET", &gateway.path("/groups")).token(&made);
    gateway.send(list).await.problem(401, "not-authenticated", "");

    // Operators whose tokens are gone from the file are nobody's, with their table or without it.
    let applications = Request::new("GET", "/operator/v1/applications").token(&operator);
    let mut config = setup.config.clone();
    config.operator = None;
    assert_eq!(gateway.reload(&config).await.unwrap(), ["operator"]);
    gateway.operate(applications.clone()).await.problem(401, "not-authenticated", "");
    gateway.reload(&setup.config).await.unwrap();
    gateway.operate(applications).await.success(200);
    gateway.stop().await;
}

/// A gateway of its own process with a configuration in a file, and its log.
struct Signalled {
    process: Process,
    directory: tempfile::TempDir,
}

impl Signalled {
    fn start(token: &Token) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("gateway.toml"), Self::configuration("warn", token)).unwrap();
        let file = directory.path().join("gateway.toml");
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = Process::start(binary(&["--config", file.to_str().unwrap()]).stderr(log));
        Self { process, directory }
    }

    fn configuration(log: &str, token: &Token) -> String {
        format!(
            "data_dir = \":memory:\"\nlog = \"{log}\"\n[internal]\nlisten = \"127.0.0.1:0\"\n\
             [[applications]]\nid = \"{APP}\"\ntokens = [{{ sha256 = \"{}\", access = \"read-write\" }}]\n",
            token.hash()
        )
    }

    /// Changes the file, sends the signal, and waits for a line of the log.
    fn reload(&self, configuration: &str, line: &str) {
        let log = || fs::read_to_string(self.directory.path().join("log")).unwrap();
        let before = log().matches(line).count();
        fs::write(self.directory.path().join("gateway.toml"), configuration).unwrap();
        self.process.signal("HUP");
        let since = Instant::now();
        while log().matches(line).count() == before {
            assert!(since.elapsed() < PATIENCE, "no line {line:?}: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn status(&self, token: &Token) -> u16 {
        let url = format!("{}/apps/{APP}/groups", self.process.internal());
        let request = plain_http().build().unwrap().get(url).bearer_auth(token.reveal());
        request.send().await.unwrap().status().as_u16()
    }
}

/// Sends a request on a connection that stays open; the status.
fn ask(connection: &mut TcpStream, token: &Token) -> u16 {
    let request = format!(
        "GET /apps/{APP}/groups HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n\r\n",
        token.reveal()
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut part = [0; 1024];
        let count = connection.read(&mut part).unwrap();
        assert_ne!(count, 0, "the connection was closed");
        answer.extend_from_slice(&part[..count]);
    }
    String::from_utf8(answer).unwrap()["HTTP/1.1 ".len()..][..3].parse().unwrap()
}

#[actix_web::test]
async fn a_signal_reloads_and_drops_no_connection() {
    let (first, second) = (Token::generate().unwrap(), Token::generate().unwrap());
    let mut gateway = Signalled::start(&first);
    let address = gateway.process.internal().trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(address).unwrap();
    assert_eq!(ask(&mut connection, &first), 200);

    // The line is at the level info, which only the new filter lets through.
    gateway.reload(&Signalled::configuration("info", &second), "reloaded");
    assert_eq!((gateway.status(&first).await, gateway.status(&second).await), (401, 200));
    assert_eq!((ask(&mut connection, &first), ask(&mut connection, &second)), (401, 200));

    // An empty file may be half written.
    for broken in ["nonsense", "", "data_dir = 7"] {
        gateway.reload(broken, "nothing was reloaded");
    }
    assert_eq!(gateway.status(&second).await, 200);
    let other = Signalled::configuration("info", &first) + "[limits]\ngroup_members_max = 7\n";
    gateway.reload(&other, "limits.group_members_max");
    assert_eq!((gateway.status(&first).await, ask(&mut connection, &first)), (200, 200));
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended(), Some(0));
}

#[actix_web::test]
async fn a_process_looks_for_changed_files() {
    let (before, after) = (Pki::new(), Pki::new());
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("roots.pem"), before.roots()).unwrap();
    let configuration = format!(
        "data_dir = \":memory:\"\ntrust_reload_s = 1\n[internal]\nlisten = \"127.0.0.1:0\"\n\
         [[applications]]\nid = \"{APP}\"\npublic = true\n\
         [applications.identity_configuration]\nidentity_provider_type = 2\nsupports_accounts = false\n\
         supports_domains = false\n\
         parameters = {{ device_handle_range = {{ start = 0, end = 0 }} }}\n\
         [applications.x509]\ntrust_roots = \"roots.pem\"\n"
    );
    let file = directory.path().join("gateway.toml");
    fs::write(&file, configuration).unwrap();
    let log = directory.path().join("log");
    let errors = fs::File::create(&log).unwrap();
    let mut process = Process::start(binary(&["--config", file.to_str().unwrap()]).stderr(errors));
    fs::write(directory.path().join("roots.pem"), after.roots()).unwrap();
    let since = Instant::now();
    let line = "reloaded: files of certificates, trust roots or revocation lists have changed";
    while !fs::read_to_string(&log).unwrap().contains(line) {
        assert!(since.elapsed() < PATIENCE, "{}", fs::read_to_string(&log).unwrap());
        std::thread::sleep(Duration::from_millis(10));
    }
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
}

/// A file that never ends, such as one on a disk that does not answer, holds up no stop.
#[actix_web::test]
async fn a_reload_that_hangs_does_not_keep_the_gateway_from_stopping() {
    let token = Token::generate().unwrap();
    let mut gateway = Signalled::start(&token);
    let file = gateway.directory.path().join("gateway.toml");
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    gateway.process.signal("HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(gateway.status(&token).await, 200);
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended(), Some(0));
}
