//! Two sets of figures side by side, as ratios; where a measurement was repeated, with its noise.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::Read as _,
    path::Path,
};

use serde_json::Value;

use super::{ToolError, options::CompareOptions};

/// The greatest size of a file with figures.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The most figures of a file; a sweep has a few hundred.
const FIGURES_MAX: usize = 10_000;
/// The longest name of a figure, in characters; longer ones are cut.
const NAME_MAX: usize = 100;
/// The longest origin and condition, in characters; longer ones are cut.
const TEXT_MAX: usize = 1000;
/// The figures of a run that are compared, besides its latencies.
const RUN_FIGURES: [&str; 6] =
    ["accepted_per_s", "conflict_rate", "attempts_mean", "fairness", "given_up", "shed"];
/// The percentiles that are compared.
const PERCENTILES: [&str; 3] = ["p50_us", "p99_us", "max_us"];
/// The parts of a sweep, each with the parameter that it varies.
const SWEEP_PARTS: [&str; 3] = ["contention", "members", "connections"];

/// The kind of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReportKind {
    Run,
    Sweep,
    Capacity,
}

impl fmt::Display for ReportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "a run",
            Self::Sweep => "a sweep",
            Self::Capacity => "a capacity measurement",
        })
    }
}

/// One side of a comparison: what is compared of one file.
#[derive(Debug)]
struct Side {
    kind: ReportKind,
    /// Names in the order of the report, each with one value per repetition.
    values: Vec<(String, Vec<f64>)>,
    /// The conditions of the measurement, which should be the same on both sides.
    conditions: BTreeMap<String, String>,
    /// Why its figures say less than they seem to.
    doubts: Vec<&'static str>,
    origin: String,
}

/// Reads both files and makes the table.
pub(super) fn compare(options: &CompareOptions) -> Result<String, ToolError> {
    let (before, after) = (Side::read(&options.before)?, Side::read(&options.after)?);
    table(&before, &after)
}

impl Side {
    fn read(path: &Path) -> Result<Self, ToolError> {
        let wrong = |reason: String| ToolError::Options(format!("{}: {reason}", path.display()));
        let mut json = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut json));
        let length = read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if u64::try_from(length).is_ok_and(|length| length > FILE_BYTES_MAX) {
            return Err(wrong(format!("is longer than {FILE_BYTES_MAX} bytes")));
        }
        let report: Value =
            serde_json::from_slice(&json).map_err(|error| wrong(format!("is not JSON: {error}")))?;
        Self::of(&report)
            .ok_or_else(|| wrong("has no figures of a load test; make it with `loadtest --json FILE`".into()))
    }

    fn of(report: &Value) -> Option<Self> {
        let (mut values, mut runs) = (Vec::new(), Vec::new());
        let kind = if let Some(rounds) = report.get("rounds").and_then(Value::as_array) {
            for round in rounds {
                add_numbers("", round, &mut values);
            }
            ReportKind::Capacity
        } else if report.get("latencies").is_some() {
            add_run("", report, &mut values);
            runs.push(report);
            ReportKind::Run
        } else {
            for part in SWEEP_PARTS {
                for run in report.get(part)?.as_array()? {
                    let varied = run.get("shape")?.get(part)?;
                    add_run(&format!("{part} {varied}: "), run, &mut values);
                    runs.push(run);
                }
            }
            ReportKind::Sweep
        };
        if values.is_empty() || values.len() > FIGURES_MAX {
            return None;
        }
        let text = |name: &str| Some(plain(report.pointer(&format!("/origin/{name}"))?.as_str()?, TEXT_MAX));
        let origin = match (text("started"), text("version"), text("command")) {
            (Some(started), Some(version), Some(command)) => {
                format!("{started}, version {version}: {command}")
            }
            _ => "unknown origin".to_owned(),
        };
        runs.push(report);
        let (conditions, doubts) = (conditions(kind, report, &runs), doubts(report, &runs));
        Some(Self { kind, values, conditions, doubts, origin })
    }
}

