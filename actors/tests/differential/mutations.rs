//! Messages of a history that are changed in one place and signed again.

use std::collections::BTreeSet;

use actors::{AppId, Application, observer::Observer};
use mls_forge::{
    CommitDraft, Content, ExternalSender, GroupInfo, KeyPackage, LeafNode, LeafNodeSource, Node, PathChoice,
    Proposal, ProposalOrRef, PublicMessage, Sender, SigningKey, Tls as _, Tree, extension,
};

use crate::{
    dice::Dice,
    history::{Committer, History, Planned, kind_of, proposal_in},
    ledger::{Ledger, Said},
    libraries::{MlsRs, OpenMls},
    mutate::{Mutate as _, Pool, Source},
};

/// How many changes are made at each step of a history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    pub(crate) per_commit: usize,
    pub(crate) per_proposal: usize,
    pub(crate) per_opening: usize,
    pub(crate) per_key_package: usize,
}

fn pool(history: &History) -> Pool {
    let group = &history.followed.group;
    let mut pool = Pool { values: vec![group.context.group_id.clone()], leaves: group.members() };
    for (_, leaf) in group.tree.leaves() {
        pool.values.extend([leaf.encryption_key.clone(), leaf.signature_key.clone()]);
        if let LeafNodeSource::Commit(hash) = &leaf.source {
            pool.values.push(hash.clone());
        }
    }
    for node in (1..group.tree.node_count()).step_by(2) {
        pool.values.extend(group.tree.parent(node).map(|parent| parent.encryption_key.clone()));
    }
    pool.leaves.push(group.tree.width() as u32);
    pool.values.extend(history.followed.keys.keys().take(3).cloned().min());
    pool.values.extend(group.pending.iter().map(|pending| pending.reference.clone()));
    pool
}

impl History {
    /// The key behind a public key, or another one.
    fn key(&self, public: &[u8], otherwise: &SigningKey) -> SigningKey {
        self.followed.keys.get(public).unwrap_or(otherwise).clone()
    }

    fn key_at(&self, leaf: u32) -> Option<SigningKey> {
        let leaf = self.followed.group.tree.leaf(leaf)?;
        self.followed.keys.get(&leaf.signature_key).cloned()
    }

    fn sign_package(&self, package: &mut KeyPackage, otherwise: &SigningKey) {
        let key = self.key(&package.leaf_node.signature_key, otherwise);
        package.sign_all(&key);
    }

    fn sign_leaf(&self, leaf: &mut LeafNode, index: u32, otherwise: &SigningKey) {
        let key = self.key(&leaf.signature_key, otherwise);
        leaf.sign(&key, &self.followed.group.context.group_id, index);
    }

    /// Signs what is inside a proposal again.
    fn sign_inside(&self, proposal: &mut Proposal, sender: Sender, key: &SigningKey) {
        match proposal {
            Proposal::Add(package) => {
                let own = self.key(&package.leaf_node.signature_key, key);
                self.sign_package(package, &own);
            }
            Proposal::Update(leaf) => {
                let index = if let Sender::Member(index) = sender { index } else { 0 };
                self.sign_leaf(leaf, index, key);
            }
            _ => {}
        }
    }

    /// The key with which a sender signs, as far as there is one.
    fn key_of(&self, message: &PublicMessage) -> Option<SigningKey> {
        let keys = &self.followed.keys;
        match (message.content.sender, &message.content.content) {
            (Sender::Member(leaf), _) => self.key_at(leaf),
            (Sender::External(place), _) => {
                let senders = self.followed.group.context.extension(extension::EXTERNAL_SENDERS)?;
                let senders = Vec::<ExternalSender>::from_bytes(senders).ok()?;
                keys.get(&senders.get(place as usize)?.signature_key).cloned()
            }
            (_, Content::Proposal(Proposal::Add(package))) => {
                keys.get(&package.leaf_node.signature_key).cloned()
            }
            (_, Content::Commit(commit)) => keys.get(&commit.path.as_ref()?.leaf_node.signature_key).cloned(),
            _ => None,
        }
    }

