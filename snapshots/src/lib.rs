//! The store: durable batches, tables and retention.
//!
//! It parses no MLS and knows no HTTP: commits are validated before a [`Batch`] is composed. It does know the tables: the rows
//! that belong together, the limits between them, and the rows that are deleted together.
//!
//! - [`Store::append`] writes one [`Batch`]: puts and deletes with preconditions, all or nothing, durable when it
//!   answers. One thread writes; batches that wait together share one disk batch and one sync.
//! - [`Store::view`] gives a [`View`]: one consistent moment of all tables.
//!
//! Invariants: there is one writer, so a precondition that was checked still holds when the batch is written; a view never
//! shows a batch that could still be lost; a failed write ends the store, and with it the process.
//!
//! `engine/` is the database: one writer, an overlay of what it is about to write, consistent views. `tables/` gives the rows
//! their meaning, a file for each kind. The engine imports no table: it is opened with a list of them. `backup/` writes all of it to
//! one file, and makes a store of such a file.

mod away;
mod backup;
mod engine;
mod errors;
mod histogram;
mod ids;
mod options;
mod quotas;
mod store;
mod tables;

pub use bytes::Bytes;

#[cfg(feature = "simulation")]
pub use self::{
    away::{Session, is_simulated},
    engine::{DiskFault, SimulatedDisk, SimulatedWrite},
};
pub use self::{
    away::{Stopped, away, random_uuid},
    backup::{
        BACKUP_VERSION, BackupError, BackupSummary, BackupTable, ImportOptions, import_backup,
        inspect_backup, publish_file, write_backup, write_backup_while,
    },
    engine::{Announced, Appended, Batch, ReportOutcome, StoreCounts, View},
    errors::{AppendError, OpenError, ReadError, Unmet},
    histogram::{Distribution, Histogram},
    ids::{
        AppId, ClientHandle, ClientId, DeliveryId, DomainName, Epoch, GroupId, IdError, KeyPackageRef,
        KeyQueueId, Timestamp,
    },
    options::{Durability, Location, StoreOptions},
    quotas::{QuotaExceeded, Quotas, Resource, Usage},
    store::Store,
    tables::{
        assigned_key_packages::{AssignedLimits, AssignedRow},
        audit::{AuditEntry, AuditRow},
        claims::{Claim, ClaimLimits, ClaimedKeyPackages, ClaimedQueue},
        clients::ClientRow,
        deleted_groups::{DeletedAt, DeletedGroupRow},
        events::{Event, EventRow, EventRows, KeyPackagesChange},
        groups::GroupRow,
        history::{CommittedProposal, EpochCommitter, EpochRow},
        key_packages::{KeyPackageRow, QueueCounts, UsedRow},
        key_queues::QueueRow,
        missed::MissedEntries,
        records::{LoadedLog, LogId},
        reports::{MemberReport, ReportedEpoch, ToldBefore, ToldEpoch},
        retention::{SweepError, SweepProgress, Swept},
        retention_limits::Retention,
        welcome_shares::{InvitedClient, Inviter, ShareId, WelcomeLimits},
        welcomes::{CountedBy, Invitation, JoinInfoRow, WelcomeRow},
    },
};
