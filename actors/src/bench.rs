//! Entry points for benchmarks, fuzzing and tests against other libraries: the tracking of a group, the check of a key package
//! and a key queue, without actors and disk.
//!
//! It exists only with the feature `bench` and is not a stable interface.

use snapshots::{AppId, KeyPackageRef, Timestamp};

use crate::{
    application::{Application, Source},
    codec::{decode, encode},
    key_queue::{Choice, KeyQueueState, NewPackage, QueueRecord, Receiver, Requester},
    limits::Limits,
    mls::{
        CipherSuite, CommitBundle, EpochRecord, GroupSnapshot, KeyPackageChecks, KeyPackageValidator,
        LeafChecks, StagedEpoch, TrackedGroup, ValidationContext,
    },
};

/// The public state of a group.
#[derive(Debug)]
pub struct BenchGroup {
    tracked: TrackedGroup,
    validator: Validator,
}

/// The validation context of packets: an application of the Basic identity provider.
#[derive(Debug)]
struct Validator {
    limits: Limits,
    application: Application,
}

impl Validator {
    fn new() -> Self {
        Self { limits: Limits::default(), application: Application::basic(AppId::random()) }
    }

    fn context(&self) -> ValidationContext<'_> {
        ValidationContext {
            limits: &self.limits,
            application: &self.application,
            source: &Source::Application,
        }
    }
}

/// A commit that passed every check.
#[derive(Debug)]
pub struct BenchEpoch(StagedEpoch);

impl BenchEpoch {
    /// The serialised GroupContext of the epoch.
    pub fn context_bytes(&self) -> Vec<u8> {
        self.0.context_bytes()
    }

    /// The record from which the epoch is applied again, as it is stored on disk.
    ///
    /// # Errors
    /// None is known.
    pub fn record(&self) -> Result<Vec<u8>, String> {
        encode(&EpochRecord::of(&self.0)).map_err(|error| error.to_string())
    }
}

impl BenchGroup {
    /// Opens a group of any epoch.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn open(group_info: &[u8], tree: &[u8], now: Timestamp) -> Result<Self, String> {
        let validator = Validator::new();
        let tracked = TrackedGroup::open(validator.context(), group_info, Some(tree), now)
            .map_err(|refusal| format!("{refusal:?}"))?;
        Ok(Self { tracked, validator })
    }

    /// Validates a commit with its group info and welcome, as its group's actor does.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn stage(&self, bundle: &CommitBundle, now: Timestamp) -> Result<BenchEpoch, String> {
        self.tracked
            .stage_commit(self.validator.context(), bundle, now)
            .map(BenchEpoch)
            .map_err(|refusal| format!("{refusal:?}"))
    }

    /// Applies a staged epoch.
    ///
    /// # Errors
    /// None for an epoch of this group.
    pub fn apply(&mut self, epoch: BenchEpoch) -> Result<(), String> {
        self.tracked.apply_epoch(epoch.0);
        Ok(())
    }

    /// Validates a proposal.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn check_proposal(&self, packet: &[u8], now: Timestamp) -> Result<(), String> {
        let staged = self.tracked.stage_proposal(self.validator.context(), packet, now);
        staged.map(drop).map_err(|refusal| format!("{refusal:?}"))
    }

    /// Validates a proposal and applies it.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn propose(&mut self, packet: &[u8], now: Timestamp) -> Result<(), String> {
        let staged = self
            .tracked
            .stage_proposal(self.validator.context(), packet, now)
            .map_err(|refusal| format!("{refusal:?}"))?;
        self.tracked.apply_proposal(staged.pending);
        Ok(())
    }

    /// Applies a commit that was validated before, from its record.
    ///
    /// # Errors
    /// The record is damaged, or not of this commit.
    pub fn replay(&mut self, commit: &[u8], record: &[u8]) -> Result<(), String> {
        let record = decode::<EpochRecord>(record).map_err(|error| error.to_string())?;
        self.tracked.replay_epoch(commit, record).map_err(|error| error.to_string())
    }

    /// The serialised GroupContext.
    pub fn context_bytes(&self) -> Vec<u8> {
        self.tracked.context_bytes()
    }

    /// The serialised ratchet tree.
    pub fn tree_bytes(&self) -> Vec<u8> {
        self.tracked.tree().to_bytes()
    }

    /// The group's snapshot, as it is stored on disk.
    ///
    /// # Errors
    /// None is known.
    pub fn snapshot(&self) -> Result<Vec<u8>, String> {
        encode(&self.tracked.snapshot()).map_err(|error| error.to_string())
    }

    /// Restores a group from its snapshot.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn restore(snapshot: &[u8]) -> Result<Self, String> {
        let tracked = decode::<GroupSnapshot>(snapshot).and_then(TrackedGroup::restore);
        let tracked = tracked.map_err(|error| error.to_string())?;
        Ok(Self { tracked, validator: Validator::new() })
    }
}

/// Checks a key package, an MLSMessage, as at an upload.
///
/// # Errors
/// The reason why it is refused.
pub fn check_key_package(cipher_suite: u16, message: &[u8], now: Timestamp) -> Result<(), String> {
    let validator = Validator::new();
    let cipher_suite = CipherSuite::from_number(cipher_suite).ok_or("an unknown cipher suite")?;
    let lifetime_s_max = validator.limits.lifetime_s_max();
    let checks = KeyPackageChecks {
        leaf: LeafChecks { cipher_suite, lifetime_s_max },
        handle: None,
        domain: None,
        now,
        clock_skew_s_max: validator.limits.clock_skew_s_max,
    };
    let mut packages = KeyPackageValidator::new(checks, validator.context().provider());
    packages.check(message).map(drop)
}

/// A key queue.
#[derive(Clone, Debug, Default)]
pub struct BenchQueue(KeyQueueState);

impl BenchQueue {
    /// A queue that holds this many packages.
    ///
    /// # Errors
    /// None for a number that fits into 32 bits.
    pub fn holding(packages: u32, message: &[u8]) -> Result<Self, String> {
        let package = |number: u32| {
            let reference = [number.to_be_bytes(); 8].concat();
            let reference = KeyPackageRef::new(reference).map_err(|error| error.to_string())?;
            Ok(NewPackage {
                reference,
                not_before: Timestamp(0),
                not_after: Timestamp(u64::MAX),
                message: message.to_vec(),
                signer: None,
                receiver: None,
            })
        };
        let packages = (0..packages).map(package).collect::<Result<_, String>>()?;
        let mut queue = Self::default();
        let at = Timestamp(0);
        queue.0.apply(QueueRecord::Uploaded {
            is_reset: false,
            packages,
            final_key: None,
            generation: 0,
            at,
        });
        Ok(queue)
    }

    /// Assigns the next package to a receiver; returns the length of its message.
    pub fn assign(&mut self, receiver: &str) -> usize {
        let receiver = Receiver { caller: Requester::Application, id: receiver.to_owned() };
        match self.0.choose(&receiver, Timestamp(0), usize::MAX, |_| true) {
            Choice::Assignable(package) => {
                let reference = package.reference.clone();
                self.0.apply(QueueRecord::Assigned { reference, receiver });
                package.message.len()
            }
            Choice::Assigned(package) | Choice::Final(package) => package.message.len(),
            Choice::Nothing => 0,
        }
    }
}
