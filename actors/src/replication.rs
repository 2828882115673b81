//! Replicas of other gateways' groups (*Group Evolution*): they take deliveries from the hub, validate every entry by
//! the same rules and answer reads. The check of key packages retrieved from peers is here as well.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc, time::Duration};

use snapshots::{
    AppId, AppendError, Batch, Bytes, ClientHandle, DomainName, Epoch, GroupId, GroupRow, Invitation,
    InvitedClient, LogId, MissedEntries, Timestamp, Unmet, UsedRow, WelcomeRow,
};
use tokio::sync::watch;

use crate::{
    application::{Application, Source},
    gateway::{Gateway, shown_view},
    group::{
        ApplyEntry, GroupError, GroupOrigin, GroupState, GroupView, Handed, MemberView, NewGroup, Published,
        Reached, Unseen, UsedPackages, creation, creation_instead, filled, handed_over_row, is_handed_over,
        missed_after, shows_creation, transfer,
    },
    key_queue::KeyQueueError,
    mls::{KeyPackageChecks, KeyPackageJudge, LeafChecks, Rule, Rules, welcome_references},
    peer::{Delivery, DeliveryContent, EntryContent, GroupTransfer, Held, LogEntry, REVISION, SEQUENCE_MAX},
    router::Rest,
    storage::StorageError,
};

/// Entries in one delivery.
const ENTRIES_MAX: usize = 1024;
/// The largest number of used key packages in one transfer.
const USED_MAX: usize = 4096;
/// Epochs of a replica's history that one batch deletes when a creation takes the replica's place.
const DELETED_MAX: u64 = 20_000;

