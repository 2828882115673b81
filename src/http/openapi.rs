//! The OpenAPI 3.1 document, made from the route table and the types of the API.

mod examples;
mod finish;
mod problems;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use utoipa::{
    IntoParams as _, ToSchema,
    openapi::{
        ComponentsBuilder, Content, ContentBuilder, HttpMethod, Info, License, ObjectBuilder, OpenApi,
        OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema, Server,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{KnownFormat, SchemaFormat, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};

use self::{
    examples::{add_example, recorded},
    problems::{add_problems, common_problems, problem_schema, schema_name},
};
use super::{
    auth::{Authenticator, Tokens},
    route::Route,
};
use crate::api::{
    Access, Body, Endpoint, Method, Success, key_packages::RefusedKeyPackage, paths::is_member,
    problem::ProblemKind, text,
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
        /// A summary in one line.
        summary: &'static str,
        /// Its purpose and the meaning of its answer.
        text: &'static str,
        /// The media types of its answer.
        media_types: &'static [&'static str],
        /// Its other answers.
        problems: &'static [ProblemKind],
    },
}

/// The schemas that the operations refer to, by name.
pub(super) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// What the document of a listener says besides its operations.
pub(super) struct AboutListener {
    /// Its title.
    pub(super) title: &'static str,
    /// Its beginning.
    pub(super) introduction: &'static str,
    /// The token that requests need.
    pub(super) token: &'static str,
    /// Its sections, in order, each with what it is about.
    pub(super) sections: &'static [(&'static str, &'static str)],
}

/// The listener for application servers.
const INTERNAL: AboutListener = AboutListener {
    title: "MIMI gateway",
    introduction: INTRODUCTION,
    token: "A token of the application in the path, for reading or for reading and writing.",
    sections: SECTIONS,
};

/// The sections of the document, in order: the draft's, by title, and the gateway's own.
const SECTIONS: &[(&str, &str)] = &[
    ("Applications", "The public description of applications."),
    ("Identity Providers", "The keys with which the gateway itself proposes changes to groups."),
    ("Managing Identities", "Clients, their handles and their tags."),
    ("Managing Key Packages", "Key queues, and the key packages assigned from them."),
    ("Managing Groups without Metadata Protection", "Groups, proposals, commits and control messages."),
    ("Joining", "Welcomes, and group infos for external joiners."),
    ("Event streams", "What happens, told as it happens: server-sent events."),
    ("Federation", "Discovery by the gateways of other domains."),
    ("This gateway", "Health, this document, and explanations of problems. No token is needed."),
];

/// The document as JSON.
///
/// # Errors
/// None is known: every part of the document has a form in JSON.
pub(super) fn document() -> Result<Value, serde_json::Error> {
    let recorded = recorded()?;
    let mut document = document_of::<Tokens>(&INTERNAL)?;
    finish::each_operation(&mut document, |operation| add_example(&recorded, operation));
    Ok(document)
}

/// The document of a listener, without examples.
///
/// # Errors
/// None is known: every part of the document has a form in JSON.
pub(super) fn document_of<A: Authenticator>(about: &AboutListener) -> Result<Value, serde_json::Error> {
    let mut document = serde_json::to_value(described::<A>(about))?;
    finish::finish(&mut document);
    Ok(document)
}

/// The document as far as it can be said in the types of utoipa.
fn described<A: Authenticator>(about: &AboutListener) -> OpenApi {
    let mut schemas = Schemas::new();
    collect::<RefusedKeyPackage>(&mut schemas);
    schemas.extend(ProblemKind::ALL.iter().map(|kind| (schema_name(*kind), problem_schema(*kind))));
    let paths = A::routes().iter().fold(PathsBuilder::new(), |paths, route| {
        let mut operation = match &route.description {
            Description::Endpoint(describe) => describe(&mut schemas),
            Description::Page { name, summary, text, media_types, problems } => {
                page(name, summary, text, media_types, problems)
            }
        };
        add_common(&mut operation, route);
        paths.path(route.template, PathItem::new(http_method(route.method), operation))
    });
    let mut info = Info::new(about.title, env!("CARGO_PKG_VERSION"));
    info.description = Some(about.introduction.to_owned());
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    info.license = Some(license);
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about.token)).build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(TOKEN, SecurityScheme::Http(scheme))
        .build();
    let sections = about.sections.iter();
    let tags = sections.map(|(name, about)| TagBuilder::new().name(*name).description(Some(*about)).build());
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new("/")]))
        .tags(Some(tags.collect::<Vec<_>>()))
        .paths(paths)
        .components(Some(components))
        .build()
}

/// The beginning of the document.
const INTRODUCTION: &str = "\
The internal interface of a MIMI gateway: the server side of MLS (RFC 9420) for application servers.

