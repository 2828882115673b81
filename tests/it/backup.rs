//! Backups as operators make and restore them: the binary in its own process, and the commands of `docs/operating.md`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use actors::AppId;
use mimi_gateway::{
    api::{
        clients::{NewClientBody, TagQuery},
        problem::ProblemKind,
        text::HandleText,
    },
    client::{GatewayClient, OperatorClient, plain_http},
    token::Token,
};

use crate::support::process::{Process, binary};

const OPERATING: &str = include_str!("../../docs/operating.md");
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration with a data directory and a directory of backups.
struct Place {
    directory: tempfile::TempDir,
    app: AppId,
    application: Token,
    operator: Token,
    reader: Token,
}

/// What a command did.
struct Ran {
    status: Option<i32>,
    printed: String,
    said: String,
}

impl Place {
    fn new(settings: &str) -> Self {
        let [application, operator, reader] = std::array::from_fn(|_| Token::generate().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let app = AppId::new(uuid::Uuid::new_v4());
        let config = format!(
            "data_dir = {:?}\nlog = \"info\"\n[internal]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n\
             [backup]\ndirectory = {:?}\nkeep = 2\n{settings}\n\
             [operator]\nlisten = \"127.0.0.1:0\"\ntokens = [{{ sha256 = \"{}\", access = \"read-write\" }}, \
             {{ sha256 = \"{}\", access = \"read\" }}]\n\
             [[applications]]\nid = \"{app}\"\ntokens = [{{ sha256 = \"{}\", access = \"read-write\" }}]\n",
            directory.path().join("data"),
            directory.path().join("backups"),
            operator.hash(),
            reader.hash(),
            application.hash()
        );
        std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
        Self { directory, app, application, operator, reader }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary(&["--config", "gateway.toml"]);
        command.args(arguments).current_dir(&self.directory);
        command
    }

    /// Starts a gateway on a data directory, with its log in a file.
    fn start(&self, data: &str) -> Process {
        let log = std::fs::File::create(self.path("log")).unwrap();
        Process::start(self.command(&["--data-dir", data]).stderr(log))
    }

    fn client(&self, process: &Process) -> GatewayClient {
        GatewayClient::new(process.internal(), self.app, self.application.clone()).unwrap()
    }

    /// Runs a command that has the operator's token.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        command.env("MIMI_OPERATOR_TOKEN", self.operator.reveal());
        let output = actix_web::rt::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { status: output.status.code(), printed: text(output.stdout), said: text(output.stderr) }
    }

    fn backups(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("backups")).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Ran {
    #[track_caller]
    fn success(self) -> String {
        assert_eq!(self.status, Some(0), "{}{}", self.printed, self.said);
        self.printed
    }

    #[track_caller]
    fn failure(self, parts: &[&str]) {
        assert_eq!(self.status, Some(1), "{}{}", self.printed, self.said);
        for part in parts {
            assert!(self.said.contains(part), "{part} is not in {}", self.said);
        }
    }
}

async fn register(client: &GatewayClient, name: &str) {
    let handle = HandleText(actors::ClientHandle::new(name).unwrap());
    let new = NewClientBody { client_handle: handle, tags: vec!["all".to_owned()], domain: None };
    client.register_client(&new).await.unwrap();
}

/// The clients of the gateway.
async fn names(client: &GatewayClient) -> Vec<String> {
    let query = TagQuery { tag: Some("all".to_owned()), ..TagQuery::default() };
    let found = client.find_clients(&query).await.unwrap().identities;
    let mut names: Vec<_> = found.into_iter().map(|client| client.client_handle.to_string()).collect();
    names.sort();
    names
}

#[actix_web::test]
async fn a_backup_of_a_running_gateway_is_restored() {
    let place = Place::new("");
    let mut process = place.start("data");
    let client = place.client(&process);
    register(&client, "alice").await;
    let operator = process.operator().unwrap().to_owned();

    // Any file, through the gateway that uses the directory.
    let export = ["--data-dir", "data", "snapshot", "export", "mine", "--url", &operator];
    let printed = place.run(&export).await.success();
    assert!(printed.starts_with("wrote mine ("), "{printed}");
    place.run(&export).await.failure(&["mine exists already"]);
    assert_eq!(place.backups().len(), 1, "{:?}", place.backups());
    register(&client, "bob").await;

    // A directory in use is not checked, and nothing is imported into it.
    let in_use = "is in use by another process";
    place.run(&["--data-dir", "data", "snapshot", "verify"]).await.failure(&[in_use]);
    place.run(&["--data-dir", "data", "snapshot", "import", "mine"]).await.failure(&["is not empty"]);
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));

    // Without a gateway, the directory itself is read.
    place.run(&["--data-dir", "data", "snapshot", "export", "later"]).await.success();
    for (file, expected) in [("mine", &["alice"][..]), ("later", &["alice", "bob"])] {
        let data = format!("restored from {file}");
        place.run(&["--data-dir", &data, "snapshot", "import", file]).await.success();
        let mut process = place.start(&data);
        assert_eq!(names(&place.client(&process)).await, expected);
        process.signal("TERM");
        assert_eq!(process.ended(), Some(0));
        let verified = place.run(&["--data-dir", &data, "snapshot", "verify"]).await.success();
        assert!(verified.starts_with("good: "), "{verified}");
    }
}

