//! Types of credentials in one group (RFC 9420 §7.3, §13.3).

use std::sync::Arc;

use mls_forge::{Client, Credential, Group, Proposal, Sender, SharedTree};
use snapshots::{ClientHandle, DomainName, Timestamp};

use super::{
    super::{super::TrackedGroup, Observer, Validator},
    Answers, PRIVATE_USE, Scene, Way, answer, client, handshake, opening, rules,
    scene::{clients, package_everywhere},
};
use crate::{
    application::ExpiredMembers,
    clock::Clock,
    identity::{
        ApplicationContext, CredentialType, GroupContextExtensions, Identity, IdentityError, IdentityProvider,
    },
    mls::RevokedMembers,
};

/// Takes basic credentials, and lists of one short certificate that is the client's handle.
struct TwoTypes;

impl IdentityProvider for TwoTypes {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::BASIC, CredentialType::X509]
    }

    fn validate(
        &self,
        _: Identity<'_>,
        _: GroupContextExtensions<'_>,
        _: ApplicationContext,
    ) -> Result<(), IdentityError> {
        Ok(())
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        let content = identity.credential.content;
        let prefix = usize::from(identity.credential.credential_type == CredentialType::X509);
        ClientHandle::new(&content[prefix..]).map_err(|error| IdentityError(error.to_string()))
    }

    fn client_domain(&self, _: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Ok(None)
    }
}

fn validator() -> Validator {
    let mut validator = Validator::new();
    validator.application.identity = Arc::new(TwoTypes);
    validator
}

/// An observer of a group that may have both types.
fn scene(group: Group) -> Result<Scene, super::Refusal> {
    let (validator, now) = (validator(), Clock::system().now());
    let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
    let open = || TrackedGroup::open(validator.context(), &info, Some(&tree), now);
    let (live, replayed) = (open()?, open()?);
    Ok(Scene { group, observer: Observer { live, replayed, validator, now } })
}

fn members(supported: &[u16]) -> Vec<Client> {
    let with = |mut member: Client| {
        member.capabilities.credentials = supported.to_vec();
        member
    };
    clients(3).into_iter().map(with).collect()
}

fn with_certificate(supported: &[u16]) -> Client {
    let mut client = client("newcomer");
    client.credential = Credential::X509(vec![b"newcomer".to_vec()]);
    client.capabilities.credentials = supported.to_vec();
    client
}

/// A client with a certificate comes to members with basic credentials, in each way.
fn mixed(of_members: &[u16], of_newcomer: &[u16]) -> Answers {
    let group = || Group::of_clients(members(of_members), SharedTree::Populated);
    let newcomer = with_certificate(of_newcomer);
    let mut answers = Vec::new();
    let mut it = scene(group()).unwrap();
    let add = it.group.add(&newcomer);
    let proposed = it.try_proposal(Sender::Member(1), add.clone());
    answers.push((Way::Handshake("a proposed Add"), proposed.map_err(answer)));
    let mut it = scene(group()).unwrap();
    let forged = it.group.commit(0).with(add).sign();
    answers.push((Way::Handshake("a committed Add"), it.commit(&forged).map_err(answer)));
    let mut it = scene(group()).unwrap();
    let forged = it.group.external_commit(&newcomer).sign();
    answers.push((Way::Handshake("an external commit"), it.commit(&forged).map_err(answer)));
    let mut all = members(of_members);
    all.push(newcomer);
    answers.extend(opening(scene(Group::of_clients(all, SharedTree::Blank)).map(drop)));
    answers
}

/// A member with a basic credential gives up the support of the type that another has.
fn given_up(broken: bool) -> Answers {
    let mut all = members(&[1, 2]);
    all.push(with_certificate(&[1, 2]));
    let group = || Group::of_clients(all.clone(), SharedTree::Populated);
    let mut stays = all[1].clone();
    stays.randomness = client("a source of keys").randomness;
    if broken {
        stays.capabilities.credentials = vec![1];
    }
    let mut it = scene(group()).unwrap();
    let update = it.group.update_to(1, &stays);
    let proposed = it.try_proposal(Sender::Member(1), update);
    let mut answers = vec![(Way::Handshake("a proposed Update"), proposed.map_err(answer))];
    let mut it = scene(group()).unwrap();
    let mut draft = it.group.commit(1).draft();
    draft.pass_leaf_to(&stays);
    let forged = draft.sign();
    answers.push((Way::Handshake("an update path"), it.commit(&forged).map_err(answer)));
    answers
}

