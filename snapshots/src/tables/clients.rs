//! Clients, their handles and their tags (*Managing Identities*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `clients` | application, client | [`ClientRow`] |
//! | `client_handles` | application, handle, domain | the client's id |
//! | `client_tags` | application, domain, 0, client | nothing; lists the clients of a domain |
//! | `client_tags` | application, domain, 1, tag, client | nothing |
//!
//! A handle is unique in its domain, and clients without a domain share one space (*X.509 Identifiers*).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{assigned_key_packages, key_queues, table, welcomes};
use crate::{
    engine::{Batch, Key, KeyReader, Overlay, Rows, Slice, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, ClientHandle, ClientId, DomainName, Timestamp},
};

const IN_DOMAIN: u8 = 0;
const TAGGED: u8 = 1;

/// A registered client (*Identity Registration*).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRow {
    /// Its id, which never changes.
    pub client_id: ClientId,
    /// Its handle, unique in its domain.
    pub handle: ClientHandle,
    /// Its domain; `None` in an application that uses no domains.
    pub domain: Option<DomainName>,
    /// The labels by which the application finds it.
    pub tags: BTreeSet<String>,
    /// The number of changes of its handle.
    pub handle_generation: u64,
    /// The time of its registration.
    pub created_at: Timestamp,
}

fn client_key(app: AppId, client: ClientId) -> Key {
    Key::of_app(app).uuid(client.as_uuid())
}

fn handle_prefix(app: AppId, handle: &ClientHandle) -> Key {
    Key::of_app(app).handle(handle)
}

pub(super) fn handle_key(app: AppId, row: &ClientRow) -> Key {
    handle_prefix(app, &row.handle).domain(row.domain.as_ref())
}

fn domain_prefix(app: AppId, domain: Option<&DomainName>) -> Key {
    Key::of_app(app).domain(domain).byte(IN_DOMAIN)
}

fn tag_prefix(app: AppId, domain: Option<&DomainName>, tag: &str) -> Key {
    Key::of_app(app).domain(domain).byte(TAGGED).part(tag.as_bytes())
}

/// The rows by which a client is listed: one for its domain and one for each tag.
fn listing_keys(app: AppId, row: &ClientRow) -> BTreeSet<Key> {
    let domain = row.domain.as_ref();
    let tagged = row.tags.iter().map(|tag| tag_prefix(app, domain, tag));
    tagged.chain([domain_prefix(app, domain)]).map(|prefix| prefix.uuid(row.client_id.as_uuid())).collect()
}

/// Whether all rows are there by which a client is listed.
pub(super) fn is_listed(view: &View, app: AppId, row: &ClientRow) -> Result<bool, ReadError> {
    listing_keys(app, row).iter().try_fold(true, |all, key| Ok(all && view.holds(table::CLIENT_TAGS, key)?))
}

impl Batch {
    /// Registers a client. Preconditions: its id is new, else [`Unmet::ClientExists`], and its handle is free in its
    /// domain, else [`Unmet::HandleTaken`].
    pub fn create_client(&mut self, app: AppId, row: &ClientRow) -> &mut Self {
        let key = self.key(client_key(app, row.client_id));
        let handle = self.key(handle_key(app, row));
        let listings: Vec<Key> = listing_keys(app, row).into_iter().map(|key| self.key(key)).collect();
        let client = row.client_id;
        let value = self.row(row);
        self.operation(move |overlay| {
            if overlay.holds(table::CLIENTS, &key)? {
                return Err(Unmet::ClientExists.into());
            }
            take_handle(overlay, &handle, client)?;
            overlay.put(table::CLIENTS, &key, value);
            for key in listings {
                overlay.put(table::CLIENT_TAGS, &key, Slice::from([]));
            }
            Ok(())
        })
    }

    /// Changes a client: its handle, domain or tags. Preconditions: it is still `old`, else [`Unmet::ClientMissing`] or
    /// [`Unmet::ClientChanged`] (also when the two rows are of different clients), and a new handle is free, else
    /// [`Unmet::HandleTaken`].
    pub fn replace_client(&mut self, app: AppId, old: &ClientRow, new: &ClientRow) -> &mut Self {
        let key = self.key(client_key(app, new.client_id));
        let (old_handle, new_handle) = (handle_key(app, old), self.key(handle_key(app, new)));
        let (old_listings, new_listings) = (listing_keys(app, old), listing_keys(app, new));
        let gone: Vec<Key> = old_listings.difference(&new_listings).cloned().collect();
        let come: Vec<Key> =
            new_listings.difference(&old_listings).map(|key| self.key(key.clone())).collect();
        let client = new.client_id;
        let value = self.row(new);
        let old = old.clone();
        self.operation(move |overlay| {
            require_client_unchanged(overlay, &key, &old)?;
            if old_handle != new_handle {
                take_handle(overlay, &new_handle, client)?;
                overlay.delete(table::CLIENT_HANDLES, &old_handle);
            }
            overlay.put(table::CLIENTS, &key, value);
            for key in gone {
                overlay.delete(table::CLIENT_TAGS, &key);
            }
            for key in come {
                overlay.put(table::CLIENT_TAGS, &key, Slice::from([]));
            }
            Ok(())
        })
    }

