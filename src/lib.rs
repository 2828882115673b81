//! The edge of the gateway: HTTP, configuration, and starting and stopping. It knows no MLS rule.
//!
//! - [`serve::start`] runs a gateway in this process, from a [`config::Config`].
//! - [`client::GatewayClient`] asks one.
//! - [`demo`] plays the draft's example with real MLS clients.
//! - [`loadtest`] lets many real MLS clients commit at once and measures what comes of it.
//! - [`api`] is the HTTP API as types; both are made from it.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
mod default_application;
pub mod demo;
mod federation;
mod http;
mod listener;
pub mod loadtest;
mod mls_messages;
pub mod serve;
mod shares;
mod tls;
pub mod token;

pub use default_application::DefaultApplication;
