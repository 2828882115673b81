//! History: where the messages of each epoch are, and the answers to accepted proposals (*Group Evolution*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `epochs` | application, group, epoch that the commit created | [`EpochRow`] |
//! | `accepted_proposals` | application, group, epoch of the proposal, SHA-256 of its packet | its `ProposalRef` |
//!
//! A proposal is accepted in the epoch before the one that its commit creates, and goes with that commit's row.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{reports, table};
use crate::{
    engine::{Batch, Key, KeyReader, Rows, Slice, View, rows},
    errors::{ReadError, Unmet},
    ids::{AppId, ClientHandle, Epoch, GroupId, Timestamp},
};

/// The commit that created an epoch, and where its messages are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRow {
    /// The time at which the hub accepted the commit.
    pub timestamp: Timestamp,
    /// The commit, an `MLSMessage` (RFC 9420 §6), if it is not in the log as the entry `sequence`: in rows of earlier versions, and of
    /// epochs that a replica did not go through itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Bytes>,
    /// The proposals that it includes by reference, in the order of its list.
    pub proposals: Vec<CommittedProposal>,
    /// SHA-256 of the commit with its group info and welcome, to recognise a retry.
    #[serde(with = "serde_bytes")]
    pub digest: [u8; 32],
    /// The number of the commit's entry in the group's log; 0 in a row of an earlier version.
    #[serde(default)]
    pub sequence: u64,
    /// The member that committed it; `None` in rows of format 6 and earlier, and of epochs that a replica did not go through
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer: Option<EpochCommitter>,
}

/// The member that committed an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCommitter {
    /// Its leaf index in the epoch.
    pub leaf_index: u32,
    /// Its client handle.
    pub handle: ClientHandle,
}

/// A proposal that a commit includes by reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CommittedProposal {
    /// It is in the group's log as the entry of this number.
    Entry(u64),
    /// An `MLSMessage` (RFC 9420 §6).
    Packet(Bytes),
}

fn group_prefix(app: AppId, group: &GroupId) -> Key {
    Key::of_app(app).group(group)
}

fn epoch_key(app: AppId, group: &GroupId, epoch: Epoch) -> Key {
    group_prefix(app, group).u64(epoch.0)
}

fn accepted_key(app: AppId, group: &GroupId, epoch: Epoch, packet_digest: &[u8; 32]) -> Key {
    epoch_key(app, group, epoch).last(packet_digest)
}

fn read_epoch(key: &[u8], prefix_length: usize) -> Result<Epoch, ReadError> {
    let mut reader = KeyReader::new(key.get(prefix_length..).unwrap_or(&[]), "epochs");
    let epoch = Epoch(reader.u64()?);
    reader.end()?;
    Ok(epoch)
}

impl Batch {
    /// Writes the row of the epoch that a commit created.
    pub fn put_epoch(&mut self, app: AppId, group: &GroupId, epoch: Epoch, row: &EpochRow) -> &mut Self {
        let (key, value) = (self.key(epoch_key(app, group, epoch)), self.row(row));
        self.put(table::EPOCHS, key, value)
    }

    /// Precondition: the epoch has its row, else [`Unmet::EpochMissing`].
    pub fn require_epoch(&mut self, app: AppId, group: &GroupId, epoch: Epoch) -> &mut Self {
        let key = self.key(epoch_key(app, group, epoch));
        self.operation(move |overlay| match overlay.holds(table::EPOCHS, &key)? {
            true => Ok(()),
            false => Err(Unmet::EpochMissing.into()),
        })
    }

    /// Deletes the row of an epoch, the answers to the proposals of the epoch before it, and what was reported of it.
    pub fn delete_epoch(&mut self, app: AppId, group: &GroupId, epoch: Epoch) -> &mut Self {
        let key = self.key(epoch_key(app, group, epoch));
        let accepted = epoch.previous().map(|before| epoch_key(app, group, before));
        let group = group.clone();
        self.operation(move |overlay| {
            overlay.delete(table::EPOCHS, &key);
            reports::delete_reports(overlay, app, &group, epoch)?;
            if let Some(accepted) = accepted {
                for (key, _) in overlay.scan(table::ACCEPTED_PROPOSALS, accepted.prefix())? {
                    overlay.delete_at(table::ACCEPTED_PROPOSALS, key);
                }
            }
            Ok(())
        })
    }

    /// Remembers the answer to a proposal that was accepted in this epoch: `packet_digest` is SHA-256 of its packet,
    /// `proposal_ref` its `ProposalRef` (RFC 9420 §5.2).
    pub fn put_accepted_proposal(
        &mut self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
        packet_digest: &[u8; 32],
        proposal_ref: impl AsRef<[u8]>,
    ) -> &mut Self {
        let key = self.key(accepted_key(app, group, epoch, packet_digest));
        let value = self.raw(proposal_ref.as_ref());
        self.put(table::ACCEPTED_PROPOSALS, key, value)
    }

