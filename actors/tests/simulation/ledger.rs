//! What clients were told and what stands on the disks, and the conditions that must hold between them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    rc::Rc,
    sync::Arc,
};

use actors::{
    AcceptedCommit, AcceptedProposal, ClientId, DeliveryId, EntryContent, Epoch, Event, Gateway, GroupError,
    GroupId, JoinInfo, KeyPackageRef, KeyQueueId, Outcome, Rule, Timestamp,
};
use snapshots::{LogId, View};

use crate::{
    gateways::{APP, domain},
    messages::{
        ClientNumber, CommitContent, EpochState, GROUPS, Messages, NODES, PlannedCommit, PlannedProposal,
        ProposalContent, ProposalPlan, handle, node_of,
    },
};

/// A condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) condition: &'static str,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.condition, self.detail)
    }
}

pub(crate) type Checked = Result<(), Violation>;

pub(crate) fn violated<T>(condition: &'static str, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { condition, detail: detail.into() })
}

macro_rules! hold {
    ($holds:expr, $condition:expr, $($detail:tt)*) => {
        if !$holds {
            return violated($condition, format!($($detail)*));
        }
    };
}

/// What of a gateway's disk is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The groups that it orders.
    OwnGroups,
    All,
}

/// What an entry of a group's log is.
#[derive(Clone)]
pub(crate) enum Entry {
    Creation,
    Commit(Rc<PlannedCommit>),
    Proposal(Rc<PlannedProposal>),
}

/// A group's log, as its hub has it on its disk.
pub(crate) struct GroupLedger {
    pub(crate) first: Rc<EpochState>,
    pub(crate) id: GroupId,
    pub(crate) hub: usize,
    pub(crate) entries: Vec<(Timestamp, Entry)>,
    /// The epochs that it went through.
    pub(crate) epochs: Vec<Rc<EpochState>>,
    /// What was sent, by packet.
    sent: HashMap<Vec<u8>, Entry>,
    /// The answers to commits, by the epoch that they began.
    acknowledged: BTreeMap<u64, (Rc<PlannedCommit>, Timestamp)>,
    acknowledged_proposals: Vec<Rc<PlannedProposal>>,
    is_creation_acknowledged: bool,
    /// An answer has said that the creation was new. Answers to repeats that are on their way may come before it.
    is_creation_new: bool,
    pub(crate) deletion: Deletion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deletion {
    None,
    Asked,
    Acknowledged,
}

/// A welcome that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Welcome {
    Waiting,
    /// Its acknowledgement was sent, and maybe lost.
    Acknowledging,
    Acknowledged,
}

/// How far the checks of one gateway are.
#[derive(Default)]
struct NodeLedger {
    /// The disk batches at the last check.
    batches: Option<u64>,
    groups: [GroupProgress; GROUPS],
    /// Join infos, by client, group and epoch.
    welcomes: BTreeMap<(ClientNumber, usize, u64), (Welcome, Option<DeliveryId>)>,
    told_welcomes: BTreeSet<(ClientNumber, usize, u64)>,
}

#[derive(Clone, Default)]
struct GroupProgress {
    /// The number of entries that were on its disk at some time.
    held: u64,
    /// The next entry to compare.
    next: u64,
    /// Whether it received the state of the group as a whole.
    is_transferred: bool,
    /// The next entry that the application's stream tells of; `None` before it told of the group.
    told: Option<u64>,
    /// The same for a stream of the group.
    group_told: Option<u64>,
}

pub(crate) struct Queue {
    pub(crate) id: KeyQueueId,
    /// What each receiver was given last.
    assigned: BTreeMap<u8, KeyPackageRef>,
    receivers: HashMap<KeyPackageRef, u8>,
}

pub(crate) struct Ledger {
    pub(crate) groups: Vec<GroupLedger>,
    nodes: [NodeLedger; NODES],
    /// Where each hub used a key package.
    used: HashMap<(usize, KeyPackageRef), (usize, u64)>,
    pub(crate) clients: BTreeMap<ClientNumber, ClientId>,
    pub(crate) queues: BTreeMap<ClientNumber, Queue>,
    drops_history: bool,
    /// Gateways that have stopped answering since their disk was read last.
    unread: [bool; NODES],
}

