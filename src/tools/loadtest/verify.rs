//! The proof of a run: acknowledgements, compared with the gateway's history and the members' states.

use std::collections::{BTreeMap, BTreeSet};

use actors::{Epoch, Timestamp};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a commit packet, by which packets are compared.
pub(super) type PacketDigest = [u8; 32];

pub(super) fn digest(packet: &[u8]) -> PacketDigest {
    Sha256::digest(packet).into()
}

/// A commit that the gateway acknowledged: 201, or 200 to a repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) epoch: Epoch,
    pub(super) timestamp: Timestamp,
    pub(super) packet: PacketDigest,
}

/// An epoch in the gateway's control messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordedEpoch {
    pub(super) epoch: Epoch,
    pub(super) timestamp: Timestamp,
    pub(super) packet: PacketDigest,
}

/// The final state of a live member, after it applied every commit from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) name: String,
    /// The epoch and its authenticator, or the reason why the member could not follow.
    pub(super) epoch: Result<(Epoch, Vec<u8>), String>,
}

/// The observations of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Observations {
    pub(super) group: String,
    pub(super) acknowledged: Vec<Acknowledged>,
    /// Commits that were sent but never answered: they may have been accepted.
    pub(super) unanswered: BTreeSet<PacketDigest>,
    pub(super) kept: Vec<RecordedEpoch>,
    pub(super) current: Epoch,
    pub(super) standings: Vec<Standing>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two different commits were acknowledged as the one that created an epoch.
    #[error("group {group}: two commits were acknowledged for epoch {epoch}")]
    TwoWinners {
        /// The group.
        group: String,
        /// The epoch that both created.
        epoch: u64,
    },
    /// An acknowledged commit is not in the control messages.
    #[error("group {group}: the commit acknowledged for epoch {epoch} is not in the control messages")]
    Missing {
        /// The group.
        group: String,
        /// The epoch it created.
        epoch: u64,
    },
    /// The control messages have another commit, or another time, than the acknowledged one.
    #[error(
        "group {group}: the control messages have another {what} for epoch {epoch} than was acknowledged"
    )]
    Different {
        /// The group.
        group: String,
        /// The epoch.
        epoch: u64,
        /// `commit` or `timestamp`.
        what: &'static str,
    },
    /// The control messages contain a commit that was never acknowledged, although every upload was answered.
    #[error("group {group}: epoch {epoch} was created by a commit that was never acknowledged")]
    Unacknowledged {
        /// The group.
        group: String,
        /// The epoch.
        epoch: u64,
    },
    /// The epochs of the control messages are not 1, 2, 3 and so on up to the current one.
    #[error("group {group}: the control messages continue with epoch {found} instead of {expected}")]
    Gap {
        /// The group.
        group: String,
        /// The expected epoch.
        expected: u64,
        /// The epoch found.
        found: u64,
    },
    /// The control messages end before the current epoch, or after it.
    #[error("group {group}: the control messages end with epoch {last}, the current one is {current}")]
    End {
        /// The group.
        group: String,
        /// The last epoch of the control messages.
        last: u64,
        /// The current epoch that the gateway names.
        current: u64,
    },
    /// A member could not apply a commit from the gateway.
    #[error("group {group}: {member} could not follow: {reason}")]
    Lost {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// The error of its MLS library.
        reason: String,
    },
    /// A member is in another epoch than the gateway.
    #[error("group {group}: {member} is in epoch {epoch}, the gateway in {current}")]
    Behind {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// Its epoch.
        epoch: u64,
        /// The gateway's.
        current: u64,
    },
    /// Two members of one epoch hold different secrets.
    #[error("group {group}: {member} holds another epoch authenticator than {other}")]
    Disagree {
        /// The group.
        group: String,
        /// One.
        member: String,
        /// The other.
        other: String,
    },
}

/// The promises that the observations of one group break.
pub(super) fn violations(seen: &Observations) -> Vec<Violation> {
    let mut found = Vec::new();
    let group = || seen.group.clone();
    let mut winners: BTreeMap<Epoch, &Acknowledged> = BTreeMap::new();
    for commit in &seen.acknowledged {
        if let Some(other) = winners.insert(commit.epoch, commit)
            && other.packet != commit.packet
        {
            found.push(Violation::TwoWinners { group: group(), epoch: commit.epoch.0 });
        }
    }
    let mut expected = 1;
    for kept in &seen.kept {
        if kept.epoch.0 != expected {
            found.push(Violation::Gap { group: group(), expected, found: kept.epoch.0 });
        }
        expected = kept.epoch.0.saturating_add(1);
    }
    let last = seen.kept.last().map_or(0, |kept| kept.epoch.0);
    if seen.current.0 != last {
        found.push(Violation::End { group: group(), last, current: seen.current.0 });
    }
    let kept: BTreeMap<Epoch, &RecordedEpoch> = seen.kept.iter().map(|kept| (kept.epoch, kept)).collect();
    for (epoch, commit) in &winners {
        let different = |what| Violation::Different { group: seen.group.clone(), epoch: epoch.0, what };
        match kept.get(epoch) {
            None => found.push(Violation::Missing { group: group(), epoch: epoch.0 }),
            Some(kept) if kept.packet != commit.packet => found.push(different("commit")),
            Some(kept) if kept.timestamp != commit.timestamp => found.push(different("timestamp")),
            Some(_) => {}
        }
    }
    for (epoch, kept) in &kept {
        if !winners.contains_key(epoch) && !seen.unanswered.contains(&kept.packet) {
            found.push(Violation::Unacknowledged { group: group(), epoch: epoch.0 });
        }
    }
    found.extend(disagreements(seen));
    found
}

