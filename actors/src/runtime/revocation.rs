//! Search for members whose certificates are revoked, in all groups that this gateway orders, awake or asleep.
//!
//! Verdicts on requests do not depend on it: the owner of a group looks through its members before the first request after a change
//! of the lists. The search finds those of groups in which nothing happens, and has their removal proposed. It reads one group at
//! a time, activates those with revoked members only, and remembers how far it came.

mod failed;
mod lap;

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use snapshots::{AppId, Batch, GroupId, ReadError, SweepError};
use tokio::time::timeout;

use self::{
    failed::Failed,
    lap::{Lap, LapPlace, Progress},
};
use super::registry::Registry;
use crate::{
    application::{Application, ExpiredMembers},
    durable::LoadError,
    error::StorageError,
    group::{GroupError, RemoveRevoked, revoked_members},
    identity::x509::Trusted,
    revocation_searches::RevocationSearch,
    services::Services,
};

/// The groups after which the progress is written.
const AT_ONCE: usize = 256;

/// The pause before what has failed is tried again. It doubles each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Searches whenever trust roots or lists have changed, and at the start. Never ends.
pub(super) async fn search_always(registry: Registry) {
    let (registry, mut searches) = (&registry, HashMap::new());
    until_done(|| registry.services().revocation.wait(), async || search_all(registry, &mut searches).await)
        .await;
}

/// Works whenever work is wanted, and after a pause if it was not done. Never ends.
async fn until_done(wanted: impl AsyncFn(), mut work: impl AsyncFnMut() -> bool) {
    loop {
        wanted().await;
        let mut pause = FIRST_PAUSE;
        while !work().await {
            pause = match timeout(pause, wanted()).await {
                Ok(()) => FIRST_PAUSE,
                Err(_) => pause.saturating_mul(2).min(LONGEST_PAUSE),
            };
        }
    }
}

/// Searches the groups of all applications. Returns whether nothing is left to be tried again.
async fn search_all(registry: &Registry, searches: &mut HashMap<AppId, Search>) -> bool {
    let mut is_done = true;
    let applications: Vec<_> = registry.services().applications.values().cloned().collect();
    for application in &applications {
        is_done &= search(registry, application, searches).await.unwrap_or_else(|error| {
            // Requests are judged by the new lists in any case.
            tracing::error!(application = %application.id, %error, "the search for revoked members has failed; it is tried again");
            false
        });
    }
    is_done
}

/// Searches the groups of one application, from where an earlier search has come. Returns whether nothing is left to be tried again.
async fn search(
    registry: &Registry,
    application: &Application,
    searches: &mut HashMap<AppId, Search>,
) -> Result<bool, SweepError> {
    let (services, app) = (registry.services(), application.id);
    let wanted = application.expired_members != ExpiredMembers::Ignore;
    let trusted = application.identity.trusted().filter(|trusted| wanted && trusted.revocation_number() > 0);
    let Some(trusted) = trusted else {
        searches.remove(&app);
        forget(services, app).await?;
        return Ok(true);
    };
    let (of, judge) = (application.clone(), Arc::clone(&trusted));
    let conditions = snapshots::away(move || conditions(&of, &judge)).await.map_err(|_| stopped())?;
    let search = match searches.remove(&app) {
        Some(search) if search.trust == trusted.revocation_number() => search,
        // Also if the lists are the same again: others held meanwhile.
        Some(search) => Search::new(conditions, &trusted, search.lap.anew()),
        None => {
            let stored = services.store.view().setting(&setting(app))?;
            match Progress::read(stored.as_deref().unwrap_or_default(), &conditions) {
                Progress::At(lap) => Search::new(conditions, &trusted, lap),
                Progress::Done => {
                    Search { is_done: true, ..Search::new(conditions, &trusted, Lap::default()) }
                }
            }
        }
    };
    let search = searches.entry(app).insert_entry(search).into_mut();
    if search.is_done {
        return Ok(true);
    }
    services.revocation.note(app, search.shown(true));
    let outcome = search.go_on(registry, application, &trusted).await;
    let mut shown = search.shown(false);
    if search.is_done {
        shown.ended = Some(services.clock.now());
        let RevocationSearch { groups, revoked_members, .. } = shown;
        tracing::info!(application = %app, groups, revoked_members, "looked for revoked members");
    } else if let Some((group, error)) = search.failure.take().filter(|_| !services.is_stopping()) {
        tracing::warn!(
            application = %app, groups = search.failed.count(), ?group, %error,
            "revoked members of some groups, one of which is named, were not all proposed for removal; they are tried again, and \
             proposed with the next commit"
        );
    }
    services.revocation.note(app, shown);
    outcome.map(|()| search.is_done)
}

