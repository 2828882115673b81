//! The rules of the gateway and the actors that own its state.
//!
//! Each group and each key queue is one actor, the only owner of its state: it handles one write at a time and needs no
//! lock. Everything that an actor accepts is on disk before it is visible. [`Gateway`] is the interface. The rules themselves
//! ([`identity`], the MLS tracking, the states of groups and queues) know no actor, no disk and no clock.

mod application;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod clients;
mod clock;
mod core;
mod external_sender;
mod gateway;
mod group;
pub mod identity;
mod judging;
mod key_queue;
mod key_queues;
mod limits;
mod mls;
mod peer;
mod replica_count;
mod replication;
mod resting;
mod router;
pub mod settings;
mod storage;
mod supervisor;
mod trusted_time;
mod turns;

pub use snapshots::{
    AppId, Bytes, ClientHandle, ClientId, ClientRow, DeliveryId, DomainName, Durability, Epoch, GroupId,
    GroupRow, KeyPackageRef, KeyQueueId, Location, Retention, Store, StoreOptions, Timestamp,
};

pub use self::{
    application::{Application, DomainError, ExpiredMembers, Source},
    clients::{ClientChange, ClientError, ClientQuery, JoinInfo, JoinInfoPage, JoinInfoQuery, NewClient},
    clock::Clock,
    external_sender::{ExternalSenderError, ExternalSenderKey},
    gateway::{Gateway, GatewayOptions, PeerStatus},
    group::{
        AcceptedCommit, AcceptedProposal, CommitUpload, ControlMessages, CreatedGroup, EpochEntry,
        GroupError, GroupView, MemberView, NewGroup, Outcome, WaitingProposal,
    },
    key_queue::{
        AssignedKeyPackage, Caller, InvalidKeyPackage, KeyPackageRequest, KeyPackageUpload, KeyQueueError,
        KeyQueueStatus, NewKeyQueue, PoolCounts, Receiver,
    },
    limits::Limits,
    mls::{MalformedMessage, PROTOCOL_VERSION, RequestMember, Rule, UnknownKind, supported_cipher_suites},
    peer::{
        Delivering, Delivery, DeliveryContent, DeliveryError, EntryContent, GroupTransfer, Held, LogEntry,
        REVISION, SEQUENCE_MAX, Transport,
    },
    resting::SnapshotStatus,
    storage::StorageError,
};
