//! The options of the load test: the command line, parsed into valid values.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use actors::AppId;
use clap::{Args, Subcommand};

use super::{ToolError, thresholds::Threshold};

/// The greatest number of groups, committers and connections.
const COUNT_MAX: u64 = 100_000;
/// Longest run.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the exit status says, for `--help`.
const EXIT_STATUS: &str = "\
Exit status, of the worst that happened:
    0  every run is proven, every threshold kept
    1  a promise was broken, a run could not be proven, or it did not start
    2  bad options or a bad configuration
    4  a threshold is broken (--fail-if)
    5  a player failed
  130  interrupted by Ctrl-C or SIGTERM; otherwise as 0";

/// `mimi-gateway loadtest`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXIT_STATUS)]
pub struct LoadTestOptions {
    /// Something other than one run.
    #[command(subcommand)]
    pub command: Option<LoadTestCommand>,
    /// The run.
    #[command(flatten)]
    pub run: RunOptions,
}

/// Something other than one run.
#[derive(Clone, Debug, Subcommand)]
pub enum LoadTestCommand {
    /// Short runs over contention 1 to 64, members 2 to 1000 and connections 1 to 256, in one page.
    Sweep(SweepOptions),
    /// Two JSON files of runs, sweeps or capacity measurements side by side, with ratios, and the noise between rounds.
    Compare(CompareOptions),
    /// The gateway's throughput with prepared commits, as ratios to that of the machine in the same run. The gateway is in this
    /// process.
    Capacity(CapacityOptions),
}

/// The gateway under load.
#[derive(Clone, Debug, Default, Args)]
pub struct TargetOptions {
    /// The gateway's URL; without it, a gateway with synced writes is started in this process, in its own directory.
    #[arg(long, requires = "app")]
    pub url: Option<String>,
    /// The application, with `--url`.
    #[arg(long, requires = "url")]
    pub app: Option<AppId>,
    /// A `read-write` token of the application, with `--url`. Better passed as the environment variable MIMI_TOKEN, which a
    /// list of processes does not show.
    #[arg(long, allow_hyphen_values = true, requires = "url")]
    pub token: Option<String>,
}

/// Two files with figures.
#[derive(Clone, Debug, Args)]
pub struct CompareOptions {
    /// The figures before, from `--json`.
    #[arg(value_name = "A.json")]
    pub before: PathBuf,
    /// The figures after.
    #[arg(value_name = "B.json")]
    pub after: PathBuf,
}

/// Files for the report, in addition to the table, and thresholds for its figures.
#[derive(Clone, Debug, Default, Args)]
pub struct ReportOptions {
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one self-contained page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Fail, with exit status 4, if this holds for a run, such as `accepted_p99>20ms`, `conflict_rate>=5%` or `errors>0`. May be
    /// given several times.
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<Threshold>,
}

/// One run.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// The gateway under load.
    #[command(flatten)]
    pub target: TargetOptions,
    /// Groups.
    #[arg(long, default_value_t = 8, value_parser = count())]
    pub groups: usize,
    /// Members of each group. Those that neither commit nor witness are only leaves: their keys are discarded.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub members: u32,
    /// Concurrent committers of each group.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub contention: u32,
    /// Members of each group that only follow, and verify the run at its end.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub witnesses: u32,
    /// Operations per second, for all groups together, on a schedule that does not wait for answers (open loop). With a
    /// contention of n, each commit on the schedule is n commits at once.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    pub rate: f64,
    /// No schedule: each caller continues as soon as it is answered (closed loop). The committers, proposer and joiner of a
    /// group then act if their weight in the mix is above 0; key-packages, welcomes and reads share one more caller per group
    /// by their weights.
    #[arg(long, conflicts_with = "rate")]
    pub closed: bool,
    /// The length of the run, such as `10s`, `5m` or `1500ms`.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// The mix of operations, with weights: `commits=8,proposals=1,key-packages=1,welcomes=1,reads=2,joins=1`.
    #[arg(long, default_value_t = Mix::default())]
    pub mix: Mix,
    /// The seed of the schedule and of the choice of callers. Keys are always random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Concurrent requests, each on its own connection.
    #[arg(long, default_value_t = 64, value_parser = count())]
    pub connections: usize,
    /// The report.
    #[command(flatten)]
    pub report: ReportOptions,
}

/// The sweep.
#[derive(Clone, Debug, Args)]
pub struct SweepOptions {
    /// The gateway under load.
    #[command(flatten)]
    pub target: TargetOptions,
    /// The length of each run, such as `10s`.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// The most concurrent committers.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub contention_max: u32,
    /// Most members.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub members_max: u32,
    /// Most connections.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub connections_max: u32,
    /// The seed of the schedules.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The report.
    #[command(flatten)]
    pub report: ReportOptions,
}

