//! Deliveries of a hub to a follower, as JSON bodies and applied: the follower may refuse whatever it likes, and must take each entry once
//! and in order.
//!
//! An input is a list of parts, as for the target `observer`, whose seeds it shares. What can be read is signed again, with the keys
//! of the seeds' clients, for the group as an observer of the hub sees it. A kind above 0x7f leaves a part as it is.

#![no_main]

#[path = "../parts.rs"]
mod parts;
#[path = "../observer/signing.rs"]
mod signing;

use std::{cell::RefCell, collections::BTreeSet, mem::ManuallyDrop, sync::Arc, time::Duration};

use actix_web::rt::{System, SystemRunner};
use actors::{
    AppId, Application, Clock, CommitBundle, Delivery, DeliveryContent, DomainName, EntryContent, Gateway,
    GatewayOptions, GroupId, GroupTransfer, Limits, LogEntry, NewGroup, Retention, Store, StoreOptions,
    Timestamp,
    identity::{
        ApplicationContext, CredentialType, GroupContextExtensions, Identity, IdentityError, IdentityProvider,
    },
    observer::Observer,
};
use libfuzzer_sys::fuzz_target;
use mimi_gateway::api::federation::DeliveryBody;
use mls_forge::{GroupInfo, read_message, wire_format};

/// A moment at which the seeds are valid.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// The applications of one follower: each input has one of its own.
const APPLICATIONS: usize = 500;

/// Clients whose credentials are their handles, all at one domain.
struct AtHub;

impl IdentityProvider for AtHub {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::BASIC]
    }

    fn validate(
        &self,
        _: Identity<'_>,
        _: GroupContextExtensions<'_>,
        _: ApplicationContext,
    ) -> Result<(), IdentityError> {
        Ok(())
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<actors::ClientHandle, IdentityError> {
        let handle = actors::ClientHandle::new(identity.credential.content.to_vec());
        handle.map_err(|error| IdentityError(error.to_string()))
    }

    fn client_domain(&self, _: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Ok(Some(hub()))
    }
}

fn hub() -> DomainName {
    "hub.example".parse().expect("a domain")
}

fn application(app: AppId) -> Application {
    Application {
        identity: Arc::new(AtHub),
        supports_domains: true,
        domains: BTreeSet::from(["follower.example".parse().expect("a domain")]),
        federates_with: Arc::new(BTreeSet::from([hub()])),
        ..Application::basic(app)
    }
}

/// A gateway that follows, and the applications that no input has used.
struct Follower {
    gateway: Gateway,
    unused: Vec<AppId>,
}

impl Follower {
    fn start() -> Self {
        let unused: Vec<AppId> = (0..APPLICATIONS).map(|_| AppId::random()).collect();
        let options = GatewayOptions {
            applications: unused.iter().map(|app| application(*app)).collect(),
            limits: Limits::default(),
            retention: Retention::default(),
            snapshot_period: Duration::from_secs(3600),
            retention_period: Duration::from_secs(3600),
            passivate_after: Duration::from_secs(3600),
            arbiters: 1,
            clock: Clock::new(|| NOW),
            transport: None,
        };
        let store = Store::open(&StoreOptions::default()).expect("a store");
        Self { gateway: Gateway::start(options, store), unused }
    }
}

thread_local! {
    /// Never dropped, since the gateway would have to stop first.
    static FOLLOWER: RefCell<ManuallyDrop<(Option<Follower>, SystemRunner)>> =
        RefCell::new(ManuallyDrop::new((None, System::new())));
}

/// What the hub delivers, entry by entry.
#[derive(Default)]
struct Hub {
    group: Option<GroupId>,
    observer: Option<Observer>,
    info: Option<Vec<u8>>,
    tree: Option<Vec<u8>>,
    welcome: Option<Vec<u8>>,
    sequence: u64,
    /// Whether the next entry begins a delivery. Otherwise it goes with the one before it.
    begins_delivery: bool,
    deliveries: Vec<DeliveryContent>,
}

const KINDS: u8 = 6;

impl Hub {
    fn signed_again(&self, kind: u8, part: Vec<u8>) -> Vec<u8> {
        let signed = match (kind, &self.observer) {
            (0, _) => signing::group_info(&part, self.tree.as_deref()),
            (1, None) => self.info.as_ref().and_then(|info| signing::tree(&part, info)),
            (5, _) => signing::key_package(&part),
            (2 | 3, Some(group)) => signing::handshake(&part, &group.context_bytes(), &group.tree_bytes()),
            _ => None,
        };
        signed.unwrap_or(part)
    }

    fn entry(&mut self, content: EntryContent) {
        let entry = LogEntry { sequence: self.sequence, timestamp: NOW, content };
        self.sequence += 1;
        match self.deliveries.last_mut() {
            Some(DeliveryContent::Entries(entries)) if !self.begins_delivery => entries.push(entry),
            _ => self.deliveries.push(DeliveryContent::Entries(vec![entry])),
        }
    }

