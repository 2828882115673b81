//! The groups of a run, made through the API as applications do: clients register and upload key packages, a creator
//! retrieves them and adds in batches, welcomes are fetched and acknowledged.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use actors::{ClientHandle, ClientId, GroupId};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{During as _, ToolError, pool::ConnectionPool, verify::EpochCommit};
use crate::{
    api::{
        clients::NewClientBody,
        joining::WelcomeQuery,
        key_packages::KeyPackageUploadBody,
        text::{Base64, GroupIdText, HandleText},
    },
    tools::mls_client::{MlsClient, key_package_query, key_queue},
};

/// The number of passive clients that one commit adds.
const LEAVES_AT_ONCE: usize = 250;
/// The number of key packages of a client whose packages are retrieved during a run, in addition to its final key.
const POOL: usize = 100;
/// The number of groups that are created concurrently.
const GROUPS_AT_ONCE: usize = 4;

/// The plan of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupPlan {
    pub(super) members: usize,
    /// Members that keep their keys; at least one.
    pub(super) live: usize,
}

/// A group that exists, with its live members in its current epoch.
pub(super) struct MadeGroup {
    pub(super) id: GroupId,
    pub(super) live: Vec<MlsClient>,
    /// Members that are only leaves; their welcomes wait at the gateway.
    pub(super) leaves: Vec<ClientHandle>,
    pub(super) acknowledged: Vec<EpochCommit>,
}

/// Creates groups, all by the same plan; `made` is called for each. A signal ends it between two requests, so that what was
/// made is known.
pub(super) async fn groups(
    pool: &ConnectionPool,
    count: usize,
    plan: GroupPlan,
    made: impl Fn() + Send + Sync + 'static,
) -> Result<Vec<MadeGroup>, ToolError> {
    let (at_once, made) = (Arc::new(Semaphore::new(GROUPS_AT_ONCE)), Arc::new(made));
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (pool, at_once, made) = (pool.clone(), Arc::clone(&at_once), Arc::clone(&made));
        tasks.spawn(async move {
            // It is closed once another group failed.
            let _permit = at_once.acquire().await.map_err(|_| ToolError::Interrupted)?;
            let group = group(&pool, plan).await?;
            made();
            Ok::<_, ToolError>(group)
        });
    }
    let (mut groups, mut failure) = (Vec::with_capacity(count), None);
    while let Some(group) = tasks.join_next().await {
        match group.map_err(ToolError::panicked).and_then(|group| group) {
            Ok(group) => groups.push(group),
            Err(error) => {
                at_once.close();
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(groups), Err)
}

/// Clients with full key queues.
pub(super) async fn key_clients(pool: &ConnectionPool, count: usize) -> Result<Vec<ClientId>, ToolError> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let member = compute(|| MlsClient::basic(&fresh_handle("keys"))).await?;
        clients.push(register(pool, &member, POOL, true).await?);
    }
    Ok(clients)
}

async fn group(pool: &ConnectionPool, plan: GroupPlan) -> Result<MadeGroup, ToolError> {
    let (mut creator, body) = compute(|| {
        let mut creator = MlsClient::basic(&fresh_handle("creator"))?;
        let body = creator.create_group()?;
        Ok((creator, body))
    })
    .await?;
    register(pool, &creator, 0, false).await?;
    pool.stop.check()?;
    let creating = pool.traces.asking(pool.api.create_group(&body));
    let id = pool.request(creating).await.during("creating a group")?.group_id.0;
    pool.traces.group();
    let (mut handles, mut acknowledged) = (Vec::new(), Vec::new());
    // Live members are added last, so that they need not follow the other additions.
    let mut left = plan.members.saturating_sub(plan.live);
    while left > 0 {
        let count = left.min(LEAVES_AT_ONCE);
        let (added, packages) = compute(move || leaves(count)).await?;
        creator = add(pool, creator, packages, &mut acknowledged).await?;
        handles.extend(added);
        left -= count;
    }
    let (mut joining, mut packages) = (Vec::new(), Vec::new());
    for _ in 1..plan.live {
        let member = compute(|| MlsClient::basic(&fresh_handle("member"))).await?;
        let client = register(pool, &member, 1, false).await?;
        let query = key_package_query(receiver(&id));
        let retrieved = pool.request(pool.api.retrieve_key_package(client, &query)).await;
        packages.push(retrieved.during("retrieving a key package")?.key_package);
        joining.push(member);
    }
    if !packages.is_empty() {
        creator = add(pool, creator, packages, &mut acknowledged).await?;
    }
    let mut live = vec![creator];
    for member in joining {
        live.push(join(pool, member).await?);
    }
    Ok(MadeGroup { id, live, leaves: handles, acknowledged })
}

