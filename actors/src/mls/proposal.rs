//! Staging a proposal (*Proposals*; RFC 9420 §12.1): the checks that are possible before it is committed.

use std::collections::BTreeSet;

use openmls::prelude::{
    Extensions, GroupContext, KeyPackage, LeafNode, ProcessedMessageContent, Proposal, ProposalType,
    ProtocolVersion, Sender, VerifiableCiphersuite,
};
use serde::{Deserialize, Serialize};
use snapshots::{DomainName, KeyPackageRef, Timestamp};

use super::{
    Refusal, RequestMember, Rule, TrackedGroup, UnknownKind, ValidationContext,
    commit::protocol_message,
    external_senders::{check_external_senders, external_senders_end},
    group::{identify, identity_of},
    leaf::is_last_resort,
    syntax::{is_known_extension, is_known_proposal},
    wire::{ContentKind, PublicPart},
};
use crate::{codec::encode, identity::Identity};

/// A proposal that was accepted in the current epoch and waits to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingProposal {
    /// The packet as it was uploaded.
    #[serde(with = "serde_bytes")]
    pub(crate) packet: Vec<u8>,
    /// Its ProposalRef (RFC 9420 §5.2).
    #[serde(with = "serde_bytes")]
    pub(crate) reference: Vec<u8>,
    /// The MLS library's queued proposal, MessagePack with named fields.
    #[serde(with = "serde_bytes")]
    pub(crate) queued: Vec<u8>,
    /// What it needs that can end while it waits. Proposals that were accepted before it was kept need nothing.
    #[serde(default)]
    pub(crate) needs: ProposalNeeds,
}

/// Conditions that must still hold when a proposal is committed and can end while it waits. All others stay as they
/// is for the epoch: the tree, the members and the GroupContext.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProposalNeeds {
    /// The key package of an Add, which another commit may use.
    pub(crate) package: Option<KeyPackageRef>,
    /// The domain of the client that an Add brings in, with whose gateway the application may federate no longer.
    pub(crate) domain: Option<DomainName>,
    /// The last moment of an Add's key package (RFC 9420 §7.2).
    pub(crate) lifetime_ends: Option<Timestamp>,
    /// The last moment of the credentials that it brings in: of an Add's or Update's leaf, of the external senders in
    /// GroupContext extensions.
    pub(crate) credentials_end: Option<Timestamp>,
}

impl ProposalNeeds {
    /// The rule that a commit of the proposal would break at a moment, as far as time alone tells.
    pub(crate) fn expired(&self, at: Timestamp) -> Option<(Rule, String)> {
        let is_over = |end: Option<Timestamp>| end.is_some_and(|end| end < at);
        if is_over(self.lifetime_ends) {
            Some((Rule::Lifetime, "the key package that the proposal adds has expired".into()))
        } else if is_over(self.credentials_end) {
            Some((Rule::Identity, "a credential that the proposal brings in has expired".into()))
        } else {
            None
        }
    }
}

/// A proposal that passed every check.
#[derive(Clone, Debug)]
pub(crate) struct StagedProposal {
    pub(crate) pending: PendingProposal,
    /// The key package of an Add, and whether it is marked as one of last resort.
    pub(crate) adds: Option<(KeyPackageRef, bool)>,
}

impl TrackedGroup {
    /// Whether the packet is a proposal of this group's current epoch, as far as its head tells.
    pub(crate) fn expect_proposal(&self, packet: &[u8]) -> Result<(), Refusal> {
        self.handshake_head(packet, ContentKind::Proposal).map(drop)
    }

    /// Stages a proposal of the current epoch. Takes `&self`: whatever happens, the group stays as it is.
    pub(crate) fn stage_proposal(
        &self,
        context: ValidationContext<'_>,
        packet: &[u8],
        now: Timestamp,
    ) -> Result<StagedProposal, Refusal> {
        let public = self.handshake_head(packet, ContentKind::Proposal)?;
        if self.reinitialised {
            return Err(Refusal::broken(
                Rule::NothingAfterReInit,
                "the group was re-initialised; use its successor",
            ));
        }
        let unknown = public.proposal_type().filter(|kind| !is_known_proposal(*kind));
        self.check_types_known(&unknown.into_iter().collect())?;
        self.check_comparable(public.listed_by_proposal())?;
        let message = protocol_message(RequestMember::Packet, packet)?;
        let queued = match self.verify(context.crypto, message)? {
            ProcessedMessageContent::ProposalMessage(queued)
            | ProcessedMessageContent::ExternalJoinProposalMessage(queued) => queued,
            ProcessedMessageContent::ApplicationMessage(_)
            | ProcessedMessageContent::StagedCommitMessage(_)
            | ProcessedMessageContent::OwnPendingCommit
            | ProcessedMessageContent::OwnPrivateMessage => {
                return Err(Refusal::unreadable(RequestMember::Packet, packet));
            }
        };
        let (adds, needs) = self.check_proposal(context, queued.proposal(), queued.sender(), public, now)?;
        let queued_bytes =
            encode(&queued).map_err(|error| Refusal::broken(Rule::Proposal, error.to_string()))?;
        let reference = queued.proposal_reference_ref().as_slice().to_vec();
        Ok(StagedProposal {
            pending: PendingProposal { packet: packet.to_vec(), reference, queued: queued_bytes, needs },
            adds,
        })
    }

