//! Random histories of forged groups: every operation of RFC 9420, and those of the MLS extensions draft.

use actors::Timestamp;
use mls_forge::{
    Client, CommitDraft, Content, Extension, Group, Lifetime, PathChoice, PreSharedKeyId, Proposal,
    ProposalOrRef, Psk, PublicMessage, ReInit, Sender, SharedTree, Suite, extension,
};

use crate::{
    clients::{Flavour, Maker, PRIVATE_EXTENSION, PRIVATE_PROPOSAL, context_extensions},
    dice::Dice,
    followed::{Followed, Types},
    ledger::Ledger,
};

/// Who makes a commit.
#[derive(Clone, Debug)]
pub(crate) enum Committer {
    Member(u32),
    Joiner(Box<Client>),
}

/// A commit that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) name: &'static str,
    pub(crate) committer: Committer,
    pub(crate) proposals: Vec<ProposalOrRef>,
    pub(crate) path: PathChoice,
    authenticated_data: Vec<u8>,
    /// Whose the path's leaf is, if it is not as before.
    successor: Option<Client>,
}

impl Planned {
    pub(crate) fn draft<'g>(&self, group: &'g Group) -> CommitDraft<'g> {
        let mut plan = match &self.committer {
            Committer::Member(leaf) => group.commit(*leaf),
            Committer::Joiner(client) => group.external_commit(client),
        };
        plan.proposals.clone_from(&self.proposals);
        plan.path = self.path;
        plan.authenticated_data.clone_from(&self.authenticated_data);
        let mut draft = plan.draft();
        if let Some(client) = &self.successor
            && draft.commit_mut().path.is_some()
        {
            draft.pass_leaf_to(client);
        }
        draft
    }

    fn with(mut self, proposal: Proposal) -> Self {
        self.proposals.push(ProposalOrRef::Proposal(proposal));
        self
    }
}

/// One group and what happens to it.
pub(crate) struct History {
    pub(crate) followed: Followed,
    pub(crate) dice: Dice,
    flavour: Flavour,
    service: Client,
    named: usize,
    size_max: usize,
    lifetime: Lifetime,
}

const KINDS: usize = 19;

impl History {
    pub(crate) fn begin(
        suite: Suite,
        size_max: usize,
        mut dice: Dice,
        now: Timestamp,
        ledger: &mut Ledger,
    ) -> Self {
        let flavour = Flavour::of(&mut dice);
        let lifetime = Lifetime::around(now.0 / 1000);
        let service = Client::new(suite, "service");
        let mut make = Maker { suite, flavour, lifetime: &lifetime, dice: &mut dice };
        let count = 1 + make.dice.below(size_max);
        let clients: Vec<_> = (0..count).map(|at| make.client(&format!("member {at}"))).collect();
        let shared = *dice.pick(&[SharedTree::Blank, SharedTree::Populated]);
        let extensions = context_extensions(&service, flavour, &mut dice);
        let mut group = if dice.once_in(2) {
            Group::create_with(clients[0].clone(), extensions)
        } else {
            Group::of_clients_with(clients.clone(), shared, extensions)
        };
        group.know(&service);
        let mut proposals: Vec<u16> = vec![];
        proposals.extend(flavour.has_private_proposals.then_some(PRIVATE_PROPOSAL));
        let types = Types { extensions: vec![PRIVATE_EXTENSION], proposals };
        let known: Vec<_> = clients.iter().chain([&service]).cloned().collect();
        let followed = Followed::open(group, &known, types, now, ledger);
        Self { followed, dice, flavour, service, named: 1000, size_max, lifetime }
    }

    fn group(&self) -> &Group {
        &self.followed.group
    }

    /// A client that nobody knows yet.
    fn make(&mut self) -> Client {
        self.named += 1;
        let (suite, flavour) = (self.group().suite, self.flavour);
        let name = format!("member {}", self.named);
        Maker { suite, flavour, lifetime: &self.lifetime, dice: &mut self.dice }.client(&name)
    }

    fn know(&mut self, client: Client) -> Client {
        self.followed.keys.insert(client.key.public(), client.key.clone());
        self.followed.group.know(&client);
        client
    }

    pub(crate) fn newcomer(&mut self) -> Client {
        let client = self.make();
        self.know(client)
    }

