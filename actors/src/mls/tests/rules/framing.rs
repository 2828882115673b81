//! Framing and senders of proposals and commits (RFC 9420 §6, §12.1.8).

use mls_forge::{
    Content, Credential, Extension, ExternalSender, FramedContent, PathChoice, Proposal, Sender, Tls as _,
    extension, message, wire_format,
};

use super::{Answers, PRIVATE_USE, Scene, Way, answer, client, handshake, rules, scene::group_with};

/// A scene whose context names one external sender, a service.
pub(super) fn with_service(count: usize) -> Scene {
    let service = client("service");
    let sender = ExternalSender {
        signature_key: service.key.public(),
        credential: Credential::Basic(b"service".to_vec()),
    };
    let mut group = group_with(count, vec![Extension::of(extension::EXTERNAL_SENDERS, &vec![sender])]);
    group.know(&service);
    Scene::of(group)
}

/// A proposal and an empty commit of member 1 with other content around them, signed.
fn changed(change: impl Fn(&mut FramedContent)) -> Answers {
    let mut it = Scene::new(3);
    let mut proposal = it.group.proposal(Sender::Member(1), Proposal::Remove(2));
    change(&mut proposal.content);
    it.group.sign(&mut proposal);
    let mut answers = vec![(Way::Handshake("a proposal"), it.propose(&proposal).map_err(answer))];
    let mut draft = it.group.commit(1).draft();
    change(&mut draft.message.content);
    let forged = draft.sign();
    answers.push((Way::Handshake("a commit"), it.commit(&forged).map_err(answer)));
    answers
}

/// A proposal and a commit of member 1 that are signed by this member, for an epoch that is off by this.
fn signed(signer: u32, epochs_off: u64) -> Answers {
    let mut it = Scene::new(3);
    let key = it.group.client(signer).key.clone();
    let mut context = it.group.context.clone();
    context.epoch += epochs_off;
    let mut proposal = it.group.proposal(Sender::Member(1), Proposal::Remove(2));
    proposal.sign(&key, &context);
    let mut answers = vec![(Way::Handshake("a proposal"), it.propose(&proposal).map_err(answer))];
    let mut draft = it.group.commit(1).draft();
    draft.key = key;
    draft.signed_context = context;
    let forged = draft.sign();
    answers.push((Way::Handshake("a commit"), it.commit(&forged).map_err(answer)));
    answers
}

/// A PrivateMessage of some bytes, or the PublicMessage.
fn private_message(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let commit = it.group.commit(1).sign();
    if !broken {
        return handshake(it.commit(&commit));
    }
    struct Private(Vec<u8>);
    impl mls_forge::Tls for Private {
        fn write(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0);
        }
        fn read(_: &mut mls_forge::Reader<'_>) -> Result<Self, mls_forge::Malformed> {
            Err(mls_forge::Malformed)
        }
    }
    let mut body = Vec::new();
    it.group.context.group_id.write(&mut body);
    it.group.context.epoch.write(&mut body);
    body.push(3);
    for field in [Vec::<u8>::new(), vec![1; 28], vec![2; 300]] {
        field.write(&mut body);
    }
    let packet = message(wire_format::PRIVATE_MESSAGE, &Private(body));
    let input = super::super::CommitInput { commit: &packet, group_info: None, welcome: None };
    handshake(it.observer.commit(input))
}

/// A commit in a message of another version.
fn message_version(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let mut packet = it.group.commit(1).sign().commit_bytes();
    packet[1] = if broken { 2 } else { 1 };
    let input = super::super::CommitInput { commit: &packet, group_info: None, welcome: None };
    handshake(it.observer.commit(input))
}

/// Application data in a PublicMessage.
fn application_data(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let mut message = it.group.proposal(Sender::Member(1), Proposal::Remove(2));
    if broken {
        message.content.content = Content::Application(vec![1, 2, 3]);
        it.group.sign(&mut message);
    }
    handshake(it.propose(&message))
}

