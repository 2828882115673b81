//! *Managing Groups without Metadata Protection*: creation and evolution.

use std::sync::Arc;

use actors::{AppId, CommitBundle, GroupError, GroupId, GroupRow, GroupView, Outcome, Source};

use super::{
    auth::Authenticator,
    control_messages,
    edge::Edge,
    entity_tag,
    problem::Problem,
    route::{AT_ONCE_BYTES, Answer, Call, Handle, apart},
};
use crate::api::{
    Limit, Nothing,
    clients::PageQuery,
    groups::{
        AcceptedCommitBody, AcceptedProposalBody, ControlMessagesBody, CreateGroup, CreatedGroupBody,
        DeleteGroup, GetGroup, Group, Groups, ListControlMessages, ListGroups, ListProposals, ListedGroup,
        MemberBody, ProposalBody, Proposals, UploadCommit, UploadProposal,
    },
    paths::GroupPath,
    text::{Base64, GroupIdText, HandleText},
};

impl Handle for CreateGroup {
    async fn handle(call: Call<Self>) -> Result<Answer<CreatedGroupBody>, Problem> {
        let new = call.body.into();
        let created = call.edge.gateway.create_group(call.path.app, new, Source::Application).await?;
        let body = CreatedGroupBody { group_id: GroupIdText(created.group), epoch_id: actors::Epoch(0) };
        Ok(answer(created.outcome, body))
    }
}

impl Handle for ListGroups {
    async fn handle(call: Call<Self>) -> Result<Answer<Groups>, Problem> {
        page_of_groups(&call.edge, call.path.app, b"all groups", &call.query).await.map(Answer::Ok)
    }
}

/// A page of an application's groups. Cursors of one list are not those of another.
pub(super) async fn page_of_groups<A: Authenticator>(
    edge: &Edge<A>,
    app: AppId,
    list: &[u8],
    query: &PageQuery,
) -> Result<Groups, Problem> {
    let list = [list, app.as_uuid().as_bytes()];
    let after = edge.cursors.take(&list, query.cursor.as_deref(), |id| GroupId::new(id).ok())?;
    let limit = query.limit.get();
    let mut groups = edge.gateway.groups(app, after, limit.saturating_add(1)).await?;
    let next_cursor = edge.cursors.cut(&list, &mut groups, limit, |(group, _)| group.as_bytes());
    let listed = |(group, row): (GroupId, GroupRow)| ListedGroup {
        group_id: GroupIdText(group),
        epoch_id: row.epoch,
        hub_domain: row.hub,
    };
    Ok(Groups { groups: groups.into_iter().map(listed).collect(), next_cursor })
}

impl Handle for GetGroup {
    async fn handle(call: Call<Self>) -> Result<Answer<Group>, Problem> {
        let view = call.edge.gateway.group(call.path.app, &call.path.group).await?;
        let tag = entity_tag::of_epoch(&view);
        if entity_tag::is_known(&tag, call.fields.if_none_match.as_ref()) {
            return Ok(Answer::NotModified(tag));
        }
        Ok(Answer::Tagged(tag, Box::new(Answer::Ok(group(&view)))))
    }
}

impl Handle for DeleteGroup {
    async fn handle(call: Call<Self>) -> Result<Answer<Nothing>, Problem> {
        call.edge.gateway.delete_group(call.path.app, &call.path.group).await?;
        Ok(Answer::NoContent)
    }
}

impl Handle for UploadProposal {
    async fn handle(call: Call<Self>) -> Result<Answer<AcceptedProposalBody>, Problem> {
        let (edge, path) = (&call.edge, &call.path);
        let packet: Arc<[u8]> = call.body.packet.0.into();
        match upload_proposal_here(edge, path, Arc::clone(&packet), Source::Application).await {
            Err(GroupError::NotHub { hub }) => {
                let body = ProposalBody { packet: Base64(packet.to_vec()) };
                edge.forward_to_hub::<Self>(&hub, path, &body, async |accepted, at_most| {
                    let proposal = (accepted.epoch_id, &*packet);
                    edge.gateway.await_proposal(path.app, &path.group, proposal, at_most).await;
                })
                .await
            }
            outcome => Ok(outcome?),
        }
    }
}

