//! State shared by the players of one group: the active players, and the acknowledged commits.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use actors::{ClientHandle, Epoch, GroupId};
use tokio::sync::watch;

use super::verify::{EpochCommit, PacketDigest};

/// One group of a run.
#[derive(Debug)]
pub(super) struct Scoreboard {
    pub(super) id: GroupId,
    /// Members that are leaves only.
    pub(super) leaves: Vec<ClientHandle>,
    busy: watch::Sender<usize>,
    ledger: Mutex<Ledger>,
}

/// The answers to the group's players.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) acknowledged: Vec<EpochCommit>,
    pub(super) unanswered: BTreeSet<PacketDigest>,
    /// Uploads and accepted ones of each committer.
    pub(super) committers: Vec<(u64, u64)>,
}

impl Scoreboard {
    pub(super) fn new(
        id: GroupId,
        leaves: Vec<ClientHandle>,
        acknowledged: Vec<EpochCommit>,
        committers: usize,
    ) -> Self {
        let ledger =
            Ledger { acknowledged, unanswered: BTreeSet::new(), committers: vec![(0, 0); committers] };
        Self { id, leaves, busy: watch::Sender::new(0), ledger: Mutex::new(ledger) }
    }

    pub(super) fn begin(&self) {
        self.busy.send_modify(|busy| *busy += 1);
    }

    pub(super) fn finish(&self) {
        self.busy.send_modify(|busy| *busy = busy.saturating_sub(1));
    }

    /// Waits until all players are idle.
    pub(super) async fn quiet(&self) {
        // The sender is alive here, so this cannot fail.
        let _ = self.busy.subscribe().wait_for(|busy| *busy == 0).await;
    }

    /// The newest epoch that a player was told of.
    pub(super) fn newest(&self) -> Epoch {
        self.ledger().acknowledged.last().map_or(Epoch(0), |newest| newest.epoch)
    }

    /// No code panics under this lock, so poison can be ignored.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
