//! Figures of the process, under the names that Prometheus's own libraries use. They are read from `/proc`, and are absent where
//! there is none.

use std::fs;

use super::text::{Metric, MetricKind, MetricsText};
use crate::open_files;

/// Ticks per second of the times in `/proc`, which the kernel fixes for programs (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

const CPU: Metric = Metric {
    name: "process_cpu_seconds_total",
    kind: MetricKind::Counter,
    help: "Processor time of the process, in user and system mode.",
};
const RESIDENT: Metric = Metric {
    name: "process_resident_memory_bytes",
    kind: MetricKind::Gauge,
    help: "Resident memory of the process.",
};
const VIRTUAL: Metric = Metric {
    name: "process_virtual_memory_bytes",
    kind: MetricKind::Gauge,
    help: "Virtual memory of the process.",
};
const OPEN_FILES: Metric = Metric {
    name: "process_open_fds",
    kind: MetricKind::Gauge,
    help: "Open file descriptors, those of connections included.",
};
const FILES_MAX: Metric =
    Metric { name: "process_max_fds", kind: MetricKind::Gauge, help: "The limit on open file descriptors." };
const STARTED: Metric = Metric {
    name: "process_start_time_seconds",
    kind: MetricKind::Gauge,
    help: "When the process started, in Unix seconds.",
};

/// Writes the figures of this process.
pub(super) fn write(text: &mut MetricsText) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let times = Times::of(&stat);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let booted_s = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_time_s(&stat));
    let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    optional(text, CPU, times.as_ref().map(|times| times.cpu_s));
    optional(text, RESIDENT, bytes(&status, "VmRSS:"));
    optional(text, VIRTUAL, bytes(&status, "VmSize:"));
    // The directory that is being read is open as well.
    optional(text, OPEN_FILES, open.map(|open| open.saturating_sub(1)));
    optional(text, FILES_MAX, open_files::allowed());
    optional(text, STARTED, times.zip(booted_s).map(|(times, booted_s)| booted_s + times.started_s));
}

fn optional(text: &mut MetricsText, metric: Metric, value: Option<impl std::fmt::Display>) {
    let mut family = text.family(metric);
    if let Some(value) = value {
        family.sample(&[], value);
    }
}

/// Times of a process, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    cpu_s: f64,
    /// Since the machine started.
    started_s: f64,
}

impl Times {
    /// The times in `/proc/self/stat` (proc_pid_stat(5)).
    fn of(stat: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may have any characters.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first of these is the third field.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let (user, system, started) = (ticks(14)?, ticks(15)?, ticks(22)?);
        Some(Self { cpu_s: (user + system) / TICKS_PER_S, started_s: started / TICKS_PER_S })
    }
}

/// The time at which the machine started, from `/proc/stat`, in Unix seconds.
fn boot_time_s(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// A size in `/proc/self/status`, in bytes.
fn bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_after_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000 10 1 2 3";
        assert_eq!(Times::of(stat), Some(Times { cpu_s: 3.0, started_s: 123.45 }));
        for malformed in ["", "42 (a", "42 (a) S 1 2", "42 (a) S x x x x x x x x x x x x x x x x x x x x"] {
            assert_eq!(Times::of(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn sizes_are_in_bytes() {
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t1 kB\nVmPeak:\tmuch\n";
        assert_eq!(bytes(status, "VmSize:"), Some(2 << 20));
        assert_eq!(bytes(status, "VmRSS:"), Some(1024));
        assert_eq!([bytes(status, "VmPeak:"), bytes(status, "VmSwap:")], [None, None]);
        assert_eq!(boot_time_s("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }
}
