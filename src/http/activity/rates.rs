//! Rates and quantiles, from readings of counters that only grow.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use snapshots::Distribution;

use crate::{
    api::{
        Endpoint as _,
        activity::{ActivityRates, TimeQuantiles},
        groups::{ListControlMessages, UploadCommit, UploadProposal},
        joining::ListWelcomes,
        key_packages::RetrieveKeyPackage,
    },
    http::counts::{ListenerCounts, Outcomes},
};

/// The readings that are kept: quantiles are of the time between the oldest and the newest.
const KEPT: usize = 11;

/// The counters at one time.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The time since the sampler began.
    at: Duration,
    commits: Outcomes,
    proposals: u64,
    key_packages: u64,
    failures: u64,
    requests: u64,
    request_times: Vec<(Duration, u64)>,
    commit_times: Vec<(Duration, u64)>,
}

/// The newest readings.
#[derive(Debug, Default)]
pub(super) struct Readings(VecDeque<Reading>);

impl Reading {
    /// Reads the counters of these listeners.
    pub(super) fn of(listeners: &[Arc<ListenerCounts>], at: Duration) -> Self {
        let mut reading = Self {
            at,
            commits: Outcomes::default(),
            proposals: 0,
            key_packages: 0,
            failures: 0,
            requests: 0,
            request_times: Vec::new(),
            commit_times: Vec::new(),
        };
        for counts in listeners {
            let commits = counts.outcomes::<UploadCommit>();
            reading.commits.accepted += commits.accepted;
            reading.commits.late += commits.late;
            reading.commits.refused += commits.refused;
            reading.proposals += counts.outcomes::<UploadProposal>().accepted;
            reading.key_packages += counts.outcomes::<RetrieveKeyPackage>().accepted;
            for (times, has_failed) in counts.times(|_| true) {
                reading.requests += times.count;
                reading.failures += if has_failed { times.count } else { 0 };
            }
            counts.times(answers_at_once).for_each(|(times, _)| add(&mut reading.request_times, &times));
            if let Some(times) = counts.success_times::<UploadCommit>() {
                add(&mut reading.commit_times, &times);
            }
        }
        reading
    }
}

/// Whether the requests of a route are answered at once, without waiting for something to happen.
fn answers_at_once(template: &str) -> bool {
    template != ListControlMessages::PATH && template != ListWelcomes::PATH
}

/// Adds the buckets of a distribution, all of which have the same bounds; the last one has none.
fn add(sum: &mut Vec<(Duration, u64)>, times: &Distribution) {
    let buckets = times.buckets.iter().copied().chain([(Duration::MAX, times.count)]);
    if sum.is_empty() {
        sum.extend(buckets);
    } else {
        sum.iter_mut().zip(buckets).for_each(|((_, sum), (_, count))| *sum += count);
    }
}

