//! Names of each form and the subtrees that constrain them (RFC 5280 §4.2.1.10). `None` stands for a name that cannot be
//! compared.

use std::net::IpAddr;

/// Whether these are an address and a mask of leading bits, of IPv4 or IPv6.
pub(super) fn is_network(bytes: &[u8]) -> bool {
    let (_, mask) = bytes.split_at(bytes.len() / 2);
    let mut after_first_zero = mask.iter().skip_while(|byte| **byte == 0xff);
    let turns = after_first_zero.next().is_none_or(|byte| byte.leading_ones() + byte.trailing_zeros() == 8);
    matches!(bytes.len(), 8 | 32) && turns && after_first_zero.all(|byte| *byte == 0)
}

/// Whether an address is in a network, given as [`is_network`] accepts it. The two versions have nothing in common.
pub(super) fn is_ip_within(address: &[u8], network: &[u8]) -> Option<bool> {
    if !matches!(address.len(), 4 | 16) {
        return None;
    }
    let (base, mask) = network.split_at(network.len() / 2);
    let is_same = |((address, base), mask): ((&u8, &u8), &u8)| address & mask == base & mask;
    Some(address.len() == base.len() && address.iter().zip(base).zip(mask).all(is_same))
}

/// A DNS name is in the subtree of a name if zero or more labels in front of that give it. A leading dot asks for one label
/// at least, as issuers mean it.
pub(super) fn is_dns_within(name: &str, subtree: &str, is_excluded: bool) -> Option<bool> {
    let (wildcard, host) = match name.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, name),
    };
    if !is_host(host) {
        return None;
    }
    let (name, host) = (without_final_dot(name), without_final_dot(host));
    let (base, needs_label) = subtree.strip_prefix('.').map_or((subtree, false), |base| (base, true));
    let base = without_final_dot(base);
    let is_within =
        base.is_empty() || is_below(name, base) || (!needs_label && name.eq_ignore_ascii_case(base));
    let may_stand_for_one =
        wildcard && is_excluded && (host.eq_ignore_ascii_case(base) || is_below(base, host));
    Some(is_within || may_stand_for_one)
}

/// A mailbox is in the subtree of itself, of its host, or, with a leading dot, of a domain above its host.
pub(super) fn is_email_within(mailbox: &str, subtree: &str) -> Option<bool> {
    let (local, host) = mailbox.rsplit_once('@')?;
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    let is_local = !local.is_empty() && (is_quoted || !local.contains(['@', '"', ' ']));
    if !is_local || !is_host(host) {
        return None;
    }
    Some(match subtree.rsplit_once('@') {
        // The local part is compared as it is.
        Some((of, at)) => of == local && at.eq_ignore_ascii_case(host),
        None => is_host_within(host, subtree),
    })
}

/// A URI is in the subtree of its host or, with a leading dot, of a domain above it. A URI whose host is no DNS name cannot
/// be compared.
pub(super) fn is_uri_within(uri: &str, subtree: &str) -> Option<bool> {
    Some(is_host_within(uri_host(uri)?, subtree))
}

fn uri_host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = host_and_port.rsplit_once(':').unwrap_or((host_and_port, ""));
    let is_name = is_host(host) && host.parse::<IpAddr>().is_err();
    (is_name && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(host)
}

fn is_host_within(host: &str, subtree: &str) -> bool {
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
            assert_eq!(is_dns_within(name, subtree, false), permitted, "{name} in {subtree}");
            assert_eq!(is_dns_within(name, subtree, true), excluded, "{name} in excluded {subtree}");
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
            assert_eq!(is_email_within(name, subtree), expected, "{name} in {subtree}");
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
            assert_eq!(is_uri_within(name, subtree), expected, "{name} in {subtree}");
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
        assert_eq!(is_ip_within(&[10, 1, 2, 3], &v4), Some(true));
        assert_eq!(is_ip_within(&[10, 2, 2, 3], &v4), Some(false));
        assert_eq!(is_ip_within(&[10, 1, 2, 3], &v6), Some(false));
        assert_eq!(is_ip_within(&v6[..16], &v6), Some(true));
        assert_eq!(is_ip_within(&[10, 1], &v4), None);
    }
}
