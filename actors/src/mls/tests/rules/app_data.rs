//! Application data in the group context (*Updating Application Data in the GroupContext* of the MLS extensions draft).

use mls_forge::{Extension, Forged, Group, PathChoice, Proposal, Sender, SharedTree, Tls as _, proposal};

use super::{
    super::CommitInput,
    Answers, Scene, Way, allowed, answer, client, handshake, rules,
    scene::{clients, group_with},
};

const DICTIONARY: u16 = 6;
const FIRST: u16 = 0x8001;
const SECOND: u16 = 0x8002;

/// An `app_data_dictionary`.
fn dictionary(entries: &[(u16, &[u8])]) -> Extension {
    let mut list = Vec::new();
    for (component, data) in entries {
        component.write(&mut list);
        data.to_vec().write(&mut list);
    }
    Extension { kind: DICTIONARY, data: list.to_bytes() }
}

/// Three members who support the dictionary, in a group with these extensions.
fn scene(extensions: Vec<Extension>) -> Scene {
    let clients = clients(3).into_iter().map(|client| client.supporting_extensions(&[DICTIONARY]));
    Scene::of(Group::of_clients_with(clients.collect(), SharedTree::Populated, extensions))
}

fn update(component_id: u16) -> Proposal {
    Proposal::AppDataUpdate { component_id, update: Some(b"an instruction".to_vec()) }
}

fn removal(component_id: u16) -> Proposal {
    Proposal::AppDataUpdate { component_id, update: None }
}

/// A commit of these proposals, after which the context has these extensions.
fn commit(it: &Scene, list: Vec<Proposal>, after: Vec<Extension>) -> Forged {
    let mut draft = it.group.commit(0).with_pending().with_all(list).path(PathChoice::Without).draft();
    draft.extensions = after;
    draft.sign()
}

fn committed(before: Vec<Extension>, list: Vec<Proposal>, after: Vec<Extension>) -> Answers {
    let mut it = scene(before);
    let forged = commit(&it, list, after);
    handshake(it.commit(&forged))
}

/// Proposed, and by value.
fn removes(broken: bool) -> Answers {
    let component = if broken { SECOND } else { FIRST };
    let before = || vec![dictionary(&[(FIRST, b"data")])];
    let mut it = scene(before());
    let proposed = it.try_proposal(Sender::Member(1), removal(component));
    let mut answers = vec![(Way::Handshake("proposed"), proposed.map_err(answer))];
    answers.extend(committed(before(), vec![removal(component)], vec![dictionary(&[])]));
    if broken {
        // Nor is there anything without a dictionary.
        answers.extend(committed(Vec::new(), vec![removal(FIRST)], Vec::new()));
    }
    answers
}

fn one_operation(broken: bool) -> Answers {
    let lists = if broken {
        vec![
            vec![removal(FIRST), removal(FIRST)],
            vec![removal(FIRST), update(FIRST)],
            vec![update(FIRST), removal(FIRST)],
        ]
    } else {
        vec![vec![removal(FIRST), update(SECOND)]]
    };
    let before = || vec![dictionary(&[(FIRST, b"data")])];
    let after = || vec![dictionary(&[(SECOND, b"new")])];
    lists.into_iter().flat_map(|list| committed(before(), list, after())).collect()
}

fn told(broken: bool) -> Answers {
    let mut it = scene(Vec::new());
    let forged = commit(&it, vec![update(FIRST)], vec![dictionary(&[(FIRST, b"new")])]);
    if !broken {
        return handshake(it.commit(&forged));
    }
    let packet = forged.commit_bytes();
    let mut answers =
        handshake(it.observer.commit(CommitInput { commit: &packet, group_info: None, welcome: None }));
    // Nor does a GroupInfo tell that has no data of the component.
    answers.extend(committed(Vec::new(), vec![update(FIRST)], vec![dictionary(&[(SECOND, b"new")])]));
    answers
}

fn nothing_else(broken: bool) -> Answers {
    let before = || vec![dictionary(&[(FIRST, b"data"), (SECOND, b"data")])];
    let after = if broken {
        vec![
            vec![dictionary(&[(FIRST, b"new"), (SECOND, b"new")])],
            vec![dictionary(&[(FIRST, b"new")])],
            vec![dictionary(&[(FIRST, b"new"), (SECOND, b"data"), (SECOND + 1, b"more")])],
            vec![
                dictionary(&[(FIRST, b"new"), (SECOND, b"data")]),
                Extension { kind: super::PRIVATE_USE, data: vec![1] },
            ],
        ]
    } else {
        vec![vec![dictionary(&[(FIRST, b"new"), (SECOND, b"data")])]]
    };
    after.into_iter().flat_map(|after| committed(before(), vec![update(FIRST)], after)).collect()
}

