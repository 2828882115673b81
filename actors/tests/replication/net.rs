//! The gateways of one application, each with its own domain and directory, and the conditions that must hold between
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use actors::{
    AcceptedCommit, AcceptedProposal, AppId, Application, Clock, CommitBundle, DomainName, Durability,
    EntryContent, Epoch, Gateway, GatewayOptions, GroupError, GroupId, Limits, Location, LoggedEntry,
    Retention, Source, Store, StoreOptions,
};
use snapshots::LogId;
use tempfile::TempDir;

use crate::{
    at_domains::AtDomains,
    faults::{Wire, Wires},
};

pub(crate) fn domain(name: &str) -> DomainName {
    DomainName::new(name).unwrap()
}

/// The gateways, running.
pub(crate) struct Net {
    pub(crate) app: AppId,
    pub(crate) wires: Arc<Wires>,
    pub(crate) domains: Vec<DomainName>,
    pub(crate) retention: Retention,
    /// The period of sweeps.
    pub(crate) retention_period: Duration,
    /// Those of the gateways that start next.
    pub(crate) limits: Limits,
    directories: BTreeMap<DomainName, TempDir>,
    /// Whom each gateway federates with, when not with all others.
    pub(crate) friends: BTreeMap<DomainName, BTreeSet<DomainName>>,
}

impl Net {
    pub(crate) fn new(names: &[&str], seed: u64) -> Self {
        let domains: Vec<DomainName> = names.iter().map(|name| domain(name)).collect();
        Self {
            app: AppId::random(),
            wires: Wires::new(seed),
            directories: domains.iter().map(|name| (name.clone(), tempfile::tempdir().unwrap())).collect(),
            domains,
            retention: Retention::default(),
            retention_period: Duration::from_secs(3600),
            limits: Limits::default(),
            friends: BTreeMap::new(),
        }
    }

    pub(crate) async fn start_all(&self) {
        for domain in &self.domains {
            self.start(domain).await;
        }
    }

    pub(crate) async fn start(&self, name: &DomainName) {
        let others = || self.domains.iter().filter(|other| *other != name).cloned().collect();
        let application = Application {
            identity: Arc::new(AtDomains),
            supports_domains: true,
            domains: BTreeSet::from([name.clone()]),
            federates_with: Arc::new(self.friends.get(name).cloned().unwrap_or_else(others)),
            ..Application::basic(self.app)
        };
        let options = GatewayOptions {
            applications: vec![application],
            limits: self.limits.clone(),
            retention: self.retention.clone(),
            snapshot_period: Duration::from_millis(40),
            retention_period: self.retention_period,
            passivate_after: Duration::from_millis(60),
            arbiters: 2,
            clock: Clock::system(),
            transport: Some(Arc::new(Wire { wires: Arc::clone(&self.wires), from: name.clone() })),
        };
        let store = self.store(name).await;
        self.wires.gateways.lock().unwrap().insert(name.clone(), Gateway::start(options, store));
    }

