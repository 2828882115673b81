//! Rules for handshake messages, each with a stable name.

use std::fmt;

/// A rule of RFC 9420, or of the draft, that a proposal or commit broke. [`Rule::name`] is what clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A gateway checks handshakes, so they travel as PublicMessage (*Managing Groups without Metadata Protection*).
    PublicMessage,
    /// The packet names another group than the request.
    Group,
    /// The sender is a member, or one that may send this (RFC 9420 §6.1, §12.1.8).
    Sender,
    /// The signature is the sender's (RFC 9420 §6.1).
    Signature,
    /// Every referenced proposal was accepted in this epoch (RFC 9420 §12.4).
    KnownProposals,
    /// A proposal is listed once (RFC 9420 §12.2).
    DistinctProposals,
    /// At most one Update or Remove applies to one leaf, and none of the committer's own (RFC 9420 §12.2).
    OneProposalPerLeaf,
    /// A ReInit stands alone in its commit (RFC 9420 §12.2).
    ReInitAlone,
    /// Nothing follows a ReInit (RFC 9420 §11.2).
    NothingAfterReInit,
    /// A proposal's own rules (RFC 9420 §12.1).
    Proposal,
    /// The list of proposals is not longer than the gateway takes.
    ProposalCount,
    /// A commit that needs an update path has one (RFC 9420 §12.4).
    PathRequired,
    /// The update path has one node per node of the filtered direct path, with valid parent hashes (RFC 9420 §7.9).
    Path,
    /// Each path node carries one ciphertext per node of its copath's resolution (RFC 9420 §7.6).
    PathCiphertexts,
    /// A leaf node is valid for the group (RFC 9420 §7.3).
    LeafNode,
    /// A key package is within its lifetime (RFC 9420 §7.2, §10.1).
    Lifetime,
    /// Keys are not shared between members or proposals (RFC 9420 §7.3, §12.4.3.1).
    DistinctKeys,
    /// Capabilities cover what the group requires and uses (RFC 9420 §7.2, §11.1).
    Capabilities,
    /// GroupContext extensions are supported by every member (RFC 9420 §12.1.7).
    GroupContextExtensions,
    /// An external commit holds one ExternalInit and only the other proposals that it may hold (RFC 9420 §12.2).
    ExternalCommit,
    /// The identity provider accepts every identity that enters (*Identity Providers*), and a member whose credential has
    /// expired does nothing but renew it.
    Identity,
    /// A leaf is replaced only by a valid successor (*Identity Providers*; RFC 9420 §5.3.1).
    Successor,
    /// A client is in a group once (*Identity Providers*).
    DistinctClients,
    /// A client is of a domain that its sender speaks for (*Key Package Validation*).
    Domain,
    /// The group is not larger than the gateway takes.
    MemberCount,
}

impl Rule {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PublicMessage => "public-message",
            Self::Group => "group",
            Self::Sender => "sender",
            Self::Signature => "signature",
            Self::KnownProposals => "known-proposals",
            Self::DistinctProposals => "distinct-proposals",
            Self::OneProposalPerLeaf => "one-proposal-per-leaf",
            Self::ReInitAlone => "reinit-alone",
            Self::NothingAfterReInit => "nothing-after-reinit",
            Self::Proposal => "proposal",
            Self::ProposalCount => "proposal-count",
            Self::PathRequired => "path-required",
            Self::Path => "path",
            Self::PathCiphertexts => "path-ciphertexts",
            Self::LeafNode => "leaf-node",
            Self::Lifetime => "lifetime",
            Self::DistinctKeys => "distinct-keys",
            Self::Capabilities => "capabilities",
            Self::GroupContextExtensions => "group-context-extensions",
            Self::ExternalCommit => "external-commit",
            Self::Identity => "identity",
            Self::Successor => "successor",
            Self::DistinctClients => "distinct-clients",
            Self::Domain => "domain",
            Self::MemberCount => "member-count",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
