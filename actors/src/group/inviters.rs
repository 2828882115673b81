//! Inviters of a client (*Joining*). A commit uses the inviter's share of the client's waiting welcomes, so that no
//! inviter takes the room of others.

use sha2::{Digest as _, Sha256};
use snapshots::{DomainName, InvitedClient, Inviter, ShareId, View, WelcomeLimits};

use crate::{
    application::Application, error::StorageError, identity::IdentityProvider, limits::Limits,
    mls::CommitSender,
};

/// The number of key packages of each queue that are searched for the committer's signature key. In most clients, the packages
/// of a queue share it.
const PACKAGES_PER_QUEUE_MAX: usize = 16;

/// A digest of a signature key, as it is kept with key packages.
pub(crate) fn signer(signature_key: &[u8]) -> [u8; 32] {
    Sha256::digest(signature_key).into()
}

/// The limits in the form of the store.
pub(crate) fn welcome_limits(limits: &Limits) -> WelcomeLimits {
    let count = |max: usize| u64::try_from(max).unwrap_or(u64::MAX);
    WelcomeLimits {
        per_client_max: count(limits.welcomes_per_client_max),
        per_inviter_max: count(limits.welcomes_per_inviter_max),
        reserved_max: count(limits.welcomes_reserved_max),
        elsewhere_window: std::time::Duration::from_secs(limits.welcomes_elsewhere_window_s),
    }
}

/// The inviter's shares. The reserve is looked up only when a client holds enough join infos for it to matter.
///
/// # Errors
/// That the store cannot be read.
pub(crate) fn inviter(
    view: &View,
    application: &Application,
    committer: &CommitSender,
    invited: &[InvitedClient],
    limits: WelcomeLimits,
) -> Result<Inviter, StorageError> {
    let share = own_share(&*application.identity, committer);
    let member = &committer.member;
    if let Some(domain) = member.domain.as_ref().filter(|domain| !application.hosts(Some(domain))) {
        return Ok(Inviter { share, reserve: Some(domain_share(domain)) });
    }
    for client in invited {
        // Concurrent commits may use up the rest before this one is written.
        let counted = view.join_infos_counted(application.id, client)?;
        if counted.saturating_mul(2) >= limits.per_client_max {
            let is_known = is_known_here(view, application, committer)?;
            return Ok(Inviter { share, reserve: is_known.then_some(share) });
        }
    }
    Ok(Inviter { share, reserve: None })
}

/// Whether the committer is a client that the application has registered here. If credentials prove nothing, one of the
/// client's key packages must be signed with the same key, since anybody can write any handle into a credential.
fn is_known_here(
    view: &View,
    application: &Application,
    committer: &CommitSender,
) -> Result<bool, StorageError> {
    let member = &committer.member;
    let client = view.client_by_handle(application.id, member.domain.as_ref(), &member.handle)?;
    let Some(client) = client else { return Ok(false) };
    if application.identity.authenticates() {
        return Ok(true);
    }
    let signer = signer(&committer.signature_key);
    Ok(view.holds_signed_by(application.id, client.client_id, &signer, PACKAGES_PER_QUEUE_MAX)?)
}

/// The share of one inviter: of its client, if the credential proves it, else of its signature key.
fn own_share(provider: &dyn IdentityProvider, committer: &CommitSender) -> ShareId {
    let member = &committer.member;
    let domain = member.domain.as_ref().map_or("", DomainName::as_str);
    let key: &[u8] = if provider.authenticates() { &[] } else { &committer.signature_key };
    share_of(&[b"client", domain.as_bytes(), member.handle.as_bytes(), key])
}

fn domain_share(domain: &DomainName) -> ShareId {
    share_of(&[b"domain", domain.as_str().as_bytes()])
}

fn share_of(parts: &[&[u8]]) -> ShareId {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (half, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    ShareId::new(*half)
}
