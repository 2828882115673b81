//! Claims of key packages in the audit log: who was assigned packages of whose queues.
//!
//! | table | key | value |
//! |---|---|---|
//! | `audit` | 2, application, claimant, queue | the number of the newest entry about both |
//! | `audit` | 3, application, claimant | [`ClaimedDay`] |
//!
//! The claimant is the domain of a peer, or empty for the application itself. What one claimant was assigned from one queue in one day
//! (UTC) is one entry, which each further assignment of that day brings up to date. Beyond a number of queues in a day, those of all
//! further queues are one entry, which bounds what a claimant adds to the log in a day.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{
    audit::{self, AuditEntry, AuditRow, AuditedAt},
    table,
};
use crate::{
    engine::{Batch, Key, Overlay, Rows as _, Slice, rows},
    errors::ReadError,
    ids::{AppId, ClientHandle, ClientId, DomainName, KeyQueueId, Timestamp},
};

const NEWEST_OF: u8 = 2;
const DAY: u8 = 3;

/// The length of a day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The receivers that an entry names.
const RECEIVERS_MAX: usize = 8;

/// An assignment of a key package, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The gateway that asked; `None` when the application did.
    pub peer: Option<DomainName>,
    /// The queue.
    pub queue: ClaimedQueue,
    /// The receiver's id, chosen by the caller.
    pub receiver: String,
    /// The time of the assignment.
    pub at: Timestamp,
}

/// The limits of claims in the audit log of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimLimits {
    /// Queues of which one claimant's assignments are entries of their own in one day.
    pub queues_per_day_max: u64,
    /// Entries that the log keeps.
    pub rows_max: u64,
}

/// A queue whose packages were claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedQueue {
    /// Its client.
    pub client: ClientId,
    /// The client's handle at the first claim.
    pub handle: ClientHandle,
    /// The queue.
    pub queue: KeyQueueId,
}

/// The key packages that one claimant was assigned in one day, from the time of their entry on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedKeyPackages {
    /// The gateway that asked; `None` when the application did.
    pub peer: Option<DomainName>,
    /// The queue; `None` for queues beyond [`ClaimLimits::queues_per_day_max`].
    pub queue: Option<ClaimedQueue>,
    /// The number of packages.
    pub taken: u64,
    /// The time of the last assignment.
    pub last_at: Timestamp,
    /// The newest receivers, up to 8, the newest last.
    pub receivers: VecDeque<String>,
}

/// The entries about a claimant on the last day of its claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ClaimedDay {
    /// Days since 1970.
    day: u64,
    /// Queues with an entry of their own.
    queues: u64,
    /// The number of the entry about further queues.
    others: Option<u64>,
}

impl ClaimedKeyPackages {
    /// A first claim.
    fn of(claim: &Claim, queue: Option<ClaimedQueue>) -> Self {
        Self {
            peer: claim.peer.clone(),
            queue,
            taken: 1,
            last_at: claim.at,
            receivers: VecDeque::from([claim.receiver.clone()]),
        }
    }

    /// Adds a further claim.
    fn add(&mut self, claim: &Claim) {
        self.taken = self.taken.saturating_add(1);
        self.last_at = claim.at.max(self.last_at);
        if self.receivers.len() >= RECEIVERS_MAX {
            self.receivers.pop_front();
        }
        self.receivers.push_back(claim.receiver.clone());
    }
}

fn day(at: Timestamp) -> u64 {
    at.0 / DAY_MS
}

fn of_claimant(kind: u8, app: AppId, peer: Option<&DomainName>) -> Key {
    let claimant = peer.map_or("", |peer| peer.as_str());
    Key::new().byte(kind).uuid(app.as_uuid()).part(claimant.as_bytes())
}

fn newest_key(app: AppId, peer: Option<&DomainName>, queue: KeyQueueId) -> Key {
    of_claimant(NEWEST_OF, app, peer).uuid(queue.as_uuid())
}

impl Batch {
    /// Notes an assignment in the audit log of an application.
    pub fn audit_claim(&mut self, app: AppId, claim: Claim, limits: ClaimLimits) -> &mut Self {
        let newest = self.key(newest_key(app, claim.peer.as_ref(), claim.queue.queue));
        self.operation(move |overlay| Ok(note(overlay, app, &claim, &newest, limits)?))
    }
}

fn note(
    overlay: &mut Overlay<'_>,
    app: AppId,
    claim: &Claim,
    newest: &Key,
    limits: ClaimLimits,
) -> Result<(), ReadError> {
    let number = overlay.value(table::AUDIT, newest)?;
    let number = number.map(|value| rows::number(table::AUDIT, &value)).transpose()?;
    if let Some(number) = number
        && add(overlay, app, number, claim)?
    {
        return Ok(());
    }
    let audited = AuditedAt { app, at: claim.at, rows_max: limits.rows_max };
    let key = of_claimant(DAY, app, claim.peer.as_ref());
    let today = day(claim.at);
    let noted = overlay.row::<ClaimedDay>(table::AUDIT, &key)?.filter(|noted| noted.day == today);
    let mut noted = noted.unwrap_or(ClaimedDay { day: today, ..ClaimedDay::default() });
    if noted.queues < limits.queues_per_day_max {
        noted.queues += 1;
        let entry = ClaimedKeyPackages::of(claim, Some(claim.queue.clone()));
        let number = audit::put(overlay, &audited, &AuditEntry::KeyPackagesClaimed(entry))?;
        overlay.put(table::AUDIT, newest, Slice::from(number.to_be_bytes()));
    } else {
        if let Some(others) = noted.others
            && add(overlay, app, others, claim)?
        {
            return Ok(());
        }
        let entry = ClaimedKeyPackages::of(claim, None);
        noted.others = Some(audit::put(overlay, &audited, &AuditEntry::KeyPackagesClaimed(entry))?);
    }
    let value = rows::encode(&noted).map_err(|error| ReadError::damaged(error.to_string()))?;
    overlay.put(table::AUDIT, &key, value);
    Ok(())
}

/// Adds a claim to an entry; returns whether that is still there and of the same day.
fn add(overlay: &mut Overlay<'_>, app: AppId, number: u64, claim: &Claim) -> Result<bool, ReadError> {
    match audit::entry(overlay, app, number)? {
        Some(AuditRow { at, entry: AuditEntry::KeyPackagesClaimed(mut claimed) })
            if day(at) == day(claim.at) =>
        {
            claimed.add(claim);
            let row = AuditRow { at, entry: AuditEntry::KeyPackagesClaimed(claimed) };
            audit::replace(overlay, app, number, &row)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// Forgets an entry that is about to be deleted.
pub(super) fn forget(
    overlay: &mut Overlay<'_>,
    app: AppId,
    number: u64,
    claimed: &ClaimedKeyPackages,
) -> Result<(), ReadError> {
    let Some(queue) = &claimed.queue else { return Ok(()) };
    let key = newest_key(app, claimed.peer.as_ref(), queue.queue);
    if overlay.value(table::AUDIT, &key)?.is_some_and(|newest| *newest == number.to_be_bytes()) {
        overlay.delete(table::AUDIT, &key);
    }
    Ok(())
}

/// Whether a row of this file can be read; `None` for a row of another kind.
pub(super) fn check(key: &[u8], value: &[u8]) -> Option<Result<(), ReadError>> {
    match key.first() {
        Some(&NEWEST_OF) => Some(rows::number(table::AUDIT, value).map(drop)),
        Some(&DAY) => Some(rows::decode::<ClaimedDay>(table::AUDIT, value).map(drop)),
        Some(_) | None => None,
    }
}
