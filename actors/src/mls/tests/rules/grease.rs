//! Values that mean nothing (GREASE, RFC 9420 §13.5), wherever a message may have them: they are values like all others that
//! somebody does not know.

use mls_forge::{
    Capabilities, Extension, Group, KeyPackage, LeafNode, MLS_10, Proposal, ReInit, Sender, SharedTree,
};

use super::{
    Answers, Scene, UNLISTED, allowed, client, handshake, opening,
    proposal::each_way,
    scene::{clients, group, leaf_everywhere, open_by, package_everywhere},
};

/// The first and the last of the reserved values, one between them, and the one for private use.
const VALUES: [u16; 4] = [0x0a0a, 0x8a8a, 0xeaea, 0xfafa];

fn extensions() -> Vec<Extension> {
    VALUES.map(|kind| Extension { kind, data: vec![9; usize::from(kind >> 12)] }).into()
}

/// A leaf, in every place, with the values in a list of its capabilities: at the beginning, where they are read first.
fn listed(list: fn(&mut Capabilities) -> &mut Vec<u16>) -> Answers {
    leaf_everywhere(&[], |leaf| {
        let list = list(&mut leaf.capabilities);
        list.splice(..0, VALUES);
    })
}

fn put_extensions(leaf: &mut LeafNode) {
    leaf.extensions.extend(extensions());
    leaf.capabilities.extensions.extend(VALUES);
}

fn of_key_packages() -> Answers {
    package_everywhere(|| {
        let newcomer = client("newcomer").supporting_extensions(&VALUES);
        let mut package = newcomer.key_package();
        package.extensions = extensions();
        package.sign_all(&newcomer.key);
        (newcomer, package)
    })
}

/// A group of clients that list the values as extensions and proposals.
fn listing(context: Vec<Extension>) -> Group {
    let clients = clients(3).into_iter().map(|client| {
        client.supporting_extensions(&VALUES).supporting_proposals(&VALUES).supporting_credentials(&VALUES)
    });
    Group::of_clients_with(clients.collect(), SharedTree::Populated, context)
}

/// In the context of a group that is opened, and of one that changes it; and gone again.
fn of_contexts() -> Answers {
    let mut it = Scene::of(listing(extensions()));
    let newcomer = client("newcomer").supporting_extensions(&VALUES);
    let add = it.group.add(&newcomer);
    let forged = it.group.commit(0).with(add).sign();
    let mut answers = handshake(it.commit(&forged));
    let proposal = |extensions: Vec<Extension>| {
        move |_: &mut Scene| Proposal::GroupContextExtensions(extensions.clone())
    };
    answers.extend(each_way(|| Scene::of(listing(Vec::new())), proposal(extensions())));
    answers.extend(each_way(|| Scene::of(listing(extensions())), proposal(Vec::new())));
    answers
}

fn required() -> Answers {
    let required = Extension::required_capabilities(&VALUES, &VALUES, &VALUES);
    let mut it = Scene::of(listing(vec![required.clone()]));
    let forged = it.group.commit(0).sign();
    let mut answers = handshake(it.commit(&forged));
    answers.extend(each_way(
        || Scene::of(listing(Vec::new())),
        |_| Proposal::GroupContextExtensions(vec![required.clone()]),
    ));
    answers
}

/// In a GroupInfo by which a group is opened, and in that of a commit.
fn of_group_infos() -> Answers {
    let group = group(3);
    let mut more = extensions();
    more.push(Extension { kind: UNLISTED, data: vec![1, 2] });
    let mut info = group.group_info_by(1);
    info.extensions.splice(..0, more.clone());
    info.sign(&group.client(1).key);
    let mut answers = opening(open_by(&info.to_message(), Some(&group.tree_bytes())));
    let mut it = Scene::of(group);
    let mut forged = it.group.commit(1).sign();
    forged.group_info.extensions.extend(more);
    forged.sign_group_info();
    answers.extend(handshake(it.commit(&forged)));
    answers
}

