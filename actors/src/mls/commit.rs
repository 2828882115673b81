//! Staging a commit: the checks of an outsider (*Commits*; RFC 9420 §12.4.2) and the resulting changes.
//! `docs/validation.md` lists the checks that are missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use openmls::{
    group::{QueuedProposal, StagedCommit},
    prelude::{
        MlsMessageIn, ProcessedMessageContent, Proposal, ProtocolMessage, Sender,
        tls_codec::DeserializeBytes as _,
    },
};
use serde::{Deserialize, Serialize};
use snapshots::{Epoch, KeyPackageRef, Timestamp};

use super::{
    Crypto, Refusal, RequestMember, Rule, TrackedGroup, ValidationContext,
    group::Member,
    group_info::{check_group_info, check_group_info_head},
    handshake_header,
    leaf::is_last_resort,
    proposal::PendingProposal,
    proposal_list::{check_proposal_list, reference_of, removed_leaf},
    public_part,
    shape::TreeShape,
    tree::{SerialisedTree, TreeChanges},
    welcome::{check_welcome, read_welcome},
    wire::{self, CommitOutline, ContentKind, SenderKind},
};
use crate::{application::Source, codec::encode_long, limits::Limits};

/// The length of a staged commit, in lengths of its packet, about.
const STAGED_PER_PACKET: usize = 5;

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

/// What an accepted commit changes, as it is recorded: applying it validates nothing and reads no clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochChange {
    /// The MLS library's staged commit, MessagePack with named fields.
    #[serde(with = "serde_bytes")]
    pub(crate) staged: Vec<u8>,
    pub(crate) left: Vec<u32>,
    pub(crate) joined: BTreeMap<u32, Member>,
    pub(crate) reinitialised: bool,
}

/// An epoch that passed every check and is ready to be recorded and applied.
#[derive(Debug)]
pub(crate) struct StagedEpoch {
    pub(crate) epoch: Epoch,
    pub(crate) change: EpochChange,
    /// Packets of the proposals committed by reference, in the commit's order.
    pub(crate) referenced: Vec<Arc<[u8]>>,
    pub(crate) added: Vec<AddedMember>,
    /// `None` for an external commit, which adds no member by a key package.
    pub(crate) committer: Option<CommitSender>,
    /// Clients whose leaf is gone and that did not come back in the same commit.
    pub(crate) departed: Vec<Member>,
    pub(crate) arrived: Vec<Member>,
    /// Leaves of members who stay although their credentials have expired.
    pub(crate) expired: Vec<u32>,
    /// How many more members the commit could have removed; none if it is an external commit, which can only remove an
    /// earlier leaf of its sender (RFC 9420 §12.4.3.2).
    pub(crate) room_for_removals: usize,
    pub(crate) tree: SerialisedTree,
    pub(super) shape: TreeShape,
    pub(super) staged: Box<StagedCommit>,
}

impl TrackedGroup {
    /// Stages a commit with its group info and welcome. Takes `&self`: whatever happens, the group stays as it is.
    pub(crate) fn stage_commit(
        &self,
        context: ValidationContext<'_>,
        bundle: &CommitBundle,
        now: Timestamp,
    ) -> Result<StagedEpoch, Refusal> {
        let head = self.commit_head(context, &bundle.commit, now)?;
        let welcome = read_welcome(bundle.welcome.as_deref(), head.adds, self.public.ciphersuite())?;
        if let Some(group_info) = bundle.group_info.as_deref() {
            check_group_info_head(group_info, &head.outline)?;
        }
        let (epoch, committer, outline) = self.stage_read(context, &bundle.commit, head, now)?;
        if let Some(group_info) = bundle.group_info.as_deref() {
            let signer = epoch.staged.update_path_leaf_node().or_else(|| self.leaf(committer));
            check_group_info(
                context.crypto,
                group_info,
                &epoch.staged,
                &epoch.tree,
                &outline,
                (committer, signer),
            )?;
        }
        check_welcome(welcome, &epoch.added)?;
        Ok(epoch)
    }

