//! MLS clients of several domains, in groups.

use std::time::Duration;

use actors::{CommitBundle, Epoch, GroupId, NewGroup, Source};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList, Group, MlsMessage,
    client_builder::{MlsConfig, PaddingMode},
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use snapshots::DomainName;

use crate::net::Net;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

pub(crate) fn client(name: &str, domain: &DomainName) -> Client<impl MlsConfig + use<>> {
    client_with(name, domain, Duration::from_secs(86_400))
}

/// A client whose key packages, and whose leaf in a group that it creates, last so long.
pub(crate) fn client_with(
    name: &str,
    domain: &DomainName,
    lasts: Duration,
) -> Client<impl MlsConfig + use<>> {
    let crypto = RustCryptoProvider::default();
    let (secret, public) = crypto.cipher_suite_provider(SUITE).unwrap().signature_key_generate().unwrap();
    let credential = BasicCredential::new(format!("{name}@{domain}").into_bytes()).into_credential();
    let rules = DefaultMlsRules::new()
        .with_encryption_options(EncryptionOptions::new(false, PaddingMode::None))
        .with_commit_options(
            CommitOptions::new().with_allow_external_commit(true).with_ratchet_tree_extension(false),
        );
    Client::builder()
        .crypto_provider(crypto)
        .identity_provider(BasicIdentityProvider::new())
        .mls_rules(rules)
        .key_package_lifetime(lasts)
        .signing_identity(SigningIdentity::new(credential, public), secret, SUITE)
        .build()
}

/// One member, at the gateway of its domain.
pub(crate) struct Member<C: MlsConfig> {
    pub(crate) domain: DomainName,
    pub(crate) group: Group<C>,
}

pub(crate) fn upload_of(output: &mls_rs::group::CommitOutput) -> CommitBundle {
    CommitBundle {
        commit: output.commit_message.to_bytes().unwrap(),
        group_info: output.external_commit_group_info.as_ref().map(|info| info.to_bytes().unwrap()),
        welcome: output.welcome_messages.first().map(|welcome| welcome.to_bytes().unwrap()),
    }
}

pub(crate) fn package(client: &Client<impl MlsConfig>) -> MlsMessage {
    client.generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None).unwrap()
}

/// The group that a client would create.
pub(crate) fn new_group<C: MlsConfig>(client: &Client<C>) -> (Group<C>, NewGroup) {
    let group = client.create_group(ExtensionList::new(), ExtensionList::new(), None).unwrap();
    let new = NewGroup {
        group_info: group.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(group.export_tree().to_bytes().unwrap()),
    };
    (group, new)
}

/// A group with one member of each gateway of a net; the first is created at its gateway, the hub.
pub(crate) async fn group_of_all(
    net: &Net,
    hub: &DomainName,
    number: usize,
) -> (GroupId, Vec<Member<impl MlsConfig + use<>>>) {
    let creator = client(&format!("creator{number}"), hub);
    let (group, new) = new_group(&creator);
    let id = net.at(hub).create_group(net.app, new, Source::Application).await.unwrap().group;
    let mut members = vec![Member { domain: hub.clone(), group }];
    let others: Vec<DomainName> = net.domains.iter().filter(|domain| *domain != hub).cloned().collect();
    let clients: Vec<_> = others.iter().map(|domain| client(&format!("guest{number}"), domain)).collect();
    let mut builder = members[0].group.commit_builder();
    for invited in &clients {
        builder = builder.add_member(package(invited)).unwrap();
    }
    let output = builder.build().unwrap();
    net.upload_commit(hub, &id, upload_of(&output)).await.unwrap();
    members[0].group.apply_pending_commit().unwrap();
    let tree = members[0].group.export_tree().into_owned();
    for (invited, domain) in clients.iter().zip(others) {
        let welcome = &output.welcome_messages[0];
        let (group, _) = invited.join_group(Some(tree.clone()), welcome, None).unwrap();
        members.push(Member { domain, group });
    }
    (id, members)
}

impl<C: MlsConfig> Member<C> {
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.group.current_epoch())
    }

    /// Takes in what a gateway has that this member has not.
    pub(crate) async fn catch_up(&mut self, net: &Net, at: &DomainName, id: &GroupId) {
        let from = Epoch(self.epoch().0 + 1);
        let missed = net.at(at).control_messages(net.app, id, from, None, 1000).await.unwrap();
        for entry in missed.epochs {
            for packet in entry.proposals.iter().chain([&entry.commit]) {
                let message = MlsMessage::from_bytes(packet).unwrap();
                self.group.process_incoming_message(message).unwrap();
            }
        }
    }

    pub(crate) fn authenticator(&self) -> Vec<u8> {
        self.group.epoch_authenticator().unwrap().as_bytes().to_vec()
    }
}
