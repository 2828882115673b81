//! Groups of a search that failed and are to be tried again.

use std::collections::BTreeSet;

use snapshots::GroupId;

/// The most groups that are remembered one by one. If there are others, all groups from the first that failed on are looked through
/// again.
const REMEMBERED_MAX: usize = 1024;

/// How often that is done although no remembered group has succeeded.
const LAPS_MAX: u32 = 10;

/// The groups that failed since the present lap began.
#[derive(Clone, Debug, Default)]
pub(super) struct Failed {
    remembered: BTreeSet<GroupId>,
    /// The number of others.
    others: usize,
    /// The laps that were made because of others.
    laps: u32,
}

impl Failed {
    pub(super) fn add(&mut self, group: &GroupId) {
        if self.remembered.contains(group) {
            return;
        }
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(group.clone());
        } else {
            self.others += 1;
        }
    }

    pub(super) fn remove(&mut self, group: &GroupId) {
        self.remembered.remove(group);
    }

    pub(super) fn remembered(&self) -> &BTreeSet<GroupId> {
        &self.remembered
    }

    pub(super) fn count(&self) -> usize {
        self.remembered.len() + self.others
    }

    /// Whether all groups are to be looked through again before the remembered ones are tried; forgets them if so.
    pub(super) fn begin_lap(&mut self) -> bool {
        let is_better = self.remembered.len() < REMEMBERED_MAX;
        let begins = self.others > 0 && (is_better || self.laps < LAPS_MAX);
        if begins {
            *self = Self { laps: self.laps.saturating_add(1), ..Self::default() };
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: usize) -> GroupId {
        GroupId::new(number.to_be_bytes()).unwrap()
    }

    /// Adds groups from one number on.
    fn fail(failed: &mut Failed, from: usize, count: usize) {
        (from..from + count).for_each(|number| failed.add(&group(number)));
    }

    #[test]
    fn what_is_remembered_makes_no_lap() {
        let mut failed = Failed::default();
        fail(&mut failed, 0, REMEMBERED_MAX);
        // Tried once more.
        fail(&mut failed, 0, REMEMBERED_MAX);
        assert_eq!((failed.count(), failed.begin_lap()), (REMEMBERED_MAX, false));
        assert_eq!(failed.remembered().len(), REMEMBERED_MAX);
    }

    #[test]
    fn laps_end_unless_a_remembered_group_succeeds() {
        let mut failed = Failed::default();
        fail(&mut failed, 0, REMEMBERED_MAX + 7);
        for lap in 0..LAPS_MAX {
            assert_eq!(failed.count(), REMEMBERED_MAX + 7);
            assert!(failed.begin_lap(), "{lap}");
            assert_eq!(failed.count(), 0);
            fail(&mut failed, 0, REMEMBERED_MAX + 7);
        }
        for _ in 0..3 {
            assert!(!failed.begin_lap());
            fail(&mut failed, 0, REMEMBERED_MAX);
            assert_eq!(failed.count(), REMEMBERED_MAX + 7);
        }
        failed.remove(&group(5));
        assert!(failed.begin_lap());
        // All have succeeded but for these.
        fail(&mut failed, 0, 3);
        assert_eq!((failed.count(), failed.begin_lap()), (3, false));
    }
}