#[actix_web::test]
async fn operators_list_and_make_backups_and_the_oldest_are_deleted() {
    let place = Place::new("");
    let process = place.start("data");
    let url = process.operator().unwrap();
    let operator = OperatorClient::new(url, place.operator.clone()).unwrap();
    let reader = OperatorClient::new(url, place.reader.clone()).unwrap();
    assert_eq!(reader.backups().await.unwrap().backups, []);
    assert_eq!(reader.make_backup().await.unwrap_err().kind(), Some(ProblemKind::NotPermitted));
    std::fs::create_dir(place.path("backups")).unwrap();
    std::fs::write(place.path("backups/note.mimi"), "mine").unwrap();
    std::fs::write(place.path("backups/.backup-1970-01-01T00-00-00Z-1.mimi.0.unfinished"), "half").unwrap();
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(operator.make_backup().await.unwrap());
    }
    let listed = reader.backups().await.unwrap();
    assert_eq!(Path::new(listed.directory.as_deref().unwrap()), place.path("backups"));
    let kept: Vec<_> = made.iter().rev().take(2).map(|made| (made.name.clone(), made.bytes)).collect();
    let found: Vec<_> = listed.backups.iter().map(|backup| (backup.name.clone(), backup.bytes)).collect();
    assert_eq!(found, kept);
    assert_eq!(place.backups(), [kept[1].0.clone(), kept[0].0.clone(), "note.mimi".to_owned()]);

    let printed = place.run_operator(url, &["backups"]).await;
    assert!(printed.starts_with("BACKUP ") && printed.contains(&kept[0].0), "{printed}");
    let printed = place.run_operator(url, &["backup", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert!(json["rows"].as_u64().unwrap() > 0, "{json}");

    // A directory that cannot be written is a clear answer, and counted.
    std::fs::remove_dir_all(place.path("backups")).unwrap();
    std::fs::write(place.path("backups"), "a file").unwrap();
    let refused = operator.make_backup().await.unwrap_err();
    assert_eq!(refused.kind(), Some(ProblemKind::StorageUnavailable), "{refused}");
    assert!(refused.to_string().contains("no backup was made"), "{refused}");
    let metrics = plain_http().build().unwrap().get(format!("{url}/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in [
        "mimi_gateway_backups_total{outcome=\"made\"} 5",
        "mimi_gateway_backups_total{outcome=\"failed\"} 1",
        "mimi_gateway_backup_period_seconds 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
}

impl Place {
    async fn run_operator(&self, url: &str, arguments: &[&str]) -> String {
        let mut command = binary(&[&["operator", "--url", url], arguments].concat());
        command.env("MIMI_OPERATOR_TOKEN", self.operator.reveal());
        let output = actix_web::rt::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[actix_web::test]
async fn backups_are_made_at_intervals_also_over_a_restart() {
    let place = Place::new("period_s = 1");
    let mut process = place.start("data");
    let since = Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 4 {
        assert!(since.elapsed() < PATIENCE, "{seen:?}");
        seen.extend(place.backups().into_iter().filter(|name| !name.starts_with('.')));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
    assert_eq!(place.backups().len(), 2, "{:?}", place.backups());
    let newest = place.backups().pop().unwrap();
    let verified =
        place.run(&["snapshot", "verify", "--backup", &format!("backups/{newest}")]).await.success();
    assert!(verified.starts_with("good: "), "{verified}");
}

/// The commands of a section of `docs/operating.md`.
fn commands(section: &str) -> Vec<&'static str> {
    crate::readme::blocks(OPERATING, section, "sh")
}

#[actix_web::test]
async fn the_commands_about_backups_and_data_directories_work() {
    let place = Place::new("");
    let mut process = place.start("data");
    register(&place.client(&process), "alice").await;
    let url = process.operator().unwrap().to_owned();
    let variables = [
        ("DATA", "data"),
        ("NEW_DATA", "moved"),
        ("RESTORED", "restored"),
        ("FILE", "file"),
        ("OPERATOR_URL", &url),
        ("MIMI_OPERATOR_TOKEN", place.operator.reveal()),
        ("BINARY", env!("CARGO_BIN_EXE_mimi-gateway")),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let run = async |script: String| {
        // The listener is not at the default address here.
        let script = script.replace("mimi-gateway operator", "mimi-gateway operator --url \"$OPERATOR_URL\"");
        let mut command = Command::new("bash");
        command.args(["-euc", &format!("mimi-gateway() {{ \"$BINARY\" \"$@\"; }}\n{script}")]);
        command.current_dir(&place.directory).env_remove("RUST_LOG").envs(variables.clone());
        let output = actix_web::rt::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{script}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    };
    let [backup] = commands("Backup")[..] else { panic!("one block of commands") };
    let printed = run(backup.to_owned()).await;
    assert!(
        printed.contains("wrote file (") && printed.contains("sha256") && printed.contains("good: "),
        "{printed}"
    );
    let [restore] = commands("Restore")[..] else { panic!("one block of commands") };
    let printed = run(restore.to_owned()).await;
    assert!(printed.contains("imported ") && printed.contains("good: "), "{printed}");
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
    let [moving] = commands("Data directory")[..] else { panic!("one block of commands") };
    assert!(run(moving.to_owned()).await.starts_with("good: "));
    for data in ["moved", "restored"] {
        let process = place.start(data);
        assert_eq!(names(&place.client(&process)).await, ["alice"]);
    }
}
