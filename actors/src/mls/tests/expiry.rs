//! Members whose credentials expire.

use std::{collections::BTreeSet, sync::Arc};

use openmls::{
    prelude::{
        BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, Extension, Extensions, ExternalSender,
        KeyPackage, MlsGroup, MlsGroupJoinConfig, OpenMlsProvider as _, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
        ProposalType, StagedWelcome,
        tls_codec::{DeserializeBytes as _, Serialize as _},
    },
    prelude::{MlsMessageBodyIn, MlsMessageIn},
};
use openmls_rust_crypto::OpenMlsRustCrypto;

use super::*;
use crate::{
    application::ExpiredMembers,
    external_sender::ExternalSenderKey,
    identity::{
        ApplicationContext, BasicIdentityProvider, CredentialType, GroupContextExtensions, Identity,
        IdentityError, IdentityProvider,
    },
    mls::{CredentialCheck, RefusedCredentials},
};

/// The Basic identity provider, but for clients whose names end in a moment, in Unix milliseconds, at which they expire.
pub(super) struct Ending;

impl Ending {
    fn end(identity: Identity<'_>) -> Option<Timestamp> {
        let handle = BasicIdentityProvider.client_handle(identity).ok()?;
        let name = String::from_utf8(handle.as_bytes().to_vec()).ok()?;
        name.rsplit_once(" until ")?.1.parse().ok().map(Timestamp)
    }
}

impl IdentityProvider for Ending {
    fn supported_credentials(&self) -> &[CredentialType] {
        BasicIdentityProvider.supported_credentials()
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        _: GroupContextExtensions<'_>,
        context: ApplicationContext,
    ) -> Result<(), IdentityError> {
        match Self::end(identity) {
            Some(end) if end < context.msg_timestamp => Err(IdentityError("it has expired".into())),
            Some(_) | None => Ok(()),
        }
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        BasicIdentityProvider.client_handle(identity)
    }

    fn client_domain(&self, _: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Ok(None)
    }

    fn valid_until(&self, identity: Identity<'_>) -> Result<Option<Timestamp>, IdentityError> {
        Ok(Self::end(identity))
    }
}

/// What becomes of those who have expired is for the hub to say: a replica takes what it accepted.
#[test]
fn only_a_hub_holds_members_to_their_expiry() {
    let mut story = Story::begin();
    story.observer.validator.application.identity = Arc::new(Ending);
    let end = story.observer.now.0 + 60_000;
    let bob = client(&format!("bob until {end}"));
    let package = bob.generate_key_package_message(Default::default(), Default::default(), None).unwrap();
    let output = story.members[0].commit_builder().add_member(package).unwrap().build().unwrap();
    let welcome = output.welcome_messages.first().unwrap();
    story.observe(&output.commit_message, None, Some(welcome));
    let tree = mls_rs::group::ExportedTree::from_bytes(&story.observer.live.tree().to_bytes()).unwrap();
    let at_bob = bob.join_group(Some(tree), welcome, None).unwrap().0;
    story.settle(0, &output.commit_message, vec![at_bob]);

    let proposal = story.members[1].propose_remove(0, vec![]).unwrap().to_bytes().unwrap();
    story.members[1].clear_proposal_cache();
    let package =
        client("carol").generate_key_package_message(Default::default(), Default::default(), None).unwrap();
    let output = story.members[1].commit_builder().add_member(package).unwrap().build().unwrap();
    let commit = output.commit_message.to_bytes().unwrap();
    let welcome = output.welcome_messages.first().unwrap().to_bytes().unwrap();
    let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };

    let Observer { live, validator, now: began, .. } = &mut story.observer;
    for (seconds, source, policy, expected) in [
        (60, Source::Application, ExpiredMembers::Refuse, None),
        (61, Source::Application, ExpiredMembers::Refuse, Some(Rule::Identity)),
        (61, Source::Application, ExpiredMembers::Propose, Some(Rule::Identity)),
        (61, Source::Peer(BTreeSet::new()), ExpiredMembers::Propose, Some(Rule::Identity)),
        (61, Source::Application, ExpiredMembers::Ignore, None),
        (61, Source::Hub, ExpiredMembers::Refuse, None),
    ] {
        validator.application.expired_members = policy;
        let context = ValidationContext { source: &source, ..validator.context() };
        let now = Timestamp(began.0 + seconds * 1000);
        assert_eq!(
            live.stage_commit(context, &input.into(), now).err().map(rule),
            expected,
            "{source:?} {policy:?}"
        );
        assert_eq!(
            live.stage_proposal(context, &proposal, now).err().map(rule),
            expected,
            "{source:?} {policy:?}"
        );
    }
}

/// Counts the validations of [`Ending`].
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl Counting {
    fn validated(&self) -> usize {
        self.0.swap(0, std::sync::atomic::Ordering::Relaxed)
    }
}

impl IdentityProvider for Counting {
    fn supported_credentials(&self) -> &[CredentialType] {
        Ending.supported_credentials()
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        extensions: GroupContextExtensions<'_>,
        context: ApplicationContext,
    ) -> Result<(), IdentityError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ending.validate(identity, extensions, context)
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        Ending.client_handle(identity)
    }

    fn client_domain(&self, _: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Ok(None)
    }
}

