//! The proposal at fault in a refused commit, found after the MLS library refused the commit as a whole.

use std::collections::BTreeSet;

use openmls::{
    group::QueuedProposal,
    prelude::{LeafNode, Proposal, Sender, tls_codec::Serialize as _},
};

use super::{
    Refusal, Rule, TrackedGroup,
    proposal_list::removed_leaf,
    wire::{CommitOutline, SenderKind},
};
use crate::codec::decode;

impl TrackedGroup {
    /// Names the referenced proposal that is the cause of a refusal, if one alone is.
    pub(super) fn with_culprit(
        &self,
        refusal: Refusal,
        sender: SenderKind,
        outline: &CommitOutline<'_>,
    ) -> Refusal {
        let Refusal::Broken { rule, proposal: None, .. } = refusal else { return refusal };
        if !may_be_one_alone(rule, sender, outline) {
            return refusal;
        }
        #[cfg(test)]
        DECODED.set(DECODED.get() + outline.references.len());
        let referenced: Vec<QueuedProposal> = outline
            .references
            .iter()
            .filter_map(|reference| self.pending.iter().find(|pending| pending.reference == *reference))
            .filter_map(|pending| decode(&pending.queued).ok())
            .collect();
        let culprit = self.culprit(rule, sender, &referenced);
        refusal.caused_by(culprit.map(|queued| queued.proposal_reference_ref().as_slice()))
    }

    fn culprit<'a>(
        &self,
        rule: Rule,
        sender: SenderKind,
        referenced: &'a [QueuedProposal],
    ) -> Option<&'a QueuedProposal> {
        match rule {
            Rule::ExternalCommit if sender == SenderKind::NewMemberCommit => {
                referenced.iter().find(|queued| !matches!(queued.proposal(), Proposal::SelfRemove))
            }
            Rule::OneProposalPerLeaf => {
                let own = match sender {
                    SenderKind::Member(committer) => Some(committer),
                    SenderKind::NewMemberCommit | SenderKind::External(_) | SenderKind::NewMemberProposal => {
                        None
                    }
                };
                let mut leaves: BTreeSet<u32> = own.into_iter().collect();
                referenced
                    .iter()
                    .find(|queued| replaced_leaf(queued).is_some_and(|leaf| !leaves.insert(leaf)))
            }
            Rule::DistinctProposals => first_repeated(referenced),
            Rule::DistinctKeys => self.first_with_known_key(referenced),
            Rule::LeafNode | Rule::Capabilities | Rule::Lifetime | Rule::LifetimeNotBegun { .. } => {
                let mut bringing = referenced.iter().filter(|queued| fresh_leaf(queued.proposal()).is_some());
                let only = bringing.next()?;
                bringing.next().is_none().then_some(only)
            }
            Rule::ExternalCommit
            | Rule::PublicMessage
            | Rule::Group
            | Rule::Sender
            | Rule::Signature
            | Rule::KnownProposals
            | Rule::ReInitAlone
            | Rule::NothingAfterReInit
            | Rule::Proposal
            | Rule::ProposalCount
            | Rule::PathRequired
            | Rule::Path
            | Rule::PathCiphertexts
            | Rule::GroupContextExtensions
            | Rule::Identity
            | Rule::Successor
            | Rule::DistinctClients
            | Rule::Domain
            | Rule::MemberCount => None,
        }
    }

    /// The first whose leaf has a signature or encryption key that a staying member or an earlier one has.
    fn first_with_known_key<'a>(&self, referenced: &'a [QueuedProposal]) -> Option<&'a QueuedProposal> {
        let replaced: BTreeSet<u32> = referenced.iter().filter_map(replaced_leaf).collect();
        let staying = self.members.keys().filter(|leaf| !replaced.contains(leaf));
        let mut known: BTreeSet<Vec<u8>> =
            staying.filter_map(|leaf| self.leaf(*leaf)).flat_map(keys_of).collect();
        referenced.iter().find(|queued| {
            let leaf = fresh_leaf(queued.proposal());
            leaf.is_some_and(|leaf| keys_of(leaf).into_iter().any(|key| !known.insert(key)))
        })
    }
}

#[cfg(test)]
thread_local! {
    /// How many proposals were decoded to find one that is at fault.
    pub(super) static DECODED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether one referenced proposal alone can be why a rule is broken, as far as the commit's outline tells.
fn may_be_one_alone(rule: Rule, sender: SenderKind, outline: &CommitOutline<'_>) -> bool {
    let references = outline.references.len();
    match rule {
        Rule::ExternalCommit => references > 0 && sender == SenderKind::NewMemberCommit,
        // The first of them repeats only what the committer or a member has.
        Rule::OneProposalPerLeaf | Rule::DistinctKeys => references > 0,
        Rule::DistinctProposals => references > 1,
        // Otherwise the leaf may be one that the commit itself brings in.
        Rule::LeafNode | Rule::Capabilities | Rule::Lifetime | Rule::LifetimeNotBegun { .. } => {
            references > 0 && outline.proposals == references && outline.path_ciphertexts.is_none()
        }
        Rule::PublicMessage
        | Rule::Group
        | Rule::Sender
        | Rule::Signature
        | Rule::KnownProposals
        | Rule::ReInitAlone
        | Rule::NothingAfterReInit
        | Rule::Proposal
        | Rule::ProposalCount
        | Rule::PathRequired
        | Rule::Path
        | Rule::PathCiphertexts
        | Rule::GroupContextExtensions
        | Rule::Identity
        | Rule::Successor
        | Rule::DistinctClients
        | Rule::Domain
        | Rule::MemberCount => false,
    }
}

/// The leaf whose node an Update, Remove or SelfRemove replaces or takes out.
fn replaced_leaf(queued: &QueuedProposal) -> Option<u32> {
    match (queued.proposal(), queued.sender()) {
        (Proposal::Update(_), Sender::Member(leaf)) => Some(leaf.u32()),
        _ => removed_leaf(queued),
    }
}

fn keys_of(leaf: &LeafNode) -> [Vec<u8>; 2] {
    // The library shows an encryption key only in its serialised form.
    let encryption_key = leaf.encryption_key().tls_serialize_detached().unwrap_or_default();
    [leaf.signature_key().as_slice().to_vec(), encryption_key]
}

/// The leaf node that a proposal brings in.
fn fresh_leaf(proposal: &Proposal) -> Option<&LeafNode> {
    match proposal {
        Proposal::Add(add) => Some(add.key_package().leaf_node()),
        Proposal::Update(update) => Some(update.leaf_node()),
        Proposal::Remove(_)
        | Proposal::PreSharedKey(_)
        | Proposal::ReInit(_)
        | Proposal::ExternalInit(_)
        | Proposal::GroupContextExtensions(_)
        | Proposal::SelfRemove
        | Proposal::Custom(_) => None,
    }
}

/// The first proposal that a commit may carry once and that one before it is already: the same pre-shared key, or other
/// GroupContext extensions.
fn first_repeated(referenced: &[QueuedProposal]) -> Option<&QueuedProposal> {
    let repeats = |earlier: &Proposal, later: &Proposal| match (earlier, later) {
        (Proposal::GroupContextExtensions(_), Proposal::GroupContextExtensions(_)) => true,
        (Proposal::PreSharedKey(earlier), Proposal::PreSharedKey(later)) => earlier == later,
        _ => false,
    };
    referenced.iter().enumerate().find_map(|(place, later)| {
        let mut before = referenced.iter().take(place);
        before.any(|earlier| repeats(earlier.proposal(), later.proposal())).then_some(later)
    })
}
