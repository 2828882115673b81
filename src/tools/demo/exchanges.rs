//! Requests of the demo and their answers, as lines of text.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

use super::Detail;
use crate::client::{Exchange, GatewayClient};

/// The longest string that is shown whole, in characters.
const SHOWN_MAX: usize = 48;

/// The exchanges since the last step, if they are told.
#[derive(Clone, Debug)]
pub(super) struct Exchanges(Option<Arc<Mutex<String>>>);

impl Exchanges {
    pub(super) fn of(detail: Detail) -> Self {
        Self(match detail {
            Detail::Steps => None,
            Detail::Exchanges => Some(Arc::default()),
        })
    }

    /// A client whose exchanges are told.
    pub(super) fn of_client(&self, client: GatewayClient) -> GatewayClient {
        let Some(lines) = self.0.clone() else { return client };
        client.reporting_to(move |exchange| {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push_str(&shown(exchange));
        })
    }

    /// Tells the exchanges of each step before the step.
    pub(super) fn before(&self, tell: &mut dyn FnMut(&str)) -> impl FnMut(&str) {
        move |step| {
            self.tell_rest(tell);
            tell(step);
        }
    }

    /// Tells the exchanges since the last step, such as those of a step that has failed.
    pub(super) fn tell_rest(&self, tell: &mut dyn FnMut(&str)) {
        if let Some(lines) = &self.0 {
            let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
            lines.lines().for_each(tell);
        }
    }
}

/// A request and its answer, a line for each.
fn shown(exchange: &Exchange<'_>) -> String {
    let Exchange { method, target, request, status, answer } = exchange;
    let mut lines = format!("  > {} {target}", method.as_str());
    for (mark, json) in [(" ", request.unwrap_or_default()), ("\n  < ", answer)] {
        lines.push_str(mark);
        if mark != " " {
            // Writing to a string cannot fail.
            let _ = write!(lines, "{status} ");
        }
        if let Ok(mut value) = serde_json::from_slice::<Value>(json) {
            cut(&mut value);
            let _ = write!(lines, "{value}");
        }
    }
    lines.push('\n');
    lines
}

/// Cuts long strings inside a value.
fn cut(value: &mut Value) {
    match value {
        Value::String(text) if text.chars().count() > SHOWN_MAX => {
            let begin: String = text.chars().take(SHOWN_MAX / 2).collect();
            *text = format!("{begin}… ({} characters)", text.chars().count());
        }
        Value::Array(values) => values.iter_mut().for_each(cut),
        Value::Object(members) => members.values_mut().for_each(cut),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Method;

    #[test]
    fn a_request_and_its_answer_are_a_line_each() {
        let text = shown(&Exchange {
            method: Method::Put,
            target: "/apps/a/groups",
            request: Some(format!(r#"{{"groupInfo":"{}"}}"#, "A".repeat(100)).as_bytes()),
            status: 201,
            answer: br#"{"groupId":"g","epochId":0}"#,
        });
        let expected = format!(
            "  > PUT /apps/a/groups {{\"groupInfo\":\"{}… (100 characters)\"}}\n  < 201 {{\"epochId\":0,\"groupId\":\"g\"}}\n",
            "A".repeat(24)
        );
        assert_eq!(text, expected);
    }
}