/// The conditions of a measurement; of a sweep, those that all of its runs share.
fn conditions(kind: ReportKind, report: &Value, runs: &[&Value]) -> BTreeMap<String, String> {
    let mut conditions = BTreeMap::new();
    let mut add = |name: String, value: &Value| {
        conditions.insert(plain(&name, NAME_MAX), plain(&value.to_string(), TEXT_MAX));
    };
    let objects = ["shape", "machine"].map(|part| (part, report.get(part).and_then(Value::as_object)));
    for (part, object) in objects {
        for (name, value) in object.into_iter().flatten() {
            // These differ from run to run and say nothing about the measurement.
            if !matches!(name.as_str(), "url" | "gateway" | "load_average") {
                add(format!("{part}.{name}"), value);
            }
        }
    }
    for name in ["groups", "members", "connections", "signatures_per_commit"] {
        if let Some(value) = report.get(name).filter(|value| value.is_number()) {
            add(name.to_owned(), value);
        }
    }
    let first = runs.first().and_then(|run| run.get("shape"));
    if kind == ReportKind::Sweep {
        for name in ["duration_s", "seed"] {
            if let Some(value) = first.and_then(|shape| shape.get(name)) {
                add(format!("shape.{name}"), value);
            }
        }
    }
    let gateway = first.and_then(|shape| shape.get("gateway")).or_else(|| report.get("gateway"));
    if let Some(gateway) = gateway.and_then(Value::as_str) {
        add("gateway".to_owned(), &Value::from(without_place(gateway)));
    }
    conditions
}

/// The description of a gateway without its directory, which is another one in each run.
fn without_place(gateway: &str) -> String {
    let (kind, rest) = gateway.split_once(',').unwrap_or((gateway, ""));
    rest.rfind('(').and_then(|at| rest.get(at..)).map_or_else(|| kind.to_owned(), |at| format!("{kind} {at}"))
}

/// What speaks against the figures of a report.
fn doubts(report: &Value, runs: &[&Value]) -> Vec<&'static str> {
    let any = |lists: &[&str]| {
        let mut all = runs.iter().flat_map(|run| lists.iter().map(|list| run.pointer(list)));
        all.any(|list| list.and_then(Value::as_array).is_some_and(|list| !list.is_empty()))
    };
    let doubts = [
        (report.get("is_interrupted") == Some(&Value::Bool(true)), "was interrupted"),
        (any(&["/failed_players"]), "had players that failed"),
        (any(&["/violations", "/proof/violations", "/proof/unproven"]), "is not proven"),
    ];
    doubts.into_iter().filter_map(|(is_so, doubt)| is_so.then_some(doubt)).collect()
}

/// Text of a file as it is printed: without control characters, which a terminal would obey, and of bounded length.
fn plain(text: &str, characters: usize) -> String {
    let shown = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    text.chars().take(characters).map(shown).collect()
}

/// Adds all numbers of a value under their names.
fn add_numbers(name: &str, value: &Value, values: &mut Vec<(String, Vec<f64>)>) {
    if let Some(object) = value.as_object() {
        for (member, value) in object {
            let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
            add_numbers(&name, value, values);
        }
    } else if let Some(number) = value.as_f64() {
        add(name.to_owned(), number, values);
    }
}

fn add_run(prefix: &str, run: &Value, values: &mut Vec<(String, Vec<f64>)>) {
    for name in RUN_FIGURES {
        if let Some(number) = run.get(name).and_then(Value::as_f64) {
            add(format!("{prefix}{name}"), number, values);
        }
    }
    for row in run.get("latencies").and_then(Value::as_array).into_iter().flatten() {
        let Some(what) = row.get("what").and_then(Value::as_str) else { continue };
        for percentile in PERCENTILES {
            if let Some(number) = row.get(percentile).and_then(Value::as_f64) {
                add(format!("{prefix}{what}, {percentile}"), number, values);
            }
        }
    }
}

/// Adds a figure, unless there are too many already.
fn add(name: String, number: f64, values: &mut Vec<(String, Vec<f64>)>) {
    if values.len() > FIGURES_MAX {
        return;
    }
    let name = plain(&name, NAME_MAX);
    match values.iter_mut().find(|(known, _)| *known == name) {
        Some((_, numbers)) => numbers.push(number),
        None => values.push((name, vec![number])),
    }
}

