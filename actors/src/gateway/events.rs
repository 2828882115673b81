//! Event streams, and waiting for what would be polled for.

use std::time::Duration;

use snapshots::{AppId, ClientHandle, Epoch, Event, GroupId};

use super::Gateway;
use crate::{
    error::StorageError,
    events::{ApplicationStream, EventId, GroupStream, GroupWait, StreamedGroup},
    group::{EventPackets, GroupError, event_packets},
    mls::cipher_suite,
};

impl Gateway {
    /// The events of an application after one of them, or from now on.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`] if there is no such application, or that the gateway stops.
    pub fn application_events(
        &self,
        app: AppId,
        after: Option<EventId>,
    ) -> Result<ApplicationStream, GroupError> {
        self.group_application(app)?;
        let stream = ApplicationStream::open(&self.events, &self.services.store, (self.store_id, app), after);
        stream.ok_or(GroupError::UnknownGroup)
    }

    /// The newest events of an application, as far back as the given number of batches that have any, and those from now on.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`] if there is no such application, or that the store cannot be read.
    pub fn recent_application_events(
        &self,
        app: AppId,
        batches: u64,
    ) -> Result<ApplicationStream, GroupError> {
        Ok(self.application_events(app, None)?.go_back(batches)?)
    }

    /// The events of a group after one of them, or from now on.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub async fn group_events(
        &self,
        app: AppId,
        group: &GroupId,
        after: Option<EventId>,
    ) -> Result<GroupStream, GroupError> {
        let application = self.group_application(app)?;
        // Unknown groups get no place.
        self.group_row(app, group)?;
        let wait = GroupWait::new(&self.events, app, group).ok_or(GroupError::UnknownGroup)?;
        let view = self.registry.group_view(application, group).await?;
        let row = self.group_row(app, group)?;
        let streamed = StreamedGroup {
            store_id: self.store_id,
            app,
            suite: cipher_suite(view.cipher_suite).map_err(|_| StorageError::Unreadable)?,
            creation: row.creation_digest,
            sequence: view.sequence,
        };
        Ok(GroupStream::new(&self.events, &self.services.store, wait, &streamed, after))
    }

    /// The messages that an event tells of; `None` if it tells of none, or they are no longer kept.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub fn event_packets(&self, app: AppId, event: &Event) -> Result<Option<EventPackets>, StorageError> {
        event_packets(&self.services.store.view(), app, event)
    }

    /// Waits until a group has reached an epoch, for the given time at most, or until the gateway is about to stop.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub async fn await_history(
        &self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
        at_most: Duration,
    ) -> Result<(), GroupError> {
        if self.group(app, group).await?.epoch < epoch {
            tokio::select! {
                () = self.await_epoch(app, group, epoch, at_most) => {}
                () = self.events.closed() => {}
            }
        }
        Ok(())
    }

    /// Waits until a welcome for a handle is announced, for the given time at most; answers whether one was. The wait begins
    /// with the call, not with the first poll.
    pub fn await_welcome(
        &self,
        app: AppId,
        handle: &ClientHandle,
        at_most: Duration,
    ) -> impl Future<Output = bool> + use<> {
        let welcome = self.events.welcome_of(app, handle);
        async move { tokio::time::timeout(at_most, welcome).await.unwrap_or(false) }
    }

    /// Whether streams must end, because the gateway is about to stop.
    pub fn has_ended_streams(&self) -> bool {
        self.events.is_closing()
    }

    /// Waits until streams must end, because the gateway is about to stop.
    pub async fn streams_ended(&self) {
        self.events.closed().await;
    }

    /// Ends every event stream and every wait for a welcome, because the gateway is about to stop.
    pub fn end_streams(&self) {
        self.events.close();
    }
}
