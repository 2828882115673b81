//! Errors of starting a gateway, with what to do about each.

use std::{io, net::SocketAddr};

use snapshots::{AppendError, OpenError, ReadError};

use crate::{config::ConfigError, open_files::FewFiles};
/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another program listens there.
    #[error(
        "{address} is in use by another program: choose another address with --listen ADDRESS:PORT (port 0 picks a \
         free one) or with `listen` under [internal] in the configuration"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The operating system lets it have too few connections.
    #[error(transparent)]
    Files(#[from] FewFiles),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The settings that the store keeps for the gateway itself are damaged.
    #[error("a setting in the store cannot be used: {0}")]
    Settings(String),
    /// The internal listener cannot speak TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// Other gateways cannot be worked with.
    #[error("federation: {0}")]
    Federation(String),
    /// The operating system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}