    /// A client with a member's name and another signature key and capabilities.
    fn renewed(&mut self, leaf: u32) -> Client {
        let credential = self.group().tree.leaf(leaf).unwrap().credential.clone();
        let client = Client { credential, ..self.make() };
        self.know(client)
    }

    fn add(&mut self) -> Proposal {
        let client = self.newcomer();
        let mut package = client.key_package();
        if self.dice.once_in(6) {
            package.extensions.push(Extension { kind: extension::LAST_RESORT, data: Vec::new() });
            package.leaf_node.capabilities.extensions.push(extension::LAST_RESORT);
            package.sign_all(&client.key);
        }
        Proposal::Add(package)
    }

    fn update(&mut self, leaf: u32) -> Proposal {
        let client = match self.dice.below(3) {
            0 => self.renewed(leaf),
            _ => self.group().client(leaf).clone(),
        };
        self.followed.group.update_to(leaf, &client)
    }

    fn members(&self) -> Vec<u32> {
        self.group().members()
    }

    /// Some other members, each once.
    fn others(&mut self, than: u32, count: usize) -> Vec<u32> {
        let mut others: Vec<u32> = self.members().into_iter().filter(|member| *member != than).collect();
        while others.len() > count {
            let at = self.dice.below(others.len());
            others.swap_remove(at);
        }
        others
    }

    fn external_psk(&mut self) -> Proposal {
        let id = self.dice.bytes(8);
        Proposal::external_psk(self.group().suite, &id)
    }

    fn psk(&mut self) -> Proposal {
        let psk = match self.dice.below(2) {
            0 => return self.external_psk(),
            _ => Psk::Resumption {
                usage: 1,
                psk_group_id: self.group().context.group_id.clone(),
                psk_epoch: self.group().context.epoch.saturating_sub(1),
            },
        };
        let psk_nonce = self.dice.bytes(self.group().suite.hash_length());
        Proposal::PreSharedKey(PreSharedKeyId { psk, psk_nonce })
    }

    fn extensions(&mut self) -> Proposal {
        let service = self.service.clone();
        Proposal::GroupContextExtensions(context_extensions(&service, self.flavour, &mut self.dice))
    }

    fn unknown(&mut self) -> Option<Proposal> {
        let private = self.flavour.has_private_proposals;
        let data = self.dice.bytes(5);
        let component_id = self.dice.number() as u16;
        Some(match (self.dice.below(2), self.flavour.has_drafts) {
            (0, true) => Proposal::AppEphemeral { component_id, data },
            _ if private => Proposal::Other(PRIVATE_PROPOSAL, [&[5][..], &data].concat()),
            _ => return None,
        })
    }

    /// Proposes something that waits then.
    fn pend(&mut self, name: &str, sender: Sender, proposal: Proposal, ledger: &mut Ledger) -> ProposalOrRef {
        let message = self.followed.group.proposal(sender, proposal);
        crate::mutations::around_proposal(self, name, &message, ledger);
        ProposalOrRef::Reference(self.followed.propose(name, &message, ledger))
    }

    fn planned(&mut self, name: &'static str, committer: Committer) -> Planned {
        let path = *self.dice.pick(&[PathChoice::AsNeeded, PathChoice::With]);
        let authenticated_data = if self.dice.once_in(4) { self.dice.bytes(9) } else { Vec::new() };
        Planned { name, committer, proposals: Vec::new(), path, authenticated_data, successor: None }
    }

    fn joining(&mut self, name: &'static str, client: Client) -> Planned {
        let kem_output = self.dice.bytes(self.group().suite.kem_key_length());
        self.planned(name, Committer::Joiner(Box::new(client))).with(Proposal::ExternalInit(kem_output))
    }

