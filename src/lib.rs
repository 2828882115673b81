//! The edge of the gateway: HTTP, configuration, and starting and stopping. It knows no MLS rule.
//!
//! - [`serve::start`] runs a gateway in this process, from a [`config::Config`].
//! - [`client::GatewayClient`] asks one.
//! - [`api`] is the HTTP API as types; server and client are both made from it.
//! - `tools`, a feature that is on by default, has the demo and the load test.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
mod default_application;
mod federation;
mod http;
mod listener;
pub mod serve;
mod shares;
mod tls;
pub mod token;
#[cfg(feature = "tools")]
pub mod tools;

pub use default_application::DefaultApplication;
