//! Use of key packages by Adds: whether a package may be used once or again and again, and which queues hold it.

use snapshots::{AppId, KeyPackageRef, KeyQueueId, Timestamp, View};

use super::GroupError;
use crate::{error::StorageError, mls::AddedMember};

/// How a key package may be used.
#[derive(Clone, Debug)]
pub(crate) struct PackageUse {
    pub(crate) reference: KeyPackageRef,
    pub(crate) not_after: Timestamp,
    /// It is not a final key: using it advances its queues and it is never used again.
    pub(crate) once: bool,
    pub(crate) queues: Vec<KeyQueueId>,
}

impl PackageUse {
    /// Looks up every package that a commit adds.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) fn look_up_all(
        view: &View,
        app: AppId,
        added: &[AddedMember],
    ) -> Result<Vec<Self>, StorageError> {
        let look_up = |added: &AddedMember| {
            let (once, queues) = used_once(view, app, &added.reference, added.last_resort)?;
            Ok(Self { reference: added.reference.clone(), not_after: added.not_after, once, queues })
        };
        added.iter().map(look_up).collect()
    }

    /// Whether a package is used once only; see [`used_once`].
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) fn is_once(
        view: &View,
        app: AppId,
        reference: &KeyPackageRef,
        last_resort: bool,
    ) -> Result<bool, StorageError> {
        used_once(view, app, reference, last_resort).map(|(once, _)| once)
    }

    /// # Errors
    /// [`GroupError::KeyPackageReused`] if a package was used before, whatever it says of itself.
    pub(crate) fn require_unused<'a>(
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
}

/// Whether a package is used once only, and the queues here that hold it: one that they hold is final if it is their final
/// key; any other is final if it carries the last-resort extension.
pub(super) fn used_once(
    view: &View,
    app: AppId,
    reference: &KeyPackageRef,
    last_resort: bool,
) -> Result<(bool, Vec<KeyQueueId>), StorageError> {
    let holders = view.queues_holding(app, reference)?;
    let once =
        if holders.is_empty() { !last_resort } else { holders.iter().any(|(_, _, row)| !row.is_final) };
    Ok((once, holders.into_iter().map(|(queue, _, _)| queue).collect()))
}
