//! Staging a proposal (*Proposals*; RFC 9420 §12.1): the checks that are possible before it is committed.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use snapshots::{DomainName, KeyPackageRef, Timestamp};

use super::{
    Refusal, RequestMember, Rule, TrackedGroup, UnknownKind, ValidationContext,
    admission::{check_successor, check_suite, check_supported},
    app_data::{check_app_data_update, check_dictionary_kept},
    extensions::ContextExtensions,
    external_senders::{check_external_senders, external_senders_end},
    group::{Member, identify},
    handshake::{Handshake, Proposal, is_default_proposal},
    leaf::{KeyPackage, LeafNode, LeafSource, check_package_signatures},
    proposal_list::{OLDER_VERSION, ONLY_IN_EXTERNAL_COMMIT, check_psk},
    syntax::is_known_proposal,
    wire::{ContentKind, SenderKind},
};

/// A proposal that was accepted in the current epoch and waits to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingProposal {
    /// The packet as it was uploaded.
    #[serde(with = "crate::codec::shared_bytes")]
    pub(crate) packet: Arc<[u8]>,
    /// Its ProposalRef (RFC 9420 §5.2).
    #[serde(with = "serde_bytes")]
    pub(crate) reference: Vec<u8>,
    /// What it needs that can end while it waits. Proposals that were accepted before it was kept need nothing.
    #[serde(default)]
    pub(crate) needs: ProposalNeeds,
    /// The number of its entry in the group's log; none if this gateway does not hold the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entry: Option<u64>,
}