impl Gateway {
    /// Takes a delivery of the gateway of these domains into the replica of its group. Entries that the replica already
    /// has are skipped, and entries that do not follow are left: the answer tells where to continue.
    ///
    /// # Errors
    /// [`GroupError::NotFromHub`] when the peer is not the group's hub or delivers what no hub does, what is wrong with
    /// an entry, or that the gateway cannot write. What was taken before stays.
    pub async fn receive(&self, peer: &BTreeSet<DomainName>, delivery: Delivery) -> Result<Held, GroupError> {
        let Delivery { app, group, hub, preceding, content } = delivery;
        let application = self.group_application(app)?;
        if !peer.contains(&hub) || !application.federates_with.contains(&hub) {
            return Err(GroupError::NotFromHub(format!("{hub} is not a domain of the peer")));
        }
        let row = self.core.store.view().group(app, &group).map_err(StorageError::from)?;
        let order = order(row, &hub);
        match content {
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
    ) -> Result<Held, GroupError> {
        if order == Order::Hubs {
            self.fill_history(application, group, &entries).await?;
        }
        let held = self.held_next(application.id, group)?;
        let mut preceding = preceding;
        let mut number_before = None;
        for entry in entries {
            let (number, accepted) = (entry.sequence, entry.timestamp);
            // The entry before this one, if it was delivered with it, says more than what was said of the first.
            let follows =
                number_before.replace(number).is_none_or(|before| number.checked_sub(1) == Some(before));
            let before = preceding.replace(accepted).filter(|_| follows);
            if order == Order::Hubs && number < held {
                continue;
            }
            self.check_skew(accepted)?;
            let taken = match entry.content {
                EntryContent::Creation { group_info, ratchet_tree } if number == 0 => {
                    let new = NewGroup { group_info, ratchet_tree };
                    let created = match &order {
                        Order::Hubs => continue,
                        Order::Others { row } if !is_handed_over(row) => return Err(others_group()),
                        Order::Others { .. } | Order::Nobodys => {
                            self.create_replica(application, group, hub, new, (accepted, &order)).await
                        }
                    };
                    created.map(|()| {
                        order = Order::Hubs;
                        1
                    })
                }
                EntryContent::Creation { .. } => {
                    Err(GroupError::NotFromHub("a creation is entry 0 and no other".into()))
                }
                EntryContent::Proposal { .. } | EntryContent::Commit { .. } => match order {
                    Order::Others { .. } => return Err(others_group()),
                    // The group's creation is missing.
                    Order::Nobodys => return self.held(application.id, group),
                    Order::Hubs => {
                        self.ask_group(application, group, |permit| ApplyEntry {
                            entry: entry.clone(),
                            preceding: before,
                            permit,
                        })
                        .await
                    }
                },
            };
            if let Err(error) = taken {
                return self.not_taken(application, group, (hub, number), error).await;
            }
        }
        self.held(application.id, group)
    }

    /// What the hub is answered when an entry cannot be taken.
    async fn not_taken(
        &self,
        application: &Application,
        group: &GroupId,
        (hub, number): (&DomainName, u64),
        error: GroupError,
    ) -> Result<Held, GroupError> {
        let is_unknown = matches!(error, GroupError::InvalidCommit { rule: Rule::KnownProposals, .. });
        let lacks_proposal = is_unknown && shown_view(&self.core, application, group).await?.lacks_proposals;
        if lacks_proposal || is_expired(&error) {
            tracing::info!(hub = %hub, ?group, number, %error, "an entry can no longer be validated; asking for the group's state");
            return Ok(Held { needs_transfer: true, ..self.held(application.id, group)? });
        }
        if let Some(retry_after) = self.lifetime_begins_in(&error) {
            tracing::info!(hub = %hub, ?group, number, %error, ?retry_after, "an entry is early for the clock here");
            return Ok(Held { retry_after: Some(retry_after), ..self.held(application.id, group)? });
        }
        if !matches!(error, GroupError::Storage(_) | GroupError::Busy | GroupError::Stopping) {
            tracing::warn!(hub = %hub, ?group, number, %error, "an entry of the hub is refused");
        }
        Err(error)
    }

    /// How long it takes until a lifetime begins that has not begun by this clock; `None` for anything else, and when it is
    /// longer than two clocks may be apart.
    fn lifetime_begins_in(&self, error: &GroupError) -> Option<Duration> {
        let (GroupError::InvalidCommit { rule, .. }
        | GroupError::InvalidProposal { rule, .. }
        | GroupError::GroupInfoLifetime { rule, .. }) = error
        else {
            return None;
        };
        let Rule::LifetimeNotBegun { not_before_s } = *rule else { return None };
        let wait_ms = not_before_s.saturating_mul(1000).saturating_sub(self.core.clock.now().0);
        let wait = Duration::from_millis(wait_ms);
        (wait <= Duration::from_secs(self.core.limits.clock_skew_s_max)).then_some(wait)
    }

    /// Takes what a replica was never shown of its history from entries of its hub.
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
        let shown = shown_view(&self.core, application, group).await?;
        let origin = GroupOrigin::new(application, group.clone(), self.group_row(app, group)?);
        let (core, application, cipher_suite) =
            (Arc::clone(&self.core), application.clone(), shown.cipher_suite);
        let place = self.core.judging.place(app).ok_or(GroupError::Busy)?;
        let reading = place.run(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let unseen = Unseen { crypto, limits, group: &origin.group, cipher_suite };
            let found = unseen.fill(&before, &missed)?;
            if found.missed == before {
                return Ok(None);
            }
            let view = core.store.view();
            filled(&origin, (&application, crypto, cipher_suite), &view, (&before, &found))
                .map(Some)
                .map_err(GroupError::from)
        });
        let read =
            reading.await.ok_or_else(|| GroupError::NotFromHub("the history cannot be read".into()))??;
        let Some((batch, used)) = read else { return Ok(()) };
        match self.core.store.append(batch).await {
            Ok(_) => {
                self.core.wake_key_queues(app, used);
                Ok(())
            }
            // The same delivery came twice at once.
            Err(AppendError::Precondition(Unmet::MissedEntriesChanged)) => Ok(()),
            Err(error) => Err(unwritten(&error, "the history")),
        }
    }

    fn missed(&self, app: AppId, group: &GroupId) -> Result<Option<MissedEntries>, StorageError> {
        Ok(self.core.store.view().missed_entries(app, group)?)
    }

    /// The number of the entry that a replica needs next.
    fn held_next(&self, app: AppId, group: &GroupId) -> Result<u64, StorageError> {
        let log = LogId::Group(app, group.clone());
        Ok(self.core.store.view().log_head(&log)?.map_or(0, |head| head.saturating_add(1)))
    }

    /// Where a replica stands.
    fn held(&self, app: AppId, group: &GroupId) -> Result<Held, GroupError> {
        let missed = self.missed(app, group)?.filter(MissedEntries::is_open);
        Ok(Held {
            next: self.held_next(app, group)?,
            needs_transfer: false,
            retry_after: None,
            missing: missed.map(|missed| missed.next..=missed.through),
            revision: REVISION,
            store: self.core.store_id,
        })
    }

    async fn create_replica(
        &self,
        application: &Application,
        group: &GroupId,
        hub: &DomainName,
        new: NewGroup,
        (accepted, order): (Timestamp, &Order),
    ) -> Result<(), GroupError> {
        let room = self.core.replicas.take(&self.core, application.id, hub).await?;
        let digest = new.digest();
        let (core, application_there) = (Arc::clone(&self.core), application.clone());
        let place = self.core.judging.place(application.id).ok_or(GroupError::Busy)?;
        let judged = place.run(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let rules = Rules { crypto, limits, application: &application_there, source: &Source::Hub };
            GroupState::create(rules, &new, accepted).map(|state| (state, new))
        });
        let (state, new) = judged
            .await
            .ok_or_else(|| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))??;
        check_group(&state, group)?;
        if state.hub() != Some(hub) {
            return Err(GroupError::NotFromHub(
                "the group's creator is of another domain than the hub".into(),
            ));
        }
        let row = GroupRow {
            epoch: Epoch(0),
            created_at: accepted,
            creation_digest: digest,
            hub: Some(hub.clone()),
        };
        let origin = GroupOrigin::new(application, group.clone(), row);
        if let Order::Others { .. } = order {
            return if self.create_instead(application, &origin, &state, &new).await? {
                room.keep();
                Ok(())
            } else {
                Err(others_group())
            };
        }
        match self.core.store.append(creation(&origin, &state, &new)?).await {
            Ok(_) => {
                room.keep();
                Ok(())
            }
            // The same delivery came twice at once, or another gateway was quicker with the same group id.
            Err(AppendError::Precondition(Unmet::LogExists)) => {
                let row = self.group_row(application.id, group)?;
                if row.hub.as_ref() == Some(hub) { Ok(()) } else { Err(GroupError::GroupExists) }
            }
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    /// Puts a creation in the place of a replica that another gateway handed over without one. A creation outranks such a
    /// replica when the client that made it was at leaf 0, where MLS puts a group's creator, and the gateway that handed
    /// the group over does not speak for that client: then it is the creation of this group, and that gateway was not its
    /// hub. Answers whether it was that one.
    pub(crate) async fn create_instead(
        &self,
        application: &Application,
        origin: &GroupOrigin,
        state: &GroupState,
        new: &NewGroup,
    ) -> Result<bool, GroupError> {
        let (app, group) = (origin.app, &origin.group);
        let row = self.group_row(app, group)?;
        let is_replica = !application.is_hub(row.hub.as_ref());
        if !is_replica || !is_handed_over(&row) || row.hub == origin.row.hub {
            return Ok(false);
        }
        let replica = shown_view(&self.core, application, group).await?;
        let first = first_leaf(&replica.members).map(named);
        let is_shown_by = |creator| shows_creation(&row, named(creator), first);
        if !first_leaf(state.roster()).is_some_and(is_shown_by) {
            return Ok(false);
        }
        let view = self.core.store.view();
        let missed = view.missed_entries(app, group).map_err(StorageError::from)?;
        let history = match view.first_epoch(app, group).map_err(StorageError::from)? {
            Some(first) => first.0..=replica.epoch.0.min(first.0.saturating_add(DELETED_MAX)),
            None => RangeInclusive::new(1, 0),
        };
        drop(view);
        tracing::warn!(
            ?group, before = ?row.hub, hub = ?origin.row.hub,
            "the creation of a group that another gateway handed over is here; its replica is replaced"
        );
        let batch = creation_instead(origin, state, new, (&replica, missed.as_ref(), history))?;
        self.put_to_sleep(app, group).await;
        let written = self.core.store.append(batch).await;
        self.put_to_sleep(app, group).await;
        match written {
            Ok(_) => {
                if let Some(before) = &row.hub {
                    self.core.replicas.give_back(app, before);
                }
                Ok(true)
            }
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    async fn receive_transfer(
        &self,
        application: &Application,
        group: &GroupId,
        (peer, hub): (&BTreeSet<DomainName>, DomainName),
        handed: GroupTransfer,
    ) -> Result<Held, GroupError> {
        self.check_skew(handed.timestamp)?;
        let app = application.id;
        let held = self.held(app, group)?;
        if handed.sequence < held.next {
            return Ok(held);
        }
        let before = match held.next {
            0 => None,
            _ => Some((self.group_row(app, group)?, shown_view(&self.core, application, group).await?)),
        };
        let room = match &before {
            Some(_) => None,
            None => Some(self.core.replicas.take(&self.core, app, &hub).await?),
        };
        let (core, hub_there, application_there) = (Arc::clone(&self.core), hub.clone(), application.clone());
        let (sequence, accepted) = (handed.sequence, handed.timestamp);
        let place = self.core.judging.place(app).ok_or(GroupError::Busy)?;
        let judged = place.run(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let rules = Rules { crypto, limits, application: &application_there, source: &Source::Hub };
            GroupState::from_transfer(rules, &handed, hub_there).map(|state| (state, handed))
        });
        let judged = judged
            .await
            .ok_or_else(|| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))?;
        let (state, handed) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                return match self.lifetime_begins_in(&error) {
                    Some(retry_after) => Ok(Held { retry_after: Some(retry_after), ..held }),
                    None => Err(error),
                };
            }
        };
        check_group(&state, group)?;
        match &before {
            Some((_, view)) => check_succession(view, &state, accepted)?,
            None => check_claim(application, peer, &hub, state.roster())?,
        }
        let row = match &before {
            Some((row, _)) => GroupRow { epoch: state.epoch(), ..row.clone() },
            None => {
                let creator = first_leaf(state.roster()).map(named);
                // The hub speaks for this one.
                let others = creator.filter(|(_, domain)| domain.is_none_or(|domain| !peer.contains(domain)));
                handed_over_row(state.epoch(), accepted, hub, others)
            }
        };
        let origin = GroupOrigin::new(application, group.clone(), row);
        let replaced = before.as_ref().map(|(_, view)| (view.sequence, &*view.members as &[MemberView]));
        let mut batch = transfer(&origin, &state, sequence, replaced)?;
        let used = self.tell_used(&mut batch, &origin, &state, &handed)?;
        // The history before the gap is shown again once the gap is filled.
        let missed_before = self.missed(app, group)?;
        let reached = before.as_ref().map(|(_, view)| Reached {
            next: view.sequence.saturating_add(1),
            epoch: view.epoch,
            stamp: view.stamp,
            proposals: &view.proposals,
            interim_transcript_hash: &view.interim_transcript_hash,
            has_all_proposals: !view.lacks_proposals,
        });
        let missed = missed_after(
            reached,
            missed_before.as_ref(),
            Handed {
                through: sequence,
                until: state.epoch(),
                confirmed_transcript_hash: state.confirmed_transcript_hash().to_vec(),
                has_last_welcome: handed.welcome.is_some(),
            },
        );
        batch.replace_missed_entries(app, group, missed_before.as_ref(), Some(&missed));
        self.put_to_sleep(app, group).await;
        let written = self.core.store.append(batch).await;
        // An actor that was activated meanwhile has read the earlier state.
        self.put_to_sleep(app, group).await;
        match written {
            Ok(_) => {
                if let Some(room) = room {
                    room.keep();
                }
                self.core.wake_key_queues(app, used);
                self.held(app, group)
            }
            Err(AppendError::Precondition(
                Unmet::LogMoved { .. } | Unmet::LogExists | Unmet::MissedEntriesChanged,
            )) => self.held(app, group),
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    /// Notes which key packages of local clients were used in entries that this gateway never received, and stores the
    /// welcome of the epoch for local clients, found through their key queues.
    fn tell_used(
        &self,
        batch: &mut Batch,
        origin: &GroupOrigin,
        state: &GroupState,
        handed: &GroupTransfer,
    ) -> Result<UsedPackages, GroupError> {
        let (app, group, epoch) = (origin.app, &origin.group, state.epoch());
        let view = self.core.store.view();
        let welcomed: BTreeSet<_> =
            handed.welcome.as_deref().map(welcome_references).unwrap_or_default().into_iter().collect();
        let references = handed.used.iter().take(USED_MAX).chain(&welcomed).collect::<BTreeSet<_>>();
        let (mut used, mut waiting) = (UsedPackages::new(), BTreeSet::new());
        for reference in references {
            for (queue, client, row) in view.queues_holding(app, reference).map_err(StorageError::from)? {
                let client = view.client(app, client).map_err(StorageError::from)?;
                if let Some(client) = client.filter(|_| welcomed.contains(reference)) {
                    waiting.insert((client.domain, client.handle));
                }
                if !row.is_final {
                    let used_row = UsedRow { group: group.clone(), epoch, not_after: row.not_after };
                    batch.note_key_package_used(app, reference, &used_row);
                    batch.delete_key_package(app, queue, reference);
                    used.push((queue, reference.clone()));
                }
            }
        }
        let members: BTreeSet<_> =
            state.roster().iter().map(|member| (member.domain.as_ref(), &member.handle)).collect();
        let is_member = |(domain, handle): &(Option<DomainName>, ClientHandle)| {
            members.contains(&(domain.as_ref(), handle))
        };
        let clients: Vec<InvitedClient> = waiting
            .into_iter()
            .filter(is_member)
            .map(|(domain, handle)| InvitedClient { handle, domain })
            .collect();
        if let Some(welcome) = &handed.welcome {
            let row = WelcomeRow {
                welcome: Bytes::copy_from_slice(welcome),
                ratchet_tree: Bytes::copy_from_slice(&handed.ratchet_tree),
                timestamp: handed.timestamp,
            };
            batch.put_welcome(app, group, epoch, &row, &clients, Invitation::AcceptedElsewhere);
        }
        Ok(used)
    }

    async fn put_to_sleep(&self, app: AppId, group: &GroupId) {
        let awake = self.core.groups.get(&(app, group.clone())).map(|awake| awake.clone());
        if let Some(awake) = awake {
            // One that has gone already sleeps.
            let _ = awake.actor.address.send(Rest::Sleep).await;
            self.core.forget_group(app, group, &awake.actor.address);
        }
    }

    /// A hub's clock may be a little ahead of this one, and no more: it could otherwise make certificates expire.
    fn check_skew(&self, accepted: Timestamp) -> Result<(), GroupError> {
        let ahead_ms = self.core.limits.clock_skew_s_max.saturating_mul(1000);
        if accepted.0 <= self.core.clock.now().0.saturating_add(ahead_ms) {
            return Ok(());
        }
        Err(GroupError::NotFromHub(format!(
            "the entry was accepted at {accepted}, which is in the future here"
        )))
    }

    /// Waits until the replica of a group has reached an epoch, or until the time is over.
    pub async fn await_epoch(&self, app: AppId, group: &GroupId, epoch: Epoch, at_most: Duration) {
        self.await_view(app, group, at_most, |view| view.epoch >= epoch).await;
    }

    /// Waits until the replica of a group shows a proposal of an epoch, or has left the epoch, or until the time is over.
    pub async fn await_proposal(
        &self,
        app: AppId,
        group: &GroupId,
        (epoch, packet): (Epoch, &[u8]),
        at_most: Duration,
    ) {
        let shows = |view: &GroupView| {
            view.epoch > epoch || view.proposals.iter().any(|waiting| *waiting.packet == *packet)
        };
        self.await_view(app, group, at_most, shows).await;
    }

    async fn await_view(
        &self,
        app: AppId,
        group: &GroupId,
        at_most: Duration,
        is_reached: impl Fn(&GroupView) -> bool,
    ) {
        let Ok(application) = self.group_application(app) else { return };
        let waiting = async {
            // An actor that goes to sleep while it is waited for is woken again.
            while let Ok(view) = shown_view(&self.core, application, group).await {
                if is_reached(&view) {
                    return;
                }
                let awake = self.core.groups.get(&(app, group.clone())).map(|awake| awake.published.clone());
                if let Some(published) = awake
                    && changed(published, &is_reached).await
                {
                    return;
                }
            }
        };
        // The answer is right in any case; only a read right after it may be of the epoch before.
        let _ = tokio::time::timeout(at_most, waiting).await;
    }

    /// Checks a key package that the gateway of a domain gave for a client of that domain (*Key Package Validation*). The
    /// inner error says what is wrong with it.
    ///
    /// # Errors
    /// [`KeyQueueError::Busy`] when too many judgements of the application wait already.
    pub async fn check_retrieved_key_package(
        &self,
        app: AppId,
        domain: &DomainName,
        cipher_suite: u16,
        key_package: &[u8],
    ) -> Result<Result<(), String>, KeyQueueError> {
        let application = self.application(app).ok_or(KeyQueueError::UnknownClient)?;
        if key_package.len() > self.core.limits.packet_bytes_max {
            return Ok(Err(format!("it has more than {} bytes", self.core.limits.packet_bytes_max)));
        }
        let place = self.core.judging.place(app).ok_or(KeyQueueError::Busy)?;
        let (core, provider) = (Arc::clone(&self.core), Arc::clone(&application.identity));
        let (domain, key_package) = (domain.clone(), key_package.to_vec());
        let checked = place.run(move || {
            let checks = KeyPackageChecks {
                leaf: LeafChecks { cipher_suite, lifetime_s_max: core.limits.key_package_lifetime_s_max },
                handle: None,
                domain: Some(&domain),
                now: core.clock.now(),
                // The peer hands out what is valid already; its clock may be ahead.
                clock_skew_s_max: core.limits.clock_skew_s_max,
            };
            KeyPackageJudge::new(checks, &core.crypto, &*provider).check(&key_package).map(drop)
        });
        Ok(checked.await.unwrap_or_else(|| Err("it cannot be judged".into())))
    }
}