/// The capacity measurement.
#[derive(Clone, Debug, Args)]
pub struct CapacityOptions {
    /// Groups.
    #[arg(long, default_value_t = 64, value_parser = count())]
    pub groups: usize,
    /// Members of each group.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    pub members: u32,
    /// Commits that are prepared for each group and round.
    #[arg(long, default_value_t = 60, value_parser = count())]
    pub commits: usize,
    /// Rounds. Each measures everything once, and the medians count.
    #[arg(long, default_value_t = 5, value_parser = count())]
    pub rounds: usize,
    /// Connections; one for each group at most.
    #[arg(long, default_value_t = 64, value_parser = count())]
    pub connections: usize,
    /// Omit the group infos: two signatures per commit instead of three.
    #[arg(long)]
    pub without_group_info: bool,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Checks, before a run, that the file of an option can be in its place.
///
/// # Errors
/// [`ToolError::Options`].
fn check_place(option: &str, file: Option<&Path>) -> Result<(), ToolError> {
    let Some(file) = file else { return Ok(()) };
    let wrong = |reason: String| Err(ToolError::Options(format!("{option} {}: {reason}", file.display())));
    let directory = match file.parent() {
        Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
        Some(directory) => directory,
        None => return wrong("is not a file".into()),
    };
    if !directory.is_dir() {
        return wrong(format!("there is no directory {}", directory.display()));
    }
    if file.is_dir() { wrong("is a directory".into()) } else { Ok(()) }
}

impl ReportOptions {
    /// Checks the places of the files.
    ///
    /// # Errors
    /// [`ToolError::Options`].
    pub(super) fn check(&self) -> Result<(), ToolError> {
        check_place("--json", self.json.as_deref())?;
        check_place("--html", self.html.as_deref())
    }
}

impl CapacityOptions {
    /// Checks the place of the file.
    ///
    /// # Errors
    /// [`ToolError::Options`].
    pub(super) fn check(&self) -> Result<(), ToolError> {
        check_place("--json", self.json.as_deref())
    }
}

impl RunOptions {
    /// Checks the conditions between options.
    ///
    /// # Errors
    /// [`ToolError::Options`].
    pub(super) fn check(&self) -> Result<(), ToolError> {
        self.report.check()?;
        let live = self.live_members();
        if live > self.members {
            return Err(ToolError::Options(format!(
                "--members {}: too few for {live} live ones: --contention {}, --witnesses {}{}",
                self.members,
                self.contention,
                self.witnesses,
                if self.mix.weight(Kind::Proposal) > 0 { " and one who proposes" } else { "" },
            )));
        }
        if live == self.members && self.mix.weight(Kind::Welcome) > 0 {
            return Err(ToolError::Options(format!(
                "--members {}: all of them are live and have taken their welcomes, so none is left for welcomes={}; give \
                 the groups more members, or the mix no welcomes",
                self.members,
                self.mix.weight(Kind::Welcome),
            )));
        }
        Ok(())
    }

    /// Members of each group that keep their keys: committers, witnesses and the proposer. A joiner is in addition.
    pub(super) fn live_members(&self) -> u32 {
        self.contention + self.witnesses + u32::from(self.mix.weight(Kind::Proposal) > 0)
    }
}

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A self-update commit of each committer of a group, at once.
    Commit,
    /// An Update proposal, which a later commit may carry by reference.
    Proposal,
    /// Key-package retrieval, each time for another receiver.
    KeyPackage,
    /// Fetching the welcomes of a handle, with the ratchet tree.
    Welcome,
    /// Reading control messages of the last epochs.
    Read,
    /// An external commit of a client that rejoins repeatedly.
    Join,
}

impl Kind {
    /// All kinds, in the order of a report.
    pub const ALL: [Self; 6] =
        [Self::Commit, Self::Proposal, Self::KeyPackage, Self::Welcome, Self::Read, Self::Join];

    /// Its name in a mix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commits",
            Self::Proposal => "proposals",
            Self::KeyPackage => "key-packages",
            Self::Welcome => "welcomes",
            Self::Read => "reads",
            Self::Join => "joins",
        }
    }
}

/// The frequency of each kind, relative to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(BTreeMap<Kind, u32>);

impl Default for Mix {
    /// Commits alone.
    fn default() -> Self {
        Self(BTreeMap::from([(Kind::Commit, 1)]))
    }
}

impl Mix {
    /// The weight of one kind.
    pub fn weight(&self, kind: Kind) -> u32 {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    /// The kind at a point of the sum of weights; larger points wrap around.
    pub fn pick(&self, point: u64) -> Kind {
        let sum = self.0.values().map(|weight| u64::from(*weight)).sum::<u64>().max(1);
        let mut left = point % sum;
        for (kind, weight) in &self.0 {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return *kind,
            }
        }
        Kind::Commit
    }

