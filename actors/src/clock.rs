//! The clock, passed in from outside: no rule reads a clock of its own.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use snapshots::Timestamp;

/// The time for the gateway's actors: a wall clock, which can be set, and a monotonic clock, which cannot.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self::new(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// A wall clock that shows what `read` returns, with the machine's monotonic clock, for tests.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let begun = Instant::now();
        Self { wall: Arc::new(read), monotonic: Arc::new(move || begun.elapsed()) }
    }

    /// The same wall clock with a monotonic clock that shows what `read` returns, for tests.
    #[must_use]
    pub fn with_monotonic(self, read: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { monotonic: Arc::new(read), ..self }
    }

    /// The time now, in Unix milliseconds.
    pub fn now(&self) -> Timestamp {
        (self.wall)()
    }

    /// The time since some fixed moment, unaffected by changes of the wall clock. It may stand still while the machine sleeps.
    pub(crate) fn monotonic(&self) -> Duration {
        (self.monotonic)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
