//! The `strait` command.

mod args;
mod back;
mod check;
mod demo;
mod exit;
mod gaps;
mod links;
mod logging;
mod mirroring;
mod offsets;
mod output;
mod plan;
mod plan_groups;
mod run;
mod selection;
mod serve;
mod standing;
mod status;
mod unread;
mod wait;

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
        Command::Selection(args) => selection::selection(&args),
        Command::MirroringTopicSelectionSet(args) => selection::set_or_none(&args),
        Command::MirroringTopicSelection(args) => selection::get(&args),
        Command::MirroringActiveTopics(args) => selection::active(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Status(args) => status::status(&args),
        Command::Offsets(args) => match args.command {
            OffsetsCommand::Translate(args) => offsets::translate(&args),
            OffsetsCommand::Back(args) => back::back(&args),
        },
        Command::Wait(args) => wait::wait(&args, line.log.quiet),
        Command::Demo(args) => demo::demo(&args, line.log.quiet),
    };
    drop(logging);
    exit.into()
}

fn run(args: &args::RunArgs, logging: &Logging) -> Exit {
    let (config, tokens) = match run::configuration(args) {
        Ok(found) => found,
        Err(error) => {
            for problem in error.lines() {
                tracing::error!("{problem}");
            }
            return Exit::Configuration;
        }
    };
    serve::serve(&config, tokens, args, logging)
}
