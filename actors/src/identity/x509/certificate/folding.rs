//! Preparation of strings for comparison: RFC 4518 §2, as RFC 5280 §7.1 requires for names.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

/// Folds a text: two texts match by caseIgnoreMatch (RFC 4517 §4.2.11) if they are equal after this.
pub(super) fn folded(text: &str) -> String {
    if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()) {
        return single_spaces(&text.to_ascii_lowercase());
    }
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let lower: String = text.chars().filter_map(mapped).flat_map(case_folded).collect();
    match nfkc.normalize(&lower) {
        Cow::Borrowed(normal) => single_spaces(normal),
        // Normalising may make new upper-case letters, and folding those may make new sequences to compose (RFC 3454 §3.2).
        Cow::Owned(normal) => {
            let again: String = normal.chars().flat_map(case_folded).collect();
            single_spaces(&nfkc.normalize(&again))
        }
    }
}

/// §2.2: characters that are left out, and white space.
fn mapped(character: char) -> Option<char> {
    match character {
        '\u{9}'..='\u{d}' | '\u{85}' => Some(' '),
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => None,
        '\u{ad}' | '\u{34f}' | '\u{6dd}' | '\u{70f}' | '\u{1806}' | '\u{180b}'..='\u{180e}' => None,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2063}' => None,
        '\u{206a}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' => None,
        '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}' => None,
        _ if character.is_whitespace() => Some(' '),
        _ => Some(character),
    }
}

/// Full case folding (RFC 3454, table B.2): the lower case of the upper case, but for the dotless i, whose upper case is that
/// of the letter i, and for the capital sharp s, which is no letter's upper case.
fn case_folded(character: char) -> impl Iterator<Item = char> {
    const DOTLESS: char = '\u{131}';
    let character = if character == '\u{1e9e}' { '\u{df}' } else { character };
    let is_dotless = character == DOTLESS;
    let folded = (!is_dotless).then(|| character.to_uppercase().flat_map(char::to_lowercase));
    is_dotless.then_some(DOTLESS).into_iter().chain(folded.into_iter().flatten())
}

/// §2.6.1: one space between words, and none around them.
fn single_spaces(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_match_without_case_spaces_and_composition() {
        let check = |one: &str, other: &str, is_match: bool| {
            assert_eq!(folded(one) == folded(other), is_match, "{one:?} and {other:?}");
        };
        check("Good CA", "gOOD  ca ", true);
        check("Good CA", "GoodCA", false);
        check("a\tb\nc", "A B C", true);
        check("a\u{a0}b\u{2003}c\u{3000}", "a b c", true);
        check("\u{7}al\u{ad}ice\u{200b}", "ALICE", true);
        // Composed and decomposed, full width, ligatures, and a Kelvin sign.
        check("Z\u{fc}rich", "ZU\u{308}RICH", true);
        check("\u{ff21}\u{ff42}\u{ff43}", "abc", true);
        check("e\u{fb03}cient", "EFFICIENT", true);
        check("300 \u{212a}", "300 k", true);
        check("stra\u{df}e", "STRASSE", true);
        check("stra\u{1e9e}e", "strasse", true);
        check("\u{3c3}\u{3bf}\u{3c6}\u{3cc}\u{3c2}", "\u{3a3}\u{39f}\u{3a6}\u{38c}\u{3a3}", true);
        // Only their upper cases are alike, or nothing is.
        check("d\u{131}ana", "diana", false);
        check("\u{430}lice", "alice", false);
        check("alice", "alise", false);
    }

    #[test]
    fn folding_is_idempotent() {
        for start in 0..=0x2_ffffu32 {
            let Some(character) = char::from_u32(start) else { continue };
            let once = folded(&format!("a{character}b"));
            assert_eq!(folded(&once), once, "U+{start:04X}");
        }
    }
}
