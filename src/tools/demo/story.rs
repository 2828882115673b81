//! The story: the members' actions and the expected results.

use actors::{ClientHandle, Epoch, GroupId};

use super::{
    During as _, ToolError, ensure,
    identity::{Identities, Organisation},
    member::DemoMember,
};
use crate::{
    api::{
        clients::{GroupsOfClientQuery, TagQuery},
        problem::ProblemKind,
    },
    client::GatewayClient,
};

/// The tag by which the invited clients are found.
const TAG: &str = "team:harbour";
/// The number of key packages that each client uploads.
const KEY_PACKAGES: usize = 3;

/// Runs the story from registration to removal.
pub(super) async fn play(
    api: &GatewayClient,
    identities: &Identities,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let mut members = register(api, identities, tell).await?;
    let mut erin = DemoMember::register(api, identities, "erin", &[]).await?;
    if let Identities::X509(_) = identities {
        refuse_impostor(api, identities, tell).await?;
    }
    let group = found_group(api, identities, &mut members, tell).await?;
    race(api, &group, &mut members, tell).await?;

    let epoch = erin.join_externally(&group).await?;
    for member in &mut members {
        member.catch_up().await?;
    }
    tell(&format!(
        "erin joins without an invitation: she takes the winner's group info and makes an external commit, which \
         creates epoch {epoch}."
    ));
    members.push(erin);
    ensure_agreement(api, &group, &members).await?;

    remove(api, &group, &mut members, tell).await?;
    let epoch = ensure_agreement(api, &group, &members).await?;
    let names = names(&members);
    tell(&format!(
        "All {} members ({names}) hold the same epoch authenticator in epoch {epoch}.",
        members.len()
    ));
    Ok(())
}

