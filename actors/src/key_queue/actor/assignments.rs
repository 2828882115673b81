//! Assignments as the store remembers them: the receivers of uploaded packages, and packages that were not used in time.

use snapshots::{AppId, AssignedRow, KeyPackageRef, View};

use super::{
    super::{KeyQueueError, NewPackage, Receiver, state::KeyQueueState},
    KeyQueueActor,
};
use crate::error::StorageError;

/// A receiver's package that was not used in time, by the row of its assignment. It is dropped when the receiver gets another one.
pub(super) struct UnusedPackage {
    pub(super) reference: KeyPackageRef,
    pub(super) row: AssignedRow,
}

/// Packages of an upload, each with the row of its assignment, if it was assigned before.
pub(super) type Packages = Vec<(NewPackage, Option<AssignedRow>)>;

/// Takes the packages out of a state that the store has as dropped.
pub(super) fn take_out_dropped(
    state: &mut KeyQueueState,
    view: &View,
    app: AppId,
) -> Result<(), StorageError> {
    let references: Vec<KeyPackageRef> = state.assigned_references().cloned().collect();
    for reference in references {
        if view.assigned(app, &reference)?.is_some_and(|row| row.is_dropped) {
            state.advance(&reference);
        }
    }
    Ok(())
}

impl KeyQueueActor {
    /// The receiver's package, if it was not used in time. One whose assignment is forgotten, or that cannot be remembered as
    /// dropped, stays the receiver's.
    pub(super) fn unused_package(
        &self,
        view: &View,
        receiver: &Receiver,
    ) -> Result<Option<UnusedPackage>, KeyQueueError> {
        let Some(reference) = self.durable.state()?.package_of(receiver) else { return Ok(None) };
        let Some(row) = view.assigned(self.app, reference).map_err(StorageError::from)? else {
            return Ok(None);
        };
        let is_unused = match self.services.oldest_assignment_kept() {
            _ if row.is_dropped => true,
            Some(oldest_kept) if row.is_unused_since(oldest_kept) => {
                let dropped = view.dropped_key_packages(self.app, self.client).map_err(StorageError::from)?;
                dropped < self.services.dropped_per_client_max
            }
            Some(_) | None => false,
        };
        Ok(is_unused.then(|| UnusedPackage { reference: reference.clone(), row }))
    }

    /// The packages of an upload with their earlier receivers, in this queue or another one. Those that were dropped after an
    /// assignment are left out: somebody knows them, so no other receiver may get them.
    pub(super) fn with_receivers(&self, packages: &[NewPackage]) -> Result<Packages, KeyQueueError> {
        let view = self.services.store.view();
        let with_receiver = |package: &NewPackage| {
            let row = view.assigned(self.app, &package.reference).map_err(StorageError::from)?;
            // A package that became a final key since it was checked, and is gone, is left out: no client is expected to hold
            // it.
            let row = row.filter(|row| !row.is_of_final_key());
            if row.as_ref().is_some_and(|row| row.is_dropped) {
                return Ok(None);
            }
            let receiver = row.clone().map(Receiver::from);
            Ok(Some((NewPackage { receiver, ..package.clone() }, row)))
        };
        packages.iter().filter_map(|package| with_receiver(package).transpose()).collect()
    }

    /// The row of a package that was a final key before; `None` if it was not.
    pub(super) fn former_final_key(
        &self,
        package: &NewPackage,
    ) -> Result<Option<AssignedRow>, KeyQueueError> {
        let view = self.services.store.view();
        let row = view.assigned(self.app, &package.reference).map_err(StorageError::from)?;
        Ok(row.filter(AssignedRow::is_of_final_key))
    }
}