    /// Signs a message as its sender, or else with a key of a member.
    fn sign(&self, message: &mut PublicMessage, otherwise: &SigningKey) {
        let key = self.key_of(message).unwrap_or_else(|| otherwise.clone());
        let has_membership_tag = matches!(message.content.sender, Sender::Member(_));
        if !has_membership_tag {
            message.membership_tag = None;
        } else if message.membership_tag.is_none() {
            message.membership_tag = Some(vec![9; self.followed.group.suite.hash_length()]);
        }
        message.sign(&key, &self.followed.group.context);
    }

    fn first_key(&self) -> SigningKey {
        let group = &self.followed.group;
        group.client(group.members()[0]).key.clone()
    }

    fn with_source<T>(&mut self, pool: &Pool, change: impl FnOnce(&mut Source<'_>) -> T) -> T {
        change(&mut Source { dice: &mut self.dice, pool })
    }
}

/// Changes a proposal in several ways, and compares what is said. One that everybody accepts may wait as well.
pub(crate) fn around_proposal(
    history: &mut History,
    name: &str,
    message: &PublicMessage,
    ledger: &mut Ledger,
) {
    let (pool, first) = (pool(history), history.first_key());
    for _ in 0..ledger.rate.per_proposal {
        let mut changed = message.clone();
        let what = if history.dice.once_in(4) {
            let content = &mut changed.content;
            history.with_source(&pool, |source| content.mutate(source))
        } else {
            let mut proposal =
                if history.dice.once_in(4) { history.any_proposal() } else { proposal_in(message).clone() };
            let said = history.with_source(&pool, |source| proposal.mutate(source));
            history.sign_inside(&mut proposal, message.content.sender, &first);
            changed.content.content = Content::Proposal(proposal);
            said
        };
        history.sign(&mut changed, &first);
        let what = format!("proposal, {name}: {what}");
        if history.followed.compare_proposal(&what, &changed, ledger) == Said::Accepted
            && history.followed.openmls.is_some()
            && history.followed.group.pending.len() < 12
            && history.dice.once_in(3)
        {
            history.followed.propose(&what, &changed, ledger);
        }
    }
}

/// Changes a commit in several ways, and compares what is said.
pub(crate) fn around_commit(history: &mut History, planned: &Planned, ledger: &mut Ledger) {
    let (pool, first) = (pool(history), history.first_key());
    for _ in 0..ledger.rate.per_commit {
        let mut changed = planned.clone();
        let mut what = String::new();
        let place = history.dice.below(4);
        if place == 0 {
            what = list_changed(history, &mut changed, &pool);
        } else if place == 1 && !changed.proposals.is_empty() {
            what = history.with_source(&pool, |source| changed.proposals.mutate(source));
        } else if history.dice.once_in(6) {
            changed.path = *history.dice.pick(&[PathChoice::With, PathChoice::Without]);
            what = format!("path {:?}", changed.path);
        }
        let sender = match &changed.committer {
            Committer::Member(leaf) => Sender::Member(*leaf),
            Committer::Joiner(_) => Sender::NewMemberCommit,
        };
        for listed in &mut changed.proposals {
            if let ProposalOrRef::Proposal(proposal) = listed {
                history.sign_inside(proposal, sender, &first);
            }
        }
        let (message, said) = made(history, &changed, &pool, what.is_empty());
        let what = format!("commit, {}: {what}{said}", planned.name);
        history.followed.compare_commit(&what, &message, ledger);
    }
}

/// A commit of a plan; with a change behind the proposals, if that is wanted.
fn made(history: &mut History, planned: &Planned, pool: &Pool, is_changed: bool) -> (PublicMessage, String) {
    let mut dice = Dice::new(history.dice.number());
    let mut draft = planned.draft(&history.followed.group);
    let mut source = Source { dice: &mut dice, pool };
    let has_path = draft.commit_mut().path.is_some();
    if !is_changed {
        let forged = draft.sign();
        let shared = shared_keys(&forged.tree);
        return (forged.commit, shared.into());
    }
    let said = match source.dice.below(5) {
        0 => {
            let mut forged = draft.sign();
            let said = forged.commit.content.mutate(&mut source);
            let first = history.first_key();
            history.sign(&mut forged.commit, &first);
            return (forged.commit, said);
        }
        1 | 2 if has_path => leaf_changed(history, &mut draft, &mut source),
        3 | 4 if has_path => {
            let nodes = draft.nodes_mut();
            format!("nodes{}", nodes.mutate(&mut source))
        }
        _ => {
            let tag = &mut draft.message.confirmation_tag;
            let mut bytes = tag.take().unwrap_or_default();
            let said = bytes.mutate(&mut source);
            *tag = Some(bytes);
            format!("confirmation tag{said}")
        }
    };
    let forged = draft.sign();
    let shared = shared_keys(&forged.tree);
    (forged.commit, format!("{said}{shared}"))
}

/// Whether each key of a tree belongs to one node, in words.
fn shared_keys(tree: &Tree) -> &'static str {
    let (mut encryption, mut signature) = (BTreeSet::new(), BTreeSet::new());
    let mut distinct = (0..tree.node_count()).filter_map(|node| tree.node(node)).map(|node| match node {
        Node::Leaf(leaf) => encryption.insert(&leaf.encryption_key) && signature.insert(&leaf.signature_key),
        Node::Parent(parent) => encryption.insert(&parent.encryption_key),
    });
    if distinct.all(|is_new| is_new) { ", keys are distinct" } else { ", a key is shared" }
}

