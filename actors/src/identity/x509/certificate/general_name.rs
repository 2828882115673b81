//! General names (RFC 5280 §4.2.1.6).

use super::name::{FoldedName, Name};
use crate::identity::x509::der::{DerElement, DerFault, DerReader};

/// The most names in one list.
const MAX_NAMES: usize = 1024;

/// A GeneralName.
#[derive(Clone, Debug)]
pub(in crate::identity::x509) enum GeneralName<'a> {
    Email(&'a str),
    Dns(&'a str),
    Directory(Name<'a>),
    Uri(&'a str),
    Ip(&'a [u8]),
    /// otherName, x400Address, ediPartyName and registeredID, whose content is not interpreted.
    Other(NameForm, &'a [u8]),
}

/// The form of a general name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameForm {
    /// otherName.
    Other,
    /// rfc822Name.
    Email,
    /// dNSName.
    Dns,
    /// x400Address.
    X400,
    /// directoryName.
    Directory,
    /// ediPartyName.
    EdiParty,
    /// uniformResourceIdentifier.
    Uri,
    /// iPAddress.
    Ip,
    /// registeredID.
    RegisteredId,
}

impl std::fmt::Display for NameForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Other => "name of a form of its own (otherName)",
            Self::Email => "email address",
            Self::Dns => "DNS name",
            Self::X400 => "X.400 address",
            Self::Directory => "directory name",
            Self::EdiParty => "EDI party name",
            Self::Uri => "URI",
            Self::Ip => "IP address",
            Self::RegisteredId => "registered ID",
        })
    }
}

impl<'a> GeneralName<'a> {
    pub(in crate::identity::x509) fn new(element: DerElement<'a>) -> Result<Self, DerFault> {
        let ascii = || {
            let text = std::str::from_utf8(element.body).ok().filter(|text| text.is_ascii());
            text.ok_or("an email address, DNS name or URI is not ASCII")
        };
        Ok(match element.tag {
            0xa0 => Self::Other(NameForm::Other, element.body),
            0x81 => Self::Email(ascii()?),
            0x82 => Self::Dns(ascii()?),
            0xa3 => Self::Other(NameForm::X400, element.body),
            0xa4 => {
                let mut inside = DerReader::new(element.body);
                let name = Name::new(inside.any()?)?;
                inside.end()?;
                Self::Directory(name)
            }
            0xa5 => Self::Other(NameForm::EdiParty, element.body),
            0x86 => Self::Uri(ascii()?),
            0x87 => Self::Ip(element.body),
            0x88 => Self::Other(NameForm::RegisteredId, element.body),
            _ => return Err("a general name has a form that is not defined"),
        })
    }

    /// The names in the content of a GeneralNames, which has one at least.
    pub(in crate::identity::x509) fn all(body: &'a [u8]) -> Result<Vec<Self>, DerFault> {
        let mut reader = DerReader::new(body);
        let mut names = Vec::new();
        while !reader.is_empty() {
            if names.len() == MAX_NAMES {
                return Err("it has too many names");
            }
            names.push(Self::new(reader.any()?)?);
        }
        if names.is_empty() { Err("a list of names is empty") } else { Ok(names) }
    }

    pub(in crate::identity::x509) fn form(&self) -> NameForm {
        match self {
            Self::Email(_) => NameForm::Email,
            Self::Dns(_) => NameForm::Dns,
            Self::Directory(_) => NameForm::Directory,
            Self::Uri(_) => NameForm::Uri,
            Self::Ip(_) => NameForm::Ip,
            Self::Other(form, _) => *form,
        }
    }

    /// The directory names in the content of a GeneralNames that is to hold one at least.
    pub(in crate::identity::x509) fn directory_names(body: &'a [u8]) -> Result<Vec<FoldedName>, DerFault> {
        let folded = |name: &Self| match name {
            Self::Directory(name) => Some(name.folded().clone()),
            Self::Email(_) | Self::Dns(_) | Self::Uri(_) | Self::Ip(_) | Self::Other(..) => None,
        };
        let names: Vec<FoldedName> = Self::all(body)?.iter().filter_map(folded).collect();
        if names.is_empty() { Err("the issuer of a list has no directory name") } else { Ok(names) }
    }

    /// The name in the form in which the names of distribution points are compared.
    pub(super) fn folded(&self) -> FoldedGeneralName {
        match self {
            Self::Directory(name) => FoldedGeneralName::Directory(name.folded().clone()),
            Self::Dns(text) => {
                FoldedGeneralName::Other(NameForm::Dns, text.to_ascii_lowercase().into_bytes())
            }
            Self::Email(text) | Self::Uri(text) => {
                FoldedGeneralName::Other(self.form(), text.as_bytes().to_vec())
            }
            Self::Ip(bytes) | Self::Other(_, bytes) => FoldedGeneralName::Other(self.form(), bytes.to_vec()),
        }
    }
}

/// A general name that is equal to the names that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity::x509) enum FoldedGeneralName {
    Directory(FoldedName),
    Other(NameForm, Vec<u8>),
}
