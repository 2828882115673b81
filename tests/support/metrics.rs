//! The metrics that a gateway shows, read as Prometheus reads them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::Request;

/// How long a figure may take to become what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The families and samples at one time.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) text: String,
    /// The type of each family, by its name.
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) samples: Vec<Sample>,
}

/// One line.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Metrics {
    /// Asks the listener for operators at this address.
    pub(crate) async fn of(operator: SocketAddr) -> Self {
        let reply = Request::new("GET", "/metrics").send_to(operator).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("text/plain; version=0.0.4; charset=utf-8"))
        );
        Self::parse(reply.text())
    }

    /// Asks until the figures are as they should be.
    pub(crate) async fn until(operator: SocketAddr, is_so: impl Fn(&Self) -> bool) -> Self {
        let since = Instant::now();
        loop {
            let metrics = Self::of(operator).await;
            if is_so(&metrics) {
                return metrics;
            }
            assert!(since.elapsed() < PATIENCE, "the figures stay {}", metrics.text);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn parse(text: String) -> Self {
        let (mut types, mut helps, mut samples) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect(line);
                assert_eq!(
                    helps.insert(name.to_owned(), help.to_owned()),
                    None,
                    "{name} has one line of help"
                );
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} has one type");
            } else {
                samples.push(Sample::parse(line));
            }
        }
        assert!(types.keys().eq(helps.keys()), "each has a type and help");
        Self { text, types, samples }
    }

    /// The value of the only sample with this name and these labels, among others.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample| {
            let is_of =
                |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(is_of)
        };
        let mut found = self.samples.iter().filter(has);
        let first = found.next()?;
        assert!(found.next().is_none(), "there are more of {name} {labels:?}: {}", self.text);
        Some(first.value)
    }

    /// As [`Metrics::find`], of one that must be there.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("{name} {labels:?} is not in {}", self.text))
    }
}

impl Sample {
    /// `name{label="value",…} number`; no value of a label in these tests has a quotation mark.
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = series
            .split_once('{')
            .map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').expect(line)));
        let mut parts = labels.split('"');
        let mut found = BTreeMap::new();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let name = name.trim_start_matches(',').strip_suffix('=').expect(line);
            assert_eq!(found.insert(name.to_owned(), value.to_owned()), None, "{line}");
        }
        Self { name: name.to_owned(), labels: found, value: value.parse().expect(line) }
    }
}
