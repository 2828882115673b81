//! Log of certificate chains that a hub accepted and the revocation lists here refuse.

use std::sync::{Mutex, PoisonError};

use snapshots::ClientHandle;

use super::chain::ChainError;

/// The reasons for which chains were refused by one trust store, each once: a list that is late concerns every chain below its issuer.
#[derive(Debug, Default)]
pub(super) struct Disputes(Mutex<Vec<String>>);

impl Disputes {
    /// Logs a chain: a warning if it is the first that is refused for its reason, and a debug line otherwise.
    pub(super) fn log(&self, client: &ClientHandle, error: &ChainError) {
        if self.is_first(error) {
            tracing::warn!(
                ?client, %error,
                "the hub of a group has accepted a certificate that is refused here; what the hub accepted stands. Others that are \
                 refused for this reason are counted only, until trust roots or lists change"
            );
        } else {
            tracing::debug!(?client, %error, "the hub of a group has accepted a certificate that is refused here");
        }
    }

    /// Whether an error is the first for its reason. Their number is that of rules and places in a chain.
    fn is_first(&self, error: &ChainError) -> bool {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = error.to_string();
        if reasons.contains(&reason) {
            return false;
        }
        reasons.push(reason);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{super::chain::CertificateRule, *};

    #[test]
    fn each_reason_is_first_once() {
        let of = |index, rule| ChainError::Certificate { index, rule };
        let late = of(0, CertificateRule::StaleCrl);
        let disputes = Disputes::default();
        let first = [
            late.clone(),
            late.clone(),
            of(0, CertificateRule::Revoked),
            of(1, CertificateRule::StaleCrl),
            late,
        ];
        assert_eq!(first.map(|error| disputes.is_first(&error)), [true, false, true, true, false]);
    }
}
