//! Leaf nodes (RFC 9420 §7.2, §7.3), wherever they come from.

use mls_forge::{Extension, Group, LeafNodeSource, Lifetime, Proposal, Sender, SharedTree, extension};

use super::{
    Answers, PRIVATE_USE, Scene, UNLISTED, Way, again, answer, client, handshake, opening, rules,
    scene::{GREASE, clients, group, leaf_everywhere, leaf_in_group, open, upload},
};

fn required(extensions: &[u16], proposals: &[u16], credentials: &[u16]) -> Vec<Extension> {
    vec![Extension::required_capabilities(extensions, proposals, credentials)]
}

fn private_use() -> Extension {
    Extension { kind: PRIVATE_USE, data: vec![1] }
}

/// A leaf whose signature is another's, in each place where leaves are signed.
fn signed_by_another(broken: bool) -> Answers {
    let newcomer = client("newcomer");
    let signer = if broken { client("another") } else { newcomer.clone() };
    let mut package = newcomer.key_package();
    package.leaf_node.sign(&signer.key, &[], 0);
    package.sign(&newcomer.key);
    let mut answers = vec![(Way::Upload, upload(&package))];

    let mut it = Scene::new(3);
    it.group.know(&newcomer);
    let proposed = it.try_proposal(Sender::Member(1), Proposal::Add(package.clone()));
    answers.push((Way::Handshake("a proposed Add"), proposed.map_err(answer)));
    let forged = it.group.commit(0).with(Proposal::Add(package)).sign();
    answers.push((Way::Handshake("a committed Add"), it.commit(&forged).map_err(answer)));

    let mut it = Scene::new(3);
    let group_id = it.group.context.group_id.clone();
    let key = it.group.client(if broken { 2 } else { 1 }).key.clone();
    let mut update = it.group.update(1);
    if let Proposal::Update(leaf) = &mut update {
        leaf.sign(&key, &group_id, 1);
    }
    let proposed = it.try_proposal(Sender::Member(1), update);
    answers.push((Way::Handshake("a proposed Update"), proposed.map_err(answer)));

    let mut draft = it.group.commit(1).draft();
    draft.leaf_key = key.clone();
    let forged = draft.sign();
    answers.push((Way::Handshake("an update path"), it.commit(&forged).map_err(answer)));

    let mut tree = Group::of_clients(clients(3), SharedTree::Blank);
    let key = tree.client(if broken { 2 } else { 1 }).key.clone();
    tree.tree.leaf_mut(1).unwrap().sign(&key, &[], 1);
    tree.settle();
    answers.extend(opening(open(&tree)));
    answers
}

/// An Update and a path whose leaves are signed for another place or group.
fn signed_for_another(group_id: Option<&[u8]>, leaf_index: u32) -> Answers {
    let mut it = Scene::new(3);
    let group_id = group_id.map_or_else(|| it.group.context.group_id.clone(), <[u8]>::to_vec);
    let key = it.group.client(1).key.clone();
    let mut update = it.group.update(1);
    if let Proposal::Update(leaf) = &mut update {
        leaf.sign(&key, &group_id, leaf_index);
    }
    let mut answers = vec![(
        Way::Handshake("a proposed Update"),
        it.try_proposal(Sender::Member(1), update).map_err(answer),
    )];

    // The parent hash is computed with a first signature.
    let mut draft = it.group.commit(1).draft();
    let leaf = draft.clone().sign().tree.leaf(1).unwrap().clone();
    *draft.leaf_mut() = leaf;
    draft.leaf_mut().sign(&key, &group_id, leaf_index);
    draft.keep.leaf_signature = true;
    let forged = draft.sign();
    answers.push((Way::Handshake("an update path"), it.commit(&forged).map_err(answer)));
    answers
}

/// The key of another member's leaf.
fn key_of_another_leaf(broken: bool) -> Answers {
    // Clients are made from their names, and the keys of their leaves in turn.
    let first = group(3).tree.leaf(2).unwrap().encryption_key.clone();
    let fresh = client("another").key_package().leaf_node.encryption_key;
    let taken = if broken { first } else { fresh };
    let mut answers = leaf_in_group(&[], |leaf| leaf.encryption_key.clone_from(&taken));
    let newcomer = client("newcomer");
    let package = || {
        let mut package = newcomer.key_package();
        package.leaf_node.encryption_key.clone_from(&taken);
        package.sign_all(&newcomer.key);
        Proposal::Add(package)
    };
    let mut it = Scene::new(3);
    it.group.know(&newcomer);
    let forged = it.group.commit(0).with(package()).sign();
    answers.push((Way::Handshake("a committed Add"), it.commit(&forged).map_err(answer)));
    answers
}

