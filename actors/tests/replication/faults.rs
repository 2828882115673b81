//! A faulty network between gateways: it loses, delays, repeats, shortens and swaps messages, by a seed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::{
    Delivering, Delivery, DeliveryContent, DeliveryError, DomainName, Gateway, GroupError, GroupId,
    ReplicationAck, Transport,
};

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        let mut mixed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// True this often of a hundred times.
    pub(crate) fn percent(&self, often: u64) -> bool {
        self.below(100) < often
    }
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) to: DomainName,
    pub(crate) group: GroupId,
    /// The numbers of its entries; none of a transfer.
    pub(crate) entries: Vec<u64>,
}

/// The wires between all gateways.
pub(crate) struct Wires {
    pub(crate) gateways: Mutex<BTreeMap<DomainName, Gateway>>,
    dice: Dice,
    /// Whether anything goes wrong at present.
    pub(crate) are_faulty: AtomicBool,
    /// Gateways that are cut off in both directions.
    pub(crate) cut_off: Mutex<BTreeSet<DomainName>>,
    /// A delivery of before, to come again.
    kept: Mutex<Vec<(DomainName, DomainName, Delivery)>>,
    /// Groups whose deliveries do not get through.
    pub(crate) failing: Mutex<BTreeSet<GroupId>>,
    /// Whether followers know no member of a transfer that came with a later revision, and refuse it.
    pub(crate) are_of_first_revision: AtomicBool,
    /// Whether followers do not know the deletion of a group, and refuse it.
    pub(crate) know_no_deletions: AtomicBool,
    /// What followers answer, one delivery after the other, in place of what they would; nothing then arrives.
    pub(crate) answers: Mutex<VecDeque<Result<ReplicationAck, DeliveryError>>>,
    /// Every delivery that was made.
    pub(crate) made: Mutex<Vec<Made>>,
    pub(crate) delivered: AtomicU64,
    pub(crate) spoiled: AtomicU64,
    /// Deliveries that a follower refused.
    pub(crate) refused: AtomicU64,
    /// Deliveries at present to gateways that are cut off, and the most of them at once.
    cut: AtomicUsize,
    pub(crate) cut_at_once_max: AtomicUsize,
}

