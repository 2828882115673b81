//! `[backup]`: the backups that the gateway makes while it serves.

use std::path::PathBuf;

use actors::settings::Accepts;
use serde::{Deserialize, Serialize};

use super::{Config, DataDir, rows};

actors::settings! {
    /// The backups that the gateway makes while it serves.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct BackupSettings {
        /// The directory of the backups, created if it is missing; by default `backups` in `data_dir`. Better on another disk. A
        /// relative path is relative to the working directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub directory: Option<PathBuf> = None => Accepts::Text("the path of a directory", rows::is_path),
            e.g. r#""/var/backups/mimi-gateway""#;
        /// How often a backup is made, in seconds; 0 for never. Operators can ask for one at any time.
        pub period_s: u64 = 0 => Accepts::from_to(0, 366 * 24 * 3600);
        /// Backups to keep, the newest; older ones in the directory are deleted once one was made.
        pub keep: usize = 7 => Accepts::from_to(1, 1000);
    }
}

impl Config {
    /// The directory of backups; none if the gateway keeps no data and the configuration names none.
    pub(crate) fn backup_directory(&self) -> Option<PathBuf> {
        match (&self.backup.directory, &self.data_dir) {
            (Some(directory), _) => Some(directory.clone()),
            (None, DataDir::Directory(data)) => Some(data.join("backups")),
            (None, DataDir::Memory) => None,
        }
    }
}
