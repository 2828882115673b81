//! Observer of one MLS group: follows its public state from outside, as a delivery service can.
//!
//! An [`Observer`] holds what every member of a group knows and no secret: the GroupContext, the ratchet tree and the proposals that wait.
//! It judges each proposal and commit by RFC 9420 as far as an outsider can, and computes the epoch that a commit creates. It is what
//! the gateway's group actors use. It has no actor, no disk, no thread and no clock.
//!
//! # What it checks
//!
//! Signatures of messages, leaves, key packages and GroupInfos; the rules for leaves, key packages, lists of proposals, update paths
//! and parent hashes; that keys and clients are in a group once; that members, leaves and extensions support each other; and that a commit's
//! GroupInfo and Welcome are those of the epoch that it creates. `docs/rules.md` lists each rule with its section of the RFC, the name
//! of its refusal and a test. All cipher suites of RFC 9420 are known, and unknown values and GREASE are accepted wherever the RFC
//! lets them be.
//!
//! It cannot check membership tags, confirmation tags or ciphertexts: that needs the group's secrets. Members notice when these are wrong.
//!
//! # Two steps
//!
//! [`Observer::stage`] makes all checks and changes nothing. [`Observer::apply`] makes no check of the message and takes the staged epoch in.
//! A caller can write the staged epoch to a log in between ([`StagedCommit::record`]), and apply it again from there after a restart
//! ([`Observer::replay`]), without validating anything.
//!
//! # Time
//!
//! Each call has the time at which the message counts as received. Lifetimes and credentials are judged by it, so all observers that
//! are given the same messages with the same times agree, whenever they see them.
//!
//! # Cost
//!
//! A commit costs the verification of its signatures, the reading of its bytes, and some hashes for each level of the tree, whatever the
//! number of members. Two things can cost more: the lists of unmerged leaves above a leaf, which RFC 9420 §7.8 hashes with their nodes, and
//! new GroupContext extensions if the identity provider reads them, since it is then asked about every member. Opening and restoring a
//! group cost time in proportion to its size. `docs/performance.md` has figures.
//!
//! # Example
//!
//! ```
//! use actors::{AppId, Application, Clock, CommitBundle, GroupError, Limits, observer::Observer};
//! # use mls_forge::{Client, Group, Suite};
//! # let mut group = Group::create(Client::new(Suite::Ed25519, "alice"));
//! # let bob = Client::new(Suite::Ed25519, "bob");
//! # let (group_info, tree) = (group.group_info().to_message(), group.tree_bytes());
//! # let add = group.add(&bob);
//! # let made = group.commit(0).with(add).sign();
//! let now = Clock::system().now();
//! let application = Application::basic(AppId::random());
//! let mut observer = Observer::open(application, &group_info, Some(&tree), now)?;
//!
//! // Alice adds Bob. The messages are MLSMessages, as her library made them.
//! let commit = CommitBundle {
//!     commit: made.commit_bytes(),
//!     group_info: Some(made.group_info_bytes()),
//!     welcome: made.welcome_bytes(),
//! };
//! let staged = observer.stage(&commit, now)?;
//! observer.apply(staged)?;
//! assert_eq!((observer.epoch().0, observer.members().count()), (1, 2));
//!
//! // The same commit does not fit the new epoch.
//! let again = observer.stage(&commit, now).unwrap_err();
//! assert!(matches!(again, GroupError::StaleEpoch { .. }));
//!
//! // A group may have 20,000 members, or as many as the caller says.
//! let limits = Limits { group_members_max: 2, ..Limits::default() };
//! let mut small = Observer::restore_within(limits, Application::basic(AppId::random()), &observer.snapshot()?)?;
//! # group.apply(&made);
//! # let carol = Client::new(Suite::Ed25519, "carol");
//! # let add = group.add(&carol);
//! # let made = group.commit(0).with(add).sign();
//! # let (group_info, welcome) = (Some(made.group_info_bytes()), made.welcome_bytes());
//! # let third = CommitBundle { commit: made.commit_bytes(), group_info, welcome };
//! assert!(matches!(small.stage(&third, now), Err(GroupError::InvalidCommit { .. })));
//! assert!(observer.stage(&third, now).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use snapshots::{ClientHandle, DomainName, Epoch, GroupId, Timestamp};

use crate::{
    application::{Application, Source},
    codec::{CodecError, decode, encode},
    group::{GroupError, refused_commit, refused_proposal},
    limits::Limits,
    mls::{CommitBundle, EpochRecord, GroupSnapshot, StagedEpoch, TrackedGroup, ValidationContext},
};

