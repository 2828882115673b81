//! The typed client of the gateway under load, with a limit on the connections in use.

use std::sync::Arc;

use actors::{Epoch, GroupId};
use tokio::sync::Semaphore;

use super::{During as _, ToolError, cleanup::Traces, stop::Stop, target::Target};
use crate::{
    api::groups::{EpochMessages, EpochRange},
    client::{GatewayClient, RequestError},
};

/// A client of a gateway with a limited number of connections. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct ConnectionPool {
    pub(super) api: GatewayClient,
    pub(super) traces: Traces,
    pub(super) stop: Stop,
    connections: Arc<Semaphore>,
}

impl ConnectionPool {
    pub(super) fn new(target: &Target, connections: usize) -> Result<Self, ToolError> {
        let api = GatewayClient::new(&target.url, target.app, target.token.clone())
            .during("making an HTTP client")?;
        let (traces, stop) = (target.traces.clone(), target.stop.clone());
        Ok(Self { api, traces, stop, connections: Arc::new(Semaphore::new(connections)) })
    }

    /// Makes a request when a connection is free.
    pub(super) async fn request<T>(&self, request: impl Future<Output = T>) -> T {
        // The semaphore is never closed, so this cannot fail.
        let _permit = self.connections.acquire().await;
        request.await
    }

    /// All control messages after an epoch, and the current epoch.
    pub(super) async fn history(
        &self,
        group: &GroupId,
        after: Option<Epoch>,
    ) -> Result<(Vec<EpochMessages>, Epoch), RequestError> {
        let mut range = EpochRange::from(Epoch(after.map_or(1, |epoch| epoch.0.saturating_add(1))));
        let mut epochs = Vec::new();
        loop {
            let page = self.request(self.api.control_messages(group, &range)).await?;
            epochs.extend(page.epochs);
            match page.next_epoch_id {
                Some(next) => range.start_epoch_id = next,
                None => return Ok((epochs, page.current_epoch_id)),
            }
        }
    }
}
