//! A bare HTTP/1.1 connection for prepared requests, which leaves nearly all of the cores to the gateway.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One connection; one request at a time.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// An answer, until the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawResponse<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

impl Wire {
    pub(super) async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(16 << 10) })
    }

    /// Sends a request and waits for all of its answer.
    pub(super) async fn ask(&mut self, request: &[u8]) -> io::Result<RawResponse<'_>> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
            }
            if let Some(head) = ResponseHead::of(&self.answer)? {
                if head.end.saturating_add(head.length) > ANSWER_BYTES_MAX {
                    return Err(invalid("an answer is too long"));
                }
                let whole = head.end + head.length;
                if self.answer.len() >= whole {
                    let body = self.answer.get(head.end..whole).unwrap_or_default();
                    return Ok(RawResponse { status: head.status, body });
                }
            }
        }
    }
}

/// The parsed header of an answer.
#[derive(Debug, PartialEq, Eq)]
struct ResponseHead {
    status: u16,
    /// The offset of the body.
    end: usize,
    /// The length of the body.
    length: usize,
}

impl ResponseHead {
    /// `None` until it is complete.
    fn of(answer: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(answer.get(..end).unwrap_or_default())
            .map_err(|_| invalid("a header is no text"))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let length = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok());
        match (status, length) {
            (Some(status), Some(length)) => Ok(Some(Self { status, end: end + 4, length })),
            _ => Err(invalid("an answer without a status or a length")),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A request as it is sent.
pub(super) fn request(method: &str, path: &str, token: &str, body: Option<&[u8]>) -> Vec<u8> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n");
    if let Some(body) = body {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body.unwrap_or_default());
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_when_it_is_there() {
        fn check(answer: &[u8], expected: Option<(u16, usize, usize)>) {
            let found = ResponseHead::of(answer).unwrap().map(|head| (head.status, head.end, head.length));
            assert_eq!(found, expected);
        }
        check(b"", None);
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r", None);
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", Some((200, 38, 3)));
        check(b"HTTP/1.1 409 Conflict\r\nX: y\r\nContent-Length: 0\r\n\r\n", Some((409, 50, 0)));
        assert!(ResponseHead::of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(ResponseHead::of(b"nonsense\r\n\r\n").is_err());
    }
}
