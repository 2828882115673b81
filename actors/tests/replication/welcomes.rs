//! Limits of welcomes for a client of a follower: the hub applies them, and the follower accepts all that passed.

use actors::{ClientHandle, Epoch, GroupError, JoinInfoQuery, Limits, NewGroup, Source};
use mls_rs::{ExtensionList, Group, client_builder::MlsConfig};

use crate::{
    members::{client, package, upload_of},
    net::{Net, domain},
};

#[test]
fn a_hub_limits_the_welcomes_of_clients_elsewhere_and_their_gateway_takes_what_it_accepted() {
    actix::System::new().block_on(async {
        let mut net = Net::new(&["a.example", "b.example"], 1);
        let (a, b) = (domain("a.example"), domain("b.example"));
        let limits = |per_inviter_max| Limits {
            welcomes_per_inviter_max: per_inviter_max,
            welcomes_reserved_max: 0,
            welcomes_elsewhere_window_s: 3600,
            ..Limits::default()
        };
        net.limits = limits(2);
        net.start(&a).await;
        // What the hub accepted is not counted again.
        net.limits = limits(1);
        net.start(&b).await;

        let (alice, anna) = (client("alice", &a), client("anna", &a));
        let bob = client("bob", &b);
        let create = async |creator: &mls_rs::Client<_>| {
            let group = creator.create_group(ExtensionList::new(), ExtensionList::new(), None).unwrap();
            let id = net.at(&a).create_group(net.app, as_new(&group), Source::Application).await.unwrap();
            (id.group, group)
        };
        let invitation = |group: &mut Group<_>| {
            upload_of(&group.commit_builder().add_member(package(&bob)).unwrap().build().unwrap())
        };
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (id, mut group) = create(&alice).await;
            net.upload_commit(&a, &id, invitation(&mut group)).await.unwrap();
            ids.push(id);
        }
        let (id, mut group) = create(&alice).await;
        net.settle(&a, &id).await;
        let upload = invitation(&mut group);
        for at in [&a, &b] {
            match net.upload_commit(at, &id, upload.clone()).await {
                Err(GroupError::TooManyWelcomes { handle, domain, of_inviter, max, counted_for_s }) => {
                    assert_eq!((handle.as_bytes(), domain.as_ref()), (&b"bob"[..], Some(&b)));
                    assert_eq!((of_inviter, max), (true, 2));
                    let counted = counted_for_s.unwrap();
                    assert!((3500..=3600).contains(&counted), "{counted} seconds");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(net.at(&a).group(net.app, &id).await.unwrap().epoch, Epoch(0));
        // Without him the commit is accepted, and other clients of the domain still have room, as has another inviter.
        group.clear_pending_commit();
        let other = client("bea", &b);
        let output = group.commit_builder().add_member(package(&other)).unwrap().build().unwrap();
        net.upload_commit(&b, &id, upload_of(&output)).await.unwrap();
        let (of_anna, mut group) = create(&anna).await;
        net.upload_commit(&a, &of_anna, invitation(&mut group)).await.unwrap();
        ids.push(of_anna);

        for id in ids.iter().chain([&id]) {
            net.settle(&a, id).await;
        }
        let query = || JoinInfoQuery { domain: None, after: None, with_ratchet_tree: false, limit: 10 };
        let handle = ClientHandle::new("bob").unwrap();
        let page = net.at(&b).welcomes(net.app, &handle, query()).await.unwrap();
        let mut invited: Vec<_> = page.join_infos.into_iter().map(|info| info.group).collect();
        invited.sort();
        ids.sort();
        assert_eq!(invited, ids);
        assert!(net.at(&a).welcomes(net.app, &handle, query()).await.unwrap().join_infos.is_empty());
        net.assert_nothing_waits().await;
        net.stop_all().await;
    });
}

fn as_new<C: MlsConfig>(group: &Group<C>) -> NewGroup {
    NewGroup {
        group_info: group.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap(),
        ratchet_tree: Some(group.export_tree().to_bytes().unwrap()),
    }
}
