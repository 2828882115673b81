//! Operations on groups (*Managing Groups without Metadata Protection*): creation, uploads, and reads by members.

use std::sync::Arc;

use snapshots::{AppId, AppendError, DomainName, Epoch, GroupId, GroupRow, Timestamp, Unmet, View};
use tracing::Span;

use super::{Gateway, replicas::unwritten};
use crate::{
    application::{Application, Source},
    error::StorageError,
    group::{
        Accepted, AcceptedCommit, AcceptedProposal, ControlMessages, CreatedGroup, EntriesAfter,
        EntryContent, GroupError, GroupMeta, GroupState, GroupView, NewGroup, Outcome, UploadEntry,
        accepted_before, control_messages, creation, entries_after, refused,
    },
    lost_commits::LostCommit,
    mls::{CommitBundle, RequestMember, Rule, packet_head, sender_leaf},
};

impl Gateway {
    /// Creates a group (*Group Creation*).
    ///
    /// # Errors
    /// [`GroupError::GroupExists`], [`GroupError::InvalidGroupInfo`], [`GroupError::MalformedMessage`],
    /// [`GroupError::TooLarge`], or that the gateway cannot write.
    pub async fn create_group(
        &self,
        app: AppId,
        new: NewGroup,
        source: Source,
    ) -> Result<CreatedGroup, GroupError> {
        let (application, new) = (self.group_application(app)?, Arc::new(new));
        let now = self.services.clock.now();
        let (state, meta) = self.validate_creation(application, Arc::clone(&new), source, now).await?;
        let group = meta.group.clone();
        let mut batch = creation(&meta, &state, &new)?;
        batch.announce(app, now);
        batch.require_quotas(app, application.quotas);
        let outcome = match self.services.store.append(batch).await {
            Ok(_) => Outcome::New,
            Err(AppendError::Precondition(Unmet::LogExists)) => {
                if self.group_row(app, &group)?.creation_digest == meta.row.creation_digest {
                    Outcome::Repeated
                } else if self.create_instead(application, &meta, &state, &new).await? {
                    Outcome::New
                } else {
                    return Err(GroupError::GroupExists);
                }
            }
            Err(AppendError::Precondition(Unmet::GroupDeleted)) => return Err(GroupError::GroupExists),
            Err(AppendError::Precondition(Unmet::QuotaExceeded(quota))) => {
                return Err(GroupError::Quota(quota));
            }
            Err(error) => return Err(unwritten(&error, "the group")),
        };
        if outcome == Outcome::New {
            meta.notify_peers(&*self.services.notices);
        }
        Ok(CreatedGroup { group, outcome })
    }

    /// Validates a new group on another thread; the row is the one that its creation writes.
    pub(super) async fn validate_creation(
        &self,
        application: &Application,
        new: Arc<NewGroup>,
        source: Source,
        at: Timestamp,
    ) -> Result<(GroupState, GroupMeta), GroupError> {
        let digest = new.digest();
        let (services, application_there) = (Arc::clone(&self.services), application.clone());
        let place = self.services.validation.place(application.id).ok_or(GroupError::Busy)?;
        let validated = place.run(move || {
            GroupState::create(services.validation_context(&application_there, &source), &new, at)
        });
        let state = validated.await.ok_or_else(not_validated)??;
        let hub = state.hub().cloned();
        let row = GroupRow { epoch: Epoch(0), created_at: at, creation_digest: digest, hub };
        let meta = GroupMeta::new(application, state.id().clone(), row);
        Ok((state, meta))
    }

