//! Long validations, away from the threads of the actors. Their number is bounded, and no application can use all of their
//! threads.

use std::{collections::HashMap, sync::Arc};

use snapshots::AppId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The threads for the validations of all applications.
#[derive(Debug)]
pub(crate) struct ValidationPool {
    threads: Arc<Semaphore>,
    shares: HashMap<AppId, Share>,
}

/// The share of one application.
#[derive(Debug)]
struct Share {
    threads: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// A place in the queue of an application.
#[derive(Debug)]
pub(crate) struct ValidationPermit {
    place: OwnedSemaphorePermit,
    of_application: Arc<Semaphore>,
    of_all: Arc<Semaphore>,
}

impl ValidationPool {
    /// A pool in which every application may use `threads_per_application` threads at once. There is one more thread, so that
    /// no application blocks all others. At most `places_per_application` validations of one application may wait or run.
    pub(crate) fn new(
        applications: impl IntoIterator<Item = AppId>,
        threads_per_application: usize,
        places_per_application: usize,
    ) -> Self {
        let threads = threads_per_application.max(1);
        let share = |app| {
            let share = Share {
                threads: Arc::new(Semaphore::new(threads)),
                places: Arc::new(Semaphore::new(places_per_application)),
            };
            (app, share)
        };
        Self {
            threads: Arc::new(Semaphore::new(threads + 1)),
            shares: applications.into_iter().map(share).collect(),
        }
    }

    /// A place for a validation of an application; `None` if its queue is full.
    pub(crate) fn place(&self, app: AppId) -> Option<ValidationPermit> {
        let share = self.shares.get(&app)?;
        Some(ValidationPermit {
            place: Arc::clone(&share.places).try_acquire_owned().ok()?,
            of_application: Arc::clone(&share.threads),
            of_all: Arc::clone(&self.threads),
        })
    }
}

impl ValidationPermit {
    /// Runs a validation when its turn comes; `None` if it panicked. It runs to its end even if the caller stops waiting.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        validation: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // A validation that waits for a shared thread already has one of its application's permits, so that an application
        // has few in that queue.
        let own = self.of_application.acquire_owned().await.ok()?;
        let any = self.of_all.acquire_owned().await.ok()?;
        let place = self.place;
        let running = snapshots::away(move || {
            let validated = validation();
            drop((own, any, place));
            validated
        });
        running.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    fn app(number: u128) -> AppId {
        AppId::new(uuid::Uuid::from_u128(number))
    }

    const WAIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn no_application_has_every_thread() {
        let pool = ValidationPool::new([app(1), app(2)], 1, 2);
        let (let_go, held) = mpsc::channel::<()>();
        let place = pool.place(app(1)).unwrap();
        let stuck = tokio::spawn(place.run(move || held.recv().is_ok()));
        // The second of the same application waits, and there is no place for a third.
        let waiting = tokio::spawn(pool.place(app(1)).unwrap().run(|| 2));
        assert!(pool.place(app(1)).is_none());
        // Another application is served meanwhile, again and again.
        for turn in 0..3 {
            let served = pool.place(app(2)).unwrap().run(move || turn);
            assert_eq!(tokio::time::timeout(WAIT, served).await.unwrap(), Some(turn));
        }
        assert!(!stuck.is_finished() && !waiting.is_finished());
        let_go.send(()).unwrap();
        assert_eq!(stuck.await.unwrap(), Some(true));
        assert_eq!(waiting.await.unwrap(), Some(2));
        assert!(pool.place(app(1)).is_some());
        assert!(pool.place(app(3)).is_none(), "an application that there is not");
    }

    #[tokio::test]
    async fn a_validation_that_panics_gives_its_place_back() {
        let pool = ValidationPool::new([app(1)], 1, 1);
        let panics = pool.place(app(1)).unwrap().run(|| panic!("on purpose"));
        assert_eq!(panics.await, None::<()>);
        assert_eq!(pool.place(app(1)).unwrap().run(|| 1).await, Some(1));
    }
}
