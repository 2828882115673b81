//! One peer: requests to it, with retries and a circuit breaker. Here alone it is decided whether the peer can be reached.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::web::Bytes;
use actors::{AppId, DomainName};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    PeerError, SharedApplication,
    answer::{self, Failure, PeerAnswer},
    circuit::Circuit,
    configuration::{DIFFERENCES_MAX, differences, shortened_name},
    discovery::Locator,
    trust_log::TrustLog,
};
use crate::{
    api::{
        self, Body as _, Endpoint, Nothing, Success,
        federation::{CONFIGURATION_HEADER, CompareConfiguration, ConfigurationBody, TRUST_HEADER},
        paths::AppPath,
        problem::{ProblemDocument, ProblemKind},
    },
    config::FederationSettings,
    tls::now_s,
    traces,
};

/// The pause between logs that an application's configuration differs.
const DIFFERENCE_PAUSE: Duration = Duration::from_secs(60);

/// One peer: its address and state, and requests to it.
pub(super) struct Peer {
    domain: DomainName,
    locator: RwLock<Arc<Locator>>,
    requests: Semaphore,
    settings: FederationSettings,
    circuit: Mutex<Circuit>,
    /// The results of comparisons: whether the two gateways have the same configuration of an application.
    agreed: Mutex<BTreeMap<AppId, bool>>,
    /// The configurations that differ, as the log has them.
    differing_logged: Mutex<BTreeMap<AppId, LoggedDifference>>,
    /// What it trusts, as it told last.
    trust: Arc<TrustLog>,
    /// Held while configurations are compared, so that they are compared once.
    comparing: tokio::sync::Mutex<()>,
    is_unreachable: AtomicBool,
    /// The last answer, in Unix seconds; 0 before the first.
    answered_s: AtomicU64,
    /// Deliveries that it refused.
    refusals: AtomicU64,
}

/// The state of a peer, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerStatus {
    /// Whether the last request to it was answered, or none was made.
    pub(crate) is_reachable: bool,
    /// The last answer, in Unix seconds.
    pub(crate) answered_s: Option<u64>,
    /// Deliveries that it refused since the start.
    pub(crate) refusals: u64,
}

/// What of a peer's trust in an application differs from what is trusted here, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerTrust {
    pub(crate) app: AppId,
    /// The names of the settings, sorted; none if nothing differs.
    pub(crate) differs: Vec<String>,
}

/// A request to a peer about an application. Every such request is safe to repeat.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    method: reqwest::Method,
    /// Path and query.
    target: String,
    body: Option<Bytes>,
    success: &'static [Success],
    timeout: Option<Duration>,
}

impl Outgoing {
    pub(super) fn new<E: Endpoint>(path: &E::Path, query: &E::Query, body: &E::Body) -> Result<Self, String> {
        let encoded = if E::Body::IS_SENT {
            Some(serde_json::to_vec(body).map_err(|error| error.to_string())?.into())
        } else {
            None
        };
        Ok(Self {
            method: reqwest::Method::from_bytes(E::METHOD.as_str().as_bytes()).unwrap_or_default(),
            target: api::target::<E>(path, query).map_err(|error| error.to_string())?,
            body: encoded,
            success: E::SUCCESS,
            timeout: None,
        })
    }

    pub(super) fn method(&self) -> &str {
        self.method.as_str()
    }

    /// The same request by HEAD: it changes nothing, and its answer has no body.
    pub(super) fn head(self) -> Self {
        Self { method: reqwest::Method::HEAD, ..self }
    }

    /// The same request with another time limit.
    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

impl Peer {
    /// Finds its gateway by another locator from now on.
    pub(super) fn relocate(&self, locator: Locator) {
        *self.locator.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(locator);
    }

    fn locator(&self) -> Arc<Locator> {
        Arc::clone(&self.locator.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn new(domain: DomainName, locator: Locator, settings: &FederationSettings) -> Self {
        Self {
            trust: TrustLog::new(domain.clone()),
            domain,
            locator: RwLock::new(Arc::new(locator)),
            requests: Semaphore::new(settings.peer_requests_in_flight_max),
            settings: settings.clone(),
            circuit: Mutex::new(Circuit::new(
                settings.circuit_failures,
                Duration::from_millis(settings.circuit_open_ms),
            )),
            agreed: Mutex::default(),
            differing_logged: Mutex::default(),
            comparing: tokio::sync::Mutex::default(),
            is_unreachable: AtomicBool::new(false),
            answered_s: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }
    }

    /// Its state.
    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            is_reachable: !self.is_unreachable.load(Ordering::Relaxed),
            answered_s: Some(self.answered_s.load(Ordering::Relaxed)).filter(|at| *at > 0),
            refusals: self.refusals.load(Ordering::Relaxed),
        }
    }

