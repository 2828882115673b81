//! Limits on everything that a caller can make grow. Units are in the names.

use serde::{Deserialize, Serialize};

use crate::identity::x509::MAX_CERTIFICATES;

/// What the actors accept, hold and keep. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest MLS message (commit, proposal, welcome, key package, or a group info without its tree), in bytes.
    pub packet_bytes_max: usize,
    /// Largest serialised ratchet tree, in bytes.
    pub ratchet_tree_bytes_max: usize,
    /// Members of one group.
    pub group_members_max: usize,
    /// Proposals waiting in one epoch of a group.
    pub proposals_per_epoch_max: usize,
    /// Proposals waiting in one epoch of a group, in bytes together.
    pub proposal_bytes_per_epoch_max: usize,
    /// Proposals that one commit may carry, by value and by reference together.
    pub proposals_per_commit_max: usize,
    /// Requests that may wait in front of one group or one key queue, or to change one client.
    pub waiting_requests_per_actor_max: usize,
    /// Messages of one application that may wait to be judged, or be judged, away from the threads of groups: those that are
    /// long, or belong to large groups.
    pub judgements_per_application_max: usize,
    /// Key queues of one client.
    pub key_queues_per_client_max: usize,
    /// Key packages held by one queue that are not assigned, the final one aside.
    pub key_packages_per_queue_max: usize,
    /// Key packages held by one queue, in bytes together, the final one and assigned ones as well.
    pub key_queue_bytes_max: usize,
    /// Key packages of one client that are assigned to the receivers of one peer and not used yet, over all queues that the
    /// client has or had.
    pub key_packages_per_peer_max: usize,
    /// Groups of one other gateway's domain that are kept here as replicas, in one application.
    pub groups_per_peer_max: usize,
    /// Key packages of one client whose receivers are remembered until the packages are used or expire, so that none goes to
    /// a second receiver over a queue that is deleted and made again; beyond it those that expire first are forgotten.
    pub assigned_key_packages_per_client_max: usize,
    /// Key packages in one upload.
    pub key_packages_per_request_max: usize,
    /// Longest total lifetime (`not_after − not_before`) of a key package or of a leaf that has one, in seconds; 0, the
    /// default, accepts every interval, because clients in the field make key packages that are valid for ever. RFC 9420
    /// §7.2 wants a bound: 7,862,400 (91 days) is recommended where all clients are known to keep to it. It is asked of
    /// what comes in: uploads, Adds, and the creator's leaf of a new group.
    pub key_package_lifetime_s_max: u64,
    /// Certificates in one X.509 credential (at most 8).
    pub certificates_per_chain_max: usize,
    /// Bytes of all certificates in one X.509 credential.
    pub certificate_chain_bytes_max: usize,
    /// Longest client handle, in bytes (at most 1024).
    pub client_handle_bytes_max: usize,
    /// Tags of one client.
    pub tags_per_client_max: usize,
    /// Longest tag, in bytes.
    pub tag_bytes_max: usize,
    /// Welcomes that may wait for one client, of all inviters together; a commit that would pass it is refused.
    pub welcomes_per_client_max: usize,
    /// Welcomes of one inviter that may wait for one client (at most `welcomes_per_client_max`).
    pub welcomes_per_inviter_max: usize,
    /// Welcomes that a registered client, or the clients of one other domain together, may still leave for a client that
    /// has `welcomes_per_client_max` (at most `welcomes_per_inviter_max`).
    pub welcomes_reserved_max: usize,
    /// For how long a welcome counts in these limits that was sent to a client of another gateway, in seconds.
    pub welcomes_elsewhere_window_s: u64,
    /// Longest label of a key queue and longest receiver id, in bytes.
    pub label_bytes_max: usize,
    /// Packets of the newest epochs that a group keeps in memory while it is awake, in bytes; 0 keeps none.
    pub recent_bytes_per_group_max: usize,
    /// MLS messages in one answer, in bytes; what is left over is asked for again.
    pub answer_bytes_max: usize,
    /// How far the clock of another gateway may be ahead of this one, in seconds.
    pub clock_skew_s_max: u64,
    /// How far the clock may be from where it is expected, by the monotonic clock and by the newest time that the store
    /// knows, for things to be deleted by it, in seconds.
    pub clock_jump_s_max: u64,
    /// For how long a clock that is farther away must have run steadily to be believed, in seconds; 0 believes it at once.
    pub clock_settle_s: u64,
    /// Groups and key queues kept awake in memory; beyond it the longest idle go to sleep.
    pub awake_actors_max: usize,
    /// Estimated memory of all awake groups and key queues together, in bytes; beyond it the longest idle go to sleep.
    pub awake_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 2 << 20,
            ratchet_tree_bytes_max: 8 << 20,
            group_members_max: 20_000,
            proposals_per_epoch_max: 256,
            proposal_bytes_per_epoch_max: 4 << 20,
            proposals_per_commit_max: 1024,
            waiting_requests_per_actor_max: 1024,
            judgements_per_application_max: 4096,
            key_queues_per_client_max: 64,
            key_packages_per_queue_max: 1000,
            key_queue_bytes_max: 24 << 20,
            key_packages_per_peer_max: 100,
            groups_per_peer_max: 1_000_000,
            assigned_key_packages_per_client_max: 4096,
            key_packages_per_request_max: 500,
            key_package_lifetime_s_max: 0,
            certificates_per_chain_max: MAX_CERTIFICATES,
            certificate_chain_bytes_max: 32 << 10,
            client_handle_bytes_max: 1024,
            tags_per_client_max: 100,
            tag_bytes_max: 256,
            welcomes_per_client_max: 1000,
            welcomes_per_inviter_max: 100,
            welcomes_reserved_max: 10,
            welcomes_elsewhere_window_s: 24 * 3600,
            label_bytes_max: 256,
            recent_bytes_per_group_max: 16 << 10,
            answer_bytes_max: 16 << 20,
            clock_skew_s_max: 300,
            clock_jump_s_max: 24 * 3600,
            clock_settle_s: 24 * 3600,
            awake_actors_max: 100_000,
            awake_bytes_max: 2 << 30,
        }
    }
}
