//! Missed history: the epochs before the state that a replica received as a whole. The entries that the hub still has are read,
//! linked by their transcript hashes where those are known, and kept for members that catch up.

use sha2::{Digest as _, Sha256};
use snapshots::{Bytes, CommittedProposal, Epoch, EpochRow, GroupId, MissedEntries, Timestamp};

use super::{
    EntryContent, GroupError, LogEntry, log::commit_digest, proposal_limits::WAITING_PER_LIMIT,
    view::WaitingProposal,
};
use crate::{
    limits::Limits,
    mls::{
        CipherSuite, CommitBundle, Unreadable, UnseenCommit, UnseenProposal, carried_tree, cipher_suite,
        first_interim_hash,
    },
};

/// The group whose history is read, and the known facts about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unseen<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) group: &'a GroupId,
    pub(crate) cipher_suite: u16,
}

/// The history that a delivery adds to a replica.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) epochs: Vec<FilledEpoch>,
    /// Each with the epoch in which it was accepted, the SHA-256 of its packet and its ProposalRef.
    pub(crate) proposals: Vec<(Epoch, [u8; 32], Vec<u8>)>,
    /// The entries that are missing afterwards; `next` is higher if any entry was taken.
    pub(crate) missed: MissedEntries,
}

/// An epoch that the replica did not see.
#[derive(Debug)]
pub(crate) struct FilledEpoch {
    pub(crate) epoch: Epoch,
    pub(crate) row: EpochRow,
    /// The welcome of its commit, unless the replica has it already.
    pub(crate) welcome: Option<Vec<u8>>,
    /// Its ratchet tree, where the group info that came with the commit carries it.
    pub(crate) ratchet_tree: Option<Vec<u8>>,
    /// The key packages that its commit added.
    pub(crate) added: Vec<Vec<u8>>,
}

impl Unseen<'_> {
    /// Reads the missing ones among some entries, in order. If the first entry is after the first missing one, the hub no
    /// longer has those between.
    ///
    /// # Errors
    /// [`GroupError::NotFromHub`] when they are not entries of this group, do not follow each other, or do not lead to the
    /// group that was transferred to the replica.
    pub(crate) fn fill(self, missed: &MissedEntries, entries: &[LogEntry]) -> Result<Filled, GroupError> {
        let mut filled = Filled { epochs: Vec::new(), proposals: Vec::new(), missed: missed.clone() };
        for entry in entries {
            let missed = &mut filled.missed;
            if !missed.is_open() || entry.sequence > missed.through {
                break;
            }
            if entry.sequence < missed.next {
                continue;
            }
            if entry.sequence > missed.next {
                if !(filled.epochs.is_empty() && filled.proposals.is_empty()) {
                    break;
                }
                missed.epoch = None;
                missed.proposals.clear();
                missed.interim_transcript_hash = None;
                missed.floor = beyond(missed.until);
            }
            self.take(&mut filled, entry).map_err(|error| {
                GroupError::NotFromHub(format!("entry {} of the group's history: {error}", entry.sequence))
            })?;
        }
        Ok(filled)
    }

    fn take(self, filled: &mut Filled, entry: &LogEntry) -> Result<(), Unusable> {
        let missed = &mut filled.missed;
        if entry.timestamp < missed.stamp {
            return Err(Unusable::Order("it was accepted before the entry that precedes it"));
        }
        match &entry.content {
            EntryContent::Creation(new) => {
                if entry.sequence != 0 {
                    return Err(Unusable::Order("a creation is entry 0 and no other"));
                }
                let suite = cipher_suite(self.cipher_suite)?;
                let interim = first_interim_hash(suite, self.group, &new.group_info)?;
                missed.epoch = Some(Epoch(0));
                missed.interim_transcript_hash = Some(Bytes::copy_from_slice(interim.as_ref()));
            }
            EntryContent::Proposal { packet } => self.take_proposal(filled, packet)?,
            EntryContent::Commit(bundle) => self.take_commit(filled, entry, bundle)?,
        }
        let missed = &mut filled.missed;
        missed.next = entry.sequence.saturating_add(1);
        missed.stamp = entry.timestamp;
        let leads_elsewhere = !missed.is_open() && missed.epoch != Some(missed.until);
        if leads_elsewhere {
            return Err(Unusable::Order("it does not lead to the group that was handed over"));
        }
        Ok(())
    }

    fn take_proposal(self, filled: &mut Filled, packet: &[u8]) -> Result<(), Unusable> {
        let proposal = UnseenProposal::read(self.group, packet)?;
        let missed = &mut filled.missed;
        enter(missed, proposal.epoch)?;
        let bytes: usize = missed.proposals.iter().map(Bytes::len).sum();
        let count_max = self.limits.proposals_per_epoch_max.saturating_mul(WAITING_PER_LIMIT);
        let bytes_max = self.limits.proposal_bytes_per_epoch_max.saturating_mul(WAITING_PER_LIMIT);
        if missed.proposals.len() >= count_max || bytes.saturating_add(packet.len()) > bytes_max {
            return Err(Unusable::Order("its epoch has more proposals than an epoch may have"));
        }
        let reference = proposal.reference(cipher_suite(self.cipher_suite)?);
        missed.proposals.push(Bytes::copy_from_slice(packet));
        filled.proposals.push((proposal.epoch, Sha256::digest(packet).into(), reference));
        Ok(())
    }

    fn take_commit(
        self,
        filled: &mut Filled,
        entry: &LogEntry,
        bundle: &CommitBundle,
    ) -> Result<(), Unusable> {
        let commit = UnseenCommit::read(self.group, &bundle.commit)?;
        let missed = &mut filled.missed;
        enter(missed, commit.epoch)?;
        let created =
            commit.epoch.next().ok_or(Unusable::Order("it is of the last epoch that there can be"))?;
        if created > missed.until {
            return Err(Unusable::Order("it goes past the group that was handed over"));
        }
        let suite = cipher_suite(self.cipher_suite)?;
        if let Some(interim) = missed.interim_transcript_hash.take() {
            let transcript = commit.transcript(suite, &interim);
            if created == missed.until && missed.confirmed_transcript_hash != transcript.confirmed.as_ref() {
                return Err(Unusable::Order("its transcript is not that of the group that was handed over"));
            }
            missed.interim_transcript_hash = Some(Bytes::copy_from_slice(transcript.interim.as_ref()));
        }
        let waiting = std::mem::take(&mut missed.proposals);
        let referenced = self.referenced(suite, &commit, &waiting)?;
        missed.epoch = Some(created);
        let Some(referenced) = referenced else {
            // The epoch may have begun with proposals that are no longer kept, so it cannot be shown.
            let is_after_hole = missed.floor == beyond(missed.until);
            return if is_after_hole {
                Ok(())
            } else {
                Err(Unusable::Order("it references a proposal that was not delivered"))
            };
        };
        if missed.floor == beyond(missed.until) {
            missed.floor = created;
        }
        let mut added: Vec<Vec<u8>> = commit.added.iter().map(|package| package.to_vec()).collect();
        for packet in &referenced {
            added.extend(UnseenProposal::read(self.group, packet)?.added.map(<[u8]>::to_vec));
        }
        let is_known = created == missed.until && missed.has_last_welcome;
        filled.epochs.push(FilledEpoch {
            epoch: created,
            row: EpochRow {
                timestamp: entry.timestamp,
                commit: Some(Bytes::copy_from_slice(&bundle.commit)),
                proposals: referenced.into_iter().map(CommittedProposal::Packet).collect(),
                digest: commit_digest(bundle),
                sequence: entry.sequence,
                committer: None,
            },
            welcome: bundle.welcome.clone().filter(|_| !is_known),
            ratchet_tree: bundle.group_info.as_deref().and_then(carried_tree).map(<[u8]>::to_vec),
            added,
        });
        Ok(())
    }

    /// The packets that a commit references, in its order; `None` if one of them does not wait.
    fn referenced(
        self,
        suite: CipherSuite,
        commit: &UnseenCommit<'_>,
        waiting: &[Bytes],
    ) -> Result<Option<Vec<Bytes>>, Unusable> {
        if commit.references.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let mut known = std::collections::HashMap::new();
        for packet in waiting {
            let reference = UnseenProposal::read(self.group, packet)?.reference(suite);
            known.insert(reference, packet);
        }
        Ok(commit.references.iter().map(|reference| known.get(*reference).copied().cloned()).collect())
    }
}

