//! Players of a group: committers that race for epochs, a proposer, and a client that repeatedly joins from outside.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actors::Epoch;
use tokio::sync::mpsc;

use super::{
    ToolError,
    options::Kind,
    pool::ConnectionPool,
    recorder::{Ended, Recorder, Span},
    scoreboard::Scoreboard,
    setup::compute,
    stop::Stop,
    upload::{self, Fate, label},
};
use crate::{
    api::{
        groups::{CommitBody, EpochMessages, ProposalBody},
        problem::ProblemKind,
        text::Base64,
    },
    client::RequestError,
    tools::mls_client::MlsClient,
};

/// The pause of a player whose request failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The state that all players of a run share.
#[derive(Debug)]
pub(super) struct RunContext {
    pub(super) pool: ConnectionPool,
    pub(super) recorder: Recorder,
    /// Whether committers fetch proposals before they commit.
    pub(super) with_proposals: bool,
    /// The time at which a commit that has not won yet is given up.
    pub(super) give_up_at: Instant,
    /// Ends it earlier.
    pub(super) stop: Stop,
}

impl RunContext {
    /// Whether it is time to give up what has not been accepted yet.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.give_up_at || self.stop.is_requested()
    }
}

/// The times at which a player acts.
#[derive(Debug)]
pub(super) enum Intents {
    /// At these times, whatever the gateway does.
    Scheduled(mpsc::Receiver<Instant>),
    /// Repeatedly until this time, or until the run is to stop.
    Closed { until: Instant, stop: Stop },
}

impl Intents {
    async fn next(&mut self) -> Option<Instant> {
        match self {
            Self::Scheduled(due) => due.recv().await,
            Self::Closed { until, stop } => {
                Some(Instant::now()).filter(|now| now < until && !stop.is_requested())
            }
        }
    }

    fn is_closed_loop(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// The remaining intents are counted as given up.
    fn give_up(&mut self, kind: Kind, scoreboard: &Scoreboard, recorder: &Recorder) {
        if let Self::Scheduled(due) = self {
            due.close();
            while due.try_recv().is_ok() {
                recorder.given_up(kind);
                scoreboard.finish();
            }
        }
    }
}

/// A member and its actions.
pub(super) struct Player {
    shared: Arc<RunContext>,
    scoreboard: Arc<Scoreboard>,
    /// `None` while it computes elsewhere.
    member: Option<MlsClient>,
    /// A commit for the epoch that the member is in, pending.
    prepared: Option<CommitBody>,
    /// The last proposal and its epoch.
    proposed: Option<(Epoch, Base64)>,
    /// Whether the outcome of its last external commit, which replaces its own leaf, is unknown.
    may_be_replaced: bool,
}

/// A player after the run.
pub(super) struct Played {
    /// `None` if its thread panicked, or if it is unknown whether it is still in the group.
    pub(super) member: Option<MlsClient>,
    /// The reason why it could not continue, if it could not.
    pub(super) lost: Option<String>,
}

impl Played {
    /// A player whose task panicked.
    pub(super) fn panicked(error: tokio::task::JoinError) -> Self {
        Self { member: None, lost: Some(ToolError::panicked(error).to_string()) }
    }
}

impl Player {
    pub(super) fn new(shared: Arc<RunContext>, scoreboard: Arc<Scoreboard>, member: MlsClient) -> Self {
        Self {
            shared,
            scoreboard,
            member: Some(member),
            prepared: None,
            proposed: None,
            may_be_replaced: false,
        }
    }

    /// Commits, proposes or joins at every intent. Committers have a number.
    pub(super) async fn play(mut self, kind: Kind, number: usize, mut intents: Intents) -> Played {
        let played = if kind == Kind::Commit {
            self.commit_all(number, &mut intents).await
        } else {
            self.propose_or_join(kind, &mut intents).await
        };
        intents.give_up(kind, &self.scoreboard, &self.shared.recorder);
        let member = self.member.filter(|_| !self.may_be_replaced);
        Played { member, lost: played.err().map(|error| error.to_string()) }
    }

