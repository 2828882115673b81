//! The time for deletions by age. A clock that is wrong for a moment must not delete anything, so it is compared with the
//! monotonic clock and with the newest time in the store.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use snapshots::Timestamp;

use crate::{clock::Clock, limits::Limits};

/// The conditions under which a clock is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrustRules {
    /// The largest accepted deviation of the clock.
    pub(crate) jump_max: Duration,
    /// The time for which a clock that deviates more must have run steadily to be trusted.
    pub(crate) settle: Duration,
}

impl TrustRules {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            jump_max: Duration::from_secs(limits.clock_jump_s_max),
            settle: Duration::from_secs(limits.clock_settle_s),
        }
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    wall: Timestamp,
    /// The monotonic clock: the time since some fixed moment.
    monotonic: Duration,
}

impl Look {
    fn at(clock: &Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// The expected wall clock at a time of the monotonic clock.
    fn wall_at(self, monotonic: Duration) -> i128 {
        i128::from(self.wall.0) + millis(monotonic) - millis(self.monotonic)
    }
}

fn millis(time: Duration) -> i128 {
    i128::try_from(time.as_millis()).unwrap_or(i128::MAX)
}

fn timestamp(millis: i128) -> Timestamp {
    Timestamp(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
}

/// The newest trusted time.
#[derive(Debug)]
pub(crate) struct TrustedTime {
    rules: TrustRules,
    state: Mutex<ClockState>,
}

#[derive(Clone, Copy, Debug)]
struct ClockState {
    /// A trusted reading; `None` if there is no earlier one.
    believed: Option<Look>,
    /// A clock that deviates too far.
    doubted: Option<Doubted>,
}

#[derive(Clone, Copy, Debug)]
struct Doubted {
    last: Look,
    /// The time for which it has run steadily, by the monotonic clock, including earlier runs of the gateway.
    ran: Duration,
}

/// The part of the state that is kept over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RememberedTime {
    /// The newest trusted time.
    pub(crate) newest: Option<Timestamp>,
    /// The last reading of a clock that is not trusted, and the time for which it has run steadily, so that even a gateway that
    /// restarts every day comes to trust it.
    pub(crate) doubted: Option<(Timestamp, Duration)>,
}

impl RememberedTime {
    /// Three numbers in milliseconds; no time is 0.
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let (wall, ran) = self.doubted.unwrap_or_default();
        let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        let numbers = [self.newest.unwrap_or_default().0, wall.0, ran_ms];
        let mut bytes = [0; 24];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let [newest, wall, ran_ms] = numbers else { return None };
        let number = |bytes: &[u8; 8]| Some(u64::from_be_bytes(*bytes)).filter(|number| *number > 0);
        rest.is_empty().then(|| Self {
            newest: number(newest).map(Timestamp),
            doubted: number(wall)
                .map(|wall| (Timestamp(wall), Duration::from_millis(number(ran_ms).unwrap_or(0)))),
        })
    }
}

/// The result of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownTime {
    /// The time by which ages are measured for deletion.
    pub(crate) delete_until: Timestamp,
    /// The state to keep over a restart.
    pub(crate) remembered: RememberedTime,
}

impl TrustedTime {
    /// Begins with the state of an earlier run. A new store has nothing to lose, so with `is_new` the clock is trusted.
    pub(crate) fn new(rules: TrustRules, clock: &Clock, before: RememberedTime, is_new: bool) -> Self {
        let look = Look::at(clock);
        let doubted = before
            .doubted
            .filter(|(wall, _)| is_near(rules, i128::from(wall.0), look.wall))
            .map(|(_, ran)| Doubted { last: look, ran });
        let believed = match before.newest {
            Some(wall) if is_near(rules, i128::from(wall.0), look.wall) => Some(look),
            // The time since the last run is unknown; the present is at least the last known time.
            Some(wall) => Some(Look { wall, ..look }),
            None => is_new.then_some(look),
        };
        Self { rules, state: Mutex::new(ClockState { believed, doubted }) }
    }

