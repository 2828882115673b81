//! The operators' API: the present activity of the gateway, a sample each second.

use actors::{AppId, ClientId, Epoch, KeyQueueId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Access, Endpoint, Method, Nothing,
    events::EVENT_STREAM,
    operated_groups::ListedPeer,
    paths::NoMembers,
    problem::ProblemKind,
    text::{GroupIdText, HandleText},
};

/// `GET /operator/v1/activity`.
pub struct WatchActivity;

impl Endpoint for WatchActivity {
    const NAME: &'static str = "watchActivity";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/activity";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = "This gateway";
    const SUMMARY: &'static str = "The present activity, a sample each second";
    const DESCRIPTION: &'static str = "Server-sent events (WHATWG HTML), each with the `event` field `sample` and an `ActivitySample` as one line of JSON \
         in `data`. The first one comes at once. They have no ids, because the present state is all that matters: a reader that \
         is cut off opens the stream again, and one that is slow misses samples. All readers share the samples, and none is \
         taken while nobody reads.";
    const MEDIA_TYPE: &'static str = EVENT_STREAM;
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::TooManyStreams];
    type Path = NoMembers;
    type Query = Nothing;
    type Body = Nothing;
    type Response = ActivitySample;
}

/// A sample of the gateway's activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivitySample {
    /// When it was taken, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// The version of the gateway.
    pub version: String,
    /// Whether `/readyz` succeeds.
    pub is_ready: bool,
    /// The rates since the sample before; absent in the first one after a time without readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<ActivityRates>,
    /// The times of requests in the last 10 s, those that may wait for something to happen excluded; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_times: Option<TimeQuantiles>,
    /// The times of accepted commits in the last 10 s; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_times: Option<TimeQuantiles>,
    /// What the gateway has in memory and does now.
    pub load: ActivityLoad,
    /// The groups with the most commits in the last minute, at most 10, the most active first.
    pub busiest_groups: Vec<BusyGroup>,
    /// Key queues that have run low and were not filled since, at most 20, those with the fewest key packages first. Queues that
    /// ran low long before somebody began to read may be missing. At most 10 s old.
    pub low_queues: Vec<LowQueue>,
    /// The gateways of other domains. At most 10 s old.
    pub peers: Vec<ListedPeer>,
    /// The disk of the data directory; absent for a gateway that keeps nothing. At most 10 s old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskUse>,
    /// Snapshots of groups and key queues.
    pub snapshots: SnapshotsSeen,
    /// Backups.
    pub backups: BackupsSeen,
}

/// Rates, in events a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityRates {
    /// Commits that were accepted.
    pub commits: f64,
    /// Commits that came too late: another one had won the epoch.
    pub conflicts: f64,
    /// Commits that were refused for another reason.
    pub refused_commits: f64,
    /// Proposals that were accepted.
    pub proposals: f64,
    /// Key packages that were given out.
    pub key_packages: f64,
    /// Requests of applications and peers that were answered.
    pub requests: f64,
    /// Requests that failed because of the gateway or a peer (status 5xx).
    pub failures: f64,
}

/// Quantiles of times, in milliseconds, estimated from the buckets of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeQuantiles {
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
}

/// What the gateway has in memory and does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityLoad {
    /// Groups in memory.
    pub groups_awake: u64,
    /// Key queues in memory.
    pub key_queues_awake: u64,
    /// Requests of applications and peers in flight.
    pub requests_in_flight: u64,
    /// Open event streams of applications.
    pub event_streams: u64,
    /// Writes that wait for the disk.
    pub writes_waiting: u64,
}

/// A group and its commits in the last minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BusyGroup {
    /// Its application.
    #[schema(value_type = Uuid)]
    pub application_id: AppId,
    /// Its id.
    pub group_id: GroupIdText,
    /// The newest epoch that was seen.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The number of its commits. It is exact unless more than 512 groups are active at once, and then it may be too small.
    pub commits: u64,
}

/// A key queue with few key packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LowQueue {
    /// Its application.
    #[schema(value_type = Uuid)]
    pub application_id: AppId,
    /// Its client.
    #[schema(value_type = Uuid)]
    pub client_id: ClientId,
    /// The client's handle when the queue ran low.
    pub client_handle: HandleText,
    /// Its id.
    #[schema(value_type = Uuid)]
    pub key_queue_id: KeyQueueId,
    /// The one-time key packages that are left.
    pub key_packages_available: u64,
}

/// The disk of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskUse {
    /// The bytes of the files in the data directory.
    pub used_bytes: u64,
    /// The bytes that are free for the gateway's user.
    pub free_bytes: u64,
    /// The size of the file system, in bytes.
    pub total_bytes: u64,
}

/// Snapshots of groups and key queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotsSeen {
    /// When the newest was written, in Unix milliseconds; absent before the first since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub newest_at: Option<Timestamp>,
    /// Groups and key queues whose last snapshot could not be written.
    pub failing: u64,
}

/// Backups of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupsSeen {
    /// The moment that the newest one holds, in Unix milliseconds; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub newest_at: Option<Timestamp>,
    /// Those that failed since the start.
    pub failed: u64,
}
