//! Checks of a TOML table by the rows of its settings, with messages that name the wrong member.

use std::{fmt, str::FromStr};

use actors::{
    DomainName,
    settings::{Accepts, Bound, Row},
};
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::ConfigError;

/// A domain.
pub(super) const DOMAIN: Accepts =
    Accepts::Text("a DNS name of letters, digits and hyphens, as a.example", parses::<DomainName>);
/// An address to listen on.
pub(super) const ADDRESS: Accepts = Accepts::Text(
    "an IP address and a port, as 127.0.0.1:8080 or [::1]:8080",
    parses::<std::net::SocketAddr>,
);
/// A file with certificates or a key.
pub(super) const PEM_FILE: Accepts = Accepts::Text("the path of a PEM file", is_path);
/// A number of threads; more would be a typing error.
pub(super) const THREADS: Accepts = Accepts::from_to(1, 1024);

/// The beginning of PEM, which never occurs in a path.
pub(super) const PEM_BEGINS: &str = "-----BEGIN ";
/// The longest value that a message repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 100;

/// Whether a text parses as a `T`.
pub(super) fn parses<T: FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

/// Whether a text can be a path, and is not a key in place of its path.
pub(super) fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(PEM_BEGINS)
}

/// Parses a text as TOML.
pub(super) fn parse(text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| ConfigError::NotToml {
        line: error.span().map(|span| line_of(text, span.start)),
        reason: error.message().to_owned(),
    })
}

/// Overrides settings with those of a file, table by table.
pub(super) fn lay_over(base: &mut Table, file: Table) {
    for (name, value) in file {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(base)), Value::Table(file)) => lay_over(base, file),
            (_, value) => drop(base.insert(name, value)),
        }
    }
}

/// Checks that a table has the settings of these rows only, each with a value that it takes.
pub(super) fn check(rows: &'static [Row], table: &Table, at: &str) -> Result<(), ConfigError> {
    let is_known = |name: &str| flat(rows).any(|row| row.name == name);
    if let Some(unknown) = table.keys().find(|name| !is_known(name)) {
        let known = names(flat(rows));
        return Err(refuse(
            member(at, unknown),
            format!("is not a setting of this table, which has {known}"),
        ));
    }
    flat(rows).try_for_each(|row| {
        let at = member(at, row.name);
        match table.get(row.name) {
            Some(value) => check_value(row.name, &row.accepts, value, table, &at),
            None if row.is_required => Err(refuse(
                at,
                format!("is required: {}", Form { row: row.name, accepts: &row.accepts, table }),
            )),
            None => Ok(()),
        }
    })
}

fn check_value(
    row: &str,
    accepts: &'static Accepts,
    value: &Value,
    table: &Table,
    at: &str,
) -> Result<(), ConfigError> {
    let is_good = match (accepts, value) {
        (Accepts::Table(rows) | Accepts::Flattened(rows), Value::Table(inner)) => {
            return check(rows, inner, at);
        }
        (Accepts::List(accepts), Value::Array(list)) => {
            let mut placed = list.iter().enumerate();
            return placed.try_for_each(|(place, value)| {
                check_value(row, accepts, value, table, &format!("{at}[{place}]"))
            });
        }
        (Accepts::Table(_) | Accepts::Flattened(_) | Accepts::List(_), _) => false,
        (Accepts::Parameters(_), value) => value.is_table(),
        (Accepts::Boolean, value) => value.is_bool(),
        (Accepts::Text(_, fits) | Accepts::Secret(_, fits), value) => value.as_str().is_some_and(fits),
        (Accepts::OneOf(words), value) => {
            let value = value.to_string();
            words.iter().any(|word| word.split(' ').next() == Some(&value))
        }
        (Accepts::Number(min, max), value) => number(value).is_some_and(|number| {
            number >= bound(*min, table).unwrap_or(0) && number <= bound(*max, table).unwrap_or(u64::MAX)
        }),
    };
    if is_good {
        return Ok(());
    }
    Err(refuse(at, format!("must be {}, not {}", Form { row, accepts, table }, shown(accepts, value))))
}

/// The rows of a table, including those of flattened tables.
pub(super) fn flat(rows: &'static [Row]) -> impl Iterator<Item = &'static Row> {
    rows.iter().flat_map(|row| {
        if let Accepts::Flattened(inner) = row.accepts { inner } else { std::slice::from_ref(row) }
    })
}

fn names<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    rows.map(|row| format!("`{}`", row.name)).collect::<Vec<_>>().join(", ")
}

fn number(value: &Value) -> Option<u64> {
    value.as_integer().and_then(|number| u64::try_from(number).ok())
}

/// The value of a bound; `None` if it is another setting that is itself wrong.
fn bound(bound: Bound, table: &Table) -> Option<u64> {
    match bound {
        Bound::Is(number) => Some(number),
        Bound::Of(name) => table.get(name).and_then(number),
    }
}