    async fn store(&self, name: &DomainName) -> Store {
        let location = Location::Directory(self.directories[name].path().to_path_buf());
        let options = StoreOptions { location, durability: Durability::Buffer, ..StoreOptions::default() };
        let since = Instant::now();
        loop {
            match Store::open(&options) {
                Ok(store) => return store,
                // Views of the gateway before this one are still let go of.
                Err(_) if since.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Loses everything that a gateway had, while it is stopped.
    pub(crate) fn wipe(&mut self, name: &DomainName) {
        self.directories.insert(name.clone(), tempfile::tempdir().unwrap());
    }

    pub(crate) async fn stop(&self, name: &DomainName) {
        let gateway = self.wires.gateways.lock().unwrap().remove(name).unwrap();
        gateway.stop().await;
        gateway.store().shutdown().await;
    }

    /// Drops what a gateway keeps no longer, once a snapshot has all entries of a group: it is passivated soon.
    pub(crate) async fn sweep(&self, name: &DomainName, group: &GroupId) {
        let (store, log) = (self.at(name).store().clone(), LogId::Group(self.app, group.clone()));
        let since = Instant::now();
        while !store.view().load_log(&log).unwrap().unwrap().records.is_empty() {
            assert!(since.elapsed() < Duration::from_secs(60), "no snapshot is written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.sweep(&self.retention, Clock::system().now()).await.unwrap();
    }

    pub(crate) async fn stop_all(&self) {
        for domain in &self.domains {
            self.stop(domain).await;
        }
    }

    pub(crate) fn at(&self, name: &DomainName) -> Gateway {
        self.wires.gateways.lock().unwrap()[name].clone()
    }

    /// Uploads a commit at a gateway, which passes it to the hub as its edge would.
    pub(crate) async fn upload_commit(
        &self,
        at: &DomainName,
        group: &GroupId,
        upload: CommitBundle,
    ) -> Result<AcceptedCommit, GroupError> {
        let gateway = self.at(at);
        match gateway.upload_commit(self.app, group, upload.clone(), Source::Application).await {
            Err(GroupError::NotHub { hub }) => {
                let source = Source::Peer(BTreeSet::from([at.clone()]));
                self.at(&hub).upload_commit(self.app, group, upload, source).await
            }
            answer => answer,
        }
    }

    /// As [`Net::upload_commit`].
    pub(crate) async fn upload_proposal(
        &self,
        at: &DomainName,
        group: &GroupId,
        packet: Vec<u8>,
    ) -> Result<AcceptedProposal, GroupError> {
        let gateway = self.at(at);
        match gateway.upload_proposal(self.app, group, packet.clone(), Source::Application).await {
            Err(GroupError::NotHub { hub }) => {
                let source = Source::Peer(BTreeSet::from([at.clone()]));
                self.at(&hub).upload_proposal(self.app, group, packet, source).await
            }
            answer => answer,
        }
    }

    /// Where a gateway stands in a group's log.
    pub(crate) fn head(&self, at: &DomainName, group: &GroupId) -> Option<u64> {
        self.at(at).store().view().log_head(&LogId::Group(self.app, group.clone())).unwrap()
    }

    /// What a gateway shows of a group: a moment after it is on its disk.
    pub(crate) async fn shown(&self, at: &DomainName, group: &GroupId) -> Option<(Epoch, usize)> {
        let view = self.at(at).group(self.app, group).await.ok()?;
        Some((view.epoch, view.proposals.len()))
    }

    /// Waits until every gateway stands where the hub of a group does.
    pub(crate) async fn settle(&self, hub: &DomainName, group: &GroupId) {
        let since = Instant::now();
        loop {
            let head = self.head(hub, group);
            let behind: Vec<_> =
                self.domains.iter().filter(|domain| self.head(domain, group) != head).collect();
            let mut is_shown = behind.is_empty();
            for domain in &self.domains {
                is_shown = is_shown && self.shown(domain, group).await == self.shown(hub, group).await;
            }
            if is_shown {
                return;
            }
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "{behind:?} do not reach {head:?} of {hub}: {:?}",
                behind.iter().map(|domain| self.head(domain, group)).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every gateway has the same history of a group, and stands in the same state; answers its epoch.
    pub(crate) async fn assert_same(&self, hub: &DomainName, group: &GroupId, from: Epoch) -> Epoch {
        let shown = self.at(hub).group(self.app, group).await.unwrap();
        let history = self.at(hub).control_messages(self.app, group, from, None, 1000).await.unwrap();
        let log = self.log(hub, group);
        assert_eq!(
            log.last_key_value().map(|(last, _)| *last),
            self.head(hub, group).filter(|head| *head > 0)
        );
        for domain in &self.domains {
            let gateway = self.at(domain);
            let view = gateway.group(self.app, group).await.unwrap();
            assert_eq!(view.hub.as_ref(), Some(hub));
            assert_eq!(view.epoch, shown.epoch, "{domain}");
            assert!(view.members().eq(shown.members()), "{domain}");
            assert_eq!(view.ratchet_tree(), shown.ratchet_tree(), "{domain}");
            assert_eq!(view.proposals, shown.proposals, "{domain}");
            assert_eq!(view.group_info, shown.group_info, "{domain}");
            let here = gateway.control_messages(self.app, group, from, None, 1000).await.unwrap();
            assert_eq!(here, history, "{domain}");
            for (sequence, entry) in self.log(domain, group) {
                // The hub may have dropped it.
                assert_eq!(Some(&entry), log.get(&sequence).or(Some(&entry)), "{domain}");
            }
        }
        shown.epoch
    }

    /// The entries of a group's log that a gateway keeps, by their numbers, without welcomes. What it did not go through
    /// itself is not among them.
    fn log(&self, at: &DomainName, group: &GroupId) -> BTreeMap<u64, LoggedEntry> {
        let mut log = BTreeMap::new();
        let mut after = 0;
        loop {
            let found = self.at(at).entries_after(self.app, group, after, 3).unwrap();
            for mut entry in found.entries.into_iter().flatten() {
                assert_eq!(
                    log.last_key_value().map_or(0, |(last, _)| *last).max(after) + 1,
                    entry.entry.sequence
                );
                if let EntryContent::Commit(bundle) = &mut entry.entry.content {
                    assert!(entry.has_welcome || bundle.welcome.is_none());
                    *bundle = Arc::new(CommitBundle { welcome: None, ..CommitBundle::clone(bundle) });
                }
                log.insert(entry.entry.sequence, entry);
            }
            after = log.last_key_value().map_or(0, |(last, _)| *last).max(after + 1);
            if after >= found.newest {
                return log;
            }
        }
    }

    /// Nothing is marked any more for anybody.
    pub(crate) async fn assert_nothing_waits(&self) {
        let since = Instant::now();
        loop {
            let waits = self.domains.iter().any(|domain| {
                let view = self.at(domain).store().view();
                self.domains.iter().any(|peer| !view.outbox(peer, None, 1).unwrap().is_empty())
            });
            if !waits {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "marks stay though everything has arrived");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
