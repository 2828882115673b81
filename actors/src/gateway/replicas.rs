//! Replicas of groups that other gateways order (*Group Evolution*): a replica takes the entries that the group's hub
//! delivers, checks each by the same rules as the hub, and answers reads.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use snapshots::{
    AppId, AppendError, ClientHandle, DomainName, GroupId, GroupRow, LogId, MissedEntries, Timestamp, Unmet,
};
use tracing::Span;

use super::{Gateway, deletion::deleted_by};
use crate::{
    application::{Application, Source},
    disagreements::Loser,
    error::StorageError,
    group::{
        EntryContent, GroupError, GroupMeta, GroupState, LogEntry, LoggedEntry, MemberView, NewGroup,
        Replicate, SEQUENCE_MAX, Unseen, creation, creation_instead, filled, is_handed_over, shows_creation,
    },
    mls::Rule,
    peer::{Delivery, DeliveryContent, REVISION, ReplicationAck},
};

/// Entries in one delivery.
const ENTRIES_MAX: usize = 1024;
/// Epochs of a replica's history that one batch deletes when a creation replaces the replica.
const DELETED_MAX: u64 = 20_000;

impl Gateway {
    /// Takes a delivery of the gateway of these domains into the replica of its group. Entries that are held already or do not
    /// follow are ignored; the acknowledgement tells the hub where to continue.
    ///
    /// # Errors
    /// [`GroupError::NotFromHub`] when the peer is not the group's hub or the delivery cannot be a hub's, the fault of an
    /// entry, or that the gateway cannot write. Entries that were taken before stay.
    pub async fn receive(
        &self,
        peer: &BTreeSet<DomainName>,
        delivery: Delivery,
    ) -> Result<ReplicationAck, GroupError> {
        let Delivery { app, group, hub, preceding, content } = delivery;
        let application = self.group_application(app)?;
        if !peer.contains(&hub) || !application.federates_with.contains(&hub) {
            return Err(GroupError::NotFromHub(format!("{hub} is not a domain of the peer")));
        }
        let view = self.services.store.view();
        let row = view.group(app, &group).map_err(StorageError::from)?;
        if let Some(deleted_by) = deleted_by(&view, app, &group)? {
            return match content {
                _ if deleted_by.as_ref() != Some(&hub) => Err(others_group()),
                DeliveryContent::Deletion { .. } => {
                    // The first delivery may have ended before the disk did.
                    self.registry.close_group(app, &group);
                    Ok(self.held(app, &group)?)
                }
                DeliveryContent::Entries(_) | DeliveryContent::Transfer(_) => Err(GroupError::UnknownGroup),
            };
        }
        drop(view);
        let order = order(row, &hub);
        match content {
            DeliveryContent::Deletion { timestamp } => {
                self.receive_deletion(application, &group, (hub, order), timestamp).await
            }
            DeliveryContent::Entries(entries) => {
                if entries.len() > ENTRIES_MAX {
                    return Err(GroupError::NotFromHub(format!(
                        "a delivery has at most {ENTRIES_MAX} entries"
                    )));
                }
                if entries.iter().any(|entry| entry.sequence > SEQUENCE_MAX) {
                    return Err(beyond_last_sequence());
                }
                self.receive_entries(application, &group, &hub, order, (preceding, entries)).await
            }
            DeliveryContent::Transfer(handed) => {
                if matches!(order, Order::Others { .. }) {
                    return Err(others_group());
                }
                if handed.sequence > SEQUENCE_MAX {
                    return Err(beyond_last_sequence());
                }
                self.receive_transfer(application, &group, (peer, hub), *handed).await
            }
        }
    }