/// Forgets the search of an application in which nothing is revoked, or nothing follows from it. Until that changes, members whose
/// removal was proposed may stay, and others come in: then all groups are to be searched again.
async fn forget(services: &Services, app: AppId) -> Result<(), SweepError> {
    let stored = services.store.view().setting(&setting(app))?;
    if stored.is_some_and(|stored| !stored.is_empty()) {
        let mut batch = Batch::new();
        batch.put_setting(&setting(app), []);
        services.store.append(batch).await?;
    }
    services.revocation.clear(app, services.clock.now());
    Ok(())
}

/// The search through the groups of one application under certain conditions.
#[derive(Debug)]
struct Search {
    conditions: [u8; 32],
    /// The number of the trust store.
    trust: u64,
    lap: Lap,
    /// Where a search after a restart goes on: before the first group that failed.
    safe: Lap,
    /// Whether its progress has replaced that of an earlier search.
    is_stored: bool,
    /// Whether the lap has come around.
    is_around: bool,
    failed: Failed,
    /// A group that failed and its fault, for the log.
    failure: Option<(GroupId, String)>,
    is_done: bool,
}

impl Search {
    fn new(conditions: [u8; 32], trusted: &Trusted, lap: Lap) -> Self {
        Self {
            conditions,
            trust: trusted.revocation_number(),
            safe: lap.clone(),
            lap,
            is_stored: false,
            is_around: false,
            failed: Failed::default(),
            failure: None,
            is_done: false,
        }
    }

    /// The search for operators.
    fn shown(&self, is_running: bool) -> RevocationSearch {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        RevocationSearch {
            groups: count(self.lap.groups),
            revoked_members: count(self.lap.revoked_members),
            failed_groups: self.failed.count(),
            is_running,
            ended: None,
        }
    }

    /// Tries the groups again that failed, and goes on through the others, until all were looked through, the trust store is replaced
    /// or the gateway stops.
    async fn go_on(
        &mut self,
        registry: &Registry,
        application: &Application,
        trusted: &Arc<Trusted>,
    ) -> Result<(), SweepError> {
        let (services, app) = (registry.services(), application.id);
        let must_end = || services.is_stopping() || is_outdated(application, trusted);
        if self.failed.begin_lap() {
            let failed = mem::take(&mut self.failed);
            *self = Self { failed, ..Self::new(self.conditions, trusted, self.safe.clone()) };
        }
        if !self.is_stored {
            self.remember(services, application, trusted).await?;
        }
        for group in self.failed.remembered().clone() {
            self.look(registry, application, trusted, &group).await;
            if must_end() {
                return Ok(());
            }
        }
        while !self.is_around {
            let (view, after) = (services.store.view(), self.lap.after().cloned());
            let groups = snapshots::away(move || view.groups(app, after, AT_ONCE)).await;
            let groups = groups.map_err(|_| stopped())??;
            let mut is_end = groups.len() < AT_ONCE;
            for (group, row) in groups {
                let place = self.lap.place_of(&group);
                if place != LapPlace::Behind && application.is_hub(row.hub.as_ref()) {
                    self.look(registry, application, trusted, &group).await;
                }
                if services.is_stopping() {
                    // The group may have failed because of that; nothing is said of it.
                    return Ok(());
                }
                self.is_around = place != LapPlace::Inside;
                if place != LapPlace::Behind {
                    self.lap.pass(group);
                }
                // After a group and not before it, so that each search comes further.
                if self.is_around || is_outdated(application, trusted) {
                    is_end = false;
                    break;
                }
            }
            if is_end {
                self.is_around = !self.lap.pass_the_end();
            }
            services.revocation.note(app, self.shown(true));
            self.remember(services, application, trusted).await?;
            if must_end() {
                return Ok(());
            }
        }
        self.remember(services, application, trusted).await
    }