/// Waits for a view that is as it should be; `false` when the actor went to sleep before it showed one.
async fn changed(mut published: watch::Receiver<Published>, is_reached: impl Fn(&GroupView) -> bool) -> bool {
    let shows = |shown: &Published| matches!(shown, Published::Ready(view) if is_reached(view));
    published.wait_for(shows).await.is_ok()
}

/// Who orders a group for which something is delivered.
#[derive(Debug, PartialEq, Eq)]
enum Order {
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

fn others_group() -> GroupError {
    GroupError::NotFromHub("another gateway orders this group".into())
}

fn beyond_last_sequence() -> GroupError {
    GroupError::NotFromHub(format!("no entry has a number above {SEQUENCE_MAX}"))
}

fn first_leaf(members: &[MemberView]) -> Option<&MemberView> {
    members.iter().find(|member| member.leaf_index == 0)
}

fn named(member: &MemberView) -> (&ClientHandle, Option<&DomainName>) {
    (&member.handle, member.domain.as_ref())
}

/// Whether a lifetime was over by the clock here that was not when the hub accepted the entry.
fn is_expired(error: &GroupError) -> bool {
    matches!(
        error,
        GroupError::InvalidCommit { rule: Rule::Lifetime, .. }
            | GroupError::InvalidProposal { rule: Rule::Lifetime, .. }
            | GroupError::GroupInfoLifetime { rule: Rule::Lifetime, .. }
    )
}

/// A group that is handed over where its creation never was may be ordered by the gateway that hands it over: the client at
/// leaf 0, where MLS puts a group's creator, is of that gateway's domains. Once the creator has left, and nobody took that
/// leaf for whom another gateway of the application speaks, any member of the hub's domain will do.
fn check_claim(
    application: &Application,
    peer: &BTreeSet<DomainName>,
    hub: &DomainName,
    roster: &[MemberView],
) -> Result<(), GroupError> {
    let refuse = |detail: String| Err(GroupError::NotFromHub(detail));
    let first = first_leaf(roster).and_then(|member| member.domain.as_ref());
    match first {
        Some(domain) if peer.contains(domain) => return Ok(()),
        Some(domain) if application.federates_with.contains(domain) => {
            return refuse(format!(
                "the client at the group's first leaf is of {domain}, whose gateway then orders the group, not that of {hub}"
            ));
        }
        Some(_) | None => {}
    }
    if roster.iter().any(|member| member.domain.as_ref() == Some(hub)) {
        Ok(())
    } else {
        refuse(format!(
            "the group that is handed over has no member of {hub}, whose gateway says that it orders it"
        ))
    }
}

/// A transferred group must follow the state that the replica has validated itself: it is not older, and its group info is
/// signed by a client that the replica knows as a member. In the same epoch it is the same group.
fn check_succession(before: &GroupView, state: &GroupState, accepted: Timestamp) -> Result<(), GroupError> {
    let refuse = |detail: &str| Err(GroupError::NotFromHub(detail.to_owned()));
    if state.epoch() < before.epoch || accepted < before.stamp {
        return refuse("the group that is handed over is older than the replica");
    }
    if state.cipher_suite() != before.cipher_suite {
        return refuse("the group that is handed over has another cipher suite than the replica");
    }
    if state.epoch() == before.epoch && state.ratchet_tree() != before.ratchet_tree() {
        return refuse("the group that is handed over is another one in the same epoch");
    }
    let signer = state.group_info_signer();
    let is_known = signer.is_some_and(|signer| {
        before.members.iter().any(|known| known.handle == signer.handle && known.domain == signer.domain)
    });
    if is_known { Ok(()) } else { refuse("the group info is not signed by a member that this replica knows") }
}

/// What is delivered for a group is that group.
fn check_group(state: &GroupState, group: &GroupId) -> Result<(), GroupError> {
    if state.id() == group {
        return Ok(());
    }
    Err(GroupError::NotFromHub("the group info is of another group".into()))
}

fn unwritten(error: &AppendError, what: &'static str) -> GroupError {
    match error {
        AppendError::TooLarge { limit, .. } => GroupError::TooLarge { what, max: *limit },
        AppendError::Precondition(_)
        | AppendError::Closed
        | AppendError::Stalled { .. }
        | AppendError::Storage(_) => StorageError::from_append(error).into(),
    }
}