    /// Reads the clocks. It must be called regularly, so that a clock that jumps for a moment is noticed.
    pub(crate) fn look(&self, clock: &Clock) -> KnownTime {
        let look = Look::at(clock);
        let mut state = self.state();
        let expected = state.believed.map(|believed| believed.wall_at(look.monotonic));
        if let Some(expected) = expected
            && is_near(self.rules, expected, look.wall)
        {
            if state.doubted.take().is_some() {
                tracing::info!("the clock is again where it was expected; deletion by age continues");
            }
            let newest = Some(timestamp(expected).max(look.wall));
            let remembered = RememberedTime { newest, doubted: None };
            return KnownTime { delete_until: look.wall, remembered };
        }
        let rules = self.rules;
        // Compared with the reading before, not with the first: on a machine that sleeps every night, the clock steps by hours
        // again and again.
        let steady =
            state.doubted.filter(|doubted| is_near(rules, doubted.last.wall_at(look.monotonic), look.wall));
        let ran = match steady {
            Some(Doubted { last, ran }) => ran + look.monotonic.saturating_sub(last.monotonic),
            None => {
                self.say(expected, look);
                Duration::ZERO
            }
        };
        if ran >= rules.settle {
            tracing::warn!(now = %look.wall, "the clock has run steadily for long enough and is trusted");
            *state = ClockState { believed: Some(look), doubted: None };
            let remembered = RememberedTime { newest: Some(look.wall), doubted: None };
            return KnownTime { delete_until: look.wall, remembered };
        }
        state.doubted = Some(Doubted { last: look, ran });
        let newest = expected.map(timestamp);
        KnownTime {
            delete_until: newest.map_or(Timestamp(0), |newest| newest.min(look.wall)),
            remembered: RememberedTime { newest, doubted: Some((look.wall, ran)) },
        }
    }

    fn say(&self, expected: Option<i128>, look: Look) {
        let settle_s = self.rules.settle.as_secs();
        match expected {
            Some(expected) => tracing::warn!(
                now = %look.wall,
                expected = %timestamp(expected),
                settle_s,
                "the clock is far from where it was expected: until it has run steadily for settle_s, nothing is deleted \
                 by it (limits.clock_jump_s_max, limits.clock_settle_s)"
            ),
            None => tracing::info!(
                now = %look.wall,
                settle_s,
                "the store does not say when it was used last: nothing is deleted for its age until the clock has run \
                 steadily for settle_s"
            ),
        }
    }