    /// The beginning, once there is a group info and a tree: the creation, or the whole group if it is past its first epoch.
    fn open(&mut self) {
        if self.group.is_some() || self.info.is_none() || self.tree.is_none() {
            return;
        }
        let (Some(group_info), Some(ratchet_tree)) = (self.info.take(), self.tree.take()) else { return };
        let Ok(read) = read_message::<GroupInfo>(wire_format::GROUP_INFO, &group_info) else { return };
        let Ok(group) = GroupId::new(read.group_context.group_id) else { return };
        let observed = Observer::open(application(AppId::random()), &group_info, Some(&ratchet_tree), NOW);
        (self.group, self.observer) = (Some(group), observed.ok());
        if read.group_context.epoch == 0 {
            self.entry(NewGroup { group_info, ratchet_tree: Some(ratchet_tree) }.into());
        } else {
            self.hand_over(group_info, ratchet_tree);
        }
    }

    fn commit(&mut self, commit: Vec<u8>) {
        let bundle = CommitBundle { commit, group_info: self.info.take(), welcome: self.welcome.take() };
        if let Some(observer) = &mut self.observer
            && let Ok(staged) = observer.stage(&bundle, NOW)
        {
            observer.apply(staged).expect("what was staged");
        }
        self.entry(bundle.into());
    }

    /// The whole group.
    fn hand_over(&mut self, group_info: Vec<u8>, ratchet_tree: Vec<u8>) {
        let transfer = GroupTransfer {
            sequence: self.sequence,
            timestamp: NOW,
            group_info,
            ratchet_tree,
            proposals: Vec::new(),
            welcome: self.welcome.take(),
            used: Vec::new(),
            reinitialised: false,
        };
        self.sequence += 1;
        self.deliveries.push(DeliveryContent::Transfer(Box::new(transfer)));
    }

    /// The whole group, as the observer has it.
    fn transfer(&mut self) {
        if let Some(tree) = self.observer.as_ref().map(Observer::tree_bytes)
            && let Some(group_info) = self.info.take()
        {
            self.hand_over(group_info, tree);
        }
    }

    fn take(&mut self, kind: u8, part: Vec<u8>) {
        let is_signed_again = kind < 0x80;
        self.begins_delivery = kind % 0x80 / KINDS % 2 == 0;
        let kind = kind % 0x80 % KINDS;
        let part = if is_signed_again { self.signed_again(kind, part) } else { part };
        match kind {
            0 => self.info = Some(part),
            1 => {
                if let (true, Some(info)) = (is_signed_again, &self.info) {
                    self.info = signing::group_info(info, Some(&part)).or(self.info.take());
                }
                self.tree = Some(part);
            }
            2 => {
                if let Some(observer) = &mut self.observer {
                    let _ = observer.propose(&part, NOW);
                }
                self.entry(EntryContent::Proposal { packet: part.into() });
            }
            3 => self.commit(part),
            4 => self.welcome = Some(part),
            _ if part.first() == Some(&0) => {
                self.deliveries.push(DeliveryContent::Deletion { timestamp: NOW });
            }
            _ => self.transfer(),
        }
        self.open();
    }
}

/// As the body of a request, and read from it.
fn sent(delivery: Delivery) -> Delivery {
    let (app, group) = (delivery.app, delivery.group.clone());
    let json = serde_json::to_vec(&DeliveryBody::from(delivery.clone())).expect("a body");
    let body: DeliveryBody = serde_json::from_slice(&json).expect("a body that was written");
    let read = body.into_delivery(app, group).expect("a delivery that was written");
    assert_eq!(read, delivery, "the delivery that was read");
    read
}

/// Delivers all, each delivery twice.
async fn deliver(gateway: &Gateway, app: AppId, group: &GroupId, deliveries: Vec<DeliveryContent>) {
    let peer = BTreeSet::from([hub()]);
    let (mut next, mut offered) = (0, 0);
    for content in deliveries {
        let replaces = !matches!(content, DeliveryContent::Entries(_));
        offered = match &content {
            DeliveryContent::Entries(entries) => {
                entries.iter().map(|entry| entry.sequence + 1).fold(offered, u64::max)
            }
            DeliveryContent::Transfer(transfer) => offered.max(transfer.sequence + 1),
            DeliveryContent::Deletion { .. } => offered,
        };
        let delivery = Delivery { app, group: group.clone(), hub: hub(), preceding: None, content };
        let delivery = sent(delivery);
        let first = gateway.receive(&peer, delivery.clone()).await;
        let second = gateway.receive(&peer, delivery).await;
        if let Ok(held) = &first {
            assert!(held.next <= offered, "{} of {offered} entries", held.next);
            assert!(replaces || held.next >= next, "{} after {next}", held.next);
            next = held.next;
            let again = second.expect("a delivery that was accepted before");
            assert_eq!(again.next, next, "the same delivery again");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let mut hub = Hub::default();
    while let Some((kind, part)) = parts::next_part(&mut rest) {
        hub.take(kind, part);
    }
    let Some(group) = hub.group else { return };
    FOLLOWER.with_borrow_mut(|kept| {
        let (follower, system) = &mut **kept;
        system.block_on(async {
            if follower.as_ref().is_none_or(|follower| follower.unused.is_empty()) {
                if let Some(used) = follower.take() {
                    used.gateway.stop().await;
                    used.gateway.store().close();
                }
                *follower = Some(Follower::start());
            }
            let Some(Follower { gateway, unused }) = follower else { return };
            if let Some(app) = unused.pop() {
                deliver(gateway, app, &group, hub.deliveries).await;
            }
        });
    });
});