fn leaf_changed(history: &History, draft: &mut CommitDraft<'_>, source: &mut Source<'_>) -> String {
    let before = draft.leaf_mut().source.clone();
    let said = draft.leaf_mut().mutate(source);
    let leaf = draft.leaf_mut().clone();
    draft.keep.parent_hash = leaf.source != before;
    draft.leaf_key = history.key(&leaf.signature_key, &draft.leaf_key.clone());
    if draft.message.content.sender == Sender::NewMemberCommit {
        draft.key = draft.leaf_key.clone();
    }
    format!("path leaf{said}")
}

/// Changes the list of proposals.
fn list_changed(history: &mut History, planned: &mut Planned, pool: &Pool) -> String {
    match history.dice.below(3) {
        0 => {
            let references: Vec<_> =
                history.followed.group.pending.iter().map(|pending| pending.reference.clone()).collect();
            if references.is_empty() {
                planned.proposals.push(ProposalOrRef::Reference(history.dice.bytes(32)));
                return "list: an unknown reference".into();
            }
            let reference = history.dice.pick(&references).clone();
            planned.proposals.push(ProposalOrRef::Reference(reference));
            "list: one more reference".into()
        }
        _ => {
            let mut proposal = history.any_proposal();
            let mut said = String::new();
            if history.dice.once_in(2) {
                said = history.with_source(pool, |source| proposal.mutate(source));
            }
            let at = history.dice.below(planned.proposals.len() + 1);
            let kind = kind_of(&proposal);
            planned.proposals.insert(at, ProposalOrRef::Proposal(proposal));
            format!("list: {kind} more {said}")
        }
    }
}

/// Changes key packages, and compares what is said.
pub(crate) fn key_packages(history: &mut History, ledger: &mut Ledger) {
    let pool = pool(history);
    for _ in 0..ledger.rate.per_key_package {
        let client = history.newcomer();
        let mut package = client.key_package();
        let said = history.with_source(&pool, |source| package.mutate(source));
        history.sign_package(&mut package, &client.key);
        let message = package.to_message();
        let (suite, now) = (history.followed.group.suite.number(), history.followed.now);
        let ours = actors::bench::check_key_package(suite, &message, now).map(|()| Vec::new());
        let theirs = [OpenMls::key_package(&message), MlsRs::key_package(&message)]
            .map(|said| said.map(|()| Vec::new()));
        let theirs = if suite <= 3 { theirs.map(Some) } else { [None, None] };
        ledger.compare(&format!("key package: {said}"), ours, theirs, &message);
    }
}

