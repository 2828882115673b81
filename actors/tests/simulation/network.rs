//! The network between gateways, and between clients and their gateways: messages take time, are lost, and between gateways are
//! repeated, cut short and reversed. A gateway can be cut off from the others.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    time::Duration,
};

use actors::{
    Delivering, Delivery, DeliveryContent, DeliveryError, DomainName, Gateway, GroupError, ReplicationAck,
    Transport,
};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    time::Instant,
};

use crate::{
    dice::Dice,
    gateways::{Job, Settings, domain},
    messages::NODES,
    world::trace,
};

type Answer = Result<ReplicationAck, DeliveryError>;

/// A delivery on the wire.
pub(crate) struct Sent {
    from: usize,
    to: DomainName,
    delivery: Delivery,
    reply: oneshot::Sender<Answer>,
}

/// The wires of one gateway.
pub(crate) struct Wire {
    pub(crate) from: usize,
    pub(crate) sent: UnboundedSender<Sent>,
}

impl Transport for Wire {
    fn deliver(&self, peer: &DomainName, delivery: Delivery) -> Delivering {
        let (reply, answer) = oneshot::channel();
        let sent = self.sent.send(Sent { from: self.from, to: peer.clone(), delivery, reply });
        Box::pin(async move {
            let unreachable = || DeliveryError::Unreachable("there is no network".into());
            sent.map_err(|_| unreachable())?;
            answer.await.unwrap_or_else(|_| Err(unreachable()))
        })
    }
}

/// The network.
pub(crate) struct Network {
    /// Where each gateway takes requests, while it runs.
    pub(crate) jobs: RefCell<[Option<UnboundedSender<Job>>; NODES]>,
    pub(crate) cut_off: Cell<[bool; NODES]>,
    /// Whether nothing goes wrong any more.
    pub(crate) is_healed: Cell<bool>,
    settings: Settings,
    dice: RefCell<Dice>,
    /// A delivery of before, to come again.
    kept: RefCell<Vec<(usize, usize, Delivery)>>,
    /// The moment of the latest delivery, and the number of deliveries then.
    latest: Cell<Option<(Instant, u32)>>,
}

/// The most deliveries in one moment. A gateway that sends without a pause would never let the time go on.
const AT_ONCE_MAX: u32 = 1000;

impl Network {
    pub(crate) fn new(settings: &Settings, dice: Dice) -> Rc<Self> {
        Rc::new(Self {
            jobs: RefCell::default(),
            cut_off: Cell::default(),
            is_healed: Cell::new(false),
            settings: settings.clone(),
            dice: RefCell::new(dice),
            kept: RefCell::default(),
            latest: Cell::new(None),
        })
    }

    /// Carries every delivery that is sent.
    pub(crate) async fn carry_all(self: Rc<Self>, mut sent: UnboundedReceiver<Sent>) {
        while let Some(Sent { from, to, delivery, reply }) = sent.recv().await {
            let network = Rc::clone(&self);
            let to = (0..NODES).find(|node| domain(*node) == to).unwrap();
            tokio::task::spawn_local(async move {
                let _ = reply.send(network.carry(from, to, delivery).await);
            });
        }
    }

    fn percent(&self, often: u64) -> bool {
        !self.is_healed.get() && self.dice.borrow_mut().percent(often)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        let cut_off = self.cut_off.get();
        from != to && (cut_off[from] || cut_off[to])
    }

    async fn travel(&self) {
        let ms = self.dice.borrow_mut().within(0, self.settings.network_ms_max);
        if ms > 0 && !self.is_healed.get() {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Has a gateway do something; `None` if the request or its answer was lost. A client is at its gateway.
    pub(crate) async fn ask<T: 'static>(
        &self,
        (from, to): (usize, usize),
        work: impl AsyncFnOnce(Gateway) -> T + 'static,
    ) -> Option<T> {
        self.travel().await;
        if self.is_cut(from, to) || from != to && self.percent(self.settings.loss_percent) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |gateway| {
            Box::pin(async move {
                let _ = reply.send(work(gateway).await);
            })
        });
        let jobs = self.jobs.borrow()[to].clone();
        jobs?.send(job).ok()?;
        let answer = answer.await.ok()?;
        self.travel().await;
        let is_lost = self.is_cut(from, to) || self.percent(self.settings.loss_percent);
        (!is_lost).then_some(answer)
    }

    /// Counts a delivery. The panic is a condition that does not hold.
    fn count(&self) {
        let now = Instant::now();
        let before = self.latest.get().filter(|(at, _)| *at == now).map_or(0, |(_, count)| count);
        assert!(before < AT_ONCE_MAX, "more than {AT_ONCE_MAX} deliveries in one moment");
        self.latest.set(Some((now, before + 1)));
    }

    async fn arrive(&self, from: usize, to: usize, delivery: Delivery) -> Answer {
        self.count();
        let unreachable = || DeliveryError::Unreachable("there is no gateway".into());
        let what = match &delivery.content {
            DeliveryContent::Entries(entries) => {
                format!("entries {:?}", entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>())
            }
            DeliveryContent::Transfer(transfer) => format!("the group as of entry {}", transfer.sequence),
            DeliveryContent::Deletion { .. } => "a deletion".to_owned(),
        };
        let received = self.ask((from, to), async move |gateway: Gateway| {
            gateway.receive(&BTreeSet::from([domain(from)]), delivery).await
        });
        let received = received.await;
        trace(|| format!("{from} to {to}: {what}: {received:?}"));
        received.ok_or_else(unreachable)?.map_err(|error| match error {
            GroupError::Stopping | GroupError::Storage(_) | GroupError::Busy => unreachable(),
            refused => DeliveryError::Refused { slug: "refused".into(), detail: refused.to_string() },
        })
    }

    async fn carry(&self, from: usize, to: usize, mut delivery: Delivery) -> Answer {
        if !self.settings.is_unruly {
            return self.arrive(from, to, delivery).await;
        }
        if let DeliveryContent::Entries(entries) = &mut delivery.content {
            if self.percent(15) {
                entries.truncate(1 + entries.len() / 2);
            }
            if self.percent(10) {
                entries.reverse();
            }
        }
        let old = {
            let mut kept = self.kept.borrow_mut();
            let old = (!kept.is_empty() && self.percent(25)).then(|| {
                let place = self.dice.borrow_mut().below(kept.len());
                kept.swap_remove(place)
            });
            if kept.len() < 16 && self.percent(30) {
                kept.push((from, to, delivery.clone()));
            }
            old
        };
        if let Some((from, to, old)) = old {
            let _ = self.arrive(from, to, old).await;
        }
        if self.percent(10) {
            let again = self.arrive(from, to, delivery.clone());
            let (first, second) = tokio::join!(self.arrive(from, to, delivery), again);
            return first.or(second);
        }
        self.arrive(from, to, delivery).await
    }
}
