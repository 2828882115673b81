//! The MLS messages of all histories: a tree of commits that grows from the creation of each group, made when a history first
//! needs them. A message follows from its place in the tree alone, not from the histories before.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
};

use actors::{ClientHandle, CommitBundle, GroupId, KeyPackageRef, NewGroup};
use mls_forge::{
    Client, Group, KeyPackage, Lifetime, Proposal, ProposalOrRef, PublicMessage, Randomness, Sender, Suite,
};

/// The gateways, which are called by the letters of their domains.
pub(crate) const NODES: usize = 3;
/// Clients of each gateway: the first is a member of every group from its second epoch on, the others are guests.
pub(crate) const CLIENTS_PER_NODE: usize = 3;
/// Groups; the hub of one is the gateway with its number, modulo [`NODES`].
pub(crate) const GROUPS: usize = 3;
/// Key packages that a client may upload.
pub(crate) const PACKAGES: usize = 6;

/// When all histories begin, in Unix seconds.
pub(crate) const BEGIN_S: u64 = 1_900_000_000;

const SUITE: Suite = Suite::Ed25519;
/// Epochs that are kept before the tree is begun anew, so that its memory is bounded.
const EPOCHS_KEPT: usize = 30_000;

/// A client, by its number: those of the first gateway come first.
pub(crate) type ClientNumber = usize;

/// The gateway of a client.
pub(crate) fn node_of(client: ClientNumber) -> usize {
    client / CLIENTS_PER_NODE
}

/// The guests.
pub(crate) fn guests() -> impl Iterator<Item = ClientNumber> {
    (0..NODES * CLIENTS_PER_NODE).filter(|client| !client.is_multiple_of(CLIENTS_PER_NODE))
}

/// The member of every group at a gateway.
pub(crate) fn regular(node: usize) -> ClientNumber {
    node * CLIENTS_PER_NODE
}

pub(crate) fn domain_name(node: usize) -> String {
    format!("{}.example", ["a", "b", "c"][node])
}

pub(crate) fn handle(client: ClientNumber) -> ClientHandle {
    ClientHandle::new(handle_text(client)).unwrap()
}

fn handle_text(client: ClientNumber) -> String {
    format!("client-{}", client % CLIENTS_PER_NODE)
}

/// A client whose HPKE keys follow from `place`.
fn client_at(number: ClientNumber, place: &str) -> Client {
    let name = format!("{}@{}", handle_text(number), domain_name(node_of(number)));
    let mut client = Client::new(SUITE, &name);
    client.lifetime = Lifetime::around(BEGIN_S);
    client.randomness = Randomness::new(format!("{place} {number}").as_bytes());
    client
}

/// A key package that a client made.
pub(crate) struct Package {
    pub(crate) client: ClientNumber,
    pub(crate) reference: KeyPackageRef,
    pub(crate) message: Vec<u8>,
    package: KeyPackage,
}

impl Package {
    fn new(client: ClientNumber, place: &str) -> Rc<Self> {
        let package = client_at(client, place).key_package();
        Rc::new(Self {
            client,
            reference: KeyPackageRef::new(package.reference(SUITE)).unwrap(),
            message: package.to_message(),
            package,
        })
    }
}

/// An epoch of a group, and what was made in it.
pub(crate) struct EpochState {
    pub(crate) number: u64,
    place: String,
    group: Group,
    creation: OnceCell<NewGroup>,
    commits: RefCell<HashMap<CommitPlan, Rc<PlannedCommit>>>,
    proposals: RefCell<HashMap<ProposalPlan, Rc<PlannedProposal>>>,
    pool: Weak<PoolCounts>,
}

/// A commit, by its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CommitPlan {
    pub(crate) by: u32,
    pub(crate) content: CommitContent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CommitContent {
    /// A new path; the number tells such commits of one member apart.
    Path(u8),
    /// Adds the members of the other gateways to a new group.
    Invite,
    /// Adds a client, by its number, with one of its packages.
    Add(ClientNumber, usize),
    /// Removes the member at a leaf.
    Remove(u32),
    /// Takes these proposals by reference.
    References(Vec<ProposalPlan>),
}

/// A proposal, by its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProposalPlan {
    pub(crate) by: u32,
    pub(crate) content: ProposalContent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProposalContent {
    Update,
    Add(ClientNumber, usize),
    Remove(u32),
}

