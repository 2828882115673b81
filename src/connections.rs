//! The open connections of a listener: their number, their activity, and the choice of one to close for a new one.
//!
//! A connection that waits for its client — for a request, for the rest of one, or to be read from — is closed when its time is
//! over (see `listener/watched.rs`), or earlier when the listener is full and another client connects. One whose request is
//! being processed is never closed for another.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use crate::shares::{Account, HeldShare, Percent, Pool};

/// Connections beyond the limit that are accepted when no other can be closed. Only probes are answered on them.
const RESERVE: usize = 32;
/// When the listener is full, one in this number of connections is closed at once, so that not every new connection has to look
/// for one.
const EVICTED_AT_ONCE: usize = 100;
/// The total size of arriving headers that are longer than most, in bytes. The number of connections bounds that of the others.
const HEADER_BYTES_MAX: usize = 32 << 20;
/// The time for which a client that owes bytes, or does not read, may keep a connection that another client needs.
const STALLED: Duration = Duration::from_secs(5);

/// The connection of a request, and the others of its listener.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) connection: Arc<Connection>,
    pub(crate) connections: Arc<Connections>,
}

/// The open connections of one listener.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    share: usize,
    since: Instant,
    /// The number of connections accepted so far.
    accepted: AtomicUsize,
    open: Mutex<Open>,
    header_room: Account,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    by_id: HashMap<u64, Arc<Connection>>,
    /// The number of connections of each holder, without those that are being closed.
    by_holder: HashMap<HolderId, usize>,
    /// Connections that were told to close and have not yet closed.
    closing: usize,
}

/// The holder by which connections are counted: a token, a peer, or all unauthenticated callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct HolderId(u64);

impl HolderId {
    /// The holder of all unauthenticated connections.
    pub(crate) const NOBODY: Self = Self(0);

    /// A new, unique holder.
    pub(crate) fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first request.
    Silent,
    /// The gateway, which processes a request.
    Serving,
    /// The rest of a body.
    Receiving,
    /// The next event of a stream.
    Streaming,
    /// The client's reading of an answer.
    Answering,
    /// The client's reading of the end of an answer, all of which is in the connection's buffer.
    HandedOver,
    /// The next request.
    Idle,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Silent,
        Self::Serving,
        Self::Receiving,
        Self::Streaming,
        Self::Answering,
        Self::HandedOver,
        Self::Idle,
    ];
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    /// Whether it is one of the reserve, for probes only.
    is_reserve: bool,
    phase: AtomicU8,
    /// The last activity of the client, in milliseconds since the listener started.
    active_ms: AtomicU64,
    holder: AtomicU64,
    is_closing: AtomicBool,
    is_draining: AtomicBool,
    waker: Mutex<Option<Waker>>,
    /// The bytes of the answers that are not yet read.
    unread: Mutex<Vec<HeldShare>>,
    since: Instant,
}

/// A connection's place among those of its listener. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    pub(crate) link: Link,
}

impl Connections {
    /// A listener without connections. At most `max` are open at once, and at most a share of them by one holder.
    pub(crate) fn new(max: usize, share: Percent) -> Arc<Self> {
        Arc::new(Self {
            max,
            share: share.of(max),
            since: Instant::now(),
            accepted: AtomicUsize::new(0),
            open: Mutex::default(),
            header_room: Pool::new(HEADER_BYTES_MAX).account(Percent::new(100)),
        })
    }

    /// Room for headers that are longer than most.
    pub(crate) fn header_room(&self) -> &Account {
        &self.header_room
    }

    /// The number of connections to accept from the operating system at once, including those that are turned away.
    pub(crate) fn accepted_max(max: usize) -> usize {
        max.saturating_add(2 * RESERVE).saturating_add(max / EVICTED_AT_ONCE)
    }

