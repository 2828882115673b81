//! `mimi-gateway demo`: the draft's example, played by real MLS clients against a gateway in this process.
//!
//! `member.rs` is one MLS client, `story.rs` is what they do and what must come of it. Beside `actors::mls` and
//! `loadtest`, this is the only place that runs MLS.

mod member;
mod story;

use std::net::{Ipv4Addr, SocketAddr};

use crate::{
    client::{ClientError, GatewayClient},
    config::{Config, DataDir},
    serve::{self, StartError},
};

/// Why the demo did not end as it must.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway answered what it must not.
    #[error("{step}: {source}")]
    Gateway {
        /// What was being done.
        step: &'static str,
        /// The answer.
        source: ClientError,
    },
    /// The MLS library refused.
    #[error("{step}: {reason}")]
    Mls {
        /// What was being done.
        step: &'static str,
        /// What the library said.
        reason: String,
    },
    /// A promise of the gateway was broken.
    #[error("{0}")]
    Broken(String),
}

/// Starts a gateway on a free loopback port, kept in memory, plays the story and stops it. Each step is told to `tell`
/// as a line of text.
///
/// # Errors
/// [`DemoError`] says which step went wrong, or which promise was broken.
pub async fn play(tell: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let config =
        Config::embedded().listening_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).kept_in(DataDir::Memory);
    let running = serve::start(config).await?;
    tell(&format!("A gateway listens at {} and keeps nothing on disk.", running.base_url()));
    let outcome = match running.default_application() {
        Some(application) => match &application.token {
            Some(token) => match GatewayClient::new(running.base_url(), application.id, token.clone()) {
                Ok(api) => story::play(&api, tell).await,
                Err(source) => Err(DemoError::Gateway { step: "making an HTTP client", source }),
            },
            None => Err(DemoError::Broken("a new application came without its token".to_owned())),
        },
        None => Err(DemoError::Broken("a gateway without a configuration has no application".to_owned())),
    };
    running.stop().await;
    outcome
}

/// An error together with what was being done.
trait During<T> {
    fn during(self, step: &'static str) -> Result<T, DemoError>;
}

impl<T> During<T> for Result<T, ClientError> {
    fn during(self, step: &'static str) -> Result<T, DemoError> {
        self.map_err(|source| DemoError::Gateway { step, source })
    }
}

/// As [`During`], for the many errors of the MLS library.
trait DuringMls<T> {
    fn during_mls(self, step: &'static str) -> Result<T, DemoError>;
}

impl<T, E: std::fmt::Display> DuringMls<T> for Result<T, E> {
    fn during_mls(self, step: &'static str) -> Result<T, DemoError> {
        self.map_err(|error| DemoError::Mls { step, reason: error.to_string() })
    }
}

/// Refuses to go on when a promise is broken.
fn ensure(is_kept: bool, promise: impl FnOnce() -> String) -> Result<(), DemoError> {
    if is_kept { Ok(()) } else { Err(DemoError::Broken(promise())) }
}
