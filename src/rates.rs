//! Rates with bursts: token buckets. A bucket is filled at a constant pace up to its capacity, and each request takes one token.
//!
//! A bucket is one number: the time at which it is full again, as in the generic cell rate algorithm (ITU-T I.371). The time is an
//! argument, of a clock that cannot be set. Nothing here waits, and only [`TargetBuckets`] locks.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The number of buckets from which on those that are full are looked for, to be forgotten.
const BUCKETS_MIN: usize = 256;
/// The shortest time between two such searches, in nanoseconds.
const SEARCH_PERIOD_NS: u64 = 100_000_000;

/// A number of requests in a time. They may come all at once; then they are allowed again at a constant pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestRate {
    requests_max: u64,
    window_s: u64,
}

/// What a bucket still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateStanding {
    /// Requests that are allowed at once.
    pub(crate) left: u64,
    /// The time over which to spread them, in seconds; if there are none, the time until the next one is allowed.
    pub(crate) wait_s: u64,
}

/// The bucket of one caller.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: RequestRate,
    /// When it is full again, in nanoseconds.
    full_at_ns: AtomicU64,
}

/// The buckets of the things that one caller asks for, in bounded memory. Those that are full are as good as new, and are forgotten.
/// When too many are not, further things share one bucket.
#[derive(Debug)]
pub(crate) struct TargetBuckets<K> {
    rate: RequestRate,
    buckets_max: usize,
    known: Mutex<KnownBuckets<K>>,
}

#[derive(Debug)]
struct KnownBuckets<K> {
    /// When each is full again, in nanoseconds.
    full_at_ns: HashMap<K, u64>,
    others_full_at_ns: u64,
    /// The number of buckets at which to look for full ones.
    search_from: usize,
    searched_at_ns: u64,
}

impl RequestRate {
    /// At most `requests_max` requests in `window_s` seconds; `None` for 0, which is no limit.
    pub(crate) fn new(requests_max: u64, window_s: u64) -> Option<Self> {
        (requests_max > 0).then_some(Self { requests_max, window_s: window_s.max(1) })
    }

    /// The requests that may come at once.
    pub(crate) fn requests_max(self) -> u64 {
        self.requests_max
    }

    /// The time in which an empty bucket is filled, in seconds.
    pub(crate) fn window_s(self) -> u64 {
        self.window_s
    }

    /// The time in which one more request is allowed, in nanoseconds.
    fn interval_ns(self) -> u64 {
        (self.window_s.saturating_mul(1_000_000_000) / self.requests_max).max(1)
    }

    /// Takes a token from a bucket; answers what it has then, and when it is full again.
    ///
    /// # Errors
    /// The time until there is a token.
    fn take(self, full_at_ns: u64, now_ns: u64) -> Result<(RateStanding, u64), RateStanding> {
        let interval = self.interval_ns();
        let capacity = interval.saturating_mul(self.requests_max);
        let full_at = full_at_ns.max(now_ns).saturating_add(interval);
        let missing = full_at.saturating_sub(now_ns);
        match capacity.checked_sub(missing) {
            Some(rest) => {
                let left = rest / interval;
                let wait_s = seconds(interval.saturating_mul(left.max(1)));
                Ok((RateStanding { left, wait_s }, full_at))
            }
            None => Err(RateStanding { left: 0, wait_s: seconds(missing.saturating_sub(capacity)) }),
        }
    }
}

/// Whole seconds, at least one.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000).max(1)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: RequestRate) -> Self {
        Self { rate, full_at_ns: AtomicU64::new(0) }
    }

    pub(crate) fn rate(&self) -> RequestRate {
        self.rate
    }

    /// What taking a token would answer; nothing is taken.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn look(&self, now: Duration) -> Result<RateStanding, RateStanding> {
        let full_at_ns = self.full_at_ns.load(Ordering::Acquire);
        self.rate.take(full_at_ns, nanoseconds(now)).map(|(standing, _)| standing)
    }

    /// Takes a token.
    ///
    /// # Errors
    /// What the bucket has, if that is nothing; then nothing is taken.
    pub(crate) fn take(&self, now: Duration) -> Result<RateStanding, RateStanding> {
        let now_ns = nanoseconds(now);
        let mut full_at_ns = self.full_at_ns.load(Ordering::Acquire);
        loop {
            let (standing, next) = self.rate.take(full_at_ns, now_ns)?;
            let swapped =
                self.full_at_ns.compare_exchange(full_at_ns, next, Ordering::AcqRel, Ordering::Acquire);
            match swapped {
                Ok(_) => return Ok(standing),
                Err(changed) => full_at_ns = changed,
            }
        }
    }
}

impl<K: Eq + Hash> TargetBuckets<K> {
    /// Full buckets, of which at most `buckets_max` are remembered.
    pub(crate) fn new(rate: RequestRate, buckets_max: usize) -> Self {
        let known = KnownBuckets {
            full_at_ns: HashMap::new(),
            others_full_at_ns: 0,
            search_from: BUCKETS_MIN.min(buckets_max),
            searched_at_ns: 0,
        };
        Self { rate, buckets_max, known: Mutex::new(known) }
    }

    pub(crate) fn rate(&self) -> RequestRate {
        self.rate
    }

