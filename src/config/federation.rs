//! `[federation]`: the listener for other gateways, the addresses of peers, and timeouts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use actors::DomainName;
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};

use super::{
    ApplicationSettings, Config, ConfigError, ListenerLimits,
    applications::Place,
    check::{refuse, seconds, within},
    cores, resolve, socket_address,
};
use crate::{
    api::federation::GatewayUrl,
    tls::{self, Credentials},
};

/// How this gateway works with those of other domains (*Operational Context*).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Federation {
    /// Where it listens for other gateways; port 0 picks a free one. TLS 1.3 with client certificates, and
    /// HTTP/1.1.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
    /// Where other gateways reach it, when that is not `listen`: `https://host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<GatewayUrl>,
    /// A PEM file with its certificate and the chain to it: as a server and as a client. Its DNS names are the domains.
    pub certificate: PathBuf,
    /// A PEM file with the key of the certificate.
    pub private_key: PathBuf,
    /// A PEM file with the certificates of who may certify peers, and nobody else.
    pub ca: PathBuf,

    /// Threads that serve connections.
    pub workers: usize,
    /// Connections at once on all threads. When one more comes, one that is idle is closed.
    pub connections_max: usize,
    /// Requests of peers at once; more are answered 429.
    pub requests_in_flight_max: usize,
    /// The largest part that one peer may hold of the connections, of the requests, and of the bytes of requests and
    /// answers, in percent.
    pub share_percent: u8,
    /// Largest body of one request, in bytes.
    pub request_bytes_max: usize,
    /// Bodies of all requests at once, in bytes; more are answered 429.
    pub requests_in_flight_bytes_max: usize,
    /// Answers that are not yet read, in bytes. Beyond it large answers wait until others are read, for half of
    /// `answer_read_timeout_s`, and are then 429.
    pub answers_unread_bytes_max: usize,
    /// Largest request line and header fields together, in bytes.
    pub header_bytes_max: usize,
    /// How long an idle connection is kept, in seconds.
    pub keep_alive_s: u64,
    /// How long a peer may take for the TLS handshake, in seconds.
    pub handshake_timeout_s: u64,
    /// How long a peer may take for the header of a request, its first byte included, in seconds.
    pub request_header_timeout_s: u64,
    /// How long a peer may take for the body of a request, in seconds.
    pub request_body_timeout_s: u64,
    /// How long a peer may pause in reading an answer, in seconds.
    pub answer_read_timeout_s: u64,

    /// How long a connection to a peer may take, TLS included, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a request to a peer may take, everything included, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long the delivery of log entries to a peer may take, everything included, in milliseconds.
    pub delivery_timeout_ms: u64,
    /// Requests to one peer at once; more are answered 429.
    pub peer_requests_in_flight_max: usize,
    /// Largest answer of a peer, in bytes.
    pub answer_bytes_max: usize,
    /// How often a request that did not reach the peer is sent again.
    pub retries: u32,
    /// How long to wait before that at most, in milliseconds; twice as long each time.
    pub retry_delay_ms: u64,
    /// After how many failures in a row a peer is left alone for a while.
    pub circuit_failures: u32,
    /// For how long, in milliseconds. After it one request tries again.
    pub circuit_open_ms: u64,
    /// How long what a peer said about itself is believed, in seconds.
    pub discovery_ttl_s: u64,
    /// The port of `https://{domain}/.well-known/mimi-gateway`, where a peer that is not listed says where it federates.
    pub discovery_port: u16,
    /// How long a write that was passed to its group's hub waits for the replica here to show it, in milliseconds.
    pub replica_timeout_ms: u64,

    /// Peers whose gateway is known. One that is not listed is discovered by its domain.
    pub peers: Vec<PeerSettings>,
}

/// Where the gateway of a domain is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSettings {
    /// The domain: its gateway's certificate has to name it.
    pub domain: DomainName,
    /// Where it federates: `https://host:port`. The host may be an IP address.
    pub url: GatewayUrl,
}

