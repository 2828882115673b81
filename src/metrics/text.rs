//! The text format of Prometheus, version 0.0.4: families of samples, each with its type and a line of help.

use std::fmt::{Display, Write as _};

use snapshots::Distribution;

/// The media type of the format.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) kind: MetricKind,
    /// Its meaning, in one line.
    pub(crate) help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// It only grows, and begins at 0 with the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// The numbers of observations up to some bounds, with their sum.
    Histogram,
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Labels and their values.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text under construction.
#[derive(Debug, Default)]
pub(crate) struct MetricsText(String);

/// A family whose samples are written.
#[derive(Debug)]
pub(crate) struct Family<'a> {
    metric: Metric,
    text: &'a mut String,
}

impl MetricsText {
    /// Begins a family; all of its samples follow.
    pub(crate) fn family(&mut self, metric: Metric) -> Family<'_> {
        let Metric { name, kind, help } = metric;
        write_line(&mut self.0, format_args!("# HELP {name} {}", escaped(help, false)));
        write_line(&mut self.0, format_args!("# TYPE {name} {}", kind.name()));
        Family { metric, text: &mut self.0 }
    }

    /// A family with one sample that has no labels.
    pub(crate) fn one(&mut self, metric: Metric, value: impl Display) {
        self.family(metric).sample(&[], value);
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Writes a sample of a counter or a gauge.
    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        write_line(self.text, format_args!("{}{} {value}", self.metric.name, Braced(labels, None)));
        self
    }

    /// Writes the samples of a histogram, in seconds.
    pub(crate) fn histogram(&mut self, labels: Labels<'_>, distribution: &Distribution) -> &mut Self {
        let name = self.metric.name;
        for (bound, count) in &distribution.buckets {
            let bound = bound.as_secs_f64().to_string();
            write_line(self.text, format_args!("{name}_bucket{} {count}", Braced(labels, Some(&bound))));
        }
        let Distribution { count, sum, .. } = distribution;
        write_line(self.text, format_args!("{name}_bucket{} {count}", Braced(labels, Some("+Inf"))));
        write_line(self.text, format_args!("{name}_sum{} {}", Braced(labels, None), sum.as_secs_f64()));
        write_line(self.text, format_args!("{name}_count{} {count}", Braced(labels, None)));
        self
    }
}

/// Labels in braces, with the bound of a bucket if there is one.
struct Braced<'a>(Labels<'a>, Option<&'a str>);

impl Display for Braced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(labels, bound) = self;
        let bound = bound.map(|bound| ("le", bound));
        for (place, (name, value)) in labels.iter().copied().chain(bound).enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            write!(f, "{before}{name}=\"{}\"", escaped(value, true))?;
        }
        if labels.is_empty() && bound.is_none() { Ok(()) } else { f.write_char('}') }
    }
}

/// A help text or the value of a label, with what would end it escaped.
fn escaped(text: &str, is_value: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if is_value { text.replace('"', "\\\"") } else { text }
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = MetricsText::default();
        let metric = |name, kind, help| Metric { name, kind, help };
        text.one(metric("a", MetricKind::Gauge, "A \\ and\na line."), 1.5);
        text.family(metric("b_total", MetricKind::Counter, "Plain."))
            .sample(&[("path", "/x \"y\"\\\n"), ("c", "d")], 7_u64)
            .sample(&[], 0);
        let distribution = Distribution {
            buckets: vec![(Duration::from_micros(250), 1), (Duration::from_secs(10), 2)],
            count: 3,
            sum: Duration::from_millis(20_500),
        };
        text.family(metric("c_seconds", MetricKind::Histogram, "Times."))
            .histogram(&[("e", "f")], &distribution);
        let expected = r#"# HELP a A \\ and\na line.
# TYPE a gauge
a 1.5
# HELP b_total Plain.
# TYPE b_total counter
b_total{path="/x \"y\"\\\n",c="d"} 7
b_total 0
# HELP c_seconds Times.
# TYPE c_seconds histogram
c_seconds_bucket{e="f",le="0.00025"} 1
c_seconds_bucket{e="f",le="10"} 2
c_seconds_bucket{e="f",le="+Inf"} 3
c_seconds_sum{e="f"} 20.5
c_seconds_count{e="f"} 3
"#;
        assert_eq!(text.finish(), expected);
    }
}
