//! The tokens of applications: those of the configuration, and those that operators make and revoke while the gateway runs.

use std::{collections::BTreeMap, sync::Arc};

use actors::{AppId, Clock, StorageError, Store, Timestamp};
use serde::{Deserialize, Serialize};
use snapshots::{AppendError, Batch};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    auth::Tokens,
    callers::{CallerShares, ListenerShares},
    problem::Problem,
    rates::CallerRates,
};
use crate::{
    api::{operator::ListedToken, problem::ProblemKind},
    config::{ApplicationSettings, TokenAccess, TokenSettings},
    rates::RequestRate,
    start_error::StartError,
    token::{Token, TokenHash},
};

/// The name of the setting in the store.
const SETTING: &str = "tokens";
/// The most tokens of one application that operators have made: every request compares its token with all.
const MADE_MAX: usize = 100;

/// The most revoked tokens that are remembered, the newest.
const REVOKED_MAX: usize = 10_000;

/// The tokens of all applications.
pub(crate) struct TokenBook {
    store: Store,
    /// The tokens by which callers are known.
    known: Tokens,
    shares: ListenerShares,
    /// The applications that the gateway serves, each with the rate of its tokens, if there is one.
    served: BTreeMap<AppId, Option<RequestRate>>,
    tokens: Mutex<BookedTokens>,
}

/// The tokens, by their origin.
#[derive(Clone, Debug, Default)]
struct BookedTokens {
    /// Those of the configuration and of the application that the gateway made, unless they are revoked.
    given: Vec<KeptToken>,
    kept: KeptTokens,
}

/// The part that the store keeps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct KeptTokens {
    /// Made by operators.
    made: Vec<KeptToken>,
    /// Revoked ones, which no configuration brings back.
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
    /// Whether it is the same token of the same application, perhaps with another access.
    fn is_same(&self, other: &Self) -> bool {
        self.app == other.app && bool::from(self.sha256.matches(&other.sha256))
    }

    fn is_among(&self, others: &[&Self]) -> bool {
        others.iter().any(|other| self.is_same(other))
    }

    fn listed(&self) -> ListedToken {
        ListedToken { token_id: self.sha256.id(), access: self.access, created_at: self.made_at }
    }
}

impl KeptTokens {
    fn is_revoked(&self, hash: &TokenHash) -> bool {
        self.revoked.iter().any(|revoked| bool::from(revoked.matches(hash)))
    }
}

/// The tokens of all applications, held.
pub(crate) struct LockedTokens<'a> {
    book: &'a TokenBook,
    tokens: MutexGuard<'a, BookedTokens>,
}

impl LockedTokens<'_> {
    /// Whether an operator made the token.
    pub(crate) fn is_made(&self, hash: &TokenHash) -> bool {
        self.tokens.kept.made.iter().any(|made| bool::from(made.sha256.matches(hash)))
    }

    /// Accepts the tokens of a changed configuration from now on, with those that operators made, and no others. One that was
    /// accepted before keeps its share and its event streams.
    pub(crate) fn replace_given(mut self, applications: &[ApplicationSettings]) {
        let kept = self.tokens.kept.clone();
        let next = BookedTokens { given: given(applications, &kept), kept };
        self.book.change(&self.tokens, &next);
        *self.tokens = next;
    }
}

impl BookedTokens {
    /// The tokens that are accepted, each once.
    fn accepted(&self) -> impl Iterator<Item = &KeptToken> {
        let given = self.given.iter().filter(|token| !self.kept.is_revoked(&token.sha256));
        given.chain(self.kept.made.iter().filter(|token| !self.is_given(&token.sha256)))
    }

    /// Whether the configuration names the token, or it is that of the application that the gateway made.
    fn is_given(&self, hash: &TokenHash) -> bool {
        self.given.iter().any(|token| bool::from(token.sha256.matches(hash)))
    }
}

