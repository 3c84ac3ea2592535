//! The limit of any mirror over sockets: a process that reads from one connection and writes the same bytes to another.
//!
//! It does nothing else, on one thread, with one buffer. What it costs is the kernel's, on this machine, at this hour.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::process::{Running, Usage};

/// As much as a mirror's reads bring on loopback.
const BUFFER: usize = 256 << 10;
const WARM_UP: Duration = Duration::from_secs(1);

/// `bench relay FROM TO`: the process that is measured.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let [from, to] = args else {
        return Err("relay takes two addresses".into());
    };
    let (mut from, mut to) = (TcpStream::connect(from)?, TcpStream::connect(to)?);
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
    }
}

/// GB per second of one core's time, over `seconds` of steady work.
pub(crate) fn measure(seconds: f64) -> Result<f64, Failure> {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let from = serve(|mut client| {
        let buffer = vec![7; BUFFER];
        loop {
            client.write_all(&buffer)?;
        }
    })?;
    let to = serve(move |mut client| {
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = client.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            counted.fetch_add(n as u64, Ordering::Relaxed);
        }
    })?;
    let child = Command::new(std::env::current_exe()?)
        .arg("relay")
        .args([from.to_string(), to.to_string()])
        .stdin(Stdio::null())
        .spawn()?;
    let running = Running(child);
    let look = || -> Result<_, Failure> {
        let usage = Usage::of(running.0.id())?;
        Ok((usage.cpu(), taken.load(Ordering::Relaxed) as f64 / 1e9))
    };
    std::thread::sleep(WARM_UP);
    let begun = Instant::now();
    let (before, had) = look()?;
    std::thread::sleep(Duration::from_secs_f64(seconds).saturating_sub(begun.elapsed()));
    let (after, has) = look()?;
    if has <= had {
        return Err("the relay stands still".into());
    }
    Ok((has - had) / (after - before))
}

/// Serves one client on a thread of its own, until that client goes.
fn serve(
    work: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static,
) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        if let Ok((client, _)) = listener.accept() {
            // The client ends it by going.
            let _ = work(client);
        }
    });
    Ok(address)
}