/// What a gateway shows its peers, and whom it believes.
#[derive(Debug)]
pub(crate) struct FederationTls {
    pub(crate) credentials: Credentials,
    pub(crate) roots: RootCertStore,
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)),
            public_url: None,
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            ca: PathBuf::new(),
            workers: cores(),
            connections_max: 1000,
            requests_in_flight_max: 1024,
            share_percent: 50,
            request_bytes_max: 48 << 20,
            requests_in_flight_bytes_max: 512 << 20,
            answers_unread_bytes_max: 256 << 20,
            header_bytes_max: 32 << 10,
            keep_alive_s: 75,
            handshake_timeout_s: 5,
            request_header_timeout_s: 10,
            request_body_timeout_s: 60,
            answer_read_timeout_s: 30,
            connect_timeout_ms: 3000,
            request_timeout_ms: 10_000,
            delivery_timeout_ms: 30_000,
            peer_requests_in_flight_max: 128,
            answer_bytes_max: 8 << 20,
            retries: 2,
            retry_delay_ms: 100,
            circuit_failures: 5,
            circuit_open_ms: 5000,
            discovery_ttl_s: 3600,
            discovery_port: 443,
            replica_timeout_ms: 2000,
            peers: Vec::new(),
        }
    }
}

impl Federation {
    /// What the listener may use.
    pub(crate) fn listener_limits(&self, shutdown_timeout_s: u64) -> ListenerLimits {
        ListenerLimits {
            workers: self.workers,
            connections_max: self.connections_max,
            requests_in_flight_max: self.requests_in_flight_max,
            share_percent: self.share_percent,
            request_bytes_max: self.request_bytes_max,
            requests_in_flight_bytes_max: self.requests_in_flight_bytes_max,
            answers_unread_bytes_max: self.answers_unread_bytes_max,
            header_bytes_max: self.header_bytes_max,
            keep_alive_s: self.keep_alive_s,
            request_header_timeout_s: self.request_header_timeout_s,
            request_body_timeout_s: self.request_body_timeout_s,
            answer_read_timeout_s: self.answer_read_timeout_s,
            shutdown_timeout_s,
        }
    }

    /// Reads the certificate, the key and the certificates of who may certify peers.
    pub(crate) fn tls(&self) -> Result<FederationTls, ConfigError> {
        for (name, path) in
            [("certificate", &self.certificate), ("private_key", &self.private_key), ("ca", &self.ca)]
        {
            if path.as_os_str().is_empty() {
                return Err(refuse(member(name), "must be the path of a PEM file"));
            }
        }
        let credentials = Credentials::read(&self.certificate, &self.private_key).map_err(|error| {
            let name = error.member();
            refuse(member(name), error.to_string())
        })?;
        let roots = tls::roots(&self.ca).map_err(|error| refuse(member("ca"), error.to_string()))?;
        Ok(FederationTls { credentials, roots })
    }

    /// Takes relative paths from a directory.
    pub(super) fn resolve_paths(&mut self, directory: &Path) {
        for path in [&mut self.certificate, &mut self.private_key, &mut self.ca] {
            resolve(path, directory);
        }
    }
}

/// Checks `[federation]`, and that what applications say about it is possible (*Gateway Overview*).
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    for (place, application) in config.applications.iter().enumerate() {
        check_application(config, place, application)?;
    }
    let Some(federation) = &config.federation else { return Ok(()) };
    if config.domains.is_empty() {
        return Err(refuse("domains", "must name the domains of this gateway, since it federates"));
    }
    check_limits(federation)?;
    let mut listed: BTreeMap<&DomainName, usize> = BTreeMap::new();
    for (place, peer) in federation.peers.iter().enumerate() {
        let at = member(&format!("peers[{place}].domain"));
        if config.domains.contains(&peer.domain) {
            return Err(refuse(at, format!("{} is a domain of this gateway", peer.domain)));
        }
        if let Some(first) = listed.insert(&peer.domain, place) {
            return Err(refuse(at, format!("federation.peers[{first}] has this domain already")));
        }
    }
    check_certificate(federation, &config.domains)
}

