//! Text for terminals: aligned tables, and nothing that a terminal would obey.

use actors::Timestamp;

use crate::{api::operator::BoundedCount, utc::utc};

/// What is absent, in a table.
const ABSENT: &str = "-";

/// Rows of the same number of cells, the first of them the heading.
pub(super) struct TextTable {
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table with these columns and no rows.
    pub(super) fn of<const COLUMNS: usize>(heading: [&str; COLUMNS]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// Names and what they are, without a heading.
    pub(super) fn of_members<const MEMBERS: usize>(members: [(&str, String); MEMBERS]) -> Self {
        Self { rows: members.map(|(name, value)| vec![name.to_owned(), value]).to_vec() }
    }

    pub(super) fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.to_vec());
    }

    /// The table as lines. Each column is as wide as its longest cell, and two spaces are between columns.
    pub(super) fn lines(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| in_one_line(cell)).collect()).collect();
        let mut widths = Vec::new();
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(column) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        rows.iter().map(line).collect()
    }
}

fn in_one_line(text: &str) -> String {
    printable(text).replace('\n', "\u{fffd}")
}

/// Text without control characters, which a terminal would obey: a gateway and a file may put them into what is reported.
/// Neither has it the characters that turn the direction of what follows.
pub(super) fn printable(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' => letter,
        _ if is_obeyed(letter) => char::REPLACEMENT_CHARACTER,
        _ => letter,
    };
    text.chars().map(shown).collect()
}

/// JSON whose strings have no such characters, but their escapes.
pub(super) fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter != '\n' && is_obeyed(letter) {
            // All of them are of one unit of UTF-16.
            shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Whether a terminal obeys a character instead of showing it: control characters, and those of UAX #9 that embed, override and
/// isolate a direction.
fn is_obeyed(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A time.
pub(super) fn at(timestamp: Timestamp) -> String {
    utc(timestamp.0 / 1000)
}

/// A number that is counted up to a bound.
pub(super) fn counted(count: BoundedCount) -> String {
    format!("{}{}", count.count, if count.is_more { "+" } else { "" })
}

/// A value in one cell, or a sign that there is none.
pub(super) fn or_absent(value: Option<impl ToString>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| value.to_string())
}

/// These texts in one cell.
pub(super) fn joined(texts: impl IntoIterator<Item = impl ToString>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
    if texts.is_empty() { ABSENT.to_owned() } else { texts.join(",") }
}

/// The sender of a commit.
pub(super) fn sender(leaf_index: Option<u32>) -> String {
    leaf_index.map_or_else(|| "external".to_owned(), |leaf| format!("leaf {leaf}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_but_text() {
        assert_eq!(printable("a\u{1b}[31m\r\n\u{9b}b\u{7f} µ"), "a\u{fffd}[31m\u{fffd}\n\u{fffd}b\u{fffd} µ");
        assert_eq!(printable("a\u{202e}b\u{2069}"), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn escapes_leave_json_as_it_is() {
        let value = serde_json::json!({ "a": "\u{1b}[31m\n\u{9b}\u{7f}\u{202e} µ 😀" });
        let shown = printable_json(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.chars().all(|letter| letter == '\n' || !is_obeyed(letter)), "{shown}");
        assert!(shown.contains(r"\u001b[31m\n\u009b\u007f\u202e µ 😀"), "{shown}");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = TextTable::of(["A", "LONG", "C"]);
        table.row(["µµµ".into(), "1".into(), "x".into()]);
        table.row(["b".into(), "12345".into(), String::new()]);
        table.row(["c\nd".into(), "\u{1b}".into(), "y".into()]);
        assert_eq!(table.lines(), "A    LONG   C\nµµµ  1      x\nb    12345\nc\u{fffd}d  \u{fffd}      y\n");
        let members = TextTable::of_members([("epoch", "4".into()), ("id", "x".into())]);
        assert_eq!(members.lines(), "epoch  4\nid     x\n");
    }
}
