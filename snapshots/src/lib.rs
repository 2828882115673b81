//! The store: durable batches, tables and retention.
//!
//! It parses no MLS and knows no HTTP: whether a commit is valid is decided before a [`Batch`] is composed. It does know the
//! application's tables: which rows go together, which limits hold between them, and what is deleted with what.
//!
//! - [`Store::append`] writes one [`Batch`]: puts and deletes with preconditions, all or nothing, durable when it
//!   answers. One thread writes; batches that wait together share one disk batch and one sync.
//! - [`Store::view`] gives a [`View`]: one consistent moment of all tables.
//!
//! Invariants: there is one writer, so a precondition that held when it was checked holds when the batch is written; a view
//! never shows what could still be lost; a failed write ends the store, and with it the process.
//!
//! Each file of tables holds its keys, its rows, what may be written and what may be read:
//!
//! | file | tables |
//! |---|---|
//! | `records.rs`, `actor_snapshots.rs`, `snapshot_pieces.rs` | the logs of groups and key queues, and the snapshots of their actors |
//! | `groups.rs`, `history.rs` | groups, their members, the commits that made their epochs |
//! | `clients.rs` | clients, their handles and tags |
//! | `key_queues.rs`, `key_packages.rs` | key queues, the key packages that they hold, used key packages |
//! | `assigned_key_packages.rs` | the receivers of assigned key packages |
//! | `welcomes.rs`, `welcome_shares.rs` | welcomes, the join infos that point at them, and the shares of inviters |
//! | `outbox.rs` | stored log entries, positions and marks of peers |
//! | `missed.rs` | entries that replicas never received |
//! | `meta.rs` | the format, settings |
//! | `retention.rs` | rows by their time of expiry |

mod actor_snapshots;
mod append_queue;
mod assigned_key_packages;
mod batch;
mod clients;
mod committer;
mod disk;
mod draft;
mod errors;
mod groups;
mod history;
mod ids;
mod key_packages;
mod key_queues;
mod keys;
mod meta;
mod missed;
mod outbox;
mod presence;
mod records;
mod retention;
mod rows;
mod snapshot_pieces;
mod store;
mod tables;
mod view;
mod welcome_shares;
mod welcomes;
mod witness;

pub use assigned_key_packages::{AssignedLimits, AssignedRow};
pub use batch::{Appended, Batch};
pub use bytes::Bytes;
pub use clients::ClientRow;
pub use errors::{AppendError, OpenError, ReadError, Unmet};
pub use groups::GroupRow;
pub use history::EpochRow;
pub use ids::{
    AppId, ClientHandle, ClientId, DeliveryId, DomainName, Epoch, GroupId, IdError, KeyPackageRef,
    KeyQueueId, Timestamp,
};
pub use key_packages::{KeyPackageRow, UsedRow};
pub use key_queues::QueueRow;
pub use missed::MissedEntries;
pub use records::{LoadedLog, LogId};
pub use retention::{Retention, SweepError, Swept};
pub use store::{Durability, Location, Store, StoreOptions};
pub use view::View;
pub use welcome_shares::{InvitedClient, Inviter, ShareId, WelcomeLimits};
pub use welcomes::{CountedBy, Invitation, JoinInfoRow, WelcomeRow};
