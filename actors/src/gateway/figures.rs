//! Figures for operators: active actors, and entries that peers lack.

use snapshots::{DomainName, LogId};

use super::Gateway;
use crate::{error::StorageError, runtime::AwakeActors};

/// The number of marks that are read at a time.
const MARKS_AT_ONCE: usize = 256;

/// What a peer lacks of the groups that this gateway orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerLag {
    /// Groups with entries that it lacks.
    pub groups: u64,
    /// Entries that it lacks in them.
    pub entries: u64,
}

impl Gateway {
    /// The active owners of groups.
    pub fn awake_groups(&self) -> AwakeActors {
        self.registry.awake_groups()
    }

    /// The active owners of key queues.
    pub fn awake_key_queues(&self) -> AwakeActors {
        self.registry.awake_key_queues()
    }

    /// The number of actors that deliver to peers.
    pub fn peer_actors(&self) -> usize {
        self.registry.peers()
    }

    /// What a peer lacks, in at most `groups_max` groups. It reads the disk.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn peer_lag(&self, peer: &DomainName, groups_max: usize) -> Result<PeerLag, StorageError> {
        let view = self.services.store.view();
        let (mut lag, mut left, mut after) = (PeerLag::default(), groups_max, None);
        loop {
            let marks = view.outbox(peer, after.as_ref(), left.min(MARKS_AT_ONCE))?;
            for (app, group) in &marks {
                let head = view.log_head(&LogId::Group(*app, group.clone()))?.unwrap_or(0);
                let next = view.peer_position(peer, *app, group)?.unwrap_or(0);
                // The first entry of a log has the number 1.
                let entries = (head + 1).saturating_sub(next.max(1));
                lag.groups += u64::from(entries > 0);
                lag.entries = lag.entries.saturating_add(entries);
            }
            left = left.saturating_sub(marks.len());
            after = marks.last().cloned();
            if marks.len() < MARKS_AT_ONCE || left == 0 {
                return Ok(lag);
            }
        }
    }
}
