//! JSON bodies of requests, parsed strictly; an error names the wrong member.

use std::fmt::Display;

use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::api::{list::TOO_LONG, problem::ProblemKind};

/// Parses a body.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would also take an array of the members in order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::malformed("the body must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let located = located(&error);
        if error.inner().to_string().starts_with(TOO_LONG) {
            let detail = format!("in the body, {located}; send less at once");
            return Problem::new(ProblemKind::TooLarge, detail);
        }
        Problem::malformed(format!("in the body, {located}"))
    })?;
    deserializer.end().map_err(|_| Problem::malformed("something follows the JSON object in the body"))?;
    Ok(value)
}

/// The wrong member and the reason, or the reason alone where it names the member or there is none.
pub(super) fn located(error: &serde_path_to_error::Error<impl Display>) -> String {
    let path = error.path().to_string();
    let reason = without_values(&error.inner().to_string());
    if path == "." || reason.starts_with("unknown field") || reason.starts_with("duplicate field") {
        reason
    } else {
        format!("`{}`: {reason}", shortened(&path))
    }
}

/// Removes the text that a serde message quotes: a value in the wrong place may be a secret, or megabytes long.
fn without_values(message: &str) -> String {
    let quoted = ["invalid type: string \"", "invalid value: string \""];
    for (start, kind) in quoted.iter().filter_map(|kind| message.find(kind).map(|start| (start, kind))) {
        if let (Some(before), Some(end)) = (message.get(..start), message.rfind(", expected ")) {
            let label = kind.trim_end_matches(" \"");
            return shortened(&format!("{before}{label}{}", message.get(end..).unwrap_or_default()));
        }
    }
    shortened(message)
}

/// The longest message or path that is sent back, in characters: enough to list every accepted name.
const MESSAGE_CHARS_MAX: usize = 400;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::api::{
        clients::{ClientChangeBody, NewClientBody},
        groups::NewGroupBody,
        key_packages::{KeyPackageUploadBody, NewKeyQueueBody},
        list::TAGS_MAX,
    };

    fn check<T: DeserializeOwned + Debug>(body: &str, refusal: Option<&str>) {
        match (read::<T>(body.as_bytes()), refusal) {
            (Ok(_), None) => {}
            (Err(problem), Some(part)) => {
                assert!(problem.detail().contains(part), "{body}: {}", problem.detail())
            }
            (outcome, _) => panic!("{body}: {outcome:?}"),
        }
    }

    #[test]
    fn bodies_are_read_strictly() {
        check::<NewClientBody>(r#"{"clientHandle":"alice"}"#, None);
        check::<NewClientBody>(r#" {"clientHandle":"alice","tags":[],"domain":"a.example"} "#, None);
        check::<NewClientBody>(r#"{"clientHandle":"alice","tag":1}"#, Some("unknown field `tag`"));
        check::<NewClientBody>(
            r#"{"clientHandle":"a","clientHandle":"b"}"#,
            Some("duplicate field `clientHandle`"),
        );
        check::<NewClientBody>("{}", Some("missing field `clientHandle`"));
        check::<NewClientBody>(r#"{"clientHandle":7}"#, Some("`clientHandle`: invalid type: integer `7`"));
        check::<NewClientBody>(
            r#"{"clientHandle":""}"#,
            Some("`clientHandle`: a client handle has 1 to 1024 bytes"),
        );
        check::<NewClientBody>(
            r#"{"clientHandle":"a","tags":["x",2]}"#,
            Some("`tags[1]`: invalid type: integer"),
        );
        check::<NewClientBody>(
            r#"{"clientHandle":"a","tags":"x"}"#,
            Some("`tags`: invalid type: string, expected"),
        );
        check::<NewClientBody>(r#"{"clientHandle":"a","domain":"-"}"#, Some("`domain`: not a DNS name"));
        check::<NewClientBody>(r#"{"clientHandle":"a"} x"#, Some("follows"));
        check::<NewClientBody>(r#"{"clientHandle":"a""#, Some("EOF"));
        check::<NewClientBody>(r#"["a",[]]"#, Some("must be a JSON object"));
        check::<NewClientBody>("", Some("must be a JSON object"));
        check::<ClientChangeBody>("{}", None);
        check::<NewKeyQueueBody>(
            r#"{"protocolVersion":65536,"cipherSuite":1,"appLabel":""}"#,
            Some("`protocolVersion`: invalid value: integer"),
        );
        check::<NewKeyQueueBody>(
            r#"{"protocolVersion":1,"cipherSuite":1}"#,
            Some("missing field `appLabel`"),
        );
        check::<KeyPackageUploadBody>(r#"{"keyPackages":["AA=="],"isReset":true,"finalKey":"AA"}"#, None);
        check::<KeyPackageUploadBody>(
            r#"{"keyPackages":["AA==","!"]}"#,
            Some("`keyPackages[1]`: not Base64"),
        );
        let tags =
            |count: usize| format!(r#"{{"clientHandle":"a","tags":[{}"b"]}}"#, r#""a","#.repeat(count));
        check::<NewClientBody>(&tags(TAGS_MAX - 1), None);
        check::<NewClientBody>(&tags(TAGS_MAX), Some("`tags`: a list with more than 10000 members"));
        // It stops there: what follows is not even read.
        let endless = tags(TAGS_MAX).replace("]}", "");
        check::<NewClientBody>(&endless, Some("`tags`: a list with more than 10000 members"));
        check::<NewGroupBody>(r#"{"groupInfo":"AAA"}"#, None);
        check::<NewGroupBody>(r#"{"groupInfo":"AAB"}"#, Some("`groupInfo`: not Base64"));
    }

    #[test]
    fn values_are_not_sent_back() {
        let secret = "s3cret".repeat(100);
        for body in [
            format!(r#"{{"clientHandle":"a","tags":"{secret}"}}"#),
            format!(r#"{{"clientHandle":"a","tags":"{secret}, expected a secret"}}"#),
            format!(r#"{{"clientHandle":"b64:{secret}!"}}"#),
        ] {
            let problem = read::<NewClientBody>(body.as_bytes()).unwrap_err();
            assert!(!problem.detail().contains("s3cret"), "{}", problem.detail());
        }
        let body = format!(r#"{{"{secret}":1}}"#);
        let problem = read::<NewClientBody>(body.as_bytes()).unwrap_err();
        assert!(problem.detail().len() < 500);
    }
}
