//! Attacks by malformed or excessive requests.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use crate::{
    bystander::Damage,
    target::{Target, read_reply, request, scale},
};

/// The beginning of a connection with prior knowledge of HTTP/2 (RFC 9113 §3.4), and settings with a window of 0.
const HTTP_2: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00";

/// A HEADERS frame with END_STREAM and END_HEADERS: `GET /apps`, with names and values that are in no table.
fn http_2_request(stream: u32) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 0x01, b'x', 0x04, 0x05];
    block.extend_from_slice(b"/apps");
    let mut frame = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 5];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&block);
    frame
}

#[test]
fn http_2_is_refused_before_it_costs_anything() {
    let target = Target::start("", "");
    let streams: Vec<u8> = (0..5000 * u32::try_from(scale()).unwrap())
        .flat_map(|stream| http_2_request(2 * stream + 1))
        .collect();
    let (damage, ()) = Damage::of(&target, || {
        for _ in 0..10 {
            let mut stream = target.connect();
            stream.write_all(HTTP_2).unwrap();
            // It is refused while it is sent.
            let _ = stream.write_all(&streams);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.len() < 2000, "{} bytes", answer.len());
        }
        let mut stream = target.connect();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\n").unwrap();
        let reply = read_reply(&mut stream).unwrap();
        assert_eq!((reply.status, reply.slug().as_str()), (400, "malformed-request"));
    });
    damage.is_at_most(20);
    assert!(target.peak_mb() < 100, "{} MB", target.peak_mb());
}

