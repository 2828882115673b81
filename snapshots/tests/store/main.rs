//! Stories of the store: appending, reading, deleting.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at what it does not expect")]

mod appending;
mod assigned;
mod backups;
mod bounds;
mod claims;
mod crashes;
mod deleting;
mod disks;
mod erasing;
mod fixtures;
mod flips;
mod model;
mod reading;
mod reopening;
mod reports;
mod space;
mod starting;
mod sweeping;
mod usage;
mod welcome_limits;