/// A commit with the epoch that it begins.
pub(crate) struct PlannedCommit {
    pub(crate) bundle: Arc<CommitBundle>,
    pub(crate) plan: CommitPlan,
    /// The epoch that it is for.
    pub(crate) epoch: u64,
    pub(crate) next: Rc<EpochState>,
    /// The clients that it adds, with their packages.
    pub(crate) added: Vec<(ClientNumber, KeyPackageRef)>,
}

pub(crate) struct PlannedProposal {
    pub(crate) packet: Arc<[u8]>,
    pub(crate) plan: ProposalPlan,
    pub(crate) epoch: u64,
    message: PublicMessage,
}

impl PlannedProposal {
    /// The only gateway whose application may bring in the client that it adds.
    pub(crate) fn place(&self) -> Option<usize> {
        match self.plan.content {
            ProposalContent::Add(client, _) => Some(node_of(client)),
            ProposalContent::Update | ProposalContent::Remove(_) => None,
        }
    }
}

#[derive(Default)]
struct PoolCounts(std::cell::Cell<usize>);

/// All messages.
pub(crate) struct Messages {
    groups: RefCell<Vec<Rc<EpochState>>>,
    packages: Vec<Vec<Rc<Package>>>,
    counts: RefCell<Rc<PoolCounts>>,
}

impl Messages {
    pub(crate) fn new() -> Rc<Self> {
        let packages = (0..NODES * CLIENTS_PER_NODE)
            .map(|client| {
                (0..PACKAGES).map(|number| Package::new(client, &format!("package {number}"))).collect()
            })
            .collect();
        let messages = Self { groups: RefCell::default(), packages, counts: RefCell::new(Rc::default()) };
        messages.begin_anew();
        Rc::new(messages)
    }

    fn begin_anew(&self) {
        let counts = Rc::<PoolCounts>::default();
        let groups = (0..GROUPS).map(|group| {
            let place = format!("group {group}");
            let creator = client_at(regular(group % NODES), &place);
            let mut created = Group::create(creator);
            created.randomness = Randomness::new(place.as_bytes());
            EpochState::new(0, place, created, &Rc::downgrade(&counts))
        });
        *self.groups.borrow_mut() = groups.collect();
        *self.counts.borrow_mut() = counts;
    }

    /// Forgets what was made, if it is much. Histories that run keep what they have.
    pub(crate) fn tidy(&self) {
        if self.counts.borrow().0.get() > EPOCHS_KEPT {
            self.begin_anew();
        }
    }

    /// The first epoch of a group.
    pub(crate) fn group(&self, group: usize) -> Rc<EpochState> {
        Rc::clone(&self.groups.borrow()[group])
    }

    pub(crate) fn package(&self, client: ClientNumber, number: usize) -> &Rc<Package> {
        &self.packages[client][number]
    }

    pub(crate) fn packages(&self, client: ClientNumber) -> &[Rc<Package>] {
        &self.packages[client]
    }
}

impl EpochState {
    fn new(number: u64, place: String, group: Group, pool: &Weak<PoolCounts>) -> Rc<Self> {
        if let Some(counts) = pool.upgrade() {
            counts.0.set(counts.0.get() + 1);
        }
        let (commits, proposals, creation) = Default::default();
        Rc::new(Self { number, place, group, creation, commits, proposals, pool: pool.clone() })
    }

    pub(crate) fn id(&self) -> GroupId {
        GroupId::new(&self.group.context.group_id[..]).unwrap()
    }

    /// The messages that create the group, of its first epoch.
    pub(crate) fn creation(&self) -> NewGroup {
        let create = || NewGroup {
            group_info: self.group.group_info().to_message(),
            ratchet_tree: Some(self.group.tree_bytes()),
        };
        self.creation.get_or_init(create).clone()
    }

    pub(crate) fn tree_bytes(&self) -> Vec<u8> {
        self.group.tree_bytes()
    }

    /// The members: their leaves and names.
    pub(crate) fn members(&self) -> Vec<(u32, ClientNumber)> {
        let number = |leaf: u32| {
            let name = String::from_utf8(self.group.client(leaf).name().to_vec()).unwrap();
            let (handle, domain) = name.split_once('@').unwrap();
            let node = (0..NODES).find(|node| domain_name(*node) == domain).unwrap();
            let own = handle.strip_prefix("client-").unwrap().parse::<usize>().unwrap();
            node * CLIENTS_PER_NODE + own
        };
        self.group.members().into_iter().map(|leaf| (leaf, number(leaf))).collect()
    }

