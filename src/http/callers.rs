//! Shares of the callers of a listener: requests, received bytes that are not yet validated, and bytes of answers that are not
//! yet read.

use std::{
    cell::OnceCell,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::{problem::Problem, rates::CallerRates};
use crate::{
    config::ListenerSettings,
    connections::HolderId,
    shares::{Account, Full, HeldShare, Percent, Pool},
};

/// The share of all callers without credentials together, not counting public routes. It is so small that a caller with its own
/// share and this one still leaves room for the others.
const ANONYMOUS: Percent = Percent::new(12);

/// The number of possibly large answers that are computed at once for all callers, and so are in memory before their
/// bytes are counted.
const TURNS: usize = 16;
/// The number of possibly large answers that are computed at once for one caller.
const TURNS_PER_CALLER: usize = 4;
/// The period of checks for room for an answer.
const ROOM_PERIOD: Duration = Duration::from_millis(10);

/// The pools that the callers of one listener share.
#[derive(Clone, Debug)]
pub(crate) struct ListenerShares {
    requests: Pool,
    received: Pool,
    unread: Pool,
    streams: Pool,
    turns: Arc<Semaphore>,
    share: Percent,
    patience: Duration,
}

/// The shares of one caller: a token, a peer, or all callers without credentials.
#[derive(Debug)]
pub(crate) struct CallerShares {
    /// Requests in flight.
    pub(crate) requests: Account,
    /// Bytes of requests that are not yet validated.
    pub(crate) received: Account,
    /// Bytes of answers that are not yet read.
    pub(crate) unread: Account,
    /// Open event streams.
    pub(crate) streams: Account,
    /// The holder of its connections.
    pub(crate) holder: HolderId,
    /// The rates of its requests.
    pub(super) rates: CallerRates,
    /// Whether its token was revoked.
    is_revoked: AtomicBool,
    own_turns: Arc<Semaphore>,
    all_turns: Arc<Semaphore>,
    /// The time for which a request waits until other answers are read: half of the pause that a reading client may make.
    patience: Duration,
}

/// A request's right to compute an answer that may be large. The turn begins when the handler asks for it, and ends when
/// this is dropped.
#[derive(Debug)]
pub(crate) struct ComputeTurn {
    shares: Arc<CallerShares>,
    begun: OnceCell<[Option<OwnedSemaphorePermit>; 2]>,
}

impl ComputeTurn {
    /// A turn that has not begun.
    pub(crate) fn new(shares: Arc<CallerShares>) -> Self {
        Self { shares, begun: OnceCell::new() }
    }

    /// Takes a share of the event streams for the caller.
    ///
    /// # Errors
    /// [`Full`] when the caller or all callers have too many.
    pub(crate) fn stream(&self) -> Result<HeldShare, Full> {
        self.shares.streams.take(1)
    }

    /// Whether the caller's token was revoked since the request was admitted.
    pub(crate) fn is_revoked(&self) -> bool {
        self.shares.is_revoked.load(Ordering::Acquire)
    }

    /// Takes room for bytes of an answer that are not read yet.
    ///
    /// # Errors
    /// [`Full`] when the caller or all callers have too many.
    pub(crate) fn unread(&self, bytes: usize) -> Result<HeldShare, Full> {
        self.shares.unread.take(bytes)
    }

    /// Waits until it is the request's turn.
    ///
    /// # Errors
    /// 429 when the answers before this one were not read in time.
    pub(crate) async fn begin(&self) -> Result<(), Problem> {
        let until = Instant::now() + self.shares.patience;
        let permits = async {
            // They fail only when the semaphores are closed, which never happens.
            let own = Arc::clone(&self.shares.own_turns).acquire_owned().await.ok();
            let all = Arc::clone(&self.shares.all_turns).acquire_owned().await.ok();
            [own, all]
        };
        let permits = timeout_at(until, permits).await.map_err(|_| {
            Problem::too_many_requests("too many large answers are requested and not read; read them first")
        })?;
        // Only a handler that asks twice has begun already, and keeps its turn.
        let _ = self.begun.set(permits);
        Ok(())
    }
}

impl CallerShares {
    /// Ends the caller's event streams.
    pub(crate) fn revoke(&self) {
        self.is_revoked.store(true, Ordering::Release);
    }

    /// Takes room for an answer of this many bytes until it is read. If there is none, it waits until other answers are
    /// read.
    pub(crate) fn room_for_answer(
        &self,
        bytes: usize,
    ) -> impl Future<Output = Result<HeldShare, Full>> + use<> {
        let (unread, until) = (self.unread.clone(), Instant::now() + self.patience);
        async move {
            loop {
                match unread.take(bytes) {
                    Err(_) if Instant::now() < until => sleep(ROOM_PERIOD).await,
                    taken => return taken,
                }
            }
        }
    }
}

impl ListenerShares {
    /// The shares by the configuration.
    pub(crate) fn new(limits: &ListenerSettings) -> Self {
        Self {
            requests: Pool::new(limits.requests_in_flight_max),
            received: Pool::new(limits.requests_in_flight_bytes_max),
            unread: Pool::new(limits.answers_unread_bytes_max),
            streams: Pool::new(limits.event_streams_max),
            turns: Arc::new(Semaphore::new(TURNS)),
            share: Percent::new(limits.share_percent),
            patience: Duration::from_secs(limits.answer_read_timeout_s) / 2,
        }
    }

    /// The shares of one more caller.
    pub(crate) fn caller(&self) -> CallerShares {
        self.caller_at(CallerRates::default())
    }

    /// As [`Self::caller`], for a caller whose requests have rates.
    pub(super) fn caller_at(&self, rates: CallerRates) -> CallerShares {
        CallerShares { holder: HolderId::unique(), rates, ..self.part(self.share) }
    }

    /// The shares of all callers without credentials.
    pub(crate) fn anonymous(&self) -> CallerShares {
        self.part(ANONYMOUS.min(self.share))
    }

    /// Requests in flight.
    pub(crate) fn requests(&self) -> &Pool {
        &self.requests
    }

    /// Open event streams.
    pub(crate) fn streams(&self) -> &Pool {
        &self.streams
    }

    /// Bytes of answers that are not yet read.
    pub(crate) fn unread(&self) -> &Pool {
        &self.unread
    }

    /// Whether a request is in flight or an answer is not yet read.
    pub(crate) fn is_any_held(&self) -> bool {
        self.requests.held() > 0 || self.unread.held() > 0 || self.streams.held() > 0
    }

    fn part(&self, share: Percent) -> CallerShares {
        CallerShares {
            requests: self.requests.account(share),
            received: self.received.account(share),
            unread: self.unread.account(share),
            streams: self.streams.account(share),
            holder: HolderId::NOBODY,
            rates: CallerRates::default(),
            is_revoked: AtomicBool::new(false),
            own_turns: Arc::new(Semaphore::new(TURNS_PER_CALLER)),
            all_turns: Arc::clone(&self.turns),
            patience: self.patience,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(unread_bytes: usize) -> ListenerSettings {
        ListenerSettings {
            answers_unread_bytes_max: unread_bytes,
            answer_read_timeout_s: 2,
            ..ListenerSettings::default()
        }
    }

    #[tokio::test]
    async fn an_answer_waits_until_those_before_it_are_read() {
        let caller = ListenerShares::new(&limits(100)).caller();
        let first = caller.room_for_answer(60).await.unwrap();
        let second = tokio::spawn(caller.room_for_answer(60));
        sleep(2 * ROOM_PERIOD).await;
        assert!(!second.is_finished());
        drop(first);
        let _second = second.await.unwrap().unwrap();
        // The wait for a client that does not read is bounded.
        let since = Instant::now();
        assert_eq!(caller.room_for_answer(60).await.unwrap_err(), Full::Share { max: 75 });
        assert!(since.elapsed() >= caller.patience);
    }

    #[tokio::test]
    async fn a_turn_is_not_waited_for_for_ever() {
        let caller = Arc::new(ListenerShares::new(&limits(100)).caller());
        let mut turns = Vec::new();
        for _ in 0..TURNS_PER_CALLER {
            let turn = ComputeTurn::new(Arc::clone(&caller));
            turn.begin().await.unwrap();
            turns.push(turn);
        }
        let next = ComputeTurn::new(Arc::clone(&caller));
        assert!(next.begin().await.unwrap_err().detail().contains("read them first"));
        turns.pop();
        next.begin().await.unwrap();
    }
}
