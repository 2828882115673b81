//! Prepared commits: chains of them for each group, as requests that only have to be sent.
//!
//! An MLS client works far longer on a commit than a gateway does, so live clients would measure themselves.

use std::sync::Arc;

use actors::{GroupId, Timestamp};

use super::{
    super::{
        ToolError,
        setup::{MadeGroup, compute},
        target::Target,
        verify::{EpochCommit, PacketDigest, digest},
    },
    wire::request,
};
use crate::{
    api::{
        Endpoint as _,
        groups::{CommitBody, EpochMessages, UploadCommit},
        paths::{self, GroupPath},
    },
    tools::mls_client::MlsClient,
};

/// A commit to send.
#[derive(Clone, Debug)]
pub(super) struct PreparedCommit {
    pub(super) request: Arc<[u8]>,
    pub(super) packet: PacketDigest,
}

/// A group whose commits are prepared.
pub(super) struct PreparedGroup {
    pub(super) id: GroupId,
    /// Two members, which commit in turn.
    pub(super) pair: [MlsClient; 2],
    pub(super) chain: Vec<PreparedCommit>,
    /// A commit that lost its epoch.
    pub(super) stale: Arc<[u8]>,
    pub(super) acknowledged: Vec<EpochCommit>,
    /// The sizes of a commit packet and its group info, in bytes.
    pub(super) sizes: (usize, usize),
    with_group_info: bool,
}

impl PreparedGroup {
    pub(super) fn new(made: MadeGroup, with_group_info: bool) -> Result<Self, ToolError> {
        let mut live = made.live.into_iter();
        let (Some(first), Some(second)) = (live.next(), live.next()) else {
            return Err(ToolError::Broken("a group without two live members".into()));
        };
        Ok(Self {
            id: made.id,
            pair: [first, second],
            chain: Vec::new(),
            stale: Arc::default(),
            acknowledged: made.acknowledged,
            sizes: (0, 0),
            with_group_info,
        })
    }

    /// Prepares this many commits to replace those that were sent.
    pub(super) async fn prepare(mut self, target: Target, count: usize) -> Result<Self, ToolError> {
        compute(move || {
            self.chain.clear();
            for _ in 0..count {
                self.prepare_one(&target)?;
            }
            Ok(self)
        })
        .await
    }

    fn prepare_one(&mut self, target: &Target) -> Result<(), ToolError> {
        let [committer, other] = &mut self.pair;
        if self.stale.is_empty() {
            let loser = other.make_commit(&[], &[])?;
            other.discard_commit()?;
            self.stale = upload(target, &self.id, &loser)?;
        }
        let mut commit = committer.make_commit(&[], &[])?;
        committer.apply_commit()?;
        if !self.with_group_info {
            commit.group_info = None;
        }
        let epoch = committer.epoch().unwrap_or_default();
        other.follow(&[EpochMessages {
            epoch_id: epoch,
            timestamp: Timestamp(0),
            proposals: Vec::new(),
            commit: commit.commit_packet.clone(),
        }])?;
        let packet = digest(&commit.commit_packet.0);
        self.sizes =
            (commit.commit_packet.0.len(), commit.group_info.as_ref().map_or(0, |info| info.0.len()));
        self.chain.push(PreparedCommit { request: upload(target, &self.id, &commit)?, packet });
        self.pair.swap(0, 1);
        Ok(())
    }
}

fn upload(target: &Target, group: &GroupId, commit: &CommitBody) -> Result<Arc<[u8]>, ToolError> {
    let path = paths::fill(UploadCommit::PATH, &GroupPath { app: target.app, group: group.clone() });
    let body = serde_json::to_vec(commit)
        .map_err(|error| ToolError::Broken(format!("a commit has no JSON form: {error}")))?;
    Ok(request(UploadCommit::METHOD.as_str(), &path, target.token.reveal(), Some(&body)).into())
}
