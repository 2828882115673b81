//! Messages that RFC 9420 allows and that look strange: an observer that refused them would part from the members.

use mls_forge::{
    Client, Extension, Group, Lifetime, MLS_10, PathChoice, PreSharedKeyId, Proposal, Psk, ReInit, Sender,
    SharedTree, proposal,
};

use super::{
    Answers, PRIVATE_USE, Scene, UNLISTED, allowed, client,
    framing::with_service,
    handshake, plain,
    proposal::each_way,
    renewed,
    scene::{SUITE, clients, package_everywhere},
};

/// An extension that only some know: the leaf lists it, and others need not.
fn unknown_extensions() -> Answers {
    package_everywhere(|| {
        let mut newcomer = client("newcomer").supporting_extensions(&[UNLISTED, 0x000b]);
        newcomer.extensions = [UNLISTED, 0x000b].map(|kind| Extension { kind, data: vec![3; 5] }).into();
        let mut package = newcomer.key_package();
        package.extensions = package.leaf_node.extensions.clone();
        package.sign_all(&newcomer.key);
        (newcomer, package)
    })
}

fn default_extensions() -> Answers {
    package_everywhere(|| {
        let mut newcomer = plain("newcomer");
        newcomer.extensions = vec![Extension { kind: 1, data: vec![1, 7] }];
        let package = newcomer.key_package();
        (newcomer, package)
    })
}

/// `last_resort`, and the dictionary with its component 4, which later drafts have in its place.
fn marked_last_resort() -> Answers {
    let marks = [(0x000a, vec![]), (0x0006, vec![3, 0, 4, 0])];
    marks
        .into_iter()
        .flat_map(|(kind, data)| {
            package_everywhere(|| {
                let newcomer = client("newcomer").supporting_extensions(&[kind]);
                let mut package = newcomer.key_package();
                package.extensions = vec![Extension { kind, data: data.clone() }];
                package.sign_all(&newcomer.key);
                (newcomer, package)
            })
        })
        .collect()
}

fn init_keys() -> Answers {
    let mut it = Scene::new(2);
    let clients = ["one", "two"].map(client);
    clients.iter().for_each(|client| it.group.know(client));
    let mut packages = clients.each_ref().map(Client::key_package);
    packages[1].init_key = packages[0].init_key.clone();
    packages[1].sign_all(&clients[1].key);
    let forged = it.group.commit(0).with_all(packages.map(Proposal::Add)).sign();
    handshake(it.commit(&forged))
}

fn default_types_listed() -> Answers {
    package_everywhere(|| {
        let newcomer = plain("newcomer").supporting_extensions(&[1, 3]).supporting_proposals(&[1, 2]);
        let package = newcomer.key_package();
        (newcomer, package)
    })
}

fn new_type_and_added_leaf() -> Answers {
    let mut it = Scene::new(3);
    let add = it.group.add(&plain("newcomer"));
    let forged = it.group.commit(0).with(add).with(Proposal::Other(PRIVATE_USE, vec![1, 9])).sign();
    handshake(it.commit(&forged))
}

fn custom_proposals() -> Answers {
    let mut it = Scene::new(3);
    let mut long = vec![0x40, 0x41];
    long.extend([1; 0x41]);
    let list = [vec![1, 9], vec![1, 8], vec![1, 9], vec![0], long];
    let list: Vec<_> = list.into_iter().map(|body| Proposal::Other(PRIVATE_USE, body)).collect();
    let forged = it.group.commit(0).with_all(list).sign();
    handshake(it.commit(&forged))
}

/// Application data of members, of an external sender, of one who joins, and without a path.
fn application_proposals() -> Answers {
    let ephemeral = || Proposal::AppEphemeral { component_id: 0x8001, data: vec![1, 2] };
    let mut answers = each_way(|| Scene::new(3), |_| ephemeral());
    let mut it = Scene::new(3);
    let forged = it.group.commit(0).with(ephemeral()).path(PathChoice::Without).sign();
    answers.extend(handshake(it.commit(&forged)));
    let mut it = with_service(3);
    answers.extend(handshake(it.try_proposal(Sender::External(0), ephemeral())));
    let mut it = Scene::new(3);
    let forged = it.group.external_commit(&client("joiner")).with(ephemeral()).sign();
    answers.extend(handshake(it.commit(&forged)));
    answers
}

fn application_psk() -> Answers {
    each_way(
        || Scene::new(3),
        |_| {
            let psk = Psk::Application { component_id: 0x8001, psk_id: vec![5; 9] };
            Proposal::PreSharedKey(PreSharedKeyId { psk, psk_nonce: vec![1; SUITE.hash_length()] })
        },
    )
}

