//! HTTP on both listeners: decode, ask the gateway, encode. It knows no MLS rule.
//!
//! | file | |
//! |---|---|
//! | `route.rs` | the one table of routes |
//! | `edge.rs` | how every request goes: route, caller, permission, body, answer |
//! | `auth.rs`, `body.rs`, `json.rs`, `query.rs`, `cursor.rs` | one step of it each |
//! | `callers.rs`, `unread.rs` | what each caller may hold, and an answer until it is read |
//! | `problem.rs` | every error as a problem document |
//! | `applications.rs`, `clients.rs`, `key_packages.rs`, `groups.rs`, `joining.rs` | the endpoints of one resource each |
//! | `peer_auth.rs`, `federation.rs`, `foreign.rs` | who asks on the federation listener, what it answers, and what is passed to the gateways of other domains |
//! | `control_messages.rs` | an answer that is written to JSON by hand |
//! | `openapi.rs`, `pages.rs` | what describes the API, and the probes |

mod applications;
pub(crate) mod auth;
mod body;
pub(crate) mod callers;
mod clients;
mod control_messages;
pub(crate) mod cursor;
pub(crate) mod edge;
mod external_senders;
mod federation;
mod foreign;
mod groups;
mod joining;
mod json;
mod key_packages;
mod openapi;
mod pages;
pub(crate) mod peer_auth;
mod problem;
mod query;
mod route;
mod unread;
