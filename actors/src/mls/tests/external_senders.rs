//! Credentials of a group's external senders over time: they are validated when they are set.

use std::sync::Arc;

use mls_forge::{
    Client, Credential, Extension, ExternalSender, Forged, Group, PathChoice, Proposal, SharedTree, Suite,
    Tls as _, extension, proposal,
};
use snapshots::{ClientHandle, DomainName, Timestamp};

use super::{CommitInput, Observer, Refusal, Validator, rule};
use crate::{
    clock::Clock,
    identity::{
        ApplicationContext, BasicIdentityProvider, CredentialType, GroupContextExtensions, Identity,
        IdentityError, IdentityProvider,
    },
    mls::{Rule, TrackedGroup},
};

const DICTIONARY: u16 = 6;

/// Certificates are valid until a moment; members have basic credentials.
struct Until(Timestamp);

impl IdentityProvider for Until {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::BASIC, CredentialType::X509]
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        _: GroupContextExtensions<'_>,
        context: ApplicationContext,
    ) -> Result<(), IdentityError> {
        let is_certificate = identity.credential.credential_type == CredentialType::X509;
        if is_certificate && self.0 < context.msg_timestamp {
            return Err(IdentityError("it has expired".into()));
        }
        Ok(())
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        BasicIdentityProvider.client_handle(identity)
    }

    fn client_domain(&self, _: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Ok(None)
    }
}

/// A group with an external sender whose certificate has expired since, and its observer.
fn scene() -> (Group, Observer) {
    let sender = ExternalSender {
        signature_key: Client::new(Suite::Ed25519, "service").key.public(),
        credential: Credential::X509(vec![b"service".to_vec()]),
    };
    let extensions = vec![
        Extension::of(extension::EXTERNAL_SENDERS, &vec![sender]),
        Extension { kind: DICTIONARY, data: Vec::<u8>::new().to_bytes() },
    ];
    let member = |at| {
        Client::new(Suite::Ed25519, &format!("member {at}"))
            .supporting_extensions(&[DICTIONARY])
            .supporting_proposals(&[proposal::APP_DATA_UPDATE])
    };
    let group = Group::of_clients_with((0..3).map(member).collect(), SharedTree::Populated, extensions);
    let began = Clock::system().now();
    let mut validator = Validator::new();
    validator.application.identity = Arc::new(Until(began));
    let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
    let open = || TrackedGroup::open(validator.context(), &info, Some(&tree), began).unwrap();
    let (live, replayed) = (open(), open());
    (group, Observer { live, replayed, validator, now: Timestamp(began.0 + 60_000) })
}

fn upload(mut observer: Observer, forged: &Forged) -> Result<(), Refusal> {
    let (commit, info) = (forged.commit_bytes(), forged.group_info_bytes());
    observer.commit(CommitInput { commit: &commit, group_info: Some(&info), welcome: None })
}

#[test]
fn application_data_change_whatever_has_become_of_the_external_senders() {
    let (group, observer) = scene();
    let update = Proposal::AppDataUpdate { component_id: 0x8001, update: Some(b"an instruction".to_vec()) };
    let mut draft = group.commit(0).with(update).path(PathChoice::Without).draft();
    let mut list = Vec::new();
    0x8001_u16.write(&mut list);
    b"new".to_vec().write(&mut list);
    draft.extensions[1].data = list.to_bytes();
    let forged = draft.sign();
    upload(observer, &forged).unwrap();
}

#[test]
fn external_senders_are_validated_when_they_are_set() {
    let (group, observer) = scene();
    let extensions = group.context.extensions.clone();
    let forged = group.commit(0).with(Proposal::GroupContextExtensions(extensions)).sign();
    assert_eq!(upload(observer, &forged).map_err(rule), Err(Rule::Identity));
}
