//! An observer is opened from some bytes and fed with others: proposals, commits and key packages. It may refuse whatever it likes, and
//! must neither panic nor be changed by what it refuses.
//!
//! An input is a list of parts, each with its kind in one byte and its length in two. The first part with a group info and the
//! first with a tree open the group. What can be read is signed again with the keys of the seeds' clients, so that a change reaches
//! the rules behind the signatures; parts whose kind has its highest bit set are left as they are.

#![no_main]

#[path = "../parts.rs"]
mod parts;
mod signing;

use actors::{AppId, Application, CommitBundle, Timestamp, bench::check_key_package, observer::Observer};
use libfuzzer_sys::fuzz_target;

/// A moment at which the seeds are valid.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

const GROUP_INFO: u8 = 0;
const TREE: u8 = 1;
const PROPOSAL: u8 = 2;
const COMMIT: u8 = 3;
const WELCOME: u8 = 4;
const KEY_PACKAGE: u8 = 5;

fn application() -> Application {
    Application::basic(AppId::random())
}

struct Fed {
    group: Option<Observer>,
    info: Option<Vec<u8>>,
    tree: Option<Vec<u8>>,
    welcome: Option<Vec<u8>>,
}

impl Fed {
    /// A part signed again, if it can be read.
    fn signed_again(&self, kind: u8, part: Vec<u8>) -> Vec<u8> {
        let signed = match (kind, &self.group) {
            (GROUP_INFO, _) => signing::group_info(&part, None),
            (TREE, None) => self.info.as_ref().and_then(|info| signing::tree(&part, info)),
            (PROPOSAL | COMMIT, Some(group)) => {
                signing::handshake(&part, &group.context_bytes(), &group.tree_bytes())
            }
            (KEY_PACKAGE, _) => signing::key_package(&part),
            _ => None,
        };
        signed.unwrap_or(part)
    }

    /// Opens the group when it can be opened.
    fn open(&mut self) {
        if self.group.is_some() || self.info.is_none() {
            return;
        }
        let (Some(info), Some(tree)) = (&self.info, self.tree.take()) else { return };
        let Ok(group) = Observer::open(application(), info, Some(&tree), NOW) else { return };
        assert_eq!(group.tree_bytes(), tree, "the tree that was read");
        let stored = group.snapshot().expect("a snapshot");
        let restored = Observer::restore(application(), &stored).expect("a group that can be restored");
        assert_eq!(restored.snapshot().expect("a snapshot"), stored, "the group that was restored");
        self.group = Some(group);
        self.info = None;
    }

    fn commit(&mut self, commit: Vec<u8>) {
        let Some(group) = &mut self.group else { return };
        let (group_info, welcome) = (self.info.take(), self.welcome.take());
        let bundle = CommitBundle { commit, group_info, welcome };
        let before = group.snapshot().expect("a snapshot");
        match group.stage(&bundle, NOW) {
            Err(_) => assert_eq!(group.snapshot().expect("a snapshot"), before, "after a refusal"),
            Ok(staged) => {
                let record = staged.record().expect("a record");
                group.apply(staged).expect("what was staged");
                let mut replayed =
                    Observer::restore(application(), &before).expect("a group that can be restored");
                replayed.replay(&bundle.commit, &record).expect("what was accepted");
                let after = group.snapshot().expect("a snapshot");
                assert_eq!(replayed.snapshot().expect("a snapshot"), after, "live and replayed");
            }
        }
    }

    fn take(&mut self, kind: u8, part: Vec<u8>) {
        let is_signed_again = kind < 0x80;
        let kind = kind % 0x80 % 6;
        let part = if is_signed_again { self.signed_again(kind, part) } else { part };
        match kind {
            GROUP_INFO => self.info = Some(part),
            TREE => {
                if let (true, Some(info)) = (is_signed_again, &self.info) {
                    self.info = signing::group_info(info, Some(&part)).or(self.info.take());
                }
                self.tree = Some(part);
            }
            PROPOSAL => {
                if let Some(group) = &mut self.group {
                    let _ = group.propose(&part, NOW);
                }
            }
            COMMIT => self.commit(part),
            WELCOME => self.welcome = Some(part),
            KEY_PACKAGE => {
                let suite = part.get(7).copied().unwrap_or_default();
                let _ = check_key_package(u16::from(suite), &part, NOW);
            }
            _ => {}
        }
        self.open();
    }
}

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let mut fed = Fed { group: None, info: None, tree: None, welcome: None };
    while let Some((kind, part)) = parts::next_part(&mut rest) {
        fed.take(kind, part);
    }
});
