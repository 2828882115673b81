//! One history: three gateways, their clients, and the steps that are done to them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::{Pin, pin},
    rc::Rc,
    sync::{LazyLock, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use actors::{
    AcceptedCommit, AcceptedProposal, AssignedKeyPackage, ClientError, ClientId, CreatedGroup, DeliveryId,
    Gateway, GroupError, JoinInfoQuery, KeyPackageRequest, KeyPackageUpload, KeyQueueError, KeyQueueId,
    NewClient, NewKeyQueue, PoolCounts, Receiver, Requester, Source,
    events::{EventId, ResetReason, StreamContent},
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::LocalSet,
    time::Instant,
};

use crate::{
    dice::Dice,
    faults::Fault,
    gateways::{APP, Doomed, Machine, Settings, domain, session},
    ledger::{Checked, Deletion, Ledger, Part, compare_views, violated},
    messages::{
        CLIENTS_PER_NODE, ClientNumber, CommitContent, CommitPlan, EpochState, GROUPS, Messages, NODES,
        PlannedCommit, PlannedProposal, ProposalContent, ProposalPlan, guests, handle, node_of,
    },
    network::{Network, Sent, Wire},
    steps::{Committed, Proposed, Step, Timed},
};

/// The longest time after which everything has arrived once nothing goes wrong any more.
const SETTLED_AFTER: Duration = Duration::from_secs(150);

/// A request of a client.
#[derive(Clone)]
enum Request {
    Create { group: usize },
    Commit { group: usize, commit: Rc<PlannedCommit> },
    Propose { group: usize, proposal: Rc<PlannedProposal> },
    Register { client: ClientNumber },
    MakeQueue { client: ClientNumber, id: ClientId },
    UploadPackages { client: ClientNumber, id: ClientId, queue: KeyQueueId, first: usize, count: usize },
    Assign { client: ClientNumber, id: ClientId, receiver: u8 },
    Acknowledge { client: ClientNumber, group: usize, epoch: u64, id: DeliveryId },
    Delete { group: usize },
}

/// The answer to a request.
#[derive(Debug)]
enum Answer {
    Created(Result<CreatedGroup, GroupError>),
    Committed(Result<AcceptedCommit, GroupError>),
    Proposed(Result<AcceptedProposal, GroupError>),
    Registered(Result<ClientId, ClientError>),
    MadeQueue(Result<KeyQueueId, KeyQueueError>),
    Uploaded(Result<PoolCounts, KeyQueueError>),
    Assigned(Result<AssignedKeyPackage, KeyQueueError>),
    Acknowledged(Result<(), ClientError>),
    Deleted(Result<(), GroupError>),
}

/// What reaches the world from its tasks.
enum Happening {
    Answered(Request, Option<Answer>),
    Told {
        node: usize,
        run: u64,
        id: EventId,
        content: StreamContent,
    },
    ToldOfGroup {
        node: usize,
        run: u64,
        group: usize,
        id: EventId,
        content: StreamContent,
    },
    /// The stream of a group ended.
    Ended {
        node: usize,
        run: u64,
        group: usize,
    },
}

/// What a history was.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// A digest of everything that happened, in order.
    pub(crate) digest: u64,
    pub(crate) entries: usize,
    pub(crate) runs: u64,
    pub(crate) transfers: usize,
    pub(crate) assignments: usize,
}

struct World {
    settings: Settings,
    fault: Option<Fault>,
    begun: Instant,
    dice: Dice,
    messages: Rc<Messages>,
    machines: Vec<Machine>,
    network: Rc<Network>,
    /// The tasks that belong to no gateway.
    outside: LocalSet,
    ledger: Ledger,
    requests: Vec<Request>,
    unanswered: usize,
    wires: UnboundedSender<Sent>,
    happenings: UnboundedReceiver<Happening>,
    happening: UnboundedSender<Happening>,
    doomed: UnboundedReceiver<Doomed>,
    doom: UnboundedSender<Doomed>,
    keeps_when_doomed: [bool; NODES],
    most_ahead_ms: i64,
    /// Where clients are in the streams of gateways.
    positions: [Option<EventId>; NODES],
    group_positions: [[Option<EventId>; GROUPS]; NODES],
    /// The run in which a stream of a group was opened last.
    group_streams: [[u64; GROUPS]; NODES],
    digest: DefaultHasher,
    assignments: usize,
}

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The panics of tasks, which the runtime would keep to itself.
    pub(crate) static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Prints what happens, with its time, if `MIMI_SIMULATION_TRACE` is set.
pub(crate) fn trace(what: impl FnOnce() -> String) {
    static IS_ON: LazyLock<bool> = LazyLock::new(|| std::env::var_os("MIMI_SIMULATION_TRACE").is_some());
    if *IS_ON {
        let at = BEGUN.get().map_or(Duration::ZERO, |begun| begun.elapsed());
        println!("{:>8} ms  {}", at.as_millis(), what());
    }
}

