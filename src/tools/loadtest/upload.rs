//! Uploads repeated until they are answered: an upload is safe to repeat, so a broken connection decides nothing.

use std::time::{Duration, Instant};

use super::{
    options::Kind,
    player::RunContext,
    recorder::Ended,
    scoreboard::Scoreboard,
    verify::{EpochCommit, digest},
};
use crate::{
    api::{groups::CommitBody, problem::ProblemKind},
    client::RequestError,
};

/// The number of tries of an upload without a conclusive answer.
const SENDS_MAX: u32 = 5;
/// The pause before it is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    /// Another one was first.
    Late,
    /// It was refused.
    GivenUp,
    /// It was sent, and its outcome is unknown.
    Unanswered,
}

/// Uploads a commit whose latency counts from `due`, and notes its acknowledgement on the group's scoreboard.
pub(super) async fn commit(
    shared: &RunContext,
    scoreboard: &Scoreboard,
    kind: Kind,
    commit: &CommitBody,
    due: Instant,
) -> Fate {
    let RunContext { pool, recorder, .. } = shared;
    let mut is_undecided = false;
    for send in 0..SENDS_MAX {
        if send > 0 {
            if shared.is_over() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let answer = pool.request(pool.api.upload_commit(&scoreboard.id, commit)).await;
        let error = match answer {
            Ok(accepted) => {
                recorder.request(kind, due, Ended::Done);
                let packet = &commit.commit_packet.0;
                let acknowledged = EpochCommit::new(accepted.epoch_id, accepted.timestamp, packet);
                scoreboard.ledger().acknowledged.push(acknowledged);
                return Fate::Accepted;
            }
            Err(error) => error,
        };
        if error.kind() == Some(ProblemKind::StaleEpoch) {
            recorder.request(kind, due, Ended::Late);
            return Fate::Late;
        }
        recorder.request(kind, due, Ended::Failed(label(&error)));
        is_undecided |= decides_nothing(&error);
        if !may_pass(&error) {
            break;
        }
    }
    if !is_undecided {
        return Fate::GivenUp;
    }
    scoreboard.ledger().unanswered.insert(digest(&commit.commit_packet.0));
    Fate::Unanswered
}

/// The name under which an error is counted: a few words, the same for all of its kind.
pub(super) fn label(error: &RequestError) -> String {
    match error {
        RequestError::Problem(problem) => format!("{} {}", problem.status, problem.slug()),
        RequestError::Transport(error) if error.is_timeout() => "connection: timeout".to_owned(),
        RequestError::Transport(error) if error.is_connect() => "connection: refused".to_owned(),
        RequestError::Transport(_) => "connection: broken".to_owned(),
        RequestError::Unexpected { status, .. } => format!("{status} not an answer of a gateway"),
    }
}

/// Whether the gateway may have processed the request all the same.
pub(super) fn decides_nothing(error: &RequestError) -> bool {
    match error {
        RequestError::Problem(problem) => problem.status >= 500,
        RequestError::Transport(_) | RequestError::Unexpected { .. } => true,
    }
}

/// Whether the same request may succeed later.
fn may_pass(error: &RequestError) -> bool {
    match error {
        RequestError::Problem(problem) => problem.status == 429 || problem.status >= 500,
        RequestError::Transport(_) => true,
        RequestError::Unexpected { .. } => false,
    }
}
