//! The server of the MIMI gateway: HTTP, configuration, starting and stopping. It knows no rule of MLS.
//!
//! - [`serve::start`] runs a gateway in this process, from a [`config::Config`].
//! - [`client::GatewayClient`] sends requests to one.
//! - [`api`] is the HTTP API as types; server and client are both made from it.
//! - `tools`, a feature that is on by default, has the demo and the load test.
//!
//! A gateway in memory, and a client that registers with it:
//!
//! ```
//! use actors::{AppId, ClientHandle};
//! use mimi_gateway::{
//!     api::{clients::NewClientBody, text::HandleText},
//!     client::GatewayClient,
//!     config::{ApplicationSettings, Config, DataDir, TokenAccess, TokenSettings},
//!     serve,
//!     token::Token,
//! };
//!
//! # actix_web::rt::System::new().block_on(async {
//! let (app, token) = (AppId::random(), Token::generate()?);
//! let settings = TokenSettings { sha256: token.hash(), access: TokenAccess::ReadWrite };
//! let config = Config::embedded()
//!     .kept_in(DataDir::Memory)
//!     .listening_on(([127, 0, 0, 1], 0).into())
//!     .with_application(ApplicationSettings::basic(app, vec![settings]));
//! let running = serve::start(config).await?;
//!
//! let gateway = GatewayClient::new(running.base_url(), app, token)?;
//! let alice = HandleText(ClientHandle::new("alice")?);
//! let registered = gateway
//!     .register_client(&NewClientBody { client_handle: alice.clone(), tags: Vec::new(), domain: None })
//!     .await?;
//! assert_eq!(gateway.client(registered.client_id).await?.client_handle, alice);
//!
//! running.stop().await;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

pub mod api;
mod backups;
pub mod cli;
pub mod client;
pub mod config;
mod connections;
mod default_application;
mod federation;
mod http;
mod listener;
mod logging;
mod metrics;
pub mod notify;
mod open_files;
mod rates;
pub mod serve;
mod shares;
mod start_error;
mod tls;
pub mod token;
#[cfg(feature = "tools")]
pub mod tools;
mod traces;
mod utc;

pub use default_application::DefaultApplication;
