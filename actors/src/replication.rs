//! Following the logs of other gateways' groups (*Group Evolution*).

use std::{collections::BTreeSet, time::Duration};

use snapshots::{AppId, DomainName, Epoch, GroupId};

use crate::{
    gateway::Gateway,
    group::GroupError,
    peer::{Delivery, Held},
};

impl Gateway {
    /// Takes a delivery of the gateway of these domains into the replica of its group; what is held already is passed
    /// over. The answer tells where to go on.
    ///
    /// # Errors
    /// [`GroupError::NotFromHub`] when the peer is not the group's hub, what is wrong with an entry, or that the gateway
    /// cannot write. What was taken before stays.
    pub async fn receive(&self, peer: &BTreeSet<DomainName>, delivery: Delivery) -> Result<Held, GroupError> {
        let _ = (peer, delivery);
        Err(GroupError::UnknownGroup)
    }

    /// Waits until the replica of a group has reached an epoch, or until the time is over.
    pub async fn await_epoch(&self, app: AppId, group: &GroupId, epoch: Epoch, at_most: Duration) {
        let _ = (app, group, epoch, at_most);
    }

    /// Waits until the replica of a group shows a proposal, or has left its epoch, or until the time is over.
    pub async fn await_proposal(&self, app: AppId, group: &GroupId, packet: &[u8], at_most: Duration) {
        let _ = (app, group, packet, at_most);
    }

    /// Checks a key package that the gateway of a domain gave (*Key Package Validation*).
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub async fn check_retrieved_key_package(
        &self,
        app: AppId,
        domain: &DomainName,
        cipher_suite: u16,
        key_package: &[u8],
    ) -> Result<(), String> {
        let _ = (app, domain, cipher_suite, key_package);
        Ok(())
    }
}
