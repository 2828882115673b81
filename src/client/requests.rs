//! Requests to one listener of a gateway.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{
    Reply, RequestError,
    exchange::{Exchange, Observer},
    plain_http,
};
use crate::{
    api::{self, Access, Body as _, Endpoint, problem::PROBLEM_JSON},
    tls,
    token::Token,
};

/// The time limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The address of a listener, a token for it, and the connections to it. Clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    http: reqwest::Client,
    base_url: String,
    token: Token,
    observer: Option<Observer>,
    timeout: Duration,
}

impl Requests {
    pub(super) fn new(base_url: impl Into<String>, token: Token) -> Result<Self, RequestError> {
        let base_url = base_url.into().trim_end_matches('/').to_owned();
        // Over TLS, a gateway is trusted if this machine trusts its certificate.
        let http = if base_url.starts_with("https:") {
            tls::install_provider();
            reqwest::Client::builder()
        } else {
            plain_http()
        };
        let http = http.timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { http, base_url, token, observer: None, timeout: REQUEST_TIMEOUT })
    }

    pub(super) fn reporting_to(self, observer: impl Fn(&Exchange<'_>) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Observer::new(observer)), ..self }
    }

    /// The same with another time limit of each request.
    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) fn over(self, http: reqwest::Client) -> Self {
        Self { http, ..self }
    }

    pub(super) async fn send<E: Endpoint>(
        &self,
        path: &E::Path,
        query: &E::Query,
        body: &E::Body,
    ) -> Result<Reply<E::Response>, RequestError> {
        let target = target_of::<E>(path, query)?;
        let mut request = self.request::<E>(&target);
        if E::Body::IS_SENT {
            request = request.json(body);
        }
        if self.timeout != REQUEST_TIMEOUT {
            request = request.timeout(self.timeout);
        }
        let response = request.send().await?;
        let (status, is_success, is_problem) =
            (response.status().as_u16(), is_success::<E>(&response), is_problem(&response));
        let bytes = response.bytes().await?;
        if let Some(observer) = &self.observer {
            let request = E::Body::IS_SENT.then(|| serde_json::to_vec(body).unwrap_or_default());
            let (method, request) = (E::METHOD, request.as_deref());
            observer.report(&Exchange { method, target: &target, request, status, answer: &bytes });
        }
        if !is_success {
            return Err(refusal(status, is_problem, &bytes));
        }
        let json: &[u8] = if status == 204 { b"{}" } else { &bytes };
        Ok(Reply { status, body: decode(status, json)? })
    }

    /// As [`Requests::send`], for the body alone.
    pub(super) async fn ask<E: Endpoint>(
        &self,
        path: &E::Path,
        query: &E::Query,
        body: &E::Body,
    ) -> Result<E::Response, RequestError> {
        self.send::<E>(path, query, body).await.map(|reply| reply.body)
    }

    /// A request without its body.
    pub(super) fn request<E: Endpoint>(&self, target: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{target}", self.base_url);
        let method = reqwest::Method::from_bytes(E::METHOD.as_str().as_bytes()).unwrap_or_default();
        let request = self.http.request(method, url);
        if E::ACCESS == Access::Public { request } else { request.bearer_auth(self.token.reveal()) }
    }
}

/// The path of a request with its query.
pub(super) fn target_of<E: Endpoint>(path: &E::Path, query: &E::Query) -> Result<String, RequestError> {
    api::target::<E>(path, query).map_err(|error| unexpected(0, error))
}

pub(super) fn is_success<E: Endpoint>(response: &reqwest::Response) -> bool {
    let status = response.status().as_u16();
    E::SUCCESS.iter().any(|success| success.status() == status)
}

pub(super) fn is_problem(response: &reqwest::Response) -> bool {
    response.headers().get(reqwest::header::CONTENT_TYPE).is_some_and(|media_type| media_type == PROBLEM_JSON)
}

/// The error for an answer that is no success.
pub(super) fn refusal(status: u16, is_problem: bool, bytes: &[u8]) -> RequestError {
    if !is_problem {
        return unexpected(status, "neither a success nor a problem document");
    }
    match decode(status, bytes) {
        Ok(document) => RequestError::Problem(Box::new(document)),
        Err(error) => error,
    }
}

fn decode<T: DeserializeOwned>(status: u16, json: &[u8]) -> Result<T, RequestError> {
    serde_json::from_slice(json).map_err(|error| unexpected(status, error))
}

pub(super) fn unexpected(status: u16, reason: impl ToString) -> RequestError {
    RequestError::Unexpected { status, reason: reason.to_string() }
}
