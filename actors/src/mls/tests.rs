//! Tracking the groups of other MLS implementations: the working group's vectors, and random groups.

mod committer_keys;
mod expiry;
mod external_senders;
mod first_commit;
mod fitness;
mod forged;
mod rules;
mod syntax;
mod unseen;
mod vectors;
mod work;

use std::convert::Infallible;

use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList, Group,
    IdentityProvider, MlsMessage,
    client_builder::{BaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules},
    identity::{CredentialType, SigningIdentity, basic::BasicCredential},
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
};
use mls_rs_core::{crypto::SignatureSecretKey, identity::MemberValidationContext, time::MlsTime};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use proptest::prelude::*;
use snapshots::{AppId, ClientHandle, DomainName, Timestamp};

use super::{CommitBundle, EpochRecord, Member, Refusal, Rule, TrackedGroup, UnknownKind, ValidationContext};
use crate::{
    application::{Application, Source},
    clock::Clock,
    limits::Limits,
};

/// An observer that checks, at every step, that a copy which lives from records alone is the same, and so is one restored from a
/// snapshot.
struct Observer {
    live: TrackedGroup,
    replayed: TrackedGroup,
    validator: Validator,
    now: Timestamp,
}

/// The validation context of packets: an application of the Basic identity provider.
struct Validator {
    limits: Limits,
    application: Application,
}

impl Validator {
    fn new() -> Self {
        let application = Application::basic(AppId::random());
        Self { limits: Limits::default(), application }
    }

    fn context(&self) -> ValidationContext<'_> {
        ValidationContext {
            limits: &self.limits,
            application: &self.application,
            source: &Source::Application,
        }
    }
}

impl Observer {
    fn open(group_info: &[u8], tree: Option<&[u8]>) -> Result<Self, Refusal> {
        Self::open_at(group_info, tree, Clock::system().now())
    }

    fn open_at(group_info: &[u8], tree: Option<&[u8]>, now: Timestamp) -> Result<Self, Refusal> {
        let validator = Validator::new();
        let live = TrackedGroup::open(validator.context(), group_info, tree, now)?;
        let replayed = TrackedGroup::restore(live.snapshot()).unwrap();
        Ok(Self { live, replayed, validator, now })
    }

    fn proposal(&mut self, packet: &[u8]) -> Result<(), Refusal> {
        let staged = self.live.stage_proposal(self.validator.context(), packet, self.now)?;
        self.live.apply_proposal(staged.pending.clone());
        self.replayed.apply_proposal(staged.pending);
        Ok(())
    }

    fn commit(&mut self, input: impl Into<CommitBundle>) -> Result<(), Refusal> {
        let bundle = input.into();
        let staged = self.live.stage_commit(self.validator.context(), &bundle, self.now)?;
        self.take(&bundle.commit, staged);
        Ok(())
    }

    fn take(&mut self, commit: &[u8], staged: super::StagedEpoch) {
        let expected = staged.epoch;
        let record = EpochRecord::of(&staged);
        let record = crate::codec::decode(&crate::codec::encode(&record).unwrap()).unwrap();
        let (frozen, before) = (self.live.freeze(), self.live.snapshot());
        self.live.apply_epoch(staged);
        assert_eq!(frozen.snapshot(), before, "what was frozen does not change");
        assert_eq!(self.live.epoch(), expected);
        self.replayed.replay_epoch(commit, record).unwrap();
        assert_eq!(self.live.tree().to_bytes(), self.replayed.tree().to_bytes(), "the serialised tree");
        assert_eq!(self.live.context_bytes(), self.replayed.context_bytes());
        assert_eq!(self.live.members(), self.replayed.members());
        let anew = TrackedGroup::restore(self.live.snapshot()).unwrap();
        assert_eq!(anew.tree.known_hash(), self.live.tree.known_hash(), "cached and computed hashes");
        assert_eq!(anew.index, self.live.index, "the index kept up and made anew");
        assert_eq!(self.replayed.index, self.live.index);
        assert_eq!(self.live.tree().length(), self.live.tree().to_bytes().len());
        let at_rest = |group: &TrackedGroup| crate::codec::encode(&group.snapshot()).unwrap();
        assert_eq!(at_rest(&self.live), at_rest(&self.replayed), "live and replayed state");
    }
}