    /// The next commit. What it takes by reference is proposed.
    pub(crate) fn plan(&mut self, ledger: &mut Ledger) -> Planned {
        let members = self.members();
        let kind = match members.len() {
            count if count >= self.size_max => *self.dice.pick(&[0, 2, 2, 11, 12, 15]),
            1 if self.dice.once_in(2) => 1,
            _ => self.dice.below(KINDS),
        };
        let committer = *self.dice.pick(&members);
        let by_member = Committer::Member(committer);
        match kind {
            1 => {
                let mut planned = self.planned("adds", by_member);
                for _ in 0..1 + self.dice.below(3) {
                    planned = planned.with(self.add());
                }
                planned
            }
            2 => {
                let count = 1 + self.dice.below(3);
                let others = self.others(committer, count);
                let planned = self.planned("removals", by_member);
                others.into_iter().fold(planned, |planned, leaf| planned.with(Proposal::Remove(leaf)))
            }
            3 => self.by_reference(committer, ledger),
            4 => {
                let joiner = self.newcomer();
                self.joining("an external commit", joiner)
            }
            5 => {
                let back = match self.dice.below(2) {
                    0 => self.renewed(committer),
                    _ => self.group().client(committer).clone(),
                };
                self.joining("a resync", back).with(Proposal::Remove(committer))
            }
            6 => {
                let extensions = self.extensions();
                self.planned("new context extensions", by_member).with(extensions)
            }
            7 => {
                let (one, other) = (self.psk(), self.external_psk());
                self.planned("pre-shared keys", by_member).with(one).with(other)
            }
            8 => {
                let mut planned = self.planned("a pre-shared key by reference", by_member);
                let psk = self.psk();
                let sender = Sender::Member(*self.dice.pick(&members));
                planned.proposals.push(self.pend(planned.name, sender, psk, ledger));
                planned
            }
            9 => {
                let mut planned = self.planned("a client that adds itself", by_member);
                let add = self.add();
                planned.proposals.push(self.pend(planned.name, Sender::NewMemberProposal, add, ledger));
                planned
            }
            10 => self.by_external_sender(committer, ledger),
            11 => self.mixed(committer),
            12 => self.self_removal(committer, ledger),
            13 | 14 => self.of_other_types(committer, ledger),
            15 => {
                let successor = self.renewed(committer);
                let planned = self.planned("a successor", by_member);
                Planned { successor: Some(successor), path: PathChoice::With, ..planned }
            }
            16 => {
                let (joiner, psk) = (self.newcomer(), self.psk());
                self.joining("an external commit with a pre-shared key", joiner).with(psk)
            }
            17 => self.everything(committer, ledger),
            18 => self.add_again(committer),
            _ => self.planned("an empty commit", by_member),
        }
    }

    fn by_reference(&mut self, committer: u32, ledger: &mut Ledger) -> Planned {
        let mut planned = self.planned("by reference", Committer::Member(committer));
        let mut others = self.others(committer, 4);
        if let Some(leaf) = others.pop() {
            let update = self.update(leaf);
            planned.proposals.push(self.pend("an update", Sender::Member(leaf), update, ledger));
        }
        if let (Some(leaf), Some(by)) = (others.pop(), others.first()) {
            let remove = Proposal::Remove(leaf);
            planned.proposals.push(self.pend("a removal", Sender::Member(*by), remove, ledger));
        }
        let add = self.add();
        planned.proposals.push(self.pend("an addition", Sender::Member(committer), add, ledger));
        planned
    }

    fn by_external_sender(&mut self, committer: u32, ledger: &mut Ledger) -> Planned {
        let mut planned = self.planned("by an external sender", Committer::Member(committer));
        if self.group().context.extension(extension::EXTERNAL_SENDERS).is_none() {
            let extensions = self.extensions();
            return planned.with(extensions);
        }
        let mut proposals = vec![self.add(), self.psk()];
        proposals.extend(self.others(committer, 1).first().map(|leaf| Proposal::Remove(*leaf)));
        if self.dice.once_in(3) {
            proposals.push(self.extensions());
        }
        for proposal in proposals {
            if self.dice.once_in(2) {
                let name = format!("{} {}", kind_of(&proposal), "by an external sender");
                planned.proposals.push(self.pend(&name, Sender::External(0), proposal, ledger));
            }
        }
        planned
    }

    fn mixed(&mut self, committer: u32) -> Planned {
        let mut planned = self.planned("removals and additions", Committer::Member(committer));
        for leaf in self.others(committer, 2) {
            planned = planned.with(Proposal::Remove(leaf));
        }
        for _ in 0..self.dice.below(3) {
            let add = self.add();
            planned.proposals.insert(0, ProposalOrRef::Proposal(add));
        }
        planned
    }

