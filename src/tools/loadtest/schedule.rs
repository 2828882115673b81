//! Seeded schedule of operations.

use std::time::Duration;

use super::options::{Kind, Mix};

/// Seeded pseudo-random numbers (SplitMix64). They decide schedules and order, never keys.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    /// The numbers of a seed; `part` separates the parts of a run.
    pub(super) fn new(seed: u64, part: u64) -> Self {
        let mut numbers = Self(seed ^ part.wrapping_mul(0xd134_2543_de82_ef95));
        numbers.next();
        numbers
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or_default()
    }

    /// A number in (0, 1].
    fn fraction(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits have an exact form")]
        let bits = ((self.next() >> 11) + 1) as f64;
        bits / (1_u64 << 53) as f64
    }
}

/// One arrival: its time after the start, its kind and its group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arrival {
    pub(super) after: Duration,
    pub(super) kind: Kind,
    pub(super) group: usize,
}

/// Arrivals of a Poisson process, as from many independent callers.
#[derive(Debug)]
pub(super) struct ArrivalSchedule {
    numbers: Rng,
    mix: Mix,
    groups: usize,
    rate: f64,
    after_s: f64,
    end: Duration,
}

impl ArrivalSchedule {
    /// `rate` arrivals per second until `end`.
    pub(super) fn new(seed: u64, mix: Mix, groups: usize, rate: f64, end: Duration) -> Self {
        Self { numbers: Rng::new(seed, 0), mix, groups, rate, after_s: 0.0, end }
    }
}

impl Iterator for ArrivalSchedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.after_s += -self.numbers.fraction().ln() / self.rate;
        let after = Duration::from_secs_f64(self.after_s.min(1e9));
        if after >= self.end {
            return None;
        }
        let kind = self.mix.pick(self.numbers.next());
        Some(Arrival { after, kind, group: self.numbers.below(self.groups) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(seed: u64) -> Vec<Arrival> {
        let mix = "commits=3,reads=1".parse().unwrap();
        ArrivalSchedule::new(seed, mix, 5, 100.0, Duration::from_secs(100)).collect()
    }

    #[test]
    fn a_schedule_is_its_seed() {
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
    }

    #[test]
    fn arrivals_keep_the_rate_and_the_mix() {
        let arrivals = schedule(1);
        assert!((9_500..10_500).contains(&arrivals.len()), "{}", arrivals.len());
        let reads = arrivals.iter().filter(|arrival| arrival.kind == Kind::Read).count();
        assert!((2_300..2_700).contains(&reads), "{reads}");
        for group in 0..5 {
            assert!(arrivals.iter().any(|arrival| arrival.group == group));
        }
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.after));
    }
}