/// Two added leaves with one encryption key.
fn two_added_leaves(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let clients = ["one", "two"].map(client);
    clients.iter().for_each(|client| it.group.know(client));
    let mut packages = clients.each_ref().map(|client| client.key_package());
    if broken {
        packages[1].leaf_node.encryption_key = packages[0].leaf_node.encryption_key.clone();
        packages[1].sign_all(&clients[1].key);
    }
    let forged = it.group.commit(0).with_all(packages.map(Proposal::Add)).sign();
    handshake(it.commit(&forged))
}

/// A client under another name with the signature key of a member.
fn signature_key_of_a_member(broken: bool) -> Answers {
    let mut newcomer = client("newcomer");
    if broken {
        newcomer.key = client("member 2").key;
    }
    let mut it = Scene::new(3);
    let add = it.group.add(&newcomer);
    let forged = it.group.commit(0).with(add).sign();
    let mut answers = handshake(it.commit(&forged));

    let mut it = Scene::new(3);
    let forged = it.group.external_commit(&newcomer).sign();
    answers.push((Way::Handshake("an external commit"), it.commit(&forged).map_err(answer)));

    // A member that goes on with the key of another.
    let mut member = again("member 1");
    member.key = if broken { client("member 2") } else { client("fresh") }.key;
    let mut it = Scene::new(3);
    let mut draft = it.group.commit(1).draft();
    draft.pass_leaf_to(&member);
    let forged = draft.sign();
    answers.push((Way::Handshake("an update path"), it.commit(&forged).map_err(answer)));

    let mut it = Scene::new(3);
    let update = it.group.update_to(1, &member);
    let reference = it.group.propose(Sender::Member(1), update);
    let result = it.propose(&reference).and_then(|()| {
        let forged = it.group.commit(0).with_pending().sign();
        it.commit(&forged)
    });
    answers.push((Way::Handshake("an Update"), result.map_err(answer)));
    answers
}

/// The encryption key that the leaf has already.
fn same_encryption_key(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let old = it.group.tree.leaf(1).unwrap().encryption_key.clone();
    let keep = |leaf: &mut mls_forge::LeafNode| {
        if broken {
            leaf.encryption_key.clone_from(&old);
        }
    };
    let (key, group_id) = (it.group.client(1).key.clone(), it.group.context.group_id.clone());
    let mut update = it.group.update(1);
    if let Proposal::Update(leaf) = &mut update {
        keep(leaf);
        leaf.sign(&key, &group_id, 1);
    }
    let proposed = it.try_proposal(Sender::Member(1), update);
    let mut answers = vec![(Way::Handshake("a proposed Update"), proposed.map_err(answer))];
    let mut draft = it.group.commit(1).draft();
    keep(draft.leaf_mut());
    let forged = draft.sign();
    answers.push((Way::Handshake("an update path"), it.commit(&forged).map_err(answer)));
    answers
}

/// A leaf of another source than its place asks for.
fn source_of_an_update(broken: bool) -> Answers {
    let mut answers = Vec::new();
    let sources = if broken {
        vec![
            LeafNodeSource::Commit(vec![1; 32]),
            LeafNodeSource::Commit(Vec::new()),
            LeafNodeSource::KeyPackage(Lifetime::around_now()),
        ]
    } else {
        vec![LeafNodeSource::Update]
    };
    for source in sources {
        let mut it = Scene::new(3);
        let (key, group_id) = (it.group.client(1).key.clone(), it.group.context.group_id.clone());
        let mut update = it.group.update(1);
        if let Proposal::Update(leaf) = &mut update {
            leaf.source = source;
            leaf.sign(&key, &group_id, 1);
        }
        answers.extend(handshake(it.try_proposal(Sender::Member(1), update)));
    }
    answers
}

