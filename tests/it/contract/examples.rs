//! The examples of the OpenAPI document: recorded here from real MLS clients, and accepted by a fresh gateway.

use std::{path::PathBuf, time::Duration};

use actors::Epoch;
use mimi_gateway::{
    api::{
        Endpoint, Nothing,
        applications::ListApplications,
        clients::{
            ChangeClient, ClientChangeBody, DeleteClient, FindClients, GetClient, GroupsOfClientQuery,
            ListGroupsOfClient, NewClientBody, PageQuery, RegisterClient, TagQuery,
        },
        events::{StreamApplicationEvents, StreamGroupEvents},
        external_senders::ListExternalSenders,
        federation::Discover,
        groups::{
            CreateGroup, DeleteGroup, EpochRange, GetGroup, ListControlMessages, ListGroups, ListProposals,
            UploadCommit, UploadProposal,
        },
        joining::{AcknowledgeWelcome, GetGroupInfo, HandleQuery, ListWelcomes, WelcomeQuery},
        key_packages::{
            CreateKeyQueue, DeleteKeyQueue, KeyPackageQuery, KeyPackageUploadBody, ListKeyQueues,
            NewKeyQueueBody, RetrieveKeyPackage, UploadKeyPackages,
        },
        paths::{
            AppPath, ClientPath, GroupPath, HandlePath, JoinInfoPath, KeyQueuePath, NoMembers,
            PathMembers as _,
        },
        percent,
        reports::{ReportBody, ReportEpoch, ReportKindText},
        text::{GroupIdText, HandleText},
    },
    client::GatewayClient,
};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    mls_support::MlsClient,
    support::{Request, Setup, TestGateway},
};

/// How long leaves and key packages live: longer than the examples are used.
const LIFETIME: Duration = Duration::from_secs(200 * 365 * 24 * 60 * 60);
/// How long the stream of a recorded story may take to tell all of it.
const PATIENCE: Duration = Duration::from_secs(20);

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/http/openapi/examples.json")
}

/// Requests with their answers, in order.
struct Story {
    api: GatewayClient,
    recorded: Vec<Value>,
}

impl Story {
    /// Sends a request, and records it with its answer.
    async fn send<E: Endpoint>(&mut self, path: E::Path, query: E::Query, body: E::Body) -> E::Response {
        let reply = self.api.send::<E>(&path, &query, &body).await.unwrap();
        let mut entry = entry::<E>(&path, &query);
        if <E::Body as mimi_gateway::api::Body>::IS_SENT {
            entry.insert("request".to_owned(), serde_json::to_value(&body).unwrap());
        }
        entry.insert("status".to_owned(), reply.status.into());
        if reply.status != 204 {
            entry.insert("answer".to_owned(), serde_json::to_value(&reply.body).unwrap());
        }
        self.recorded.push(Value::Object(entry));
        reply.body
    }

    /// Records the beginning of a stream.
    fn stream<E: Endpoint>(&mut self, path: &E::Path, query: Value, text: &str) {
        let mut entry = entry::<E>(path, &query);
        entry.insert("status".to_owned(), 200.into());
        entry.insert("stream".to_owned(), text.into());
        self.recorded.push(Value::Object(entry));
    }
}

fn entry<E: Endpoint>(path: &E::Path, query: &impl serde::Serialize) -> Map<String, Value> {
    let names = E::PATH.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let members: Map<_, _> =
        names.map(str::to_owned).zip(path.texts().into_iter().map(Value::from)).collect();
    let mut entry = Map::new();
    entry.insert("operation".to_owned(), E::NAME.into());
    for (name, part) in [("path", Value::Object(members)), ("query", serde_json::to_value(query).unwrap())] {
        if part.as_object().is_some_and(|part| !part.is_empty()) {
            entry.insert(name.to_owned(), part);
        }
    }
    entry
}

/// Opens an event stream.
async fn open(gateway: &TestGateway, rest: &str) -> TcpStream {
    let mut connection = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n\r\n",
        gateway.path(rest),
        gateway.writer.reveal()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    // The first block is there when the stream has begun.
    connection.readable().await.unwrap();
    connection
}

