//! Whole numbers in request bodies. JSON has one kind of number, so `1.0` is the number 1 (RFC 8259 §6).

use std::fmt;

use serde::{Deserializer, de};

/// Parses a whole number of 16 bits.
///
/// # Errors
/// For other numbers and other values, a message that says what was expected.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    deserializer.deserialize_u16(Whole)
}

struct Whole;

impl de::Visitor<'_> for Whole {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", u16::MAX)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u16, E> {
        u16::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u16, E> {
        u16::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<u16, E> {
        // The cast is exact for a whole number in this range.
        let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number);
        if is_whole { Ok(number as u16) } else { Err(E::invalid_value(de::Unexpected::Float(number), &self)) }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body(#[serde(deserialize_with = "whole")] u16);

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
        let error = serde_json::from_str::<Body>("70000").unwrap_err().to_string();
        assert!(error.contains("expected a whole number from 0 to 65535"), "{error}");
    }
}
