//! The audit log, for operators.

use std::sync::Arc;

use super::{
    operations::check_known,
    operator::Operators,
    problem::Problem,
    route::{Answer, Call, Handle, apart},
};
use crate::api::audit::{AuditLog, AuditedEntry, ListAudit};

impl Handle<Operators> for ListAudit {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<AuditLog>, Problem> {
        let (edge, app, query) = (call.edge, call.path.app, call.query);
        check_known(&edge, app)?;
        let list: [&[u8]; 2] = [b"audit log", app.as_uuid().as_bytes()];
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let before = edge.cursors.take(&list, query.cursor.as_deref(), number)?;
        let limit = query.limit.get();
        call.turn.begin().await?;
        let there = Arc::clone(&edge);
        let read = move || there.gateway.audit_entries(app, before, limit.saturating_add(1));
        let mut found = apart(read).await??;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| has_more).map(|(number, _)| number.to_be_bytes());
        let next_cursor = last.map(|number| edge.cursors.give(&list, &number));
        let entries = found.into_iter().map(AuditedEntry::from).collect();
        Ok(Answer::Ok(AuditLog { entries, next_cursor }))
    }
}
