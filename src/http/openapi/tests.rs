use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    examples::{Recorded, events_of},
    *,
};
use crate::{
    api::{
        self,
        events::{EVENT_STREAM, EventData},
        paths::PathMembers as _,
    },
    http::{operator, route::ROUTES},
};

fn json() -> Value {
    document().unwrap()
}

/// The operations of the document, by their names.
fn operations(document: &Value) -> BTreeMap<String, Value> {
    let items = document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    operations
        .map(|operation| (operation["operationId"].as_str().unwrap().to_owned(), operation.clone()))
        .collect()
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    if let Some(target) = value.get("$ref").and_then(Value::as_str) {
        found.insert(target.to_owned());
    }
    let members = value.as_object().into_iter().flat_map(|members| members.values());
    let items = value.as_array().into_iter().flatten();
    members.chain(items).for_each(|value| references(value, found));
}

/// The methods and paths of a document.
fn listed(document: &Value) -> BTreeSet<(String, String)> {
    let items = document["paths"].as_object().unwrap().iter();
    let of_item = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()));
        methods.collect::<Vec<_>>()
    };
    items.flat_map(of_item).collect()
}

#[test]
fn the_document_for_operators_is_whole() {
    let document = operator::document().unwrap();
    let routes = operator::Operators::routes().iter();
    let routes: BTreeSet<(String, String)> =
        routes.map(|route| (route.method.as_str().to_owned(), route.template.to_owned())).collect();
    assert_eq!(listed(&document), routes);
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    let sections = document["tags"].as_array().unwrap();
    let sections: Vec<&Value> = sections.iter().map(|section| &section["name"]).collect();
    for (name, operation) in operations(&document) {
        assert!(sections.contains(&&operation["tags"][0]), "{name}");
        assert_eq!(operation["security"].as_array().unwrap().is_empty(), !needs_token(&name), "{name}");
    }
}

/// Whether an operation for operators needs a token: all but the pages that hold no data.
fn needs_token(name: &str) -> bool {
    !matches!(name, "contents" | "consoleFile" | "healthz" | "readyz" | "metrics")
}

#[test]
fn the_document_lists_exactly_the_routes() {
    let document = json();
    assert_eq!(document["openapi"], "3.1.0");
    let registered: BTreeSet<(String, String)> =
        ROUTES.iter().map(|route| (route.method.as_str().to_owned(), route.template.to_owned())).collect();
    assert_eq!(listed(&document), registered);
}

/// The schemas that a part of a document refers to, and those that they refer to.
fn schemas_of<'a>(document: &'a Value, part: &Value) -> BTreeMap<String, &'a Value> {
    let (mut schemas, mut waiting) = (BTreeMap::new(), BTreeSet::new());
    references(part, &mut waiting);
    while let Some(reference) = waiting.pop_first() {
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
        if schemas.insert(reference, schema).is_none() {
            references(schema, &mut waiting);
        }
        waiting.retain(|reference| !schemas.contains_key(reference));
    }
    schemas
}

/// A newer gateway may answer with members that a client does not know; what it does not know in a request is refused.
#[test]
fn answers_may_have_more_members_and_requests_may_not() {
    let is_strict = |schema: &Value| schema["additionalProperties"] == false;
    let (mut answers, mut requests) = (0, 0);
    for document in [json(), operator::document().unwrap()] {
        for (name, operation) in operations(&document) {
            for (reference, schema) in schemas_of(&document, &operation["responses"]) {
                assert!(!is_strict(schema), "an answer of {name}: {reference}");
                answers += 1;
            }
            for (reference, schema) in schemas_of(&document, &operation["requestBody"]) {
                assert!(
                    is_strict(schema) || schema["properties"].is_null(),
                    "a request of {name}: {reference}"
                );
                requests += 1;
            }
        }
    }
    assert!(answers > 50 && requests > 5, "{answers} schemas of answers, {requests} of requests");
}

#[test]
fn every_problem_that_an_operation_answers_is_described_and_nothing_else() {
    let document = json();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let described: BTreeSet<&str> =
        schemas.values().filter_map(|schema| schema["properties"]["type"]["const"].as_str()).collect();
    // Unknown methods are not operations; operators alone are told of these.
    let others = [ProblemKind::MethodNotAllowed, ProblemKind::UnknownApplication, ProblemKind::UnknownToken];
    let kinds = ProblemKind::ALL.iter().filter(|kind| !others.contains(kind));
    let uris: Vec<String> = kinds.map(|kind| kind.type_uri()).collect();
    assert_eq!(described, uris.iter().map(String::as_str).collect());
}

