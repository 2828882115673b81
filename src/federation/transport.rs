//! Delivery of log entries to the gateways that follow a group.

use std::{sync::Arc, time::Duration};

use actors::{Delivering, Delivery, DeliveryError, DomainName, ReplicationAck, Transport};

use super::{Federation, Outgoing, PeerError, answer::shortened};
use crate::api::{
    Nothing,
    federation::{DeliveryBody, ReplicateLog, ReplicationAckBody},
    paths::GroupPath,
};

/// The largest answer to a delivery, in bytes.
const HELD_BYTES_MAX: usize = 4 << 10;

/// Delivers over HTTPS.
pub(crate) struct HttpsTransport(pub(crate) Arc<Federation>);

impl Transport for HttpsTransport {
    fn deliver(&self, peer: &DomainName, delivery: Delivery) -> Delivering {
        let (federation, peer) = (Arc::clone(&self.0), peer.clone());
        Box::pin(async move {
            let app = delivery.app;
            let path = GroupPath { app, group: delivery.group.clone() };
            // It may be large, and this is a thread of the actors.
            let encoding = tokio::task::spawn_blocking(move || {
                Outgoing::new::<ReplicateLog>(&path, &Nothing {}, &DeliveryBody::from(delivery))
            });
            let request = encoding
                .await
                .unwrap_or_else(|_| Err("the delivery cannot be encoded".to_owned()))
                .map_err(DeliveryError::Incomplete)?
                .within(Duration::from_millis(federation.settings.delivery_timeout_ms));
            let answer = federation.exchange(&peer, app, request).await.map_err(not_delivered);
            if matches!(answer, Err(DeliveryError::Refused { .. })) {
                federation.note_refusal(&peer);
            }
            let answer = answer?;
            if answer.body.len() > HELD_BYTES_MAX {
                return Err(DeliveryError::Failed(format!(
                    "its answer has more than {HELD_BYTES_MAX} bytes"
                )));
            }
            let held: ReplicationAckBody = serde_json::from_slice(&answer.body).map_err(|error| {
                DeliveryError::Failed(shortened(format!("the answer cannot be read: {error}")))
            })?;
            Ok(ReplicationAck {
                next: held.next,
                needs_transfer: held.needs_transfer,
                retry_after: held.retry_after_ms.map(Duration::from_millis),
                missing: held.missing.map(|missing| missing.from..=missing.through),
                revision: held.revision,
                store: held.store,
            })
        })
    }
}

/// The error of a delivery. An error that another try may change is not a refusal.
fn not_delivered(error: PeerError) -> DeliveryError {
    match error {
        PeerError::Refused(problem) if !is_passing(problem.status) => {
            DeliveryError::Refused { slug: problem.slug().to_owned(), detail: problem.detail }
        }
        PeerError::Differs { .. } => DeliveryError::Refused {
            slug: crate::api::problem::ProblemKind::ApplicationConfigurationMismatch.about().slug.to_owned(),
            detail: error.to_string(),
        },
        PeerError::Refused(ref problem) if let Some(wait_s) = problem.retry_after_s => {
            DeliveryError::Later { reason: error.to_string(), after: Duration::from_secs(wait_s) }
        }
        // The peer answers; perhaps only this group fails at present.
        PeerError::Refused(_) => DeliveryError::Failed(error.to_string()),
        // If every request times out, the circuit opens, and the peer is unreachable.
        PeerError::Timeout { .. } | PeerError::Busy { .. } => DeliveryError::Incomplete(error.to_string()),
        PeerError::Unreachable { .. } => DeliveryError::Unreachable(error.to_string()),
    }
}

/// Whether a status is about the present state of the server and not about the request.
fn is_passing(status: u16) -> bool {
    status >= 500 || matches!(status, 408 | 429)
}
