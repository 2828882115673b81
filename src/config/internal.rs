//! `[internal]`: the listener for application servers, and the limits that it shares with the listener for peers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use actors::settings::{
    Accepts,
    Bound::{Is, Of},
};
use serde::{Deserialize, Serialize};

use super::{
    ConfigError, cores,
    rows::{self, refuse},
};
use crate::tls::TlsIdentity;

actors::settings! {
    /// The limits of a listener and of the requests on it; the defaults are those of `[internal]`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ListenerSettings {
        /// Threads that serve connections; by default one per core, and one for `[operator]`.
        pub workers: usize = cores() => rows::THREADS, e.g. "4";
        /// Connections at once on all threads. For one more, an idle one is closed; a few beyond the limit can only send
        /// probes.
        pub connections_max: usize = 10_000 => Accepts::Number(Of("workers"), Is(1 << 24));
        /// Requests at once; further ones are answered 429.
        pub requests_in_flight_max: usize = 4096 => Accepts::COUNT;
        /// Event streams at once; one token may hold `share_percent` of them. Each holds a connection as well.
        pub event_streams_max: usize = 5000 => Accepts::COUNT;
        /// The largest part that one token or peer may hold of the connections, of the requests, and of the bytes of requests
        /// and answers, in percent.
        pub share_percent: u8 = 75 => Accepts::from_to(1, 100);
        /// Largest body of one request, in bytes.
        pub request_bytes_max: usize = 24 << 20 => Accepts::BYTES;
        /// Bodies of all requests at once, in bytes; further requests are answered 429.
        pub requests_in_flight_bytes_max: usize = 512 << 20
            => Accepts::Number(Of("request_bytes_max"), Is(Accepts::BYTES_MAX));
        /// Answers that are not yet read, in bytes. Beyond it, large answers wait until others are read, for half of
        /// `answer_read_timeout_s`, and are then refused with 429.
        pub answers_unread_bytes_max: usize = 256 << 20 => Accepts::from_to(64 << 20, Accepts::BYTES_MAX);
        /// Largest request line and header fields together, in bytes; the HTTP/1.1 parser itself stops at 128 KiB.
        pub header_bytes_max: usize = 32 << 10 => Accepts::from_to(4096, 128 << 10);
        /// How long an idle connection is kept, in seconds.
        pub keep_alive_s: u64 = 75 => Accepts::SECONDS;
        /// How long a client may take for the header of a request, its first byte included, in seconds.
        pub request_header_timeout_s: u64 = 10 => Accepts::SECONDS;
        /// How long a client may take for the body of a request, in seconds.
        pub request_body_timeout_s: u64 = 60 => Accepts::SECONDS;
        /// How long a client may pause in reading an answer, in seconds.
        pub answer_read_timeout_s: u64 = 30 => Accepts::SECONDS;
    }
}

actors::settings! {
    /// The listener for application servers, and the limits of a request.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Internal {
        /// The address to listen on; port 0 picks a free one. HTTP/1.1, over TLS if there is a certificate.
        pub listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)) => rows::ADDRESS;
        /// A PEM file with a certificate chain; requires `private_key`. Without them there is no TLS.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub certificate: Option<PathBuf> = None => rows::PEM_FILE, e.g. r#""gateway.pem""#;
        /// A PEM file with the key of the certificate.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub private_key: Option<PathBuf> = None => rows::PEM_FILE, e.g. r#""gateway.key""#;
        /// The limits of the listener and of the requests on it.
        #[serde(flatten)]
        pub listener: ListenerSettings = ListenerSettings::default() => Accepts::Flattened(ListenerSettings::ROWS);
        /// How long requests in flight may take to finish when the gateway stops, on all listeners, in seconds.
        pub shutdown_timeout_s: u64 = 15 => Accepts::SECONDS;
    }
}

impl Internal {
    /// Whether it speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.certificate.is_some()
    }

    /// Reads the certificate and its key, where there are any.
    pub(crate) fn credentials(&self) -> Result<Option<TlsIdentity>, ConfigError> {
        let must = |name: &str, reason: String| refuse(rows::member("internal", name), reason);
        match (&self.certificate, &self.private_key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(must("private_key", "is required with `certificate`".to_owned())),
            (None, Some(_)) => Err(must("certificate", "is required with `private_key`".to_owned())),
            (Some(certificate), Some(key)) => TlsIdentity::read(certificate, key)
                .map(Some)
                .map_err(|error| must(error.member, error.to_string())),
        }
    }
}
