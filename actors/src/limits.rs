//! Limits on everything that a caller can make grow. Units are in the names.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use snapshots::{ClientHandle, Retention};

use crate::{
    settings,
    settings::{
        Accepts,
        Bound::{Is, Of},
    },
};

/// The most certificates in an X.509 chain: the leaf, six that issue, and the root, which may be left out.
pub const MAX_CERTIFICATES: usize = 8;

settings! {
    /// The limits on what groups, key queues and clients accept, hold and keep.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Limits {
        /// Largest MLS message (commit, proposal, welcome, key package, or a group info without its tree), in bytes.
        pub packet_bytes_max: usize = 2 << 20 => Accepts::BYTES;
        /// Largest serialised ratchet tree, in bytes. A commit that would make a larger one is refused.
        pub ratchet_tree_bytes_max: usize = 8 << 20 => Accepts::BYTES;
        /// Members of one group.
        pub group_members_max: usize = 20_000 => Accepts::COUNT;
        /// Proposals that can be committed and wait in one epoch of a group. Those that can no longer be committed are not
        /// counted; all together may be twice as many.
        pub proposals_per_epoch_max: usize = 256 => Accepts::from_to(1, Limits::LIST_MAX as u64);
        /// Such proposals, in bytes together.
        pub proposal_bytes_per_epoch_max: usize = 4 << 20 => Accepts::BYTES;
        /// Proposals that one commit may carry, by value and by reference together.
        pub proposals_per_commit_max: usize = 1024
            => Accepts::from_to(1, Limits::PROPOSALS_PER_COMMIT_MAX as u64);
        /// Requests that may wait in front of one group or one key queue, or to change one client.
        pub waiting_requests_per_actor_max: usize = 1024 => Accepts::COUNT;
        /// Messages of one application that may be validated, or wait for it, away from the threads of groups: those that
        /// are long, or belong to large groups.
        pub judgements_per_application_max: usize = 4096 => Accepts::COUNT;
        /// Key queues of one client.
        pub key_queues_per_client_max: usize = 64 => Accepts::COUNT;
        /// Key packages held by one queue that are not assigned, not counting the final one.
        pub key_packages_per_queue_max: usize = 1000 => Accepts::COUNT;
        /// Key packages of one queue that are left, not assigned, when listeners are warned; they are warned again at 0.
        pub key_packages_low: usize = 10 => Accepts::from_to(0, Limits::LIST_MAX as u64);
        /// Key packages held by one queue, in bytes together, with the final one and assigned ones.
        pub key_queue_bytes_max: usize = 24 << 20 => Accepts::BYTES;
        /// Key packages of one client that are assigned to the receivers of one peer and not used yet, over all queues that
        /// the client has or had.
        pub key_packages_per_peer_max: usize = 100 => Accepts::COUNT;
        /// Groups of one other gateway's domain that are kept here as replicas, in one application.
        pub groups_per_peer_max: usize = 1_000_000 => Accepts::COUNT;
        /// Key packages of one client whose receivers are remembered until the packages are used or expire, so that none
        /// goes to a second receiver over a queue that is deleted and made again. Beyond it, those that expire first are
        /// forgotten.
        pub assigned_key_packages_per_client_max: usize = 4096 => Accepts::COUNT;
        /// Key packages in one upload.
        pub key_packages_per_request_max: usize = 500 => Accepts::from_to(1, Limits::LIST_MAX as u64);
        /// Longest total lifetime (`not_after − not_before`) of a key package or of a leaf that has one, in seconds. 0
        /// accepts every interval, because some clients make key packages that are valid for ever. RFC 9420 §7.2 wants a
        /// bound: 7862400 (91 days) is recommended where all clients are known to keep to it. It applies to uploads,
        /// Adds, and the creator's leaf of a new group.
        pub key_package_lifetime_s_max: u64 = 0 => Accepts::from_to(0, Accepts::SECONDS_MAX);
        /// Certificates in one X.509 credential.
        pub certificates_per_chain_max: usize = MAX_CERTIFICATES => Accepts::from_to(1, MAX_CERTIFICATES as u64);
        /// Bytes of all certificates in one X.509 credential.
        pub certificate_chain_bytes_max: usize = 32 << 10 => Accepts::COUNT;
        /// Longest client handle, in bytes.
        pub client_handle_bytes_max: usize = ClientHandle::BYTES_MAX
            => Accepts::from_to(1, ClientHandle::BYTES_MAX as u64);
        /// Tags of one client.
        pub tags_per_client_max: usize = 100 => Accepts::from_to(1, Limits::LIST_MAX as u64);
        /// Longest tag, in bytes.
        pub tag_bytes_max: usize = 256 => Accepts::COUNT;
        /// Welcomes that may wait for one client, of all inviters together. A commit that would exceed it is refused.
        pub welcomes_per_client_max: usize = 1000 => Accepts::COUNT;
        /// Welcomes of one inviter that may wait for one client.
        pub welcomes_per_inviter_max: usize = 100 => Accepts::Number(Is(1), Of("welcomes_per_client_max"));
        /// Welcomes that a registered client, or the clients of one other domain together, may still leave for a client
        /// that has `welcomes_per_client_max`.
        pub welcomes_reserved_max: usize = 10 => Accepts::Number(Is(0), Of("welcomes_per_inviter_max"));
        /// For how long a welcome that was sent to a client of another gateway counts in these limits, in seconds.
        pub welcomes_elsewhere_window_s: u64 = 24 * 3600 => Accepts::SECONDS;
        /// The share of a group's present members that must have reported an epoch before the application and the operators are
        /// told of it, in percent; at least one member. Reports of members who have left do not count.
        pub epoch_reports_percent: u64 = 25 => Accepts::from_to(0, 100);
        /// Longest label of a key queue and longest receiver id, in bytes.
        pub label_bytes_max: usize = 256 => Accepts::COUNT;
        /// Packets of the newest epochs that a group keeps in memory while it is active, in bytes; 0 keeps none.
        pub recent_bytes_per_group_max: usize = 16 << 10 => Accepts::from_to(0, 1 << 24);
        /// MLS messages in one answer, in bytes; the caller asks again for the rest.
        pub answer_bytes_max: usize = 16 << 20 => Accepts::BYTES;
        /// How far the clock of another gateway may be ahead of this one, in seconds.
        pub clock_skew_s_max: u64 = 300 => Accepts::SECONDS;
        /// The largest deviation of the clock, from the time expected by the monotonic clock and the newest time in the store,
        /// at which data is deleted by it, in seconds.
        pub clock_jump_s_max: u64 = 24 * 3600 => Accepts::SECONDS;
        /// The time for which a clock that deviates more must have run steadily to be trusted, in seconds; 0 trusts it at once.
        pub clock_settle_s: u64 = 24 * 3600 => Accepts::from_to(0, Accepts::SECONDS_MAX);
        /// Groups and key queues that are active, in memory. Beyond this number, those that were idle longest are
        /// passivated.
        pub awake_actors_max: usize = 100_000 => Accepts::COUNT;
        /// Estimated memory of all active groups and key queues together, in bytes. Beyond it, those that were idle
        /// longest are passivated.
        pub awake_bytes_max: usize = 2 << 30 => Accepts::from_to(1 << 20, Accepts::BYTES_MAX);
    }
}

