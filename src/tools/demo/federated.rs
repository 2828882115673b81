//! The draft's example between two domains (*Operational Context*): alice at gateway A invites carol at gateway B. Then
//! both commit, and B is stopped and started again.

use std::time::{Duration, Instant};

use actors::{ClientHandle, DomainName, Epoch, GroupId};

use super::{
    Detail, During as _, ToolError, ensure,
    exchanges::Exchanges,
    member::DemoMember,
    sites::{Site, Sites},
};
use crate::{
    api::{clients::TagQuery, key_packages::KeyQueue, problem::ProblemKind, text::Base64},
    client::RequestError,
};

/// The tag by which carol is found.
const TAG: &str = "account:carol";
/// The number of key packages that she uploads.
const KEY_PACKAGES: usize = 3;
/// The number of commits that B misses.
const MISSED: usize = 2;
/// The time in which a gateway must show a write that another one accepted; usually it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between polls.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Starts the gateways of two domains on free loopback ports, with new certificates and their data in a temporary directory,
/// runs the draft's seven steps and further ones between them, and stops them. Each step is reported to `tell` as a line of
/// text.
///
/// # Errors
/// [`ToolError`] names the step that failed, or the promise that was broken.
pub async fn play(detail: Detail, tell: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
    let exchanges = Exchanges::of(detail);
    let mut sites = Sites::start(&exchanges).await?;
    let outcome = story(&mut sites, &mut exchanges.before(tell)).await;
    exchanges.tell_rest(tell);
    sites.end().await;
    outcome
}

/// The group that both domains share, and its members.
struct SharedGroup {
    group: GroupId,
    alice: DemoMember,
    carol: DemoMember,
}

async fn story(sites: &mut Sites, tell: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
    for site in [&sites.a, &sites.b] {
        tell(&format!(
            "Gateway {} of {} listens at {} for applications, and at https://{} for gateways with a certificate.",
            site.name,
            site.domain,
            site.base_url(),
            site.federation_address()?
        ));
    }
    let alice = DemoMember::register(&sites.a.api, &sites.a.identities, "alice", &[]).await?;
    let carol = register(&sites.b, tell).await?;
    let package = ask_for_key_package(sites, &alice, &carol, tell).await?;
    let mut shared = invite(sites, alice, carol, package, tell).await?;
    commit_from_afar(sites, &mut shared, tell).await?;
    race(sites, &mut shared, tell).await?;
    miss_and_catch_up(sites, &mut shared, tell).await?;
    let epoch = ensure_agreement(sites, &shared).await?;
    tell(&format!(
        "Both gateways show the same epoch and members, and {} as the hub. alice and carol hold the same epoch \
         authenticator in epoch {epoch}.",
        sites.a.domain
    ));
    Ok(())
}

/// The draft's first step.
async fn register(b: &Site, tell: &mut dyn FnMut(&str)) -> Result<DemoMember, ToolError> {
    let carol = DemoMember::register(&b.api, &b.identities, "carol", &[TAG]).await?;
    let pool = carol.upload_key_packages(KEY_PACKAGES).await?;
    ensure(pool.key_packages_available == KEY_PACKAGES, || {
        format!("carol uploaded {KEY_PACKAGES} key packages and gateway B counts {pool:?}")
    })?;
    tell(&format!("1. carol registers at B and uploads {KEY_PACKAGES} key packages."));
    Ok(carol)
}

/// The draft's steps 2 to 4: alice asks A, which asks B.
async fn ask_for_key_package(
    sites: &Sites,
    alice: &DemoMember,
    carol: &DemoMember,
    tell: &mut dyn FnMut(&str),
) -> Result<Base64, ToolError> {
    let Sites { a, b, .. } = sites;
    let query = TagQuery { tag: Some(TAG.to_owned()), domain: Some(b.domain.clone()), ..TagQuery::default() };
    let found = a.api.find_clients(&query).await.during("finding clients of another domain")?.identities;
    let [identity] = found.as_slice() else {
        return Err(ToolError::Broken(format!("{} clients were found, and not carol alone", found.len())));
    };
    ensure(identity.client_id == carol.id && identity.client_handle.0 == *carol.handle(), || {
        format!("somebody else than carol was found: {}", identity.client_handle)
    })?;
    tell(&format!(
        "2. alice asks A who has \"{TAG}\" in {}, finds carol, and asks for a key package of hers.",
        b.domain
    ));

    let package = alice.retrieve_key_package(identity.client_id, Some(&b.domain)).await?;
    let again = alice.retrieve_key_package(identity.client_id, Some(&b.domain)).await?;
    ensure(package == again, || "asking again for an assigned key package gave another one".to_owned())?;
    tell("3. A passes both questions to B. Each gateway has shown the other its certificate.");
    let available = key_packages(b, carol, |queue| queue.key_packages_available).await?;
    ensure(available == KEY_PACKAGES - 1, || {
        format!("one key package was assigned, and {available} of {KEY_PACKAGES} are left for others")
    })?;
    tell(&format!(
        "4. B assigns her one, and the same one when she asks again: {available} of {KEY_PACKAGES} are left for others."
    ));
    Ok(package)
}

