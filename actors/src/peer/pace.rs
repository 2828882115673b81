//! Pacing of repeated work that a peer can cause: at once the first time, then after a pause that doubles each time. Pure
//! bookkeeping; the time is an argument.

use std::time::{Duration, Instant};

#[cfg(not(feature = "simulation"))]
pub(crate) use std::hash::RandomState as Jitter;
/// The source of jitter. In a simulation it follows from what is hashed.
#[cfg(feature = "simulation")]
pub(crate) type Jitter = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

#[derive(Debug)]
pub(crate) struct Pace {
    first: Duration,
    longest: Duration,
    /// After this time without an event the pauses begin anew.
    quiet: Duration,
    /// The time of the last admitted event, and the pause after it.
    last: Option<(Instant, Duration)>,
}

impl Pace {
    pub(crate) fn new(first: Duration, longest: Duration, quiet: Duration) -> Self {
        Self { first, longest, quiet, last: None }
    }

    /// Admits the event now, or returns the time to wait.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let pause = match self.last {
            None => self.first,
            Some((last, pause)) => {
                let since = now.saturating_duration_since(last);
                match pause.checked_sub(since).filter(|left| !left.is_zero()) {
                    Some(left) => return Err(left),
                    None if since >= self.quiet => self.first,
                    None => pause.saturating_mul(2).min(self.longest),
                }
            }
        };
        self.last = Some((now, pause));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_it_was_quiet() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::new(seconds(5), seconds(20), seconds(100));
        let begin = Instant::now();
        let mut check = |at: u64, expected: Result<(), u64>| {
            assert_eq!(pace.admit(begin + seconds(at)), expected.map_err(seconds), "{at}");
        };
        check(0, Ok(()));
        check(1, Err(4));
        check(5, Ok(()));
        check(14, Err(1));
        check(15, Ok(()));
        check(34, Err(1));
        check(40, Ok(()));
        check(59, Err(1));
        check(140, Ok(()));
        check(144, Err(1));
        check(145, Ok(()));
    }
}
