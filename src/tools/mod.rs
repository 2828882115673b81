//! The demo and the load test, behind the feature `tools`, which is on by default.
//!
//! - [`demo`] plays the draft's example with real MLS clients.
//! - [`loadtest`] makes many real MLS clients commit concurrently and measures the result.
//! - [`pki`] issues certificates, for the demo and for tests.
//! - `mls_client.rs` is the MLS client of both, `mls_messages.rs` its messages as the API carries them; `error.rs` has the
//!   errors of tools.
//!
//! Besides `actors::mls`, only this folder runs MLS. The server uses nothing from it.

pub mod demo;
mod error;
pub mod loadtest;
mod mls_client;
mod mls_messages;
pub mod pki;

use self::error::{During, DuringLibrary};

pub use self::error::ToolError;
