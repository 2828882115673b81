//! Running it in production: the service manager's protocol, completions and manual pages, and the files in `deploy/`.

mod notices;
mod prometheus;
mod service;
mod shell;

use std::io::Write as _;

/// Says so where it is seen: a line that a test merely prints is shown only when the test fails.
fn skipped(what: &str) {
    std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes()).unwrap();
}