    /// The number of connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    /// Admits one more connection; others may be closed for it. `None` if there is no room at all.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<ConnectionSlot> {
        self.accepted.fetch_add(1, Ordering::AcqRel);
        let mut open = self.lock();
        if open.staying() >= self.max {
            let largest = open.by_holder.iter().max_by_key(|(_, count)| **count).map(|(holder, _)| *holder);
            let evicted = largest.map_or(0, |holder| open.evict(Some(holder), self.max, self.now_ms()));
            if evicted == 0 {
                open.evict(None, self.max, self.now_ms());
            }
        }
        let is_reserve = open.staying() >= self.max;
        if open.staying() >= self.max.saturating_add(RESERVE)
            || open.by_id.len() >= Self::accepted_max(self.max)
        {
            return None;
        }
        let id = open.next_id;
        open.next_id += 1;
        let connection = Arc::new(Connection {
            id,
            is_reserve,
            phase: AtomicU8::new(Phase::Silent as u8),
            active_ms: AtomicU64::new(self.now_ms()),
            holder: AtomicU64::new(HolderId::NOBODY.0),
            is_closing: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            waker: Mutex::default(),
            unread: Mutex::default(),
            since: self.since,
        });
        open.by_id.insert(id, Arc::clone(&connection));
        *open.by_holder.entry(HolderId::NOBODY).or_default() += 1;
        Some(ConnectionSlot { link: Link { connection, connections: Arc::clone(self) } })
    }

    /// Notes the holder of a connection. A holder above its share loses an idle connection; if it has none, this one is refused
    /// and the result is false.
    pub(crate) fn is_held_by(&self, connection: &Connection, holder: HolderId) -> bool {
        if connection.holder() == holder {
            return true;
        }
        let mut open = self.lock();
        if connection.is_closing() {
            return true;
        }
        open.uncount(connection.holder());
        connection.holder.store(holder.0, Ordering::Release);
        let count = open.by_holder.entry(holder).or_default();
        *count += 1;
        *count <= self.share || open.evict(Some(holder), 1, self.now_ms()) > 0
    }

    /// Closes every connection on which nothing is in flight.
    pub(crate) fn close_idle(&self) {
        let mut open = self.lock();
        let idle = open.by_id.values().filter(|connection| {
            !connection.is_closing() && matches!(connection.phase(), Phase::Silent | Phase::Idle)
        });
        for connection in idle.cloned().collect::<Vec<_>>() {
            open.close(&connection);
        }
    }

    fn now_ms(&self) -> u64 {
        millis(self.since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn staying(&self) -> usize {
        self.by_id.len().saturating_sub(self.closing)
    }

    fn uncount(&mut self, holder: HolderId) {
        if let Some(count) = self.by_holder.get_mut(&holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_holder.remove(&holder);
            }
        }
    }

    /// Closes some connections of a holder, or of anybody, that wait for their client, longest first; returns their number.
    fn evict(&mut self, holder: Option<HolderId>, max: usize, now_ms: u64) -> usize {
        let waiting = self.by_id.values().filter(|connection| {
            let is_meant = holder.is_none_or(|holder| connection.holder() == holder);
            is_meant && !connection.is_closing() && connection.may_be_closed(now_ms)
        });
        let mut waiting: Vec<(bool, u64, Arc<Connection>)> = waiting
            .map(|connection| {
                let is_idle = matches!(connection.phase(), Phase::Silent | Phase::Idle);
                (!is_idle, connection.active_ms.load(Ordering::Acquire), Arc::clone(connection))
            })
            .collect();
        let count = (max / EVICTED_AT_ONCE).max(1);
        if waiting.len() > count {
            waiting.select_nth_unstable_by_key(count, |(is_busy, active_ms, _)| (*is_busy, *active_ms));
            waiting.truncate(count);
        }
        for (_, _, connection) in &waiting {
            self.close(connection);
        }
        waiting.len()
    }

    fn close(&mut self, connection: &Connection) {
        if connection.is_closing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.closing += 1;
        self.uncount(connection.holder());
        connection.wake();
    }
}

impl Connection {
    /// Whether it is one of the reserve, which can only send one probe.
    pub(crate) fn is_reserve(&self) -> bool {
        self.is_reserve
    }

    /// Whether it must close for another one.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Whether incoming bytes may be the rest of a body that is no longer wanted.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Notes whether an announced body is still incomplete.
    pub(crate) fn owe_body(&self, is_owed: bool) {
        self.is_draining.store(is_owed, Ordering::Release);
    }

