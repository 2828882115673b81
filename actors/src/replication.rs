//! Following the logs of other gateways' groups (*Group Evolution*): a replica takes what the group's hub delivers, checks
//! every entry by the same rules and answers reads. What else a gateway needs of its peers' clients is here as well.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use snapshots::{
    AppId, AppendError, Batch, Bytes, ClientHandle, DomainName, Epoch, GroupId, GroupRow, Invitation,
    InvitedClient, LogId, Timestamp, Unmet, UsedRow, WelcomeRow,
};
use tokio::sync::watch;

use crate::{
    application::{Application, Source},
    gateway::{Gateway, shown_view},
    group::{
        ApplyEntry, GroupError, GroupOrigin, GroupState, GroupView, MemberView, NewGroup, Published,
        UsedPackages, creation, transfer,
    },
    mls::{KeyPackageChecks, Rule, Rules, welcome_references},
    peer::{Delivery, DeliveryContent, EntryContent, GroupTransfer, Held, LogEntry},
    router::Rest,
    storage::StorageError,
};

/// Entries in one delivery.
const ENTRIES_MAX: usize = 1024;
/// Key packages of which one transfer may say that they were used.
const USED_MAX: usize = 4096;
/// Epochs of a replica's history that one batch deletes when the replica is replaced.
const DELETED_AT_ONCE: usize = 256;

