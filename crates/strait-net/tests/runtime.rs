//! The seam itself: a simulation repeats exactly, the real machine's clocks move.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod peer;

use std::time::Duration;

use peer::Net;
use strait_net::Runtime;

#[tokio::test(start_paused = true)]
async fn a_simulation_owns_time_and_chance() {
    let draw = || {
        let rt = Runtime::simulated(Net::new(), 99);
        (0..5).map(|_| rt.random()).collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
    let other = Runtime::simulated(Net::new(), 100);
    assert_ne!(draw()[0], other.random());

    let rt = Runtime::simulated(Net::new(), 1);
    let (now, boot) = (rt.now(), rt.boottime());
    rt.sleep(Duration::from_secs(3_600)).await;
    assert_eq!(rt.now() - now, Duration::from_secs(3_600));
    assert_eq!(rt.boottime() - boot, Duration::from_secs(3_600));
    assert_eq!(rt.wall_ms(), 1_700_000_000_000);
    rt.sleep_until(now).await;
    assert_eq!(rt.spawn(async { 7 }).await.unwrap(), 7);
}

#[tokio::test]
async fn the_real_machines_clocks_are_read() {
    let rt = Runtime::system();
    assert!(rt.wall_ms() > 1_700_000_000_000);
    let boot = rt.boottime();
    assert!(boot > Duration::ZERO && rt.boottime() >= boot);
    assert_ne!(rt.random(), rt.random());
}

#[test]
fn jitter_stays_within_a_quarter() {
    let rt = Runtime::system();
    let base = Duration::from_secs(100);
    let drawn: Vec<Duration> = (0..1_000).map(|_| rt.jitter(base)).collect();
    let (low, high) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
    assert!(*low >= base.mul_f64(0.75) && *high <= base.mul_f64(1.25));
    assert!(*low < base && *high > base);
    rt.jitter(Duration::MAX);
}
