//! `gateway.example.toml`: every setting with its documentation, its default and the values that it takes.

use std::fmt::{self, Write as _};

use actors::settings::{Accepts, Row};
use toml::{Table, Value};

use super::{Config, FederationSettings, OperatorSettings, TracesSettings, rows};

const HEADER: &str = "\
# The configuration of a MIMI gateway: every setting, with its default or, where there is none, with an example.
#
# Remove the `#` directly before a name to set it, and the one before the `[` of its table. A name ends in its unit.
# `mimi-gateway --config FILE config check` says whether a file is good, and `mimi-gateway config example` prints this one.
# Relative paths of certificates and keys are taken from the directory of the file.
";

/// The text of `gateway.example.toml`.
pub fn example() -> String {
    let mut text = HEADER.to_owned();
    // Writing to a string does not fail, and defaults have a TOML form: a test compares the text.
    let config = Config {
        federation: Some(FederationSettings::default()),
        operator: Some(OperatorSettings::default()),
        traces: Some(TracesSettings::default()),
        ..Config::default()
    };
    if let Ok(defaults) = Table::try_from(config) {
        let _ = Section { rows: Config::ROWS, path: "", is_optional: false, defaults: &defaults }
            .write(&mut text);
    }
    text
}

/// One table of the file.
struct Section<'a> {
    rows: &'static [Row],
    path: &'a str,
    /// Whether its header is written as a comment.
    is_optional: bool,
    defaults: &'a Table,
}

impl Section<'_> {
    fn write(&self, text: &mut String) -> fmt::Result {
        // In TOML, the settings of a table come before the tables inside it.
        let (tables, settings): (Vec<&Row>, Vec<&Row>) =
            rows::flat(self.rows).partition(|row| subtable(row).is_some());
        for row in settings {
            self.write_setting(row, text)?;
        }
        let none = Table::new();
        for (row, (rows, is_list)) in tables.into_iter().filter_map(|row| Some((row, subtable(row)?))) {
            let path = rows::member(self.path, row.name);
            let is_optional =
                self.is_optional || is_list || matches!(path.as_str(), "federation" | "operator" | "traces");
            let mark = if is_optional { "#" } else { "" };
            let (open, close) = if is_list { ("[[", "]]") } else { ("[", "]") };
            text.push('\n');
            write_documentation(row, text)?;
            writeln!(text, "{mark}{open}{path}{close}")?;
            let defaults = self.defaults.get(row.name).and_then(Value::as_table).unwrap_or(&none);
            Section { rows, path: &path, is_optional, defaults }.write(text)?;
        }
        Ok(())
    }

    fn write_setting(&self, row: &Row, text: &mut String) -> fmt::Result {
        text.push('\n');
        write_documentation(row, text)?;
        let form = rows::Form { row: row.name, accepts: &row.accepts, table: &Table::new() }.to_string();
        let default = self.defaults.get(row.name);
        // A path that is empty by default is required.
        let is_required = row.is_required || default.and_then(Value::as_str) == Some("");
        let begin = if is_required { "Required: " } else { "Takes " };
        writeln!(text, "# {begin}{form}.")?;
        match (row.example, default) {
            (Some(example), _) => writeln!(text, "#{} = {example}", row.name),
            (None, Some(default)) => writeln!(text, "#{} = {default}{}", row.name, size(row.name, default)),
            (None, None) => Ok(()),
        }
    }
}

/// The rows of a setting that is a table with its own header, and whether it is a list of such tables.
fn subtable(row: &Row) -> Option<(&'static [Row], bool)> {
    match row.accepts {
        _ if row.example.is_some() => None,
        Accepts::Table(rows) | Accepts::Parameters(rows) => Some((rows, false)),
        Accepts::List(Accepts::Table(rows)) => Some((rows, true)),
        Accepts::List(_)
        | Accepts::Number(..)
        | Accepts::Boolean
        | Accepts::Text(..)
        | Accepts::Secret(..)
        | Accepts::OneOf(_)
        | Accepts::Flattened(_) => None,
    }
}

fn write_documentation(row: &Row, text: &mut String) -> fmt::Result {
    row.doc.iter().try_for_each(|line| writeln!(text, "#{line}"))
}

