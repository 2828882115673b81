//! The choice of a package for a receiver (*Key Package Retrieval*).

use snapshots::Timestamp;

use super::{
    super::package::{NewPackage, Receiver, Requester},
    KeyQueueState,
};

/// A package that may answer a request.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) package: &'a NewPackage,
    pub(crate) is_final: bool,
}

/// The outcome of a request for a key package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A package that is assigned to the receiver already.
    Assigned(NewPackage),
    /// A package that can be assigned to the receiver.
    Assignable(NewPackage),
    /// Only the final key is left.
    Final(NewPackage),
    Nothing,
}

impl KeyQueueState {
    /// The package for a receiver, among those that may be handed out now; call [`Self::retire`] first. A package that may not
    /// be handed out is skipped but stays, since it may become acceptable again; if its receiver gets another one instead, the
    /// record of that assignment removes it. The receivers of one peer have at most `per_peer_max` of the one-time packages, so
    /// that no peer takes all of them. Packages whose lifetime begins after `now` wait.
    pub(crate) fn choose(
        &self,
        receiver: &Receiver,
        now: Timestamp,
        per_peer_max: usize,
        mut is_usable: impl FnMut(&Candidate<'_>) -> bool,
    ) -> Choice {
        let mut usable = |package: &NewPackage, is_final| is_usable(&Candidate { package, is_final });
        let of_receiver = self.packages.of_receiver(receiver);
        if let Some(held) = of_receiver.filter(|held| usable(&held.package, false)) {
            return Choice::Assigned(held.package.clone());
        }
        let mut free = self.packages.free().filter(|package| package.not_before <= now);
        if self.has_share(&receiver.caller, per_peer_max)
            && let Some(package) = free.find(|package| usable(package, false))
        {
            return Choice::Assignable(package.clone());
        }
        match self.final_keys.at(now).filter(|key| usable(&key.package, true)) {
            Some(key) => Choice::Final(key.package.clone()),
            None => Choice::Nothing,
        }
    }

    /// Whether one more package may be assigned on behalf of this caller.
    fn has_share(&self, caller: &Requester, per_peer_max: usize) -> bool {
        match caller {
            Requester::Application => true,
            Requester::Peer(_) => self.packages.count_taken_by(caller) < per_peer_max,
        }
    }
}