#[test]
fn header_lists_are_bounded_before_they_are_decoded() {
    let target = Target::start("", "");
    let start = "GET /apps HTTP/1.1\r\nHost: gateway\r\n";
    let many: String = (0..5000).map(|name| format!("x{name:x}: \r\n")).collect();
    let long = format!("X-Long: {}\r\n", "v".repeat(120 << 10));
    let endless = format!("X-Endless: {}", "v".repeat(400 << 10));
    let (damage, ()) = Damage::of(&target, || {
        for _ in 0..10 * scale() {
            for fields in [format!("{many}\r\n"), format!("{long}\r\n"), endless.clone()] {
                let mut stream = target.connect();
                let _ = stream.write_all(format!("{start}{fields}").as_bytes());
                if let Ok(reply) = read_reply(&mut stream) {
                    assert!(matches!(reply.status, 400 | 431), "{reply:?}");
                    assert!(
                        matches!(reply.slug().as_str(), "malformed-request" | "headers-too-large"),
                        "{reply:?}"
                    );
                }
            }
        }
        // Held open without an end, until the time is over.
        let mut open: Vec<_> = (0..40 * scale()).map(|_| target.connect()).collect();
        for name in ["X-Short", "X-Long"] {
            // The second would be more than a header may be, and is not kept.
            let part = format!(
                "{start}{name}: {}",
                "v".repeat(if name == "X-Short" { 30 << 10 } else { 100 << 10 })
            );
            for stream in &mut open {
                let _ = stream.write_all(part.as_bytes());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    damage.is_at_most(20);
    assert!(target.peak_mb() < 100, "{} MB", target.peak_mb());
    assert!(!target.log().contains("panicked"), "{}", target.log());
}

#[test]
fn what_follows_a_long_header_does_not_count_as_header() {
    let target = Target::start("", "");
    let tags: Vec<String> = (0..90).map(|tag| format!(r#""{}{tag}""#, "t".repeat(240))).collect();
    let body = format!(r#"{{"clientHandle":"long","tags":[{}]}}"#, tags.join(","));
    let plain = String::from_utf8(request(&target.attacked, "POST", "/clients", Some(&body))).unwrap();
    // Nearly as much as is accepted, with as many separators as possible.
    let fields: String = (0..80).map(|field| format!("X-{field:02}: {}\r\n", "v".repeat(400))).collect();
    let long = plain.replacen("\r\n", &format!("\r\n{fields}"), 1);
    let mut stream = target.connect();
    for status in [201, 409] {
        stream.write_all(long.as_bytes()).unwrap();
        assert_eq!(read_reply(&mut stream).unwrap().status, status);
    }
}

#[test]
fn long_headers_have_a_limit_together() {
    let target = Target::start("request_header_timeout_s = 60", "");
    let start = "GET /apps HTTP/1.1\r\nHost: gateway\r\nX-Long: ";
    let part = format!("{start}{}", "v".repeat(30 << 10));
    let mut open: Vec<_> = (0..1500).map(|_| target.connect()).collect();
    let mut refused = 0;
    for stream in &mut open {
        stream.write_all(part.as_bytes()).unwrap();
    }
    // Short headers are taken all the while.
    assert_eq!(target.get("/apps").unwrap().status, 200);
    for stream in &mut open {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        if let Ok(reply) = read_reply(stream) {
            assert_eq!((reply.status, reply.slug().as_str()), (429, "too-many-requests"));
            refused += 1;
        }
    }
    assert!((1..1500).contains(&refused), "{refused}");
    drop(open);
    // What they held is given back.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(target.send(format!("{part}\r\n\r\n").as_bytes()).unwrap().status, 200);
}

#[test]
fn requests_that_are_sent_ahead_are_not_read_ahead() {
    let target = Target::start("", "");
    // The first waits for its body; behind it comes as much as the connection takes.
    let first = request(&target.attacked, "POST", "/clients", None);
    let first = String::from_utf8(first).unwrap();
    let first = first.trim_end_matches("\r\n").to_owned() + "\r\n";
    let ahead = format!("GET /apps HTTP/1.1\r\nHost: gateway\r\nX-Pad: {}\r\n\r\n", "v".repeat(20 << 10));
    let docs = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: gateway\r\n\r\n".repeat(40);
    let (damage, ()) = Damage::of(&target, || {
        let streams: Vec<_> = (0..30 * scale())
            .map(|_| {
                let mut stream = target.connect();
                stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
                let _ = stream.write_all(docs.as_bytes());
                let _ = stream.write_all(ahead.repeat(100).as_bytes());
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        drop(streams);
        // A gateway that reads ahead, or turns in circles because it does not, would be busy now.
        let reply = target.send(format!("{first}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(reply.status, 415);
    });
    damage.is_at_most(20);
    assert!(target.peak_mb() < 150, "{} MB", target.peak_mb());
}

#[test]
fn an_upgrade_does_not_hide_the_end_of_a_body() {
    let target = Target::start("", "");
    let body = r#"{"clientHandle":"up"}"#;
    let plain = String::from_utf8(request(&target.attacked, "POST", "/clients", Some(body))).unwrap();
    let upgrade = plain.replacen("\r\n", "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", 1);
    let since = Instant::now();
    let reply = target.send(upgrade.as_bytes()).unwrap();
    assert_eq!((reply.status, reply.slug().as_str()), (400, "malformed-request"));
    assert!(since.elapsed() < Duration::from_secs(10));
    // Without a body it is ignored.
    let page = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(target.send(page).unwrap().status, 200);
}

#[test]
fn who_may_not_ask_is_not_asked_for_the_body() {
    let target = Target::start("", "");
    let body = r#"{"clientHandle":"expected"}"#;
    let plain = String::from_utf8(request(&target.attacked, "POST", "/clients", Some(body))).unwrap();
    let (head, _) = plain.split_once("\r\n\r\n").unwrap();
    let expecting = format!("{head}\r\nExpect: 100-continue\r\n\r\n");

    let mut stream = target.connect();
    stream.write_all(expecting.as_bytes()).unwrap();
    let mut interim = vec![0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 201);

    let stranger = expecting.replace(&target.attacked.token, "somebody-else");
    let reply = target.send(stranger.as_bytes()).unwrap();
    assert_eq!((reply.status, reply.slug().as_str()), (401, "not-authenticated"));
    let large = expecting.replace("Content-Length: 27", "Content-Length: 999999999");
    let reply = target.send(large.as_bytes()).unwrap();
    assert_eq!((reply.status, reply.slug().as_str()), (413, "too-large"));
    let other = plain.replacen("\r\n", "\r\nExpect: a-miracle\r\n", 1);
    let reply = target.send(other.as_bytes()).unwrap();
    assert_eq!((reply.status, reply.slug().as_str()), (417, "expectation-failed"));
}

#[test]
fn what_the_parser_refuses_is_a_problem_document_too() {
    let target = Target::start("", "");
    for (what, bytes) in [
        ("no host", "GET /apps HTTP/1.1\r\n\r\n".to_owned()),
        ("no version", "GET /apps\r\n\r\n".to_owned()),
        ("a length that is none", "POST /apps HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\n".to_owned()),
        ("97 fields", format!("GET /apps HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(97))),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(140 << 10))),
    ] {
        let reply = target.send(bytes.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(matches!(reply.status, 400 | 414 | 431), "{what}: {reply:?}");
        assert!(reply.head.contains("content-type: application/problem+json"), "{what}: {reply:?}");
        assert_eq!(reply.json()["status"], reply.status, "{what}");
    }
}