    fn check_proposal(
        &self,
        context: ValidationContext<'_>,
        proposal: &Proposal,
        sender: &Sender,
        public: PublicPart<'_>,
        now: Timestamp,
    ) -> Result<(Option<(KeyPackageRef, bool)>, ProposalNeeds), Refusal> {
        let mut needs = ProposalNeeds::default();
        if let Sender::Member(leaf) = sender {
            self.check_in_date(context, leaf.u32(), matches!(proposal, Proposal::Update(_)), now)?;
        }
        match proposal {
            Proposal::Add(add) => return self.check_add(context, add.key_package(), now),
            Proposal::Update(update) => {
                needs.credentials_end = self.check_update(context, update.leaf_node(), sender, now)?;
            }
            Proposal::Remove(remove) => {
                if self.leaf(remove.removed().u32()).is_none() {
                    return Err(Refusal::broken(
                        Rule::Proposal,
                        "no member has the leaf that is to be removed",
                    ));
                }
            }
            Proposal::SelfRemove => {
                if !matches!(sender, Sender::Member(_)) {
                    return Err(Refusal::broken(Rule::Sender, "only a member can remove itself"));
                }
                self.check_type_supported(ProposalType::SelfRemove)?;
            }
            Proposal::PreSharedKey(_) => {
                let nonce = self.public.ciphersuite().hash_length();
                if public.psk_nonce_length().is_none_or(|length| length != nonce) {
                    return Err(Refusal::broken(
                        Rule::Proposal,
                        format!(
                            "a pre-shared key is external or of application use, with a nonce of {nonce} bytes"
                        ),
                    ));
                }
            }
            Proposal::ReInit(_) => {
                if public.reinit_version().is_none_or(|version| version < super::PROTOCOL_VERSION) {
                    return Err(Refusal::broken(
                        Rule::Proposal,
                        "a ReInit cannot go back to an older version",
                    ));
                }
            }
            Proposal::ExternalInit(_) => {
                return Err(Refusal::broken(
                    Rule::ExternalCommit,
                    "an ExternalInit is only valid inside an external commit",
                ));
            }
            Proposal::GroupContextExtensions(change) => {
                needs.credentials_end = self.check_context_extensions(context, change.extensions(), now)?;
            }
            // All members know its type: that was checked before anything else.
            Proposal::Custom(_) => {}
        }
        Ok((None, needs))
    }

    /// Checks the key package of an Add; answers its reference, whether it is one of last resort, and what it needs.
    fn check_add(
        &self,
        context: ValidationContext<'_>,
        package: &KeyPackage,
        now: Timestamp,
    ) -> Result<(Option<(KeyPackageRef, bool)>, ProposalNeeds), Refusal> {
        if let Some(checks) = context.leaf_checks(self.cipher_suite()) {
            checks.check_verified_package(package)?;
        }
        self.check_leaf_fits(package.leaf_node())?;
        let extensions = self.public.group_context().extensions();
        let client = identify(context.provider(), identity_of(package.leaf_node()), extensions, now)
            .map_err(Refusal::of_identity)?;
        context.check_own_domain(&client).map_err(|detail| Refusal::broken(Rule::Domain, detail))?;
        let reference = package
            .hash_ref(&context.crypto.0)
            .ok()
            .and_then(|reference| KeyPackageRef::new(reference.as_slice()).ok())
            .ok_or_else(|| Refusal::broken(Rule::Proposal, "the key package has no reference"))?;
        // The library counts a lifetime in seconds, and the last one as over.
        let lifetime_ends = package.life_time().not_after().saturating_mul(1000).saturating_sub(1);
        let needs = ProposalNeeds {
            package: Some(reference.clone()),
            domain: client.domain,
            lifetime_ends: Some(Timestamp(lifetime_ends)),
            credentials_end: client.valid_until,
        };
        Ok((Some((reference, is_last_resort(package))), needs))
    }