impl Ledger {
    pub(crate) fn new(messages: &Messages, drops_history: bool) -> Self {
        let groups = (0..GROUPS).map(|number| {
            let first = messages.group(number);
            GroupLedger {
                id: first.id(),
                hub: number % NODES,
                entries: Vec::new(),
                epochs: Vec::new(),
                sent: HashMap::new(),
                acknowledged: BTreeMap::new(),
                acknowledged_proposals: Vec::new(),
                is_creation_acknowledged: false,
                is_creation_new: false,
                deletion: Deletion::None,
                first,
            }
        });
        Self {
            groups: groups.collect(),
            nodes: Default::default(),
            used: HashMap::new(),
            clients: BTreeMap::new(),
            queues: BTreeMap::new(),
            drops_history,
            unread: [false; NODES],
        }
    }

    fn number_of(&self, group: &GroupId) -> Result<usize, Violation> {
        let number = self.groups.iter().position(|known| known.id == *group);
        number.map_or_else(|| violated("no group that nobody made", format!("{group:?}")), Ok)
    }

    pub(crate) fn sends_commit(&mut self, group: usize, commit: &Rc<PlannedCommit>) {
        self.groups[group].sent.insert(commit.bundle.commit.clone(), Entry::Commit(Rc::clone(commit)));
    }

    pub(crate) fn sends_proposal(&mut self, group: usize, proposal: &Rc<PlannedProposal>) {
        self.groups[group].sent.insert(proposal.packet.to_vec(), Entry::Proposal(Rc::clone(proposal)));
    }

    pub(crate) fn creation_answered(
        &mut self,
        group: usize,
        answer: &Result<actors::CreatedGroup, GroupError>,
    ) -> Checked {
        let ledger = &mut self.groups[group];
        match answer {
            Ok(created) => {
                hold!(
                    created.outcome == Outcome::Repeated || !ledger.is_creation_new,
                    "a repeated request is answered as the first",
                    "group {group} was created twice"
                );
                ledger.is_creation_acknowledged = true;
                ledger.is_creation_new |= created.outcome == Outcome::New;
                Ok(())
            }
            Err(GroupError::GroupExists | GroupError::UnknownGroup) if ledger.deletion > Deletion::None => {
                Ok(())
            }
            Err(error) => unless_unavailable(error, "the creation of a group"),
        }
    }

    pub(crate) fn commit_answered(
        &mut self,
        group: usize,
        commit: &Rc<PlannedCommit>,
        answer: &Result<AcceptedCommit, GroupError>,
    ) -> Checked {
        let hub = self.groups[group].hub;
        let references_missing = self.lacks_references(group, commit);
        let ledger = &mut self.groups[group];
        match answer {
            Ok(accepted) => {
                hold!(
                    accepted.epoch.0 == commit.epoch + 1,
                    "a commit begins the epoch after its own",
                    "group {group}: {:?} for {}",
                    accepted.epoch,
                    commit.epoch
                );
                let before = ledger.acknowledged.get(&accepted.epoch.0);
                if let Some((winner, timestamp)) = before {
                    hold!(
                        Rc::ptr_eq(winner, commit),
                        "one commit wins an epoch",
                        "group {group}, epoch {}: {:?} and {:?}",
                        accepted.epoch.0,
                        winner.plan,
                        commit.plan
                    );
                    hold!(
                        *timestamp == accepted.timestamp,
                        "a repeated request is answered as the first",
                        "group {group}, epoch {}: accepted at {timestamp} and at {}",
                        accepted.epoch.0,
                        accepted.timestamp
                    );
                }
                ledger.acknowledged.insert(accepted.epoch.0, (Rc::clone(commit), accepted.timestamp));
                Ok(())
            }
            Err(GroupError::StaleEpoch { .. }) => {
                hold!(
                    !ledger
                        .acknowledged
                        .get(&(commit.epoch + 1))
                        .is_some_and(|(won, _)| Rc::ptr_eq(won, commit))
                        || self.drops_history,
                    "a repeated request is answered as the first",
                    "group {group}: {:?} won, and is stale when it is sent again",
                    commit.plan
                );
                Ok(())
            }
            Err(GroupError::FutureEpoch { .. }) => {
                // An entry that nobody was told of may still be unknown to the gateway that refuses this one.
                violated("an epoch that was shown stays", format!("group {group}: {answer:?}"))
            }
            Err(GroupError::KeyPackageReused { reference, .. }) => {
                let is_used = self.used.contains_key(&(hub, reference.clone()));
                hold!(
                    is_used || commit.added.iter().any(|(_, added)| added == reference),
                    "a refusal has its reason",
                    "group {group}: {answer:?}"
                );
                Ok(())
            }
            Err(GroupError::InvalidCommit { rule: Rule::KnownProposals, .. }) if references_missing => Ok(()),
            Err(GroupError::UnknownGroup) => Ok(()),
            Err(error) => unless_unavailable(error, "a commit"),
        }
    }

