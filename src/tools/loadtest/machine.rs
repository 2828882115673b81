//! The machine of a run.

use std::{fmt, time::Duration};

use serde::Serialize;

/// The known properties of a machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores that this process may use; the load and a gateway of its own share them.
    pub cores: usize,
    /// The processor's name.
    pub cpu: String,
    /// The load average of the minute before the report.
    pub load_average: f64,
    /// Whether this program was built without optimisation, which makes its figures meaningless.
    pub is_debug_build: bool,
}

impl Machine {
    /// The machine of this process.
    pub(super) fn this() -> Self {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
        let model = fields.find(|(name, _)| name.trim() == "model name");
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: model.map_or("unknown processor", |(_, model)| model.trim()).to_owned(),
            load_average: load_average().unwrap_or(f64::NAN),
            is_debug_build: cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores, {}, load average {}", self.cores, self.cpu, self.load_average)?;
        if self.is_debug_build {
            f.write_str("; a debug build: the figures mean nothing, build with --release")?;
        }
        Ok(())
    }
}

fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Linux's ticks per second of processor time.
const TICKS_PER_S: u64 = 100;

/// The processor time that this process has used; zero if the system does not tell.
pub(super) fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is a name in parentheses; user and system time are the 14th and 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}
