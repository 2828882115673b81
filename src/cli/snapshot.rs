//! `snapshot`: backups written, imported and checked, and data directories checked.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use actors::{CheckedStore, Clock, SETTINGS_OF_A_COPY, Store, StoreOptions, check_store};
use clap::{Args, Subcommand};
use snapshots::{
    BackupError, BackupSummary, ImportOptions, Location, OpenError, import_backup, inspect_backup,
    publish_file, write_backup,
};

use super::{
    BAD_CONFIGURATION, Options, fail, operator, print,
    table::{TextTable, printable},
};
use crate::{
    api::backups::MadeBackup,
    config::{Config, DataDir},
    utc::utc,
};

/// Options of `snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotOptions {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Write a backup of the data directory to a new file. If a gateway is using the directory, it is asked for the backup, with a
    /// token of an operator (`read-write`) in the environment variable MIMI_OPERATOR_TOKEN.
    Export {
        /// The file, which must not exist.
        file: PathBuf,
        /// The operators' listener of the gateway that is using the directory.
        #[arg(long, value_name = "URL", default_value = operator::URL)]
        url: String,
    },
    /// Make a data directory of a backup. The directory must be empty or missing.
    Import {
        /// The backup.
        file: PathBuf,
    },
    /// Check the digest of a backup, and show what is in it.
    Inspect {
        /// The backup.
        file: PathBuf,
    },
    /// Check everything in the data directory, or in a backup: that all rows agree, that each group and key queue can be restored,
    /// and that no key package was used twice. No gateway may be using the directory.
    Verify {
        /// The backup to check instead of the data directory. It is imported into a temporary directory for that.
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
    },
    /// Go on with a data directory that lacks writes that were acknowledged: after it, the gateway starts. What is missing stays
    /// missing.
    AcceptLoss,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] snapshots::ReadError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Asked(String),
    #[error(
        "`data_dir` is :memory:, which keeps nothing: name a directory with --data-dir or in the configuration"
    )]
    NoDirectory,
    #[error("{} has no store of a gateway", .0.display())]
    NoStore(PathBuf),
    #[error("there are {} faults{}", .0.faults_count, if .0.faults_count > 100 { "; the first 100 are shown" } else { "" })]
    Faults(CheckedStore),
}

/// Runs the command.
pub(super) fn run(options: &Options, request: SnapshotOptions) -> ExitCode {
    options.configured(|config| {
        if options.listen.is_some() {
            fail("`snapshot` listens to nothing: it takes no --listen");
            return ExitCode::from(BAD_CONFIGURATION);
        }
        ended(match request.command {
            SnapshotCommand::Export { file, url } => export(&config, &file, &url),
            SnapshotCommand::Import { file } => import(&config, &file),
            SnapshotCommand::Inspect { file } => {
                inspect_backup(&file).map_err(SnapshotError::from).map(|summary| shown(&summary))
            }
            SnapshotCommand::Verify { backup: None } => verify_directory(&config),
            SnapshotCommand::Verify { backup: Some(file) } => verify_backup(&config, &file),
            SnapshotCommand::AcceptLoss => accept_loss(&config),
        })
    })
}

fn ended(outcome: Result<String, SnapshotError>) -> ExitCode {
    match outcome {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            if let SnapshotError::Faults(checked) = &error {
                for fault in &checked.faults {
                    print(&format!("{}\n", printable(fault)));
                }
            }
            fail(&printable(&error.to_string()))
        }
    }
}

fn export(config: &Config, file: &Path, url: &str) -> Result<String, SnapshotError> {
    match open(config, false) {
        Ok(store) => {
            let summary = write_backup(&store.view(), Clock::system().now(), file)?;
            store.close();
            Ok(format!("wrote {} ({} rows, {} bytes)\n", file.display(), summary.rows(), summary.bytes))
        }
        Err(SnapshotError::Open(OpenError::InUse { .. })) => export_of_running(file, url),
        Err(error) => Err(error),
    }
}

/// Asks the gateway for a backup, and copies it.
fn export_of_running(file: &Path, url: &str) -> Result<String, SnapshotError> {
    if file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { path: file.to_owned() }.into());
    }
    let made: MadeBackup = operator::make_backup(url).map_err(SnapshotError::Asked)?;
    let source = Path::new(&made.directory).join(&made.name);
    let copied =
        copy_new(&source, file).map_err(|source| SnapshotError::Io { path: file.to_owned(), source });
    if copied.is_err() {
        let _ = writeln!(io::stderr(), "mimi-gateway: the gateway made the backup {}", source.display());
    }
    copied?;
    // The gateway's disk may have failed while it was read.
    let summary = inspect_backup(file)?;
    Ok(format!("wrote {} ({} rows, {} bytes)\n", file.display(), summary.rows(), summary.bytes))
}

