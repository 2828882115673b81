//! Trust of an application, as gateways tell each other: a digest of the roots, and the policy besides them. Revocation lists are not
//! part of it, because they change often. A difference blocks nothing; operators see it.

use std::{collections::BTreeMap, fmt::Write as _};

use actors::identity::TrustSummary;

/// The longest header that is read, in bytes; known ones are much shorter.
const HEADER_BYTES_MAX: usize = 1024;

/// What an application trusts, by the names of its settings in `[applications.x509]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApplicationTrust(BTreeMap<String, String>);

impl ApplicationTrust {
    /// The form of a summary on the wire: text by the name of each setting.
    pub(crate) fn of(summary: &TrustSummary) -> Self {
        let mut roots = String::new();
        for byte in summary.roots {
            // Writing to a text cannot fail.
            let _ = write!(roots, "{byte:02x}");
        }
        let above = summary.above_names_max.map_or_else(|| "unlimited".to_owned(), |max| max.to_string());
        let lists = if summary.checks_revocation { "some" } else { "none" };
        Self(BTreeMap::from([
            ("trust_roots".to_owned(), roots),
            ("certificates_above_names_max".to_owned(), above),
            ("crls".to_owned(), lists.to_owned()),
        ]))
    }

    /// The value of the header.
    pub(crate) fn to_header(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        parts.join(", ")
    }

    /// Reads the header of a peer; `None` if it is not one.
    pub(crate) fn read(header: &[u8]) -> Option<Self> {
        let header = std::str::from_utf8(header).ok().filter(|header| header.len() <= HEADER_BYTES_MAX)?;
        let part = |part: &str| {
            let (name, value) = part.trim().split_once('=')?;
            let is_name =
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            (is_name && value.bytes().all(|byte| byte.is_ascii_graphic()))
                .then(|| (name.to_owned(), value.to_owned()))
        };
        header.split(',').map(part).collect::<Option<_>>().map(Self)
    }

    /// The names of the settings that differ, sorted. A setting that only one of the two tells does not differ: the other may be of
    /// another version.
    pub(crate) fn differences(&self, theirs: &Self) -> Vec<String> {
        let differs =
            |(name, value): &(&String, &String)| theirs.0.get(*name).is_some_and(|theirs| theirs != *value);
        self.0.iter().filter(differs).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: u8, above_names_max: Option<usize>, checks_revocation: bool) -> ApplicationTrust {
        ApplicationTrust::of(&TrustSummary { roots: [root; 32], above_names_max, checks_revocation })
    }

    #[test]
    fn what_differs_is_named() {
        let ours = of(1, Some(0), true);
        for (theirs, expected) in [
            (of(1, Some(0), true), vec![]),
            (of(2, Some(0), true), vec!["trust_roots"]),
            (of(1, None, true), vec!["certificates_above_names_max"]),
            (of(3, Some(1), false), vec!["certificates_above_names_max", "crls", "trust_roots"]),
        ] {
            let told = ApplicationTrust::read(theirs.to_header().as_bytes()).unwrap();
            assert_eq!(told, theirs);
            assert_eq!(ours.differences(&told), expected);
            assert_eq!(told.differences(&ours), expected);
        }
    }

    #[test]
    fn other_versions_may_tell_more_or_less() {
        let ours = of(1, Some(0), true);
        for (header, expected) in [
            ("a_newer_setting=7", vec![]),
            ("crls=none", vec!["crls"]),
            ("crls=none, another=1,trust_roots=abc", vec!["crls", "trust_roots"]),
        ] {
            let theirs = ApplicationTrust::read(header.as_bytes()).unwrap();
            assert_eq!(ours.differences(&theirs), expected, "{header}");
        }
        let long = format!("crls={}", "x".repeat(HEADER_BYTES_MAX));
        for header in ["", "crls", "=none", "crls=none,", "CRLs=none", "crls=\u{1}", "crls=ä", &long] {
            assert_eq!(ApplicationTrust::read(header.as_bytes()), None, "{header:?}");
        }
        assert_eq!(ApplicationTrust::read(&[0xff]), None);
    }
}
