//! Staging a commit: the checks of an outsider (*Commits*; RFC 9420 §12.4.2) and the resulting changes.
//! `docs/rules.md` lists the rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use snapshots::{Epoch, KeyPackageRef, Timestamp};

use super::{
    Digest, Refusal, RequestMember, Rule, TrackedGroup, UnknownKind, ValidationContext,
    admission::Admission,
    epoch::{Derived, Listed},
    extensions::ContextExtensions,
    group::Member,
    group_context::GroupContext,
    group_info::CommitGroupInfo,
    handshake::{Handshake, Proposal, ProposalOrRef, is_default_proposal},
    handshake_header,
    member_index::IndexChange,
    proposal::{PendingProposal, unsupported_proposal},
    proposal_list::check_proposal_list,
    ratchet_tree::{RatchetTree, Replaced},
    welcome::{check_welcome, read_welcome},
    wire::{ContentKind, SenderKind},
};
use crate::{application::Source, limits::Limits};

/// How many proposals a commit may carry that was accepted before.
pub(super) const ANY_NUMBER: usize = usize::MAX;

/// The messages of one commit (*Commits*), as MLSMessages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitBundle {
    /// The commit, a PublicMessage.
    #[serde(with = "serde_bytes")]
    pub commit: Vec<u8>,
    /// The GroupInfo of the epoch that the commit creates.
    #[serde(with = "serde_bytes")]
    pub group_info: Option<Vec<u8>>,
    /// The Welcome for the clients that the commit adds.
    #[serde(with = "serde_bytes")]
    pub welcome: Option<Vec<u8>>,
}

/// A client that a commit adds by a key package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddedMember {
    pub(crate) member: Member,
    pub(crate) reference: KeyPackageRef,
    /// The key package is marked as one of last resort: it may be used more than once.
    pub(crate) last_resort: bool,
    pub(crate) not_after: Timestamp,
    /// The reference of the Add, if the commit takes it by reference.
    pub(crate) proposal: Option<Vec<u8>>,
}

/// The member who made a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitSender {
    pub(crate) member: Member,
    /// The key that signed the commit.
    pub(crate) signature_key: Vec<u8>,
}

/// A proposal that a commit takes by reference.
#[derive(Clone, Debug)]
pub(crate) struct Referenced {
    /// The packet as it was uploaded.
    pub(crate) packet: Arc<[u8]>,
    /// As [`PendingProposal::entry`].
    pub(crate) entry: Option<u64>,
}

impl Referenced {
    fn of(pending: &PendingProposal) -> Self {
        Self { packet: Arc::clone(&pending.packet), entry: pending.entry }
    }
}

/// An epoch that passed every check and is ready to be recorded and applied. It holds what the commit touches, and shares the
/// rest with the epoch before.
#[derive(Debug)]
pub(crate) struct StagedEpoch {
    pub(crate) epoch: Epoch,
    /// The members that came in, or whose leaves were replaced, by leaf.
    pub(crate) joined: BTreeMap<u32, Member>,
    /// The proposals committed by reference, in the commit's order.
    pub(crate) referenced: Vec<Referenced>,
    pub(crate) added: Vec<AddedMember>,
    /// `None` for an external commit, which adds no member by a key package.
    pub(crate) committer: Option<CommitSender>,
    /// The leaf of the client that committed, in the new epoch; also of one that joins by an external commit.
    pub(crate) committer_leaf: u32,
    /// Clients whose leaf is gone and that did not come back in the same commit.
    pub(crate) departed: Vec<Member>,
    pub(crate) arrived: Vec<Member>,
    /// Leaves of members who stay although their credentials have ended; none where that is accepted.
    pub(crate) expired: Vec<u32>,
    /// How many more members the commit could have removed; none if it is an external commit, which can only remove an
    /// earlier leaf of its sender (RFC 9420 §12.4.3.2).
    pub(crate) room_for_removals: usize,
    pub(crate) tree: RatchetTree,
    /// The interim transcript hash of the epoch that the commit ends: it tells the group's history.
    pub(super) interim_hash_before: Digest,
    pub(super) context: GroupContext,
    /// The serialised context (RFC 9420 §8.1).
    pub(crate) context_bytes: Vec<u8>,
    pub(super) interim_transcript_hash: Digest,
    pub(super) replaced: Replaced,
    pub(super) index_change: IndexChange,
    pub(super) reinitialised: bool,
    /// Its GroupContext extensions follow from more than the commit and the epoch before.
    pub(super) has_app_data_update: bool,
}

