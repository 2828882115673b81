//! Assignment, resets, final keys, and the stored forms of a key queue.

use proptest::prelude::*;
use snapshots::DomainName;

use super::{
    super::package::{Receiver, Requester},
    *,
};

const NOW: Timestamp = Timestamp(50);

fn package(name: u8, not_after: u64) -> NewPackage {
    NewPackage {
        reference: KeyPackageRef::new(vec![name; 32]).unwrap(),
        not_before: Timestamp(0),
        not_after: Timestamp(not_after),
        message: vec![name],
        signer: Some([name; 32]),
        receiver: None,
    }
}

fn receiver(id: &str) -> Receiver {
    Receiver { caller: Requester::Application, id: id.into() }
}

fn uploaded(packages: Vec<NewPackage>) -> QueueRecord {
    QueueRecord::Uploaded { is_reset: false, packages, final_key: None, generation: 0, at: NOW }
}

/// Chooses for a receiver and records what was chosen; answers the package's name.
fn assign(state: &mut KeyQueueState, id: &str) -> Option<u8> {
    match state.choose(&receiver(id), NOW, 3, |_| true) {
        Choice::Assigned(package) | Choice::Final(package) => package.message.first().copied(),
        Choice::Assignable(package) => {
            let reference = package.reference.clone();
            state.apply(QueueRecord::Assigned { reference, receiver: receiver(id), is_low: false });
            package.message.first().copied()
        }
        Choice::Nothing => None,
    }
}

#[test]
fn what_expires_first_is_assigned_first_and_again_to_the_same_receiver() {
    let mut state = KeyQueueState::default();
    state.apply(uploaded(vec![package(1, 300), package(2, 100), package(3, 200)]));
    for (id, expected) in [("a", Some(2)), ("b", Some(3)), ("a", Some(2)), ("c", Some(1)), ("d", None)] {
        assert_eq!(assign(&mut state, id), expected, "{id}");
    }
    assert_eq!(state.counts(Timestamp(0)), PoolCounts { in_pool: 3, available: 0, has_final_key: false });
    let other = Receiver { caller: Requester::Peer(DomainName::new("b.example").unwrap()), id: "a".into() };
    assert_eq!(state.choose(&other, NOW, 3, |_| true), Choice::Nothing, "a receiver id is the caller's own");
    state.advance(&package(2, 100).reference);
    assert_eq!(assign(&mut state, "a"), None, "advanced");
}

#[test]
fn no_peer_takes_more_than_its_share() {
    let mut state = KeyQueueState::default();
    state.apply(uploaded((1..=4).map(|name| package(name, u64::from(name) * 100)).collect()));
    let of = |peer: &str, id: &str| Receiver {
        caller: Requester::Peer(DomainName::new(peer).unwrap()),
        id: id.into(),
    };
    let take = |state: &mut KeyQueueState, receiver: Receiver| match state.choose(&receiver, NOW, 2, |_| true)
    {
        Choice::Assigned(package) | Choice::Final(package) => package.message.first().copied(),
        Choice::Assignable(package) => {
            let reference = package.reference.clone();
            state.apply(QueueRecord::Assigned { reference, receiver, is_low: false });
            package.message.first().copied()
        }
        Choice::Nothing => None,
    };
    assert_eq!(take(&mut state, of("b.example", "1")), Some(1));
    assert_eq!(take(&mut state, of("b.example", "2")), Some(2));
    assert_eq!(take(&mut state, of("b.example", "3")), None);
    assert_eq!(take(&mut state, of("b.example", "1")), Some(1), "what it has it keeps");
    assert_eq!(take(&mut state, of("c.example", "3")), Some(3), "another peer has its own share");
    state.advance(&package(1, 100).reference);
    assert_eq!(take(&mut state, of("b.example", "3")), Some(4), "what was used counts no more");
}

