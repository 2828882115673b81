//! GroupContext of an epoch, and the transcript hashes that lead to it (RFC 9420 §8.1, §8.2).

use snapshots::{Epoch, GroupId};

use super::{CipherSuite, Digest, PROTOCOL_VERSION, extensions::ContextExtensions, handshake::Handshake};
use crate::presentation::{Read, Reader, WireError, write_vector_length};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupContext {
    pub(super) suite: CipherSuite,
    pub(super) group_id: GroupId,
    pub(super) epoch: Epoch,
    pub(super) tree_hash: Digest,
    pub(super) confirmed_transcript_hash: Digest,
    pub(super) extensions: ContextExtensions,
}

impl GroupContext {
    /// Reads a serialised context.
    ///
    /// # Errors
    /// Bytes that are not a context; inside, why a context is not one that can be tracked.
    pub(super) fn read(bytes: &[u8]) -> Read<Result<Self, String>> {
        const PART: &str = "group context";
        let mut reader = Reader::new(bytes);
        let (version, suite) = (reader.u16(PART)?, reader.u16(PART)?);
        let group_id = reader.vector(PART)?;
        let epoch = Epoch(reader.u64(PART)?);
        let (tree_hash, confirmed) = (reader.vector(PART)?, reader.vector(PART)?);
        let extensions = ContextExtensions::read(reader.vector(PART)?)?;
        if !reader.is_empty() {
            return Err(WireError::in_part(PART));
        }
        if version != PROTOCOL_VERSION {
            return Ok(Err(format!("the protocol version is {version}, not {PROTOCOL_VERSION}")));
        }
        let Some(suite) = CipherSuite::from_number(suite) else {
            return Ok(Err(format!("this gateway does not know the cipher suite {suite:#06x}")));
        };
        let group_id = match GroupId::new(group_id) {
            Ok(group_id) => group_id,
            Err(error) => return Ok(Err(format!("group_id: {error}"))),
        };
        let hash = |value: &[u8]| Digest::try_from(value).ok().filter(|_| value.len() == suite.hash_length());
        let Some(tree_hash) = hash(tree_hash) else {
            return Ok(Err("the tree_hash has not the length of a hash".into()));
        };
        let confirmed_transcript_hash = match confirmed {
            [] => Digest::default(),
            confirmed => match hash(confirmed) {
                Some(confirmed) => confirmed,
                None => return Ok(Err("the confirmed_transcript_hash has not the length of a hash".into())),
            },
        };
        Ok(Ok(Self { suite, group_id, epoch, tree_hash, confirmed_transcript_hash, extensions }))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.extensions.bytes().len());
        let mut vector = |bytes: &[u8], before: &[u8]| {
            out.extend_from_slice(before);
            write_vector_length(&mut out, bytes.len());
            out.extend_from_slice(bytes);
        };
        let [version, suite] = [PROTOCOL_VERSION, self.suite.number()].map(u16::to_be_bytes);
        vector(self.group_id.as_bytes(), &[version, suite].concat());
        vector(self.tree_hash.as_ref(), &self.epoch.0.to_be_bytes());
        vector(self.confirmed_transcript_hash.as_ref(), &[]);
        vector(self.extensions.bytes(), &[]);
        out
    }
}

/// The transcript hashes of the epoch that a commit creates, confirmed and interim.
pub(super) fn transcript_after(
    suite: CipherSuite,
    interim: &[u8],
    commit: &Handshake<'_>,
) -> (Digest, Digest) {
    let confirmed = suite.hash(&[interim, commit.confirmed_input()]);
    (confirmed, interim_hash(suite, confirmed.as_ref(), commit.confirmation_tag()))
}

/// The interim transcript hash of an epoch, from its confirmation tag.
pub(super) fn interim_hash(suite: CipherSuite, confirmed: &[u8], confirmation_tag: &[u8]) -> Digest {
    let mut prefix = Vec::with_capacity(4);
    write_vector_length(&mut prefix, confirmation_tag.len());
    suite.hash(&[confirmed, &prefix, confirmation_tag])
}
