//! *Managing Identities*.

use actors::{AppId, ClientChange, ClientId, ClientQuery, ClientRow, GroupId, NewClient};

use super::{
    auth::Authenticator,
    edge::Edge,
    problem::Problem,
    route::{Answer, Call, Handle, encoded},
};
use crate::api::{
    Nothing,
    clients::{
        ChangeClient, ClientBody, DeleteClient, FindClients, GetClient, GroupOfClient, GroupsOfClient,
        IdentitiesBody, IdentityBody, ListGroupsOfClient, RegisterClient, RegisteredClient, TagQuery,
    },
    text::{GroupIdText, HandleText},
};

/// The most clients that are encoded on the thread of their connection.
pub(super) const IDENTITIES_AT_ONCE: usize = 100;

impl Handle for RegisterClient {
    async fn handle(call: Call<Self>) -> Result<Answer<RegisteredClient>, Problem> {
        let HandleText(handle) = call.body.client_handle;
        let client = NewClient { handle, domain: call.body.domain, tags: call.body.tags };
        let client_id = call.edge.gateway.register_client(call.path.app, client).await?;
        Ok(Answer::Created(RegisteredClient { client_id }))
    }
}

impl Handle for GetClient {
    async fn handle(call: Call<Self>) -> Result<Answer<ClientBody>, Problem> {
        let row = call.edge.gateway.client(call.path.app, call.path.client).await?;
        Ok(Answer::Ok(client(row)))
    }
}

impl Handle for ChangeClient {
    async fn handle(call: Call<Self>) -> Result<Answer<ClientBody>, Problem> {
        let change = ClientChange {
            handle: call.body.client_handle.map(|HandleText(handle)| handle),
            tags_to_add: call.body.tags_to_add,
            tags_to_remove: call.body.tags_to_remove,
        };
        let row = call.edge.gateway.change_client(call.path.app, call.path.client, change).await?;
        Ok(Answer::Ok(client(row)))
    }
}

impl Handle for DeleteClient {
    async fn handle(call: Call<Self>) -> Result<Answer<Nothing>, Problem> {
        call.edge.gateway.delete_client(call.path.app, call.path.client).await?;
        Ok(Answer::NoContent)
    }
}

impl Handle for FindClients {
    async fn handle(call: Call<Self>) -> Result<Answer<IdentitiesBody>, Problem> {
        let app = call.path.app;
        if let Some((federation, domain)) = call.edge.peer_of(app, call.query.domain.as_ref()) {
            let found = federation.ask::<Self>(domain, app, &call.path, &call.query, &call.body).await?;
            return Ok(Answer::Ok(found.body));
        }
        call.turn.begin().await?;
        let found = find_here(&call.edge, app, &call.query).await?;
        let is_large = found.identities.len() > IDENTITIES_AT_ONCE;
        encoded(found, is_large).await
    }
}

/// The size of the handles and tags, in bytes, at which a page of clients ends, so that its JSON stays below the limit that
/// gateways have for answers of each other.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The clients of this gateway that have a tag, or all.
pub(super) async fn find_here<A: Authenticator>(
    edge: &Edge<A>,
    app: AppId,
    query: &TagQuery,
) -> Result<IdentitiesBody, Problem> {
    let domain = query.domain.as_ref().map_or("", |domain| domain.as_str());
    let kind: &[u8] = if query.tag.is_some() { b"clients" } else { b"all clients" };
    let tag = query.tag.as_deref().unwrap_or_default();
    let list = [kind, app.as_uuid().as_bytes(), tag.as_bytes(), domain.as_bytes()];
    let client = |id: &[u8]| uuid::Uuid::from_slice(id).ok().map(ClientId::new);
    let after = edge.cursors.take(&list, query.cursor.as_deref(), client)?;
    let limit = query.limit.get();
    let asked = ClientQuery {
        tag: query.tag.clone(),
        domain: query.domain.clone(),
        after,
        limit: limit.saturating_add(1),
    };
    let mut rows = edge.gateway.find_clients(app, asked).await?;
    let page = fitting(&rows).min(limit);
    let next_cursor = edge.cursors.cut(&list, &mut rows, page, |row| row.client_id.as_uuid().as_bytes());
    Ok(IdentitiesBody { identities: rows.into_iter().map(identity).collect(), next_cursor })
}

/// The number of clients in one page: at least one.
pub(super) fn fitting(rows: &[ClientRow]) -> usize {
    let mut bytes = 0_usize;
    let fits = |row: &&ClientRow| {
        bytes += row.handle.as_bytes().len() + row.tags.iter().map(String::len).sum::<usize>();
        bytes <= PAGE_BYTES_MAX
    };
    rows.iter().take_while(fits).count().max(1)
}

impl Handle for ListGroupsOfClient {
    async fn handle(call: Call<Self>) -> Result<Answer<GroupsOfClient>, Problem> {
        let (edge, app, handle, query) = (call.edge, call.path.app, call.path.handle, call.query);
        let domain = query.domain.as_ref().map_or("", |domain| domain.as_str());
        let list = [b"groups".as_slice(), app.as_uuid().as_bytes(), handle.as_bytes(), domain.as_bytes()];
        let after = edge.cursors.take(&list, query.cursor.as_deref(), |id| GroupId::new(id).ok())?;
        let (limit, domain) = (query.limit.get(), query.domain.clone());
        let wanted = limit.saturating_add(1);
        let mut groups = edge.gateway.groups_of_client(app, &handle, domain, after, wanted).await?;
        let next_cursor = edge.cursors.cut(&list, &mut groups, limit, |(group, _)| group.as_bytes());
        let groups = groups
            .into_iter()
            .map(|(group, epoch_id)| GroupOfClient { group_id: GroupIdText(group), epoch_id })
            .collect();
        Ok(Answer::Ok(GroupsOfClient { groups, next_cursor }))
    }
}

fn client(row: ClientRow) -> ClientBody {
    ClientBody {
        client_id: row.client_id,
        client_handle: HandleText(row.handle),
        domain: row.domain,
        tags: row.tags.into_iter().collect(),
    }
}

fn identity(row: ClientRow) -> IdentityBody {
    IdentityBody {
        client_id: row.client_id,
        client_handle: HandleText(row.handle),
        tags: row.tags.into_iter().collect(),
    }
}
