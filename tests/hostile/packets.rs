//! Requests of MLS clients, as JSON, and a bystander who makes them.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::{
    bystander::succeeded,
    messages::{Client, NewGroup, add, requiring, welcome},
    target::{Application, Reply, Target},
};

/// The path of a group below its application.
pub(crate) fn group_path(id: &str) -> String {
    format!("/groups/{}", URL_SAFE_NO_PAD.encode(id))
}

/// A group as it is created, with this tree.
pub(crate) fn new_group(group: &NewGroup, tree: &[u8]) -> Value {
    json!({ "groupInfo": STANDARD.encode(group.group_info()), "ratchetTree": STANDARD.encode(tree) })
}

/// A proposal of the group's first member.
pub(crate) fn proposal(group: &NewGroup, proposal: &[u8]) -> Value {
    json!({ "packet": STANDARD.encode(group.public(&[&[2], proposal].concat())) })
}

/// A commit of the group's first member that adds the clients of these packages.
pub(crate) fn adding(group: &NewGroup, packages: &[Vec<u8>]) -> Value {
    let commit = group.commit(packages.iter().cloned().map(add));
    json!({ "commitPacket": STANDARD.encode(commit), "welcomePacket": STANDARD.encode(welcome(packages)) })
}

/// An upload of key packages.
pub(crate) fn key_packages(packages: &[Vec<u8>]) -> String {
    let framed = packages.iter().map(|package| STANDARD.encode([&[0, 1, 0, 5], package.as_slice()].concat()));
    json!({ "keyPackages": framed.collect::<Vec<_>>() }).to_string()
}

/// Creates a group of one client; the answer must be a success.
pub(crate) fn create(target: &Target, application: &Application, group: &NewGroup) {
    let body = new_group(group, &group.tree()).to_string();
    let reply = target.call(application, "PUT", "/groups", Some(&body)).unwrap();
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
}

/// A registered client with a key queue.
pub(crate) struct KeyQueue {
    application: Application,
    handle: String,
    client: String,
    path: String,
}

impl KeyQueue {
    /// Registers a client of this handle.
    pub(crate) fn new(target: &Target, application: &Application, handle: &str) -> Self {
        let client = json!({ "clientHandle": handle }).to_string();
        let reply = target.call(application, "POST", "/clients", Some(&client)).unwrap();
        let client = format!("/clients/{}", reply.json()["clientId"].as_str().unwrap());
        let queue = r#"{"protocolVersion":1,"cipherSuite":1,"appLabel":""}"#;
        let reply = target.call(application, "POST", &format!("{client}/queues"), Some(queue)).unwrap();
        let path = format!("{client}/queues/{}", reply.json()["keyQueueId"].as_str().unwrap());
        Self { application: application.clone(), handle: handle.to_owned(), client, path }
    }

    /// The path of the client.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    /// The path of the queue.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Uploads packages.
    pub(crate) fn upload(&self, target: &Target, packages: &[Vec<u8>]) -> std::io::Result<Reply> {
        target.call(&self.application, "PATCH", &self.path, Some(&key_packages(packages)))
    }

    /// The path that assigns a package to a receiver.
    pub(crate) fn assignment(&self, receiver: &str) -> String {
        format!("{}/keyPackage?protocolVersion=1&cipherSuite=1&receiverClientId={receiver}", self.client)
    }

    /// Asks for the package of a receiver.
    pub(crate) fn assign(&self, target: &Target, receiver: &str) -> std::io::Result<Reply> {
        target.call(&self.application, "GET", &self.assignment(receiver), None)
    }

    /// A bystander's request: it uploads a package, has it assigned, asks for it again and looks at the queue.
    pub(crate) fn is_used(&self, target: &Target, number: u64) -> Result<(), String> {
        let receiver = format!("receiver-{}", number / 4);
        succeeded(match number % 4 {
            0 => self.upload(target, &[Client::named(number, &self.handle).key_package()]),
            1 | 2 => self.assign(target, &receiver),
            _ => target.call(&self.application, "GET", &format!("{}/queues", self.client), None),
        })
    }
}

/// A bystander's request of the other application: it creates a group, proposes to it, adds a client and looks at it.
pub(crate) fn write_to_groups(target: &Target, number: u64) -> Result<(), String> {
    let id = format!("bystander {}", number / 4);
    let group = NewGroup::of(&id, vec![Client::new(0)], 0);
    let path = group_path(&id);
    let put = |rest: &str, body: Value| target.call(&target.other, "PUT", rest, Some(&body.to_string()));
    succeeded(match number % 4 {
        0 => put("/groups", new_group(&group, &group.tree())),
        1 => put(&format!("{path}/proposals"), proposal(&group, &requiring(0))),
        2 => put(&format!("{path}/epochs"), adding(&group, &[Client::new(number).key_package()])),
        _ => target.call(&target.other, "GET", &path, None),
    })
}
