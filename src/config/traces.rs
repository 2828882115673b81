//! `[traces]`: the collector of traces, and how many requests are traced.

use std::{fmt, path::PathBuf, str::FromStr};

use actors::settings::Accepts;
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ConfigError, rows};

/// The address of a collector.
const URL: Accepts = Accepts::Text(
    "http:// or https:// with a host, and a port and a path where they are needed, as http://127.0.0.1:4318",
    rows::parses::<CollectorUrl>,
);
/// A name in traces.
const NAME: Accepts = Accepts::Text("1 to 100 printable characters of ASCII, without spaces", |text| {
    (1..=100).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
});

actors::settings! {
    /// Traces of requests, sent to a collector by OpenTelemetry's protocol (OTLP over HTTP, in Protobuf).
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct TracesSettings {
        /// The URL of the collector; `/v1/traces` is added to it.
        pub collector: CollectorUrl = CollectorUrl::local() => URL;
        /// A PEM file with the certificate authorities of a collector whose URL begins with `https://`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ca: Option<PathBuf> = None => rows::PEM_FILE, e.g. r#""collector-ca.pem""#;
        /// One request of this many is traced. A request of an application that is part of a sampled trace already is
        /// always traced.
        pub one_in: u64 = 1 => Accepts::from_to(1, 1_000_000_000);
        /// The name of this gateway in traces.
        pub service_name: String = "mimi-gateway".to_owned() => NAME;
    }
}

impl TracesSettings {
    /// Checks what a row alone cannot.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.ca.is_some() || !self.collector.is_https() {
            return Ok(());
        }
        let reason = "is needed, because the URL of the collector begins with https://";
        Err(rows::refuse("traces.ca".to_owned(), reason.to_owned()))
    }
}

/// The base URL of a collector, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl(String);

/// A text is not the URL of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the URL of a collector: http:// or https:// with a host, without credentials, query and fragment"
)]
pub struct CollectorUrlError;

impl CollectorUrl {
    /// The usual address of a collector on the same machine.
    fn local() -> Self {
        Self("http://127.0.0.1:4318".to_owned())
    }

    /// Whether it is reached by TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl FromStr for CollectorUrl {
    type Err = CollectorUrlError;

    fn from_str(text: &str) -> Result<Self, CollectorUrlError> {
        let url = Url::parse(text).map_err(|_| CollectorUrlError)?;
        let is_plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let is_usable = matches!(url.scheme(), "http" | "https") && url.has_host() && url.port() != Some(0);
        if !is_plain || !is_usable {
            return Err(CollectorUrlError);
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for CollectorUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CollectorUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_default_collector_is_a_url() {
        let local = CollectorUrl::local();
        assert_eq!(local.to_string().parse(), Ok(local));
    }

    #[test]
    fn urls_with_a_place_for_secrets_are_refused() {
        for (text, parsed) in [
            ("http://127.0.0.1:4318/", Some("http://127.0.0.1:4318")),
            ("https://collector.example/otlp/", Some("https://collector.example/otlp")),
            ("HTTP://[::1]:4318", Some("http://[::1]:4318")),
            ("http://me:secret@collector.example", None),
            ("http://collector.example?token=secret", None),
            ("http://collector.example#part", None),
            ("http://collector.example:0", None),
            ("grpc://collector.example:4317", None),
            ("file:///tmp/traces", None),
            ("collector.example", None),
            ("", None),
        ] {
            let url = text.parse::<CollectorUrl>().ok().map(|url| url.to_string());
            assert_eq!(url.as_deref(), parsed, "{text}");
        }
    }

    #[test]
    fn https_needs_authorities() {
        let parse = |settings: &str| Config::parse(&format!("[traces]\n{settings}"));
        for good in ["", "one_in = 100", "collector = \"https://collector.example\"\nca = \"ca.pem\""] {
            parse(good).unwrap();
        }
        for (bad, member) in [
            ("collector = \"https://collector.example\"", "traces.ca"),
            ("one_in = 0", "traces.one_in"),
            ("service_name = \"\"", "traces.service_name"),
            ("service_name = \"a\\nb\"", "traces.service_name"),
            ("collector = \"127.0.0.1:4318\"", "traces.collector"),
        ] {
            let Err(ConfigError::Malformed { member: named, .. }) = parse(bad) else { panic!("{bad}") };
            assert_eq!(named, member, "{bad}");
        }
    }
}
