//! Stored entries of a group's log: one row for each, with its messages and what a restart needs besides to apply them again. The
//! same row serves the history, the group's peers, and those who read the log as it grows.

use serde::{Deserialize, Serialize};
use snapshots::Timestamp;

use super::{
    EntryContent, LogEntry, NewGroup,
    state::{StagedChange, StagedEntry},
    stored::format_of,
};
use crate::{
    codec::{CodecError, decode, encode_long},
    mls::{CommitBundle, EpochRecord, ProposalNeeds},
};

/// The format of the rows. In format 1 they held the messages alone, for peers.
const FORMAT: u8 = 3;
const MESSAGES_ONLY: u8 = 1;

/// Room for a row in addition to its messages: members that were added or replaced.
const CHANGE_BYTES: usize = 512;

/// An entry that is read back.
#[derive(Debug)]
pub(super) struct StoredEntry<'a> {
    pub(super) timestamp: Timestamp,
    pub(super) content: StoredContent<'a>,
}

/// Its messages, and the change that a restart cannot take from them without validating them again.
#[derive(Debug, Deserialize)]
pub(super) enum StoredContent<'a> {
    Creation(NewGroup),
    Proposal {
        #[serde(borrow, with = "serde_bytes")]
        packet: &'a [u8],
        #[serde(default)]
        needs: ProposalNeeds,
    },
    Commit {
        #[serde(borrow, with = "serde_bytes")]
        commit: &'a [u8],
        #[serde(borrow, with = "serde_bytes")]
        group_info: Option<&'a [u8]>,
        /// The welcome, if it is kept here.
        #[serde(borrow, with = "serde_bytes")]
        welcome: Option<&'a [u8]>,
        /// Whether the commit came with a welcome.
        has_welcome: bool,
        /// `None` in a row of the first format, which is not replayed.
        change: Option<EpochRecord>,
    },
}

/// An entry of a group's log, for those who read the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEntry {
    /// The entry. The welcome of a commit may be left out of it: it is kept for the clients that it is for, until all of them have it.
    pub entry: LogEntry,
    /// Whether it is a commit that came with a welcome.
    pub has_welcome: bool,
}

#[derive(Deserialize)]
struct EntryRow<'a> {
    timestamp: Timestamp,
    #[serde(borrow)]
    content: StoredContent<'a>,
}

/// A row of the first format.
#[derive(Deserialize)]
struct Messages {
    entry: LogEntry,
}

#[derive(Serialize)]
struct NewRow<'a> {
    format: u8,
    timestamp: Timestamp,
    content: NewContent<'a>,
}

/// As [`StoredContent`].
#[derive(Serialize)]
enum NewContent<'a> {
    Creation(&'a NewGroup),
    Proposal {
        #[serde(with = "serde_bytes")]
        packet: &'a [u8],
        #[serde(skip_serializing_if = "Option::is_none")]
        needs: Option<&'a ProposalNeeds>,
    },
    Commit {
        #[serde(with = "serde_bytes")]
        commit: &'a [u8],
        #[serde(with = "serde_bytes")]
        group_info: Option<&'a [u8]>,
        #[serde(with = "serde_bytes")]
        welcome: Option<&'a [u8]>,
        has_welcome: bool,
        change: Option<&'a EpochRecord>,
    },
}

fn encode_row(timestamp: Timestamp, content: NewContent<'_>, bytes: usize) -> Result<Vec<u8>, CodecError> {
    encode_long(&NewRow { format: FORMAT, timestamp, content }, bytes.saturating_add(CHANGE_BYTES))
}

/// The row of a group's creation.
pub(super) fn creation_row(timestamp: Timestamp, new: &NewGroup) -> Result<Vec<u8>, CodecError> {
    let bytes = new.group_info.len().saturating_add(new.ratchet_tree.as_ref().map_or(0, Vec::len));
    encode_row(timestamp, NewContent::Creation(new), bytes)
}

/// The row of an entry that was staged; without the welcome unless it is to be kept there.
pub(super) fn entry_row(staged: &StagedEntry, keeps_welcome: bool) -> Result<Vec<u8>, CodecError> {
    let timestamp = staged.entry.timestamp;
    match (&staged.change, &staged.entry.content) {
        (StagedChange::Proposal(proposal), EntryContent::Proposal { packet }) => {
            let needs = Some(&proposal.pending.needs).filter(|needs| **needs != ProposalNeeds::default());
            encode_row(timestamp, NewContent::Proposal { packet, needs }, packet.len())
        }
        (StagedChange::Commit(epoch), EntryContent::Commit(bundle)) => {
            let CommitBundle { commit, group_info, welcome } = &**bundle;
            let kept = welcome.as_deref().filter(|_| keeps_welcome);
            let length = |message: Option<&[u8]>| message.map_or(0, <[u8]>::len);
            let bytes = commit.len() + length(group_info.as_deref()) + length(kept);
            let content = NewContent::Commit {
                commit,
                group_info: group_info.as_deref(),
                welcome: kept,
                has_welcome: welcome.is_some(),
                change: Some(&EpochRecord::of(epoch)),
            };
            encode_row(timestamp, content, bytes)
        }
        (StagedChange::Proposal(_) | StagedChange::Commit(_), _) => {
            Err(CodecError::new("an entry was staged as another kind of entry"))
        }
    }
}

