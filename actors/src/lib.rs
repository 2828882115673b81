//! The rules of the gateway and the actors that own its state.
//!
//! Each group and each key queue is one actor, the only owner of its state: it handles one write at a time and needs no lock.
//! Every accepted change is on disk before it is visible. [`Gateway`] is the interface. The rules themselves ([`identity`], the
//! MLS tracking, the states of groups and queues) know no actor, no disk and no clock.
//!
//! [`observer`] follows one group without all that.

mod activity;
mod application;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod check;
mod choices;
mod clock;
mod codec;
mod deletions;
mod disagreements;
mod durable;
mod error;
pub mod events;
mod external_sender;
mod gateway;
mod group;
pub mod identity;
mod key_queue;
mod limits;
mod lost_commits;
mod mls;
pub mod observer;
mod peer;
mod presentation;
mod replica_count;
mod revocation_searches;
mod runtime;
mod services;
pub mod settings;
mod snapshot_pauses;
mod traces;
mod trusted_time;
mod validation;

pub use snapshots::{
    AppId, AuditEntry, AuditRow, Bytes, ClaimedKeyPackages, ClaimedQueue, ClientHandle, ClientId, ClientRow,
    DeliveryId, DomainName, Durability, Epoch, EpochCommitter, Event, GroupId, GroupRow, KeyPackageRef,
    KeyPackagesChange, KeyQueueId, Location, QueueCounts, QuotaExceeded, Quotas, ReportedEpoch, Resource,
    Retention, Store, StoreOptions, Timestamp, Usage,
};

pub use self::{
    application::{Application, DomainError, ExpiredMembers, Source},
    check::{CheckedStore, check_store},
    clock::Clock,
    deletions::DeletionCounts,
    disagreements::PeerDisagreement,
    error::StorageError,
    external_sender::{ExternalSenderError, ExternalSenderKey},
    gateway::{
        ApplicationFigures, ClientChange, ClientError, ClientFigures, ClientQuery, EpochFigures, Gateway,
        GatewayOptions, GroupFigures, JoinInfo, JoinInfoPage, JoinInfoQuery, NewClient, NewReport, PeerLag,
        ReportKind, SETTINGS_OF_A_COPY,
    },
    group::{
        AcceptedCommit, AcceptedProposal, ControlMessages, CreatedGroup, EntriesAfter, EntryContent,
        EpochEntry, EventPackets, GroupError, GroupTransfer, GroupView, LogEntry, LoggedEntry, MemberView,
        NewGroup, Outcome, SEQUENCE_MAX, WaitingProposal,
    },
    key_queue::{
        AssignedKeyPackage, InvalidKeyPackage, KeyPackageRequest, KeyPackageUpload, KeyQueueError,
        KeyQueueStatus, NewKeyQueue, PoolCounts, Receiver, Requester,
    },
    limits::Limits,
    lost_commits::LostCommit,
    mls::{
        CommitBundle, MalformedMessage, PROTOCOL_VERSION, RequestMember, Rule, UnknownKind,
        supported_cipher_suites,
    },
    peer::{
        Delivering, Delivery, DeliveryContent, DeliveryError, REVISION, ReplicationAck, Transport,
        USED_KEY_PACKAGES_MAX,
    },
    revocation_searches::RevocationSearch,
    runtime::AwakeActors,
    snapshot_pauses::{SnapshotStatus, WrittenSnapshot},
    traces::TRACES,
};
