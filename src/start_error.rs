//! Errors of starting a gateway, each with its remedy.

use std::{io, net::SocketAddr};

use snapshots::{AppendError, OpenError, ReadError};

use crate::{config::ConfigError, open_files::FewFiles};
/// The reason why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another program listens on the address.
    #[error(
        "{address} is in use by another program: choose another address {}with `listen` under [{section}] in the \
         configuration (port 0 picks a free one)",
        if *section == "internal" { "with --listen ADDRESS:PORT or " } else { "" }
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// The section of the configuration that names it.
        section: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The operating system allows too few connections.
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
    /// An operator has the token of an application that the configuration does not name.
    #[error(
        "operator.tokens[{place}].sha256: an application has this token already, which this gateway or an operator made; \
         `mimi-gateway token` makes another"
    )]
    SharedToken {
        /// The place of the token in the configuration.
        place: usize,
    },
    /// TLS of the internal listener cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// Federation cannot be set up.
    #[error("federation: {0}")]
    Federation(String),
    /// The operating system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}
