//! The progress bar, on a terminal only.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::player::RunContext;

/// The period in which the rate is updated.
const TICK: Duration = Duration::from_millis(500);

/// A bar on standard error.
#[derive(Clone, Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::no_length();
        // The template is constant and valid; otherwise the default would be used.
        if let Ok(style) = ProgressStyle::with_template("{prefix:14} {wide_bar} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Begins a part of the work with this many steps.
    pub(super) fn begin(&self, what: &'static str, length: u64) {
        self.0.reset();
        self.0.set_prefix(what);
        self.0.set_message("");
        self.0.set_length(length);
    }

    pub(super) fn one_more(&self) {
        self.0.inc(1);
    }

    /// Shows the rate until the task is aborted.
    pub(super) fn running(&self, duration: Duration, shared: Arc<RunContext>) -> JoinHandle<()> {
        self.begin("running, s", duration.as_secs());
        let (bar, started) = (self.0.clone(), Instant::now());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            let (mut accepted_before, mut late_before) = (0, 0);
            loop {
                ticks.tick().await;
                let (accepted, late) = shared.recorder.commits();
                let rate = |now: u64, before: u64| (now - before) * 1000 / TICK.as_millis() as u64;
                let (rate, late_rate) = (rate(accepted, accepted_before), rate(late, late_before));
                (accepted_before, late_before) = (accepted, late);
                bar.set_position(started.elapsed().min(duration).as_secs());
                bar.set_message(format!("{rate} accepted/s, {late_rate} late/s"));
            }
        })
    }

    pub(super) fn done(&self) {
        self.0.finish_and_clear();
    }
}