impl Readings {
    /// Adds a reading.
    pub(super) fn push(&mut self, reading: Reading) {
        self.0.push_back(reading);
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The rates between the two newest; `None` if there are no two.
    pub(super) fn rates(&self) -> Option<ActivityRates> {
        let mut newest = self.0.iter().rev();
        let (now, before) = (newest.next()?, newest.next()?);
        let seconds = now.at.saturating_sub(before.at).as_secs_f64();
        let rate = |of: fn(&Reading) -> u64| rounded(number(of(now).saturating_sub(of(before))) / seconds);
        (seconds > 0.0).then(|| ActivityRates {
            commits: rate(|reading| reading.commits.accepted),
            conflicts: rate(|reading| reading.commits.late),
            refused_commits: rate(|reading| reading.commits.refused),
            proposals: rate(|reading| reading.proposals),
            key_packages: rate(|reading| reading.key_packages),
            requests: rate(|reading| reading.requests),
            failures: rate(|reading| reading.failures),
        })
    }

    /// Quantiles of the times of requests.
    pub(super) fn request_times(&self) -> Option<TimeQuantiles> {
        self.quantiles(|reading| &reading.request_times)
    }

    /// Quantiles of the times of accepted commits.
    pub(super) fn commit_times(&self) -> Option<TimeQuantiles> {
        self.quantiles(|reading| &reading.commit_times)
    }

    fn quantiles(&self, of: fn(&Reading) -> &Vec<(Duration, u64)>) -> Option<TimeQuantiles> {
        let (oldest, newest) = (of(self.0.front()?), of(self.0.back()?));
        let since = |(place, (bound, count)): (usize, &(Duration, u64))| {
            let before = oldest.get(place).map_or(0, |(_, count)| *count);
            (*bound, count.saturating_sub(before))
        };
        let buckets: Vec<_> = newest.iter().enumerate().map(since).collect();
        Some(TimeQuantiles { p50_ms: quantile(&buckets, 0.5)?, p99_ms: quantile(&buckets, 0.99)? })
    }
}

/// A quantile in milliseconds, of the numbers of times up to ascending bounds, the last of which is none. Within a bucket the
/// times count as evenly spread.
fn quantile(buckets: &[(Duration, u64)], part: f64) -> Option<f64> {
    let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
    let wanted = part * number(all);
    let place = buckets.partition_point(|(_, count)| number(*count) < wanted);
    let before = place.checked_sub(1).and_then(|place| buckets.get(place));
    let (lower, fewer) = before.map_or((0.0, 0), |(bound, count)| (ms(*bound), *count));
    let (bound, count) = buckets.get(place)?;
    if *bound == Duration::MAX {
        return Some(lower);
    }
    let within = (wanted - number(fewer)) / number(count.saturating_sub(fewer).max(1));
    Some(rounded_to(lower + (ms(*bound) - lower) * within, 1000.0))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn rounded(rate: f64) -> f64 {
    rounded_to(rate, 10.0)
}

fn rounded_to(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;

    use super::*;
    use crate::{
        api::problem::ProblemKind,
        config::ListenerSettings,
        http::{auth::Tokens, callers::ListenerShares, route::ROUTES},
    };

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let bound = Duration::from_millis;
        let buckets = [(bound(1), 50), (bound(10), 90), (bound(100), 99), (Duration::MAX, 100)];
        for (part, expected) in [(0.25, 0.5), (0.5, 1.0), (0.7, 5.5), (0.99, 100.0), (1.0, 100.0)] {
            assert_eq!(quantile(&buckets, part), Some(expected), "{part}");
        }
        assert_eq!(quantile(&[(bound(1), 0), (Duration::MAX, 0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings_and_long_polls_are_no_slow_requests() {
        let counts =
            Arc::new(ListenerCounts::new::<Tokens>(ListenerShares::new(&ListenerSettings::default())));
        let listeners = [Arc::clone(&counts)];
        let answered = |template: &str, status, problem, ms| {
            let route = ROUTES.iter().find(|route| route.template == template).unwrap();
            counts.answered(counts.place(route, false), status, problem, Duration::from_millis(ms));
        };
        let created = StatusCode::CREATED;
        let mut readings = Readings::default();
        answered(UploadCommit::PATH, created, None, 2);
        readings.push(Reading::of(&listeners, Duration::ZERO));
        assert_eq!((readings.rates(), readings.request_times(), readings.commit_times()), (None, None, None));
        for _ in 0..3 {
            answered(UploadCommit::PATH, created, None, 2);
        }
        answered(UploadCommit::PATH, StatusCode::CONFLICT, Some(ProblemKind::StaleEpoch), 1);
        answered(UploadCommit::PATH, StatusCode::BAD_REQUEST, Some(ProblemKind::MalformedRequest), 1);
        let unavailable = Some(ProblemKind::StorageUnavailable);
        answered(UploadCommit::PATH, StatusCode::SERVICE_UNAVAILABLE, unavailable, 1);
        answered(UploadProposal::PATH, created, None, 1);
        answered(ListControlMessages::PATH, StatusCode::OK, None, 60_000);
        readings.push(Reading::of(&listeners, Duration::from_secs(2)));
        let expected = ActivityRates {
            commits: 1.5,
            conflicts: 0.5,
            refused_commits: 0.5,
            proposals: 0.5,
            key_packages: 0.0,
            requests: 4.0,
            failures: 0.5,
        };
        assert_eq!(readings.rates(), Some(expected));
        assert!(readings.request_times().unwrap().p99_ms <= 2.5, "{readings:?}");
        assert!((1.0..=2.5).contains(&readings.commit_times().unwrap().p50_ms), "{readings:?}");
        // In time they are forgotten.
        for second in 3..20 {
            readings.push(Reading::of(&listeners, Duration::from_secs(second)));
        }
        assert_eq!(readings.rates(), Some(ActivityRates::default()));
        assert_eq!((readings.request_times(), readings.0.len()), (None, KEPT));
    }
}
