//! The stored form of log entries: MessagePack, preceded by a format version.

use serde::{Deserialize, Serialize};

use super::LogEntry;
use crate::mls::{ValueError, decode, encode};

const FORMAT: u8 = 1;

#[derive(Serialize)]
struct Keep<'a> {
    format: u8,
    entry: &'a LogEntry,
}

#[derive(Deserialize)]
struct Kept {
    format: u8,
    entry: LogEntry,
}

pub(crate) fn entry_to_bytes(entry: &LogEntry) -> Result<Vec<u8>, ValueError> {
    encode(&Keep { format: FORMAT, entry })
}

/// # Errors
/// Bytes that were damaged, or that a newer version wrote.
pub(crate) fn entry_from_bytes(bytes: &[u8]) -> Result<LogEntry, ValueError> {
    let kept: Kept = decode(bytes)?;
    if kept.format == FORMAT { Ok(kept.entry) } else { Err(ValueError::damaged("format")) }
}

#[cfg(test)]
mod tests {
    use snapshots::Timestamp;

    use super::*;
    use crate::peer::EntryContent;

    #[test]
    fn entries_come_back_as_they_were() {
        let contents = [
            EntryContent::Creation { group_info: vec![1; 300], ratchet_tree: None },
            EntryContent::Creation { group_info: vec![1], ratchet_tree: Some(vec![2]) },
            EntryContent::Proposal { packet: vec![3; 70_000] },
            EntryContent::Commit { commit: vec![4], group_info: Some(Vec::new()), welcome: None },
        ];
        for content in contents {
            let entry = LogEntry { sequence: 7, timestamp: Timestamp(9), content };
            let bytes = entry_to_bytes(&entry).unwrap();
            assert_eq!(entry_from_bytes(&bytes).unwrap(), entry);
            assert!(entry_from_bytes(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
