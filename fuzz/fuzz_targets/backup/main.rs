//! Files of backups, read to their ends.

#![no_main]

use std::{io::Write as _, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use snapshots::inspect_backup;

/// The file of this process, in memory where that is possible.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("mimi-gateway-fuzz-{}", std::process::id()))
});

fuzz_target!(|input: &[u8]| {
    let mut file = std::fs::File::create(&*FILE).expect("a file");
    file.write_all(input).expect("a file");
    drop(file);
    let first = inspect_backup(&FILE).map(|summary| summary.rows()).map_err(|error| error.to_string());
    let second = inspect_backup(&FILE).map(|summary| summary.rows()).map_err(|error| error.to_string());
    assert_eq!(first, second, "the second reading");
});
