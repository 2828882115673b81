//! Receiving the body of a request, within the limits for one and for all at once.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap},
    web::{Bytes, Payload},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::api::problem::ProblemKind;

/// Room for bodies is counted in units of this many bytes.
const ROOM_UNIT_BYTES: usize = 1024;

/// What bodies may use.
#[derive(Clone, Debug)]
pub(crate) struct BodyLimits {
    /// Largest body of one request.
    request_bytes_max: usize,
    /// How long a body may take to arrive.
    timeout: Duration,
    /// Room for the bodies of all requests, in units.
    room: Arc<Semaphore>,
}

/// A body that has arrived. Its room is free again when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct ReceivedBody {
    pub(crate) bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl BodyLimits {
    pub(crate) fn new(request_bytes_max: usize, all_bytes_max: usize, timeout: Duration) -> Self {
        let units = (all_bytes_max / ROOM_UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { request_bytes_max, timeout, room: Arc::new(Semaphore::new(units)) }
    }

    /// Receives the body of a request, or refuses it: by its headers where they tell, before anything is read.
    pub(crate) async fn receive(
        &self,
        request: &HttpRequest,
        payload: Payload,
    ) -> Result<ReceivedBody, Problem> {
        is_plain_json(request.headers())?;
        // A length that is no number never gets here: the HTTP parser refuses it.
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > self.request_bytes_max as u64) {
            return Err(self.too_large());
        }
        tokio::time::timeout(self.timeout, self.read(payload.into_inner())).await.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            Err(Problem::new(
                ProblemKind::RequestTimeout,
                format!("the body did not arrive within {seconds} s; send the request again"),
            ))
        })
    }

    async fn read(&self, mut payload: actix_web::dev::Payload) -> Result<ReceivedBody, Problem> {
        let mut body = ReceivedBody::default();
        while let Some(chunk) = next(&mut payload).await {
            let chunk =
                chunk.map_err(|_| Problem::malformed("the body of the request did not arrive whole"))?;
            if body.bytes.len() + chunk.len() > self.request_bytes_max {
                return Err(self.too_large());
            }
            self.reserve(&mut body, chunk.len())?;
            body.bytes.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Takes room for `more` bytes, in whole units.
    fn reserve(&self, body: &mut ReceivedBody, more: usize) -> Result<(), Problem> {
        let needed = (body.bytes.len() + more).div_ceil(ROOM_UNIT_BYTES);
        let held = body.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(needed.saturating_sub(held)).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        let permit = Arc::clone(&self.room).try_acquire_many_owned(missing).map_err(|_| {
            Problem::too_many_requests("the gateway holds as many bytes of requests as it takes at once")
        })?;
        match &mut body.room {
            Some(room) => room.merge(permit),
            None => body.room = Some(permit),
        }
        Ok(())
    }

    fn too_large(&self) -> Problem {
        let max = self.request_bytes_max;
        Problem::new(
            ProblemKind::TooLarge,
            format!("the body of a request has at most {max} bytes; send less at once"),
        )
    }
}

async fn next(
    payload: &mut actix_web::dev::Payload,
) -> Option<Result<Bytes, actix_web::error::PayloadError>> {
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
