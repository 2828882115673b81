//! The row of a group and its consequences: the hub, the peers that get the log, and, for a group that was transferred without
//! its creation, the client that may still show the creation.

use std::{collections::BTreeSet, sync::Arc};

use sha2::{Digest as _, Sha256};
use snapshots::{AppId, Batch, ClientHandle, DomainName, Epoch, GroupId, GroupRow, LogId, Quotas, Timestamp};

use crate::{application::Application, services::Notices};

/// The row of a group, with data derived from it and the configuration.
#[derive(Clone, Debug)]
pub(crate) struct GroupMeta {
    pub(crate) app: AppId,
    pub(crate) group: GroupId,
    pub(crate) row: GroupRow,
    /// Whether another gateway orders the group.
    pub(crate) is_replica: bool,
    /// The gateways to which every entry is sent; none for a replica.
    pub(crate) peers: Arc<BTreeSet<DomainName>>,
    /// The most that the application may have here.
    pub(super) quotas: Quotas,
    /// The domains assigned to this gateway.
    domains: BTreeSet<DomainName>,
}

impl GroupMeta {
    pub(crate) fn new(application: &Application, group: GroupId, row: GroupRow) -> Self {
        let is_replica = !application.is_hub(row.hub.as_ref());
        let peers = if is_replica { Arc::default() } else { Arc::clone(&application.federates_with) };
        let (app, quotas, domains) = (application.id, application.quotas, application.domains.clone());
        Self { app, group, row, is_replica, peers, quotas, domains }
    }

    /// Whether this gateway keeps the welcomes of a client of this domain.
    pub(super) fn hosts(&self, domain: Option<&DomainName>) -> bool {
        domain.is_none_or(|domain| self.domains.contains(domain))
    }

    /// Marks the log as grown, for the peers.
    pub(super) fn mark_for_peers(&self, batch: &mut Batch) {
        for peer in self.peers.iter() {
            batch.mark_outbox(peer, self.app, &self.group);
        }
    }

    /// Tells the peers that the log has grown.
    pub(crate) fn notify_peers(&self, notices: &dyn Notices) {
        notices.log_grew(&self.peers, self.app, &self.group);
    }

    pub(crate) fn log(&self) -> LogId {
        LogId::Group(self.app, self.group.clone())
    }
}

/// The beginning of the substitute for the digest of a creation that was never here. [`CREATOR_UNNAMED`], [`CREATOR_IS_HUBS`]
/// or the digest of the client that may still show the creation follows.
const NO_CREATION: [u8; 16] = [0; 16];
/// The client at leaf 0 is unknown: an older version wrote the row.
const CREATOR_UNNAMED: [u8; 16] = [0; 16];
/// No other client can show the creation: the hub speaks for the client at leaf 0, or leaf 0 was blank.
const CREATOR_IS_HUBS: [u8; 16] = [0xff; 16];

/// A client's handle and domain.
pub(crate) type Named<'a> = (&'a ClientHandle, Option<&'a DomainName>);

fn creator_digest((handle, domain): Named<'_>) -> [u8; 16] {
    let domain = domain.map_or("", DomainName::as_str);
    // No domain contains a zero byte.
    let digest: [u8; 32] = Sha256::new()
        .chain_update(domain)
        .chain_update([0])
        .chain_update(handle.as_bytes())
        .finalize()
        .into();
    let mut begin = CREATOR_UNNAMED;
    begin.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    begin
}

/// The substitute for the creation of a transferred group; `None` if the creation is known here.
fn handed_over_by(row: &GroupRow) -> Option<[u8; 16]> {
    let (begin, creator) = row.creation_digest.split_first_chunk::<16>()?;
    (*begin == NO_CREATION).then(|| <[u8; 16]>::try_from(creator).ok()).flatten()
}

/// Whether a group was transferred without its creation by the gateway that the row names as hub. That this gateway is the hub
/// is then unproven.
pub(crate) fn is_handed_over(row: &GroupRow) -> bool {
    handed_over_by(row).is_some()
}

/// Whether a creation by this client is that of a transferred group. The client at leaf 0 at the time of the transfer may have
/// created it; one that takes that leaf later has not. `first` is the client at leaf 0 now, for a row that does not name the
/// earlier one.
pub(crate) fn shows_creation(row: &GroupRow, creator: Named<'_>, first: Option<Named<'_>>) -> bool {
    match handed_over_by(row) {
        None => false,
        Some(CREATOR_UNNAMED) => first == Some(creator),
        Some(noted) => noted == creator_digest(creator),
    }
}

/// The row of a group that was transferred without its creation. `creator` is the client at leaf 0, unless the hub speaks for
/// it.
pub(crate) fn handed_over_row(
    epoch: Epoch,
    accepted: Timestamp,
    hub: DomainName,
    creator: Option<Named<'_>>,
) -> GroupRow {
    let creator = creator.map_or(CREATOR_IS_HUBS, creator_digest);
    let mut creation_digest = [0; 32];
    let bytes = NO_CREATION.into_iter().chain(creator);
    creation_digest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    GroupRow { epoch, created_at: accepted, creation_digest, hub: Some(hub) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_that_was_at_the_first_leaf_shows_the_creation_later() {
        let handle = |name: &str| ClientHandle::new(name).unwrap();
        let domain = |name: &str| DomainName::new(name).unwrap();
        let (alice, bob) = (handle("alice"), handle("bob"));
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (of_a, of_b): (Named<'_>, Named<'_>) = ((&alice, Some(&a)), (&bob, Some(&b)));
        let row = |creator| handed_over_row(Epoch(3), Timestamp(1), domain("c.example"), creator);
        assert!(is_handed_over(&row(None)) && is_handed_over(&row(Some(of_a))));
        for (row, creator, first, expected) in [
            (row(Some(of_a)), of_a, Some(of_a), true),
            (row(Some(of_a)), of_a, Some(of_b), true),
            (row(Some(of_a)), of_b, Some(of_b), false),
            (row(Some(of_a)), (&alice, Some(&b)), None, false),
            (row(Some(of_a)), (&alice, None), None, false),
            (row(None), of_a, Some(of_a), false),
            // A row of the version before.
            (GroupRow { creation_digest: [0; 32], ..row(None) }, of_b, Some(of_b), true),
            (GroupRow { creation_digest: [0; 32], ..row(None) }, of_a, Some(of_b), false),
            (GroupRow { creation_digest: [7; 32], ..row(None) }, of_a, Some(of_a), false),
        ] {
            assert_eq!(shows_creation(&row, creator, first), expected, "{row:?} {creator:?} {first:?}");
        }
    }
}
