//! Trust of one peer in each application, as it told last, and the log of where it differs from ours.
//!
//! The log has the latest difference whenever it begins, changes or ends, whichever of the two gateways has changed, at most once in a
//! while: of several changes that follow each other closely it has the last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{AppId, DomainName};
use tokio::{runtime::Handle, time::Instant};

use super::{PeerTrust, SharedApplication, trust::ApplicationTrust};

/// The least time between two lines of the log about one application: a peer may change as often as it likes.
const PAUSE: Duration = Duration::from_secs(60);

/// What one peer trusts in each application.
#[derive(Debug)]
pub(super) struct TrustLog {
    peer: DomainName,
    applications: Mutex<BTreeMap<AppId, Told>>,
}

/// What it trusts in one application.
#[derive(Debug)]
struct Told {
    theirs: ApplicationTrust,
    state: Difference,
}

/// The settings that differ, at present and in the log.
#[derive(Debug, Default)]
struct Difference {
    present: Vec<String>,
    logged: Vec<String>,
    logged_at: Option<Instant>,
    /// Whether it is looked at again after the pause.
    is_waiting: bool,
}

/// What to do about a difference.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Log what differs now.
    Log,
    /// Look again then.
    Wait(Instant),
}

impl Difference {
    fn look(&mut self, now: Instant) -> Due {
        if self.present == self.logged || self.is_waiting {
            return Due::Nothing;
        }
        match self.logged_at.map(|last| last + PAUSE).filter(|due| *due > now) {
            Some(due) => {
                self.is_waiting = true;
                Due::Wait(due)
            }
            None => {
                self.logged.clone_from(&self.present);
                self.logged_at = Some(now);
                Due::Log
            }
        }
    }
}

impl TrustLog {
    pub(super) fn new(peer: DomainName) -> Arc<Self> {
        Arc::new(Self { peer, applications: Mutex::default() })
    }

    /// Notes what the peer trusts in an application, by its header. Anything else in the header counts for nothing.
    pub(super) fn note(self: &Arc<Self>, app: AppId, application: &SharedApplication, header: &[u8]) {
        let Some(theirs) = ApplicationTrust::read(header) else { return };
        // Under the lock, so that an earlier comparison does not replace a later one.
        let mut told = self.told();
        let Some(ours) = application.trust() else { return };
        let present = ours.differences(&theirs);
        let told =
            told.entry(app).or_insert_with(|| Told { theirs: theirs.clone(), state: Difference::default() });
        (told.theirs, told.state.present) = (theirs, present);
        self.look(app, &mut told.state);
    }

    /// Compares again after what is trusted here has changed.
    pub(super) fn compare(self: &Arc<Self>, app: AppId, application: &SharedApplication) {
        let mut told = self.told();
        if let (Some(told), Some(ours)) = (told.get_mut(&app), application.trust()) {
            told.state.present = ours.differences(&told.theirs);
            self.look(app, &mut told.state);
        }
    }

    /// The applications in which the peer has told what it trusts, and what of that differs from ours.
    pub(super) fn present(&self, applications: &HashMap<AppId, Arc<SharedApplication>>) -> Vec<PeerTrust> {
        let told = self.told();
        let compared = told.iter().filter_map(|(app, told)| {
            let ours = applications.get(app)?.trust()?;
            Some(PeerTrust { app: *app, differs: ours.differences(&told.theirs) })
        });
        compared.collect()
    }

    fn look(self: &Arc<Self>, app: AppId, difference: &mut Difference) {
        match difference.look(Instant::now()) {
            Due::Nothing => {}
            Due::Log => self.log(app, &difference.present),
            Due::Wait(until) => match Handle::try_current() {
                Ok(runtime) => {
                    let log = Arc::clone(self);
                    runtime.spawn(async move {
                        tokio::time::sleep_until(until).await;
                        log.look_again(app);
                    });
                }
                // Outside of a runtime nobody waits; the next request looks again.
                Err(_) => difference.is_waiting = false,
            },
        }
    }

    fn look_again(self: &Arc<Self>, app: AppId) {
        if let Some(told) = self.told().get_mut(&app) {
            told.state.is_waiting = false;
            self.look(app, &mut told.state);
        }
    }

