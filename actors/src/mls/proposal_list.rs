//! The proposals of a commit as a list (RFC 9420 §12.2).

use std::collections::BTreeSet;

use super::{
    PROTOCOL_VERSION, Refusal, Rule,
    epoch::Listed,
    group_context::GroupContext,
    handshake::{PreSharedKeyId, Proposal, PskKind, USAGE_APPLICATION},
    wire::SenderKind,
};

/// Checks the proposals of a commit as a list, and those that depend on nothing else.
pub(super) fn check_proposal_list(
    listed: &[Listed<'_>],
    sender: SenderKind,
    context: &GroupContext,
) -> Result<(), Refusal> {
    if sender == SenderKind::NewMemberCommit {
        check_external_commit(listed)?;
    }
    let mut leaves = BTreeSet::new();
    if let SenderKind::Member(committer) = sender {
        leaves.insert(committer);
    }
    let (mut keys, mut has_extensions) = (BTreeSet::new(), false);
    for Listed { proposal, sender: proposer, reference, .. } in listed {
        let refuse = |rule, detail: &str| Err(Refusal::broken(rule, detail).caused_by(*reference));
        if let Some(leaf) = proposal.replaced_leaf(*proposer)
            && !leaves.insert(leaf)
        {
            let detail = format!("leaf {leaf} is updated or removed twice, or is the committer's own");
            return refuse(Rule::OneProposalPerLeaf, &detail);
        }
        match proposal {
            Proposal::ReInit(reinit) => {
                if listed.len() != 1 {
                    return refuse(Rule::ReInitAlone, "a ReInit must be the only proposal of its commit");
                }
                if reinit.version < PROTOCOL_VERSION {
                    return refuse(Rule::Proposal, OLDER_VERSION);
                }
            }
            Proposal::PreSharedKey(key) => {
                // The commit of the creator, who adds the members of the group before.
                let is_member = matches!(sender, SenderKind::Member(_));
                let in_first_commit = is_member && reference.is_none() && context.epoch.0 == 0;
                check_psk(key, context, in_first_commit).map_err(|refusal| refusal.caused_by(*reference))?;
                if !keys.insert(key.bytes) {
                    return refuse(Rule::DistinctProposals, "a pre-shared key is listed more than once");
                }
            }
            Proposal::GroupContextExtensions(_) => {
                if std::mem::replace(&mut has_extensions, true) {
                    return refuse(
                        Rule::DistinctProposals,
                        "there is more than one GroupContextExtensions proposal",
                    );
                }
            }
            Proposal::ExternalInit if sender != SenderKind::NewMemberCommit => {
                return refuse(Rule::ExternalCommit, ONLY_IN_EXTERNAL_COMMIT);
            }
            Proposal::Add(_)
            | Proposal::Update(_)
            | Proposal::Remove(_)
            | Proposal::ExternalInit
            | Proposal::SelfRemove
            | Proposal::AppDataUpdate { .. }
            | Proposal::Other(_) => {}
        }
    }
    Ok(())
}

pub(super) const OLDER_VERSION: &str = "a ReInit cannot go back to an older version";
pub(super) const ONLY_IN_EXTERNAL_COMMIT: &str = "an ExternalInit is only valid inside an external commit";

/// Checks the identifier of a pre-shared key (RFC 9420 §12.1.4). Those of a re-initialisation or a branch are used in the first commit
/// of the group that succeeds (§11.2, §11.3).
pub(super) fn check_psk(
    key: &PreSharedKeyId<'_>,
    context: &GroupContext,
    in_first_commit: bool,
) -> Result<(), Refusal> {
    let nonce = context.suite.hash_length();
    if key.nonce.len() != nonce {
        let detail =
            format!("the nonce of a pre-shared key has {} bytes and must have {nonce}", key.nonce.len());
        return Err(Refusal::broken(Rule::Proposal, detail));
    }
    match key.kind {
        PskKind::External | PskKind::Application | PskKind::Resumption { usage: USAGE_APPLICATION } => Ok(()),
        PskKind::Resumption { usage: 2 | 3 } if in_first_commit => Ok(()),
        PskKind::Resumption { .. } => Err(Refusal::broken(
            Rule::Proposal,
            "a resumption key of usage reinit or branch belongs to the first commit of a group",
        )),
    }
}

/// Which proposals an external commit may have: one ExternalInit, at most one Remove, pre-shared keys, and SelfRemoves by
/// reference (RFC 9420 §12.2; MLS extensions draft). Types that RFC 9420 does not define are up to the members.
fn check_external_commit(listed: &[Listed<'_>]) -> Result<(), Refusal> {
    let (mut inits, mut removes) = (0, 0);
    for Listed { proposal, reference, .. } in listed {
        let is_allowed = match (proposal, reference) {
            (Proposal::SelfRemove, Some(_))
            | (Proposal::PreSharedKey(_) | Proposal::AppDataUpdate { .. } | Proposal::Other(_), None) => true,
            (Proposal::ExternalInit, None) => {
                inits += 1;
                true
            }
            (Proposal::Remove(_), None) => {
                removes += 1;
                true
            }
            _ => false,
        };
        if !is_allowed {
            let detail = "an external commit cannot have this proposal";
            return Err(Refusal::broken(Rule::ExternalCommit, detail).caused_by(*reference));
        }
    }
    if inits == 1 && removes <= 1 {
        return Ok(());
    }
    let detail = format!(
        "an external commit has one ExternalInit and at most one Remove, this one has {inits} and {removes}"
    );
    Err(Refusal::broken(Rule::ExternalCommit, detail))
}
