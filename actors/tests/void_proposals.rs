//! Proposals that can no longer be committed, next to those that can.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use actors::{
    AppId, Application, Clock, CommitBundle, Gateway, GatewayOptions, GroupError, GroupId, Limits, NewGroup,
    Retention, Source, Store, StoreOptions,
};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, Client, CryptoProvider as _, ExtensionList, Group, MlsMessage,
    client_builder::MlsConfig,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider as MlsRsBasic},
    },
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

fn client(name: &str) -> Client<impl MlsConfig + use<>> {
    let crypto = RustCryptoProvider::default();
    let (secret, public) = crypto.cipher_suite_provider(SUITE).unwrap().signature_key_generate().unwrap();
    let identity =
        SigningIdentity::new(BasicCredential::new(name.as_bytes().to_vec()).into_credential(), public);
    Client::builder()
        .crypto_provider(crypto)
        .identity_provider(MlsRsBasic::new())
        .signing_identity(identity, secret, SUITE)
        .build()
}

fn package(name: &str) -> MlsMessage {
    client(name).generate_key_package_message(Default::default(), Default::default(), None).unwrap()
}

/// A client's new group, which the gateway has.
async fn create(gateway: &Gateway, app: AppId, name: &str) -> (Group<impl MlsConfig + use<>>, GroupId) {
    let group = client(name).create_group(ExtensionList::new(), Default::default(), None).unwrap();
    let new = NewGroup {
        group_info: group.group_info_message(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(group.export_tree().to_bytes().unwrap()),
    };
    let id = gateway.create_group(app, new, Source::Application).await.unwrap().group;
    (group, id)
}

#[test]
fn proposals_that_can_no_longer_be_committed_keep_no_other_out() {
    let app = AppId::random();
    let options = GatewayOptions {
        applications: vec![Application::basic(app)],
        limits: Limits { proposals_per_epoch_max: 2, ..Limits::default() },
        retention: Retention::default(),
        snapshot_period: Duration::from_secs(3600),
        retention_period: Duration::from_secs(3600),
        passivate_after: Duration::from_secs(3600),
        arbiters: 1,
        clock: Clock::system(),
        transport: None,
    };
    actix::System::new().block_on(async {
        let gateway = Gateway::start(options, Store::open(&StoreOptions::default()).unwrap());
        let (mut alice, group) = create(&gateway, app, "alice").await;
        let packages: Vec<MlsMessage> = ["bob", "carol", "dave", "erin", "frank"].map(package).into();
        let packets: Vec<Vec<u8>> = packages
            .iter()
            .map(|package| alice.propose_add(package.clone(), vec![]).unwrap().to_bytes().unwrap())
            .collect();
        let propose = async |place: usize| {
            let packet = packets.get(place).unwrap().clone();
            gateway.upload_proposal(app, &group, packet, Source::Application).await
        };
        let is_refused =
            async |place| matches!(propose(place).await, Err(GroupError::TooManyProposals { max: 2 }));
        let current = async || gateway.current_proposals(app, &group).await.unwrap().1.len();
        // Uses a package in another group, so that its proposal is void.
        let (mut other, other_group) = create(&gateway, app, "grace").await;
        let mut use_package = async |place: usize| {
            let package = packages.get(place).unwrap().clone();
            let output = other.commit_builder().add_member(package).unwrap().build().unwrap();
            let upload = CommitBundle {
                commit: output.commit_message.to_bytes().unwrap(),
                group_info: None,
                welcome: output.welcome_messages.first().map(|welcome| welcome.to_bytes().unwrap()),
            };
            gateway.upload_commit(app, &other_group, upload, Source::Application).await.unwrap();
            other.apply_pending_commit().unwrap();
        };
        propose(0).await.unwrap();
        propose(1).await.unwrap();
        assert!(is_refused(2).await, "two can be committed");
        use_package(0).await;
        propose(2).await.unwrap();
        assert!(is_refused(3).await, "two can be committed");
        assert_eq!(current().await, 2);
        use_package(1).await;
        use_package(2).await;
        propose(3).await.unwrap();
        assert_eq!(current().await, 1);
        assert!(is_refused(4).await, "four wait, and no more may");
        gateway.stop().await;
        gateway.store().shutdown().await;
    });
}