    /// As [`Batch::put_accepted_proposal`], for another packet with the same `ProposalRef`. Nothing is written if `packets_max`
    /// packets of this reference are remembered already.
    pub fn put_other_accepted_proposal(
        &mut self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
        packet_digest: &[u8; 32],
        proposal_ref: impl AsRef<[u8]>,
        packets_max: usize,
    ) -> &mut Self {
        let in_epoch = epoch_key(app, group, epoch);
        let key = self.key(accepted_key(app, group, epoch, packet_digest));
        let value = self.raw(proposal_ref.as_ref());
        self.operation(move |overlay| {
            if overlay.holds(table::ACCEPTED_PROPOSALS, &key)? {
                return Ok(());
            }
            // An epoch has few proposals, and each of them few packets.
            let remembered = overlay.scan(table::ACCEPTED_PROPOSALS, in_epoch.prefix())?;
            if remembered.iter().filter(|(_, known)| *known == value).count() < packets_max {
                overlay.put(table::ACCEPTED_PROPOSALS, &key, value);
            }
            Ok(())
        })
    }
}

impl View {
    /// The row of one epoch. Epoch 0 has none.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn epoch(&self, app: AppId, group: &GroupId, epoch: Epoch) -> Result<Option<EpochRow>, ReadError> {
        self.row(table::EPOCHS, &epoch_key(app, group, epoch))
    }

    /// Up to `limit` epochs from `from` to `to`, both included, in order.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn epochs(
        &self,
        app: AppId,
        group: &GroupId,
        from: Epoch,
        to: Epoch,
        limit: usize,
    ) -> Result<Vec<(Epoch, EpochRow)>, ReadError> {
        let skipped = group_prefix(app, group).as_bytes().len();
        let range = epoch_key(app, group, from).through(epoch_key(app, group, to));
        let decode = |row: Result<(Slice, Slice), ReadError>| {
            let (key, value) = row?;
            Ok((read_epoch(&key, skipped)?, rows::decode(table::EPOCHS, &value)?))
        };
        self.scan(table::EPOCHS, range).take(limit).map(decode).collect()
    }

    /// The earliest epoch of a group that still has its row: the history's floor.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the key is damaged.
    pub fn first_epoch(&self, app: AppId, group: &GroupId) -> Result<Option<Epoch>, ReadError> {
        self.epochs_with_rows(app, group).next().transpose()
    }

    /// The latest epoch of a group that has its row.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the key is damaged.
    pub fn last_epoch(&self, app: AppId, group: &GroupId) -> Result<Option<Epoch>, ReadError> {
        self.epochs_with_rows(app, group).next_back().transpose()
    }

    fn epochs_with_rows(
        &self,
        app: AppId,
        group: &GroupId,
    ) -> impl DoubleEndedIterator<Item = Result<Epoch, ReadError>> {
        let prefix = group_prefix(app, group);
        let skipped = prefix.as_bytes().len();
        self.scan_keys(table::EPOCHS, prefix.prefix()).map(move |key| read_epoch(&key?, skipped))
    }

    /// The `ProposalRef` of an accepted proposal of this epoch, by SHA-256 of its packet.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn accepted_proposal(
        &self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
        packet_digest: &[u8; 32],
    ) -> Result<Option<Bytes>, ReadError> {
        let value = self.value(table::ACCEPTED_PROPOSALS, &accepted_key(app, group, epoch, packet_digest))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The epochs before this one that have a row, in order.
    pub(crate) fn epochs_before(
        &self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
    ) -> impl Iterator<Item = Result<Epoch, ReadError>> {
        let prefix = group_prefix(app, group);
        let skipped = prefix.as_bytes().len();
        let range = prefix.until(epoch_key(app, group, epoch));
        self.scan_keys(table::EPOCHS, range).map(move |key| read_epoch(&key?, skipped))
    }
}

/// The number of answers to proposals that [`Batch::delete_epoch`] would delete.
pub(crate) fn count_accepted_before(
    view: &View,
    app: AppId,
    group: &GroupId,
    epoch: Epoch,
) -> Result<u64, ReadError> {
    let Some(before) = epoch.previous() else { return Ok(0) };
    let accepted = view.scan_keys(table::ACCEPTED_PROPOSALS, epoch_key(app, group, before).prefix());
    accepted.map(|key| key.map(|_| 1)).sum()
}