#[test]
fn what_cannot_be_handed_out_now_is_passed_over_and_stays() {
    let mut state = KeyQueueState::default();
    state.apply(QueueRecord::Uploaded {
        is_reset: false,
        packages: vec![package(1, 100), package(2, 200)],
        final_key: Some(package(9, 500)),
        generation: 0,
        at: NOW,
    });
    assert_eq!(assign(&mut state, "a"), Some(1));
    let before = state.clone();
    let choose = |id, unusable: &[u8]| {
        let usable = |candidate: &Candidate<'_>| !unusable.contains(&candidate.package.message[0]);
        match state.choose(&receiver(id), NOW, 3, usable) {
            Choice::Assigned(package) | Choice::Assignable(package) | Choice::Final(package) => {
                Some(package.message[0])
            }
            Choice::Nothing => None,
        }
    };
    assert_eq!((choose("a", &[1]), choose("b", &[2])), (Some(2), Some(9)));
    assert_eq!((choose("a", &[1, 2, 9]), choose("b", &[2, 9])), (None, None));
    assert_eq!((choose("a", &[]), choose("b", &[])), (Some(1), Some(2)), "they are good again");
    assert_eq!(state, before);
}

#[test]
fn expired_packages_and_those_of_an_older_handle_are_gone() {
    let mut state = KeyQueueState::default();
    state.apply(uploaded(vec![package(1, 100), package(2, 200)]));
    assert_eq!(assign(&mut state, "a"), Some(1));
    state.retire(Timestamp(100), 0);
    assert_eq!(assign(&mut state, "a"), Some(2), "an assigned package that expired is replaced");
    state.retire(Timestamp(100), 1);
    assert_eq!(state.counts(Timestamp(0)).in_pool, 0);
}

#[test]
fn replay_without_retirement_comes_to_the_same() {
    let assigned = |name, id: &str| QueueRecord::Assigned {
        reference: package(name, 0).reference,
        receiver: receiver(id),
        is_low: false,
    };
    let of_generation = |is_reset, generation, packages| QueueRecord::Uploaded {
        is_reset,
        packages,
        final_key: None,
        generation,
        at: NOW,
    };
    // R's first package was used and R has a second: finding the first one used again takes nothing from R.
    let mut state = KeyQueueState::default();
    state.apply(uploaded(vec![package(1, 100), package(2, 200), package(3, 300)]));
    state.apply(assigned(1, "r"));
    state.apply(assigned(2, "r"));
    state.advance(&package(1, 100).reference);
    assert_eq!(assign(&mut state, "r"), Some(2));
    assert_eq!(state.counts(Timestamp(0)), PoolCounts { in_pool: 2, available: 1, has_final_key: false });
    // A package that comes back after a rename belongs to the present handle, and to no receiver.
    for is_reset in [false, true] {
        let mut state = KeyQueueState::default();
        state.apply(of_generation(false, 0, vec![package(1, 100)]));
        state.apply(assigned(1, "r"));
        state.apply(of_generation(is_reset, 2, vec![package(1, 100)]));
        state.apply(assigned(1, "s"));
        state.retire(Timestamp(0), 2);
        assert_eq!(state.counts(Timestamp(0)), PoolCounts { in_pool: 1, available: 0, has_final_key: false });
        assert_eq!((assign(&mut state, "s"), assign(&mut state, "r")), (Some(1), None));
    }
}

#[test]
fn the_final_key_comes_last_and_survives_a_reset() {
    let mut state = KeyQueueState::default();
    state.apply(QueueRecord::Uploaded {
        is_reset: false,
        packages: vec![package(1, 100)],
        final_key: Some(package(9, 500)),
        generation: 0,
        at: NOW,
    });
    assert_eq!(assign(&mut state, "a"), Some(1));
    assert_eq!(assign(&mut state, "b"), Some(9));
    state.apply(QueueRecord::Uploaded {
        is_reset: true,
        packages: vec![package(1, 100), package(2, 50)],
        final_key: None,
        generation: 0,
        at: NOW,
    });
    assert_eq!(
        assign(&mut state, "b"),
        Some(2),
        "what was assigned before the reset is not given to another"
    );
    assert_eq!(assign(&mut state, "a"), Some(1));
    assert_eq!(assign(&mut state, "c"), Some(9));
}

