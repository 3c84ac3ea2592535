//! `strait run`: what is mirrored, and how.

use strait_config::{Config, ConfigError};

use crate::args::RunArgs;

/// The configuration of this run: the file, with the command line's words over it.
pub(crate) fn configuration(args: &RunArgs) -> Result<Config, ConfigError> {
    let mut config = strait_config::load(&args.file)?;
    args.apply(&mut config);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}