    /// Whether a commit takes proposals by reference that the hub does not have for certain.
    fn lacks_references(&self, group: usize, commit: &PlannedCommit) -> bool {
        let CommitContent::References(plans) = &commit.plan.content else { return false };
        let known = |plan: &ProposalPlan| {
            self.groups[group]
                .acknowledged_proposals
                .iter()
                .any(|proposal| proposal.epoch == commit.epoch && proposal.plan == *plan)
        };
        !plans.iter().all(known)
    }

    pub(crate) fn proposal_answered(
        &mut self,
        group: usize,
        proposal: &Rc<PlannedProposal>,
        answer: &Result<AcceptedProposal, GroupError>,
    ) -> Checked {
        match answer {
            Ok(accepted) => {
                hold!(
                    accepted.epoch.0 == proposal.epoch,
                    "a proposal is of its epoch",
                    "group {group}: {accepted:?} for {}",
                    proposal.epoch
                );
                self.groups[group].acknowledged_proposals.push(Rc::clone(proposal));
                Ok(())
            }
            Err(GroupError::StaleEpoch { .. } | GroupError::UnknownGroup) => Ok(()),
            Err(GroupError::KeyPackageReused { .. })
                if matches!(proposal.plan.content, ProposalContent::Add(..)) =>
            {
                Ok(())
            }
            Err(error) => unless_unavailable(error, "a proposal"),
        }
    }

    /// A package was assigned.
    pub(crate) fn assigned(
        &mut self,
        client: ClientNumber,
        receiver: u8,
        reference: &KeyPackageRef,
    ) -> Checked {
        let is_used = |reference: &KeyPackageRef| self.used.keys().any(|(_, used)| used == reference);
        let used_before =
            self.queues[&client].assigned.get(&receiver).map(|before| (before.clone(), is_used(before)));
        let Some(queue) = self.queues.get_mut(&client) else { return Ok(()) };
        if let Some((before, is_used)) = used_before {
            hold!(
                is_used || before == *reference,
                "an assignment is repeated",
                "client {client}, receiver {receiver}: {before:?}, then {reference:?}"
            );
        }
        let other = queue.receivers.insert(reference.clone(), receiver).filter(|other| *other != receiver);
        hold!(
            other.is_none(),
            "a key package goes to one receiver",
            "client {client}: {reference:?} to {other:?} and {receiver}"
        );
        queue.assigned.insert(receiver, reference.clone());
        Ok(())
    }

    pub(crate) fn made_queue(&mut self, client: ClientNumber, id: KeyQueueId) {
        let (assigned, receivers) = Default::default();
        self.queues.insert(client, Queue { id, assigned, receivers });
    }

    /// The welcomes that wait for a client at its gateway, as far as they were found there.
    pub(crate) fn waiting(&self, client: ClientNumber) -> Vec<(usize, u64, DeliveryId)> {
        let welcomes = &self.nodes[node_of(client)].welcomes;
        let of_client = welcomes.range((client, 0, 0)..(client + 1, 0, 0));
        of_client
            .filter(|(_, (state, _))| *state < Welcome::Acknowledged)
            .filter_map(|((_, group, epoch), (_, id))| Some((*group, *epoch, (*id)?)))
            .collect()
    }

