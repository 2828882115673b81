//! Entries of a revocation list (RFC 5280 §5.3): 12 bytes each besides the list itself.

use std::{cmp::Ordering, collections::HashMap};

use super::place_in;
use crate::identity::x509::{
    certificate::{FoldedName, GeneralName, each_extension},
    der::{self, DerElement, DerFault, DerReader},
};

/// CRLReason removeFromCRL (RFC 5280 §5.3.1).
const REMOVE_FROM_CRL: u8 = 8;

/// The entries of one list, sorted by issuer and serial number.
#[derive(Debug)]
pub(super) struct Entries {
    /// The issuers of certificates, by their number in `sorted`.
    issuers: Vec<FoldedName>,
    numbers: HashMap<FoldedName, u16>,
    sorted: Vec<Entry>,
}

/// One entry; the serial number is a place in the list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    serial_at: u32,
    serial_len: u16,
    issuer: u16,
    is_removal: bool,
}

/// The meaning of a list for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity::x509) enum ListedAs {
    /// It is not listed.
    Absent,
    Revoked,
    /// A delta says that it is no longer revoked.
    Removed,
}

impl Entries {
    /// Reads the entries of a list of this issuer.
    pub(super) fn read(
        list: &[u8],
        revoked: Option<DerElement<'_>>,
        issuer: &FoldedName,
        is_indirect: bool,
    ) -> Result<Self, DerFault> {
        let mut entries = Self {
            issuers: vec![issuer.clone()],
            numbers: HashMap::from([(issuer.clone(), 0)]),
            sorted: Vec::new(),
        };
        let mut reader = DerReader::new(revoked.map_or(&[], |revoked| revoked.body));
        // An entry without an issuer has that of the entry before (RFC 5280 §5.3.3).
        let mut issuer = 0;
        while !reader.is_empty() {
            issuer = entries.push(list, reader.sequence()?, issuer, is_indirect)?;
        }
        entries.sorted.sort_unstable_by(|one, other| order(list, one, other));
        entries.sorted.shrink_to_fit();
        Ok(entries)
    }

    /// Reads one entry, and returns the number of its issuer.
    fn push(
        &mut self,
        list: &[u8],
        mut fields: DerReader<'_>,
        issuer: u16,
        is_indirect: bool,
    ) -> Result<u16, DerFault> {
        const LONG: DerFault = "it is too long";
        let serial = der::integer(fields.expect(der::INTEGER)?.body)?;
        der::time(fields.any()?)?;
        let extensions = match fields.optional(der::SEQUENCE)? {
            Some(extensions) => EntryExtensions::read(extensions.raw)?,
            None => EntryExtensions::default(),
        };
        fields.end()?;
        let issuer = match extensions.issuer {
            None => issuer,
            Some(_) if !is_indirect => return Err("an entry names an issuer, and the list is not indirect"),
            Some(name) => self.number_of(name)?,
        };
        let place = place_in(list, serial);
        self.sorted.push(Entry {
            serial_at: u32::try_from(place.start).map_err(|_| LONG)?,
            serial_len: u16::try_from(place.len()).map_err(|_| LONG)?,
            issuer,
            is_removal: extensions.reason == Some(REMOVE_FROM_CRL),
        });
        Ok(issuer)
    }

    fn number_of(&mut self, issuer: FoldedName) -> Result<u16, DerFault> {
        if let Some(number) = self.numbers.get(&issuer) {
            return Ok(*number);
        }
        let number = u16::try_from(self.issuers.len()).map_err(|_| "its entries name too many issuers")?;
        self.issuers.push(issuer.clone());
        self.numbers.insert(issuer, number);
        Ok(number)
    }

    /// The issuers of certificates; none if there are no entries.
    pub(super) fn issuers(&self) -> impl Iterator<Item = &FoldedName> {
        self.issuers.iter().filter(|_| !self.sorted.is_empty())
    }

    /// The entry of a certificate. If there are several, a revocation counts.
    pub(super) fn find(&self, list: &[u8], issuer: &FoldedName, serial: &[u8], is_delta: bool) -> ListedAs {
        let Some(number) = self.numbers.get(issuer) else { return ListedAs::Absent };
        let wanted = (*number, serial);
        let start = self.sorted.partition_point(|entry| entry.key(list) < wanted);
        let rest = self.sorted.get(start..).unwrap_or_default();
        let mut found = rest.iter().take_while(|entry| entry.key(list) == wanted).peekable();
        if found.peek().is_none() {
            ListedAs::Absent
        } else if is_delta && found.all(|entry| entry.is_removal) {
            ListedAs::Removed
        } else {
            ListedAs::Revoked
        }
    }
}

fn order(list: &[u8], one: &Entry, other: &Entry) -> Ordering {
    one.key(list).cmp(&other.key(list))
}

impl Entry {
    fn serial<'a>(&self, list: &'a [u8]) -> &'a [u8] {
        let start = self.serial_at as usize;
        list.get(start..start + usize::from(self.serial_len)).unwrap_or_default()
    }

    fn key<'a>(&self, list: &'a [u8]) -> (u16, &'a [u8]) {
        (self.issuer, self.serial(list))
    }
}

/// The extensions of an entry.
#[derive(Default)]
struct EntryExtensions {
    reason: Option<u8>,
    issuer: Option<FoldedName>,
}

impl EntryExtensions {
    fn read(list: &[u8]) -> Result<Self, DerFault> {
        let mut found = Self::default();
        let has_unknown_critical = each_extension(list, |number, _, value| {
            match number {
                // cRLReason
                21 => match der::whole(value, der::ENUMERATED)? {
                    [reason] => found.reason = Some(*reason),
                    _ => return Err("a reason code is malformed"),
                },
                // holdInstructionCode, which is obsolete, and invalidityDate: a revoked certificate is revoked
                23 | 24 => {}
                // certificateIssuer
                29 => {
                    let names = GeneralName::directory_names(der::whole(value, der::SEQUENCE)?)?;
                    found.issuer = names.into_iter().next();
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if has_unknown_critical {
            return Err("an entry has a critical extension that is not supported");
        }
        Ok(found)
    }
}
