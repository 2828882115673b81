//! Answers that are not read yet: passed to the connection in pieces, and counted until the client has read them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{
    ConnectionType, Request, Response,
    body::{BodySize, BoxBody, MessageBody},
};
use actix_web::{HttpResponse, http::Version, web::Bytes};

use crate::{
    connections::{HolderId, Link, Phase},
    shares::HeldShare,
};

/// The largest piece of an answer that a connection copies into its buffer.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// The memory of an answer in addition to its body: the header, and its entries in tables.
const ANSWER_BYTES: usize = 1024;
/// The greatest memory of a small answer.
pub(super) const SMALL_ANSWER_BYTES: usize = ANSWER_BYTES + PIECE_BYTES;
/// The memory of one of many answers that share their bytes: the copy in the connection.
const SHARED_BYTES: usize = 2 * PIECE_BYTES;

/// The mark, among an answer's extensions, of bytes that all answers share, with the same bytes compressed with gzip.
#[derive(Clone, Debug)]
pub(super) struct SharedBody {
    pub(super) gzip: Bytes,
}

/// The share of the event streams that a stream holds, among its answer's extensions.
#[derive(Debug)]
pub(super) struct StreamShare(pub(super) HeldShare);

/// A request's stay on its connection.
#[derive(Debug)]
pub(super) struct Visit {
    link: Option<Link>,
    /// Whether the client takes a body in chunks, which HTTP/1.0 does not have.
    takes_chunks: bool,
}

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
        let takes_chunks = request.version() != Version::HTTP_10;
        Self { link: request.conn_data::<Link>().cloned(), takes_chunks }
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
        self.link.as_ref().is_some_and(|link| link.connection.is_reserve())
    }

    /// Notes the holder of the connection; false if that caller has too many.
    pub(super) fn is_held_by(&self, holder: HolderId) -> bool {
        self.link.as_ref().is_none_or(|link| link.connections.is_held_by(&link.connection, holder))
    }

    /// Hands the answer and its room to the connection.
    pub(super) fn answer(self, response: HttpResponse, held: Option<HeldShare>) -> Response<BoxBody> {
        let is_stream = matches!(response.body().size(), BodySize::Stream);
        self.enter(if is_stream { Phase::Streaming } else { Phase::Answering });
        let mut response: Response<BoxBody> = response.into();
        if self.is_reserve() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        if is_stream && !self.takes_chunks {
            // Its end is the end of the connection (RFC 9112 §6.3).
            response.head_mut().no_chunking(true);
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
        if let Some(link) = &self.link {
            link.connection.owe_body(is_owed);
        }
    }

    fn enter(&self, phase: Phase) {
        if let Some(link) = &self.link {
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
        if let Some(link) = &self.visit.link {
            if let Some(held) = self.held.take() {
                link.connection.keep_until_read(held);
            }
            link.connection.enter_phase(Phase::HandedOver);
        }
    }
}