#[test]
fn a_final_key_that_is_not_valid_yet_leaves_the_one_before_in_use_until_it_is() {
    let starting = |name, not_before| NewPackage {
        not_before: Timestamp(not_before),
        ..package(name, u64::from(name) * 1000)
    };
    let upload = |state: &mut KeyQueueState, package: NewPackage, at| {
        let record = QueueRecord::Uploaded {
            is_reset: false,
            packages: vec![],
            final_key: Some(package),
            generation: 0,
            at: Timestamp(at),
        };
        state.apply(QueueRecord::from_bytes(&record.to_bytes().unwrap()).unwrap());
    };
    let in_use = |state: &KeyQueueState, now| match state.choose(&receiver("a"), Timestamp(now), 3, |_| true)
    {
        Choice::Final(package) => package.message.first().copied(),
        Choice::Assigned(_) | Choice::Assignable(_) | Choice::Nothing => None,
    };
    let replaced = |state: &KeyQueueState, new: &NewPackage, at| -> Vec<u8> {
        state.replaced_by(new, 0, Timestamp(at)).map(|key| key.message[0]).collect()
    };
    let mut state = KeyQueueState::default();
    upload(&mut state, starting(1, 0), 0);
    assert!(replaced(&state, &starting(2, 100), 10).is_empty());
    upload(&mut state, starting(2, 100), 10);
    for (now, expected) in [(10, 1), (99, 1), (100, 2), (500, 2)] {
        assert_eq!(in_use(&state, now), Some(expected), "at {now}");
    }
    let reloaded = KeyQueueState::restore(Some(&state.to_snapshot().unwrap()), []).unwrap();
    assert_eq!(reloaded, state);
    // A retry changes nothing, and a third one replaces the second, which was never in use.
    upload(&mut state, starting(2, 100), 20);
    assert_eq!(state, reloaded);
    assert_eq!(replaced(&state, &starting(3, 200), 30), [2]);
    upload(&mut state, starting(3, 200), 30);
    assert_eq!((in_use(&state, 150), in_use(&state, 200)), (Some(1), Some(3)));
    // Once the third is in use, the first does not come back; one that is valid at once replaces all.
    upload(&mut state, starting(4, 300), 250);
    assert_eq!((in_use(&state, 299), in_use(&state, 300)), (Some(3), Some(4)));
    assert_eq!(replaced(&state, &starting(5, 0), 260), [4, 3]);
    upload(&mut state, starting(5, 0), 260);
    assert_eq!(in_use(&state, 260), Some(5));
    assert_eq!(state.bytes_after(false, &[], None), PACKAGE_OVERHEAD_BYTES + 1, "nothing else is kept");
    // What belongs to an older handle is not kept.
    let mut state = KeyQueueState::default();
    upload(&mut state, starting(1, 0), 0);
    let record = QueueRecord::Uploaded {
        is_reset: false,
        packages: vec![],
        final_key: Some(starting(2, 100)),
        generation: 1,
        at: Timestamp(10),
    };
    state.apply(record);
    assert_eq!(in_use(&state, 50), None);
}

#[test]
fn packages_that_are_not_fit_are_dropped_and_counted_once() {
    let mut state = KeyQueueState::default();
    state.apply(QueueRecord::Uploaded {
        is_reset: false,
        packages: vec![package(1, 100), package(2, 200), package(3, 300)],
        final_key: Some(package(9, 500)),
        generation: 0,
        at: NOW,
    });
    let check = |message: &[u8]| if message == [2] { Ok(()) } else { Err(format!("{message:?}")) };
    assert_eq!(state.retain_fit(check), Some(DroppedPackages { count: 3, reason: "[1]".into() }));
    assert_eq!(state.counts(NOW), PoolCounts { in_pool: 1, available: 1, has_final_key: false });
    assert_eq!(state.retain_fit(check), None);
}

#[test]
fn an_assigned_package_that_a_reset_removed_is_its_receivers_when_it_comes_back() {
    let reset = |packages| QueueRecord::Uploaded {
        is_reset: true,
        packages,
        final_key: None,
        generation: 0,
        at: NOW,
    };
    for is_reset in [false, true] {
        let mut state = KeyQueueState::default();
        state.apply(uploaded(vec![package(1, 100)]));
        assert_eq!(assign(&mut state, "a"), Some(1));
        state.apply(reset(vec![package(2, 200)]));
        assert_eq!(assign(&mut state, "a"), Some(2));
        let snapshot = state.to_snapshot().unwrap();
        let mut state = KeyQueueState::restore(Some(&snapshot), []).unwrap();
        let record = QueueRecord::Uploaded {
            is_reset,
            packages: vec![package(1, 100), package(3, 300)],
            final_key: None,
            generation: 0,
            at: NOW,
        };
        state.apply(record);
        assert_eq!(assign(&mut state, "b"), Some(3), "the first is not for another");
        assert_eq!(assign(&mut state, "b"), Some(3));
        assert_eq!(assign(&mut state, "c"), None);
        assert_eq!(assign(&mut state, "a"), Some(1));
        state.advance(&package(1, 100).reference);
        assert_eq!(assign(&mut state, "a"), if is_reset { None } else { Some(2) });
    }
    let mut state = KeyQueueState::default();
    state.apply(uploaded(vec![package(1, 100)]));
    assert_eq!(assign(&mut state, "a"), Some(1));
    state.apply(reset(vec![]));
    state.retire(Timestamp(100), 0);
    let mut forgotten = KeyQueueState::default();
    forgotten.packages.arrivals = 1;
    assert_eq!(state, forgotten, "forgotten when it expires");
}

