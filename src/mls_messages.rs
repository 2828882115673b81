//! MLS messages as the API carries them, for the MLS clients of the demo and of the load test.

use openmls::{
    prelude::{
        KeyPackage, KeyPackageIn, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
        OpenMlsProvider as _, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProtocolVersion, RatchetTreeIn,
    },
    treesync::RatchetTree,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::{Deserialize as _, Serialize as _};

use crate::api::{groups::CommitBody, text::Base64};

/// The MLS library did not take, or did not make, a message.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {reason}")]
pub(crate) struct MessageError {
    pub(crate) step: &'static str,
    pub(crate) reason: String,
}

fn failed(step: &'static str) -> impl FnOnce(&dyn std::fmt::Display) -> MessageError {
    move |reason| MessageError { step, reason: reason.to_string() }
}

/// Handshakes in the clear, and the ratchet tree beside the group info.
pub(crate) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(false)
        .build()
}

pub(crate) fn key_package_in(
    package: &Base64,
    provider: &OpenMlsRustCrypto,
) -> Result<KeyPackage, MessageError> {
    const STEP: &str = "checking a key package";
    let MlsMessageBodyIn::KeyPackage(package) = message_in(package)?.extract() else {
        return Err(failed(STEP)(&"the message is none"));
    };
    let package: KeyPackageIn = package;
    package.validate(provider.crypto(), ProtocolVersion::Mls10).map_err(|error| failed(STEP)(&error))
}

pub(crate) fn commit_body(
    (commit, welcome, group_info): (MlsMessageOut, Option<MlsMessageOut>, Option<MlsMessageOut>),
) -> Result<CommitBody, MessageError> {
    Ok(CommitBody {
        commit_packet: bytes_of(&commit)?,
        group_info: group_info.as_ref().map(bytes_of).transpose()?,
        welcome_packet: welcome.as_ref().map(bytes_of).transpose()?,
    })
}

pub(crate) fn bytes_of(message: &MlsMessageOut) -> Result<Base64, MessageError> {
    message.to_bytes().map(Base64).map_err(|error| failed("serialising an MLS message")(&error))
}

pub(crate) fn message_in(bytes: &Base64) -> Result<MlsMessageIn, MessageError> {
    MlsMessageIn::tls_deserialize_exact(&bytes.0).map_err(|error| failed("reading an MLS message")(&error))
}

pub(crate) fn tree_of(tree: &RatchetTree) -> Result<Base64, MessageError> {
    tree.tls_serialize_detached().map(Base64).map_err(|error| failed("serialising a ratchet tree")(&error))
}

pub(crate) fn tree_in(bytes: &Base64) -> Result<RatchetTreeIn, MessageError> {
    RatchetTreeIn::tls_deserialize_exact(&bytes.0).map_err(|error| failed("reading a ratchet tree")(&error))
}