/// Changes a group that is opened, and compares what is said.
pub(crate) fn openings(history: &mut History, ledger: &mut Ledger) {
    let pool = pool(history);
    for _ in 0..ledger.rate.per_opening {
        let mut tree = history.followed.group.tree.clone();
        let mut info = history.followed.group.group_info();
        let said = if history.dice.once_in(3) {
            history.with_source(&pool, |source| info.mutate(source))
        } else {
            let said = tree_changed(history, &mut tree, &pool);
            info.group_context.tree_hash = tree.hash(history.followed.group.suite);
            let hashes = tree.check_parent_hashes(history.followed.group.suite);
            let hashes = if hashes.is_ok() { ", parent hashes hold" } else { ", parent hashes do not hold" };
            format!("{said}{}{hashes}", shared_keys(&tree))
        };
        let key = history.key_at(info.signer).unwrap_or_else(|| history.first_key());
        info.sign(&key);
        compare_opening(history, &format!("opening: {said}"), &info, &tree, ledger);
    }
}

fn compare_opening(history: &History, what: &str, info: &GroupInfo, tree: &Tree, ledger: &mut Ledger) {
    let (info, tree) = (info.to_message(), tree.to_bytes());
    let types = &history.followed.types;
    let application = Application::basic(AppId::random());
    let ours = Observer::open(application, &info, Some(&tree), history.followed.now);
    let ours = ours.map(|group| group.context_bytes()).map_err(|refused| format!("{refused:?}"));
    let theirs = if history.followed.group.suite.number() <= 3 {
        let openmls = OpenMls::open(&info, &tree).map(|group| group.state().0);
        let mls_rs = MlsRs::open(&info, &tree, &types.extensions, &types.proposals);
        [Some(openmls), Some(mls_rs.map(|group| group.context()))]
    } else {
        [None, None]
    };
    ledger.compare(what, ours, theirs, &info);
}

/// Changes one node of a tree; a leaf is signed again.
fn tree_changed(history: &mut History, tree: &mut Tree, pool: &Pool) -> String {
    let node = history.dice.below(tree.node_count());
    match tree.node(node).cloned() {
        None => {
            let other = 2 * history.dice.below(tree.width());
            let leaf = tree.node(other).filter(|_| node.is_multiple_of(2)).cloned();
            tree.set_node(node, leaf);
            format!("node {node}, blank, becomes {other}")
        }
        Some(Node::Leaf(mut leaf)) => {
            let said = history.with_source(pool, |source| leaf.mutate(source));
            let first = history.first_key();
            history.sign_leaf(&mut leaf, node as u32 / 2, &first);
            tree.set_node(node, Some(Node::Leaf(leaf)));
            format!("leaf{said}")
        }
        Some(Node::Parent(mut parent)) => {
            if history.dice.once_in(4) {
                tree.set_node(node, None);
                return "a parent is blank".into();
            }
            if history.dice.once_in(2) {
                let below: Vec<u32> = mls_forge::math::leaves(node).collect();
                let leaf = *history.dice.pick(&below);
                let place = parent.unmerged_leaves.binary_search(&leaf);
                match place {
                    Ok(at) => drop(parent.unmerged_leaves.remove(at)),
                    Err(at) => parent.unmerged_leaves.insert(at, leaf),
                }
                tree.set_node(node, Some(Node::Parent(parent)));
                return "parent.unmerged_leaves toggled".into();
            }
            let said = history.with_source(pool, |source| parent.mutate(source));
            tree.set_node(node, Some(Node::Parent(parent)));
            format!("parent{said}")
        }
    }
}
