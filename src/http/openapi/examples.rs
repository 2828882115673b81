//! Examples in the OpenAPI document: one story of real MLS clients, recorded at a gateway (`examples.json`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::events::EVENT_STREAM;

/// A request of the story, and its answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorded {
    /// The `operationId`.
    pub(super) operation: String,
    /// The members of the path, not percent-encoded.
    #[serde(default)]
    pub(super) path: BTreeMap<String, String>,
    /// The query.
    #[serde(default)]
    pub(super) query: Map<String, Value>,
    /// The body.
    #[serde(default)]
    pub(super) request: Option<Value>,
    /// The status of the answer.
    pub(super) status: u16,
    /// The body of the answer, if it has one.
    #[serde(default)]
    pub(super) answer: Option<Value>,
    /// The beginning of the answer, if that is an event stream.
    #[serde(default)]
    pub(super) stream: Option<String>,
}

/// The story.
pub(super) fn recorded() -> Result<Vec<Recorded>, serde_json::Error> {
    serde_json::from_str(include_str!("examples.json"))
}

/// Adds the first recorded request of an operation to its parameters and its body, and the answer to its answer.
pub(super) fn add_example(story: &[Recorded], operation: &mut Map<String, Value>) {
    let name = operation.get("operationId").and_then(Value::as_str);
    let Some(recorded) = story.iter().find(|recorded| Some(recorded.operation.as_str()) == name) else {
        return;
    };
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten().filter_map(Value::as_object_mut) {
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        let example = match parameter.get("in").and_then(Value::as_str) {
            Some("path") => recorded.path.get(name).cloned().map(Value::from),
            Some("query") => recorded.query.get(name).cloned(),
            Some(_) | None => None,
        };
        if let Some(example) = example {
            parameter.insert("example".to_owned(), example);
        }
    }
    let body = operation.get_mut("requestBody").and_then(|body| content_of(body, "application/json"));
    if let (Some(body), Some(request)) = (body, &recorded.request) {
        body.insert("example".to_owned(), request.clone());
    }
    let status = recorded.status.to_string();
    let Some(answer) = operation.get_mut("responses").and_then(|responses| responses.get_mut(status)) else {
        return;
    };
    if let (Some(content), Some(shown)) = (content_of(answer, "application/json"), &recorded.answer) {
        content.insert("example".to_owned(), shown.clone());
    }
    if let (Some(content), Some(stream)) = (content_of(answer, EVENT_STREAM), &recorded.stream) {
        content.insert("examples".to_owned(), Value::Object(examples_in(stream)));
    }
}

/// The content of this media type, in a body or an answer.
fn content_of<'a>(value: &'a mut Value, media_type: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut("content")?.get_mut(media_type)?.as_object_mut()
}

/// The first event of each kind in a stream, by the kind's name.
fn examples_in(stream: &str) -> Map<String, Value> {
    let mut examples = Map::new();
    for [id, event, data] in events_of(stream) {
        examples
            .entry(event)
            .or_insert_with(|| json!({ "value": { "id": id, "event": event, "data": data } }));
    }
    examples
}

/// The id, the kind and the data of the events in a stream.
pub(super) fn events_of(stream: &str) -> impl Iterator<Item = [&str; 3]> {
    stream.split("\n\n").filter_map(|block| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some([field("id")?, field("event")?, field("data")?])
    })
}