pub(crate) type Config = WithMlsRules<
    DefaultMlsRules,
    WithIdentityProvider<Lenient, WithCryptoProvider<RustCryptoProvider, BaseConfig>>,
>;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

/// Clients that let everything pass which an identity provider could object to, so that the gateway has to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lenient;

impl IdentityProvider for Lenient {
    type Error = Infallible;

    fn validate_member(
        &self,
        _: &SigningIdentity,
        _: Option<MlsTime>,
        _: MemberValidationContext<'_>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn validate_external_sender(
        &self,
        _: &SigningIdentity,
        _: Option<MlsTime>,
        _: Option<&ExtensionList>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn identity(&self, identity: &SigningIdentity, _: &ExtensionList) -> Result<Vec<u8>, Infallible> {
        Ok(identity.signature_key.as_bytes().to_vec())
    }

    fn valid_successor(
        &self,
        _: &SigningIdentity,
        _: &SigningIdentity,
        _: &ExtensionList,
    ) -> Result<bool, Infallible> {
        Ok(true)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CredentialType::BASIC, CredentialType::new(PRIVATE_CREDENTIAL)]
    }
}

/// A credential type for private use, which the members know and the gateway does not (RFC 9420 §17.5).
const PRIVATE_CREDENTIAL: u16 = 0xf123;

fn identity(name: &str) -> (SignatureSecretKey, SigningIdentity) {
    let crypto = RustCryptoProvider::default();
    let (secret, public) = crypto.cipher_suite_provider(SUITE).unwrap().signature_key_generate().unwrap();
    let credential = BasicCredential::new(name.as_bytes().to_vec()).into_credential();
    (secret, SigningIdentity::new(credential, public))
}

pub(crate) fn client(name: &str) -> Client<Config> {
    client_of(identity(name))
}

fn client_of((secret, identity): (SignatureSecretKey, SigningIdentity)) -> Client<Config> {
    let crypto = RustCryptoProvider::default();
    let options =
        CommitOptions::default().with_ratchet_tree_extension(false).with_allow_external_commit(true);
    let rules = DefaultMlsRules::new().with_commit_options(options).with_encryption_options(
        EncryptionOptions::new(false, mls_rs::client_builder::PaddingMode::StepFunction),
    );
    Client::builder()
        .crypto_provider(crypto)
        .identity_provider(Lenient)
        .mls_rules(rules)
        .signing_identity(identity, secret, SUITE)
        .build()
}

/// A group of real members and an observer that follows it.
struct Story {
    members: Vec<Group<Config>>,
    observer: Observer,
    named: usize,
}

/// What happens next in a story.
#[derive(Clone, Debug)]
enum Step {
    Update {
        who: usize,
    },
    Add {
        who: usize,
        count: usize,
    },
    Remove {
        who: usize,
        whom: usize,
    },
    /// Members propose updates and a removal; one commits them by reference.
    Propose {
        who: usize,
        updates: usize,
        whom: usize,
    },
    Join,
}

impl Story {
    fn begin() -> Self {
        let first = client("member 0").create_group(ExtensionList::new(), Default::default(), None).unwrap();
        let info = first.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap();
        let tree = first.export_tree().to_bytes().unwrap();
        let observer = Observer::open(&info, Some(&tree)).unwrap();
        Self { members: vec![first], observer, named: 1 }
    }

    fn pick(&self, who: usize) -> usize {
        who % self.members.len()
    }

    /// Everybody but the committer processes the commit; removed members leave; the joiners come.
    fn settle(&mut self, committer: usize, commit: &MlsMessage, joiners: Vec<Group<Config>>) {
        self.members[committer].apply_pending_commit().unwrap();
        let mut staying = Vec::new();
        for (place, mut member) in std::mem::take(&mut self.members).into_iter().enumerate() {
            if place != committer {
                let effect = member.process_incoming_message(commit.clone()).unwrap();
                let mls_rs::group::ReceivedMessage::Commit(effect) = effect else { panic!("not a commit") };
                if matches!(effect.effect, mls_rs::group::CommitEffect::Removed { .. }) {
                    continue;
                }
            }
            staying.push(member);
        }
        staying.extend(joiners);
        self.members = staying;
        let authenticators: Vec<Vec<u8>> =
            self.members.iter().map(|member| member.epoch_authenticator().unwrap().to_vec()).collect();
        assert!(authenticators.iter().all(|authenticator| *authenticator == authenticators[0]));
        let tree = self.members[0].export_tree().to_bytes().unwrap();
        assert_eq!(self.observer.live.tree().to_bytes(), tree, "the members' tree");
    }

