//! Warnings about valid settings that are probably not intended.

use actors::{
    Application, Timestamp,
    identity::{TrustMember, TrustWarning},
};

use super::{Config, ConfigError, applications};
use crate::tls;

/// The store's bytes for each byte of a ratchet tree or a proposal: 3.3 to 3.8 for members of about 200 bytes.
const STORED_PER_BYTE: usize = 4;

impl Config {
    /// Warns of applications that no client can use, tokens that cross a network in the clear, and certificates that are not
    /// valid now. The applications are those of [`Config::build_applications`]; each warning begins with its member.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names the member whose file cannot be used, and the reason.
    pub fn warnings(&self, built: &[Application], now: Timestamp) -> Result<Vec<String>, ConfigError> {
        let mut warnings = Vec::new();
        let address = self.internal.listen;
        if !address.ip().is_loopback() && !self.internal.has_tls() {
            warnings.push(format!(
                "internal.listen: tokens cross the network in the clear on {address}: give [internal] a certificate and a \
                 private_key, or put TLS in front of this address"
            ));
        }
        if let Some(operator) = &self.operator {
            warnings.extend(operator.warnings(self.applications.is_empty()));
        }
        for (place, (settings, built)) in self.applications.iter().zip(built).enumerate() {
            let at = applications::at(place);
            if settings.tokens.is_empty() {
                warnings.push(format!(
                    "{at}.tokens: application {} cannot be used, because it has no token; `mimi-gateway token` makes one",
                    settings.id
                ));
            }
            warnings
                .extend(built.identity.trust_warnings(now).iter().map(|warning| trust_warning(&at, warning)));
            for (index, sender) in built.external_senders.iter().enumerate() {
                if let Err(reason) = sender.check_credential(&*built.identity, now) {
                    warnings.push(format!(
                        "{at}.x509.external_senders[{index}].certificate: it is not valid now, so groups that name it \
                         cannot be created: {reason}"
                    ));
                }
            }
        }
        warnings.extend(self.transfer_warning());
        if let Some(federation) = &self.federation {
            let holder = federation.tls()?.credentials.holder();
            if holder.is_none_or(|holder| !holder.is_valid_at(tls::now_s())) {
                warnings.push(
                    "federation.certificate: it is not valid now, so no peer will accept this gateway"
                        .to_owned(),
                );
            }
        }
        Ok(warnings)
    }

    /// Warns of limits that allow groups too large for a transfer from another gateway: a transfer is one write of the group,
    /// its group info, and a welcome with another copy of the tree.
    pub(super) fn transfer_warning(&self) -> Option<String> {
        self.federation.as_ref()?;
        let limits = &self.limits;
        let stored = limits.ratchet_tree_bytes_max.saturating_add(limits.proposal_bytes_per_epoch_max);
        let packets = limits.packet_bytes_max.saturating_mul(2).saturating_add(limits.ratchet_tree_bytes_max);
        let write = stored.saturating_mul(STORED_PER_BYTE).saturating_add(packets);
        let max = self.durability.batch_bytes_max;
        (write > max).then(|| {
            format!(
                "durability.batch_bytes_max: with these limits, the transfer of a group from another gateway can be a write of \
                 about {write} bytes, and at most {max} are allowed: raise it, or lower limits.ratchet_tree_bytes_max or \
                 limits.proposal_bytes_per_epoch_max"
            )
        })
    }
}

/// A warning about a trust root or revocation list of the application at this place.
fn trust_warning(at: &str, TrustWarning { member, text }: &TrustWarning) -> String {
    let member = match member {
        TrustMember::Root(place) => format!("trust_roots: root {}", place + 1),
        TrustMember::CrlIssuer(place) => format!("crl_issuers: certificate {}", place + 1),
        TrustMember::Crl(place) => format!("crls[{place}]"),
    };
    format!("{at}.x509.{member}: {text}")
}