/// A number above every epoch of the group's history.
fn beyond(until: Epoch) -> Epoch {
    until.next().unwrap_or(until)
}

/// Checks that an entry belongs to the epoch that is read; the first entry determines it.
fn enter(missed: &mut MissedEntries, epoch: Epoch) -> Result<(), Unusable> {
    if *missed.epoch.get_or_insert(epoch) == epoch {
        Ok(())
    } else {
        Err(Unusable::Order("it is of another epoch than the entry before it leads to"))
    }
}

/// The reason why an entry cannot be used for the history.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("{0}")]
    Order(&'static str),
}

/// The missing history of a replica after a transfer: the part that was missing before, and everything up to the transfer.
pub(crate) fn missed_after(
    before: Option<Reached<'_>>,
    missed_before: Option<&MissedEntries>,
    handed: Handed,
) -> MissedEntries {
    let Handed { through, until, confirmed_transcript_hash, has_last_welcome } = handed;
    let mut missed = MissedEntries {
        next: 0,
        through,
        epoch: Some(Epoch(0)),
        stamp: Timestamp(0),
        proposals: Vec::new(),
        interim_transcript_hash: None,
        until,
        confirmed_transcript_hash: confirmed_transcript_hash.into(),
        has_last_welcome,
        floor: missed_before.map_or(Epoch(0), |missed| missed.floor),
    };
    if let Some(open) = missed_before.filter(|missed| missed.is_open()) {
        let MissedEntries { next, epoch, stamp, proposals, interim_transcript_hash, floor, .. } =
            open.clone();
        // A gap whose later end is still unknown ends at no epoch of the new transfer either.
        let floor = if floor == beyond(open.until) { beyond(until) } else { floor };
        return MissedEntries { next, epoch, stamp, proposals, interim_transcript_hash, floor, ..missed };
    }
    if let Some(reached) = before {
        missed.next = reached.next;
        if !reached.has_all_proposals {
            missed.floor = beyond(until);
        }
        missed.epoch = Some(reached.epoch);
        missed.stamp = reached.stamp;
        missed.proposals =
            reached.proposals.iter().map(|waiting| Bytes::copy_from_slice(&waiting.packet)).collect();
        missed.interim_transcript_hash = Some(Bytes::copy_from_slice(reached.interim_transcript_hash));
    }
    missed
}

/// The position of a replica before the transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached<'a> {
    pub(crate) next: u64,
    pub(crate) epoch: Epoch,
    pub(crate) stamp: Timestamp,
    pub(crate) proposals: &'a [WaitingProposal],
    pub(crate) interim_transcript_hash: &'a [u8],
    /// Whether `proposals` are all that were accepted in `epoch`.
    pub(crate) has_all_proposals: bool,
}

/// The content of a transfer.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    pub(crate) through: u64,
    pub(crate) until: Epoch,
    pub(crate) confirmed_transcript_hash: Vec<u8>,
    pub(crate) has_last_welcome: bool,
}
