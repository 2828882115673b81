//! The HTTP contract, over real sockets: each endpoint, and each problem that needs no member of a group.

mod access;
mod activity;
mod bodies;
mod clients;
mod conditional;
mod examples;
mod groups;
mod key_packages;
mod limits;
mod logging;
pub(crate) mod metrics;
mod operated_clients;
mod operated_groups;
mod operator;
mod operator_command;
mod pages;
mod quotas;
mod rates;
mod reload;
mod restart;
mod routing;
mod starting;
mod stopping;
mod tls;
mod typed_client;
mod x509;
