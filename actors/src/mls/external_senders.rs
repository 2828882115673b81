//! Validation of the credentials of a group's external senders (RFC 9420 §12.1.8.1).

use openmls::prelude::{
    Credential, CredentialType, Extensions, ExternalSender, GroupContext,
    tls_codec::{DeserializeBytes as _, Serialize as _},
};
use snapshots::Timestamp;

use crate::identity::{ApplicationContext, Identity, IdentityProvider};
use crate::presentation::Reader;

/// Validates the X.509 credentials among those of the external senders, each with its key, as those of clients. Credentials of
/// other types pass: they certify nothing, and what counts is that a member, who set the extension, knows the key.
///
/// With `is_past` the extensions may be older than `at`: a credential that has ended since is validated by its last
/// moment.
///
/// # Errors
/// Says which sender is not acceptable, and why.
pub(super) fn check_external_senders(
    provider: &dyn IdentityProvider,
    extensions: &Extensions<GroupContext>,
    at: Timestamp,
    is_past: bool,
) -> Result<(), String> {
    let Some(senders) = extensions.external_senders() else { return Ok(()) };
    if !provider.supported_credentials().contains(&CredentialType::X509) {
        return Ok(());
    }
    for (index, sender) in senders.iter().enumerate() {
        let refuse = |reason: &dyn std::fmt::Display| format!("external sender {index}: {reason}");
        let (key, credential) = parts(sender).ok_or_else(|| refuse(&"it is malformed"))?;
        if credential.credential_type() != CredentialType::X509 {
            continue;
        }
        let identity = Identity { signature_key: &key, credential: &credential };
        let end = if is_past { provider.valid_until(identity).ok().flatten() } else { None };
        let context = ApplicationContext { msg_timestamp: end.map_or(at, |end| end.min(at)) };
        provider.validate(identity, extensions, context).map_err(|error| refuse(&error))?;
    }
    Ok(())
}

/// The last moment at which all credentials that [`check_external_senders`] validates are valid; `None` if none of them ends.
pub(super) fn external_senders_end(
    provider: &dyn IdentityProvider,
    extensions: &Extensions<GroupContext>,
) -> Option<Timestamp> {
    if !provider.supported_credentials().contains(&CredentialType::X509) {
        return None;
    }
    let end = |sender: &ExternalSender| {
        let (key, credential) = parts(sender)?;
        let identity = Identity { signature_key: &key, credential: &credential };
        let is_validated = credential.credential_type() == CredentialType::X509;
        is_validated.then(|| provider.valid_until(identity).ok().flatten()).flatten()
    };
    extensions.external_senders()?.iter().filter_map(end).min()
}

/// The key and the credential. The library shows an `ExternalSender` only in its serialised form.
pub(super) fn parts(sender: &ExternalSender) -> Option<(Vec<u8>, Credential)> {
    let bytes = sender.tls_serialize_detached().ok()?;
    let mut reader = Reader::new(&bytes);
    let key = reader.vector("signature key").ok()?.to_vec();
    let credential = Credential::tls_deserialize_exact_bytes(reader.rest()).ok()?;
    Some((key, credential))
}
