//! Compression of answers, for clients that ask for it (RFC 9110 §8.4.1.3). Most of an answer is Base64, a quarter of which
//! goes.

use std::io::Write as _;

use actix_web::{
    HttpResponse,
    body::MessageBody as _,
    http::header::{self, ContentEncoding, HeaderMap, HeaderValue},
    web::Bytes,
};
use flate2::{Compression, write::GzEncoder};

use super::{
    problem::Problem,
    route::{AT_ONCE_BYTES, apart},
    unread::SharedBody,
};

/// The smallest answer that is worth it, in bytes.
const BYTES_MIN: usize = 1024;

/// Whether a client takes gzip: it names it, and not with the weight 0.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse() == Ok(0.0))
        });
        (name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip")) && !is_refused
    })
}

/// The bytes, compressed.
pub(super) fn gzip(bytes: &[u8]) -> Result<Bytes, Problem> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "an answer cannot be compressed");
        Problem::internal()
    })
}

/// Compresses an answer that is large enough. Of answers that share their bytes, the compressed ones share theirs.
pub(super) async fn compressed(
    mut response: HttpResponse,
    takes_gzip: bool,
) -> Result<HttpResponse, Problem> {
    if response.status().as_u16() != 200 {
        return Ok(response);
    }
    let shared = response.extensions().get::<SharedBody>().cloned();
    if let Some(SharedBody { gzip }) = shared {
        vary(response.headers_mut());
        return Ok(if takes_gzip { with_gzip(response, gzip) } else { response });
    }
    let (response, body) = response.into_parts();
    let body = match body.try_into_bytes() {
        Ok(body) => body,
        Err(body) => return Ok(response.set_body(body)),
    };
    let mut response = response.set_body(body.clone()).map_into_boxed_body();
    if body.len() < BYTES_MIN {
        return Ok(response);
    }
    vary(response.headers_mut());
    if !takes_gzip {
        return Ok(response);
    }
    let is_large = body.len() > AT_ONCE_BYTES;
    let compress = move || gzip(&body);
    let compressed = if is_large { apart(compress).await?? } else { compress()? };
    Ok(with_gzip(response, compressed))
}

/// Notes that the answer depends on what the client takes.
fn vary(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
}

fn with_gzip(mut response: HttpResponse, compressed: Bytes) -> HttpResponse {
    response.headers_mut().insert(header::CONTENT_ENCODING, ContentEncoding::Gzip.to_header_value());
    response.set_body(compressed).map_into_boxed_body()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_by_those_who_name_it() {
        for (value, expected) in [
            ("gzip", true),
            ("deflate, GZip;q=0.5, br", true),
            ("x-gzip", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("br", false),
            ("*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