/// The public state of one group, with the rules by which its messages are judged.
#[derive(Debug)]
pub struct Observer {
    tracked: TrackedGroup,
    application: Application,
    limits: Limits,
}

/// A commit that passed every check.
#[derive(Debug)]
pub struct StagedCommit(StagedEpoch);

/// Why a stored form of a group or of a commit cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoredFormError(String);

impl From<CodecError> for StoredFormError {
    fn from(error: CodecError) -> Self {
        Self(error.to_string())
    }
}

/// The error of applying a commit that was staged in another epoch than the present one, or after another history of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the commit was staged for another epoch than the present one")]
pub struct StagedElsewhere;

impl StagedCommit {
    /// The epoch that the commit creates.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// The serialised GroupContext of that epoch (RFC 9420 §8.1).
    pub fn context_bytes(&self) -> Vec<u8> {
        self.0.context_bytes.clone()
    }

    /// What [`Observer::replay`] needs besides the commit.
    ///
    /// # Errors
    /// None is known.
    pub fn record(&self) -> Result<Vec<u8>, StoredFormError> {
        Ok(encode(&EpochRecord::of(&self.0))?)
    }
}

impl Observer {
    /// Opens a group of any epoch from a GroupInfo message and its ratchet tree, which may be in the GroupInfo instead (RFC 9420
    /// §12.4.3). Its members are clients of the application; the limits are the default ones, which [`Self::open_within`]
    /// replaces.
    ///
    /// # Errors
    /// [`GroupError::MalformedMessage`] or [`GroupError::InvalidGroupInfo`].
    pub fn open(
        application: Application,
        group_info: &[u8],
        ratchet_tree: Option<&[u8]>,
        at: Timestamp,
    ) -> Result<Self, GroupError> {
        Self::open_within(Limits::default(), application, group_info, ratchet_tree, at)
    }

    /// As [`Self::open`], with limits of the caller's choice. An observer heeds `group_members_max`, `proposals_per_commit_max`,
    /// `key_package_lifetime_s_max` and `clock_skew_s_max`. The length of messages and the number of proposals that wait are for
    /// the caller to bound.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_within(
        limits: Limits,
        application: Application,
        group_info: &[u8],
        ratchet_tree: Option<&[u8]>,
        at: Timestamp,
    ) -> Result<Self, GroupError> {
        let context =
            ValidationContext { limits: &limits, application: &application, source: &Source::Application };
        let tracked = TrackedGroup::open(context, group_info, ratchet_tree, at).map_err(refused_commit)?;
        Ok(Self { tracked, application, limits })
    }

    fn context(&self) -> ValidationContext<'_> {
        let Self { limits, application, .. } = self;
        ValidationContext { limits, application, source: &Source::Application }
    }

    /// Validates a proposal of the present epoch; returns its ProposalRef (RFC 9420 §5.2).
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn check_proposal(&self, packet: &[u8], at: Timestamp) -> Result<Vec<u8>, GroupError> {
        let staged = self.tracked.stage_proposal(self.context(), packet, at).map_err(refused_proposal)?;
        Ok(staged.pending.reference)
    }

    /// Validates a proposal of the present epoch, which then waits to be committed; returns its ProposalRef.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn propose(&mut self, packet: &[u8], at: Timestamp) -> Result<Vec<u8>, GroupError> {
        let staged = self.tracked.stage_proposal(self.context(), packet, at).map_err(refused_proposal)?;
        let reference = staged.pending.reference.clone();
        self.tracked.apply_proposal(staged.pending);
        Ok(reference)
    }

    /// Validates a commit with its GroupInfo and Welcome, and changes nothing.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn stage(&self, bundle: &CommitBundle, at: Timestamp) -> Result<StagedCommit, GroupError> {
        self.tracked.stage_commit(self.context(), bundle, at).map(StagedCommit).map_err(refused_commit)
    }

    /// Moves the group into the epoch of a commit that was staged in the present one.
    ///
    /// # Errors
    /// [`StagedElsewhere`]; nothing has changed then.
    pub fn apply(&mut self, staged: StagedCommit) -> Result<(), StagedElsewhere> {
        if self.tracked.is_followed_by(&staged.0) {
            self.tracked.apply_epoch(staged.0);
            Ok(())
        } else {
            Err(StagedElsewhere)
        }
    }

    /// Applies a commit that was applied before, from its record. Validates nothing.
    ///
    /// # Errors
    /// The record is damaged, or is not of this commit; the observer is of no use any more.
    pub fn replay(&mut self, commit: &[u8], record: &[u8]) -> Result<(), StoredFormError> {
        Ok(self.tracked.replay_epoch(commit, decode::<EpochRecord>(record)?)?)
    }

    /// The group's id.
    pub fn group_id(&self) -> &GroupId {
        self.tracked.id()
    }

    /// The present epoch.
    pub fn epoch(&self) -> Epoch {
        self.tracked.epoch()
    }

    /// The members' leaf indices, handles and domains, by ascending leaf index.
    pub fn members(&self) -> impl Iterator<Item = (u32, &ClientHandle, Option<&DomainName>)> {
        self.tracked
            .tree()
            .leaves()
            .map(|(index, leaf)| (index, &leaf.member.handle, leaf.member.domain.as_ref()))
    }

    /// The serialised GroupContext (RFC 9420 §8.1).
    pub fn context_bytes(&self) -> Vec<u8> {
        self.tracked.context_bytes()
    }

    /// The serialised ratchet tree (RFC 9420 §12.4.3.3).
    pub fn tree_bytes(&self) -> Vec<u8> {
        self.tracked.tree().to_bytes()
    }

    /// The group with its proposals, as MessagePack.
    ///
    /// # Errors
    /// None is known.
    pub fn snapshot(&self) -> Result<Vec<u8>, StoredFormError> {
        Ok(encode(&self.tracked.snapshot())?)
    }

    /// Restores a group from its snapshot. Validates nothing again; the default limits hold from now on, which
    /// [`Self::restore_within`] replaces.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn restore(application: Application, snapshot: &[u8]) -> Result<Self, StoredFormError> {
        Self::restore_within(Limits::default(), application, snapshot)
    }

    /// As [`Self::restore`], with limits of the caller's choice; see [`Self::open_within`].
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn restore_within(
        limits: Limits,
        application: Application,
        snapshot: &[u8],
    ) -> Result<Self, StoredFormError> {
        let tracked = TrackedGroup::restore(decode::<GroupSnapshot>(snapshot)?)?;
        Ok(Self { tracked, application, limits })
    }
}

