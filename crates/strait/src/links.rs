//! The links of a configuration file, for commands that look at them and end.

use std::path::Path;

use strait_config::{Config, LinkConfig};
use strait_mirror::MirrorError;
use strait_net::{Cluster, Runtime};

use crate::exit::Exit;
use crate::output::{Out, complain};
use crate::serve::{cluster, exit_for, patience};

/// Reads the file; the links, or the one of this name. What is wrong has been told.
pub(crate) fn read(file: &Path, name: Option<&str>) -> Result<(Config, Vec<LinkConfig>), Exit> {
    let config = strait_config::load(file).map_err(|error| {
        complain(error);
        Exit::Configuration
    })?;
    let named = |link: &&LinkConfig| name.is_none_or(|name| name == link.name);
    let chosen: Vec<LinkConfig> = config.links.iter().filter(named).cloned().collect();
    if chosen.is_empty() {
        let names: Vec<&str> = config.links.iter().map(|link| link.name.as_str()).collect();
        complain(format_args!(
            "--link: {} has no such link; it has {}",
            file.display(),
            names.join(", ")
        ));
        return Err(Exit::Usage);
    }
    Ok((config, chosen))
}

/// Looks at each link's source and target in turn. What is wrong has been told.
pub(crate) fn look<T>(
    config: &Config,
    links: &[LinkConfig],
    at: impl AsyncFn(&Runtime, &LinkConfig, Cluster, Cluster) -> Result<T, MirrorError>,
) -> Result<Vec<T>, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|cause| {
        complain(format_args!("cannot start: {cause}"));
        Exit::Failed
    })?;
    let rt = Runtime::system();
    let looked = runtime.block_on(async {
        let mut found = Vec::new();
        for link in links {
            let connect = |alias: &str| {
                let found = config.clusters.get(alias)?;
                Some(cluster(&rt, found, patience(config, found)))
            };
            if let (Some(source), Some(target)) = (connect(&link.source), connect(&link.target)) {
                found.push(at(&rt, link, source, target).await?);
            }
        }
        Ok(found)
    });
    looked.map_err(|error: MirrorError| {
        complain(format_args!("{error} (id={})", error.id()));
        exit_for(&error)
    })
}

/// Writes the result to stdout.
pub(crate) fn print(text: &str, done: Exit) -> Exit {
    match Out::stdout().text(text) {
        Ok(()) => done,
        Err(error) => {
            complain(format_args!("stdout cannot be written: {error}"));
            Exit::Failed
        }
    }
}

/// `12 B`, `1.5 KiB`, `3.2 GiB`.
pub(crate) fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"B");
    match unit {
        0 => format!("{value:.0} {name}"),
        _ => format!("{value:.1} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_one_unit() {
        let shown = [0.0, 1_023.0, 1_536.0, 3.0 * 1_073_741_824.0].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