    /// Stages a commit as an observer sees it, without its group info and welcome; answers the committer's leaf as well.
    #[cfg(test)]
    pub(super) fn stage_alone<'a>(
        &self,
        context: ValidationContext<'_>,
        commit: &'a [u8],
        now: Timestamp,
    ) -> Result<(StagedEpoch, u32, CommitOutline<'a>), Refusal> {
        self.stage_read(context, commit, self.commit_head(context, commit, now)?, now)
    }

    /// What is left to do when everything was checked that needs no cryptography.
    fn stage_read<'a>(
        &self,
        context: ValidationContext<'_>,
        commit: &'a [u8],
        CommitHead { sender, outline, referenced, message, .. }: CommitHead<'a>,
        now: Timestamp,
    ) -> Result<(StagedEpoch, u32, CommitOutline<'a>), Refusal> {
        let staged = self
            .verify_commit(context.crypto, commit, message)
            .map_err(|refusal| self.with_culprit(refusal, sender, &outline))?;
        let proposals: Vec<&QueuedProposal> = staged.queued_proposals().collect();
        if proposals.len() != outline.proposals {
            return Err(Refusal::broken(Rule::DistinctProposals, "a proposal is listed more than once"));
        }
        check_proposal_list(&proposals, sender)?;
        let (shape, committer, added_leaves) = self.shape_after(&proposals, &staged, sender, &outline)?;
        if let Some(checks) = context.leaf_checks(self.cipher_suite()) {
            checks.check_path_keys(&outline.path_keys)?;
        }
        let roster =
            self.roster_after((context, now), &staged, &proposals, (sender, committer), &added_leaves)?;
        check_member_count(roster.count, context.limits)?;
        let mut expired = self.expired(now);
        let left: BTreeSet<u32> = roster.left.iter().copied().collect();
        expired.retain(|leaf| !left.contains(leaf) && !roster.joined.contains_key(leaf));
        let added = added_members(context.crypto, &proposals, &added_leaves, &roster.joined)?;

        let bytes = encode_long(&staged, STAGED_PER_PACKET * commit.len())
            .map_err(|error| Refusal::broken(Rule::Proposal, error.to_string()))?;
        let changes = TreeChanges::of_staged(&bytes)
            .ok_or_else(|| Refusal::broken(Rule::Path, "the staged tree cannot be read"))?;
        let tree = self.tree.after(&changes);
        let epoch = StagedEpoch {
            epoch: Epoch(staged.epoch().as_u64()),
            change: EpochChange {
                staged: bytes,
                left: roster.left,
                joined: roster.joined,
                reinitialised: proposals
                    .iter()
                    .any(|queued| matches!(queued.proposal(), Proposal::ReInit(_))),
            },
            referenced,
            added,
            committer: self.committer(sender),
            departed: roster.departed,
            arrived: roster.arrived,
            expired,
            room_for_removals: match sender {
                SenderKind::Member(_) => {
                    context.limits.proposals_per_commit_max.saturating_sub(outline.proposals)
                }
                SenderKind::NewMemberCommit | SenderKind::External(_) | SenderKind::NewMemberProposal => 0,
            },
            tree,
            shape,
            staged: Box::new(staged),
        };
        Ok((epoch, committer, outline))
    }

    /// The referenced proposals, in order: each waits in this epoch and has not expired since.
    fn check_references(
        &self,
        context: ValidationContext<'_>,
        outline: &CommitOutline<'_>,
        now: Timestamp,
    ) -> Result<Vec<&PendingProposal>, Refusal> {
        if outline.references.is_empty() {
            return Ok(Vec::new());
        }
        let mut referenced = Vec::with_capacity(outline.references.len());
        let waiting: BTreeMap<&[u8], &PendingProposal> =
            self.pending.iter().map(|pending| (pending.reference.as_slice(), pending)).collect();
        for reference in &outline.references {
            let refuse = |rule, detail: String| Err(Refusal::broken(rule, detail).caused_by(Some(reference)));
            let Some(pending) = waiting.get(reference) else {
                return refuse(
                    Rule::KnownProposals,
                    "a referenced proposal was not accepted in this epoch".into(),
                );
            };
            // The hub has held the commit to this at the time that it gave it.
            if *context.source != Source::Hub
                && let Some((rule, detail)) = pending.needs.expired(now)
            {
                return refuse(rule, detail);
            }
            referenced.push(*pending);
        }
        Ok(referenced)
    }

    fn committer(&self, sender: SenderKind) -> Option<CommitSender> {
        let SenderKind::Member(leaf) = sender else { return None };
        let signature_key = self.leaf(leaf)?.signature_key().as_slice().to_vec();
        Some(CommitSender { member: self.members.get(&leaf)?.clone(), signature_key })
    }

    /// Reads and routes the packet: everything that needs no cryptography, the epoch first of all.
    fn commit_head<'a>(
        &self,
        context: ValidationContext<'_>,
        packet: &'a [u8],
        now: Timestamp,
    ) -> Result<CommitHead<'a>, Refusal> {
        let public = self.handshake_head(packet, ContentKind::Commit)?;
        let limits = context.limits;
        let max = limits.proposals_per_commit_max;
        let unreadable = |_| Refusal::unreadable(RequestMember::CommitPacket, packet);
        let outline = wire::commit_outline(public, max).map_err(unreadable)?.ok_or_else(|| {
            Refusal::broken(Rule::ProposalCount, format!("a commit may carry at most {max} proposals"))
        })?;
        let distinct: BTreeSet<_> = outline.references.iter().collect();
        if distinct.len() != outline.references.len() {
            return Err(Refusal::broken(Rule::DistinctProposals, "a proposal is referenced more than once"));
        }
        if self.reinitialised {
            return Err(Refusal::broken(
                Rule::NothingAfterReInit,
                "the group was re-initialised; use its successor",
            ));
        }
        self.check_types_known(&outline.unknown_types)?;
        let (mut referenced, mut adds, mut listed) = (Vec::new(), outline.adds, outline.listed);
        for pending in self.check_references(context, &outline, now)? {
            if let Some(public) = public_part(&pending.packet) {
                adds += usize::from(public.proposal_type() == Some(wire::ADD));
                listed.add(public.listed_by_proposal());
            }
            referenced.push(Arc::from(pending.packet.as_slice()));
        }
        self.check_comparable(listed)?;
        let least = (self.members.len() + adds).saturating_sub(outline.proposals - adds);
        check_member_count(least, limits)?;
        let message = protocol_message(RequestMember::CommitPacket, packet)?;
        Ok(CommitHead { sender: public.sender, outline, adds, referenced, message })
    }

    /// What commits and proposals share: the format, the group, the epoch and the kind of content.
    pub(super) fn handshake_head<'a>(
        &self,
        packet: &'a [u8],
        expected: ContentKind,
    ) -> Result<wire::PublicPart<'a>, Refusal> {
        let member = match expected {
            ContentKind::Commit => RequestMember::CommitPacket,
            ContentKind::Proposal | ContentKind::Application => RequestMember::Packet,
        };
        let header = handshake_header(member, packet)?;
        if header.group_id != self.id.as_bytes() {
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
        Ok(public)
    }

    fn verify_commit(
        &self,
        crypto: &Crypto,
        packet: &[u8],
        message: ProtocolMessage,
    ) -> Result<StagedCommit, Refusal> {
        match self.verify(crypto, message)? {
            ProcessedMessageContent::StagedCommitMessage(staged) => Ok(*staged),
            ProcessedMessageContent::ApplicationMessage(_)
            | ProcessedMessageContent::ProposalMessage(_)
            | ProcessedMessageContent::ExternalJoinProposalMessage(_)
            | ProcessedMessageContent::OwnPendingCommit
            | ProcessedMessageContent::OwnPrivateMessage => {
                Err(Refusal::unreadable(RequestMember::CommitPacket, packet))
            }
        }
    }

    /// The MLS library's own checks.
    pub(super) fn verify(
        &self,
        crypto: &Crypto,
        message: ProtocolMessage,
    ) -> Result<ProcessedMessageContent, Refusal> {
        let processed = self.public.process_message(&crypto.0, message).map_err(Refusal::of_library)?;
        Ok(processed.into_content())
    }

    /// Replays the commit on the tree's shape and compares the update path's ciphertexts with it.
    fn shape_after(
        &self,
        proposals: &[&QueuedProposal],
        staged: &StagedCommit,
        sender: SenderKind,
        outline: &CommitOutline<'_>,
    ) -> Result<(TreeShape, u32, Vec<u32>), Refusal> {
        let mut shape = self.shape.clone();
        for queued in proposals {
            if let (Proposal::Update(_), Sender::Member(leaf)) = (queued.proposal(), queued.sender()) {
                shape.update(leaf.u32());
            }
        }
        for leaf in proposals.iter().filter_map(|queued| removed_leaf(queued)) {
            shape.remove(leaf);
        }
        let adds = proposals.iter().filter(|queued| matches!(queued.proposal(), Proposal::Add(_)));
        let added = shape.add_all(adds.count());
        shape.trim();
        let committer = match sender {
            SenderKind::Member(leaf) => leaf,
            SenderKind::NewMemberCommit => {
                let place = shape.occupy();
                let agreed =
                    self.public.ext_commit_sender_index(staged).is_ok_and(|leaf| leaf.u32() == place);
                if !agreed {
                    return Err(Refusal::broken(
                        Rule::ExternalCommit,
                        "the joiner's leaf has no definite place",
                    ));
                }
                place
            }
            SenderKind::External(_) | SenderKind::NewMemberProposal => {
                return Err(Refusal::broken(Rule::Sender, "this sender cannot commit"));
            }
        };
        if let Some(counts) = &outline.path_ciphertexts {
            let expected = shape.commit_path(committer, &added);
            if *counts != expected {
                let detail = if counts.len() == expected.len() {
                    format!(
                        "the update path carries {counts:?} ciphertexts per node, its resolutions need {expected:?}"
                    )
                } else {
                    format!(
                        "the update path has {} nodes, the filtered direct path has {}",
                        counts.len(),
                        expected.len()
                    )
                };
                return Err(Refusal::broken(Rule::PathCiphertexts, detail));
            }
        }
        Ok((shape, committer, added))
    }
}

