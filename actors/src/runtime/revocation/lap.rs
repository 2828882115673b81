//! Laps through the groups of an application: the position of a search, and its stored form.

use std::cmp::Ordering;

use snapshots::GroupId;

use crate::presentation::{Reader, WireError, write_vector};

/// A way once around all groups in the order of their ids, from any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lap {
    /// The group behind which it began; `None` for the first of all.
    began: Option<GroupId>,
    /// The last group that it passed. Groups come after it until the end, and then from the first one up to `began`.
    after: Option<GroupId>,
    /// The groups that were looked through.
    pub(super) groups: u64,
    /// Their revoked members.
    pub(super) revoked_members: u64,
}

/// The place of a group in a lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LapPlace {
    /// Others come after it.
    Inside,
    /// It is the last.
    Last,
    /// The lap began behind it or a group before it, and has come around.
    Behind,
}

impl Lap {
    /// A lap that begins behind a group.
    pub(super) fn behind(group: Option<GroupId>) -> Self {
        Self { began: group.clone(), after: group, ..Self::default() }
    }

    /// A new lap, from where this one has come.
    pub(super) fn anew(&self) -> Self {
        Self::behind(self.after.clone())
    }

    /// The group behind which the next ones are to be read.
    pub(super) fn after(&self) -> Option<&GroupId> {
        self.after.as_ref()
    }

    fn is_back_at_the_first(&self) -> bool {
        self.after < self.began
    }

    /// The place of a group that was read after the last one that it passed.
    pub(super) fn place_of(&self, group: &GroupId) -> LapPlace {
        if !self.is_back_at_the_first() {
            return LapPlace::Inside;
        }
        match Some(group).cmp(&self.began.as_ref()) {
            Ordering::Less => LapPlace::Inside,
            Ordering::Equal => LapPlace::Last,
            Ordering::Greater => LapPlace::Behind,
        }
    }

    /// Passes such a group.
    pub(super) fn pass(&mut self, group: GroupId) {
        self.after = Some(group);
    }

    /// Passes the last of all groups. Returns whether the lap goes on from the first one.
    pub(super) fn pass_the_end(&mut self) -> bool {
        if self.is_back_at_the_first() || self.began.is_none() {
            return false;
        }
        self.after = None;
        true
    }
}

/// How far the searches of an application have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Under way.
    At(Lap),
    /// Through all groups.
    Done,
}

impl Progress {
    const DONE: u8 = 0;
    /// Followed by the group that was passed last. Earlier versions began each search at the first group.
    const AFTER: u8 = 1;
    /// Followed by the groups at the beginning and passed last, each a vector that is empty for none, and the counts.
    const AT: u8 = 2;

    /// Reads the progress of a search under these conditions. After one under others, all groups are to be looked through again,
    /// beginning where that had come: if lists change faster than a search ends, it still comes to every group.
    pub(super) fn read(stored: &[u8], conditions: &[u8; 32]) -> Self {
        let Some((of, progress)) = stored.split_first_chunk::<32>() else { return Self::At(Lap::default()) };
        match (Self::parse(progress).unwrap_or(Self::At(Lap::default())), of == conditions) {
            (progress, true) => progress,
            (Self::At(lap), false) => Self::At(lap.anew()),
            (Self::Done, false) => Self::At(Lap::default()),
        }
    }