/// A member adds clients by their key packages.
async fn add(
    pool: &ConnectionPool,
    mut member: MlsClient,
    packages: Vec<Base64>,
    acknowledged: &mut Vec<EpochCommit>,
) -> Result<MlsClient, ToolError> {
    pool.stop.check()?;
    let (mut member, commit) = compute(move || {
        let commit = member.make_commit(&packages, &[])?;
        Ok((member, commit))
    })
    .await?;
    let group = member.group_id()?;
    let accepted = pool.request(pool.api.upload_commit(&group, &commit)).await.during("adding members")?;
    let packet = &commit.commit_packet.0;
    acknowledged.push(EpochCommit::new(accepted.epoch_id, accepted.timestamp, packet));
    compute(move || {
        member.apply_commit()?;
        Ok(member)
    })
    .await
}

/// Joins with the only waiting welcome, and acknowledges it.
async fn join(pool: &ConnectionPool, mut member: MlsClient) -> Result<MlsClient, ToolError> {
    let query = WelcomeQuery::default();
    let welcomes = pool.request(pool.api.welcomes(&member.handle, &query)).await;
    let Some(join_info) = welcomes.during("fetching a welcome")?.join_infos.pop() else {
        return Err(ToolError::Broken("a client that was added has no welcome".into()));
    };
    let id = join_info.id.0;
    let member = compute(move || {
        member.join(&join_info)?;
        Ok(member)
    })
    .await?;
    let acknowledged = pool.request(pool.api.acknowledge_welcome(&member.handle, None, id)).await;
    acknowledged.during("acknowledging a welcome")?;
    Ok(member)
}

/// Registers a client; with key packages it gets a queue.
async fn register(
    pool: &ConnectionPool,
    member: &MlsClient,
    packages: usize,
    with_final_key: bool,
) -> Result<ClientId, ToolError> {
    let client =
        NewClientBody { client_handle: HandleText(member.handle.clone()), tags: Vec::new(), domain: None };
    pool.stop.check()?;
    let registering = pool.traces.asking(pool.api.register_client(&client));
    let id = pool.request(registering).await.during("registering a client")?.client_id;
    pool.traces.client(id);
    if packages == 0 {
        return Ok(id);
    }
    let queue = pool.request(pool.api.create_key_queue(id, &key_queue())).await;
    let queue = queue.during("creating a key queue")?.key_queue_id;
    let final_key = with_final_key.then(|| member.key_package()).transpose()?;
    let upload = KeyPackageUploadBody { final_key, ..member.key_packages(packages)? };
    let uploaded = pool.request(pool.api.upload_key_packages(id, queue, &upload)).await;
    uploaded.during("uploading key packages")?;
    Ok(id)
}

/// Clients that exist only as leaves: only their key packages are kept.
fn leaves(count: usize) -> Result<(Vec<ClientHandle>, Vec<Base64>), ToolError> {
    let mut made = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let member = MlsClient::basic(&fresh_handle("leaf"))?;
        made.1.push(member.key_package()?);
        made.0.push(member.handle);
    }
    Ok(made)
}

/// Runs a computation on a thread where it delays no answer.
pub(super) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ToolError> {
    tokio::task::spawn_blocking(work).await.map_err(ToolError::panicked)?
}

/// A handle that is new to the gateway.
pub(super) fn fresh_handle(role: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("load-{}-{role}-{}", run_id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn run_id() -> uuid::Uuid {
    static RUN: std::sync::OnceLock<uuid::Uuid> = std::sync::OnceLock::new();
    *RUN.get_or_init(uuid::Uuid::new_v4)
}

fn receiver(group: &GroupId) -> String {
    format!("creator of {}", GroupIdText(group.clone()))
}
