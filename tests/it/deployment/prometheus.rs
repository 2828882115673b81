//! The rules and the dashboard, compared with the metrics in docs/operating.md, which are those of `/metrics`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use super::skipped;
use crate::contract::metrics::{Documented, OPERATING, documented};

const ALERTS: &str = include_str!("../../../deploy/alerts.yml");
const ALERT_TESTS: &str = include_str!("../../../deploy/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana.json");

/// Functions and keywords that the queries use.
const WORDS: [&str; 9] =
    ["by", "changes", "histogram_quantile", "increase", "max", "min_over_time", "rate", "sum", "time"];
/// What Prometheus adds to all samples.
const LABELS_OF_PROMETHEUS: [&str; 2] = ["instance", "job"];
/// What Prometheus records itself.
const METRIC_OF_PROMETHEUS: &str = "up";

/// The names in a query.
#[derive(Debug, Default, PartialEq)]
struct Names<'a> {
    /// Each metric with the labels by which its series are selected.
    metrics: Vec<(&'a str, Vec<&'a str>)>,
    /// The labels by which series are grouped.
    grouped: Vec<&'a str>,
    /// Functions and keywords.
    words: Vec<&'a str>,
}

/// Reads the names in a query of Prometheus's language, as far as the files use it.
fn names(query: &str) -> Names<'_> {
    let mut names = Names::default();
    let (mut rest, mut in_braces, mut in_grouping) = (query, false, false);
    while let Some(first) = rest.chars().next() {
        let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | ':');
        let length = match first {
            '"' => rest[1..].find('"').expect(query) + 2,
            '[' => rest.find(']').expect(query) + 1,
            _ if first.is_ascii_alphanumeric() || first == '_' => {
                rest.find(|character| !is_part(character)).unwrap_or(rest.len())
            }
            _ => first.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        rest = after;
        match first {
            '{' => in_braces = true,
            '}' => in_braces = false,
            ')' => in_grouping = false,
            _ if !first.is_ascii_alphabetic() => {}
            _ if in_braces => names.metrics.last_mut().expect(query).1.push(part),
            _ if in_grouping => names.grouped.push(part),
            _ if part == METRIC_OF_PROMETHEUS || part.contains('_') && !WORDS.contains(&part) => {
                names.metrics.push((part, Vec::new()));
            }
            _ => {
                in_grouping = part == "by";
                names.words.push(part);
            }
        }
    }
    names
}

/// The labels of a metric or of a part of a histogram, if it is shown.
fn labels_of<'a>(documented: &'a Documented, name: &str) -> Option<BTreeSet<&'a str>> {
    let labels = |labels: &'a BTreeSet<String>| {
        labels.iter().map(String::as_str).chain(LABELS_OF_PROMETHEUS).collect()
    };
    if name == METRIC_OF_PROMETHEUS {
        return Some(LABELS_OF_PROMETHEUS.into());
    }
    if let Some((kind, found)) = documented.get(name) {
        return (kind != "histogram").then(|| labels(found));
    }
    let (family, part) = name.rsplit_once('_')?;
    let (kind, found) = documented.get(family)?;
    let mut found: BTreeSet<&str> = labels(found);
    if part == "bucket" {
        found.insert("le");
    }
    (kind == "histogram" && matches!(part, "bucket" | "count" | "sum")).then_some(found)
}

/// Why a query cannot find anything.
fn fault(query: &str, documented: &Documented) -> Option<String> {
    let names = names(query);
    let mut all = BTreeSet::new();
    for (metric, selected) in &names.metrics {
        let Some(labels) = labels_of(documented, metric) else {
            return Some(format!("{metric} is not shown"));
        };
        if let Some(label) = selected.iter().find(|label| !labels.contains(*label)) {
            return Some(format!("{metric} has no label {label}"));
        }
        all.extend(labels);
    }
    if names.metrics.is_empty() {
        return Some("it names no metric".to_owned());
    }
    let grouped = names.grouped.iter().find(|label| !all.contains(*label));
    let word = names.words.iter().find(|word| !WORDS.contains(word));
    grouped
        .map(|label| format!("no metric has the label {label}"))
        .or(word.map(|word| format!("{word} is unknown")))
}

