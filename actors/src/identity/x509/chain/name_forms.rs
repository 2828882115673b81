//! Names of each form and the subtrees that constrain them (RFC 5280 §4.2.1.10). `None` stands for a name that cannot be
//! compared.

use std::net::IpAddr;

use crate::identity::x509::certificate::{FoldedName, GeneralName};

/// Whether these are an address and a mask of leading bits, of IPv4 or IPv6.
pub(super) fn is_network(bytes: &[u8]) -> bool {
    let (_, mask) = bytes.split_at(bytes.len() / 2);
    let mut after_first_zero = mask.iter().skip_while(|byte| **byte == 0xff);
    let turns = after_first_zero.next().is_none_or(|byte| byte.leading_ones() + byte.trailing_zeros() == 8);
    matches!(bytes.len(), 8 | 32) && turns && after_first_zero.all(|byte| *byte == 0)
}

/// A name in the form in which it is compared with subtrees: read once, and compared often.
pub(super) enum ComparableName<'a> {
    Directory(&'a FoldedName),
    Dns(DnsName<'a>),
    Email(Mailbox<'a>),
    /// The host of a URI.
    UriHost(&'a str),
    Ip(&'a [u8]),
}

impl<'a> ComparableName<'a> {
    pub(super) fn new(name: &'a GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::Directory(name) => Some(Self::Directory(name.folded())),
            GeneralName::Dns(name) => DnsName::new(name).map(Self::Dns),
            GeneralName::Email(name) => Mailbox::new(name).map(Self::Email),
            GeneralName::Uri(name) => uri_host(name).map(Self::UriHost),
            GeneralName::Ip(address) => matches!(address.len(), 4 | 16).then_some(Self::Ip(address)),
            GeneralName::Other(..) => None,
        }
    }
}

/// Whether an address is in a network, given as [`is_network`] accepts it. The two versions have nothing in common.
pub(super) fn is_ip_within(address: &[u8], network: &[u8]) -> bool {
    let (base, mask) = network.split_at(network.len() / 2);
    let is_same = |((address, base), mask): ((&u8, &u8), &u8)| address & mask == base & mask;
    address.len() == base.len() && address.iter().zip(base).zip(mask).all(is_same)
}

/// A DNS name, or a wildcard for names of one more label.
pub(super) struct DnsName<'a> {
    name: &'a str,
    /// The name below which a wildcard is.
    wildcard: Option<&'a str>,
}

impl<'a> DnsName<'a> {
    fn new(name: &'a str) -> Option<Self> {
        let name = without_final_dot(name);
        let wildcard = name.strip_prefix("*.");
        is_host(wildcard.unwrap_or(name)).then_some(Self { name, wildcard })
    }

    /// Whether it is in the subtree of a name: zero or more labels in front of that give it. A leading dot asks for one label at
    /// least, as issuers mean it. A subtree that is excluded contains a wildcard that may stand for a name in it.
    pub(super) fn is_within(&self, subtree: &str, is_excluded: bool) -> bool {
        let (base, needs_label) = subtree.strip_prefix('.').map_or((subtree, false), |base| (base, true));
        let base = without_final_dot(base);
        base.is_empty()
            || is_below(self.name, base)
            || (!needs_label && self.name.eq_ignore_ascii_case(base))
            || self.wildcard.is_some_and(|above| {
                is_excluded && (above.eq_ignore_ascii_case(base) || is_below(base, above))
            })
    }
}

/// The address of a mailbox.
pub(super) struct Mailbox<'a> {
    local: &'a str,
    host: &'a str,
}

impl<'a> Mailbox<'a> {
    fn new(address: &'a str) -> Option<Self> {
        let (local, host) = address.rsplit_once('@')?;
        let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
        let is_local = !local.is_empty() && (is_quoted || !local.contains(['@', '"', ' ']));
        (is_local && is_host(host)).then_some(Self { local, host })
    }

    /// Whether it is in the subtree of itself, of its host, or, with a leading dot, of a domain above its host. The local part
    /// is compared as it is.
    pub(super) fn is_within(&self, subtree: &str) -> bool {
        match subtree.rsplit_once('@') {
            Some((local, host)) => local == self.local && host.eq_ignore_ascii_case(self.host),
            None => is_host_within(self.host, subtree),
        }
    }
}

/// The host of a URI, if it is a DNS name.
fn uri_host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = host_and_port.rsplit_once(':').unwrap_or((host_and_port, ""));
    let is_name = is_host(host) && host.parse::<IpAddr>().is_err();
    (is_name && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(host)
}

/// Whether the host of an email address or URI is that of a subtree or, with a leading dot, below it.
pub(super) fn is_host_within(host: &str, subtree: &str) -> bool {
    let host = without_final_dot(host);
    match subtree.strip_prefix('.') {
        Some(base) => is_below(host, base),
        None => host.eq_ignore_ascii_case(subtree),
    }
}

/// Whether a name is one or more labels, a dot and the base.
fn is_below(name: &str, base: &str) -> bool {
    let at = name.len().checked_sub(base.len());
    let split = at.and_then(|at| name.split_at_checked(at));
    split.is_some_and(|(labels, end)| {
        labels.len() > 1 && labels.ends_with('.') && end.eq_ignore_ascii_case(base)
    })
}

fn without_final_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether a name is labels of letters, digits, hyphens and underscores.
fn is_host(name: &str) -> bool {
    let name = without_final_dot(name);
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_character);
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names() {
        let check = |name: &str, subtree: &str, permitted: Option<bool>, excluded: Option<bool>| {
            let is_within = |is_excluded| DnsName::new(name).map(|name| name.is_within(subtree, is_excluded));
            assert_eq!(is_within(false), permitted, "{name} in {subtree}");
            assert_eq!(is_within(true), excluded, "{name} in excluded {subtree}");
        };
        for (name, subtree, is_within) in [
            ("example.org", "example.org", true),
            ("EXAMPLE.org.", "example.ORG", true),
            ("a.b.example.org", "example.org", true),
            ("badexample.org", "example.org", false),
            ("org", "example.org", false),
            ("example.org", ".example.org", false),
            ("a.example.org", ".example.org", true),
            ("example.org", "", true),
            ("*.example.org", "example.org", true),
            ("*.org", "com", false),
        ] {
            check(name, subtree, Some(is_within), Some(is_within));
        }
        // A wildcard may stand for a name that is excluded, and does not stand only for names that are permitted.
        check("*.example.org", "www.example.org", Some(false), Some(true));
        check("*.org", "www.example.org", Some(false), Some(true));
        check("*.www.example.org", "www.example.org", Some(true), Some(true));
        for name in ["", ".", "a..b", "a b.org", "*", "a.*.org", "exa\u{6d}ple!.org"] {
            check(name, "example.org", None, None);
        }
        let long = "a".repeat(64);
        check(&long, "example.org", None, None);
    }

    #[test]
    fn email_addresses() {
        let check = |name: &str, subtree: &str, expected: Option<bool>| {
            let found = Mailbox::new(name).map(|name| name.is_within(subtree));
            assert_eq!(found, expected, "{name} in {subtree}");
        };
        check("alice@example.org", "alice@example.org", Some(true));
        check("alice@EXAMPLE.org", "alice@example.ORG", Some(true));
        check("Alice@example.org", "alice@example.org", Some(false));
        check("alice@example.org", "example.org", Some(true));
        check("alice@mail.example.org", "example.org", Some(false));
        check("alice@mail.example.org", ".example.org", Some(true));
        check("alice@example.org", ".example.org", Some(false));
        check("alice@badexample.org", ".example.org", Some(false));
        check("\"a@b\"@example.org", "example.org", Some(true));
        for malformed in [
            "alice",
            "@example.org",
            "a@b@example.org",
            "alice@",
            "a b@example.org",
            "a\"@example.org",
            "alice@a..b",
        ] {
            check(malformed, "example.org", None);
        }
    }

    #[test]
    fn uris() {
        let check = |name: &str, subtree: &str, expected: Option<bool>| {
            let found = uri_host(name).map(|host| is_host_within(host, subtree));
            assert_eq!(found, expected, "{name} in {subtree}");
        };
        check("https://example.org/x", "example.org", Some(true));
        check("https://user@EXAMPLE.org:443?x#y", "example.org", Some(true));
        check("https://a.example.org", "example.org", Some(false));
        check("https://a.example.org", ".example.org", Some(true));
        check("https://example.org", ".example.org", Some(false));
        check("spiffe://example.org/ns", "example.org", Some(true));
        check("https://example.org@evil.com/", "example.org", Some(false));
        check("https://evil.com/@example.org", "example.org", Some(false));
        for malformed in [
            "urn:x",
            "https://",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://a:b@",
            "https://a..b",
            "https://a:x/",
        ] {
            check(malformed, "example.org", None);
        }
    }

    #[test]
    fn ip_addresses() {
        let v4 = [10, 1, 0, 0, 255, 255, 0, 0];
        let v6 = [[0x20, 1, 0xd, 0xb8].as_slice(), &[0; 12], &[0xff; 4], &[0; 12]].concat();
        assert!(is_network(&v4) && is_network(&v6) && is_network(&[0; 8]) && is_network(&[255; 8]));
        for malformed in
            [&[][..], &[10, 0, 0, 0], &[0; 16], &[10, 0, 0, 0, 255, 0, 255, 0], &[10, 0, 0, 0, 0x5f, 0, 0, 0]]
        {
            assert!(!is_network(malformed), "{malformed:?}");
        }
        assert!(is_ip_within(&[10, 1, 2, 3], &v4) && is_ip_within(&v6[..16], &v6));
        assert!(!is_ip_within(&[10, 2, 2, 3], &v4) && !is_ip_within(&[10, 1, 2, 3], &v6));
        assert!(ComparableName::new(&GeneralName::Ip(&[10, 1])).is_none());
    }
}
