//! Commits of epochs that this gateway never tracked.

use mls_forge::{Group, Proposal, SharedTree, Suite};
use snapshots::GroupId;

use crate::{
    limits::Limits,
    mls::UnseenCommit,
    settings::{Accepts, Bound},
};

/// The largest number of proposals that a gateway can be told to accept in one commit.
fn proposals_max() -> u64 {
    let row = Limits::ROWS.iter().find(|row| row.name == "proposals_per_commit_max").unwrap();
    let Accepts::Number(_, Bound::Is(max)) = row.accepts else { panic!("{:?}", row.accepts) };
    max
}

/// Whether a commit of this many proposals is read.
fn is_read(group: &Group, proposals: u64) -> bool {
    let list = (0..proposals).map(|at| Proposal::external_psk(group.suite, &at.to_be_bytes()));
    let commit = group.commit(0).with_all(list).sign().commit_bytes();
    UnseenCommit::read(&GroupId::new(&*group.context.group_id).unwrap(), &commit).is_ok()
}

#[test]
fn every_commit_that_a_gateway_can_accept_is_read_later() {
    let max = proposals_max();
    // A list of the largest number that a count may be would not fit into memory.
    assert!(max <= Limits::LIST_MAX as u64, "{max}");
    let group = Group::of_members(Suite::Ed25519, 2, SharedTree::Populated);
    assert!(is_read(&group, max));
    assert!(!is_read(&group, max + 1));
}
