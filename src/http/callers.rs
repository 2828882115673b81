//! What the callers of a listener may hold together, and what each of them: requests, bytes of requests that are not
//! yet judged, and bytes of answers that are not yet read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::ListenerLimits,
    listener::connections::HolderId,
    shares::{Account, Percent, Pool},
};

/// What all who do not say who they are may hold together, beside what is public. It is so little that one caller, with
/// its own share and with this one, still leaves something to the others.
const ANONYMOUS: Percent = Percent::new(12);

/// Answers that may be large, which are computed at once for all callers: so many are in memory before their bytes are
/// counted.
const TURNS: usize = 16;
/// And for one caller.
const TURNS_PER_CALLER: usize = 4;

/// What the callers of one listener may hold together.
#[derive(Clone, Debug)]
pub(crate) struct ListenerShares {
    requests: Pool,
    received: Pool,
    unread: Pool,
    turns: Arc<Semaphore>,
    share: Percent,
}

/// What one caller may hold: a token, a peer, or all who do not say who they are.
#[derive(Debug)]
pub(crate) struct CallerShares {
    /// Requests that are worked on.
    pub(crate) requests: Account,
    /// Bytes of requests that are not yet judged.
    pub(crate) received: Account,
    /// Bytes of answers that are not yet read.
    pub(crate) unread: Account,
    /// Under which its connections are counted.
    pub(crate) holder: HolderId,
    own_turns: Arc<Semaphore>,
    all_turns: Arc<Semaphore>,
}

/// The right to compute an answer that may be large. It lasts until this is dropped.
#[derive(Debug)]
#[must_use = "the turn is over when this is dropped"]
pub(crate) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl CallerShares {
    /// Waits for a turn to compute an answer that may be large.
    pub(crate) async fn turn(&self) -> Turn {
        // They fail only when the semaphores are closed, and nobody closes them.
        let own = Arc::clone(&self.own_turns).acquire_owned().await.ok();
        let all = Arc::clone(&self.all_turns).acquire_owned().await.ok();
        Turn { _own: own, _all: all }
    }
}

impl ListenerShares {
    /// As the configuration says.
    pub(crate) fn new(limits: &ListenerLimits) -> Self {
        Self {
            requests: Pool::new(limits.requests_in_flight_max),
            received: Pool::new(limits.requests_in_flight_bytes_max),
            unread: Pool::new(limits.answers_unread_bytes_max),
            turns: Arc::new(Semaphore::new(TURNS)),
            share: Percent::new(limits.share_percent),
        }
    }

    /// The shares of one more caller.
    pub(crate) fn caller(&self) -> CallerShares {
        CallerShares { holder: HolderId::unique(), ..self.part(self.share) }
    }

    /// The shares of all who do not say who they are.
    pub(crate) fn anonymous(&self) -> CallerShares {
        self.part(ANONYMOUS.min(self.share))
    }

    /// Whether a request is worked on, or an answer is not yet read.
    pub(crate) fn is_any_held(&self) -> bool {
        self.requests.held() > 0 || self.unread.held() > 0
    }

    fn part(&self, share: Percent) -> CallerShares {
        CallerShares {
            requests: self.requests.account(share),
            received: self.received.account(share),
            unread: self.unread.account(share),
            holder: HolderId::NOBODY,
            own_turns: Arc::new(Semaphore::new(TURNS_PER_CALLER)),
            all_turns: Arc::clone(&self.turns),
        }
    }
}
