//! `[federation]`: the listener for other gateways, their addresses, and time limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use actors::{DomainName, settings::Accepts};
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};

use super::{
    ApplicationSettings, Config, ConfigError, ListenerSettings, applications,
    rows::{self, refuse},
};
use crate::{
    api::federation::GatewayUrl,
    tls::{self, TlsIdentity},
};

/// The address of a gateway.
const URL: Accepts = Accepts::Text(
    "https:// with a host and, where it is not 443, a port, as https://gateway.example:8443",
    rows::parses::<GatewayUrl>,
);
/// A time to wait for another gateway, in milliseconds: at most an hour.
const WAIT_MS: Accepts = Accepts::from_to(1, 3_600_000);

actors::settings! {
    /// Federation with the gateways of other domains (*Operational Context*).
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct FederationSettings {
        /// The address to listen on for other gateways; port 0 picks a free one. TLS 1.3 with client certificates, and
        /// HTTP/1.1.
        pub listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)) => rows::ADDRESS;
        /// The URL at which other gateways reach it, if it differs from `listen`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub public_url: Option<GatewayUrl> = None => URL, e.g. r#""https://gateway.a.example:8443""#;
        /// A PEM file with its certificate chain, for both server and client. Its DNS names must include the domains.
        pub certificate: PathBuf = PathBuf::new() => rows::PEM_FILE, e.g. r#""gateway.pem""#;
        /// A PEM file with the key of the certificate.
        pub private_key: PathBuf = PathBuf::new() => rows::PEM_FILE, e.g. r#""gateway.key""#;
        /// A PEM file with the certificate authorities of peers. No other authority is trusted.
        pub ca: PathBuf = PathBuf::new() => rows::PEM_FILE, e.g. r#""peers-ca.pem""#;
        /// The limits of the listener and of the requests on it.
        #[serde(flatten)]
        pub listener: ListenerSettings = ListenerSettings {
            connections_max: 1000,
            requests_in_flight_max: 1024,
            share_percent: 50,
            request_bytes_max: 48 << 20,
            ..ListenerSettings::default()
        } => Accepts::Flattened(ListenerSettings::ROWS);
        /// How long a peer may take for the TLS handshake, in seconds.
        pub handshake_timeout_s: u64 = 5 => Accepts::SECONDS;
        /// How long a connection to a peer may take, TLS included, in milliseconds.
        pub connect_timeout_ms: u64 = 3000 => WAIT_MS;
        /// How long a request to a peer may take, everything included, in milliseconds.
        pub request_timeout_ms: u64 = 10_000 => WAIT_MS;
        /// How long the delivery of log entries to a peer may take, everything included, in milliseconds.
        pub delivery_timeout_ms: u64 = 30_000 => WAIT_MS;
        /// Requests to one peer at once; more are answered 429.
        pub peer_requests_in_flight_max: usize = 128 => Accepts::COUNT;
        /// Largest answer of a peer, in bytes.
        pub answer_bytes_max: usize = 8 << 20 => Accepts::BYTES;
        /// The number of retries of a request that did not reach the peer.
        pub retries: u32 = 2 => Accepts::from_to(0, 20);
        /// The longest pause before the first retry, in milliseconds; it doubles with each further one.
        pub retry_delay_ms: u64 = 100 => WAIT_MS;
        /// The number of failures in a row after which the circuit to a peer opens.
        pub circuit_failures: u32 = 5 => Accepts::from_to(1, 1000);
        /// How long the circuit stays open, in milliseconds. Then one request tries again.
        pub circuit_open_ms: u64 = 5000 => WAIT_MS;
        /// How long a discovered address is used, in seconds.
        pub discovery_ttl_s: u64 = 3600 => Accepts::SECONDS;
        /// The port of `https://{domain}/.well-known/mimi-gateway`, by which a peer that is not listed is discovered.
        pub discovery_port: u16 = 443 => Accepts::from_to(1, u16::MAX as u64);
        /// How long a write that was forwarded to its group's hub waits for the replica here to show it, in milliseconds.
        pub replica_timeout_ms: u64 = 2000 => WAIT_MS;
        /// Requests of one peer in `peer_rate_window_s`, also all at once; 0 for no limit. Further ones are answered 429.
        pub peer_rate_requests_max: u64 = 50_000 => applications::RATE;
        /// The time in which this number of requests is allowed again, in seconds.
        pub peer_rate_window_s: u64 = 10 => applications::RATE_WINDOW;
        /// Requests of one peer for the key packages of one client in `client_rate_window_s`, also all at once; 0 for no limit.
        pub client_rate_requests_max: u64 = 0 => applications::RATE;
        /// The time in which this number of requests is allowed again, in seconds.
        pub client_rate_window_s: u64 = 60 => applications::RATE_WINDOW;
        /// Requests of one peer about one group in `group_rate_window_s`, also all at once; 0 for no limit.
        pub group_rate_requests_max: u64 = 10_000 => applications::RATE;
        /// The time in which this number of requests is allowed again, in seconds.
        pub group_rate_window_s: u64 = 10 => applications::RATE_WINDOW;
        /// Clients, and as many groups, whose rates are remembered for one peer. Further ones share one rate, until those that were
        /// not asked for in their time are forgotten.
        pub rate_targets_max: usize = 10_000 => Accepts::COUNT;
        /// A peer with a configured address. A peer that is not listed is discovered by its domain.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub peers: Vec<PeerSettings> = Vec::new() => Accepts::List(&Accepts::Table(PeerSettings::ROWS));
    }
}

