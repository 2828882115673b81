//! Turns: writers of the same row run one after the other, in order of arrival.
//!
//! A row that no actor owns is written under the precondition that it has not changed. Without turns, a hundred concurrent
//! writers would lose to each other again and again; with turns, each reads the row after its predecessor has written. The
//! precondition still decides: turns hold only in this process, and other requests may write the row as well.

use std::{collections::hash_map::RandomState, hash::Hash, sync::Arc};

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The writers that wait for each row.
#[derive(Debug)]
pub(crate) struct Turns<K: Eq + Hash> {
    lines: Arc<DashMap<K, Writers, RandomState>>,
    /// The number of writers per row, the current one included.
    waiting_max: usize,
}

/// The writers of one row.
#[derive(Debug)]
struct Writers {
    turn: Arc<Semaphore>,
    waiting: usize,
}

/// A turn, or a place in the queue for one. Dropping it gives the turn to the next.
#[derive(Debug)]
pub(crate) struct Turn<K: Clone + Eq + Hash> {
    lines: Arc<DashMap<K, Writers, RandomState>>,
    key: K,
    permit: Option<OwnedSemaphorePermit>,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Turns for at most this number of writers of one row.
    pub(crate) fn new(waiting_max: usize) -> Self {
        Self { lines: Arc::default(), waiting_max }
    }

    /// Waits for a turn at a row; `None` when too many wait already.
    pub(crate) async fn take(&self, key: K) -> Option<Turn<K>> {
        let (mut place, turn) = self.join(key)?;
        // It fails only when the semaphore is closed, which never happens.
        place.permit = turn.acquire_owned().await.ok();
        Some(place)
    }

    /// Joins the queue. Dropping the result leaves it.
    fn join(&self, key: K) -> Option<(Turn<K>, Arc<Semaphore>)> {
        let mut line = self
            .lines
            .entry(key.clone())
            .or_insert_with(|| Writers { turn: Arc::new(Semaphore::new(1)), waiting: 0 });
        if line.waiting >= self.waiting_max {
            return None;
        }
        line.waiting += 1;
        let turn = Arc::clone(&line.turn);
        Some((Turn { lines: Arc::clone(&self.lines), key, permit: None }, turn))
    }
}

impl<K: Clone + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.lines.remove_if_mut(&self.key, |_, line| {
            line.waiting = line.waiting.saturating_sub(1);
            line.waiting == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_are_taken_in_order_row_by_row() {
        let turns = Turns::new(3);
        let mut first = pin!(turns.take('a'));
        let mut second = pin!(turns.take('a'));
        let mut third = pin!(turns.take('a'));
        let mut fourth = pin!(turns.take('a'));
        let mut other = pin!(turns.take('b'));
        let Poll::Ready(Some(turn)) = poll(&mut first) else { panic!("nobody else wants it") };
        assert!(poll(&mut second).is_pending());
        assert!(poll(&mut third).is_pending());
        assert!(matches!(poll(&mut fourth), Poll::Ready(None)), "three wait");
        assert!(matches!(poll(&mut other), Poll::Ready(Some(_))), "another row is free");
        drop(turn);
        assert!(poll(&mut third).is_pending(), "it is not its turn");
        let Poll::Ready(Some(turn)) = poll(&mut second) else { panic!("it is its turn") };
        drop(turn);
        assert!(matches!(poll(&mut third), Poll::Ready(Some(_))));
    }

    #[test]
    fn a_line_ends_with_its_last_place() {
        let turns = Turns::new(8);
        {
            let mut first = pin!(turns.take(1));
            let Poll::Ready(Some(turn)) = poll(&mut first) else { panic!("nobody else wants it") };
            {
                let mut given_up = Box::pin(turns.take(1));
                assert!(poll(&mut given_up).is_pending());
            }
            drop(turn);
        }
        assert!(turns.lines.is_empty());
        assert!(matches!(poll(&mut pin!(turns.take(1))), Poll::Ready(Some(_))));
        assert!(turns.lines.is_empty());
    }
}