/// The usages `reinit` and `branch`.
fn psks_of_succession() -> Answers {
    let first_commit = |usage| {
        let mut it = Scene::of(Group::create(client("alice")));
        let add = it.group.add(&client("bob"));
        let key = Proposal::PreSharedKey(PreSharedKeyId {
            psk: Psk::Resumption { usage, psk_group_id: b"the group before".to_vec(), psk_epoch: 7 },
            psk_nonce: vec![3; SUITE.hash_length()],
        });
        let forged = it.group.commit(0).with(add).with(key).sign();
        handshake(it.commit(&forged))
    };
    [2, 3].into_iter().flat_map(first_commit).collect()
}

fn many_psks() -> Answers {
    let mut it = Scene::new(3);
    let nonce = |byte| vec![byte; SUITE.hash_length()];
    let list = [
        Proposal::external_psk(SUITE, b"one"),
        Proposal::PreSharedKey(PreSharedKeyId { psk: Psk::External(b"one".to_vec()), psk_nonce: nonce(2) }),
        Proposal::PreSharedKey(PreSharedKeyId {
            psk: Psk::Resumption { usage: 1, psk_group_id: b"any".to_vec(), psk_epoch: u64::MAX },
            psk_nonce: nonce(3),
        }),
    ];
    let mut plan = it.group.external_commit(&client("joiner"));
    plan = plan.with_all(list.clone());
    let forged = plan.sign();
    let mut answers = handshake(it.commit(&forged));
    let mut it = Scene::new(3);
    let forged = it.group.commit(0).with_all(list).path(PathChoice::Without).sign();
    answers.extend(handshake(it.commit(&forged)));
    answers
}

/// ReInit to what this gateway does not know: it need not follow there.
fn reinit_to_the_unknown() -> Answers {
    let targets = [
        ReInit { group_id: vec![1; 300], version: 2, cipher_suite: 0xf001, extensions: Vec::new() },
        ReInit {
            group_id: Vec::new(),
            version: MLS_10,
            cipher_suite: 7,
            extensions: vec![Extension { kind: UNLISTED, data: vec![1] }],
        },
    ];
    let mut answers = Vec::new();
    for target in targets {
        answers.extend(each_way(|| Scene::new(3), |_| Proposal::ReInit(target.clone())));
        let mut it = with_service(3);
        answers.extend(handshake(it.try_proposal(Sender::External(0), Proposal::ReInit(target))));
    }
    answers
}

fn external_sender_psk() -> Answers {
    let mut it = with_service(3);
    it.pend(Sender::External(0), Proposal::external_psk(SUITE, b"a key"));
    let forged = it.group.commit(0).with_pending().sign();
    handshake(it.commit(&forged))
}

/// The signature key of a leaf that leaves by SelfRemove, in a new leaf.
fn key_returns() -> Answers {
    let mut it = Scene::new(4);
    it.pend(Sender::Member(2), Proposal::SelfRemove);
    let again = client("member 2");
    let add = it.group.add(&again);
    let forged = it.group.commit(0).with_pending().with(add).sign();
    handshake(it.commit(&forged))
}

/// A leaf that has been in the group for longer than its lifetime.
fn expired_member() -> Answers {
    let mut members = clients(3);
    let now_s = crate::clock::Clock::system().now().0 / 1000;
    members[2].lifetime = Lifetime { not_before: now_s - 100, not_after: now_s + 3600 };
    let mut it = Scene::of(Group::of_clients(members, SharedTree::Blank));
    it.observer.now.0 += 3600 * 1000 * 2;
    let forged = it.group.commit(0).sign();
    it.proceed(&forged);
    let forged = it.group.commit(2).sign();
    handshake(it.commit(&forged))
}

/// A member that changes its signature key with its path, and then uses the new one.
fn new_signature_key() -> Answers {
    let mut it = Scene::new(4);
    let mut draft = it.group.commit(1).draft();
    draft.pass_leaf_to(&renewed("member 1"));
    let forged = draft.sign();
    it.proceed(&forged);
    let message = it.group.propose(Sender::Member(1), Proposal::Remove(2));
    it.propose(&message).unwrap();
    let forged = it.group.commit(1).with_pending().sign();
    handshake(it.commit(&forged))
}

