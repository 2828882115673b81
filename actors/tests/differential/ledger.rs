//! The comparisons of a run, and how the observers differed.

use std::fmt;

use crate::{explained::explained, followed::Outcome, mutations::Rate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    OpenMls,
    MlsRs,
}

const LIBRARIES: [Library; 2] = [Library::OpenMls, Library::MlsRs];

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Everybody accepts it.
    Accepted,
    /// Everybody refuses it.
    Refused,
    /// Some accept it.
    Divided,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) seed: u64,
    pub(crate) rate: Rate,
    pub(crate) commits: u64,
    /// Of these, how many each library followed.
    pub(crate) followed: [u64; 2],
    /// Messages that were changed and signed again.
    pub(crate) mutations: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// One library said what the gateway's observer says, the other did not.
    pub(crate) divided: u64,
    /// No library said what the gateway's observer says.
    pub(crate) alone: u64,
    /// How often each explanation was used.
    pub(crate) used: Vec<u64>,
    pub(crate) unexplained: Vec<String>,
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, used: vec![0; explained().count()], ..Self::default() }
    }

    /// Where the run is, for the words of a failure.
    pub(crate) fn place(&self) -> String {
        format!("seed {}, commit {}", self.seed, self.commits)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.commits += other.commits;
        self.mutations += other.mutations;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.divided += other.divided;
        self.alone += other.alone;
        self.followed.iter_mut().zip(other.followed).for_each(|(sum, more)| *sum += more);
        self.used.iter_mut().zip(other.used).for_each(|(sum, more)| *sum += more);
        self.unexplained.extend(other.unexplained);
    }

    fn explain(&mut self, what: &str, library: Library, ours: Option<&str>, theirs: Option<&str>) -> bool {
        let place = explained().position(|one| one.explains(what, library, ours, theirs));
        if let Some(place) = place {
            self.used[place] += 1;
        }
        place.is_some()
    }

    /// A library refuses what is valid, and what the gateway's observer accepts.
    pub(crate) fn refused_by_library(&mut self, what: &str, library: Library, why: &str) {
        if !self.explain(what, library, None, Some(why)) {
            let place = self.place();
            self.unexplained.push(format!("{place}: {what} is valid, and {library:?} refuses it: {why}"));
        }
    }

    /// Compares outcomes. Each library that does not agree with the gateway's observer must be explained.
    pub(crate) fn compare(
        &mut self,
        what: &str,
        ours: Outcome,
        theirs: [Option<Outcome>; 2],
        packet: &[u8],
    ) -> Said {
        self.mutations += 1;
        let agrees = |one: &Outcome| match (&ours, one) {
            (Ok(ours), Ok(one)) => ours == one,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        let asked: Vec<_> =
            LIBRARIES.into_iter().zip(&theirs).filter_map(|(of, one)| Some((of, one.as_ref()?))).collect();
        let agreeing = asked.iter().filter(|(_, one)| agrees(one)).count();
        if agreeing == asked.len() {
            if ours.is_ok() {
                self.accepted += 1;
                return Said::Accepted;
            }
            self.refused += 1;
            return Said::Refused;
        }
        if agreeing > 0 {
            self.divided += 1;
        } else {
            self.alone += 1;
        }
        for (library, one) in asked.iter().filter(|(_, one)| !agrees(one)) {
            let (mine, its) = (ours.as_ref().err(), one.as_ref().err());
            if !self.explain(what, *library, mine.map(String::as_str), its.map(String::as_str)) {
                let said = |one: &Outcome| match one {
                    Ok(context) => format!("accepts it ({} bytes of context)", context.len()),
                    Err(why) => format!("refuses it: {why}"),
                };
                let hex: String = packet.iter().take(3000).map(|byte| format!("{byte:02x}")).collect();
                let (mine, its, place) = (said(&ours), said(one), self.place());
                self.unexplained
                    .push(format!("{place}: {what}: the gateway {mine}; {library:?} {its}\n    {hex}"));
            }
        }
        Said::Divided
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            commits, followed: [openmls, mls_rs], mutations, accepted, refused, divided, alone, ..
        } = self;
        write!(f, "{commits} commits, {openmls} followed by openmls and {mls_rs} by mls-rs; ")?;
        write!(
            f,
            "{mutations} messages changed and signed again: {accepted} accepted by all, {refused} refused "
        )?;
        write!(f, "by all, {divided} judged like one library, {alone} like none, ")?;
        write!(f, "{} unexplained", self.unexplained.len())
    }
}