impl TrackedGroup {
    /// Stages a commit with its group info and welcome. Takes `&self`: whatever happens, the group stays as it is.
    pub(crate) fn stage_commit(
        &self,
        context: ValidationContext<'_>,
        bundle: &CommitBundle,
        now: Timestamp,
    ) -> Result<StagedEpoch, Refusal> {
        let commit = self.read_commit(&bundle.commit, context.limits.proposals_per_commit_max)?;
        let listed = self.listed(context, &commit, now)?;
        let adds = listed.iter().filter(|listed| matches!(listed.proposal, Proposal::Add(_))).count();
        self.check_least_count(listed.len(), adds, context.limits)?;
        let welcome = read_welcome(bundle.welcome.as_deref(), adds, self.context.suite)?;
        let group_info = bundle.group_info.as_deref();
        let group_info = group_info.map(|bytes| CommitGroupInfo::read(bytes, &commit)).transpose()?;
        let told = match &group_info {
            Some(group_info) if listed.iter().any(|listed| is_app_data_update(&listed.proposal)) => {
                Some(group_info.told_extensions()?)
            }
            Some(_) | None => None,
        };
        let (epoch, committer) = self.stage_listed(context, &commit, &listed, told.as_ref(), now)?;
        if let Some(group_info) = group_info {
            group_info.check(&epoch, committer)?;
        }
        check_welcome(welcome, &epoch.added)?;
        Ok(epoch)
    }

    /// Stages a commit as an observer sees it, without its group info and welcome.
    #[cfg(test)]
    pub(super) fn stage_alone(
        &self,
        context: ValidationContext<'_>,
        packet: &[u8],
        now: Timestamp,
    ) -> Result<StagedEpoch, Refusal> {
        let commit = self.read_commit(packet, context.limits.proposals_per_commit_max)?;
        let listed = self.listed(context, &commit, now)?;
        Ok(self.stage_listed(context, &commit, &listed, None, now)?.0)
    }

