//! The announcement of a gateway that listens: instructions, the tokens that the start made, and the addresses.

use std::{
    env,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use actors::DomainName;

use crate::{
    config::{Config, DataDir, DurabilityMode},
    default_application::DefaultApplication,
    serve::Running,
};

/// The file in the data directory for tokens that must not be printed.
const TOKENS_FILE: &str = "first-tokens";

/// The line with the addresses.
pub(super) fn listening(running: &Running) -> String {
    let federation = running.federation_address();
    let federation = federation.map_or_else(String::new, |address| format!(" federation=https://{address}"));
    let operator = running.operator_address();
    let operator = operator.map_or_else(String::new, |address| format!(" operator=http://{address}"));
    format!("listening internal={}{federation}{operator}", running.base_url())
}

/// Instructions for a gateway that serves an application of its own, with the tokens that this start made.
pub(super) fn instructions(running: &Running, config: &Config) -> String {
    let mut lines = String::new();
    let made = tokens_made(running);
    let is_hidden = !made.is_empty() && goes_to_journal();
    if let Some(application) = running.default_application() {
        lines = about(application, &running.base_url(), is_hidden);
    }
    if let (Some(token), Some(address), false) =
        (running.operator_token(), running.operator_address(), is_hidden)
    {
        lines.push_str(&format!(
            "operator token: {}\n(for the console, http://{address}/, and the API under http://{address}/operator/v1; it is not printed again and is no token of an application)\n\n",
            token.reveal()
        ));
    }
    if is_hidden {
        lines.push_str(&hidden(&made, &config.data_dir));
    }
    lines
}

/// Logs that the gateway listens, and its main settings.
pub(super) fn log(running: &Running, config: &Config) {
    let domains: Vec<&str> = config.domains.iter().map(DomainName::as_str).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        internal = %running.base_url(),
        federation = running.federation_address().map(tracing::field::display),
        operator = running.operator_address().map(tracing::field::display),
        data_dir = %config.data_dir,
        durability = match config.durability.mode {
            DurabilityMode::Sync => "sync",
            DurabilityMode::Buffer => "buffer",
        },
        applications = config.applications.len() + usize::from(running.default_application().is_some()),
        domains = domains.join(","),
        actor_threads = config.actor_threads,
        workers = config.internal.listener.workers,
        "listening"
    );
}

/// The tokens that this start made, a line each.
fn tokens_made(running: &Running) -> String {
    let application = running.default_application().and_then(|application| application.token.as_ref());
    let named = [("token", application), ("operator token", running.operator_token())];
    let made = named.into_iter().filter_map(|(name, token)| Some((name, token?)));
    made.map(|(name, token)| format!("{name}: {}\n", token.reveal())).collect()
}

/// Whether standard output is the journal of systemd, which keeps what it gets and shows it to others (systemd.exec(5),
/// `$JOURNAL_STREAM`).
fn goes_to_journal() -> bool {
    let Some(journal) = env::var("JOURNAL_STREAM").ok() else { return false };
    let output = fs::metadata("/proc/self/fd/1");
    output.is_ok_and(|output| journal == format!("{}:{}", output.dev(), output.ino()))
}

/// Keeps tokens in a file for the gateway's user alone, and says where.
fn hidden(tokens: &str, data_dir: &DataDir) -> String {
    const WHY: &str = "The tokens that were made are not printed, because standard output is a journal.";
    let DataDir::Directory(directory) = data_dir else {
        return format!("{WHY} Nothing is kept on disk either: name tokens in a configuration.\n\n");
    };
    match keep(tokens, directory) {
        Ok(file) => format!(
            "{WHY} They are in {}, which only the gateway's user can read: read it, and delete it.\n\n",
            file.display()
        ),
        Err(error) => {
            tracing::error!(%error, "the tokens that were made cannot be written to the data directory");
            format!("{WHY} Writing them to the data directory failed: name tokens in a configuration.\n\n")
        }
    }
}

fn keep(tokens: &str, directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join(TOKENS_FILE);
    if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    // An earlier start may have written another token that nobody has read yet.
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(tokens.as_bytes())?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

fn about(application: &DefaultApplication, base_url: &str, is_hidden: bool) -> String {
    let id = application.id;
    let Some(token) = &application.token else {
        return format!(
            "application: {id}\n(its token was made at the first start; to replace a lost one, give this id a new token in a \
             configuration: see `mimi-gateway token` and `mimi-gateway config example`)\n"
        );
    };
    if is_hidden {
        return format!("application: {id}\n\nThe API is described at {base_url}/docs\n\n");
    }
    let token = token.reveal();
    format!(
        "application: {id}\n\
         token: {token}\n\
         \n\
         The token is not printed again. To run the commands of README.md, set these in a second terminal:\n\
         \n  export GATEWAY={base_url}\n  export APP={id}\n  export TOKEN={token}\n\
         \nThe API is described at {base_url}/docs\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_added_to_the_file_and_no_other_user_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = keep("token: a\n", directory.path()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        keep("operator token: b\n", directory.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "token: a\noperator token: b\n");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);

        // What is no file is not written through.
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        keep("token: c\n", directory.path()).unwrap_err();
        assert!(!fs::read_to_string(&elsewhere).unwrap().contains("token: c"));
    }
}
