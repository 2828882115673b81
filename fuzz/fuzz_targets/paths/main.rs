//! Paths of requests, and the text forms of handles and ids: what can be read is written as a text that is read as the same again. The
//! first byte of the input is the number of a path template or of a text form.

#![no_main]

use std::{fmt, str::FromStr};

use libfuzzer_sys::fuzz_target;
use mimi_gateway::api::{
    paths::{
        AppPath, ClientPath, GroupPath, HandlePath, JoinInfoPath, KeyQueuePath, PathMembers, fill, is_member,
    },
    percent,
    text::{EventIdText, GroupIdText, HandleText},
};

/// A path of a template, whose members are the segments of the input.
fn path<P: PathMembers + PartialEq + fmt::Debug>(template: &str, text: &str) {
    let members = template.split('/').filter(|segment| is_member(segment)).count();
    let segments: Vec<&str> = text.split('/').collect();
    if segments.len() != members {
        return;
    }
    let Ok(read) = P::read(&segments) else { return };
    let written = fill(template, &read);
    assert!(written.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>".contains(&byte)), "{written}");
    let (expected, found): (Vec<_>, Vec<_>) = (template.split('/').collect(), written.split('/').collect());
    assert_eq!(expected.len(), found.len(), "{written}");
    let at_members = expected.iter().zip(&found).filter(|(expected, _)| is_member(expected));
    let segments: Vec<&str> = at_members.map(|(_, segment)| *segment).collect();
    // URL libraries remove these from a path.
    assert!(!segments.iter().any(|segment| [".", "..", ""].contains(segment)), "{written}");
    assert_eq!(P::read(&segments).expect("a path that was written"), read, "{written}");
}

/// A text form: there is one text for a value.
fn text<T: FromStr + fmt::Display>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string(), text);
    }
}

fn bytes(segment: &str) {
    let Some(decoded) = percent::decode(segment) else { return };
    if let Ok(decoded) = String::from_utf8(decoded) {
        let encoded = percent::encode(&decoded);
        assert_eq!(percent::decode(&encoded).as_deref(), Some(decoded.as_bytes()), "{encoded}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    match kind % 10 {
        0 => path::<AppPath>("/apps/{appId}/groups", rest),
        1 => path::<ClientPath>("/apps/{appId}/clients/{clientId}", rest),
        2 => path::<KeyQueuePath>("/apps/{appId}/clients/{clientId}/queues/{keyQueueId}", rest),
        3 => path::<HandlePath>("/apps/{appId}/clients/{clientHandle}/groups", rest),
        4 => path::<JoinInfoPath>("/apps/{appId}/clients/{clientHandle}/welcome-msgs/{id}", rest),
        5 => path::<GroupPath>("/apps/{appId}/groups/{groupId}/commits", rest),
        6 => text::<HandleText>(rest),
        7 => text::<GroupIdText>(rest),
        8 => text::<EventIdText>(rest),
        _ => bytes(rest),
    }
});
