//! Key packages of a queue, and their receivers (*Key Package Retrieval*).

use serde::{Deserialize, Serialize};
use snapshots::{AssignedRow, DomainName, KeyPackageRef, Timestamp};

/// The party that requests a key package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Requester {
    /// The application itself, through its application server.
    Application,
    /// The gateway of another domain: it cannot exhaust the packages for others.
    Peer(DomainName),
}

impl Requester {
    /// The domain of the requesting peer, if it is one.
    pub(crate) fn peer(&self) -> Option<&DomainName> {
        match self {
            Self::Application => None,
            Self::Peer(domain) => Some(domain),
        }
    }
}

/// The receiver of a key package; its id is unique among those of its requester.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Receiver {
    /// The requester.
    pub caller: Requester,
    /// The draft's `receiver_client_id`.
    pub id: String,
}

impl From<AssignedRow> for Receiver {
    fn from(row: AssignedRow) -> Self {
        Self { caller: row.peer.map_or(Requester::Application, Requester::Peer), id: row.receiver }
    }
}

/// A package that may enter a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewPackage {
    pub(crate) reference: KeyPackageRef,
    /// The time from which it may be handed out.
    #[serde(default)]
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    #[serde(with = "serde_bytes")]
    pub(crate) message: Vec<u8>,
    /// A digest of the signature key of its leaf; `None` for packages of an earlier version.
    #[serde(default, with = "serde_bytes")]
    pub(crate) signer: Option<[u8; 32]>,
    /// Its receiver, if it was assigned before it entered the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receiver: Option<Receiver>,
}
