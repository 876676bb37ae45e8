//! The binary `aria`: parse, log, run, exit code.

use std::process::ExitCode;

use aria_node::{cli::Cli, commands};
use clap::Parser;

fn main() -> ExitCode {
    commands::run(Cli::parse())
}