/// Plays steps; the outcome, or the condition that did not hold.
pub(crate) fn play(
    messages: &Rc<Messages>,
    seed: u64,
    (settings, steps): (&Settings, &[Timed]),
    fault: Option<Fault>,
) -> Result<Outcome, crate::ledger::Violation> {
    PANICS.take();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // It draws which of several tasks that wait for one value goes on first.
    #[cfg(tokio_unstable)]
    runtime.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let _session = session(seed, settings);
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = World::new(messages, seed, settings, fault);
            let played = world.play(steps).await;
            let outcome = world.outcome();
            // A gateway stops within its runtime.
            drop(world);
            played.map(|()| outcome)
        })
    }));
    let panics = PANICS.take();
    match played {
        Ok(played) if panics.is_empty() => played,
        Ok(Err(violation)) => Err(violation),
        Ok(Ok(_)) | Err(_) => violated("nothing panics", panics.join("; ")),
    }
}

impl World {
    fn new(messages: &Rc<Messages>, seed: u64, settings: &Settings, fault: Option<Fault>) -> Self {
        let mut dice = Dice::new(seed ^ 0x005e_ed0f_7e57);
        let network = Network::new(settings, Dice::new(dice.next()));
        let (wires, sent) = mpsc::unbounded_channel();
        let (happening, happenings) = mpsc::unbounded_channel();
        let (doom, doomed) = mpsc::unbounded_channel();
        let outside = LocalSet::new();
        outside.spawn_local(Rc::clone(&network).carry_all(sent));
        let machines = (0..NODES).map(|_| Machine::new(fault)).collect();
        Self {
            settings: settings.clone(),
            fault,
            begun: Instant::now(),
            dice,
            messages: Rc::clone(messages),
            machines,
            network,
            outside,
            ledger: Ledger::new(messages, settings.drops_history()),
            requests: Vec::new(),
            unanswered: 0,
            wires,
            happenings,
            happening,
            doomed,
            doom,
            keeps_when_doomed: [false; NODES],
            most_ahead_ms: 0,
            positions: Default::default(),
            group_positions: Default::default(),
            group_streams: Default::default(),
            digest: DefaultHasher::new(),
            assignments: 0,
        }
    }

    fn outcome(&self) -> Outcome {
        let transfers = (0..NODES).flat_map(|node| (0..GROUPS).map(move |group| (node, group)));
        Outcome {
            digest: self.digest.finish(),
            entries: self.ledger.groups.iter().map(|group| group.entries.len()).sum(),
            runs: self.machines.iter().map(|machine| machine.runs).sum(),
            transfers: transfers.filter(|(node, group)| self.ledger.is_transferred(*node, *group)).count(),
            assignments: self.assignments,
        }
    }

    async fn play(&mut self, steps: &[Timed]) -> Checked {
        BEGUN.set(Some(self.begun));
        (0..NODES).for_each(|node| self.start(node));
        for Timed { step, wait_ms } in steps {
            self.step(step)?;
            self.run_for(Duration::from_millis(*wait_ms)).await?;
            self.check()?;
        }
        self.end().await
    }

    fn start(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.process.is_some() {
            return;
        }
        let wire = Wire { from: node, sent: self.wires.clone() };
        let dice = Dice::new(self.dice.next());
        machine.start(node, &self.settings, (self.begun, dice), wire, self.doom.clone(), self.fault);
        self.ledger.restarted(node);
        let Some(process) = &machine.process else { return };
        self.network.jobs.borrow_mut()[node] = Some(process.jobs.clone());
        let (run, after, told) = (machine.runs, self.positions[node], self.happening.clone());
        self.spawn(node, async move |gateway: Gateway| {
            let Ok(mut stream) = gateway.application_events(APP, after) else { return };
            if after.is_none()
                && let Ok(from_the_first) = gateway.recent_application_events(APP, 1000)
            {
                stream = from_the_first;
            }
            while let Ok(Some(item)) = stream.next().await {
                if told.send(Happening::Told { node, run, id: item.id, content: item.content }).is_err() {
                    return;
                }
            }
        });
    }

    fn spawn(&self, node: usize, work: impl AsyncFnOnce(Gateway) + 'static) {
        if let Some(process) = &self.machines[node].process {
            let _ = process.jobs.send(Box::new(move |gateway| Box::pin(work(gateway))));
        }
    }

    /// Ends a process, after a last look at its disk.
    fn kill(&mut self, node: usize, keeps: bool) -> Checked {
        self.check_disks()?;
        self.network.jobs.borrow_mut()[node] = None;
        self.machines[node].kill(keeps);
        ("killed", node).hash(&mut self.digest);
        trace(|| format!("gateway {node} ends, keeps {keeps}"));
        Ok(())
    }

