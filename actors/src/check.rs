//! The check of a whole store: all rows agree, and each group and key queue is restored to the state that the rows tell of.

use std::collections::{BTreeMap, btree_map::Entry};

use snapshots::{AppId, Epoch, GroupId, KeyPackageRef, LogId, ReadError, Timestamp, View};

use crate::{
    durable::{Loaded, load},
    group::GroupState,
    key_queue::KeyQueueState,
    mls::welcome_references,
};

/// The logs that are read at once.
const LOGS_AT_ONCE: usize = 256;
/// The faults that are kept; further ones are counted.
const FAULTS_MAX: usize = 100;

/// The outcome of [`check_store`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedStore {
    /// The groups that were restored.
    pub groups: u64,
    /// The key queues that were restored.
    pub key_queues: u64,
    /// The key packages that welcomes name, each as used.
    pub used_key_packages: u64,
    /// The first faults, up to 100, each a line of text.
    pub faults: Vec<String>,
    /// The number of all faults.
    pub faults_count: u64,
}

impl CheckedStore {
    fn fault(&mut self, fault: String) {
        self.faults_count += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

/// Checks a store: that every row can be read and agrees with those that belong to it; that each group's snapshot and the records
/// after it lead to the epoch and the members that are stored; that a key queue holds what is stored as held; and that no key
/// package was used by two commits. Key packages that have expired at `now` may be gone. It reads everything, and blocks the thread.
///
/// # Errors
/// [`ReadError::Storage`] when the disk fails, or a block on it has the wrong checksum.
pub fn check_store(view: &View, now: Timestamp) -> Result<CheckedStore, ReadError> {
    let mut checked = CheckedStore::default();
    view.check_rows(|fault| checked.fault(fault))?;
    let mut after = None;
    loop {
        let logs = match view.logs(after.as_ref(), LOGS_AT_ONCE) {
            Err(ReadError::Damaged { what }) => {
                checked.fault(what);
                return Ok(checked);
            }
            logs => logs?,
        };
        for log in &logs {
            let fault = match log {
                LogId::Group(app, group) => {
                    checked.groups += 1;
                    check_group(view, *app, group)
                }
                LogId::KeyQueue(app, _) => {
                    checked.key_queues += 1;
                    check_queue(view, *app, log, now)
                }
            };
            match fault {
                Ok(Some(fault)) | Err(ReadError::Damaged { what: fault }) => checked.fault(fault),
                Ok(None) => {}
                Err(error @ ReadError::Storage(_)) => return Err(error),
            }
        }
        match logs.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    check_welcomes(view, &mut checked)?;
    Ok(checked)
}

fn check_group(view: &View, app: AppId, group: &GroupId) -> Result<Option<String>, ReadError> {
    let Ok(Loaded { state, .. }) = load::<GroupState>(view, &LogId::Group(app, group.clone())) else {
        return Ok(Some(format!("the group {group:?} cannot be restored")));
    };
    let row = view.group(app, group)?;
    if row.is_none_or(|row| row.epoch != state.epoch()) {
        return Ok(Some(format!(
            "the group {group:?} is restored to epoch {:?}, which is not stored",
            state.epoch()
        )));
    }
    for member in state.members() {
        if !view.is_member(app, member.handle, member.domain, group)? {
            return Ok(Some(format!("the member {:?} of {group:?} is not stored as one", member.handle)));
        }
    }
    Ok(None)
}

fn check_queue(view: &View, app: AppId, log: &LogId, now: Timestamp) -> Result<Option<String>, ReadError> {
    let LogId::KeyQueue(_, queue) = log else { return Ok(None) };
    let Ok(Loaded { state, .. }) = load::<KeyQueueState>(view, log) else {
        return Ok(Some(format!("the key queue {queue} cannot be restored")));
    };
    // A package that was used, has expired or was dropped leaves the queue's state when the queue is next activated.
    for reference in state.references_at(now) {
        let is_held = view.queues_holding(app, reference)?.iter().any(|(holder, ..)| holder == queue);
        if is_held || view.used(app, reference)?.is_some() {
            continue;
        }
        if view.assigned(app, reference)?.is_none_or(|row| !row.is_dropped) {
            return Ok(Some(format!("the key queue {queue} has {reference:?}, which is not stored as held")));
        }
    }
    Ok(None)
}

/// Checks that each key package that a welcome names was used by the commit of that welcome, and by no other.
fn check_welcomes(view: &View, checked: &mut CheckedStore) -> Result<(), ReadError> {
    let mut used: BTreeMap<(AppId, KeyPackageRef), (GroupId, Epoch)> = BTreeMap::new();
    for welcome in view.all_welcomes() {
        let (app, group, epoch, row) = match welcome {
            Err(ReadError::Damaged { what }) => {
                checked.fault(what);
                continue;
            }
            welcome => welcome?,
        };
        for reference in welcome_references(&row.welcome) {
            // A final key has no such row, and may be used often.
            let Some(by) = view.used(app, &reference)? else { continue };
            checked.used_key_packages += 1;
            if (&by.group, by.epoch) != (&group, epoch) {
                checked.fault(format!(
                    "{reference:?} was used in epoch {epoch:?} of {group:?}, and stored as used elsewhere"
                ));
            }
            match used.entry((app, reference)) {
                Entry::Vacant(place) => _ = place.insert((group.clone(), epoch)),
                Entry::Occupied(first) => {
                    checked.fault(format!(
                        "{:?} was used twice: by {:?} and {:?}",
                        first.key().1,
                        first.get(),
                        (&group, epoch)
                    ));
                }
            }
        }
    }
    Ok(())
}
