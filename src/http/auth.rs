//! Authentication on the internal listener: bearer tokens (RFC 6750), each of one application.

use std::sync::{Arc, PoisonError, RwLock};

use actix_http::{HttpMessage as _, Request};
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actors::AppId;

use super::{
    callers::CallerShares,
    problem::Problem,
    route::{ROUTES, Route},
};
use crate::{
    api::{Access, percent, problem::ProblemKind},
    config::TokenAccess,
    token::{Token, TokenHash},
};

/// Authentication and permissions on a listener.
pub(crate) trait Authenticator: Sized + 'static {
    /// The name of the listener in the log.
    const LISTENER: &'static str;

    /// The caller, as handlers see it.
    type Caller: 'static;

    /// The routes of the listener.
    fn routes() -> &'static [Route<Self>];

    /// Authenticates the caller of a route, whose members are still percent-encoded; returns the caller and its shares, if it
    /// has its own.
    ///
    /// # Errors
    /// The problem of a request that is not allowed.
    fn admit(
        &self,
        request: &Request,
        route: &Route<Self>,
        members: &[&str],
    ) -> Result<Admitted<Self::Caller>, Problem>;

    /// Adds headers to the answer to a caller that was admitted to a route with these members.
    fn complete(&self, _members: &[&str], _headers: &mut HeaderMap) {}
}

/// An authenticated caller, and its shares.
pub(crate) type Admitted<C> = (C, Option<Arc<CallerShares>>);

impl Authenticator for Tokens {
    const LISTENER: &'static str = "internal";

    /// An authenticated caller is always the application in the path.
    type Caller = ();

    fn routes() -> &'static [Route<Self>] {
        ROUTES
    }

    fn admit(
        &self,
        request: &Request,
        route: &Route<Self>,
        members: &[&str],
    ) -> Result<Admitted<()>, Problem> {
        match route.access {
            Access::Public => Ok(((), None)),
            access @ (Access::Read | Access::ReadWrite) => {
                let known = self.authenticate(request.headers())?;
                // Every path that needs a token begins with its application.
                known.caller.permit(members.first().copied(), access)?;
                Ok(((), Some(Arc::clone(&known.shares))))
            }
        }
    }
}

/// The tokens of applications that this gateway knows. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Arc<RwLock<Vec<Arc<KnownToken>>>>);

#[derive(Debug)]
pub(crate) struct KnownToken {
    hash: TokenHash,
    caller: Caller,
    shares: Arc<CallerShares>,
}

/// An application that has shown one of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) app: AppId,
    access: TokenAccess,
}

impl Tokens {
    /// Adds a token, with its shares.
    pub(crate) fn add(&self, hash: TokenHash, app: AppId, access: TokenAccess, shares: CallerShares) {
        let known = KnownToken { hash, caller: Caller { app, access }, shares: Arc::new(shares) };
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(known));
    }

    /// Changes the access of a token, which keeps its shares and its event streams.
    pub(super) fn change_access(&self, hash: &TokenHash, access: TokenAccess) {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for known in tokens.iter_mut().filter(|known| bool::from(known.hash.matches(hash))) {
            let caller = Caller { access, ..known.caller };
            *known = Arc::new(KnownToken { hash: known.hash, caller, shares: Arc::clone(&known.shares) });
        }
    }

    /// Removes a token, and ends its event streams.
    pub(super) fn remove(&self, hash: &TokenHash) {
        let is_it = |known: &Arc<KnownToken>| bool::from(known.hash.matches(hash));
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.iter().filter(|known| is_it(known)).for_each(|known| known.shares.revoke());
        tokens.retain(|known| !is_it(known));
    }

    /// Whether a token with this hash is known.
    pub(crate) fn is_known(&self, hash: &TokenHash) -> bool {
        self.find(hash).is_some()
    }

    /// The caller that sent these headers. It takes the same time for every token of the same length: the hash of the token is
    /// compared with all known ones.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<KnownToken>, Problem> {
        let known = self.find(&presented(headers)?);
        known.ok_or_else(|| Problem::not_authenticated("this gateway does not know the token"))
    }

    fn find(&self, hash: &TokenHash) -> Option<Arc<KnownToken>> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for known in tokens.iter() {
            if bool::from(known.hash.matches(hash)) {
                found = Some(known);
            }
        }
        found.map(Arc::clone)
    }
}

