//! Configurations as users have them, and what becomes of each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use strait_config::PasswordFrom;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/config")
}

fn environment(name: &str) -> Option<String> {
    let secret = match name {
        "TOKYO_PASSWORD" => "not-a-real-secret",
        // What a password in the file itself is printed as.
        "PASSWORD" => "correct-horse",
        _ => return None,
    };
    Some(secret.to_owned())
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "toml" || e == "properties" || e == "yaml")
        })
        .collect();
    files.sort();
    files
}

/// What `strait check` says of the file, with the folder's own path cut out.
fn effective(path: &Path) -> String {
    let text = match strait_config::load_with(path, &environment) {
        Ok(config) => {
            let warnings: String = config
                .warnings
                .iter()
                .map(|warning| format!("# warning: {warning}\n"))
                .collect();
            warnings + &config.to_toml()
        }
        Err(error) => format!("{error}\n"),
    };
    text.replace(&format!("{}/", folder().display()), "")
}

#[test]
fn every_file_means_what_its_golden_says() {
    let bless = std::env::var_os("STRAIT_BLESS").is_some();
    let files = files();
    assert!(files.len() >= 11, "{files:?}");
    for path in files {
        let golden = PathBuf::from(format!("{}.effective", path.display()));
        let found = effective(&path);
        if bless {
            std::fs::write(&golden, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(found, wanted, "{}", path.display());
    }
}

#[test]
fn what_is_printed_means_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for path in files() {
        let Ok(config) = strait_config::load_with(&path, &environment) else {
            continue;
        };
        let printed = scratch.path().join("printed.toml");
        std::fs::write(&printed, config.to_toml()).unwrap();
        let again = strait_config::load_with(&printed, &environment).unwrap();
        let bare = |mut config: strait_config::Config| {
            config.warnings.clear();
            let inline = PasswordFrom::Env("PASSWORD".to_owned());
            for sasl in config.clusters.values_mut().filter_map(|c| c.sasl.as_mut()) {
                if sasl.password_from == PasswordFrom::Inline {
                    sasl.password_from = inline.clone();
                }
            }
            config
        };
        assert_eq!(bare(again), bare(config), "{}", path.display());
        compared += 1;
    }
    assert!(compared >= 6);
}

#[test]
fn secrets_are_never_shown() {
    for path in files() {
        let shown = match strait_config::load_with(&path, &environment) {
            Ok(config) => format!("{config:?} {} {:?}", config.to_toml(), config.warnings),
            Err(error) => format!("{error} {error:?}"),
        };
        for secret in [
            "not-a-real-secret",
            "my-secret-password",
            "never-used",
            "correct-horse",
        ] {
            assert!(
                !shown.contains(secret),
                "{secret} of {} is shown: {shown}",
                path.display()
            );
        }
    }
}

#[test]
fn the_five_line_example_has_the_documented_defaults() {
    use std::time::Duration;
    use strait_config::{Isolation, Naming, StartPosition};

    let config = strait_config::load(&folder().join("five-lines.toml")).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.admin.listen, Some("127.0.0.1:9464".parse().unwrap()));
    let [link] = config.links.as_slice() else {
        panic!("{:?}", config.links)
    };
    assert_eq!(link.name, "paris->tokyo");
    assert_eq!(
        link.naming,
        Naming::Default {
            separator: ".".to_owned()
        }
    );
    assert_eq!(
        (link.replication_factor, link.internal_replication_factor),
        (None, None)
    );
    assert_eq!(link.refresh_topics, Some(Duration::from_secs(30)));
    assert_eq!(link.start.for_topic("orders"), StartPosition::Earliest);
    assert_eq!(link.isolation, Isolation::ReadCommitted);
    assert!(link.sync_topic_configs && link.grow_partitions);
    assert_eq!(link.memory_budget, 256 << 20);
    assert!(link.topics.selects("orders-eu") && !link.topics.selects("my-orders"));
}
