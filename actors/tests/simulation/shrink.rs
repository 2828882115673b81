//! The shortest part of a failing history that fails in the same way.

use std::rc::Rc;

use crate::{
    faults::Fault, gateways::Settings, ledger::Violation, messages::Messages, steps::Timed, world::play,
};

/// Histories that are tried.
const TRIES_MAX: usize = 600;

/// Leaves out steps, in ever smaller pieces, for as long as the same condition does not hold.
pub(crate) fn shrink(
    messages: &Rc<Messages>,
    seed: u64,
    (settings, steps): (&Settings, Vec<Timed>),
    fault: Option<Fault>,
    violation: Violation,
) -> (Vec<Timed>, Violation) {
    let (mut shortest, mut violation) = (steps, violation);
    let mut tries = 0;
    let mut piece = shortest.len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        let mut has_shrunk = false;
        while from < shortest.len() && tries < TRIES_MAX {
            let mut without = shortest.clone();
            without.drain(from..(from + piece).min(shortest.len()));
            tries += 1;
            match play(messages, seed, (settings, &without), fault) {
                Err(found) if found.condition == violation.condition => {
                    (shortest, violation, has_shrunk) = (without, found, true);
                }
                _ => from += piece,
            }
        }
        if piece > 1 || !has_shrunk {
            piece /= 2;
        }
    }
    (shortest, violation)
}