    /// The present view of a group; everything in it is durable.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub async fn group(&self, app: AppId, group: &GroupId) -> Result<Arc<GroupView>, GroupError> {
        self.registry.group_view(self.group_application(app)?, group).await
    }

    /// The present view of a group, and the packets of the proposals that wait in its epoch and can still be committed, oldest
    /// first (*Proposals*).
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub async fn current_proposals(
        &self,
        app: AppId,
        group: &GroupId,
    ) -> Result<(Arc<GroupView>, Vec<Arc<[u8]>>), GroupError> {
        let application = self.group_application(app)?;
        let view = self.registry.group_view(application, group).await?;
        let now = self.services.clock.now();
        let current = view.current_proposals(application, &self.services.store.view(), now)?;
        Ok((view, current))
    }

    /// Uploads a proposal of the current epoch (*Proposals*).
    ///
    /// # Errors
    /// The fault of the proposal, [`GroupError::StaleEpoch`], [`GroupError::UnknownGroup`], [`GroupError::TooManyProposals`],
    /// [`GroupError::KeyPackageReused`], or that the gateway cannot write.
    pub async fn upload_proposal(
        &self,
        app: AppId,
        group: &GroupId,
        packet: impl Into<Arc<[u8]>>,
        source: Source,
    ) -> Result<AcceptedProposal, GroupError> {
        let packet = packet.into();
        let head = head(group, (RequestMember::Packet, &packet), |rule, detail| {
            GroupError::InvalidProposal { rule, detail }
        });
        match self.upload(app, group, head, EntryContent::Proposal { packet }, source).await? {
            Accepted::Proposal(proposal) => Ok(proposal),
            Accepted::Commit(_) => Err(StorageError::Unreadable.into()),
        }
    }

    /// Uploads a commit of the current epoch with its group info and welcome (*Commits*). The first valid one wins the epoch;
    /// the winner, uploaded again, gets its first answer again.
    ///
    /// # Errors
    /// [`GroupError::StaleEpoch`] for every other commit, found before any signature is verified; the fault of the commit;
    /// [`GroupError::UnknownGroup`], [`GroupError::KeyPackageReused`], or that the gateway cannot write.
    pub async fn upload_commit(
        &self,
        app: AppId,
        group: &GroupId,
        bundle: impl Into<Arc<CommitBundle>>,
        source: Source,
    ) -> Result<AcceptedCommit, GroupError> {
        let bundle = bundle.into();
        let head = head(group, (RequestMember::CommitPacket, &bundle.commit), |rule, detail| {
            GroupError::InvalidCommit { rule, detail, proposal: None }
        });
        let uploaded = self.upload(app, group, head, EntryContent::Commit(Arc::clone(&bundle)), source).await;
        if let Err(GroupError::StaleEpoch { packet, .. }) = &uploaded {
            let lost = LostCommit { committer: sender_leaf(&bundle.commit), at: self.services.clock.now() };
            self.services.lost_commits.note(app, group, *packet, (&bundle.commit, lost));
        }
        match uploaded? {
            Accepted::Commit(commit) => Ok(commit),
            Accepted::Proposal(_) => Err(StorageError::Unreadable.into()),
        }
    }

    /// Sends an upload to the group's owner; `head` is the packet's epoch.
    async fn upload(
        &self,
        app: AppId,
        group: &GroupId,
        head: Result<Epoch, GroupError>,
        content: EntryContent,
        source: Source,
    ) -> Result<Accepted, GroupError> {
        let application = self.group_application(app)?;
        content.check_sizes(&self.services.limits)?;
        let (current, hub) = match self.registry.shown(app, group) {
            Some(view) => (view.epoch, view.hub.clone()),
            None => {
                let row = self.group_row(app, group)?;
                (row.epoch, row.hub)
            }
        };
        let epoch = head?;
        if epoch < current {
            let view = self.services.store.view();
            let stale = GroupError::StaleEpoch { packet: epoch, current };
            return match accepted_before(&view, app, group, epoch, &content)? {
                Some(accepted) => Ok(accepted),
                None => Err(unless_unknown(&view, application, group, epoch, hub, stale)),
            };
        }
        check_source(application, &source, hub)?;
        self.registry
            .ask_group(application, group, |permit| UploadEntry {
                content: content.clone(),
                source: source.clone(),
                span: Span::current(),
                permit,
            })
            .await
    }

    /// The packets that lead from one epoch to another (*Commits*, `control-msgs`), read from disk unless they are recent.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::EpochsPruned`], or that the store cannot be read.
    pub async fn control_messages(
        &self,
        app: AppId,
        group: &GroupId,
        from: Epoch,
        to: Option<Epoch>,
        limit: usize,
    ) -> Result<ControlMessages, GroupError> {
        self.group_application(app)?;
        // The answer names every packet twice: in the draft's list and in its epoch.
        let bytes_max = self.services.limits.answer_bytes_max / 2;
        if let Some(view) = self.registry.shown(app, group) {
            let (now, limits) = (self.services.clock.now(), self.services.recent);
            if let Some(recent) = view.recent_messages((from, to), limit, bytes_max, now, limits) {
                return Ok(recent);
            }
        }
        control_messages(&self.services.store.view(), app, group, (from, to), limit, bytes_max)
    }

    /// What follows the entry of this number in a group's log, at its hub and at its followers alike: at most `limit` entries, and
    /// about as many bytes of them as an answer may have. It blocks while it reads from disk.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], or that the store cannot be read.
    pub fn entries_after(
        &self,
        app: AppId,
        group: &GroupId,
        after: u64,
        limit: usize,
    ) -> Result<EntriesAfter, GroupError> {
        self.group_application(app)?;
        let bytes_max = self.services.limits.answer_bytes_max;
        entries_after(&self.services.store.view(), app, group, after, limit, bytes_max)
    }

    pub(crate) fn group_application(&self, app: AppId) -> Result<&Application, GroupError> {
        if self.services.is_stopping() {
            return Err(GroupError::Stopping);
        }
        self.application(app).ok_or(GroupError::UnknownGroup)
    }

    pub(crate) fn group_row(&self, app: AppId, group: &GroupId) -> Result<GroupRow, GroupError> {
        let row = self.services.store.view().group(app, group).map_err(StorageError::from)?;
        row.ok_or(GroupError::UnknownGroup)
    }
}