    async fn propose_or_join(&mut self, kind: Kind, intents: &mut Intents) -> Result<(), ToolError> {
        while let Some(due) = intents.next().await {
            let done = if kind == Kind::Join { self.join(due).await } else { self.propose(due).await };
            self.scoreboard.finish();
            done?;
        }
        Ok(())
    }

    async fn commit_all(&mut self, number: usize, intents: &mut Intents) -> Result<(), ToolError> {
        loop {
            let due = match intents {
                // Players are not told of new epochs here: a waiting one checks once all are idle.
                Intents::Scheduled(due) if self.prepared.is_none() => {
                    let scoreboard = Arc::clone(&self.scoreboard);
                    tokio::select! {
                        biased;
                        due = due.recv() => due,
                        () = scoreboard.quiet() => {
                            self.prepare().await?;
                            due.recv().await
                        }
                    }
                }
                Intents::Scheduled(_) | Intents::Closed { .. } => intents.next().await,
            };
            let Some(due) = due else { return Ok(()) };
            let due = if intents.is_closed_loop() {
                self.prepare().await?;
                if self.is_over() {
                    // Nothing was sent, so nothing is given up.
                    return Ok(());
                }
                Instant::now()
            } else {
                due
            };
            let committed = self.commit(number, due).await;
            self.scoreboard.finish();
            committed?;
        }
    }

