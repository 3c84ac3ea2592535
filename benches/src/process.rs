//! What a process has used so far, read from /proc.

use std::fs;
use std::process::Child;

use crate::Failure;

/// The clock ticks of /proc/PID/stat in a second, on every Linux (USER_HZ).
const TICKS: f64 = 100.0;

/// Processor time and memory of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds in the program.
    pub(crate) user: f64,
    /// Seconds in the kernel.
    pub(crate) kernel: f64,
    /// Peak resident memory in MiB; 0 once the process has ended.
    pub(crate) peak_mib: f64,
    /// It has ended and was not waited for yet.
    pub(crate) ended: bool,
}

impl Usage {
    /// Of a process that was started here or by the harness.
    ///
    /// # Errors
    /// There is no such process.
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; behind it come the state (field 3) and numbers.
        let fields: Vec<&str> = stat
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        let seconds = |i: usize| -> f64 {
            let ticks: Option<f64> = fields.get(i).and_then(|f| f.parse().ok());
            ticks.unwrap_or(0.0) / TICKS
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status
            .lines()
            .find_map(|l| l.strip_prefix("VmHWM:"))
            .and_then(|l| l.split_whitespace().next());
        let kib: f64 = peak.and_then(|p| p.parse().ok()).unwrap_or(0.0);
        Ok(Self {
            user: seconds(11),
            kernel: seconds(12),
            peak_mib: kib / 1024.0,
            ended: fields.first() == Some(&"Z"),
        })
    }

    /// Processor seconds, program and kernel together.
    pub(crate) fn cpu(&self) -> f64 {
        self.user + self.kernel
    }
}

/// A child that does not outlive its measurement.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