fn table(before: &Side, after: &Side) -> Result<String, ToolError> {
    if before.kind != after.kind {
        return Err(ToolError::Options(format!(
            "only figures of one kind can be compared; these are of {} and of {}",
            before.kind, after.kind
        )));
    }
    let mut out = format!("A  {}\nB  {}\n", before.origin, after.origin);
    for (side, doubts) in [("A", &before.doubts), ("B", &after.doubts)] {
        doubts.iter().for_each(|doubt| out.push_str(&format!("{side} {doubt}\n")));
    }
    let names: BTreeSet<_> = before.conditions.keys().chain(after.conditions.keys()).collect();
    for name in names {
        let of = |side: &Side| side.conditions.get(name).map_or("unknown".to_owned(), String::clone);
        let (old, new) = (of(before), of(after));
        if old != new {
            out.push_str(&format!("not the same: {name} is {old} in A and {new} in B\n"));
        }
    }
    let names = before.values.iter().chain(&after.values).map(|(name, _)| name.chars().count());
    let width = names.max().unwrap_or_default();
    out.push_str(&format!("\n{:<width$}{:>14}{:>14}{:>9}\n", "", "A", "B", "B / A"));
    let mut has_noise = false;
    for (name, old) in &before.values {
        let Some((_, new)) = after.values.iter().find(|(other, _)| other == name) else {
            out.push_str(&format!("{name:<width$}{:>14.3}{:>14}\n", median(old), "-"));
            continue;
        };
        let (a, b) = (median(old), median(new));
        let ratio = if a == 0.0 { "-".to_owned() } else { format!("{:.3}", b / a) };
        let noise = noise(old, new);
        has_noise |= noise.is_some();
        let noise = noise.map_or_else(String::new, |noise| format!("  {noise}"));
        out.push_str(&format!("{name:<width$}{a:>14.3}{b:>14.3}{ratio:>9}{noise}\n"));
    }
    for (name, new) in &after.values {
        if !before.values.iter().any(|(other, _)| other == name) {
            out.push_str(&format!("{name:<width$}{:>14}{:>14.3}\n", "-", median(new)));
        }
    }
    out.push_str(if has_noise {
        "\nA and B are medians over rounds. A difference is within the noise if the ranges of the rounds overlap.\n"
    } else {
        "\nNothing was repeated, so the noise is unknown: repeat both runs by turns before you believe a ratio.\n"
    });
    Ok(out)
}

