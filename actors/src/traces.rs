//! Spans of the work of actors, for traces of requests.
//!
//! A request's span is the parent of what actors do for it: its message carries the span to the actor's thread.

use tracing::Span;

/// The target of all spans. They have the level *trace*, so that they cost nothing unless traces are collected.
pub const TRACES: &str = "traces";

/// The validation of an entry, from its turn at the actor on: a part of the request with this span, if it has one.
pub(crate) fn validation(of: &Span) -> Span {
    if of.is_disabled() {
        return Span::none();
    }
    tracing::trace_span!(target: TRACES, parent: of, "validate")
}

/// The time from the request of a write to its durability: a part of the request with this span, if it has one.
pub(crate) fn append(of: &Span) -> Span {
    if of.is_disabled() {
        return Span::none();
    }
    tracing::trace_span!(target: TRACES, parent: of, "append")
}

/// The wait for an actor's answer, its mailbox included: a part of the present request.
pub(crate) fn ask() -> Span {
    if Span::current().is_disabled() {
        return Span::none();
    }
    tracing::trace_span!(target: TRACES, "ask actor")
}
