//! Groups that are created and deleted, one after the other.

use actors::GroupId;
use mimi_gateway::{
    api::{groups::NewGroupBody, problem::ProblemKind},
    client::{GatewayClient, RequestError},
};

use crate::{acknowledged, group::new_group};

/// What is known of the groups that were deleted.
#[derive(Default)]
pub(crate) struct Deletions {
    deleted: usize,
    /// Those that were deleted since the last restart.
    last: Vec<(GroupId, NewGroupBody)>,
    pending: Option<Pending>,
}

/// What was sent and not answered.
enum Pending {
    Creation(NewGroupBody),
    Deletion(GroupId, NewGroupBody),
}

impl Deletions {
    pub(crate) fn count(&self) -> usize {
        self.deleted
    }

    /// Creates and deletes groups until the gateway is gone.
    pub(crate) async fn write(&mut self, api: &GatewayClient) {
        assert!(self.pending.is_none());
        loop {
            let new = new_group();
            self.pending = Some(Pending::Creation(new.clone()));
            let Some(created) = acknowledged(api.create_group(&new).await) else { return };
            let id = created.group_id.0;
            self.pending = Some(Pending::Deletion(id.clone(), new.clone()));
            let Some(()) = acknowledged(api.delete_group(&id).await) else { return };
            self.note(id, new);
        }
    }

    fn note(&mut self, id: GroupId, new: NewGroupBody) {
        self.pending = None;
        self.deleted += 1;
        self.last.push((id, new));
    }

    /// After a restart: what was deleted stays so, and its id is taken; what was on its way is sent again.
    pub(crate) async fn settle(&mut self, api: &GatewayClient) {
        match self.pending.take() {
            Some(Pending::Creation(new)) => {
                let id = api.create_group(&new).await.unwrap().group_id.0;
                api.group(&id).await.unwrap();
                api.delete_group(&id).await.unwrap();
                self.note(id, new);
            }
            Some(Pending::Deletion(id, new)) => {
                api.delete_group(&id).await.unwrap();
                self.note(id, new);
            }
            None => {}
        }
        for (id, new) in std::mem::take(&mut self.last) {
            assert_eq!(kind(api.group(&id).await), Some(ProblemKind::UnknownGroup));
            assert_eq!(kind(api.create_group(&new).await), Some(ProblemKind::GroupExists));
            api.delete_group(&id).await.unwrap();
        }
    }
}

/// The kind of a refusal; `None` for an answer.
fn kind<T>(answer: Result<T, RequestError>) -> Option<ProblemKind> {
    answer.err().and_then(|error| error.kind())
}
