//! The newest part of a group's past, kept while its actor is awake: members who catch up rarely ask for more, and need
//! not go to the disk for it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use snapshots::{Epoch, Retention, Timestamp};

use super::{ControlMessages, EpochEntry, GroupView};

/// Consecutive epochs up to the present one; empty when nothing was committed since the group woke up.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentEpochs {
    epochs: VecDeque<Arc<EpochEntry>>,
    bytes: usize,
    /// The same, for readers.
    shown: Arc<[Arc<EpochEntry>]>,
}

/// How much of the past is kept in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecentLimits {
    /// Packets of one group, in bytes.
    pub(crate) bytes_max: usize,
    /// Epochs: no more than retention leaves on disk.
    pub(crate) epochs_max: u64,
    /// What is older than retention leaves on disk is not shown.
    pub(crate) age_max: Duration,
}

impl RecentLimits {
    pub(crate) fn new(bytes_max: usize, retention: &Retention) -> Self {
        Self { bytes_max, epochs_max: retention.history_epochs_max, age_max: retention.history_age_max }
    }
}

impl RecentEpochs {
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
    /// The entries from `from` to `to`, or to the current epoch, as they are read from disk; `None` when the disk has to be
    /// asked for them.
    pub(crate) fn recent_messages(
        &self,
        (from, to): (Epoch, Option<Epoch>),
        limit: usize,
        bytes_max: usize,
        now: Timestamp,
        limits: RecentLimits,
    ) -> Option<ControlMessages> {
        let current = self.epoch;
        let first = from.max(Epoch(1));
        let last = to.map_or(current, |to| to.min(current));
        let mut answer = ControlMessages { epochs: Vec::new(), current, next: None };
        if first > last {
            return Some(answer);
        }
        let oldest = self.recent.first()?;
        let skipped = usize::try_from(first.0.checked_sub(oldest.epoch.0)?).ok()?;
        let entries = self.recent.iter().skip(skipped).take_while(|entry| entry.epoch <= last);
        let mut sum = 0;
        for entry in entries {
            // Only the newest is kept for longer.
            if entry.timestamp < now.saturating_sub(limits.age_max) && entry.epoch < current {
                return None;
            }
            sum += bytes(entry);
            if answer.epochs.len() >= limit || (sum > bytes_max && !answer.epochs.is_empty()) {
                answer.next = Some(entry.epoch);
                return Some(answer);
            }
            answer.epochs.push(Arc::clone(entry));
        }
        // What readers see ends with the present epoch, or something is missing.
        let is_whole = answer.epochs.last().is_some_and(|newest| newest.epoch == last);
        is_whole.then_some(answer)
    }
}
