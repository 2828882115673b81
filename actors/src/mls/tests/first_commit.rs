//! Keys of an earlier group, which belong to the first commit of the group that succeeds it (RFC 9420 §11.2, §11.3).

use mls_forge::{Client, Forged, Group, PathChoice, PreSharedKeyId, Proposal, Psk, Sender, Suite};

use super::{CommitInput, Observer, rule};
use crate::mls::Rule;

fn resumed(group: &Group, usage: u8) -> Proposal {
    let psk = Psk::Resumption { usage, psk_group_id: vec![9; 16], psk_epoch: 4 };
    Proposal::PreSharedKey(PreSharedKeyId { psk, psk_nonce: group.randomness.bytes(32) })
}

fn open(group: &Group) -> Observer {
    Observer::open(&group.group_info().to_message(), Some(&group.tree_bytes())).unwrap()
}

fn judge(observer: &mut Observer, forged: &Forged) -> Option<Rule> {
    let (commit, welcome) = (forged.commit_bytes(), forged.welcome_bytes());
    let input = CommitInput { commit: &commit, group_info: None, welcome: welcome.as_deref() };
    observer.commit(input).err().map(rule)
}

#[test]
fn the_creator_alone_may_resume_another_group() {
    for (usage, is_resumed) in [(2, true), (3, true), (1, false)] {
        let expected = is_resumed.then_some(Rule::Proposal);
        let mut group = Group::create(Client::new(Suite::Ed25519, "alice"));
        let bob = Client::new(Suite::Ed25519, "bob");
        let add = group.add(&bob);

        let proposed = group.proposal(Sender::Member(0), resumed(&group, usage)).to_message();
        assert_eq!(open(&group).proposal(&proposed).err().map(rule), expected, "by reference, {usage}");

        let joined = group.external_commit(&bob).with(resumed(&group, usage)).sign();
        assert_eq!(judge(&mut open(&group), &joined), expected, "an external commit, {usage}");

        let first = group.commit(0).with(add).with(resumed(&group, usage)).path(PathChoice::With).sign();
        let mut observer = open(&group);
        assert_eq!(judge(&mut observer, &first), None, "the first commit, {usage}");
        group.apply(&first);

        let second = group.commit(0).with(resumed(&group, usage)).sign();
        assert_eq!(judge(&mut observer, &second), expected, "the second commit, {usage}");
    }
}
