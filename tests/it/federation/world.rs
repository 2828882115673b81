//! Several gateways, in this process or in their own, and the clients of their domains.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actors::{AppId, Epoch, GroupId};
use mimi_gateway::{
    api::{Limit, groups::EpochRange, key_packages::KeyPackageQuery},
    client::GatewayClient,
    config::{Config, DataDir, TokenAccess},
    token::Token,
};
use tempfile::TempDir;

use crate::{
    mls_support::{Identities, Member, MlsClient, pki::Pki},
    support::{
        Setup, TestGateway,
        peers::{GatewayPki, Link, Way},
        process::{Process, binary},
    },
};

/// The token of the operator of every site.
pub(crate) const OPERATOR: &str = "the-operator";
/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a gateway runs.
pub(crate) enum Host {
    Down,
    Here(Box<TestGateway>),
    Process(Hosted),
}

/// One gateway with the ways to it, which stay when it goes.
pub(crate) struct Site {
    pub(crate) domain: &'static str,
    setup: Setup,
    host: Host,
    /// What applications connect to.
    to_internal: Link,
    /// What other gateways connect to.
    pub(crate) to_federation: Link,
    in_processes: bool,
}

/// All of them, and who certifies their clients.
pub(crate) struct World {
    pub(crate) sites: Vec<Site>,
    clients: Pki,
    _directory: TempDir,
}