    /// Checks the leaf of an Update; answers when its credential ends.
    fn check_update(
        &self,
        context: ValidationContext<'_>,
        leaf: &LeafNode,
        sender: &Sender,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Refusal> {
        let Sender::Member(index) = sender else {
            return Err(Refusal::broken(Rule::Sender, "only a member can propose an Update"));
        };
        let before = self
            .leaf(index.u32())
            .ok_or_else(|| Refusal::broken(Rule::Sender, "the sender's leaf is blank"))?;
        if let Some(checks) = context.leaf_checks(self.cipher_suite()) {
            checks.check_verified_leaf(leaf)?;
        }
        self.check_leaf_fits(leaf)?;
        self.check_encryption_key_is_new(leaf)?;
        let extensions = self.public.group_context().extensions();
        let client =
            identify(context.provider(), identity_of(leaf), extensions, now).map_err(Refusal::of_identity)?;
        if !context.provider().valid_successor(identity_of(before), identity_of(leaf)) {
            let detail = "a leaf may only be replaced by one of the same client";
            return Err(Refusal::broken(Rule::Successor, detail));
        }
        Ok(client.valid_until)
    }

    /// Checks new GroupContext extensions against the members; answers when the credentials in them end.
    fn check_context_extensions(
        &self,
        context: ValidationContext<'_>,
        extensions: &Extensions<GroupContext>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Refusal> {
        check_extensions_supported(extensions, self.leaves())?;
        // Members whose credentials have expired are for the committer to remove, whatever the extensions are.
        let is_checked = |member: &openmls::prelude::Member| {
            self.members.get(&member.index.u32()).is_none_or(|known| !known.is_expired(now))
        };
        for member in self.public.members().filter(is_checked) {
            let identity = Identity { signature_key: &member.signature_key, credential: &member.credential };
            identify(context.provider(), identity, extensions, now).map_err(Refusal::of_identity)?;
        }
        check_external_senders(context.provider(), extensions, now, false)
            .map_err(|detail| Refusal::broken(Rule::Identity, detail))?;
        Ok(external_senders_end(context.provider(), extensions))
    }

    /// Proposals of types that the gateway does not know are taken if every member knows them (RFC 9420 §12.1, §13.1).
    pub(super) fn check_types_known(&self, kinds: &BTreeSet<u16>) -> Result<(), Refusal> {
        if kinds.is_empty() {
            return Ok(());
        }
        for leaf in self.leaves() {
            if let Some(value) = missing(kinds, leaf.capabilities().proposals()) {
                let reason = "neither this gateway nor every member knows it";
                return Err(Refusal::unknown(UnknownKind::Proposal, value, reason));
            }
        }
        Ok(())
    }

    pub(super) fn leaves(&self) -> impl Iterator<Item = &LeafNode> {
        self.members.keys().filter_map(|leaf| self.leaf(*leaf))
    }

    /// A leaf and the group suit each other (RFC 9420 §7.2, §7.3, §11.1).
    fn check_leaf_fits(&self, leaf: &LeafNode) -> Result<(), Refusal> {
        let capabilities = leaf.capabilities();
        let suite = VerifiableCiphersuite::from(self.public.ciphersuite());
        let refuse = |detail: &str| Err(Refusal::broken(Rule::Capabilities, detail));
        if !capabilities.ciphersuites().contains(&suite)
            || !capabilities.versions().contains(&ProtocolVersion::Mls10)
        {
            return refuse("the leaf does not support the group's protocol version and cipher suite");
        }
        if let Some(lack) = Needs::of(self.public.group_context().extensions()).lack_of(leaf) {
            return refuse(&lack.to_string());
        }
        let own = leaf.credential().credential_type();
        let in_use: BTreeSet<u16> =
            self.leaves().map(|member| member.credential().credential_type().into()).collect();
        let supported: BTreeSet<u16> = capabilities.credentials().iter().map(|kind| (*kind).into()).collect();
        if !in_use.is_subset(&supported)
            || !self.leaves().all(|member| member.capabilities().credentials().contains(&own))
        {
            return refuse("the leaf and the members do not support each other's credential types");
        }
        Ok(())
    }

    fn check_encryption_key_is_new(&self, leaf: &LeafNode) -> Result<(), Refusal> {
        if self.leaves().any(|member| member.encryption_key() == leaf.encryption_key()) {
            return Err(Refusal::broken(Rule::DistinctKeys, "an Update must bring a new encryption key"));
        }
        Ok(())
    }

    fn check_type_supported(&self, kind: ProposalType) -> Result<(), Refusal> {
        if self.leaves().all(|member| member.capabilities().proposals().contains(&kind)) {
            return Ok(());
        }
        Err(Refusal::broken(Rule::Capabilities, "not every member supports this type of proposal"))
    }
}

/// Every leaf supports a set of GroupContext extensions and whatever it requires (RFC 9420 §12.1.7).
///
/// Extensions besides those that every client knows must be among the required capabilities: the MLS library commits no
/// others.
pub(super) fn check_extensions_supported<'a>(
    extensions: &Extensions<GroupContext>,
    mut leaves: impl Iterator<Item = &'a LeafNode>,
) -> Result<(), Refusal> {
    let needs = Needs::of(extensions);
    let lack = match needs.extensions.difference(&needs.required_extensions).next() {
        Some(unlisted) => Some(Lack::Unlisted(*unlisted)),
        None => leaves.find_map(|leaf| needs.lack_of(leaf)),
    };
    match lack {
        None => Ok(()),
        Some(Lack::Extension(kind) | Lack::Unlisted(kind)) if !is_known_extension(kind) => {
            let reason = match lack {
                Some(Lack::Unlisted(_)) => "this gateway takes it only among the required capabilities",
                _ => "neither this gateway nor every member knows it",
            };
            Err(Refusal::unknown(UnknownKind::Extension, kind, reason))
        }
        Some(lack) => Err(Refusal::broken(Rule::GroupContextExtensions, lack.to_string())),
    }
}

/// What a leaf must support to be in a group with some GroupContext extensions (RFC 9420 §7.2, §11.1), besides what every
/// client supports. Types are counted once, however often they are listed.
pub(super) struct Needs {
    /// The extensions themselves.
    extensions: BTreeSet<u16>,
    required_extensions: BTreeSet<u16>,
    required_proposals: BTreeSet<u16>,
    required_credentials: BTreeSet<u16>,
}

/// What a leaf, or a set of extensions, lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lack {
    #[error("a leaf does not support the extension {0:#06x} of the group")]
    Extension(u16),
    #[error("the extension {0:#06x} is set and not among the required capabilities")]
    Unlisted(u16),
    #[error("a leaf does not support the {0} type {1:#06x}, which the group requires")]
    Required(UnknownKind, u16),
}

