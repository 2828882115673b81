//! Deletion of groups: at the hub by request, and at its followers by its delivery.

use snapshots::{AppId, AppendError, Batch, DomainName, GroupId, Timestamp, Unmet, View};

use super::{
    Gateway,
    replicas::{Order, others_group, unwritten},
};
use crate::{
    application::Application,
    deletions::{DeletionCause, DeletionCounts},
    error::StorageError,
    group::{GroupError, GroupMeta},
    peer::ReplicationAck,
};

/// The number of tries to delete a group that is replaced by another one of its id meanwhile.
const ATTEMPTS: usize = 3;

impl Gateway {
    /// Deletes a group that this gateway orders. From then on every read and write of it is refused with
    /// [`GroupError::UnknownGroup`], and its id stays taken for `deleted_age_max`. The rows that belong to it are erased soon
    /// after, here and at its followers. Deleting it again is no error while the id is taken.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::NotHub`], or that the gateway cannot write.
    pub async fn delete_group(&self, app: AppId, group: &GroupId) -> Result<(), GroupError> {
        let application = self.group_application(app)?;
        for _ in 0..ATTEMPTS {
            let view = self.services.store.view();
            let Some(row) = view.group(app, group).map_err(StorageError::from)? else {
                let deleted = view.deleted_group(app, group).map_err(StorageError::from)?;
                let hub = deleted.ok_or(GroupError::UnknownGroup)?.hub;
                // The first request may have ended before the disk did.
                self.registry.close_group(app, group);
                return check_hub(application, hub);
            };
            check_hub(application, row.hub.clone())?;
            let meta = GroupMeta::new(application, group.clone(), row);
            match self.registry.delete_group(&meta, DeletionCause::Request, None).await {
                Ok(()) => return Ok(()),
                Err(AppendError::Precondition(Unmet::GroupReplaced)) => {}
                Err(error) => return Err(unwritten(&error, "the group")),
            }
        }
        Err(StorageError::Changed.into())
    }

    /// Takes the deletion of a group by its hub into the replica here. If there is none, the id is taken all the same, so that
    /// no late delivery creates the replica.
    pub(super) async fn receive_deletion(
        &self,
        application: &Application,
        group: &GroupId,
        (hub, order): (DomainName, Order),
        deleted_at: Timestamp,
    ) -> Result<ReplicationAck, GroupError> {
        self.check_skew(deleted_at)?;
        let app = application.id;
        let row = match order {
            Order::Others { .. } => return Err(others_group()),
            Order::Nobodys => {
                let room = self.services.replicas.take(&self.services, app, &hub).await?;
                let mut batch = Batch::new();
                batch.note_deleted_group(app, group, &hub, self.services.clock.now());
                match self.services.store.append(batch).await {
                    Ok(_) => room.keep(),
                    // The same delivery came twice concurrently.
                    Err(AppendError::Precondition(Unmet::GroupDeleted)) => {}
                    // The group has just come here: the hub sends the deletion again.
                    Err(AppendError::Precondition(_)) => return Err(GroupError::Busy),
                    Err(error) => return Err(unwritten(&error, "the group")),
                }
                return self.held(app, group);
            }
            Order::Hubs => self.group_row(app, group)?,
        };
        let meta = GroupMeta::new(application, group.clone(), row);
        match self.registry.delete_group(&meta, DeletionCause::Hub, None).await {
            Ok(()) => self.held(app, group),
            Err(AppendError::Precondition(_)) => Err(GroupError::Busy),
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    /// The deletions of groups since the start.
    pub fn deletions(&self) -> DeletionCounts {
        self.services.deletions.counts()
    }

    /// The number of deleted groups whose rows are still to be erased, counted up to `max`. It reads the disk.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn groups_to_erase(&self, max: usize) -> Result<usize, StorageError> {
        Ok(self.services.store.view().groups_to_erase(max)?.len())
    }
}

/// Whether a group that is not here was deleted, and by which hub.
pub(super) fn deleted_by(
    view: &View,
    app: AppId,
    group: &GroupId,
) -> Result<Option<Option<DomainName>>, StorageError> {
    Ok(view.deleted_group(app, group)?.map(|row| row.hub))
}

fn check_hub(application: &Application, hub: Option<DomainName>) -> Result<(), GroupError> {
    match hub {
        Some(hub) if !application.is_hub(Some(&hub)) => Err(GroupError::NotHub { hub }),
        Some(_) | None => Ok(()),
    }
}