async fn register(
    api: &GatewayClient,
    identities: &Identities,
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<DemoMember>, ToolError> {
    let mut members = Vec::new();
    for name in ["alice", "bob", "carol", "dave"] {
        let tags: &[&str] = if name == "alice" { &[] } else { &[TAG] };
        let member = DemoMember::register(api, identities, name, tags).await?;
        let pool = member.upload_key_packages(KEY_PACKAGES).await?;
        ensure(
            pool.key_packages_in_pool == KEY_PACKAGES && pool.key_packages_available == KEY_PACKAGES,
            || format!("{name} uploaded {KEY_PACKAGES} key packages and the gateway counts {pool:?}"),
        )?;
        members.push(member);
    }
    tell(&format!("{} register, and each uploads {KEY_PACKAGES} key packages.", names(&members)));
    Ok(members)
}

/// A client with a certificate for the same names from another root is refused.
async fn refuse_impostor(
    api: &GatewayClient,
    identities: &Identities,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let forged = Identities::X509(Box::new(Organisation::found()?));
    let mallory = DemoMember::register(api, &forged, "mallory", &[]).await?;
    match mallory.upload_key_packages(1).await {
        Err(ToolError::Gateway { source, .. }) if source.kind() == Some(ProblemKind::InvalidKeyPackage) => {}
        Err(error) => return Err(error),
        Ok(_) => return Err(ToolError::Broken("a certificate under another root was accepted".to_owned())),
    }
    let domain = identities.domain().map(ToString::to_string).unwrap_or_default();
    tell(&format!(
        "mallory has certificates that say {domain} too, under a root of her own: her key packages are refused."
    ));
    Ok(())
}

/// The first member creates a group and adds all others, which it finds by their tag.
async fn found_group(
    api: &GatewayClient,
    identities: &Identities,
    members: &mut [DemoMember],
    tell: &mut dyn FnMut(&str),
) -> Result<GroupId, ToolError> {
    let [alice, others @ ..] = members else { return Err(nobody()) };
    let query =
        TagQuery { tag: Some(TAG.to_owned()), domain: identities.domain().cloned(), ..TagQuery::default() };
    let found = api.find_clients(&query).await.during("finding clients by a tag")?.identities;
    tell(&format!("alice looks for \"{TAG}\" and finds {} clients.", found.len()));
    ensure(
        found.len() == others.len()
            && others.iter().all(|other| found.iter().any(|found| found.client_id == other.id)),
        || format!("the tag \"{TAG}\" finds other clients than those that have it"),
    )?;

    let mut packages = Vec::new();
    for identity in &found {
        let package = alice.retrieve_key_package(identity.client_id, identities.domain()).await?;
        let again = alice.retrieve_key_package(identity.client_id, identities.domain()).await?;
        ensure(package == again, || "asking again for an assigned key package gave another one".to_owned())?;
        packages.push(package);
    }
    tell(&format!(
        "She is assigned one key package of each; when she asks again she gets the same {}.",
        packages.len()
    ));

    let group = alice.create_group().await?;
    let commit = alice.mls.make_commit(&packages, &[])?;
    let bytes = commit.commit_packet.0.len();
    let accepted = api.upload_commit(&group, &commit).await.during("adding members")?;
    alice.mls.apply_commit()?;
    tell(&format!(
        "She creates a group and adds all {} in one commit of {bytes} bytes, which creates epoch {}.",
        others.len(),
        accepted.epoch_id
    ));

    for member in &mut *others {
        let epoch = member.join_by_welcome().await?;
        ensure(epoch == accepted.epoch_id, || format!("{}'s welcome is for epoch {epoch}", member.name))?;
        let pool = api.key_queues(member.id).await.during("listing key queues")?;
        let left: usize = pool.queues.iter().map(|queue| queue.key_packages_in_pool).sum();
        ensure(left == KEY_PACKAGES - 1, || {
            format!("{} has {left} key packages after one was used", member.name)
        })?;
    }
    tell(&format!(
        "{} join with their welcomes. The gateway forgets the key packages that were used: {} left of {KEY_PACKAGES} each.",
        names(others),
        KEY_PACKAGES - 1
    ));
    ensure_agreement(api, &group, members).await?;
    Ok(group)
}

/// Every member commits in the same epoch at the same time.
async fn race(
    api: &GatewayClient,
    group: &GroupId,
    members: &mut [DemoMember],
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let (winner, created) = DemoMember::race(group, &mut members.iter_mut().collect::<Vec<_>>()).await?;
    tell(&format!(
        "All {} commit at the same moment. {winner} is first and creates epoch {created}; the other {} are answered 409.",
        members.len(),
        members.len() - 1
    ));

    for member in members.iter_mut().filter(|member| member.name != winner) {
        let count = member.catch_up().await?;
        ensure(count == 1, || format!("{} caught up by {count} epochs, and missed one", member.name))?;
    }
    ensure_agreement(api, group, members).await?;
    tell(&format!(
        "The {} throw their commits away and catch up from the control messages: they are in epoch {created} too.",
        members.len() - 1
    ));
    Ok(())
}

/// The first member removes the second, which applies the commit and has left.
async fn remove(
    api: &GatewayClient,
    group: &GroupId,
    members: &mut Vec<DemoMember>,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    if members.len() < 2 {
        return Err(nobody());
    }
    let mut removed = members.remove(1);
    let [remover, others @ ..] = members.as_mut_slice() else { return Err(nobody()) };
    let commit = remover.mls.make_commit(&[], &[&removed.mls])?;
    let accepted = api.upload_commit(group, &commit).await.during("removing a member")?;
    remover.mls.apply_commit()?;
    for member in others {
        member.catch_up().await?;
    }
    removed.catch_up().await?;
    ensure(!removed.mls.is_active(), || format!("{} was removed and does not notice", removed.name))?;
    ensure(removed.epoch_authenticator()? != remover.epoch_authenticator()?, || {
        format!("{} was removed and still knows the group's secrets", removed.name)
    })?;
    ensure(!is_listed(api, group, removed.handle()).await?, || {
        format!("the gateway still lists the group among those of {}", removed.name)
    })?;
    tell(&format!(
        "{} removes {} in epoch {}, who is told, is out, and cannot know the new epoch.",
        remover.name, removed.name, accepted.epoch_id
    ));
    Ok(())
}

/// Checks that every member is in the gateway's epoch with the same secrets, and that the gateway lists exactly these members.
async fn ensure_agreement(
    api: &GatewayClient,
    group: &GroupId,
    members: &[DemoMember],
) -> Result<Epoch, ToolError> {
    let now = api.group(group).await.during("asking for the group")?;
    let first = members.first().ok_or_else(nobody)?.epoch_authenticator()?;
    for member in members {
        ensure(member.epoch()? == now.epoch_id, || {
            format!("{} is not in the gateway's epoch {}", member.name, now.epoch_id)
        })?;
        ensure(member.epoch_authenticator()? == first, || {
            format!("{} holds another epoch authenticator in epoch {}", member.name, now.epoch_id)
        })?;
        ensure(now.members.iter().any(|known| known.client_handle.0 == *member.handle()), || {
            format!("the gateway does not know that {} is a member", member.name)
        })?;
        ensure(is_listed(api, group, member.handle()).await?, || {
            format!("the gateway does not list the group among those of {}", member.name)
        })?;
    }
    ensure(now.members.len() == members.len(), || {
        format!("the gateway counts {} members, and there are {}", now.members.len(), members.len())
    })?;
    Ok(now.epoch_id)
}

async fn is_listed(api: &GatewayClient, group: &GroupId, handle: &ClientHandle) -> Result<bool, ToolError> {
    let groups = api
        .groups_of_client(handle, &GroupsOfClientQuery::default())
        .await
        .during("listing a client's groups")?
        .groups;
    Ok(groups.iter().any(|listed| &listed.group_id.0 == group))
}

/// `a, b and c`.
fn names(members: &[DemoMember]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.name).collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn nobody() -> ToolError {
    ToolError::Broken("the story has too few members".to_owned())
}
