//! Commits that lost their epoch: another commit of the epoch was accepted first.
//!
//! Lost commits are not stored. The newest ones are kept in memory, for operators who look at a group.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use snapshots::{AppId, Epoch, GroupId, Timestamp};

/// The groups whose lost commits are kept; those of the group that lost its first commit earliest go first.
const GROUPS_MAX: usize = 1024;
/// The lost commits of one group that are kept.
const PER_GROUP_MAX: usize = 64;

/// A commit that was refused because its epoch had a commit already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostCommit {
    /// The leaf index that the commit names as its sender, which is not verified; `None` for an external commit.
    pub committer: Option<u32>,
    /// When it came.
    pub at: Timestamp,
}

/// The newest lost commits of all groups.
#[derive(Debug, Default)]
pub(crate) struct LostCommits(Mutex<KeptLosses>);

/// A lost commit, as it is noted.
#[derive(Debug)]
struct Noted {
    /// The epoch in which it was made.
    made_in: Epoch,
    /// A digest of its bytes, by which it is known when it is sent again.
    digest: u64,
    lost: LostCommit,
}

#[derive(Debug, Default)]
struct KeptLosses {
    /// The lost commits of each group, oldest first.
    groups: HashMap<(AppId, GroupId), VecDeque<Noted>>,
    /// The groups, the one with the earliest first loss first.
    order: VecDeque<(AppId, GroupId)>,
}

impl LostCommits {
    /// Notes a commit that was made in `epoch`; one that is sent again is noted once.
    pub(crate) fn note(
        &self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
        (commit, lost): (&[u8], LostCommit),
    ) {
        let digest = BuildHasherDefault::<DefaultHasher>::default().hash_one(commit);
        let name = (app, group.clone());
        let mut kept = self.kept();
        let KeptLosses { groups, order } = &mut *kept;
        if !groups.contains_key(&name) {
            if order.len() >= GROUPS_MAX
                && let Some(oldest) = order.pop_front()
            {
                groups.remove(&oldest);
            }
            order.push_back(name.clone());
        }
        let commits = groups.entry(name).or_default();
        if commits.iter().any(|noted| noted.digest == digest) {
            return;
        }
        if commits.len() >= PER_GROUP_MAX {
            commits.pop_front();
        }
        commits.push_back(Noted { made_in: epoch, digest, lost });
    }

    /// The lost commits that were made in `epoch`, oldest first.
    pub(crate) fn of(&self, app: AppId, group: &GroupId, epoch: Epoch) -> Vec<LostCommit> {
        let kept = self.kept();
        let commits = kept.groups.get(&(app, group.clone())).into_iter().flatten();
        commits.filter(|noted| noted.made_in == epoch).map(|noted| noted.lost).collect()
    }

    fn kept(&self) -> MutexGuard<'_, KeptLosses> {
        // It is consistent between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: usize) -> GroupId {
        GroupId::new(number.to_be_bytes()).unwrap()
    }

    fn lost(leaf: usize) -> LostCommit {
        LostCommit { committer: u32::try_from(leaf).ok(), at: Timestamp(7) }
    }

    #[test]
    fn the_newest_of_each_group_are_kept_by_epoch() {
        let (commits, app) = (LostCommits::default(), AppId::random());
        for leaf in 0..=PER_GROUP_MAX {
            // The second time it is sent again.
            for _ in 0..2 {
                commits.note(app, &group(1), Epoch(leaf as u64 % 2), (&leaf.to_be_bytes(), lost(leaf)));
            }
        }
        let even: Vec<_> = (2..=PER_GROUP_MAX).step_by(2).map(lost).collect();
        assert_eq!(commits.of(app, &group(1), Epoch(0)), even);
        assert_eq!(commits.of(app, &group(1), Epoch(1)).len(), PER_GROUP_MAX / 2);
        assert_eq!(commits.of(app, &group(2), Epoch(0)), []);
        assert_eq!(commits.of(AppId::random(), &group(1), Epoch(0)), []);
    }

    #[test]
    fn the_groups_are_bounded() {
        let (commits, app) = (LostCommits::default(), AppId::random());
        for number in 0..=GROUPS_MAX {
            commits.note(app, &group(number), Epoch(1), (b"commit", lost(number)));
        }
        assert_eq!(commits.of(app, &group(0), Epoch(1)), []);
        assert_eq!(commits.of(app, &group(1), Epoch(1)), [lost(1)]);
        assert_eq!(commits.of(app, &group(GROUPS_MAX), Epoch(1)), [lost(GROUPS_MAX)]);
        let kept = commits.kept();
        assert_eq!((kept.groups.len(), kept.order.len()), (GROUPS_MAX, GROUPS_MAX));
    }
}