    /// Nothing can panic under this lock.
    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_near(rules: TrustRules, expected: i128, wall: Timestamp) -> bool {
    (i128::from(wall.0) - expected).abs() <= millis(rules.jump_max)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const START: u64 = 20_000 * DAY;

    /// A machine whose clocks are set by hand, with the rules of a day each.
    struct Machine {
        wall: Arc<AtomicU64>,
        monotonic: Arc<AtomicU64>,
        clock: Clock,
        time: TrustedTime,
    }

    impl Machine {
        fn start(wall: u64, before: Option<u64>, is_new: bool) -> Self {
            let (wall, monotonic) = (Arc::new(AtomicU64::new(wall)), Arc::new(AtomicU64::new(77)));
            let (read_wall, read_monotonic) = (Arc::clone(&wall), Arc::clone(&monotonic));
            let clock = Clock::new(move || Timestamp(read_wall.load(Ordering::Relaxed)))
                .with_monotonic(move || Duration::from_millis(read_monotonic.load(Ordering::Relaxed)));
            let rules =
                TrustRules { jump_max: Duration::from_millis(DAY), settle: Duration::from_millis(DAY) };
            let before = RememberedTime { newest: before.map(Timestamp), doubted: None };
            let time = TrustedTime::new(rules, &clock, before, is_new);
            Self { wall, monotonic, clock, time }
        }

        /// Starts the gateway again after some time.
        fn restart(&mut self, after: u64) {
            let kept = self.time.look(&self.clock).remembered;
            self.wall.fetch_add(after, Ordering::Relaxed);
            // A monotonic clock begins anywhere.
            self.monotonic.store(5, Ordering::Relaxed);
            let kept = RememberedTime::from_bytes(&kept.to_bytes()).unwrap();
            self.time = TrustedTime::new(self.time.rules, &self.clock, kept, false);
        }

        /// Lets time pass by both clocks, with a look every ten minutes as the supervisor has it.
        fn pass(&self, time: u64) {
            for _ in 0..time / (HOUR / 6) {
                self.wall.fetch_add(HOUR / 6, Ordering::Relaxed);
                self.monotonic.fetch_add(HOUR / 6, Ordering::Relaxed);
                self.time.look(&self.clock);
            }
        }

        fn jump(&self, by: i64) {
            self.wall.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
        }

        #[track_caller]
        fn check(&self, delete_until: u64) {
            assert_eq!(self.time.look(&self.clock).delete_until, Timestamp(delete_until));
        }
    }

    #[test]
    fn a_jump_deletes_nothing_and_is_forgotten_when_it_is_over() {
        let machine = Machine::start(START, None, true);
        machine.pass(3 * DAY);
        machine.check(START + 3 * DAY);
        machine.jump(400 * DAY.cast_signed());
        machine.check(START + 3 * DAY);
        machine.pass(23 * HOUR);
        machine.check(START + 3 * DAY + 23 * HOUR);
        machine.jump(-400 * DAY.cast_signed());
        machine.check(START + 3 * DAY + 23 * HOUR);
        // The next jump has to settle anew.
        machine.jump(400 * DAY.cast_signed());
        machine.pass(23 * HOUR);
        machine.check(START + 4 * DAY + 22 * HOUR);
    }

    #[test]
    fn a_clock_that_has_settled_is_believed() {
        let machine = Machine::start(START, Some(START), false);
        machine.jump(400 * DAY.cast_signed());
        machine.pass(DAY);
        machine.check(START + DAY);
        machine.pass(HOUR / 6);
        machine.check(START + 401 * DAY + HOUR / 6);
        // A clock that jumps again and again never settles.
        for _ in 0..10 {
            machine.jump(400 * DAY.cast_signed());
            machine.pass(20 * HOUR);
        }
        machine.check(START + 401 * DAY + HOUR / 6 + 200 * HOUR);
    }

    #[test]
    fn a_machine_that_sleeps_every_night_comes_to_be_believed() {
        // Its monotonic clock stands still while it sleeps.
        let machine = Machine::start(START, None, true);
        let mut now = START;
        let mut deleted_until = Vec::new();
        for _ in 0..10 {
            machine.pass(8 * HOUR);
            machine.jump(16 * HOUR.cast_signed());
            now += DAY;
            deleted_until.push(machine.time.look(&machine.clock).delete_until);
        }
        assert!(
            deleted_until.last().is_some_and(|until| *until >= Timestamp(now - 4 * DAY)),
            "{deleted_until:?}"
        );
    }

    #[test]
    fn small_steps_are_believed_at_once_and_do_not_add_up() {
        let machine = Machine::start(START, None, true);
        machine.jump(DAY.cast_signed());
        machine.check(START + DAY);
        machine.jump(1);
        machine.check(START);
        machine.jump(-2 * DAY.cast_signed());
        machine.check(START - DAY + 1);
    }

    #[test]
    fn a_restart_goes_on_from_what_was_known() {
        // It was away for an hour; for a year; or it was never asked before.
        Machine::start(START + HOUR, Some(START), false).check(START + HOUR);
        Machine::start(START + 365 * DAY, Some(START), false).check(START);
        Machine::start(START, None, false).check(0);
        Machine::start(START, None, true).check(START);
        // The clock was ahead when it was used last.
        Machine::start(START, Some(START + 400 * DAY), false).check(START);
        let slept = Machine::start(START + 365 * DAY, Some(START), false);
        slept.pass(DAY + HOUR / 6);
        slept.check(START + 366 * DAY + HOUR / 6);
        let unknown = Machine::start(START, None, false);
        unknown.pass(DAY + HOUR);
        unknown.check(START + DAY + HOUR);
    }

    #[test]
    fn a_gateway_that_is_started_anew_all_the_time_believes_its_clock_in_the_end() {
        for (before, known) in [(None, 0), (Some(START - 300 * DAY), START - 300 * DAY)] {
            let mut machine = Machine::start(START, before, false);
            for ran in [0, 7 * HOUR, 14 * HOUR] {
                // How long it was away does not count.
                machine.check(if before.is_some() { known + ran } else { 0 });
                machine.pass(7 * HOUR);
                machine.restart(HOUR);
            }
            machine.pass(4 * HOUR);
            machine.check(START + 28 * HOUR);
            machine.restart(HOUR);
            machine.check(START + 29 * HOUR);
            // A clock that was another one meanwhile begins anew.
            let mut machine = Machine::start(START, before, false);
            machine.pass(20 * HOUR);
            machine.restart(30 * DAY);
            machine.pass(23 * HOUR);
            assert!(machine.time.look(&machine.clock).delete_until < Timestamp(START));
        }
    }

    #[test]
    fn what_is_remembered_is_read_again() {
        let (seven, nine) = (Some(Timestamp(7)), Timestamp(9));
        for remembered in [
            RememberedTime::default(),
            RememberedTime { newest: seven, doubted: None },
            RememberedTime { newest: None, doubted: Some((nine, Duration::ZERO)) },
            RememberedTime { newest: seven, doubted: Some((nine, Duration::from_millis(3))) },
        ] {
            assert_eq!(RememberedTime::from_bytes(&remembered.to_bytes()), Some(remembered));
        }
        assert_eq!(RememberedTime::from_bytes(&[0; 23]), None);
        assert_eq!(RememberedTime::from_bytes(&[0; 32]), None);
    }
}
