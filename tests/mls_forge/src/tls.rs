//! The TLS presentation language, as RFC 9420 §2.1 uses it.

use std::fmt;

/// Bytes that are not what was read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed")
    }
}

impl std::error::Error for Malformed {}

/// Bytes that are being read.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The content of a vector with its length before it (RFC 9420 §2.1.2).
    ///
    /// # Errors
    /// The length is not written in the shortest way, or there are fewer bytes.
    pub fn vector(&mut self) -> Result<&'a [u8], Malformed> {
        let first = *self.0.first().ok_or(Malformed)?;
        let (bytes, least) = match first >> 6 {
            0 => (1, 0),
            1 => (2, 1 << 6),
            2 => (4, 1 << 14),
            _ => return Err(Malformed),
        };
        let mut length = usize::from(first & 0x3f);
        for byte in &self.take(bytes)?[1..] {
            length = length << 8 | usize::from(*byte);
        }
        if length < least {
            return Err(Malformed);
        }
        self.take(length)
    }
}

/// Writes a vector: its length in bytes, then its content (RFC 9420 §2.1.2).
pub(crate) fn write_vector(out: &mut Vec<u8>, content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap();
    match length {
        0..0x40 => out.push(length as u8),
        0x40..0x4000 => out.extend((length as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend((length | 0x8000_0000).to_be_bytes()),
        _ => panic!("a vector of {length} bytes"),
    }
    out.extend_from_slice(content);
}

/// A structure of the TLS presentation language.
pub trait Tls: Sized {
    /// Appends its bytes.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads it from the front.
    ///
    /// # Errors
    /// The bytes are not such a structure.
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Appends a vector's content.
    fn write_all(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| item.write(out));
    }

    /// Reads a vector's content to its end.
    ///
    /// # Errors
    /// The bytes are not such structures.
    fn read_all(from: &mut Reader<'_>) -> Result<Vec<Self>, Malformed> {
        let mut items = Vec::new();
        while !from.0.is_empty() {
            items.push(Self::read(from)?);
        }
        Ok(items)
    }

    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads it from all of the bytes.
    ///
    /// # Errors
    /// The bytes are not such a structure, or there are more.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let read = Self::read(&mut from)?;
        if from.0.is_empty() { Ok(read) } else { Err(Malformed) }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Tls for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_be_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self::from_be_bytes(from.take(size_of::<Self>())?.try_into().unwrap()))
            }
        }
    )*};
}

numbers!(u16, u32, u64);

impl Tls for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(from.take(1)?[0])
    }

    fn write_all(items: &[Self], out: &mut Vec<u8>) {
        out.extend_from_slice(items);
    }

    fn read_all(from: &mut Reader<'_>) -> Result<Vec<Self>, Malformed> {
        Ok(from.take(from.0.len())?.to_vec())
    }
}

impl<T: Tls> Tls for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut content = Vec::new();
        T::write_all(self, &mut content);
        write_vector(out, &content);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::read_all(&mut Reader(from.vector()?))
    }
}

impl<T: Tls> Tls for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(present) = self {
            present.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            0 => Ok(None),
            1 => T::read(from).map(Some),
            _ => Err(Malformed),
        }
    }
}

/// A structure whose members are written one after the other.
macro_rules! structures {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl $crate::tls::Tls for $name {
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::tls::Tls::write(&self.$field, out);)*
            }

            fn read(from: &mut $crate::tls::Reader<'_>) -> Result<Self, $crate::tls::Malformed> {
                Ok(Self { $($field: $crate::tls::Tls::read(from)?,)* })
            }
        }
    )*};
}

pub(crate) use structures;
