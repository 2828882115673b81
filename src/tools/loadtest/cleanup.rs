//! Cleanup after a run at a gateway that was running before: the clients that the run registered are deleted; its groups cannot be,
//! and are named.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::ClientId;
use tokio::task::JoinSet;

use super::{ToolError, pool::ConnectionPool, target::Target, upload::decides_nothing};
use crate::client::RequestError;

/// The number of concurrent deletions.
const CONNECTIONS: usize = 16;
/// The time for all deletions.
const PATIENCE: Duration = Duration::from_secs(60);

/// The clients and groups that were made. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Traces(Arc<Mutex<Made>>);

#[derive(Debug, Default)]
struct Made {
    clients: Vec<ClientId>,
    groups: usize,
    /// Requests for a client or a group that may have made one: sent, and not answered.
    unanswered: usize,
}

impl Traces {
    pub(super) fn client(&self, client: ClientId) {
        self.lock().clients.push(client);
    }

    pub(super) fn group(&self) {
        self.lock().groups += 1;
    }

    /// Makes the request for a client or a group, and counts it if its outcome stays unknown.
    pub(super) async fn asking<T>(
        &self,
        request: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        self.lock().unanswered += 1;
        let answer = request.await;
        if !answer.as_ref().is_err_and(decides_nothing) {
            self.lock().unanswered -= 1;
        }
        answer
    }

    /// No code panics under this lock, so poison can be ignored.
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes the clients with their key queues, and says in a line or two what was deleted and what stays.
pub(super) async fn clean_up(target: &Target) -> Result<String, ToolError> {
    let Made { clients, groups, unanswered } = std::mem::take(&mut *target.traces.lock());
    if clients.is_empty() && groups == 0 && unanswered == 0 {
        return Ok(String::new());
    }
    let pool = ConnectionPool::new(target, CONNECTIONS)?;
    let (all, mut deleted, mut reason) = (clients.len(), 0, None);
    let mut deletions = JoinSet::new();
    for client in clients {
        let pool = pool.clone();
        deletions.spawn(async move { pool.request(pool.api.delete_client(client)).await });
    }
    let deleting = async {
        while let Some(deletion) = deletions.join_next().await {
            match deletion {
                Ok(Ok(())) => deleted += 1,
                Ok(Err(error)) => reason = Some(error.to_string()),
                Err(error) => reason = Some(error.to_string()),
            }
        }
    };
    // The first signal ends only the load, and those that ended the load do not end this.
    let signals = target.stop.count().max(1).saturating_add(1);
    let ended = tokio::select! {
        ended = tokio::time::timeout(PATIENCE, deleting) => ended.map_err(|_| "not all were answered in time"),
        () = target.stop.after(signals) => Err("interrupted"),
    };
    let mut told = format!("\ncleaned up: {} deleted, with key queues\n", number_of(deleted, "client"));
    if deleted < all {
        let reason = reason.unwrap_or_else(|| ended.err().unwrap_or("not all were answered").to_owned());
        told.push_str(&format!("left behind: {}: {reason}\n", number_of(all - deleted, "client")));
    }
    if groups > 0 {
        let groups = number_of(groups, "group");
        told.push_str(&format!("left behind: {groups}, because the API cannot delete groups\n"));
    }
    if unanswered > 0 {
        let requests = number_of(unanswered, "request");
        told.push_str(&format!("perhaps left behind: clients or groups of {requests} without an answer\n"));
    }
    Ok(told)
}

fn number_of(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
