//! MLS messages as the API carries them.

use openmls::{
    prelude::{
        KeyPackage, KeyPackageIn, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
        OpenMlsProvider as _, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProtocolVersion, RatchetTreeIn,
    },
    treesync::RatchetTree,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::{Deserialize as _, Serialize as _};

use super::{DuringLibrary as _, ToolError};
use crate::api::{groups::CommitBody, text::Base64};

/// Handshakes in the clear, and the ratchet tree next to the group info.
pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(false)
        .build()
}

pub(super) fn key_package_in(
    package: &Base64,
    provider: &OpenMlsRustCrypto,
) -> Result<KeyPackage, ToolError> {
    let MlsMessageBodyIn::KeyPackage(package) = message_in(package)?.extract() else {
        return Err(ToolError::missing("a key package"));
    };
    let package: KeyPackageIn = package;
    package.validate(provider.crypto(), ProtocolVersion::Mls10).during_library("checking a key package")
}

pub(super) fn commit_body(
    (commit, welcome, group_info): (MlsMessageOut, Option<MlsMessageOut>, Option<MlsMessageOut>),
) -> Result<CommitBody, ToolError> {
    Ok(CommitBody {
        commit_packet: bytes_of(&commit)?,
        group_info: group_info.as_ref().map(bytes_of).transpose()?,
        welcome_packet: welcome.as_ref().map(bytes_of).transpose()?,
    })
}

pub(super) fn bytes_of(message: &MlsMessageOut) -> Result<Base64, ToolError> {
    message.to_bytes().map(Base64).during_library("serialising an MLS message")
}

pub(super) fn message_in(bytes: &Base64) -> Result<MlsMessageIn, ToolError> {
    MlsMessageIn::tls_deserialize_exact(&bytes.0).during_library("reading an MLS message")
}

pub(super) fn tree_of(tree: &RatchetTree) -> Result<Base64, ToolError> {
    tree.tls_serialize_detached().map(Base64).during_library("serialising a ratchet tree")
}

pub(super) fn tree_in(bytes: &Base64) -> Result<RatchetTreeIn, ToolError> {
    RatchetTreeIn::tls_deserialize_exact(&bytes.0).during_library("reading a ratchet tree")
}