    /// Anything that cannot be read counts for nothing.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let group = |bytes: &[u8]| (!bytes.is_empty()).then(|| GroupId::new(bytes)).transpose().ok();
        match bytes {
            [Self::DONE] => Some(Self::Done),
            [Self::AFTER, after @ ..] => Some(Self::At(Lap { after: group(after)?, ..Lap::default() })),
            [Self::AT, rest @ ..] => {
                let mut reader = Reader::new(rest);
                let mut read = || {
                    let (began, after) = (reader.vector("lap")?, reader.vector("lap")?);
                    Ok::<_, WireError>((began, after, reader.u64("lap")?, reader.u64("lap")?))
                };
                let (began, after, groups, revoked_members) = read().ok()?;
                let (began, after) = (group(began)?, group(after)?);
                reader.is_empty().then_some(Self::At(Lap { began, after, groups, revoked_members }))
            }
            _ => None,
        }
    }

    pub(super) fn to_bytes(&self, conditions: &[u8; 32]) -> Vec<u8> {
        let mut bytes = conditions.to_vec();
        match self {
            Self::Done => bytes.push(Self::DONE),
            Self::At(Lap { began, after, groups, revoked_members }) => {
                bytes.push(Self::AT);
                for group in [began, after] {
                    write_vector(&mut bytes, group.as_ref().map_or(&[], GroupId::as_bytes));
                }
                for count in [groups, revoked_members] {
                    bytes.extend_from_slice(&count.to_be_bytes());
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(number: u8) -> GroupId {
        GroupId::new([number]).unwrap()
    }

    /// Passes up to so many groups, which are read in parts; returns them, and whether the lap has ended.
    fn pass(lap: &mut Lap, groups: &BTreeSet<GroupId>, at_once: usize, most: usize) -> (Vec<GroupId>, bool) {
        let mut passed = Vec::new();
        loop {
            let after = lap.after().cloned();
            let read: Vec<_> =
                groups.iter().filter(|group| Some(*group) > after.as_ref()).take(at_once).cloned().collect();
            let is_end = read.len() < at_once;
            for group in read {
                if passed.len() == most {
                    return (passed, false);
                }
                let place = lap.place_of(&group);
                if place == LapPlace::Behind {
                    return (passed, true);
                }
                lap.pass(group.clone());
                passed.push(group);
                if place == LapPlace::Last {
                    return (passed, true);
                }
            }
            if is_end && !lap.pass_the_end() {
                return (passed, true);
            }
        }
    }

    #[test]
    fn a_lap_passes_every_group_once_wherever_it_begins() {
        let groups: BTreeSet<_> = (1..=10).map(|number| id(2 * number)).collect();
        for at_once in [1, 3, 5, 10, 11] {
            // Also behind groups that do not exist any more.
            for began in std::iter::once(None).chain((1..=22).map(|number| Some(id(number)))) {
                let mut lap = Lap::behind(began.clone());
                let (passed, has_ended) = pass(&mut lap, &groups, at_once, usize::MAX);
                assert!(has_ended);
                assert_eq!(passed.len(), groups.len(), "{began:?}, {at_once} at once");
                assert_eq!(passed.iter().cloned().collect::<BTreeSet<_>>(), groups);
                let first = groups.iter().find(|group| Some(*group) > began.as_ref());
                assert_eq!(passed.first(), first.or(groups.first()));
            }
        }
        let (passed, has_ended) = pass(&mut Lap::behind(Some(id(1))), &BTreeSet::new(), 3, usize::MAX);
        assert!(passed.is_empty() && has_ended);
    }

    #[test]
    fn every_group_is_reached_although_lists_change_faster_than_a_lap_takes() {
        let groups: BTreeSet<_> = (1..=10).map(id).collect();
        for at_once in [1, 3, 20] {
            let (mut stored, mut reached) = (Vec::new(), BTreeSet::new());
            for change in 0..4 {
                let conditions = [change; 32];
                let Progress::At(mut lap) = Progress::read(&stored, &conditions) else { panic!() };
                let (passed, has_ended) = pass(&mut lap, &groups, at_once, 3);
                assert!(!has_ended);
                reached.extend(passed);
                stored = Progress::At(lap).to_bytes(&conditions);
            }
            assert_eq!(reached, groups);
            // The last lists are looked up for all groups.
            let Progress::At(mut lap) = Progress::read(&stored, &[9; 32]) else { panic!() };
            assert_eq!(pass(&mut lap, &groups, at_once, usize::MAX).0.len(), groups.len());
        }
    }

    #[test]
    fn progress_counts_under_the_same_conditions_only() {
        let (one, other) = (Some(id(1)), Some(id(2)));
        let lap = |began: &Option<GroupId>, after: &Option<GroupId>| Lap {
            began: began.clone(),
            after: after.clone(),
            groups: 7,
            revoked_members: 300,
        };
        for (began, after) in [(&None, &None), (&None, &one), (&other, &one), (&one, &other), (&one, &None)] {
            let progress = Progress::At(lap(began, after));
            let bytes = progress.to_bytes(&[1; 32]);
            assert_eq!(Progress::read(&bytes, &[1; 32]), progress);
            assert_eq!(Progress::read(&bytes, &[2; 32]), Progress::At(Lap::behind(after.clone())));
        }
        let done = Progress::Done.to_bytes(&[1; 32]);
        assert_eq!(Progress::read(&done, &[1; 32]), Progress::Done);
        assert_eq!(Progress::read(&done, &[2; 32]), Progress::At(Lap::default()));
    }

    #[test]
    fn progress_of_earlier_versions_is_read_and_damaged_progress_is_none() {
        let earlier = [&[1; 32][..], &[Progress::AFTER, 5]].concat();
        let expected = Lap { after: Some(id(5)), ..Lap::default() };
        assert_eq!(Progress::read(&earlier, &[1; 32]), Progress::At(expected));
        let whole = Progress::At(Lap::behind(Some(id(1)))).to_bytes(&[1; 32]);
        let longer = [&whole[..], &[0]].concat();
        for damaged in
            [&[][..], &[1; 31], &[1; 32], &[&[1; 32][..], &[7]].concat(), &whole[..whole.len() - 1], &longer]
        {
            assert_eq!(Progress::read(damaged, &[1; 32]), Progress::At(Lap::default()), "{damaged:?}");
        }
    }
}