    /// Counts a delivery that it refused.
    pub(super) fn note_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a request about an application, after both gateways have agreed on its configuration.
    pub(super) async fn exchange(
        &self,
        app: AppId,
        application: &SharedApplication,
        request: &Outgoing,
    ) -> Result<PeerAnswer, PeerError> {
        let Ok(_permit) = self.requests.try_acquire() else {
            let max = self.settings.peer_requests_in_flight_max;
            return Err(PeerError::Busy { domain: self.domain.clone(), max });
        };
        let usual = Duration::from_millis(self.settings.request_timeout_ms);
        let allowed = request.timeout.unwrap_or(usual);
        let deadline = Deadline { at: Instant::now() + allowed, allowed };
        self.agree(app, application, deadline).await?;
        match self.send(app, application, request, deadline).await {
            Err(PeerError::Refused(problem))
                if problem.kind() == Some(ProblemKind::ApplicationConfigurationMismatch) =>
            {
                // One of the two configurations has changed since the comparison.
                locked(&self.agreed).remove(&app);
                self.agree(app, application, deadline).await?;
                self.send(app, application, request, deadline).await
            }
            outcome => outcome,
        }
    }

    /// Notes whether the peer has the same configuration of an application as this gateway.
    pub(super) fn note_comparison(&self, app: AppId, differing: &[String]) {
        let is_same = differing.is_empty();
        locked(&self.agreed).insert(app, is_same);
        if is_log_due(&mut locked(&self.differing_logged), app, differing, Instant::now()) {
            tracing::error!(
                peer = %self.domain,
                %app,
                differing = differing.join(", "),
                "the application is not federated: its configuration differs"
            );
        }
    }

    /// What the peer trusts in each application, as it told last.
    pub(super) fn trust(&self) -> &Arc<TrustLog> {
        &self.trust
    }

    async fn agree(
        &self,
        app: AppId,
        application: &SharedApplication,
        deadline: Deadline,
    ) -> Result<(), PeerError> {
        let is_agreed = || locked(&self.agreed).get(&app) == Some(&true);
        if is_agreed() {
            return Ok(());
        }
        let _alone = timeout_at(deadline.at, self.comparing.lock())
            .await
            .map_err(|_| self.timed_out(deadline.allowed))?;
        if is_agreed() {
            return Ok(());
        }
        let ours = &application.configuration;
        let request = Outgoing::new::<CompareConfiguration>(
            &AppPath { app },
            &Nothing {},
            &ConfigurationBody(ours.clone()),
        )
        .map_err(|reason| self.unreachable(reason))?;
        let differing = match self.send(app, application, &request, deadline).await {
            Ok(answer) => differences(ours, &self.configuration(&answer)?),
            Err(PeerError::Refused(problem))
                if problem.kind() == Some(ProblemKind::ApplicationConfigurationMismatch) =>
            {
                differing_members(&problem)
            }
            Err(error) => return Err(error),
        };
        self.note_comparison(app, &differing);
        if differing.is_empty() {
            return Ok(());
        }
        Err(PeerError::Differs { domain: self.domain.clone(), members: differing })
    }

    fn configuration(&self, answer: &PeerAnswer) -> Result<Map<String, Value>, PeerError> {
        let ConfigurationBody(theirs) = serde_json::from_slice(&answer.body)
            .map_err(|error| self.unreachable(format!("its configuration cannot be read: {error}")))?;
        Ok(theirs)
    }

