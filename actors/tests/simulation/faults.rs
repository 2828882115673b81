//! Faults that are injected to prove that the checks find them. They are in the simulated disk, so that the code under test has
//! no hooks for them.

/// A fault of every machine of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Writers are told before their batch is on the disk.
    AnswersEarly,
    /// A crash leaves the half of a batch that was on its way.
    TearsBatches,
    /// Rows that are put into this table are not there.
    Loses(&'static str),
    /// Rows that are deleted from this table stay.
    Keeps(&'static str),
}