impl Gateway {
    /// Takes a delivery of the gateway of these domains into the replica of its group. What is held already is passed
    /// over, and what does not follow is left: the answer tells where to go on.
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
        if row.as_ref().is_some_and(|row| row.hub.as_ref() != Some(&hub)) {
            return Err(GroupError::NotFromHub("another gateway orders this group".into()));
        }
        match content {
            DeliveryContent::Entries(entries) => {
                if entries.len() > ENTRIES_MAX {
                    return Err(GroupError::NotFromHub(format!(
                        "a delivery has at most {ENTRIES_MAX} entries"
                    )));
                }
                self.receive_entries(application, &group, (peer, &hub), row.is_some(), (preceding, entries))
                    .await
            }
            DeliveryContent::Transfer(handed) => {
                self.receive_transfer(application, &group, hub, *handed).await
            }
        }
    }

    async fn receive_entries(
        &self,
        application: &Application,
        group: &GroupId,
        (peer, hub): (&BTreeSet<DomainName>, &DomainName),
        mut exists: bool,
        (mut preceding, entries): (Option<Timestamp>, Vec<LogEntry>),
    ) -> Result<Held, GroupError> {
        let mut next = None;
        for entry in entries {
            self.check_skew(entry.timestamp)?;
            let (number, accepted) = (entry.sequence, entry.timestamp);
            let taken = match entry.content {
                EntryContent::Creation { group_info, ratchet_tree } if number == 0 => {
                    if !exists {
                        let new = NewGroup { group_info, ratchet_tree };
                        match self.create_replica(application, group, (peer, hub), new, accepted).await {
                            Ok(()) => exists = true,
                            // Its creator's leaf may have been within its lifetime then; as the group stands, it may be
                            // without that leaf.
                            Err(GroupError::InvalidGroupInfo(detail)) => {
                                tracing::warn!(hub = %hub, ?group, detail, "a creation is refused; asking for the group");
                                return Ok(self.held_at(0, true));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    continue;
                }
                EntryContent::Creation { .. } => {
                    Err(GroupError::NotFromHub("a creation is entry 0 and no other".into()))
                }
                // The group's creation is missing.
                EntryContent::Proposal { .. } | EntryContent::Commit { .. } if !exists => {
                    return Ok(self.held_at(0, false));
                }
                EntryContent::Proposal { .. } | EntryContent::Commit { .. } => {
                    let preceding = preceding.take();
                    self.ask_group(application, group, |permit| ApplyEntry {
                        entry: entry.clone(),
                        preceding,
                        permit,
                    })
                    .await
                }
            };
            match taken {
                Ok(after) => next = Some(after),
                // It was within its lifetime when the hub accepted it.
                Err(error) if is_lifetime(&error) => return Ok(self.held_at(number, true)),
                Err(error) => {
                    tracing::warn!(hub = %hub, ?group, number, %error, "an entry of the hub is refused");
                    return Err(error);
                }
            }
        }
        match next {
            Some(next) => Ok(self.held_at(next, false)),
            None => self.held(application.id, group),
        }
    }

    /// Where a replica stands.
    fn held(&self, app: AppId, group: &GroupId) -> Result<Held, GroupError> {
        let log = LogId::Group(app, group.clone());
        let head = self.core.store.view().log_head(&log).map_err(StorageError::from)?;
        Ok(self.held_at(head.map_or(0, |head| head.saturating_add(1)), false))
    }

    fn held_at(&self, next: u64, needs_transfer: bool) -> Held {
        Held { next, needs_transfer, store: self.core.store_id }
    }

    async fn create_replica(
        &self,
        application: &Application,
        group: &GroupId,
        (peer, hub): (&BTreeSet<DomainName>, &DomainName),
        new: NewGroup,
        accepted: Timestamp,
    ) -> Result<(), GroupError> {
        let digest = new.digest();
        let (core, application_there) = (Arc::clone(&self.core), application.clone());
        // A group begins with a member of its hub's domains.
        let source = Source::Peer(peer.clone());
        let judged = tokio::task::spawn_blocking(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let rules = Rules { crypto, limits, application: &application_there, source: &source };
            GroupState::create(rules, &new, accepted).map(|state| (state, new))
        });
        let (state, new) = judged
            .await
            .map_err(|_| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))??;
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
        match self.core.store.append(creation(&origin, &state, &new)?).await {
            Ok(_) => Ok(()),
            // The same delivery came twice at once, or another gateway was quicker with the same group id.
            Err(AppendError::Precondition(Unmet::LogExists)) => {
                let row = self.group_row(application.id, group)?;
                if row.hub.as_ref() == Some(hub) { Ok(()) } else { Err(GroupError::GroupExists) }
            }
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    async fn receive_transfer(
        &self,
        application: &Application,
        group: &GroupId,
        hub: DomainName,
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
            next => Some((next.saturating_sub(1), shown_view(&self.core, application, group).await?)),
        };
        let (core, hub_there, application_there) = (Arc::clone(&self.core), hub.clone(), application.clone());
        let (sequence, accepted) = (handed.sequence, handed.timestamp);
        let judged = tokio::task::spawn_blocking(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let rules = Rules { crypto, limits, application: &application_there, source: &Source::Hub };
            GroupState::from_transfer(rules, &handed, hub_there).map(|state| (state, handed))
        });
        let (state, handed) = judged
            .await
            .map_err(|_| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))??;
        check_group(&state, group)?;
        if let Some((_, view)) = &before {
            check_succession(view, &state, accepted)?;
        }
        let row =
            GroupRow { epoch: state.epoch(), created_at: accepted, creation_digest: [0; 32], hub: Some(hub) };
        let origin = GroupOrigin::new(application, group.clone(), row);
        let roster = before.as_ref().map(|(head, view)| (*head, &*view.members as &[MemberView]));
        let mut batch = transfer(&origin, &state, sequence, roster)?;
        let used = self.tell_used(&mut batch, &origin, &state, &handed)?;
        if let Some((_, view)) = &before {
            // The history before the gap would be read as if it went on.
            self.delete_history(app, group, view).await?;
            self.put_to_sleep(app, group).await;
        }
        let written = self.core.store.append(batch).await;
        // Whoever woke up meanwhile has read what was there before.
        self.put_to_sleep(app, group).await;
        match written {
            Ok(_) => {
                self.core.wake_key_queues(app, used);
                Ok(self.held_at(sequence.saturating_add(1), false))
            }
            Err(AppendError::Precondition(Unmet::LogMoved { .. } | Unmet::LogExists)) => {
                self.held(app, group)
            }
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    /// Notes which key packages of clients here were used in what this gateway never saw, and keeps the welcome of the
    /// epoch for those of them whom it is for. Who they are, their key queues tell.
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
        let is_member = |(domain, handle): &(Option<DomainName>, ClientHandle)| {
            state.roster().iter().any(|member| member.handle == *handle && member.domain == *domain)
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

    async fn delete_history(&self, app: AppId, group: &GroupId, view: &GroupView) -> Result<(), GroupError> {
        loop {
            let store = self.core.store.view();
            let epochs = store
                .epochs(app, group, Epoch(0), view.epoch, DELETED_AT_ONCE)
                .map_err(StorageError::from)?;
            if epochs.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (epoch, _) in epochs {
                batch.delete_epoch(app, group, epoch);
            }
            self.core.store.append(batch).await.map_err(|error| unwritten(&error, "the group"))?;
        }
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

    /// Checks a key package that the gateway of a domain gave for a client of that domain (*Key Package Validation*).
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub async fn check_retrieved_key_package(
        &self,
        app: AppId,
        domain: &DomainName,
        cipher_suite: u16,
        key_package: &[u8],
    ) -> Result<(), String> {
        let application = self.application(app).ok_or("there is no such application")?;
        if key_package.len() > self.core.limits.packet_bytes_max {
            return Err(format!("it has more than {} bytes", self.core.limits.packet_bytes_max));
        }
        let (core, provider) = (Arc::clone(&self.core), Arc::clone(&application.identity));
        let (domain, key_package) = (domain.clone(), key_package.to_vec());
        let checked = tokio::task::spawn_blocking(move || {
            let checks = KeyPackageChecks {
                cipher_suite,
                handle: None,
                domain: Some(&domain),
                now: core.clock.now(),
                lifetime_s_max: 0,
            };
            checks.check(&core.crypto, &*provider, &key_package).map(drop)
        });
        checked.await.map_err(|_| "it cannot be judged".to_owned())?
    }
}

/// Waits for a view that is as it should be; `false` when the actor went to sleep before it showed one.
async fn changed(mut published: watch::Receiver<Published>, is_reached: impl Fn(&GroupView) -> bool) -> bool {
    let shows = |shown: &Published| matches!(shown, Published::Ready(view) if is_reached(view));
    published.wait_for(shows).await.is_ok()
}

fn is_lifetime(error: &GroupError) -> bool {
    matches!(
        error,
        GroupError::InvalidCommit { rule: Rule::Lifetime, .. }
            | GroupError::InvalidProposal { rule: Rule::Lifetime, .. }
    )
}

/// A group that is handed over follows on what the replica has checked itself: it is not older, and its group info is
/// signed by a client whom the replica knows as a member. In the same epoch it is the same group.
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
    if is_known {
        Ok(())
    } else {
        refuse("nobody whom this replica knows as a member has signed the group info")
    }
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
        AppendError::Precondition(_) | AppendError::Closed | AppendError::Storage(_) => {
            StorageError::from_append(error).into()
        }
    }
}
