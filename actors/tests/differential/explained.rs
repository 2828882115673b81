//! Differences between the gateway's observer and the libraries that are right, each with its reason.

mod accepted;
mod refused;

use crate::ledger::Library;

/// A difference that is right as it is. The texts are parts of what is said.
#[derive(Debug)]
pub(crate) struct Explained {
    /// Which library differs; `None` if either may.
    library: Option<Library>,
    /// What was done.
    what: &'static str,
    /// Why the gateway's observer refuses it; empty if it accepts it.
    ours: &'static str,
    /// Why the library refuses it; empty if it accepts it.
    theirs: &'static str,
    /// Why the gateway's observer is right.
    pub(crate) because: &'static str,
}

impl Explained {
    pub(crate) fn explains(
        &self,
        what: &str,
        library: Library,
        ours: Option<&str>,
        theirs: Option<&str>,
    ) -> bool {
        let says = |expected: &str, said: Option<&str>| match said {
            Some(_) if expected == ANYTHING => true,
            Some(said) => !expected.is_empty() && said.contains(expected),
            None => expected.is_empty(),
        };
        self.library.is_none_or(|of| of == library)
            && what.contains(self.what)
            && says(self.ours, ours)
            && says(self.theirs, theirs)
    }
}

/// Stands for every refusal, where a library misreads a message.
const ANYTHING: &str = "*";

/// The gateway's observer refuses something that libraries accept.
const fn refused(ours: &'static str, because: &'static str) -> Explained {
    Explained { library: None, what: "", ours, theirs: "", because }
}

/// The gateway's observer accepts something that a library refuses.
const fn accepted(
    library: Library,
    what: &'static str,
    theirs: &'static str,
    because: &'static str,
) -> Explained {
    Explained { library: Some(library), what, ours: "", theirs, because }
}

/// The differences. A run says how often it met each; some are so rare that a million changes may miss them.
pub(crate) fn explained() -> impl Iterator<Item = &'static Explained> {
    refused::REFUSED.iter().chain(accepted::ACCEPTED)
}
