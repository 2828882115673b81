//! The origin of a report: when it was made, by which version and by which command.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// The option whose value is secret.
const SECRET: &str = "--token";

/// The date, the version and the command line of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    /// The start, in UTC (RFC 3339).
    pub started: String,
    /// The version of this program.
    pub version: &'static str,
    /// The command line, without the token.
    pub command: String,
}

impl Origin {
    /// The origin of a run that starts now in this process.
    pub(super) fn now() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
        Self { started: utc(seconds), version: env!("CARGO_PKG_VERSION"), command: command_line(arguments) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, version {}: {}", self.started, self.version, self.command)
    }
}

/// The command as a shell takes it, with `***` for a token.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut line = "mimi-gateway".to_owned();
    let mut is_secret = false;
    for argument in arguments {
        let shown = if std::mem::take(&mut is_secret) {
            "***".to_owned()
        } else if argument.strip_prefix(SECRET).is_some_and(|rest| rest.starts_with('=')) {
            format!("{SECRET}=***")
        } else {
            is_secret = argument == SECRET;
            quoted(&argument)
        };
        line.push(' ');
        line.push_str(&shown);
    }
    line
}

fn quoted(argument: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,+@%".contains(letter);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Seconds since 1970 as a date and time in UTC.
fn utc(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }

    #[test]
    fn a_command_line_shows_no_token() {
        for (arguments, expected) in [
            (&["loadtest", "--token", "s3cret", "--groups", "2"][..], "loadtest --token *** --groups 2"),
            (&["loadtest", "--token=s3cret"], "loadtest --token=***"),
            (&["loadtest", "--fail-if", "errors>0"], "loadtest --fail-if 'errors>0'"),
            (&["a b", "", "it's"], r"'a b' '' 'it'\''s'"),
        ] {
            let line = command_line(arguments.iter().map(|argument| (*argument).to_owned()));
            assert_eq!(line, format!("mimi-gateway {expected}"));
        }
    }
}
