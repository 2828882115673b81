//! The origin of a report: when it was made, by which version and by which command.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::utc::utc;

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

#[cfg(test)]
mod tests {
    use super::*;

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
