//! Storage provider for openmls, with which groups of earlier versions are read. It answers reads with the values of a snapshot, and
//! keeps only the one value that openmls exposes nowhere else.

use std::cell::RefCell;

use openmls::group::MergeCommitError;
use openmls_traits::{
    public_storage::PublicStorageProvider,
    storage::{CURRENT_VERSION, traits},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::codec::{CodecError, decode, encode};

impl From<&MergeCommitError<CodecError>> for CodecError {
    fn from(error: &MergeCommitError<CodecError>) -> Self {
        Self::new(error.to_string())
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

    fn answer<T: DeserializeOwned>(
        &self,
        value: fn(&GroupValues) -> &Vec<u8>,
    ) -> Result<Option<T>, CodecError> {
        self.answers.map(|values| decode(value(values))).transpose()
    }
}

impl PublicStorageProvider<CURRENT_VERSION> for Values<'_> {
    type PublicError = CodecError;

    fn write_tree<G: traits::GroupId<CURRENT_VERSION>, T: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &T,
    ) -> Result<(), CodecError> {
        Ok(())
    }

    fn write_interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        H: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        hash: &H,
    ) -> Result<(), CodecError> {
        self.interim_transcript_hash.replace(encode(hash)?);
        Ok(())
    }

    fn write_context<G: traits::GroupId<CURRENT_VERSION>, C: traits::GroupContext<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &C,
    ) -> Result<(), CodecError> {
        Ok(())
    }

    fn write_confirmation_tag<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ConfirmationTag<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        _: &T,
    ) -> Result<(), CodecError> {
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
    ) -> Result<(), CodecError> {
        Ok(())
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        Q: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<(R, Q)>, CodecError> {
        Ok(Vec::new())
    }

    fn tree<G: traits::GroupId<CURRENT_VERSION>, T: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, CodecError> {
        self.answer(|values| &values.tree)
    }

    fn group_context<G: traits::GroupId<CURRENT_VERSION>, C: traits::GroupContext<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<C>, CodecError> {
        self.answer(|values| &values.context)
    }

    fn interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        H: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<H>, CodecError> {
        self.answer(|values| &values.interim_transcript_hash)
    }

    fn confirmation_tag<G: traits::GroupId<CURRENT_VERSION>, T: traits::ConfirmationTag<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, CodecError> {
        self.answer(|values| &values.confirmation_tag)
    }

    fn delete_tree<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), CodecError> {
        Ok(())
    }

    fn delete_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), CodecError> {
        Ok(())
    }

    fn delete_context<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), CodecError> {
        Ok(())
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), CodecError> {
        Ok(())
    }

    fn remove_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &R,
    ) -> Result<(), CodecError> {
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), CodecError> {
        Ok(())
    }
}