    /// Compares the welcomes that a client was given with the commits that they are of.
    pub(crate) fn check_fetched(&self, client: ClientNumber, join_infos: &[JoinInfo]) -> Checked {
        let node = node_of(client);
        let waiting: BTreeSet<(usize, u64)> = self.nodes[node]
            .welcomes
            .range((client, 0, 0)..(client + 1, 0, 0))
            .filter(|(_, (state, _))| *state == Welcome::Waiting)
            .map(|((_, group, epoch), _)| (*group, *epoch))
            .collect();
        let mut given = BTreeSet::new();
        for join_info in join_infos {
            let group = self.number_of(&join_info.group)?;
            let ledger = &self.groups[group];
            let place = join_info.epoch.0 as usize;
            let commit = ledger.entries.iter().find_map(|(_, entry)| match entry {
                Entry::Commit(commit) if commit.epoch + 1 == join_info.epoch.0 => Some(commit),
                _ => None,
            });
            let is_welcome =
                commit.is_some_and(|commit| commit.bundle.welcome.as_deref() == Some(&*join_info.welcome));
            hold!(
                is_welcome,
                "a welcome is that of its commit",
                "client {client}, group {group}, epoch {place}"
            );
            let tree = join_info.ratchet_tree.as_deref();
            let is_tree = tree == ledger.epochs.get(place).map(|epoch| epoch.tree_bytes()).as_deref();
            hold!(
                is_tree || self.nodes[node].groups[group].is_transferred,
                "a welcome comes with the tree of its epoch",
                "client {client}, group {group}, epoch {place}"
            );
            given.insert((group, join_info.epoch.0));
        }
        let missing = waiting.difference(&given).find(|(group, _)| {
            !self.nodes[node].groups[*group].is_transferred && self.groups[*group].deletion == Deletion::None
        });
        hold!(
            missing.is_none(),
            "a welcome waits until it is acknowledged",
            "client {client} is not given that of (group, epoch) {missing:?}"
        );
        Ok(())
    }

    pub(crate) fn acknowledges(&mut self, client: ClientNumber, group: usize, epoch: u64, is_answered: bool) {
        if let Some((state, _)) = self.nodes[node_of(client)].welcomes.get_mut(&(client, group, epoch)) {
            let next = if is_answered { Welcome::Acknowledged } else { Welcome::Acknowledging };
            *state = next.max(*state);
        }
    }

    /// The process of a gateway is another one: everything is compared again.
    pub(crate) fn restarted(&mut self, node: usize) {
        self.nodes[node].batches = None;
        for progress in &mut self.nodes[node].groups {
            progress.next = 0;
        }
    }

    /// What a gateway has on its disk is compared although it may have written nothing.
    pub(crate) fn forget_check(&mut self, node: usize) {
        self.nodes[node].batches = None;
    }

    /// Checks what a gateway has on its disk, if it has written something since.
    pub(crate) fn check(&mut self, node: usize, gateway: &Gateway, batches: u64, part: Part) -> Checked {
        if self.nodes[node].batches == Some(batches) {
            return Ok(());
        }
        self.unread[node] = !gateway.is_ready();
        if self.unread[node] {
            return Ok(());
        }
        let view = gateway.store().view();
        for group in 0..GROUPS {
            if part == Part::All || self.groups[group].hub == node {
                self.check_group(node, group, gateway, &view)?;
            }
        }
        if part == Part::OwnGroups {
            return Ok(());
        }
        self.check_welcomes(node, &view)?;
        self.nodes[node].batches = Some(batches);
        Ok(())
    }