    /// The same mix with these kinds only; `None` if none is left.
    pub fn only(&self, kinds: &[Kind]) -> Option<Self> {
        let left: BTreeMap<_, _> =
            self.0.iter().filter(|(kind, weight)| kinds.contains(kind) && **weight > 0).collect();
        let left: BTreeMap<_, _> = left.into_iter().map(|(kind, weight)| (*kind, *weight)).collect();
        (!left.is_empty()).then_some(Self(left))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(kind, weight)| format!("{}={weight}", kind.name())).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = BTreeMap::new();
        for part in text.split(',') {
            let (name, weight) =
                part.split_once('=').ok_or_else(|| format!("`{part}` is not like `commits=3`"))?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
                format!("there is no `{name}`; there are {}", Kind::ALL.map(Kind::name).join(", "))
            })?;
            let weight: u32 = weight
                .parse()
                .ok()
                .filter(|weight| *weight <= 1000)
                .ok_or_else(|| format!("the weight of `{name}` must be a number from 0 to 1000"))?;
            if weights.insert(kind, weight).is_some() {
                return Err(format!("`{name}` is given twice"));
            }
        }
        if weights.values().all(|weight| *weight == 0) {
            return Err("at least one weight must be more than 0".into());
        }
        Ok(Self(weights))
    }
}

fn count() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u64).range(1..=COUNT_MAX).map(|value| usize::try_from(value).unwrap_or(1))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "must be a number of operations a second".to_owned())?;
    if (0.01..=1e6).contains(&rate) { Ok(rate) } else { Err("must be from 0.01 to 1000000".into()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "must be like 10s, 5m or 1500ms".to_owned())?;
    let duration = match text.get(digits.len()..) {
        Some("ms") => Duration::from_millis(number),
        Some("s") => Duration::from_secs(number),
        Some("m") => Duration::from_secs(number.saturating_mul(60)),
        Some("h") => Duration::from_secs(number.saturating_mul(3600)),
        Some(_) | None => return Err("must end with its unit: ms, s, m or h".into()),
    };
    if duration.is_zero() || duration > DURATION_MAX {
        return Err("must be more than nothing and at most 24h".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: RunOptions,
    }

    #[test]
    fn a_token_may_begin_with_a_hyphen() {
        let app = AppId::random().to_string();
        let words = ["loadtest", "--url", "http://127.0.0.1:8080", "--app", &app, "--token", "-v9Rk"];
        assert_eq!(Line::try_parse_from(words).unwrap().run.target.token.as_deref(), Some("-v9Rk"));
    }

    #[test]
    fn options_go_together() {
        fn check(line: &str, expected: Result<(), &str>) {
            let words = std::iter::once("loadtest").chain(line.split(' '));
            match (Line::try_parse_from(words).unwrap().run.check(), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{line}: {error}"),
                (outcome, _) => panic!("{line}: {outcome:?}, expected {expected:?}"),
            }
        }
        check("--members 3 --contention 2", Ok(()));
        check("--members 2 --contention 2", Err("too few for 3 live ones"));
        check("--members 3 --contention 2 --mix commits=1,proposals=1", Err("and one who proposes"));
        check("--members 4 --contention 2 --mix commits=1,welcomes=1", Ok(()));
        check("--members 3 --contention 2 --mix commits=1,welcomes=0", Ok(()));
        // No member waits for a welcome, so a closed loop would ask for none, without end.
        for loop_kind in ["--closed", "--rate 5"] {
            let line = format!("--members 3 --contention 2 --mix commits=1,welcomes=1 {loop_kind}");
            check(&line, Err("none is left for welcomes=1"));
        }
    }

    #[test]
    fn a_mix_is_read_strictly() {
        fn check(text: &str, expected: Result<&str, &str>) {
            match (text.parse::<Mix>(), expected) {
                (Ok(mix), Ok(shown)) => assert_eq!(mix.to_string(), shown),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (outcome, _) => panic!("{text}: {outcome:?}, expected {expected:?}"),
            }
        }
        check("commits=1", Ok("commits=1"));
        check("reads=2,commits=3,joins=0", Ok("commits=3,reads=2,joins=0"));
        check("", Err("is not like"));
        check("commits", Err("`commits` is not like"));
        check("commit=1", Err("there is no `commit`; there are commits,"));
        check("commits=x", Err("a number from 0 to 1000"));
        check("commits=-1", Err("a number from 0 to 1000"));
        check("commits=1001", Err("a number from 0 to 1000"));
        check("commits=1,commits=1", Err("twice"));
        check("commits=0", Err("more than 0"));
    }

    #[test]
    fn a_mix_picks_by_weight() {
        let mix: Mix = "commits=1,reads=3".parse().unwrap();
        let picked: Vec<_> = (0..8).map(|point| mix.pick(point)).collect();
        let reads = picked.iter().filter(|kind| **kind == Kind::Read).count();
        assert_eq!((picked[0], reads), (Kind::Commit, 6));
        assert_eq!(mix.only(&[Kind::Read]).unwrap().pick(0), Kind::Read);
        assert_eq!(mix.only(&[Kind::Join]), None);
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in
            [("10s", Some(10_000)), ("5m", Some(300_000)), ("1500ms", Some(1500)), ("1h", Some(3_600_000))]
        {
            assert_eq!(duration(text).ok().map(|duration| duration.as_millis()), millis, "{text}");
        }
        for text in ["", "10", "s", "-1s", "0s", "1d", "25h", "1.5s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