/// The draft's steps 5 to 7: a welcome from A to B.
async fn invite(
    sites: &Sites,
    mut alice: DemoMember,
    mut carol: DemoMember,
    package: Base64,
    tell: &mut dyn FnMut(&str),
) -> Result<SharedGroup, ToolError> {
    let Sites { a, b, .. } = sites;
    let group = alice.create_group().await?;
    let commit = alice.mls.make_commit(&[package], &[])?;
    let accepted = a.api.upload_commit(&group, &commit).await.during("adding a member of another domain")?;
    alice.mls.apply_commit()?;
    tell(&format!(
        "5. alice creates a group at A, which is its hub from now on. She adds carol in one commit, which creates epoch {}.",
        accepted.epoch_id
    ));

    eventually("carol's welcome does not come to B", async || carol.has_welcome().await).await?;
    eventually("B does not forget a key package that was used", async || {
        Ok(key_packages(b, &carol, |queue| queue.key_packages_in_pool).await? == KEY_PACKAGES - 1)
    })
    .await?;
    tell(
        "6. A delivers the commit and the welcome to B, which checks them for itself and forgets the key package \
         that was used.",
    );

    let epoch = carol.join_by_welcome().await?;
    ensure(epoch == accepted.epoch_id, || format!("carol's welcome is for epoch {epoch}"))?;
    let shared = SharedGroup { group, alice, carol };
    ensure_agreement(sites, &shared).await?;
    tell("7. carol asks B, gets her welcome and joins.");
    Ok(shared)
}

/// A write at the gateway that does not order the group.
async fn commit_from_afar(
    sites: &Sites,
    shared: &mut SharedGroup,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let SharedGroup { group, alice, carol } = &mut *shared;
    let commit = carol.mls.make_commit(&[], &[])?;
    let accepted = sites.b.api.upload_commit(group, &commit).await.during("committing at B")?;
    carol.mls.apply_commit()?;
    let count = alice.catch_up().await?;
    ensure(count == 1 && alice.epoch()? == accepted.epoch_id, || {
        format!("carol's commit was accepted, and alice reads {count} commits at A at once")
    })?;
    await_epoch(&sites.b, group, accepted.epoch_id).await?;
    ensure_agreement(sites, shared).await?;
    tell(&format!(
        "carol commits at B, which forwards the commit to A. A accepts it, so alice sees epoch {} at once.",
        accepted.epoch_id
    ));
    Ok(())
}

/// Both commit in the same epoch at the same time, each at her own gateway.
async fn race(sites: &Sites, shared: &mut SharedGroup, tell: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
    let Sites { a, b, .. } = sites;
    let SharedGroup { group, alice, carol } = &mut *shared;
    let (winner, epoch) = DemoMember::race(group, &mut [alice, carol]).await?;
    let (loser, site) = if winner == alice.name { (carol, b) } else { (alice, a) };
    follow(site, group, loser, epoch, 1).await?;
    await_epoch(b, group, epoch).await?;
    tell(&format!(
        "Both commit at the same moment, each at her own gateway. {winner} is first and creates epoch {epoch}; {} is answered 409 and \
         follows.",
        loser.name
    ));
    ensure_agreement(sites, shared).await?;
    Ok(())
}

