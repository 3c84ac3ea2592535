//! The `strait` command.

mod args;
mod check;
mod demo;
mod exit;
mod gaps;
mod logging;
mod offsets;
mod output;
mod run;
mod serve;
mod standing;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Command, CommandLine, OffsetsCommand};
use exit::Exit;
use logging::Logging;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version go to stdout, everything else to stderr; a reader that went away is no failure.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    let logging = Logging::install(line.log, || jiff::Timestamp::now().as_millisecond());
    let exit = match line.command {
        Command::Run(args) => run(&args, &logging),
        Command::Check(args) => check::check(&args),
        Command::Gaps(args) => gaps::gaps(&args),
        Command::Offsets(args) => {
            let OffsetsCommand::Translate(args) = args.command;
            offsets::translate(&args)
        }
        Command::Demo(args) => demo::demo(&args, line.log.quiet),
    };
    drop(logging);
    exit.into()
}

fn run(args: &args::RunArgs, logging: &Logging) -> Exit {
    let config = match run::configuration(args) {
        Ok(config) => config,
        Err(error) => {
            for problem in error.lines() {
                tracing::error!("{problem}");
            }
            return Exit::Configuration;
        }
    };
    serve::serve(&config, args, logging)
}
