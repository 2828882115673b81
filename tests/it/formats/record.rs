//! Recording of golden directories.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use actors::{AppId, Clock, Epoch};
use mimi_gateway::{
    api::{
        clients::ClientChangeBody,
        groups::{CommitBody, ProposalBody},
        reports::{ReportBody, ReportKindText},
        text::{Base64, GroupIdText, HandleText},
    },
    client::GatewayClient,
    token::Token,
};
use serde_json::{Value, json};
use snapshots::Store;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::golden::{Golden, Recorded};
use crate::{
    mls_support::{Member, MlsClient},
    support::{Reply, process::Process},
};

/// How long leaves and key packages live: longer than anybody will run the test.
const LIFETIME: Duration = Duration::from_secs(200 * 365 * 24 * 60 * 60);

/// The gateway that is recorded, with its directory.
struct Recording {
    directory: TempDir,
    application: AppId,
    token: Token,
}

impl Recording {
    fn new() -> Self {
        let (application, token) = (AppId::random(), Token::generate().unwrap());
        let directory = tempfile::tempdir().unwrap();
        // Snapshots as often as may be.
        let config = format!(
            "data_dir = {:?}\nlog = \"warn\"\n\n[internal]\nlisten = \"127.0.0.1:0\"\n\n\
             [passivation]\nafter_s = 1\nsnapshot_period_s = 1\n\n\
             [[applications]]\nid = \"{application}\"\n\
             tokens = [{{ sha256 = \"{}\", access = \"read-write\" }}]\n",
            directory.path().join("data"),
            token.hash()
        );
        std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
        Self { directory, application, token }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the binary in `MIMI_GOLDEN_BINARY`, otherwise the present one.
    fn start(&self) -> Process {
        let present = env!("CARGO_BIN_EXE_mimi-gateway").to_owned();
        let binary = std::env::var("MIMI_GOLDEN_BINARY").unwrap_or(present);
        let mut command = Command::new(binary);
        Process::start(command.arg("--config").arg(self.directory.path().join("gateway.toml")))
    }

    fn client(&self, process: &Process) -> GatewayClient {
        GatewayClient::new(process.internal(), self.application, self.token.clone()).unwrap()
    }

    async fn send(&self, process: &Process, request: &Recorded) -> Reply {
        let address = process.internal().strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = request.with_token(self.application, &self.token);
        stream.write_all(&request.bytes()).await.unwrap();
        Reply::read(stream, request.path()).await
    }
}

/// What is known of a recorded gateway when it ends.
struct Story {
    clients: Vec<MlsClient>,
    groups: Vec<GroupIdText>,
    reported: Epoch,
    last_commit: CommitBody,
    next_proposal: ProposalBody,
    next_commit: CommitBody,
}

/// Groups with history, a snapshot with records after it, a reported epoch, proposals and a welcome that wait, key queues with packages,
/// assigned ones and final keys.
async fn play(api: GatewayClient) -> Story {
    let mut clients = Vec::new();
    for (name, packages) in [("alice", 0), ("bob", 1), ("carol", 1), ("dave", 2)] {
        let client = MlsClient::register_over(api.clone(), name, LIFETIME).await;
        client.upload_key_packages(packages).await;
        clients.push(client);
    }
    let [alice, bob, carol, dave] = &clients[..] else { panic!("four clients") };
    dave.upload_final_key().await;
    let change = ClientChangeBody { tags_to_add: vec!["added".to_owned()], ..ClientChangeBody::default() };
    api.change_client(dave.id, &change).await.unwrap();
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[bob]).await;
    let mut at_bob = bob.join().await;
    at_bob.update().await;
    at_alice.catch_up().await;
    // Snapshots of all that.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let last_commit = at_alice.make_adding(&[assigned(carol, alice).await]);
    let last_epoch = at_alice.commit(&last_commit).await.epoch_id;
    at_bob.catch_up().await;
    let at_carol = carol.create_group().await;

    // What waits: Carol's welcome, and two proposals.
    let add = at_alice.make_add_proposal(&assigned(dave, alice).await);
    at_alice.propose(&add).await.unwrap();
    let update = at_bob.make_update_proposal();
    at_bob.propose(&update).await.unwrap();

