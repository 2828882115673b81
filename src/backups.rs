//! Backups that the gateway makes while it serves: at intervals, and when an operator asks.
//!
//! They are files of one directory, named by the moment that they hold. Nothing else in that directory is touched.

use std::{
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actors::{Clock, Store, Timestamp};
use snapshots::{BackupError, BackupSummary, write_backup_while};

use crate::{api::backups::ListedBackup, config::Config, utc::utc};

/// The most backups that are listed.
const LISTED_MAX: usize = 1000;
const PREFIX: &str = "backup-";
const EXTENSION: &str = ".mimi";
/// The pause after which a periodic backup that failed is tried again, at most.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// The backups of a gateway.
pub(crate) struct Backups {
    store: Store,
    clock: Clock,
    /// `None` if the gateway keeps no data and the configuration names no directory.
    directory: Option<PathBuf>,
    /// The interval; `None` if they are made on demand only.
    period: Option<Duration>,
    keep: usize,
    is_making: AtomicBool,
    is_stopping: AtomicBool,
    status: Mutex<BackupStatus>,
}

/// Backups that were made, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackupStatus {
    /// The newest one that is there.
    pub(crate) newest: Option<NewestBackup>,
    /// Those that were made since the start.
    pub(crate) made: u64,
    /// Those that failed since the start.
    pub(crate) failed: u64,
}

/// The newest backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewestBackup {
    pub(crate) at: Timestamp,
    pub(crate) bytes: u64,
}

/// The reason why no backup was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoBackup {
    #[error("another backup is being made")]
    Busy,
    #[error("there is no directory for backups: set `directory` under [backup] in the configuration")]
    NoDirectory,
    #[error("the gateway stops")]
    Stopping,
    #[error(transparent)]
    Failed(#[from] BackupError),
}

/// The turn of the only backup that is being made.
struct Making<'a>(&'a AtomicBool);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Backups {
    /// The backups of a configuration; the newest one that is there is known from the beginning.
    pub(crate) fn open(config: &Config, store: &Store, clock: Clock) -> Self {
        let settings = &config.backup;
        let directory = config.backup_directory();
        let newest = directory.as_deref().and_then(|directory| list(directory).ok()?.into_iter().next());
        let newest = newest.map(|found| NewestBackup { at: found.created_at, bytes: found.bytes });
        Self {
            store: store.clone(),
            clock,
            directory,
            period: Some(Duration::from_secs(settings.period_s)).filter(|period| !period.is_zero()),
            keep: settings.keep,
            is_making: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            status: Mutex::new(BackupStatus { newest, ..BackupStatus::default() }),
        }
    }

    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The interval of the backups that are made without being asked for.
    pub(crate) fn period(&self) -> Option<Duration> {
        self.period
    }

    pub(crate) fn status(&self) -> BackupStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The backups in the directory, the newest first.
    pub(crate) fn list(&self) -> io::Result<Vec<ListedBackup>> {
        let mut found = self.directory().map_or_else(|| Ok(Vec::new()), list)?;
        found.truncate(LISTED_MAX);
        Ok(found)
    }

    /// Makes a backup, and deletes the oldest ones beyond those to keep; blocks.
    pub(crate) fn make(&self) -> Result<(ListedBackup, BackupSummary), NoBackup> {
        let directory = self.directory().ok_or(NoBackup::NoDirectory)?;
        if self.is_making.swap(true, Ordering::AcqRel) {
            return Err(NoBackup::Busy);
        }
        let _making = Making(&self.is_making);
        let made = self.make_in(directory);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match &made {
            Ok((listed, _)) => {
                status.made += 1;
                status.newest = Some(NewestBackup { at: listed.created_at, bytes: listed.bytes });
            }
            Err(_) if self.is_stopping.load(Ordering::Acquire) => return Err(NoBackup::Stopping),
            Err(error) => {
                status.failed += 1;
                tracing::error!(%error, "a backup could not be made");
            }
        }
        Ok(made?)
    }