/// Reads a stream until it has told events of all these kinds.
async fn read(mut connection: TcpStream, kinds: &[&str]) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            assert_ne!(connection.read_buf(&mut bytes).await.unwrap(), 0, "the stream ended");
            let text = String::from_utf8(bytes.clone()).unwrap();
            if text.ends_with("\n\n\r\n")
                && kinds.iter().all(|kind| text.contains(&format!("event: {kind}\n")))
            {
                return text;
            }
        }
    };
    let text = tokio::time::timeout(PATIENCE, reading).await.expect("the stream tells of all");
    // Without the head of the answer and the sizes of its chunks; events have no carriage returns.
    let (_, chunks) = text.split_once("\r\n\r\n").expect("an answer with a head");
    chunks.split("\r\n").skip(1).step_by(2).collect()
}

/// Plays the story of the examples: alice registers and is added to bob's group.
async fn play() -> Vec<Value> {
    // The MLS clients are made at another gateway, so that this one is fresh.
    let workshop = TestGateway::start().await;
    let connect = |gateway: &TestGateway| {
        GatewayClient::new(gateway.base_url(), gateway.app, gateway.writer.clone()).unwrap()
    };
    let mut alice = MlsClient::register_over(connect(&workshop), "alice", LIFETIME).await;
    let mut bob = MlsClient::register_over(connect(&workshop), "bob", LIFETIME).await;
    let mut setup = Setup::new();
    // One of two packages is left after the first is assigned, which the stream tells.
    setup.config.limits.key_packages_low = 1;
    let gateway = setup.start().await;
    let api = connect(&gateway);
    bob.api = api.clone();
    alice.api = api.clone();
    let mut story = Story { api, recorded: Vec::new() };
    let none = || Nothing {};
    let app = || AppPath { app: gateway.app };

    story.send::<ListApplications>(NoMembers, none(), none()).await;
    story.send::<Discover>(NoMembers, none(), none()).await;
    let of_application = open(&gateway, "/events").await;
    let new = NewClientBody {
        client_handle: HandleText(alice.handle.clone()),
        tags: vec!["account:alice".to_owned()],
        domain: None,
    };
    alice.id = story.send::<RegisterClient>(app(), none(), new).await.client_id;
    let client = || ClientPath { app: gateway.app, client: alice.id };
    let change = ClientChangeBody { tags_to_add: vec!["phone".to_owned()], ..ClientChangeBody::default() };
    story.send::<ChangeClient>(client(), none(), change).await;
    story.send::<GetClient>(client(), none(), none()).await;
    let tag = TagQuery { tag: Some("account:alice".to_owned()), ..TagQuery::default() };
    story.send::<FindClients>(app(), tag, none()).await;

    let attributes = NewKeyQueueBody { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
    let queue = story.send::<CreateKeyQueue>(client(), none(), attributes).await.key_queue_id;
    let queue = || KeyQueuePath { app: gateway.app, client: alice.id, queue };
    let upload = KeyPackageUploadBody {
        key_packages: vec![alice.key_package(), alice.key_package()],
        final_key: Some(alice.key_package()),
        ..KeyPackageUploadBody::default()
    };
    story.send::<UploadKeyPackages>(queue(), none(), upload).await;
    story.send::<ListKeyQueues>(client(), none(), none()).await;
    let wanted = KeyPackageQuery::new(1, 1, "bob");
    let package = story.send::<RetrieveKeyPackage>(client(), wanted, none()).await.key_package;

    let (mut at_bob, new) = bob.make_group();
    let group = story.send::<CreateGroup>(app(), none(), new).await.group_id;
    let group = || GroupPath { app: gateway.app, group: group.0.clone() };
    story.send::<ListExternalSenders>(app(), none(), none()).await;
    let of_group = open(&gateway, &format!("/groups/{}/events?packets=true", GroupIdText(at_bob.id()))).await;
    let add = at_bob.make_add_proposal(&package);
    story.send::<UploadProposal>(group(), none(), add).await;
    story.send::<ListProposals>(group(), none(), none()).await;
    assert_eq!(at_bob.fetch_proposals().await, 1);
    let commit = at_bob.make_update();
    story.send::<UploadCommit>(group(), none(), commit).await;
    story.send::<GetGroup>(group(), none(), none()).await;
    story.send::<ListGroups>(app(), PageQuery::default(), none()).await;
    story.send::<ListControlMessages>(group(), EpochRange::from(Epoch(1)), none()).await;
    story.send::<GetGroupInfo>(group(), none(), none()).await;

    let handle = || HandlePath { app: gateway.app, handle: alice.handle.clone() };
    story.send::<ListGroupsOfClient>(handle(), GroupsOfClientQuery::default(), none()).await;
    let welcomes = story.send::<ListWelcomes>(handle(), WelcomeQuery::default(), none()).await;
    let [welcome] = &welcomes.join_infos[..] else { panic!("one welcome") };
    let welcome = JoinInfoPath { app: gateway.app, handle: alice.handle.clone(), id: welcome.id.0 };
    let report = ReportBody {
        epoch_id: Epoch(1),
        client_handle: HandleText(alice.handle.clone()),
        domain: None,
        kind: ReportKindText::CannotDecryptPath,
    };
    story.send::<ReportEpoch>(group(), none(), report).await;
    let told =
        read(of_application, &["key-packages", "group", "proposal", "epoch", "welcome", "epoch-reported"])
            .await;
    story.stream::<StreamApplicationEvents>(&app(), json!({}), &told);
    let told = read(of_group, &["proposal", "epoch"]).await;
    story.stream::<StreamGroupEvents>(&group(), json!({ "packets": true }), &told);
    story.send::<AcknowledgeWelcome>(welcome, HandleQuery::default(), none()).await;
    story.send::<DeleteGroup>(group(), none(), none()).await;
    story.send::<DeleteKeyQueue>(queue(), none(), none()).await;
    story.send::<DeleteClient>(client(), none(), none()).await;
    let recorded = story.recorded;
    gateway.stop().await;
    workshop.stop().await;
    recorded
}

#[actix_web::test]
#[ignore = "writes the examples of the OpenAPI document; see CONTRIBUTING.md"]
async fn record_examples() {
    let recorded = play().await;
    std::fs::write(file(), serde_json::to_string_pretty(&recorded).unwrap() + "\n").unwrap();
    println!("{} written", file().display());
}

/// The recorded ids, with those that this gateway gave instead.
#[derive(Default)]
struct Names(Vec<(String, String)>);

impl Names {
    /// The ids that an answer gives, next to those of the recorded one.
    fn learn(&mut self, recorded: &Value, answered: &Value) {
        for name in ["clientId", "keyQueueId"] {
            if let (Some(old), Some(new)) = (recorded[name].as_str(), answered[name].as_str()) {
                match self.0.iter().find(|(known, _)| known == old) {
                    Some((_, known)) => assert_eq!(known, new),
                    None => self.0.push((old.to_owned(), new.to_owned())),
                }
            }
        }
    }

    fn of(&self, recorded: &str) -> String {
        let found = self.0.iter().find(|(old, _)| old == recorded);
        found.map_or(recorded, |(_, new)| new.as_str()).to_owned()
    }
}

/// The names of the members of a value, at every depth.
fn outline(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), outline(value))).collect()
        }
        Value::Array(items) => items.iter().map(outline).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Value::Null,
    }
}