/// Conditions that must still hold when a proposal is committed and can end while it waits. All others stay as they
/// are for the epoch: the tree, the members and the GroupContext.
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
        self.check_header(packet, ContentKind::Proposal)
    }

    /// Stages a proposal of the current epoch. Takes `&self`: whatever happens, the group stays as it is.
    pub(crate) fn stage_proposal(
        &self,
        context: ValidationContext<'_>,
        packet: &[u8],
        now: Timestamp,
    ) -> Result<StagedProposal, Refusal> {
        self.stage_proposal_of(context, packet, AcceptedAt::Now(now))
    }

    /// Stages a proposal that a hub accepted in the current epoch, at a time that is not known: what has ended until `now` is
    /// taken as it was at its last moment.
    pub(crate) fn stage_earlier_proposal(
        &self,
        context: ValidationContext<'_>,
        packet: &[u8],
        now: Timestamp,
    ) -> Result<StagedProposal, Refusal> {
        self.stage_proposal_of(context, packet, AcceptedAt::Before(now))
    }

    fn stage_proposal_of(
        &self,
        context: ValidationContext<'_>,
        packet: &[u8],
        accepted: AcceptedAt,
    ) -> Result<StagedProposal, Refusal> {
        self.check_header(packet, ContentKind::Proposal)?;
        self.check_goes_on()?;
        let unreadable = || Refusal::unreadable(RequestMember::Packet, packet);
        let message = Handshake::read(RequestMember::Packet, packet, ContentKind::Proposal, 0)?
            .ok_or_else(unreadable)?;
        let proposal = message.proposal().ok_or_else(unreadable)?;
        self.check_type_supported(proposal.kind())?;
        self.check_proposal_signature(&message, &proposal)?;
        let (adds, needs) = self.check_proposal(context, &proposal, message.sender, accepted)?;
        let reference = message.proposal_reference(self.context.suite).as_ref().to_vec();
        let pending = PendingProposal { packet: packet.into(), reference, needs, entry: None };
        Ok(StagedProposal { pending, adds })
    }

    /// Who may send a proposal (RFC 9420 §12.1.8), and whether it is signed by its sender.
    fn check_proposal_signature(
        &self,
        message: &Handshake<'_>,
        proposal: &Proposal<'_>,
    ) -> Result<(), Refusal> {
        let refuse = |detail: &str| Err(Refusal::broken(Rule::Sender, detail));
        let of_member;
        let key = match (message.sender, proposal) {
            (SenderKind::Member(leaf), _) => {
                of_member = self.leaf(leaf);
                match &of_member {
                    Some(leaf) => leaf.signature_key,
                    None => return refuse("the sender's leaf is blank"),
                }
            }
            (
                SenderKind::External(_),
                Proposal::Update(_) | Proposal::SelfRemove | Proposal::ExternalInit,
            ) => {
                return refuse("an external sender cannot make this proposal");
            }
            (SenderKind::External(place), _) => {
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                match self.context.extensions.external_senders().nth(place) {
                    Some(sender) => sender.signature_key,
                    None => return refuse("the group has no external sender of this index"),
                }
            }
            (SenderKind::NewMemberProposal, Proposal::Add(package)) => package.leaf.signature_key,
            (SenderKind::NewMemberProposal | SenderKind::NewMemberCommit, _) => {
                return refuse("a new member can propose nothing but its own Add");
            }
        };
        if message.is_signed_by(self.context.suite, key, &self.context_bytes) {
            Ok(())
        } else {
            Err(Refusal::broken(Rule::Signature, "the signature of the proposal is not its sender's"))
        }
    }

    fn check_proposal(
        &self,
        context: ValidationContext<'_>,
        proposal: &Proposal<'_>,
        sender: SenderKind,
        accepted: AcceptedAt,
    ) -> Result<(Option<(KeyPackageRef, bool)>, ProposalNeeds), Refusal> {
        let mut needs = ProposalNeeds::default();
        if let SenderKind::Member(leaf) = sender {
            let is_free = match proposal {
                Proposal::Update(_) | Proposal::SelfRemove => true,
                Proposal::Remove(removed) => *removed == leaf,
                Proposal::Add(_)
                | Proposal::PreSharedKey(_)
                | Proposal::ReInit(_)
                | Proposal::ExternalInit
                | Proposal::GroupContextExtensions(_)
                | Proposal::AppDataUpdate { .. }
                | Proposal::Other(_) => false,
            };
            self.check_in_date(context, leaf, is_free, accepted.time())?;
        }
        match proposal {
            Proposal::Add(package) => return self.check_add(context, package, accepted),
            Proposal::Update(leaf) => {
                needs.credentials_end = self.check_update(context, leaf, sender, accepted)?;
            }
            Proposal::Remove(leaf) => {
                if self.tree.leaf(*leaf).is_none() {
                    return Err(Refusal::broken(
                        Rule::Proposal,
                        "no member has the leaf that is to be removed",
                    ));
                }
            }
            Proposal::PreSharedKey(key) => check_psk(key, &self.context, false)?,
            Proposal::ReInit(reinit) => {
                if reinit.version < super::PROTOCOL_VERSION {
                    return Err(Refusal::broken(Rule::Proposal, OLDER_VERSION));
                }
            }
            Proposal::ExternalInit => {
                return Err(Refusal::broken(Rule::ExternalCommit, ONLY_IN_EXTERNAL_COMMIT));
            }
            Proposal::GroupContextExtensions(list) => {
                needs.credentials_end = self.check_context_extensions(context, list, accepted.time())?;
            }
            Proposal::AppDataUpdate { component, removes } => {
                check_app_data_update(&self.context.extensions, *component, *removes)?;
            }
            Proposal::SelfRemove | Proposal::Other(_) => {}
        }
        Ok((None, needs))
    }

    /// Checks the key package of an Add; answers its reference, whether it is one of last resort, and what it needs.
    fn check_add(
        &self,
        context: ValidationContext<'_>,
        package: &KeyPackage<'_>,
        accepted: AcceptedAt,
    ) -> Result<(Option<(KeyPackageRef, bool)>, ProposalNeeds), Refusal> {
        let suite = self.context.suite;
        match context.leaf_checks(suite) {
            Some(checks) => checks.check_key_package(package)?,
            None => check_suite(package, suite)?,
        }
        if let (Some(lifetime), AcceptedAt::Now(now)) = (package.leaf.lifetime(), accepted) {
            context.check_lifetime(lifetime, now)?;
        }
        self.check_leaf_fits(&package.leaf)?;
        check_package_signatures(package, suite)?;
        let client = self.identify_new(context, &package.leaf, accepted)?;
        context.check_own_domain(&client).map_err(|detail| Refusal::broken(Rule::Domain, detail))?;
        let reference = package
            .reference(suite)
            .ok_or_else(|| Refusal::broken(Rule::Proposal, "the key package has no reference"))?;
        // A lifetime is counted in seconds, and the last one counts as over.
        let not_after_s = package.leaf.lifetime().map_or(0, |lifetime| lifetime.not_after_s);
        let lifetime_ends = not_after_s.saturating_mul(1000).saturating_sub(1);
        let needs = ProposalNeeds {
            package: Some(reference.clone()),
            domain: client.domain,
            lifetime_ends: Some(Timestamp(lifetime_ends)),
            credentials_end: client.valid_until,
        };
        Ok((Some((reference, package.is_last_resort())), needs))
    }

    /// Checks the leaf of an Update; answers when its credential ends.
    fn check_update(
        &self,
        context: ValidationContext<'_>,
        leaf: &LeafNode<'_>,
        sender: SenderKind,
        accepted: AcceptedAt,
    ) -> Result<Option<Timestamp>, Refusal> {
        let SenderKind::Member(index) = sender else {
            return Err(Refusal::broken(Rule::Sender, "only a member can propose an Update"));
        };
        if leaf.source != LeafSource::Update {
            return Err(Refusal::broken(Rule::LeafNode, "the leaf node source of an Update is not update"));
        }
        if let Some(checks) = context.leaf_checks(self.context.suite) {
            checks.check_leaf(leaf)?;
        }
        self.check_leaf_fits(leaf)?;
        check_successor(self, context, index, leaf)?;
        if self.index.has_encryption_key(leaf.encryption_key) {
            let detail = "the encryption key of the Update is one of the group's";
            return Err(Refusal::broken(Rule::DistinctKeys, detail));
        }
        if !leaf.has_valid_signature(self.context.suite, self.context.group_id.as_bytes(), index) {
            return Err(Refusal::broken(Rule::LeafNode, "the signature of the leaf is not its own"));
        }
        Ok(self.identify_new(context, leaf, accepted)?.valid_until)
    }

    fn identify_new(
        &self,
        context: ValidationContext<'_>,
        leaf: &LeafNode<'_>,
        accepted: AcceptedAt,
    ) -> Result<Member, Refusal> {
        let provider = context.provider();
        let at = match accepted {
            AcceptedAt::Now(now) => now,
            AcceptedAt::Before(now) => match provider.valid_until(leaf.identity()) {
                Ok(Some(until)) => now.min(until),
                Ok(None) | Err(_) => now,
            },
        };
        identify(
            provider,
            leaf.identity(),
            self.context.extensions.for_provider(),
            context.identity_context(at),
        )
        .map_err(Refusal::of_identity)
    }

    /// Checks new GroupContext extensions against the members; answers when the credentials in them end.
    fn check_context_extensions(
        &self,
        context: ValidationContext<'_>,
        list: &[u8],
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Refusal> {
        let extensions = ContextExtensions::read(list)
            .map_err(|error| Refusal::broken(Rule::GroupContextExtensions, error.to_string()))?;
        check_dictionary_kept(&self.context.extensions, &extensions)?;
        let members = self.members_count();
        check_supported(&extensions, |kind, number| self.index.supporting(kind, number) == members)?;
        let provider = context.provider();
        if provider.reads_extensions() {
            // Members whose credentials have ended are for the committer to remove, whatever the extensions are.
            for (_, leaf) in self.tree.leaves().filter(|(index, _)| !self.has_ended(*index, now)) {
                if let Some(node) = leaf.node() {
                    let context = context.identity_context(now);
                    identify(provider, node.identity(), extensions.for_provider(), context)
                        .map_err(Refusal::of_identity)?;
                }
            }
        }
        check_external_senders(context, &extensions, now, false)
            .map_err(|detail| Refusal::broken(Rule::Identity, detail))?;
        Ok(external_senders_end(provider, &extensions))
    }

    /// A leaf and the group suit each other (RFC 9420 §7.2, §7.3, §11.1).
    fn check_leaf_fits(&self, leaf: &LeafNode<'_>) -> Result<(), Refusal> {
        let refuse = |detail: &str| Err(Refusal::broken(Rule::Capabilities, detail));
        if let Some(lack) = self.context.extensions.needs().lack_of(leaf) {
            return refuse(&lack.to_string());
        }
        let own = leaf.credential.credential_type.0;
        let in_use: BTreeSet<u16> = self.index.credential_types();
        if leaf.supported_credentials.missing(&in_use).is_some()
            || self.index.supporting(UnknownKind::Credential, own) != self.members_count()
        {
            return refuse("the leaf and the members do not support each other's credential types");
        }
        Ok(())
    }

    /// Every member supports a type of proposal (RFC 9420 §12.2, §13.1). Types that the gateway does not know are taken, too.
    fn check_type_supported(&self, kind: u16) -> Result<(), Refusal> {
        let supporting = self.index.supporting(UnknownKind::Proposal, kind);
        if is_default_proposal(kind) || supporting == self.members_count() {
            return Ok(());
        }
        Err(unsupported_proposal(kind))
    }
}

/// The refusal of a type of proposals that not every member supports.
pub(super) fn unsupported_proposal(kind: u16) -> Refusal {
    if is_known_proposal(kind) {
        return Refusal::broken(Rule::Capabilities, "not every member supports this type of proposal");
    }
    let reason = "neither this gateway nor every member knows it";
    Refusal::unknown(UnknownKind::Proposal, kind, reason)
}

/// When a proposal was accepted.
#[derive(Clone, Copy, Debug)]
enum AcceptedAt {
    Now(Timestamp),
    /// At some time before.
    Before(Timestamp),
}

impl AcceptedAt {
    fn time(self) -> Timestamp {
        match self {
            Self::Now(at) | Self::Before(at) => at,
        }
    }
}
