//! The schedule of groups to deliver to a peer: pure bookkeeping, without clock, disk or actor. It holds a bounded
//! number of groups; the others are found again by their marks in the store.

use std::collections::{HashMap, HashSet, VecDeque};

use snapshots::{AppId, GroupId};

/// A group, with its application.
pub(crate) type GroupKey = (AppId, GroupId);

/// The outcome of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The peer has every entry that existed when the delivery began.
    Done,
    /// It needs further entries.
    More,
    /// The peer refused it, or cannot append it at present; it is set aside.
    SetAside,
}

/// The store's marks, as far as they are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marks {
    /// Any mark may be missing here.
    Unknown,
    /// The marks that were read so far are here.
    Partly,
    /// All marks are here.
    Known,
}

/// Groups that wait for a delivery, are being delivered, or are set aside.
#[derive(Debug)]
pub(crate) struct DeliverySchedule {
    waiting_max: usize,
    waiting: VecDeque<GroupKey>,
    queued: HashSet<GroupKey>,
    /// The groups being delivered; `true` for one that was enqueued again meanwhile.
    under_way: HashMap<GroupKey, bool>,
    set_aside: HashSet<GroupKey>,
    /// Those whose retry has a timer already.
    timed: HashSet<GroupKey>,
    marks: Marks,
}

impl DeliverySchedule {
    /// An empty schedule: the marks are still to be read.
    pub(crate) fn new(waiting_max: usize) -> Self {
        Self {
            waiting_max,
            waiting: VecDeque::new(),
            queued: HashSet::new(),
            under_way: HashMap::new(),
            set_aside: HashSet::new(),
            timed: HashSet::new(),
            marks: Marks::Unknown,
        }
    }

    /// Enqueues a group with entries for the peer.
    pub(crate) fn enqueue(&mut self, place: GroupKey) {
        if let Some(again) = self.under_way.get_mut(&place) {
            *again = true;
        } else if self.set_aside.contains(&place) || self.queued.contains(&place) {
        } else if self.waiting.len() >= self.waiting_max {
            self.marks = Marks::Unknown;
        } else {
            self.queued.insert(place.clone());
            self.waiting.push_back(place);
        }
    }

    /// The next group to deliver, when fewer than `at_once` are under way.
    pub(crate) fn next(&mut self, at_once: usize) -> Option<GroupKey> {
        if self.under_way.len() >= at_once {
            return None;
        }
        let place = self.waiting.pop_front()?;
        self.queued.remove(&place);
        self.under_way.insert(place.clone(), false);
        Some(place)
    }

    /// Whether the store's marks must be read before anything else can be delivered.
    pub(crate) fn needs_marks(&self) -> bool {
        self.marks != Marks::Known && self.waiting.is_empty()
    }

    /// Whether they must be read from the first one.
    pub(crate) fn needs_all_marks(&self) -> bool {
        self.marks == Marks::Unknown
    }

    /// Adds marks from the store; `is_end` when they were the last.
    pub(crate) fn add_marks(&mut self, places: Vec<GroupKey>, is_end: bool) {
        self.marks = if is_end { Marks::Known } else { Marks::Partly };
        places.into_iter().for_each(|place| self.enqueue(place));
    }

    /// Ends a delivery.
    pub(crate) fn complete(&mut self, place: GroupKey, ending: Ending) {
        let again = self.under_way.remove(&place).unwrap_or(false);
        match ending {
            Ending::Done if !again => {}
            Ending::Done | Ending::More => self.enqueue(place),
            // A group without room here is found again when the marks are read next.
            Ending::SetAside if self.set_aside.len() >= self.waiting_max => {}
            Ending::SetAside => {
                self.set_aside.insert(place);
            }
        }
    }

    /// Sets aside a group that was under way; returns whether the caller must set a timer for its retry. If an earlier timer is
    /// still running, one is enough.
    pub(crate) fn set_aside_for(&mut self, place: GroupKey) -> bool {
        self.complete(place.clone(), Ending::SetAside);
        self.set_aside.contains(&place) && self.timed.insert(place)
    }

    /// Retries all groups that were set aside, except those with a timer, and reads the marks again.
    pub(crate) fn retry_all(&mut self) {
        self.set_aside.retain(|place| self.timed.contains(place));
        self.marks = Marks::Unknown;
    }