impl Caller {
    /// Checks that the caller may make a request to this application, given by its text in the path.
    pub(crate) fn permit(&self, app: Option<&str>, access: Access) -> Result<(), Problem> {
        let is_own = app.and_then(app_id).is_some_and(|app| app == self.app);
        if !is_own {
            return Err(Problem::new(ProblemKind::NotPermitted, "the token belongs to another application"));
        }
        check_access(access, self.access)
    }
}

/// Checks that a token allows a request that needs this access.
pub(super) fn check_access(needed: Access, token: TokenAccess) -> Result<(), Problem> {
    match (needed, token) {
        (Access::ReadWrite, TokenAccess::Read) => Err(Problem::new(
            ProblemKind::NotPermitted,
            "the token is for reading only; this request needs a `read-write` token",
        )),
        (Access::Public | Access::Read, _) | (Access::ReadWrite, TokenAccess::ReadWrite) => Ok(()),
    }
}

/// The hash of the token in these headers.
pub(super) fn presented(headers: &HeaderMap) -> Result<TokenHash, Problem> {
    let mut values = headers.get_all(AUTHORIZATION);
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) => {
            return Err(Problem::not_authenticated(
                "the request has no Authorization header; send `Bearer` and a token",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Problem::not_authenticated("the request has more than one Authorization header"));
        }
    };
    let token = value.to_str().ok().and_then(bearer).ok_or_else(|| {
        Problem::not_authenticated("the Authorization header is not `Bearer` and one token")
    })?;
    Ok(Token::new(token).hash())
}

/// The application that a path segment names.
pub(super) fn app_id(segment: &str) -> Option<AppId> {
    String::from_utf8(percent::decode(segment)?).ok()?.parse().ok()
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && is_token).then_some(token)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::{config::ListenerSettings, http::callers::ListenerShares};

    const APP: &str = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11";
    const OTHER: &str = "00000000-0000-4000-8000-000000000001";

    fn tokens() -> Tokens {
        let tokens = Tokens::default();
        let shares = ListenerShares::new(&ListenerSettings::default());
        for (token, app, access) in [
            ("writer", APP, TokenAccess::ReadWrite),
            ("reader", APP, TokenAccess::Read),
            ("other", OTHER, TokenAccess::ReadWrite),
        ] {
            tokens.add(Token::new(token).hash(), app.parse().unwrap(), access, shares.caller());
        }
        tokens
    }

    fn check(authorization: &[&str], app: Option<&str>, access: Access, expected: Result<(), ProblemKind>) {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let outcome = tokens().authenticate(&headers).and_then(|known| known.caller.permit(app, access));
        assert_eq!(
            outcome.map_err(|problem| problem.kind()),
            expected,
            "{authorization:?} {app:?} {access:?}"
        );
    }

    #[test]
    fn callers_are_known_by_their_tokens() {
        use Access::{Read, ReadWrite};
        use ProblemKind::{NotAuthenticated, NotPermitted};
        for access in [Read, ReadWrite] {
            check(&["Bearer writer"], Some(APP), access, Ok(()));
            check(&["bearer  writer"], Some(APP), access, Ok(()));
            check(&[], Some(APP), access, Err(NotAuthenticated));
            check(&["writer"], Some(APP), access, Err(NotAuthenticated));
            check(&["Bearer"], Some(APP), access, Err(NotAuthenticated));
            check(&["Bearer "], Some(APP), access, Err(NotAuthenticated));
            check(&["Basic writer"], Some(APP), access, Err(NotAuthenticated));
            check(&["Bearer write"], Some(APP), access, Err(NotAuthenticated));
            check(&["Bearer writer reader"], Some(APP), access, Err(NotAuthenticated));
            check(&["Bearer writer", "Bearer writer"], Some(APP), access, Err(NotAuthenticated));
            check(&["Bearer other"], Some(APP), access, Err(NotPermitted));
            check(&["Bearer writer"], Some(OTHER), access, Err(NotPermitted));
            check(&["Bearer writer"], Some("x"), access, Err(NotPermitted));
            check(&["Bearer writer"], None, access, Err(NotPermitted));
        }
        check(&["Bearer reader"], Some(APP), Read, Ok(()));
        check(&["Bearer reader"], Some(APP), ReadWrite, Err(NotPermitted));
        check(&["Bearer reader"], Some(OTHER), ReadWrite, Err(NotPermitted));
    }
}
