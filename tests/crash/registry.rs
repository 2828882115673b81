//! Clients with tags, and key packages that are assigned.

use std::collections::{BTreeMap, BTreeSet};

use actors::{ClientHandle, ClientId, KeyQueueId};
use mimi_gateway::{
    api::{
        Limit,
        clients::{ClientChangeBody, NewClientBody, TagQuery},
        key_packages::{KeyPackageQuery, KeyPackageUploadBody, NewKeyQueueBody, PoolSize},
        problem::ProblemKind,
        text::{Base64, HandleText},
    },
    client::{GatewayClient, RequestError},
};
use openmls::prelude::{BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, MlsMessageOut};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use crate::acknowledged;

const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// The tag that all clients have from the beginning.
const COMMON_TAG: &str = "common";

/// What is known of the clients that were registered.
#[derive(Default)]
pub(crate) struct Clients {
    known: BTreeMap<String, (ClientId, BTreeSet<String>)>,
    tags: usize,
    /// Was sent and not answered: a registration while the handle is not in `known`, then a tag.
    pending: Option<String>,
}

impl Clients {
    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn count_of_tags(&self) -> usize {
        self.tags
    }

    /// Registers clients and gives each another tag, until the gateway is gone.
    pub(crate) async fn write(&mut self, api: &GatewayClient) {
        assert!(self.pending.is_none());
        loop {
            let handle = format!("client-{}", self.known.len());
            self.pending = Some(handle.clone());
            let Some(client) = acknowledged(api.register_client(&new_client(&handle)).await) else { return };
            let tags = BTreeSet::from([COMMON_TAG.to_owned()]);
            self.known.insert(handle.clone(), (client.client_id, tags));
            let Some(()) = acknowledged(self.tag(api, &handle).await) else { return };
            self.pending = None;
        }
    }

    /// After a restart: the clients and their tags are those that were acknowledged, and no others but what was on its
    /// way, which is sent again.
    pub(crate) async fn settle(&mut self, api: &GatewayClient) {
        // Before anything is repeated, which would hide a loss.
        let mut found = self.download(api).await;
        if let Some(handle) = &self.pending
            && let Some((id, mut tags)) = found.remove(handle)
        {
            tags.remove(&tag_of(handle));
            if let Some(known) = self.known.get(handle) {
                assert_eq!(&(id, tags), known);
                found.insert(handle.clone(), known.clone());
            }
        }
        assert_eq!(found, self.known);
        if let Some(handle) = self.pending.take() {
            let client_id = match (self.known.get(&handle), api.register_client(&new_client(&handle)).await) {
                (None, Ok(client)) => client.client_id,
                (known, Err(RequestError::Problem(problem))) => {
                    assert_eq!(problem.kind(), Some(ProblemKind::ClientHandleTaken));
                    let taken = serde_json::from_value(problem.members["clientId"].clone()).unwrap();
                    assert!(known.is_none_or(|(id, _)| *id == taken), "{handle} has another id");
                    taken
                }
                (known, answer) => panic!("{handle}: {answer:?} where {known:?} was acknowledged"),
            };
            self.known.insert(handle.clone(), (client_id, BTreeSet::from([COMMON_TAG.to_owned()])));
            self.tag(api, &handle).await.unwrap();
        }
        assert_eq!(self.download(api).await, self.known);
    }

    async fn tag(&mut self, api: &GatewayClient, handle: &str) -> Result<(), RequestError> {
        let (id, tags) = self.known.get_mut(handle).unwrap();
        let tag = tag_of(handle);
        let change = ClientChangeBody { tags_to_add: vec![tag.clone()], ..ClientChangeBody::default() };
        api.change_client(*id, &change).await?;
        tags.insert(tag);
        self.tags += 1;
        Ok(())
    }

    async fn download(&self, api: &GatewayClient) -> BTreeMap<String, (ClientId, BTreeSet<String>)> {
        let mut clients = BTreeMap::new();
        let mut query = TagQuery {
            tag: Some(COMMON_TAG.to_owned()),
            domain: None,
            limit: Limit::try_from(1000).unwrap(),
            cursor: None,
        };
        loop {
            let page = api.find_clients(&query).await.unwrap();
            for client in page.identities {
                let tags = client.tags.into_iter().collect();
                clients.insert(client.client_handle.to_string(), (client.client_id, tags));
            }
            match page.next_cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => return clients,
            }
        }
    }
}

/// How many packages a client gets before another client takes its place.
const PACKAGES_PER_CLIENT: usize = 400;

/// Clients whose key packages are assigned, one after the other, each to a receiver of its own.
pub(crate) struct Assignments {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    clients: Vec<Pool>,
    /// The acknowledged assignments before this one were asked for again after an earlier restart.
    checked: usize,
    /// What was acknowledged, in order.
    known: Vec<Assignment>,
    /// A package that was sent, or asked for, and not answered.
    pending: Option<Base64>,
}

struct Pool {
    client: ClientId,
    queue: KeyQueueId,
    handle: String,
    assigned: usize,
}

