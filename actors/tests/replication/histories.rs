//! Random histories: members of all gateways commit at once while the network is faulty and gateways come and go.

use std::sync::atomic::Ordering;

use actors::{Epoch, GroupError, GroupId};
use mls_rs::client_builder::MlsConfig;
use snapshots::DomainName;

use crate::{
    faults::Dice,
    members::{Member, group_of_all, upload_of},
    net::Net,
};

const GROUPS: usize = 3;
const ROUNDS: u64 = 6;

/// All members commit for the same epoch, each at its own gateway. One wins; the others take its commit in.
async fn race<C: MlsConfig>(
    net: &Net,
    dice: &Dice,
    hub: &DomainName,
    id: &GroupId,
    members: &mut [Member<C>],
) {
    let epoch = members[0].epoch();
    if dice.percent(40) {
        // A proposal that the commits of this epoch may carry by reference, or leave.
        let place = usize::try_from(dice.below(members.len() as u64)).unwrap();
        let proposal = members[place].group.propose_update(Vec::new()).unwrap();
        let packet = proposal.to_bytes().unwrap();
        let at = members[place].domain.clone();
        net.upload_proposal(&at, id, packet.clone()).await.unwrap();
        for (other, member) in members.iter_mut().enumerate() {
            if other != place && dice.percent(50) {
                let message = mls_rs::MlsMessage::from_bytes(&packet).unwrap();
                member.group.process_incoming_message(message).unwrap();
            }
        }
    }
    let uploads: Vec<_> = members
        .iter_mut()
        .map(|member| (member.domain.clone(), upload_of(&member.group.commit(Vec::new()).unwrap())))
        .collect();
    let racing = uploads.into_iter().map(|(at, upload)| async move {
        let accepted = net.upload_commit(&at, id, upload.clone()).await;
        if accepted.is_ok() {
            // The answer may have been lost: the winner asks again and is told the same.
            let again = net.upload_commit(&at, id, upload).await.unwrap();
            assert_eq!(Some(again.epoch), accepted.as_ref().ok().map(|accepted| accepted.epoch));
        }
        accepted
    });
    let answers = join_all(racing.map(Box::pin).collect()).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "one wins");
    for (member, answer) in members.iter_mut().zip(answers) {
        match answer {
            Ok(accepted) => {
                assert_eq!(accepted.epoch, Epoch(epoch.0 + 1));
                member.group.apply_pending_commit().unwrap();
            }
            Err(GroupError::StaleEpoch { .. }) => {
                member.group.clear_pending_commit();
                member.catch_up(net, hub, id).await;
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(member.epoch(), Epoch(epoch.0 + 1));
    }
}

/// Runs futures at once, each polled whenever one of them is woken.
async fn join_all<F: Future + Unpin>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<(Option<F>, Option<F::Output>)> =
        futures.into_iter().map(|future| (Some(future), None)).collect();
    std::future::poll_fn(move |cx| {
        for (future, output) in &mut running {
            if let Some(pending) = future
                && let std::task::Poll::Ready(ready) = std::pin::Pin::new(pending).poll(cx)
            {
                *future = None;
                *output = Some(ready);
            }
        }
        if running.iter().all(|(future, _)| future.is_none()) {
            std::task::Poll::Ready(running.iter_mut().filter_map(|(_, output)| output.take()).collect())
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}

async fn play(seed: u64) {
    let dice = Dice::new(seed);
    let names: &[&str] =
        if dice.percent(50) { &["a.example", "b.example"] } else { &["a.example", "b.example", "c.example"] };
    let net = Net::new(names, seed);
    net.start_all().await;
    let mut groups = Vec::new();
    for number in 0..GROUPS {
        let hub = net.domains[number % net.domains.len()].clone();
        let (id, members) = group_of_all(&net, &hub, number).await;
        net.settle(&hub, &id).await;
        groups.push((hub, id, members));
    }
    net.wires.are_faulty.store(true, Ordering::Relaxed);
    for _ in 0..ROUNDS {
        if dice.percent(30) {
            let one = &net.domains[usize::try_from(dice.below(net.domains.len() as u64)).unwrap()];
            net.wires.cut_off.lock().unwrap().insert(one.clone());
        }
        if dice.percent(30) {
            let one = net.domains[usize::try_from(dice.below(net.domains.len() as u64)).unwrap()].clone();
            net.stop(&one).await;
            net.start(&one).await;
        }
        for (hub, id, members) in &mut groups {
            race(&net, &dice, hub, id, members).await;
        }
        if dice.percent(50) {
            net.wires.cut_off.lock().unwrap().clear();
        }
    }
    assert!(net.wires.spoiled.load(Ordering::Relaxed) > 0, "the wires did nothing wrong");
    // The network heals.
    net.wires.are_faulty.store(false, Ordering::Relaxed);
    net.wires.cut_off.lock().unwrap().clear();
    for (hub, id, members) in &mut groups {
        net.settle(hub, id).await;
        let epoch = net.assert_same(hub, id, Epoch(0)).await;
        assert_eq!(epoch, Epoch(ROUNDS + 1), "every accepted commit made an epoch, and nothing else did");
        let authenticator = members[0].authenticator();
        for member in members {
            assert_eq!((member.epoch(), member.authenticator()), (epoch, authenticator.clone()));
        }
    }
    net.assert_nothing_waits().await;
    net.stop_all().await;
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match (number("MIMI_REPLICATION_SEED"), number("MIMI_REPLICATION_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(6)).collect(),
    }
}

#[test]
fn everything_accepted_arrives_everywhere_in_one_order() {
    for seed in seeds() {
        // The seed reproduces a failure.
        println!("seed {seed}");
        actix::System::new().block_on(play(seed));
    }
}
