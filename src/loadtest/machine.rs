//! What a run was measured on.

use std::fmt;

use serde::Serialize;

/// A machine, as far as it tells.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores that this process may use; the load and a gateway of its own share them.
    pub cores: usize,
    /// The processor's name.
    pub cpu: String,
    /// Whether this program was built without optimisation: then its figures mean nothing.
    pub is_debug_build: bool,
}

impl Machine {
    /// The one that this process runs on.
    pub(super) fn this() -> Self {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
        let model = fields.find(|(name, _)| name.trim() == "model name");
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: model.map_or("unknown processor", |(_, model)| model.trim()).to_owned(),
            is_debug_build: cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores, {}", self.cores, self.cpu)?;
        if self.is_debug_build {
            f.write_str("; a debug build: the figures mean nothing, build with --release")?;
        }
        Ok(())
    }
}