    // What is sent when the directory is opened again.
    let next_proposal = at_bob.make_remove_proposal(&carol.handle);
    assert_eq!(at_alice.fetch_proposals().await, 2);
    let next_commit = at_alice.make_update();
    let report = ReportBody {
        epoch_id: last_epoch,
        client_handle: HandleText(bob.handle.clone()),
        domain: None,
        kind: ReportKindText::Other,
    };
    api.report_epoch(&at_alice.id(), &report).await.unwrap();
    let deleted = dave.create_group().await;
    api.delete_group(&deleted.id()).await.unwrap();
    let groups = [&at_alice, &at_carol, &deleted].map(|member: &Member| GroupIdText(member.id())).into();
    Story { clients, groups, reported: last_epoch, last_commit, next_proposal, next_commit }
}

/// The package of a client that is assigned to another.
async fn assigned(client: &MlsClient, receiver: &MlsClient) -> Base64 {
    client.assign_to(&receiver.id.to_string()).await.unwrap().key_package
}

/// Everything that can be read.
fn reads(story: &Story) -> Vec<Recorded> {
    let mut paths = vec![
        format!("/clients?tag={}", MlsClient::TAG),
        "/clients?tag=added".to_owned(),
        "/external-sender".to_owned(),
    ];
    for client in &story.clients {
        let (id, handle) = (client.id, std::str::from_utf8(client.handle.as_bytes()).unwrap());
        paths.extend([
            format!("/clients/{id}"),
            format!("/clients/{id}/queues"),
            format!("/clients/{handle}/groups"),
            format!("/clients/{handle}/welcome-msgs"),
        ]);
    }
    for group in &story.groups {
        paths.extend([
            format!("/groups/{group}"),
            format!("/groups/{group}/proposals"),
            format!("/groups/{group}/control-msgs?startEpochId=1"),
            format!("/groups/{group}/group-info"),
        ]);
    }
    paths.iter().map(|path| Recorded::new("GET", path, None)).collect()
}

/// One write of each kind.
fn writes(story: &Story) -> Vec<Recorded> {
    let [alice, bob, carol, dave] = &story.clients[..] else { panic!("four clients") };
    let group = &story.groups[0];
    let package = |client: &MlsClient, receiver: &MlsClient| {
        let path = format!(
            "/clients/{}/keyPackage?protocolVersion=1&cipherSuite=1&receiverClientId={}",
            client.id, receiver.id
        );
        Recorded::new("GET", &path, None)
    };
    let put = |rest: &str, body: Value| Recorded::new("PUT", &format!("/groups/{group}/{rest}"), Some(body));
    let upload = json!({ "keyPackages": [bob.key_package()] });
    vec![
        // The package that was assigned before, the last free one, and then the final key.
        package(dave, alice),
        package(dave, bob),
        package(dave, carol),
        // A report that was counted before.
        Recorded::new(
            "POST",
            &format!("/groups/{group}/reports"),
            Some(json!({ "epochId": story.reported.0, "clientHandle": "bob", "kind": "other" })),
        ),
        // An answer from before, and what follows on it.
        put("epochs", json!(story.last_commit)),
        put("proposals", json!(story.next_proposal)),
        put("epochs", json!(story.next_commit)),
        put("epochs", json!(story.next_commit)),
        Recorded::new("DELETE", "/clients/carol/welcome-msgs/0000000000000002", None),
        Recorded::new("PATCH", &format!("/clients/{}/queues/{}", bob.id, bob.queue), Some(upload)),
        Recorded::new("PATCH", &format!("/clients/{}", bob.id), Some(json!({ "tagsToAdd": ["new"] }))),
    ]
}

/// Ends a gateway after its story, copies its directory, and records how the same binary continues.
async fn record(name: &str, end: &str) {
    let recording = Recording::new();
    let mut process = recording.start();
    let story = play(recording.client(&process)).await;
    process.signal(end);
    process.ended();
    let recorded = Clock::system().now();
    let copy = recording.directory.path().join("copy");
    copy_directory(&recording.data(), &copy);

    let mut requests = reads(&story);
    requests.extend(writes(&story));
    requests.extend(reads(&story));
    let process = recording.start();
    for request in &mut requests {
        let reply = recording.send(&process, request).await;
        assert!(reply.status < 300 || reply.status == 404, "{}: {}", request.path, reply.text());
        request.record(&reply, recorded);
    }
    let golden = Golden::new(Store::FORMAT, recording.application, recorded, requests, &copy);
    let file = Golden::directory().join(format!("format-{}-{name}.json", Store::FORMAT));
    std::fs::write(&file, serde_json::to_string(&golden).unwrap() + "\n").unwrap();
    println!("{} written", file.display());
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy_directory(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[actix_web::test]
#[ignore = "writes the golden directories of the present format; see CONTRIBUTING.md"]
async fn record_golden_directories() {
    record("stopped", "TERM").await;
    record("killed", "KILL").await;
}
