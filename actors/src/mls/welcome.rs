//! The Welcome of a commit (*Joining*): whether it is for exactly the clients that the commit adds by key package.

use std::collections::BTreeSet;

use snapshots::KeyPackageRef;

use super::{
    AddedMember, CipherSuite, Refusal, RequestMember, WIRE_FORMAT,
    wire::{self, WireFormat},
};
use crate::presentation::{Read, Reader, WireError};

/// A Welcome on the wire (RFC 9420 §12.4.3.1), as far as it can be read without keys.
#[derive(Debug)]
pub(super) struct Welcome<'a> {
    cipher_suite: u16,
    /// The KeyPackageRef of each receiver.
    receivers: Vec<&'a [u8]>,
}

impl<'a> Welcome<'a> {
    fn read(mut reader: Reader<'a>) -> Read<Self> {
        const PART: &str = "welcome";
        let cipher_suite = reader.u16(PART)?;
        let mut secrets = Reader::new(reader.vector(PART)?);
        let mut receivers = Vec::new();
        while !secrets.is_empty() {
            receivers.push(secrets.vector(PART)?);
            // The KEM output and the ciphertext of the group secrets.
            secrets.vector(PART)?;
            secrets.vector(PART)?;
        }
        reader.vector("encrypted group info")?;
        if reader.is_empty() {
            Ok(Self { cipher_suite, receivers })
        } else {
            Err(WireError::in_part("end: bytes follow the message"))
        }
    }
}

/// The key packages that a Welcome names; none if it is no Welcome.
pub(crate) fn welcome_references(message: &[u8]) -> Vec<KeyPackageRef> {
    let welcome = match wire::message_body(message) {
        Ok((WireFormat::Welcome, body)) => Welcome::read(body).ok(),
        Ok(_) | Err(_) => None,
    };
    let receivers = welcome.map(|welcome| welcome.receivers).unwrap_or_default();
    receivers.into_iter().filter_map(|reference| KeyPackageRef::new(reference.to_vec()).ok()).collect()
}

/// Reads the welcome of a commit that adds this many clients by key package. It must be present if there are any (RFC 9420
/// §12.4.3.1). Its receivers are checked after the commit itself.
pub(super) fn read_welcome(
    welcome: Option<&[u8]>,
    adds: usize,
    suite: CipherSuite,
) -> Result<Option<Welcome<'_>>, Refusal> {
    let Some(bytes) = welcome else {
        return if adds == 0 { Ok(None) } else { Err(Refusal::WelcomeMissing { added: adds }) };
    };
    let unreadable = |_| Refusal::unreadable(RequestMember::WelcomePacket, bytes);
    let (format, body) = wire::message_body(bytes).map_err(unreadable)?;
    if format != WireFormat::Welcome {
        let (member, expected) = (RequestMember::WelcomePacket, WireFormat::Welcome.name());
        return Err(Refusal::unexpected(member, WIRE_FORMAT, format.name(), expected));
    }
    let welcome = Welcome::read(body).map_err(unreadable)?;
    if welcome.cipher_suite != suite.number() {
        return Err(Refusal::Welcome("welcomePacket has another cipher suite than the group".into()));
    }
    Ok(Some(welcome))
}

/// Checks that the welcome is for exactly the clients that the commit adds by key package, and that there is none if there
/// are no such clients (RFC 9420 §12.4.3.1).
pub(super) fn check_welcome(welcome: Option<Welcome<'_>>, added: &[AddedMember]) -> Result<(), Refusal> {
    if welcome.is_some() && added.is_empty() {
        return Err(Refusal::Welcome(
            "the request has a welcomePacket, but the commit adds no member".into(),
        ));
    }
    let named = welcome.map(|welcome| welcome.receivers).unwrap_or_default();
    let named_once: BTreeSet<&[u8]> = named.iter().copied().collect();
    let expected: BTreeSet<&[u8]> = added.iter().map(|member| member.reference.as_bytes()).collect();
    if named_once != expected || named.len() != expected.len() {
        return Err(Refusal::Welcome(format!(
            "the secrets of welcomePacket name {} key packages, which are not exactly the {} that the commit adds",
            named.len(),
            expected.len()
        )));
    }
    Ok(())
}