    fn self_removal(&mut self, committer: u32, ledger: &mut Ledger) -> Planned {
        let leaving = self.others(committer, 1);
        let mut planned = if self.dice.once_in(3) {
            let joiner = self.newcomer();
            self.joining("an external commit with a self-removal", joiner)
        } else {
            self.planned("a self-removal", Committer::Member(committer))
        };
        for leaf in leaving {
            let name = "a self-removal";
            planned.proposals.push(self.pend(name, Sender::Member(leaf), Proposal::SelfRemove, ledger));
        }
        planned
    }

    fn of_other_types(&mut self, committer: u32, ledger: &mut Ledger) -> Planned {
        let name =
            if self.flavour.has_drafts { "proposals of the draft" } else { "proposals of a private type" };
        let mut planned = self.planned(name, Committer::Member(committer));
        for _ in 0..2 {
            let Some(proposal) = self.unknown() else { continue };
            if self.dice.once_in(2) {
                let name = kind_of(&proposal);
                planned.proposals.push(self.pend(name, Sender::Member(committer), proposal, ledger));
            } else {
                planned = planned.with(proposal);
            }
        }
        planned
    }

    fn everything(&mut self, committer: u32, ledger: &mut Ledger) -> Planned {
        let mut planned = self.by_reference(committer, ledger);
        planned.name = "everything at once";
        let (extensions, psk, add) = (self.extensions(), self.psk(), self.add());
        for proposal in [extensions, psk, add] {
            let at = self.dice.below(planned.proposals.len() + 1);
            planned.proposals.insert(at, ProposalOrRef::Proposal(proposal));
        }
        planned
    }

    /// A member is removed and added again, as the same client, in one commit.
    fn add_again(&mut self, committer: u32) -> Planned {
        let mut planned = self.planned("a member is added again", Committer::Member(committer));
        if let Some(leaf) = self.others(committer, 1).first() {
            let client = self.group().client(*leaf).clone();
            let add = self.followed.group.add(&client);
            planned = planned.with(add).with(Proposal::Remove(*leaf));
        }
        planned
    }

    /// A re-initialisation, after which nothing follows.
    pub(crate) fn end(&mut self, ledger: &mut Ledger) -> Planned {
        let members = self.members();
        let (committer, proposer) = (*self.dice.pick(&members), *self.dice.pick(&members));
        let mut planned = self.planned("a re-initialisation", Committer::Member(committer));
        let reinit = Proposal::ReInit(ReInit {
            group_id: self.dice.bytes(16),
            version: 1,
            cipher_suite: 1 + self.dice.below(7) as u16,
            extensions: Vec::new(),
        });
        if self.dice.once_in(2) {
            let name = "a re-initialisation by reference";
            planned.proposals.push(self.pend(name, Sender::Member(proposer), reinit, ledger));
            planned
        } else {
            planned.with(reinit)
        }
    }

    /// Messages that look like those of a group, to change others with.
    pub(crate) fn any_proposal(&mut self) -> Proposal {
        let members = self.members();
        let member = *self.dice.pick(&members);
        match self.dice.below(10) {
            0 | 1 => self.add(),
            2 => self.update(member),
            3 | 4 => Proposal::Remove(member),
            5 => self.psk(),
            6 => self.extensions(),
            7 => Proposal::SelfRemove,
            8 => Proposal::ExternalInit(self.dice.bytes(self.group().suite.kem_key_length())),
            _ => Proposal::Other(PRIVATE_PROPOSAL, vec![1, 7]),
        }
    }
}

/// A proposal in words.
pub(crate) fn kind_of(proposal: &Proposal) -> &'static str {
    match proposal {
        Proposal::Add(_) => "an addition",
        Proposal::Update(_) => "an update",
        Proposal::Remove(_) => "a removal",
        Proposal::PreSharedKey(_) => "a pre-shared key",
        Proposal::ReInit(_) => "a re-initialisation",
        Proposal::ExternalInit(_) => "an external init",
        Proposal::GroupContextExtensions(_) => "context extensions",
        Proposal::AppDataUpdate { .. } | Proposal::AppEphemeral { .. } => "a proposal of the draft",
        Proposal::SelfRemove => "a self-removal",
        Proposal::Other(..) => "a proposal of another type",
    }
}

/// The proposal in a message.
pub(crate) fn proposal_in(message: &PublicMessage) -> &Proposal {
    match &message.content.content {
        Content::Proposal(proposal) => proposal,
        Content::Application(_) | Content::Commit(_) => panic!("not a proposal"),
    }
}