**To try it out:** start a gateway; it prints the id of an application and a token. Press *Authorize* and paste the token, open an \
operation, press *Try it out*, and replace the example's `appId` with the id. The examples are one story, recorded from real MLS \
clients, and succeed in its order on a fresh gateway: register the client alice, create a key queue, upload key packages, create a \
group, upload a proposal and then a commit, read alice's welcome. Take `clientId` and `keyQueueId` from the answers of your gateway.

MLS messages are Base64 of the TLS-serialised `MLSMessage` (RFC 9420 §6). Every write is safe to repeat. Every error is a problem \
document (RFC 9457); each type is explained at its `type`, [/problems/{slug}](/problems). A `HEAD` is answered wherever `GET` is. \
Web pages of other origins get no CORS header fields: a token belongs to an application server, not into a browser.";

/// The operation of an endpoint.
pub(super) fn describe<E: Endpoint>(schemas: &mut Schemas) -> Operation {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(E::NAME))
        .summary(Some(E::SUMMARY))
        .description(Some(description_of::<E>()))
        .tag(E::SECTION)
        .parameters(Some(E::Query::into_params(|| Some(ParameterIn::Query))))
        .parameters(Some(header_parameters::<E>()));
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
            Success::Accepted => "Accepted",
            Success::NoContent => "Done",
        };
        let response = ResponseBuilder::new().description(description);
        let response = match success {
            Success::NoContent => response,
            Success::Ok | Success::Created | Success::Accepted => {
                response.content(E::MEDIA_TYPE, content(collect::<E::Response>(schemas)))
            }
        };
        operation = operation.response(success.status().to_string(), response.build());
    }
    if E::HAS_ENTITY_TAG {
        let response = ResponseBuilder::new().description("Unchanged: `If-None-Match` names the present tag");
        operation = operation.response("304", response.build());
    }
    let mut operation = operation.build();
    add_problems(&mut operation, E::PROBLEMS.iter().copied().chain(common_problems::<E>()));
    operation
}

/// The description of an operation, with its departure from the draft.
fn description_of<E: Endpoint>() -> String {
    let deviation = E::DEVIATION.map(|deviation| format!("\n\nDEVIATION from the draft: {deviation}"));
    let stream = if E::RESUMES { STREAMS } else { "" };
    [E::DESCRIPTION, stream, &deviation.unwrap_or_default()].concat()
}

/// The rules of event streams.
const STREAMS: &str = " Without an id, a stream begins now: open it, then read the state. A comment line comes at least every 15 s. \
A reader that falls behind is disconnected, and resumes.

Each event is one object of the schema, whose `data` is JSON. `welcome` and `key-packages` are told in the application's stream \
alone. After `reset`, events are missing: read the state anew.";

/// The header fields that a request may carry.
fn header_parameters<E: Endpoint>() -> Vec<Parameter> {
    let header = |name: &str, description: &str, schema: ObjectBuilder| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(schema.schema_type(Type::String)))
            .build()
    };
    let mut parameters = Vec::new();
    if E::HAS_ENTITY_TAG {
        parameters.push(header(
            "If-None-Match",
            "The `ETag` of an answer that the caller has. If the answer would be the same, it is 304 without a body.",
            ObjectBuilder::new(),
        ));
    }
    if E::RESUMES {
        parameters.push(header(
            "Last-Event-ID",
            "The `id` of the last event that was read: the stream continues after it. Takes precedence over `after`.",
            ObjectBuilder::new().pattern(Some(text::EVENT_ID_PATTERN)),
        ));
    }
    parameters
}

fn page(name: &str, summary: &str, text: &str, media_types: &[&str], problems: &[ProblemKind]) -> Operation {
    let response = ResponseBuilder::new().description("The answer");
    let response = media_types.iter().fold(response, |response, media_type| {
        let schema_type = if *media_type == "application/json" { Type::Object } else { Type::String };
        response.content(*media_type, content(ObjectBuilder::new().schema_type(schema_type)))
    });
    let mut operation = OperationBuilder::new()
        .operation_id(Some(name))
        .summary(Some(summary))
        .description(Some(text))
        .tag("This gateway")
        .response("200", response.build())
        .build();
    add_problems(&mut operation, problems.iter().copied().chain([ProblemKind::HeadersTooLarge]));
    operation
}

/// Adds the properties of the route itself: the members of its path, and its need of a token.
fn add_common<A: Authenticator>(operation: &mut Operation, route: &Route<A>) {
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
        "tokenId" => (
            string.pattern(Some("^[0-9a-f]{16}$")).into(),
            "The id of the token: the first 16 hexadecimal digits of its SHA-256.",
        ),
        "slug" => (string.into(), "The last part of a problem's `type`."),
        _ => (string.into(), "A file of the page."),
    };
    // Those of the API are recorded.
    let example = match name {
        "slug" => Some("stale-epoch".into()),
        "file" => Some("swagger-ui.css".into()),
        _ => None,
    };
    ParameterBuilder::new()
        .name(name)
        .example(example)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .build()
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
