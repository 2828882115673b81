//! Strict DER (X.690 §10): definite lengths in their shortest form, low tag numbers, and no bytes left over.

/// The fault of some bytes; the text continues *it cannot be read: …*.
pub(super) type DerFault = &'static str;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The tag `[n]` of a primitive content.
pub(super) const fn primitive(n: u8) -> u8 {
    0x80 | n
}

/// The tag `[n]` of a constructed content.
pub(super) const fn constructed(n: u8) -> u8 {
    0xa0 | n
}

/// One value with its tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct DerElement<'a> {
    pub(super) tag: u8,
    /// The content.
    pub(super) body: &'a [u8],
    /// The content with tag and length.
    pub(super) raw: &'a [u8],
}

/// Reads one value after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct DerReader<'a>(&'a [u8]);

impl<'a> DerReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), DerFault> {
        if self.0.is_empty() { Ok(()) } else { Err("there are bytes after its end") }
    }

    /// The tag of the next value.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(super) fn any(&mut self) -> Result<DerElement<'a>, DerFault> {
        const SHORT: DerFault = "it ends too early";
        const LENGTH: DerFault = "a length is not DER";
        let whole = self.0;
        let (tag, rest) = whole.split_first().ok_or(SHORT)?;
        if tag & 0x1f == 0x1f {
            return Err("a tag number is too high");
        }
        let (first, mut rest) = rest.split_first().ok_or(SHORT)?;
        let mut length = usize::from(*first);
        if *first >= 0x80 {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(SHORT)?;
            if !(1..=4).contains(&bytes.len()) || bytes.first() == Some(&0) {
                return Err(LENGTH);
            }
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            if length < 0x80 {
                return Err(LENGTH);
            }
            rest = after;
        }
        let (body, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
        let (raw, _) = whole.split_at_checked(whole.len() - rest.len()).ok_or(SHORT)?;
        self.0 = rest;
        Ok(DerElement { tag: *tag, body, raw })
    }

    pub(super) fn expect(&mut self, tag: u8) -> Result<DerElement<'a>, DerFault> {
        let element = self.any()?;
        if element.tag == tag { Ok(element) } else { Err("a value has another type than it must have") }
    }

    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<DerElement<'a>>, DerFault> {
        if self.peek() == Some(tag) { self.any().map(Some) } else { Ok(None) }
    }

    pub(super) fn sequence(&mut self) -> Result<Self, DerFault> {
        Ok(Self(self.expect(SEQUENCE)?.body))
    }

    /// An optional BOOLEAN whose default is false; DER leaves the default out, and many issuers write it all the same.
    pub(super) fn flag(&mut self, tag: u8) -> Result<bool, DerFault> {
        match self.optional(tag)?.map(|value| value.body) {
            None | Some([0]) => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err("a BOOLEAN is not DER"),
        }
    }
}

/// Opens bytes that are one SEQUENCE.
pub(super) fn whole_sequence(bytes: &[u8]) -> Result<DerReader<'_>, DerFault> {
    Ok(DerReader(whole(bytes, SEQUENCE)?))
}

/// The content of bytes that are one value with this tag.
pub(super) fn whole(bytes: &[u8], tag: u8) -> Result<&[u8], DerFault> {
    let mut reader = DerReader::new(bytes);
    let value = reader.expect(tag)?;
    reader.end()?;
    Ok(value.body)
}

/// The bytes of an INTEGER in its shortest form.
pub(super) fn integer(body: &[u8]) -> Result<&[u8], DerFault> {
    match body {
        [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err("an INTEGER is not DER"),
        _ => Ok(body),
    }
}

/// The significant bytes of an INTEGER that is not negative: none for 0.
pub(super) fn unsigned(body: &[u8]) -> Result<&[u8], DerFault> {
    match integer(body)? {
        [0x80..=0xff, ..] => Err("a number is negative"),
        [0, rest @ ..] => Ok(rest),
        bytes => Ok(bytes),
    }
}

/// A number that is not negative. One that does not fit is as good as the greatest that does: it counts certificates.
pub(super) fn count(body: &[u8]) -> Result<u32, DerFault> {
    let bytes = unsigned(body)?;
    let fits = bytes.len() <= size_of::<u32>();
    Ok(if fits { bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)) } else { u32::MAX })
}

/// The bits of a BIT STRING with named bits (X.680 §22): bit 0 of the definition is the lowest.
pub(super) fn named_bits(body: &[u8]) -> Result<u16, DerFault> {
    let (unused, bytes) = body.split_first().ok_or("a BIT STRING is not DER")?;
    let last = bytes.last().copied().unwrap_or_default();
    if *unused > 7 || (bytes.is_empty() && *unused != 0) || last.trailing_zeros() < u32::from(*unused) {
        return Err("a BIT STRING is not DER");
    }
    if bytes.len() > 2 {
        return Err("a BIT STRING has bits that are not defined");
    }
    Ok(bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u16::from(byte.reverse_bits())))
}

/// The bytes of a BIT STRING that has no unused bits.
pub(super) fn bit_string(body: &[u8]) -> Result<&[u8], DerFault> {
    match body.split_first() {
        Some((0, bytes)) => Ok(bytes),
        _ => Err("a BIT STRING is not of whole bytes"),
    }
}