#[test]
fn faults_of_queries_are_found() {
    let documented = documented();
    let check = |query: &str, expected: Option<&str>| {
        assert_eq!(fault(query, &documented).as_deref(), expected, "{query}");
    };
    check("mimi_gateway_ready == 0", None);
    check("mimi_gateway_read == 0", Some("mimi_gateway_read is not shown"));
    check("up{job=\"mimi-gateway\"} == 0", None);
    check("mimi_gateway_peer_reachable{instance=~\"$instance\",peer!=\"up{\"} < 1", None);
    check("mimi_gateway_ready{peer=\"x\"}", Some("mimi_gateway_ready has no label peer"));
    check("sum by (outcome, reason) (rate(mimi_gateway_commits_total[5m])) / 2", None);
    check("sum by (route) (rate(mimi_gateway_commits_total[5m]))", Some("no metric has the label route"));
    check("median(mimi_gateway_ready)", Some("median is unknown"));
    check("time() - 14 * 86400", Some("it names no metric"));
    let histogram = "mimi_gateway_store_write_duration_seconds";
    check(histogram, Some(&format!("{histogram} is not shown")));
    check(
        &format!("histogram_quantile(0.99, sum by (le) (rate({histogram}_bucket[$__rate_interval])))"),
        None,
    );
    check(&format!("sum by (le) ({histogram}_count)"), Some("no metric has the label le"));
    check("mimi_gateway_ready_count", Some("mimi_gateway_ready_count is not shown"));
}

#[test]
fn the_queries_of_the_dashboard_find_metrics() {
    let documented = documented();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut queries, mut ids) = (0, BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has an id of its own");
        for target in panel["targets"].as_array().map_or(&[][..], Vec::as_slice) {
            let query = target["expr"].as_str().unwrap();
            assert_eq!(fault(query, &documented), None, "{title}: {query}");
            assert!(query.contains("instance=~\"$instance\""), "{title} is of the chosen gateways: {query}");
            queries += 1;
        }
    }
    assert!(queries > 30, "only {queries} queries");
}

#[test]
fn every_metric_is_on_the_dashboard() {
    for name in documented().keys() {
        assert!(DASHBOARD.contains(name.as_str()), "{name}");
    }
}

/// The queries of each alert.
fn alerts() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut alerts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rule in ALERTS.split("\n      - alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let query = rule.lines().find_map(|line| line.strip_prefix("        expr: ")).expect(name);
        let runbook = format!("          runbook: docs/operating.md#{}", name.to_lowercase());
        assert!(rule.lines().any(|line| line == runbook), "{name} names its section");
        alerts.entry(name).or_default().push(query);
    }
    assert_eq!(alerts.values().flatten().count(), ALERTS.matches("alert:").count(), "all rules are read");
    alerts
}

#[test]
fn the_queries_of_the_alerts_find_metrics() {
    let documented = documented();
    for (name, queries) in alerts() {
        for query in queries {
            assert_eq!(fault(query, &documented), None, "{name}: {query}");
        }
    }
}

#[test]
fn every_alert_has_instructions_and_a_test() {
    let instructions: BTreeSet<&str> = OPERATING
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|heading| heading.starts_with("MimiGateway"))
        .collect();
    let alerts: BTreeSet<&str> = alerts().into_keys().collect();
    assert_eq!(instructions, alerts, "docs/operating.md, and the rules");
    for name in alerts {
        let tests: Vec<&str> =
            ALERT_TESTS.split("alertname: ").skip(1).filter(|test| test.starts_with(name)).collect();
        assert!(tests.iter().any(|test| test.contains("exp_labels")), "{name} is tested to fire");
    }
}

#[test]
fn prometheus_accepts_the_rules_and_their_tests() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(deploy).output() else {
            return skipped("the check of the alert rules by Prometheus's tool: promtool is not installed");
        };
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("SUCCESS"), "{arguments:?}: {said}");
    }
}
