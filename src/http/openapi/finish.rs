//! Parts of OpenAPI 3.1 that utoipa has no types for, or writes as older versions had them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The members of a path item that are operations.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Where a reference to a schema begins.
const SCHEMAS: &str = "#/components/schemas/";

/// Adds the header fields of answers, and makes the schemas exact.
pub(super) fn finish(document: &mut Value) {
    each_operation(document, add_headers);
    describe_events(document);
    drop_unused(document);
    let in_requests = schemas_in_requests(document);
    each_object(document, &mut name_constants);
    each_object(document, &mut bound_unsigned);
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        for (_, schema) in schemas.iter_mut().filter(|(name, _)| !in_requests.contains(*name)) {
            each_object(schema, &mut refuse_null);
        }
    }
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("headers".to_owned(), headers());
    }
}

/// The kinds of events, with the schemas of their data.
const EVENTS: [(&str, &str); 7] = [
    ("proposal", "ProposalEvent"),
    ("epoch", "EpochEvent"),
    ("group", "GroupEvent"),
    ("welcome", "WelcomeEvent"),
    ("key-packages", "KeyPackagesEvent"),
    ("epoch-reported", "EpochReportedEvent"),
    ("reset", "ResetEvent"),
];

/// Describes an event as readers of streams get it: an object of its fields, whose data is text that holds JSON, as OpenAPI 3.2
/// (*Server-Sent Events*) models it.
fn describe_events(document: &mut Value) {
    let events = EVENTS.map(|(kind, schema)| {
        json!({
            "type": "object",
            "properties": {
                "id": { "type": "string", "description": "Where to resume." },
                "event": { "const": kind },
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": { "$ref": format!("{SCHEMAS}{schema}") },
                },
            },
            "required": ["event", "data"],
        })
    });
    if let Some(schema) = document.pointer_mut("/components/schemas/EventData") {
        *schema = json!({ "description": "An event of a stream.", "oneOf": events });
    }
}

/// The header fields that answers refer to.
fn headers() -> Value {
    let text = |description: &str, example: &str| json!({ "description": description, "schema": { "type": "string" }, "example": example });
    json!({
        "X-Request-Id": text(
            "The id of the request, also in the gateway's log: the one that the request carried, or a new one.",
            "3f1c9a52-17",
        ),
        "ETag": text(
            "A weak tag that changes whenever the answer does; send it as `If-None-Match`.",
            "W/\"5d0f3a9c1b2e4f6071829304\"",
        ),
        "WWW-Authenticate": text("The scheme with which to authenticate.", "Bearer"),
        "RateLimit-Policy": text(
            "The rates that the request counts for, where any are set (draft-ietf-httpapi-ratelimit-headers): `q` requests in `w` seconds.",
            "\"token\";q=6000;w=60",
        ),
        "RateLimit": text(
            "What is left of them: `r` requests over the next `t` seconds; if there are none, the next one is allowed after `t` seconds.",
            "\"token\";r=5999;t=60",
        ),
        "Retry-After": {
            "description": "The time after which to send the request again, in seconds.",
            "schema": { "type": "integer", "minimum": 0 },
            "example": 1,
        },
    })
}

/// Refers to the header fields of each answer of an operation.
fn add_headers(operation: &mut Map<String, Value>) {
    let is_tagged = operation.get("responses").is_some_and(|responses| responses.get("304").is_some());
    // Only callers with a token have rates.
    let has_rates = operation.get("responses").is_some_and(|responses| responses.get("401").is_some());
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    for (status, response) in responses.into_iter().flatten() {
        let own = match status.as_str() {
            "200" | "304" if is_tagged => Some("ETag"),
            "401" => Some("WWW-Authenticate"),
            "429" | "503" => Some("Retry-After"),
            _ => None,
        };
        let rates = ["RateLimit-Policy", "RateLimit"].into_iter().filter(|_| has_rates && status != "401");
        let fields = own.into_iter().chain(rates).chain(["X-Request-Id"]);
        let headers: Map<_, _> = fields
            .map(|name| (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })))
            .collect();
        if let Some(response) = response.as_object_mut() {
            response.insert("headers".to_owned(), Value::Object(headers));
        }
    }
}

/// Drops the schemas that no operation refers to: the problems of unknown routes and of federation.
fn drop_unused(document: &mut Value) {
    let used = document.get("paths").map(|paths| reached(document, paths)).unwrap_or_default();
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        schemas.retain(|name, _| used.contains(name));
    }
}

/// The names of the schemas that requests are made of.
fn schemas_in_requests(document: &Value) -> BTreeSet<String> {
    let items = document.get("paths").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let bodies =
        items.flat_map(|item| METHODS.iter().filter_map(|method| item.get(method)?.get("requestBody")));
    bodies.flat_map(|body| reached(document, body)).collect()
}

/// The names of the schemas that a value refers to, directly or through others.
fn reached(document: &Value, value: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        if let Some(name) =
            value.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(SCHEMAS))
            && names.insert(name.to_owned())
        {
            waiting.extend(document.pointer(&format!("/components/schemas/{name}")));
        }
        waiting.extend(value.as_object().into_iter().flat_map(Map::values));
        waiting.extend(value.as_array().into_iter().flatten());
    }
    names
}

/// Says a choice of one value as that value, for which generators make a literal type.
fn name_constants(object: &mut Map<String, Value>) {
    if let Some(Value::Array(values)) = object.get("enum")
        && let [only] = values.as_slice()
    {
        let only = only.clone();
        object.remove("enum");
        object.insert("const".to_owned(), only);
    }
}

/// Gives numbers of 64 bits without a sign their range, which is not that of the format `int64`.
fn bound_unsigned(schema: &mut Map<String, Value>) {
    if schema.get("format").is_some_and(|format| format == "int64")
        && schema.get("minimum").is_some_and(|minimum| minimum == 0)
    {
        schema.insert("format".to_owned(), "uint64".into());
        schema.entry("maximum").or_insert_with(|| u64::MAX.into());
    }
}

/// Takes `null` out of a schema: answers leave out what they do not have.
fn refuse_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(choices)) = schema.get_mut("oneOf") else { return };
    let count = choices.len();
    choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    if choices.len() < count
        && let [Value::Object(only)] = choices.as_slice()
    {
        let only = only.clone();
        schema.remove("oneOf");
        schema.extend(only);
    }
}

/// Changes each operation of the document.
pub(super) fn each_operation(document: &mut Value, mut change: impl FnMut(&mut Map<String, Value>)) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (_, item) in paths.into_iter().flatten() {
        for method in METHODS {
            item.get_mut(method).and_then(Value::as_object_mut).map(&mut change);
        }
    }
}

/// Changes each object of a value, except in examples.
fn each_object(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            for (name, member) in object {
                if name != "example" && name != "examples" {
                    each_object(member, change);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
