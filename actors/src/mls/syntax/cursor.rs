//! Cursor of a walk over TLS presentation language (RFC 9420 §2.1): it names the field in which the walk ends.

use super::{Cause, Fault};

/// Why a walk ended.
pub(super) struct WalkError {
    /// From the innermost field outwards.
    pub(super) path: Vec<PathStep>,
    pub(super) offset: usize,
    pub(super) cause: Cause,
}

#[derive(Clone, Copy)]
pub(super) enum PathStep {
    Field(&'static str),
    Index(usize),
}

impl WalkError {
    pub(super) fn new(offset: usize, cause: Cause) -> Box<Self> {
        Box::new(Self { path: Vec::new(), offset, cause })
    }

    pub(super) fn inside(mut self: Box<Self>, step: PathStep) -> Box<Self> {
        self.path.push(step);
        self
    }

    pub(super) fn field(&self) -> String {
        let mut field = String::new();
        for step in self.path.iter().rev() {
            match step {
                PathStep::Field(name) => {
                    if !field.is_empty() {
                        field.push('.');
                    }
                    field.push_str(name);
                }
                PathStep::Index(index) => field.push_str(&format!("[{index}]")),
            }
        }
        field
    }
}

pub(super) type Walk<T = ()> = Result<T, Box<WalkError>>;

/// A position in the bytes; `bytes` end where the innermost vector ends.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn fault<T>(&self, fault: Fault) -> Walk<T> {
        Err(WalkError::new(self.at, Cause::Fault(fault)))
    }

    /// Reads a field of a structure.
    pub(super) fn field<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> Walk<T>,
    ) -> Walk<T> {
        read(self).map_err(|stop| stop.inside(PathStep::Field(name)))
    }

    pub(super) fn number<const N: usize>(&mut self) -> Walk<u64> {
        let Some((taken, _)) = self.bytes.get(self.at..).and_then(<[u8]>::split_first_chunk::<N>) else {
            return self.fault(Fault::CutShort);
        };
        self.at += N;
        Ok(taken.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    pub(super) fn u8(&mut self) -> Walk<u64> {
        self.number::<1>()
    }

    pub(super) fn u16(&mut self) -> Walk<u16> {
        self.number::<2>().map(|value| u16::try_from(value).unwrap_or_default())
    }

    /// A number that must be one of these.
    pub(super) fn one_of<const N: usize>(&mut self, allowed: std::ops::RangeInclusive<u64>) -> Walk<u64> {
        let start = *self;
        let value = self.number::<N>()?;
        if allowed.contains(&value) { Ok(value) } else { start.fault(Fault::Value(value)) }
    }

    /// The length of a vector (RFC 9420 §2.1.2) that fits into what follows.
    pub(super) fn length(&mut self) -> Walk<usize> {
        let start = *self;
        let first = self.u8()?;
        let more = match first >> 6 {
            0 => Ok(0),
            1 => self.number::<1>(),
            2 => self.number::<3>(),
            _ => return start.fault(Fault::Value(first)),
        };
        // A length that is cut short is a field that is: it begins with its first byte.
        let Ok(more) = more else { return start.fault(Fault::CutShort) };
        let (bits, least) = match first >> 6 {
            0 => (0, 0),
            1 => (8, 1 << 6),
            _ => (24, 1 << 14),
        };
        let length = ((first & 0x3f) << bits) | more;
        if length < least {
            return start.fault(Fault::PaddedLength);
        }
        match usize::try_from(length) {
            Ok(length) if length <= self.bytes.len().saturating_sub(self.at) => Ok(length),
            Ok(_) | Err(_) => start.fault(Fault::TooLong),
        }
    }

    /// `opaque name<V>`.
    pub(super) fn opaque(&mut self) -> Walk {
        let length = self.length()?;
        self.at += length;
        Ok(())
    }

    /// Reads the content of a vector, and nothing beyond it.
    pub(super) fn content<T>(&mut self, read: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let length = self.length()?;
        let end = self.at + length;
        let mut inner = Self { bytes: self.bytes.get(..end).unwrap_or_default(), at: self.at };
        let value = read(&mut inner)?;
        self.at = inner.at;
        Ok(value)
    }

    /// `T name<V>`: a list to the end of its vector.
    pub(super) fn list(&mut self, name: &'static str, mut item: impl FnMut(&mut Self) -> Walk) -> Walk {
        self.field(name, |cursor| {
            cursor.content(|cursor| {
                for index in 0.. {
                    if cursor.is_at_end() {
                        break;
                    }
                    item(cursor).map_err(|stop| stop.inside(PathStep::Index(index)))?;
                }
                Ok(())
            })
        })
    }

    /// `optional<T> name`.
    pub(super) fn optional(&mut self, read: impl FnOnce(&mut Self) -> Walk) -> Walk {
        match self.one_of::<1>(0..=1)? {
            0 => Ok(()),
            _ => read(self),
        }
    }
}
