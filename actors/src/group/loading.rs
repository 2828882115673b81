//! Loading of a group: its row, its snapshot and the records after it.

use actix::{ActorContext as _, Context};
use snapshots::{AppId, GroupId, GroupRow, LogId, View};

use super::{GroupMeta, GroupState, actor::GroupActor, messages::Published};
use crate::{
    durable::{Loaded, load},
    error::StorageError,
};

/// A group's row, and its state with its log.
pub(super) type LoadedGroup = (GroupRow, Loaded<GroupState>);

/// Loads a group; blocks. Row and log are read from one view, because another group may replace this one at any time.
pub(super) fn load_group(view: &View, app: AppId, group: &GroupId) -> Result<LoadedGroup, StorageError> {
    let row = view.group(app, group)?.ok_or(StorageError::Unreadable)?;
    Ok((row, load(view, &LogId::Group(app, group.clone()))?))
}

impl GroupActor {
    /// Takes a loaded group and shows it, or stops.
    pub(super) fn loaded(&mut self, loaded: Result<LoadedGroup, StorageError>, ctx: &mut Context<Self>) {
        match loaded {
            Ok((row, loaded)) => {
                let row = GroupRow { epoch: loaded.state.epoch(), ..row };
                self.meta = GroupMeta::new(&self.application, self.meta.group.clone(), row);
                self.durable.loaded(loaded);
                self.publish();
            }
            Err(error) => {
                self.published.send_replace(Published::Failed(error));
                self.durable.unload();
                ctx.stop();
            }
        }
    }
}
