//! A long line on one machine: two network namespaces, joined by a pair of TUN devices between which every packet waits.
//!
//! Segments stay large (TSO), so the line itself costs little processor time. Nothing is lost, and the rate is not limited:
//! what is measured is what the delay does. Needs root and Linux.
#![allow(unsafe_code)] // Three ioctls.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::ioctl::{IntegerSetter, Setter, ioctl};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Failure;

// linux/if_tun.h
const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
/// Checksums, and segments beyond the MTU, of IPv4 and IPv6.
const OFFLOAD: usize = 1 | 2 | 4;
/// `struct virtio_net_hdr_mrg_rxbuf`, which precedes every packet.
const HEADER_BYTES: i32 = 12;
/// The largest packet with its header.
const PACKET_BYTES: usize = 70_000;

/// One end of the line.
#[derive(Clone, Copy)]
pub(crate) struct End {
    namespace: &'static str,
    pub(crate) address: &'static str,
}

pub(crate) const NEAR: End = End {
    namespace: "strait-near",
    address: "10.99.0.2",
};
pub(crate) const FAR: End = End {
    namespace: "strait-far",
    address: "10.99.0.1",
};

/// The namespaces; they go with the value.
pub(crate) struct Line;

impl Line {
    /// Lays the line. `one_way` is how long a packet takes.
    pub(crate) fn lay(one_way: Duration) -> Result<Self, Failure> {
        let line = Self;
        for end in [NEAR, FAR] {
            // One may be left over from a run that was killed.
            let _ = ip(&["netns", "del", end.namespace]);
            ip(&["netns", "add", end.namespace])?;
        }
        let near = NEAR.inside(|| device(NEAR, FAR).map_err(|e| e.to_string()))??;
        let far = FAR.inside(|| device(FAR, NEAR).map_err(|e| e.to_string()))??;
        carry(near.try_clone()?, far.try_clone()?, one_way);
        carry(far, near, one_way);
        Ok(line)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for end in [NEAR, FAR] {
            let _ = ip(&["netns", "del", end.namespace]);
        }
    }
}

impl End {
    /// Does something at this end: sockets and processes that it makes belong to its namespace.
    pub(crate) fn inside<T: Send>(self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        let namespace = File::open(format!("/var/run/netns/{}", self.namespace))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<T, rustix::io::Errno>(work())
            });
            match thread.join() {
                Ok(done) => Ok(done?),
                Err(_) => Err("it panicked".into()),
            }
        })
    }
}

/// Makes the device of one end, in the namespace of the calling thread.
fn device(end: End, peer: End) -> Result<File, Failure> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // struct ifreq: the name, then the flags.
    let mut request = [0u8; 40];
    request[..4].copy_from_slice(b"wan0");
    request[16..18].copy_from_slice(&(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR).to_ne_bytes());
    // SAFETY: the codes are those of linux/if_tun.h, and each gets the argument that it takes.
    unsafe {
        ioctl(&tun, Setter::<TUNSETIFF, _>::new(request))?;
        ioctl(&tun, Setter::<TUNSETVNETHDRSZ, _>::new(HEADER_BYTES))?;
        ioctl(&tun, IntegerSetter::<TUNSETOFFLOAD>::new_usize(OFFLOAD))?;
    }
    let (ours, theirs) = (end.address, peer.address);
    ip(&["addr", "add", ours, "peer", theirs, "dev", "wan0"])?;
    ip(&[
        "link",
        "set",
        "wan0",
        "mtu",
        "1500",
        "txqueuelen",
        "20000",
        "up",
    ])?;
    ip(&["link", "set", "lo", "up"])?;
    Ok(tun)
}

/// Carries packets one way until the process ends.
fn carry(mut from: File, mut to: File, one_way: Duration) {
    type Queue = Mutex<VecDeque<(Instant, Vec<u8>)>>;
    let queue: Arc<(Queue, Condvar)> = Arc::default();
    let sent = Arc::clone(&queue);
    std::thread::spawn(move || {
        let mut packet = vec![0; PACKET_BYTES];
        while let Ok(size) = from.read(&mut packet) {
            let due = Instant::now() + one_way;
            let bytes = packet.get(..size).unwrap_or_default().to_vec();
            let mut waiting = sent.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push_back((due, bytes));
            sent.1.notify_one();
        }
    });
    std::thread::spawn(move || {
        loop {
            let mut waiting = queue.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (due, bytes) = loop {
                match waiting.pop_front() {
                    Some(first) => break first,
                    None => {
                        waiting = queue
                            .1
                            .wait(waiting)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(waiting);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // A packet that the kernel refuses is lost, as on any line.
            let _ = to.write(&bytes);
        }
    });
}

fn ip(args: &[&str]) -> Result<(), Failure> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|e| format!("ip, of iproute2: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {} (as root?)", args.join(" "), said.trim()).into())
}
