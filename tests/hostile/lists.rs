//! Lists with millions of members: counted while they are read, not after.

use std::time::Duration;

use crate::{
    bystander::Damage,
    target::{Target, scale},
};

/// A body of about 20 MB.
fn flood(before: &str, member: &str, after: &str) -> String {
    let count = (20 << 20) / (member.len() + 1);
    format!("{before}{}{member}{after}", format!("{member},").repeat(count))
}

#[test]
fn lists_stop_at_their_limit() {
    let target = Target::start("", "");
    let client = r#"{"clientHandle":"attacker"}"#;
    let reply = target.call(&target.attacked, "POST", "/clients", Some(client)).unwrap();
    let client = format!("/clients/{}", reply.json()["clientId"].as_str().unwrap());
    let queue = r#"{"protocolVersion":1,"cipherSuite":1,"appLabel":""}"#;
    let reply = target.call(&target.attacked, "POST", &format!("{client}/queues"), Some(queue)).unwrap();
    let queue = format!("{client}/queues/{}", reply.json()["keyQueueId"].as_str().unwrap());
    let floods = [
        ("POST", "/clients", flood(r#"{"clientHandle":"a","tags":["#, r#""a""#, "]}")),
        ("PATCH", &client, flood(r#"{"tagsToAdd":["#, r#""a""#, "]}")),
        ("PATCH", &client, flood(r#"{"tagsToRemove":["#, r#""""#, "]}")),
        ("PATCH", &queue, flood(r#"{"keyPackages":["#, r#""""#, "]}")),
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