fn check_application(
    config: &Config,
    place: usize,
    application: &ApplicationSettings,
) -> Result<(), ConfigError> {
    let at = |name: &str| Place(place).member(name);
    let Some(first) = application.federates_with.first() else { return Ok(()) };
    if !application.identity_configuration.supports_domains {
        return Err(refuse(
            at("federates_with"),
            "must be empty unless identity_configuration.supports_domains is true: an application that federates uses \
             domains",
        ));
    }
    if let Some(own) = application.federates_with.intersection(&config.domains).next() {
        return Err(refuse(
            at("federates_with"),
            format!("must name domains of other gateways; {own} is this gateway's own"),
        ));
    }
    if config.federation.is_none() {
        return Err(refuse(
            "federation",
            format!("must be there: applications[{place}] federates with {first}"),
        ));
    }
    Ok(())
}

fn check_limits(federation: &Federation) -> Result<(), ConfigError> {
    federation.listener_limits(1).check("federation")?;
    seconds(&member("handshake_timeout_s"), federation.handshake_timeout_s)?;
    seconds(&member("discovery_ttl_s"), federation.discovery_ttl_s)?;
    let times_ms = [
        ("connect_timeout_ms", federation.connect_timeout_ms),
        ("request_timeout_ms", federation.request_timeout_ms),
        ("delivery_timeout_ms", federation.delivery_timeout_ms),
        ("retry_delay_ms", federation.retry_delay_ms),
        ("circuit_open_ms", federation.circuit_open_ms),
        ("replica_timeout_ms", federation.replica_timeout_ms),
    ];
    for (name, time_ms) in times_ms {
        within(&member(name), time_ms, 1..=TIME_MS_MAX)?;
    }
    within(&member("peer_requests_in_flight_max"), federation.peer_requests_in_flight_max, 1..=1 << 24)?;
    within(&member("answer_bytes_max"), federation.answer_bytes_max, 1024..=1 << 30)?;
    within(&member("retries"), federation.retries, 0..=RETRIES_MAX)?;
    within(&member("circuit_failures"), federation.circuit_failures, 1..=1000)?;
    within(&member("discovery_port"), federation.discovery_port, 1..=u16::MAX)
}

fn check_certificate(federation: &Federation, domains: &BTreeSet<DomainName>) -> Result<(), ConfigError> {
    let at = member("certificate");
    let holder = federation
        .tls()?
        .credentials
        .holder()
        .ok_or_else(|| refuse(at.clone(), "must be an X.509 certificate, and its first one is none"))?;
    match domains.difference(&holder.domains).next() {
        Some(missing) => {
            Err(refuse(at, format!("must name {missing} among its DNS names (SubjectAlternativeName)")))
        }
        None => Ok(()),
    }
}

fn member(name: &str) -> String {
    format!("federation.{name}")
}

