//! Deliveries between gateways, as bodies of requests and as the actors have them.

use std::sync::Arc;

use actors::{
    AppId, CommitBundle, Delivery, DeliveryContent, EntryContent, GroupId, GroupTransfer, KeyPackageRef,
    LogEntry, NewGroup, SEQUENCE_MAX,
};

use super::{
    federation::{DeliveryBody, EntryContentBody, GroupDeletionBody, GroupTransferBody, LogEntryBody},
    groups::ProposalBody,
    text::Base64,
};

/// The reason why a body is no delivery, for the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedDelivery(String);

impl DeliveryBody {
    /// The delivery for a group.
    ///
    /// # Errors
    /// [`MalformedDelivery`]: a number is too high, a reference is none, or there is not one of entries, transfer and deletion.
    pub fn into_delivery(self, app: AppId, group: GroupId) -> Result<Delivery, MalformedDelivery> {
        let (hub, preceding) = (self.hub.clone(), self.preceding);
        Ok(Delivery { app, group, hub, preceding, content: content(self)? })
    }
}

fn content(body: DeliveryBody) -> Result<DeliveryContent, MalformedDelivery> {
    let transferred = body.transfer.iter().map(|transfer| transfer.sequence);
    if body.entries.iter().map(|entry| entry.sequence).chain(transferred).any(|number| number > SEQUENCE_MAX)
    {
        return Err(MalformedDelivery(format!("`sequence` is at most {SEQUENCE_MAX}")));
    }
    match (body.entries.is_empty(), body.transfer, body.deletion) {
        (false, None, None) => Ok(DeliveryContent::Entries(body.entries.into_iter().map(entry).collect())),
        (true, Some(group), None) => Ok(DeliveryContent::Transfer(Box::new(transfer(*group)?))),
        (true, None, Some(GroupDeletionBody { timestamp })) => Ok(DeliveryContent::Deletion { timestamp }),
        (true, None, None) | (false, _, _) | (true, Some(_), Some(_)) => Err(MalformedDelivery(
            "in the body, there must be one of `entries`, at least one, `transfer` and `deletion`".to_owned(),
        )),
    }
}

fn entry(entry: LogEntryBody) -> LogEntry {
    let content = match entry.content {
        EntryContentBody::Creation(new) => NewGroup::from(new).into(),
        EntryContentBody::Proposal(proposal) => EntryContent::Proposal { packet: proposal.packet.0.into() },
        EntryContentBody::Commit(commit) => CommitBundle::from(commit).into(),
    };
    LogEntry { sequence: entry.sequence, timestamp: entry.timestamp, content }
}

fn transfer(group: GroupTransferBody) -> Result<GroupTransfer, MalformedDelivery> {
    let reference = |Base64(reference)| KeyPackageRef::new(reference);
    let used = group.used_key_packages.into_iter().map(reference).collect::<Result<_, _>>();
    Ok(GroupTransfer {
        sequence: group.sequence,
        timestamp: group.timestamp,
        group_info: group.group_info.0,
        ratchet_tree: group.ratchet_tree.0,
        proposals: group.proposals.into_iter().map(|Base64(packet)| packet).collect(),
        welcome: group.welcome.map(|Base64(packet)| packet),
        used: used.map_err(|error| MalformedDelivery(format!("`usedKeyPackages`: {error}")))?,
        reinitialised: group.reinitialised,
    })
}

impl From<Delivery> for DeliveryBody {
    fn from(delivery: Delivery) -> Self {
        let mut body = Self {
            hub: delivery.hub,
            preceding: delivery.preceding,
            entries: Vec::new(),
            transfer: None,
            deletion: None,
        };
        match delivery.content {
            DeliveryContent::Entries(entries) => body.entries = entries.into_iter().map(entry_body).collect(),
            DeliveryContent::Transfer(group) => body.transfer = Some(Box::new(transfer_body(*group))),
            DeliveryContent::Deletion { timestamp } => body.deletion = Some(GroupDeletionBody { timestamp }),
        }
        body
    }
}

fn entry_body(entry: LogEntry) -> LogEntryBody {
    let content = match entry.content {
        EntryContent::Creation(new) => EntryContentBody::Creation(Arc::unwrap_or_clone(new).into()),
        EntryContent::Proposal { packet } => {
            EntryContentBody::Proposal(ProposalBody { packet: Base64(packet.to_vec()) })
        }
        EntryContent::Commit(bundle) => EntryContentBody::Commit(Arc::unwrap_or_clone(bundle).into()),
    };
    LogEntryBody { sequence: entry.sequence, timestamp: entry.timestamp, content }
}

fn transfer_body(group: GroupTransfer) -> GroupTransferBody {
    GroupTransferBody {
        sequence: group.sequence,
        timestamp: group.timestamp,
        group_info: Base64(group.group_info),
        ratchet_tree: Base64(group.ratchet_tree),
        proposals: group.proposals.into_iter().map(Base64).collect(),
        welcome: group.welcome.map(Base64),
        used_key_packages: group.used.iter().map(|used| Base64(used.as_bytes().to_vec())).collect(),
        reinitialised: group.reinitialised,
    }
}