    fn observe(&mut self, commit: &MlsMessage, info: Option<&MlsMessage>, welcome: Option<&MlsMessage>) {
        let bytes = |message: &MlsMessage| message.to_bytes().unwrap();
        let (commit, info, welcome) = (bytes(commit), info.map(bytes), welcome.map(bytes));
        self.observer
            .commit(CommitInput { commit: &commit, group_info: info.as_deref(), welcome: welcome.as_deref() })
            .unwrap();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Update { who } => {
                let who = self.pick(who);
                let output = self.members[who].commit(vec![]).unwrap();
                self.observe(&output.commit_message, output.external_commit_group_info.as_ref(), None);
                self.settle(who, &output.commit_message, vec![]);
            }
            Step::Add { who, count } => {
                let who = self.pick(who);
                let clients: Vec<_> =
                    (0..count).map(|at| client(&format!("member {}", self.named + at))).collect();
                self.named += count;
                let packages: Vec<_> = clients
                    .iter()
                    .map(|client| {
                        client
                            .generate_key_package_message(Default::default(), Default::default(), None)
                            .unwrap()
                    })
                    .collect();
                let mut builder = self.members[who].commit_builder();
                for package in packages {
                    builder = builder.add_member(package).unwrap();
                }
                let output = builder.build().unwrap();
                let welcome = output.welcome_messages.first().unwrap();
                self.observe(
                    &output.commit_message,
                    output.external_commit_group_info.as_ref(),
                    Some(welcome),
                );
                let tree = self.observer.live.tree().to_bytes();
                let joiners = clients.iter().map(|client| {
                    let tree = mls_rs::group::ExportedTree::from_bytes(&tree).unwrap();
                    client.join_group(Some(tree), welcome, None).unwrap().0
                });
                let joiners = joiners.collect();
                self.settle(who, &output.commit_message, joiners);
            }
            Step::Remove { who, whom } => {
                let (who, whom) = (self.pick(who), self.pick(whom));
                if who == whom {
                    return;
                }
                let leaf = self.members[whom].current_member_index();
                let output = self.members[who].commit_builder().remove_member(leaf).unwrap().build().unwrap();
                self.observe(&output.commit_message, output.external_commit_group_info.as_ref(), None);
                self.settle(who, &output.commit_message, vec![]);
            }
            Step::Propose { who, updates, whom } => {
                let (who, whom) = (self.pick(who), self.pick(whom));
                let mut proposals = Vec::new();
                for place in
                    (0..self.members.len()).filter(|place| *place != who && *place != whom).take(updates)
                {
                    proposals.push((place, self.members[place].propose_update(vec![]).unwrap()));
                }
                if who != whom {
                    let leaf = self.members[whom].current_member_index();
                    proposals.push((who, self.members[who].propose_remove(leaf, vec![]).unwrap()));
                }
                for (sender, proposal) in proposals {
                    self.observer.proposal(&proposal.to_bytes().unwrap()).unwrap();
                    for (place, member) in self.members.iter_mut().enumerate() {
                        if place != sender {
                            member.process_incoming_message(proposal.clone()).unwrap();
                        }
                    }
                }
                let output = self.members[who].commit(vec![]).unwrap();
                self.observe(&output.commit_message, output.external_commit_group_info.as_ref(), None);
                self.settle(who, &output.commit_message, vec![]);
            }
            Step::Join => {
                let info = self.members[0].group_info_message_allowing_ext_commit(true).unwrap();
                let joiner = client(&format!("member {}", self.named));
                self.named += 1;
                let (group, commit) = joiner.external_commit_builder().unwrap().build(info).unwrap();
                self.observe(&commit, None, None);
                let mut members = std::mem::take(&mut self.members);
                for member in &mut members {
                    member.process_incoming_message(commit.clone()).unwrap();
                }
                members.push(group);
                self.members = members;
                let tree = self.members[0].export_tree().to_bytes().unwrap();
                assert_eq!(self.observer.live.tree().to_bytes(), tree);
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let place = 0_usize..16;
    prop_oneof![
        2 => place.clone().prop_map(|who| Step::Update { who }),
        3 => (place.clone(), 1_usize..4).prop_map(|(who, count)| Step::Add { who, count }),
        2 => (place.clone(), place.clone()).prop_map(|(who, whom)| Step::Remove { who, whom }),
        2 => (place.clone(), 0_usize..3, place).prop_map(|(who, updates, whom)| Step::Propose { who, updates, whom }),
        1 => Just(Step::Join),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]

    /// However a group evolves, the observer accepts each commit and has the members' tree.
    #[test]
    fn any_group_is_followed(steps in proptest::collection::vec(any_step(), 4..14)) {
        let mut story = Story::begin();
        for step in &steps {
            story.step(step);
        }
    }
}

/// A commit and what is uploaded with it, borrowed.
#[derive(Clone, Copy)]
struct CommitInput<'a> {
    commit: &'a [u8],
    group_info: Option<&'a [u8]>,
    welcome: Option<&'a [u8]>,
}

impl From<CommitInput<'_>> for CommitBundle {
    fn from(CommitInput { commit, group_info, welcome }: CommitInput<'_>) -> Self {
        Self {
            commit: commit.to_vec(),
            group_info: group_info.map(<[u8]>::to_vec),
            welcome: welcome.map(<[u8]>::to_vec),
        }
    }
}

