//! Config providers of a MirrorMaker 2 file: `${file:/secrets.properties:password}`, by those three classes of Kafka's own that
//! need nothing but a file or the environment.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Problem;
use crate::properties::Properties;

/// No file with a password is larger.
const MAX_FILE: u64 = 1 << 20;

/// Kafka's own providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// `FileConfigProvider`: a key of a properties file.
    File,
    /// `DirectoryConfigProvider`: a file of a folder.
    Directory,
    /// `EnvVarConfigProvider`: a variable of the environment.
    Env,
}

impl Provider {
    fn of(class: &str) -> Option<Self> {
        match class
            .strip_prefix("org.apache.kafka.common.config.provider.")
            .unwrap_or(class)
        {
            "FileConfigProvider" => Some(Self::File),
            "DirectoryConfigProvider" => Some(Self::Directory),
            "EnvVarConfigProvider" => Some(Self::Env),
            _ => None,
        }
    }

    /// What stands behind one `${provider:path:key}`.
    fn look_up(
        self,
        path: &str,
        key: &str,
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, String> {
        match self {
            Self::Env => {
                env(key).ok_or_else(|| format!("the environment variable {key} is not set"))
            }
            Self::Directory => {
                let file = folder.join(path).join(key);
                let bytes = read(&file)?;
                let text = String::from_utf8(bytes);
                let text = text.map_err(|_| format!("{} is not UTF-8", file.display()))?;
                Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
            }
            Self::File => {
                let file = folder.join(path);
                let shown = file.display();
                let properties = Properties::parse(&read(&file)?)
                    .map_err(|problem| format!("{shown}: {}", problem.why))?;
                let entry = properties.get(key);
                entry.map_or_else(
                    || Err(format!("{shown} has no key {key}")),
                    |entry| Ok(entry.value.clone()),
                )
            }
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    let size = std::fs::metadata(file).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(format!(
            "{} has {size} bytes and holds no password",
            file.display()
        ));
    }
    std::fs::read(file).map_err(failed)
}

/// Puts what the providers know into the values that ask for it. Values stay as written where they are shown. Answers with
/// what is wrong with the providers themselves.
///
/// # Errors
/// What is wrong, where a value could not be had: the rest of the file cannot be judged then.
pub(crate) fn resolve(
    properties: &mut Properties,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Problem>, Vec<Problem>> {
    let mut problems = Vec::new();
    let providers = providers(properties, &mut problems);
    let before = problems.len();
    for entry in &mut properties.entries {
        match filled(&entry.value, &providers, folder, env) {
            Ok(value) if value == entry.value => {}
            Ok(value) => entry.written = Some(std::mem::replace(&mut entry.value, value)),
            Err(why) => {
                let instead = "Give the provider what it is asked for, or write the value itself";
                let problem = Problem::at(Some(entry.line), entry.key.clone(), why, instead);
                // The rest of the value may be a password.
                let secret = entry.key.contains("sasl.") || entry.key.contains("password");
                problems.push(match secret {
                    true => problem,
                    false => problem.with_value(&entry.value),
                });
            }
        }
    }
    if problems.len() > before {
        return Err(problems);
    }
    Ok(problems)
}

/// The value with every `${provider:key}` and `${provider:path:key}` replaced (`ConfigTransformer`). Of a provider that is
/// not configured they stay: they may be meant literally.
fn filled(
    value: &str,
    providers: &BTreeMap<String, Provider>,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        filled += before;
        let Some((inside, behind)) = after.split_once('}') else {
            break;
        };
        let mut parts = inside.splitn(3, ':');
        let provider = parts.next().and_then(|name| providers.get(name));
        match (provider, parts.next(), parts.next()) {
            (Some(provider), Some(path), Some(key)) => {
                filled += &provider.look_up(path, key, folder, env)?;
            }
            (Some(provider), Some(key), None) => {
                filled += &provider.look_up("", key, folder, env)?;
            }
            _ => {
                filled += "${";
                filled += inside;
                filled.push('}');
            }
        }
        rest = behind;
    }
    // What was not closed stays, too.
    if let Some(at) = rest.find("${") {
        filled += &rest[at..];
    } else {
        filled += rest;
    }
    Ok(filled)
}

fn providers(properties: &Properties, problems: &mut Vec<Problem>) -> BTreeMap<String, Provider> {
    let mut providers = BTreeMap::new();
    let Some(list) = properties.get("config.providers") else {
        return providers;
    };
    let names = list.value.split(',').map(str::trim);
    for name in names.filter(|name| !name.is_empty()) {
        let key = format!("config.providers.{name}.class");
        let entry = properties.get(&key);
        let class = entry.map_or("", |entry| entry.value.as_str());
        if let Some(provider) = Provider::of(class) {
            providers.insert(name.to_owned(), provider);
            continue;
        }
        let (line, why) = match entry {
            Some(entry) => (
                entry.line,
                "config providers written in Java cannot be run, but for Kafka's own for files, folders and the environment",
            ),
            None => (list.line, "it is missing"),
        };
        let instead = "Use FileConfigProvider, DirectoryConfigProvider or EnvVarConfigProvider of org.apache.kafka.common.config.provider, or write the values themselves";
        let problem = Problem::at(Some(line), key, why, instead);
        problems.push(if class.is_empty() {
            problem
        } else {
            problem.with_value(class)
        });
    }
    providers
}