/// The same package as in a removed leaf may come back, and with it the encryption key.
fn same_package_returns() -> Answers {
    let mut it = Scene::new(3);
    let newcomer = client("newcomer");
    let add = it.group.add(&newcomer);
    let forged = it.group.commit(0).with(add.clone()).sign();
    it.proceed(&forged);
    let forged = it.group.commit(0).with(Proposal::Remove(3)).with(add).sign();
    handshake(it.commit(&forged))
}

/// The proposals that a joiner may refer to, and its own Remove.
fn joiner_with_self_removes() -> Answers {
    let mut it = Scene::new(5);
    it.pend(Sender::Member(1), Proposal::SelfRemove);
    it.pend(Sender::Member(4), Proposal::SelfRemove);
    let back = it.group.client(3).clone();
    let forged = it.group.external_commit(&back).with(Proposal::Remove(3)).with_pending().sign();
    handshake(it.commit(&forged))
}

fn commit_without_own_proposals() -> Answers {
    let mut it = Scene::new(4);
    it.pend(Sender::Member(1), Proposal::Remove(2));
    let forged = it.group.commit(0).sign();
    handshake(it.commit(&forged))
}

/// Members may require nothing but what the last of them supports.
fn requirements_dropped() -> Answers {
    let required = Extension::required_capabilities(&[PRIVATE_USE], &[proposal::SELF_REMOVE], &[]);
    let mut it = Scene::of(super::scene::group_with(3, vec![required]));
    let add = it.group.add(&plain("newcomer"));
    let forged = it.group.commit(0).with(add).with(Proposal::GroupContextExtensions(Vec::new())).sign();
    handshake(it.commit(&forged))
}

fn authenticated_data() -> Answers {
    let mut it = Scene::new(3);
    let mut plan = it.group.commit(1);
    plan.authenticated_data = vec![7; 20_000];
    let forged = plan.sign();
    handshake(it.commit(&forged))
}

allowed! {
    unknown_extensions_of_leaves ("§13.4"): "Extensions of a leaf and key package that nobody else knows, if the leaf lists them.", unknown_extensions;
    default_extensions_unlisted ("§7.2"): "A default extension in a leaf that is not listed.", default_extensions;
    default_types_in_capabilities ("§7.2"): "Default types in capabilities, where they need not and should not be.", default_types_listed;
    added_leaves_need_no_support ("§12.2"): "A proposal of a new type beside an Add of a client that does not support it.", new_type_and_added_leaf;
    many_of_one_type ("§12.2"): "Several proposals of one type that the gateway does not know, the same one twice among them.", custom_proposals;
    app_ephemeral ("MLS extensions, *Attaching Application Data to a Commit*"): "AppEphemeral by members, external senders and joiners, without a path.", application_proposals;
    application_psks ("MLS extensions, *Pre-Shared Keys*"): "Pre-shared keys of applications.", application_psk;
    psks_of_a_succession ("§11.2, §11.3, §12.1.4"): "The resumption key of a re-initialised or branched group, in the first commit of its successor.", psks_of_succession;
    psks_with_other_nonces ("§12.2"): "Any number of pre-shared keys, one of them twice with two nonces.", many_psks;
    reinit_to_anything ("§12.1.5"): "A ReInit to a newer version, an unknown suite, any group id and any extensions.", reinit_to_the_unknown;
    psk_of_external_sender ("§12.1.8"): "A PreSharedKey of an external sender.", external_sender_psk;
    signature_key_returns ("§7.3, §12.3"): "The signature key of a member that leaves by SelfRemove comes back in the same commit.", key_returns;
    lifetime_of_members ("§7.3"): "A member stays, and commits, when the lifetime of its leaf has ended.", expired_member;
    signature_key_changes ("§7.3, §12.4.2"): "A member changes its signature key by a path.", new_signature_key;
    package_returns ("§12.2, §12.3"): "A key package comes back in the commit that removes its leaf.", same_package_returns;
    last_resort ("MLS extensions, *Last-Resort KeyPackages*"): "A key package that is marked as one of last resort, by the extension or by the component.", marked_last_resort;
    init_key_of_another ("§10"): "Two added clients whose key packages have the same `init_key`: only the packages of one client must differ in it.", init_keys;
    resync_with_self_removes ("§12.2; MLS extensions, *SelfRemove Proposal*"): "One that comes back removes itself and others that leave.", joiner_with_self_removes;
    proposals_left_out ("§12.4"): "A commit that leaves out proposals of its epoch.", commit_without_own_proposals;
    requirements_end ("§12.3"): "A commit that drops a requirement and adds a client that does not meet it.", requirements_dropped;
    any_authenticated_data ("§6"): "Authenticated data of any length.", authenticated_data;
}