/// A refusal of a commit made for this story's group after `change` was made to its bytes.
fn refused(story: &mut Story, commit: &[u8]) -> Refusal {
    let input = CommitInput { commit, group_info: None, welcome: None };
    let before = story.observer.live.context_bytes();
    let refusal = story.observer.commit(input).unwrap_err();
    assert_eq!(story.observer.live.context_bytes(), before);
    refusal
}

fn rule(refusal: Refusal) -> Rule {
    let Refusal::Broken { rule, .. } = refusal else { panic!("no rule: {refusal:?}") };
    rule
}

#[test]
fn distinct_clients_successors_and_epochs_are_checked() {
    let mut story = Story::begin();
    story.step(&Step::Add { who: 0, count: 3 });

    // A client that is in the group already, under another signature key.
    let twin = client("member 1");
    let package = twin.generate_key_package_message(Default::default(), Default::default(), None).unwrap();
    let output = story.members[0].commit_builder().add_member(package).unwrap().build().unwrap();
    let welcome = output.welcome_messages.first().unwrap().to_bytes().unwrap();
    let commit = output.commit_message.to_bytes().unwrap();
    let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };
    assert_eq!(rule(story.observer.commit(input).unwrap_err()), Rule::DistinctClients);
    story.members[0].clear_pending_commit();

    // A leaf that passes to another client: by the member's own commit, and by an external commit that removes it.
    let (secret, stranger) = identity("stranger");
    let builder = story.members[1].commit_builder().set_new_signing_identity(secret, stranger);
    let commit = builder.build().unwrap().commit_message.to_bytes().unwrap();
    assert_eq!(rule(refused(&mut story, &commit)), Rule::Successor);
    story.members[1].clear_pending_commit();
    let info = story.members[0].group_info_message_allowing_ext_commit(true).unwrap();
    let builder = client("stranger").external_commit_builder().unwrap().with_removal(1);
    let commit = builder.build(info).unwrap().1.to_bytes().unwrap();
    assert_eq!(rule(refused(&mut story, &commit)), Rule::Successor);

    // An update of epoch n is stale in epoch n + 1, and one of epoch n + 1 comes too early in epoch n.
    let early = story.members[1].commit(vec![]).unwrap().commit_message.to_bytes().unwrap();
    story.members[1].clear_pending_commit();
    story.step(&Step::Update { who: 0 });
    assert!(matches!(refused(&mut story, &early), Refusal::Stale { .. }));
    let mut future = story.members[1].commit(vec![]).unwrap().commit_message.to_bytes().unwrap();
    story.members[1].clear_pending_commit();
    let group = story.observer.live.id().as_bytes().len();
    future[5 + group + 7] += 1;
    assert!(matches!(refused(&mut story, &future), Refusal::Future { .. }));
    assert!(matches!(refused(&mut story, b"\0\x01\0\x01"), Refusal::Malformed(_)));
}

