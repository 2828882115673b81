//! The tables: their keys and rows, and the writes and reads of each.
//!
//! | file | tables |
//! |---|---|
//! | `table.rs`, `schema.rs` | all tables by name; the format of their rows, and opening a store with them |
//! | `key_parts.rs` | identifiers as parts of keys |
//! | `records.rs`, `actor_snapshots.rs`, `snapshot_pieces.rs` | the logs of groups and key queues, and the snapshots of their actors |
//! | `log_entries.rs` | the accepted entries of groups |
//! | `groups.rs`, `history.rs` | groups, their members, what made their epochs |
//! | `deleted_groups.rs`, `erasure.rs` | groups that were deleted, and the erasure of what belongs to them |
//! | `clients.rs` | clients, their handles and tags |
//! | `key_queues.rs`, `key_packages.rs` | key queues, the key packages that they hold, used key packages |
//! | `assigned_key_packages.rs` | the receivers of assigned key packages |
//! | `welcomes.rs`, `welcome_shares.rs` | welcomes, the join infos that point at them, and the shares of inviters |
//! | `outbox.rs` | positions and marks of peers |
//! | `reports.rs` | epochs that members cannot open |
//! | `audit.rs`, `claims.rs` | the audit log of each application; claims of key packages in it |
//! | `missed.rs` | entries that replicas never received |
//! | `events.rs` | events for those who listen to an application |
//! | `settings.rs` | settings by name |
//! | `retention.rs`, `retention_limits.rs` | rows by their time of expiry; the limits of their ages and numbers |
//! | `space.rs` | no table: giving back the space of rows that were deleted |
//! | `check.rs` | the check that all rows agree |

mod actor_snapshots;
pub(crate) mod assigned_key_packages;
pub(crate) mod audit;
mod check;
pub(crate) mod claims;
pub(crate) mod clients;
pub(crate) mod deleted_groups;
mod erasure;
pub(crate) mod events;
pub(crate) mod groups;
pub(crate) mod history;
pub(crate) mod key_packages;
mod key_parts;
pub(crate) mod key_queues;
mod log_entries;
pub(crate) mod missed;
mod outbox;
pub(crate) mod records;
pub(crate) mod reports;
pub(crate) mod retention;
pub(crate) mod retention_limits;
mod schema;
mod settings;
mod snapshot_pieces;
mod space;
mod table;
pub(crate) mod welcome_shares;
pub(crate) mod welcomes;

pub(crate) use self::{outbox::is_position, settings::is_setting};