    /// Lets time pass.
    async fn run_for(&mut self, time: Duration) -> Checked {
        let mut timer = pin!(tokio::time::sleep(time));
        loop {
            let happened = std::future::poll_fn(|cx| {
                let timed_out = timer.as_mut().poll(cx).is_ready();
                for machine in &mut self.machines {
                    if let Some(process) = &mut machine.process {
                        let _ = Pin::new(&mut process.tasks).poll(cx);
                    }
                }
                let _ = Pin::new(&mut self.outside).poll(cx);
                if let Poll::Ready(Some(doomed)) = self.doomed.poll_recv(cx) {
                    return Poll::Ready(Some(Err(doomed)));
                }
                match self.happenings.poll_recv(cx) {
                    Poll::Ready(Some(happening)) => Poll::Ready(Some(Ok(happening))),
                    _ if timed_out => Poll::Ready(None),
                    _ => Poll::Pending,
                }
            });
            match happened.await {
                None => return Ok(()),
                Some(Ok(happening)) => self.take(happening)?,
                Some(Err(Doomed { node, run })) => {
                    if self.machines[node].runs == run && self.machines[node].process.is_some() {
                        self.kill(node, self.keeps_when_doomed[node])?;
                    }
                }
            }
        }
    }

    fn check(&mut self) -> Checked {
        self.check_disks()?;
        PANICS.with_borrow(|panics| match panics.first() {
            Some(first) => violated("nothing panics", first.clone()),
            None => Ok(()),
        })
    }

