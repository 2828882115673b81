//! Identifiers: newtypes, checked once when they are parsed.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::{Uuid, Variant, Version};

/// Bytes or text that are not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Too short or too long for this kind of id.
    #[error("a {kind} has 1 to {max} bytes, not {found}")]
    Length {
        /// The kind of id, in words.
        kind: &'static str,
        /// The greatest length, in bytes.
        max: usize,
        /// The given length, in bytes.
        found: usize,
    },
    /// Not a UUID in its hyphenated form.
    #[error("not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
    Uuid,
    /// Not a UUID of version 4 in its hyphenated form.
    #[error("not a UUID of version 4: xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx, where y is 8, 9, a or b")]
    AppId,
    /// Not a DNS name of letters, digits and hyphens.
    #[error("not a DNS name: {rule}")]
    DomainName {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Not 16 lower-case hexadecimal digits.
    #[error("a delivery id is 16 lower-case hexadecimal digits")]
    DeliveryId,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(Uuid);

        impl $name {
            /// The UUID inside.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            /// A new random id (UUID version 4).
            pub fn random() -> Self {
                Self(crate::away::random_uuid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }
    };
}

uuid_id! {
    /// An application (*Applications*): the first part of nearly every key.
    ///
    /// The overlay's ApplicationID is a UUID of version 4, and no other text is read as one; the text form is the
    /// hyphenated one. In MessagePack it is 16 bytes.
    AppId
}

impl AppId {
    /// Wraps a UUID whose version was checked when it was parsed, or that comes from a key on disk: older gateways accepted
    /// every version.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for AppId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let uuid = hyphenated(text).ok_or(IdError::AppId)?;
        let is_random = uuid.get_version() == Some(Version::Random) && uuid.get_variant() == Variant::RFC4122;
        if is_random { Ok(Self(uuid)) } else { Err(IdError::AppId) }
    }
}

impl<'de> Deserialize<'de> for AppId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Uuid::deserialize(deserializer).map(Self)
        }
    }
}

macro_rules! any_uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        uuid_id! {
            $(#[$doc])*
            ///
            /// Its text form is the hyphenated one; no other is accepted. In MessagePack it is 16 bytes.
            #[derive(Deserialize)]
            $name
        }

        impl $name {
            /// Wraps a UUID of any version.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                hyphenated(text).map(Self).ok_or(IdError::Uuid)
            }
        }
    };
}

any_uuid_id! {
    /// A registered client (*Managing Identities*). It stays the same when the client's handle changes.
    ClientId
}
any_uuid_id! {
    /// One key queue of one client (*Managing Key Packages*).
    KeyQueueId
}

/// Reads a UUID in its hyphenated form.
fn hyphenated(text: &str) -> Option<Uuid> {
    // Only the hyphenated one of the forms that the uuid crate accepts is this long.
    (text.len() == uuid::fmt::Hyphenated::LENGTH).then(|| Uuid::try_parse(text).ok()).flatten()
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $debug:expr) => {
        $(#[$doc])*
        ///
        /// Cloning shares the bytes. In MessagePack it is one byte string.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<[u8]>);

        impl $name {
            /// The greatest length, in bytes.
            pub const BYTES_MAX: usize = $max;

            #[doc = concat!("Takes the bytes of a ", $kind, ".")]
            ///
            /// # Errors
            /// [`IdError::Length`] if it is empty or longer than [`Self::BYTES_MAX`].
            pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, IdError> {
                let bytes = bytes.into();
                if bytes.is_empty() || bytes.len() > Self::BYTES_MAX {
                    return Err(IdError::Length { kind: $kind, max: Self::BYTES_MAX, found: bytes.len() });
                }
                Ok(Self(bytes.into()))
            }

            /// The bytes inside.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                $debug(&self.0, f)?;
                f.write_str(")")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec()).map_err(D::Error::custom)
            }
        }
    };
}

bytes_id! {
    /// The MLS `group_id` (RFC 9420 §8.1).
    GroupId, "group id", 255, hex
}
bytes_id! {
    /// The name of a client as a group member, from the identity provider's `client_handle` (*Identity Providers*).
    ClientHandle, "client handle", 1024, escaped
}
bytes_id! {
    /// A `KeyPackageRef` (RFC 9420 §5.2): the hash of a key package.
    KeyPackageRef, "key package reference", 64, hex
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn escaped(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", bytes.escape_ascii())
}

/// A DNS name in lower case, without a dot at its end: the domain of a client, a gateway or a hub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<str>);

impl DomainName {
    /// The greatest length, in bytes (RFC 1035 §2.3.4, without length octets).
    pub const BYTES_MAX: usize = 253;

    /// Parses a name of labels of letters, digits and hyphens, and lower-cases it.
    ///
    /// # Errors
    /// [`IdError::DomainName`] names the rule that it breaks. An IPv4 address is not a name.
    pub fn new(name: impl AsRef<str>) -> Result<Self, IdError> {
        let name = name.as_ref();
        let refuse = |rule| Err(IdError::DomainName { rule });
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return refuse("it has 1 to 253 bytes");
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return refuse("each label has 1 to 63 bytes");
            }
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return refuse("a label has only letters, digits and hyphens");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return refuse("a label neither begins nor ends with a hyphen");
            }
        }
        if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return refuse("its last label is not a number");
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainName({})", self.0)
    }
}

