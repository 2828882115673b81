//! Many connections: silent ones, slow ones, and ones that do not read.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    bystander::Damage,
    target::{Target, read_reply, request, scale},
};

/// Whether the gateway has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

/// Waits until all are closed, doing something to each meanwhile; how long it took.
pub(crate) fn until_closed(streams: &mut [TcpStream], mut each: impl FnMut(&mut TcpStream)) -> Duration {
    let since = Instant::now();
    while !streams.iter_mut().all(is_closed) {
        assert!(since.elapsed() < Duration::from_secs(20), "connections stay open");
        streams.iter_mut().for_each(&mut each);
        std::thread::sleep(Duration::from_millis(50));
    }
    since.elapsed()
}

#[test]
fn silent_connections_are_closed_and_keep_nobody_out() {
    let target = Target::start("connections_max = 60\nrequest_header_timeout_s = 2", "");
    let (damage, ()) = Damage::of(&target, || {
        let mut silent = Vec::new();
        for _ in 0..200 * scale() {
            silent.push(target.connect());
            // Who has just come still has the time to say what it wants, when others come at this rate.
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = until_closed(&mut silent, |_| {});
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
    damage.is_at_most(20);
    assert!(target.peak_mb() < 150, "{} MB", target.peak_mb());
}

#[test]
fn a_header_that_comes_byte_by_byte_has_no_more_time_than_another() {
    let target = Target::start("request_header_timeout_s = 2", "");
    let begin = b"GET /apps HTTP/1.1\r\nHost: gateway\r\nX-Slow: ";
    let whole = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let (damage, ()) = Damage::of(&target, || {
        let mut slow: Vec<_> = (0..40 * scale()).map(|_| target.connect()).collect();
        for (place, stream) in slow.iter_mut().enumerate() {
            if place % 2 == 0 {
                // The second request of a connection is as slow as the first of another.
                stream.write_all(whole).unwrap();
                assert_eq!(read_reply(stream).unwrap().status, 200);
            }
            stream.write_all(begin).unwrap();
        }
        let took = until_closed(&mut slow, |stream| {
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(b"a");
        });
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
    damage.is_at_most(20);
}

#[test]
fn bodies_that_do_not_come_hold_no_more_than_a_share() {
    let target = Target::start("requests_in_flight_max = 40\nrequest_body_timeout_s = 2", "");
    let head = request(&target.attacked, "POST", "/clients", None);
    let head = String::from_utf8(head).unwrap();
    let head = head.trim_end_matches("\r\n").to_owned()
        + "\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{";
    let (damage, statuses) = Damage::of(&target, || {
        let mut slow: Vec<_> = (0..60 * scale()).map(|_| target.connect()).collect();
        slow.iter_mut().for_each(|stream| stream.write_all(head.as_bytes()).unwrap());
        slow.iter_mut().map(|stream| read_reply(stream).unwrap().status).collect::<Vec<_>>()
    });
    damage.is_at_most(20);
    // 75 % of 40 wait until their time is over; the others are told at once that they are too many.
    assert_eq!(statuses.iter().filter(|status| **status == 408).count(), 30, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 408 | 429)), "{statuses:?}");
}

#[test]
fn who_does_not_read_holds_little_and_not_for_long() {
    let target = Target::start("answer_read_timeout_s = 2", "");
    let asked = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: gateway\r\n\r\n".repeat(16);
    let (damage, ()) = Damage::of(&target, || {
        let mut slow: Vec<_> = (0..60 * scale()).map(|_| target.connect()).collect();
        slow.iter_mut().for_each(|stream| stream.write_all(asked.as_bytes()).unwrap());
        std::thread::sleep(Duration::from_secs(5));
        for stream in &mut slow {
            // What was on its way is still there; then the connection ends, long before the last answer.
            let mut read = 0;
            let mut buffer = vec![0; 1 << 20];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                read += count;
            }
            assert!(read < 16 * 1_000_000, "{read} bytes were answered");
        }
    });
    damage.is_at_most(20);
    let bound = 150 + scale() as u64 * 60 / 4;
    assert!(target.peak_mb() < bound, "{} MB", target.peak_mb());
}

#[test]
fn answers_that_are_not_read_hold_no_more_than_a_share() {
    let target = Target::start("answers_unread_bytes_max = 67108864\nanswer_read_timeout_s = 20", "");
    let tags: Vec<String> = (0..60).map(|tag| format!("{tag:0250}")).collect();
    for client in 0..200 {
        let body =
            serde_json::json!({ "clientHandle": format!("client-{client}"), "tags": tags }).to_string();
        assert_eq!(target.call(&target.attacked, "POST", "/clients", Some(&body)).unwrap().status, 201);
    }
    let path = format!("/clients?tag={}&limit=1000", tags[0]);
    let answer = target.call(&target.attacked, "GET", &path, None).unwrap();
    assert_eq!(answer.status, 200);
    let before = target.resident_mb();
    let asked = request(&target.attacked, "GET", &path, None);
    let (damage, refused) = Damage::of(&target, || {
        let mut slow: Vec<_> = (0..60 * scale()).map(|_| target.connect()).collect();
        slow.iter_mut().for_each(|stream| stream.write_all(&asked.repeat(16)).unwrap());
        let since = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(500));
            // When the token has its share, it waits in vain and is refused, but no other caller is.
            let status = target.call(&target.attacked, "GET", &path, None).unwrap().status;
            if status != 200 || since.elapsed() > Duration::from_secs(30) {
                break status;
            }
        }
    });
    // The gateway computes as many large answers as it lets one caller have, on the cores that the bystander needs.
    damage.is_at_most(60);
    let held = target.resident_mb().saturating_sub(before);
    println!("an answer of {} bytes, asked for {} times: {held} MB more", answer.body.len(), 960 * scale());
    assert_eq!(refused, 429);
    assert!(held < 250, "{held} MB");
}

#[test]
fn probes_are_answered_whatever_else_is_full() {
    let target = Target::start("connections_max = 8\nrequests_in_flight_max = 8\nshare_percent = 100", "");
    let head = request(&target.attacked, "POST", "/clients", None);
    let head = String::from_utf8(head).unwrap();
    let head = head.trim_end_matches("\r\n").to_owned()
        + "\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{";
    let mut slow: Vec<_> = (0..8).map(|_| target.connect()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(head.as_bytes()).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..50 {
        assert_eq!(target.get("/healthz").unwrap().status, 200);
        assert_eq!(target.get("/readyz").unwrap().status, 200);
    }
    let refused = target.call(&target.other, "GET", "/clients?tag=none", None).unwrap();
    assert_eq!((refused.status, refused.slug().as_str()), (429, "too-many-requests"));
    drop(slow);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(target.call(&target.other, "GET", "/clients?tag=none", None).unwrap().status, 200);
}
