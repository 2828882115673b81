//! Forged groups, followed by two MLS libraries from outside, in the cipher suites that both have.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

use mls_forge::{
    Client, Credential, Extension, ExternalSender, Forged, Group, PathChoice, Proposal, PublicMessage,
    Randomness, Sender, SharedTree, Suite, Tls as _, extension,
};
use mls_rs::{
    MlsMessage,
    external_client::{
        ExternalClient, ExternalGroup,
        builder::{ExternalBaseConfig, WithCryptoProvider, WithIdentityProvider},
    },
    group::ExportedTree,
    identity::basic::BasicIdentityProvider,
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use openmls::{
    group::PublicGroup,
    prelude::{
        MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider as _, ProcessedMessageContent, ProposalStore,
        RatchetTreeIn,
        tls_codec::{Deserialize as _, Serialize as _},
    },
};
use openmls_rust_crypto::OpenMlsRustCrypto;

/// An extension type for private use, which all clients support.
const PRIVATE_USE: u16 = 0xf001;
const SUITES: [Suite; 3] = [Suite::Ed25519, Suite::P256, Suite::Ed25519ChaCha];

type Config =
    WithCryptoProvider<RustCryptoProvider, WithIdentityProvider<BasicIdentityProvider, ExternalBaseConfig>>;

/// A forged group and the two libraries' observers of it.
struct Followed {
    group: Group,
    provider: OpenMlsRustCrypto,
    openmls: PublicGroup,
    mls_rs: ExternalGroup<Config>,
    named: usize,
    randomness: Randomness,
}

fn client(suite: Suite, name: &str) -> Client {
    Client::new(suite, name).supporting_extensions(&[PRIVATE_USE])
}

impl Followed {
    fn open(group: Group) -> Self {
        let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
        let provider = OpenMlsRustCrypto::default();
        let message = MlsMessageIn::tls_deserialize_exact(&info).unwrap();
        let MlsMessageBodyIn::GroupInfo(verifiable) = message.extract() else { panic!("not a group info") };
        let openmls = PublicGroup::from_external(
            provider.crypto(),
            provider.storage(),
            RatchetTreeIn::tls_deserialize_exact(&tree).unwrap(),
            verifiable,
            ProposalStore::new(),
        );
        let external = ExternalClient::builder()
            .identity_provider(BasicIdentityProvider::new())
            .crypto_provider(RustCryptoProvider::default())
            .extension_type(PRIVATE_USE.into())
            .build();
        let mls_rs = external
            .observe_group(
                MlsMessage::from_bytes(&info).unwrap(),
                Some(ExportedTree::from_bytes(&tree).unwrap()),
                None,
            )
            .unwrap();
        let randomness = Randomness::new(b"followed");
        let mut followed =
            Self { group, provider, openmls: openmls.unwrap().0, mls_rs, named: 1000, randomness };
        followed.agree();
        followed
    }

    fn process(&self, packet: &[u8]) -> ProcessedMessageContent {
        let message =
            MlsMessageIn::tls_deserialize_exact(packet).unwrap().try_into_protocol_message().unwrap();
        self.openmls.process_message(self.provider.crypto(), message).unwrap().into_content()
    }

    fn proposal(&mut self, message: &PublicMessage) {
        let packet = message.to_message();
        let (ProcessedMessageContent::ProposalMessage(queued)
        | ProcessedMessageContent::ExternalJoinProposalMessage(queued)) = self.process(&packet)
        else {
            panic!("not a proposal");
        };
        self.openmls.add_proposal(self.provider.storage(), *queued).unwrap();
        self.mls_rs.process_incoming_message(MlsMessage::from_bytes(&packet).unwrap()).unwrap();
    }

    fn propose(&mut self, sender: Sender, proposal: Proposal) {
        let message = self.group.propose(sender, proposal);
        self.proposal(&message);
    }

    fn commit(&mut self, forged: &Forged) {
        let packet = forged.commit_bytes();
        let ProcessedMessageContent::StagedCommitMessage(staged) = self.process(&packet) else {
            panic!("not a commit");
        };
        self.openmls.merge_commit(self.provider.storage(), *staged).unwrap();
        self.mls_rs.process_incoming_message(MlsMessage::from_bytes(&packet).unwrap()).unwrap();
        self.group.apply(forged);
        self.agree();
        // Whoever joins with the welcome's GroupInfo finds the same group.
        let info = MlsMessageIn::tls_deserialize_exact(forged.group_info_bytes()).unwrap();
        assert!(matches!(info.extract(), MlsMessageBodyIn::GroupInfo(_)));
        if let Some(welcome) = forged.welcome_bytes() {
            let welcome = MlsMessageIn::tls_deserialize_exact(welcome).unwrap();
            assert!(matches!(welcome.extract(), MlsMessageBodyIn::Welcome(_)));
        }
    }

    /// Both have the forged context and tree, and the forged parent hashes are valid by their definition.
    fn agree(&mut self) {
        let context = self.openmls.group_context().tls_serialize_detached().unwrap();
        assert_eq!(self.group.context.to_bytes(), context);
        let tree = self.openmls.export_ratchet_tree().tls_serialize_detached().unwrap();
        assert_eq!(self.group.tree_bytes(), tree);
        assert_eq!(self.group.tree_bytes(), self.mls_rs.export_tree().unwrap());
        let of_mls_rs = self.mls_rs.group_context();
        assert_eq!(self.group.context.epoch, of_mls_rs.epoch);
        assert_eq!(self.group.context.tree_hash, self.mls_rs.tree_hash());
        assert_eq!(&self.group.context.confirmed_transcript_hash, self.mls_rs.transcript_hash());
        self.group.tree.check_parent_hashes(self.group.suite).unwrap();
    }

    fn pick(&self) -> u32 {
        let members = self.group.members();
        members[self.randomness.below(members.len())]
    }

    /// Another member, if there is one.
    fn pick_other(&self, than: u32) -> Option<u32> {
        let others: Vec<_> = self.group.members().into_iter().filter(|member| *member != than).collect();
        (!others.is_empty()).then(|| others[self.randomness.below(others.len())])
    }

    fn newcomer(&mut self) -> Client {
        self.named += 1;
        client(self.group.suite, &format!("member {}", self.named))
    }

    fn step(&mut self, kind: usize) {
        let committer = self.pick();
        let other = self.pick_other(committer);
        let path = [PathChoice::AsNeeded, PathChoice::With][self.randomness.below(2)];
        let suite = self.group.suite;
        let forged = match (kind, other) {
            (0, _) => self.group.commit(committer).sign(),
            (1, _) => {
                let count = 1 + self.randomness.below(5);
                let clients: Vec<_> = (0..count).map(|_| self.newcomer()).collect();
                let adds: Vec<_> = clients.iter().map(|client| self.group.add(client)).collect();
                self.group.commit(committer).with_all(adds).path(path).sign()
            }
            (2, Some(other)) => self.group.commit(committer).with(Proposal::Remove(other)).sign(),
            // By reference: an update, an addition and a removal.
            (3, Some(other)) => {
                let update = self.group.update(other);
                self.propose(Sender::Member(other), update);
                let newcomer = self.newcomer();
                let add = self.group.add(&newcomer);
                self.propose(Sender::Member(committer), add);
                if let Some(removed) = self.pick_other(committer).filter(|removed| *removed != other) {
                    self.propose(Sender::Member(other), Proposal::Remove(removed));
                }
                self.group.commit(committer).with_pending().sign()
            }
            (4, _) => {
                let joiner = self.newcomer();
                self.group.external_commit(&joiner).sign()
            }
            // A member comes back by an external commit that removes its own leaf.
            (5, Some(other)) => {
                let back = self.group.client(other).clone();
                self.group.external_commit(&back).with(Proposal::Remove(other)).sign()
            }
            (6, _) => {
                let mut extensions = self.group.context.extensions.clone();
                extensions.retain(|extension| extension.kind != PRIVATE_USE);
                extensions.push(Extension { kind: PRIVATE_USE, data: self.randomness.bytes(3) });
                self.group.commit(committer).with(Proposal::GroupContextExtensions(extensions)).sign()
            }
            (7, _) => {
                let psk = Proposal::external_psk(suite, &self.randomness.bytes(8));
                self.group.commit(committer).with(psk).path(path).sign()
            }
            (8, _) => {
                let psk = Proposal::external_psk(suite, &self.randomness.bytes(8));
                self.propose(Sender::Member(other.unwrap_or(committer)), psk);
                self.group.commit(committer).with_pending().sign()
            }
            (9, _) => {
                let newcomer = self.newcomer();
                let add = self.group.add(&newcomer);
                self.propose(Sender::NewMemberProposal, add);
                self.group.commit(committer).with_pending().sign()
            }
            (10, _) => {
                let newcomer = self.newcomer();
                let add = self.group.add(&newcomer);
                self.propose(Sender::External(0), add);
                if let Some(other) = other {
                    self.propose(Sender::External(0), Proposal::Remove(other));
                }
                self.group.commit(committer).with_pending().sign()
            }
            // Two leave and three come, in one commit.
            (11, Some(other)) => {
                let adds: Vec<_> = (0..3).map(|_| self.newcomer()).collect();
                let adds: Vec<_> = adds.iter().map(|client| self.group.add(client)).collect();
                let mut plan = self.group.commit(committer).with_all(adds).with(Proposal::Remove(other));
                if let Some(another) = self.pick_other(committer).filter(|another| *another != other) {
                    plan = plan.with(Proposal::Remove(another));
                }
                plan.sign()
            }
            _ => self.group.commit(committer).sign(),
        };
        self.commit(&forged);
    }
}

const KINDS: usize = 12;

/// A group whose context names an external sender.
fn with_external_sender(suite: Suite) -> Group {
    let service = client(suite, "service");
    let sender = ExternalSender {
        signature_key: service.key.public(),
        credential: Credential::Basic(b"service".to_vec()),
    };
    // openmls takes no extension of private use that is not required.
    let required = Extension::required_capabilities(&[PRIVATE_USE], &[], &[]);
    let senders = Extension::of(extension::EXTERNAL_SENDERS, &vec![sender]);
    let mut group = Group::create_with(client(suite, "member 0"), vec![senders, required]);
    group.know(&service);
    group
}

#[test]
fn random_groups_are_followed_by_both_libraries() {
    for suite in SUITES {
        for seed in 0..4_u8 {
            let mut followed = Followed::open(with_external_sender(suite));
            followed.randomness = Randomness::new(&[seed]);
            for step in 0..40 {
                // Groups grow first.
                let kind = if step < 3 { 1 } else { followed.randomness.below(KINDS) };
                followed.step(kind);
            }
        }
    }
}

#[test]
fn groups_of_all_sizes_are_opened_and_go_on() {
    for count in 1..=70 {
        for tree in [SharedTree::Blank, SharedTree::Populated] {
            let suite = SUITES[count % 3];
            let clients = (0..count).map(|at| client(suite, &format!("member {at}"))).collect();
            let mut followed = Followed::open(Group::of_clients(clients, tree));
            for kind in [0, 2, 3, 0, 5, 1, 0] {
                followed.step(kind);
            }
        }
    }
}
