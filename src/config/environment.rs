//! Settings from the environment: `MIMI_GATEWAY__INTERNAL__LISTEN` is `listen` of `[internal]`.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{
    ConfigError,
    rows::{lay_over, refuse},
};

/// The beginning of the variables' names. The second underscore keeps them apart from those that container platforms set for a
/// service of the name `mimi-gateway`, such as `MIMI_GATEWAY_PORT`.
pub(super) const PREFIX: &str = "MIMI_GATEWAY__";
/// Between the names of a table and of a setting in it: settings have single underscores.
const SEPARATOR: &str = "__";

/// Settings of the environment, which override those of a file.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    settings: Table,
    /// The variable of each setting, by its path.
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The settings among the variables of this process.
    ///
    /// # Errors
    /// As [`Environment::of`].
    pub fn of_process() -> Result<Self, ConfigError> {
        let named = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, value))
        });
        let variables = named
            .map(|(name, value)| match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(refuse(name, "is not Unicode")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::of(variables.into_iter())
    }

    /// The settings among these variables, by their names and values. A value is TOML, as in a file: a number, a boolean, a list
    /// or a table; a value that is not TOML is a text.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`] names a variable that sets what another one sets.
    pub fn of(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut environment = Self::default();
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            let parts: Vec<String> = name.split(SEPARATOR).map(str::to_lowercase).collect();
            let path = parts.join(".");
            let is_inside = |other: &String| {
                path == *other
                    || path.starts_with(&format!("{other}."))
                    || other.starts_with(&format!("{path}."))
            };
            if let Some((_, other)) = environment.variables.iter().find(|(other, _)| is_inside(other)) {
                return Err(refuse(
                    variable,
                    format!("sets what {other} sets, or a part of it: use one of them"),
                ));
            }
            let table = parts
                .into_iter()
                .rev()
                .fold(value(&text), |inner, part| Value::Table(Table::from_iter([(part, inner)])));
            if let Value::Table(table) = table {
                lay_over(&mut environment.settings, table);
            }
            environment.variables.insert(path, variable);
        }
        Ok(environment)
    }

    /// Overrides the settings of a file.
    pub(super) fn lay_over(&self, file: &mut Table) {
        lay_over(file, self.settings.clone());
    }

    /// The variable that an error is about, if its member comes from one.
    pub(super) fn variable_of(&self, error: &ConfigError) -> Option<&str> {
        let ConfigError::Malformed { member, .. } = error else { return None };
        let is_of = |path: &str| {
            member.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let found = self.variables.iter().find(|(path, _)| is_of(path));
        found.map(|(_, variable)| variable.as_str())
    }
}

fn value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, ConfigError> {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Environment::of(owned)
    }

    fn read(variables: &[(&str, &str)]) -> Result<Config, String> {
        let file = "[limits]\ngroup_members_max = 5\nproposals_per_commit_max = 6\n";
        let environment = environment(variables).map_err(|error| error.to_string())?;
        Config::parse_over(file, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_override_the_file() {
        let config = read(&[
            ("MIMI_GATEWAY__DATA_DIR", "/var/lib/mimi"),
            ("MIMI_GATEWAY__LOG", "info,access=off"),
            ("MIMI_GATEWAY__DOMAINS", r#"["a.example"]"#),
            ("MIMI_GATEWAY__INTERNAL__LISTEN", "127.0.0.1:0"),
            ("MIMI_GATEWAY__LIMITS__GROUP_MEMBERS_MAX", "7"),
            (
                "MIMI_GATEWAY__APPLICATIONS",
                r#"[{ id = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11", tokens = [] }]"#,
            ),
            ("MIMI_TOKEN", "unrelated"),
            ("MIMI_GATEWAY_PORT", "tcp://10.0.0.1:8080"),
            ("MIMI_GATEWAY_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "unrelated"),
        ])
        .unwrap();
        assert_eq!(config.data_dir.to_string(), "/var/lib/mimi");
        assert_eq!(config.log, "info,access=off");
        assert_eq!(config.domains.len(), 1);
        assert_eq!(config.internal.listen.port(), 0);
        assert_eq!((config.limits.group_members_max, config.limits.proposals_per_commit_max), (7, 6));
        assert_eq!(config.applications.len(), 1);
    }

    #[test]
    fn a_variable_that_is_wrong_is_named() {
        for (variables, expected) in [
            (
                &[("MIMI_GATEWAY__LIMITS__GROUP_MEMBERS_MAX", "many")][..],
                "MIMI_GATEWAY__LIMITS__GROUP_MEMBERS_MAX: limits.group_members_max must be",
            ),
            (
                &[("MIMI_GATEWAY__LISTEN", "127.0.0.1:0")],
                "MIMI_GATEWAY__LISTEN: listen is not a setting of this table",
            ),
            (
                &[("MIMI_GATEWAY__INTERNAL__LISTEN", "here")],
                "MIMI_GATEWAY__INTERNAL__LISTEN: internal.listen must be an IP address",
            ),
            (
                &[("MIMI_GATEWAY__LIMITS", "{}"), ("MIMI_GATEWAY__LIMITS__GROUP_MEMBERS_MAX", "7")],
                "MIMI_GATEWAY__LIMITS__GROUP_MEMBERS_MAX: sets what MIMI_GATEWAY__LIMITS sets, or a part of it",
            ),
            (
                &[("MIMI_GATEWAY__LOG", "info"), ("MIMI_GATEWAY__log", "warn")],
                "MIMI_GATEWAY__log: sets what MIMI_GATEWAY__LOG sets",
            ),
        ] {
            let refused = read(variables).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
        assert_eq!(value("1\nx = 2"), Value::String("1\nx = 2".to_owned()));
        // What the file has wrong is the file's.
        let bad = Config::parse_over("log = 7", &environment(&[("MIMI_GATEWAY__DATA_DIR", "d")]).unwrap());
        assert!(bad.unwrap_err().to_string().starts_with("log (line 1): "));
    }
}