/// However many packages are refused, a good one is found, and a refused credential is validated once in a while.
#[test]
fn refused_credentials_are_validated_once_and_hide_no_good_one() {
    let package = |name: &str| {
        let message = client(name).generate_key_package_message(Default::default(), Default::default(), None);
        message.unwrap().to_bytes().unwrap()
    };
    let good = package("alice");
    let bad: Vec<_> = (0..40).map(|number| package(&format!("{number} until 999"))).collect();
    let (counting, mut refused) = (Counting::default(), RefusedCredentials::default());
    for (now, expected) in [(1000, 40), (1000, 0), (5000, 0), (60_000, 40), (59_000, 40)] {
        let mut credentials = CredentialCheck::new(&counting, Timestamp(now), &mut refused);
        for package in bad.iter().chain(&bad) {
            assert!(!credentials.accepts(package));
        }
        assert!(!credentials.accepts(b"nonsense"));
        assert_eq!(counting.validated(), expected, "at {now}");
        assert!(credentials.accepts(&good));
        counting.validated();
    }
}

/// A client of the library, whose members can remove themselves.
struct Own {
    provider: OpenMlsRustCrypto,
    signer: ExternalSenderKey,
    credential: CredentialWithKey,
}

const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

fn signer() -> ExternalSenderKey {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    ExternalSenderKey::from_pem(key.as_bytes(), None, "gateway").unwrap()
}

fn leaving() -> Capabilities {
    Capabilities::builder().proposals(vec![ProposalType::SelfRemove]).build()
}

impl Own {
    fn new(name: &str) -> Self {
        let signer = signer();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
            signature_key: signer.public_key().to_vec().into(),
        };
        Self { provider: OpenMlsRustCrypto::default(), signer, credential }
    }

    fn package(&self) -> KeyPackage {
        let builder = KeyPackage::builder().leaf_node_capabilities(leaving());
        let package = builder.build(CIPHER_SUITE, &self.provider, &self.signer, self.credential.clone());
        package.unwrap().key_package().clone()
    }
}

/// The gateway proposes to remove who has expired, once, and not who is leaving.
#[test]
fn who_is_removed_already_is_not_proposed_again() {
    let mut validator = Validator::new();
    validator.application.identity = Arc::new(Ending);
    let now = Clock::system().now();
    let [alice, bob, carol] = [
        Own::new("alice"),
        Own::new(&format!("bob until {}", now.0)),
        Own::new(&format!("carol until {}", now.0)),
    ];
    let gateway = [signer()];
    let sender = ExternalSender::tls_deserialize_exact_bytes(gateway[0].external_sender()).unwrap();
    let mut at_alice = MlsGroup::builder()
        .ciphersuite(CIPHER_SUITE)
        .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .with_capabilities(leaving())
        .with_group_context_extensions(Extensions::single(Extension::ExternalSenders(vec![sender])).unwrap())
        .build(&alice.provider, &alice.signer, alice.credential.clone())
        .unwrap();
    let info = at_alice.export_group_info(alice.provider.crypto(), &alice.signer, true).unwrap();
    let mut group =
        TrackedGroup::open(validator.context(), &info.tls_serialize_detached().unwrap(), None, now).unwrap();
    let (commit, welcome, _) =
        at_alice.add_members(&alice.provider, &alice.signer, &[bob.package(), carol.package()]).unwrap();
    let welcome = welcome.tls_serialize_detached().unwrap();
    let commit = commit.tls_serialize_detached().unwrap();
    let input = CommitInput { commit: &commit, group_info: None, welcome: Some(&welcome) };
    let staged = group.stage_commit(validator.context(), &input.into(), now).unwrap();
    group.apply_epoch(staged);
    at_alice.merge_pending_commit(&alice.provider).unwrap();

    let message = MlsMessageIn::tls_deserialize_exact_bytes(&welcome).unwrap().extract();
    let MlsMessageBodyIn::Welcome(welcome) = message else { panic!("a welcome") };
    let config = MlsGroupJoinConfig::builder().wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY).build();
    let tree = at_alice.export_ratchet_tree().into();
    let staged = StagedWelcome::new_from_welcome(&bob.provider, &config, welcome, Some(tree)).unwrap();
    let mut at_bob = staged.into_group(&bob.provider).unwrap();

    let later = Timestamp(now.0 + 1);
    let removals = |group: &TrackedGroup, limits: &Limits| group.removals(&gateway, limits, later);
    assert_eq!(removals(&group, &validator.limits).len(), 2);
    let leaving = at_bob.leave_group_via_self_remove(&bob.provider, &bob.signer).unwrap();
    let leaving = leaving.tls_serialize_detached().unwrap();
    let staged = group.stage_proposal(validator.context(), &leaving, now).unwrap();
    group.apply_proposal(staged.pending);
    let of_carol = removals(&group, &validator.limits);
    assert_eq!(of_carol.len(), 1);

    // There is no room: in the epoch, in a commit, in bytes.
    let full = |change: fn(&mut Limits)| {
        let mut limits = validator.limits.clone();
        change(&mut limits);
        removals(&group, &limits).len()
    };
    assert_eq!(full(|limits| limits.proposals_per_epoch_max = 2), 0, "half of it is taken");
    assert_eq!(full(|limits| limits.proposals_per_epoch_max = 3), 1);
    assert_eq!(full(|limits| limits.proposals_per_commit_max = 1), 0);
    assert_eq!(full(|limits| limits.proposal_bytes_per_epoch_max = 100), 0);

    let staged = group.stage_proposal(validator.context(), &of_carol[0], later).unwrap();
    group.apply_proposal(staged.pending);
    assert!(removals(&group, &validator.limits).is_empty(), "each once");
}