fn kept(broken: bool) -> Answers {
    let required = || Extension::required_capabilities(&[], &[proposal::APP_DATA_UPDATE], &[]);
    let before = || vec![required(), dictionary(&[(FIRST, b"data")])];
    let after = if broken {
        vec![vec![required()], vec![required(), dictionary(&[(FIRST, b"new")])], Vec::new()]
    } else {
        vec![vec![dictionary(&[(FIRST, b"data")]), required()], vec![dictionary(&[(FIRST, b"data")])]]
    };
    let each = |after: Vec<Extension>| {
        super::proposal::each_way(|| scene(before()), |_| Proposal::GroupContextExtensions(after.clone()))
    };
    after.into_iter().flat_map(each).collect()
}

fn supported(broken: bool) -> Answers {
    let mut it = if broken { Scene::of(group_with(3, Vec::new())) } else { scene(Vec::new()) };
    let forged = commit(&it, vec![update(FIRST)], vec![dictionary(&[(FIRST, b"new")])]);
    handshake(it.commit(&forged))
}

/// Several components, several updates of one, by reference and by value; the group goes on.
fn many() -> Answers {
    let mut it =
        scene(vec![dictionary(&[(FIRST, b"data")]), Extension { kind: super::PRIVATE_USE, data: vec![1] }]);
    for component in [SECOND, FIRST] {
        it.pend(Sender::Member(1), update(component));
    }
    let after = vec![
        dictionary(&[(FIRST - 1, b""), (FIRST, b"new"), (SECOND, &[7; 200])]),
        Extension { kind: super::PRIVATE_USE, data: vec![1] },
    ];
    let forged = commit(&it, vec![update(FIRST - 1), update(FIRST)], after);
    it.proceed(&forged);
    let update = it.group.update(1);
    it.pend(Sender::Member(1), update);
    let forged = it.group.commit(2).with_pending().sign();
    handshake(it.commit(&forged))
}

/// By an external sender, and by one who joins.
fn from_outside() -> Answers {
    let mut it = super::framing::with_service(3);
    let mut answers = handshake(it.try_proposal(Sender::External(0), update(FIRST)));
    let mut it = scene(Vec::new());
    let joiner = client("joiner").supporting_extensions(&[DICTIONARY]);
    let mut draft = it.group.external_commit(&joiner).with(update(FIRST)).draft();
    draft.extensions = vec![dictionary(&[(FIRST, b"new")])];
    let forged = draft.sign();
    answers.extend(handshake(it.commit(&forged)));
    answers
}

/// The dictionary changes beside other extensions, which a GroupContextExtensions sets.
fn with_context_extensions() -> Answers {
    let other = || Extension { kind: super::PRIVATE_USE, data: vec![1] };
    let list = vec![Proposal::GroupContextExtensions(vec![other()]), update(FIRST)];
    let mut it = scene(vec![dictionary(&[(SECOND, b"data")])]);
    let mut draft = it.group.commit(0).with_all(list).draft();
    draft.extensions = vec![other(), dictionary(&[(FIRST, b"new")])];
    let forged = draft.sign();
    handshake(it.commit(&forged))
}

rules! {
    data_to_remove ("MLS extensions, *Updating Application Data in the GroupContext*", "proposal"):
        "An AppDataUpdate removes data that are there.",
        accepted: "They are.",
        removes;
    one_operation_per_component ("MLS extensions, *Updating Application Data in the GroupContext*", "distinct-proposals"):
        "A commit removes the data of a component once, and does not update them as well.",
        accepted: "It removes those of one component and updates those of another.",
        one_operation;
    data_told ("MLS extensions, *Updating Application Data in the GroupContext*", "proposal"):
        "A commit that updates data comes with a GroupInfo that has the new data.",
        accepted: "It does.",
        told;
    nothing_else_told ("MLS extensions, *Updating Application Data in the GroupContext*", "group-info-mismatch"):
        "Such a GroupInfo differs in nothing but the data of the updated components.",
        accepted: "It has the other component's data as they were.",
        nothing_else;
    dictionary_kept ("MLS extensions, *Updating Application Data in the GroupContext*", "group-context-extensions"):
        "Where a group requires AppDataUpdate, a GroupContextExtensions leaves the `app_data_dictionary` as it is.",
        accepted: "It changes other extensions and their order.",
        kept;
    dictionary_supported ("§13.4", "unknown-kind"):
        "All members support the `app_data_dictionary` that an AppDataUpdate adds to the context.",
        accepted: "They list it.",
        supported;
}

allowed! {
    app_data_updates ("MLS extensions, *Updating Application Data in the GroupContext*"): "AppDataUpdates of several components, several of one of them, and no path.", many;
    app_data_from_outside ("MLS extensions, *Updating Application Data in the GroupContext*"): "An AppDataUpdate of an external sender, and one in an external commit.", from_outside;
    app_data_beside_extensions ("MLS extensions, *Updating Application Data in the GroupContext*"): "An AppDataUpdate beside a GroupContextExtensions.", with_context_extensions;
}
