//! Problems in the OpenAPI document: the answers of each operation, and one schema for each type.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::{
    ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, ResponseBuilder, Schema, path::Operation,
    schema::Type,
};

use super::content;
use crate::api::{
    Access, Body as _, Endpoint,
    problem::{PROBLEM_JSON, ProblemKind},
};

/// The problems of every request to an endpoint. Unknown routes and methods are not operations, so they are not listed.
pub(super) fn common_problems<E: Endpoint>() -> impl Iterator<Item = ProblemKind> {
    use ProblemKind as Kind;
    let is_private = E::ACCESS != Access::Public;
    let any = [
        Kind::MalformedRequest,
        Kind::TooManyRequests,
        Kind::HeadersTooLarge,
        Kind::Internal,
        Kind::ShuttingDown,
    ];
    let private = [Kind::NotAuthenticated, Kind::NotPermitted, Kind::TooLarge, Kind::StorageUnavailable];
    let with_body = [Kind::RequestTimeout, Kind::UnsupportedMediaType, Kind::ExpectationFailed];
    any.into_iter()
        .chain(private.into_iter().filter(move |_| is_private))
        .chain(with_body.into_iter().filter(|_| E::Body::IS_SENT))
}

/// Adds one response for each status, whose schema is one of its problems.
pub(super) fn add_problems(operation: &mut Operation, problems: impl Iterator<Item = ProblemKind>) {
    let mut by_status: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in problems {
        let kinds = by_status.entry(kind.about().status).or_default();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for (status, kinds) in by_status {
        let titles: Vec<_> =
            kinds.iter().map(|kind| format!("[{}]({})", kind.about().title, kind.type_uri())).collect();
        let schema = match kinds.as_slice() {
            [kind] => RefOr::Ref(Ref::from_schema_name(schema_name(*kind))),
            kinds => kinds
                .iter()
                .fold(OneOfBuilder::new(), |one_of, kind| {
                    one_of.item(Ref::from_schema_name(schema_name(*kind)))
                })
                .into(),
        };
        let response =
            ResponseBuilder::new().description(titles.join(", ")).content(PROBLEM_JSON, content(schema));
        operation.responses.responses.insert(status.to_string(), response.build().into());
    }
}

/// The schema of one problem: the members of every problem document, with its own type and status, and its own members. It is
/// whole, because generators of clients cannot merge a number with one value of it.
pub(super) fn problem_schema(kind: ProblemKind) -> RefOr<Schema> {
    let about = kind.about();
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let own = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("type", text().enum_values(Some([kind.type_uri()])))
        .required("type")
        .property("title", text().description(Some("The type in a few words.")))
        .required("title")
        .property("status", ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([about.status])))
        .required("status")
        .property("detail", text().description(Some("The fault of this request, and its remedy.")))
        .required("detail")
        .property("instance", text().description(Some("The path of the request.")))
        .property("requestId", text().description(Some("The id of the request, also in `X-Request-Id`.")));
    let own = about.members.iter().fold(own, |own, (name, meaning)| {
        let schema: RefOr<Schema> = match *name {
            "currentEpochId" | "floorEpochId" | "offset" | "value" => {
                ObjectBuilder::new().schema_type(Type::Integer).description(Some(*meaning)).into()
            }
            "kind" => text()
                .enum_values(Some(["proposal", "extension", "credential"]))
                .description(Some(*meaning))
                .into(),
            "leafIndices" => ArrayBuilder::new()
                .items(ObjectBuilder::new().schema_type(Type::Integer))
                .description(Some(*meaning))
                .into(),
            "differs" => ArrayBuilder::new().items(text()).description(Some(*meaning)).into(),
            "errors" => ArrayBuilder::new()
                .items(Ref::from_schema_name("RefusedKeyPackage"))
                .description(Some(*meaning))
                .into(),
            _ => text().description(Some(*meaning)).into(),
        };
        own.property(*name, schema).required(*name)
    });
    // Without a title, which generators would take for the name.
    let description = format!("{}: {} {}", about.title, about.meaning, about.remedy);
    own.description(Some(description)).examples([example(kind)]).into()
}

/// A document of a problem.
fn example(kind: ProblemKind) -> Value {
    let about = kind.about();
    let common = [
        ("type", json!(kind.type_uri())),
        ("title", json!(about.title)),
        ("status", json!(about.status)),
        ("detail", json!(about.meaning)),
        ("instance", json!("/apps/7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11/groups")),
        ("requestId", json!("3f1c9a52-17")),
    ];
    let own = about.members.iter().map(|(name, _)| (*name, example_member(name)));
    common.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A value of a problem's own member.
fn example_member(name: &str) -> Value {
    match name {
        "currentEpochId" | "floorEpochId" => json!(7),
        "offset" => json!(88),
        "value" => json!(0xff01),
        "kind" => json!("extension"),
        "leafIndices" => json!([2]),
        "differs" => json!(["identity_configuration.supports_domains"]),
        "errors" => json!([{ "index": 0, "detail": "the signature of the key package is not its own" }]),
        "clientId" | "keyQueueId" => json!("982c832d-caf1-45b0-8525-852aa18fdd03"),
        "clientHandle" => json!("alice/phone"),
        "hubDomain" => json!("b.example"),
        "field" => json!("GroupInfo.extensions[0].external_pub"),
        "member" => json!("groupInfo"),
        "rule" => json!("path-ciphertexts"),
        "proposalRef" => json!("q5v0cXyJm0a0m3iKJ0Qd3q0dF3qTn3m7yq3Ckq4bXhE="),
        _ => Value::Null,
    }
}

pub(super) fn schema_name(kind: ProblemKind) -> String {
    format!("{kind:?}Problem")
}