/// Unix seconds of a UTCTime or GeneralizedTime in the form of RFC 5280 §4.1.2.5: with seconds, and in UTC.
pub(super) fn time(element: DerElement<'_>) -> Result<i64, DerFault> {
    const FORM: DerFault = "a time has another form than RFC 5280 §4.1.2.5 requires";
    let number = |text: &[u8]| {
        let digits = text.iter().all(u8::is_ascii_digit);
        digits.then(|| text.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    };
    let year_digits = match (element.tag, element.body.len()) {
        (UTC_TIME, 13) => 2,
        (GENERALIZED_TIME, 15) => 4,
        _ => return Err(FORM),
    };
    let (year, rest) = element.body.split_at_checked(year_digits).ok_or(FORM)?;
    let year = match number(year).ok_or(FORM)? {
        year if year_digits == 4 => year,
        year if year < 50 => 2000 + year,
        year => 1900 + year,
    };
    let Some((b'Z', rest)) = rest.split_last() else { return Err(FORM) };
    let mut parts = rest.chunks(2).map(number);
    let mut next = |least: i64, most: i64| match parts.next().flatten() {
        Some(part) if (least..=most).contains(&part) => Ok(part),
        _ => Err(FORM),
    };
    let month = next(1, 12)?;
    let day = next(1, days_of(year, month))?;
    let (hour, minute, second) = (next(0, 23)?, next(0, 59)?, next(0, 59)?);
    Ok(((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, counted in years that begin with March, so that a leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, body: &[u8]) -> DerElement<'_> {
        DerElement { tag, body, raw: body }
    }

    #[test]
    fn lengths_are_definite_and_short() {
        let long = [&[4, 0x81, 0x80][..], &[7; 0x80]].concat();
        let check = |bytes: &[u8], expected: Result<usize, DerFault>| {
            let mut reader = DerReader::new(bytes);
            let found = reader.any().map(|element| {
                assert_eq!(element.raw, bytes);
                element.body.len()
            });
            assert_eq!(found, expected, "{bytes:02x?}");
        };
        check(&[4, 0], Ok(0));
        check(&[4, 2, 1, 2], Ok(2));
        check(&long, Ok(0x80));
        check(&[], Err("it ends too early"));
        check(&[4], Err("it ends too early"));
        check(&[4, 2, 1], Err("it ends too early"));
        check(&[4, 0x84, 0xff, 0xff, 0xff, 0xff], Err("it ends too early"));
        check(&[4, 0x80, 0, 0], Err("a length is not DER"));
        check(&[4, 0x81, 0x7f], Err("a length is not DER"));
        check(&[4, 0x82, 0, 0x80], Err("a length is not DER"));
        check(&[4, 0x85, 1, 0, 0, 0, 0], Err("a length is not DER"));
        check(&[0x1f, 0x81, 0], Err("a tag number is too high"));
    }

    #[test]
    fn numbers_and_bits_have_one_form() {
        assert_eq!(integer(&[0, 0x80]), Ok(&[0, 0x80][..]));
        for malformed in [&[][..], &[0, 0x7f], &[0xff, 0x80]] {
            assert_eq!(integer(malformed), Err("an INTEGER is not DER"), "{malformed:02x?}");
        }
        assert_eq!(
            (count(&[0]), count(&[1, 0]), count(&[0, 0xff, 0, 0, 0])),
            (Ok(0), Ok(256), Ok(0xff00_0000))
        );
        assert_eq!((count(&[1, 0, 0, 0, 0]), count(&[0x80])), (Ok(u32::MAX), Err("a number is negative")));
        // keyCertSign and cRLSign are bits 5 and 6 (RFC 5280 §4.2.1.3), and decipherOnly is bit 8.
        assert_eq!(named_bits(&[1, 0b0000_0110]), Ok(1 << 5 | 1 << 6));
        assert_eq!(named_bits(&[7, 0, 0x80]), Ok(1 << 8));
        assert_eq!(named_bits(&[0]), Ok(0));
        for malformed in [&[][..], &[1], &[8, 0], &[2, 0b0000_0110]] {
            assert_eq!(named_bits(malformed), Err("a BIT STRING is not DER"), "{malformed:02x?}");
        }
        assert!(named_bits(&[0, 1, 1, 1]).is_err());
        assert!(bit_string(&[1, 2]).is_err() && bit_string(&[]).is_err());
    }

    #[test]
    fn times_have_the_form_of_rfc_5280() {
        let check = |tag, text: &str, expected: Option<i64>| {
            assert_eq!(time(element(tag, text.as_bytes())).ok(), expected, "{text}");
        };
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "500101000000Z", Some(-631_152_000));
        check(UTC_TIME, "491231235959Z", Some(2_524_607_999));
        check(GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000));
        check(GENERALIZED_TIME, "20000229000000Z", Some(951_782_400));
        check(GENERALIZED_TIME, "19000229000000Z", None);
        check(GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799));
        for malformed in [
            "7001010000Z",
            "700101000000",
            "7001010000000Z",
            "700101000060Z",
            "700101006000Z",
            "700101240000Z",
            "700132000000Z",
            "701301000000Z",
            "700001000000Z",
            "700100000000Z",
            "+70101000000Z",
        ] {
            check(UTC_TIME, malformed, None);
        }
        check(GENERALIZED_TIME, "700101000000Z", None);
        check(INTEGER, "700101000000Z", None);
    }
}