    fn check_group(&mut self, node: usize, group: usize, gateway: &Gateway, view: &View) -> Checked {
        let Self { groups, nodes, used, drops_history, unread, .. } = self;
        let ledger = &mut groups[group];
        let NodeLedger { groups: progresses, welcomes, .. } = &mut nodes[node];
        let progress = &mut progresses[group];
        let head = view.log_head(&LogId::Group(APP, ledger.id.clone())).unwrap();
        let Some(head) = head.filter(|_| view.group(APP, &ledger.id).unwrap().is_some()) else {
            hold!(
                progress.held == 0 || ledger.deletion > Deletion::None,
                "nothing that was shown is lost",
                "gateway {node} has nothing of group {group}, and had {} entries",
                progress.held
            );
            return if node == ledger.hub { ledger.check_created(group) } else { Ok(()) };
        };
        hold!(
            ledger.deletion < Deletion::Acknowledged || node != ledger.hub,
            "a deleted group stays deleted",
            "group {group} is at its hub"
        );
        hold!(
            head + 1 >= progress.held,
            "nothing that was shown is lost",
            "gateway {node} is at entry {head} of group {group}, and had {} entries",
            progress.held
        );
        progress.held = head + 1;
        if node == ledger.hub && ledger.entries.is_empty() {
            ledger.entries.push((Timestamp(0), Entry::Creation));
            ledger.epochs.push(Rc::clone(&ledger.first));
        }
        progress.next = progress.next.max(1);
        while progress.next <= head {
            let found = match gateway.entries_after(APP, &ledger.id, progress.next - 1, 64) {
                Ok(found) => found.entries.unwrap_or_default(),
                Err(error) => return violated("a log can be read", format!("gateway {node}: {error}")),
            };
            if found.is_empty() {
                // It was never here, or is kept no longer.
                hold!(
                    *drops_history,
                    "nothing that was shown is lost",
                    "gateway {node} has no entry {} of group {group}, and is at {head}",
                    progress.next
                );
                progress.is_transferred |= node != ledger.hub;
                progress.next += 1;
                continue;
            }
            for logged in found {
                let (number, timestamp) = (logged.entry.sequence, logged.entry.timestamp);
                hold!(
                    number == progress.next,
                    "a log has no gap",
                    "gateway {node}, group {group}: {number} in the place of {}",
                    progress.next
                );
                if number as usize >= ledger.entries.len() && unread[ledger.hub] {
                    // It is compared when the hub can be read again.
                    return Ok(());
                }
                progress.next += 1;
                let packet = match &logged.entry.content {
                    EntryContent::Creation(_) => continue,
                    EntryContent::Commit(bundle) => bundle.commit.clone(),
                    EntryContent::Proposal { packet } => packet.to_vec(),
                };
                let Some(entry) = ledger.sent.get(&packet).cloned() else {
                    return violated("an entry is what was sent", format!("group {group}, entry {number}"));
                };
                match ledger.entries.get(number as usize) {
                    Some((known_at, known)) => hold!(
                        *known_at == timestamp && known.is(&entry),
                        "replicas are equal",
                        "gateway {node}, group {group}, entry {number}: {entry:?} at {timestamp}, and {known:?} at \
                         {known_at} at the hub before"
                    ),
                    None => {
                        hold!(
                            node == ledger.hub && number as usize == ledger.entries.len(),
                            "a follower has what its hub has",
                            "gateway {node}, group {group}: entry {number} {entry:?}; the hub has {}",
                            ledger.entries.len()
                        );
                        ledger.take(group, (timestamp, entry.clone()), used)?;
                    }
                }
                if let Entry::Commit(commit) = &entry {
                    for (client, _) in commit.added.iter().filter(|(client, _)| node_of(*client) == node) {
                        let due = (*client, group, commit.epoch + 1);
                        welcomes.entry(due).or_insert((Welcome::Waiting, None));
                    }
                }
            }
        }
        if node == ledger.hub { ledger.check_acknowledged(group) } else { Ok(()) }
    }

    fn check_welcomes(&mut self, node: usize, view: &View) -> Checked {
        let clients: BTreeSet<ClientNumber> =
            self.nodes[node].welcomes.keys().map(|(client, ..)| *client).collect();
        let domain = domain(node);
        for client in clients {
            let found = view.join_infos_in(APP, &handle(client), Some(&domain), None, 1000).unwrap();
            let mut there = BTreeMap::new();
            for (id, info) in found {
                let group = self.number_of(&info.group)?;
                let twice = there.insert((client, group, info.epoch.0), id);
                hold!(
                    twice.is_none(),
                    "a welcome waits once",
                    "gateway {node}, client {client}, group {group}, epoch {}",
                    info.epoch.0
                );
            }
            for (place, id) in &there {
                let is_transferred = self.nodes[node].groups[place.1].is_transferred;
                match self.nodes[node].welcomes.get_mut(place) {
                    Some((Welcome::Acknowledged, _)) => {
                        return violated(
                            "an acknowledged welcome is gone",
                            format!("gateway {node}: (client, group, epoch) {place:?}"),
                        );
                    }
                    Some((_, known)) => {
                        hold!(
                            known.is_none_or(|known| known == *id) || is_transferred,
                            "a welcome keeps its id",
                            "gateway {node}: (client, group, epoch) {place:?}: {known:?} and {id:?}"
                        );
                        *known = Some(*id);
                    }
                    None => hold!(
                        is_transferred || self.drops_history,
                        "a welcome has its commit",
                        "gateway {node}: (client, group, epoch) {place:?}"
                    ),
                }
            }
            let due = self.nodes[node].welcomes.range((client, 0, 0)..(client + 1, 0, 0));
            for (place, (state, _)) in due {
                let is_lenient = self.nodes[node].groups[place.1].is_transferred
                    || self.groups[place.1].deletion > Deletion::None;
                hold!(
                    *state > Welcome::Waiting || there.contains_key(place) || is_lenient,
                    "a welcome waits until it is acknowledged",
                    "gateway {node}: (client, group, epoch) {place:?}"
                );
            }
        }
        Ok(())
    }