#[test]
fn every_problem_has_an_example_of_its_own_members() {
    let document = json();
    for kind in ProblemKind::ALL {
        let schema = &document["components"]["schemas"][schema_name(*kind)];
        // Those that no operation answers are left out.
        let Some(properties) = schema["properties"].as_object() else { continue };
        let example = schema["examples"][0].as_object().unwrap();
        assert_eq!(example["type"], kind.type_uri());
        for name in schema["required"].as_array().unwrap() {
            let value = &example[name.as_str().unwrap()];
            let expected = &properties[name.as_str().unwrap()]["type"];
            let found = match value {
                Value::String(_) => "string",
                Value::Number(_) => "integer",
                Value::Array(_) => "array",
                Value::Null | Value::Bool(_) | Value::Object(_) => "none",
            };
            assert!(expected == found || expected.is_null(), "{kind:?}: {name} is {value}, of {expected}");
        }
    }
}

#[test]
fn operations_have_their_own_names_and_problems() {
    let document = json();
    let mut names = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        }
    }
    let conflict = &document["paths"]["/apps/{appId}/groups/{groupId}/epochs"]["put"]["responses"]["409"];
    let schema = &conflict["content"]["application/problem+json"]["schema"];
    assert_eq!(schema["oneOf"][0]["$ref"], "#/components/schemas/StaleEpochProblem");
}

#[test]
fn departures_from_the_draft_are_said_where_they_are() {
    let document = json();
    let described = |path: &str, method: &str| {
        document["paths"][path][method]["description"].as_str().unwrap_or_default().to_owned()
    };
    let queue = described("/apps/{appId}/clients/{clientId}/queues", "post");
    assert!(queue.contains("DEVIATION") && queue.contains("of one client"), "{queue}");
    let messages = described("/apps/{appId}/groups/{groupId}/control-msgs", "get");
    assert!(messages.contains("DEVIATION") && messages.contains("nextEpochId"), "{messages}");
    assert!(!described("/apps/{appId}/groups/{groupId}", "get").contains("DEVIATION"));
}

#[test]
fn every_reference_has_a_target() {
    let document = json();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/ApplicationConfigurationList"));
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
}

#[test]
fn every_operation_is_described_and_names_its_header_fields() {
    let document = json();
    for (name, operation) in operations(&document) {
        assert!(operation["description"].as_str().is_some_and(|text| text.ends_with(['.', '\n'])), "{name}");
        let tag = &operation["tags"][0];
        assert!(SECTIONS.iter().any(|(section, _)| tag == section), "{name}: {tag}");
        let responses = operation["responses"].as_object().unwrap();
        for (status, response) in responses {
            let headers = response["headers"].as_object().unwrap();
            assert!(headers.contains_key("X-Request-Id"), "{name} {status}");
            assert_eq!(
                headers.contains_key("Retry-After"),
                ["429", "503"].contains(&status.as_str()),
                "{name} {status}"
            );
            assert_eq!(headers.contains_key("WWW-Authenticate"), status == "401", "{name} {status}");
            let has_rates = responses.contains_key("401") && status != "401";
            for field in ["RateLimit", "RateLimit-Policy"] {
                assert_eq!(headers.contains_key(field), has_rates, "{name} {status}");
            }
        }
        let tagged = ["getGroup", "listProposals", "getGroupInfo"].contains(&name.as_str());
        assert_eq!(responses.contains_key("304"), tagged, "{name}");
        let names_tag = responses.get("200").is_some_and(|answer| answer["headers"]["ETag"].is_object());
        assert_eq!(names_tag, tagged, "{name}");
        let takes = |header: &str| {
            let parameters = operation["parameters"].as_array().unwrap();
            parameters.iter().any(|parameter| parameter["name"] == header && parameter["in"] == "header")
        };
        assert_eq!(takes("If-None-Match"), tagged, "{name}");
        assert_eq!(takes("Last-Event-ID"), name.starts_with("stream"), "{name}");
    }
}

/// The recorded requests of an endpoint parse as its types.
fn check_recorded<E: Endpoint>(story: &[Recorded], names: &mut BTreeSet<String>) {
    let recorded: Vec<_> = story.iter().filter(|recorded| recorded.operation == E::NAME).collect();
    assert!(!recorded.is_empty(), "{} has no example", E::NAME);
    names.insert(E::NAME.to_owned());
    for recorded in recorded {
        let segments: Vec<String> = E::PATH
            .split('/')
            .filter(|segment| is_member(segment))
            .map(|segment| api::percent::encode(&recorded.path[segment.trim_matches(['{', '}'])]))
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        E::Path::read(&segments).unwrap();
        serde_json::from_value::<E::Query>(recorded.query.clone().into()).unwrap();
        assert_eq!(recorded.request.is_some(), E::Body::IS_SENT, "{}", E::NAME);
        if let Some(request) = &recorded.request {
            serde_json::from_value::<E::Body>(request.clone()).unwrap();
        }
        assert!(E::SUCCESS.iter().any(|success| success.status() == recorded.status), "{}", E::NAME);
        if E::MEDIA_TYPE == EVENT_STREAM {
            let events: Vec<_> = events_of(recorded.stream.as_ref().unwrap()).collect();
            assert!(events.len() > 1, "{}", E::NAME);
            for [id, _, data] in events {
                id.parse::<text::EventIdText>().unwrap();
                serde_json::from_str::<EventData>(data).unwrap();
            }
        } else if recorded.status != 204 {
            let answer = recorded.answer.clone().unwrap();
            let parsed: E::Response = serde_json::from_value(answer.clone()).unwrap();
            assert_eq!(serde_json::to_value(parsed).unwrap(), answer, "{}", E::NAME);
        }
    }
}

