//! A golden directory as a JSON document: its files, and what the gateway that wrote it answers.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use actors::{AppId, Timestamp};
use mimi_gateway::{api::text::Base64, token::Token};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::{Reply, Request};

#[derive(Serialize, Deserialize)]
pub(super) struct Golden {
    /// The format of the store.
    pub(super) format: u64,
    pub(super) application: AppId,
    /// When it was recorded.
    pub(super) recorded: Timestamp,
    /// Requests in their order: reads, then writes, then reads again.
    pub(super) requests: Vec<Recorded>,
    /// The files of the data directory by their paths below it; directories without files end with `/`.
    files: BTreeMap<String, Base64>,
}

/// A request, and what the gateway answered that wrote the directory.
#[derive(Serialize, Deserialize)]
pub(super) struct Recorded {
    pub(super) method: String,
    /// The path below `/apps/{appId}`, with its query.
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    status: u16,
    /// The members that the answer must have; it may have more.
    answer: Value,
}

impl Golden {
    pub(super) fn new(
        format: u64,
        application: AppId,
        recorded: Timestamp,
        requests: Vec<Recorded>,
        directory: &Path,
    ) -> Self {
        let mut files = BTreeMap::new();
        pack(directory, "", &mut files);
        Self { format, application, recorded, requests, files }
    }

    /// Where the documents are.
    pub(super) fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/formats/golden")
    }

    /// All of them in the order of their names.
    pub(super) fn all() -> Vec<(String, Self)> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            let golden = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            (entry.file_name().into_string().unwrap(), golden)
        };
        let mut all: Vec<(String, Self)> = fs::read_dir(Self::directory()).unwrap().map(read).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Writes the files into a directory, which must not be there yet.
    pub(super) fn unpack(&self, directory: &Path) {
        fs::create_dir(directory).unwrap();
        for (path, bytes) in &self.files {
            let path = directory.join(path);
            if path.to_str().unwrap().ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &bytes.0).unwrap();
            }
        }
    }

    /// The reads after the last write.
    pub(super) fn requests_at_the_end(&self) -> &[Recorded] {
        let last_write = self.requests.iter().rposition(|request| request.method != "GET").expect("a write");
        let reads = &self.requests[last_write + 1..];
        assert!(!reads.is_empty(), "nothing is read after the last write");
        reads
    }
}

/// Collects the files below a directory.
fn pack(directory: &Path, prefix: &str, files: &mut BTreeMap<String, Base64>) {
    let mut is_empty = true;
    for entry in fs::read_dir(directory).unwrap() {
        is_empty = false;
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            pack(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, Base64(fs::read(path).unwrap()));
        }
    }
    if is_empty {
        files.insert(prefix.to_owned(), Base64(Vec::new()));
    }
}

impl Recorded {
    /// A request that was not answered yet.
    pub(super) fn new(method: &str, path: &str, body: Option<Value>) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, body, status: 0, answer: Value::Null }
    }

    pub(super) fn with_token(&self, application: AppId, token: &Token) -> Request {
        let path = format!("/apps/{application}{}", self.path);
        let request = Request::new(&self.method, &path).token(token);
        match &self.body {
            Some(body) => request.json(&body.to_string()),
            None => request,
        }
    }

    /// Takes down an answer, without times after the recording began: no other run has those.
    pub(super) fn record(&mut self, reply: &Reply, recorded: Timestamp) {
        self.status = reply.status;
        self.answer = json(reply);
        // A problem has the id of its request.
        if let Some(answer) = self.answer.as_object_mut() {
            answer.remove("requestId");
        }
        strip_times(&mut self.answer, recorded);
    }

    #[track_caller]
    pub(super) fn assert_answered(&self, reply: &Reply, golden: &str) {
        let what = format!("{golden}: {} {}", self.method, self.path);
        assert_eq!(reply.status, self.status, "{what}: {}", reply.text());
        assert_holds(&self.answer, &json(reply), &what);
    }
}

fn json(reply: &Reply) -> Value {
    if reply.body.is_empty() { Value::Null } else { serde_json::from_slice(&reply.body).unwrap() }
}

fn strip_times(value: &mut Value, after: Timestamp) {
    match value {
        Value::Object(members) => {
            members.retain(|name, value| {
                name != "timestamp" || value.as_u64().is_some_and(|time| time <= after.0)
            });
            members.values_mut().for_each(|value| strip_times(value, after));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strip_times(item, after)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An answer has all that was recorded: the same values, and as many items in each list.
#[track_caller]
fn assert_holds(recorded: &Value, found: &Value, what: &str) {
    match (recorded, found) {
        (Value::Object(recorded), Value::Object(found)) => {
            for (name, value) in recorded {
                let found = found.get(name).unwrap_or_else(|| panic!("{what}: no {name} in {found:?}"));
                assert_holds(value, found, &format!("{what} {name}"));
            }
        }
        (Value::Array(recorded), Value::Array(found)) => {
            assert_eq!(recorded.len(), found.len(), "{what}: {found:?}");
            for (recorded, found) in recorded.iter().zip(found) {
                assert_holds(recorded, found, what);
            }
        }
        (recorded, found) => assert_eq!(recorded, found, "{what}"),
    }
}
