//! Events at the gateway of another domain than the group's hub.

use mimi_gateway::api::events::{EventData, EventQuery};

use super::{after, application_stream, events, next, outline};
use crate::federation::world::World;

#[actix_web::test]
async fn a_follower_tells_the_same_of_its_replica() {
    let world = World::new(&["a.example", "b.example"], false).await;
    let (hub, follower) = (world.sites[0].api(), world.sites[1].api());
    let mut at_hub = application_stream(&hub).await;
    let mut at_follower = application_stream(&follower).await;
    let mut members = world.group_of_all(0, "shared").await;
    let group = members[0].1.id();
    let with_packets = EventQuery { packets: true, ..EventQuery::default() };
    let mut of_group = follower.group_events(&group, &with_packets).await.unwrap();

    // The welcome of the guest is for a client of the follower.
    let told_by_hub = events(&mut at_hub, 2).await;
    assert_eq!(outline(&told_by_hub), [("group", 0), ("epoch", 1)]);
    let told = events(&mut at_follower, 3).await;
    assert_eq!(outline(&told), [("group", 0), ("epoch", 1), ("welcome", 1)]);
    assert_eq!(told[1].1, told_by_hub[1].1, "the same epoch, at the hub's time");
    let EventData::Welcome(welcome) = &told[2].1 else { panic!("{told:?}") };
    assert_eq!((&welcome.client_handle.0, &welcome.group_id.0), (&members[1].1.handle, &group));
    assert_eq!(welcome.domain.as_ref().map(|domain| domain.as_str()), Some("b.example"));

    // The ids of one gateway are not those of the other.
    let mut reader = hub.application_events(&after(Some(told[1].0))).await.unwrap();
    assert!(matches!(next(&mut reader).await, EventData::Reset(_)));

    // What the guest uploads to its own gateway is told at both.
    let (guest, rest) = members.split_last_mut().unwrap();
    guest.1.update().await;
    rest[0].1.catch_up().await;
    rest[0].1.update().await;
    world.settle(&group, rest[0].1.epoch()).await;
    let expected = [("epoch", 2), ("epoch", 3)];
    assert_eq!(outline(&events(&mut at_hub, 2).await), expected);
    assert_eq!(outline(&events(&mut at_follower, 2).await), expected);
    let told = events(&mut of_group, 2).await;
    assert_eq!(outline(&told), expected);
    let history = rest[0].1.control_messages(actors::Epoch(2)).await;
    for ((_, event), entry) in told.iter().zip(&history.epochs) {
        let EventData::Epoch(event) = event else { panic!("{event:?}") };
        assert_eq!((event.commit.as_ref(), event.timestamp), (Some(&entry.commit), entry.timestamp));
    }
    world.stop().await;
}
