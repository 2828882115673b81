//! Transfers of groups: a replica that cannot follow the log any more takes the group's present state, if that is a successor
//! of the state that it knows.

use std::{collections::BTreeSet, sync::Arc};

use snapshots::{
    AppendError, Batch, Bytes, ClientHandle, DomainName, GroupId, GroupRow, Invitation, InvitedClient,
    MissedEntries, Timestamp, Unmet, UsedRow, WelcomeRow,
};

use super::{
    Gateway,
    groups::not_validated,
    replicas::{check_group, first_leaf, named, unwritten},
};
use crate::{
    application::{Application, Source},
    error::StorageError,
    group::{
        GroupError, GroupMeta, GroupState, GroupTransfer, GroupView, Handed, Reached, handed_over_row,
        missed_after, transfer,
    },
    mls::welcome_references,
    peer::{ReplicationAck, USED_KEY_PACKAGES_MAX},
};

impl Gateway {
    pub(super) async fn receive_transfer(
        &self,
        application: &Application,
        group: &GroupId,
        (peer, hub): (&BTreeSet<DomainName>, DomainName),
        handed: GroupTransfer,
    ) -> Result<ReplicationAck, GroupError> {
        self.check_skew(handed.timestamp)?;
        let app = application.id;
        let held = self.held(app, group)?;
        if handed.sequence < held.next {
            return Ok(held);
        }
        let before = match held.next {
            0 => None,
            _ => Some((self.group_row(app, group)?, self.registry.group_view(application, group).await?)),
        };
        let room = match &before {
            Some(_) => None,
            None => Some(self.services.replicas.take(&self.services, app, &hub).await?),
        };
        let (services, hub_there, application_there) =
            (Arc::clone(&self.services), hub.clone(), application.clone());
        let (sequence, accepted) = (handed.sequence, handed.timestamp);
        let place = self.services.validation.place(app).ok_or(GroupError::Busy)?;
        let validated = place.run(move || {
            let rules = services.validation_context(&application_there, &Source::Hub);
            GroupState::from_transfer(rules, &handed, hub_there).map(|state| (state, handed))
        });
        let validated = validated.await.ok_or_else(not_validated)?;
        let (state, handed) = validated?;
        check_group(&state, group)?;
        match &before {
            Some((_, view)) => check_succession(view, &state, accepted)?,
            None => check_claim(application, peer, &hub, &state)?,
        }
        let before_row = before.as_ref().map(|(row, _)| row);
        let row = row_after(before_row, &state, (peer, hub), accepted);
        let meta = GroupMeta::new(application, group.clone(), row);
        let replaced = before.as_ref().map(|(_, view)| &**view);
        let mut batch = transfer(&meta, &state, sequence, replaced)?;
        self.tell_used(&mut batch, &meta, &state, &handed)?;
        let missed_before = self.missed(app, group)?;
        let view = before.as_ref().map(|(_, view)| &**view);
        let missed = missed_by(view, missed_before.as_ref(), &state, &handed);
        batch.replace_missed_entries(app, group, missed_before.as_ref(), Some(&missed));
        batch.announce(app, self.services.clock.now());
        self.retire_owner(app, group).await?;
        let written = self.services.store.append(batch).await;
        // An actor that was activated meanwhile has loaded the old state.
        self.registry.passivate_group(app, group).await;
        match written {
            Ok(appended) => {
                if let Some(room) = room {
                    room.keep();
                }
                self.services.notices.key_packages_used(app, appended.advanced);
                self.held(app, group)
            }
            Err(AppendError::Precondition(
                Unmet::LogMoved { .. } | Unmet::LogExists | Unmet::MissedEntriesChanged | Unmet::GroupDeleted,
            )) => self.held(app, group),
            Err(error) => Err(unwritten(&error, "the group")),
        }
    }

