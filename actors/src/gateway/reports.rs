//! Reports of members that cannot open an epoch. A commit can be wrong for members alone, in its path secrets or its confirmation
//! tag. When enough members say so, the application, the operators and the audit log are told.

use std::sync::atomic::Ordering;

use snapshots::{
    AppId, AppendError, AuditRow, Batch, ClientHandle, DomainName, Epoch, EpochRow, GroupId, GroupRow,
    MemberReport, ReportOutcome, ReportedEpoch, Unmet, View, away,
};

use super::{Gateway, groups::check_source, replicas::unwritten};
use crate::{
    application::{DomainError, Source},
    error::StorageError,
    group::{GroupError, GroupView},
};

/// What a member could not do with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Decrypt the path secret that is for it (RFC 9420 §7.5).
    CannotDecryptPath,
    /// Verify the confirmation tag (RFC 9420 §8.1).
    ConfirmationTag,
    /// Something else.
    Other,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReport {
    /// The epoch that the member cannot open.
    pub epoch: Epoch,
    /// The member's handle.
    pub handle: ClientHandle,
    /// Its domain, where the application uses domains.
    pub domain: Option<DomainName>,
    /// What it could not do.
    pub kind: ReportKind,
}

impl ReportKind {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CannotDecryptPath => "cannot-decrypt-path",
            Self::ConfirmationTag => "confirmation-tag",
            Self::Other => "other",
        }
    }
}

impl Gateway {
    /// The domain of a reporting member: the one that is given, which must be one of this gateway's, else its only one.
    ///
    /// # Errors
    /// [`DomainError`].
    pub fn reporter_domain(
        &self,
        app: AppId,
        domain: Option<DomainName>,
    ) -> Result<Option<DomainName>, DomainError> {
        self.application(app).map_or(Ok(None), |application| application.client_domain(domain))
    }

    /// Notes that a member cannot open an epoch, in a group that this gateway orders. Answers the number of distinct members who
    /// have reported the epoch. From [`Limits::epoch_reports_percent`](crate::Limits) of the present members on, the application is
    /// told, once for an epoch; reports of members who have left count no longer then.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], [`GroupError::NotHub`], [`GroupError::InvalidReport`] if no present member has this handle, if it
    /// came after the epoch, or if no commit of the group has created the epoch, [`GroupError::EpochsPruned`], or that the gateway
    /// cannot write.
    pub async fn report_epoch(
        &self,
        app: AppId,
        group: &GroupId,
        report: NewReport,
        source: &Source,
    ) -> Result<u64, GroupError> {
        let application = self.group_application(app)?;
        let row = self.group_row(app, group)?;
        check_source(application, source, row.hub.clone())?;
        let NewReport { epoch, handle, domain, kind } = report;
        if !application.speaks_for(source, domain.as_ref()) {
            return Err(GroupError::InvalidReport("the member is of a domain of another gateway".into()));
        }
        let members = self.registry.group_view(application, group).await?;
        let view = self.services.store.view();
        let row_of_epoch = reported_row(&view, app, &members, epoch)?;
        match view.member_since(app, &handle, domain.as_ref(), group).map_err(StorageError::from)? {
            None => {
                return Err(GroupError::InvalidReport("no member of the group has this handle now".into()));
            }
            Some(since) if since > epoch => {
                let detail = format!("the member came in epoch {}, after the epoch {}", since.0, epoch.0);
                return Err(GroupError::InvalidReport(detail));
            }
            Some(_) => {}
        }
        let mut report = MemberReport {
            epoch,
            handle,
            domain,
            kind: kind.name(),
            committer: row_of_epoch.committer,
            told_from: u64::MAX,
            at: self.services.clock.now(),
            audit_rows_max: self.services.audit.rows_max,
        };
        let share = self.services.limits.reporters_told_from(members.members_count());
        let mut view = view;
        loop {
            let before = view.reported_epoch(app, group, epoch).map_err(StorageError::from)?;
            // Those who have left count neither as members nor as reporters. They are counted only when it matters.
            let is_counted = before.as_ref().map_or(1, |row| row.reporters.saturating_add(1)) >= share;
            report.told_from = match before {
                Some(row) if is_counted && row.told.is_none() => {
                    share.saturating_add(absent_reporters(view.clone(), app, group, epoch).await?)
                }
                Some(_) | None if is_counted => share,
                Some(_) | None => u64::MAX,
            };
            if let Some(reporters) = reported_before(&view, app, group, &report)? {
                return Ok(reporters);
            }
            let reporters = self.note_report(app, (group, &row), &report).await?;
            if is_counted || reporters < share {
                return Ok(reporters);
            }
            // Others have reported it meanwhile.
            view = self.services.store.view();
        }
    }

