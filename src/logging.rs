//! The log on standard error, in lines of text or JSON.
//!
//! Lines of the target [`ACCESS`], one for each request, are written by a thread of their own: a terminal or a pipe that is read
//! slowly delays no answer. Beyond [`WAITING_BYTES_MAX`] they are dropped and counted. All other lines are written at once.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    fmt::{MakeWriter, layer},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{self, LogFormat},
    traces::TraceExport,
};

/// The target of the access log.
pub(crate) const ACCESS: &str = "access";
/// The most bytes of access lines that wait to be written.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// The time for which lines are collected before they are written together.
const COLLECT: Duration = Duration::from_millis(20);
/// The time limit of writing the last lines when the log ends.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The running log. When it is dropped, the lines that wait are written.
pub(crate) struct Logging {
    waiting: Arc<Waiting>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Starts the log of this process, and its traces; `None` if it was started before, which then continues.
    pub(crate) fn start(setting: &str, format: LogFormat, traces: Option<&TraceExport>) -> Option<Self> {
        let (filter, warning) = filter(setting);
        let waiting = Arc::new(Waiting::default());
        let lines = layer().with_writer(Output(Arc::clone(&waiting)));
        let lines = match format {
            LogFormat::Text => lines.with_ansi(has_colours()).boxed(),
            LogFormat::Json => {
                let json = lines.with_ansi(false).json();
                json.flatten_event(true).with_current_span(false).with_span_list(false).boxed()
            }
        };
        let (filter, handle) = reload::Layer::new(filter);
        // The lines have a filter of their own, which does not concern traces.
        let lines = lines.with_filter(filter);
        tracing_subscriber::registry().with(lines).with(traces.map(TraceExport::layer)).try_init().ok()?;
        let written = Arc::clone(&waiting);
        let writer =
            thread::Builder::new().name("access log".to_owned()).spawn(move || written.write(io::stderr()));
        if let Err(error) = writer {
            tracing::warn!(%error, "requests are not logged: a thread could not be started");
            waiting.lock().is_ended = true;
        }
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        Some(Self { waiting, filter: handle })
    }

    /// Filters by another setting from now on, unless `RUST_LOG` is set, which takes precedence.
    pub(crate) fn filter_by(&self, setting: &str) {
        let (filter, _) = filter(setting);
        if let Err(error) = self.filter.reload(filter) {
            tracing::error!(%error, "the filter of the log cannot be changed");
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.waiting.end();
    }
}

/// The filter of `RUST_LOG`, or else of the setting, with a warning if the variable is set but cannot be used.
pub(crate) fn filter(setting: &str) -> (EnvFilter, Option<String>) {
    let from_setting = || config::log_filter(setting).unwrap_or_default();
    match env::var(EnvFilter::DEFAULT_ENV).map(|variable| (config::log_filter(&variable), variable)) {
        Ok((Some(filter), _)) => (filter, None),
        Ok((None, variable)) => {
            (from_setting(), Some(format!("RUST_LOG is ignored: {variable:?} is not a log filter")))
        }
        Err(_) => (from_setting(), None),
    }
}

/// Whether standard error is a terminal whose user has not refused colours (<https://no-color.org>).
fn has_colours() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Standard error, and the lines that wait for it.
struct Output(Arc<Waiting>);

impl<'a> MakeWriter<'a> for Output {
    type Writer = Destination<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Destination::Now(io::stderr())
    }

    fn make_writer_for(&'a self, line: &tracing::Metadata<'_>) -> Self::Writer {
        if line.target() == ACCESS { Destination::Later(&self.0) } else { self.make_writer() }
    }
}

/// The place for one line.
enum Destination<'a> {
    Now(io::Stderr),
    Later(&'a Waiting),
}

impl Write for Destination<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Now(stderr) => stderr.write(line),
            Self::Later(waiting) => {
                waiting.add(line);
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Access lines that wait to be written.
#[derive(Default)]
struct Waiting {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    dropped: u64,
    /// Whether no more are written after those that wait.
    is_ending: bool,
    /// Whether all are written and nothing writes any more.
    is_ended: bool,
}

impl Waiting {
    fn add(&self, line: &[u8]) {
        let mut lines = self.lock();
        if lines.is_ended || lines.bytes.len() + line.len() > WAITING_BYTES_MAX {
            lines.dropped += 1;
            return;
        }
        let is_first = lines.bytes.is_empty();
        lines.bytes.extend_from_slice(line);
        drop(lines);
        if is_first {
            self.changed.notify_all();
        }
    }

    /// Writes lines until the end.
    fn write(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        loop {
            let lines = self.lock();
            let is_idle = |lines: &mut Lines| lines.bytes.is_empty() && !lines.is_ending;
            let lines = self.changed.wait_while(lines, is_idle).unwrap_or_else(PoisonError::into_inner);
            let is_collecting = |lines: &mut Lines| !lines.is_ending;
            let collected = self.changed.wait_timeout_while(lines, COLLECT, is_collecting);
            let (mut lines, _) = collected.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut batch, &mut lines.bytes);
            let (dropped, is_ending) = (std::mem::take(&mut lines.dropped), lines.is_ending);
            drop(lines);
            // Where standard error cannot be written, there is nobody to tell.
            let _ = output.write_all(&batch);
            batch.clear();
            if dropped > 0 {
                tracing::warn!(dropped, "requests were not logged: standard error is read too slowly");
            }
            if is_ending {
                self.lock().is_ended = true;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// Waits until the lines are written, or for a moment if they cannot be.
    fn end(&self) {
        let mut lines = self.lock();
        lines.is_ending = true;
        self.changed.notify_all();
        drop(self.changed.wait_timeout_while(lines, END_TIMEOUT, |lines| !lines.is_ended));
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output whose reader takes each batch when it wants to.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
            self.0.send(batch.to_vec()).map_err(io::Error::other)?;
            Ok(batch.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Lines, the batches that are written of them, of which this many wait for their reader, and the writing thread.
    fn start(batches: usize) -> (Arc<Waiting>, mpsc::Receiver<Vec<u8>>, thread::JoinHandle<()>) {
        let waiting = Arc::new(Waiting::default());
        let (sender, receiver) = mpsc::sync_channel(batches);
        let written = Arc::clone(&waiting);
        (waiting, receiver, thread::spawn(move || written.write(Slow(sender))))
    }

    #[test]
    fn all_lines_are_written_in_order_and_the_last_ones_at_the_end() {
        let (waiting, receiver, writer) = start(1000);
        let expected: Vec<u8> = (0..1000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        for line in expected.split_inclusive(|byte| *byte == b'\n') {
            waiting.add(line);
        }
        waiting.end();
        assert!(waiting.lock().is_ended);
        writer.join().unwrap();
        assert_eq!(receiver.iter().flatten().collect::<Vec<u8>>(), expected);
    }

    #[test]
    fn lines_that_nobody_reads_are_dropped_and_counted_and_do_not_wait() {
        let (waiting, receiver, writer) = start(0);
        let line = vec![b'x'; 1 << 10];
        let lines = 4 * (WAITING_BYTES_MAX >> 10);
        for _ in 0..lines {
            waiting.add(&line);
        }
        let kept = waiting.lock().bytes.len();
        let dropped = waiting.lock().dropped;
        assert!(kept <= WAITING_BYTES_MAX, "{kept} bytes");
        // One batch may be on its way to the reader.
        assert!(dropped as usize >= lines - 2 * (WAITING_BYTES_MAX >> 10), "{dropped}");
        drop(receiver);
        waiting.end();
        writer.join().unwrap();
    }
}