impl FromStr for DomainName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl Serialize for DomainName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DomainName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The MLS `epoch` (RFC 9420 §8.1), `epoch_id` in the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that a commit in this one creates; `None` after the last that 64 bits can count.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The epoch before; `None` for the first.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment less a time; not before 1970.
    pub fn saturating_sub(self, time: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a join info in the order of delivery. The store assigns it; a later one is larger, also after a restart.
///
/// Its text form is 16 lower-case hexadecimal digits, which sort as the number does; no other is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeliveryId(pub u64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DeliveryId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 16 || !digits {
            return Err(IdError::DeliveryId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| IdError::DeliveryId)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::{DeserializeOwned, IntoDeserializer as _};

    use super::*;

    #[test]
    fn domain_names() {
        let check = |name: &str, expected: Option<&str>| {
            let found = DomainName::new(name).ok();
            assert_eq!(found.as_ref().map(DomainName::as_str), expected, "{name:?}");
        };
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        check("example.com", Some("example.com"));
        check("EXAMPLE.Com", Some("example.com"));
        check("localhost", Some("localhost"));
        check("xn--bcher-kva.example", Some("xn--bcher-kva.example"));
        check("1a.2b", Some("1a.2b"));
        check(&longest, Some(&longest));
        check(&format!("{longest}a"), None);
        check(&format!("{label}a.com"), None);
        for refused in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a.com",
            "a-.com",
            "a_b.com",
            "bücher.example",
            "127.0.0.1",
            "a b",
            "a:1",
        ] {
            check(refused, None);
        }
    }

    #[test]
    fn uuids_have_one_text_form() {
        let check = |text: &str, accepted: bool| {
            assert_eq!(text.parse::<ClientId>().is_ok(), accepted, "{text:?}");
        };
        let id = ClientId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        check("7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11", true);
        check("7c0c7b445a0f4a439a510a9f6b9c7e11", false);
        check("{7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11}", false);
        check("urn:uuid:7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11", false);
        check("7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e1g", false);
        check("", false);
    }

    #[test]
    fn an_application_id_is_a_uuid_of_version_4() {
        for (text, accepted) in [
            ("7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11", true),
            ("7C0C7B44-5A0F-4A43-BA51-0A9F6B9C7E11", true),
            ("7c0c7b44-5a0f-1a43-9a51-0a9f6b9c7e11", false),
            ("7c0c7b44-5a0f-7a43-9a51-0a9f6b9c7e11", false),
            ("7c0c7b44-5a0f-4a43-7a51-0a9f6b9c7e11", false),
            ("7c0c7b44-5a0f-4a43-ca51-0a9f6b9c7e11", false),
            ("00000000-0000-0000-0000-000000000000", false),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", false),
            ("7c0c7b445a0f4a439a510a9f6b9c7e11", false),
            ("{7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11}", false),
        ] {
            let parsed = text.parse::<AppId>();
            assert_eq!(parsed.is_ok(), accepted, "{text}");
            let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
                text.into_deserializer();
            assert_eq!(AppId::deserialize(text).ok(), parsed.ok());
        }
        // What is on disk is read whatever it is.
        let stored = AppId::new(Uuid::nil());
        let bytes = rmp_serde::to_vec_named(&stored).unwrap();
        assert_eq!(rmp_serde::from_slice::<AppId>(&bytes).unwrap(), stored);
    }

    #[test]
    fn delivery_ids_have_one_text_form() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(text.parse().ok(), expected.map(DeliveryId), "{text:?}");
            if let Some(number) = expected {
                assert_eq!(DeliveryId(number).to_string(), text);
            }
        };
        check("0000000000000001", Some(1));
        check("00000000000000ff", Some(255));
        check("ffffffffffffffff", Some(u64::MAX));
        check("00000000000000FF", None);
        check("ff", None);
        check("+000000000000001", None);
        check("00000000000000001", None);
        check("", None);
    }

    #[test]
    fn byte_ids_have_a_length() {
        let check = |accepted: bool, length: usize, max: usize| {
            assert_eq!(accepted, (1..=max).contains(&length), "{length}");
        };
        for length in [0, 1, 64, 65, 255, 256, 1024, 1025] {
            check(GroupId::new(vec![0; length]).is_ok(), length, 255);
            check(ClientHandle::new(vec![0; length]).is_ok(), length, 1024);
            check(KeyPackageRef::new(vec![0; length]).is_ok(), length, 64);
        }
    }

    #[test]
    fn ids_go_through_messagepack() {
        fn check<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(id: &T, bytes: usize) {
            let packed = rmp_serde::to_vec_named(id).unwrap();
            assert_eq!(packed.len(), bytes, "{id:?}");
            assert_eq!(rmp_serde::from_slice::<T>(&packed).unwrap(), *id);
        }
        check(&ClientId::random(), 2 + 16);
        check(&GroupId::new([7; 32]).unwrap(), 2 + 32);
        check(&ClientHandle::new("alice").unwrap(), 2 + 5);
        check(&DomainName::new("example.com").unwrap(), 1 + 11);
        check(&Epoch(5), 1);
        check(&DeliveryId(u64::MAX), 9);
    }

    #[test]
    fn what_is_no_id_is_not_read_as_one() {
        let long = rmp_serde::to_vec(serde_bytes::Bytes::new(&[0; 256])).unwrap();
        assert!(rmp_serde::from_slice::<GroupId>(&long).is_err());
        assert!(rmp_serde::from_slice::<ClientHandle>(&long).is_ok());
        let upper = rmp_serde::to_vec("not a name").unwrap();
        assert!(rmp_serde::from_slice::<DomainName>(&upper).is_err());
    }

    #[test]
    fn epochs_end() {
        assert_eq!(Epoch(0).next(), Some(Epoch(1)));
        assert_eq!(Epoch(u64::MAX).next(), None);
        assert_eq!(Epoch(0).previous(), None);
    }
}
