//! Histograms of durations: counters to which many threads add, for operators.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A histogram of durations. Adding to it takes no lock.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [Duration],
    /// The number of durations up to each bound and above the one before it, and at the end those above all bounds.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

/// The durations in a [`Histogram`] at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// For each bound, ascending, the number of durations that are not longer.
    pub buckets: Vec<(Duration, u64)>,
    /// The number of all durations.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

impl Histogram {
    /// An empty histogram with these bounds, ascending.
    pub fn new(bounds: &'static [Duration]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_ns: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub fn add(&self, took: Duration) {
        let place = self.bounds.partition_point(|bound| *bound < took);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// The durations so far. One that is added meanwhile may be counted and not be in the sum, or the reverse.
    pub fn read(&self) -> Distribution {
        let mut count = 0;
        let mut up_to = self.counts.iter().map(|one| {
            count += one.load(Ordering::Relaxed);
            count
        });
        let buckets = self.bounds.iter().copied().zip(up_to.by_ref()).collect();
        let above = up_to.last();
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed));
        Distribution { buckets, count: above.unwrap_or_default(), sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_bound_belongs_to_the_durations_below_it() {
        static BOUNDS: [Duration; 3] =
            [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(100)];
        let histogram = Histogram::new(&BOUNDS);
        assert_eq!(histogram.read().count, 0);
        for took in [0, 1, 2, 10, 11, 100, 101, 5000] {
            histogram.add(MS(took));
        }
        let expected =
            Distribution { buckets: vec![(MS(1), 2), (MS(10), 4), (MS(100), 6)], count: 8, sum: MS(5225) };
        assert_eq!(histogram.read(), expected);
    }

    #[test]
    fn nothing_that_threads_add_is_lost() {
        static BOUNDS: [Duration; 1] = [Duration::from_millis(1)];
        let histogram = Histogram::new(&BOUNDS);
        std::thread::scope(|scope| {
            for ms in [1, 2] {
                let histogram = &histogram;
                scope.spawn(move || (0..10_000).for_each(|_| histogram.add(MS(ms))));
            }
        });
        let expected = Distribution { buckets: vec![(MS(1), 10_000)], count: 20_000, sum: MS(30_000) };
        assert_eq!(histogram.read(), expected);
    }
}