    /// Retries one group that was set aside, when its timer fires.
    pub(crate) fn retry(&mut self, place: GroupKey) {
        self.timed.remove(&place);
        if self.set_aside.remove(&place) {
            self.enqueue(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> GroupKey {
        (AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001)), GroupId::new([number]).unwrap())
    }

    #[test]
    fn one_group_has_one_delivery_under_way() {
        let mut schedule = DeliverySchedule::new(10);
        schedule.enqueue(place(1));
        schedule.enqueue(place(1));
        assert_eq!(schedule.next(8), Some(place(1)));
        assert_eq!(schedule.next(8), None);
        schedule.enqueue(place(1));
        assert_eq!(schedule.next(8), None);
        schedule.complete(place(1), Ending::Done);
        assert_eq!(schedule.next(8), Some(place(1)), "it was heard of while it was under way");
        schedule.complete(place(1), Ending::Done);
        assert_eq!(schedule.next(8), None);
    }

    #[test]
    fn no_more_are_under_way_than_may_be() {
        let mut schedule = DeliverySchedule::new(10);
        (1..=3).for_each(|number| schedule.enqueue(place(number)));
        assert_eq!(schedule.next(2), Some(place(1)));
        assert_eq!(schedule.next(2), Some(place(2)));
        assert_eq!(schedule.next(2), None);
        schedule.complete(place(1), Ending::More);
        assert_eq!(schedule.next(2), Some(place(3)), "what has more waits behind the others");
    }

    #[test]
    fn what_has_no_room_is_found_by_its_mark() {
        let mut schedule = DeliverySchedule::new(2);
        schedule.add_marks(Vec::new(), true);
        (1..=3).for_each(|number| schedule.enqueue(place(number)));
        assert!(!schedule.needs_marks());
        assert_eq!([schedule.next(8), schedule.next(8)], [Some(place(1)), Some(place(2))]);
        assert!(schedule.needs_marks());
        schedule.add_marks(vec![place(1), place(2), place(3)], true);
        assert_eq!(schedule.next(8), Some(place(3)));
        assert!(!schedule.needs_marks());
    }

    #[test]
    fn what_is_refused_is_left_alone_until_it_is_tried_again() {
        let mut schedule = DeliverySchedule::new(10);
        schedule.add_marks(vec![place(1)], true);
        assert_eq!(schedule.next(8), Some(place(1)));
        schedule.enqueue(place(1));
        schedule.complete(place(1), Ending::SetAside);
        schedule.enqueue(place(1));
        assert_eq!((schedule.next(8), schedule.set_aside.len()), (None, 1));
        schedule.retry_all();
        assert!(schedule.needs_marks());
        schedule.add_marks(vec![place(1)], true);
        assert_eq!(schedule.next(8), Some(place(1)));
        schedule.complete(place(1), Ending::SetAside);
        schedule.retry(place(2));
        assert_eq!(schedule.next(8), None, "only what was set aside is released");
        schedule.retry(place(1));
        assert_eq!(schedule.next(8), Some(place(1)));
    }

    #[test]
    fn what_overflows_while_marks_are_read_is_looked_for_from_the_first() {
        let mut schedule = DeliverySchedule::new(1);
        assert!(schedule.needs_all_marks());
        schedule.add_marks(vec![place(5)], false);
        assert!(!schedule.needs_all_marks());
        schedule.enqueue(place(1));
        assert!(schedule.needs_all_marks(), "its mark may stand before those that were read");
        assert_eq!(schedule.next(8), Some(place(5)));
        assert!(schedule.needs_marks());
    }

    #[test]
    fn a_group_that_is_set_aside_for_a_time_is_released_then_and_no_earlier() {
        let mut schedule = DeliverySchedule::new(10);
        schedule.add_marks(vec![place(1)], true);
        assert_eq!(schedule.next(8), Some(place(1)));
        assert!(schedule.set_aside_for(place(1)));
        for _ in 0..3 {
            schedule.retry_all();
            schedule.add_marks(vec![place(1), place(2)], true);
            assert_eq!(
                (schedule.next(8), schedule.next(8)),
                (Some(place(2)), None),
                "its peer asked to wait"
            );
            schedule.complete(place(2), Ending::SetAside);
        }
        schedule.retry(place(1));
        assert_eq!(schedule.next(8), Some(place(1)));
        assert!(schedule.set_aside_for(place(1)));
    }
}
