//! Comparison of application configurations: both gateways must agree before they exchange anything about an
//! application (*Applications*).

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{PoisonError, RwLock},
};

use actors::DomainName;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::trust::ApplicationTrust;
use crate::api::applications::ApplicationConfiguration;

/// The part of an application that the gateways of other domains may know.
#[derive(Debug)]
pub(crate) struct SharedApplication {
    /// The domains of the gateways that may know it.
    pub(crate) federates_with: BTreeSet<DomainName>,
    /// Its ApplicationConfiguration.
    pub(crate) configuration: Map<String, Value>,
    /// The digest of the configuration for the header: the SHA-256 of its canonical JSON, in lower-case hexadecimal digits.
    pub(crate) digest: String,
    /// What it trusts now; `None` if it validates no certificates.
    trust: RwLock<Option<ApplicationTrust>>,
}

impl SharedApplication {
    pub(crate) fn new(
        configuration: &ApplicationConfiguration,
        federates_with: BTreeSet<DomainName>,
    ) -> Result<Self, serde_json::Error> {
        let configuration: Map<String, Value> = serde_json::from_value(serde_json::to_value(configuration)?)?;
        let digest = digest(&configuration)?;
        Ok(Self { federates_with, configuration, digest, trust: RwLock::default() })
    }

    /// What it trusts now.
    pub(crate) fn trust(&self) -> Option<ApplicationTrust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what it trusts from now on.
    pub(super) fn take_trust(&self, trust: Option<ApplicationTrust>) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
    }
}

/// The SHA-256 of JSON without spaces and with sorted members.
fn digest(configuration: &Map<String, Value>) -> Result<String, serde_json::Error> {
    let mut sorted = configuration.clone();
    sorted.sort_keys();
    sorted.values_mut().for_each(Value::sort_all_objects);
    let mut digits = String::new();
    for byte in Sha256::digest(serde_json::to_vec(&sorted)?) {
        // Writing to a text cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(digits)
}

/// The most differing members that are named.
pub(super) const DIFFERENCES_MAX: usize = 32;
/// The longest name of a member in an answer, in bytes; the known ones are much shorter.
const NAME_BYTES_MAX: usize = 128;

/// The name of a member, shortened if a peer made it long.
pub(super) fn shortened_name(name: &str) -> &str {
    name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default()
}

/// The differing members, by their dotted names, sorted, up to a limit. A member that only one of the two has differs.
pub(crate) fn differences(ours: &Map<String, Value>, theirs: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    collect("", ours, theirs, &mut found);
    found
}

fn collect(prefix: &str, ours: &Map<String, Value>, theirs: &Map<String, Value>, found: &mut Vec<String>) {
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        if found.len() >= DIFFERENCES_MAX {
            return;
        }
        let path = format!("{prefix}{}", shortened_name(name));
        match (ours.get(name), theirs.get(name)) {
            (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
                collect(&format!("{path}."), ours, theirs, found);
            }
            (ours, theirs) if ours == theirs => {}
            _ => found.push(shortened_name(&path).to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn check(theirs: Value, expected: &[&str]) {
        let ours = json!({ "id": "1", "identity_configuration": { "type": 2, "parameters": { "a": { "start": 0 }, "b": [1] } } });
        let (ours, theirs) = (object(ours), object(theirs));
        assert_eq!(differences(&ours, &theirs), expected, "{theirs:?}");
        assert_eq!(differences(&theirs, &ours), expected, "{theirs:?}");
        assert_eq!(digest(&ours).unwrap() == digest(&theirs).unwrap(), expected.is_empty());
    }

    #[test]
    fn differences_are_named_by_member() {
        let with = |parameters: Value| json!({ "identity_configuration": { "parameters": parameters, "type": 2 }, "id": "1" });
        check(with(json!({ "b": [1], "a": { "start": 0 } })), &[]);
        check(with(json!({ "b": [1], "a": { "start": 1 } })), &["identity_configuration.parameters.a.start"]);
        check(with(json!({ "b": [1, 2], "a": { "start": 0 } })), &["identity_configuration.parameters.b"]);
        check(
            with(json!({ "b": [1], "c": 1 })),
            &["identity_configuration.parameters.a", "identity_configuration.parameters.c"],
        );
        check(json!({ "id": "2" }), &["id", "identity_configuration"]);
    }

    #[test]
    fn a_peer_cannot_make_the_list_long() {
        let mut theirs = Map::new();
        for number in 0..10_000 {
            theirs.insert(format!("{number:05}{}", "ä".repeat(10_000 / (number + 1))), json!(1));
        }
        let found = differences(&Map::new(), &theirs);
        assert_eq!(found.len(), DIFFERENCES_MAX);
        assert!(found.iter().all(|name| name.len() <= NAME_BYTES_MAX), "{found:?}");
    }
}
