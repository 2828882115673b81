//! `mimi-gateway demo`: the draft's example, with real MLS clients and gateways in this process.
//!
//! - `story.rs` is the story at one gateway; `federated.rs` is the story between two domains, and `sites.rs` starts their
//!   gateways.
//! - `member.rs` is an MLS client with its requests to the gateway; `identity.rs` gives it a handle and a credential;
//!   `exchanges.rs` shows the requests and their answers.

mod exchanges;
mod federated;
mod identity;
mod member;
mod sites;
mod story;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actors::AppId;

pub use self::federated::play as play_federated;
use self::{
    exchanges::Exchanges,
    identity::{Identities, Organisation},
};
use super::{During, DuringLibrary, ToolError};
use crate::{
    client::GatewayClient,
    config::{ApplicationSettings, Config, DataDir, TokenAccess, TokenSettings},
    serve,
    token::Token,
};

/// A free port on the loopback interface.
const FREE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The identification of the demo's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// By basic credentials.
    Basic,
    /// By new certificates.
    X509,
}

/// What the demo tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Its steps.
    Steps,
    /// Each step after its requests and their answers, with long strings cut.
    Exchanges,
}

/// Starts a gateway in memory on a free loopback port, runs the story and stops it. Each step is reported to `tell` as a line
/// of text.
///
/// # Errors
/// [`ToolError`] names the step that failed, or the promise that was broken.
pub async fn play(
    credentials: Credentials,
    detail: Detail,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let exchanges = Exchanges::of(detail);
    let outcome = play_at_one(credentials, &exchanges, &mut exchanges.before(tell)).await;
    exchanges.tell_rest(tell);
    outcome
}

async fn play_at_one(
    credentials: Credentials,
    exchanges: &Exchanges,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let mut config = Config::embedded().listening_on(FREE_PORT).kept_in(DataDir::Memory);
    let app = AppId::random();
    let token = Token::generate().during_library("making a token")?;
    let tokens = vec![TokenSettings { sha256: token.hash(), access: TokenAccess::ReadWrite }];
    let (identities, application) = match credentials {
        Credentials::Basic => (Identities::Basic, ApplicationSettings::basic(app, tokens)),
        Credentials::X509 => {
            let organisation = Organisation::found()?;
            config.domains.insert(organisation.domain().clone());
            let application = organisation.application(app, tokens);
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
        Ok(api) => story::play(&exchanges.of_client(api), &identities, tell).await,
        Err(source) => Err(ToolError::Gateway { step: "making an HTTP client", source }),
    };
    running.stop().await;
    outcome
}

/// Fails if a promise is broken.
fn ensure(is_kept: bool, promise: impl FnOnce() -> String) -> Result<(), ToolError> {
    if is_kept { Ok(()) } else { Err(ToolError::Broken(promise())) }
}
