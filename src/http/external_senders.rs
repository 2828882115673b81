//! The gateway as an external sender of MLS.

use super::{
    problem::Problem,
    route::{Answer, Call, Handle},
};
use crate::api::{
    external_senders::{ExternalSenderBody, ExternalSenders, ListExternalSenders},
    text::Base64,
};

impl Handle for ListExternalSenders {
    async fn handle(call: Call<Self>) -> Result<Answer<ExternalSenders>, Problem> {
        let application = call.edge.gateway.application(call.path.app).ok_or_else(Problem::internal)?;
        let body = |key: &actors::ExternalSenderKey| ExternalSenderBody {
            signature_scheme: key.scheme(),
            public_key: Base64(key.public_key().to_vec()),
            external_sender: Base64(key.external_sender().to_vec()),
        };
        Ok(Answer::Ok(ExternalSenders {
            external_senders: application.external_senders.iter().map(body).collect(),
        }))
    }
}
