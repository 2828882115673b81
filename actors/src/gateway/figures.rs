//! Figures for operators: active actors, applications and their clients, entries that peers lack, one group and its epochs.

use snapshots::{
    AppId, ClientId, ClientRow, DomainName, Epoch, GroupId, KeyQueueId, LogId, QueueCounts, Timestamp, Usage,
    View,
};

use super::Gateway;
use crate::{
    disagreements::PeerDisagreement,
    error::StorageError,
    group::{GroupError, control_messages},
    lost_commits::LostCommit,
    mls::sender_leaf,
    runtime::AwakeActors,
};

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

/// What the store has of an application, each counted up to a number that the caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationFigures {
    /// Its clients.
    pub clients: usize,
    /// Its groups.
    pub groups: usize,
    /// The key packages in its queues: assigned ones and final keys, too.
    pub key_packages: usize,
    /// What its quotas limit, exactly.
    pub usage: Usage,
}

/// The key queues of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFigures {
    /// Their number.
    pub queues: usize,
    /// The key packages in all of them.
    pub key_packages: QueueCounts,
}

/// What the store has of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFigures {
    /// When its hub accepted its creation.
    pub created_at: Timestamp,
    /// The number of entries that its log has had after the creation.
    pub log_entries: u64,
    /// The oldest epoch whose commit is kept.
    pub oldest_epoch: Option<Epoch>,
    /// The peers that follow it, each with the number of entries that it lacks; none if another gateway orders it.
    pub followers: Vec<(DomainName, u64)>,
}

/// An epoch and the commit that created it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochFigures {
    /// The epoch.
    pub epoch: Epoch,
    /// When the hub accepted the commit.
    pub timestamp: Timestamp,
    /// The leaf index of the member that committed; `None` for an external commit.
    pub committer: Option<u32>,
    /// The size of the commit, in bytes.
    pub commit_bytes: usize,
    /// The number of proposals that it includes by reference.
    pub proposals: usize,
    /// The newest commits that were refused because this one was accepted first, oldest first, as far as they are kept. They
    /// are in memory only.
    pub lost: Vec<LostCommit>,
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

    /// What the store has of an application, each counted up to `max`. It reads the disk.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn application_figures(&self, app: AppId, max: usize) -> Result<ApplicationFigures, StorageError> {
        let view = self.services.store.view();
        Ok(ApplicationFigures {
            clients: view.count_clients(app, max)?,
            groups: view.count_groups(app, max)?,
            key_packages: view.count_key_packages(app, max)?,
            usage: view.usage(app)?,
        })
    }

    /// At most `limit` clients of an application, of all domains, in the order of their ids, after the one given. It reads the
    /// disk.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn clients_after(
        &self,
        app: AppId,
        after: Option<ClientId>,
        limit: usize,
    ) -> Result<Vec<ClientRow>, StorageError> {
        Ok(self.services.store.view().all_clients(app, after, limit)?)
    }

    /// The key queues of a client and the packages in them; none if there is no such client. It reads the disk, and loads no
    /// queue.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn client_figures(&self, app: AppId, client: ClientId) -> Result<ClientFigures, StorageError> {
        let (view, now) = (self.services.store.view(), self.services.clock.now());
        let mut figures = ClientFigures::default();
        for queue in view.queues(app, client)? {
            let counts = view.queue_counts(app, queue.queue_id, now)?;
            figures.queues += 1;
            figures.key_packages.held += counts.held;
            figures.key_packages.available += counts.available;
        }
        Ok(figures)
    }

    /// The key packages of a queue; `None` if the client has no such queue. It reads the disk, and loads no queue.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn queue_figures(
        &self,
        app: AppId,
        client: ClientId,
        queue: KeyQueueId,
    ) -> Result<Option<QueueCounts>, StorageError> {
        let (view, now) = (self.services.store.view(), self.services.clock.now());
        if view.queue(app, client, queue)?.is_none() {
            return Ok(None);
        }
        Ok(Some(view.queue_counts(app, queue, now)?))
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
                let entries = lacking(&view, peer, *app, group)?;
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

    /// The groups in which this gateway and a peer disagree, as was found since the start.
    pub fn peer_disagreement(&self, peer: &DomainName) -> PeerDisagreement {
        self.services.disagreements.with(peer)
    }

    /// What the store has of a group. It reads the disk.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::Stopping`], or that the store cannot be read.
    pub fn group_figures(&self, app: AppId, group: &GroupId) -> Result<GroupFigures, GroupError> {
        let application = self.group_application(app)?;
        let row = self.group_row(app, group)?;
        let view = self.services.store.view();
        let log = LogId::Group(app, group.clone());
        let log_entries = view.log_head(&log).map_err(StorageError::from)?.unwrap_or(0);
        let mut followers = Vec::new();
        if application.is_hub(row.hub.as_ref()) {
            for peer in application.federates_with.iter() {
                let lacks = lacking(&view, peer, app, group)?;
                followers.push((peer.clone(), lacks));
            }
        }
        let oldest_epoch = view.first_epoch(app, group).map_err(StorageError::from)?;
        Ok(GroupFigures { created_at: row.created_at, log_entries, oldest_epoch, followers })
    }

    /// At most `limit` epochs of a group before one of them, or from the current one on, the newest first. It ends at the
    /// oldest epoch that is kept. It reads the disk.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::Stopping`], or that the store cannot be read.
    pub fn epochs_before(
        &self,
        app: AppId,
        group: &GroupId,
        before: Option<Epoch>,
        limit: usize,
    ) -> Result<Vec<EpochFigures>, GroupError> {
        self.group_application(app)?;
        let current = self.group_row(app, group)?.epoch;
        let view = self.services.store.view();
        let mut next = before.map_or(Some(current), Epoch::previous).map(|epoch| epoch.min(current));
        let mut epochs = Vec::new();
        while let Some(epoch) = next.filter(|epoch| epoch.0 > 0 && epochs.len() < limit) {
            // One at a time, because their commits may be large.
            let read = control_messages(&view, app, group, (epoch, Some(epoch)), 1, usize::MAX);
            let found = match read {
                Ok(read) => read.epochs,
                Err(GroupError::EpochsPruned { .. }) => break,
                Err(error) => return Err(error),
            };
            let Some(entry) = found.first().filter(|entry| entry.epoch == epoch) else { break };
            epochs.push(EpochFigures {
                epoch,
                timestamp: entry.timestamp,
                committer: sender_leaf(&entry.commit),
                commit_bytes: entry.commit.len(),
                proposals: entry.proposals.len(),
                lost: epoch
                    .previous()
                    .map(|made_in| self.services.lost_commits.of(app, group, made_in))
                    .unwrap_or_default(),
            });
            next = epoch.previous();
        }
        Ok(epochs)
    }
}

/// The number of entries of a group's log that a peer lacks.
fn lacking(view: &View, peer: &DomainName, app: AppId, group: &GroupId) -> Result<u64, StorageError> {
    let head = view.log_head(&LogId::Group(app, group.clone()))?.unwrap_or(0);
    let next = view.peer_position(peer, app, group)?.unwrap_or(0);
    // The creation of the group is entry 0.
    Ok(head.saturating_add(1).saturating_sub(next))
}
