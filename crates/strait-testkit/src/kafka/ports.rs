//! Ports that stay a node's own over its restarts.

use super::error::HarnessError;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's ephemeral range (32768 and up), or an outgoing connection could take the port of a node that is
/// down for a moment.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port of the loopback address, reserved among all test processes of this machine while the value lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port that nobody listens on.
    pub(crate) fn reserve() -> Result<Self, HarnessError> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("strait-kafka-ports");
        std::fs::create_dir_all(&folder)
            .map_err(HarnessError::io(format!("create {}", folder.display())))?;
        let size = RANGE.end - RANGE.start;
        // Processes start at different places, so that they seldom meet at one lock.
        let first =
            u16::try_from(u64::from(std::process::id()) * 97 % u64::from(size)).unwrap_or_default();
        for _ in 0..size {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % size;
            let number = RANGE.start + (first + step) % size;
            let path = folder.join(number.to_string());
            let Ok(lock) = File::create(&path) else {
                continue;
            };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(HarnessError::NoPort {
            from: RANGE.start,
            to: RANGE.end - 1,
        })
    }
}
