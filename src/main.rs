//! The gateway's binary.

use std::process::ExitCode;

use clap::Parser as _;
use mimi_gateway::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