fn disagreements(seen: &Observations) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut first: Option<(&str, &[u8])> = None;
    for standing in &seen.standings {
        let (group, member) = (seen.group.clone(), standing.name.clone());
        match &standing.epoch {
            Err(reason) => found.push(Violation::Lost { group, member, reason: reason.clone() }),
            Ok((epoch, _)) if *epoch != seen.current => {
                let (epoch, current) = (epoch.0, seen.current.0);
                found.push(Violation::Behind { group, member, epoch, current });
            }
            Ok((_, authenticator)) => match first {
                Some((other, of_other)) if of_other != authenticator.as_slice() => {
                    found.push(Violation::Disagree { group, member, other: other.to_owned() });
                }
                Some(_) => {}
                None => first = Some((&standing.name, authenticator)),
            },
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three epochs, two members.
    fn kept_promises() -> Observations {
        let commits: Vec<_> =
            (1..=3_u8).map(|epoch| (Epoch(epoch.into()), Timestamp(9), [epoch; 32])).collect();
        let standing = |name: &str| Standing { name: name.into(), epoch: Ok((Epoch(3), vec![7; 32])) };
        Observations {
            group: "g".into(),
            acknowledged: commits
                .iter()
                .map(|(epoch, timestamp, packet)| Acknowledged {
                    epoch: *epoch,
                    timestamp: *timestamp,
                    packet: *packet,
                })
                .collect(),
            unanswered: BTreeSet::new(),
            kept: commits
                .iter()
                .map(|(epoch, timestamp, packet)| RecordedEpoch {
                    epoch: *epoch,
                    timestamp: *timestamp,
                    packet: *packet,
                })
                .collect(),
            current: Epoch(3),
            standings: vec![standing("a"), standing("b")],
        }
    }

    /// The violations, by the start of their messages after the group.
    fn check(change: impl FnOnce(&mut Observations), expected: &[&str]) {
        let mut seen = kept_promises();
        change(&mut seen);
        let found: Vec<String> = violations(&seen).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}, expected {expected:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(&format!("group g: {expected}")), "{found}, expected {expected}");
        }
    }

    #[test]
    fn a_good_run_breaks_nothing() {
        check(|_| {}, &[]);
        // A repetition of the winner was acknowledged as well.
        check(|seen| seen.acknowledged.push(seen.acknowledged[1].clone()), &[]);
        // An answer was lost; the commit may be there, or not.
        check(|seen| seen.unanswered.extend([seen.acknowledged.remove(1).packet, [9; 32]]), &[]);
    }

    #[test]
    fn one_commit_wins_an_epoch() {
        let second = Acknowledged { epoch: Epoch(2), timestamp: Timestamp(9), packet: [8; 32] };
        check(|seen| seen.acknowledged.insert(0, second), &["two commits were acknowledged for epoch 2"]);
    }

    #[test]
    fn nothing_acknowledged_is_missing() {
        check(
            |seen| {
                seen.kept.pop();
                seen.current = Epoch(2);
                seen.standings.clear();
            },
            &["the commit acknowledged for epoch 3 is not in"],
        );
        check(
            |seen| seen.kept[0].packet = [8; 32],
            &["the control messages have another commit for epoch 1"],
        );
        check(
            |seen| seen.kept[0].timestamp = Timestamp(8),
            &["the control messages have another timestamp for epoch 1"],
        );
    }

    #[test]
    fn nothing_else_is_there() {
        check(
            |seen| {
                seen.acknowledged.pop();
            },
            &["epoch 3 was created by a commit that was never acknowledged"],
        );
        check(
            |seen| {
                seen.kept.remove(1);
            },
            &[
                "the control messages continue with epoch 3 instead of 2",
                "the commit acknowledged for epoch 2",
            ],
        );
        check(
            |seen| {
                seen.current = Epoch(4);
                seen.standings.clear();
            },
            &["the control messages end with epoch 3, the current one is 4"],
        );
    }

    #[test]
    fn all_members_agree() {
        let other = || Ok((Epoch(3), vec![6; 32]));
        check(|seen| seen.standings[1].epoch = other(), &["b holds another epoch authenticator than a"]);
        check(
            |seen| seen.standings[0].epoch = Ok((Epoch(2), vec![7; 32])),
            &["a is in epoch 2, the gateway in 3"],
        );
        check(|seen| seen.standings[0].epoch = Err("no".into()), &["a could not follow: no"]);
    }
}
