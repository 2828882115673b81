//! The groups with the most commits in the last minute, in memory that does not grow with the number of groups.

use std::collections::{HashMap, VecDeque};

use actors::{AppId, Epoch, GroupId, Timestamp};

/// The time that one window counts, in milliseconds.
const WINDOW_MS: u64 = 10_000;
/// The number of windows: together they are the last minute.
const WINDOWS: u64 = 6;
/// The groups that one window counts at the same time.
const COUNTED_MAX: usize = 512;

/// The commits of the last minute by group.
#[derive(Debug, Default)]
pub(super) struct Busiest {
    /// The newest last, each with its number since the Unix epoch.
    windows: VecDeque<(u64, Window)>,
}

/// A group.
type Counted = (AppId, GroupId);

/// The commits in one window, by the *space-saving* method of Metwally, Agrawal and El Abbadi: when too many groups are counted,
/// a new one takes the place of the one with the fewest commits, and continues its count. So a group with more than 1/512 of
/// the commits is always among those that are counted.
#[derive(Debug, Default)]
struct Window {
    counts: HashMap<Counted, CommitCounter>,
}

#[derive(Clone, Copy, Debug)]
struct CommitCounter {
    /// The count, with that of the groups whose place was taken.
    count: u64,
    /// The part that may be of other groups.
    inherited: u64,
    epoch: Epoch,
}

impl Busiest {
    /// Counts a commit that was accepted at a time.
    pub(super) fn count(&mut self, app: AppId, group: &GroupId, epoch: Epoch, at: Timestamp, now: Timestamp) {
        // The clock of another hub may be ahead.
        let number = at.min(now).0 / WINDOW_MS;
        if number + WINDOWS <= now.0 / WINDOW_MS {
            return;
        }
        self.forget(now);
        let place = self.windows.partition_point(|(known, _)| *known < number);
        if self.windows.get(place).is_none_or(|(known, _)| *known != number) {
            self.windows.insert(place, (number, Window::default()));
        }
        if let Some((_, window)) = self.windows.get_mut(place) {
            window.count((app, group.clone()), epoch);
        }
    }

    /// The groups with the most commits, each with its newest epoch and the commits that are certainly its own.
    pub(super) fn most(&mut self, limit: usize, now: Timestamp) -> Vec<(Counted, Epoch, u64)> {
        self.forget(now);
        let mut sums: HashMap<&Counted, (Epoch, u64)> = HashMap::new();
        for (group, counter) in self.windows.iter().flat_map(|(_, window)| &window.counts) {
            let (epoch, commits) = sums.entry(group).or_insert((counter.epoch, 0));
            *epoch = counter.epoch.max(*epoch);
            *commits += counter.count - counter.inherited;
        }
        let mut most: Vec<_> =
            sums.into_iter().map(|(group, (epoch, commits))| (group, epoch, commits)).collect();
        most.sort_by(|(one, _, fewer), (other, _, more)| more.cmp(fewer).then_with(|| one.cmp(other)));
        most.truncate(limit);
        most.into_iter().map(|(group, epoch, commits)| (group.clone(), epoch, commits)).collect()
    }

    /// Forgets the windows that are over.
    fn forget(&mut self, now: Timestamp) {
        let present = now.0 / WINDOW_MS;
        // A clock that was set back leaves windows of the future, which would stay.
        self.windows.retain(|(number, _)| *number <= present && number + WINDOWS > present);
    }
}

impl Window {
    fn count(&mut self, group: Counted, epoch: Epoch) {
        if let Some(counter) = self.counts.get_mut(&group) {
            counter.count += 1;
            counter.epoch = epoch.max(counter.epoch);
            return;
        }
        let mut inherited = 0;
        if self.counts.len() >= COUNTED_MAX {
            let fewest = self.counts.iter().min_by_key(|(_, counter)| counter.count);
            if let Some((fewest, count)) = fewest.map(|(group, counter)| (group.clone(), counter.count)) {
                self.counts.remove(&fewest);
                inherited = count;
            }
        }
        self.counts.insert(group, CommitCounter { count: inherited + 1, inherited, epoch });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: u32) -> GroupId {
        GroupId::new(number.to_be_bytes()).unwrap()
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp(1_800_000_000_000 + ms)
    }

    #[test]
    fn commits_are_counted_for_a_minute() {
        let (mut busiest, app) = (Busiest::default(), AppId::random());
        let mut count = |number, times: u64, ms| {
            (1..=times).for_each(|epoch| busiest.count(app, &group(number), Epoch(epoch), at(ms), at(ms)));
        };
        count(1, 3, 0);
        count(2, 5, 25_000);
        count(1, 4, 30_000);
        let mut most = |ms| -> Vec<(GroupId, u64, u64)> {
            let most = busiest.most(2, at(ms)).into_iter();
            most.map(|((_, group), epoch, commits)| (group, epoch.0, commits)).collect()
        };
        assert_eq!(most(31_000), [(group(1), 4, 7), (group(2), 5, 5)]);
        assert_eq!(most(70_000), [(group(2), 5, 5), (group(1), 4, 4)], "the first window is over");
        assert_eq!(most(200_000), []);
    }

    #[test]
    fn a_busy_group_is_found_among_more_groups_than_are_counted() {
        let (mut busiest, app) = (Busiest::default(), AppId::random());
        for round in 0..20 {
            for number in 0..4 * u32::try_from(COUNTED_MAX).unwrap() {
                busiest.count(app, &group(1_000_000 * (round + 1) + number), Epoch(1), at(0), at(0));
                if number % 20 == 0 {
                    busiest.count(app, &group(7), Epoch(2), at(0), at(0));
                }
            }
        }
        assert!(busiest.windows.iter().all(|(_, window)| window.counts.len() <= COUNTED_MAX));
        let ((_, first), _, commits) = busiest.most(1, at(0)).remove(0);
        assert_eq!(first, group(7));
        assert!((1..=20 * 103).contains(&commits), "never more than there were: {commits}");
    }

    #[test]
    fn old_commits_and_clocks_that_are_ahead_do_no_harm() {
        let (mut busiest, app) = (Busiest::default(), AppId::random());
        busiest.count(app, &group(1), Epoch(1), at(0), at(90_000));
        assert_eq!(busiest.most(9, at(90_000)), []);
        busiest.count(app, &group(2), Epoch(1), at(500_000), at(90_000));
        assert_eq!(busiest.most(9, at(90_000)).len(), 1, "counted now");
        // The clock is set back.
        busiest.count(app, &group(3), Epoch(1), at(10_000), at(10_000));
        assert_eq!(busiest.most(9, at(10_000)).len(), 1);
    }
}
