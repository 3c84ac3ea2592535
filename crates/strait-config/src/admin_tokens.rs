//! The file with the two tokens of the admin server.

use std::path::Path;

use crate::error::Problem;
use crate::secret::Secret;

/// Larger files are no tokens.
const MAX_FILE: u64 = 64 << 10;
/// A shorter token can be guessed.
const MIN_TOKEN: usize = 16;
/// Longer ones do not fit into a header everywhere.
const MAX_TOKEN: usize = 1024;
const EXAMPLE: &str =
    "Write two lines: viewer = and a token, manager = and another one (openssl rand -hex 32)";

/// Who may look at the selection of topics over HTTP, and who may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTokens {
    /// May look.
    pub viewer: Secret,
    /// May change.
    pub manager: Secret,
}

impl AdminTokens {
    /// Reads the file. It must not be open to others than its owner and group. The error never
    /// has a token in it.
    pub fn read(file: &Path) -> Result<Self, Problem> {
        Self::parse_file(file).map_err(|problem| Problem {
            key: "admin.token-file".to_owned(),
            value: Some(file.display().to_string()),
            ..problem
        })
    }

    fn parse_file(file: &Path) -> Result<Self, Problem> {
        let unreadable = |error: std::io::Error| {
            let why = format!("it cannot be read: {error}");
            Problem::whole(why, "Name a file that exists and can be read")
        };
        let found = std::fs::metadata(file).map_err(unreadable)?;
        if let Some(mode) = open_to_others(&found) {
            return Err(Problem::whole(
                format!("others than its owner and group have rights on it (mode {mode:04o})"),
                format!("Take them away: chmod 600 {}", file.display()),
            ));
        }
        if !found.is_file() || found.len() > MAX_FILE {
            let why = "this is no file of two tokens";
            return Err(Problem::whole(why, EXAMPLE));
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let (viewer, manager) = parse(&text)?;
        Ok(Self { viewer, manager })
    }
}

#[cfg(unix)]
fn open_to_others(found: &std::fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = found.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_to_others(_: &std::fs::Metadata) -> Option<u32> {
    None
}

fn parse(text: &str) -> Result<(Secret, Secret), Problem> {
    let (mut viewer, mut manager) = (None, None);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| {
            let why = format!("line {} of the token file: {why}", index + 1);
            Err(Problem::whole(why, EXAMPLE))
        };
        let Some((role, token)) = line.split_once('=') else {
            return wrong("it has no =");
        };
        let token = token.trim();
        let token = token
            .strip_prefix('"')
            .and_then(|t| t.strip_suffix('"'))
            .unwrap_or(token);
        let slot = match role.trim() {
            "viewer" => &mut viewer,
            "manager" => &mut manager,
            _ => return wrong("the roles are viewer and manager"),
        };
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len())
            || !token.chars().all(|c| c.is_ascii_graphic())
        {
            return wrong("a token has 16 to 1024 visible ASCII characters");
        }
        if slot.replace(token.to_owned()).is_some() {
            return wrong("this role has a token already");
        }
    }
    match (viewer, manager) {
        (Some(viewer), Some(manager)) if viewer == manager => Err(Problem::whole(
            "viewer and manager have the same token",
            EXAMPLE,
        )),
        (Some(viewer), Some(manager)) => Ok((Secret::new(viewer), Secret::new(manager))),
        _ => Err(Problem::whole("a token is missing in it", EXAMPLE)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const VIEWER: &str = "0123456789abcdef";

    #[test]
    fn two_tokens_are_read() {
        let text = format!("# tokens\nviewer = {VIEWER}\n\nmanager=\"{VIEWER}1\"\n");
        let (viewer, manager) = parse(&text).unwrap();
        assert_eq!(viewer.expose(), VIEWER);
        assert_eq!(manager.expose(), format!("{VIEWER}1"));
    }

    #[test]
    fn what_is_wrong_is_said_without_a_token() {
        for (text, why) in [
            (format!("viewer = {VIEWER}\n"), "a token is missing"),
            (
                format!("viewer = {VIEWER}\nmanager = {VIEWER}\n"),
                "the same token",
            ),
            (
                format!("viewer = {VIEWER}\nviewer = {VIEWER}1\n"),
                "line 2 of the token file: this role has a token already",
            ),
            (format!("admin = {VIEWER}\n"), "the roles are"),
            ("viewer = short\n".to_owned(), "16 to 1024"),
            (format!("{VIEWER}\n"), "it has no ="),
        ] {
            let said = parse(&text).unwrap_err().why;
            assert!(said.contains(why), "{said}");
            assert!(!said.contains(VIEWER), "{said}");
        }
    }
}