    /// Looks through one group. One that fails is tried again.
    async fn look(
        &mut self,
        registry: &Registry,
        application: &Application,
        trusted: &Arc<Trusted>,
        group: &GroupId,
    ) {
        match search_group(registry, application, trusted, group).await {
            Ok(revoked) => {
                self.failed.remove(group);
                self.lap.groups += 1;
                self.lap.revoked_members += u64::try_from(revoked).unwrap_or(u64::MAX);
            }
            Err(error) => {
                self.failed.add(group);
                self.failure.get_or_insert_with(|| (group.clone(), error.to_string()));
            }
        }
    }

    /// Writes how far it has come. Groups that failed are not claimed; nor is any once the trust store was replaced, since the group
    /// that was looked through last may have been judged by the other one.
    async fn remember(
        &mut self,
        services: &Services,
        application: &Application,
        trusted: &Trusted,
    ) -> Result<(), SweepError> {
        let has_failed = self.failed.count() > 0;
        if !has_failed {
            self.safe = self.lap.clone();
        }
        let is_valid = !is_outdated(application, trusted);
        let is_done = self.is_around && !has_failed && is_valid;
        let progress = if is_done {
            Progress::Done
        } else {
            Progress::At(if is_valid { self.safe.clone() } else { self.lap.anew() })
        };
        let mut batch = Batch::new();
        batch.put_setting(&setting(application.id), progress.to_bytes(&self.conditions));
        services.store.append(batch).await?;
        self.is_stored = true;
        self.is_done = is_done;
        Ok(())
    }
}

/// The reason why a group was not looked through, or not all its revoked members proposed for removal.
#[derive(Debug, thiserror::Error)]
enum GroupFault {
    /// It sleeps, and cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The answer of its owner.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Has the removal of the revoked members of one group proposed; returns their number.
async fn search_group(
    registry: &Registry,
    application: &Application,
    trusted: &Arc<Trusted>,
    group: &GroupId,
) -> Result<usize, GroupFault> {
    let (app, services) = (application.id, registry.services());
    let shown = registry.shown(app, group);
    let was_asleep = shown.is_none();
    let (view, id, judge) = (services.store.view(), group.clone(), Arc::clone(trusted));
    let now = services.clock.now();
    let looking = move || revoked_members(shown.as_deref(), (&view, app, &id), &judge, now);
    if snapshots::away(looking).await.map_err(|_| GroupError::from(StorageError::Unreadable))?? == 0 {
        return Ok(0);
    }
    let removed = registry.ask_group(application, group, |permit| RemoveRevoked { permit }).await;
    if was_asleep {
        registry.passivate_group(app, group).await;
    }
    match removed {
        Err(GroupError::UnknownGroup) => Ok(0),
        removed => Ok(removed?),
    }
}

/// Whether the trust store was replaced since a search began; another search follows.
fn is_outdated(application: &Application, trusted: &Trusted) -> bool {
    let present = application.identity.trusted();
    present.is_none_or(|present| present.revocation_number() != trusted.revocation_number())
}

/// The setting with the progress of the searches of an application.
fn setting(app: AppId) -> String {
    format!("revocation_search/{app}")
}

/// A digest of all that the result of a search depends on but the groups: a new one makes a new search necessary.
fn conditions(application: &Application, trusted: &Trusted) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(trusted.revocation_digest());
    for sender in application.external_senders.iter() {
        digest.update(Sha256::digest(sender.public_key()));
    }
    for domain in &application.domains {
        digest.update(Sha256::digest(domain.as_str()));
    }
    digest.finalize().into()
}

fn stopped() -> SweepError {
    SweepError::Read(ReadError::Storage("reading stopped".to_owned()))
}

#[cfg(test)]
mod tests;