/// Uploads a proposal to a group that is ordered here.
pub(super) async fn upload_proposal_here<A: Authenticator>(
    edge: &Edge<A>,
    path: &GroupPath,
    packet: Arc<[u8]>,
    source: Source,
) -> Result<Answer<AcceptedProposalBody>, GroupError> {
    let accepted = edge.gateway.upload_proposal(path.app, &path.group, packet, source).await?;
    let body = AcceptedProposalBody { proposal_ref: Base64(accepted.reference), epoch_id: accepted.epoch };
    Ok(answer(accepted.outcome, body))
}

impl Handle for ListProposals {
    async fn handle(call: Call<Self>) -> Result<Answer<Proposals>, Problem> {
        call.turn.begin().await?;
        let (view, current) = call.edge.gateway.current_proposals(call.path.app, &call.path.group).await?;
        let tag = entity_tag::of_messages(&view, current.iter().map(|packet| &**packet));
        if entity_tag::is_known(&tag, call.fields.if_none_match.as_ref()) {
            return Ok(Answer::NotModified(tag));
        }
        let messages = current.iter().map(|packet| Base64(packet.to_vec())).collect();
        let proposals = Proposals { messages, epoch_id: view.epoch };
        Ok(Answer::Tagged(tag, Box::new(Answer::Ok(proposals))))
    }
}

impl Handle for UploadCommit {
    async fn handle(call: Call<Self>) -> Result<Answer<AcceptedCommitBody>, Problem> {
        let (edge, path) = (&call.edge, &call.path);
        let bundle: Arc<CommitBundle> = Arc::new(call.body.into());
        match upload_commit_here(edge, path, Arc::clone(&bundle), Source::Application).await {
            Err(GroupError::NotHub { hub }) => {
                let body = Arc::unwrap_or_clone(bundle).into();
                edge.forward_to_hub::<Self>(&hub, path, &body, async |accepted, at_most| {
                    edge.gateway.await_epoch(path.app, &path.group, accepted.epoch_id, at_most).await;
                })
                .await
            }
            outcome => Ok(outcome?),
        }
    }
}

/// Uploads a commit to a group that is ordered here.
pub(super) async fn upload_commit_here<A: Authenticator>(
    edge: &Edge<A>,
    path: &GroupPath,
    bundle: Arc<CommitBundle>,
    source: Source,
) -> Result<Answer<AcceptedCommitBody>, GroupError> {
    let accepted = edge.gateway.upload_commit(path.app, &path.group, bundle, source).await?;
    let body = AcceptedCommitBody { epoch_id: accepted.epoch, timestamp: accepted.timestamp };
    Ok(answer(accepted.outcome, body))
}

impl Handle for ListControlMessages {
    async fn handle(call: Call<Self>) -> Result<Answer<ControlMessagesBody>, Problem> {
        let (start, end) = (call.query.start_epoch_id, call.query.end_epoch_id);
        if end.is_some_and(|end| end < start) {
            return Err(Problem::malformed("`endEpochId`: must not be before `startEpochId`"));
        }
        let limit = call.query.limit.map_or(usize::MAX, Limit::get);
        let (gateway, path, wait) = (&call.edge.gateway, &call.path, call.query.wait_ms.get());
        if !wait.is_zero() && !call.fields.is_head {
            gateway.await_history(path.app, &path.group, start.max(actors::Epoch(1)), wait).await?;
        }
        call.turn.begin().await?;
        let found =
            call.edge.gateway.control_messages(call.path.app, &call.path.group, start, end, limit).await?;
        let is_large = control_messages::packet_bytes(&found) > AT_ONCE_BYTES;
        let json = if is_large {
            apart(move || control_messages::encode(&found)).await?
        } else {
            control_messages::encode(&found)
        };
        Ok(Answer::Encoded(json))
    }
}

/// The first answer is a creation; the same answer to a repetition is not.
fn answer<T>(outcome: Outcome, body: T) -> Answer<T> {
    match outcome {
        Outcome::New => Answer::Created(body),
        Outcome::Repeated => Answer::Ok(body),
    }
}

fn group(view: &GroupView) -> Group {
    let members = view.members().map(|member| MemberBody {
        leaf_index: member.leaf_index,
        client_handle: HandleText(member.handle.clone()),
        domain: member.domain.cloned(),
    });
    Group {
        group_id: GroupIdText(view.group.clone()),
        epoch_id: view.epoch,
        hub_domain: view.hub.clone(),
        protocol_version: view.protocol_version,
        cipher_suite: view.cipher_suite,
        members: members.collect(),
    }
}
