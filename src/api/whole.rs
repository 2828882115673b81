//! Whole numbers in request bodies. JSON has one kind of number, so `1.0` is the number 1 (RFC 8259 §6).

use std::fmt;

use actors::Epoch;
use serde::{Deserializer, de};

/// The greatest number that is read from one with a fraction or an exponent, which the parser of JSON rounds: up to here the error
/// cannot make another whole number of it.
const EXACT_MAX: u64 = 1 << 49;

/// Parses a whole number of 16 bits.
///
/// # Errors
/// For other numbers and other values, a message that says what was expected.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = deserializer.deserialize_u64(Whole { max: u64::from(u16::MAX) })?;
    u16::try_from(number).map_err(de::Error::custom)
}

/// Parses an epoch.
///
/// # Errors
/// As [`whole`].
pub(crate) fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
    deserializer.deserialize_u64(Whole { max: u64::MAX }).map(Epoch)
}

struct Whole {
    max: u64,
}

impl de::Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", self.max)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        if number <= self.max {
            Ok(number)
        } else {
            Err(E::invalid_value(de::Unexpected::Unsigned(number), &self))
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
        // The casts are exact for a whole number in this range.
        let is_whole = number.fract() == 0.0 && (0.0..=self.max.min(EXACT_MAX) as f64).contains(&number);
        if is_whole { Ok(number as u64) } else { Err(E::invalid_value(de::Unexpected::Float(number), &self)) }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body(#[serde(deserialize_with = "whole")] u16);

    #[derive(Debug, Deserialize)]
    struct Report(#[serde(deserialize_with = "epoch")] Epoch);

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (text, expected) in
            [("0", 0), ("1.0", 1), ("3.25e2", 325), ("65535", 65_535), ("65535.0", 65_535), ("-0.0", 0)]
        {
            assert_eq!(serde_json::from_str::<Body>(text).unwrap().0, expected, "{text}");
        }
        for text in ["-1", "-1.0", "1.5", "65536", "65536.0", "1e400", "\"1\"", "null", "true"] {
            assert!(serde_json::from_str::<Body>(text).is_err(), "{text}");
        }
        for (text, expected) in
            [("0", 0), ("3324.0", 3324), ("562949953421312.0", EXACT_MAX), ("18446744073709551615", u64::MAX)]
        {
            assert_eq!(serde_json::from_str::<Report>(text).unwrap().0, Epoch(expected), "{text}");
        }
        for text in ["-1", "0.5", "562949953421313.0", "18446744073709551616", "1e300", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Report>(text).is_err(), "{text}");
        }
        let error = serde_json::from_str::<Body>("70000").unwrap_err().to_string();
        assert!(error.contains("expected a whole number from 0 to 65535"), "{error}");
    }
}
