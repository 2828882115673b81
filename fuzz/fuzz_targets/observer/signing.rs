//! Signing again with the keys of the seeds' clients.

use std::{collections::HashMap, sync::LazyLock};

use mls_forge::{
    Client, Content, GroupContext, GroupInfo, KeyPackage, Node, Proposal, ProposalOrRef, PublicMessage,
    Sender, SigningKey, Suite, Tls as _, Tree, read_message, wire_format,
};

static KEYS: LazyLock<HashMap<Vec<u8>, SigningKey>> = LazyLock::new(|| {
    let clients = Suite::ALL
        .into_iter()
        .flat_map(|suite| ["one", "two", "three", "four", "alone"].map(|name| Client::new(suite, name)));
    clients.map(|client| (client.key.public(), client.key)).collect()
});

fn key(public: &[u8]) -> Option<&'static SigningKey> {
    KEYS.get(public)
}

/// A GroupInfo, with the hash of this tree.
pub(crate) fn group_info(message: &[u8], tree: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut info: GroupInfo = read_message(wire_format::GROUP_INFO, message).ok()?;
    let tree = Tree::from_bytes(tree?).ok()?;
    info.group_context.tree_hash = tree.hash(Suite::from_number(info.group_context.cipher_suite)?);
    info.sign(key(&tree.leaf(info.signer)?.signature_key)?);
    Some(info.to_message())
}

/// A tree of the group that a GroupInfo describes.
pub(crate) fn tree(bytes: &[u8], info: &[u8]) -> Option<Vec<u8>> {
    let info: GroupInfo = read_message(wire_format::GROUP_INFO, info).ok()?;
    let mut tree = Tree::from_bytes(bytes).ok()?;
    for index in 0..u32::try_from(tree.width()).ok()? {
        if let Some(leaf) = tree.leaf_mut(index)
            && let Some(key) = key(&leaf.signature_key)
        {
            leaf.sign(key, &info.group_context.group_id, index);
        }
    }
    Some(tree.to_bytes())
}

pub(crate) fn key_package(message: &[u8]) -> Option<Vec<u8>> {
    let mut package: KeyPackage = read_message(wire_format::KEY_PACKAGE, message).ok()?;
    package.sign_all(key(&package.leaf_node.signature_key)?);
    Some(package.to_message())
}

fn proposal(proposal: &mut Proposal, group_id: &[u8], sender: Sender) {
    match proposal {
        Proposal::Add(package) => {
            if let Some(key) = key(&package.leaf_node.signature_key) {
                package.sign_all(key);
            }
        }
        Proposal::Update(leaf) => {
            if let (Some(key), Sender::Member(index)) = (key(&leaf.signature_key), sender) {
                leaf.sign(key, group_id, index);
            }
        }
        _ => {}
    }
}

/// A proposal or commit in a group's context, by the sender that it names.
pub(crate) fn handshake(message: &[u8], context: &[u8], tree: &[u8]) -> Option<Vec<u8>> {
    let mut message: PublicMessage = read_message(wire_format::PUBLIC_MESSAGE, message).ok()?;
    let (context, tree) = (GroupContext::from_bytes(context).ok()?, Tree::from_bytes(tree).ok()?);
    let sender = message.content.sender;
    let mut signer = match sender {
        Sender::Member(index) => tree.leaf(index).and_then(|leaf| key(&leaf.signature_key)),
        _ => None,
    };
    match &mut message.content.content {
        Content::Proposal(of_message) => {
            proposal(of_message, &context.group_id, sender);
            if let (Sender::NewMemberProposal, Proposal::Add(package)) = (sender, of_message) {
                signer = key(&package.leaf_node.signature_key);
            }
        }
        Content::Commit(commit) => {
            for listed in &mut commit.proposals {
                if let ProposalOrRef::Proposal(listed) = listed {
                    proposal(listed, &context.group_id, sender);
                }
            }
            if let Some(path) = &mut commit.path
                && let Some(key) = key(&path.leaf_node.signature_key)
            {
                let free = (0..).find(|index| !matches!(tree.node(2 * index), Some(Node::Leaf(_))))?;
                let index =
                    if let Sender::Member(index) = sender { index } else { u32::try_from(free).ok()? };
                path.leaf_node.sign(key, &context.group_id, index);
                if sender == Sender::NewMemberCommit {
                    signer = Some(key);
                }
            }
        }
        Content::Application(_) => {}
    }
    message.sign(signer?, &context);
    Some(message.to_message())
}