    /// An event of the application's stream.
    pub(crate) fn told(&mut self, node: usize, event: &Event) -> Checked {
        let condition = "a stream has no gap and no repetition";
        match event {
            Event::GroupCreated { group } => {
                let group = self.number_of(group)?;
                let told = &mut self.nodes[node].groups[group].told;
                hold!(told.is_none(), condition, "gateway {node}: group {group} was created twice");
                *told = Some(1);
            }
            Event::GroupReplaced { group, sequence } => {
                let group = self.number_of(group)?;
                self.nodes[node].groups[group].told = Some(sequence + 1);
                self.nodes[node].groups[group].is_transferred = true;
            }
            Event::Proposal { group, sequence, .. } | Event::Epoch { group, sequence, .. } => {
                let group = self.number_of(group)?;
                let GroupProgress { told, is_transferred, .. } = self.nodes[node].groups[group];
                hold!(
                    told == Some(*sequence) || (is_transferred && told == Some(1)),
                    condition,
                    "gateway {node}, group {group}: entry {sequence}, not {told:?}"
                );
                self.nodes[node].groups[group].told = Some(sequence + 1);
                self.check_told(group, event)?;
            }
            Event::Welcome { handle: told, domain: told_domain, group, epoch, .. } => {
                let group = self.number_of(group)?;
                let is_it = |client: &usize| {
                    handle(*client) == *told && Some(domain(node_of(*client))) == *told_domain
                };
                let clients = 0..NODES * crate::messages::CLIENTS_PER_NODE;
                let Some(client) = clients.into_iter().find(is_it) else {
                    return violated("a welcome has its commit", format!("{event:?}"));
                };
                let is_new = self.nodes[node].told_welcomes.insert((client, group, epoch.0));
                let is_transferred = self.nodes[node].groups[group].is_transferred;
                hold!(is_new || is_transferred, condition, "gateway {node}: {event:?} twice");
            }
            Event::GroupDeleted { group } => {
                let group = self.number_of(group)?;
                hold!(
                    self.groups[group].deletion > Deletion::None,
                    "nothing that was shown is lost",
                    "gateway {node}: group {group} was deleted"
                );
            }
            // Nobody reports an epoch here.
            Event::EpochReported { .. } | Event::KeyPackages { .. } => {}
        }
        Ok(())
    }

    /// An event of a group's stream.
    pub(crate) fn told_of_group(&mut self, node: usize, group: usize, event: &Event) -> Checked {
        if let Event::Proposal { sequence, .. } | Event::Epoch { sequence, .. } = event {
            let told = &mut self.nodes[node].groups[group].group_told;
            hold!(
                told.is_none_or(|told| told == *sequence),
                "a stream has no gap and no repetition",
                "gateway {node}, stream of group {group}: entry {sequence}, not {told:?}"
            );
            *told = Some(sequence + 1);
            self.check_told(group, event)?;
        }
        Ok(())
    }

    /// A stream of a group begins anew, as far as it may.
    pub(crate) fn reset_group_stream(&mut self, node: usize, group: usize) -> Checked {
        let progress = &mut self.nodes[node].groups[group];
        let may =
            self.drops_history || progress.is_transferred || self.groups[group].deletion > Deletion::None;
        hold!(
            may,
            "a stream has no gap and no repetition",
            "gateway {node}: the stream of group {group} begins anew"
        );
        progress.group_told = None;
        Ok(())
    }

