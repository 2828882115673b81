//! The feed: what written batches announce, passed on in the order in which they were written, for each application.
//!
//! A reader that learns of a write may ask its writer about it at once. So an announcement is passed on when its writer has
//! shown the write, which it says by dropping the [`Announced`] of the answer, and when all announcements of the application
//! before it were passed on.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Slice;
use crate::ids::AppId;

/// What a batch announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) app: AppId,
    /// Its number among those of the application.
    pub(crate) position: u64,
    /// The row that was written for it.
    pub(crate) row: Slice,
}

/// The receiver of announcements. It is called under the feed's lock, so it must be quick.
pub(crate) type Receiver = Box<dyn Fn(Announcement) + Send + Sync>;

/// The feed of one store.
#[derive(Default)]
pub(crate) struct Feed(Mutex<FeedState>);

#[derive(Default)]
struct FeedState {
    queues: HashMap<AppId, VecDeque<Queued>>,
    receiver: Option<Receiver>,
}

struct Queued {
    announcement: Announcement,
    is_shown: bool,
}

/// The announcements of a written batch. They are passed on once this is dropped.
#[derive(Default)]
pub struct Announced(Vec<Ticket>);

struct Ticket {
    feed: Arc<Feed>,
    app: AppId,
    position: u64,
}

impl Feed {
    /// Sets the receiver, in the place of an earlier one. Announcements before that are lost, but not their rows.
    pub(crate) fn receive(&self, receiver: Receiver) {
        self.lock().receiver = Some(receiver);
    }

    /// Adds the announcements of a batch that was just written.
    pub(crate) fn add(self: &Arc<Self>, announcements: Vec<Announcement>) -> Announced {
        if announcements.is_empty() {
            return Announced::default();
        }
        let mut state = self.lock();
        let mut tickets = Vec::with_capacity(announcements.len());
        for announcement in announcements {
            let Announcement { app, position, .. } = announcement;
            state.queues.entry(app).or_default().push_back(Queued { announcement, is_shown: false });
            tickets.push(Ticket { feed: Arc::clone(self), app, position });
        }
        Announced(tickets)
    }

    fn shown(&self, app: AppId, position: u64) {
        let mut state = self.lock();
        let FeedState { queues, receiver } = &mut *state;
        let Some(queue) = queues.get_mut(&app) else { return };
        if let Ok(place) = queue.binary_search_by_key(&position, |queued| queued.announcement.position)
            && let Some(queued) = queue.get_mut(place)
        {
            queued.is_shown = true;
        }
        while let Some(Queued { announcement, .. }) = queue.pop_front_if(|queued| queued.is_shown) {
            if let Some(receiver) = receiver {
                receiver(announcement);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.feed.shown(self.app, self.position);
    }
}

impl fmt::Debug for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions: Vec<u64> = self.0.iter().map(|ticket| ticket.position).collect();
        f.debug_tuple("Announced").field(&positions).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(number: u128) -> AppId {
        AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0000 + number))
    }

    fn announcement(number: u128, position: u64) -> Announcement {
        Announcement { app: app(number), position, row: Slice::from([]) }
    }

    #[test]
    fn announcements_are_passed_on_in_order_when_all_before_are_shown() {
        let feed = Arc::new(Feed::default());
        let received = Arc::new(Mutex::new(Vec::new()));
        let received_by_feed = Arc::clone(&received);
        feed.receive(Box::new(move |announcement| {
            received_by_feed.lock().unwrap().push((announcement.app, announcement.position));
        }));
        let [first, second, third] = [1, 2, 3].map(|position| feed.add(vec![announcement(1, position)]));
        drop(second);
        assert_eq!(*received.lock().unwrap(), []);
        // One application does not wait for another one.
        drop(feed.add(vec![announcement(2, 7)]));
        assert_eq!(*received.lock().unwrap(), [(app(2), 7)]);
        drop(first);
        let mut expected = vec![(app(2), 7), (app(1), 1), (app(1), 2)];
        assert_eq!(*received.lock().unwrap(), expected);
        // All announcements of a batch are passed on.
        let of_both = feed.add(vec![announcement(1, 4), announcement(2, 8), announcement(2, 9)]);
        drop(of_both);
        expected.extend([(app(2), 8), (app(2), 9)]);
        assert_eq!(*received.lock().unwrap(), expected);
        drop(third);
        expected.extend([(app(1), 3), (app(1), 4)]);
        assert_eq!(*received.lock().unwrap(), expected);
    }
}