impl Needs {
    pub(super) fn of(extensions: &Extensions<GroupContext>) -> Self {
        let set = extensions.iter().map(|extension| extension.extension_type().into());
        let required = extensions.required_capabilities();
        let of_extensions = required.map_or([].as_slice(), |required| required.extension_types());
        let of_proposals = required.map_or([].as_slice(), |required| required.proposal_types());
        let of_credentials = required.map_or([].as_slice(), |required| required.credential_types());
        Self {
            extensions: set.filter(|kind| !matches!(kind, 1..=5)).collect(),
            required_extensions: numbers(of_extensions).filter(|kind| !matches!(kind, 1..=5)).collect(),
            required_proposals: numbers(of_proposals).filter(|kind| !matches!(kind, 1..=7)).collect(),
            required_credentials: numbers(of_credentials).collect(),
        }
    }

    /// Goes once over what the leaf supports.
    pub(super) fn lack_of(&self, leaf: &LeafNode) -> Option<Lack> {
        let capabilities = leaf.capabilities();
        let required = |kind| move |value| Lack::Required(kind, value);
        missing(&self.extensions, capabilities.extensions())
            .map(Lack::Extension)
            .or_else(|| {
                missing(&self.required_extensions, capabilities.extensions())
                    .map(required(UnknownKind::Extension))
            })
            .or_else(|| {
                missing(&self.required_proposals, capabilities.proposals())
                    .map(required(UnknownKind::Proposal))
            })
            .or_else(|| {
                missing(&self.required_credentials, capabilities.credentials())
                    .map(required(UnknownKind::Credential))
            })
    }
}

fn numbers<T: Copy + Into<u16>>(list: &[T]) -> impl Iterator<Item = u16> {
    list.iter().map(|value| (*value).into())
}

/// The first number that is wanted and not listed.
fn missing<T: Copy + Into<u16>>(wanted: &BTreeSet<u16>, listed: &[T]) -> Option<u16> {
    if wanted.is_empty() {
        return None;
    }
    let found: BTreeSet<u16> = numbers(listed).filter(|value| wanted.contains(value)).collect();
    wanted.difference(&found).next().copied()
}