impl Wires {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            gateways: Mutex::default(),
            dice: Dice::new(seed ^ 0x00c0_ffee),
            are_faulty: AtomicBool::new(false),
            cut_off: Mutex::default(),
            kept: Mutex::default(),
            failing: Mutex::default(),
            are_of_first_revision: AtomicBool::new(false),
            know_no_deletions: AtomicBool::new(false),
            answers: Mutex::default(),
            made: Mutex::default(),
            delivered: AtomicU64::new(0),
            spoiled: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            cut: AtomicUsize::new(0),
            cut_at_once_max: AtomicUsize::new(0),
        })
    }

    async fn arrive(
        &self,
        from: &DomainName,
        to: &DomainName,
        delivery: Delivery,
    ) -> Result<ReplicationAck, DeliveryError> {
        let entries = match &delivery.content {
            DeliveryContent::Entries(entries) => entries.iter().map(|entry| entry.sequence).collect(),
            DeliveryContent::Transfer(_) | DeliveryContent::Deletion { .. } => Vec::new(),
        };
        self.made.lock().unwrap().push(Made { to: to.clone(), group: delivery.group.clone(), entries });
        if let Some(answer) = self.answers.lock().unwrap().pop_front() {
            return answer;
        }
        if self.failing.lock().unwrap().contains(&delivery.group) {
            return Err(DeliveryError::Failed("it takes too long".into()));
        }
        let is_of_later_revision =
            matches!(&delivery.content, DeliveryContent::Transfer(transfer) if transfer.reinitialised);
        let is_deletion = matches!(&delivery.content, DeliveryContent::Deletion { .. });
        if is_of_later_revision && self.are_of_first_revision.load(Ordering::Relaxed)
            || is_deletion && self.know_no_deletions.load(Ordering::Relaxed)
        {
            let detail = "a member that is not known".into();
            return Err(DeliveryError::Refused { slug: "malformed-request".into(), detail });
        }
        let unreachable = || DeliveryError::Unreachable("there is no gateway".into());
        let is_cut = {
            let cut_off = self.cut_off.lock().unwrap();
            cut_off.contains(from) || cut_off.contains(to)
        };
        if is_cut {
            // Long enough that deliveries which are made at once are seen to be.
            let at_once = self.cut.fetch_add(1, Ordering::SeqCst) + 1;
            self.cut_at_once_max.fetch_max(at_once, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.cut.fetch_sub(1, Ordering::SeqCst);
            self.spoiled.fetch_add(1, Ordering::Relaxed);
            return Err(unreachable());
        }
        let gateway = self.gateways.lock().unwrap().get(to).cloned().ok_or_else(unreachable)?;
        self.delivered.fetch_add(1, Ordering::Relaxed);
        let received = gateway.receive(&BTreeSet::from([from.clone()]), delivery).await;
        received.map_err(|error| match error {
            GroupError::Stopping | GroupError::Storage(_) | GroupError::Busy => unreachable(),
            refused => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                DeliveryError::Refused { slug: "refused".into(), detail: refused.to_string() }
            }
        })
    }

    async fn carry(
        &self,
        from: DomainName,
        to: DomainName,
        mut delivery: Delivery,
    ) -> Result<ReplicationAck, DeliveryError> {
        if !self.are_faulty.load(Ordering::Relaxed) {
            return self.arrive(&from, &to, delivery).await;
        }
        let lost = |what: &str| {
            self.spoiled.fetch_add(1, Ordering::Relaxed);
            Err(DeliveryError::Unreachable(format!("the {what} was lost")))
        };
        if self.dice.percent(15) {
            return lost("request");
        }
        if self.dice.percent(20) {
            tokio::time::sleep(Duration::from_millis(self.dice.below(12))).await;
        }
        if self.dice.percent(15)
            && let DeliveryContent::Entries(entries) = &mut delivery.content
        {
            // Cut short: only the first arrive.
            self.spoiled.fetch_add(1, Ordering::Relaxed);
            entries.truncate(1 + entries.len() / 2);
        }
        if self.dice.percent(10)
            && let DeliveryContent::Entries(entries) = &mut delivery.content
        {
            self.spoiled.fetch_add(1, Ordering::Relaxed);
            entries.reverse();
        }
        // One of before comes again, in front of this one or after it.
        let old = {
            let mut kept = self.kept.lock().unwrap();
            let chosen = (!kept.is_empty() && self.dice.percent(25)).then(|| {
                let place = usize::try_from(self.dice.below(kept.len() as u64)).unwrap();
                kept.swap_remove(place)
            });
            if self.dice.percent(30) && kept.len() < 64 {
                kept.push((from.clone(), to.clone(), delivery.clone()));
            }
            chosen
        };
        let is_before = self.dice.percent(50);
        if let Some((from, to, old)) = old.clone().filter(|_| is_before) {
            let _ = self.arrive(&from, &to, old).await;
        }
        if self.dice.percent(10) {
            // Twice at the same time.
            self.spoiled.fetch_add(1, Ordering::Relaxed);
            let again = self.arrive(&from, &to, delivery.clone());
            let (first, second) = tokio::join!(self.arrive(&from, &to, delivery), again);
            return first.or(second);
        }
        let held = self.arrive(&from, &to, delivery).await;
        if let Some((from, to, old)) = old.filter(|_| !is_before) {
            let _ = self.arrive(&from, &to, old).await;
        }
        if self.dice.percent(15) { lost("answer") } else { held }
    }
}

/// The wires as one gateway has them.
pub(crate) struct Wire {
    pub(crate) wires: Arc<Wires>,
    pub(crate) from: DomainName,
}

impl Transport for Wire {
    fn deliver(&self, peer: &DomainName, delivery: Delivery) -> Delivering {
        let (wires, from, to) = (Arc::clone(&self.wires), self.from.clone(), peer.clone());
        Box::pin(async move { wires.carry(from, to, delivery).await })
    }
}