fn source_of_a_path(broken: bool) -> Answers {
    let mut answers = Vec::new();
    for source in [LeafNodeSource::Update, LeafNodeSource::KeyPackage(Lifetime::around_now())] {
        let mut it = Scene::new(3);
        let mut draft = it.group.commit(1).draft();
        if broken {
            draft.leaf_mut().source = source;
            draft.keep.parent_hash = true;
        }
        let forged = draft.sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    answers
}

/// A leaf of another client, where a member's was.
fn successor(broken: bool) -> Answers {
    let other = again(if broken { "stranger" } else { "member 1" });
    let mut it = Scene::new(3);
    let update = it.group.update_to(1, &other);
    let proposed = it.try_proposal(Sender::Member(1), update);
    let mut answers = vec![(Way::Handshake("a proposed Update"), proposed.map_err(answer))];
    let mut draft = it.group.commit(1).draft();
    draft.pass_leaf_to(&other);
    let forged = draft.sign();
    answers.push((Way::Handshake("an update path"), it.commit(&forged).map_err(answer)));
    answers
}

rules! {
    version ("§11.1", "capabilities"):
        "A leaf's capabilities list the protocol version of the group.",
        accepted: "A version that means nothing is listed as well.",
        |broken| leaf_everywhere(&[], |leaf| {
            leaf.capabilities.versions = if broken { vec![2] } else { vec![GREASE, 1] };
        });
    cipher_suite ("§11.1", "capabilities"):
        "A leaf's capabilities list the cipher suite of the group.",
        accepted: "A suite that means nothing is listed as well.",
        |broken| leaf_everywhere(&[], |leaf| {
            leaf.capabilities.cipher_suites = if broken { vec![2, 3] } else { vec![GREASE, 1] };
        });
    credential_type ("§7.2", "capabilities"):
        "A leaf's capabilities list the type of its own credential.",
        accepted: "A credential type that means nothing is listed as well.",
        |broken| leaf_everywhere(&[], |leaf| {
            leaf.capabilities.credentials = if broken { vec![2] } else { vec![GREASE, 1] };
        });
    own_extensions ("§7.2, §7.3", "capabilities"):
        "A leaf's capabilities list the types of its extensions.",
        accepted: "The type is listed.",
        |broken| leaf_everywhere(&[], |leaf| {
            leaf.extensions = vec![Extension { kind: UNLISTED, data: vec![1] }];
            leaf.capabilities.extensions.extend((!broken).then_some(UNLISTED));
        });
    own_extensions_that_mean_nothing ("§13.5", "capabilities"):
        "That holds for a GREASE extension, too.",
        accepted: "The GREASE type is listed.",
        |broken| leaf_everywhere(&[], |leaf| {
            leaf.extensions = vec![Extension { kind: GREASE, data: vec![1, 2] }];
            leaf.capabilities.extensions.extend((!broken).then_some(GREASE));
        });
    extensions_once ("§13.4", "malformed-mls-message"):
        "A leaf has at most one extension of a type.",
        accepted: "Two extensions of two types.",
        |broken| leaf_everywhere(&[], |leaf| {
            let other = if broken { PRIVATE_USE } else { extension::APPLICATION_ID };
            leaf.extensions = vec![private_use(), Extension { kind: other, data: vec![1, 2] }];
        });
    extensions_in_their_places ("§17.3", "malformed-mls-message"):
        "An extension that RFC 9420 defines is where it may be: no `required_capabilities` in a leaf.",
        accepted: "An `application_id`.",
        |broken| leaf_everywhere(&[], |leaf| {
            let (kind, data) = if broken { (3, vec![0, 0, 0]) } else { (1, vec![1, 7]) };
            leaf.extensions = vec![Extension { kind, data }];
        });
    required_extensions ("§7.3, §11.1", "capabilities"):
        "A leaf's capabilities list the extension types that the group requires.",
        accepted: "The leaf lists them among others.",
        |broken| leaf_everywhere(&required(&[PRIVATE_USE], &[], &[]), |leaf| {
            leaf.capabilities.extensions = if broken { vec![GREASE] } else { vec![GREASE, PRIVATE_USE] };
        });
    required_proposals ("§7.3, §11.1", "capabilities"):
        "A leaf's capabilities list the proposal types that the group requires.",
        accepted: "The leaf lists them among others.",
        |broken| leaf_everywhere(&required(&[], &[PRIVATE_USE], &[]), |leaf| {
            leaf.capabilities.proposals = if broken { vec![GREASE] } else { vec![GREASE, PRIVATE_USE] };
        });
    required_credentials ("§7.3, §11.1", "capabilities"):
        "A leaf's capabilities list the credential types that the group requires.",
        accepted: "The leaf lists them among others.",
        |broken| leaf_everywhere(&required(&[], &[], &[1, PRIVATE_USE]), |leaf| {
            leaf.capabilities.credentials = if broken { vec![1, GREASE] } else { vec![1, GREASE, PRIVATE_USE] };
        });
    default_types_need_no_listing ("§7.2, §11.1", "capabilities"):
        "Types that are not default must be listed even if they are required beside default ones.",
        accepted: "The default types of RFC 9420 are required and not listed.",
        |broken| {
            let required = required(&[1, 2, 3, 4, 5, PRIVATE_USE], &[1, 2, 3, 4, 5, 6, 7], &[]);
            leaf_everywhere(&required, |leaf| {
                leaf.capabilities.extensions = if broken { vec![1, 2, 3, 4, 5] } else { vec![PRIVATE_USE] };
            })
        };
    context_extensions ("§13.4", "capabilities"):
        "A leaf's capabilities list the types of the group context's extensions.",
        accepted: "The leaf lists them among others.",
        |broken| leaf_everywhere(&[private_use()], |leaf| {
            leaf.capabilities.extensions = if broken { vec![GREASE] } else { vec![GREASE, PRIVATE_USE] };
        });
    encryption_key_usable ("§5.1.1; RFC 9180 §7.1", "leaf-node"):
        "A leaf's encryption key is a public key of the suite to which members can encrypt.",
        accepted: "A key of the suite.",
        |broken| leaf_everywhere(&[], |leaf| {
            if broken {
                leaf.encryption_key = vec![0; 32];
            }
        });
    encryption_key_length ("§5.1.1; RFC 9180 §7.1", "leaf-node"):
        "A leaf's encryption key has the length of the suite's keys.",
        accepted: "A key of the suite.",
        |broken| leaf_everywhere(&[], |leaf| {
            if broken {
                leaf.encryption_key.push(1);
            }
        });
    signature ("§7.3", "leaf-node"):
        "A leaf is signed with the signature key that it holds.",
        accepted: "It is.",
        signed_by_another;
    signed_for_its_place ("§7.2", "leaf-node"):
        "The leaf of an Update or path is signed for its place in the tree.",
        accepted: "It is.",
        |broken| signed_for_another(None, if broken { 2 } else { 1 });
    signed_for_its_group ("§7.2", "leaf-node"):
        "The leaf of an Update or path is signed for its group.",
        accepted: "It is.",
        |broken| signed_for_another(broken.then_some(b"another group"), 1);
    encryption_keys_distinct ("§7.3", "distinct-keys"):
        "No two leaves have the same encryption key.",
        accepted: "A key that no leaf has.",
        key_of_another_leaf;
    encryption_keys_of_added_leaves ("§7.3", "distinct-keys"):
        "No two leaves that a commit adds have the same encryption key.",
        accepted: "Two keys.",
        two_added_leaves;
    signature_keys_distinct ("§7.3", "distinct-keys"):
        "No two leaves have the same signature key.",
        accepted: "A key that no leaf has.",
        signature_key_of_a_member;
    new_encryption_key ("§7.3, §12.4.2", "distinct-keys"):
        "The leaf of an Update or path has another encryption key than the leaf it replaces.",
        accepted: "A new key, and the same signature key.",
        same_encryption_key;
    update_source ("§7.3", "leaf-node"):
        "The leaf of an Update has the source `update`.",
        accepted: "It has.",
        source_of_an_update;
    path_source ("§7.3, §12.4.2", "leaf-node"):
        "The leaf of a path has the source `commit`.",
        accepted: "It has.",
        source_of_a_path;
    leaf_successor ("§5.3.1, §12.2", "successor"):
        "A leaf is replaced by one of the same client.",
        accepted: "The same client; its signature key may be new.",
        successor;
}
