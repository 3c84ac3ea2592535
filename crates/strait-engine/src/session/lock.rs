//! The lock file: two processes on one machine never run the same link.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::session::error::SessionError;

/// A held lock; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct LinkLock {
    _file: File,
}

impl LinkLock {
    /// Locks `<dir>/strait-<link>-<target cluster id>.lock`.
    ///
    /// # Errors
    /// [`SessionError::Locked`] names the process that holds it.
    pub(crate) fn acquire(
        dir: &Path,
        link: &str,
        target_cluster: &str,
    ) -> Result<Self, SessionError> {
        let safe = |s: &str| -> String {
            s.chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                        c
                    } else {
                        '_'
                    }
                })
                .collect()
        };
        let path: PathBuf = dir.join(format!(
            "strait-{}-{}.lock",
            safe(link),
            safe(target_cluster)
        ));
        let shown = path.display().to_string();
        let failed = |source| SessionError::LockFile {
            path: shown.clone(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
            return Err(SessionError::Locked {
                link: link.to_owned(),
                path: shown,
                pid: pid.trim().to_owned(),
            });
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = LinkLock::acquire(dir.path(), "a->b", "cluster/1").unwrap();
        let refused = LinkLock::acquire(dir.path(), "a->b", "cluster/1")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(&format!("in process {} (it holds", std::process::id())),
            "{refused}"
        );
        LinkLock::acquire(dir.path(), "a->b", "cluster/2").unwrap();
        drop(held);
        LinkLock::acquire(dir.path(), "a->b", "cluster/1").unwrap();
    }

    #[test]
    fn a_state_folder_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = LinkLock::acquire(&file, "a->b", "cluster/1").unwrap_err();
        assert_eq!(error.id(), "lock-file");
        assert!(error.to_string().contains("set state-dir"), "{error}");
    }
}