    /// Uploads commits until one is accepted, or until it is time to give up.
    async fn commit(&mut self, number: usize, due: Instant) -> Result<(), ToolError> {
        let recorder = &Arc::clone(&self.shared).recorder;
        let mut lost_at = None;
        let mut attempts = 0_u32;
        while !self.is_over() {
            if self.prepared.is_none() {
                self.prepare().await?;
            }
            let Some(commit) = self.prepared.take() else {
                // The gateway did not answer.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            attempts = attempts.saturating_add(1);
            let now = Instant::now();
            let first = attempts == 1;
            if first {
                recorder.span(Span::Lag, now.saturating_duration_since(due));
            }
            let since = if first { due } else { now };
            let fate = upload::commit(&self.shared, &self.scoreboard, Kind::Commit, &commit, since).await;
            if let Some((uploads, accepted)) = self.scoreboard.ledger().committers.get_mut(number) {
                *uploads += 1;
                *accepted += u64::from(fate == Fate::Accepted);
            }
            match fate {
                Fate::Accepted => {
                    recorder.accepted_after(attempts);
                    recorder.span(Span::Settled, due.elapsed());
                    if let Some(lost_at) = lost_at {
                        recorder.span(Span::Resolution, Instant::elapsed(&lost_at));
                    }
                    return self.change(|member| member.apply_commit()).await;
                }
                Fate::Late => {
                    lost_at.get_or_insert_with(Instant::now);
                    self.change(|member| member.discard_commit()).await?;
                }
                Fate::GivenUp => {
                    self.change(|member| member.discard_commit()).await?;
                    break;
                }
                // It stays pending; the history will tell whether it was accepted.
                Fate::Unanswered => break,
            }
        }
        recorder.given_up(Kind::Commit);
        Ok(())
    }

    /// Follows to the current epoch and makes a commit for it; `None` if the gateway does not answer.
    async fn prepare(&mut self) -> Result<(), ToolError> {
        let pool = self.shared.pool.clone();
        if self.prepared.take().is_some() {
            self.change(|member| member.discard_commit()).await?;
        }
        let Some(missed) = self.missed().await else { return Ok(()) };
        let mut proposals = Vec::new();
        if self.shared.with_proposals {
            match pool.request(pool.api.proposals(&self.scoreboard.id)).await {
                Ok(waiting) => {
                    let newest = missed.last().map(|epoch| epoch.epoch_id).or(self.epoch());
                    if Some(waiting.epoch_id) == newest {
                        proposals = waiting.messages;
                    }
                }
                Err(error) => self.failed(&error),
            }
        }
        let commit = self
            .change(move |member| {
                member.follow(&missed)?;
                member.take_in(&proposals)?;
                member.make_commit(&[], &[])
            })
            .await?;
        self.prepared = Some(commit);
        Ok(())
    }

    async fn propose(&mut self, due: Instant) -> Result<(), ToolError> {
        let shared = Arc::clone(&self.shared);
        let Some(missed) = self.missed().await else {
            shared.recorder.given_up(Kind::Proposal);
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        };
        self.change(move |member| member.follow(&missed)).await?;
        let epoch = self.epoch().unwrap_or_default();
        // A member proposes one update of itself per epoch, and uploads the same again.
        let packet = match self.proposed.take() {
            Some((of, packet)) if of == epoch => packet,
            Some(_) | None => self.change(|member| member.make_update_proposal()).await?,
        };
        self.proposed = Some((epoch, packet.clone()));
        let body = ProposalBody { packet };
        let answer = shared.pool.request(shared.pool.api.upload_proposal(&self.scoreboard.id, &body)).await;
        shared.recorder.request(Kind::Proposal, due, ended(&answer));
        Ok(())
    }

    async fn join(&mut self, due: Instant) -> Result<(), ToolError> {
        let shared = Arc::clone(&self.shared);
        let mut since = due;
        while !self.is_over() {
            let infos = match shared.pool.request(shared.pool.api.group_info(&self.scoreboard.id)).await {
                Ok(infos) => infos.group_infos,
                Err(error) => {
                    self.failed(&error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(info) = infos.into_iter().next() else {
                return Err(ToolError::Broken("a group whose committers give group infos has none".into()));
            };
            let (joined, commit) = self.change(move |member| member.external_commit(&info)).await?;
            match upload::commit(&shared, &self.scoreboard, Kind::Join, &commit, since).await {
                Fate::Accepted => {
                    self.member = Some(joined);
                    self.may_be_replaced = false;
                    return Ok(());
                }
                Fate::Late => since = Instant::now(),
                Fate::GivenUp => break,
                Fate::Unanswered => {
                    self.may_be_replaced = true;
                    break;
                }
            }
        }
        shared.recorder.given_up(Kind::Join);
        Ok(())
    }

    /// The commits since the member's epoch; `None` if the gateway did not answer.
    async fn missed(&self) -> Option<Vec<EpochMessages>> {
        let asked = Instant::now();
        match self.shared.pool.history(&self.scoreboard.id, self.epoch()).await {
            Ok((missed, _)) => {
                self.shared.recorder.request(Kind::Read, asked, Ended::Done);
                Some(missed)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    fn failed(&self, error: &RequestError) {
        self.shared.recorder.request(Kind::Read, Instant::now(), Ended::Failed(label(error)));
    }

    fn epoch(&self) -> Option<Epoch> {
        self.member.as_ref().and_then(MlsClient::epoch)
    }

    fn is_over(&self) -> bool {
        self.shared.is_over()
    }

    /// Runs the member's computation on a thread where it delays no answer.
    async fn change<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut MlsClient) -> Result<T, ToolError> + Send + 'static,
    ) -> Result<T, ToolError> {
        let Some(mut member) = self.member.take() else {
            return Err(ToolError::Broken("a member was lost in a panic".into()));
        };
        let (member, result) = compute(move || {
            let result = work(&mut member);
            Ok((member, result))
        })
        .await?;
        self.member = Some(member);
        result
    }
}

/// The outcome of a request other than a commit.
pub(super) fn ended<T>(answer: &Result<T, RequestError>) -> Ended {
    match answer {
        Ok(_) => Ended::Done,
        Err(error) if error.kind() == Some(ProblemKind::StaleEpoch) => Ended::Late,
        Err(error) => Ended::Failed(label(error)),
    }
}
