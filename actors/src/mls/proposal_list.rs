//! The proposals of a commit as a list (RFC 9420 §12.2): rules that the MLS library leaves to its caller.

use std::collections::BTreeSet;

use openmls::{
    group::QueuedProposal,
    prelude::{Proposal, ProposalOrRefType, Sender},
};

use super::{Refusal, Rule, wire::SenderKind};

/// The reference of a proposal that a commit takes by reference.
pub(super) fn reference_of(queued: &QueuedProposal) -> Option<&[u8]> {
    let is_referenced = queued.proposal_or_ref_type() == ProposalOrRefType::Reference;
    is_referenced.then(|| queued.proposal_reference_ref().as_slice())
}

/// The leaf that a Remove or SelfRemove takes out.
pub(super) fn removed_leaf(queued: &QueuedProposal) -> Option<u32> {
    match (queued.proposal(), queued.sender()) {
        (Proposal::Remove(remove), _) => Some(remove.removed().u32()),
        (Proposal::SelfRemove, Sender::Member(leaf)) => Some(leaf.u32()),
        (
            Proposal::SelfRemove
            | Proposal::Add(_)
            | Proposal::Update(_)
            | Proposal::PreSharedKey(_)
            | Proposal::ReInit(_)
            | Proposal::ExternalInit(_)
            | Proposal::GroupContextExtensions(_)
            | Proposal::Custom(_),
            _,
        ) => None,
    }
}

/// The rules about a whole list that the library leaves to its caller (RFC 9420 §12.2).
pub(super) fn check_proposal_list(proposals: &[&QueuedProposal], sender: SenderKind) -> Result<(), Refusal> {
    let mut leaves = BTreeSet::new();
    if let SenderKind::Member(committer) = sender {
        leaves.insert(committer);
    }
    for queued in proposals {
        let leaf = match (queued.proposal(), queued.sender()) {
            (Proposal::Update(_), Sender::Member(leaf)) => Some(leaf.u32()),
            _ => removed_leaf(queued),
        };
        if let Some(leaf) = leaf
            && !leaves.insert(leaf)
        {
            let detail = format!("leaf {leaf} is updated or removed twice, or is the committer's own");
            return Err(Refusal::broken(Rule::OneProposalPerLeaf, detail).caused_by(reference_of(queued)));
        }
        if matches!(queued.proposal(), Proposal::ReInit(_)) && proposals.len() != 1 {
            let detail = "a ReInit must be the only proposal of its commit";
            return Err(Refusal::broken(Rule::ReInitAlone, detail).caused_by(reference_of(queued)));
        }
    }
    Ok(())
}