actors::settings! {
    /// The address of a domain's gateway.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct PeerSettings {
        /// The domain, which its gateway's certificate must name.
        pub domain: DomainName => rows::DOMAIN, e.g. r#""b.example""#;
        /// The URL of its federation listener. The host may be an IP address.
        pub url: GatewayUrl => URL, e.g. r#""https://gateway.b.example:8443""#;
    }
}

/// The gateway's certificate for peers, and the authorities that it trusts.
#[derive(Debug)]
pub(crate) struct FederationTls {
    pub(crate) credentials: TlsIdentity,
    pub(crate) roots: RootCertStore,
}

impl FederationSettings {
    /// Reads the certificate, the key and the certificate authorities of peers.
    pub(crate) fn tls(&self) -> Result<FederationTls, ConfigError> {
        let credentials = TlsIdentity::read(&self.certificate, &self.private_key)
            .map_err(|error| refuse(member(error.member), error.to_string()))?;
        let roots = tls::roots(&self.ca).map_err(|error| refuse(member("ca"), error.to_string()))?;
        Ok(FederationTls { credentials, roots })
    }

    /// The paths of all files that it names.
    pub(super) fn paths(&mut self) -> [&mut PathBuf; 3] {
        [&mut self.certificate, &mut self.private_key, &mut self.ca]
    }
}

/// Checks `[federation]`, and the settings of applications that depend on it (*Gateway Overview*).
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    for (place, application) in config.applications.iter().enumerate() {
        check_application(config, &applications::at(place), application)?;
    }
    let Some(federation) = &config.federation else { return Ok(()) };
    if config.domains.is_empty() {
        return Err(refuse("domains", "must name the domains of this gateway, since it federates"));
    }
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
    at: &str,
    application: &ApplicationSettings,
) -> Result<(), ConfigError> {
    let Some(first) = application.federates_with.first() else { return Ok(()) };
    let federates_with = format!("{at}.federates_with");
    if !application.identity_configuration.supports_domains {
        return Err(refuse(
            federates_with,
            "must be empty unless identity_configuration.supports_domains is true: an application that federates uses \
             domains",
        ));
    }
    if let Some(own) = application.federates_with.intersection(&config.domains).next() {
        let reason = format!("must name domains of other gateways; {own} is this gateway's own");
        return Err(refuse(federates_with, reason));
    }
    if config.federation.is_none() {
        return Err(refuse("federation", format!("is required: {at} federates with {first}")));
    }
    Ok(())
}

fn check_certificate(
    federation: &FederationSettings,
    domains: &BTreeSet<DomainName>,
) -> Result<(), ConfigError> {
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
    rows::member("federation", name)
}

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
                (Err(ConfigError::Malformed { member, reason, .. }), Some((expected, part))) => {
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
        files.check(
            "gateway.key",
            "other.key",
            Some(("federation.private_key", "does not match the certificate, which has another public key")),
        );
        files.check("ca.pem", "gateway.key", Some(("federation.ca", "there is no certificate in it")));
        files.check(
            "[\"a.example\"]",
            "[\"a.example\", \"c.example\"]",
            Some(("federation.certificate", "must name c.example among its DNS names")),
        );
        files.check("b.example", "a.example", Some(("federation.peers[0].domain", "of this gateway")));
        files.check("https:", "http:", Some(("federation.peers[0].url", "not \"http://127.0.0.1:9443\"")));
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
        check(certificate, Some(("internal.private_key", "is required with `certificate`")));
        check(key, Some(("internal.certificate", "is required with `private_key`")));
        check(
            &format!("{certificate}\nprivate_key = \"other.key\""),
            Some(("internal.private_key", "does not match the certificate, which has another public key")),
        );
    }
}
