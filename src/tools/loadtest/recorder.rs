//! The measurements of a run: counts, latencies and a row for each second, all of bounded size.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::options::Kind;

/// The greatest recorded latency, in microseconds; latencies are kept with three digits.
const LATENCY_US_MAX: u64 = 600_000_000;
/// The number of kinds of errors that are distinguished.
const ERRORS_MAX: usize = 100;
/// The number of seconds of a run that have their own row.
const SECONDS_MAX: usize = 24 * 3600 + 600;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    /// It succeeded.
    Done,
    /// 409: another request was first. Only commits, proposals and joins can be too late.
    Late,
    /// Any other outcome: the problem, or the fault of the connection.
    Failed(String),
}

/// A time that spans more than one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Span {
    /// From the answer that a player's commit was too late to the answer that a later one was accepted.
    Resolution,
    /// From the due time of a commit to its acceptance, over all attempts.
    Settled,
    /// From the due time of a request to its sending: the generator's own part of every latency.
    Lag,
}

/// Records from many tasks.
#[derive(Debug)]
pub(super) struct Recorder {
    started: Instant,
    figures: Mutex<Figures>,
}

/// The recorded measurements.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) done: BTreeMap<Kind, Latencies>,
    pub(super) late: BTreeMap<Kind, Latencies>,
    pub(super) spans: BTreeMap<Span, Latencies>,
    pub(super) errors: BTreeMap<String, u64>,
    /// The number of uploads of each accepted commit.
    pub(super) attempts: BTreeMap<u32, u64>,
    pub(super) seconds: Vec<Second>,
    /// Arrivals that were dropped because too many waited.
    pub(super) shed: u64,
    /// Operations that were given up, at the end of the run or after errors.
    pub(super) given_up: BTreeMap<Kind, u64>,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Second {
    /// Commits that were accepted.
    pub accepted: u64,
    /// Commits that were too late.
    pub late: u64,
    /// Other answered requests.
    pub other: u64,
    /// Requests that failed.
    pub failed: u64,
}

/// A histogram of microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        // These bounds are valid, so this cannot fail.
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(micros);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Some(own), Some(other)) => {
                // All histograms have the same bounds, so this cannot fail.
                let _ = own.add(other);
            }
            (None, Some(other)) => self.0 = Some(other.clone()),
            (_, None) => {}
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// In microseconds; 0 if there is none.
    pub(super) fn percentile_us(&self, percentile: f64) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.value_at_percentile(percentile))
    }

    pub(super) fn max_us(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::max)
    }
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), figures: Mutex::new(Figures::default()) }
    }

    /// Records a finished request; its latency counts from its due time.
    pub(super) fn request(&self, kind: Kind, due: Instant, ended: Ended) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(due);
        let second = usize::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(0);
        let mut figures = self.lock();
        let line = figures.second(second);
        match (kind, &ended) {
            (_, Ended::Failed(_)) => line.failed += 1,
            (Kind::Commit, Ended::Done) => line.accepted += 1,
            (Kind::Commit, Ended::Late) => line.late += 1,
            (_, Ended::Done | Ended::Late) => line.other += 1,
        }
        match ended {
            Ended::Done => figures.done.entry(kind).or_default().record(latency),
            Ended::Late => figures.late.entry(kind).or_default().record(latency),
            Ended::Failed(error) => {
                let error = if figures.errors.len() < ERRORS_MAX || figures.errors.contains_key(&error) {
                    error
                } else {
                    "others".to_owned()
                };
                *figures.errors.entry(error).or_default() += 1;
            }
        }
    }

    pub(super) fn span(&self, span: Span, length: Duration) {
        self.lock().spans.entry(span).or_default().record(length);
    }

    pub(super) fn accepted_after(&self, attempts: u32) {
        *self.lock().attempts.entry(attempts.min(10_000)).or_default() += 1;
    }

    pub(super) fn shed(&self) {
        self.lock().shed += 1;
    }

    pub(super) fn given_up(&self, kind: Kind) {
        *self.lock().given_up.entry(kind).or_default() += 1;
    }

    /// Accepted and late commits so far.
    pub(super) fn commits(&self) -> (u64, u64) {
        let figures = self.lock();
        let count = |of: &BTreeMap<Kind, Latencies>| of.get(&Kind::Commit).map_or(0, Latencies::count);
        (count(&figures.done), count(&figures.late))
    }

    pub(super) fn figures(&self) -> Figures {
        self.lock().clone()
    }

    /// No code panics under this lock, so poison can be ignored.
    fn lock(&self) -> std::sync::MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    fn second(&mut self, second: usize) -> &mut Second {
        let place = second.min(SECONDS_MAX);
        if self.seconds.len() <= place {
            self.seconds.resize(place + 1, Second::default());
        }
        let last = self.seconds.len() - 1;
        // The entry was added above.
        #[expect(clippy::indexing_slicing, reason = "the place is within the length that was just set")]
        &mut self.seconds[place.min(last)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_count_from_when_a_request_was_due() {
        let recorder = Recorder::new();
        let due = Instant::now().checked_sub(Duration::from_millis(50)).unwrap();
        recorder.request(Kind::Commit, due, Ended::Done);
        recorder.request(Kind::Commit, due, Ended::Late);
        recorder.request(Kind::Read, due, Ended::Failed("429 too-many-requests".into()));
        assert_eq!(recorder.commits(), (1, 1));
        let figures = recorder.figures();
        assert!(figures.done[&Kind::Commit].percentile_us(50.0) >= 50_000);
        assert_eq!(figures.errors["429 too-many-requests"], 1);
        assert_eq!(figures.seconds, [Second { accepted: 1, late: 1, other: 0, failed: 1 }]);
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let recorder = Recorder::new();
        for number in 0..ERRORS_MAX + 50 {
            recorder.request(Kind::Read, Instant::now(), Ended::Failed(number.to_string()));
        }
        let figures = recorder.figures();
        assert_eq!(figures.errors.len(), ERRORS_MAX + 1);
        assert_eq!(figures.errors["others"], 50);
    }
}