    /// The event that it waits for.
    pub(crate) fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Acquire));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Silent)
    }

    /// Notes the event that it waits for.
    pub(crate) fn enter_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.note_activity();
    }

    /// Notes activity of the client.
    pub(crate) fn note_activity(&self) {
        self.active_ms.store(millis(self.since.elapsed()), Ordering::Release);
    }

    /// Keeps the room of an answer until the client has read it.
    pub(crate) fn keep_until_read(&self, held: HeldShare) {
        lock(&self.unread).push(held);
    }

    /// Notes that the operating system has all of the answers.
    pub(crate) fn note_read(&self) {
        let mut unread = lock(&self.unread);
        // Usually there is one answer at a time, so its room is kept for the next.
        unread.clear();
    }

    /// Notes the task to wake when the connection is to be closed.
    pub(crate) fn wake_on_close(&self, cx: &Context<'_>) {
        let mut waker = lock(&self.waker);
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn holder(&self) -> HolderId {
        HolderId(self.holder.load(Ordering::Acquire))
    }

    fn may_be_closed(&self, now_ms: u64) -> bool {
        match self.phase() {
            Phase::Silent | Phase::Idle => true,
            // Streams are counted by themselves.
            Phase::Serving | Phase::Streaming => false,
            Phase::Receiving | Phase::Answering | Phase::HandedOver => {
                now_ms.saturating_sub(self.active_ms.load(Ordering::Acquire)) > millis(STALLED)
            }
        }
    }

    fn wake(&self) {
        if let Some(waker) = lock(&self.waker).as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let Link { connection, connections } = &self.link;
        let mut open = connections.lock();
        if open.by_id.remove(&connection.id).is_some() {
            if connection.is_closing() {
                open.closing = open.closing.saturating_sub(1);
            } else {
                open.uncount(connection.holder());
            }
        }
        drop(open);
        connection.note_read();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, share: u8) -> Arc<Connections> {
        Connections::new(max, Percent::new(share))
    }

    fn enter(connections: &Arc<Connections>, count: usize) -> Vec<ConnectionSlot> {
        (0..count).map(|_| connections.enter().unwrap()).collect()
    }

    fn closing(places: &[ConnectionSlot]) -> Vec<usize> {
        let closing = places.iter().enumerate().filter(|(_, place)| place.link.connection.is_closing());
        closing.map(|(index, _)| index).collect()
    }

    fn all_in(places: &[ConnectionSlot], phase: Phase) {
        places.iter().for_each(|place| place.link.connection.enter_phase(phase));
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let connections = connections(4, 100);
        let places = enter(&connections, 4);
        for (index, active_ms) in [30, 10, 40, 20].into_iter().enumerate() {
            places[index].link.connection.active_ms.store(active_ms, Ordering::Release);
        }
        places[1].link.connection.phase.store(Phase::Serving as u8, Ordering::Release);
        let next = connections.enter().unwrap();
        assert!(!next.link.connection.is_reserve());
        assert_eq!(closing(&places), [3], "the one that is served stays");
    }

    #[test]
    fn who_has_most_makes_room() {
        let connections = connections(6, 100);
        let places = enter(&connections, 6);
        let (many, one) = (HolderId::unique(), HolderId::unique());
        for (place, holder) in places.iter().zip([one, many, many, many, many, many]) {
            assert!(connections.is_held_by(&place.link.connection, holder));
        }
        let _next = connections.enter().unwrap();
        assert_eq!(closing(&places).len(), 1);
        assert!(!places[0].link.connection.is_closing(), "the only one of its holder");
    }

    #[test]
    fn a_reserve_is_there_when_nobody_can_be_sent_away() {
        let connections = connections(3, 100);
        let places = enter(&connections, 3);
        all_in(&places, Phase::Serving);
        let mut reserve = Vec::new();
        for _ in 0..RESERVE {
            reserve.extend(enter(&connections, 1));
            all_in(&reserve, Phase::Serving);
        }
        assert!(reserve.iter().all(|place| place.link.connection.is_reserve()));
        assert!(connections.enter().is_none());
        assert_eq!(closing(&places), [0; 0]);
        drop(places);
        assert!(connections.enter().is_some());
    }

    #[test]
    fn who_does_not_read_makes_room_after_a_while() {
        let connections = connections(2, 100);
        let places = enter(&connections, 2);
        all_in(&places, Phase::Answering);
        assert!(connections.enter().unwrap().link.connection.is_reserve());
        assert!(!places[0].link.connection.may_be_closed(millis(STALLED)));
        assert!(places[0].link.connection.may_be_closed(2 * millis(STALLED)));
    }

    #[test]
    fn nobody_has_more_than_a_share() {
        let connections = connections(8, 50);
        let (greedy, other) = (HolderId::unique(), HolderId::unique());
        let places = enter(&connections, 5);
        for place in &places[..4] {
            assert!(connections.is_held_by(&place.link.connection, greedy));
            place.link.connection.enter_phase(Phase::Serving);
        }
        places[4].link.connection.enter_phase(Phase::Serving);
        assert!(!connections.is_held_by(&places[4].link.connection, greedy), "all of its others are at work");
        let sixth = connections.enter().unwrap();
        assert!(connections.is_held_by(&sixth.link.connection, other));
        places[0].link.connection.enter_phase(Phase::Idle);
        let seventh = connections.enter().unwrap();
        seventh.link.connection.enter_phase(Phase::Serving);
        assert!(connections.is_held_by(&seventh.link.connection, greedy), "an idle one of its own goes");
        assert_eq!(closing(&places), [0]);
    }

    #[test]
    fn counts_come_back_to_nothing() {
        let connections = connections(10, 50);
        for _ in 0..20 {
            let places = enter(&connections, 30);
            let holder = HolderId::unique();
            for place in &places {
                connections.is_held_by(&place.link.connection, holder);
            }
            connections.close_idle();
            drop(places);
            let open = connections.lock();
            assert_eq!((open.by_id.len(), open.by_holder.len(), open.closing), (0, 0, 0));
        }
    }
}