/// The values that a setting takes, in words.
pub(super) struct Form<'a> {
    /// The name of the setting, which contains the unit.
    pub(super) row: &'a str,
    pub(super) accepts: &'a Accepts,
    /// The table that has the setting, for bounds that are other settings.
    pub(super) table: &'a Table,
}

impl fmt::Display for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, accepts, table } = *self;
        match accepts {
            Accepts::Number(min, max) => {
                let unit = unit(row).map_or_else(String::new, |unit| format!(" of {unit}"));
                write!(f, "a whole number{unit}")?;
                for (word, bounded) in [("from", min), ("to", max)] {
                    match (bounded, bound(*bounded, table)) {
                        (Bound::Is(number), _) => write!(f, " {word} {number}")?,
                        (Bound::Of(name), None) => write!(f, " {word} `{name}`")?,
                        (Bound::Of(name), Some(number)) => write!(f, " {word} {number} (`{name}`)")?,
                    }
                }
                Ok(())
            }
            Accepts::Boolean => f.write_str("true or false"),
            Accepts::Text(form, _) | Accepts::Secret(form, _) => f.write_str(form),
            Accepts::OneOf(words) => f.write_str(&words.join(" or ")),
            Accepts::List(Accepts::Table(rows)) => write!(f, "a list of tables with {}", names(flat(rows))),
            Accepts::List(accepts) => write!(f, "a list, each member {}", Form { row, accepts, table }),
            Accepts::Table(rows) | Accepts::Flattened(rows) => {
                write!(f, "a table with {}", names(flat(rows)))
            }
            Accepts::Parameters(_) => f.write_str("a table"),
        }
    }
}

/// The unit in a name.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    name.rsplit('_').find_map(|part| match part {
        "bytes" => Some("bytes"),
        "s" => Some("seconds"),
        "ms" => Some("milliseconds"),
        "percent" => Some("percent"),
        _ => None,
    })
}

/// A value for a message, or only its kind if it is long or may be secret.
fn shown(accepts: &Accepts, value: &Value) -> String {
    let kind = match value {
        Value::String(_) => "this text",
        Value::Integer(_) | Value::Float(_) => "this number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => return "a list".to_owned(),
        Value::Table(_) => return "a table".to_owned(),
    };
    // A key or a token may have been entered in the wrong place, and a URL may contain a password.
    let is_open =
        matches!(accepts, Accepts::Number(..) | Accepts::Boolean | Accepts::Text(..) | Accepts::OneOf(_));
    let text = value.to_string();
    let is_safe = text.len() <= SHOWN_BYTES_MAX && !text.contains(PEM_BEGINS) && !text.contains('@');
    if is_open && is_safe { text } else { kind.to_owned() }
}

/// The path of a member of a table.
pub(super) fn member(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// Refuses a member.
pub(super) fn refuse(member: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Malformed { member: member.into(), line: None, reason: reason.into() }
}

/// Refuses a value that the rows accept but the types do not.
pub(super) fn not_a_configuration(error: impl fmt::Display) -> ConfigError {
    refuse("configuration", error.to_string())
}

/// Adds the line of the member that is refused, or of the table around it.
pub(super) fn located(error: ConfigError, text: &str) -> ConfigError {
    match error {
        ConfigError::Malformed { member, line: None, reason } => {
            ConfigError::Malformed { line: locate(text, &member), member, reason }
        }
        other @ (ConfigError::Malformed { .. }
        | ConfigError::NotToml { .. }
        | ConfigError::Unreadable { .. }) => other,
    }
}

/// An error about a setting of the environment, with the name of its variable.
pub(super) fn of_variable(error: ConfigError, variable: &str) -> ConfigError {
    match error {
        ConfigError::Malformed { member, line, reason } => {
            ConfigError::Malformed { member: variable.to_owned(), line, reason: format!("{member} {reason}") }
        }
        other @ (ConfigError::NotToml { .. } | ConfigError::Unreadable { .. }) => other,
    }
}

fn locate(text: &str, member: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut value = &DeValue::Table(document.into_inner());
    let mut found = None;
    for part in member.split(['.', '[']) {
        let inner = match value {
            DeValue::Table(table) => table
                .iter()
                .find(|(name, _)| name.get_ref() == part)
                .map(|(name, value)| (name.span(), value.get_ref())),
            DeValue::Array(list) => part
                .trim_end_matches(']')
                .parse()
                .ok()
                .and_then(|place: usize| list.get(place))
                .map(|value| (value.span(), value.get_ref())),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => None,
        };
        let Some((span, inner)) = inner else { break };
        found = Some(line_of(text, span.start));
        value = inner;
    }
    found
}

/// A line in a message.
pub(super) fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" (line {line})"))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
