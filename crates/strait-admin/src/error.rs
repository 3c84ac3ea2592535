//! Why metrics and health are not served.

use std::io;
use std::net::SocketAddr;

/// What keeps the pages from being served. None of these says anything about the mirror itself.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Something listens there already.
    #[error(
        "metrics and health cannot be served on {0}: another process listens there. \
         Stop it, or choose another address with `--admin-listen 127.0.0.1:0` (any free port), \
         `--admin-listen off`, or listen = \"...\" under [admin] in the configuration"
    )]
    AddressTaken(SocketAddr),
    /// The address cannot be listened on for another reason.
    #[error(
        "metrics and health cannot be served on {address}: {cause}. \
         Choose an address of this machine and a port from 1024, with `--admin-listen` or \
         listen = \"...\" under [admin] in the configuration"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Metrics are collected once per process, and somebody else collects them already.
    #[error(
        "metrics are collected already in this process: install them once, before the first link starts"
    )]
    AlreadyInstalled,
    /// Accepting connections failed for good.
    #[error(
        "metrics and health are no longer served: {0}. The mirror goes on; restart to have them back"
    )]
    Serve(#[source] io::Error),
}
