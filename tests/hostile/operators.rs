//! The listener for operators, attacked by callers that reach it and have no token of an operator.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use mimi_gateway::token::Token;

use crate::{
    bystander::{Damage, succeeded},
    connections::until_closed,
    target::{Reply, Target, at_once, read_reply, request_with, scale},
};

const APPLICATIONS: &str = "/operator/v1/applications";

/// A gateway with an operator.
struct Watched {
    target: Target,
    token: String,
}

impl Watched {
    /// Starts one with these settings under `[operator]`.
    fn start(operator: &str) -> Self {
        let token = Token::generate().unwrap();
        let settings = format!(
            "[operator]\nlisten = \"127.0.0.1:0\"\n{operator}\ntokens = [{{ sha256 = \"{}\", access = \"read\" }}]",
            token.hash()
        );
        Self { target: Target::start(&settings, ""), token: token.reveal().to_owned() }
    }

    fn list(&self, token: &str) -> std::io::Result<Reply> {
        let request = request_with(&format!("Authorization: Bearer {token}\r\n"), "GET", APPLICATIONS, None);
        self.target.send_as_operator(&request)
    }

    /// Measures the operator as a bystander.
    fn damage<T>(&self, attack: impl FnOnce() -> T) -> (Damage, T) {
        let ask = |number: u64| {
            succeeded(match number % 3 {
                0 => self.target.send_as_operator(&request_with("", "GET", "/healthz", None)),
                1 => self.target.send_as_operator(&request_with("", "GET", "/readyz", None)),
                _ => self.list(&self.token),
            })
        };
        Damage::to(&self.target, ask, attack)
    }
}

