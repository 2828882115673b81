//! The bodies of event streams, written block by block as the reader takes them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use super::unread::PIECE_BYTES;

/// The pieces of a block of text.
pub(super) type Block = VecDeque<Bytes>;

/// A writer of a stream.
pub(super) trait WriteBlocks: 'static {
    /// The next block, once there is one; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Block>>;
}

/// The body of a stream.
pub(super) struct EventBody {
    state: WriterState,
    /// The rest of the block that is passed to the connection.
    rest: Block,
    is_ended: bool,
}

/// A writer between two blocks.
trait RestingWriter {
    /// Begins the next block.
    fn write(self: Box<Self>) -> Writing;
}

type Writing = Pin<Box<dyn Future<Output = (Box<dyn RestingWriter>, Option<Block>)>>>;

impl<W: WriteBlocks> RestingWriter for W {
    fn write(mut self: Box<Self>) -> Writing {
        Box::pin(async move {
            let block = self.next().await;
            (self as Box<dyn RestingWriter>, block)
        })
    }
}

enum WriterState {
    /// Between two blocks. The writer is gone at the end.
    Resting(Option<Box<dyn RestingWriter>>),
    Writing(Writing),
}

impl EventBody {
    /// The body with the blocks of a writer; an empty one if it `is_ended`.
    pub(super) fn new(writer: impl WriteBlocks, is_ended: bool) -> Self {
        Self { state: WriterState::Resting(Some(Box::new(writer))), rest: Block::new(), is_ended }
    }
}

impl MessageBody for EventBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        loop {
            if let Some(first) = self.rest.front_mut() {
                let piece = first.split_to(first.len().min(PIECE_BYTES));
                if first.is_empty() {
                    self.rest.pop_front();
                }
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.is_ended {
                return Poll::Ready(None);
            }
            match &mut self.state {
                WriterState::Resting(writer) => match writer.take() {
                    None => self.is_ended = true,
                    Some(writer) => self.state = WriterState::Writing(writer.write()),
                },
                WriterState::Writing(writing) => {
                    let (writer, block) = ready!(writing.as_mut().poll(cx));
                    let goes_on = block.is_some();
                    self.state = WriterState::Resting(goes_on.then_some(writer));
                    self.rest = block.unwrap_or_default();
                }
            }
        }
    }
}
