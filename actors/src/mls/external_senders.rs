//! Validation of the credentials of a group's external senders (RFC 9420 §12.1.8.1).

use snapshots::Timestamp;

use super::{
    ValidationContext,
    extensions::{ContextExtensions, ExternalSenderOutline},
};
use crate::identity::{CredentialType, Identity, IdentityProvider};

/// Validates the X.509 credentials among those of the external senders, each with its key, as those of clients. Credentials of
/// other types pass: they certify nothing, and what counts is that a member, who set the extension, knows the key.
///
/// With `is_past` the extensions may be older than `at`: a credential that has ended since is validated by its last
/// moment.
///
/// # Errors
/// Says which sender is not acceptable, and why.
pub(super) fn check_external_senders(
    validation: ValidationContext<'_>,
    extensions: &ContextExtensions,
    at: Timestamp,
    is_past: bool,
) -> Result<(), String> {
    let provider = validation.provider();
    if !provider.supported_credentials().contains(&CredentialType::X509) {
        return Ok(());
    }
    for (index, sender) in extensions.external_senders().enumerate() {
        if sender.credential.credential_type != CredentialType::X509 {
            continue;
        }
        let identity = identity_of(&sender);
        let end = if is_past { provider.valid_until(identity).ok().flatten() } else { None };
        let context = validation.identity_context(end.map_or(at, |end| end.min(at)));
        provider
            .validate(identity, extensions.for_provider(), context)
            .map_err(|error| format!("external sender {index}: {error}"))?;
    }
    Ok(())
}

/// The last moment at which all credentials that [`check_external_senders`] validates are valid; `None` if none of them ends.
pub(super) fn external_senders_end(
    provider: &dyn IdentityProvider,
    extensions: &ContextExtensions,
) -> Option<Timestamp> {
    if !provider.supported_credentials().contains(&CredentialType::X509) {
        return None;
    }
    let x509 = extensions
        .external_senders()
        .filter(|sender| sender.credential.credential_type == CredentialType::X509);
    x509.filter_map(|sender| provider.valid_until(identity_of(&sender)).ok().flatten()).min()
}

fn identity_of<'a>(sender: &ExternalSenderOutline<'a>) -> Identity<'a> {
    Identity { signature_key: sender.signature_key, credential: sender.credential }
}
