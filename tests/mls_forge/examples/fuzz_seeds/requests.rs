//! Seeds from the recorded examples of the OpenAPI document.

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use serde_json::Value;

use crate::Seed;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/http/openapi/examples.json");

/// The operations with their methods, as the target `requests` numbers them, their paths behind that of the application, and the number of
/// their bodies for the target `bodies`.
const OPERATIONS: [(&str, u8, &str, Option<u8>); 24] = [
    ("registerClient", 1, "/clients", Some(0)),
    ("changeClient", 3, "/clients/{clientId}", Some(1)),
    ("getClient", 0, "/clients/{clientId}", None),
    ("findClients", 0, "/clients", None),
    ("createKeyQueue", 1, "/clients/{clientId}/queues", Some(2)),
    ("uploadKeyPackages", 3, "/clients/{clientId}/queues/{keyQueueId}", Some(3)),
    ("listKeyQueues", 0, "/clients/{clientId}/queues", None),
    ("retrieveKeyPackage", 0, "/clients/{clientId}/keyPackage", None),
    ("createGroup", 2, "/groups", Some(4)),
    ("uploadProposal", 2, "/groups/{groupId}/proposals", Some(5)),
    ("listProposals", 0, "/groups/{groupId}/proposals", None),
    ("uploadCommit", 2, "/groups/{groupId}/epochs", Some(6)),
    ("getGroup", 0, "/groups/{groupId}", None),
    ("listGroups", 0, "/groups", None),
    ("listControlMessages", 0, "/groups/{groupId}/control-msgs", None),
    ("getGroupInfo", 0, "/groups/{groupId}/group-info", None),
    ("listGroupsOfClient", 0, "/clients/{clientHandle}/groups", None),
    ("listWelcomes", 0, "/clients/{clientHandle}/welcome-msgs", None),
    ("reportEpoch", 1, "/groups/{groupId}/reports", Some(7)),
    ("streamGroupEvents", 0, "/groups/{groupId}/events", None),
    ("acknowledgeWelcome", 4, "/clients/{clientHandle}/welcome-msgs/{id}", None),
    ("deleteGroup", 4, "/groups/{groupId}", None),
    ("deleteKeyQueue", 4, "/clients/{clientId}/queues/{keyQueueId}", None),
    ("deleteClient", 4, "/clients/{clientId}", None),
];

/// Paths and text forms, by their numbers in the target `paths`.
const PATHS: [(u8, &str, &str); 15] = [
    (0, "application", "21b15907-bda4-4de9-9bdc-c36df92111bb"),
    (1, "client", "21b15907-bda4-4de9-9bdc-c36df92111bb/936f06f7-045e-4fae-950f-e60d00c65e09"),
    (
        2,
        "queue",
        "21b15907-bda4-4de9-9bdc-c36df92111bb/936f06f7-045e-4fae-950f-e60d00c65e09/3100c783-962a-4212-b4ae-02aa6eb05838",
    ),
    (3, "handle", "21b15907-bda4-4de9-9bdc-c36df92111bb/alice%2Fphone"),
    (3, "handle-of-bytes", "21b15907-bda4-4de9-9bdc-c36df92111bb/b64%3A_w"),
    (4, "join-info", "21b15907-bda4-4de9-9bdc-c36df92111bb/b64:Lg/00000000000000ff"),
    (5, "group", "21b15907-bda4-4de9-9bdc-c36df92111bb/AAEC"),
    (6, "text-of-handle", "alice"),
    (6, "text-of-dots", "b64:Li4"),
    (6, "text-of-bytes", "b64:_-8"),
    (6, "text-of-prefix", "b64:YjY0Og"),
    (7, "text-of-group", "O43wUtPw8KxWlX0I3Quz97zNF-7VyRsLkuX3H_K2c30"),
    (8, "text-of-event", "AfJb7ZN40NzUAAAAAAAAAAD__w"),
    (9, "bytes", "a+b%2Bc%2525"),
    (9, "bytes-of-utf-8", "%C3%A5lice"),
];

