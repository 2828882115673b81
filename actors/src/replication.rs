//! Following the logs of other gateways' groups (*Group Evolution*): a replica takes what the group's hub delivers, checks
//! every entry by the same rules and answers reads. What else a gateway needs of its peers' clients is here as well.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use snapshots::{AppId, AppendError, Batch, DomainName, Epoch, GroupId, GroupRow, LogId, Timestamp, Unmet};
use tokio::sync::watch;

use crate::{
    application::{Application, Source},
    gateway::{Gateway, shown_view},
    group::{
        ApplyEntry, GroupError, GroupOrigin, GroupState, GroupView, MemberView, NewGroup, Published,
        creation, transfer,
    },
    mls::{KeyPackageChecks, Rule, Rules},
    peer::{Delivery, DeliveryContent, EntryContent, GroupTransfer, Held, LogEntry},
    router::Rest,
    storage::StorageError,
};

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
        let Delivery { app, group, hub, content } = delivery;
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
                self.receive_entries(application, &group, (peer, &hub), row.is_some(), entries).await
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
        entries: Vec<LogEntry>,
    ) -> Result<Held, GroupError> {
        let mut next = None;
        for entry in entries {
            self.check_skew(entry.timestamp)?;
            let (number, accepted) = (entry.sequence, entry.timestamp);
            let taken = match entry.content {
                EntryContent::Creation { group_info, ratchet_tree } if number == 0 => {
                    if !exists {
                        let new = NewGroup { group_info, ratchet_tree };
                        self.create_replica(application, group, (peer, hub), new, accepted).await?;
                        exists = true;
                    }
                    continue;
                }
                EntryContent::Creation { .. } => {
                    Err(GroupError::NotFromHub("a creation is entry 0 and no other".into()))
                }
                // The group's creation is missing.
                EntryContent::Proposal { .. } | EntryContent::Commit { .. } if !exists => {
                    return Ok(Held { next: 0, needs_transfer: false });
                }
                EntryContent::Proposal { .. } | EntryContent::Commit { .. } => {
                    self.ask_group(application, group, |permit| ApplyEntry { entry: entry.clone(), permit })
                        .await
                }
            };
            match taken {
                Ok(after) => next = Some(after),
                // It was within its lifetime when the hub accepted it.
                Err(error) if is_lifetime(&error) => return Ok(Held { next: number, needs_transfer: true }),
                Err(error) => {
                    tracing::warn!(hub = %hub, ?group, number, %error, "an entry of the hub is refused");
                    return Err(error);
                }
            }
        }
        match next {
            Some(next) => Ok(Held { next, needs_transfer: false }),
            None => self.held(application.id, group),
        }
    }

    /// Where a replica stands.
    fn held(&self, app: AppId, group: &GroupId) -> Result<Held, GroupError> {
        let log = LogId::Group(app, group.clone());
        let head = self.core.store.view().log_head(&log).map_err(StorageError::from)?;
        Ok(Held { next: head.map_or(0, |head| head.saturating_add(1)), needs_transfer: false })
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
        let (core, hub_there, application_there) = (Arc::clone(&self.core), hub.clone(), application.clone());
        // A group begins with a member of its hub's domains.
        let source = Source::Peer(peer.clone());
        let judged = tokio::task::spawn_blocking(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let rules = Rules { crypto, limits, application: &application_there, source: &source };
            GroupState::create(rules, &new, Some(hub_there), accepted).map(|state| (state, new))
        });
        let (state, new) = judged
            .await
            .map_err(|_| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))??;
        check_group(&state, group)?;
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
            GroupState::from_transfer(rules, &handed, hub_there)
        });
        let state = judged
            .await
            .map_err(|_| GroupError::InvalidGroupInfo("the group info cannot be judged".into()))??;
        check_group(&state, group)?;
        if let Some((_, view)) = &before
            && (state.epoch() < view.epoch || accepted < view.stamp)
        {
            return Err(GroupError::NotFromHub(
                "the group that is handed over is older than the replica".into(),
            ));
        }
        let row =
            GroupRow { epoch: state.epoch(), created_at: accepted, creation_digest: [0; 32], hub: Some(hub) };
        let origin = GroupOrigin::new(application, group.clone(), row);
        let roster = before.as_ref().map(|(head, view)| (*head, &*view.members as &[MemberView]));
        let batch = transfer(&origin, &state, sequence, roster)?;
        if let Some((_, view)) = &before {
            // The history before the gap would be read as if it went on.
            self.delete_history(app, group, view).await?;
            self.put_to_sleep(app, group).await;
        }
        let written = self.core.store.append(batch).await;
        // Whoever woke up meanwhile has read what was there before.
        self.put_to_sleep(app, group).await;
        match written {
            Ok(_) => Ok(Held { next: sequence.saturating_add(1), needs_transfer: false }),
            Err(AppendError::Precondition(Unmet::LogMoved { .. } | Unmet::LogExists)) => {
                self.held(app, group)
            }
            Err(error) => Err(unwritten(&error, "the group")),
        }
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
            view.epoch > epoch || view.proposals.iter().any(|waiting| **waiting == *packet)
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
