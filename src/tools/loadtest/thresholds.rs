//! Thresholds for the figures of a run, such as `accepted_p99>20ms`: the run fails if one of them holds.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::report::{LatencyRow, RunReport};

/// Whether a figure is beyond a limit.
type Comparison = fn(f64, f64) -> bool;
/// A figure of a run; `None` if it was not measured.
type FigureOf = fn(&RunReport) -> Option<f64>;
/// A percentile of a latency, in microseconds.
type PercentileOf = fn(&LatencyRow) -> u64;

/// The operators; a longer one before its prefix.
const OPERATORS: [(&str, Comparison); 4] = [
    (">=", |measured, limit| measured >= limit),
    ("<=", |measured, limit| measured <= limit),
    (">", |measured, limit| measured > limit),
    ("<", |measured, limit| measured < limit),
];

/// The figures by name, with their unit.
const FIGURES: [(&str, Unit, FigureOf); 10] = [
    ("accepted", Unit::Number, |run| Some(number(run.accepted))),
    ("accepted_per_s", Unit::Number, |run| Some(run.accepted_per_s)),
    ("conflict_rate", Unit::Percent, |run| Some(run.conflict_rate * 100.0)),
    ("attempts_mean", Unit::Number, |run| Some(run.attempts_mean)),
    ("attempts_max", Unit::Number, |run| Some(f64::from(run.attempts_max))),
    ("fairness", Unit::Number, |run| run.fairness),
    ("given_up", Unit::Number, |run| Some(number(run.given_up + run.given_up_others))),
    ("dropped", Unit::Number, |run| Some(number(run.shed))),
    ("errors", Unit::Number, |run| Some(number(run.errors.values().sum()))),
    ("failed_players", Unit::Number, |run| Some(number(run.failed_players.len() as u64))),
];

/// The latencies by name, with the name of their row.
const LATENCIES: [(&str, &str); 10] = [
    ("accepted", "commit accepted"),
    ("refused", "commit refused, too late"),
    ("resolution", "resolution: from losing to having won"),
    ("settled", "from due to having won, all attempts"),
    ("lag", "lag of the generator"),
    ("proposals", "proposals"),
    ("key_packages", "key-packages"),
    ("welcomes", "welcomes"),
    ("reads", "reads"),
    ("joins", "joins"),
];

/// The percentiles of a latency.
const PERCENTILES: [(&str, PercentileOf); 5] = [
    ("p50", |row| row.p50_us),
    ("p90", |row| row.p90_us),
    ("p99", |row| row.p99_us),
    ("p999", |row| row.p999_us),
    ("max", |row| row.max_us),
];

/// The units of times, in microseconds; a longer one before its suffix.
const TIMES: [(&str, f64); 4] = [("ms", 1e3), ("us", 1.0), ("µs", 1.0), ("s", 1e6)];

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Number,
    Percent,
    Microseconds,
}

/// The figure that a threshold looks at.
#[derive(Clone, Copy, Debug)]
enum Measure {
    Figure(FigureOf),
    Latency(&'static str, PercentileOf),
}

/// A condition under which a run fails.
#[derive(Clone, Debug)]
pub struct Threshold {
    text: String,
    measure: Measure,
    unit: Unit,
    holds: Comparison,
    limit: f64,
}

/// A threshold and the figure that it was compared with.
#[derive(Clone, Debug, Serialize)]
pub struct ThresholdOutcome {
    /// The threshold, as it was given.
    pub fail_if: String,
    /// The figure with its unit; `None` if nothing was measured, which fails the run as well.
    pub measured: Option<String>,
    /// Whether the run failed by it.
    pub is_broken: bool,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let at = text.find(['<', '>']).ok_or_else(|| {
            format!("`{text}` has no comparison (>, >=, <, <=); it must be like `accepted_p99>20ms`")
        })?;
        let (name, rest) = text.split_at(at);
        let compared = OPERATORS.iter().find_map(|(sign, holds)| Some((rest.strip_prefix(sign)?, *holds)));
        let (value, holds) = compared.ok_or_else(|| format!("`{text}` has no comparison"))?;
        let (measure, unit) = measure(name.trim())?;
        let limit = limit(value.trim(), unit).ok_or_else(|| {
            let example = match unit {
                Unit::Number => "a number such as 10",
                Unit::Percent => "a percentage such as 5%",
                Unit::Microseconds => "a time such as 20ms, 500us or 2s",
            };
            format!("`{}` is compared with {example}, not with `{}`", name.trim(), value.trim())
        })?;
        Ok(Self { text: text.to_owned(), measure, unit, holds, limit })
    }
}

