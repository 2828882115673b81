//! The log: its filter, in the notation of `RUST_LOG`, and its format.

use actors::settings::Accepts;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The values of `log`.
pub(super) const FILTER: Accepts = Accepts::Text(
    "a level (off, error, warn, info, debug, trace), or a list of them and of MODULE=LEVEL separated by commas",
    |text| filter(text).is_some(),
);

/// Modules that may be named without a level, which selects all levels. Any other single word counts as a misspelt level: as a
/// module it would log nothing.
const MODULES: [&str; 6] = ["access", "mimi_gateway", "actors", "snapshots", "actix_server", "actix_http"];

actors::choices! {
    /// The form of the lines of the log.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum LogFormat {
        /// Text, with colours if it goes to a terminal.
        #[default]
        Text = "text",
        /// A JSON object in each line.
        Json = "json",
    }
}

/// Parses a filter; `None` if it is malformed or misspelt.
pub(crate) fn filter(text: &str) -> Option<EnvFilter> {
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    let is_good = |directive: &&str| {
        directive.is_empty()
            || directive.contains(['=', '[', ':'])
            || directive.parse::<LevelFilter>().is_ok()
            || MODULES.iter().any(|module| module.starts_with(directive))
    };
    directives.iter().all(is_good).then(|| EnvFilter::try_new(directives.join(",")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for (text, is_filter) in [
            ("info", true),
            ("WARN", true),
            ("off", true),
            ("", true),
            ("info,actix_server=warn,actix_http=off", true),
            ("warn, mimi_gateway=debug", true),
            ("mimi_gateway", true),
            ("mimi_gateway::http", true),
            ("info,access=off", true),
            ("info,[answered]=debug", true),
            ("actors[commit{epoch=1}]=trace", true),
            ("debgu", false),
            ("info,wran", false),
            ("mimi_gateway=loud", false),
            ("info,fjal", false),
            ("[", false),
        ] {
            assert_eq!(filter(text).is_some(), is_filter, "{text}");
        }
    }
}