/// The epoch of a packet that is for this group.
/// The validation ended in a panic.
pub(super) fn not_validated() -> GroupError {
    GroupError::InvalidGroupInfo("the group info cannot be validated".into())
}

fn head(
    group: &GroupId,
    (member, packet): (RequestMember, &[u8]),
    broken: impl Fn(Rule, String) -> GroupError,
) -> Result<Epoch, GroupError> {
    let head = packet_head(member, packet)
        .map_err(|refusal| refused(refusal, |rule, detail, _| broken(rule, detail)))?;
    if head.group.as_ref() != Some(group) {
        return Err(broken(Rule::Group, "the packet was made for another group".into()));
    }
    Ok(head.epoch)
}

/// Checks that this sender may upload, and that this gateway orders the group.
pub(super) fn check_source(
    application: &Application,
    source: &Source,
    hub: Option<DomainName>,
) -> Result<(), GroupError> {
    let is_known = match source {
        Source::Application | Source::Hub => true,
        Source::Peer(domains) => application.federates_with_any(domains),
    };
    match hub {
        _ if !is_known => Err(GroupError::UnknownGroup),
        Some(hub) if !application.is_hub(Some(&hub)) => Err(GroupError::NotHub { hub }),
        Some(_) | None => Ok(()),
    }
}

/// The error of a stale packet, or, on a replica that does not know the history of the packet's epoch, the hub to which to
/// forward it.
fn unless_unknown(
    view: &View,
    application: &Application,
    group: &GroupId,
    epoch: Epoch,
    hub: Option<DomainName>,
    stale: GroupError,
) -> GroupError {
    let Some(hub) = hub.filter(|hub| !application.is_hub(Some(hub))) else { return stale };
    match epoch.next().map(|created| view.epoch(application.id, group, created)) {
        Some(Ok(None)) => GroupError::NotHub { hub },
        Some(Ok(Some(_))) | None => stale,
        Some(Err(error)) => StorageError::from(error).into(),
    }
}