/// Bodies that no example shows, by their numbers in the target `bodies`.
const BODIES: [(u8, &str, &str); 8] = [
    (8, "new-token", r#"{"access":"read-write"}"#),
    (9, "configuration", r#"{"identity_provider_type":1,"parameters":{"a":[1,2.5,null]}}"#),
    (
        10,
        "entries",
        r#"{"hub":"a.example","preceding":5,"entries":[{"sequence":1,"timestamp":5,"content":{"proposal":{"packet":"AQI="}}}]}"#,
    ),
    (
        10,
        "transfer",
        r#"{"hub":"a.example","transfer":{"sequence":1,"timestamp":2,"groupInfo":"AQ==","ratchetTree":"","proposals":["AQ=="],"usedKeyPackages":["AQ=="],"reinitialised":true}}"#,
    ),
    (10, "deletion", r#"{"hub":"a.example","deletion":{"timestamp":7}}"#),
    (
        11,
        "held",
        r#"{"next":7,"needsTransfer":true,"retryAfterMs":5,"missing":{"from":1,"through":3},"revision":2,"store":"21b15907-bda4-4de9-9bdc-c36df92111bb"}"#,
    ),
    (
        12,
        "gateway",
        r#"{"domains":["a.example"],"federation":"https://gateway.a.example:8443","versions":[1]}"#,
    ),
    (
        13,
        "problem",
        r#"{"type":"/problems/too-large","title":"Too large","status":413,"detail":"less","limit":7}"#,
    ),
];

/// Writes the seeds of the targets `requests`, `bodies` and `paths`.
pub(crate) fn write(seeds: &Path) -> Result<(), Box<dyn Error>> {
    let [requests, bodies, paths] = ["requests", "bodies", "paths"].map(|target| seeds.join(target));
    for folder in [&requests, &bodies, &paths] {
        fs::create_dir_all(folder)?;
    }
    let numbered = |number: u8, text: &str| [&[number], text.as_bytes()].concat();
    for (number, name, text) in PATHS {
        fs::write(paths.join(name), numbered(number, text))?;
    }
    for (number, name, json) in BODIES {
        fs::write(bodies.join(name), numbered(number, json))?;
    }
    let examples: Vec<BTreeMap<String, Value>> = serde_json::from_slice(&fs::read(EXAMPLES)?)?;
    let mut story = Seed::default();
    for example in &examples {
        let name = example.get("operation").and_then(Value::as_str).unwrap_or_default();
        let Some((_, method, path, number)) = OPERATIONS.into_iter().find(|(of, ..)| *of == name) else {
            continue;
        };
        let body = example.get("request").map_or(Ok(String::new()), serde_json::to_string)?;
        if let Some(number) = number {
            fs::write(bodies.join(name), numbered(number, &body))?;
        }
        let request = format!("{}{}\n{body}", filled(path, example), query(example));
        story.part(method, request.as_bytes());
        let mut alone = Seed::default();
        alone.part(method, request.as_bytes());
        fs::write(requests.join(name), alone.0)?;
    }
    fs::write(requests.join("story"), story.0)?;
    Ok(())
}

/// A path with the values of an example; ids that a gateway makes are those of the last answer.
fn filled(path: &str, example: &BTreeMap<String, Value>) -> String {
    let values = example.get("path").and_then(Value::as_object);
    values.into_iter().flatten().fold(path.to_owned(), |path, (name, value)| {
        let value = match name.as_str() {
            "clientId" => "$c",
            "keyQueueId" => "$q",
            _ => value.as_str().unwrap_or_default(),
        };
        path.replace(&format!("{{{name}}}"), value)
    })
}

/// The query string of an example.
fn query(example: &BTreeMap<String, Value>) -> String {
    let values = example.get("query").and_then(Value::as_object);
    let pairs: Vec<String> = values
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"').replace(':', "%3A")))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}
