//! TLS presentation language (RFC 8446 §3, with the variable-length vectors of RFC 9420 §2.1.2): a reader over borrowed bytes
//! and the length prefix of a vector. It knows no kinds of messages.

/// Bytes that are not the structure they should be, with the name of the part that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message ends early or is malformed in its {0}")]
pub(crate) struct WireError(pub(crate) &'static str);

impl WireError {
    pub(crate) const fn in_part(part: &'static str) -> Self {
        Self(part)
    }
}

/// The result of a read.
pub(crate) type Read<T> = Result<T, WireError>;

/// A cursor over TLS presentation language (RFC 9420 §2.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize, part: &'static str) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError(part))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Read<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError(part))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, part: &'static str) -> Read<u8> {
        self.array::<1>(part).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, part: &'static str) -> Read<u16> {
        self.array(part).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, part: &'static str) -> Read<u32> {
        self.array(part).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, part: &'static str) -> Read<u64> {
        self.array(part).map(u64::from_be_bytes)
    }

    /// A variable-length vector's content (RFC 9420 §2.1.2); its length must be encoded minimally.
    pub(crate) fn vector(&mut self, part: &'static str) -> Read<&'a [u8]> {
        let first = self.u8(part)?;
        let low = u32::from(first & 0x3f);
        let (length, least) = match first >> 6 {
            0 => (low, 0),
            1 => ((low << 8) | u32::from(self.u8(part)?), 1 << 6),
            2 => {
                let [second, third, fourth] = self.array::<3>(part)?;
                (u32::from_be_bytes([first & 0x3f, second, third, fourth]), 1 << 14)
            }
            _ => return Err(WireError(part)),
        };
        if length < least {
            return Err(WireError(part));
        }
        self.take(usize::try_from(length).map_err(|_| WireError(part))?, part)
    }

    /// The unread bytes.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes between an earlier position of this reader and now.
    pub(crate) fn since(&self, earlier: Reader<'a>) -> &'a [u8] {
        let length = earlier.rest.len().saturating_sub(self.rest.len());
        earlier.rest.get(..length).unwrap_or_default()
    }
}

/// Writes a variable-length vector's length prefix (RFC 9420 §2.1.2).
pub(crate) fn write_vector_length(out: &mut Vec<u8>, length: usize) {
    match u32::try_from(length).unwrap_or(u32::MAX) {
        short @ 0..0x40 => out.push(short.to_be_bytes()[3]),
        medium @ 0x40..0x4000 => {
            let [_, _, high, low] = medium.to_be_bytes();
            out.extend_from_slice(&[0x40 | high, low]);
        }
        long => {
            let [first, rest @ ..] = long.to_be_bytes();
            out.push(0x80 | first);
            out.extend_from_slice(&rest);
        }
    }
}

/// Writes a variable-length vector (RFC 9420 §2.1.2).
pub(crate) fn write_vector(out: &mut Vec<u8>, content: &[u8]) {
    write_vector_length(out, content.len());
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_lengths_are_read_back_and_must_be_minimal() {
        for length in [0_usize, 1, 63, 64, 16_383, 16_384, 70_000] {
            let mut bytes = Vec::new();
            write_vector_length(&mut bytes, length);
            bytes.resize(bytes.len() + length, 7);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.vector("test").map(<[u8]>::len), Ok(length));
            assert!(reader.is_empty());
        }
        for padded in [&[0x40, 0x01, 0][..], &[0x80, 0, 0, 1, 0], &[0xc0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(Reader::new(padded).vector("test").is_err(), "{padded:?}");
        }
    }
}