#[test]
fn every_operation_has_an_example_of_its_types() {
    let story = recorded().unwrap();
    let mut names = BTreeSet::new();
    macro_rules! check {
        ($($endpoint:ty),+ $(,)?) => { $(check_recorded::<$endpoint>(&story, &mut names);)+ };
    }
    check!(
        api::federation::Discover,
        api::applications::ListApplications,
        api::external_senders::ListExternalSenders,
        api::clients::RegisterClient,
        api::clients::FindClients,
        api::clients::GetClient,
        api::clients::ChangeClient,
        api::clients::DeleteClient,
        api::clients::ListGroupsOfClient,
        api::key_packages::CreateKeyQueue,
        api::key_packages::ListKeyQueues,
        api::key_packages::UploadKeyPackages,
        api::key_packages::DeleteKeyQueue,
        api::key_packages::RetrieveKeyPackage,
        api::groups::CreateGroup,
        api::groups::ListGroups,
        api::groups::GetGroup,
        api::groups::DeleteGroup,
        api::groups::UploadProposal,
        api::groups::ListProposals,
        api::groups::UploadCommit,
        api::groups::ListControlMessages,
        api::reports::ReportEpoch,
        api::joining::GetGroupInfo,
        api::joining::ListWelcomes,
        api::joining::AcknowledgeWelcome,
        api::events::StreamApplicationEvents,
        api::events::StreamGroupEvents,
    );
    let document = json();
    for (name, operation) in operations(&document) {
        let is_page = operation["tags"][0] == "This gateway";
        assert_eq!(names.contains(&name), !is_page, "{name}");
        if let Some(body) = operation.get("requestBody") {
            assert!(body["content"]["application/json"]["example"].is_object(), "{name}");
        }
        for parameter in operation["parameters"].as_array().unwrap().iter().filter(|_| !is_page) {
            let has_example = parameter.get("example").is_some();
            assert!(has_example || parameter["required"] == false, "{name}: {parameter}");
        }
    }
    let events =
        operations(&document)["streamApplicationEvents"]["responses"]["200"]["content"][EVENT_STREAM].clone();
    for kind in ["proposal", "epoch", "group", "welcome", "key-packages", "epoch-reported"] {
        assert_eq!(events["examples"][kind]["value"]["event"], kind);
    }
}

/// The snake_case form of a name.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[test]
fn schema_names_do_not_clash_with_those_of_generated_clients() {
    let document = json();
    // Classes of generated clients, and globals of TypeScript and Python.
    let taken = [
        "Any",
        "Array",
        "AuthenticatedClient",
        "Client",
        "Date",
        "Dict",
        "Enum",
        "Error",
        "Event",
        "Exception",
        "File",
        "Function",
        "Group",
        "Headers",
        "Identity",
        "List",
        "Map",
        "Member",
        "Middleware",
        "Model",
        "Number",
        "Object",
        "Options",
        "Problem",
        "Proposal",
        "Commit",
        "Record",
        "Request",
        "Response",
        "Set",
        "String",
        "Symbol",
        "Type",
        "Unset",
    ];
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(!taken.contains(&name.as_str()), "{name}");
        // A class made from the schema has a variable of its own name next to those of its members.
        for member in schema["properties"].as_object().into_iter().flat_map(|members| members.keys()) {
            assert_ne!(snake(name), snake(member), "{name}");
        }
    }
}

#[test]
fn answers_leave_out_what_they_do_not_have_and_requests_may_say_null() {
    let document = json();
    let schemas = &document["components"]["schemas"];
    let details = &schemas["ClientDetails"]["properties"]["domain"];
    assert_eq!(details["type"], "string", "{details}");
    let tree = &schemas["JoinInfo"]["properties"]["ratchetTree"];
    assert_eq!(tree["$ref"], "#/components/schemas/Base64", "{tree}");
    assert!(tree.get("oneOf").is_none(), "{tree}");
    let requested = &schemas["NewClient"]["properties"]["domain"];
    assert_eq!(requested["type"], serde_json::json!(["string", "null"]), "{requested}");
}

#[test]
fn epochs_have_the_range_of_64_bits_without_a_sign() {
    let document = json();
    let parameters = &operations(&document)["listControlMessages"]["parameters"];
    let start =
        parameters.as_array().unwrap().iter().find(|parameter| parameter["name"] == "startEpochId").unwrap();
    assert_eq!(start["schema"]["format"], "uint64", "{start}");
    assert_eq!(start["schema"]["maximum"], u64::MAX, "{start}");
    assert!(!document.to_string().contains("\"int64\""));
}
