//! The answer of a peer, which may be late, too large, cut off or not from a gateway at all.

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use crate::{
    api::{
        Success,
        problem::{PROBLEM_JSON, ProblemDocument},
    },
    client::in_words,
};

/// A successful answer of a peer.
#[derive(Clone, Debug)]
pub(super) struct PeerAnswer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// The reason why there is no answer of a gateway.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The peer was not reached, or its answer did not arrive completely. Another try may succeed.
    Connection(String),
    /// The answer is not one of a gateway.
    Answer(String),
}

impl Failure {
    /// The text of an HTTP client's error, without the URL: the domain is named already.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        Self::Connection(in_words(error))
    }
}

/// The greatest size of a peer's problem document, in bytes.
const PROBLEM_BYTES_MAX: usize = 1 << 20;
/// The longest text of a peer that is kept, logged or passed on, in bytes.
const TEXT_BYTES_MAX: usize = 2000;

/// A text of a peer, shortened if it is longer than useful.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

/// The longest time in a peer's `Retry-After` that is believed, in seconds.
const RETRY_AFTER_S_MAX: u64 = 3600;

/// The seconds of a `Retry-After` field (RFC 9110 §10.2.3), at most [`RETRY_AFTER_S_MAX`]. A date is left out: the clocks of two
/// gateways differ.
fn retry_after_s(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // A number that does not fit is too large as well.
    let wait_s = str::from_utf8(value).ok()?.parse().unwrap_or(u64::MAX);
    Some(wait_s.min(RETRY_AFTER_S_MAX))
}

/// Receives a success or a problem.
pub(super) async fn receive(
    mut response: Response,
    bytes_max: usize,
    success: &[Success],
) -> Result<Result<PeerAnswer, Box<ProblemDocument>>, Failure> {
    let status = response.status();
    let is_success = success.iter().any(|success| success.status() == status.as_u16());
    let is_problem =
        response.headers().get(CONTENT_TYPE).is_some_and(|media_type| media_type == PROBLEM_JSON);
    if !is_success && !is_problem {
        return Err(not_a_gateway(status));
    }
    let retry_after_s = response.headers().get(RETRY_AFTER).and_then(|wait| retry_after_s(wait.as_bytes()));
    let bytes_max = if is_success { bytes_max } else { bytes_max.min(PROBLEM_BYTES_MAX) };
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(Failure::Answer(format!("its answer has more than {bytes_max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    if is_problem && body.is_empty() {
        // The answer to a HEAD.
        let problem = ProblemDocument::of_status(status.as_u16());
        return Ok(Err(Box::new(ProblemDocument { retry_after_s, ..problem })));
    }
    if is_success {
        return Ok(Ok(PeerAnswer { status: status.as_u16(), body }));
    }
    match serde_json::from_slice::<ProblemDocument>(&body) {
        Ok(problem) if problem.status == status.as_u16() && status.as_u16() >= 400 => {
            let detail = shortened(problem.detail);
            Ok(Err(Box::new(ProblemDocument { detail, retry_after_s, ..problem })))
        }
        Ok(_) | Err(_) => Err(not_a_gateway(status)),
    }
}

fn not_a_gateway(status: StatusCode) -> Failure {
    let text = format!("its answer, status {}, is not one of a gateway", status.as_u16());
    match status {
        // A proxy in front of the gateway reports that the gateway is down.
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Failure::Connection(text)
        }
        _ => Failure::Answer(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_makes_nobody_wait_longer_than_an_hour() {
        for (value, expected) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("3600", Some(3600)),
            ("3601", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("+17", None),
            ("-1", None),
            ("", None),
            ("Fri, 27 Nov 2026 20:00:00 GMT", None),
        ] {
            assert_eq!(retry_after_s(value.as_bytes()), expected, "{value:?}");
        }
    }
}
