//! Why a packet was not staged, and how the MLS library's reasons become rules.

use openmls::{
    group::{
        ExternalCommitValidationError, GroupContextExtensionsProposalValidationError,
        ProposalValidationError, PublicProcessMessageError, StageCommitError, ValidationError,
    },
    prelude::KeyPackageVerifyError,
    treesync::errors::LeafNodeValidationError,
};
use snapshots::Epoch;

use super::{Rule, wire::WireError};

/// Why a packet, or what came with it, was refused. The group is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(String),
    Stale {
        packet: Epoch,
        current: Epoch,
    },
    Future {
        packet: Epoch,
        current: Epoch,
    },
    Broken {
        rule: Rule,
        detail: String,
    },
    /// A GroupInfo that cannot open a group.
    OpenedWith(String),
    /// A GroupInfo that does not belong to the commit it came with.
    GroupInfo(String),
    WelcomeMissing {
        added: usize,
    },
    Welcome(String),
}

impl Refusal {
    pub(crate) fn malformed(error: WireError) -> Self {
        Self::Malformed(error.to_string())
    }

    pub(crate) fn broken(rule: Rule, detail: impl Into<String>) -> Self {
        Self::Broken { rule, detail: detail.into() }
    }

    pub(super) fn of_library(error: PublicProcessMessageError) -> Self {
        let rule = match &error {
            PublicProcessMessageError::IncompatibleWireFormat => Rule::PublicMessage,
            PublicProcessMessageError::ValidationError(error) => of_validation(error),
            PublicProcessMessageError::InvalidCommit(error) => of_commit(error),
            PublicProcessMessageError::UnauthorizedExternalApplicationMessage
            | PublicProcessMessageError::UnauthorizedExternalCommitMessage
            | PublicProcessMessageError::UnsupportedProposalType => Rule::Sender,
            PublicProcessMessageError::LibraryError(_) => Rule::Proposal,
        };
        Self::broken(rule, error.to_string())
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign enum; what is not told apart is named by its text"
)]
fn of_validation(error: &ValidationError) -> Rule {
    match error {
        ValidationError::WrongGroupId => Rule::Group,
        ValidationError::KeyPackageVerifyError(KeyPackageVerifyError::LifetimeError(_)) => Rule::Lifetime,
        ValidationError::InvalidSignature => Rule::Signature,
        ValidationError::UnknownMember
        | ValidationError::UnauthorizedExternalSender
        | ValidationError::NoExternalSendersExtension
        | ValidationError::InvalidSenderType
        | ValidationError::NonMemberApplicationMessage => Rule::Sender,
        ValidationError::UnencryptedApplicationMessage | ValidationError::WrongWireFormat => {
            Rule::PublicMessage
        }
        ValidationError::InvalidLeafNodeSignature | ValidationError::InvalidLeafNodeSourceType => {
            Rule::LeafNode
        }
        ValidationError::CommitterIncludedOwnUpdate => Rule::OneProposalPerLeaf,
        ValidationError::ExternalCommitValidation(_) => Rule::ExternalCommit,
        ValidationError::UpdatePathError(_) | ValidationError::NoPath => Rule::Path,
        _ => Rule::Proposal,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign enum; what is not told apart is named by its text"
)]
fn of_commit(error: &StageCommitError) -> Rule {
    match error {
        StageCommitError::PathLeafNodeVerificationFailure => Rule::LeafNode,
        StageCommitError::RequiredPathNotFound => Rule::PathRequired,
        StageCommitError::AttemptedSelfRemoval => Rule::OneProposalPerLeaf,
        StageCommitError::MissingProposal => Rule::KnownProposals,
        StageCommitError::SenderTypeExternal | StageCommitError::SenderTypeNewMemberProposal => Rule::Sender,
        StageCommitError::TooManyNewMembers => Rule::MemberCount,
        StageCommitError::ProposalValidationError(error) => of_proposals(error),
        StageCommitError::ExternalCommitValidation(ExternalCommitValidationError::NoPath) => {
            Rule::PathRequired
        }
        StageCommitError::ExternalCommitValidation(
            ExternalCommitValidationError::UnsupportedGroupContextExtensions,
        ) => Rule::Capabilities,
        StageCommitError::ExternalCommitValidation(_) | StageCommitError::InconsistentSenderIndex => {
            Rule::ExternalCommit
        }
        StageCommitError::UpdatePathError(_) | StageCommitError::VerifiedUpdatePathError(_) => Rule::Path,
        StageCommitError::GroupContextExtensionsProposalValidationError(
            GroupContextExtensionsProposalValidationError::TooManyGCEProposals,
        ) => Rule::DistinctProposals,
        StageCommitError::GroupContextExtensionsProposalValidationError(_) => Rule::GroupContextExtensions,
        StageCommitError::LeafNodeValidation(error) => of_leaf_node(error),
        StageCommitError::DuplicatePskId(_) => Rule::DistinctProposals,
        _ => Rule::Proposal,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign enum; what is not told apart is named by its text"
)]
fn of_proposals(error: &ProposalValidationError) -> Rule {
    match error {
        ProposalValidationError::DuplicateSignatureKey
        | ProposalValidationError::DuplicateEncryptionKey
        | ProposalValidationError::DuplicateInitKey
        | ProposalValidationError::InitEncryptionKeyCollision => Rule::DistinctKeys,
        ProposalValidationError::DuplicateMemberRemoval
        | ProposalValidationError::CommitterIncludedOwnUpdate => Rule::OneProposalPerLeaf,
        ProposalValidationError::UpdateFromNonMember => Rule::Sender,
        ProposalValidationError::InsufficientCapabilities
        | ProposalValidationError::UnsupportedProposalType => Rule::Capabilities,
        ProposalValidationError::LeafNodeValidation(error) => of_leaf_node(error),
        ProposalValidationError::ExternalInitProposalInRegularCommit => Rule::ExternalCommit,
        _ => Rule::Proposal,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a foreign enum; what is not told apart is named by its text"
)]
fn of_leaf_node(error: &LeafNodeValidationError) -> Rule {
    match error {
        LeafNodeValidationError::UnsupportedExtensions
        | LeafNodeValidationError::UnsupportedProposals
        | LeafNodeValidationError::UnsupportedCredentials
        | LeafNodeValidationError::CiphersuiteNotInCapabilities
        | LeafNodeValidationError::LeafNodeCredentialNotSupportedByMember
        | LeafNodeValidationError::MemberCredentialNotSupportedByLeafNode => Rule::Capabilities,
        LeafNodeValidationError::Lifetime(_) => Rule::Lifetime,
        LeafNodeValidationError::SignatureKeyAlreadyInUse
        | LeafNodeValidationError::EncryptionKeyAlreadyInUse => Rule::DistinctKeys,
        _ => Rule::LeafNode,
    }
}