#[cfg(test)]
mod tests {
    use mls_forge::{Forged, Group, SharedTree, Suite};

    use super::*;
    use crate::{AppId, Clock};

    #[test]
    fn the_limits_are_those_that_the_caller_gives() {
        let now = Clock::system().now();
        let application = || Application::basic(AppId::random());
        let mut group = Group::of_members(Suite::Ed25519, 3, SharedTree::Populated);
        let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
        let open = |group_members_max| {
            let limits = Limits { group_members_max, ..Limits::default() };
            Observer::open_within(limits, application(), &info, Some(&tree), now)
        };
        assert!(matches!(open(2), Err(GroupError::InvalidGroupInfo(_))));
        let observer = open(3).unwrap();
        let add = group.add(&mls_forge::Client::new(Suite::Ed25519, "a fourth"));
        let forged = group.commit(0).with(add).sign();
        let commit = CommitBundle {
            commit: forged.commit_bytes(),
            group_info: Some(forged.group_info_bytes()),
            welcome: forged.welcome_bytes(),
        };
        let is_staged = |observer: &Observer| observer.stage(&commit, now).is_ok();
        assert!(!is_staged(&observer));
        let snapshot = observer.snapshot().unwrap();
        let restore = |group_members_max| {
            let limits = Limits { group_members_max, ..Limits::default() };
            Observer::restore_within(limits, application(), &snapshot).unwrap()
        };
        assert!(!is_staged(&restore(3)));
        assert!(is_staged(&restore(4)));
    }

    #[test]
    fn a_commit_that_was_staged_after_another_history_is_not_applied() {
        let now = Clock::system().now();
        let group = Group::of_members(Suite::Ed25519, 3, SharedTree::Populated);
        let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
        let stage = |observer: &Observer, forged: &Forged| {
            let commit = CommitBundle {
                commit: forged.commit_bytes(),
                group_info: Some(forged.group_info_bytes()),
                welcome: forged.welcome_bytes(),
            };
            observer.stage(&commit, now).unwrap()
        };
        // Two histories of the same group, by who made its last commit.
        let [mut one, mut other] = [0, 1].map(|committer| {
            let mut observer =
                Observer::open(Application::basic(AppId::random()), &info, Some(&tree), now).unwrap();
            let mut group = group.clone();
            let forged = group.commit(committer).sign();
            observer.apply(stage(&observer, &forged)).unwrap();
            group.apply(&forged);
            (group, observer)
        });
        let forged = one.0.commit(2).sign();
        let before = other.1.context_bytes();
        assert_eq!(other.1.apply(stage(&one.1, &forged)), Err(StagedElsewhere));
        assert_eq!(other.1.context_bytes(), before);
        let staged = stage(&one.1, &forged);
        assert_eq!(one.1.apply(staged), Ok(()));
    }
}
