//! `strait run`: what is mirrored, and how.

use std::path::Path;

use strait_config::{AdminTokens, Config, ConfigError};

use crate::args::RunArgs;

/// The configuration of this run: the file, with the command line's words over it; and the admin server's tokens.
pub(crate) fn configuration(args: &RunArgs) -> Result<(Config, Option<AdminTokens>), ConfigError> {
    let mut config = strait_config::load(&args.file)?;
    args.apply(&mut config);
    let tokens = tokens(&config, &args.file)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok((config, tokens))
}

/// The admin server's tokens, where a file with them is named.
pub(crate) fn tokens(config: &Config, file: &Path) -> Result<Option<AdminTokens>, ConfigError> {
    let Some(from) = &config.admin_token_file else {
        return Ok(None);
    };
    match AdminTokens::read(from) {
        Ok(tokens) => Ok(Some(tokens)),
        Err(problem) => Err(ConfigError {
            file: file.to_owned(),
            problems: vec![problem],
        }),
    }
}