/// The longest time that another gateway is waited for, in milliseconds: an hour.
const TIME_MS_MAX: u64 = 3_600_000;
/// More tries than this only keep a caller waiting.
const RETRIES_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a CA, a certificate for `a.example` and its key, another key, and a configuration.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut ca = rcgen::CertificateParams::default();
            ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap()).unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            let files = Self(directory);
            files.write("ca.pem", &ca.pem());
            files.write("gateway.pem", &certificate.signed_by(&key, &ca).unwrap().pem());
            files.write("gateway.key", &key.serialize_pem());
            files.write("other.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
            files
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        /// A configuration that is good, but for one change.
        fn check(&self, from: &str, to: &str, refusal: Option<(&str, &str)>) {
            let good = r#"
                domains = ["a.example"]
                [federation]
                listen = "127.0.0.1:0"
                certificate = "gateway.pem"
                private_key = "gateway.key"
                ca = "ca.pem"
                [[federation.peers]]
                domain = "b.example"
                url = "https://127.0.0.1:9443"
            "#;
            assert!(good.contains(from), "{from}");
            self.write("gateway.toml", &good.replacen(from, to, 1));
            match (Config::read(&self.0.path().join("gateway.toml")), refusal) {
                (Ok(config), None) => {
                    let printed = config.to_toml().unwrap();
                    assert_eq!(Config::parse(&printed).unwrap(), config, "{printed}");
                    assert!(printed.contains("circuit_open_ms"), "{printed}");
                }
                (Err(ConfigError::Malformed { member, reason }), Some((expected, part))) => {
                    assert_eq!(member, expected, "{to}: {reason}");
                    assert!(reason.contains(part), "{to}: {reason}");
                }
                (outcome, _) => panic!("{to}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_gateway_that_federates_is_checked() {
        let files = Files::new();
        let certificate = "certificate = \"gateway.pem\"";
        files.check("", "", None);
        files.check("domains = [\"a.example\"]", "", Some(("domains", "must name the domains")));
        files.check(certificate, "", Some(("federation.certificate", "must be the path of a PEM file")));
        files.check(
            certificate,
            "certificate = \"nowhere.pem\"",
            Some(("federation.certificate", "nowhere.pem: No such file")),
        );
        files.check(
            certificate,
            "certificate = \"gateway.key\"",
            Some(("federation.certificate", "there is no certificate in it")),
        );
        files.check("gateway.key", "gateway.pem", Some(("federation.private_key", "no private key in it")));
        files.check("gateway.key", "other.key", Some(("federation.private_key", "does not go with")));
        files.check("ca.pem", "gateway.key", Some(("federation.ca", "there is no certificate in it")));
        files.check(
            "[\"a.example\"]",
            "[\"a.example\", \"c.example\"]",
            Some(("federation.certificate", "must name c.example among its DNS names")),
        );
        files.check("b.example", "a.example", Some(("federation.peers[0].domain", "of this gateway")));
        files.check("https:", "http:", Some(("federation.peers[0].url", "must be https://")));
        files.check(
            "[[federation.peers]]",
            "[[federation.peers]]\ndomain = \"b.example\"\nurl = \"https://b.example\"\n[[federation.peers]]",
            Some(("federation.peers[1].domain", "federation.peers[0] has this domain")),
        );
        let listen = "listen = \"127.0.0.1:0\"";
        let with = |setting: &str| format!("{listen}\n{setting}");
        files.check(listen, &with("workers = 0"), Some(("federation.workers", "from 1 to")));
        files.check(listen, &with("retries = 21"), Some(("federation.retries", "from 0 to 20")));
        files.check(
            listen,
            &with("request_timeout_ms = 0"),
            Some(("federation.request_timeout_ms", "from 1 to")),
        );
        files.check(listen, &with("public_url = \"b.example\""), Some(("federation.public_url", "https://")));
        files.check(listen, &with("public_url = \"https://a.example\""), None);
    }

    #[test]
    fn a_listener_with_tls_needs_a_certificate_and_its_key() {
        let files = Files::new();
        let internal = |settings: &str| format!("domains = [\"a.example\"]\n[internal]\n{settings}");
        let check =
            |settings: &str, refusal| files.check("domains = [\"a.example\"]", &internal(settings), refusal);
        let (certificate, key) = ("certificate = \"gateway.pem\"", "private_key = \"gateway.key\"");
        check(&format!("{certificate}\n{key}"), None);
        check(certificate, Some(("internal.private_key", "must be there with `certificate`")));
        check(key, Some(("internal.certificate", "must be there with `private_key`")));
        check(
            &format!("{certificate}\nprivate_key = \"other.key\""),
            Some(("internal.private_key", "does not go with")),
        );
    }
}
