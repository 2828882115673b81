//! Tokens of applications and operators: generated and shown once, stored as their SHA-256.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A bearer token (RFC 6750). It is shown only by [`Token::reveal`], never by a formatter.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Generates a token of 256 random bits, in characters that need no escaping in a URL or a shell.
    ///
    /// # Errors
    /// Those of the operating system's random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bits)))
    }

    /// A token that was given by an application.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token itself, for the header that carries it or the one time that it is printed.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The hash that a gateway keeps of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The SHA-256 of a token, 64 hexadecimal digits as text. Compared in constant time.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Whether both are the hash of the same token. The comparison takes the same time wherever they differ.
    pub fn matches(&self, other: &Self) -> subtle::Choice {
        self.0.ct_eq(&other.0)
    }
}

impl TokenHash {
    /// The id of the token among those of its application: the first 16 digits of the hash.
    pub fn id(&self) -> String {
        self.to_string().chars().take(16).collect()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A text that is not the hash of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hexadecimal digits, as `mimi-gateway token` prints after `sha256:`")]
pub struct NotATokenHash;

impl FromStr for TokenHash {
    type Err = NotATokenHash;

    fn from_str(text: &str) -> Result<Self, NotATokenHash> {
        let digits: Vec<u8> = text
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(NotATokenHash))
            .collect::<Result<_, _>>()?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        match (bytes.try_into(), rest) {
            (Ok(bytes), []) => Ok(Self(bytes)),
            (Ok(_) | Err(_), _) => Err(NotATokenHash),
        }
    }
}

impl TryFrom<String> for TokenHash {
    type Error = NotATokenHash;

    fn try_from(text: String) -> Result<Self, NotATokenHash> {
        text.parse()
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> Self {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_its_own_hash_only() {
        let (token, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert!(token.reveal().len() >= 43, "256 bits are 43 characters of base64url");
        let hash: TokenHash = token.hash().to_string().parse().unwrap();
        assert!(bool::from(hash.matches(&token.hash())));
        assert!(!bool::from(hash.matches(&other.hash())));
    }

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        // The digest of "abc" from FIPS 180-4.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Token::new("abc").hash().to_string(), abc);
        for (text, accepted) in [
            (abc.to_owned(), true),
            (abc.to_uppercase(), true),
            (String::new(), false),
            (abc.replacen('b', "", 1), false),
            (format!("{abc}00"), false),
            (abc.replacen('b', "g", 1), false),
        ] {
            assert_eq!(text.parse::<TokenHash>().is_ok(), accepted, "{text}");
        }
    }

    #[test]
    fn formatting_reveals_nothing() {
        let token = Token::new("secret");
        assert!(!format!("{token:?} {:?}", token.hash()).contains("secret"));
    }
}
