//! The storage provider behind the MLS library. Records and snapshots are written by the group's owner, so writes keep
//! only the one value that the library shows nowhere else, and reads answer from a snapshot.

use std::cell::RefCell;

use openmls::group::MergeCommitError;
use openmls_traits::{
    public_storage::PublicStorageProvider,
    storage::{CURRENT_VERSION, traits},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A value that did not go through MessagePack.
#[derive(Debug, thiserror::Error)]
#[error("a group's state could not be read or written: {0}")]
pub(crate) struct ValueError(String);

impl ValueError {
    /// Bytes that decoded to something that `part` cannot be.
    pub(crate) fn damaged(part: &str) -> Self {
        Self(format!("its {part} is damaged"))
    }
}

impl From<&MergeCommitError<ValueError>> for ValueError {
    fn from(error: &MergeCommitError<ValueError>) -> Self {
        Self(error.to_string())
    }
}

/// A group's public state, each value as MessagePack with named fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupValues {
    #[serde(with = "serde_bytes")]
    pub(crate) tree: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) context: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) interim_transcript_hash: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) confirmation_tag: Vec<u8>,
}

pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, ValueError> {
    rmp_serde::to_vec_named(value).map_err(|error| ValueError(error.to_string()))
}

/// As [`encode`], with room for about this many bytes from the start: a long value is many small writes, and growing under
/// them costs more than the writes.
pub(crate) fn encode_long(value: &impl Serialize, bytes: usize) -> Result<Vec<u8>, ValueError> {
    let mut encoded = Vec::with_capacity(bytes);
    rmp_serde::encode::write_named(&mut encoded, value).map_err(|error| ValueError(error.to_string()))?;
    Ok(encoded)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ValueError> {
    rmp_serde::from_slice(bytes).map_err(|error| ValueError(error.to_string()))
}

/// The storage provider of one call into the library.
#[derive(Debug, Default)]
pub(crate) struct Values<'a> {
    interim_transcript_hash: RefCell<Vec<u8>>,
    answers: Option<&'a GroupValues>,
}

impl<'a> Values<'a> {
    /// Answers these values when the library loads a group.
    pub(crate) fn answering(values: &'a GroupValues) -> Self {
        Self { interim_transcript_hash: RefCell::default(), answers: Some(values) }
    }

    /// The interim transcript hash that the library wrote (RFC 9420 §8.2), as MessagePack.
    pub(crate) fn into_interim_transcript_hash(self) -> Vec<u8> {
        self.interim_transcript_hash.into_inner()
    }

    fn answer<T: DeserializeOwned>(
        &self,
        value: fn(&GroupValues) -> &Vec<u8>,
    ) -> Result<Option<T>, ValueError> {
        self.answers.map(|values| decode(value(values))).transpose()
    }
}

impl PublicStorageProvider<CURRENT_VERSION> for Values<'_> {
    type PublicError = ValueError;

    fn write_tree<G: traits::GroupId<CURRENT_VERSION>, T: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &T,
    ) -> Result<(), ValueError> {
        Ok(())
    }

    fn write_interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        H: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        hash: &H,
    ) -> Result<(), ValueError> {
        self.interim_transcript_hash.replace(encode(hash)?);
        Ok(())
    }

    fn write_context<G: traits::GroupId<CURRENT_VERSION>, C: traits::GroupContext<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &C,
    ) -> Result<(), ValueError> {
        Ok(())
    }

    fn write_confirmation_tag<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ConfirmationTag<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        _: &T,
    ) -> Result<(), ValueError> {
        Ok(())
    }

    fn queue_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        Q: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        _: &R,
        _: &Q,
    ) -> Result<(), ValueError> {
        Ok(())
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        Q: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<(R, Q)>, ValueError> {
        Ok(Vec::new())
    }

    fn tree<G: traits::GroupId<CURRENT_VERSION>, T: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, ValueError> {
        self.answer(|values| &values.tree)
    }

    fn group_context<G: traits::GroupId<CURRENT_VERSION>, C: traits::GroupContext<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<C>, ValueError> {
        self.answer(|values| &values.context)
    }

    fn interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        H: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<H>, ValueError> {
        self.answer(|values| &values.interim_transcript_hash)
    }

    fn confirmation_tag<G: traits::GroupId<CURRENT_VERSION>, T: traits::ConfirmationTag<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, ValueError> {
        self.answer(|values| &values.confirmation_tag)
    }

    fn delete_tree<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), ValueError> {
        Ok(())
    }

    fn delete_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), ValueError> {
        Ok(())
    }

    fn delete_context<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), ValueError> {
        Ok(())
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), ValueError> {
        Ok(())
    }

    fn remove_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &R,
    ) -> Result<(), ValueError> {
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), ValueError> {
        Ok(())
    }
}