    /// Deletes a client with its handle, tags, queues and their key packages, the receivers of its key packages, and its join
    /// infos (*Identity Deletion*). Join infos without a domain are deleted with the last client of their handle. A later batch
    /// for the client, such as the creation of a queue, finds it missing. Preconditions: it is still `row`, else
    /// [`Unmet::ClientMissing`] or [`Unmet::ClientChanged`].
    pub fn delete_client(&mut self, app: AppId, row: &ClientRow) -> &mut Self {
        let row = row.clone();
        self.operation(move |overlay| {
            let key = client_key(app, row.client_id);
            require_client_unchanged(overlay, &key, &row)?;
            overlay.delete(table::CLIENTS, &key);
            overlay.delete(table::CLIENT_HANDLES, &handle_key(app, &row));
            for key in listing_keys(app, &row) {
                overlay.delete(table::CLIENT_TAGS, &key);
            }
            key_queues::delete_queues_of(overlay, app, row.client_id)?;
            assigned_key_packages::forget_all_of(overlay, app, row.client_id)?;
            let is_last = !overlay.any(table::CLIENT_HANDLES, handle_prefix(app, &row.handle).prefix())?;
            welcomes::delete_join_infos_of(overlay, app, &row.handle, row.domain.as_ref(), is_last)
        })
    }
}

/// Precondition of all rows that belong to a client: it is registered.
pub(crate) fn require_client(overlay: &Overlay<'_>, app: AppId, client: ClientId) -> Result<(), Refusal> {
    if overlay.holds(table::CLIENTS, &client_key(app, client))? {
        Ok(())
    } else {
        Err(Unmet::ClientMissing.into())
    }
}

fn require_client_unchanged(overlay: &Overlay<'_>, key: &Key, row: &ClientRow) -> Result<(), Refusal> {
    match overlay.row::<ClientRow>(table::CLIENTS, key)? {
        Some(found) if found == *row => Ok(()),
        Some(_) => Err(Unmet::ClientChanged.into()),
        None => Err(Unmet::ClientMissing.into()),
    }
}

fn take_handle(overlay: &mut Overlay<'_>, key: &Key, client: ClientId) -> Result<(), Refusal> {
    match overlay.value(table::CLIENT_HANDLES, key)? {
        Some(taken) => Err(Unmet::HandleTaken { client: read_client(&taken)? }.into()),
        None => {
            overlay.put(table::CLIENT_HANDLES, key, Slice::from(client.as_uuid().as_bytes()));
            Ok(())
        }
    }
}

fn read_client(value: &[u8]) -> Result<ClientId, ReadError> {
    rows::uuid(table::CLIENT_HANDLES, value).map(ClientId::new)
}

impl View {
    /// A client by its id.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn client(&self, app: AppId, client: ClientId) -> Result<Option<ClientRow>, ReadError> {
        self.row(table::CLIENTS, &client_key(app, client))
    }

    /// A client by its handle in its domain; `None` for clients without a domain.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged or missing.
    pub fn client_by_handle(
        &self,
        app: AppId,
        domain: Option<&DomainName>,
        handle: &ClientHandle,
    ) -> Result<Option<ClientRow>, ReadError> {
        match self.value(table::CLIENT_HANDLES, &handle_prefix(app, handle).domain(domain))? {
            Some(value) => self.listed(app, read_client(&value)?).map(Some),
            None => Ok(None),
        }
    }

    /// Up to `limit` clients of a domain, or those of them that have a tag (*Client Discovery*), in the order of their ids,
    /// after the one given. `None` finds those without a domain.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged or missing.
    pub fn clients(
        &self,
        app: AppId,
        domain: Option<&DomainName>,
        tag: Option<&str>,
        after: Option<ClientId>,
        limit: usize,
    ) -> Result<Vec<ClientRow>, ReadError> {
        let prefix = tag.map_or_else(|| domain_prefix(app, domain), |tag| tag_prefix(app, domain, tag));
        if prefix.is_too_long() {
            return Ok(Vec::new());
        }
        let skipped = prefix.as_bytes().len();
        let after = after.map(|client| prefix.clone().uuid(client.as_uuid()));
        let range = prefix.prefix_from(after);
        let found = |key: Result<Slice, ReadError>| {
            let key = key?;
            let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), "client_tags");
            let client = ClientId::new(reader.uuid()?);
            reader.end()?;
            self.listed(app, client)
        };
        self.scan_keys(table::CLIENT_TAGS, range).take(limit).map(found).collect()
    }

    /// Up to `limit` clients of all domains, in the order of their ids, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn all_clients(
        &self,
        app: AppId,
        after: Option<ClientId>,
        limit: usize,
    ) -> Result<Vec<ClientRow>, ReadError> {
        let range = Key::of_app(app).prefix_from(after.map(|client| client_key(app, client)));
        let rows = self.scan(table::CLIENTS, range).take(limit);
        rows.map(|row| rows::decode(table::CLIENTS, &row?.1)).collect()
    }

    /// The number of clients of an application, counted up to `max`.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn count_clients(&self, app: AppId, max: usize) -> Result<usize, ReadError> {
        self.count_rows(table::CLIENTS, Key::of_app(app).prefix(), max)
    }

    /// The row of a client that an index names.
    fn listed(&self, app: AppId, client: ClientId) -> Result<ClientRow, ReadError> {
        let row = self.client(app, client)?;
        row.ok_or_else(|| {
            ReadError::damaged(format!("an index names a client that does not exist: {client}"))
        })
    }
}
