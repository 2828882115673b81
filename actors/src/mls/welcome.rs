//! The Welcome of a commit (*Joining*): whether it is for exactly the clients that the commit adds by key package.

use std::collections::BTreeSet;

use openmls::{
    messages::Welcome,
    prelude::{Ciphersuite, MlsMessageBodyIn, MlsMessageIn, tls_codec::DeserializeBytes as _},
};

use snapshots::KeyPackageRef;

use super::{
    AddedMember, Refusal, RequestMember, WIRE_FORMAT,
    wire::{self, WireFormat},
};

/// The key packages that a Welcome names; none if it is no Welcome.
pub(crate) fn welcome_references(message: &[u8]) -> Vec<KeyPackageRef> {
    match MlsMessageIn::tls_deserialize_exact_bytes(message).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::Welcome(welcome)) => welcome
            .secrets()
            .iter()
            .filter_map(|secrets| KeyPackageRef::new(secrets.new_member().as_slice()).ok())
            .collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// Reads the welcome of a commit that adds this many clients by key package. It must be present if there are any (RFC 9420
/// §12.4.3.1). Its receivers are checked after the commit itself.
pub(super) fn read_welcome(
    welcome: Option<&[u8]>,
    adds: usize,
    suite: Ciphersuite,
) -> Result<Option<Welcome>, Refusal> {
    let Some(bytes) = welcome else {
        return if adds == 0 { Ok(None) } else { Err(Refusal::WelcomeMissing { added: adds }) };
    };
    let unreadable = || Refusal::unreadable(RequestMember::WelcomePacket, bytes);
    let (format, _) = wire::message_body(bytes).map_err(|_| unreadable())?;
    if format != WireFormat::Welcome {
        let (member, expected) = (RequestMember::WelcomePacket, WireFormat::Welcome.name());
        return Err(Refusal::unexpected(member, WIRE_FORMAT, format.name(), expected));
    }
    let welcome = match MlsMessageIn::tls_deserialize_exact_bytes(bytes).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::Welcome(welcome)) => welcome,
        Ok(_) | Err(_) => return Err(unreadable()),
    };
    if welcome.ciphersuite() != suite {
        return Err(Refusal::Welcome("welcomePacket has another cipher suite than the group".into()));
    }
    Ok(Some(welcome))
}

/// Checks that the welcome is for exactly the clients that the commit adds by key package, and that there is none if there
/// are no such clients (RFC 9420 §12.4.3.1).
pub(super) fn check_welcome(welcome: Option<Welcome>, added: &[AddedMember]) -> Result<(), Refusal> {
    if welcome.is_some() && added.is_empty() {
        return Err(Refusal::Welcome(
            "the request has a welcomePacket, but the commit adds no member".into(),
        ));
    }
    let secrets = welcome.as_ref().map_or([].as_slice(), Welcome::secrets);
    let named: Vec<_> = secrets.iter().map(|secrets| secrets.new_member()).collect();
    let named_once: BTreeSet<&[u8]> = named.iter().map(|reference| reference.as_slice()).collect();
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