    /// Reads a commit of this epoch, of at most this many proposals.
    pub(super) fn read_commit<'a>(
        &self,
        packet: &'a [u8],
        proposals_max: usize,
    ) -> Result<Handshake<'a>, Refusal> {
        self.check_header(packet, ContentKind::Commit)?;
        let read = Handshake::read(RequestMember::CommitPacket, packet, ContentKind::Commit, proposals_max)?;
        read.ok_or_else(|| {
            let detail = format!("a commit may carry at most {proposals_max} proposals");
            Refusal::broken(Rule::ProposalCount, detail)
        })
    }

    /// The proposals of a commit, those that it references included.
    fn listed<'a>(
        &'a self,
        context: ValidationContext<'_>,
        commit: &Handshake<'a>,
        now: Timestamp,
    ) -> Result<Vec<Listed<'a>>, Refusal> {
        let mut distinct = BTreeSet::new();
        for reference in commit.references() {
            if !distinct.insert(reference) {
                let detail = "a proposal is referenced more than once";
                return Err(Refusal::broken(Rule::DistinctProposals, detail));
            }
        }
        self.check_goes_on()?;
        let listed = self.resolve(commit)?;
        self.check_types(commit, &listed)?;
        for Listed { reference, waiting, .. } in &listed {
            // The hub has held the commit to this at the time that it gave it.
            if *context.source != Source::Hub
                && let Some((rule, detail)) = waiting.and_then(|pending| pending.needs.expired(now))
            {
                return Err(Refusal::broken(rule, detail).caused_by(*reference));
            }
        }
        Ok(listed)
    }

    /// Refuses types of proposals that too few members support, whichever leaves the commit replaces.
    fn check_types(&self, commit: &Handshake<'_>, listed: &[Listed<'_>]) -> Result<(), Refusal> {
        let has_path = commit.commit().is_some_and(|commit| commit.path.is_some());
        let replaced = listed.iter().filter(|one| one.proposal.replaced_leaf(one.sender).is_some()).count();
        for Listed { proposal, reference, .. } in listed {
            let kind = proposal.kind();
            let supporting = self.index.supporting(UnknownKind::Proposal, kind);
            if !is_default_proposal(kind)
                && supporting + replaced + usize::from(has_path) < self.members_count()
            {
                return Err(unsupported_proposal(kind).caused_by(*reference));
            }
        }
        Ok(())
    }

    /// Looks up the proposals of a commit.
    pub(super) fn resolve<'a>(&'a self, commit: &Handshake<'a>) -> Result<Vec<Listed<'a>>, Refusal> {
        let proposals = commit.commit().map_or([].as_slice(), |commit| &commit.proposals);
        let mut waiting: BTreeMap<&[u8], &PendingProposal> = BTreeMap::new();
        if commit.references().next().is_some() {
            waiting.extend(self.pending.iter().map(|pending| (pending.reference.as_slice(), pending)));
        }
        let look_up = |listed: &ProposalOrRef<'a>| match *listed {
            ProposalOrRef::Proposal(proposal) => {
                Ok(Listed { proposal, sender: commit.sender, reference: None, waiting: None })
            }
            ProposalOrRef::Reference(reference) => {
                let known = waiting.get(reference).copied();
                let listed = known.and_then(|pending| {
                    let read =
                        Handshake::read(RequestMember::Packet, &pending.packet, ContentKind::Proposal, 0);
                    let message = read.ok().flatten()?;
                    let (proposal, sender) = (message.proposal()?, message.sender);
                    Some(Listed { proposal, sender, reference: Some(reference), waiting: Some(pending) })
                });
                listed.ok_or_else(|| {
                    let detail = "a referenced proposal was not accepted in this epoch";
                    Refusal::broken(Rule::KnownProposals, detail).caused_by(Some(reference))
                })
            }
        };
        proposals.iter().map(look_up).collect()
    }

    /// Stages the commit itself; answers the committer's leaf as well.
    fn stage_listed(
        &self,
        context: ValidationContext<'_>,
        commit: &Handshake<'_>,
        listed: &[Listed<'_>],
        told: Option<&ContextExtensions>,
        now: Timestamp,
    ) -> Result<(StagedEpoch, u32), Refusal> {
        let path = commit.commit().and_then(|commit| commit.path.as_ref());
        self.check_committer(context, commit, now)?;
        check_proposal_list(listed, commit.sender, &self.context)?;
        if path.is_none() && (listed.is_empty() || listed.iter().any(|listed| listed.proposal.needs_path())) {
            return Err(Refusal::broken(Rule::PathRequired, "the commit must have an update path"));
        }
        self.check_removed(listed)?;
        self.check_commit_signature(commit)?;
        let mut admission = Admission::new(self, context, commit.sender, now);
        if let (SenderKind::NewMemberCommit, Some(path)) = (commit.sender, path) {
            admission.check_resync(listed, &path.leaf)?;
        }
        let derived = self.derive(commit, listed, told, &mut admission)?;
        let index_change = IndexChange::of(&derived.replaced);
        admission.check_distinct(&derived, &index_change)?;
        check_member_count(derived.tree.members_count(), context.limits)?;
        admission.check_support(&derived, &index_change, listed)?;
        let added = admission.added;
        let Derived {
            tree, context: next, context_bytes, interim_transcript_hash, replaced, committer, ..
        } = derived;
        let expired =
            if context.refuses_expired_members() { self.expired_beside(&replaced, now) } else { Vec::new() };
        let joined = replaced.leaves_in.iter().map(|(index, leaf)| (*index, leaf.member.clone())).collect();
        let (departed, arrived) = came_and_went(&replaced);
        let epoch = StagedEpoch {
            epoch: next.epoch,
            joined,
            referenced: listed.iter().filter_map(|listed| listed.waiting.map(Referenced::of)).collect(),
            added,
            committer: self.committer(commit.sender),
            committer_leaf: committer,
            departed,
            arrived,
            expired,
            room_for_removals: match commit.sender {
                SenderKind::Member(_) => context.limits.proposals_per_commit_max.saturating_sub(listed.len()),
                SenderKind::NewMemberCommit | SenderKind::External(_) | SenderKind::NewMemberProposal => 0,
            },
            tree,
            interim_hash_before: self.interim_transcript_hash,
            context: next,
            context_bytes,
            interim_transcript_hash,
            replaced,
            index_change,
            has_app_data_update: listed.iter().any(|listed| is_app_data_update(&listed.proposal)),
            reinitialised: listed.iter().any(|listed| matches!(listed.proposal, Proposal::ReInit(_))),
        };
        Ok((epoch, committer))
    }

    /// Whether the sender may commit, as far as that can be told without verifying the signature.
    fn check_committer(
        &self,
        context: ValidationContext<'_>,
        commit: &Handshake<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let has_path = commit.commit().is_some_and(|commit| commit.path.is_some());
        match commit.sender {
            SenderKind::Member(leaf) if self.tree.leaf(leaf).is_some() => {
                self.check_in_date(context, leaf, has_path, now)
            }
            SenderKind::Member(_) => Err(Refusal::broken(Rule::Sender, "the sender's leaf is blank")),
            SenderKind::NewMemberCommit if has_path => Ok(()),
            SenderKind::NewMemberCommit => {
                Err(Refusal::broken(Rule::PathRequired, "an external commit must have an update path"))
            }
            SenderKind::External(_) | SenderKind::NewMemberProposal => {
                Err(Refusal::broken(Rule::Sender, "this sender cannot commit"))
            }
        }
    }

    /// Each leaf that is to be removed, or updated, is a member's.
    fn check_removed(&self, listed: &[Listed<'_>]) -> Result<(), Refusal> {
        for Listed { proposal, sender, reference, .. } in listed {
            if let Some(leaf) = proposal.replaced_leaf(*sender)
                && self.tree.leaf(leaf).is_none()
            {
                let detail = format!("no member has leaf {leaf}, which is to be updated or removed");
                return Err(Refusal::broken(Rule::Proposal, detail).caused_by(*reference));
            }
        }
        Ok(())
    }

    fn check_commit_signature(&self, commit: &Handshake<'_>) -> Result<(), Refusal> {
        let path = commit.commit().and_then(|commit| commit.path.as_ref());
        let of_member;
        let key = match commit.sender {
            SenderKind::Member(leaf) => {
                of_member = self.leaf(leaf);
                of_member.as_ref().map(|leaf| leaf.signature_key)
            }
            SenderKind::NewMemberCommit => path.map(|path| path.leaf.signature_key),
            SenderKind::External(_) | SenderKind::NewMemberProposal => None,
        };
        if key.is_some_and(|key| commit.is_signed_by(self.context.suite, key, &self.context_bytes)) {
            Ok(())
        } else {
            Err(Refusal::broken(Rule::Signature, "the signature of the commit is not the sender's"))
        }
    }

    /// The leaves of the members whose credentials have ended at a moment, but for those that a commit replaces; ascending.
    fn expired_beside(&self, replaced: &Replaced, at: Timestamp) -> Vec<u32> {
        let leaves = replaced.leaves_out.iter().chain(&replaced.leaves_in);
        let replaced: BTreeSet<u32> = leaves.map(|(index, _)| *index).collect();
        let mut expired = self.ended(at);
        expired.retain(|leaf| !replaced.contains(leaf));
        expired
    }

    fn committer(&self, sender: SenderKind) -> Option<CommitSender> {
        let SenderKind::Member(leaf) = sender else { return None };
        let leaf = self.tree.leaf(leaf)?;
        let signature_key = leaf.node()?.signature_key.to_vec();
        Some(CommitSender { member: leaf.member.clone(), signature_key })
    }

    /// Nothing follows a re-initialisation.
    pub(super) fn check_goes_on(&self) -> Result<(), Refusal> {
        if self.reinitialised {
            let detail = "the group was re-initialised; use its successor";
            return Err(Refusal::broken(Rule::NothingAfterReInit, detail));
        }
        Ok(())
    }

    /// What commits and proposals share: the format, the group, the epoch and the kind of content.
    pub(super) fn check_header(&self, packet: &[u8], expected: ContentKind) -> Result<(), Refusal> {
        let member = match expected {
            ContentKind::Commit => RequestMember::CommitPacket,
            ContentKind::Proposal | ContentKind::Application => RequestMember::Packet,
        };
        let header = handshake_header(member, packet)?;
        if header.group_id != self.context.group_id.as_bytes() {
            return Err(Refusal::broken(Rule::Group, "the packet was made for another group"));
        }
        let current = self.epoch();
        if header.epoch < current {
            return Err(Refusal::Stale { packet: header.epoch, current });
        }
        if header.epoch > current {
            return Err(Refusal::Future { packet: header.epoch, current });
        }
        let Some(public) = header.public else {
            return Err(Refusal::broken(
                Rule::PublicMessage,
                "the packet is a PrivateMessage, which a gateway cannot check; send handshakes as PublicMessage",
            ));
        };
        if header.content != expected {
            let offset = packet.len().saturating_sub(public.content.rest().len() + 1);
            let place = ("PublicMessage.content.content_type", offset);
            return Err(Refusal::unexpected(member, place, header.content.name(), expected.name()));
        }
        Ok(())
    }

    /// Refuses a commit that must lead to too many members, before anything is computed.
    fn check_least_count(&self, proposals: usize, adds: usize, limits: &Limits) -> Result<(), Refusal> {
        check_member_count((self.members_count() + adds).saturating_sub(proposals - adds), limits)
    }
}

impl<'a> Handshake<'a> {
    fn references(&self) -> impl Iterator<Item = &'a [u8]> {
        self.commit().into_iter().flat_map(|commit| commit.references())
    }
}

