//! The circuit breaker: it pauses requests to a peer that does not answer.

use std::time::{Duration, Instant};

/// A circuit breaker. It opens after a number of failures in a row: requests then fail at once, except one per period, which
/// finds out whether the peer is back.
#[derive(Debug)]
pub(super) struct Circuit {
    failures_max: u32,
    open_for: Duration,
    failures: u32,
    /// The time of the next request, while it is open.
    try_at: Option<Instant>,
}

impl Circuit {
    /// A closed circuit.
    pub(super) fn new(failures_max: u32, open_for: Duration) -> Self {
        Self { failures_max, open_for, failures: 0, try_at: None }
    }

    /// Admits a request, if one may be made now.
    ///
    /// # Errors
    /// The time until the next one may be made.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.try_at {
            None => Ok(()),
            Some(try_at) if now < try_at => Err(try_at - now),
            Some(_) => {
                // Others wait for another period, so only this one is made.
                self.try_at = Some(now + self.open_for);
                Ok(())
            }
        }
    }

    /// The peer answered.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.try_at = None;
    }

    /// The peer did not answer.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            self.try_at = Some(now + self.open_for);
        }
    }

    /// Whether requests are refused at present.
    pub(super) fn is_open(&self) -> bool {
        self.try_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new(2, PERIOD);
        circuit.failed(now);
        assert!(!circuit.is_open());
        assert_eq!(circuit.admit(now), Ok(()));
        circuit.failed(now);
        assert!(circuit.is_open());
        circuit
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let mut circuit = Circuit::new(2, PERIOD);
        for _ in 0..3 {
            circuit.failed(now);
            circuit.succeeded();
        }
        assert_eq!(circuit.admit(now), Ok(()));
        let mut circuit = opened(now);
        assert_eq!(circuit.admit(now), Err(PERIOD));
        assert_eq!(circuit.admit(now + PERIOD / 5), Err(PERIOD * 4 / 5));
    }

    #[test]
    fn one_request_a_period_tries_again() {
        let now = Instant::now();
        let mut circuit = opened(now);
        let later = now + PERIOD;
        assert_eq!(circuit.admit(later), Ok(()));
        assert_eq!(circuit.admit(later), Err(PERIOD));
        circuit.failed(later);
        assert_eq!(circuit.admit(later + PERIOD / 2), Err(PERIOD / 2));
        assert_eq!(circuit.admit(later + PERIOD), Ok(()));
        circuit.succeeded();
        assert_eq!(circuit.admit(later + PERIOD), Ok(()));
        assert_eq!(circuit.admit(later + PERIOD), Ok(()));
    }
}
