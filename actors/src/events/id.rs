//! Ids of events: opaque to readers, exact after a restart, and of one stream of one store.

use sha2::{Digest as _, Sha256};
use snapshots::{AppId, GroupId, ToldBefore};
use uuid::Uuid;

const VERSION: u8 = 1;

/// The id of an event. A stream continues after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    pub(super) stream: StreamTag,
    pub(super) place: StreamPlace,
}

/// The stream of an id: the beginning of a digest of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamTag([u8; 8]);

/// A place in a stream: right after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamPlace {
    /// The position of the event's row, or its number in the group's log.
    pub(super) position: u64,
    /// The event's place in the row; [`StreamPlace::WHOLE`] for the last one.
    pub(super) index: u16,
}

impl StreamPlace {
    pub(super) const WHOLE: u16 = u16::MAX;

    /// The place right after all events of a row.
    pub(super) const fn after(position: u64) -> Self {
        Self { position, index: Self::WHOLE }
    }

    /// The place right after an event that is no entry of a group's log: before the next entry.
    pub(super) const fn before_entry(ToldBefore { entry, index }: ToldBefore) -> Self {
        Self { position: entry, index }
    }

    /// The place right after an event of a row.
    pub(super) fn after_event(position: u64, index: usize, events: usize) -> Self {
        let index = if index.saturating_add(1) >= events {
            Self::WHOLE
        } else {
            index.try_into().unwrap_or(Self::WHOLE)
        };
        Self { position, index }
    }

    /// The next row to read, and the number of its events to leave out.
    pub(super) fn next(self) -> (u64, usize) {
        match self.index {
            Self::WHOLE => (self.position.saturating_add(1), 0),
            index => (self.position, usize::from(index).saturating_add(1)),
        }
    }
}

impl StreamTag {
    /// The stream of an application.
    pub(super) fn of_application(store: Uuid, app: AppId) -> Self {
        Self::of(&[b"application", store.as_bytes(), app.as_uuid().as_bytes()])
    }

    /// The stream of a group, by its creation.
    pub(super) fn of_group(store: Uuid, app: AppId, group: &GroupId, creation: &[u8; 32]) -> Self {
        Self::of(&[b"group", store.as_bytes(), app.as_uuid().as_bytes(), creation, group.as_bytes()])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        Self(std::array::from_fn(|place| digest.get(place).copied().unwrap_or_default()))
    }
}

impl EventId {
    /// The number of bytes of an id.
    pub const BYTES: usize = 19;

    /// The id as bytes.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let Self { stream: StreamTag(tag), place: StreamPlace { position, index } } = self;
        let mut bytes = [0; Self::BYTES];
        let parts =
            [VERSION].into_iter().chain(*tag).chain(position.to_be_bytes()).chain(index.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    /// The id in these bytes; `None` if they are not an id.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (tag, rest) = rest.split_first_chunk::<8>()?;
        let (position, rest) = rest.split_first_chunk::<8>()?;
        let index = <[u8; 2]>::try_from(rest).ok()?;
        let place = StreamPlace { position: u64::from_be_bytes(*position), index: u16::from_be_bytes(index) };
        (*version == VERSION).then_some(Self { stream: StreamTag(*tag), place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_were_written() {
        let app = AppId::new(Uuid::from_u128(0x4000_8000_0000_0000_0001));
        let stream = StreamTag::of_application(Uuid::from_u128(7), app);
        for (position, index) in [(0, 0), (1, StreamPlace::WHOLE), (u64::MAX, 3)] {
            let id = EventId { stream, place: StreamPlace { position, index } };
            let bytes = id.to_bytes();
            assert_eq!(EventId::from_bytes(&bytes), Some(id));
            assert_eq!(EventId::from_bytes(bytes.split_last().unwrap().1), None);
            assert_eq!(EventId::from_bytes(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(EventId::from_bytes(&[&[9], &bytes[1..]].concat()), None);
        }
    }

    #[test]
    fn a_place_says_what_comes_next() {
        assert_eq!(StreamPlace::after(7).next(), (8, 0));
        assert_eq!(StreamPlace::after_event(7, 0, 3).next(), (7, 1));
        assert_eq!(StreamPlace::after_event(7, 2, 3).next(), (8, 0));
        assert_eq!(StreamPlace::after(u64::MAX).next(), (u64::MAX, 0));
    }

    #[test]
    fn streams_have_different_tags() {
        let app = AppId::new(Uuid::from_u128(0x4000_8000_0000_0000_0001));
        let group = GroupId::new([1; 4]).unwrap();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let tags = [
            StreamTag::of_application(one, app),
            StreamTag::of_application(two, app),
            StreamTag::of_group(one, app, &group, &[0; 32]),
            StreamTag::of_group(one, app, &group, &[1; 32]),
            StreamTag::of_group(one, app, &GroupId::new([2; 4]).unwrap(), &[0; 32]),
        ];
        for (place, tag) in tags.iter().enumerate() {
            assert_eq!(tags.iter().position(|other| other == tag), Some(place));
        }
    }
}