/// A size in bytes, in units that are easier to read.
fn size(name: &str, value: &Value) -> String {
    let bytes = value.as_integer().filter(|bytes| *bytes > 0 && rows::unit(name) == Some("bytes"));
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fitting = bytes.and_then(|bytes| {
        units
            .into_iter()
            .find(|(_, unit)| bytes % unit == 0)
            .map(|(name, unit)| format!("  # {} {name}", bytes / unit))
    });
    fitting.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod,
        KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
    };

    use super::*;

    /// The file with every setting in it set.
    fn uncommented() -> String {
        let lines = example().lines().map(str::to_owned).collect::<Vec<_>>();
        let set = |line: String| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|first: char| first == '[' || first.is_ascii_lowercase()) => {
                rest.to_owned()
            }
            _ => line,
        };
        lines.into_iter().map(set).collect::<Vec<_>>().join("\n")
    }

    /// The values of a table by path, those in lists of tables included.
    fn values(table: &Table, path: &str, found: &mut Vec<(String, Value)>) {
        for (name, value) in table {
            let path = rows::member(path, name);
            let in_list = value.as_array().into_iter().flatten();
            for table in [value].into_iter().chain(in_list).filter_map(Value::as_table) {
                values(table, &path, found);
            }
            found.push((path, value.clone()));
        }
    }

    /// The paths of all settings.
    fn paths(rows: &'static [Row], at: &str, found: &mut Vec<String>) {
        for row in rows::flat(rows) {
            let path = rows::member(at, row.name);
            if let Some((rows, _)) = subtable(row) {
                paths(rows, &path, found);
            }
            found.push(path);
        }
    }

    #[test]
    fn the_file_in_the_repository_is_up_to_date() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.example.toml");
        let committed = fs::read_to_string(file).unwrap();
        assert!(committed == example(), "write it again: cargo run -- config example > gateway.example.toml");
    }

    #[test]
    fn as_it_is_it_changes_nothing() {
        assert_eq!(Config::parse(&example()).unwrap(), Config::embedded());
    }

    #[test]
    fn it_has_every_setting_and_says_its_default() {
        let set: Table = uncommented().parse().unwrap();
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        values(&set, "", &mut found);
        paths(Config::ROWS, "", &mut expected);
        let missing: Vec<_> =
            expected.iter().filter(|path| !found.iter().any(|(found, _)| found == *path)).collect();
        assert_eq!(missing, Vec::<&String>::new());

        let without_default = [
            "domains",
            "actor_threads",
            "internal.workers",
            "federation.workers",
            "operator.workers",
            "federation.certificate",
            "federation.private_key",
            "federation.ca",
        ];
        let mut defaults = Vec::new();
        let config = Config {
            federation: Some(FederationSettings::default()),
            operator: Some(OperatorSettings::default()),
            traces: Some(TracesSettings::default()),
            ..Config::default()
        };
        values(&Table::try_from(config).unwrap(), "", &mut defaults);
        defaults.retain(|(path, value)| !value.is_table() && !without_default.contains(&path.as_str()));
        assert!(defaults.len() > 80, "{}", defaults.len());
        for default in defaults {
            assert!(found.contains(&default), "{default:?}");
        }
    }

    #[test]
    fn with_every_setting_set_it_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let key = || KeyPair::generate().unwrap();
        let (ca_key, gateway_key) = (key(), key());
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let roots = ca.self_signed(&ca_key).unwrap().pem();
        let ca = Issuer::from_params(&ca, &ca_key);
        let gateway = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let gateway = gateway.signed_by(&gateway_key, &ca).unwrap().pem();
        let crl = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2040, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        write("roots.crl", &crl.signed_by(&ca).unwrap().pem().unwrap());
        write("roots.pem", &roots);
        write("crl-issuers.pem", &roots);
        write("peers-ca.pem", &roots);
        write("gateway.pem", &gateway);
        write("gateway.key", &gateway_key.serialize_pem());
        // A sender's certificate that names no client is no reason to refuse: it is warned of.
        write("sender.pem", &gateway);
        write("sender.key", &gateway_key.serialize_pem());
        // The tokens are one example, and no token is an application's and an operator's.
        let settings = uncommented();
        let (others, of_operators) = settings.split_once("[[operator.tokens]]").unwrap();
        let of_operators = of_operators.replace(&"0".repeat(64), &"1".repeat(64));
        write("gateway.toml", &format!("{others}[[operator.tokens]]{of_operators}"));

        let config = Config::read(&directory.path().join("gateway.toml")).unwrap();
        let built = config.build_applications().unwrap();
        assert_eq!((built.len(), built[0].external_senders.len()), (1, 1));
        let warnings = config.warnings(&built, actors::Clock::system().now()).unwrap();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(
            warning.starts_with("applications[0].x509.external_senders[0].certificate: it is not valid now")
        );
        assert_eq!(config.federation.unwrap().peers.len(), 1);
    }
}