    async fn receive_entries(
        &self,
        application: &Application,
        group: &GroupId,
        hub: &DomainName,
        mut order: Order,
        (preceding, entries): (Option<Timestamp>, Vec<LogEntry>),
    ) -> Result<ReplicationAck, GroupError> {
        if order == Order::Hubs {
            self.fill_history(application, group, &entries).await?;
        }
        let held = self.held_next(application.id, group)?;
        let mut preceding = preceding;
        let mut number_before = None;
        for entry in entries {
            let (number, accepted) = (entry.sequence, entry.timestamp);
            // The preceding entry, if it was in the same delivery, is more specific than the delivery's `preceding`.
            let follows =
                number_before.replace(number).is_none_or(|before| number.checked_sub(1) == Some(before));
            let before = preceding.replace(accepted).filter(|_| follows);
            if order == Order::Hubs && number < held {
                self.check_same(application.id, group, hub, &entry)?;
                continue;
            }
            self.check_skew(accepted)?;
            let taken = match &entry.content {
                EntryContent::Creation(new) if number == 0 => {
                    let created = match &order {
                        Order::Hubs => continue,
                        Order::Others { row } if !is_handed_over(row) => return Err(others_group()),
                        Order::Others { .. } | Order::Nobodys => {
                            self.create_replica(application, group, hub, Arc::clone(new), (accepted, &order))
                                .await
                        }
                    };
                    created.map(|()| {
                        order = Order::Hubs;
                        1
                    })
                }
                EntryContent::Creation(_) => {
                    Err(GroupError::NotFromHub("a creation is entry 0 and no other".into()))
                }
                EntryContent::Proposal { .. } | EntryContent::Commit(_) => match order {
                    Order::Others { .. } => return Err(others_group()),
                    // The group's creation is missing.
                    Order::Nobodys => return self.held(application.id, group),
                    Order::Hubs => {
                        let ask = |permit| Replicate {
                            entry: entry.clone(),
                            preceding: before,
                            span: Span::current(),
                            permit,
                        };
                        match entry.content.check_sizes(&self.services.limits) {
                            Ok(()) => self.registry.ask_group(application, group, ask).await,
                            Err(too_large) => Err(too_large),
                        }
                    }
                },
            };
            if let Err(error) = taken {
                return self.not_taken(application, group, (hub, number), error).await;
            }
        }
        if number_before.is_some_and(|number| number >= held) {
            self.services.disagreements.clear(hub, application.id, group);
        }
        self.held(application.id, group)
    }

    /// Checks that an entry that is here already is the one that the hub sends: a hub that was restored from a backup gives its numbers a
    /// second time.
    ///
    /// # Errors
    /// [`GroupError::NotFromHub`] if it is another one.
    fn check_same(
        &self,
        app: AppId,
        group: &GroupId,
        hub: &DomainName,
        entry: &LogEntry,
    ) -> Result<(), GroupError> {
        let number = entry.sequence;
        let row = self.services.store.view().log_entry(app, group, number).map_err(StorageError::from)?;
        let stored = row.and_then(|row| LoggedEntry::read(number, &row).ok());
        // The hub's stamps tell its entries apart.
        if stored.is_none_or(|stored| stored.entry.timestamp == entry.timestamp) {
            return Ok(());
        }
        if self.services.disagreements.note(hub, app, group, Loser::There) {
            tracing::error!(
                hub = %hub, application = %app, ?group, number,
                "the hub of a group has another entry than the one that it sent before: it was restored from a backup, or has \
                 lost its newest writes; what is here stays"
            );
        }
        Err(GroupError::NotFromHub(format!(
            "entry {number} is another one here: the histories differ, because the hub has lost entries"
        )))
    }

    /// The answer to the hub for an entry that cannot be appended.
    async fn not_taken(
        &self,
        application: &Application,
        group: &GroupId,
        (hub, number): (&DomainName, u64),
        error: GroupError,
    ) -> Result<ReplicationAck, GroupError> {
        let is_unknown = matches!(error, GroupError::InvalidCommit { rule: Rule::KnownProposals, .. });
        let lacks_proposal =
            is_unknown && self.registry.group_view(application, group).await?.lacks_proposals;
        let is_full = matches!(error, GroupError::TooManyProposals { .. });
        if lacks_proposal || is_full || is_expired(&error) {
            tracing::info!(hub = %hub, ?group, number, %error, "an entry cannot be taken here; asking for the group's state");
            return Ok(ReplicationAck { needs_transfer: true, ..self.held(application.id, group)? });
        }
        if !matches!(error, GroupError::Storage(_) | GroupError::Busy | GroupError::Stopping) {
            tracing::warn!(hub = %hub, ?group, number, %error, "an entry of the hub is refused");
        }
        Err(error)
    }

