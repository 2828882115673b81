//! *Joining*.

use actors::{DeliveryId, JoinInfo};

use super::{
    cursor,
    problem::Problem,
    route::{Answer, Call, Handle},
};
use crate::api::{
    Nothing,
    joining::{
        AcknowledgeWelcome, GetGroupInfo, GroupInfos, JoinInfoBody, JoinInfoId, JoinInfos, ListWelcomes,
    },
    text::{Base64, GroupIdText, push_base64},
};

/// Welcomes and trees are large: an answer ends early once it holds this many bytes of them.
const WELCOME_BYTES_MAX: usize = 32 << 20;
/// Welcomes are read this many at once, so that not much is read in vain.
const WELCOMES_AT_ONCE: usize = 8;

impl Handle for ListWelcomes {
    async fn handle(call: Call<Self>) -> Result<Answer<JoinInfos>, Problem> {
        let (edge, app, handle, query) = (call.edge, call.path.app, call.path.handle, call.query);
        let list = [b"welcomes".as_slice(), app.as_uuid().as_bytes(), handle.as_bytes()];
        let mut after = match &query.cursor {
            None => query.after.map(|JoinInfoId(id)| id),
            Some(cursor) => Some(delivery_id(&edge.cursors.take(&list, cursor)?)?),
        };
        let mut found: Vec<JoinInfo> = Vec::new();
        let mut bytes = 0_usize;
        let has_more = 'pages: loop {
            // One more than the limit tells whether there is more.
            let room = query.limit.get().saturating_add(1).saturating_sub(found.len()).min(WELCOMES_AT_ONCE);
            let page = edge.gateway.welcomes(app, &handle, after, query.ratchet_tree, room).await?;
            // A page that is short because its welcomes are large is not the last one.
            let is_last_page = page.is_empty();
            for join_info in page {
                let size = join_info.welcome.len() + join_info.ratchet_tree.as_ref().map_or(0, Vec::len);
                let is_over = !found.is_empty() && bytes + size > WELCOME_BYTES_MAX;
                if is_over || found.len() >= query.limit.get() {
                    break 'pages true;
                }
                bytes += size;
                after = Some(join_info.id);
                found.push(join_info);
            }
            if is_last_page {
                break false;
            }
        };
        let last = found.last().filter(|_| has_more);
        let next_cursor = last.map(|join_info| edge.cursors.give(&list, &join_info.id.0.to_be_bytes()));
        Ok(Answer::Ok(JoinInfos { join_infos: found.into_iter().map(body).collect(), next_cursor }))
    }
}

impl Handle for AcknowledgeWelcome {
    async fn handle(call: Call<Self>) -> Result<Answer<Nothing>, Problem> {
        call.edge.gateway.acknowledge_welcome(call.path.app, &call.path.handle, call.path.id).await?;
        Ok(Answer::NoContent)
    }
}

impl Handle for GetGroupInfo {
    async fn handle(call: Call<Self>) -> Result<Answer<GroupInfos>, Problem> {
        let view = call.edge.gateway.group(call.path.app, &call.path.group).await?;
        let tree = view.group_info.is_some().then(|| view.ratchet_tree());
        Ok(Answer::Encoded(encode(view.group_info.as_deref().zip(tree.as_deref()))))
    }
}

/// The JSON of [`GroupInfos`], written straight to it: an external joiner's answer is nearly all Base64.
fn encode(group_info_and_tree: Option<(&[u8], &[u8])>) -> Vec<u8> {
    let Some((group_info, ratchet_tree)) = group_info_and_tree else {
        return br#"{"groupInfos":[]}"#.to_vec();
    };
    let text_bytes = |bytes: &[u8]| bytes.len().div_ceil(3) * 4;
    let names_bytes = 60;
    let mut json = Vec::with_capacity(text_bytes(group_info) + text_bytes(ratchet_tree) + names_bytes);
    json.extend_from_slice(br#"{"groupInfos":[{"groupInfo":""#);
    push_base64(group_info, &mut json);
    json.extend_from_slice(br#"","ratchetTree":""#);
    push_base64(ratchet_tree, &mut json);
    json.extend_from_slice(br#""}]}"#);
    json
}

fn delivery_id(bytes: &[u8]) -> Result<DeliveryId, Problem> {
    bytes.try_into().map(|bytes| DeliveryId(u64::from_be_bytes(bytes))).map_err(|_| cursor::refusal())
}

fn body(join_info: JoinInfo) -> JoinInfoBody {
    JoinInfoBody {
        id: JoinInfoId(join_info.id),
        group_id: GroupIdText(join_info.group),
        epoch_id: join_info.epoch,
        welcome: Base64(join_info.welcome),
        ratchet_tree: join_info.ratchet_tree.map(Base64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::joining::GroupInfo;

    proptest! {
        #[test]
        fn group_infos_are_what_the_api_says(
            found in prop::option::of((prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..20))),
        ) {
            let group_infos = found.iter().map(|(group_info, ratchet_tree)| GroupInfo {
                group_info: Base64(group_info.clone()),
                ratchet_tree: Base64(ratchet_tree.clone()),
            });
            let body = GroupInfos { group_infos: group_infos.collect() };
            let encoded = encode(found.as_ref().map(|(info, tree)| (info.as_slice(), tree.as_slice())));
            prop_assert_eq!(encoded, serde_json::to_vec(&body).unwrap());
        }
    }
}