fn is_app_data_update(proposal: &Proposal<'_>) -> bool {
    matches!(proposal, Proposal::AppDataUpdate { .. })
}

/// The clients who are gone, and those who are new.
fn came_and_went(replaced: &Replaced) -> (Vec<Member>, Vec<Member>) {
    let clients = |leaves: &[(u32, Arc<super::ratchet_tree::Leaf>)]| {
        let of = |(_, leaf): &(u32, Arc<super::ratchet_tree::Leaf>)| {
            (leaf.member.domain.clone(), leaf.member.handle.clone())
        };
        leaves.iter().map(of).collect::<BTreeSet<_>>()
    };
    let (out, into) = (clients(&replaced.leaves_out), clients(&replaced.leaves_in));
    let members = |leaves: &[(u32, Arc<super::ratchet_tree::Leaf>)], others: &BTreeSet<_>| {
        let members = leaves.iter().map(|(_, leaf)| &leaf.member);
        members
            .filter(|member| !others.contains(&(member.domain.clone(), member.handle.clone())))
            .cloned()
            .collect()
    };
    (members(&replaced.leaves_out, &into), members(&replaced.leaves_in, &out))
}

fn check_member_count(count: usize, limits: &Limits) -> Result<(), Refusal> {
    let max = limits.group_members_max;
    if count <= max {
        return Ok(());
    }
    Err(Refusal::broken(Rule::MemberCount, format!("the group would have {count} members; at most {max}")))
}