    /// Fills the missing history of a replica from entries of its hub.
    async fn fill_history(
        &self,
        application: &Application,
        group: &GroupId,
        entries: &[LogEntry],
    ) -> Result<(), GroupError> {
        let app = application.id;
        let Some(before) = self.missed(app, group)?.filter(MissedEntries::is_open) else { return Ok(()) };
        let wanted = before.next..=before.through;
        let missed: Vec<LogEntry> =
            entries.iter().filter(|entry| wanted.contains(&entry.sequence)).cloned().collect();
        if missed.is_empty() {
            return Ok(());
        }
        let shown = self.registry.group_view(application, group).await?;
        let meta = GroupMeta::new(application, group.clone(), self.group_row(app, group)?);
        let (services, application, cipher_suite) =
            (Arc::clone(&self.services), application.clone(), shown.cipher_suite);
        let place = self.services.validation.place(app).ok_or(GroupError::Busy)?;
        let reading = place.run(move || {
            let unseen = Unseen { limits: &services.limits, group: &meta.group, cipher_suite };
            let found = unseen.fill(&before, &missed)?;
            if found.missed == before {
                return Ok(None);
            }
            let view = services.store.view();
            filled(&meta, (&application, cipher_suite), &view, (&before, &found))
                .map(Some)
                .map_err(GroupError::from)
        });
        let read =
            reading.await.ok_or_else(|| GroupError::NotFromHub("the history cannot be read".into()))??;
        let Some(mut batch) = read else { return Ok(()) };
        batch.announce(app, self.services.clock.now());
        match self.services.store.append(batch).await {
            Ok(appended) => {
                self.services.notices.key_packages_used(app, appended.advanced);
                Ok(())
            }
            // The same delivery came twice concurrently, or the group was deleted.
            Err(AppendError::Precondition(Unmet::MissedEntriesChanged | Unmet::GroupReplaced)) => Ok(()),
            Err(error) => Err(unwritten(&error, "the history")),
        }
    }

    pub(super) fn missed(&self, app: AppId, group: &GroupId) -> Result<Option<MissedEntries>, StorageError> {
        Ok(self.services.store.view().missed_entries(app, group)?)
    }

    /// The number of the entry that a replica needs next.
    fn held_next(&self, app: AppId, group: &GroupId) -> Result<u64, StorageError> {
        let log = LogId::Group(app, group.clone());
        Ok(self.services.store.view().log_head(&log)?.map_or(0, |head| head.saturating_add(1)))
    }

    /// The position of a replica.
    pub(super) fn held(&self, app: AppId, group: &GroupId) -> Result<ReplicationAck, GroupError> {
        let missed = self.missed(app, group)?.filter(MissedEntries::is_open);
        Ok(ReplicationAck {
            next: self.held_next(app, group)?,
            needs_transfer: false,
            retry_after: None,
            missing: missed.map(|missed| missed.next..=missed.through),
            revision: REVISION,
            store: self.store_id,
        })
    }

