//! `strait check`: what a configuration file means.

use crate::args::CheckArgs;
use crate::exit::Exit;
use crate::output::{Out, complain};
use crate::run::tokens;

/// Prints the effective configuration to stdout, and warnings or everything that is wrong to stderr, in the form that
/// editors and CI systems know: `file:line: what`.
pub(crate) fn check(args: &CheckArgs) -> Exit {
    let config = match strait_config::load(&args.file) {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Exit::Configuration;
        }
    };
    for warning in &config.warnings {
        complain(format_args!("warning: {warning}"));
    }
    // Not an error here: the file may lie on the machine that will run it only.
    if let Err(error) = tokens(&config, &args.file) {
        complain(format_args!("warning: {error}"));
    }
    match Out::stdout().text(config.to_toml()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(format_args!("stdout cannot be written: {error}"));
            Exit::Failed
        }
    }
}
