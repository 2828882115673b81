//! Erasure of what a deleted group leaves: memberships, join infos, history, entries, snapshots. It runs in small batches, and
//! begins again where it was interrupted; see `deleted_groups.rs` for the batch that deletes the group.

use std::{collections::BTreeSet, future::Future};

use super::{
    groups,
    log_entries::entries_of,
    missed,
    records::{LogId, log_key},
    reports,
    retention::{SweepError, blocking},
    table,
};
use crate::{
    engine::{Batch, KeyRange, Slice, Table, View},
    errors::ReadError,
    ids::{AppId, ClientHandle, GroupId},
    store::Store,
};

/// The rows that one batch erases; other batches wait behind it.
const ERASED_MAX: usize = 500;
/// The rows that are read from one view.
const READ_MAX: usize = 2_000;

impl Store {
    /// Erases the memberships of a deleted group, whose members have these handles; `None` if they are not known, and the
    /// memberships of the whole application are searched.
    ///
    /// # Errors
    /// [`SweepError`] when the store cannot be read or written. What was erased before stays so.
    pub async fn erase_memberships(
        &self,
        app: AppId,
        group: &GroupId,
        handles: Option<Vec<ClientHandle>>,
    ) -> Result<(), SweepError> {
        match handles {
            Some(handles) => {
                for some in handles.chunks(ERASED_MAX) {
                    let mut batch = Batch::new();
                    some.iter().for_each(|handle| _ = batch.erase_membership(app, handle, group));
                    self.append(batch).await?;
                }
            }
            None => {
                let mut after = None;
                loop {
                    let (view, of, from) = (self.view(), group.clone(), after.take());
                    let (found, last) =
                        blocking(move || groups::memberships_of_group(&view, app, &of, from, READ_MAX))
                            .await?;
                    self.erase_keys(table::MEMBERSHIPS, found).await?;
                    match last {
                        Some(last) => after = Some(last),
                        None => break,
                    }
                }
            }
        }
        let mut batch = Batch::new();
        batch.note_erased(app, group, false);
        self.append(batch).await?;
        Ok(())
    }

    /// Erases the join infos of deleted groups, with their welcomes and their counts: one pass over all join infos.
    ///
    /// # Errors
    /// As [`Store::erase_memberships`].
    pub async fn erase_join_infos(&self, deleted: &BTreeSet<(AppId, GroupId)>) -> Result<(), SweepError> {
        let mut after = None;
        loop {
            let (view, of, from) = (self.view(), deleted.clone(), after.take());
            let page = blocking(move || {
                let (mut batch, mut read, mut erased) = (Batch::new(), 0, 0);
                for row in view.join_infos_after(from.as_ref()) {
                    let ((app, handle, id), info) = row?;
                    if of.contains(&(app, info.group)) {
                        batch.acknowledge(app, &handle, id);
                        erased += 1;
                    }
                    read += 1;
                    if read == READ_MAX || erased == ERASED_MAX {
                        return Ok((batch, Some((app, handle, id))));
                    }
                }
                Ok((batch, None))
            });
            let (batch, last) = page.await?;
            if !batch.is_empty() {
                self.append(batch).await?;
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Erases everything else of a deleted group whose memberships and join infos are erased, and notes that nothing is left.
    ///
    /// # Errors
    /// As [`Store::erase_memberships`].
    pub async fn erase_group(&self, app: AppId, group: &GroupId) -> Result<(), SweepError> {
        let log = log_key(&LogId::Group(app, group.clone()));
        let history = || entries_of(app, group);
        let ranges = [
            (table::WELCOMES, history().prefix()),
            (table::WELCOME_READERS, history().prefix()),
            (table::ACCEPTED_PROPOSALS, history().prefix()),
            (table::EPOCHS, history().prefix()),
            (table::LOG_ENTRIES, history().prefix()),
            (table::RECORDS, log.clone().prefix()),
            (table::SNAPSHOT_PIECES, log.clone().prefix()),
            (table::ACTOR_SNAPSHOTS, log.clone().through(log)),
            (table::MISSED_ENTRIES, missed::row_range(app, group)),
        ];
        let reports = reports::ranges_of(app, group).map(|range| (table::REPORTS, range));
        for (table, range) in ranges.into_iter().chain(reports) {
            loop {
                let (view, range) = (self.view(), range.clone());
                let found = blocking(move || some_keys(&view, table, range)).await?;
                let is_end = found.len() < ERASED_MAX;
                self.erase_keys(table, found).await?;
                if is_end {
                    break;
                }
            }
        }
        let mut batch = Batch::new();
        batch.note_erased(app, group, true);
        self.append(batch).await?;
        Ok(())
    }

    fn erase_keys(
        &self,
        table: Table,
        keys: Vec<Slice>,
    ) -> impl Future<Output = Result<(), SweepError>> + Send + '_ {
        let mut batch = Batch::new();
        let is_empty = keys.is_empty();
        batch.operation(move |overlay| {
            keys.into_iter().for_each(|key| overlay.delete_at(table, key));
            Ok(())
        });
        async move {
            if !is_empty {
                self.append(batch).await?;
            }
            Ok(())
        }
    }
}

fn some_keys(view: &View, table: Table, range: KeyRange) -> Result<Vec<Slice>, ReadError> {
    view.scan_keys(table, range).take(ERASED_MAX).collect()
}