    fn make_in(&self, directory: &Path) -> Result<(ListedBackup, BackupSummary), BackupError> {
        let at = |source| BackupError::Io { path: directory.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at)?;
        remove_unfinished(directory).map_err(at)?;
        // Before the view, so that all that is older than this moment is in it.
        let created_at = self.clock.now();
        let name = name_of(created_at);
        let is_wanted = || !self.is_stopping.load(Ordering::Acquire);
        let path = directory.join(&name);
        let summary = write_backup_while(&self.store.view(), created_at, &path, is_wanted)?;
        tracing::info!(name, bytes = summary.bytes, rows = summary.rows(), "a backup was made");
        let listed = list(directory).map_err(at)?;
        for old in listed.into_iter().skip(self.keep).filter(|old| old.name != name) {
            match std::fs::remove_file(directory.join(&old.name)) {
                Ok(()) => tracing::info!(name = old.name, "an old backup was deleted"),
                Err(error) => tracing::warn!(name = old.name, %error, "an old backup could not be deleted"),
            }
        }
        Ok((ListedBackup { name, created_at, bytes: summary.bytes }, summary))
    }

    /// Makes backups at the interval, counted from the newest one that is there; for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let Some(period) = self.period else { return };
        loop {
            let since = self.status().newest.map(|newest| self.clock.now().0.saturating_sub(newest.at.0));
            let due =
                since.map_or(Duration::ZERO, |since| period.saturating_sub(Duration::from_millis(since)));
            tokio::time::sleep(due).await;
            let backups = Arc::clone(&self);
            let made = tokio::task::spawn_blocking(move || backups.make()).await;
            if !matches!(made, Ok(Ok(_))) {
                tokio::time::sleep(period.min(RETRY_MAX)).await;
            }
        }
    }

    /// Ends a backup that is being made, without a trace of it.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }
}

/// The name of a backup: the time for people, and the moment in Unix milliseconds.
fn name_of(moment: Timestamp) -> String {
    let time = utc(moment.0 / 1000).replace(':', "-");
    format!("{PREFIX}{time}-{}{EXTENSION}", moment.0)
}

/// The moment in the name of a backup; `None` for a name that is not one of a backup.
fn moment_of(name: &str) -> Option<Timestamp> {
    let (_, moment) = name.strip_prefix(PREFIX)?.strip_suffix(EXTENSION)?.rsplit_once('-')?;
    let moment = Timestamp(moment.parse().ok()?);
    (name_of(moment) == name).then_some(moment)
}

/// The backups in a directory, the newest first.
fn list(directory: &Path) -> io::Result<Vec<ListedBackup>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(created_at) = moment_of(&name) else { continue };
        // A backup that was deleted meanwhile is none.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            found.push(ListedBackup { name, created_at, bytes: metadata.len() });
        }
    }
    found.sort_by_key(|backup| std::cmp::Reverse(backup.created_at));
    Ok(found)
}

/// Removes what a backup leaves that a crash has cut short.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unfinished = name.strip_prefix('.').and_then(|name| name.strip_suffix(".unfinished"));
        let of_backup = unfinished.and_then(|name| moment_of(name.rsplit_once('.')?.0));
        if of_backup.is_some() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_moment_and_other_names_are_no_backups() {
        let moment = Timestamp(1_795_743_459_182);
        let name = name_of(moment);
        assert_eq!(name, "backup-2026-11-27T01-37-39Z-1795743459182.mimi");
        assert_eq!(moment_of(&name), Some(moment));
        for other in ["backup-1795743459182.mimi", "backup-.mimi", "note.mimi", "backup-x-1.mimi", &name[1..]]
        {
            assert_eq!(moment_of(other), None, "{other}");
        }
    }

    #[test]
    fn only_whole_backups_are_listed_and_only_unfinished_ones_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let unfinished = format!(".{}.0123abcd.unfinished", name_of(Timestamp(3)));
        let names =
            [name_of(Timestamp(1)), name_of(Timestamp(2)), unfinished.clone(), ".mine.unfinished".into()];
        for name in &names {
            std::fs::write(directory.path().join(name), "bytes").unwrap();
        }
        std::fs::create_dir(directory.path().join(name_of(Timestamp(4)))).unwrap();
        remove_unfinished(directory.path()).unwrap();
        let there = |name: &str| directory.path().join(name).exists();
        assert!(!there(&unfinished) && there(".mine.unfinished"));
        let listed: Vec<_> =
            list(directory.path()).unwrap().into_iter().map(|found| found.created_at.0).collect();
        assert_eq!(listed, [2, 1]);
        assert_eq!(list(&directory.path().join("missing")).unwrap(), []);
    }
}