    pub(crate) fn has_member(&self, client: ClientNumber) -> bool {
        self.members().iter().any(|(_, member)| *member == client)
    }

    /// The group, in which everything random follows from what is made.
    fn group_for(&self, what: &str, by: u32) -> Group {
        let place = format!("{} {what}", self.place);
        let mut group = self.group.clone();
        group.randomness = Randomness::new(place.as_bytes());
        let client = group.client(by).clone();
        group.know(&Client { randomness: Randomness::new(format!("{place} leaf").as_bytes()), ..client });
        group
    }

    /// Whether a commit was made for this epoch, and not only for one of the same number.
    pub(crate) fn has_made(&self, commit: &Rc<PlannedCommit>) -> bool {
        self.commits.borrow().get(&commit.plan).is_some_and(|made| Rc::ptr_eq(made, commit))
    }

    /// A proposal of this epoch.
    pub(crate) fn proposal(&self, messages: &Messages, plan: &ProposalPlan) -> Rc<PlannedProposal> {
        if let Some(made) = self.proposals.borrow().get(plan) {
            return Rc::clone(made);
        }
        let mut group = self.group_for(&format!("{plan:?}"), plan.by);
        let proposal = match plan.content {
            ProposalContent::Update => group.update(plan.by),
            ProposalContent::Remove(leaf) => Proposal::Remove(leaf),
            ProposalContent::Add(client, number) => {
                Proposal::Add(messages.package(client, number).package.clone())
            }
        };
        let message = group.proposal(Sender::Member(plan.by), proposal);
        let made = Rc::new(PlannedProposal {
            packet: message.to_message().into(),
            plan: plan.clone(),
            epoch: self.number,
            message,
        });
        self.proposals.borrow_mut().insert(plan.clone(), Rc::clone(&made));
        made
    }

    /// A commit of this epoch.
    pub(crate) fn commit(self: &Rc<Self>, messages: &Messages, plan: &CommitPlan) -> Rc<PlannedCommit> {
        if let Some(made) = self.commits.borrow().get(plan) {
            return Rc::clone(made);
        }
        let what = format!("{plan:?}");
        let mut group = self.group_for(&what, plan.by);
        let mut added = Vec::new();
        let mut add = |group: &mut Group, package: &Package| {
            group.know(&client_at(package.client, "member"));
            added.push((package.client, package.reference.clone()));
        };
        let proposals: Vec<ProposalOrRef> = match &plan.content {
            CommitContent::Path(_) => Vec::new(),
            CommitContent::Remove(leaf) => vec![ProposalOrRef::Proposal(Proposal::Remove(*leaf))],
            CommitContent::Add(client, number) => {
                let package = messages.package(*client, *number);
                add(&mut group, package);
                vec![ProposalOrRef::Proposal(Proposal::Add(package.package.clone()))]
            }
            CommitContent::Invite => {
                let creator = node_of(self.members()[0].1);
                let others = (0..NODES).filter(|node| *node != creator);
                let packages: Vec<_> = others.map(|node| Package::new(regular(node), &self.place)).collect();
                packages.iter().for_each(|package| add(&mut group, package));
                let adds = packages.iter().map(|package| Proposal::Add(package.package.clone()));
                adds.map(ProposalOrRef::Proposal).collect()
            }
            CommitContent::References(plans) => plans
                .iter()
                .map(|plan| {
                    let proposal = self.proposal(messages, plan);
                    if let ProposalContent::Add(client, number) = plan.content {
                        add(&mut group, messages.package(client, number));
                    }
                    ProposalOrRef::Reference(group.pend(&proposal.message))
                })
                .collect(),
        };
        // Variants of one commit differ in their path, whose keys follow from the plan.
        let mut draft = group.commit(plan.by).path(mls_forge::PathChoice::With);
        draft.proposals = proposals;
        let forged = draft.sign();
        let mut next = group.clone();
        next.apply(&forged);
        let made = Rc::new(PlannedCommit {
            bundle: Arc::new(CommitBundle {
                commit: forged.commit_bytes(),
                group_info: Some(forged.group_info_bytes()),
                welcome: forged.welcome_bytes(),
            }),
            plan: plan.clone(),
            epoch: self.number,
            next: Self::new(self.number + 1, format!("{} {what}", self.place), next, &self.pool),
            added,
        });
        self.commits.borrow_mut().insert(plan.clone(), Rc::clone(&made));
        made
    }
}
