//! A connection with deadlines: for the first byte and the header of each request, for the next request, and for a
//! client that does not read its answer. The HTTP/1.1 dispatcher sees an error of the connection when a deadline
//! passes.
//!
//! It also keeps the dispatcher from reading far ahead of the present request, and turns the bare answers of the HTTP/1.1
//! parser into problem documents.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::connections::{Connection, ConnectionSlot, Phase};
use crate::shares::HeldShare;

/// The most bytes read in one turn of the dispatcher, and while it processes a request without waiting for its body.
const AHEAD_BYTES: usize = 8 << 10;
/// The uncounted bytes of a header: its separators.
const SEPARATOR_BYTES: usize = 1 << 10;
/// The lowest rate at which an answer may be read, in addition to the pause that a client may make.
const READ_BYTES_PER_S: u64 = 16 << 10;
/// The status of a header that is too long.
const HEADERS_TOO_LARGE: u16 = 431;
/// The status of a long header when there are too many of them at once.
const TOO_MANY_REQUESTS: u16 = 429;
/// The time limit of a request's header on a connection of the reserve.
const RESERVE_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits on the time of a client, and on its bytes before a complete request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    /// The request line and the header fields, as they are counted when they are read, in bytes.
    pub(crate) header_bytes: usize,
    /// The time for the first byte and the header of a request.
    pub(crate) header: Duration,
    /// The time for the next request.
    pub(crate) keep_alive: Duration,
    /// The pause between reading two parts of an answer.
    pub(crate) reading: Duration,
}

/// The answer to a request that the HTTP/1.1 parser refused, from the parser's status.
pub(crate) type ParseErrorResponse = fn(status: u16) -> Vec<u8>;

/// A connection with deadlines.
pub(crate) struct TimedConnection<T> {
    io: T,
    place: ConnectionSlot,
    limits: ClientLimits,
    refusal: ParseErrorResponse,
    opened: Instant,
    /// The arrival of the first byte of the next request.
    header_since: Option<Instant>,
    idle_since: Option<Instant>,
    /// The deadline for a client that does not read.
    read_until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Read bytes that do not make a complete request yet.
    header_bytes: usize,
    /// Their share of the room for long headers, once they exceed most headers.
    header_room: Option<HeldShare>,
    /// Bytes read in this turn of the dispatcher.
    read_in_turn: usize,
    /// Bytes read while a request was being processed.
    read_ahead: usize,
    /// Whether the dispatcher was kept from reading.
    is_reading_held: bool,
    /// The answer that replaces a bare one of the parser, and the number of its written bytes.
    instead: Option<(Vec<u8>, usize)>,
}

impl<T> TimedConnection<T> {
    pub(crate) fn new(
        io: T,
        place: ConnectionSlot,
        limits: ClientLimits,
        refusal: ParseErrorResponse,
    ) -> Self {
        Self {
            io,
            place,
            limits,
            refusal,
            opened: Instant::now(),
            header_since: None,
            idle_since: None,
            read_until: None,
            timer: None,
            header_bytes: 0,
            header_room: None,
            read_in_turn: 0,
            read_ahead: 0,
            is_reading_held: false,
            instead: None,
        }
    }

    /// The connection itself.
    pub(crate) fn io(&self) -> &T {
        &self.io
    }

    /// Its slot among the others.
    pub(crate) fn place(&self) -> &ConnectionSlot {
        &self.place
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.place.link.connection
    }

    /// The deadline for the client to send more, while none of its requests is processed.
    fn send_until(&self) -> Option<Instant> {
        let header = if self.connection().is_reserve() {
            self.limits.header.min(RESERVE_HEADER_TIMEOUT)
        } else {
            self.limits.header
        };
        match (self.connection().phase(), self.header_since, self.idle_since) {
            (Phase::Silent, _, _) => Some(self.opened + header),
            (Phase::Idle, Some(since), _) => Some(since + header),
            (Phase::Idle, None, Some(since)) => Some(since + self.limits.keep_alive),
            (Phase::Idle, None, None) => Some(self.opened + self.limits.keep_alive),
            (
                Phase::Serving | Phase::Receiving | Phase::Streaming | Phase::Answering | Phase::HandedOver,
                _,
                _,
            ) => None,
        }
    }

    /// Fails when the connection is to be closed, or when a deadline is over.
    fn check_deadlines(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.connection().wake_on_close(cx);
        if self.connection().is_closing() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let Some(until) = [self.send_until(), self.read_until].into_iter().flatten().min() else {
            return Ok(());
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if until < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            timer.as_mut().reset(until);
        }
        Ok(())
    }

    /// The status for a header that is too long, or for which there is no room next to those of others. The parser itself would
    /// accept four times as much.
    fn refused_header(&mut self) -> Option<u16> {
        // In the other phases, the bytes are not a header.
        if !matches!(self.connection().phase(), Phase::Silent | Phase::Idle)
            || self.header_bytes <= AHEAD_BYTES
        {
            return None;
        }
        if self.header_bytes > self.limits.header_bytes + AHEAD_BYTES + SEPARATOR_BYTES {
            return Some(HEADERS_TOO_LARGE);
        }
        let taken = match &mut self.header_room {
            Some(held) => held.grow_to(self.header_bytes),
            None => {
                let taken = self.place.link.connections.header_room().take(self.header_bytes);
                taken.map(|held| self.header_room = Some(held))
            }
        };
        taken.err().map(|_| TOO_MANY_REQUESTS)
    }

