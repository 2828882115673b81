//! Validation of hostile packets behind a guard against panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::GroupError;
use crate::mls::Rule;

/// Makes the error of a packet that breaks a rule: of a commit, or of a proposal.
pub(super) type Broken = fn(Rule, String) -> GroupError;

pub(super) fn broken_commit(rule: Rule, detail: String) -> GroupError {
    GroupError::InvalidCommit { rule, detail, proposal: None }
}

pub(super) fn broken_proposal(rule: Rule, detail: String) -> GroupError {
    GroupError::InvalidProposal { rule, detail }
}

/// Validates a packet. A panic changes nothing and is the packet's fault.
pub(super) fn guarded<T>(
    broken: Broken,
    validation: impl FnOnce() -> Result<T, GroupError>,
) -> Result<T, GroupError> {
    catch_unwind(AssertUnwindSafe(validation)).unwrap_or_else(|_| {
        tracing::error!("validating a packet panicked; the packet is refused");
        Err(broken(Rule::Proposal, "the packet cannot be validated".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_validation_refuses_the_packet_by_its_kind() {
        let panic = |broken| guarded(broken, || -> Result<(), _> { panic!("a fault in the validation") });
        let (rule, detail) = (Rule::Proposal, "the packet cannot be validated".to_owned());
        let proposal = GroupError::InvalidProposal { rule, detail: detail.clone() };
        assert_eq!(panic(broken_proposal as Broken), Err(proposal));
        assert_eq!(panic(broken_commit), Err(GroupError::InvalidCommit { rule, detail, proposal: None }));
    }
}
