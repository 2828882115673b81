//! The OpenAPI 3.1 document, made from the route table and the types of the API.

use std::collections::BTreeMap;

use utoipa::{
    IntoParams as _, ToSchema,
    openapi::{
        AllOfBuilder, ArrayBuilder, ComponentsBuilder, Content, ContentBuilder, HttpMethod, Info, License,
        ObjectBuilder, OneOfBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required,
        ResponseBuilder, Schema,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{KnownFormat, SchemaFormat, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::route::{ROUTES, Route};
use crate::api::{
    Access, Body, Endpoint, Method, Success,
    key_packages::RefusedKeyPackage,
    paths::is_member,
    problem::{PROBLEM_JSON, ProblemDocument, ProblemKind},
    text,
};

/// The name of the one security scheme.
const TOKEN: &str = "token";

/// The description of a route.
pub(super) enum Description {
    /// From its endpoint.
    Endpoint(fn(&mut Schemas) -> Operation),
    /// In words.
    Page {
        /// `operationId`.
        name: &'static str,
        /// A description in one line.
        summary: &'static str,
        /// The media type of its answer.
        media_type: &'static str,
        /// Its other answers.
        problems: &'static [ProblemKind],
    },
}

/// The schemas that the operations refer to, by name.
pub(super) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// The whole document.
pub(super) fn document() -> OpenApi {
    let mut schemas = Schemas::new();
    collect::<ProblemDocument>(&mut schemas);
    collect::<RefusedKeyPackage>(&mut schemas);
    schemas.extend(ProblemKind::ALL.iter().map(|kind| (schema_name(*kind), problem_schema(*kind))));
    let paths = ROUTES.iter().fold(PathsBuilder::new(), |paths, route| {
        let mut operation = match &route.description {
            Description::Endpoint(describe) => describe(&mut schemas),
            Description::Page { name, summary, media_type, problems } => {
                page(name, summary, media_type, problems)
            }
        };
        add_common(&mut operation, route);
        paths.path(route.template, PathItem::new(http_method(route.method), operation))
    });
    let mut info = Info::new("MIMI gateway", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "The internal interface of a MIMI gateway: the server side of MLS (RFC 9420) for application servers. Every \
         error is a problem document (RFC 9457); each type is explained at its `type`, /problems/{slug}."
            .to_owned(),
    );
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    info.license = Some(license);
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of the application in the path, for reading or for reading and writing."))
        .build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(TOKEN, SecurityScheme::Http(scheme))
        .build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

/// The operation of an endpoint.
pub(super) fn describe<E: Endpoint>(schemas: &mut Schemas) -> Operation {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(E::NAME))
        .summary(Some(E::SUMMARY))
        .description(E::DEVIATION.map(|deviation| format!("DEVIATION from the draft: {deviation}")))
        .tag(E::SECTION)
        .parameters(Some(E::Query::into_params(|| Some(ParameterIn::Query))));
    if E::Body::IS_SENT {
        let body = RequestBodyBuilder::new()
            .content("application/json", content(collect::<E::Body>(schemas)))
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    for success in E::SUCCESS {
        let description = match success {
            Success::Ok if E::SUCCESS.contains(&Success::Created) => {
                "The answer that the same request got first"
            }
            Success::Ok => "The answer",
            Success::Created => "Created",
            Success::NoContent => "Done",
        };
        let response = ResponseBuilder::new().description(description);
        let response = match success {
            Success::NoContent => response,
            Success::Ok | Success::Created => {
                response.content(E::MEDIA_TYPE, content(collect::<E::Response>(schemas)))
            }
        };
        operation = operation.response(success.status().to_string(), response.build());
    }
    let mut operation = operation.build();
    add_problems(&mut operation, E::PROBLEMS.iter().copied().chain(common_problems::<E>()));
    operation
}

fn page(name: &str, summary: &str, media_type: &str, problems: &[ProblemKind]) -> Operation {
    let schema_type = if media_type == "application/json" { Type::Object } else { Type::String };
    let shown = ObjectBuilder::new().schema_type(schema_type);
    let response = ResponseBuilder::new().description("The answer").content(media_type, content(shown));
    let mut operation = OperationBuilder::new()
        .operation_id(Some(name))
        .summary(Some(summary))
        .tag("This gateway")
        .response("200", response.build())
        .build();
    add_problems(&mut operation, problems.iter().copied());
    operation
}

/// The problems of every request to an endpoint. Unknown routes and methods are not operations, so they are not listed.
fn common_problems<E: Endpoint>() -> impl Iterator<Item = ProblemKind> {
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
fn add_problems(operation: &mut Operation, problems: impl Iterator<Item = ProblemKind>) {
    let mut by_status: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in problems {
        let kinds = by_status.entry(kind.about().status).or_default();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for (status, kinds) in by_status {
        let titles: Vec<_> =
            kinds.iter().map(|kind| format!("{} (`{}`)", kind.about().title, kind.about().slug)).collect();
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

/// Adds the properties of the route itself: the members of its path, and its need of a token.
fn add_common(operation: &mut Operation, route: &Route) {
    let members = route.template.split('/').filter(|segment| is_member(segment));
    let parameters =
        members.map(|segment| RefOr::T(path_parameter(segment.trim_matches(['{', '}'])))).collect::<Vec<_>>();
    operation.parameters =
        Some(parameters.into_iter().chain(operation.parameters.take().unwrap_or_default()).collect());
    operation.security = Some(match route.access {
        Access::Public => Vec::new(),
        Access::Read => vec![SecurityRequirement::new(TOKEN, ["read"])],
        Access::ReadWrite => vec![SecurityRequirement::new(TOKEN, ["read-write"])],
    });
}

fn path_parameter(name: &str) -> Parameter {
    let string = ObjectBuilder::new().schema_type(Type::String);
    let uuid = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
    let (schema, description): (RefOr<Schema>, _) = match name {
        "appId" => (uuid.into(), "The application."),
        "clientId" => (uuid.into(), "The client, as its registration answered."),
        "keyQueueId" => (uuid.into(), "The key queue, as its creation answered."),
        "clientHandle" => (
            string.min_length(Some(1)).into(),
            "The client handle in its one text form, percent-encoded: `alice%2Fphone`. Bytes that are not UTF-8, a \
             handle that itself begins with `b64:`, and the handles `.` and `..` are `b64:` and base64url without \
             padding of the bytes.",
        ),
        "groupId" => (
            string.pattern(Some(text::GROUP_ID_PATTERN)).into(),
            "base64url without padding of the MLS group_id.",
        ),
        "id" => (string.into(), "The `id` of the join info."),
        "slug" => (string.into(), "The last part of a problem's `type`."),
        _ => (string.into(), "A file of the page."),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// The schema of one problem: that of every problem, its own type and status, and its own members.
fn problem_schema(kind: ProblemKind) -> RefOr<Schema> {
    let about = kind.about();
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let own = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("type", text().enum_values(Some([kind.type_uri()])))
        .property(
            "status",
            ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([about.status])),
        );
    let own = about.members.iter().fold(own, |own, (name, meaning)| {
        let schema: RefOr<Schema> = match *name {
            "currentEpochId" | "floorEpochId" | "offset" | "value" => {
                ObjectBuilder::new().schema_type(Type::Integer).description(Some(*meaning)).into()
            }
            "kind" => text()
                .enum_values(Some(["proposal", "extension", "credential"]))
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
    let common = Ref::from_schema_name(ProblemDocument::name());
    let description = format!("{} {}", about.meaning, about.remedy);
    AllOfBuilder::new().title(Some(about.title)).description(Some(description)).item(common).item(own).into()
}

fn schema_name(kind: ProblemKind) -> String {
    format!("{kind:?}Problem")
}

fn content(schema: impl Into<RefOr<Schema>>) -> Content {
    ContentBuilder::new().schema(Some(schema)).build()
}

/// Adds the schema of a type and of all types that it refers to; returns a reference to it.
fn collect<T: ToSchema>(schemas: &mut Schemas) -> Ref {
    let mut found = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    schemas.extend(found);
    Ref::from_schema_name(T::name())
}

const fn http_method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Post => HttpMethod::Post,
        Method::Put => HttpMethod::Put,
        Method::Patch => HttpMethod::Patch,
        Method::Delete => HttpMethod::Delete,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn json() -> Value {
        serde_json::to_value(document()).unwrap()
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            found.insert(target.to_owned());
        }
        let members = value.as_object().into_iter().flat_map(|members| members.values());
        let items = value.as_array().into_iter().flatten();
        members.chain(items).for_each(|value| references(value, found));
    }

    #[test]
    fn the_document_lists_exactly_the_routes() {
        let document = json();
        assert_eq!(document["openapi"], "3.1.0");
        let listed: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (method.to_uppercase(), path.clone()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let registered: BTreeSet<(String, String)> = ROUTES
            .iter()
            .map(|route| (route.method.as_str().to_owned(), route.template.to_owned()))
            .collect();
        assert_eq!(listed, registered);
    }

    #[test]
    fn every_problem_is_described_and_nothing_else() {
        let document = json();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let described: BTreeSet<&str> = schemas
            .values()
            .filter_map(|schema| schema["allOf"][1]["properties"]["type"]["enum"][0].as_str())
            .collect();
        let uris: Vec<String> = ProblemKind::ALL.iter().map(|kind| kind.type_uri()).collect();
        assert_eq!(described, uris.iter().map(String::as_str).collect());
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
        assert!(queue.starts_with("DEVIATION") && queue.contains("of one client"), "{queue}");
        let messages = described("/apps/{appId}/groups/{groupId}/control-msgs", "get");
        assert!(messages.starts_with("DEVIATION") && messages.contains("nextEpochId"), "{messages}");
        assert_eq!(described("/apps/{appId}/groups/{groupId}", "get"), "");
    }

    #[test]
    fn every_reference_has_a_target() {
        let document = json();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.contains("#/components/schemas/ApplicationConfigurations"));
        for target in found {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
    }
}
