//! The interruption of a run by Ctrl-C (SIGINT) or SIGTERM: the first signal ends the load, the second everything.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{During as _, ToolError};

/// The number of signals that arrived. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Stop(watch::Receiver<u32>);

impl Stop {
    /// Waits for signals on the current runtime.
    pub(super) fn on_signals() -> Result<Self, ToolError> {
        let mut interrupt = signal(SignalKind::interrupt()).during("receiving SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).during("receiving SIGTERM")?;
        let (counted, signals) = watch::channel(0_u32);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                counted.send_modify(|count| *count = count.saturating_add(1));
            }
        });
        Ok(Self(signals))
    }

    /// The number of signals until now.
    pub(super) fn count(&self) -> u32 {
        *self.0.borrow()
    }

    /// Whether the load is to end.
    pub(super) fn is_requested(&self) -> bool {
        self.count() > 0
    }

    /// [`ToolError::Interrupted`] if the load is to end.
    pub(super) fn check(&self) -> Result<(), ToolError> {
        if self.is_requested() { Err(ToolError::Interrupted) } else { Ok(()) }
    }

    /// Waits for this many signals.
    pub(super) async fn after(&self, signals: u32) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|count| *count >= signals).await.is_err() {
            // Nobody counts any more, so no further signal arrives.
            std::future::pending::<()>().await;
        }
    }

    /// Does the work unless this many signals arrive first.
    pub(super) async fn unless<T>(
        &self,
        signals: u32,
        work: impl Future<Output = Result<T, ToolError>>,
    ) -> Result<T, ToolError> {
        tokio::select! {
            done = work => done,
            () = self.after(signals) => Err(ToolError::Interrupted),
        }
    }
}
