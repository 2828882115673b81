//! Use of key packages by Adds: once only, or more than once for packages of last resort.

use snapshots::{AppId, AssignedRow, KeyPackageRef, View};

use super::GroupError;
use crate::error::StorageError;

/// # Errors
/// [`GroupError::KeyPackageReused`] if a package was used before, even one marked as of last resort.
pub(super) fn require_unused<'a>(
    view: &View,
    app: AppId,
    references: impl IntoIterator<Item = &'a KeyPackageRef>,
) -> Result<(), GroupError> {
    references.into_iter().try_for_each(|reference| {
        match view.used(app, reference).map_err(StorageError::from)? {
            Some(_) => Err(GroupError::KeyPackageReused { reference: reference.clone(), proposal: None }),
            None => Ok(()),
        }
    })
}

/// Whether a package may be used only once. It may be used again if it is the final key of the queues here that hold it, or, if
/// no queue holds it, if it was a final key here, or carries the last-resort extension and was not dropped after an assignment. The
/// store decides it in the same way when a commit is written.
///
/// # Errors
/// That the store cannot be read.
pub(super) fn is_used_once(
    view: &View,
    app: AppId,
    reference: &KeyPackageRef,
    last_resort: bool,
) -> Result<bool, StorageError> {
    let holders = view.queues_holding(app, reference)?;
    if holders.is_empty() {
        return Ok(AssignedRow::is_used_once(view.assigned(app, reference)?.as_ref(), last_resort));
    }
    Ok(holders.iter().any(|(_, _, row)| !row.is_final))
}
