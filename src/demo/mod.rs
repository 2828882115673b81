//! `mimi-gateway demo`: the draft's example, played by real MLS clients against gateways in this process.
//!
//! `member.rs` is one MLS client, `identity.rs` who it is, with certificates from `pki.rs` if the demo is played with them, and
//! `story.rs` is what they do at one gateway and what must come of it; `federated.rs` is the same between two domains, whose
//! gateways `sites.rs` starts. Beside `actors::mls` and
//! `loadtest`, this is the only place that runs MLS.

mod federated;
mod identity;
mod member;
pub mod pki;
mod sites;
mod story;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use actors::AppId;

pub use self::federated::play as play_federated;
use self::identity::{Identities, Organisation};
use crate::{
    api::applications::IdentityConfiguration,
    client::{ClientError, GatewayClient},
    config::{ApplicationSettings, Config, DataDir, Pem, TokenAccess, TokenSettings, X509Settings},
    mls_messages::MessageError,
    serve::{self, StartError},
    token::Token,
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
    /// A library, for MLS or for certificates, refused.
    #[error("{step}: {reason}")]
    Mls {
        /// What was being done.
        step: &'static str,
        /// What the library said.
        reason: String,
    },
    /// The operating system gave no directory, file or port.
    #[error("{step}: {source}")]
    System {
        /// What was being done.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A promise of the gateway was broken.
    #[error("{0}")]
    Broken(String),
}

/// A free port on the loopback interface.
const FREE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How the clients of the demo are identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// By what they say.
    Basic,
    /// By certificates that are made on the spot.
    X509,
}

/// Starts a gateway on a free loopback port, kept in memory, plays the story and stops it. Each step is told to `tell`
/// as a line of text.
///
/// # Errors
/// [`DemoError`] says which step went wrong, or which promise was broken.
pub async fn play(credentials: Credentials, tell: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let mut config = Config::embedded().listening_on(FREE_PORT).kept_in(DataDir::Memory);
    let app = AppId::random();
    let token = Token::generate().during_mls("making a token")?;
    let tokens = vec![TokenSettings { sha256: token.hash(), access: TokenAccess::ReadWrite }];
    let (identities, application) = match credentials {
        Credentials::Basic => (Identities::Basic, ApplicationSettings::basic(app, tokens)),
        Credentials::X509 => {
            let organisation = Organisation::found()?;
            config.domains.insert(organisation.domain().clone());
            let policy = X509Settings::trusting(Pem::new(organisation.roots()));
            let application = ApplicationSettings::x509(app, tokens, IdentityConfiguration::x509(), policy);
            (Identities::X509(Box::new(organisation)), application)
        }
    };
    let running = serve::start(config.with_application(application)).await?;
    tell(&format!("A gateway listens at {} and keeps nothing on disk.", running.base_url()));
    if let Some(domain) = identities.domain() {
        tell(&format!(
            "It trusts a root that was made just now. The organisation {domain} below it certifies accounts, and accounts \
             their devices."
        ));
    }
    let outcome = match GatewayClient::new(running.base_url(), app, token) {
        Ok(api) => story::play(&api, &identities, tell).await,
        Err(source) => Err(DemoError::Gateway { step: "making an HTTP client", source }),
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

impl<T> During<T> for io::Result<T> {
    fn during(self, step: &'static str) -> Result<T, DemoError> {
        self.map_err(|source| DemoError::System { step, source })
    }
}

/// As [`During`], for the many errors of the libraries for MLS and for certificates.
trait DuringMls<T> {
    fn during_mls(self, step: &'static str) -> Result<T, DemoError>;
}

impl<T, E: std::fmt::Display> DuringMls<T> for Result<T, E> {
    fn during_mls(self, step: &'static str) -> Result<T, DemoError> {
        self.map_err(|error| DemoError::Mls { step, reason: error.to_string() })
    }
}

impl From<MessageError> for DemoError {
    fn from(MessageError { step, reason }: MessageError) -> Self {
        Self::Mls { step, reason }
    }
}

/// Refuses to go on when a promise is broken.
fn ensure(is_kept: bool, promise: impl FnOnce() -> String) -> Result<(), DemoError> {
    if is_kept { Ok(()) } else { Err(DemoError::Broken(promise())) }
}
