//! Waiting for a replica to catch up with its hub, so that a client whose write was forwarded reads its result here.

use std::time::Duration;

use snapshots::{AppId, Epoch, GroupId};
use tokio::sync::watch;

use super::Gateway;
use crate::group::{GroupView, Published};

impl Gateway {
    /// Waits until the replica of a group has reached an epoch, or for the given time at most.
    pub async fn await_epoch(&self, app: AppId, group: &GroupId, epoch: Epoch, at_most: Duration) {
        self.await_view(app, group, at_most, |view| view.epoch >= epoch).await;
    }

    /// Waits until the replica of a group shows a proposal of an epoch or has left the epoch, or for the given time at most.
    pub async fn await_proposal(
        &self,
        app: AppId,
        group: &GroupId,
        (epoch, packet): (Epoch, &[u8]),
        at_most: Duration,
    ) {
        let shows = |view: &GroupView| {
            view.epoch > epoch || view.proposals.iter().any(|waiting| *waiting.packet == *packet)
        };
        self.await_view(app, group, at_most, shows).await;
    }

    async fn await_view(
        &self,
        app: AppId,
        group: &GroupId,
        at_most: Duration,
        is_reached: impl Fn(&GroupView) -> bool,
    ) {
        let Ok(application) = self.group_application(app) else { return };
        let waiting = async {
            // An actor that is passivated while a request waits for it is activated again.
            while let Ok(view) = self.registry.group_view(application, group).await {
                if is_reached(&view) {
                    return;
                }
                let active = self.registry.watch(app, group);
                if let Some(published) = active
                    && changed(published, &is_reached).await
                {
                    return;
                }
            }
        };
        // The write succeeded in any case; only a read right after it may show the epoch before.
        let _ = tokio::time::timeout(at_most, waiting).await;
    }
}

/// Waits for a view that satisfies the condition; `false` when the actor was passivated before it showed one.
async fn changed(mut published: watch::Receiver<Published>, is_reached: impl Fn(&GroupView) -> bool) -> bool {
    let shows = |shown: &Published| matches!(shown, Published::Ready(view) if is_reached(view));
    published.wait_for(shows).await.is_ok()
}
