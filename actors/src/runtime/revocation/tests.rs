//! Searches through many groups that sleep.
//!
//! `MIMI_REVOCATION=1000x100` searches 1,000 groups of 100 members, and prints how long that took.

use std::time::Instant;

use mls_forge::{Client, Credential, Extension, ExternalSender, Group, SharedTree, Suite, extension};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, RevokedCertParams, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use snapshots::{DomainName, Epoch, Location, Retention, Store, StoreOptions};

use super::*;
use crate::{
    application::Source,
    clock::Clock,
    external_sender::ExternalSenderKey,
    gateway::{Gateway, GatewayOptions},
    group::{GroupMeta, GroupState, GroupTransfer, transfer},
    identity::x509::{ChainLimits, DeviceHandleRange, TrustStore, X509IdentityProvider, X509Parameters},
    limits::Limits,
    mls::ValidationContext,
};

const DOMAIN: &str = "a.example";

/// How long a search may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// A certificate authority.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
    params
}

impl Authority {
    fn new(name: &str, issuer: Option<&Self>) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)),
            None => params.self_signed(&key),
        };
        let certificate = certificate.unwrap();
        Self { params, key, der: certificate.der().to_vec(), pem: certificate.pem() }
    }

    /// A list of these serial numbers.
    fn list(&self, revoked: &[u64]) -> Vec<u8> {
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }
}

/// A public key of Ed25519.
struct Public(Vec<u8>);

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// A store with groups of an application whose clients are devices of one account, and the means to revoke them.
struct World {
    application: Application,
    root: Authority,
    account: Authority,
    store: Store,
    groups: Vec<GroupId>,
}

/// The serial number of a member of a group.
fn serial(group: usize, member: usize) -> u64 {
    (group as u64) << 32 | member as u64 | 1 << 62
}

impl World {
    async fn new(groups: usize, members: usize) -> Self {
        let root = Authority::new("root", None);
        let domain = Authority::new(DOMAIN, Some(&root));
        let account = Authority::new("account", Some(&domain));
        let mut application = Application::basic(AppId::random());
        application.supports_domains = true;
        application.domains = [DomainName::new(DOMAIN).unwrap()].into();
        application.identity = Arc::new(provider(&root, &[]));
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
        let key = ExternalSenderKey::from_pem(key.as_bytes(), None, "gateway").unwrap();
        application.external_senders = [key].into();
        let location = Location::Temporary;
        let store = Store::open(&StoreOptions { location, ..StoreOptions::default() }).unwrap();
        let mut world = Self { application, root, account, store, groups: Vec::new() };
        for group in 0..groups {
            let clients = (0..members).map(|member| world.client(&domain, group, member)).collect();
            world.keep(clients).await;
        }
        world
    }

