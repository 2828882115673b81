//! The tokens of applications: those of the configuration, and those that operators make and revoke while the gateway runs.

use std::sync::Arc;

use actors::{AppId, Clock, StorageError, Store, Timestamp};
use serde::{Deserialize, Serialize};
use snapshots::{AppendError, Batch};
use tokio::sync::Mutex;

use super::{auth::Tokens, callers::ListenerShares, problem::Problem};
use crate::{
    api::{operator::ListedToken, problem::ProblemKind},
    config::{ApplicationSettings, TokenAccess, TokenSettings},
    start_error::StartError,
    token::{Token, TokenHash},
};

/// The name of the setting in the store.
const SETTING: &str = "tokens";
/// The most tokens of one application that operators have made: every request compares its token with all.
const MADE_MAX: usize = 100;

/// The tokens of all applications.
pub(crate) struct TokenBook {
    store: Store,
    /// The tokens by which callers are known.
    known: Tokens,
    shares: ListenerShares,
    /// Those of the configuration and of the application that the gateway made, unless they are revoked.
    given: Vec<KeptToken>,
    kept: Mutex<KeptTokens>,
}

/// The part that the store keeps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct KeptTokens {
    /// Made by operators.
    made: Vec<KeptToken>,
    /// Revoked ones among the others.
    revoked: Vec<TokenHash>,
}

/// A token of an application.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct KeptToken {
    app: AppId,
    sha256: TokenHash,
    access: TokenAccess,
    /// When an operator made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_at: Option<Timestamp>,
}

impl KeptToken {
    fn listed(&self) -> ListedToken {
        ListedToken { token_id: self.sha256.id(), access: self.access, created_at: self.made_at }
    }
}

impl KeptTokens {
    fn is_revoked(&self, hash: &TokenHash) -> bool {
        self.revoked.iter().any(|revoked| bool::from(revoked.matches(hash)))
    }
}

impl TokenBook {
    /// The tokens of these applications; each caller gets a share of `shares`.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) fn open(
        store: &Store,
        applications: &[ApplicationSettings],
        shares: ListenerShares,
    ) -> Result<Arc<Self>, StartError> {
        let kept = match store.view().setting(SETTING)? {
            Some(kept) => serde_json::from_slice(&kept)
                .map_err(|error| StartError::Settings(format!("{SETTING}: {error}")))?,
            None => KeptTokens::default(),
        };
        let given = applications.iter().flat_map(|application| {
            let app = application.id;
            let token = move |token: &TokenSettings| KeptToken {
                app,
                sha256: token.sha256,
                access: token.access,
                made_at: None,
            };
            application.tokens.iter().map(token)
        });
        let (revoked, given): (Vec<_>, Vec<_>) = given.partition(|token| kept.is_revoked(&token.sha256));
        for token in revoked {
            tracing::warn!(application = %token.app, token = token.sha256.id(), "a token of the application was revoked by an operator");
        }
        let book = Self {
            store: store.clone(),
            known: Tokens::default(),
            shares,
            given,
            kept: Mutex::new(kept.clone()),
        };
        let is_served =
            |token: &&KeptToken| applications.iter().any(|application| application.id == token.app);
        for token in book.accepted(&kept).filter(is_served) {
            book.known.add(token.sha256, token.app, token.access, book.shares.caller());
        }
        Ok(Arc::new(book))
    }

    /// The tokens by which callers are known.
    pub(crate) fn known(&self) -> Tokens {
        self.known.clone()
    }

    /// The shares of the callers.
    pub(crate) fn shares(&self) -> ListenerShares {
        self.shares.clone()
    }

    /// The tokens of an application that are accepted.
    pub(super) async fn list(&self, app: AppId) -> Vec<ListedToken> {
        let kept = self.kept.lock().await;
        self.accepted(&kept).filter(|token| token.app == app).map(KeptToken::listed).collect()
    }

    /// The tokens that are accepted, each once.
    fn accepted<'a>(&'a self, kept: &'a KeptTokens) -> impl Iterator<Item = &'a KeptToken> {
        let given = self.given.iter().filter(|token| !kept.is_revoked(&token.sha256));
        given.chain(kept.made.iter().filter(|token| !self.is_given(&token.sha256)))
    }

    /// Whether the configuration names the token, or it is that of the application that the gateway made.
    fn is_given(&self, hash: &TokenHash) -> bool {
        self.given.iter().any(|token| bool::from(token.sha256.matches(hash)))
    }

    /// Makes a token; it is accepted once this returns.
    ///
    /// # Errors
    /// The problem, if there are too many or the gateway cannot write; then nothing is made.
    pub(super) async fn make(&self, app: AppId, access: TokenAccess) -> Result<Token, Problem> {
        let token = Token::generate().map_err(|error| {
            tracing::error!(%error, "no random numbers for a token");
            Problem::internal()
        })?;
        let mut kept = self.kept.lock().await;
        if kept.made.iter().filter(|made| made.app == app).count() >= MADE_MAX {
            return Err(Problem::new(
                ProblemKind::LimitReached,
                format!("operators have made {MADE_MAX} tokens of this application, the limit; revoke some"),
            ));
        }
        let mut next = kept.clone();
        let made_at = Some(Clock::system().now());
        next.made.push(KeptToken { app, sha256: token.hash(), access, made_at });
        self.write(&next).await?;
        *kept = next;
        self.known.add(token.hash(), app, access, self.shares.caller());
        Ok(token)
    }

    /// Revokes the token of an application with this id; it is not accepted once this returns.
    ///
    /// # Errors
    /// The problem, if there is no such token or the gateway cannot write; then nothing is revoked.
    pub(super) async fn revoke(&self, app: AppId, id: &str) -> Result<(), Problem> {
        let mut kept = self.kept.lock().await;
        let mut next = kept.clone();
        let found = self.accepted(&kept).find(|token| token.app == app && token.sha256.id() == id);
        let hash = found.map(|token| token.sha256).ok_or_else(|| {
            Problem::new(ProblemKind::UnknownToken, "no token of this application has this tokenId")
        })?;
        next.made.retain(|token| !bool::from(token.sha256.matches(&hash)));
        if self.is_given(&hash) {
            next.revoked.push(hash);
        }
        self.write(&next).await?;
        *kept = next;
        self.known.remove(&hash);
        Ok(())
    }

    async fn write(&self, kept: &KeptTokens) -> Result<(), Problem> {
        let bytes = serde_json::to_vec(kept).map_err(|error| {
            tracing::error!(%error, "the tokens cannot be encoded");
            Problem::internal()
        })?;
        let mut batch = Batch::new();
        batch.put_setting(SETTING, bytes);
        match self.store.append(batch).await {
            Ok(_) => Ok(()),
            Err(AppendError::Stalled { is_queued }) => Err(StorageError::Stalled { is_queued }.into()),
            Err(error) => {
                tracing::error!(%error, "the tokens cannot be written");
                Err(StorageError::Unavailable.into())
            }
        }
    }
}