/// B is away while alice commits.
async fn miss_and_catch_up(
    sites: &mut Sites,
    shared: &mut SharedGroup,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ToolError> {
    let Sites { a, b, .. } = sites;
    let SharedGroup { group, alice, carol } = &mut *shared;
    let before = alice.epoch()?;
    b.stop().await;
    ensure(matches!(b.api.group(group).await, Err(RequestError::Transport(_))), || {
        "B was stopped and still answers".to_owned()
    })?;
    for _ in 0..MISSED {
        let commit = alice.mls.make_commit(&[], &[])?;
        a.api.upload_commit(group, &commit).await.during("committing while B is away")?;
        alice.mls.apply_commit()?;
    }
    let now = alice.epoch()?;
    tell(&format!(
        "B is stopped. alice commits {MISSED} times at A, which does not wait for B: epoch {now}."
    ));

    b.start_again().await?;
    let shown = shown_epoch(b, group).await?;
    ensure(shown >= Some(before), || format!("B came back without epoch {before} of the group"))?;
    let left = key_packages(b, carol, |queue| queue.key_packages_in_pool).await?;
    ensure(left == KEY_PACKAGES - 1, || format!("B came back with {left} key packages of carol"))?;
    follow(b, group, carol, now, MISSED).await?;
    tell(&format!(
        "B is started again with what it had on disk. A delivers what B has missed, and carol catches up by {MISSED} commits."
    ));
    Ok(())
}

/// Takes a member to an epoch, a number of commits later, as soon as her gateway has it.
async fn follow(
    site: &Site,
    group: &GroupId,
    member: &mut DemoMember,
    epoch: Epoch,
    missed: usize,
) -> Result<(), ToolError> {
    await_epoch(site, group, epoch).await?;
    let count = member.catch_up().await?;
    ensure(count == missed && member.epoch()? == epoch, || {
        format!("{} missed {missed} commits and caught up by {count}", member.name)
    })
}

async fn await_epoch(site: &Site, group: &GroupId, epoch: Epoch) -> Result<(), ToolError> {
    let promise = format!("gateway {} does not come to epoch {epoch}", site.name);
    eventually(&promise, async || Ok(shown_epoch(site, group).await? >= Some(epoch))).await
}

/// The epoch of a group at a gateway; `None` if the gateway does not have the group.
async fn shown_epoch(site: &Site, group: &GroupId) -> Result<Option<Epoch>, ToolError> {
    match site.api.group(group).await {
        Ok(shown) => Ok(Some(shown.epoch_id)),
        Err(error) if error.kind() == Some(ProblemKind::UnknownGroup) => Ok(None),
        Err(source) => Err(ToolError::Gateway { step: "asking for the group", source }),
    }
}

/// Polls until the condition holds, or fails after a time limit.
async fn eventually(
    broken: &str,
    mut ask: impl AsyncFnMut() -> Result<bool, ToolError>,
) -> Result<(), ToolError> {
    let since = Instant::now();
    while !ask().await? {
        ensure(since.elapsed() < PATIENCE, || format!("{broken} within {} seconds", PATIENCE.as_secs()))?;
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// The number of counted key packages in all queues of a client.
async fn key_packages(
    site: &Site,
    member: &DemoMember,
    number: impl Fn(&KeyQueue) -> usize,
) -> Result<usize, ToolError> {
    let queues = site.api.key_queues(member.id).await.during("listing key queues")?.queues;
    Ok(queues.iter().map(number).sum())
}

/// Checks that both gateways show the same group, with A as its hub, and that its two members are in that epoch with the same
/// secrets.
async fn ensure_agreement(sites: &Sites, shared: &SharedGroup) -> Result<Epoch, ToolError> {
    let Sites { a, b, .. } = sites;
    let SharedGroup { group, alice, carol } = shared;
    let at_a = a.api.group(group).await.during("asking A for the group")?;
    let at_b = b.api.group(group).await.during("asking B for the group")?;
    ensure(at_a == at_b, || format!("A and B show the group differently: {at_a:?} and {at_b:?}"))?;
    ensure(at_a.hub_domain.as_ref() == Some(&a.domain), || {
        format!("{} created the group, and its hub is {:?}", a.domain, at_a.hub_domain)
    })?;
    let listed: Vec<(&ClientHandle, Option<&DomainName>)> =
        at_a.members.iter().map(|member| (&member.client_handle.0, member.domain.as_ref())).collect();
    ensure(listed == [(alice.handle(), Some(&a.domain)), (carol.handle(), Some(&b.domain))], || {
        format!("alice and carol are the members, and the gateways list {listed:?}")
    })?;
    for member in [alice, carol] {
        ensure(member.epoch()? == at_a.epoch_id, || {
            format!("{} is not in the gateways' epoch {}", member.name, at_a.epoch_id)
        })?;
    }
    ensure(alice.epoch_authenticator()? == carol.epoch_authenticator()?, || {
        format!("alice and carol hold different epoch authenticators in epoch {}", at_a.epoch_id)
    })?;
    Ok(at_a.epoch_id)
}
