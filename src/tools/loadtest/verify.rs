//! The proof of a run: acknowledgements, compared with the gateway's history and the members' states.

use std::collections::{BTreeMap, BTreeSet};

use actors::{Epoch, Timestamp};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a commit packet, by which packets are compared.
pub(super) type PacketDigest = [u8; 32];

pub(super) fn digest(packet: &[u8]) -> PacketDigest {
    Sha256::digest(packet).into()
}

/// A commit by the epoch that it created: acknowledged with 201, or 200 to a repetition, or kept in the control messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EpochCommit {
    pub(super) epoch: Epoch,
    pub(super) timestamp: Timestamp,
    pub(super) packet: PacketDigest,
}

impl EpochCommit {
    pub(super) fn new(epoch: Epoch, timestamp: Timestamp, packet: &[u8]) -> Self {
        Self { epoch, timestamp, packet: digest(packet) }
    }
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
    pub(super) acknowledged: Vec<EpochCommit>,
    /// Commits that were sent but never answered: they may have been accepted.
    pub(super) unanswered: BTreeSet<PacketDigest>,
    pub(super) kept: Vec<EpochCommit>,
    pub(super) current: Epoch,
    pub(super) standings: Vec<Standing>,
}

/// The promises that the observations of one group break, in words.
pub(super) fn violations(seen: &Observations) -> Vec<String> {
    let mut found = Vec::new();
    let mut winners: BTreeMap<Epoch, &EpochCommit> = BTreeMap::new();
    for commit in &seen.acknowledged {
        let epoch = commit.epoch;
        if winners.insert(epoch, commit).is_some_and(|other| other.packet != commit.packet) {
            found.push(format!("two commits were acknowledged for epoch {epoch}"));
        }
    }
    let mut expected = 1;
    for EpochCommit { epoch, .. } in &seen.kept {
        if epoch.0 != expected {
            found.push(format!("the control messages continue with epoch {epoch} instead of {expected}"));
        }
        expected = epoch.0.saturating_add(1);
    }
    let (last, current) = (seen.kept.last().map_or(Epoch(0), |kept| kept.epoch), seen.current);
    if current != last {
        found.push(format!("the control messages end with epoch {last}, the current one is {current}"));
    }
    let kept: BTreeMap<Epoch, &EpochCommit> = seen.kept.iter().map(|kept| (kept.epoch, kept)).collect();
    for (epoch, commit) in &winners {
        let different = |what: &str| {
            format!("the control messages have another {what} for epoch {epoch} than was acknowledged")
        };
        match kept.get(epoch) {
            None => found
                .push(format!("the commit acknowledged for epoch {epoch} is not in the control messages")),
            Some(kept) if kept.packet != commit.packet => found.push(different("commit")),
            Some(kept) if kept.timestamp != commit.timestamp => found.push(different("timestamp")),
            Some(_) => {}
        }
    }
    for (epoch, kept) in &kept {
        if !winners.contains_key(epoch) && !seen.unanswered.contains(&kept.packet) {
            found.push(format!("epoch {epoch} was created by a commit that was never acknowledged"));
        }
    }
    found.extend(disagreements(seen));
    found.iter().map(|broken| format!("group {}: {broken}", seen.group)).collect()
}

fn disagreements(seen: &Observations) -> Vec<String> {
    let mut found = Vec::new();
    let mut first: Option<(&str, &[u8])> = None;
    for Standing { name, epoch } in &seen.standings {
        match epoch {
            Err(reason) => found.push(format!("{name} could not follow: {reason}")),
            Ok((epoch, _)) if *epoch != seen.current => {
                found.push(format!("{name} is in epoch {epoch}, the gateway in {}", seen.current));
            }
            Ok((_, authenticator)) => match first {
                Some((other, of_other)) if of_other != authenticator.as_slice() => {
                    found.push(format!("{name} holds another epoch authenticator than {other}"));
                }
                Some(_) => {}
                None => first = Some((name, authenticator)),
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
        let commit = |epoch: u8| EpochCommit {
            epoch: Epoch(epoch.into()),
            timestamp: Timestamp(9),
            packet: [epoch; 32],
        };
        let commits: Vec<_> = (1..=3).map(commit).collect();
        let standing = |name: &str| Standing { name: name.into(), epoch: Ok((Epoch(3), vec![7; 32])) };
        Observations {
            group: "g".into(),
            acknowledged: commits.clone(),
            unanswered: BTreeSet::new(),
            kept: commits,
            current: Epoch(3),
            standings: vec![standing("a"), standing("b")],
        }
    }

    /// The violations, by the start of their messages after the group.
    fn check(change: impl FnOnce(&mut Observations), expected: &[&str]) {
        let mut seen = kept_promises();
        change(&mut seen);
        let found = violations(&seen);
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
        let second = EpochCommit { epoch: Epoch(2), timestamp: Timestamp(9), packet: [8; 32] };
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