/// The only member with a type leaves when one comes that does not know it.
fn replaced(broken: bool) -> Answers {
    let mut all = members(&[1, 2]);
    all.push(with_certificate(&[1, 2]));
    let mut it = scene(Group::of_clients(all, SharedTree::Populated)).unwrap();
    let mut joiner = client("another");
    joiner.capabilities.credentials = vec![1];
    let add = it.group.add(&joiner);
    let forged = it.group.commit(0).with(add).with(Proposal::Remove(if broken { 2 } else { 3 })).sign();
    handshake(it.commit(&forged))
}

/// A type that no identity provider of the gateway knows, though all members do.
fn unknown(broken: bool) -> Answers {
    package_everywhere(|| {
        let mut newcomer = client("newcomer");
        if broken {
            newcomer.credential = Credential::Other(PRIVATE_USE, b"newcomer".to_vec());
        }
        let package = newcomer.key_package();
        (newcomer, package)
    })
}

rules! {
    type_supported_by_all ("§7.3, §13.3", "capabilities"):
        "All members support the type of a leaf's credential.",
        accepted: "They list it.",
        |broken| mixed(if broken { &[1] } else { &[1, 2] }, &[1, 2]);
    types_in_use ("§7.3, §13.3", "capabilities"):
        "A leaf supports the types of all members' credentials.",
        accepted: "It lists them.",
        |broken| mixed(&[1, 2], if broken { &[2] } else { &[1, 2] });
    types_stay_supported ("§7.3, §13.3", "capabilities"):
        "So does a leaf that replaces another.",
        accepted: "It lists them still.",
        given_up;
    types_after_commit ("§7.3, §12.2", "capabilities"):
        "What counts are the members after the commit.",
        accepted: "The commit removes the only member with the type that the added leaf does not support.",
        replaced;
    type_known ("§5.3; the draft, *Identity Providers*", "unknown-kind"):
        "The type of a credential is one that the gateway knows: somebody has to say which client it names.",
        accepted: "A basic credential.",
        unknown;
}

/// What a member may propose whose credential has expired or is revoked.
#[test]
fn members_whose_credentials_have_ended_can_leave_and_nothing_else() {
    let now = Clock::system().now();
    let end = now.0 + 1000;
    let names = ["member 0".to_owned(), format!("member 1 until {end}"), "member 2".to_owned()];
    let scene = || {
        let group = Group::of_clients(names.iter().map(|name| client(name)).collect(), SharedTree::Populated);
        let mut validator = Validator::new();
        validator.application.identity = Arc::new(super::super::expiry::Ending);
        let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
        let open = || TrackedGroup::open(validator.context(), &info, Some(&tree), now).unwrap();
        let (mut live, replayed) = (open(), open());
        live.take_revoked(RevokedMembers::of([2]));
        Scene { group, observer: Observer { live, replayed, validator, now: Timestamp(end + 1) } }
    };
    let proposed = |member, proposal: Proposal| {
        let mut it = scene();
        let message = it.group.propose(Sender::Member(member), proposal);
        let answer = it.propose(&message).map_err(answer);
        if answer.is_ok() {
            let forged = it.group.commit(0).with_pending().sign();
            it.proceed(&forged);
            let ended = it.observer.live.ended(it.observer.now);
            assert!(!ended.contains(&member) && it.observer.live.member(member).is_none(), "{ended:?}");
        }
        answer.err().map(|refused| format!("{refused:?}"))
    };
    for (member, end) in [(1, "has expired"), (2, "is revoked")] {
        for leaves in [Proposal::SelfRemove, Proposal::Remove(member)] {
            assert_eq!(proposed(member, leaves), None, "member {member}");
        }
        let refused = proposed(member, Proposal::Remove(0)).unwrap();
        assert!(refused.contains(end), "{refused}");
    }
    // An application that ignores the end of credentials holds nobody to it.
    let mut it = scene();
    it.observer.validator.application.expired_members = ExpiredMembers::Ignore;
    it.try_proposal(Sender::Member(2), Proposal::Remove(0)).unwrap();
}