    fn log(&self, app: AppId, differing: &[String]) {
        if differing.is_empty() {
            tracing::info!(
                peer = %self.peer,
                %app,
                "the peer has the same trust in the clients of an application again"
            );
        } else {
            tracing::warn!(
                peer = %self.peer,
                %app,
                differing = differing.join(", "),
                "the peer has other trust in the clients of an application: one of the two will refuse what the other accepts"
            );
        }
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<AppId, Told>> {
        // The data is consistent between any two statements.
        self.applications.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use actors::identity::TrustSummary;

    use super::*;
    use crate::api::applications::ApplicationConfiguration;

    /// Changes a difference after these seconds; returns what is logged of it at once.
    fn change(difference: &mut Difference, at: Instant, present: &[&str]) -> Due {
        difference.present = present.iter().map(|name| (*name).to_owned()).collect();
        difference.look(at)
    }

    #[test]
    fn each_difference_is_logged_when_it_begins_changes_and_ends() {
        let (mut difference, began) = (Difference::default(), Instant::now());
        let after = |pauses: u32| began + PAUSE * pauses;
        assert_eq!(change(&mut difference, after(0), &[]), Due::Nothing);
        assert_eq!(change(&mut difference, after(1), &["crls"]), Due::Log);
        assert_eq!(change(&mut difference, after(2), &["crls"]), Due::Nothing);
        assert_eq!(change(&mut difference, after(3), &["crls", "trust_roots"]), Due::Log);
        assert_eq!(change(&mut difference, after(4), &[]), Due::Log);
        assert_eq!(change(&mut difference, after(5), &[]), Due::Nothing);
    }

    #[test]
    fn what_follows_closely_is_looked_at_again_after_a_pause() {
        let (mut difference, began) = (Difference::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(change(&mut difference, began, &["crls"]), Due::Log);
        assert_eq!(change(&mut difference, began + second, &[]), Due::Wait(began + PAUSE));
        assert_eq!(change(&mut difference, began + 2 * second, &["trust_roots"]), Due::Nothing);
        difference.is_waiting = false;
        assert_eq!(difference.look(began + PAUSE), Due::Log);
        assert_eq!(difference.logged, ["trust_roots"]);
        // What ended and began again meanwhile is in the log already.
        assert_eq!(change(&mut difference, began + PAUSE + second, &[]), Due::Wait(began + 2 * PAUSE));
        difference.is_waiting = false;
        assert_eq!(change(&mut difference, began + 2 * PAUSE, &["trust_roots"]), Due::Nothing);
    }

    fn trust(root: u8) -> ApplicationTrust {
        ApplicationTrust::of(&TrustSummary {
            roots: [root; 32],
            above_names_max: None,
            checks_revocation: true,
        })
    }

    /// An application that trusts root 1, and the log of a peer.
    fn application() -> (AppId, SharedApplication, Arc<TrustLog>) {
        let configuration =
            ApplicationConfiguration { identity_configuration: Default::default(), id: AppId::random() };
        let application = SharedApplication::new(&configuration, Default::default()).unwrap();
        application.take_trust(Some(trust(1)));
        (configuration.id, application, TrustLog::new(DomainName::new("b.example").unwrap()))
    }

    /// A request of the peer and a reload here at the same time: the log must not keep what was trusted before the reload.
    #[test]
    fn what_is_noted_is_compared_with_what_is_trusted_then() {
        let (app, application, log) = application();
        let header = trust(2).to_header();
        log.note(app, &application, header.as_bytes());
        for (root, is_note) in [(2, true), (3, true), (2, false), (3, false)] {
            std::thread::scope(|scope| {
                let told = log.told();
                scope.spawn(|| {
                    if is_note {
                        log.note(app, &application, header.as_bytes());
                    } else {
                        log.compare(app, &application);
                    }
                });
                // The other thread waits for the lock by then.
                std::thread::sleep(Duration::from_millis(50));
                application.take_trust(Some(trust(root)));
                drop(told);
            });
            let expected: &[&str] = if root == 2 { &[] } else { &["trust_roots"] };
            assert_eq!(log.told()[&app].state.present, expected, "{root} {is_note}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_follows_both_gateways_and_has_the_latest_after_a_pause() {
        let (app, application, log) = application();
        let logged = || log.told()[&app].state.logged.clone();
        log.note(app, &application, trust(2).to_header().as_bytes());
        assert_eq!(logged(), ["trust_roots"]);
        // This gateway takes the other's roots.
        application.take_trust(Some(trust(2)));
        log.compare(app, &application);
        assert_eq!(logged(), ["trust_roots"], "not so soon");
        tokio::time::sleep(PAUSE + Duration::from_secs(1)).await;
        assert_eq!(logged(), [""; 0]);
        tokio::time::sleep(PAUSE).await;
        application.take_trust(Some(trust(3)));
        log.compare(app, &application);
        assert_eq!(logged(), ["trust_roots"]);
    }
}
