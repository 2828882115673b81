//! Search for members whose certificates are revoked, in all groups that this gateway orders, awake or asleep.
//!
//! Verdicts on requests do not depend on it: the owner of a group looks through its members before the first request after a change
//! of the lists. The search finds those of groups in which nothing happens, and has their removal proposed. It reads one group at
//! a time, activates those with revoked members only, and remembers how far it came.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use snapshots::{AppId, Batch, GroupId, ReadError, SweepError};

use super::registry::Registry;
use crate::{
    application::{Application, ExpiredMembers},
    group::{GroupError, RemoveRevoked, revoked_members},
    identity::x509::Trusted,
    revocation_searches::RevocationSearch,
};

/// The groups after which the progress is written.
const AT_ONCE: usize = 256;

/// The number of tries to have removals proposed in a group that is busy, and the pause between them.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Searches whenever trust roots or lists have changed, and at the start. Never ends.
pub(super) async fn search_always(registry: Registry) {
    loop {
        registry.services().revocation.wait().await;
        let applications: Vec<_> = registry.services().applications.values().cloned().collect();
        for application in applications {
            if let Err(error) = search(&registry, &application).await {
                // The next reload or start tries again; requests are judged by the new lists in any case.
                tracing::error!(application = %application.id, %error, "the search for revoked members has failed");
            }
        }
    }
}

/// Searches the groups of one application, from where an earlier search with the same lists has come.
async fn search(registry: &Registry, application: &Application) -> Result<(), SweepError> {
    if application.expired_members == ExpiredMembers::Ignore {
        return Ok(());
    }
    let Some(trusted) = application.identity.trusted().filter(|trusted| trusted.revocation_number() > 0)
    else {
        return Ok(());
    };
    let (services, app) = (registry.services(), application.id);
    let (of, judge) = (application.clone(), Arc::clone(&trusted));
    let conditions = snapshots::away(move || conditions(&of, &judge)).await;
    let conditions = conditions.map_err(|_| stopped())?;
    let stored = services.store.view().setting(&setting(app))?;
    let mut after = match Progress::read(stored.as_deref().unwrap_or_default(), &conditions) {
        Progress::Done => return Ok(()),
        Progress::After(group) => group,
    };
    let mut found = RevocationSearch::default();
    services.revocation.note(app, found);
    loop {
        let (view, from) = (services.store.view(), after.take());
        let groups = snapshots::away(move || view.groups(app, from, AT_ONCE)).await;
        let groups = groups.map_err(|_| stopped())??;
        let last = groups.last().filter(|_| groups.len() == AT_ONCE).map(|(group, _)| group.clone());
        for (group, row) in groups {
            if services.is_stopping() || is_outdated(application, &trusted) {
                return Ok(());
            }
            if application.is_hub(row.hub.as_ref()) {
                found.groups += 1;
                found.revoked_members += search_group(registry, application, &trusted, &group).await?;
            }
        }
        services.revocation.note(app, found);
        let progress = last.clone().map_or(Progress::Done, |last| Progress::After(Some(last)));
        let mut batch = Batch::new();
        batch.put_setting(&setting(app), progress.to_bytes(&conditions));
        services.store.append(batch).await?;
        if last.is_none() {
            found.ended = Some(services.clock.now());
            services.revocation.note(app, found);
            let RevocationSearch { groups, revoked_members, .. } = found;
            tracing::info!(application = %app, groups, revoked_members, "looked for revoked members");
            return Ok(());
        }
        after = last;
    }
}

/// Has the removal of the revoked members of one group proposed; returns their number.
async fn search_group(
    registry: &Registry,
    application: &Application,
    trusted: &Arc<Trusted>,
    group: &GroupId,
) -> Result<usize, SweepError> {
    let (app, services) = (application.id, registry.services());
    let shown = registry.shown(app, group);
    let was_asleep = shown.is_none();
    let (view, id, judge) = (services.store.view(), group.clone(), Arc::clone(trusted));
    let now = services.clock.now();
    let looking = move || revoked_members(shown.as_deref(), (&view, app, &id), &judge, now);
    match snapshots::away(looking).await.map_err(|_| stopped())? {
        Ok(0) => return Ok(0),
        Ok(_) => {}
        Err(error) => {
            // Its own requests fail, too, and say so.
            tracing::error!(application = %app, ?group, %error, "the members of a group cannot be read");
            return Ok(0);
        }
    }
    let mut tries = 0;
    let removed = loop {
        match registry.ask_group(application, group, |permit| RemoveRevoked { permit }).await {
            Err(GroupError::Busy) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            outcome => break outcome,
        }
    };
    if was_asleep {
        registry.passivate_group(app, group).await;
    }
    match removed {
        Ok(revoked) => Ok(revoked),
        Err(GroupError::UnknownGroup | GroupError::Stopping) => Ok(0),
        Err(error) => {
            tracing::warn!(
                application = %app, ?group, %error,
                "the removal of revoked members was not proposed; the next commit has it proposed"
            );
            Ok(0)
        }
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
    digest.finalize().into()
}

/// How far a search has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// Through the groups up to one, in the order of their ids; through none if there is none.
    After(Option<GroupId>),
    /// Through all.
    Done,
}

impl Progress {
    const DONE: u8 = 0;
    const AFTER: u8 = 1;

    /// Reads the progress of a search under these conditions. Anything else that was stored counts for nothing.
    fn read(stored: &[u8], conditions: &[u8; 32]) -> Self {
        match stored.strip_prefix(conditions) {
            Some([Self::DONE]) => Self::Done,
            Some([Self::AFTER, group @ ..]) => Self::After(GroupId::new(group).ok()),
            Some(_) | None => Self::After(None),
        }
    }

    fn to_bytes(&self, conditions: &[u8; 32]) -> Vec<u8> {
        match self {
            Self::Done => [conditions.as_slice(), &[Self::DONE]].concat(),
            Self::After(group) => {
                let group = group.as_ref().map_or(&[][..], GroupId::as_bytes);
                [conditions.as_slice(), &[Self::AFTER], group].concat()
            }
        }
    }
}

fn stopped() -> SweepError {
    SweepError::Read(ReadError::Storage("reading stopped".to_owned()))
}

#[cfg(test)]
mod tests;