    /// Compares an event with the entry that it tells of.
    fn check_told(&self, group: usize, event: &Event) -> Checked {
        let sequence = match event {
            Event::Proposal { sequence, .. } | Event::Epoch { sequence, .. } => *sequence,
            _ => return Ok(()),
        };
        let entry = self.groups[group].entries.get(sequence as usize);
        let fits = match (event, entry) {
            (Event::Proposal { epoch, .. }, Some((_, Entry::Proposal(proposal)))) => {
                epoch.0 == proposal.epoch
            }
            (Event::Epoch { epoch, timestamp, .. }, Some((at, Entry::Commit(commit)))) => {
                epoch.0 == commit.epoch + 1 && at == timestamp
            }
            // It was told before the disks were compared, which follows at once.
            (_, None) => true,
            (_, Some(_)) => false,
        };
        hold!(fits, "an event is what its entry is", "group {group}: {event:?}, entry {:?}", entry);
        Ok(())
    }

    /// Where a gateway's streams must have got to in the end.
    pub(crate) fn check_streams_complete(&self, node: usize) -> Checked {
        for (group, ledger) in self.groups.iter().enumerate() {
            let progress = &self.nodes[node].groups[group];
            if ledger.deletion > Deletion::None || ledger.entries.is_empty() {
                continue;
            }
            let end = ledger.entries.len() as u64;
            // A group that a follower is first sent as a whole is told of as created, as of whatever entry.
            let is_first_sent_whole = progress.is_transferred && progress.told == Some(1);
            hold!(
                progress.told == Some(end) || is_first_sent_whole,
                "a stream has no gap and no repetition",
                "gateway {node} told of group {group} up to {:?}, of {end}",
                progress.told
            );
            if progress.is_transferred {
                continue;
            }
            for place in self.nodes[node].welcomes.keys().filter(|(_, of, _)| *of == group) {
                hold!(
                    self.nodes[node].told_welcomes.contains(place),
                    "a welcome is told",
                    "gateway {node}: (client, group, epoch) {place:?}"
                );
            }
        }
        Ok(())
    }

    pub(crate) fn is_transferred(&self, node: usize, group: usize) -> bool {
        self.nodes[node].groups[group].is_transferred
    }

    pub(crate) fn holds(&self, node: usize, group: usize) -> bool {
        self.nodes[node].groups[group].held > 0
    }
}

impl GroupLedger {
    /// The newest epoch that the hub has on its disk.
    pub(crate) fn newest(&self) -> Option<&Rc<EpochState>> {
        self.epochs.last()
    }

