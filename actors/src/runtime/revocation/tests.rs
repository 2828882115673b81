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

#[test]
fn progress_counts_under_the_same_conditions_only() {
    let group = GroupId::new(b"group").unwrap();
    for progress in [Progress::Done, Progress::After(None), Progress::After(Some(group))] {
        let bytes = progress.to_bytes(&[1; 32]);
        assert_eq!(Progress::read(&bytes, &[1; 32]), progress);
        assert_eq!(Progress::read(&bytes, &[2; 32]), Progress::After(None));
    }
    for damaged in [&[][..], &[1; 31], &[1; 32], &[&[1; 32][..], &[7]].concat()] {
        assert_eq!(Progress::read(damaged, &[1; 32]), Progress::After(None));
    }
}

const DOMAIN: &str = "a.example";

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

    /// A gateway over the store whose lists have these members, by group and number.
    fn start(&mut self, revoked: &[(usize, usize)]) -> Gateway {
        let serials: Vec<u64> = revoked.iter().map(|(group, member)| serial(*group, *member)).collect();
        self.application.identity = Arc::new(provider(&self.root, &[self.account.list(&serials)]));
        self.start_again()
    }

    /// A gateway with the same lists.
    fn start_again(&self) -> Gateway {
        let options = GatewayOptions {
            applications: vec![self.application.clone()],
            limits: Limits::default(),
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

    /// How many groups have a proposal that waits.
    async fn proposed(&self, gateway: &Gateway) -> usize {
        let mut proposed = 0;
        for group in &self.groups {
            let view = gateway.group(self.application.id, group).await.unwrap();
            proposed += usize::from(!view.proposals.is_empty());
        }
        proposed
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

async fn ended(gateway: &Gateway, app: AppId) -> RevocationSearch {
    loop {
        match gateway.revocation_search(app) {
            Some(search) if search.ended.is_some() => return search,
            Some(_) | None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
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
        assert_eq!(
            Progress::read(&world.store.view().setting(&setting(app)).unwrap().unwrap(), &conditions),
            Progress::Done
        );
        let mut batch = Batch::new();
        batch.put_setting(&setting(app), Progress::After(Some(half)).to_bytes(&conditions));
        world.store.append(batch).await.unwrap();
        let gateway = world.start_again();
        assert_eq!(ended(&gateway, app).await.groups, groups - groups / 2);
        assert_eq!(world.proposed(&gateway).await, revoked.len(), "each is proposed once");
        gateway.stop().await;
        world.store.shutdown().await;
    });
}
