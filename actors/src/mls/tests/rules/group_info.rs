//! The GroupInfo and the Welcome that come with a commit (RFC 9420 §12.4.3).

use mls_forge::{Extension, Forged, GroupInfo, Proposal, Welcome, extension};

use super::{super::CommitInput, Answers, PRIVATE_USE, Scene, client, handshake, rules};

/// A commit of member 1 whose GroupInfo is changed and signed again.
fn changed(change: impl Fn(&mut GroupInfo, &Scene)) -> Answers {
    let mut it = Scene::new(4);
    let mut forged = it.group.commit(1).sign();
    change(&mut forged.group_info, &it);
    forged.sign_group_info();
    handshake(it.commit(&forged))
}

/// A commit that adds two clients, with its Welcome changed.
fn welcomed(change: impl Fn(&mut Forged)) -> Answers {
    let mut it = Scene::new(3);
    let adds = ["one", "two"].map(|name| it.group.add(&client(name)));
    let mut forged = it.group.commit(0).with_all(adds).sign();
    change(&mut forged);
    handshake(it.commit(&forged))
}

fn context(broken: bool) -> Answers {
    let changes: [fn(&mut GroupInfo); 6] = [
        |info| info.group_context.epoch += 1,
        |info| info.group_context.tree_hash[0] ^= 1,
        |info| info.group_context.confirmed_transcript_hash[0] ^= 1,
        |info| info.group_context.group_id[0] ^= 1,
        |info| info.group_context.extensions.push(Extension { kind: PRIVATE_USE, data: vec![1] }),
        |info| info.group_context.epoch -= 1,
    ];
    changes
        .into_iter()
        .flat_map(|change| {
            changed(|info, _| {
                if broken {
                    change(info);
                }
            })
        })
        .collect()
}

fn signature(broken: bool) -> Answers {
    let mut it = Scene::new(4);
    let mut forged = it.group.commit(1).sign();
    if broken {
        forged.group_info.sign(&it.group.client(2).key);
    }
    handshake(it.commit(&forged))
}

fn signer(broken: bool) -> Answers {
    let mut answers = Vec::new();
    // The other member's own signature, and the committer's under the other's name.
    for key_of in [2, 1] {
        let mut it = Scene::new(4);
        let mut forged = it.group.commit(1).sign();
        if broken {
            forged.group_info.signer = 2;
            forged.group_info.sign(&it.group.client(key_of).key);
        }
        answers.extend(handshake(it.commit(&forged)));
    }
    answers
}

fn tree(broken: bool) -> Answers {
    let mut it = Scene::new(4);
    let before = it.group.tree_bytes();
    let mut forged = it.group.commit(1).sign();
    let after = mls_forge::Tls::to_bytes(&forged.tree);
    let data = if broken { before } else { after };
    forged.group_info.extensions.push(Extension { kind: extension::RATCHET_TREE, data });
    forged.sign_group_info();
    handshake(it.commit(&forged))
}

fn missing(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let add = it.group.add(&client("one"));
    let forged = it.group.commit(0).with(add).sign();
    let (commit, welcome) = (forged.commit_bytes(), forged.welcome_bytes());
    let welcome = welcome.as_deref().filter(|_| !broken);
    handshake(it.observer.commit(CommitInput { commit: &commit, group_info: None, welcome }))
}

fn needless(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let mut forged = it.group.commit(0).with(Proposal::Remove(1)).sign();
    if broken {
        let add = it.group.add(&client("one"));
        forged.welcome = it.group.commit(0).with(add).sign().welcome;
    }
    handshake(it.commit(&forged))
}

fn receivers(broken: bool) -> Answers {
    let changes: [fn(&mut Welcome); 4] = [
        |welcome| drop(welcome.secrets.pop()),
        |welcome| welcome.secrets[0].new_member[0] ^= 1,
        |welcome| welcome.secrets.push(welcome.secrets[0].clone()),
        |welcome| welcome.secrets[1] = welcome.secrets[0].clone(),
    ];
    changes
        .into_iter()
        .flat_map(|change| {
            welcomed(|forged| {
                if broken {
                    change(forged.welcome.as_mut().unwrap());
                }
            })
        })
        .collect()
}

rules! {
    info_context ("§12.4.3", "group-info-mismatch"):
        "The GroupInfo of a commit has the context of the epoch that the commit begins.",
        accepted: "It has.",
        context;
    info_confirmation_tag ("§12.4.3", "group-info-mismatch"):
        "It has the commit's confirmation tag.",
        accepted: "It has.",
        |broken| changed(|info, _| {
            if broken {
                info.confirmation_tag[0] ^= 1;
            }
        });
    info_signature_of_commit ("§12.4.3", "group-info-mismatch"):
        "It is signed with the key of its signer in the new tree.",
        accepted: "It is.",
        signature;
    info_by_committer ("the draft, *Commits*", "group-info-mismatch"):
        "Its signer is the committer.",
        accepted: "It is.",
        signer;
    info_tree_of_commit ("§12.4.3.3", "group-info-mismatch"):
        "A tree in it is that of the epoch that the commit begins.",
        accepted: "It is.",
        tree;
    welcome_is_there ("§12.4.3.1", "welcome-missing"):
        "A commit that adds clients comes with a Welcome.",
        accepted: "It does.",
        missing;
    welcome_is_needed ("§12.4.3.1", "welcome-mismatch"):
        "A commit that adds nobody comes without one.",
        accepted: "Without.",
        needless;
    welcome_receivers ("§12.4.3.1", "welcome-mismatch"):
        "A Welcome has secrets for each key package that the commit adds, once, and for no other.",
        accepted: "It has.",
        receivers;
    welcome_cipher_suite ("§12.4.3.1", "welcome-mismatch"):
        "A Welcome is of the group's cipher suite.",
        accepted: "It is.",
        |broken| welcomed(|forged| {
            if broken {
                forged.welcome.as_mut().unwrap().cipher_suite = 3;
            }
        });
}
