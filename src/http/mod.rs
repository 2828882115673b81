//! HTTP on all listeners: decode, ask the gateway, encode. It knows no rule of MLS.
//!
//! | file | |
//! |---|---|
//! | `route.rs` | the table of routes |
//! | `edge.rs` | the pipeline of every request: route, caller, permission, body, answer |
//! | `auth.rs`, `body.rs`, `json.rs`, `query.rs`, `cursor.rs`, `request_id.rs` | one step of it each |
//! | `access_log.rs`, `counts.rs` | a line of the log for each request; counts and times of requests |
//! | `callers.rs`, `rates.rs`, `unread.rs` | the shares and the rates of each caller, and answers until they are read |
//! | `problem.rs` | every error as a problem document |
//! | `applications.rs`, `clients.rs`, `external_senders.rs`, `key_packages.rs`, `groups.rs`, `joining.rs` | the endpoints of one resource each |
//! | `peer_auth.rs`, `federation.rs`, `forward.rs` | the federation listener's authentication and endpoints, and forwarding to the gateways of other domains |
//! | `operator.rs`, `operations.rs`, `token_book.rs` | the operators' listener: its tokens and pages; its endpoints; the tokens of applications |
//! | `entity_tag.rs`, `compression.rs` | what a caller has already; answers that are compressed |
//! | `events.rs`, `event_body.rs` | event streams, and their bodies |
//! | `activity.rs`, `console.rs` | the present activity as a stream, and the page that shows it |
//! | `control_messages.rs` | an answer that is written to JSON by hand |
//! | `openapi.rs`, `pages.rs` | the description of the API, and the probes |

mod access_log;
pub(crate) mod activity;
mod applications;
mod audit;
pub(crate) mod auth;
mod body;
pub(crate) mod callers;
mod clients;
mod compression;
mod console;
mod control_messages;
pub(crate) mod counts;
pub(crate) mod cursor;
pub(crate) mod edge;
mod entity_tag;
mod event_body;
mod events;
mod external_senders;
mod federation;
mod forward;
mod groups;
mod joining;
mod json;
mod key_packages;
mod openapi;
mod operations;
pub(crate) mod operator;
mod pages;
pub(crate) mod peer_auth;
mod problem;
mod query;
mod rates;
mod reports;
mod request_id;
mod route;
pub(crate) mod token_book;
mod unread;