fn unknown(refusal: Refusal) -> (UnknownKind, u16) {
    let Refusal::UnknownKind { kind, value, .. } = refusal else { panic!("nothing unknown: {refusal:?}") };
    (kind, value)
}

#[test]
fn a_type_that_members_need_not_know_either_is_named() {
    let mut story = Story::begin();
    story.step(&Step::Add { who: 0, count: 1 });

    // A group context extension that no member lists.
    let mut extensions = ExtensionList::new();
    extensions.set(mls_rs::Extension::new(0xf001.into(), b"any".to_vec()));
    let proposal = story.members[0].propose_group_context_extensions(extensions, vec![]).unwrap();
    let refusal = story.observer.proposal(&proposal.to_bytes().unwrap()).unwrap_err();
    assert_eq!(unknown(refusal), (UnknownKind::Extension, 0xf001));
    story.members[0].clear_proposal_cache();

    // A client whose credential the members understand: proposed, and added.
    let (secret, named) = identity("stranger");
    let credential =
        mls_rs::identity::CustomCredential::new(CredentialType::new(PRIVATE_CREDENTIAL), b"who".to_vec());
    let stranger =
        SigningIdentity::new(mls_rs::identity::Credential::Custom(credential), named.signature_key);
    let package = client_of((secret, stranger))
        .generate_key_package_message(Default::default(), Default::default(), None)
        .unwrap();
    let proposal = story.members[0].propose_add(package.clone(), vec![]).unwrap().to_bytes().unwrap();
    let refusal = story.observer.proposal(&proposal).unwrap_err();
    assert_eq!(unknown(refusal), (UnknownKind::Credential, PRIVATE_CREDENTIAL));
    story.members[0].clear_proposal_cache();
    let output = story.members[0].commit_builder().add_member(package).unwrap().build().unwrap();
    let commit = output.commit_message.to_bytes().unwrap();
    let welcome = output.welcome_messages.first().unwrap().to_bytes().unwrap();
    let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };
    let refusal = story.observer.commit(input).unwrap_err();
    assert_eq!(unknown(refusal), (UnknownKind::Credential, PRIVATE_CREDENTIAL));
}

#[test]
fn a_client_whose_leaf_changed_hands_can_come_back() {
    let mut story = Story::begin();
    let bob = client("bob");
    let package = |client: &Client<Config>| {
        client.generate_key_package_message(Default::default(), Default::default(), None).unwrap()
    };
    let add = |story: &mut Story, joiner: &Client<Config>, removed: Option<u32>| {
        let mut builder = story.members[0].commit_builder().add_member(package(joiner)).unwrap();
        if let Some(leaf) = removed {
            builder = builder.remove_member(leaf).unwrap();
        }
        let output = builder.build().unwrap();
        let welcome = output.welcome_messages.first().unwrap();
        story.observe(&output.commit_message, None, Some(welcome));
        let tree = mls_rs::group::ExportedTree::from_bytes(&story.observer.live.tree().to_bytes()).unwrap();
        let group = joiner.join_group(Some(tree), welcome, None).unwrap().0;
        story.settle(0, &output.commit_message, vec![group]);
    };
    add(&mut story, &bob, None);
    // Bob leaves, and Carol takes his leaf in the same commit.
    add(&mut story, &client("carol"), Some(1));
    assert_eq!(story.observer.live.members()[&1].handle.as_bytes(), b"carol");
    add(&mut story, &bob, None);
    assert_eq!(story.observer.live.members()[&2].handle.as_bytes(), b"bob");
}

#[test]
fn a_member_that_was_kept_before_credentials_had_an_end_is_read() {
    #[derive(serde::Serialize)]
    struct Before {
        handle: ClientHandle,
        domain: Option<DomainName>,
    }
    let before = Before { handle: ClientHandle::new("alice").unwrap(), domain: None };
    let member: Member = crate::codec::decode(&crate::codec::encode(&before).unwrap()).unwrap();
    assert_eq!(member, Member { handle: before.handle, domain: None, valid_until: None });
    assert!(!member.is_expired(Timestamp(u64::MAX)));
    let expiring = Member { valid_until: Some(Timestamp(1999)), ..member };
    assert!(!expiring.is_expired(Timestamp(1999)) && expiring.is_expired(Timestamp(2000)));
}
