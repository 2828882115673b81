//! The two MLS libraries as observers of a group. What they refuse, or panic at, is a reason in words.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use mls_rs::{
    MlsMessage,
    external_client::{
        ExternalClient, ExternalGroup,
        builder::{ExternalBaseConfig, WithCryptoProvider, WithIdentityProvider},
    },
    group::ExportedTree,
    identity::basic::BasicIdentityProvider,
    mls_rs_codec::MlsEncode as _,
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use openmls::{
    group::{PublicGroup, StagedCommit},
    prelude::{
        MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider as _, ProcessedMessageContent, ProposalStore,
        ProtocolVersion, QueuedProposal, RatchetTreeIn,
        tls_codec::{Deserialize as _, Serialize as _},
    },
};
use openmls_rust_crypto::OpenMlsRustCrypto;

/// What an observer says of a message: something, or why it refuses it.
pub(crate) type Verdict<T = ()> = Result<T, String>;

thread_local! {
    static IS_LIBRARY: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library. A panic is a refusal, and is not printed.
fn call<T>(library: impl FnOnce() -> Verdict<T>) -> Verdict<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_LIBRARY.get() {
                print(panic);
            }
        }));
    });
    IS_LIBRARY.set(true);
    let verdict = catch_unwind(AssertUnwindSafe(library));
    IS_LIBRARY.set(false);
    verdict.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        Err(format!("panicked: {words}"))
    })
}

fn words(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// An observer by openmls.
pub(crate) struct OpenMls {
    provider: OpenMlsRustCrypto,
    group: PublicGroup,
}

impl OpenMls {
    pub(crate) fn open(info: &[u8], tree: &[u8]) -> Verdict<Self> {
        call(|| {
            let provider = OpenMlsRustCrypto::default();
            let message = MlsMessageIn::tls_deserialize_exact(info).map_err(words)?;
            let MlsMessageBodyIn::GroupInfo(info) = message.extract() else {
                return Err("not a group info".into());
            };
            let tree = RatchetTreeIn::tls_deserialize_exact(tree).map_err(words)?;
            let (crypto, storage) = (provider.crypto(), provider.storage());
            let (group, _) = PublicGroup::from_external(crypto, storage, tree, info, ProposalStore::new())
                .map_err(words)?;
            Ok(Self { provider, group })
        })
    }

    fn process(&self, packet: &[u8]) -> Verdict<ProcessedMessageContent> {
        let message = MlsMessageIn::tls_deserialize_exact(packet).map_err(words)?;
        let message = message.try_into_protocol_message().map_err(words)?;
        let processed = self.group.process_message(self.provider.crypto(), message).map_err(words)?;
        Ok(processed.into_content())
    }

    pub(crate) fn proposal(&self, packet: &[u8]) -> Verdict<Box<QueuedProposal>> {
        call(|| match self.process(packet)? {
            ProcessedMessageContent::ProposalMessage(queued)
            | ProcessedMessageContent::ExternalJoinProposalMessage(queued) => Ok(queued),
            _ => Err("not a proposal".into()),
        })
    }

    pub(crate) fn add(&mut self, proposal: QueuedProposal) -> Verdict {
        self.group.add_proposal(self.provider.storage(), proposal).map_err(words)
    }

    pub(crate) fn commit(&self, packet: &[u8]) -> Verdict<Box<StagedCommit>> {
        call(|| match self.process(packet)? {
            ProcessedMessageContent::StagedCommitMessage(staged) => Ok(staged),
            _ => Err("not a commit".into()),
        })
    }

    pub(crate) fn merge(&mut self, staged: StagedCommit) -> Verdict {
        call(|| self.group.merge_commit(self.provider.storage(), staged).map_err(words))
    }

    /// The GroupContext and the tree.
    pub(crate) fn state(&self) -> (Vec<u8>, Vec<u8>) {
        let context = self.group.group_context().tls_serialize_detached().unwrap();
        (context, self.group.export_ratchet_tree().tls_serialize_detached().unwrap())
    }

    pub(crate) fn key_package(message: &[u8]) -> Verdict {
        call(|| {
            let provider = OpenMlsRustCrypto::default();
            let message = MlsMessageIn::tls_deserialize_exact(message).map_err(words)?;
            let MlsMessageBodyIn::KeyPackage(package) = message.extract() else {
                return Err("not a key package".into());
            };
            package.validate(provider.crypto(), ProtocolVersion::Mls10).map(drop).map_err(words)
        })
    }
}

/// The GroupContext of a staged commit.
pub(crate) fn context_of(staged: &StagedCommit) -> Vec<u8> {
    staged.group_context().tls_serialize_detached().unwrap()
}

type Config =
    WithCryptoProvider<RustCryptoProvider, WithIdentityProvider<BasicIdentityProvider, ExternalBaseConfig>>;

/// An observer by mls-rs.
#[derive(Clone)]
pub(crate) struct MlsRs(ExternalGroup<Config>);

impl MlsRs {
    /// It has to be told the types of extensions and proposals that it does not know.
    fn client(extensions: &[u16], proposals: &[u16]) -> ExternalClient<Config> {
        ExternalClient::builder()
            .identity_provider(BasicIdentityProvider::new())
            .crypto_provider(RustCryptoProvider::default())
            .extension_types(extensions.iter().map(|kind| (*kind).into()))
            .custom_proposal_types(proposals.iter().map(|kind| (*kind).into()))
            .build()
    }

    pub(crate) fn open(info: &[u8], tree: &[u8], extensions: &[u16], proposals: &[u16]) -> Verdict<Self> {
        call(|| {
            let info = MlsMessage::from_bytes(info).map_err(words)?;
            let tree = ExportedTree::from_bytes(tree).map_err(words)?;
            let client = Self::client(extensions, proposals);
            client.observe_group(info, Some(tree), None).map(Self).map_err(words)
        })
    }

    fn process(&mut self, packet: &[u8]) -> Verdict {
        call(|| {
            let message = MlsMessage::from_bytes(packet).map_err(words)?;
            self.0.process_incoming_message(message).map(drop).map_err(words)
        })
    }

    /// Takes a message in; after a refusal it is as it was.
    pub(crate) fn take(&mut self, packet: &[u8]) -> Verdict {
        let mut next = self.clone();
        next.process(packet)?;
        *self = next;
        Ok(())
    }

    /// As it would be after a message.
    pub(crate) fn after(&self, packet: &[u8]) -> Verdict<Self> {
        let mut next = self.clone();
        next.process(packet)?;
        Ok(next)
    }

    pub(crate) fn context(&self) -> Vec<u8> {
        self.0.group_context().mls_encode_to_vec().unwrap()
    }

    /// The GroupContext and the tree.
    pub(crate) fn state(&self) -> (Vec<u8>, Vec<u8>) {
        (self.context(), self.0.export_tree().unwrap())
    }

    pub(crate) fn key_package(message: &[u8]) -> Verdict {
        call(|| {
            let message = MlsMessage::from_bytes(message).map_err(words)?;
            let now = Some(mls_rs::time::MlsTime::now());
            Self::client(&[], &[]).validate_key_package(message, now).map(drop).map_err(words)
        })
    }
}