/// Copies a file to a new one that appears once it is complete and on the disk.
fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(format!(".{}.unfinished", uuid::Uuid::new_v4().simple()));
    let unfinished = PathBuf::from(unfinished);
    let mut source = std::fs::File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let copied = io::copy(&mut source, &mut target)
        .and_then(|_| target.sync_all())
        .and_then(|()| publish_file(&unfinished, to));
    if copied.is_err() {
        // The error is what matters.
        let _ = std::fs::remove_file(&unfinished);
    }
    copied
}

fn import(config: &Config, file: &Path) -> Result<String, SnapshotError> {
    let directory = directory(config)?;
    let options = import_options(config);
    let summary = import_backup(file, directory, &options)?;
    Ok(format!(
        "imported {} rows of {} into {}\n",
        summary.rows(),
        utc(summary.created.0 / 1000),
        directory.display()
    ))
}

fn import_options(config: &Config) -> ImportOptions<'static> {
    ImportOptions { cache_bytes: config.durability.cache_bytes, without_settings: SETTINGS_OF_A_COPY }
}

fn verify_directory(config: &Config) -> Result<String, SnapshotError> {
    verify(&open(config, false)?)
}

fn verify_backup(config: &Config, file: &Path) -> Result<String, SnapshotError> {
    let place = std::env::temp_dir().join(format!("mimi-gateway-verify-{}", uuid::Uuid::new_v4().simple()));
    let verified =
        import_backup(file, &place, &import_options(config)).map_err(SnapshotError::from).and_then(|_| {
            let location = Location::Directory(place.clone());
            verify(&Store::open(&StoreOptions { location, ..config.store_options() })?)
        });
    match std::fs::remove_dir_all(&place) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            verified.and(Err(SnapshotError::Io { path: place, source }))
        }
        Ok(()) | Err(_) => verified,
    }
}

fn verify(store: &Store) -> Result<String, SnapshotError> {
    let checked = check_store(&store.view(), Clock::system().now())?;
    store.close();
    if checked.faults_count > 0 {
        return Err(SnapshotError::Faults(checked));
    }
    Ok(format!(
        "good: {} groups and {} key queues were restored, {} used key packages were each used once\n",
        checked.groups, checked.key_queues, checked.used_key_packages
    ))
}

fn accept_loss(config: &Config) -> Result<String, SnapshotError> {
    let store = open(config, true)?;
    let (lost, left_out) = (store.lost_batches(), store.left_out_batches());
    store.close();
    let at_end = match lost {
        0 => "nothing is missing at its end".to_owned(),
        lost => format!("accepted: {lost} or more batches are missing at its end"),
    };
    Ok(match left_out {
        0 => format!("{at_end}\n"),
        left_out => format!(
            "{at_end}\naccepted: {left_out} damaged or missing batches before its end are left out; `mimi-gateway snapshot \
             verify` finds what does not fit together without them\n"
        ),
    })
}

fn directory(config: &Config) -> Result<&Path, SnapshotError> {
    match &config.data_dir {
        DataDir::Directory(directory) => Ok(directory),
        DataDir::Memory => Err(SnapshotError::NoDirectory),
    }
}

/// Opens the store of the data directory, which must exist.
fn open(config: &Config, accepts_loss: bool) -> Result<Store, SnapshotError> {
    let directory = directory(config)?;
    if !directory.join("store").is_dir() {
        return Err(SnapshotError::NoStore(directory.to_owned()));
    }
    Ok(Store::open(&StoreOptions { accepts_loss, ..config.store_options() })?)
}

fn shown(summary: &BackupSummary) -> String {
    let mut table = TextTable::of(["TABLE", "ROWS", "BYTES"]);
    for of in &summary.tables {
        table.row([of.name.clone(), of.rows.to_string(), of.bytes.to_string()]);
    }
    let digest: String = summary.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let about = TextTable::of_members([
        ("created", utc(summary.created.0 / 1000)),
        ("format of the backup", summary.version.to_string()),
        ("format of the store", summary.store_format.to_string()),
        ("rows", summary.rows().to_string()),
        ("bytes", summary.bytes.to_string()),
        ("sha256", digest),
    ]);
    format!("{}\n{}", about.lines(), table.lines())
}