impl World {
    /// Gateways of these domains that all federate one application with each other.
    pub(crate) async fn new(domains: &[&'static str], in_processes: bool) -> Self {
        Self::with(domains, in_processes, &|_, _| ()).await
    }

    /// As [`World::new`], with a change to the configuration of each domain's gateway.
    pub(crate) async fn with(
        domains: &[&'static str],
        in_processes: bool,
        change: &dyn Fn(&str, &mut Config),
    ) -> Self {
        let (pki, clients) = (Arc::new(GatewayPki::new()), Pki::new());
        let (app, directory) = (AppId::random(), tempfile::tempdir().unwrap());
        let mut sites = Vec::new();
        for domain in domains {
            let others: Vec<&str> = domains.iter().filter(|other| *other != domain).copied().collect();
            let mut setup = Setup::federated(&clients.roots(), &pki, app, domain, &others);
            setup.config.data_dir = DataDir::Directory(directory.path().join(domain));
            setup.config.durability.mode = mimi_gateway::config::DurabilityMode::Buffer;
            setup.config.passivation.snapshot_period_s = 1;
            setup.config.passivation.after_s = 1;
            setup.config.log = "error".to_owned();
            setup.watched_by(&[(&Token::new(OPERATOR), TokenAccess::Read)]);
            // Timeouts are short.
            let federation = setup.federation();
            federation.connect_timeout_ms = 300;
            federation.request_timeout_ms = 600;
            federation.delivery_timeout_ms = 600;
            federation.circuit_open_ms = 100;
            change(domain, &mut setup.config);
            let (to_internal, to_federation) = (Link::new().await, Link::new().await);
            sites.push(Site { domain, setup, host: Host::Down, to_internal, to_federation, in_processes });
        }
        for number in 0..sites.len() {
            let peers = sites
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != number)
                .map(|(_, site)| site.to_federation.peer(site.domain))
                .collect();
            sites[number].setup.federation().peers = peers;
        }
        let mut world = Self { sites, clients, _directory: directory };
        for site in &mut world.sites {
            site.start().await;
        }
        world
    }

    /// A client at a site, with some key packages.
    pub(crate) async fn register(&self, site: usize, account: &str) -> MlsClient {
        let site = &self.sites[site];
        let certified = self.clients.certify(site.domain, account, "phone");
        let identities = Identities::x509(&self.clients.roots());
        let client = MlsClient::register_certified_over(site.api(), &certified, identities).await;
        client.upload_key_packages(3).await;
        client
    }

    /// A group with one member at each site; its hub is the site given.
    pub(crate) async fn group_of_all(&self, hub: usize, name: &str) -> Vec<(usize, Member)> {
        let creator = self.register(hub, &format!("{name}-creator")).await;
        let mut first = creator.create_group().await;
        let mut invited = Vec::new();
        let mut packages = Vec::new();
        for site in (0..self.sites.len()).filter(|site| *site != hub) {
            let client = self.register(site, &format!("{name}-guest")).await;
            let mut query = KeyPackageQuery::new(1, 1, creator.id.to_string());
            query.domain = client.domain.clone();
            packages.push(creator.api.retrieve_key_package(client.id, &query).await.unwrap().key_package);
            invited.push((site, client));
        }
        let commit = first.make_adding(&packages);
        first.commit(&commit).await;
        let mut members = vec![(hub, first)];
        for (site, client) in invited {
            let since = Instant::now();
            while client.welcomes().await.is_empty() {
                assert!(since.elapsed() < PATIENCE, "no welcome comes to {}", self.sites[site].domain);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            members.push((site, client.join().await));
        }
        members
    }

    /// Waits until every site has the same history of a group up to an epoch, and checks it.
    pub(crate) async fn settle(&self, group: &GroupId, epoch: Epoch) {
        let since = Instant::now();
        for site in &self.sites {
            loop {
                match site.api().group(group).await {
                    Ok(shown) if shown.epoch_id == epoch => break,
                    Ok(shown) => assert!(shown.epoch_id < epoch, "{}: {}", site.domain, shown.epoch_id),
                    Err(error) => assert!(since.elapsed() < PATIENCE, "{}: {error}", site.domain),
                }
                assert!(since.elapsed() < PATIENCE, "{} does not reach {epoch}", site.domain);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let range = EpochRange { limit: Some(Limit::try_from(1000).unwrap()), ..EpochRange::from(Epoch(0)) };
        let mut histories = Vec::new();
        for site in &self.sites {
            let history = site.api().control_messages(group, &range).await.unwrap();
            let numbers: Vec<u64> = history.epochs.iter().map(|epoch| epoch.epoch_id.0).collect();
            assert_eq!(numbers, (1..=epoch.0).collect::<Vec<_>>(), "{}", site.domain);
            histories.push((history, site.api().group(group).await.unwrap().members));
        }
        assert!(histories.windows(2).all(|pair| pair[0] == pair[1]), "one order everywhere");
    }

    pub(crate) async fn stop(mut self) {
        for site in &mut self.sites {
            site.stop().await;
        }
    }
}

impl Site {
    pub(crate) fn api(&self) -> GatewayClient {
        self.setup.client(format!("http://{}", self.to_internal.address()))
    }

    pub(crate) async fn start(&mut self) {
        let (internal, federation) = if self.in_processes {
            let process = Hosted::start(&self.setup);
            let addresses = (process.internal(), process.federation());
            self.host = Host::Process(process);
            addresses
        } else {
            let gateway = self.setup.start().await;
            let addresses = (gateway.address(), gateway.federation_address());
            self.host = Host::Here(Box::new(gateway));
            addresses
        };
        self.to_internal.lead(Way::To(internal)).await;
        self.to_federation.lead(Way::To(federation)).await;
    }

    /// Where other gateways are led when nothing is wrong.
    pub(crate) fn federation_address(&self) -> SocketAddr {
        match &self.host {
            Host::Here(gateway) => gateway.federation_address(),
            Host::Process(process) => process.federation(),
            Host::Down => panic!("{} is down", self.domain),
        }
    }

    /// Exports its data directory to its backup, or imports that.
    pub(crate) async fn snapshot(&self, command: &[&str]) {
        let DataDir::Directory(data) = &self.setup.config.data_dir else { panic!("it keeps nothing") };
        let mut binary = binary(&["snapshot", "--data-dir", data.to_str().unwrap()]);
        binary.args(command).arg(data.with_extension("backup"));
        let output = actix_web::rt::task::spawn_blocking(move || binary.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Moves its data directory away, before a backup is restored.
    pub(crate) fn move_data_away(&self) {
        let DataDir::Directory(data) = &self.setup.config.data_dir else { panic!("it keeps nothing") };
        std::fs::rename(data, data.with_extension("old")).unwrap();
    }

    /// Where it shows its figures.
    pub(crate) fn operator_address(&self) -> SocketAddr {
        match &self.host {
            Host::Here(gateway) => gateway.operator_address(),
            Host::Process(process) => address(process.process.operator().unwrap()),
            Host::Down => panic!("{} is down", self.domain),
        }
    }

    /// Stops it as an operator would, or kills it when it is a process.
    pub(crate) async fn stop(&mut self) {
        match std::mem::replace(&mut self.host, Host::Down) {
            Host::Down => {}
            Host::Here(gateway) => gateway.stop().await,
            Host::Process(process) => drop(process),
        }
        self.to_internal.lead(Way::Closed).await;
        self.to_federation.lead(Way::Closed).await;
    }
}

/// A gateway as a process, with the directory of its configuration.
pub(crate) struct Hosted {
    process: Process,
    _configuration: TempDir,
}

impl Hosted {
    fn start(setup: &Setup) -> Self {
        let configuration = tempfile::tempdir().unwrap();
        let file = configuration.path().join("gateway.toml");
        std::fs::write(&file, setup.config.to_toml().unwrap()).unwrap();
        let process = Process::start(&mut binary(&["--config", file.to_str().unwrap()]));
        Self { process, _configuration: configuration }
    }

    fn internal(&self) -> SocketAddr {
        address(self.process.internal())
    }

    fn federation(&self) -> SocketAddr {
        address(self.process.federation().unwrap())
    }
}

fn address(url: &str) -> SocketAddr {
    url.split_once("://").unwrap().1.parse().unwrap()
}
