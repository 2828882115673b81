//! Answers that are not read yet: passed to the connection in pieces, and counted until the client has read them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{
    ConnectionType, Request, Response,
    body::{BodySize, BoxBody, MessageBody},
};
use actix_web::{HttpResponse, web::Bytes};

use crate::{
    connections::{HolderId, Link, Phase},
    shares::HeldShare,
};

/// The largest piece of an answer that a connection copies into its buffer.
const PIECE_BYTES: usize = 32 << 10;
/// The memory of an answer in addition to its body: the header, and its entries in tables.
const ANSWER_BYTES: usize = 1024;
/// The greatest memory of a small answer.
pub(super) const SMALL_ANSWER_BYTES: usize = ANSWER_BYTES + PIECE_BYTES;
/// The memory of one of many answers that share their bytes: the copy in the connection.
const SHARED_BYTES: usize = 2 * PIECE_BYTES;

/// The mark, among an answer's extensions, of bytes that all answers share.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedBody;

/// A request's stay on its connection.
#[derive(Debug)]
pub(super) struct Visit(Option<Link>);

/// The memory held for an answer until it is read, in bytes.
pub(super) fn bytes_held(response: &HttpResponse) -> usize {
    let body = match response.body().size() {
        BodySize::Sized(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodySize::None => 0,
        BodySize::Stream => SHARED_BYTES,
    };
    let is_shared = response.extensions().get::<SharedBody>().is_some();
    ANSWER_BYTES.saturating_add(if is_shared { body.min(SHARED_BYTES) } else { body })
}

impl Visit {
    /// The visit of a request on its connection.
    pub(super) fn of(request: &Request) -> Self {
        Self(request.conn_data::<Link>().cloned())
    }

    /// The gateway processes the request from now on; `has_body` tells whether it has a body.
    pub(super) fn begin(&self, has_body: bool) {
        self.owe_body(has_body);
        self.enter(Phase::Serving);
    }

    /// The gateway waits for the body from now on.
    pub(super) fn receive(&self) {
        self.enter(Phase::Receiving);
    }

    /// The body has arrived.
    pub(super) fn serve(&self) {
        self.owe_body(false);
        self.enter(Phase::Serving);
    }

    /// Whether the connection is one of the reserve, for probes.
    pub(super) fn is_reserve(&self) -> bool {
        self.0.as_ref().is_some_and(|link| link.connection.is_reserve())
    }

    /// Notes the holder of the connection; false if that caller has too many.
    pub(super) fn is_held_by(&self, holder: HolderId) -> bool {
        self.0.as_ref().is_none_or(|link| link.connections.is_held_by(&link.connection, holder))
    }

    /// Hands the answer and its room to the connection.
    pub(super) fn answer(self, response: HttpResponse, held: Option<HeldShare>) -> Response<BoxBody> {
        self.enter(Phase::Answering);
        let mut response: Response<BoxBody> = response.into();
        if self.is_reserve() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response.map_body(|_, body| {
            let size = body.size();
            let content = match body.try_into_bytes() {
                Ok(bytes) => Content::Whole(bytes),
                Err(stream) => Content::Stream(stream),
            };
            BoxBody::new(Unread { content, size, visit: self, held })
        })
    }

    fn owe_body(&self, is_owed: bool) {
        if let Some(link) = &self.0 {
            link.connection.owe_body(is_owed);
        }
    }

    fn enter(&self, phase: Phase) {
        if let Some(link) = &self.0 {
            link.connection.enter_phase(phase);
        }
    }
}

/// The body of an answer, until it is handed to the connection.
struct Unread {
    content: Content,
    size: BodySize,
    visit: Visit,
    held: Option<HeldShare>,
}

enum Content {
    Whole(Bytes),
    Stream(BoxBody),
}

impl MessageBody for Unread {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match &mut self.get_mut().content {
            Content::Whole(rest) if rest.is_empty() => Poll::Ready(None),
            Content::Whole(rest) => {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                Poll::Ready(Some(Ok(piece)))
            }
            Content::Stream(stream) => Pin::new(stream).poll_next(cx),
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(link) = &self.visit.0 {
            if let Some(held) = self.held.take() {
                link.connection.keep_until_read(held);
            }
            link.connection.enter_phase(Phase::HandedOver);
        }
    }
}
