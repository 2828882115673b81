//! Shares of the join infos that may wait for one client, by inviter (*Joining*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `welcome_shares` | application, client handle, domain, 0 | [`ShareRow`] of all inviters together |
//! | `welcome_shares` | application, client handle, domain, 1, share | [`ShareRow`] of one share |
//!
//! A client of this gateway acknowledges its join infos here, and its rows count those that wait. A client of another gateway
//! acknowledges there, so its rows count those that were sent within a [`WelcomeLimits::elsewhere_window`], and expire with it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    retention::Expiring,
    table,
    welcomes::{CountedBy, JoinInfoRow},
};
use crate::{
    engine::{Batch, Key, Overlay, Rows, Slice, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, ClientHandle, DomainName, Timestamp},
};

const TOTAL: u8 = 0;
const ONE_SHARE: u8 = 1;

/// The name of a share: an inviter, or all inviters of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShareId(#[serde(with = "serde_bytes")] [u8; 16]);

impl ShareId {
    /// The share of join infos whose inviter is unknown.
    pub const UNKNOWN: Self = Self([0; 16]);

    /// A share by the digest of its name.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// A client that a commit adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvitedClient {
    /// Its handle.
    pub handle: ClientHandle,
    /// Its domain, where the application uses domains.
    pub domain: Option<DomainName>,
}

/// The shares in which an invitation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inviter {
    /// The inviter's own.
    pub share: ShareId,
    /// The share, its own or its domain's, with a reserve for clients that have reached their limit; `None` if it has no
    /// reserve.
    pub reserve: Option<ShareId>,
}

/// Limits on the join infos of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WelcomeLimits {
    /// Of all inviters together, without the reserves.
    pub per_client_max: u64,
    /// Of one inviter.
    pub per_inviter_max: u64,
    /// Of one share with a reserve, when there are [`per_client_max`](Self::per_client_max) in total.
    pub reserved_max: u64,
    /// The time for which a join info that was sent to a client of another gateway counts.
    pub elsewhere_window: Duration,
}

/// The number of join infos of one share or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ShareRow {
    count: u64,
    /// The beginning of the window that is counted; `None` for a client of this gateway.
    #[serde(default)]
    since: Option<Timestamp>,
}

fn client_key(app: AppId, handle: &ClientHandle, domain: Option<&DomainName>) -> Key {
    Key::of_app(app).handle(handle).domain(domain)
}

fn total_key(app: AppId, handle: &ClientHandle, domain: Option<&DomainName>) -> Key {
    client_key(app, handle, domain).byte(TOTAL)
}

fn share_key(app: AppId, handle: &ClientHandle, domain: Option<&DomainName>, share: ShareId) -> Key {
    client_key(app, handle, domain).byte(ONE_SHARE).last(&share.0)
}

/// The window in which join infos for a client of another gateway count: its end, which is now, and its length.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    now: Timestamp,
    length: Duration,
}

impl Batch {
    /// Counts invitations of clients of other gateways, where their join infos are kept. Precondition: none exceeds a limit,
    /// else [`Unmet::TooManyWelcomes`].
    pub fn count_invitations_elsewhere(
        &mut self,
        app: AppId,
        clients: &[InvitedClient],
        inviter: Inviter,
        limits: WelcomeLimits,
        now: Timestamp,
    ) -> &mut Self {
        for client in clients {
            self.key(share_key(app, &client.handle, client.domain.as_ref(), inviter.share));
        }
        let clients = clients.to_vec();
        let window = Window { now, length: limits.elsewhere_window };
        self.operation(move |overlay| {
            clients.iter().try_for_each(|client| take(overlay, app, client, inviter, limits, Some(window)))
        })
    }
}

/// Counts one more join info, unless that would exceed a limit; one that waits elsewhere counts for a time.
pub(crate) fn take(
    overlay: &mut Overlay<'_>,
    app: AppId,
    client: &InvitedClient,
    inviter: Inviter,
    limits: WelcomeLimits,
    window: Option<Window>,
) -> Result<(), Refusal> {
    let (handle, domain) = (&client.handle, client.domain.as_ref());
    let total = total_key(app, handle, domain);
    let own = share_key(app, handle, domain, inviter.share);
    let reserve = inviter.reserve.map(|reserve| share_key(app, handle, domain, reserve));
    let refuse = |overlay: &Overlay<'_>, full: &Key, of_inviter, max| {
        let (handle, domain) = (handle.clone(), client.domain.clone());
        let counted_until = counted_until(overlay, full, window)?;
        Err(Unmet::TooManyWelcomes { handle, domain, of_inviter, max, counted_until }.into())
    };
    if count(overlay, &own, window)? >= limits.per_inviter_max {
        return refuse(overlay, &own, true, limits.per_inviter_max);
    }
    let of_any_domain = match window {
        None => count_of_any_domain(overlay, app, client)?,
        Some(_) => 0,
    };
    if count(overlay, &total, window)?.saturating_add(of_any_domain) >= limits.per_client_max {
        let held = reserve.as_ref().map(|reserve| count(overlay, reserve, window)).transpose()?;
        if held.is_none_or(|held| held >= limits.reserved_max) {
            return refuse(overlay, &total, false, limits.per_client_max);
        }
    }
    let reserve = reserve.filter(|reserve| *reserve != own);
    [Some(total), Some(own), reserve].iter().flatten().try_for_each(|key| add(overlay, key, window))
}