/// A commit as far as it is read without cryptography.
struct CommitHead<'a> {
    sender: SenderKind,
    outline: CommitOutline<'a>,
    /// How many clients it adds, by value and by reference.
    adds: usize,
    /// Packets of the proposals that it references, in its order.
    referenced: Vec<Arc<[u8]>>,
    message: ProtocolMessage,
}

/// A handshake message as the MLS library reads it. Nothing is verified.
pub(super) fn protocol_message(member: RequestMember, packet: &[u8]) -> Result<ProtocolMessage, Refusal> {
    MlsMessageIn::tls_deserialize_exact_bytes(packet)
        .ok()
        .and_then(|message| message.try_into_protocol_message().ok())
        .ok_or_else(|| Refusal::unreadable(member, packet))
}

fn check_member_count(count: usize, limits: &Limits) -> Result<(), Refusal> {
    let max = limits.group_members_max;
    if count <= max {
        return Ok(());
    }
    Err(Refusal::broken(Rule::MemberCount, format!("the group would have {count} members; at most {max}")))
}

/// The members that are added by key package, with what their packages say.
fn added_members(
    crypto: &Crypto,
    proposals: &[&QueuedProposal],
    leaves: &[u32],
    joined: &BTreeMap<u32, Member>,
) -> Result<Vec<AddedMember>, Refusal> {
    let adds = proposals.iter().filter_map(|queued| match queued.proposal() {
        Proposal::Add(add) => Some((add.key_package(), reference_of(queued))),
        Proposal::Update(_)
        | Proposal::Remove(_)
        | Proposal::PreSharedKey(_)
        | Proposal::ReInit(_)
        | Proposal::ExternalInit(_)
        | Proposal::GroupContextExtensions(_)
        | Proposal::SelfRemove
        | Proposal::Custom(_) => None,
    });
    let mut added = Vec::with_capacity(leaves.len());
    for ((package, proposal), leaf) in adds.zip(leaves) {
        let reference = package
            .hash_ref(&crypto.0)
            .ok()
            .and_then(|reference| KeyPackageRef::new(reference.as_slice()).ok())
            .ok_or_else(|| Refusal::broken(Rule::Proposal, "a key package has no reference"))?;
        if let Some(member) = joined.get(leaf) {
            added.push(AddedMember {
                member: member.clone(),
                reference,
                last_resort: is_last_resort(package),
                not_after: Timestamp(package.life_time().not_after().saturating_mul(1000)),
                proposal: proposal.map(<[u8]>::to_vec),
            });
        }
    }
    Ok(added)
}
