//! The steps of a history, and how they are drawn from its seed.

use crate::{
    dice::Dice,
    gateways::AppendPoint,
    messages::{CLIENTS_PER_NODE, ClientNumber, GROUPS, NODES, PACKAGES, guests},
};

/// What is done next. Numbers that name nothing at that moment are taken modulo what there is; a step that is impossible does
/// nothing. So any part of a history is a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Asks a gateway, mostly the hub, to create a group, and to add one member of each gateway.
    Create {
        group: usize,
    },
    Invite {
        group: usize,
    },
    /// A member commits, at its own gateway or another.
    Commit {
        group: usize,
        at: usize,
        by: usize,
        what: Committed,
        is_behind: bool,
    },
    Propose {
        group: usize,
        at: usize,
        by: usize,
        what: Proposed,
    },
    /// Sends a request of before again.
    Repeat {
        nth: usize,
        at: usize,
    },
    Register {
        client: ClientNumber,
    },
    MakeQueue {
        client: ClientNumber,
    },
    UploadPackages {
        client: ClientNumber,
        first: usize,
        count: usize,
    },
    Assign {
        client: ClientNumber,
        receiver: u8,
        at: usize,
    },
    /// A client fetches its welcomes, and acknowledges one.
    Acknowledge {
        client: ClientNumber,
        nth: usize,
    },
    Delete {
        group: usize,
    },
    Kill {
        node: usize,
        keeps: bool,
    },
    /// The gateway's process ends at a disk batch, once it runs again.
    Doom {
        node: usize,
        batches: u64,
        point: AppendPoint,
        keeps: bool,
    },
    Stop {
        node: usize,
    },
    Start {
        node: usize,
    },
    CutOff {
        node: usize,
    },
    Rejoin,
    /// Sets a wall clock.
    SetClock {
        node: usize,
        ahead_ms: i64,
    },
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    Path(u8),
    /// A client, by number among the guests, with a package that was assigned, if there is one.
    Add(usize, usize),
    Remove(usize),
    Pending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proposed {
    Update,
    Add(usize, usize),
    Remove(usize),
}

/// A step, and the time until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timed {
    pub(crate) step: Step,
    pub(crate) wait_ms: u64,
}

/// The steps of a history.
pub(crate) fn draw(dice: &mut Dice) -> Vec<Timed> {
    let groups = dice.pick(&[1, 1, 2, 2, GROUPS]);
    let first = dice.below(GROUPS);
    let group = |dice: &mut Dice| (first + dice.below(groups)) % GROUPS;
    let mut steps = Vec::new();
    for number in 0..groups {
        let group = (first + number) % GROUPS;
        steps.push(Timed { step: Step::Create { group }, wait_ms: dice.within(0, 60) });
        steps.push(Timed { step: Step::Invite { group }, wait_ms: dice.within(0, 60) });
    }
    let all: Vec<ClientNumber> = guests().collect();
    for _ in 0..dice.within(0, 2) {
        let client = dice.pick(&all);
        for step in [
            Step::Register { client },
            Step::MakeQueue { client },
            Step::UploadPackages { client, first: 0, count: 1 + dice.below(PACKAGES) },
        ] {
            steps.push(Timed { step, wait_ms: dice.within(20, 60) });
        }
    }
    let longest_ms = dice.pick(&[5, 30, 100, 400]);
    for _ in 0..dice.within(8, 40) {
        let node = dice.below(NODES);
        let client = dice.pick(&all);
        let (package, guest) = (dice.below(PACKAGES), dice.below(all.len()));
        let step = match dice.below(100) {
            0..=27 => Step::Commit {
                group: group(dice),
                at: node,
                by: dice.below(8),
                what: match dice.below(10) {
                    0..=3 => Committed::Path(dice.below(2) as u8),
                    4..=6 => Committed::Add(guest, package),
                    7 => Committed::Remove(dice.below(8)),
                    _ => Committed::Pending,
                },
                is_behind: dice.percent(15),
            },
            28..=36 => Step::Propose {
                group: group(dice),
                at: node,
                by: dice.below(8),
                what: match dice.below(4) {
                    0 | 1 => Proposed::Update,
                    2 => Proposed::Add(guest, package),
                    _ => Proposed::Remove(dice.below(8)),
                },
            },
            37..=44 => Step::Repeat { nth: dice.below(64), at: node },
            45..=46 => Step::Register { client },
            47..=48 => Step::MakeQueue { client },
            49..=51 => Step::UploadPackages { client, first: package, count: 1 + dice.below(PACKAGES) },
            52..=59 => Step::Assign { client, receiver: dice.below(3) as u8, at: node },
            60..=66 => Step::Acknowledge { client: dice.below(NODES * CLIENTS_PER_NODE), nth: dice.below(4) },
            67..=72 => Step::Kill { node, keeps: dice.percent(50) },
            73..=80 => Step::Doom {
                node,
                batches: dice.within(0, 6),
                point: dice.pick(&[AppendPoint::Begun, AppendPoint::Written, AppendPoint::Answered]),
                keeps: dice.percent(50),
            },
            81..=82 => Step::Stop { node },
            83..=89 => Step::Start { node },
            90..=91 => Step::CutOff { node },
            92..=93 => Step::Rejoin,
            94..=96 => Step::SetClock { node, ahead_ms: ahead(dice) },
            97 => Step::Delete { group: group(dice) },
            _ => Step::Nothing,
        };
        let wait_ms = if dice.percent(6) { dice.within(500, 3000) } else { dice.within(0, longest_ms) };
        steps.push(Timed { step, wait_ms });
    }
    steps
}

/// How far a clock is ahead: mostly within what gateways accept of each other, and sometimes by days.
fn ahead(dice: &mut Dice) -> i64 {
    match dice.below(8) {
        0 => 9 * 86_400_000,
        1 | 2 => 0,
        _ => dice.within(0, 240_000) as i64 - 120_000,
    }
}