    /// Records the key packages of local clients that were used in entries that this gateway never saw, and stores the epoch's
    /// welcome for the local clients in it, found through their key queues and the assignments of their key packages.
    fn tell_used(
        &self,
        batch: &mut Batch,
        meta: &GroupMeta,
        state: &GroupState,
        handed: &GroupTransfer,
    ) -> Result<(), GroupError> {
        let (app, group, epoch) = (meta.app, &meta.group, state.epoch());
        let view = self.services.store.view();
        let welcomed: BTreeSet<_> =
            handed.welcome.as_deref().map(welcome_references).unwrap_or_default().into_iter().collect();
        let references =
            handed.used.iter().take(USED_KEY_PACKAGES_MAX).chain(&welcomed).collect::<BTreeSet<_>>();
        let mut waiting = BTreeSet::new();
        for reference in references {
            let holders = view.queues_holding(app, reference).map_err(StorageError::from)?;
            let mut owners: Vec<_> =
                holders.into_iter().map(|(_, client, row)| (client, row.not_after, row.is_final)).collect();
            if owners.is_empty() {
                // Perhaps it was dropped after its assignment, or is a final key that was replaced.
                let row = view.assigned(app, reference).map_err(StorageError::from)?;
                owners.extend(row.map(|row| (row.client_id, row.not_after, row.is_of_final_key())));
            }
            for (client, not_after, is_final) in owners {
                let client = view.client(app, client).map_err(StorageError::from)?;
                if let Some(client) = client.filter(|_| welcomed.contains(reference)) {
                    waiting.insert((client.domain, client.handle));
                }
                if !is_final {
                    let used_row = UsedRow { group: group.clone(), epoch, not_after };
                    batch.note_key_package_used(app, reference, false, &used_row);
                }
            }
        }
        let members: BTreeSet<_> = state.members().map(|member| (member.domain, member.handle)).collect();
        let is_member = |(domain, handle): &(Option<DomainName>, ClientHandle)| {
            members.contains(&(domain.as_ref(), handle))
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
                tree_bytes_to_store: 0,
            };
            batch.put_welcome(app, group, epoch, &row, &clients, Invitation::AcceptedElsewhere);
        }
        Ok(())
    }
}

/// The row of a group after a transfer.
fn row_after(
    before: Option<&GroupRow>,
    state: &GroupState,
    (peer, hub): (&BTreeSet<DomainName>, DomainName),
    accepted: Timestamp,
) -> GroupRow {
    let epoch = state.epoch();
    if let Some(row) = before {
        return GroupRow { epoch, ..row.clone() };
    }
    let creator = first_leaf(state.members()).map(named);
    // A client of the hub's own domains needs no other gateway to show the creation.
    let others = creator.filter(|(_, domain)| domain.is_none_or(|domain| !peer.contains(domain)));
    handed_over_row(epoch, accepted, hub, others)
}

/// The missing history of a replica after a transfer. The history before the gap is shown again once the gap is filled.
fn missed_by(
    before: Option<&GroupView>,
    missed_before: Option<&MissedEntries>,
    state: &GroupState,
    handed: &GroupTransfer,
) -> MissedEntries {
    let reached = before.map(|view| Reached {
        next: view.sequence.saturating_add(1),
        epoch: view.epoch,
        stamp: view.stamp,
        proposals: &view.proposals,
        interim_transcript_hash: &view.interim_transcript_hash,
        has_all_proposals: !view.lacks_proposals,
    });
    let handed = Handed {
        through: handed.sequence,
        until: state.epoch(),
        confirmed_transcript_hash: state.confirmed_transcript_hash().to_vec(),
        has_last_welcome: handed.welcome.is_some(),
    };
    missed_after(reached, missed_before, handed)
}

/// Checks the claim of a gateway that transfers a group whose creation is unknown here: as the group's hub, it must speak for
/// the client at leaf 0, where MLS puts a group's creator. Once the creator has left, any member of the hub's domains suffices,
/// unless a client of another gateway's domain took that leaf.
fn check_claim(
    application: &Application,
    peer: &BTreeSet<DomainName>,
    hub: &DomainName,
    state: &GroupState,
) -> Result<(), GroupError> {
    let refuse = |detail: String| Err(GroupError::NotFromHub(detail));
    let first = first_leaf(state.members()).and_then(|member| member.domain);
    match first {
        Some(domain) if peer.contains(domain) => return Ok(()),
        Some(domain) if application.federates_with.contains(domain) => {
            return refuse(format!(
                "the client at the group's first leaf is of {domain}, whose gateway then orders the group, not that of {hub}"
            ));
        }
        Some(_) | None => {}
    }
    if state.members().any(|member| member.domain == Some(hub)) {
        Ok(())
    } else {
        refuse(format!(
            "the group that is handed over has no member of {hub}, whose gateway says that it orders it"
        ))
    }
}

/// Checks that a transferred group is a successor of the state that the replica has checked itself: it is not older, and its
/// group info is signed by a client that the replica knows as a member. In the same epoch it must be the same group.
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
    let is_known = signer.is_some_and(|signer| before.has_member(&signer.handle, signer.domain.as_ref()));
    if is_known { Ok(()) } else { refuse("the group info is not signed by a member that this replica knows") }
}