/// Whether the difference is more than that between repetitions; `None` if either side has none.
fn noise(old: &[f64], new: &[f64]) -> Option<String> {
    if old.len().min(new.len()) < 2 {
        return None;
    }
    let range = |values: &[f64]| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        (low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    };
    let (old, new) = (range(old), range(new));
    let overlap = old.0 <= new.1 && new.0 <= old.1;
    let verdict = if overlap { "within the noise" } else { "beyond the noise" };
    Some(format!("{verdict} ({:.3} to {:.3}, {:.3} to {:.3})", old.0, old.1, new.0, new.1))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compared(before: &Value, after: &Value) -> String {
        table(&Side::of(before).unwrap(), &Side::of(after).unwrap()).unwrap()
    }

    /// The words of the line that begins with a name.
    fn line<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
        let line = table
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}: {table}"));
        line.split_whitespace().collect()
    }

    #[test]
    fn runs_are_compared_by_ratio() {
        let run = |accepted: f64, p99: u64, members: u32| {
            json!({
                "shape": {"members": members, "url": accepted.to_string()},
                "accepted_per_s": accepted,
                "given_up": 0,
                "latencies": [{"what": "commit accepted", "p99_us": p99}],
            })
        };
        let table = compared(&run(50.0, 2000, 10), &run(75.0, 1000, 10));
        assert_eq!(line(&table, "accepted_per_s"), ["50.000", "75.000", "1.500"]);
        assert_eq!(line(&table, "commit accepted, p99_us"), ["2000.000", "1000.000", "0.500"]);
        assert_eq!(line(&table, "given_up"), ["0.000", "0.000", "-"]);
        assert!(table.contains("the noise is unknown") && !table.contains("not the same"), "{table}");
        let table = compared(&run(50.0, 2000, 10), &run(75.0, 1000, 12));
        assert!(table.contains("not the same: shape.members is 10 in A and 12 in B"), "{table}");
    }

    #[test]
    fn what_speaks_against_a_ratio_is_told() {
        let run = |gateway: &str| {
            json!({
                "shape": {"gateway": gateway},
                "accepted_per_s": 1.0,
                "latencies": [],
            })
        };
        let own = "a gateway in this process, durable writes in /tmp/a,b (ext4)";
        let table = compared(&run(own), &run("a gateway in this process, durable writes in /srv/c (ext4)"));
        assert!(!table.contains("not the same"), "{table}");
        let table = compared(&run(own), &run("a gateway that was running already"));
        assert!(
            table.contains(
                "gateway is \"a gateway in this process (ext4)\" in A and \"a gateway that was running already\""
            ),
            "{table}"
        );
        let mut other = run(own);
        other["is_interrupted"] = true.into();
        other["failed_players"] = json!(["lost"]);
        other["proof"] = json!({"violations": [], "unproven": ["a group"]});
        other["shape"]["seed"] = 2.into();
        let table = compared(&run(own), &other);
        for part in [
            "B was interrupted\n",
            "B had players that failed\n",
            "B is not proven\n",
            "shape.seed is unknown in A and 2 in B",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
        assert!(!table.contains("A was") && !table.contains("A is not"), "{table}");
    }

    #[test]
    fn runs_of_a_sweep_are_compared_by_what_varies() {
        let sweep = |duration: f64, accepted: f64| {
            let run = |contention: u32| {
                json!({
                    "shape": {"contention": contention, "members": 2, "connections": 64, "duration_s": duration},
                    "accepted_per_s": accepted * f64::from(contention),
                    "proof": {"violations": ["two winners"]},
                })
            };
            json!({"contention": [run(1), run(2)], "members": [run(1)], "connections": []})
        };
        let table = compared(&sweep(1.0, 10.0), &sweep(2.0, 20.0));
        assert_eq!(line(&table, "contention 2: accepted_per_s"), ["20.000", "40.000", "2.000"]);
        assert_eq!(line(&table, "members 2: accepted_per_s"), ["10.000", "20.000", "2.000"]);
        assert!(table.contains("not the same: shape.duration_s is 1.0 in A and 2.0 in B"), "{table}");
        assert!(table.contains("A is not proven\nB is not proven\n"), "{table}");
    }

    #[test]
    fn names_of_a_file_do_no_harm() {
        let run = |what: &str| json!({"latencies": [{"what": what, "p50_us": 1}]});
        let table = compared(&run(&"x".repeat(70_000)), &run("\u{1b}[31mred"));
        assert!(!table.contains('\u{1b}') && table.contains("[31mred, p50_us"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= NAME_MAX + 37), "{table}");
        let figures =
            json!({"rounds": [(0..=FIGURES_MAX).map(|n| (n.to_string(), json!(1))).collect::<Value>()]});
        assert!(Side::of(&figures).is_none());
    }

    #[test]
    fn rounds_tell_the_noise() {
        let capacity = |rounds: [f64; 3]| {
            let rounds: Vec<_> = rounds.iter().map(|per_s| json!({"accepted": {"per_s": per_s}})).collect();
            json!({"rounds": rounds, "groups": 64})
        };
        let table = compared(&capacity([10.0, 30.0, 20.0]), &capacity([25.0, 40.0, 35.0]));
        assert_eq!(line(&table, "accepted.per_s")[..3], ["20.000", "35.000", "1.750"]);
        assert!(table.contains("within the noise (10.000 to 30.000, 25.000 to 40.000)"), "{table}");
        let table = compared(&capacity([10.0, 30.0, 20.0]), &capacity([31.0, 40.0, 35.0]));
        assert!(table.contains("beyond the noise"), "{table}");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert!(Side::of(&json!({"contention": []})).is_none());
        assert!(Side::of(&json!([])).is_none());
        assert!(Side::of(&json!({"latencies": 3})).is_none());
        let (run, capacity) =
            (json!({"latencies": [], "given_up": 0}), json!({"rounds": [{"accepted": {"per_s": 1.0}}]}));
        let refused = table(&Side::of(&run).unwrap(), &Side::of(&capacity).unwrap()).unwrap_err();
        assert!(refused.to_string().contains("of a run and of a capacity measurement"), "{refused}");
    }

    #[test]
    fn a_median_is_the_middle() {
        for (values, expected) in [(&[][..], 0.0), (&[3.0], 3.0), (&[3.0, 1.0], 2.0), (&[9.0, 1.0, 2.0], 2.0)]
        {
            assert!((median(values) - expected).abs() < 1e-9, "{values:?}");
        }
    }
}
