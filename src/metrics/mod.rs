//! Metrics for Prometheus: what is known of the gateway outside its listeners, and the format. `http/counts.rs` counts
//! requests.
//!
//! | file | |
//! |---|---|
//! | `text.rs` | the text format |
//! | `process.rs` | the process: memory, files, processor time |
//!
//! Names, types and units follow Prometheus's conventions. No label names a group or a client.

mod process;
pub(crate) mod text;

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use actors::{Application, AwakeActors, Gateway, Timestamp, identity::TrustEnds};

use self::text::{Metric, MetricKind, MetricsText};
use crate::{
    backups::Backups,
    federation::{Federation, PeerTrust},
    tls,
};

/// The groups in which the entries that a peer lacks are counted; there may be more.
pub(crate) const LAG_GROUPS_MAX: usize = 10_000;

/// The deleted groups that are to be erased that are counted; there may be more.
const TO_ERASE_MAX: usize = 10_000;

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, help }
}

/// The certificate of a listener, by the end of its validity. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct ListenerCertificate {
    /// The listener.
    pub(crate) listener: &'static str,
    /// The end of its validity, in Unix seconds.
    not_after_s: Arc<AtomicI64>,
}

impl ListenerCertificate {
    /// A certificate that is valid until a moment, in Unix seconds.
    pub(crate) fn new(listener: &'static str, not_after_s: i64) -> Self {
        Self { listener, not_after_s: Arc::new(AtomicI64::new(not_after_s)) }
    }