fn proposals() -> Answers {
    VALUES
        .iter()
        .flat_map(|kind| {
            each_way(|| Scene::of(listing(Vec::new())), |_| Proposal::Other(*kind, vec![2, 9, 9]))
        })
        .collect()
}

/// To a suite and a version that mean nothing, with extensions that mean nothing.
fn reinits() -> Answers {
    let to = |version, cipher_suite| ReInit {
        group_id: b"the group after".to_vec(),
        version,
        cipher_suite,
        extensions: extensions(),
    };
    VALUES
        .iter()
        .flat_map(|value| [to(MLS_10, *value), to(*value, 1)])
        .flat_map(|reinit| each_way(|| Scene::new(3), |_| Proposal::ReInit(reinit.clone())))
        .collect()
}

fn fill(package: &mut KeyPackage) {
    let Capabilities { versions, cipher_suites, proposals, credentials, .. } =
        &mut package.leaf_node.capabilities;
    for list in [versions, cipher_suites, proposals, credentials] {
        list.splice(..0, VALUES);
    }
    put_extensions(&mut package.leaf_node);
    package.extensions = extensions();
}

/// A client whose packages have the values wherever they may is added, updates its leaf, commits, and comes back.
fn everywhere() -> Answers {
    let mut greased = client("newcomer");
    let mut package = greased.key_package();
    fill(&mut package);
    greased.capabilities = package.leaf_node.capabilities.clone();
    greased.extensions = package.leaf_node.extensions.clone();
    let mut it = Scene::new(3);
    let add = it.group.add(&greased);
    let forged = it.group.commit(0).with(add).sign();
    it.proceed(&forged);
    let update = it.group.update(3);
    it.pend(Sender::Member(3), update);
    let forged = it.group.commit(1).with_pending().sign();
    it.proceed(&forged);
    let forged = it.group.commit(3).sign();
    it.proceed(&forged);
    let forged = it.group.external_commit(&greased).with(Proposal::Remove(3)).sign();
    handshake(it.commit(&forged))
}

allowed! {
    in_versions ("§7.2, §13.5"): "GREASE among the versions of the capabilities.", || listed(|capabilities| &mut capabilities.versions);
    in_cipher_suites ("§13.5"): "GREASE among the cipher suites of the capabilities.", || listed(|capabilities| &mut capabilities.cipher_suites);
    in_extension_types ("§13.5"): "GREASE among the extensions of the capabilities.", || listed(|capabilities| &mut capabilities.extensions);
    in_proposal_types ("§13.5"): "GREASE among the proposals of the capabilities.", || listed(|capabilities| &mut capabilities.proposals);
    in_credential_types ("§13.5"): "GREASE among the credentials of the capabilities.", || listed(|capabilities| &mut capabilities.credentials);
    in_leaf_extensions ("§13.5"): "GREASE extensions of a leaf that lists them.", || leaf_everywhere(&[], put_extensions);
    in_package_extensions ("§10, §13.5"): "GREASE extensions of a key package that lists them.", of_key_packages;
    in_group_info_extensions ("§12.4.3, §13.4, §13.5"): "GREASE and unknown extensions of a GroupInfo.", of_group_infos;
    in_context_extensions ("§13.4, §13.5"): "GREASE extensions of a group context, if all members list them: clients should send none, and nobody treats them otherwise than other types.", of_contexts;
    in_required_capabilities ("§11.1, §13.5"): "GREASE types that a group requires, if all members list them.", required;
    in_proposals ("§12.2, §13.5"): "Proposals of a GREASE type that all members list.", proposals;
    in_reinits ("§12.1.5"): "A ReInit to a GREASE version or suite, with GREASE extensions.", reinits;
    through_a_membership ("§13.5"): "A client with GREASE wherever it may be is added, updates its leaf, commits, and comes back.", everywhere;
}