struct Assignment {
    client: ClientId,
    receiver: String,
    package: Base64,
}

impl Assignments {
    pub(crate) async fn create(api: &GatewayClient) -> Self {
        let signer = SignatureKeyPair::new(CIPHER_SUITE.signature_algorithm()).unwrap();
        let provider = OpenMlsRustCrypto::default();
        let mut assignments =
            Self { provider, signer, clients: Vec::new(), checked: 0, known: Vec::new(), pending: None };
        assignments.take_another_client(api).await;
        assignments
    }

    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }

    /// Uploads packages and has them assigned until the gateway is gone, or the client has enough of them.
    pub(crate) async fn write(&mut self, api: &GatewayClient) {
        assert!(self.pending.is_none());
        while self.clients.last().unwrap().assigned < PACKAGES_PER_CLIENT {
            let package = self.make_key_package();
            self.pending = Some(package.clone());
            if acknowledged(self.upload(api, &package).await).is_none() {
                return;
            }
            let Some(()) = acknowledged(self.assign(api, package).await) else { return };
        }
    }

    /// After a restart: every receiver has the package that it had, and the package on its way is held once.
    pub(crate) async fn settle(&mut self, api: &GatewayClient) {
        if let Some(package) = self.pending.take() {
            let pool = self.upload(api, &package).await.unwrap();
            let assigned = self.clients.last().unwrap().assigned;
            assert_eq!(pool.key_packages_in_pool, assigned + 1);
            // Unless it was assigned already, without an answer.
            assert!(pool.key_packages_available <= 1, "{pool:?}");
            self.assign(api, package).await.unwrap();
        }
        self.check(api, self.checked).await;
        self.checked = self.known.len();
        if self.clients.last().unwrap().assigned >= PACKAGES_PER_CLIENT {
            self.take_another_client(api).await;
        }
    }

    /// Every receiver from this one on has the package that it had.
    pub(crate) async fn check(&self, api: &GatewayClient, first: usize) {
        for assignment in &self.known[first..] {
            let query = KeyPackageQuery::new(1, CIPHER_SUITE.into(), &assignment.receiver);
            let again = api.retrieve_key_package(assignment.client, &query).await.unwrap();
            assert_eq!(again.key_package, assignment.package, "{} has another package", assignment.receiver);
        }
        let pool = self.clients.last().unwrap();
        let queues = api.key_queues(pool.client).await.unwrap().queues;
        assert_eq!(queues.len(), 1);
        assert_eq!((queues[0].key_packages_in_pool, queues[0].key_packages_available), (pool.assigned, 0));
    }

    async fn take_another_client(&mut self, api: &GatewayClient) {
        let handle = format!("owner-{}", self.clients.len());
        let new = NewClientBody { tags: Vec::new(), ..new_client(&handle) };
        let client = api.register_client(&new).await.unwrap().client_id;
        let queue = NewKeyQueueBody {
            protocol_version: 1,
            cipher_suite: CIPHER_SUITE.into(),
            app_label: String::new(),
        };
        let queue = api.create_key_queue(client, &queue).await.unwrap().key_queue_id;
        self.clients.push(Pool { client, queue, handle, assigned: 0 });
    }

    fn make_key_package(&self) -> Base64 {
        let credential = CredentialWithKey {
            credential: BasicCredential::new(self.clients.last().unwrap().handle.clone().into_bytes()).into(),
            signature_key: self.signer.public().into(),
        };
        let package =
            KeyPackage::builder().build(CIPHER_SUITE, &self.provider, &self.signer, credential).unwrap();
        Base64(MlsMessageOut::from(package.into_key_package()).to_bytes().unwrap())
    }

    async fn upload(&self, api: &GatewayClient, package: &Base64) -> Result<PoolSize, RequestError> {
        let pool = self.clients.last().unwrap();
        let upload =
            KeyPackageUploadBody { key_packages: vec![package.clone()], ..KeyPackageUploadBody::default() };
        api.upload_key_packages(pool.client, pool.queue, &upload).await
    }

    /// Asks for the only package that is not assigned.
    async fn assign(&mut self, api: &GatewayClient, package: Base64) -> Result<(), RequestError> {
        let pool = self.clients.last_mut().unwrap();
        let receiver = format!("receiver-{}", pool.assigned);
        let query = KeyPackageQuery::new(1, CIPHER_SUITE.into(), &receiver);
        let assigned = api.retrieve_key_package(pool.client, &query).await?;
        assert_eq!(assigned.key_package, package);
        pool.assigned += 1;
        self.known.push(Assignment { client: pool.client, receiver, package });
        self.pending = None;
        Ok(())
    }
}

fn tag_of(handle: &str) -> String {
    format!("tag-of-{handle}")
}

fn new_client(handle: &str) -> NewClientBody {
    NewClientBody {
        client_handle: HandleText(ClientHandle::new(handle).unwrap()),
        tags: vec![COMMON_TAG.to_owned()],
        domain: None,
    }
}
