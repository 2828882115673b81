//! *Joining*.

use std::time::Instant;

use actors::{DeliveryId, JoinInfo, JoinInfoQuery};

use super::{
    entity_tag,
    problem::Problem,
    route::{AT_ONCE_BYTES, Answer, Call, Handle, apart},
};
use crate::api::{
    Nothing,
    joining::{AcknowledgeWelcome, GetGroupInfo, GroupInfos, JoinInfoId, JoinInfos, ListWelcomes},
    text::{GroupIdText, push_base64},
};

impl Handle for ListWelcomes {
    async fn handle(call: Call<Self>) -> Result<Answer<JoinInfos>, Problem> {
        let (edge, app, handle, query) = (call.edge, call.path.app, call.path.handle, call.query);
        let domain = query.domain.as_ref().map_or("", |domain| domain.as_str());
        let list = [b"welcomes".as_slice(), app.as_uuid().as_bytes(), handle.as_bytes(), domain.as_bytes()];
        let delivery = |id: &[u8]| id.try_into().ok().map(|id| DeliveryId(u64::from_be_bytes(id)));
        let continued = edge.cursors.take(&list, query.cursor.as_deref(), delivery)?;
        let after = continued.or(query.after.map(|JoinInfoId(id)| id));
        if !query.wait_ms.is_zero() && !call.fields.is_head {
            let until = Instant::now() + query.wait_ms.get();
            loop {
                // The wait begins before the look, so that no welcome comes between the two.
                let welcome =
                    edge.gateway.await_welcome(app, &handle, until.saturating_duration_since(Instant::now()));
                let domain = query.domain.clone();
                let first = JoinInfoQuery { domain, after, with_ratchet_tree: false, limit: 1 };
                let found = edge.gateway.welcomes(app, &handle, first).await?;
                // A welcome may be for a client of another domain with the same handle.
                if !found.join_infos.is_empty() || !welcome.await || until <= Instant::now() {
                    break;
                }
            }
        }
        call.turn.begin().await?;
        let wanted = JoinInfoQuery {
            domain: query.domain.clone(),
            after,
            with_ratchet_tree: query.ratchet_tree,
            limit: query.limit.get(),
        };
        let page = edge.gateway.welcomes(app, &handle, wanted).await?;
        let last = page.join_infos.last().filter(|_| page.has_more);
        let next_cursor = last.map(|join_info| edge.cursors.give(&list, &join_info.id.0.to_be_bytes()));
        let bytes = page.join_infos.iter().map(join_info_bytes).sum::<usize>();
        let encode = move || encode_join_infos(&page.join_infos, next_cursor);
        Ok(Answer::Encoded(if bytes > AT_ONCE_BYTES { apart(encode).await? } else { encode() }))
    }
}

impl Handle for AcknowledgeWelcome {
    async fn handle(call: Call<Self>) -> Result<Answer<Nothing>, Problem> {
        let (path, domain) = (call.path, call.query.domain);
        call.edge.gateway.acknowledge_welcome(path.app, &path.handle, domain, path.id).await?;
        Ok(Answer::NoContent)
    }
}

impl Handle for GetGroupInfo {
    async fn handle(call: Call<Self>) -> Result<Answer<GroupInfos>, Problem> {
        call.turn.begin().await?;
        let view = call.edge.gateway.group(call.path.app, &call.path.group).await?;
        let tag = entity_tag::of_epoch(&view);
        if entity_tag::is_known(&tag, call.fields.if_none_match.as_ref()) {
            return Ok(Answer::NotModified(tag));
        }
        let tree = view.group_info.is_some().then(|| view.ratchet_tree());
        let is_large = tree.as_ref().is_some_and(|tree| tree.len() > AT_ONCE_BYTES);
        let encode = move || encode_group_info(view.group_info.as_deref().zip(tree.as_deref()));
        let json = if is_large { apart(encode).await? } else { encode() };
        Ok(Answer::Tagged(tag, Box::new(Answer::Encoded(json))))
    }
}

/// The size of the messages of a join info, in bytes.
fn join_info_bytes(join_info: &JoinInfo) -> usize {
    join_info.welcome.len() + join_info.ratchet_tree.as_ref().map_or(0, |tree| tree.len())
}

/// The size of a join info in addition to its messages: names, ids and numbers.
const JOIN_INFO_BYTES: usize = 512;

