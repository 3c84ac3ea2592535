//! `strait check`: what a configuration file means.

use crate::args::CheckArgs;
use crate::exit::Exit;
use crate::output::{Out, complain};

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
    match Out::stdout().text(config.to_toml()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(format_args!("stdout cannot be written: {error}"));
            Exit::Failed
        }
    }
}