    /// The proposals of the newest epoch that the hub has.
    pub(crate) fn pending(&self) -> Vec<Rc<PlannedProposal>> {
        let epoch = self.newest().map_or(0, |newest| newest.number);
        let of_epoch = self.entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Proposal(proposal) if proposal.epoch == epoch => Some(Rc::clone(proposal)),
            _ => None,
        });
        of_epoch.collect()
    }

    /// Takes a new entry of the hub's log.
    fn take(
        &mut self,
        group: usize,
        (timestamp, entry): (Timestamp, Entry),
        used: &mut HashMap<(usize, KeyPackageRef), (usize, u64)>,
    ) -> Checked {
        let newest = self.newest().map_or(0, |newest| newest.number);
        match &entry {
            Entry::Commit(commit) => {
                hold!(
                    commit.epoch == newest,
                    "one commit wins an epoch",
                    "group {group}: {:?} of epoch {}, in {newest}",
                    commit.plan,
                    commit.epoch
                );
                let is_child = self.epochs.last().is_some_and(|state| state.has_made(commit));
                hold!(
                    is_child,
                    "a commit follows on the state it was made for",
                    "group {group}: {:?}",
                    commit.plan
                );
                for (_, reference) in &commit.added {
                    let place = (group, commit.epoch);
                    let before = used.insert((self.hub, reference.clone()), place);
                    hold!(
                        before.is_none(),
                        "no key package is used twice",
                        "{reference:?} in (group, epoch) {before:?} and {place:?}"
                    );
                }
                self.epochs.push(Rc::clone(&commit.next));
            }
            Entry::Proposal(proposal) => {
                hold!(
                    proposal.epoch == newest,
                    "a proposal is of its epoch",
                    "group {group}: {:?} of epoch {}, in {newest}",
                    proposal.plan,
                    proposal.epoch
                );
            }
            Entry::Creation => {}
        }
        let last = self.entries.last().map(|(last, _)| *last);
        hold!(
            last.is_none_or(|last| last <= timestamp),
            "time does not go back in a log",
            "group {group}: {timestamp} after {last:?}"
        );
        self.entries.push((timestamp, entry));
        Ok(())
    }

    /// Everything that was acknowledged is on the hub's disk.
    fn check_acknowledged(&self, group: usize) -> Checked {
        for (epoch, (commit, timestamp)) in &self.acknowledged {
            let found = self.entries.iter().find_map(|(at, entry)| match entry {
                Entry::Commit(found) if found.epoch + 1 == *epoch => Some((at, found)),
                _ => None,
            });
            hold!(
                found.is_some_and(|(at, found)| at == timestamp && Rc::ptr_eq(found, commit)),
                "nothing that was acknowledged is lost",
                "group {group}, epoch {epoch}: {:?} at {timestamp}; there is {:?}",
                commit.plan,
                found.map(|(at, found)| (at, &found.plan))
            );
        }
        for proposal in &self.acknowledged_proposals {
            let is_there = self.entries.iter().any(|(_, entry)| match entry {
                Entry::Proposal(found) => Rc::ptr_eq(found, proposal),
                _ => false,
            });
            hold!(
                is_there,
                "nothing that was acknowledged is lost",
                "group {group}: {:?} of epoch {}",
                proposal.plan,
                proposal.epoch
            );
        }
        Ok(())
    }

    /// What was acknowledged though nothing of the group is known.
    pub(crate) fn check_created(&self, group: usize) -> Checked {
        hold!(
            !self.is_creation_acknowledged || !self.entries.is_empty() || self.deletion > Deletion::None,
            "nothing that was acknowledged is lost",
            "group {group} was created"
        );
        Ok(())
    }
}

impl Entry {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Creation, Self::Creation) => true,
            (Self::Commit(left), Self::Commit(right)) => Rc::ptr_eq(left, right),
            (Self::Proposal(left), Self::Proposal(right)) => Rc::ptr_eq(left, right),
            _ => false,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Creation => write!(f, "creation"),
            Self::Commit(commit) => write!(f, "commit of epoch {}: {:?}", commit.epoch, commit.plan),
            Self::Proposal(proposal) => {
                write!(f, "proposal of epoch {}: {:?}", proposal.epoch, proposal.plan)
            }
        }
    }
}

/// Accepts errors of a gateway that stops, is full, or had its disk taken away.
fn unless_unavailable(error: &GroupError, what: &str) -> Checked {
    match error {
        GroupError::Stopping | GroupError::Busy => Ok(()),
        error => violated("what is valid is accepted", format!("{what}: {error:?}")),
    }
}

/// The packets of a view's proposals.
pub(crate) fn packets(view: &actors::GroupView) -> Vec<Arc<[u8]>> {
    view.proposals.iter().map(|waiting| Arc::clone(&waiting.packet)).collect()
}

/// The epoch that a gateway shows, and what must be the same everywhere.
pub(crate) fn compare_views(
    group: usize,
    expected: &EpochState,
    (node, view): (usize, &actors::GroupView),
    proposals: &[Rc<PlannedProposal>],
) -> Checked {
    hold!(
        view.epoch == Epoch(expected.number),
        "replicas are equal",
        "gateway {node} shows epoch {:?} of group {group}, not {}",
        view.epoch,
        expected.number
    );
    hold!(
        *view.ratchet_tree() == *expected.tree_bytes(),
        "replicas are equal",
        "gateway {node} shows another tree of group {group}"
    );
    let shown: BTreeSet<Vec<u8>> = packets(view).iter().map(|packet| packet.to_vec()).collect();
    let pending: BTreeSet<Vec<u8>> = proposals.iter().map(|proposal| proposal.packet.to_vec()).collect();
    hold!(
        shown == pending,
        "replicas are equal",
        "gateway {node} shows {} proposals of group {group}, not {}",
        shown.len(),
        pending.len()
    );
    Ok(())
}