    async fn create_replica(
        &self,
        application: &Application,
        group: &GroupId,
        hub: &DomainName,
        new: Arc<NewGroup>,
        (accepted, order): (Timestamp, &Order),
    ) -> Result<(), GroupError> {
        let room = self.services.replicas.take(&self.services, application.id, hub).await?;
        let created = self.validate_creation(application, Arc::clone(&new), Source::Hub, accepted);
        let (state, meta) = created.await?;
        check_group(&state, group)?;
        if state.hub() != Some(hub) {
            return Err(GroupError::NotFromHub(
                "the group's creator is of another domain than the hub".into(),
            ));
        }
        if let Order::Others { .. } = order {
            return if self.create_instead(application, &meta, &state, &new).await? {
                room.keep();
                Ok(())
            } else {
                Err(others_group())
            };
        }
        let mut batch = creation(&meta, &state, &new)?;
        batch.announce(application.id, self.services.clock.now());
        match self.services.store.append(batch).await {
            Ok(_) => {
                room.keep();
                Ok(())
            }
            // The same delivery came twice concurrently, or another gateway was quicker with the same group id.
            Err(AppendError::Precondition(Unmet::LogExists)) => {
                let row = self.group_row(application.id, group)?;
                if row.hub.as_ref() == Some(hub) { Ok(()) } else { Err(GroupError::GroupExists) }
            }
            // A late delivery: the hub has deleted the group since.
            Err(AppendError::Precondition(Unmet::GroupDeleted)) => Err(GroupError::UnknownGroup),
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    /// Replaces a replica that another gateway transferred without its creation by the group's creation. The creation outranks
    /// the replica if its creator was at leaf 0, where MLS puts a group's creator, and the other gateway does not speak for
    /// that client: then that gateway was not the group's hub. Returns whether the replica was replaced.
    pub(crate) async fn create_instead(
        &self,
        application: &Application,
        meta: &GroupMeta,
        state: &GroupState,
        new: &Arc<NewGroup>,
    ) -> Result<bool, GroupError> {
        let (app, group) = (meta.app, &meta.group);
        let row = self.group_row(app, group)?;
        let is_replica = !application.is_hub(row.hub.as_ref());
        if !is_replica || !is_handed_over(&row) || row.hub == meta.row.hub {
            return Ok(false);
        }
        let replica = self.registry.group_view(application, group).await?;
        let first = first_leaf(replica.members()).map(named);
        let is_shown_by = |creator| shows_creation(&row, named(creator), first);
        if !first_leaf(state.members()).is_some_and(is_shown_by) {
            return Ok(false);
        }
        let view = self.services.store.view();
        let missed = view.missed_entries(app, group).map_err(StorageError::from)?;
        let history = match view.first_epoch(app, group).map_err(StorageError::from)? {
            Some(first) => first.0..=replica.epoch.0.min(first.0.saturating_add(DELETED_MAX)),
            None => RangeInclusive::new(1, 0),
        };
        drop(view);
        tracing::warn!(
            ?group, before = ?row.hub, hub = ?meta.row.hub,
            "the creation of a group that another gateway handed over is here; its replica is replaced"
        );
        let mut batch = creation_instead(meta, state, new, (&replica, missed.as_ref(), history))?;
        batch.announce(app, self.services.clock.now());
        self.retire_owner(app, group).await?;
        let written = self.services.store.append(batch).await;
        self.registry.passivate_group(app, group).await;
        match written {
            Ok(_) => {
                if let Some(before) = &row.hub {
                    self.services.replicas.give_back(app, before);
                }
                Ok(true)
            }
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    /// Passivates the owner of a group whose log is about to be replaced. The batch that replaces it requires that nothing was appended
    /// since, so an owner that is activated meanwhile has nothing to store.
    ///
    /// # Errors
    /// [`GroupError::Busy`] if the owner could not store the trees of waiting welcomes, which it makes from the log.
    pub(super) async fn retire_owner(&self, app: AppId, group: &GroupId) -> Result<(), GroupError> {
        self.registry.passivate_group(app, group).await;
        let (view, group) = (self.services.store.view(), group.clone());
        let lacks = snapshots::away(move || view.lacks_welcome_trees(app, &group)).await;
        if lacks.map_err(|_| StorageError::Unreadable)?.map_err(StorageError::from)? {
            return Err(GroupError::Busy);
        }
        Ok(())
    }

    /// Checks that a hub's clock is at most a little ahead of this one: it could otherwise make certificates expire.
    pub(super) fn check_skew(&self, accepted: Timestamp) -> Result<(), GroupError> {
        let ahead_ms = self.services.limits.clock_skew_s_max.saturating_mul(1000);
        if accepted.0 <= self.services.clock.now().0.saturating_add(ahead_ms) {
            return Ok(());
        }
        Err(GroupError::NotFromHub(format!(
            "the entry was accepted at {accepted}, which is in the future here"
        )))
    }
}

/// The hub of a delivered group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The gateway that delivers it.
    Hubs,
    /// Another gateway, or this one.
    Others { row: GroupRow },
    /// The group is not here.
    Nobodys,
}

fn order(row: Option<GroupRow>, hub: &DomainName) -> Order {
    match row {
        Some(row) if row.hub.as_ref() == Some(hub) => Order::Hubs,
        Some(row) => Order::Others { row },
        None => Order::Nobodys,
    }
}

pub(super) fn others_group() -> GroupError {
    GroupError::NotFromHub("another gateway orders this group".into())
}

fn beyond_last_sequence() -> GroupError {
    GroupError::NotFromHub(format!("no entry has a number above {SEQUENCE_MAX}"))
}

/// The member at leaf 0, who is the first of the members if there is one.
pub(super) fn first_leaf<'a>(mut members: impl Iterator<Item = MemberView<'a>>) -> Option<MemberView<'a>> {
    members.next().filter(|member| member.leaf_index == 0)
}

pub(super) fn named(member: MemberView<'_>) -> (&ClientHandle, Option<&DomainName>) {
    (member.handle, member.domain)
}

/// Whether a lifetime has ended, by this gateway's clock, since the hub accepted the entry.
fn is_expired(error: &GroupError) -> bool {
    matches!(
        error,
        GroupError::InvalidCommit { rule: Rule::Lifetime, .. }
            | GroupError::InvalidProposal { rule: Rule::Lifetime, .. }
            | GroupError::GroupInfoLifetime { rule: Rule::Lifetime, .. }
    )
}

/// Checks that a transferred group is the one that the delivery names.
pub(super) fn check_group(state: &GroupState, group: &GroupId) -> Result<(), GroupError> {
    if state.id() == group {
        return Ok(());
    }
    Err(GroupError::NotFromHub("the group info is of another group".into()))
}

pub(super) fn unwritten(error: &AppendError, what: &'static str) -> GroupError {
    match error {
        AppendError::TooLarge { limit, .. } => GroupError::TooLarge { what, max: *limit },
        AppendError::Precondition(_)
        | AppendError::Closed
        | AppendError::Stalled { .. }
        | AppendError::Storage(_) => StorageError::from_append(error).into(),
    }
}