    /// Compares the disks, those of hubs first.
    fn check_disks(&mut self) -> Checked {
        for part in [Part::OwnGroups, Part::All] {
            for (node, machine) in self.machines.iter().enumerate() {
                if let Some(process) = &machine.process {
                    self.ledger.check(node, &process.gateway, machine.disk.batches(), part)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Answered(request, answer) => {
                self.unanswered -= 1;
                (request.kind(), self.begun.elapsed()).hash(&mut self.digest);
                format!("{answer:?}").hash(&mut self.digest);
                trace(|| format!("answered {:?}: {answer:?}", request.kind()));
                answer.map_or(Ok(()), |answer| self.answered(&request, answer))
            }
            Happening::Told { node, run, id, content } => {
                if self.machines[node].runs != run {
                    return Ok(());
                }
                // The disks are looked at first, so that what is told is known.
                self.check_disks()?;
                self.positions[node] = Some(id);
                match content {
                    StreamContent::Event(event) => {
                        format!("{node} {:?}", event.event).hash(&mut self.digest);
                        self.ledger.told(node, &event.event)
                    }
                    StreamContent::Reset(reason) => violated(
                        "a stream has no gap and no repetition",
                        format!("gateway {node}: the stream begins anew: {reason:?}"),
                    ),
                }
            }
            Happening::ToldOfGroup { node, run, group, id, content } => {
                if self.machines[node].runs != run {
                    return Ok(());
                }
                self.check_disks()?;
                self.group_positions[node][group] = Some(id);
                match content {
                    StreamContent::Event(event) => self.ledger.told_of_group(node, group, &event.event),
                    StreamContent::Reset(ResetReason::Replaced | ResetReason::NotKept) => {
                        self.ledger.reset_group_stream(node, group)
                    }
                    StreamContent::Reset(ResetReason::Unknown) => violated(
                        "a stream has no gap and no repetition",
                        format!("gateway {node}: an id of group {group} is unknown"),
                    ),
                }
            }
            Happening::Ended { node, run, group } => {
                if self.group_streams[node][group] == run {
                    self.group_streams[node][group] = 0;
                }
                Ok(())
            }
        }
    }

    /// Follows a group's stream at a gateway, if nobody does.
    fn follow(&mut self, node: usize, group: usize) {
        let run = self.machines[node].runs;
        if self.group_streams[node][group] == run || self.machines[node].process.is_none() {
            return;
        }
        self.group_streams[node][group] = run;
        let (after, told) = (self.group_positions[node][group], self.happening.clone());
        let id = self.ledger.groups[group].id.clone();
        self.spawn(node, async move |gateway: Gateway| {
            if let Ok(mut stream) = gateway.group_events(APP, &id, after).await {
                while let Ok(Some(item)) = stream.next().await {
                    let (id, content) = (item.id, item.content);
                    let _ = told.send(Happening::ToldOfGroup { node, run, group, id, content });
                }
            }
            let _ = told.send(Happening::Ended { node, run, group });
        });
    }

    fn step(&mut self, step: &Step) -> Checked {
        trace(|| format!("{step:?}"));
        format!("{step:?}").hash(&mut self.digest);
        match step {
            Step::Create { group } => {
                self.ask(self.ledger.groups[*group].hub, Request::Create { group: *group })
            }
            Step::Invite { group } => {
                let first = self.ledger.groups[*group].first.clone();
                let plan = CommitPlan { by: 0, content: CommitContent::Invite };
                self.commit(*group, self.ledger.groups[*group].hub, &first, &plan);
            }
            Step::Commit { group, at, by, what, is_behind } => {
                if let Some((state, plan)) = self.plan_commit(*group, *by, *what, *is_behind) {
                    self.commit(*group, *at, &state, &plan);
                }
            }
            Step::Propose { group, at, by, what } => {
                if let Some((state, plan)) = self.plan_proposal(*group, *by, *what) {
                    let proposal = state.proposal(&self.messages, &plan);
                    self.ledger.sends_proposal(*group, &proposal);
                    self.ask(proposal.place().unwrap_or(*at), Request::Propose { group: *group, proposal });
                }
            }
            Step::Repeat { nth, at } => {
                if let Some(nth) = nth.checked_rem(self.requests.len()) {
                    let request = self.requests[nth].clone();
                    let at = request.place(&self.ledger).unwrap_or(*at);
                    self.send(at, request);
                }
            }
            Step::Register { client } => self.ask(node_of(*client), Request::Register { client: *client }),
            Step::MakeQueue { client } => {
                if let Some(id) = self.ledger.clients.get(client).copied() {
                    self.ask(node_of(*client), Request::MakeQueue { client: *client, id });
                }
            }
            Step::UploadPackages { client, first, count } => {
                let id = self.ledger.clients.get(client).copied();
                if let Some((id, queue)) = id.zip(self.ledger.queues.get(client).map(|queue| queue.id)) {
                    let (client, first, count) = (*client, *first, *count);
                    self.ask(node_of(client), Request::UploadPackages { client, id, queue, first, count });
                }
            }
            Step::Assign { client, receiver, .. } => {
                if let Some(id) = self.ledger.clients.get(client).copied() {
                    let request = Request::Assign { client: *client, id, receiver: *receiver };
                    self.ask(node_of(*client), request);
                }
            }
            Step::Acknowledge { client, nth } => {
                let waiting = self.ledger.waiting(*client);
                if let Some(nth) = nth.checked_rem(waiting.len()) {
                    let (group, epoch, id) = waiting[nth];
                    self.ledger.acknowledges(*client, group, epoch, false);
                    self.ask(node_of(*client), Request::Acknowledge { client: *client, group, epoch, id });
                }
            }
            Step::Delete { group } => {
                let ledger = &mut self.ledger.groups[*group];
                ledger.deletion = ledger.deletion.max(Deletion::Asked);
                let hub = ledger.hub;
                self.ask(hub, Request::Delete { group: *group });
            }
            Step::Kill { node, keeps } => {
                self.kill(*node, *keeps)?;
            }
            Step::Doom { node, batches, point, keeps } => {
                if self.machines[*node].process.is_some() {
                    self.kill(*node, *keeps)?;
                }
                self.keeps_when_doomed[*node] = *keeps;
                self.machines[*node].doom.set(Some((*batches, *point)));
                self.start(*node);
            }
            Step::Stop { node } => {
                let gateway = self.machines[*node].process.as_ref().map(|process| process.gateway.clone());
                if let Some(gateway) = gateway {
                    self.spawn(*node, async move |_| gateway.stop().await);
                }
            }
            Step::Start { node } => {
                let is_stopping =
                    self.machines[*node].process.as_ref().is_some_and(|process| !process.gateway.is_ready());
                if is_stopping {
                    self.kill(*node, true)?;
                }
                self.start(*node);
            }
            Step::CutOff { node } => {
                let mut cut_off = self.network.cut_off.get();
                cut_off[*node] = true;
                self.network.cut_off.set(cut_off);
            }
            Step::Rejoin => self.network.cut_off.set(Default::default()),
            Step::SetClock { node, ahead_ms } => {
                self.machines[*node].ahead_ms.store(*ahead_ms, Ordering::Relaxed);
                self.most_ahead_ms = self.most_ahead_ms.max(*ahead_ms);
            }
            Step::Nothing => {}
        }
        if self.settings.has_group_streams {
            for (node, group) in (0..NODES).flat_map(|node| (0..GROUPS).map(move |group| (node, group))) {
                if self.ledger.holds(node, group) {
                    self.follow(node, group);
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, group: usize, at: usize, state: &Rc<EpochState>, plan: &CommitPlan) {
        let commit = state.commit(&self.messages, plan);
        self.ledger.sends_commit(group, &commit);
        self.ask(at, Request::Commit { group, commit });
    }

    /// A commit for the newest epoch, or one before.
    fn plan_commit(
        &self,
        group: usize,
        by: usize,
        what: Committed,
        is_behind: bool,
    ) -> Option<(Rc<EpochState>, CommitPlan)> {
        let ledger = &self.ledger.groups[group];
        let newest = ledger.newest()?;
        let state = match ledger.epochs.len().checked_sub(2) {
            Some(before) if is_behind => &ledger.epochs[before],
            _ => newest,
        };
        let members = state.members();
        let by = members[by % members.len()].0;
        let content = match what {
            Committed::Path(variant) => CommitContent::Path(variant),
            Committed::Add(guest, package) => {
                let client = guests().nth(guest)?;
                if state.has_member(client) {
                    return None;
                }
                CommitContent::Add(client, package)
            }
            Committed::Remove(nth) => {
                let removed = members[nth % members.len()].0;
                // The regular members stay.
                if removed == by || removed < NODES as u32 {
                    return None;
                }
                CommitContent::Remove(removed)
            }
            Committed::Pending => {
                let mut changed = BTreeSet::from([by]);
                let mut added = BTreeSet::new();
                let mut plans: Vec<ProposalPlan> = Vec::new();
                for proposal in ledger.pending() {
                    let is_apart = match proposal.plan.content {
                        ProposalContent::Update => changed.insert(proposal.plan.by),
                        ProposalContent::Remove(leaf) => changed.insert(leaf),
                        ProposalContent::Add(client, _) => added.insert(client) && !state.has_member(client),
                    };
                    if is_apart && proposal.epoch == state.number {
                        plans.push(proposal.plan.clone());
                    }
                }
                if plans.is_empty() {
                    return None;
                }
                CommitContent::References(plans)
            }
        };
        Some((Rc::clone(state), CommitPlan { by, content }))
    }

    fn plan_proposal(
        &self,
        group: usize,
        by: usize,
        what: Proposed,
    ) -> Option<(Rc<EpochState>, ProposalPlan)> {
        let state = self.ledger.groups[group].newest()?;
        let members = state.members();
        let by = members[by % members.len()].0;
        let content = match what {
            Proposed::Update => ProposalContent::Update,
            Proposed::Add(guest, package) => {
                let client = guests().nth(guest)?;
                if state.has_member(client) {
                    return None;
                }
                ProposalContent::Add(client, package)
            }
            Proposed::Remove(nth) => {
                let removed = members[nth % members.len()].0;
                if removed < NODES as u32 {
                    return None;
                }
                ProposalContent::Remove(removed)
            }
        };
        Some((Rc::clone(state), ProposalPlan { by, content }))
    }

    /// Sends a new request.
    fn ask(&mut self, at: usize, request: Request) {
        self.requests.push(request.clone());
        self.send(at, request);
    }

    fn send(&mut self, at: usize, request: Request) {
        self.unanswered += 1;
        let (network, happening, messages) =
            (Rc::clone(&self.network), self.happening.clone(), Rc::clone(&self.messages));
        let group = request.group().map(|group| self.ledger.groups[group].id.clone());
        self.outside.spawn_local(async move {
            let answer = request.perform(&network, &messages, at, group).await;
            let _ = happening.send(Happening::Answered(request, answer));
        });
    }

    fn answered(&mut self, request: &Request, answer: Answer) -> Checked {
        // What was acknowledged must be on the disk by now.
        match (request, answer) {
            (Request::Create { group }, Answer::Created(answer)) => {
                self.ledger.creation_answered(*group, &answer)?;
                self.recheck(self.ledger.groups[*group].hub)
            }
            (Request::Commit { group, commit }, Answer::Committed(answer)) => {
                self.check()?;
                self.ledger.commit_answered(*group, commit, &answer)?;
                self.recheck(self.ledger.groups[*group].hub)
            }
            (Request::Propose { group, proposal }, Answer::Proposed(answer)) => {
                self.check()?;
                self.ledger.proposal_answered(*group, proposal, &answer)?;
                self.recheck(self.ledger.groups[*group].hub)
            }
            (Request::Register { client }, Answer::Registered(answer)) => match answer {
                Ok(id) | Err(ClientError::HandleTaken { client: id }) => {
                    let before = self.ledger.clients.insert(*client, id);
                    if before.is_some_and(|before| before != id) {
                        return violated("a client keeps its id", format!("client {client}"));
                    }
                    Ok(())
                }
                Err(ClientError::Stopping | ClientError::Busy) => Ok(()),
                Err(error) => violated("what is valid is accepted", format!("a client: {error:?}")),
            },
            (Request::MakeQueue { client, .. }, Answer::MadeQueue(answer)) => match answer {
                Ok(queue) | Err(KeyQueueError::QueueExists { queue }) => {
                    match self.ledger.queues.get(client).map(|known| known.id) {
                        Some(known) if known != queue => {
                            violated("a queue keeps its id", format!("client {client}"))
                        }
                        Some(_) => Ok(()),
                        None => {
                            self.ledger.made_queue(*client, queue);
                            Ok(())
                        }
                    }
                }
                Err(KeyQueueError::Stopping | KeyQueueError::Busy) => Ok(()),
                Err(error) => violated("what is valid is accepted", format!("a queue: {error:?}")),
            },
            (Request::UploadPackages { .. }, Answer::Uploaded(answer)) => match answer {
                Ok(_)
                | Err(KeyQueueError::Stopping | KeyQueueError::Busy | KeyQueueError::InvalidKeyPackages(_)) => {
                    Ok(())
                }
                Err(error) => violated("what is valid is accepted", format!("key packages: {error:?}")),
            },
            (Request::Assign { client, receiver, .. }, Answer::Assigned(answer)) => match answer {
                Ok(assigned) => {
                    self.check()?;
                    self.assignments += 1;
                    let packages = self.messages.packages(*client);
                    let given = packages.iter().find(|package| package.message == assigned.key_package);
                    let Some(given) = given else {
                        return violated("a package is one that was uploaded", format!("client {client}"));
                    };
                    let reference = given.reference.clone();
                    self.ledger.assigned(*client, *receiver, &reference)
                }
                Err(KeyQueueError::Stopping | KeyQueueError::Busy | KeyQueueError::NoKeyPackage) => Ok(()),
                Err(error) => violated("what is valid is accepted", format!("an assignment: {error:?}")),
            },
            (Request::Acknowledge { client, group, epoch, .. }, Answer::Acknowledged(answer)) => match answer
            {
                Ok(()) => {
                    self.ledger.acknowledges(*client, *group, *epoch, true);
                    self.recheck(node_of(*client))
                }
                Err(ClientError::Stopping | ClientError::Busy) => Ok(()),
                Err(error) => violated("what is valid is accepted", format!("a welcome: {error:?}")),
            },
            (Request::Delete { group }, Answer::Deleted(answer)) => match answer {
                Ok(()) => {
                    self.ledger.groups[*group].deletion = Deletion::Acknowledged;
                    self.recheck(self.ledger.groups[*group].hub)
                }
                Err(GroupError::Stopping | GroupError::Busy | GroupError::UnknownGroup) => Ok(()),
                Err(error) => violated("what is valid is accepted", format!("a deletion: {error:?}")),
            },
            (_, answer) => violated("an answer fits its request", format!("{answer:?}")),
        }
    }

    /// Checks a gateway though it may have written nothing.
    fn recheck(&mut self, node: usize) -> Checked {
        self.ledger.forget_check(node);
        self.check_disks()
    }

    /// Nothing goes wrong any more, and everything must arrive.
    async fn end(&mut self) -> Checked {
        self.network.is_healed.set(true);
        self.network.cut_off.set(Default::default());
        // An entry that was accepted by a clock that was ahead reaches those that are as far.
        for machine in &self.machines {
            machine.ahead_ms.store(self.most_ahead_ms, Ordering::Relaxed);
        }
        self.start_all()?;
        self.settle().await?;
        self.compare().await?;
        (0..NODES).try_for_each(|node| self.ledger.check_streams_complete(node))?;
        if self.dice.percent(50) {
            // What is loaded again is what was there.
            for node in 0..NODES {
                self.kill(node, true)?;
            }
            self.start_all()?;
            self.settle().await?;
            self.compare().await?;
        }
        self.check()
    }

    fn start_all(&mut self) -> Checked {
        for node in 0..NODES {
            // A process that has begun is not to end any more either.
            self.machines[node].doom.set(None);
            if self.machines[node].process.as_ref().is_some_and(|process| !process.gateway.is_ready()) {
                self.kill(node, true)?;
            }
            self.start(node);
        }
        Ok(())
    }

    async fn settle(&mut self) -> Checked {
        let (since, mut has_committed) = (Instant::now(), false);
        let mut pause = Duration::from_millis(20);
        loop {
            self.run_for(pause).await?;
            self.start_all()?;
            self.check()?;
            let Some(missing) = self.missing() else { return Ok(()) };
            if self.settings.drops_history() && since.elapsed() > Duration::from_secs(35) && !has_committed {
                // A follower takes a group as a whole only from a member that it knows, and knows its creator for certain.
                has_committed = true;
                for group in 0..GROUPS {
                    let Some(newest) = self.ledger.groups[group].newest().cloned() else { continue };
                    let plan = CommitPlan { by: 0, content: CommitContent::Path(9) };
                    self.commit(group, self.ledger.groups[group].hub, &newest, &plan);
                }
            }
            if since.elapsed() > SETTLED_AFTER {
                return violated("everything arrives", missing);
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// What has not arrived yet.
    fn missing(&self) -> Option<String> {
        if self.unanswered > 0 {
            return Some(format!("{} answers", self.unanswered));
        }
        for (number, group) in self.ledger.groups.iter().enumerate() {
            let head = |node: usize| {
                let view = self.machines[node].process.as_ref()?.gateway.store().view();
                let is_there = view.group(APP, &group.id).ok()??.epoch;
                let log = snapshots::LogId::Group(APP, group.id.clone());
                Some((is_there, view.log_head(&log).ok()??))
            };
            let at_hub = head(group.hub);
            if let Some(node) = (0..NODES).find(|node| head(*node) != at_hub) {
                return Some(format!(
                    "gateway {node} is at {:?} of group {number}, its hub at {at_hub:?}",
                    head(node)
                ));
            }
        }
        for (node, peer) in (0..NODES).flat_map(|node| (0..NODES).map(move |peer| (node, peer))) {
            let view = self.machines[node].process.as_ref()?.gateway.store().view();
            if !view.outbox(&domain(peer), None, 1).ok()?.is_empty() {
                return Some(format!("gateway {node} has something for gateway {peer}"));
            }
        }
        None
    }

    /// Every client gets its waiting welcomes, each with the tree of its epoch.
    async fn fetch_welcomes(&mut self) -> Checked {
        let clients = NODES * CLIENTS_PER_NODE;
        let fetched = Rc::new(RefCell::new(Vec::new()));
        for client in 0..clients {
            let (fetched, node) = (Rc::clone(&fetched), node_of(client));
            self.spawn(node, async move |gateway: Gateway| {
                let query = JoinInfoQuery {
                    domain: Some(domain(node)),
                    after: None,
                    with_ratchet_tree: true,
                    limit: 100,
                };
                let page = gateway.welcomes(APP, &handle(client), query).await;
                fetched.borrow_mut().push((client, page));
            });
        }
        let since = Instant::now();
        while fetched.borrow().len() < clients {
            self.run_for(Duration::from_millis(5)).await?;
            if since.elapsed() > Duration::from_secs(20) {
                return violated("everything arrives", "welcomes are not fetched");
            }
        }
        for (client, page) in fetched.take() {
            match page {
                Ok(page) => self.ledger.check_fetched(client, &page.join_infos)?,
                Err(error) => return violated("what is valid is accepted", format!("welcomes: {error:?}")),
            }
        }
        Ok(())
    }

    /// All gateways show the same, which is what the members have.
    async fn compare(&mut self) -> Checked {
        self.fetch_welcomes().await?;
        let shown = Rc::new(RefCell::new(Vec::new()));
        for (node, group) in (0..NODES).flat_map(|node| (0..GROUPS).map(move |group| (node, group))) {
            let (shown, id) = (Rc::clone(&shown), self.ledger.groups[group].id.clone());
            self.spawn(node, async move |gateway: Gateway| {
                let view = gateway.group(APP, &id).await;
                shown.borrow_mut().push((node, group, view));
            });
        }
        let since = Instant::now();
        while shown.borrow().len() < NODES * GROUPS {
            self.run_for(Duration::from_millis(5)).await?;
            if since.elapsed() > Duration::from_secs(20) {
                return violated("everything arrives", "a group is not shown");
            }
        }
        for (node, group, view) in shown.take() {
            let ledger = &self.ledger.groups[group];
            match (view, ledger.newest()) {
                (Err(GroupError::UnknownGroup), None) => {}
                (Err(GroupError::UnknownGroup), Some(_)) if ledger.deletion > Deletion::None => {}
                (Ok(view), Some(newest)) if ledger.deletion < Deletion::Acknowledged => {
                    compare_views(group, newest, (node, &view), &ledger.pending())?;
                }
                (view, _) => {
                    let what = view.map(|view| view.epoch);
                    return violated(
                        "replicas are equal",
                        format!("gateway {node} shows {what:?} of group {group}"),
                    );
                }
            }
        }
        Ok(())
    }
}

impl Request {
    fn group(&self) -> Option<usize> {
        match self {
            Self::Create { group }
            | Self::Commit { group, .. }
            | Self::Propose { group, .. }
            | Self::Acknowledge { group, .. }
            | Self::Delete { group } => Some(*group),
            _ => None,
        }
    }

    /// The only gateway that takes it, if there is one.
    fn place(&self, ledger: &Ledger) -> Option<usize> {
        match self {
            Self::Commit { .. } => None,
            Self::Propose { proposal, .. } => proposal.place(),
            Self::Create { group } | Self::Delete { group } => Some(ledger.groups[*group].hub),
            Self::Register { client }
            | Self::MakeQueue { client, .. }
            | Self::UploadPackages { client, .. }
            | Self::Assign { client, .. }
            | Self::Acknowledge { client, .. } => Some(node_of(*client)),
        }
    }

    fn kind(&self) -> (u8, Option<usize>) {
        let kind = match self {
            Self::Create { .. } => 0,
            Self::Commit { .. } => 1,
            Self::Propose { .. } => 2,
            Self::Register { .. } => 3,
            Self::MakeQueue { .. } => 4,
            Self::UploadPackages { .. } => 5,
            Self::Assign { .. } => 6,
            Self::Acknowledge { .. } => 7,
            Self::Delete { .. } => 8,
        };
        (kind, self.group())
    }

    /// Sends it to a gateway, which passes it on to the hub as its edge would; `None` if the request or the answer was lost.
    async fn perform(
        &self,
        network: &Network,
        messages: &Messages,
        at: usize,
        group: Option<actors::GroupId>,
    ) -> Option<Answer> {
        let here = (at, at);
        let source = Source::Application;
        let by_peer = Source::Peer(BTreeSet::from([domain(at)]));
        let of_domain = |hub: &actors::DomainName| (0..NODES).find(|node| domain(*node) == *hub);
        match self.clone() {
            Self::Create { group } => {
                let new = messages.group(group).creation();
                let ask = async move |gateway: Gateway| gateway.create_group(APP, new, source).await;
                network.ask(here, ask).await.map(Answer::Created)
            }
            Self::Commit { commit, .. } => {
                let group = group?;
                let (bundle, id) = (commit.bundle.clone(), group.clone());
                let ask = async move |gateway: Gateway| gateway.upload_commit(APP, &id, bundle, source).await;
                let mut answer = network.ask(here, ask).await?;
                if let Err(GroupError::NotHub { hub }) = &answer {
                    let hub = of_domain(hub)?;
                    let bundle = commit.bundle.clone();
                    let ask = async move |gateway: Gateway| {
                        gateway.upload_commit(APP, &group, bundle, by_peer).await
                    };
                    answer = network.ask((at, hub), ask).await?;
                }
                Some(Answer::Committed(answer))
            }
            Self::Propose { proposal, .. } => {
                let group = group?;
                let (packet, id) = (proposal.packet.clone(), group.clone());
                let ask =
                    async move |gateway: Gateway| gateway.upload_proposal(APP, &id, packet, source).await;
                let mut answer = network.ask(here, ask).await?;
                if let Err(GroupError::NotHub { hub }) = &answer {
                    let hub = of_domain(hub)?;
                    let packet = proposal.packet.clone();
                    let ask = async move |gateway: Gateway| {
                        gateway.upload_proposal(APP, &group, packet, by_peer).await
                    };
                    answer = network.ask((at, hub), ask).await?;
                }
                Some(Answer::Proposed(answer))
            }
            Self::Register { client } => {
                let new = NewClient { handle: handle(client), domain: Some(domain(at)), tags: Vec::new() };
                let ask = async move |gateway: Gateway| gateway.register_client(APP, new).await;
                network.ask(here, ask).await.map(Answer::Registered)
            }
            Self::MakeQueue { id, .. } => {
                let new = NewKeyQueue { protocol_version: 1, cipher_suite: 1, app_label: String::new() };
                let ask = async move |gateway: Gateway| gateway.create_key_queue(APP, id, new).await;
                network.ask(here, ask).await.map(Answer::MadeQueue)
            }
            Self::UploadPackages { client, id, queue, first, count } => {
                let packages = messages.packages(client).iter().cycle().skip(first).take(count);
                let upload = KeyPackageUpload {
                    key_packages: packages.map(|package| package.message.clone()).collect(),
                    is_reset: false,
                    app_label: None,
                    final_key: None,
                };
                let ask =
                    async move |gateway: Gateway| gateway.upload_key_packages(APP, id, queue, upload).await;
                network.ask(here, ask).await.map(Answer::Uploaded)
            }
            Self::Assign { id, receiver, .. } => {
                let request = KeyPackageRequest {
                    protocol_version: 1,
                    cipher_suite: 1,
                    app_label: String::new(),
                    domain: Some(domain(at)),
                    receiver: Receiver { caller: Requester::Application, id: format!("receiver {receiver}") },
                };
                let ask = async move |gateway: Gateway| gateway.assign_key_package(APP, id, request).await;
                network.ask(here, ask).await.map(Answer::Assigned)
            }
            Self::Acknowledge { client, id, .. } => {
                let (handle, of) = (handle(client), Some(domain(at)));
                let ask =
                    async move |gateway: Gateway| gateway.acknowledge_welcome(APP, &handle, of, id).await;
                network.ask(here, ask).await.map(Answer::Acknowledged)
            }
            Self::Delete { .. } => {
                let group = group?;
                let ask = async move |gateway: Gateway| gateway.delete_group(APP, &group).await;
                network.ask(here, ask).await.map(Answer::Deleted)
            }
        }
    }
}