    async fn note_report(
        &self,
        app: AppId,
        (group, row): (&GroupId, &GroupRow),
        report: &MemberReport,
    ) -> Result<u64, GroupError> {
        let mut batch = Batch::new();
        batch.require_group(app, group, row);
        batch.require_epoch(app, group, report.epoch);
        batch.report_epoch(app, group, report);
        batch.announce(app, report.at);
        let outcome = match self.services.store.append(batch).await {
            Ok(appended) => appended.reported,
            Err(AppendError::Precondition(Unmet::GroupReplaced)) => return Err(GroupError::UnknownGroup),
            // Its history was shortened meanwhile.
            Err(AppendError::Precondition(Unmet::EpochMissing)) => {
                return Err(pruned(&self.services.store.view(), app, group, report.epoch)?);
            }
            Err(error) => return Err(unwritten(&error, "the report")),
        };
        let ReportOutcome { reporters, is_told_now } = outcome.ok_or(StorageError::Unreadable)?;
        if is_told_now {
            self.services.epochs_reported.fetch_add(1, Ordering::Relaxed);
            let committer = report.committer.as_ref().map(|committer| committer.leaf_index);
            tracing::warn!(
                application = %app, ?group, epoch = report.epoch.0, reporters, committer,
                "members report that they cannot open an epoch"
            );
        }
        Ok(reporters)
    }

    /// Up to `limit` reported epochs of an application, in the order of their groups, after the one given. It reads the disk.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn reported_epochs(
        &self,
        app: AppId,
        after: Option<(GroupId, Epoch)>,
        limit: usize,
    ) -> Result<Vec<(GroupId, Epoch, ReportedEpoch)>, StorageError> {
        Ok(self.services.store.view().reported_epochs(app, after, limit)?)
    }

    /// Up to `limit` entries of an application's audit log with their numbers, the newest first, before the number given. It reads
    /// the disk.
    ///
    /// # Errors
    /// [`StorageError`] when the store cannot be read.
    pub fn audit_entries(
        &self,
        app: AppId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditRow)>, StorageError> {
        Ok(self.services.store.view().audit_entries(app, before, limit)?)
    }

    /// The number of epochs that enough members have reported since the start.
    pub fn epochs_reported(&self) -> u64 {
        self.services.epochs_reported.load(Ordering::Relaxed)
    }
}

/// The row of a reported epoch.
fn reported_row(view: &View, app: AppId, group: &GroupView, epoch: Epoch) -> Result<EpochRow, GroupError> {
    if epoch.0 == 0 || epoch > group.epoch {
        let detail = format!("no commit of the group has created the epoch {}", epoch.0);
        return Err(GroupError::InvalidReport(detail));
    }
    match view.epoch(app, &group.group, epoch).map_err(StorageError::from)? {
        Some(row) => Ok(row),
        None => Err(pruned(view, app, &group.group, epoch)?),
    }
}

/// The error of an epoch that is no longer kept.
fn pruned(view: &View, app: AppId, group: &GroupId, epoch: Epoch) -> Result<GroupError, StorageError> {
    let floor = view.first_epoch(app, group)?;
    Ok(GroupError::EpochsPruned { floor: floor.unwrap_or(epoch) })
}

/// The number of members who have reported an epoch and have left the group since, or came back after the epoch.
async fn absent_reporters(
    view: View,
    app: AppId,
    group: &GroupId,
    epoch: Epoch,
) -> Result<u64, StorageError> {
    let group = group.clone();
    let counted = away(move || view.absent_reporters(app, &group, epoch)).await;
    Ok(counted.map_err(|_| StorageError::Unreadable)??)
}

/// The number of reporters, if the report changes nothing.
fn reported_before(
    view: &View,
    app: AppId,
    group: &GroupId,
    report: &MemberReport,
) -> Result<Option<u64>, StorageError> {
    if !view.has_reported(app, group, report)? {
        return Ok(None);
    }
    let row = view.reported_epoch(app, group, report.epoch)?;
    // Members may have left since, so that those who reported it are enough now.
    let is_settled = |row: &ReportedEpoch| row.told.is_some() || row.reporters < report.told_from;
    Ok(row.filter(is_settled).map(|row| row.reporters))
}
