//! The binary `aria`: parse, log, run, exit code.

use std::process::ExitCode;

use aria_node::{cli::Cli, commands};
use clap::Parser;

/// What a shell sees of a program that wrote to a pipe that nobody reads: 128 and the number of SIGPIPE.
const NOBODY_READS: i32 = 141;

fn main() -> ExitCode {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // `aria … | head` has read enough. The standard library knows no other way to say so to `println!`.
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.starts_with("failed printing to stdout") && text.contains("Broken pipe")) {
            std::process::exit(NOBODY_READS);
        }
        tell(panic);
    }));
    commands::run(Cli::parse())
}
