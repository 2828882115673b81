//! Receiving request bodies, within the limits of one body and of all bodies together.

use std::time::Duration;

use actix_http::{Payload, error::PayloadError};
use actix_web::{
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap},
    web::Bytes,
};

use super::problem::Problem;
use crate::{
    api::problem::ProblemKind,
    shares::{Account, Full, HeldShare},
};

/// Room for bodies is taken in units of this many bytes.
const ROOM_UNIT_BYTES: usize = 1024;

/// The limits on request bodies.
#[derive(Clone, Debug)]
pub(crate) struct BodyLimits {
    /// Largest body of one request.
    request_bytes_max: usize,
    /// The time limit of a body.
    timeout: Duration,
}

/// A body that has arrived. Its room is free again when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct ReceivedBody {
    pub(crate) bytes: Vec<u8>,
    pub(super) room: Option<HeldShare>,
}

impl BodyLimits {
    pub(crate) fn new(request_bytes_max: usize, timeout: Duration) -> Self {
        Self { request_bytes_max, timeout }
    }

    /// Refuses a body by its headers, if possible.
    pub(crate) fn check_headers(&self, headers: &HeaderMap, route_max: usize) -> Result<(), Problem> {
        is_plain_json(headers)?;
        // The HTTP parser has refused a length that is not a number.
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let max = self.request_bytes_max.min(route_max);
        if announced.is_some_and(|length: u64| length > max as u64) {
            return Err(too_large(max));
        }
        Ok(())
    }

    /// Receives the body of a request, at most `route_max` bytes, into the room of its caller, or refuses it: by its headers if
    /// possible, before anything is read.
    pub(crate) async fn receive(
        &self,
        headers: &HeaderMap,
        payload: Payload,
        route_max: usize,
        room: &Account,
    ) -> Result<ReceivedBody, Problem> {
        self.check_headers(headers, route_max)?;
        let max = self.request_bytes_max.min(route_max);
        tokio::time::timeout(self.timeout, read(payload, max, room)).await.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            Err(Problem::new(
                ProblemKind::RequestTimeout,
                format!("the body did not arrive within {seconds} s; send the request again"),
            ))
        })
    }
}

/// Receives a body of at most this many bytes.
async fn read(mut payload: Payload, max: usize, room: &Account) -> Result<ReceivedBody, Problem> {
    let mut body = ReceivedBody::default();
    while let Some(chunk) = next(&mut payload).await {
        let chunk = chunk.map_err(|_| Problem::malformed("the body of the request is incomplete"))?;
        let length = body.bytes.len() + chunk.len();
        if length > max {
            return Err(too_large(max));
        }
        body.make_room(length, room)?;
        body.bytes.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn too_large(max: usize) -> Problem {
    Problem::new(
        ProblemKind::TooLarge,
        format!("the body of a request has at most {max} bytes; send less at once"),
    )
}

impl ReceivedBody {
    /// Takes room for this many bytes in total, in whole units.
    fn make_room(&mut self, bytes: usize, room: &Account) -> Result<(), Problem> {
        let bytes = bytes.div_ceil(ROOM_UNIT_BYTES) * ROOM_UNIT_BYTES;
        let taken = match &mut self.room {
            Some(held) => held.grow_to(bytes),
            None => room.take(bytes).map(|held| self.room = Some(held)),
        };
        taken.map_err(|full| match full {
            Full::Share { max } => Problem::too_many_requests(format!(
                "the caller has {max} bytes of requests in flight, the limit for one caller; wait for answers"
            )),
            Full::Pool { .. } => Problem::too_many_requests(
                "the gateway has reached its limit of request bytes in flight; try again in a moment",
            ),
        })
    }
}

async fn next(payload: &mut Payload) -> Option<Result<Bytes, PayloadError>> {
    std::future::poll_fn(|cx| futures_core::Stream::poll_next(std::pin::Pin::new(&mut *payload), cx)).await
}

fn is_plain_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail| Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let media_type = text(CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or_default().trim());
    match media_type {
        Some(value) if value.eq_ignore_ascii_case("application/json") => {}
        Some(_) => return refuse("the Content-Type of the body must be application/json"),
        None => return refuse("the request has no Content-Type; send `Content-Type: application/json`"),
    }
    match text(CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            refuse("the body must not be compressed: leave Content-Encoding out")
        }
        Some(_) | None => Ok(()),
    }
}