/// Whether bytes are a row of this form with its change, and not a record of an earlier version.
pub(super) fn is_entry(bytes: &[u8]) -> Result<bool, CodecError> {
    format_of(bytes).map(|format| format == FORMAT)
}

impl<'a> StoredEntry<'a> {
    /// Reads a row that has its change.
    ///
    /// # Errors
    /// Bytes that are damaged, or that a newer version wrote.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        if !is_entry(bytes)? {
            return Err(CodecError::damaged("format"));
        }
        let EntryRow { timestamp, content } = decode(bytes)?;
        Ok(Self { timestamp, content })
    }

    /// The packet of a proposal or commit.
    pub(super) fn packet(&self) -> Option<&'a [u8]> {
        match self.content {
            StoredContent::Creation(_) => None,
            StoredContent::Proposal { packet, .. } => Some(packet),
            StoredContent::Commit { commit, .. } => Some(commit),
        }
    }
}

impl LoggedEntry {
    /// Reads the row of an entry, of this or the first format.
    ///
    /// # Errors
    /// Bytes that are damaged, or that a newer version wrote.
    pub(crate) fn read(sequence: u64, bytes: &[u8]) -> Result<Self, CodecError> {
        if format_of(bytes)? == MESSAGES_ONLY {
            let Messages { entry } = decode(bytes)?;
            let has_welcome =
                matches!(&entry.content, EntryContent::Commit(bundle) if bundle.welcome.is_some());
            return Ok(Self { entry, has_welcome });
        }
        let StoredEntry { timestamp, content } = StoredEntry::read(bytes)?;
        let (content, has_welcome) = match content {
            StoredContent::Creation(new) => (new.into(), false),
            StoredContent::Proposal { packet, .. } => {
                (EntryContent::Proposal { packet: packet.into() }, false)
            }
            StoredContent::Commit { commit, group_info, welcome, has_welcome, .. } => {
                let bundle = CommitBundle {
                    commit: commit.to_vec(),
                    group_info: group_info.map(<[u8]>::to_vec),
                    welcome: welcome.map(<[u8]>::to_vec),
                };
                (bundle.into(), has_welcome)
            }
        };
        Ok(Self { entry: LogEntry { sequence, timestamp, content }, has_welcome })
    }

    /// The entry as it was accepted; `None` if its welcome is left out.
    pub(crate) fn whole(self) -> Option<LogEntry> {
        let lacks_welcome = self.has_welcome
            && matches!(&self.entry.content, EntryContent::Commit(bundle) if bundle.welcome.is_none());
        (!lacks_welcome).then_some(self.entry)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::encode;

    /// A row as format 1 has it.
    #[derive(Serialize)]
    struct OldRow<'a> {
        format: u8,
        entry: &'a LogEntry,
    }

    fn commit(welcome: Option<Vec<u8>>) -> EntryContent {
        CommitBundle { commit: vec![4; 300], group_info: Some(Vec::new()), welcome }.into()
    }

    fn row(content: &EntryContent, keeps_welcome: bool) -> Vec<u8> {
        let content = match content {
            EntryContent::Creation(new) => return creation_row(Timestamp(9), new).unwrap(),
            EntryContent::Proposal { packet } => NewContent::Proposal { packet, needs: None },
            EntryContent::Commit(bundle) => NewContent::Commit {
                commit: &bundle.commit,
                group_info: bundle.group_info.as_deref(),
                welcome: bundle.welcome.as_deref().filter(|_| keeps_welcome),
                has_welcome: bundle.welcome.is_some(),
                change: None,
            },
        };
        encode_row(Timestamp(9), content, 0).unwrap()
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let creation = |group_info: &[u8], ratchet_tree: Option<&[u8]>| {
            let ratchet_tree = ratchet_tree.map(<[u8]>::to_vec);
            EntryContent::from(NewGroup { group_info: group_info.to_vec(), ratchet_tree })
        };
        for content in [
            creation(&[1; 300], None),
            creation(&[1], Some(&[2])),
            EntryContent::Proposal { packet: Arc::from([3; 70_000]) },
            commit(None),
            commit(Some(vec![5; 40])),
        ] {
            let entry = LogEntry { sequence: 7, timestamp: Timestamp(9), content };
            let present = row(&entry.content, true);
            let old = encode(&OldRow { format: MESSAGES_ONLY, entry: &entry }).unwrap();
            for bytes in [&present, &old] {
                let read = LoggedEntry::read(7, bytes).unwrap();
                assert_eq!(read.has_welcome, entry.content == commit(Some(vec![5; 40])));
                assert_eq!(read.whole(), Some(entry.clone()));
                assert!(LoggedEntry::read(7, &bytes[..bytes.len() - 1]).is_err());
            }
            assert!(is_entry(&present).unwrap() && !is_entry(&old).unwrap());
        }
        let newer = encode(&NewRow {
            format: FORMAT + 1,
            timestamp: Timestamp(9),
            content: NewContent::Proposal { packet: &[1], needs: None },
        });
        assert!(LoggedEntry::read(7, &newer.unwrap()).is_err());
    }

    #[test]
    fn an_entry_without_its_welcome_says_so() {
        let read = LoggedEntry::read(7, &row(&commit(Some(vec![5])), false)).unwrap();
        assert!(read.has_welcome);
        assert_eq!(read.entry.content, commit(None));
        assert_eq!(read.whole(), None);
    }
}
