//! Event streams and waits: everything that is accepted is told once and in order, also to readers that come back after the
//! gateway was stopped.

mod followers;
mod limits;
mod queues;
mod resuming;
mod waiting;

use std::time::Duration;

use mimi_gateway::{
    api::{
        events::{EpochEvent, EventData, EventQuery, GroupChange, ProposalEvent},
        text::EventIdText,
    },
    client::{EventReader, GatewayClient},
};
use tokio::time::timeout;

use crate::mls_support::{Member, MlsClient, clients};
use crate::support::TestGateway;

/// How long an event may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn after(id: Option<EventIdText>) -> EventQuery {
    EventQuery { after: id, packets: false }
}

/// The next event, which must come.
async fn next(reader: &mut EventReader) -> EventData {
    timeout(PATIENCE, reader.next()).await.expect("an event comes").unwrap().expect("the stream goes on")
}

/// So many events, each with its id, without warnings about key queues.
async fn events(reader: &mut EventReader, count: usize) -> Vec<(EventIdText, EventData)> {
    let mut events = Vec::new();
    while events.len() < count {
        let event = next(reader).await;
        if !matches!(event, EventData::KeyPackages(_)) {
            events.push((reader.last_event_id().unwrap(), event));
        }
    }
    events
}

/// Nothing comes for a moment. The reader cannot be used after it.
async fn assert_silent(mut reader: EventReader) {
    let event = timeout(Duration::from_millis(300), reader.next()).await;
    assert!(event.is_err(), "{event:?}");
}

/// The stream of the application from now on, once it has begun.
async fn application_stream(api: &GatewayClient) -> EventReader {
    api.application_events(&EventQuery::default()).await.unwrap()
}

/// The kinds of events, and the epoch of each that has one.
fn outline(events: &[(EventIdText, EventData)]) -> Vec<(&'static str, u64)> {
    let outline = |event: &EventData| match event {
        EventData::Proposal(ProposalEvent { epoch_id, .. }) => ("proposal", epoch_id.0),
        EventData::Epoch(EpochEvent { epoch_id, .. }) => ("epoch", epoch_id.0),
        EventData::Group(event) => match event.change {
            GroupChange::Created => ("group", 0),
            GroupChange::Deleted => ("group deleted", 0),
        },
        EventData::Welcome(event) => ("welcome", event.epoch_id.0),
        EventData::KeyPackages(_) => ("key-packages", 0),
        EventData::EpochReported(event) => ("epoch-reported", event.epoch_id.0),
        EventData::Reset(_) => ("reset", 0),
    };
    events.iter().map(|(_, event)| outline(event)).collect()
}

/// What [`tell`] does, as a stream of the application tells it.
const TOLD: [(&str, u64); 7] = [
    ("group", 0),
    ("epoch", 1),
    ("welcome", 1),
    ("proposal", 1),
    ("proposal", 1),
    ("epoch", 2),
    ("welcome", 2),
];

/// The same, as a stream of the group tells it.
const TOLD_OF_GROUP: [(&str, u64); 4] = [("epoch", 1), ("proposal", 1), ("proposal", 1), ("epoch", 2)];

/// A group in which two are invited, the second one by a proposal.
async fn tell([alice, bob, carol]: [&MlsClient; 3], mut at_alice: Member) -> Member {
    at_alice.invite(&[bob]).await;
    let mut at_bob = bob.join().await;
    let package = carol.assign_to(&alice.id.to_string()).await.unwrap().key_package;
    let (add, update) = (at_alice.make_add_proposal(&package), at_bob.make_update_proposal());
    at_alice.propose(&add).await.unwrap();
    at_bob.propose(&update).await.unwrap();
    // An answer that is repeated is no event.
    at_bob.propose(&update).await.unwrap();
    at_alice.fetch_proposals().await;
    at_alice.update().await;
    at_alice
}

#[actix_web::test]
async fn everything_is_told_once_and_in_order() {
    let gateway = TestGateway::start().await;
    let [alice, bob, carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let mut all = application_stream(&alice.api).await;
    let at_alice = alice.create_group().await;
    let mut of_group = alice.api.group_events(&at_alice.id(), &EventQuery::default()).await.unwrap();
    let with_packets = EventQuery { packets: true, ..EventQuery::default() };
    let mut packets = alice.api.group_events(&at_alice.id(), &with_packets).await.unwrap();
    let other = alice.create_group().await;
    let mut of_other = alice.api.group_events(&other.id(), &EventQuery::default()).await.unwrap();

    let at_alice = tell([&alice, &bob, &carol], at_alice).await;
    let told = events(&mut all, TOLD.len() + 1).await;
    let mut expected = TOLD.to_vec();
    expected.insert(1, ("group", 0));
    assert_eq!(outline(&told), expected);
    let (EventData::Welcome(of_bob), EventData::Welcome(of_carol)) = (&told[3].1, &told[7].1) else {
        panic!("{told:?}")
    };
    assert_eq!((&of_bob.client_handle.0, &of_bob.group_id.0), (&bob.handle, &at_alice.id()));
    assert_eq!((&of_carol.client_handle.0, of_carol.id), (&carol.handle, carol.welcomes().await[0].id));

    let told = events(&mut of_group, TOLD_OF_GROUP.len()).await;
    assert_eq!(outline(&told), TOLD_OF_GROUP);
    // With the messages, a reader needs nothing else.
    let history = at_alice.control_messages(actors::Epoch(1)).await;
    let told = events(&mut packets, TOLD_OF_GROUP.len()).await;
    assert_eq!(outline(&told), TOLD_OF_GROUP);
    let mut proposals = Vec::new();
    let mut epochs = Vec::new();
    for (_, event) in told {
        match event {
            EventData::Proposal(event) => proposals.push(event.packet.unwrap()),
            EventData::Epoch(event) => {
                let from_history = &history.epochs[epochs.len()];
                assert_eq!(event.timestamp, from_history.timestamp);
                assert_eq!(event.commit.as_ref(), Some(&from_history.commit));
                assert_eq!(event.proposals.as_ref(), Some(&from_history.proposals));
                epochs.push(event);
            }
            EventData::Group(_)
            | EventData::Welcome(_)
            | EventData::KeyPackages(_)
            | EventData::EpochReported(_)
            | EventData::Reset(_) => {
                panic!("{event:?}")
            }
        }
    }
    let mut committed = epochs[1].proposals.clone().unwrap();
    committed.sort_by(|one, other| one.0.cmp(&other.0));
    proposals.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(proposals, committed);

    // Each stream tells of its own group alone.
    let mut other = other;
    other.update().await;
    assert_eq!(outline(&events(&mut of_other, 1).await), [("epoch", 1)]);
    assert_silent(of_group).await;
    gateway.stop().await;
}