/// The tokens of applications that the configuration names, unless they are revoked.
fn given(applications: &[ApplicationSettings], kept: &KeptTokens) -> Vec<KeptToken> {
    let of = |application: &ApplicationSettings| {
        let app = application.id;
        let token = |token: &TokenSettings| KeptToken {
            app,
            sha256: token.sha256,
            access: token.access,
            made_at: None,
        };
        application.tokens.iter().map(token).collect::<Vec<_>>()
    };
    let (revoked, given): (Vec<_>, Vec<_>) =
        applications.iter().flat_map(of).partition(|token| kept.is_revoked(&token.sha256));
    for token in revoked {
        tracing::warn!(application = %token.app, token = token.sha256.id(), "a token of the application was revoked by an operator");
    }
    given
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
        let tokens = BookedTokens { given: given(applications, &kept), kept };
        let served =
            applications.iter().map(|application| (application.id, application.rates.rate())).collect();
        let book =
            Self { store: store.clone(), known: Tokens::default(), shares, served, tokens: Mutex::default() };
        book.change(&BookedTokens::default(), &tokens);
        Ok(Arc::new(Self { tokens: Mutex::new(tokens), ..book }))
    }

    /// The tokens, which nobody else changes meanwhile.
    pub(crate) async fn lock(&self) -> LockedTokens<'_> {
        LockedTokens { book: self, tokens: self.tokens.lock().await }
    }

    /// Makes the known tokens those of `next`.
    fn change(&self, before: &BookedTokens, next: &BookedTokens) {
        let (before, next): (Vec<_>, Vec<_>) = (before.accepted().collect(), next.accepted().collect());
        // Those that stay are accepted throughout.
        for token in before.iter().filter(|token| !token.is_among(&next)) {
            self.known.remove(&token.sha256);
        }
        for token in next.iter().filter(|token| self.served.contains_key(&token.app)) {
            if !token.is_among(&before) {
                self.known.add(token.sha256, token.app, token.access, self.caller(token.app));
            } else {
                self.known.change_access(&token.sha256, token.access);
            }
        }
    }

    /// The tokens by which callers are known.
    pub(crate) fn known(&self) -> Tokens {
        self.known.clone()
    }

    /// The shares of one more token of an application.
    fn caller(&self, app: AppId) -> CallerShares {
        self.shares.caller_at(CallerRates::of_token(self.served.get(&app).copied().flatten()))
    }

    /// The shares of the callers.
    pub(crate) fn shares(&self) -> ListenerShares {
        self.shares.clone()
    }

    /// The tokens of an application that are accepted.
    pub(super) async fn list(&self, app: AppId) -> Vec<ListedToken> {
        let tokens = self.tokens.lock().await;
        tokens.accepted().filter(|token| token.app == app).map(KeptToken::listed).collect()
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
        let mut tokens = self.tokens.lock().await;
        let kept = &mut tokens.kept;
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
        self.known.add(token.hash(), app, access, self.caller(app));
        Ok(token)
    }

    /// Revokes the token of an application with this id; it is not accepted once this returns.
    ///
    /// # Errors
    /// The problem, if there is no such token or the gateway cannot write; then nothing is revoked.
    pub(super) async fn revoke(&self, app: AppId, id: &str) -> Result<(), Problem> {
        let mut tokens = self.tokens.lock().await;
        let mut next = tokens.kept.clone();
        let found = tokens.accepted().find(|token| token.app == app && token.sha256.id() == id);
        let hash = found.map(|token| token.sha256).ok_or_else(|| {
            Problem::new(ProblemKind::UnknownToken, "no token of this application has this tokenId")
        })?;
        next.made.retain(|token| !bool::from(token.sha256.matches(&hash)));
        // One that an operator made may be named by a later configuration.
        next.revoked.push(hash);
        if next.revoked.len() > REVOKED_MAX {
            next.revoked.remove(0);
        }
        self.write(&next).await?;
        tokens.kept = next;
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