    /// Notes that the listener has a newer certificate.
    pub(crate) fn take(&self, newer: &Self) {
        self.not_after_s.store(newer.not_after_s.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The reloads of a gateway since its start.
#[derive(Debug)]
pub(crate) struct ReloadCounts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// When trust roots, lists and certificates were last read, in Unix seconds.
    trust_loaded_s: AtomicU64,
}

impl ReloadCounts {
    /// The counts of a gateway that read its files at this time.
    pub(crate) fn new(at: Timestamp) -> Self {
        let (succeeded, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { succeeded, failed, trust_loaded_s: AtomicU64::new(at.0 / 1000) }
    }

    /// Counts a reload.
    pub(crate) fn count(&self, is_ok: bool, at: Timestamp) {
        if is_ok {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
            self.trust_loaded_s.store(at.0 / 1000, Ordering::Relaxed);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The parts of a gateway whose state is shown.
#[derive(Clone)]
pub(crate) struct Observed {
    pub(crate) gateway: Gateway,
    pub(crate) federation: Option<Arc<Federation>>,
    pub(crate) certificates: Vec<ListenerCertificate>,
    pub(crate) backups: Arc<Backups>,
    pub(crate) reloads: Arc<ReloadCounts>,
}

impl Observed {
    /// Writes all families. It reads the disk.
    pub(crate) fn write(&self, is_ready: bool, text: &mut MetricsText) {
        let build = gauge("mimi_gateway_build_info", "Always 1; the labels say which version this is.");
        text.family(build).sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        let ready = gauge("mimi_gateway_ready", "1 while `/readyz` succeeds; else 0.");
        text.one(ready, u8::from(is_ready));
        self.write_actors(text);
        self.write_snapshots(text);
        self.write_deletions(text);
        self.write_reports(text);
        self.write_store(text);
        self.write_backups(text);
        self.write_peers(text);
        self.write_disagreements(text);
        self.write_ends(text);
        self.write_lists(text);
        self.write_revoked(text);
        self.write_reloads(text);
        process::write(text);
    }

    fn write_actors(&self, text: &mut MetricsText) {
        let kinds: [(&str, AwakeActors); 2] =
            [("group", self.gateway.awake_groups()), ("key-queue", self.gateway.awake_key_queues())];
        let count = gauge("mimi_gateway_actors_awake", "Groups and key queues in memory, and peers.");
        let mut family = text.family(count);
        for (kind, awake) in kinds {
            family.sample(&[("kind", kind)], awake.count);
        }
        family.sample(&[("kind", "peer")], self.gateway.peer_actors());
        let bytes = gauge("mimi_gateway_actors_awake_bytes", "Their estimated memory.");
        let mut family = text.family(bytes);
        for (kind, awake) in kinds {
            family.sample(&[("kind", kind)], awake.bytes);
        }
        let waiting = gauge("mimi_gateway_actor_mailbox_max", "The most requests that wait for one of them.");
        let mut family = text.family(waiting);
        for (kind, awake) in kinds {
            family.sample(&[("kind", kind)], awake.waiting_max);
        }
    }

    fn write_snapshots(&self, text: &mut MetricsText) {
        let status = self.gateway.snapshots();
        let written = counter("mimi_gateway_snapshots_total", "Snapshots that were written, or failed.");
        text.family(written)
            .sample(&[("outcome", "written")], status.written)
            .sample(&[("outcome", "failed")], status.failures);
        let failing = gauge(
            "mimi_gateway_snapshots_failing",
            "Groups and key queues whose last snapshot could not be written.",
        );
        text.one(failing, status.failing);
        let at = gauge(
            "mimi_gateway_snapshot_last_timestamp_seconds",
            "When the newest snapshot was written, in Unix seconds; absent before the first.",
        );
        let mut family = text.family(at);
        if let Some(newest) = status.newest {
            family.sample(&[], newest.at.0 / 1000);
        }
        let took = gauge(
            "mimi_gateway_snapshot_last_duration_seconds",
            "How long the newest snapshot took to write, its encoding excluded.",
        );
        let mut family = text.family(took);
        if let Some(newest) = status.newest {
            family.sample(&[], newest.took.as_secs_f64());
        }
    }

    fn write_deletions(&self, text: &mut MetricsText) {
        let counts = self.gateway.deletions();
        let deleted = counter(
            "mimi_gateway_groups_deleted_total",
            "Groups that were deleted: by a request, because they were idle, or replicas by their hub.",
        );
        text.family(deleted)
            .sample(&[("cause", "request")], counts.requested)
            .sample(&[("cause", "idle")], counts.idle)
            .sample(&[("cause", "hub")], counts.by_hub);
        let to_erase = gauge(
            "mimi_gateway_groups_to_erase",
            "Deleted groups with rows that are still to be erased, up to 10,000.",
        );
        let mut family = text.family(to_erase);
        match self.gateway.groups_to_erase(TO_ERASE_MAX) {
            Ok(count) => _ = family.sample(&[], count),
            Err(error) => tracing::warn!(%error, "the groups that are to be erased cannot be counted"),
        }
    }

    fn write_reports(&self, text: &mut MetricsText) {
        let reported = counter(
            "mimi_gateway_epochs_reported_total",
            "Epochs of groups that enough members have reported that they cannot open.",
        );
        text.one(reported, self.gateway.epochs_reported());
    }

    fn write_store(&self, text: &mut MetricsText) {
        let store = self.gateway.store();
        let counts = store.counts();
        let appends = counter(
            "mimi_gateway_store_appends_total",
            "Writes that were stored, or refused because a condition of theirs did not hold.",
        );
        text.family(appends)
            .sample(&[("outcome", "stored")], counts.appended)
            .sample(&[("outcome", "refused")], counts.refused);
        let bytes = counter("mimi_gateway_store_written_bytes_total", "Bytes of the rows that were written.");
        text.one(bytes, counts.bytes);
        let writes = Metric {
            name: "mimi_gateway_store_write_duration_seconds",
            kind: MetricKind::Histogram,
            help: "Time to put writes that waited together on disk, the sync included.",
        };
        text.family(writes).histogram(&[], &counts.writes);
        let waiting = gauge("mimi_gateway_store_waiting", "Writes that wait for the disk.");
        text.one(waiting, counts.waiting);
        let stalled = gauge("mimi_gateway_store_stalled", "1 while the disk does not answer; else 0.");
        text.one(stalled, u8::from(store.is_stalled()));
        let failed = gauge("mimi_gateway_store_failed", "1 once a write has failed; else 0.");
        text.one(failed, u8::from(store.is_failed()));
    }

    fn write_backups(&self, text: &mut MetricsText) {
        let status = self.backups.status();
        let made = counter("mimi_gateway_backups_total", "Backups that were made, or failed.");
        text.family(made)
            .sample(&[("outcome", "made")], status.made)
            .sample(&[("outcome", "failed")], status.failed);
        let period = gauge(
            "mimi_gateway_backup_period_seconds",
            "How often a backup is made; 0 if only when an operator asks.",
        );
        text.one(period, self.backups.period().unwrap_or_default().as_secs());
        let at = gauge(
            "mimi_gateway_backup_last_timestamp_seconds",
            "The moment that the newest backup holds, in Unix seconds; 0 if there is none.",
        );
        text.one(at, status.newest.map_or(0, |newest| newest.at.0 / 1000));
        let bytes = gauge("mimi_gateway_backup_last_bytes", "The size of the newest backup.");
        text.one(bytes, status.newest.map_or(0, |newest| newest.bytes));
    }

    fn write_peers(&self, text: &mut MetricsText) {
        let peers = || self.federation.iter().flat_map(|federation| federation.peers());
        let reachable = gauge(
            "mimi_gateway_peer_reachable",
            "0 if the last request to the gateway of this domain was not answered; else 1.",
        );
        let mut family = text.family(reachable);
        for (domain, status) in peers() {
            family.sample(&[("peer", domain.as_str())], u8::from(status.is_reachable));
        }
        let answered = gauge(
            "mimi_gateway_peer_last_contact_timestamp_seconds",
            "When it last answered, in Unix seconds; absent before the first answer.",
        );
        let mut family = text.family(answered);
        for (domain, status) in peers() {
            if let Some(at) = status.answered_s {
                family.sample(&[("peer", domain.as_str())], at);
            }
        }
        let refusals =
            counter("mimi_gateway_peer_refusals_total", "Deliveries of log entries that it refused.");
        let mut family = text.family(refusals);
        for (domain, status) in peers() {
            family.sample(&[("peer", domain.as_str())], status.refusals);
        }
        let lags: Vec<_> = peers()
            .filter_map(|(domain, _)| {
                let lag = self.gateway.peer_lag(domain, LAG_GROUPS_MAX);
                let lag = lag.inspect_err(|error| {
                    tracing::warn!(peer = %domain, %error, "the entries that a peer lacks cannot be counted");
                });
                Some((domain, lag.ok()?))
            })
            .collect();
        let entries = gauge(
            "mimi_gateway_peer_lag_entries",
            "Log entries that it lacks, of the first 10,000 groups with such entries.",
        );
        let mut family = text.family(entries);
        for (domain, lag) in &lags {
            family.sample(&[("peer", domain.as_str())], lag.entries);
        }
        let groups =
            gauge("mimi_gateway_peer_lag_groups", "Groups with entries that it lacks, up to 10,000.");
        let mut family = text.family(groups);
        for (domain, lag) in &lags {
            family.sample(&[("peer", domain.as_str())], lag.groups);
        }
    }

    fn write_disagreements(&self, text: &mut MetricsText) {
        let trust = gauge(
            "mimi_gateway_peer_trust_differs",
            "1 if the peer trusts other certificates of clients of an application than this gateway, revocation lists apart; else 0.",
        );
        let mut family = text.family(trust);
        for (federation, domain) in self
            .federation
            .iter()
            .flat_map(|federation| federation.peers().map(move |(domain, _)| (federation, domain)))
        {
            for PeerTrust { app, differs } in federation.peer_trust(domain) {
                let labels = [("peer", domain.as_str()), ("application", &*app.to_string())];
                family.sample(&labels, u8::from(!differs.is_empty()));
            }
        }
        let lost = gauge(
            "mimi_gateway_peer_lost_groups",
            "Groups of which one of the two has lost entries that the other holds, up to 10,000.",
        );
        let mut family = text.family(lost);
        for (domain, _) in self.federation.iter().flat_map(|federation| federation.peers()) {
            let found = self.gateway.peer_disagreement(domain);
            family.sample(&[("peer", domain.as_str()), ("lost", "here")], found.lost_here);
            family.sample(&[("peer", domain.as_str()), ("lost", "there")], found.lost_there);
        }
    }

    fn write_ends(&self, text: &mut MetricsText) {
        let certificate = gauge(
            "mimi_gateway_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener expires, in Unix seconds.",
        );
        let mut family = text.family(certificate);
        for ListenerCertificate { listener, not_after_s } in &self.certificates {
            family.sample(&[("listener", listener)], not_after_s.load(Ordering::Relaxed));
        }
        let mut ends: Vec<(String, TrustEnds)> = self
            .gateway
            .applications()
            .map(|application| (application.id.to_string(), application.identity.trust_ends()))
            .collect();
        ends.sort_by(|(one, _), (other, _)| one.cmp(other));
        let root = gauge(
            "mimi_gateway_trust_root_expiry_timestamp_seconds",
            "When the first trust root of an application expires, in Unix seconds.",
        );
        let list = gauge(
            "mimi_gateway_revocation_list_expiry_timestamp_seconds",
            "When the first revocation list of an application is due for its next update, in Unix seconds.",
        );
        write_ends(text, root, &ends, |ends| ends.root);
        write_ends(text, list, &ends, |ends| ends.list);
    }

    /// The values of the applications that have one, by their ids, sorted.
    fn of_applications<T>(&self, value: impl Fn(&Application) -> Option<T>) -> Vec<(String, T)> {
        let applications = self.gateway.applications();
        let mut values: Vec<(String, T)> = applications
            .filter_map(|application| Some((application.id.to_string(), value(application)?)))
            .collect();
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        values
    }

    fn write_lists(&self, text: &mut MetricsText) {
        let now = Timestamp(u64::try_from(tls::now_s()).unwrap_or_default().saturating_mul(1000));
        let counts = self.of_applications(|application| application.identity.list_counts(now));
        let lists = gauge(
            "mimi_gateway_revocation_lists",
            "Revocation lists of an application: current, due (in the last quarter of their term) or late.",
        );
        let mut family = text.family(lists);
        for (application, counts) in &counts {
            for (state, count) in [("current", counts.current), ("due", counts.due), ("late", counts.late)] {
                family.sample(&[("application", application), ("state", state)], count);
            }
        }
        let without_signer = gauge(
            "mimi_gateway_revocation_lists_without_signer",
            "Revocation lists of an application that no trust root, no CRL issuer and no issuer in a chain so far signed.",
        );
        let mut family = text.family(without_signer);
        for (application, counts) in &counts {
            family.sample(&[("application", application)], counts.without_signer);
        }
        let disputed = counter(
            "mimi_gateway_disputed_certificate_chains_total",
            "Certificate chains that the hub of a group accepted and the revocation lists here refuse, since the start.",
        );
        let mut family = text.family(disputed);
        for (application, chains) in
            self.of_applications(|application| application.identity.disputed_chains())
        {
            family.sample(&[("application", &application)], chains);
        }
    }

    fn write_revoked(&self, text: &mut MetricsText) {
        let searches = self.of_applications(|application| self.gateway.revocation_search(application.id));
        let revoked = gauge(
            "mimi_gateway_revoked_members",
            "Members with revoked certificates that the latest search through the groups ordered here has found.",
        );
        let mut family = text.family(revoked);
        for (application, search) in &searches {
            family.sample(&[("application", application)], search.revoked_members);
        }
        let failed = gauge(
            "mimi_gateway_revocation_search_failed_groups",
            "Groups whose members with revoked certificates could not be read or proposed for removal; they are tried again.",
        );
        let mut family = text.family(failed);
        for (application, search) in &searches {
            family.sample(&[("application", application)], search.failed_groups);
        }
        let running = gauge(
            "mimi_gateway_revocation_search_running",
            "Whether groups are being searched for members with revoked certificates: 1 or 0.",
        );
        let mut family = text.family(running);
        for (application, search) in &searches {
            family.sample(&[("application", application)], u64::from(search.is_running));
        }
    }

    fn write_reloads(&self, text: &mut MetricsText) {
        let reloads = counter(
            "mimi_gateway_reloads_total",
            "Reloads since the start, by SIGHUP or because files changed. A failed one changed nothing.",
        );
        text.family(reloads)
            .sample(&[("outcome", "succeeded")], self.reloads.succeeded.load(Ordering::Relaxed))
            .sample(&[("outcome", "failed")], self.reloads.failed.load(Ordering::Relaxed));
        let loaded = gauge(
            "mimi_gateway_trust_loaded_timestamp_seconds",
            "When certificates, trust roots and revocation lists were last read, in Unix seconds.",
        );
        text.one(loaded, self.reloads.trust_loaded_s.load(Ordering::Relaxed));
    }
}

/// Writes one of the ends of each application.
fn write_ends(
    text: &mut MetricsText,
    metric: Metric,
    ends: &[(String, TrustEnds)],
    end: fn(&TrustEnds) -> Option<i64>,
) {
    let mut family = text.family(metric);
    for (application, ends) in ends {
        if let Some(end) = end(ends) {
            family.sample(&[("application", application)], end);
        }
    }
}