#[actix_web::test]
async fn the_examples_succeed_in_their_order_on_a_fresh_gateway() {
    let gateway = TestGateway::start().await;
    let document = gateway.send(Request::new("GET", "/openapi.json")).await.success(200);
    let operations: Vec<(&String, &String, &Value)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, about)| (path, method, about))
        })
        .collect();
    let story: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap();
    let mut names = Names::default();
    for recorded in story.iter().filter(|recorded| recorded.get("stream").is_none()) {
        let (template, method, about) =
            operations.iter().find(|(_, _, about)| about["operationId"] == recorded["operation"]).unwrap();
        // The request as the document shows it, with the application and the ids of this gateway.
        let mut path = (*template).clone();
        let mut query = Vec::new();
        for parameter in about["parameters"].as_array().unwrap() {
            let Some(example) = parameter.get("example") else { continue };
            let (name, value) = (parameter["name"].as_str().unwrap(), example.as_str());
            let value = value.map_or_else(|| example.to_string(), |text| names.of(text));
            let value = if name == "appId" { gateway.app.to_string() } else { value };
            if parameter["in"] == "path" {
                path = path.replace(&format!("{{{name}}}"), &percent::encode(&value));
            } else {
                query.push(format!("{name}={}", percent::encode(&value)));
            }
        }
        let mut request = Request::new(&method.to_uppercase(), &format!("{path}?{}", query.join("&")));
        request = request.token(&gateway.writer);
        if let Some(body) = about.get("requestBody") {
            request = request.json(&body["content"]["application/json"]["example"].to_string());
        }
        let status = u16::try_from(recorded["status"].as_u64().unwrap()).unwrap();
        let answered = gateway.send(request).await.success(status);
        let shown = &about["responses"][status.to_string()]["content"]["application/json"]["example"];
        assert_eq!(outline(&answered), outline(shown), "{}", recorded["operation"]);
        names.learn(shown, &answered);
    }
    assert_eq!(names.0.len(), 2, "the client and its queue");
    gateway.stop().await;
}
