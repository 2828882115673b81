//! *Managing Key Packages*.

use actors::{
    DomainName, KeyPackageRequest, KeyPackageUpload, KeyQueueStatus, NewKeyQueue, Receiver, Requester,
};

use super::{
    auth::Authenticator,
    edge::Edge,
    problem::Problem,
    route::{Answer, Call, Handle},
};
use crate::api::{
    Nothing,
    key_packages::{
        CreateKeyQueue, CreatedKeyQueue, DeleteKeyQueue, KeyPackageQuery, KeyQueue, KeyQueues, ListKeyQueues,
        PoolSize, RetrieveKeyPackage, RetrievedKeyPackage, UploadKeyPackages,
    },
    paths::ClientPath,
    problem::ProblemKind,
    text::Base64,
};

impl Handle for CreateKeyQueue {
    async fn handle(call: Call<Self>) -> Result<Answer<CreatedKeyQueue>, Problem> {
        let queue = NewKeyQueue {
            protocol_version: call.body.protocol_version,
            cipher_suite: call.body.cipher_suite,
            app_label: call.body.app_label,
        };
        let key_queue_id = call.edge.gateway.create_key_queue(call.path.app, call.path.client, queue).await?;
        Ok(Answer::Created(CreatedKeyQueue { key_queue_id }))
    }
}

impl Handle for ListKeyQueues {
    async fn handle(call: Call<Self>) -> Result<Answer<KeyQueues>, Problem> {
        let queues = call.edge.gateway.key_queues(call.path.app, call.path.client).await?;
        Ok(Answer::Ok(KeyQueues { queues: queues.into_iter().map(key_queue).collect() }))
    }
}

impl Handle for UploadKeyPackages {
    async fn handle(call: Call<Self>) -> Result<Answer<PoolSize>, Problem> {
        let (edge, path, body) = (call.edge, call.path, call.body);
        let upload = KeyPackageUpload {
            key_packages: body.key_packages.into_iter().map(|Base64(packet)| packet).collect(),
            is_reset: body.is_reset,
            app_label: body.app_label,
            final_key: body.final_key.map(|Base64(packet)| packet),
        };
        let counts = edge.gateway.upload_key_packages(path.app, path.client, path.queue, upload).await?;
        Ok(Answer::Ok(PoolSize {
            key_packages_in_pool: counts.in_pool,
            key_packages_available: counts.available,
        }))
    }
}

impl Handle for DeleteKeyQueue {
    async fn handle(call: Call<Self>) -> Result<Answer<Nothing>, Problem> {
        call.edge.gateway.delete_key_queue(call.path.app, call.path.client, call.path.queue).await?;
        Ok(Answer::NoContent)
    }
}

impl Handle for RetrieveKeyPackage {
    async fn handle(call: Call<Self>) -> Result<Answer<RetrievedKeyPackage>, Problem> {
        let (edge, app) = (&call.edge, call.path.app);
        if let Some((federation, domain)) = edge.peer_of(app, call.query.domain.as_ref()) {
            if call.fields.is_head {
                federation.ask_head::<Self>(domain, app, &call.path, &call.query, &call.body).await?;
                return Ok(Answer::Encoded(Vec::new()));
            }
            let given = federation.ask::<Self>(domain, app, &call.path, &call.query, &call.body).await?.body;
            let Base64(packet) = &given.key_package;
            edge.gateway
                .check_retrieved_key_package(app, domain, call.query.cipher_suite, packet)
                .await?
                .map_err(|reason| not_a_key_package(domain, &reason))?;
            return Ok(Answer::Ok(given));
        }
        assign_here(edge, &call.path, call.query, Requester::Application, call.fields.is_head).await
    }
}

/// A key package of a client of this gateway. A HEAD assigns none.
pub(super) async fn assign_here<A: Authenticator>(
    edge: &Edge<A>,
    path: &ClientPath,
    query: KeyPackageQuery,
    caller: Requester,
    is_head: bool,
) -> Result<Answer<RetrievedKeyPackage>, Problem> {
    let request = KeyPackageRequest {
        protocol_version: query.protocol_version,
        cipher_suite: query.cipher_suite,
        app_label: query.app_label,
        domain: query.domain,
        receiver: Receiver { caller, id: query.receiver_client_id },
    };
    if is_head {
        edge.gateway.look_for_key_package(path.app, path.client, request).await?;
        return Ok(Answer::Encoded(Vec::new()));
    }
    let assigned = edge.gateway.assign_key_package(path.app, path.client, request).await?;
    let (key_package, is_final_key) = (Base64(assigned.key_package), assigned.is_final_key);
    Ok(Answer::Ok(RetrievedKeyPackage { key_package, is_final_key }))
}

fn not_a_key_package(domain: &DomainName, reason: &str) -> Problem {
    tracing::warn!(peer = %domain, reason, "a peer gave a key package that cannot be used");
    let detail = format!("the gateway of {domain} gave a key package that cannot be used: {reason}");
    Problem::new(ProblemKind::PeerUnreachable, detail)
}

fn key_queue(queue: KeyQueueStatus) -> KeyQueue {
    KeyQueue {
        key_queue_id: queue.id,
        protocol_version: queue.protocol_version,
        cipher_suite: queue.cipher_suite,
        app_label: queue.app_label,
        key_packages_in_pool: queue.in_pool,
        key_packages_available: queue.available,
        has_final_key: queue.has_final_key,
    }
}