/// The JSON of [`JoinInfos`], written directly: it is nearly all Base64, which needs no escapes. Neither do ids, numbers and
/// cursors.
fn encode_join_infos(join_infos: &[JoinInfo], next_cursor: Option<String>) -> Vec<u8> {
    let room = |join_info: &JoinInfo| {
        let tree = join_info.ratchet_tree.as_deref().map_or(0, text_bytes);
        JOIN_INFO_BYTES + text_bytes(&join_info.welcome) + tree
    };
    let mut json = Vec::with_capacity(JOIN_INFO_BYTES + join_infos.iter().map(room).sum::<usize>());
    json.extend_from_slice(br#"{"joinInfos":["#);
    for join_info in join_infos {
        let (id, group) = (join_info.id, GroupIdText(join_info.group.clone()));
        let epoch = join_info.epoch.0;
        let opening = if json.ends_with(b"[") { "{" } else { ",{" };
        json.extend_from_slice(opening.as_bytes());
        let head = format!(r#""id":"{id}","groupId":"{group}","epochId":{epoch},"welcome":""#);
        json.extend_from_slice(head.as_bytes());
        push_base64(&join_info.welcome, &mut json);
        if let Some(tree) = &join_info.ratchet_tree {
            json.extend_from_slice(br#"","ratchetTree":""#);
            push_base64(tree, &mut json);
        }
        json.extend_from_slice(br#""}"#);
    }
    json.push(b']');
    if let Some(cursor) = next_cursor {
        json.extend_from_slice(format!(r#","nextCursor":"{cursor}""#).as_bytes());
    }
    json.push(b'}');
    json
}

/// The JSON of [`GroupInfos`], written directly: it is nearly all Base64, which needs no escapes.
fn encode_group_info(group_info_and_tree: Option<(&[u8], &[u8])>) -> Vec<u8> {
    let Some((group_info, ratchet_tree)) = group_info_and_tree else {
        return br#"{"groupInfos":[]}"#.to_vec();
    };
    let names_bytes = 60;
    let mut json = Vec::with_capacity(text_bytes(group_info) + text_bytes(ratchet_tree) + names_bytes);
    json.extend_from_slice(br#"{"groupInfos":[{"groupInfo":""#);
    push_base64(group_info, &mut json);
    json.extend_from_slice(br#"","ratchetTree":""#);
    push_base64(ratchet_tree, &mut json);
    json.extend_from_slice(br#""}]}"#);
    json
}

/// The length of the Base64 text of bytes.
fn text_bytes(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use actors::{Bytes, Epoch, GroupId};
    use proptest::prelude::*;

    use super::*;
    use crate::api::{
        joining::{GroupInfo, JoinInfoBody},
        text::Base64,
    };

    fn join_info() -> impl Strategy<Value = JoinInfo> {
        let packet = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let group = prop::collection::vec(any::<u8>(), 1..20);
        (any::<u64>(), group, any::<u64>(), packet(), prop::option::of(packet())).prop_map(
            |(id, group, epoch, welcome, ratchet_tree)| JoinInfo {
                id: DeliveryId(id),
                group: GroupId::new(group).unwrap(),
                epoch: Epoch(epoch),
                welcome,
                ratchet_tree,
            },
        )
    }

    proptest! {
        #[test]
        fn join_infos_are_what_the_api_says(
            join_infos in prop::collection::vec(join_info(), 0..4),
            next_cursor in prop::option::of("[A-Za-z0-9_-]{1,40}"),
        ) {
            let body = JoinInfos {
                join_infos: join_infos.iter().map(|join_info| JoinInfoBody {
                    id: JoinInfoId(join_info.id),
                    group_id: GroupIdText(join_info.group.clone()),
                    epoch_id: join_info.epoch,
                    welcome: Base64(join_info.welcome.to_vec()),
                    ratchet_tree: join_info.ratchet_tree.as_ref().map(|tree| Base64(tree.to_vec())),
                }).collect(),
                next_cursor: next_cursor.clone(),
            };
            let encoded = encode_join_infos(&join_infos, next_cursor);
            prop_assert_eq!(encoded, serde_json::to_vec(&body).unwrap());
        }

        #[test]
        fn group_infos_are_what_the_api_says(
            found in prop::option::of((prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20))),
        ) {
            let group_infos = found.iter().map(|(group_info, ratchet_tree)| GroupInfo {
                group_info: Base64(group_info.clone()),
                ratchet_tree: Base64(ratchet_tree.clone()),
            });
            let body = GroupInfos { group_infos: group_infos.collect() };
            let encoded = encode_group_info(found.as_ref().map(|(info, tree)| (info.as_slice(), tree.as_slice())));
            prop_assert_eq!(encoded, serde_json::to_vec(&body).unwrap());
        }
    }
}
