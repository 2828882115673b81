//! Recent epochs of a group, kept in memory while its actor is active: members that catch up rarely ask for more.

use std::{collections::VecDeque, sync::Arc};

use snapshots::{Epoch, Timestamp};

use super::{ControlMessages, EpochEntry, GroupView};
use crate::limits::RecentLimits;

/// Consecutive epochs up to the present one; empty when nothing was committed since the group was activated.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentEpochs {
    epochs: VecDeque<Arc<EpochEntry>>,
    bytes: usize,
    /// The same, for readers.
    shown: Arc<[Arc<EpochEntry>]>,
}

impl RecentEpochs {
    /// The size of the kept packets, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes
    }

    /// Adds the epoch that was just made durable.
    pub(crate) fn push(&mut self, entry: EpochEntry, limits: RecentLimits) {
        self.bytes = self.bytes.saturating_add(bytes(&entry));
        self.epochs.push_back(Arc::new(entry));
        while self.bytes > limits.bytes_max || self.epochs.len() as u64 > limits.epochs_max {
            let Some(oldest) = self.epochs.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(bytes(&oldest));
        }
        self.shown = self.epochs.iter().cloned().collect();
    }

    pub(crate) fn shown(&self) -> Arc<[Arc<EpochEntry>]> {
        Arc::clone(&self.shown)
    }
}

fn bytes(entry: &EpochEntry) -> usize {
    entry.commit.len() + entry.proposals.iter().map(Vec::len).sum::<usize>()
}

impl GroupView {
    /// The entries from `from` to `to`, or to the current epoch, as they would be read from disk; `None` if they must be read
    /// from disk.
    pub(crate) fn recent_messages(
        &self,
        range: (Epoch, Option<Epoch>),
        limit: usize,
        bytes_max: usize,
        now: Timestamp,
        limits: RecentLimits,
    ) -> Option<ControlMessages> {
        recent_messages(
            &self.recent,
            self.epoch,
            range,
            (limit, bytes_max),
            now.saturating_sub(limits.age_max),
        )
    }
}

fn recent_messages(
    recent: &[Arc<EpochEntry>],
    current: Epoch,
    (from, to): (Epoch, Option<Epoch>),
    (limit, bytes_max): (usize, usize),
    oldest_kept: Timestamp,
) -> Option<ControlMessages> {
    // The requested epochs may be on disk already, a moment before they are published.
    if from > current {
        return None;
    }
    let first = from.max(Epoch(1));
    let last = to.map_or(current, |to| to.min(current));
    let mut answer = ControlMessages { epochs: Vec::new(), current, next: None };
    if first > last {
        return Some(answer);
    }
    let oldest = recent.first()?;
    let skipped = usize::try_from(first.0.checked_sub(oldest.epoch.0)?).ok()?;
    let mut sum = 0;
    for entry in recent.iter().skip(skipped).take_while(|entry| entry.epoch <= last) {
        // Only the newest is kept for longer.
        if entry.timestamp < oldest_kept && entry.epoch < current {
            return None;
        }
        sum += bytes(entry);
        if answer.epochs.len() >= limit || (sum > bytes_max && !answer.epochs.is_empty()) {
            answer.next = Some(entry.epoch);
            return Some(answer);
        }
        answer.epochs.push(Arc::clone(entry));
    }
    // The readers' epochs must end with the present one.
    let is_whole = answer.epochs.last().is_some_and(|newest| newest.epoch == last);
    is_whole.then_some(answer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(epoch: u64, length: usize) -> EpochEntry {
        EpochEntry {
            epoch: Epoch(epoch),
            timestamp: Timestamp(epoch * 10),
            proposals: vec![vec![1; length / 2]],
            commit: vec![2; length - length / 2],
        }
    }

    fn limits(bytes_max: usize, epochs_max: u64) -> RecentLimits {
        RecentLimits { bytes_max, epochs_max, age_max: Duration::MAX }
    }

    fn kept(recent: &RecentEpochs) -> Vec<u64> {
        recent.shown().iter().map(|entry| entry.epoch.0).collect()
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut recent = RecentEpochs::default();
        for epoch in 5..=9 {
            recent.push(entry(epoch, 10), limits(35, 100));
        }
        assert_eq!(kept(&recent), [7, 8, 9]);
        recent.push(entry(10, 10), limits(35, 2));
        assert_eq!(kept(&recent), [9, 10]);
        recent.push(entry(11, 36), limits(35, 100));
        assert_eq!(kept(&recent), [0; 0], "one that is too large leaves nothing that is whole");
        recent.push(entry(12, 10), limits(35, 100));
        assert_eq!(kept(&recent), [12]);
    }

    /// Epochs 7 to 10 of ten bytes each are kept; the present one is 10.
    fn check(
        (from, to): (u64, Option<u64>),
        (limit, bytes_max): (usize, usize),
        oldest_kept: u64,
        expected: Option<(&[u64], Option<u64>)>,
    ) {
        let mut recent = RecentEpochs::default();
        (7..=10).for_each(|epoch| recent.push(entry(epoch, 10), limits(1000, 100)));
        let found = recent_messages(
            &recent.shown(),
            Epoch(10),
            (Epoch(from), to.map(Epoch)),
            (limit, bytes_max),
            Timestamp(oldest_kept),
        );
        let found = found.map(|found| {
            assert_eq!(found.current, Epoch(10));
            let epochs: Vec<u64> = found.epochs.iter().map(|entry| entry.epoch.0).collect();
            (epochs, found.next.map(|next| next.0))
        });
        assert_eq!(found, expected.map(|(epochs, next)| (epochs.to_vec(), next)), "{from} {to:?}");
    }

    #[test]
    fn what_is_kept_answers_and_the_rest_is_for_the_disk() {
        const ALL: (usize, usize) = (100, 1000);
        check((7, None), ALL, 0, Some((&[7, 8, 9, 10], None)));
        check((9, None), ALL, 0, Some((&[9, 10], None)));
        check((8, Some(9)), ALL, 0, Some((&[8, 9], None)));
        check((10, Some(99)), ALL, 0, Some((&[10], None)));
        check((7, None), (2, 1000), 0, Some((&[7, 8], Some(9))));
        check((7, None), (100, 25), 0, Some((&[7, 8], Some(9))));
        check((7, None), (100, 5), 0, Some((&[7], Some(8))));
        check((6, None), ALL, 0, None);
        check((0, None), ALL, 0, None);
        check((11, None), ALL, 0, None);
        check((9, Some(8)), ALL, 0, Some((&[], None)));
        // What retention would have dropped is not shown, except the newest.
        check((9, None), ALL, 95, None);
        check((10, None), ALL, 105, Some((&[10], None)));
    }
}
