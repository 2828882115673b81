//! Groups in which this gateway and a peer disagree: one of the two lacks entries that the other holds, or holds others, because it has lost
//! what it acknowledged, for example by restoring a backup.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use snapshots::{AppId, DomainName, GroupId};

/// The most groups of one peer that are remembered.
const GROUPS_MAX: usize = 10_000;

/// The gateway that has lost entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loser {
    /// This one: a follower holds entries that this hub does not have.
    Here,
    /// The peer: it is the group's hub, and its log differs from the one that it sent before.
    There,
}

/// The number of groups in which this gateway and a peer disagree, each up to 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerDisagreement {
    /// Groups of which this gateway, their hub, has lost entries that the peer holds.
    pub lost_here: u64,
    /// Groups of which the peer, their hub, has lost entries that this gateway holds.
    pub lost_there: u64,
}

type Places = BTreeMap<(AppId, GroupId), Loser>;

/// The disagreements with all peers, as they were found since the start.
#[derive(Debug, Default)]
pub(crate) struct Disagreements(Mutex<BTreeMap<DomainName, Places>>);

impl Disagreements {
    /// Notes a disagreement; returns whether it is new.
    pub(crate) fn note(&self, peer: &DomainName, app: AppId, group: &GroupId, loser: Loser) -> bool {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = peers.entry(peer.clone()).or_default();
        if places.len() >= GROUPS_MAX && !places.contains_key(&(app, group.clone())) {
            return false;
        }
        places.insert((app, group.clone()), loser) != Some(loser)
    }

    /// Notes that the two agree on a group.
    pub(crate) fn clear(&self, peer: &DomainName, app: AppId, group: &GroupId) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(places) = peers.get_mut(peer) else { return };
        places.remove(&(app, group.clone()));
    }

    pub(crate) fn with(&self, peer: &DomainName) -> PeerDisagreement {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = PeerDisagreement::default();
        for loser in peers.get(peer).into_iter().flat_map(BTreeMap::values) {
            match loser {
                Loser::Here => found.lost_here += 1,
                Loser::There => found.lost_there += 1,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disagreement_is_counted_once_until_it_ends() {
        let (app, peer) = (AppId::random(), DomainName::new("b.example").unwrap());
        let [one, other] = [1, 2].map(|number| GroupId::new([number; 4]).unwrap());
        let disagreements = Disagreements::default();
        assert!(disagreements.note(&peer, app, &one, Loser::Here));
        assert!(!disagreements.note(&peer, app, &one, Loser::Here));
        assert!(disagreements.note(&peer, app, &other, Loser::There));
        assert_eq!(disagreements.with(&peer), PeerDisagreement { lost_here: 1, lost_there: 1 });
        disagreements.clear(&peer, app, &one);
        assert_eq!(disagreements.with(&peer), PeerDisagreement { lost_here: 0, lost_there: 1 });
        let nobody = DomainName::new("c.example").unwrap();
        assert_eq!(disagreements.with(&nobody), PeerDisagreement::default());
    }
}