    /// Takes a token from the bucket of a target.
    ///
    /// # Errors
    /// As [`Bucket::take`].
    pub(crate) fn take(&self, target: K, now: Duration) -> Result<RateStanding, RateStanding> {
        let now_ns = nanoseconds(now);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at_ns) = known.full_at_ns.get_mut(&target) {
            let (standing, next) = self.rate.take(*full_at_ns, now_ns)?;
            *full_at_ns = next;
            return Ok(standing);
        }
        known.forget_full(now_ns, self.buckets_max);
        if known.full_at_ns.len() < self.buckets_max {
            let (standing, next) = self.rate.take(0, now_ns)?;
            known.full_at_ns.insert(target, next);
            return Ok(standing);
        }
        let (standing, next) = self.rate.take(known.others_full_at_ns, now_ns)?;
        known.others_full_at_ns = next;
        Ok(standing)
    }
}

impl<K: Eq + Hash> KnownBuckets<K> {
    /// Forgets the buckets that are full, if there are many and it was not done just now.
    fn forget_full(&mut self, now_ns: u64, buckets_max: usize) {
        let is_just_done = now_ns.saturating_sub(self.searched_at_ns) < SEARCH_PERIOD_NS;
        if self.full_at_ns.len() < self.search_from || is_just_done {
            return;
        }
        self.full_at_ns.retain(|_, full_at_ns| *full_at_ns > now_ns);
        self.searched_at_ns = now_ns;
        // So that a search costs no more than the requests before it.
        self.search_from = self.full_at_ns.len().saturating_mul(2).max(BUCKETS_MIN).min(buckets_max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    fn rate(requests_max: u64, window_s: u64) -> RequestRate {
        RequestRate::new(requests_max, window_s).unwrap()
    }

    #[test]
    fn a_burst_is_allowed_at_once_and_then_one_request_at_a_time() {
        let bucket = Bucket::new(rate(4, 2));
        let check = |at_ms: u64, expected: Result<(u64, u64), u64>| {
            let taken = bucket.take(ms(at_ms));
            let expected = expected.map(|(left, wait_s)| RateStanding { left, wait_s });
            let expected = expected.map_err(|wait_s| RateStanding { left: 0, wait_s });
            assert_eq!(taken, expected, "at {at_ms} ms");
        };
        for left in [(3, 2), (2, 1), (1, 1), (0, 1)] {
            check(10, Ok(left));
        }
        check(10, Err(1));
        check(509, Err(1));
        check(510, Ok((0, 1)));
        check(510, Err(1));
        check(2009, Ok((1, 1)));
        // After its window, it is full again, and never more than that.
        for left in [(3, 2), (2, 1), (1, 1), (0, 1)] {
            check(100_000, Ok(left));
        }
        check(100_000, Err(1));
        assert_eq!(RequestRate::new(0, 5), None);
        assert_eq!(Bucket::new(rate(1, 3600)).take(ms(0)), Ok(RateStanding { left: 0, wait_s: 3600 }));
    }

    #[test]
    fn targets_have_buckets_of_their_own_in_bounded_memory() {
        let buckets = TargetBuckets::new(rate(2, 10), 300);
        let take =
            |target: u32, at_ms: u64| buckets.take(target, ms(at_ms)).map(|standing| standing.left).ok();
        assert_eq!([take(0, 0), take(0, 0), take(0, 0), take(1, 0)], [Some(1), Some(0), None, Some(1)]);
        for target in 2..300 {
            assert_eq!(take(target, 1), Some(1), "{target}");
        }
        // All are remembered, so further ones share a bucket.
        assert_eq!([take(500, 1), take(501, 1), take(502, 1)], [Some(1), Some(0), None]);
        assert_eq!(take(0, 1), None, "what was used up stays so");
        // After 5 s, those that were asked once are full and forgotten; the first is not.
        assert_eq!(take(503, 5_500), Some(1));
        assert_eq!(buckets.known.lock().unwrap().full_at_ns.len(), 2);
        assert_eq!([take(0, 5_500), take(0, 5_500)], [Some(0), None]);
    }

    proptest! {
        /// In any time, no more requests are allowed than the burst and what the pace adds, and a caller at half of the pace is
        /// never refused.
        #[test]
        fn no_time_has_more_than_the_burst_and_the_pace(
            requests_max in 1_u64..50,
            window_s in 1_u64..20,
            pauses_ms in proptest::collection::vec(0_u64..3_000, 1..200),
        ) {
            let (bucket, slow) = (Bucket::new(rate(requests_max, window_s)), Bucket::new(rate(requests_max, window_s)));
            let (mut now_ms, mut allowed) = (0, Vec::new());
            for (count, pause) in (0_u64..).zip(pauses_ms) {
                now_ms += pause;
                if bucket.take(ms(now_ms)).is_ok() {
                    allowed.push(now_ms);
                }
                prop_assert!(slow.take(ms(count * 2 * window_s * 1000 / requests_max)).is_ok());
            }
            for (first, begin) in allowed.iter().enumerate() {
                for (last, end) in allowed.iter().enumerate().skip(first) {
                    let most = requests_max + (end - begin) * requests_max / (window_s * 1000) + 1;
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}