impl Limits {
    /// The largest value of a limit on a list in a request, so that a body of millions of members is not built in memory
    /// before the limit is known.
    pub const LIST_MAX: usize = 10_000;
    /// The largest value of [`Limits::proposals_per_commit_max`]: gateways read past commits of other gateways that far.
    pub const PROPOSALS_PER_COMMIT_MAX: usize = 4096;

    /// The number of members of a group of this size who must report an epoch before it is told.
    pub(crate) fn reporters_told_from(&self, members: usize) -> u64 {
        let members = u64::try_from(members).unwrap_or(u64::MAX);
        members.saturating_mul(self.epoch_reports_percent).div_ceil(100).max(1)
    }

    /// [`Limits::key_package_lifetime_s_max`]; `None` for 0, which means no limit.
    pub(crate) fn lifetime_s_max(&self) -> Option<u64> {
        Some(self.key_package_lifetime_s_max).filter(|max| *max > 0)
    }
}

/// Limits on the recent epochs that a group keeps in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecentLimits {
    /// Packets of one group, in bytes.
    pub(crate) bytes_max: usize,
    /// Epochs: no more than retention leaves on disk.
    pub(crate) epochs_max: u64,
    /// The age beyond which epochs are not shown, as on disk.
    pub(crate) age_max: Duration,
}

impl RecentLimits {
    pub(crate) fn new(bytes_max: usize, retention: &Retention) -> Self {
        Self { bytes_max, epochs_max: retention.history_epochs_max, age_max: retention.history_age_max }
    }
}
