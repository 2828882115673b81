//! The seeds of the fuzz target: it gets nowhere from messages that are refused.

use actors::{AppId, Application, CommitBundle, Timestamp, bench::check_key_package, observer::Observer};

/// The time of the fuzz target.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn parts(mut seed: &[u8]) -> Vec<(u8, &[u8])> {
    let mut parts = Vec::new();
    while let Some(([kind, high, low], rest)) = seed.split_first_chunk() {
        let (part, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        parts.push((*kind, part));
        seed = rest;
    }
    assert!(seed.is_empty());
    parts
}

/// Plays a seed; answers how many messages were accepted.
fn play(seed: &[u8]) -> usize {
    let (mut group, mut info, mut welcome) = (None::<Observer>, None, None);
    let mut accepted = 0;
    for (kind, part) in parts(seed) {
        match kind {
            0 => info = Some(part.to_vec()),
            1 => {
                let (application, info) = (Application::basic(AppId::random()), info.take().unwrap());
                group = Some(Observer::open(application, &info, Some(part), NOW).unwrap());
            }
            2 => drop(group.as_mut().unwrap().propose(part, NOW).unwrap()),
            3 => {
                let (group_info, welcome) = (info.take(), welcome.take());
                let bundle = CommitBundle { commit: part.to_vec(), group_info, welcome };
                let group = group.as_mut().unwrap();
                let staged = group.stage(&bundle, NOW).unwrap();
                group.apply(staged).unwrap();
            }
            4 => welcome = Some(part.to_vec()),
            _ => check_key_package(u16::from(part[7]), part, NOW).unwrap(),
        }
        accepted += usize::from(!matches!(kind, 0 | 4));
    }
    accepted
}

#[test]
fn the_seeds_of_the_fuzz_target_are_accepted() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/observer");
    let mut seeds = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let is_key_package = path.to_str().unwrap().ends_with("key-package");
        // A group: opened, two proposals and six commits.
        assert_eq!(play(&std::fs::read(&path).unwrap()), if is_key_package { 1 } else { 9 }, "{path:?}");
        seeds += 1;
    }
    assert_eq!(seeds, 16);
}