fn blank_sender(broken: bool) -> Answers {
    let mut it = Scene::new(4);
    let removed = it.group.client(3).clone();
    let forged = it.group.commit(0).with(Proposal::Remove(3)).sign();
    it.proceed(&forged);
    let (sender, key) = if broken { (3, removed.key) } else { (2, it.group.client(2).key.clone()) };
    let mut answers = Vec::new();
    for sender in [sender, if broken { 700 } else { sender }] {
        let mut proposal = it.group.proposal(Sender::Member(1), Proposal::Remove(0));
        proposal.content.sender = Sender::Member(sender);
        proposal.sign(&key, &it.group.context);
        answers.extend(handshake(it.propose(&proposal)));
    }
    if broken {
        let mut draft = it.group.commit(1).draft();
        draft.message.content.sender = Sender::Member(3);
        draft.key = key;
        let forged = draft.sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    answers
}

/// A commit under another type of sender.
fn committer(broken: bool) -> Answers {
    let mut answers = Vec::new();
    for sender in [Sender::External(0), Sender::NewMemberProposal] {
        let mut it = with_service(3);
        let mut draft = it.group.commit(1).draft();
        if broken {
            draft.message.content.sender = sender;
            draft.message.membership_tag = None;
            draft.key = it.group.client_of(&client("service").key.public()).key.clone();
        }
        let forged = draft.sign();
        answers.extend(handshake(it.commit(&forged)));
    }
    answers
}

fn no_external_sender(broken: bool) -> Answers {
    let mut it = with_service(3);
    let mut message = it.group.proposal(Sender::External(0), Proposal::Remove(1));
    let key = it.group.client_of(&client("service").key.public()).key.clone();
    if broken {
        message.content.sender = Sender::External(1);
        message.sign(&key, &it.group.context);
    }
    let mut answers = handshake(it.propose(&message));
    if broken {
        // A group without the extension.
        let mut it = Scene::new(3);
        let mut message = it.group.proposal(Sender::Member(0), Proposal::Remove(1));
        message.content.sender = Sender::External(0);
        message.membership_tag = None;
        message.sign(&key, &it.group.context);
        answers.extend(handshake(it.propose(&message)));
    }
    answers
}

/// Proposals that an external sender may not send.
fn external_types(broken: bool) -> Answers {
    let mut it = with_service(3);
    let update = it.group.update(1);
    let proposals = if broken {
        vec![update, Proposal::ExternalInit(vec![1; 32]), Proposal::SelfRemove]
    } else {
        let newcomer = client("newcomer");
        let mut extensions = it.group.context.extensions.clone();
        extensions.push(Extension { kind: PRIVATE_USE, data: vec![1] });
        vec![
            it.group.add(&newcomer),
            Proposal::Remove(1),
            Proposal::external_psk(it.group.suite, b"a key"),
            Proposal::GroupContextExtensions(extensions),
            Proposal::ReInit(super::proposal::reinit(&it.group)),
        ]
    };
    proposals
        .into_iter()
        .flat_map(|proposal| handshake(it.try_proposal(Sender::External(0), proposal)))
        .collect()
}

fn newcomers_proposal(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let newcomer = client("newcomer");
    let add = it.group.add(&newcomer);
    let mut message = it.group.proposal(Sender::NewMemberProposal, add);
    if broken {
        *message.proposal_mut() = Proposal::Remove(1);
        message.sign(&newcomer.key, &it.group.context);
    }
    handshake(it.propose(&message))
}

fn newcomers_signature(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let newcomer = client("newcomer");
    let add = it.group.add(&newcomer);
    let mut message = it.group.proposal(Sender::NewMemberProposal, add);
    if broken {
        message.sign(&client("another").key, &it.group.context);
    }
    handshake(it.propose(&message))
}

fn external_signature(broken: bool) -> Answers {
    let mut it = with_service(3);
    let mut message = it.group.proposal(Sender::External(0), Proposal::Remove(1));
    if broken {
        message.sign(&client("another").key, &it.group.context);
    }
    handshake(it.propose(&message))
}

/// A proposal as a joiner's commit.
fn joiners_proposal(broken: bool) -> Answers {
    let mut it = Scene::new(3);
    let joiner = client("joiner");
    if !broken {
        let forged = it.group.external_commit(&joiner).path(PathChoice::With).sign();
        return handshake(it.commit(&forged));
    }
    let mut message = it.group.proposal(Sender::Member(1), Proposal::Remove(2));
    message.content.sender = Sender::NewMemberCommit;
    message.membership_tag = None;
    message.sign(&joiner.key, &it.group.context);
    handshake(it.propose(&message))
}

rules! {
    public_message ("§6.2; the draft, *Managing Groups without Metadata Protection*", "public-message"):
        "A handshake message is a PublicMessage: nobody outside the group can read another.",
        accepted: "The same commit as a PublicMessage.",
        private_message;
    protocol_version ("§6", "malformed-mls-message"):
        "An MLSMessage is of the protocol version 1.0.",
        accepted: "It is.",
        message_version;
    application_in_public ("§6", "malformed-mls-message"):
        "Application data is never in a PublicMessage.",
        accepted: "A proposal.",
        application_data;
    group_id ("§6.1", "group"):
        "A message names the group that it is uploaded to.",
        accepted: "It does.",
        |broken| changed(|content| {
            if broken {
                content.group_id[0] ^= 1;
            }
        });
    epoch_past ("§12.1, §12.4.2", "stale-epoch"):
        "A message is of the present epoch, and not of an earlier one.",
        accepted: "Of the present one.",
        |broken| changed(|content| {
            if broken {
                content.epoch -= 1;
            }
        });
    epoch_to_come ("§12.1, §12.4.2", "future-epoch"):
        "A message is of the present epoch, and not of a later one.",
        accepted: "Of the present one.",
        |broken| changed(|content| {
            if broken {
                content.epoch += 1;
            }
        });
    sender_is_member ("§6.1", "sender"):
        "A message of a member comes from a leaf that is not blank.",
        accepted: "It does, next to a blank leaf.",
        blank_sender;
    signature_of_sender ("§6.1", "signature"):
        "A message is signed with its sender's key.",
        accepted: "It is.",
        |broken| signed(if broken { 2 } else { 1 }, 0);
    signature_of_context ("§6.1", "signature"):
        "The signature of a member's message covers the group context of its epoch.",
        accepted: "It does.",
        |broken| signed(1, u64::from(broken));
    committers ("§6.1", "sender"):
        "Only a member, or one who joins by it, sends a commit.",
        accepted: "A member's.",
        committer;
    external_sender_exists ("§6.1, §12.1.8.1", "sender"):
        "An external sender is in the context's `external_senders`.",
        accepted: "The only one there.",
        no_external_sender;
    external_sender_signature ("§6.1", "signature"):
        "An external proposal is signed with the key in `external_senders`.",
        accepted: "It is.",
        external_signature;
    external_sender_types ("§12.1.8", "sender"):
        "An external sender proposes no Update, ExternalInit or SelfRemove.",
        accepted: "Add, Remove, PreSharedKey, ReInit and GroupContextExtensions.",
        external_types;
    newcomer_proposes_add ("§6.1", "sender"):
        "Somebody who is not a member proposes nothing but an Add.",
        accepted: "An Add.",
        newcomers_proposal;
    newcomer_proposes_itself ("§6.1", "signature"):
        "An Add that a newcomer proposes is signed with the key in its key package.",
        accepted: "It is.",
        newcomers_signature;
    joiner_commits ("§6.1", "sender"):
        "Somebody who joins by a commit sends a commit.",
        accepted: "It is one.",
        joiners_proposal;
}