/// Subtracts a join info from its counts.
pub(crate) fn give_back(
    overlay: &mut Overlay<'_>,
    app: AppId,
    handle: &ClientHandle,
    row: &JoinInfoRow,
) -> Result<(), Refusal> {
    for key in counted_keys(app, handle, row) {
        match overlay.row::<ShareRow>(table::WELCOME_SHARES, &key)? {
            Some(ShareRow { count: 0 | 1, .. }) => overlay.delete(table::WELCOME_SHARES, &key),
            Some(held) => put(overlay, &key, &ShareRow { count: held.count - 1, ..held })?,
            None => {}
        }
    }
    Ok(())
}

/// The rows in which a join info counts.
fn counted_keys(app: AppId, handle: &ClientHandle, row: &JoinInfoRow) -> Vec<Key> {
    let domain = row.domain.as_ref();
    let (share, reserve) = match row.counted_by {
        CountedBy::Nobody => return Vec::new(),
        CountedBy::Unknown => (ShareId::UNKNOWN, None),
        CountedBy::Inviter { share, reserve } => (share, reserve.filter(|reserve| *reserve != share)),
    };
    let shares = [Some(share), reserve].into_iter().flatten();
    let shares = shares.map(|share| share_key(app, handle, domain, share));
    [total_key(app, handle, domain)].into_iter().chain(shares).collect()
}

/// The rows that count these join infos, in a store that has none yet.
pub(crate) fn rows_for(
    infos: impl Iterator<Item = Result<(AppId, ClientHandle, JoinInfoRow), ReadError>>,
) -> Result<Vec<(Key, Slice)>, ReadError> {
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    for info in infos {
        let (app, handle, row) = info?;
        for key in counted_keys(app, &handle, &row) {
            *counts.entry(key).or_default() += 1;
        }
    }
    let encoded = |(key, count): (Key, u64)| Ok((key, encode(&ShareRow { count, since: None })?));
    counts.into_iter().map(encoded).collect()
}

fn count(overlay: &Overlay<'_>, key: &Key, window: Option<Window>) -> Result<u64, ReadError> {
    let row = overlay.row::<ShareRow>(table::WELCOME_SHARES, key)?;
    Ok(row.filter(|row| is_counted(row, window)).map_or(0, |row| row.count))
}

/// The time at which the window of a row of a client of another gateway ends.
fn counted_until(
    overlay: &Overlay<'_>,
    key: &Key,
    window: Option<Window>,
) -> Result<Option<Timestamp>, ReadError> {
    let Some(window) = window else { return Ok(None) };
    let row = overlay.row::<ShareRow>(table::WELCOME_SHARES, key)?;
    Ok(row.and_then(|row| row.since).map(|since| end(since, window.length)))
}

/// The number of join infos for a client's handle that do not name a domain: they are for the client of each domain.
fn count_of_any_domain(rows: &impl Rows, app: AppId, client: &InvitedClient) -> Result<u64, ReadError> {
    if client.domain.is_none() {
        return Ok(0);
    }
    let key = total_key(app, &client.handle, None);
    Ok(rows.row::<ShareRow>(table::WELCOME_SHARES, &key)?.map_or(0, |row| row.count))
}

fn is_counted(row: &ShareRow, window: Option<Window>) -> bool {
    match (row.since, window) {
        (Some(since), Some(window)) => window.now < end(since, window.length),
        (None, _) | (_, None) => true,
    }
}

fn end(since: Timestamp, length: Duration) -> Timestamp {
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    Timestamp(since.0.saturating_add(length_ms))
}

fn add(overlay: &mut Overlay<'_>, key: &Key, window: Option<Window>) -> Result<(), Refusal> {
    let row = overlay.row::<ShareRow>(table::WELCOME_SHARES, key)?;
    if let Some(row) = row.filter(|row| is_counted(row, window)) {
        return put(overlay, key, &ShareRow { count: row.count.saturating_add(1), ..row });
    }
    if let Some(window) = window {
        let expiring = Expiring::Share { key: key.as_bytes().to_vec() };
        overlay.put(table::EXPIRIES, &expiring.key(end(window.now, window.length)), Slice::from([]));
    }
    put(overlay, key, &ShareRow { count: 1, since: window.map(|window| window.now) })
}

fn put(overlay: &mut Overlay<'_>, key: &Key, row: &ShareRow) -> Result<(), Refusal> {
    overlay.put(table::WELCOME_SHARES, key, encode(row)?);
    Ok(())
}

fn encode(row: &ShareRow) -> Result<Slice, ReadError> {
    rows::encode(row).map_err(|error| ReadError::Storage(format!("a row cannot be encoded: {error}")))
}

/// Deletes a row of a client of another gateway whose window ends at `expired`. A row with a later window has an expiry of its
/// own.
pub(crate) fn expire(overlay: &mut Overlay<'_>, key: &[u8], expired: Timestamp) -> Result<(), Refusal> {
    let key = Key::new().last(key);
    let row = overlay.row::<ShareRow>(table::WELCOME_SHARES, &key)?;
    if row.and_then(|row| row.since).is_some_and(|since| since < expired) {
        overlay.delete(table::WELCOME_SHARES, &key);
    }
    Ok(())
}

impl View {
    /// The number of join infos of all inviters that are counted for a client: those that wait, or those that were sent to a
    /// client of another gateway.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn join_infos_counted(&self, app: AppId, client: &InvitedClient) -> Result<u64, ReadError> {
        let key = total_key(app, &client.handle, client.domain.as_ref());
        let counted = self.row::<ShareRow>(table::WELCOME_SHARES, &key)?.map_or(0, |row| row.count);
        Ok(counted.saturating_add(count_of_any_domain(self, app, client)?))
    }
}
