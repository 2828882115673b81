//! Progress of a peer in the log of a group: the peer's acknowledgement decides what to send next.

use snapshots::LogId;

use super::{
    ReplicationAck,
    actor::{PeerActor, WAITING_MAX},
    outgoing::Sent,
    schedule::{Ending, GroupKey},
};
use crate::disagreements::Loser;

/// A peer's refusal of entries, and what it implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusedEntries {
    /// The first refused entry. The newest entry is sent to learn what the peer needs next.
    From(u64),
    /// The refused entries are history from before the peer's transfer; the peer goes without it.
    OfThePast,
}

impl PeerActor {
    /// Forgets what is known of a deleted group.
    pub(super) fn forget(&mut self, place: &GroupKey) {
        self.positions.remove(place);
        self.transfers.remove(place);
        self.refused.remove(place);
    }

    /// Notes that the peer does not know the deletion of a group, for a while.
    pub(super) fn lacks_deletions(&mut self) {
        self.knows_no_deletions = true;
        tracing::info!(
            peer = %self.peer,
            "a peer of an earlier version keeps a group that was deleted; it is told again until it is upgraded"
        );
    }

    /// How a delivery ends if its group is there; if it was deleted meanwhile, the peer is to be told.
    pub(super) fn unless_deleted(&self, (app, group): &GroupKey, ending: Ending) -> Ending {
        match self.services.store.view().group(*app, group) {
            Ok(None) => Ending::More,
            Ok(Some(_)) | Err(_) => ending,
        }
    }

    /// Decides what to send next after a refusal. History that the peer cannot append must not block new entries, so the
    /// newest entry is sent: its acknowledgement says what the peer needs.
    pub(super) fn after_refusal(&mut self, place: &GroupKey, from: u64, sent: Sent) -> Ending {
        if sent == Sent::Deletion {
            // There is nothing else to send. Its clock may be behind: a deletion is not answered with a time to wait for.
            return Ending::SetAside;
        }
        if self.transfers.contains(place) {
            return Ending::More;
        }
        let (app, group) = place;
        let head = self.services.store.view().log_head(&LogId::Group(*app, group.clone()));
        let Ok(Some(head)) = head else { return self.unless_deleted(place, Ending::SetAside) };
        let may_ask = self.refused.len() < WAITING_MAX && !self.refused.contains_key(place);
        if sent != Sent::Entries || from >= head || !may_ask {
            if self.refused.get(place).is_some_and(|refused| *refused != RefusedEntries::OfThePast) {
                self.refused.remove(place);
            }
            return Ending::SetAside;
        }
        self.refused.insert(place.clone(), RefusedEntries::From(from));
        self.positions.insert(place.clone(), head);
        Ending::More
    }

    /// Decides from the peer's acknowledgement what to send next.
    pub(super) fn progress(
        &mut self,
        place: &GroupKey,
        (from, sent): (u64, Sent),
        held: &ReplicationAck,
    ) -> Ending {
        let (app, group) = place;
        let view = self.services.store.view();
        let head = view.log_head(&LogId::Group(*app, group.clone()));
        let Ok(Some(head)) = head else { return self.unless_deleted(place, Ending::SetAside) };
        if held.next > head.saturating_add(1) {
            if self.services.disagreements.note(&self.peer, *app, group, Loser::Here) {
                tracing::error!(
                    peer = %self.peer, application = %app, ?group, held = held.next, head,
                    "a peer holds entries that this hub does not have: this gateway was restored from a backup, or has lost \
                     its newest writes"
                );
            }
            return Ending::SetAside;
        }
        self.services.disagreements.clear(&self.peer, *app, group);
        if held.needs_transfer {
            self.positions.insert(place.clone(), held.next);
            if sent == Sent::Transfer || self.transferred.contains(place) {
                return Ending::SetAside;
            }
            self.transfers.insert(place.clone());
            return Ending::More;
        }
        let mut is_asked = false;
        if let Some(RefusedEntries::From(refused)) = self.refused.get(place).copied() {
            self.refused.remove(place);
            if held.next <= refused {
                self.positions.insert(place.clone(), held.next);
                return Ending::SetAside;
            }
            is_asked = true;
            // The newest entry may also have ended the missing history: then nothing is missing any more.
            if held.missing.is_some() {
                self.refused.insert(place.clone(), RefusedEntries::OfThePast);
            }
        }
        let does_without = self.refused.contains_key(place);
        // Entries that it never received and that are still kept here come first.
        let missing = held.missing.as_ref().filter(|missing| missing.end() < &held.next && !does_without);
        let first_missing =
            missing.map(|missing| view.first_whole_entry(*app, group, *missing.start(), *missing.end()));
        let next = match first_missing {
            Some(Ok(Some(kept))) => kept,
            Some(Ok(None)) | None => held.next,
            Some(Err(error)) => {
                tracing::error!(peer = %self.peer, %error, "the entries for a peer could not be read");
                return Ending::SetAside;
            }
        };
        self.positions.insert(place.clone(), next);
        if next <= from && !is_asked && !(sent == Sent::Transfer && held.next > from) {
            tracing::warn!(peer = %self.peer, ?group, from, next, "a peer went back in a log, or did not advance");
            return Ending::SetAside;
        }
        if next > head { Ending::Done } else { Ending::More }
    }
}