#[test]
fn slow_and_silent_connections_are_closed_and_keep_no_operator_out() {
    let watched = Watched::start("connections_max = 60\nrequest_header_timeout_s = 2");
    let (damage, ()) = watched.damage(|| {
        let mut open: Vec<_> = (0..120 * scale())
            .map(|place| {
                let mut stream = watched.target.connect_as_operator();
                if place % 2 == 0 {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\nX-Slow: ").unwrap();
                }
                // Who has just come still has the time to say what it wants, when others come at this rate.
                std::thread::sleep(Duration::from_millis(1));
                stream
            })
            .collect();
        let took = until_closed(&mut open, |stream| {
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(b"a");
        });
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
    damage.is_at_most(20);
    assert!(watched.target.peak_mb() < 150, "{} MB", watched.target.peak_mb());
}

#[test]
fn headers_of_any_size_cost_little() {
    let watched = Watched::start("");
    let many: String = (0..5000).map(|name| format!("x{name:x}: \r\n")).collect();
    let long = format!("X-Long: {}\r\n", "v".repeat(120 << 10));
    let endless = format!("X-Endless: {}", "v".repeat(400 << 10));
    let (damage, refused) = watched.damage(|| {
        let mut refused = 0;
        for _ in 0..10 * scale() {
            for fields in [format!("{many}\r\n"), format!("{long}\r\n"), endless.clone()] {
                let mut stream = watched.target.connect_as_operator();
                let _ = stream.write_all(format!("GET / HTTP/1.1\r\nHost: gateway\r\n{fields}").as_bytes());
                if let Ok(reply) = read_reply(&mut stream) {
                    assert!(matches!(reply.status, 400 | 431), "{reply:?}");
                    refused += 1;
                }
            }
        }
        refused
    });
    damage.is_at_most(20);
    assert!(refused > 0, "some read why they are refused");
    assert!(watched.target.peak_mb() < 100, "{} MB", watched.target.peak_mb());
    assert!(!watched.target.log().contains("panicked"), "{}", watched.target.log());
}

#[test]
fn guesses_of_a_token_are_refused_and_not_logged() {
    let watched = Watched::start("");
    let tokens = [watched.target.attacked.token.clone(), "guess".repeat(1000), "é".to_owned(), String::new()];
    let (damage, statuses) = watched.damage(|| {
        at_once(8, |_| {
            let each = (0..50 * scale()).flat_map(|_| &tokens);
            each.map(|token| watched.list(token).map_or(0, |reply| reply.status)).collect::<Vec<_>>()
        })
        .concat()
    });
    damage.is_at_most(20);
    assert_eq!(statuses.len(), 8 * 50 * scale() * tokens.len());
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    let log = watched.target.whole_log();
    assert!(log.contains("listener=\"operator\""), "{log}");
    for secret in [watched.token.as_str(), &tokens[0], "guessguess"] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
}

#[test]
fn figures_are_not_computed_for_each_who_asks() {
    let watched = Watched::start("connections_max = 60\nanswer_read_timeout_s = 2");
    let asked = request_with("", "GET", "/metrics", None);
    let ask = |_| succeeded(watched.target.call(&watched.target.other, "GET", "/clients?tag=none", None));
    let (damage, statuses) = Damage::to(&watched.target, ask, || {
        // Some do not read what they ask for.
        let mut unread: Vec<_> = (0..40 * scale()).map(|_| watched.target.connect_as_operator()).collect();
        for stream in &mut unread {
            let _ = stream.write_all(&asked.repeat(50));
        }
        let each = |_| {
            (0..50 * scale()).map(|_| watched.target.send_as_operator(&asked).map_or(0, |reply| reply.status))
        };
        at_once(8, |number| each(number).collect::<Vec<_>>()).concat()
    });
    damage.is_at_most(20);
    assert!(statuses.iter().all(|status| matches!(status, 0 | 200 | 429)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
    // Whatever they do, an operator's probes are answered.
    assert_eq!(
        watched.target.send_as_operator(&request_with("", "GET", "/readyz", None)).unwrap().status,
        200
    );
    assert!(watched.target.peak_mb() < 150, "{} MB", watched.target.peak_mb());
}

#[test]
fn bodies_and_methods_that_nothing_takes_are_refused_at_once() {
    let watched = Watched::start("request_body_timeout_s = 2");
    let (damage, ()) = watched.damage(|| {
        for (method, path, status) in [
            ("POST", "/healthz", 405),
            ("DELETE", APPLICATIONS, 405),
            ("PUT", "/operator/v1/nothing", 404),
            ("GET", "/../etc/passwd", 404),
            ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ] {
            for _ in 0..10 * scale() {
                let body = "x".repeat(1 << 20);
                let reply = watched.target.send_as_operator(&request_with("", method, path, Some(&body)));
                // A refusal may be lost behind the rest of the body.
                if let Ok(reply) = reply {
                    assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
                }
                let reply = watched.target.send_as_operator(&request_with("", method, path, None)).unwrap();
                assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
            }
        }
    });
    damage.is_at_most(20);
    assert!(watched.target.peak_mb() < 100, "{} MB", watched.target.peak_mb());
}

/// Opens a stream of the activity; its status.
fn watch(watched: &Watched, token: &str) -> (TcpStream, u16) {
    let authorization = format!("Authorization: Bearer {token}\r\n");
    let request = request_with(&authorization, "GET", "/operator/v1/activity", None);
    let mut stream = watched.target.connect_as_operator();
    let _ = stream.write_all(&request);
    let mut status = [0; 12];
    let is_read = stream.read_exact(&mut status).is_ok();
    let status = std::str::from_utf8(&status[9..]).ok().filter(|_| is_read);
    (stream, status.and_then(|status| status.parse().ok()).unwrap_or_default())
}

#[test]
fn streams_that_nobody_reads_cost_little_and_are_not_many() {
    let watched = Watched::start("event_streams_max = 8");
    let ask = |_| succeeded(watched.target.call(&watched.target.other, "GET", "/clients?tag=none", None));
    let (damage, (open, statuses)) = Damage::to(&watched.target, ask, || {
        let (mut open, mut statuses) = (Vec::new(), Vec::new());
        for _ in 0..20 * scale() {
            let (stream, status) = watch(&watched, &watched.token);
            open.push(stream);
            statuses.push(status);
            // Without a token there is no stream at all.
            assert_eq!(watch(&watched, "guessed").1, 401);
            assert_eq!(watch(&watched, &watched.target.attacked.token).1, 401);
        }
        // Several samples are taken meanwhile.
        std::thread::sleep(Duration::from_millis(2500));
        (open, statuses)
    });
    damage.is_at_most(20);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 6, "three quarters: {statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert_eq!(watched.list(&watched.token).unwrap().status, 200, "other requests are answered");
    assert!(watched.target.peak_mb() < 100, "{} MB", watched.target.peak_mb());

    // Those that are closed make room; opening and closing begins and ends the samples.
    drop(open);
    for _ in 0..50 * scale() {
        let since = Instant::now();
        while watch(&watched, &watched.token).1 != 200 {
            assert!(since.elapsed() < Duration::from_secs(10), "there is no room again");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(watched.target.peak_mb() < 100, "{} MB", watched.target.peak_mb());
    assert!(!watched.target.log().contains("panicked"), "{}", watched.target.log());
}
