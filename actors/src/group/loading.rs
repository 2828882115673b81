//! Loading of a group: its row, its snapshot and the records after it.

use actix::{ActorContext as _, Context, Handler};
use snapshots::{AppId, GroupId, GroupRow, LogId, View};

use super::{
    GroupMeta, GroupState,
    actor::GroupActor,
    messages::{CloseGroup, Published},
};
use crate::{
    durable::{LoadError, Loaded, load},
    error::StorageError,
};

/// A group's row, and its state with its log.
pub(super) type LoadedGroup = (GroupRow, Loaded<GroupState>);

/// Loads a group, unless it was deleted; blocks. Row and log are read from one view, because another group may replace this one at any time.
///
/// # Errors
/// The reason, which is not logged yet.
pub(super) fn load_group(view: &View, app: AppId, group: &GroupId) -> Result<Option<LoadedGroup>, LoadError> {
    let Some(row) = view.group(app, group)? else { return Ok(None) };
    Ok(Some((row, load(view, &LogId::Group(app, group.clone()))?)))
}

impl GroupActor {
    /// Takes a loaded group and shows it, or stops.
    pub(super) fn loaded(
        &mut self,
        loaded: Result<Option<LoadedGroup>, StorageError>,
        ctx: &mut Context<Self>,
    ) {
        match loaded {
            Ok(Some((row, loaded))) => {
                let row = GroupRow { epoch: loaded.state.epoch(), ..row };
                self.meta = GroupMeta::new(&self.application, self.meta.group.clone(), row);
                self.durable.loaded(loaded);
                self.publish();
            }
            Ok(None) => self.stop_as(Published::Deleted, ctx),
            Err(error) => self.stop_as(Published::Failed(error), ctx),
        }
    }

    /// Shows why there is no state, and stops.
    pub(super) fn stop_as(&mut self, shown: Published, ctx: &mut Context<Self>) {
        self.published.send_replace(shown);
        self.durable.unload();
        ctx.stop();
    }
}

impl Handler<CloseGroup> for GroupActor {
    type Result = ();

    fn handle(&mut self, _: CloseGroup, ctx: &mut Context<Self>) {
        self.stop_as(Published::Deleted, ctx);
    }
}