    /// Notes the number of bytes of its answer that the client has read.
    fn note_written(&mut self, bytes: usize) {
        if let Some(until) = &mut self.read_until {
            let earned = Duration::from_millis(bytes as u64 * 1000 / READ_BYTES_PER_S);
            *until = (*until + earned).min(Instant::now() + self.limits.reading);
        }
        self.connection().note_activity();
    }

    /// Notes that the client does not read.
    fn note_blocked(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.read_until.is_none() {
            self.read_until = Some(Instant::now() + self.limits.reading);
        }
        self.check_deadlines(cx)
    }

    /// Whether the dispatcher has read as much as it needs for now.
    fn is_far_ahead(&self, cx: &Context<'_>) -> bool {
        match self.connection().phase() {
            Phase::Receiving => false,
            Phase::Serving | Phase::Streaming | Phase::Answering | Phase::HandedOver => {
                self.read_ahead >= AHEAD_BYTES
            }
            Phase::Silent | Phase::Idle => {
                let is_far = self.read_in_turn >= AHEAD_BYTES;
                if is_far {
                    // It parses the bytes that it has, and reads more in its next turn.
                    cx.waker().wake_by_ref();
                }
                is_far
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimedConnection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection().is_closing() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if this.is_far_ahead(cx) {
            this.is_reading_held = true;
            this.check_deadlines(cx)?;
            return Poll::Pending;
        }
        // The parser has seen all bytes of the turns before: they are a header that has not ended.
        if let Some(status) = this.refused_header() {
            this.instead.get_or_insert_with(|| ((this.refusal)(status), 0));
            ready!(this.poll_write_instead(cx))?;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_pending() {
            this.check_deadlines(cx)?;
            return Poll::Pending;
        }
        let bytes = buf.filled().len() - before;
        if bytes == 0 && buf.remaining() > 0 && this.connection().phase() == Phase::Streaming {
            // The reader of a stream is gone. Otherwise it would be noticed at the next event.
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if bytes > 0 {
            match this.connection().phase() {
                Phase::Silent | Phase::Idle => {
                    this.header_since.get_or_insert_with(Instant::now);
                    this.read_in_turn += bytes;
                    if !this.connection().is_draining() {
                        this.header_bytes += bytes;
                    }
                }
                Phase::Receiving => this.connection().note_activity(),
                Phase::Serving | Phase::Streaming | Phase::Answering | Phase::HandedOver => {
                    this.read_ahead += bytes;
                }
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> TimedConnection<T> {
    fn poll_write_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((document, written)) = &mut self.instead {
            let rest = document.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match Pin::new(&mut self.io).poll_write(cx, rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(bytes) => {
                    *written += bytes;
                    self.note_written(bytes);
                }
                Poll::Pending => {
                    self.note_blocked(cx)?;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TimedConnection<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.connection().is_closing() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        // No request reached the gateway, and none is open, so this is the parser's own answer.
        if this.instead.is_none()
            && matches!(this.connection().phase(), Phase::Silent | Phase::Idle)
            && let Some(status) = bare_status(bytes)
        {
            this.instead = Some(((this.refusal)(status), 0));
        }
        if this.instead.is_some() {
            ready!(this.poll_write_instead(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut this.io).poll_write(cx, bytes)? {
            Poll::Ready(written) => {
                this.note_written(written);
                Poll::Ready(Ok(written))
            }
            Poll::Pending => {
                this.note_blocked(cx)?;
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if Pin::new(&mut this.io).poll_flush(cx)?.is_pending() {
            this.note_blocked(cx)?;
            return Poll::Pending;
        }
        // The dispatcher flushes once in each turn, when its buffer is empty.
        this.read_until = None;
        this.read_in_turn = 0;
        match this.connection().phase() {
            Phase::HandedOver => {
                this.connection().note_read();
                this.connection().enter_phase(Phase::Idle);
                this.header_since = None;
                this.header_bytes = 0;
                this.header_room = None;
                this.idle_since = Some(Instant::now());
                this.read_ahead = 0;
            }
            Phase::Silent
            | Phase::Serving
            | Phase::Receiving
            | Phase::Streaming
            | Phase::Answering
            | Phase::Idle => {}
        }
        if this.is_reading_held && !matches!(this.connection().phase(), Phase::Serving) {
            this.is_reading_held = false;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let closed = Pin::new(&mut this.io).poll_shutdown(cx);
        if closed.is_pending() {
            this.note_blocked(cx)?;
        }
        closed
    }
}

/// The status of an answer without a body, 4xx.
fn bare_status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.1 ")?;
    let is_bare = answer.ends_with(b"\r\n\r\n");
    let status = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
    (is_bare && (400..500).contains(&status)).then_some(status)
}
