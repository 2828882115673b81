//! Giving back the space on disk of what was deleted, once in a period.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use snapshots::SweepError;

use crate::services::Services;

/// Gives space back if a period has passed since the last time. Gateways that are started again before that go on with it.
pub(super) async fn give_back(services: Arc<Services>, period: Duration) -> Result<(), SweepError> {
    let (store, now) = (&services.store, services.clock.now());
    let Some(last) = store.space_given_back_at()? else {
        // The first period begins.
        return store.begin_giving_space_back(now).await;
    };
    // After a time that is to come, the clock was wrong.
    if last <= now && last > now.saturating_sub(period) {
        return Ok(());
    }
    let (since, before) = (Instant::now(), store.disk_bytes()?);
    store.give_space_back(now).await?;
    let after = store.disk_bytes()?;
    tracing::info!(before, after, took = ?since.elapsed(), "the space of what was deleted was given back");
    Ok(())
}