    /// Makes a request, with retries if the peer was not reached, until the deadline.
    async fn send(
        &self,
        app: AppId,
        application: &SharedApplication,
        request: &Outgoing,
        deadline: Deadline,
    ) -> Result<PeerAnswer, PeerError> {
        let mut failed = None;
        for attempt in 0..=self.settings.retries {
            if attempt > 0 {
                let first = Duration::from_millis(self.settings.retry_delay_ms);
                let pause = jittered(first.saturating_mul(1 << (attempt - 1).min(16)));
                if Instant::now() + pause >= deadline.at {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            if let Err(wait) = locked(&self.circuit).admit(Instant::now().into_std()) {
                failed.get_or_insert_with(|| {
                    format!("it did not answer before, and is tried again in {} ms", wait.as_millis())
                });
                break;
            }
            match timeout_at(deadline.at, self.attempt(app, application, request)).await {
                Ok(Ok(answered)) => {
                    self.reached();
                    return answered.map_err(PeerError::Refused);
                }
                Ok(Err(Failure::Answer(reason))) => {
                    self.reached();
                    return Err(self.unreachable(reason));
                }
                Ok(Err(Failure::Connection(reason))) => {
                    self.missed();
                    failed = Some(reason);
                }
                Err(_) => {
                    self.missed();
                    let error = self.timed_out(deadline.allowed);
                    self.note_unreachable(&error);
                    return Err(error);
                }
            }
        }
        let error = self.unreachable(failed.unwrap_or_default());
        self.note_unreachable(&error);
        Err(error)
    }

    async fn attempt(
        &self,
        app: AppId,
        application: &SharedApplication,
        request: &Outgoing,
    ) -> Result<Result<PeerAnswer, Box<ProblemDocument>>, Failure> {
        let located = self.locator().locate().await?;
        let url = format!("{}{}", located.base_url, request.target);
        let mut outgoing = located
            .http
            .request(request.method.clone(), url)
            .header(CONFIGURATION_HEADER, &*application.digest);
        if let Some(trust) = application.trust() {
            outgoing = outgoing.header(TRUST_HEADER, trust.to_header());
        }
        for (name, value) in traces::header_fields() {
            outgoing = outgoing.header(name.as_str(), value);
        }
        if let Some(body) = &request.body {
            outgoing = outgoing.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = outgoing.send().await.map_err(|error| Failure::of(&error))?;
        if let Some(told) = response.headers().get(TRUST_HEADER) {
            self.trust.note(app, application, told.as_bytes());
        }
        answer::receive(response, self.settings.answer_bytes_max, request.success).await
    }

    fn reached(&self) {
        locked(&self.circuit).succeeded();
        self.answered_s.store(u64::try_from(now_s()).unwrap_or_default(), Ordering::Relaxed);
        if self.is_unreachable.swap(false, Ordering::Relaxed) {
            tracing::info!(peer = %self.domain, "the peer answers again");
        }
    }

    fn missed(&self) {
        let mut circuit = locked(&self.circuit);
        circuit.failed(Instant::now().into_std());
        if circuit.is_open() {
            // The peer may have moved.
            self.locator().forget();
        }
    }

    fn note_unreachable(&self, error: &PeerError) {
        if !self.is_unreachable.swap(true, Ordering::Relaxed) {
            tracing::warn!(peer = %self.domain, "{error}");
        }
    }

    fn unreachable(&self, reason: String) -> PeerError {
        PeerError::Unreachable { domain: self.domain.clone(), reason: answer::shortened(reason) }
    }

    fn timed_out(&self, after: Duration) -> PeerError {
        PeerError::Timeout { domain: self.domain.clone(), after }
    }
}

/// A difference in an application that was logged.
#[derive(Debug)]
struct LoggedDifference {
    at: Instant,
    /// The members that differ; none once it has ended.
    members: Vec<String>,
}

/// Whether a comparison is to be logged: each difference that is not in the log yet, once per period, however often the peer changes. One
/// that is held back is logged with the first comparison after that.
fn is_log_due(
    logged: &mut BTreeMap<AppId, LoggedDifference>,
    app: AppId,
    differing: &[String],
    now: Instant,
) -> bool {
    let last = logged.get_mut(&app);
    if differing.is_empty() {
        if let Some(last) = last {
            last.members.clear();
        }
        return false;
    }
    let is_due =
        last.is_none_or(|last| last.members != differing && now.duration_since(last.at) >= DIFFERENCE_PAUSE);
    if is_due {
        logged.insert(app, LoggedDifference { at: now, members: differing.to_vec() });
    }
    is_due
}

/// The time limit of a request, and the moment at which it ends.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    allowed: Duration,
}

/// The differing members that a peer names; the whole configuration if it names none.
fn differing_members(problem: &ProblemDocument) -> Vec<String> {
    let named = problem.members.get(DIFFERS).and_then(Value::as_array);
    let members: Vec<String> = named
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .take(DIFFERENCES_MAX)
        .map(|name| shortened_name(name).to_owned())
        .collect();
    if members.is_empty() { vec!["identity_configuration".to_owned()] } else { members }
}

/// The member of the problem that names the differing members.
pub(crate) const DIFFERS: &str = "differs";

/// A random time between half of the given one and all of it, so that many waiting callers do not return at once.
fn jittered(time: Duration) -> Duration {
    let half = time / 2;
    // Without random numbers, it is half of the time.
    let share = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    half + half.mul_f64(share)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is consistent between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_that_was_held_back_is_logged_later() {
        let (mut logged, app, began) = (BTreeMap::new(), AppId::random(), Instant::now());
        let mut note = |seconds: u64, differing: &[&str]| {
            let differing: Vec<String> = differing.iter().map(|name| (*name).to_owned()).collect();
            is_log_due(&mut logged, app, &differing, began + Duration::from_secs(seconds))
        };
        assert!(!note(0, &[]));
        assert!(note(1, &["id"]));
        assert!(!note(2, &["id"]), "it is in the log");
        assert!(!note(3, &[]));
        assert!(!note(4, &["id"]), "too soon");
        assert!(!note(60, &["id"]));
        assert!(note(61, &["id"]), "it has ended and begun again");
        assert!(!note(200, &["id"]));
        assert!(note(201, &["id", "identity_configuration"]));
    }
}
