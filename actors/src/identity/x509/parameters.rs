//! The draft's `X509Parameters` and the conditions under which they are valid (*X.509 Identity Provider*).

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{settings, settings::Accepts};

/// An offset in a chain.
const OFFSET: Accepts = Accepts::from_to(0, u8::MAX as u64);

settings! {
    /// The draft's `X509DeviceHandleRange`: the certificates that name the device, counted from the leaf, both ends included.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct DeviceHandleRange {
        /// The first certificate of the range; the leaf is 0.
        pub start: u8 => OFFSET, e.g. "0";
        /// The last certificate of the range.
        pub end: u8 => OFFSET, e.g. "0";
    }
}

settings! {
    /// The draft's `X509Parameters`, as a configuration names them: not yet checked. Offsets count certificates from the
    /// leaf, which is 0, towards the root.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct X509Parameters {
        /// The certificates that name the device, from the first to the last.
        pub device_handle_range: DeviceHandleRange
            => Accepts::Table(DeviceHandleRange::ROWS), e.g. "{ start = 0, end = 0 }";
        /// The certificate that names the account; needed where accounts are supported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub account_handle_offset: Option<u8> => OFFSET, e.g. "1";
        /// The certificate that names the domain; needed where domains are supported.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub domain_name_offset: Option<u8> => OFFSET, e.g. "2";
    }
}

/// The reason why parameters are not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {reason}")]
pub struct ParametersError {
    /// The member that is wrong, as a path from the parameters.
    pub member: &'static str,
    /// The fault, and the accepted form.
    pub reason: String,
}

/// The offsets of a client's names in its chain: parameters that passed every assertion of the draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameOffsets {
    /// Never empty.
    pub(super) device: RangeInclusive<u8>,
    /// Behind `device`.
    pub(super) account: Option<u8>,
    /// Behind `device` and `account`.
    pub(super) domain: Option<u8>,
}

impl NameOffsets {
    /// The offset of the highest certificate that names the client.
    pub fn highest(&self) -> u8 {
        self.domain.or(self.account).unwrap_or(*self.device.end())
    }
}

impl X509Parameters {
    /// Checks the draft's assertions, for a provider that supports accounts and domains or does not.
    ///
    /// # Errors
    /// [`ParametersError`] names the member of the first assertion that does not hold.
    pub fn check(
        self,
        supports_accounts: bool,
        supports_domains: bool,
    ) -> Result<NameOffsets, ParametersError> {
        let DeviceHandleRange { start, end } = self.device_handle_range;
        let refusal = |member, reason: String| ParametersError { member, reason };
        if end < start {
            return Err(refusal(
                "device_handle_range.end",
                format!("must not be before device_handle_range.start, which is {start}, but is {end}"),
            ));
        }
        let above = |member, given: Option<u8>, setting: &str, is_supported: bool| match given {
            _ if !is_supported => Ok(None),
            None => Err(refusal(member, format!("is required, because {setting} is true"))),
            Some(offset) if offset <= end => Err(refusal(
                member,
                format!("must be greater than device_handle_range.end, which is {end}, but is {offset}"),
            )),
            Some(offset) => Ok(Some(offset)),
        };
        let (account, domain) = (self.account_handle_offset, self.domain_name_offset);
        let account = above("account_handle_offset", account, "supports_accounts", supports_accounts)?;
        let domain = above("domain_name_offset", domain, "supports_domains", supports_domains)?;
        if let (Some(account), Some(domain)) = (account, domain)
            && domain <= account
        {
            return Err(refusal(
                "domain_name_offset",
                format!("must be greater than account_handle_offset, which is {account}, but is {domain}"),
            ));
        }
        Ok(NameOffsets { device: start..=end, account, domain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Offsets = (u8, u8, Option<u8>, Option<u8>);

    fn check(
        (start, end, account, domain): Offsets,
        accounts: bool,
        domains: bool,
        expected: Result<(), (&str, &str)>,
    ) {
        let parameters = X509Parameters {
            device_handle_range: DeviceHandleRange { start, end },
            account_handle_offset: account,
            domain_name_offset: domain,
        };
        match (parameters.check(accounts, domains), expected) {
            (Ok(offsets), Ok(())) => {
                assert_eq!(offsets.device, start..=end);
                assert_eq!(offsets.account, account.filter(|_| accounts));
                assert_eq!(offsets.domain, domain.filter(|_| domains));
            }
            (Err(error), Err((member, part))) => {
                assert_eq!(error.member, member, "{error}");
                assert!(error.reason.contains(part), "{error}");
            }
            (found, expected) => panic!("{parameters:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn every_assertion_of_the_draft_is_checked() {
        check((0, 0, None, None), false, false, Ok(()));
        check((1, 0, None, None), false, false, Err(("device_handle_range.end", "not be before")));
        check((0, 1, Some(2), Some(3)), true, true, Ok(()));
        check((0, 0, Some(1), None), true, true, Err(("domain_name_offset", "supports_domains")));
        check((0, 0, None, Some(2)), true, true, Err(("account_handle_offset", "supports_accounts")));
        check((0, 1, Some(1), None), true, false, Err(("account_handle_offset", "which is 1, but is 1")));
        check((0, 2, Some(1), None), true, false, Err(("account_handle_offset", "device_handle_range.end")));
        check((0, 1, None, Some(1)), false, true, Err(("domain_name_offset", "device_handle_range.end")));
        check((0, 0, Some(1), Some(1)), true, true, Err(("domain_name_offset", "account_handle_offset")));
        check((0, 0, Some(2), Some(1)), true, true, Err(("domain_name_offset", "which is 2, but is 1")));
        // What is not supported is not read.
        check((0, 3, Some(1), Some(1)), false, false, Ok(()));
    }
}
