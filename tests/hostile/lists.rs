//! Long lists: in requests they are counted while they are read; in answers they wait for each other.

use std::{io::Write as _, time::Duration};

use crate::{
    bystander::Damage,
    packets::KeyQueue,
    target::{Target, read_reply, request, scale},
};

/// A body of about 20 MB.
fn flood(before: &str, member: &str, after: &str) -> String {
    let count = (20 << 20) / (member.len() + 1);
    format!("{before}{}{member}{after}", format!("{member},").repeat(count))
}

#[test]
fn lists_stop_at_their_limit() {
    let target = Target::start("", "");
    let queue = KeyQueue::new(&target, &target.attacked, "attacker");
    let floods = [
        ("POST", "/clients", flood(r#"{"clientHandle":"a","tags":["#, r#""a""#, "]}")),
        ("PATCH", queue.client(), flood(r#"{"tagsToAdd":["#, r#""a""#, "]}")),
        ("PATCH", queue.client(), flood(r#"{"tagsToRemove":["#, r#""""#, "]}")),
        ("PATCH", queue.path(), flood(r#"{"keyPackages":["#, r#""""#, "]}")),
    ];
    let before = target.resident_mb();
    let (damage, ()) = Damage::of(&target, || {
        std::thread::scope(|scope| {
            for _ in 0..2 * scale() {
                scope.spawn(|| {
                    for (method, path, body) in &floods {
                        let reply = target.call(&target.attacked, method, path, Some(body)).unwrap();
                        let outcome = (reply.status, reply.slug());
                        assert_eq!(outcome, (413, "too-large".to_owned()), "{method} {path}: {reply:?}");
                    }
                });
            }
        });
        std::thread::sleep(Duration::from_millis(100));
    });
    damage.is_at_most(20);
    let more = target.peak_mb().saturating_sub(before);
    assert!(more < 150 + 100 * scale() as u64, "{more} MB more");
}

/// Answers wait for each other: a client that reads them gets them all.
#[test]
fn one_token_reads_large_answers_side_by_side() {
    // The share of one caller is less than a single answer.
    let target = Target::start("answers_unread_bytes_max = 67108864\nshare_percent = 1", "");
    for client in 0..40 {
        // What cannot stand in JSON as it is makes the answer much longer.
        let tags: Vec<String> = (0..100).map(|tag| format!(r#""{}{tag}""#, r"\u0001".repeat(250))).collect();
        let body = format!(r#"{{"clientHandle":"client-{client}","tags":[{}]}}"#, tags.join(","));
        assert_eq!(target.call(&target.attacked, "POST", "/clients", Some(&body)).unwrap().status, 201);
    }
    let mut readers: Vec<_> = (0..8).map(|_| target.connect()).collect();
    for reader in &mut readers {
        reader.write_all(&request(&target.attacked, "GET", "/clients?limit=1000", None)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    // What is small, and may have changed something, is answered meanwhile.
    let client = r#"{"clientHandle":"meanwhile"}"#;
    assert_eq!(target.call(&target.attacked, "POST", "/clients", Some(client)).unwrap().status, 201);
    std::thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(|| {
                let reply = read_reply(reader).unwrap();
                assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
                assert!(reply.body.len() > 4 << 20, "{} bytes", reply.body.len());
            });
        }
    });
}
