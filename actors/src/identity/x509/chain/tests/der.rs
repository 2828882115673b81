//! DER by hand, for what the library that makes certificates does not make.

use rcgen::{CustomExtension, SigningKey as _};

use super::Entity;

/// A value of these parts.
pub(super) fn tlv<T: AsRef<[u8]>>(tag: u8, parts: &[T]) -> Vec<u8> {
    let body: Vec<u8> = parts.iter().flat_map(|part| part.as_ref().to_vec()).collect();
    let mut value = vec![tag];
    match body.len() {
        short @ 0..0x80 => value.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let start = bytes.iter().position(|byte| *byte != 0).unwrap();
            value.push(0x80 | (bytes.len() - start) as u8);
            value.extend(&bytes[start..]);
        }
    }
    value.extend(body);
    value
}

/// The extension 2.5.29.`number` of a certificate.
pub(super) fn extension(number: u64, is_critical: bool, value: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, number], value);
    extension.set_criticality(is_critical);
    extension
}

/// A list to be signed. Times are UTCTimes; numbers are of one byte.
pub(super) struct List {
    pub(super) this_update: &'static str,
    pub(super) next_update: &'static str,
    pub(super) number: u8,
    /// The number of the list that it changes.
    pub(super) base: Option<u8>,
    /// The fields of its IssuingDistributionPoint.
    pub(super) scope: Vec<Vec<u8>>,
    /// The entries.
    pub(super) revoked: Vec<Vec<u8>>,
}

impl Default for List {
    fn default() -> Self {
        Self {
            this_update: "260101000000Z",
            next_update: "270101000000Z",
            number: 1,
            base: None,
            scope: Vec::new(),
            revoked: Vec::new(),
        }
    }
}

/// An entry, with a reason and the issuer of the certificate if there are any.
pub(super) fn entry(serial: &[u8], reason: Option<u8>, issuer: Option<&[u8]>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(reason) = reason {
        extensions.push(list_extension(21, false, &tlv(0x0a, &[[reason]])));
    }
    if let Some(issuer) = issuer {
        extensions.push(list_extension(29, true, &tlv(0x30, &[tlv(0xa4, &[issuer])])));
    }
    let mut fields = vec![tlv(2, &[serial]), tlv(0x17, &[b"260101000000Z"])];
    if !extensions.is_empty() {
        fields.push(tlv(0x30, &extensions));
    }
    tlv(0x30, &fields)
}

fn list_extension(number: u8, is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if is_critical { tlv(1, &[[0xff]]) } else { Vec::new() };
    tlv(0x30, &[tlv(6, &[[0x55, 0x1d, number]]), critical, tlv(4, &[value])])
}

impl List {
    /// Signs it with the key of an entity, Ed25519, in its name.
    pub(super) fn sign(&self, issuer: &Entity) -> Vec<u8> {
        let algorithm = tlv(0x30, &[[6, 3, 0x2b, 0x65, 0x70]]);
        let mut extensions = vec![list_extension(20, false, &tlv(2, &[[self.number]]))];
        if let Some(base) = self.base {
            extensions.push(list_extension(27, true, &tlv(2, &[[base]])));
        }
        if !self.scope.is_empty() {
            extensions.push(list_extension(28, true, &tlv(0x30, &self.scope)));
        }
        let mut fields = vec![tlv(2, &[[1]]), algorithm.clone(), name_of(issuer)];
        fields.extend([tlv(0x17, &[self.this_update]), tlv(0x17, &[self.next_update])]);
        if !self.revoked.is_empty() {
            fields.push(tlv(0x30, &self.revoked));
        }
        fields.push(tlv(0xa0, &[tlv(0x30, &extensions)]));
        let message = tlv(0x30, &fields);
        let signature = issuer.key.sign(&message).unwrap();
        tlv(0x30, &[message, algorithm, tlv(3, &[vec![0], signature])])
    }
}

/// The subject of an entity in DER.
pub(super) fn name_of(entity: &Entity) -> Vec<u8> {
    super::Certificate::new(&entity.der).unwrap().subject.raw.to_vec()
}
