//! `[operator]`: the listener for the people who run the gateway.

use std::net::{Ipv4Addr, SocketAddr};

use actors::settings::Accepts;
use serde::{Deserialize, Serialize};

use super::{ListenerSettings, TokenSettings, rows};

actors::settings! {
    /// The listener for the people who run the gateway.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct OperatorSettings {
        /// The address to listen on; port 0 picks a free one. HTTP/1.1 without TLS.
        pub listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)) => rows::ADDRESS;
        /// How long readiness fails when the gateway stops, before the listeners close, in seconds: the time that load
        /// balancers need to notice.
        pub shutdown_delay_s: u64 = 0 => Accepts::from_to(0, 3600);
        /// The limits of the listener and of the requests on it.
        #[serde(flatten)]
        pub listener: ListenerSettings = ListenerSettings {
            workers: 1,
            connections_max: 256,
            requests_in_flight_max: 64,
            event_streams_max: 16,
            request_bytes_max: 64 << 10,
            requests_in_flight_bytes_max: 4 << 20,
            ..ListenerSettings::default()
        } => Accepts::Flattened(ListenerSettings::ROWS);
        /// A token of an operator; one of an application is not accepted here. `mimi-gateway token` makes one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub tokens: Vec<TokenSettings> = Vec::new() => Accepts::List(&Accepts::Table(TokenSettings::ROWS));
    }
}

impl OperatorSettings {
    /// Warns of tokens that cross a network in the clear, and of an API that nobody can use: a gateway without configured
    /// applications makes a token for operators.
    pub(super) fn warnings(&self, makes_token: bool) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.listen.ip().is_loopback() {
            warnings.push(format!(
                "operator.listen: tokens cross the network in the clear on {}: use a loopback address, or put TLS in front \
                 of this one",
                self.listen
            ));
        }
        if self.tokens.is_empty() && !makes_token {
            let reason = "operator.tokens: the operators' API cannot be used, because there is no token; `mimi-gateway token` \
                          makes one";
            warnings.push(reason.to_owned());
        }
        warnings
    }
}
