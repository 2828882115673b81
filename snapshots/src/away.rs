//! Work away from the threads that answer requests, and random ids. A simulation decides about both.

/// The work on another thread did not end: it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work on another thread panicked")]
pub struct Stopped;

/// Runs work that may block or take long on another thread. It runs to its end even if the caller stops waiting.
///
/// # Errors
/// [`Stopped`] when it panicked.
pub async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    #[cfg(feature = "simulation")]
    if is_simulated() {
        session::pause().await;
        let done = work();
        session::pause().await;
        return Ok(done);
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)
}

/// As [`away`], on a thread of its own, for which the end of the process does not wait.
///
/// # Errors
/// The thread could not be started, or the work panicked.
pub(crate) async fn away_for_long<T: Send + 'static>(
    thread: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    #[cfg(feature = "simulation")]
    if is_simulated() {
        return away(work).await.map_err(std::io::Error::other);
    }
    let (reply, answer) = tokio::sync::oneshot::channel();
    let run = move || {
        // The caller may have gone.
        let _ = reply.send(work());
    };
    std::thread::Builder::new().name(thread.to_owned()).spawn(run)?;
    answer.await.map_err(|_| std::io::Error::other(Stopped))
}

/// A new random id (UUID version 4).
pub fn random_uuid() -> uuid::Uuid {
    #[cfg(feature = "simulation")]
    if let Some(bytes) = session::random_bytes() {
        return uuid::Builder::from_random_bytes(bytes).into_uuid();
    }
    uuid::Uuid::new_v4()
}

#[cfg(feature = "simulation")]
pub use self::session::{Session, is_simulated};

#[cfg(feature = "simulation")]
mod session {
    use std::{cell::RefCell, marker::PhantomData, time::Duration};

    thread_local! {
        static DICE: RefCell<Option<Dice>> = const { RefCell::new(None) };
    }

    /// A simulation on this thread. While it exists, [`away`](super::away()) runs its work here, after and before a pause by the
    /// clock of the runtime, and ids follow from the seed.
    #[derive(Debug)]
    pub struct Session(PhantomData<*const ()>);

    /// The source of pauses and ids (splitmix64).
    struct Dice {
        state: u64,
        pause_ms_max: u64,
    }

    impl Session {
        /// Begins a simulation in which pauses last up to so many milliseconds.
        pub fn begin(seed: u64, pause_ms_max: u64) -> Self {
            DICE.set(Some(Dice { state: seed, pause_ms_max }));
            Self(PhantomData)
        }
    }

    impl Drop for Session {
        fn drop(&mut self) {
            DICE.set(None);
        }
    }

    impl Dice {
        fn next(&mut self) -> u64 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    /// Whether this thread is simulated.
    pub fn is_simulated() -> bool {
        DICE.with_borrow(Option::is_some)
    }

    pub(super) async fn pause() {
        let pause_ms = DICE.with_borrow_mut(|dice| {
            let dice = dice.as_mut()?;
            // Half of them pause not at all.
            Some((dice.next() % (2 * dice.pause_ms_max + 2)).saturating_sub(dice.pause_ms_max + 1))
        });
        if let Some(pause_ms) = pause_ms.filter(|pause_ms| *pause_ms > 0) {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    pub(super) fn random_bytes() -> Option<[u8; 16]> {
        DICE.with_borrow_mut(|dice| {
            let dice = dice.as_mut()?;
            Some((u128::from(dice.next()) << 64 | u128::from(dice.next())).to_be_bytes())
        })
    }
}