fn measure(name: &str) -> Result<(Measure, Unit), String> {
    if let Some((_, unit, of)) = FIGURES.iter().find(|(figure, ..)| *figure == name) {
        return Ok((Measure::Figure(*of), *unit));
    }
    let latency = name.rsplit_once('_').and_then(|(latency, percentile)| {
        let (_, row) = LATENCIES.iter().find(|(name, _)| *name == latency)?;
        let (_, of) = PERCENTILES.iter().find(|(name, _)| *name == percentile)?;
        Some((Measure::Latency(row, *of), Unit::Microseconds))
    });
    latency.ok_or_else(|| {
        format!(
            "there is no figure `{name}`; there are {}, and the latencies {}, each with _{}",
            FIGURES.map(|(name, ..)| name).join(", "),
            LATENCIES.map(|(name, _)| name).join(", "),
            PERCENTILES.map(|(name, _)| name).join(", _"),
        )
    })
}

/// The limit in the figure's unit.
fn limit(text: &str, unit: Unit) -> Option<f64> {
    let (number, factor) = match unit {
        Unit::Number => (text, 1.0),
        Unit::Percent => (text.strip_suffix('%')?, 1.0),
        Unit::Microseconds => {
            TIMES.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?
        }
    };
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

impl Threshold {
    /// Compares it with the figure of a run.
    pub(super) fn judge(&self, run: &RunReport) -> ThresholdOutcome {
        let measured = match self.measure {
            Measure::Figure(of) => of(run),
            Measure::Latency(row, of) => run.latency(row).map(|row| number(of(row))),
        };
        ThresholdOutcome {
            fail_if: self.text.clone(),
            measured: measured.map(|measured| match self.unit {
                Unit::Number => {
                    format!("{measured:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
                }
                Unit::Percent => format!("{measured:.2}%"),
                Unit::Microseconds => format!("{:.3}ms", measured / 1e3),
            }),
            is_broken: measured.is_none_or(|measured| (self.holds)(measured, self.limit)),
        }
    }
}

impl fmt::Display for ThresholdOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_broken { "THRESHOLD BROKEN" } else { "threshold kept" };
        let measured = self.measured.as_deref().unwrap_or("nothing");
        write!(f, "{state}: fails if {}; measured {measured}", self.fail_if)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and microseconds of a run are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_read_strictly() {
        fn check(text: &str, expected: Result<(Unit, f64), &str>) {
            match (text.parse::<Threshold>(), expected) {
                (Ok(threshold), Ok((unit, limit))) => {
                    assert_eq!(threshold.unit, unit, "{text}");
                    assert!((threshold.limit - limit).abs() < 1e-9, "{text}: {}", threshold.limit);
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (outcome, _) => panic!("{text}: {outcome:?}, expected {expected:?}"),
            }
        }
        check("accepted_p99>20ms", Ok((Unit::Microseconds, 20_000.0)));
        check(" accepted_max >= 1.5s ", Ok((Unit::Microseconds, 1_500_000.0)));
        check("key_packages_p999>250us", Ok((Unit::Microseconds, 250.0)));
        check("reads_p50>250µs", Ok((Unit::Microseconds, 250.0)));
        check("conflict_rate>5%", Ok((Unit::Percent, 5.0)));
        check("accepted_per_s<100", Ok((Unit::Number, 100.0)));
        check("errors>0", Ok((Unit::Number, 0.0)));
        check("accepted_p99", Err("has no comparison"));
        check("accepted_p99=20ms", Err("has no comparison"));
        check("accepted_p99>20", Err("a time such as 20ms"));
        check("accepted_p99>20%", Err("a time such as 20ms"));
        check("conflict_rate>5", Err("a percentage such as 5%"));
        check("errors>0ms", Err("a number such as 10"));
        check("errors>-1", Err("a number such as 10"));
        check("errors>NaN", Err("a number such as 10"));
        check("errors>>1", Err("a number such as 10"));
        check("accepted_p98>1ms", Err("there is no figure `accepted_p98`; there are accepted,"));
        check(">1", Err("there is no figure ``"));
    }

    #[test]
    fn operators_compare_with_the_limit() {
        for (sign, below, equal, above) in [
            (">", false, false, true),
            (">=", false, true, true),
            ("<", true, false, false),
            ("<=", true, true, false),
        ] {
            let threshold: Threshold = format!("errors{sign}5").parse().unwrap();
            let held = [4.0, 5.0, 6.0].map(|measured| (threshold.holds)(measured, threshold.limit));
            assert_eq!(held, [below, equal, above], "{sign}");
        }
    }
}
