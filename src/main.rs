//! The gateway's binary.

use std::process::ExitCode;

use clap::Parser as _;
use mimi_gateway::cli::{self, Cli};

/// A commit makes and drops hundreds of small values: the system's allocator took a ninth of its processor time
/// (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
