//! Shares of the join infos that may wait for one client, by inviter (*Joining*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `welcome_shares` | application, client handle, domain, 0 | [`ShareRow`] of all inviters together |
//! | `welcome_shares` | application, client handle, domain, 1, share | [`ShareRow`] of one share |
//!
//! A client of this gateway takes a join info away by acknowledging it, and the rows count what waits. A client of another
//! gateway acknowledges there: its rows count what was sent within a [`WelcomeLimits::elsewhere_window`], and expire
//! with it.

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

/// Names a share: an inviter, or all inviters of a domain. Equal bytes are the same share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShareId(#[serde(with = "serde_bytes")] [u8; 16]);

impl ShareId {
    /// The share of the join infos of which the inviter is not known.
    pub const UNKNOWN: Self = Self([0; 16]);

    /// Takes the bytes of a digest of whatever names the share.
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

/// The shares that an invitation takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inviter {
    /// The inviter's own.
    pub share: ShareId,
    /// The share, its own or its domain's, whose reserve lets it invite a client that holds as many join infos as it may;
    /// `None` if it has no reserve.
    pub reserve: Option<ShareId>,
}

/// How many join infos may wait for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WelcomeLimits {
    /// Of all inviters together, the reserves aside.
    pub per_client_max: u64,
    /// Of one inviter.
    pub per_inviter_max: u64,
    /// Of one share that has a reserve, when there are [`per_client_max`](Self::per_client_max) in all.
    pub reserved_max: u64,
    /// For how long a join info counts that a client of another gateway was sent.
    pub elsewhere_window: Duration,
}

/// How many join infos one share has, or all have.
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

/// The window in which a client of another gateway is counted: now, and how long it is.
#[derive(Clone, Copy)]
struct Window {
    now: Timestamp,
    length: Duration,
}

impl Batch {
    /// Counts invitations of clients of other gateways, whose join infos are kept there. Precondition: none passes a limit,
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

/// Counts one more join info, unless that would pass a limit.
pub(crate) fn take_here(
    overlay: &mut Overlay<'_>,
    app: AppId,
    client: &InvitedClient,
    inviter: Inviter,
    limits: WelcomeLimits,
) -> Result<(), Refusal> {
    take(overlay, app, client, inviter, limits, None)
}

fn take(
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

/// Gives back what a join info took.
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

/// The rows that stand for these join infos, in a store that has none yet.
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

/// When a row of a client of another gateway begins to count anew.
fn counted_until(
    overlay: &Overlay<'_>,
    key: &Key,
    window: Option<Window>,
) -> Result<Option<Timestamp>, ReadError> {
    let Some(window) = window else { return Ok(None) };
    let row = overlay.row::<ShareRow>(table::WELCOME_SHARES, key)?;
    Ok(row.and_then(|row| row.since).map(|since| end(since, window.length)))
}

/// How many join infos there are for a client's handle that do not say of which domain their client is: they are for the
/// client of each.
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

/// Deletes a row of a client of another gateway whose window is over at `expired`. A row of which a later window has begun
/// has an expiry of its own.
pub(crate) fn expire(overlay: &mut Overlay<'_>, key: &[u8], expired: Timestamp) -> Result<(), Refusal> {
    let key = Key::new().last(key);
    let row = overlay.row::<ShareRow>(table::WELCOME_SHARES, &key)?;
    if row.and_then(|row| row.since).is_some_and(|since| since < expired) {
        overlay.delete(table::WELCOME_SHARES, &key);
    }
    Ok(())
}

impl View {
    /// How many join infos of all inviters are counted for a client: those that wait, or that a client of another gateway
    /// was sent.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn join_infos_counted(&self, app: AppId, client: &InvitedClient) -> Result<u64, ReadError> {
        let key = total_key(app, &client.handle, client.domain.as_ref());
        let counted = self.row::<ShareRow>(table::WELCOME_SHARES, &key)?.map_or(0, |row| row.count);
        Ok(counted.saturating_add(count_of_any_domain(self, app, client)?))
    }
}