    fn client(&self, domain: &Authority, group: usize, member: usize) -> Client {
        let name = format!("{group}.{member}");
        let mut client = Client::new(Suite::Ed25519, &name).supporting_credentials(&[2]);
        let mut params = params(&name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(SerialNumber::from(serial(group, member)));
        let issuer = Issuer::from_params(&self.account.params, &self.account.key);
        let certificate = params.signed_by(&Public(client.key.public()), &issuer).unwrap();
        let chain = vec![certificate.der().to_vec(), self.account.der.clone(), domain.der.clone()];
        client.credential = Credential::X509(chain);
        client
    }

    /// Stores a group of these clients that the gateway orders and in which it may propose.
    async fn keep(&mut self, clients: Vec<Client>) {
        let [key] = &*self.application.external_senders else { panic!("one key") };
        let sender = ExternalSender {
            signature_key: key.public_key().to_vec(),
            credential: Credential::Basic(b"gateway".to_vec()),
        };
        let senders = Extension::of(extension::EXTERNAL_SENDERS, &vec![sender]);
        let forged = Group::of_clients_with(clients, SharedTree::Blank, vec![senders]);
        let transferred = GroupTransfer {
            sequence: 1,
            timestamp: Clock::system().now(),
            group_info: forged.group_info().to_message(),
            ratchet_tree: forged.tree_bytes(),
            proposals: Vec::new(),
            welcome: None,
            used: Vec::new(),
            reinitialised: false,
        };
        let limits = Limits::default();
        let context =
            ValidationContext { limits: &limits, application: &self.application, source: &Source::Hub };
        let hub = DomainName::new(DOMAIN).unwrap();
        let state = GroupState::from_transfer(context, &transferred, hub.clone()).unwrap();
        let row = snapshots::GroupRow {
            epoch: Epoch(1),
            created_at: transferred.timestamp,
            creation_digest: [0; 32],
            hub: Some(hub),
        };
        let meta = GroupMeta::new(&self.application, state.id().clone(), row);
        self.store.append(transfer(&meta, &state, 1, None).unwrap()).await.unwrap();
        self.groups.push(meta.group);
        self.groups.sort();
    }

    /// Stores this number of groups that cannot be read, after the others in the order of ids.
    async fn keep_unreadable(&self, groups: usize) {
        let row = snapshots::GroupRow {
            epoch: Epoch(1),
            created_at: Clock::system().now(),
            creation_digest: [0; 32],
            hub: Some(DomainName::new(DOMAIN).unwrap()),
        };
        let mut batch = Batch::new();
        for number in 0..groups {
            // Without a log.
            let group = [&[0xff; 32][..], &number.to_be_bytes()].concat();
            batch.put_group(self.application.id, &GroupId::new(group).unwrap(), &row);
        }
        self.store.append(batch).await.unwrap();
    }

    /// A gateway over the store whose lists have these members, by group and number.
    fn start(&mut self, revoked: &[(usize, usize)]) -> Gateway {
        self.list(revoked);
        self.start_again()
    }

    /// Lists these members for gateways that start later.
    fn list(&mut self, revoked: &[(usize, usize)]) {
        let serials: Vec<u64> = revoked.iter().map(|(group, member)| serial(*group, *member)).collect();
        self.application.identity = Arc::new(provider(&self.root, &[self.account.list(&serials)]));
    }

    /// A gateway with the same lists.
    fn start_again(&self) -> Gateway {
        self.start_limited(Limits::default())
    }

    /// A gateway with the same lists and these limits.
    fn start_limited(&self, limits: Limits) -> Gateway {
        let options = GatewayOptions {
            applications: vec![self.application.clone()],
            limits,
            retention: Retention::default(),
            snapshot_period: Duration::from_secs(3600),
            retention_period: Duration::from_secs(3600),
            passivate_after: Duration::from_secs(3600),
            arbiters: 2,
            clock: Clock::system(),
            transport: None,
        };
        Gateway::start(options, self.store.clone())
    }

    /// Replaces the lists of a gateway by one of these serial numbers, or takes all away if there are none.
    fn publish(&self, gateway: &Gateway, revoked: &[u64]) {
        self.replace(revoked);
        gateway.trust_changed();
    }

    fn replace(&self, revoked: &[u64]) {
        let lists = if revoked.is_empty() { vec![] } else { vec![self.account.list(revoked)] };
        self.application.identity.take_trust(&provider(&self.root, &lists));
    }

    async fn keep_progress(&self, progress: &Progress, conditions: &[u8; 32]) {
        let mut batch = Batch::new();
        batch.put_setting(&setting(self.application.id), progress.to_bytes(conditions));
        self.store.append(batch).await.unwrap();
    }

    /// The stored progress of searches by the present lists.
    fn progress(&self) -> Progress {
        let conditions = conditions(&self.application, &self.application.identity.trusted().unwrap());
        let stored = self.store.view().setting(&setting(self.application.id)).unwrap();
        Progress::read(&stored.unwrap(), &conditions)
    }

    /// How many groups have a proposal that waits.
    async fn proposed(&self, gateway: &Gateway) -> usize {
        let mut proposed = 0;
        for group in &self.groups {
            proposed += usize::from(self.waiting(gateway, group).await > 0);
        }
        proposed
    }

    /// How many proposals wait in a group.
    async fn waiting(&self, gateway: &Gateway, group: &GroupId) -> usize {
        gateway.group(self.application.id, group).await.unwrap().proposals.len()
    }
}

fn provider(root: &Authority, lists: &[Vec<u8>]) -> X509IdentityProvider {
    let offsets = X509Parameters {
        device_handle_range: DeviceHandleRange { start: 0, end: 0 },
        account_handle_offset: Some(1),
        domain_name_offset: Some(2),
    };
    let trust = TrustStore::new(root.pem.as_bytes(), lists).unwrap();
    let limits =
        ChainLimits { certificates_max: 4, bytes_max: 8192, above_names_max: None, remembered_max: 1 };
    X509IdentityProvider::new(offsets.check(true, true).unwrap(), trust, limits)
}

/// Waits for a search that is as it should be.
async fn until(gateway: &Gateway, app: AppId, is_so: impl Fn(&RevocationSearch) -> bool) -> RevocationSearch {
    let began = Instant::now();
    loop {
        let search = gateway.revocation_search(app);
        match search {
            Some(search) if is_so(&search) => return search,
            Some(_) | None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        assert!(began.elapsed() < PATIENCE, "{search:?}");
    }
}

async fn ended(gateway: &Gateway, app: AppId) -> RevocationSearch {
    until(gateway, app, |search| search.ended.is_some()).await
}

fn scale() -> (usize, usize) {
    let given = std::env::var("MIMI_REVOCATION").unwrap_or_else(|_| "20x5".to_owned());
    let (groups, members) = given.split_once('x').unwrap();
    (groups.parse().unwrap(), members.parse().unwrap())
}

#[test]
fn a_search_wakes_groups_with_revoked_members_only_and_goes_on_after_a_restart() {
    let (groups, members) = scale();
    actix::System::new().block_on(async {
        let mut world = World::new(groups, members).await;
        let app = world.application.id;
        // One member in every tenth group, and one that is in no group.
        let revoked: Vec<_> = (0..groups).step_by(10).map(|group| (group, members - 1)).collect();
        let began = Instant::now();
        let gateway = world.start(&[revoked.clone(), vec![(groups, 0)]].concat());
        let search = ended(&gateway, app).await;
        let took = began.elapsed();
        println!("{groups} groups of {members} members: {took:?}, {} revoked", search.revoked_members);
        assert_eq!((search.groups, search.revoked_members), (groups, revoked.len()));
        assert_eq!(gateway.active(), 0, "all sleep again");
        assert_eq!(world.proposed(&gateway).await, revoked.len());
        gateway.stop().await;

        // With the same lists there is nothing to search. A search that a stop has interrupted goes on behind the last group.
        let half = world.groups[groups / 2 - 1].clone();
        let trusted = world.application.identity.trusted().unwrap();
        let conditions = conditions(&world.application, &trusted);
        assert_eq!(world.progress(), Progress::Done);
        let mut interrupted = Lap::default();
        (interrupted.groups, interrupted.revoked_members) = (7000, 300);
        interrupted.pass(half);
        world.keep_progress(&Progress::At(interrupted), &conditions).await;
        let gateway = world.start_again();
        assert_eq!(ended(&gateway, app).await.groups, 7000 + groups - groups / 2, "it counts on");
        assert_eq!(world.proposed(&gateway).await, revoked.len(), "each is proposed once");
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

#[test]
fn groups_are_reached_although_lists_change_faster_than_a_search_ends() {
    const GROUPS: usize = 12;
    actix::System::new().block_on(async {
        let mut world = World::new(GROUPS, 2).await;
        let (app, mut searches) = (world.application.id, HashMap::new());
        let gateway = world.start(&[]);
        ended(&gateway, app).await;
        // A member of each group is revoked, and the lists are others again as soon as a search has begun.
        let mut revoked: Vec<u64> = (0..GROUPS).map(|group| serial(group, 0)).collect();
        for round in 0..=GROUPS {
            let changing = async {
                revoked.push(serial(GROUPS, round));
                world.replace(&revoked);
            };
            let searching = search(gateway.registry(), &world.application, &mut searches);
            let (is_done, ()) = tokio::join!(searching, changing);
            assert!(round == 0 || !is_done.unwrap());
            assert_eq!(world.proposed(&gateway).await, round);
        }
        // Once the lists stay, all groups are looked through by them.
        gateway.trust_changed();
        let search =
            until(&gateway, app, |search| search.ended.is_some() && search.revoked_members > 0).await;
        assert_eq!((search.groups, search.revoked_members), (GROUPS, GROUPS));
        assert_eq!(world.progress(), Progress::Done);
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

/// The same lists may have been others meanwhile: members that they revoke were then found in order.
#[test]
fn lists_that_change_and_change_back_during_a_search_leave_no_group_out() {
    const GROUPS: usize = 3;
    actix::System::new().block_on(async {
        for (is_last, is_restarted) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut world = World::new(GROUPS, 2).await;
            let (app, mut searches) = (world.application.id, HashMap::new());
            let mut gateway = world.start(&[]);
            ended(&gateway, app).await;
            let revoked: Vec<u64> = (0..GROUPS).map(|group| serial(group, 0)).collect();
            world.replace(&revoked);
            if is_last {
                // The first group is the last of the lap.
                let [first, .., end] = &*world.groups else { panic!("several groups") };
                let mut lap = Lap::behind(Some(first.clone()));
                lap.pass(end.clone());
                assert!(lap.pass_the_end());
                let conditions =
                    conditions(&world.application, &world.application.identity.trusted().unwrap());
                world.keep_progress(&Progress::At(lap), &conditions).await;
            }
            // While the first group is looked through, nobody in it is revoked.
            let changing = async { world.replace(&[serial(GROUPS, 0)]) };
            let searching = search(gateway.registry(), &world.application, &mut searches);
            let (is_done, ()) = tokio::join!(searching, changing);
            assert!(!is_done.unwrap());
            assert_eq!(world.proposed(&gateway).await, 0);
            world.replace(&revoked);
            assert_ne!(world.progress(), Progress::Done);
            if is_restarted {
                gateway.stop().await;
                gateway = world.start_again();
                ended(&gateway, app).await;
            } else {
                assert!(search(gateway.registry(), &world.application, &mut searches).await.unwrap());
                // Again, while no search runs.
                world.replace(&[serial(GROUPS, 0)]);
                world.replace(&revoked);
                let before = searches[&app].trust;
                assert!(search(gateway.registry(), &world.application, &mut searches).await.unwrap());
                assert_ne!(searches[&app].trust, before);
            }
            assert_eq!(world.proposed(&gateway).await, GROUPS, "{is_last} {is_restarted}");
            assert_eq!(world.progress(), Progress::Done);
            gateway.stop().await;
            world.store.shutdown().await;
        }
    });
}

#[test]
fn a_group_without_room_for_all_removals_is_tried_again() {
    actix::System::new().block_on(async {
        let mut world = World::new(2, 4).await;
        let app = world.application.id;
        world.list(&[(0, 1), (1, 1), (1, 2), (1, 3)]);
        let gateway = world.start_limited(Limits { proposals_per_epoch_max: 3, ..Limits::default() });
        let search = until(&gateway, app, |search| !search.is_running).await;
        assert_eq!((search.groups, search.revoked_members, search.failed_groups), (1, 1, 1));
        assert_eq!(search.ended, None);
        assert_ne!(world.progress(), Progress::Done);
        assert_eq!(world.proposed(&gateway).await, 2);
        gateway.stop().await;

        let gateway = world.start_again();
        let search = ended(&gateway, app).await;
        assert_eq!((search.groups, search.revoked_members, search.failed_groups), (2, 4, 0));
        let mut waiting = Vec::new();
        for group in &world.groups {
            waiting.push(world.waiting(&gateway, group).await);
        }
        waiting.sort_unstable();
        assert_eq!(waiting, [1, 3]);
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

/// In such a group there will never be a proposal.
#[test]
fn revoked_members_of_groups_in_which_the_gateway_may_not_propose_are_counted() {
    actix::System::new().block_on(async {
        let mut world = World::new(1, 2).await;
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
        let key = ExternalSenderKey::from_pem(key.as_bytes(), None, "another").unwrap();
        world.application.external_senders = [key].into();
        let gateway = world.start(&[(0, 1)]);
        let search = ended(&gateway, world.application.id).await;
        assert_eq!((search.groups, search.revoked_members, search.failed_groups), (1, 1, 0));
        assert_eq!(world.proposed(&gateway).await, 0);
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

#[test]
fn groups_that_cannot_be_read_are_all_counted_and_do_not_keep_a_search_from_others() {
    const UNREADABLE: usize = 1100;
    actix::System::new().block_on(async {
        let mut world = World::new(2, 2).await;
        let app = world.application.id;
        world.keep_unreadable(UNREADABLE).await;
        let gateway = world.start(&[(0, 1), (1, 1)]);
        let search = until(&gateway, app, |search| !search.is_running).await;
        assert_eq!((search.groups, search.revoked_members, search.failed_groups), (2, 2, UNREADABLE));
        assert_eq!(search.ended, None);
        assert_eq!(world.proposed(&gateway).await, 2);
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

#[test]
fn a_group_that_is_busy_is_tried_again_and_is_not_claimed_before() {
    actix::System::new().block_on(async {
        let mut world = World::new(6, 2).await;
        let app = world.application.id;
        let gateway = world.start(&[]);
        ended(&gateway, app).await;
        let busy = world.groups[2].clone();
        gateway.group(app, &busy).await.unwrap();
        let places = gateway.registry().crowd_out(app, &busy);
        let serials: Vec<u64> = (0..6).map(|group| serial(group, 1)).collect();
        world.publish(&gateway, &serials);

        let search = until(&gateway, app, |search| search.failed_groups > 0 && !search.is_running).await;
        assert_eq!((search.groups, search.revoked_members, search.failed_groups), (5, 5, 1));
        assert_eq!(search.ended, None);
        assert_ne!(world.progress(), Progress::Done);
        drop(places);
        let search = ended(&gateway, app).await;
        assert_eq!((search.groups, search.revoked_members, search.failed_groups), (6, 6, 0));
        assert!(!search.is_running);
        assert_eq!(world.proposed(&gateway).await, 6);
        assert_eq!(world.progress(), Progress::Done);
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

#[test]
fn a_group_that_failed_before_a_restart_is_looked_through_after_it() {
    actix::System::new().block_on(async {
        let mut world = World::new(6, 2).await;
        let app = world.application.id;
        let gateway = world.start(&[]);
        ended(&gateway, app).await;
        let busy = world.groups[4].clone();
        gateway.group(app, &busy).await.unwrap();
        let places = gateway.registry().crowd_out(app, &busy);
        let serials: Vec<u64> = (0..6).map(|group| serial(group, 1)).collect();
        world.publish(&gateway, &serials);
        until(&gateway, app, |search| search.failed_groups > 0 && !search.is_running).await;
        drop(places);
        gateway.stop().await;

        let gateway = world.start_again();
        ended(&gateway, app).await;
        assert_eq!(world.proposed(&gateway).await, 6);
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

#[test]
fn without_lists_nobody_is_revoked_and_the_same_lists_later_are_searched_by_again() {
    actix::System::new().block_on(async {
        let mut world = World::new(3, 2).await;
        let app = world.application.id;
        let gateway = world.start(&[(0, 1), (1, 1)]);
        let with_lists = ended(&gateway, app).await;
        assert_eq!(with_lists.revoked_members, 2);
        world.publish(&gateway, &[]);
        let without = until(&gateway, app, |search| *search != with_lists).await;
        assert_eq!((without.groups, without.revoked_members, without.is_running), (0, 0, false));
        world.publish(&gateway, &[serial(0, 1), serial(1, 1)]);
        let search = until(&gateway, app, |search| search.ended.is_some() && search.groups > 0).await;
        assert_eq!((search.groups, search.revoked_members), (3, 2));

        // The same lists once more make no search.
        let number = || world.application.identity.trusted().unwrap().revocation_number();
        let before = number();
        world.publish(&gateway, &[serial(0, 1), serial(1, 1)]);
        assert_eq!(number(), before);
        world.publish(&gateway, &[serial(0, 1)]);
        assert_ne!(number(), before);
        let search = until(&gateway, app, |search| search.revoked_members == 1).await;
        assert_eq!(search.groups, 3);
        gateway.stop().await;
        world.store.shutdown().await;
    });
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_after_growing_pauses() {
    let began = tokio::time::Instant::now();
    let (wake, times) = (tokio::sync::Notify::new(), std::cell::RefCell::new(Vec::new()));
    wake.notify_one();
    let working = until_done(
        || wake.notified(),
        async || {
            let mut times = times.borrow_mut();
            times.push(began.elapsed().as_secs());
            !matches!(times.len(), 1..=3 | 5 | 7..=20)
        },
    );
    let waking = async {
        // The fourth time it was done. Then it is woken three times, the second of them while it waits to try again.
        for at in [100, 200, 300] {
            tokio::time::sleep_until(began + Duration::from_secs(at)).await;
            wake.notify_one();
        }
        tokio::time::sleep_until(began + Duration::from_secs(3000)).await;
    };
    tokio::select! {
        () = working => {}
        () = waking => {}
    }
    let expected =
        [0, 1, 3, 7, 100, 101, 200, 201, 203, 207, 215, 231, 263, 300, 301, 303, 307, 315, 331, 363, 427];
    assert_eq!(*times.borrow(), expected);
}