#[test]
fn no_snapshot_is_larger_than_the_bytes_that_are_counted() {
    let mut state = KeyQueueState::default();
    let mut packages: Vec<NewPackage> = (1..=60).map(|name| package(name, 100)).collect();
    packages.iter_mut().for_each(|package| package.message = vec![7; 1000]);
    let last = packages.pop().unwrap();
    let counted = state.bytes_after(false, &packages, Some((&last, u64::MAX, NOW)));
    state.apply(QueueRecord::Uploaded {
        is_reset: false,
        packages,
        final_key: Some(last),
        generation: u64::MAX,
        at: NOW,
    });
    for name in 1..60_u8 {
        let id = format!("{name:0>256}");
        let caller = Requester::Peer(DomainName::new(format!("{}.example", "b".repeat(60))).unwrap());
        let (reference, receiver) = (package(name, 0).reference, Receiver { caller, id });
        state.apply(QueueRecord::Assigned { reference, receiver, is_low: false });
    }
    assert!(state.to_snapshot().unwrap().len() <= counted);
    assert_eq!(state.bytes_after(false, &[], None), counted);
    assert_eq!(
        state.free_after(false, &[package(1, 100), package(99, 100)], Timestamp(0)),
        1,
        "assigned ones are apart"
    );
    state.apply(uploaded(vec![package(98, 100)]));
    let free_at = |now| state.free_after(false, &[package(99, 200)], Timestamp(now));
    assert_eq!((free_at(99), free_at(100)), (2, 1), "expired ones take no place");
}

fn any_record() -> impl Strategy<Value = QueueRecord> {
    let packages = proptest::collection::vec((0_u8..12, 1_u64..20), 0..6);
    prop_oneof![
        (any::<bool>(), packages, any::<bool>()).prop_map(|(is_reset, packages, with_final)| {
            QueueRecord::Uploaded {
                is_reset,
                packages: packages.into_iter().map(|(name, _)| package(name, u64::from(name) * 7)).collect(),
                final_key: with_final.then(|| package(200, 1000)),
                generation: 0,
                at: NOW,
            }
        }),
        (0_u8..12, 0_u8..4).prop_map(|(name, id)| QueueRecord::Assigned {
            reference: package(name, 0).reference,
            receiver: receiver(&id.to_string()),
            is_low: false,
        }),
    ]
}

proptest! {
    /// A queue that was passivated at any point equals the queue that stayed active.
    #[test]
    fn rest_changes_nothing(records in proptest::collection::vec(any_record(), 0..20), cut in 0_usize..20) {
        let mut live = KeyQueueState::default();
        let cut = cut.min(records.len());
        let (before, after) = records.split_at(cut);
        for record in before {
            if let QueueRecord::Assigned { receiver, reference, .. } = record
                && (live.packages.of_receiver(receiver).is_some()
                    || !live.packages.free().any(|package| package.reference == *reference)) {
                continue;
            }
            live.apply(record.clone());
        }
        let snapshot = live.to_snapshot().unwrap();
        let tail: Vec<Vec<u8>> = after.iter().map(|record| record.to_bytes().unwrap()).collect();
        let activated = KeyQueueState::restore(Some(&snapshot), (1..).zip(tail.iter().map(Vec::as_slice))).unwrap();
        for record in after {
            live.apply(record.clone());
        }
        prop_assert_eq!(&activated, &live);
        let of_all = |state: &KeyQueueState| state.packages.held.values().map(|held| snapshot_bytes(&held.package)).sum::<usize>();
        prop_assert_eq!(live.packages.held_bytes, of_all(&live));
        live.retire(Timestamp(40), 0);
        live.advance(&package(7, 0).reference);
        prop_assert_eq!(live.packages.held_bytes, of_all(&live));
    }
}
