//! Appending, failing, stalling and closing.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::*;

impl Store {
    /// The number of batches that wait for the committer.
    fn waiting(&self) -> usize {
        self.0.queue.waiting()
    }

    /// Whether it still takes batches.
    fn is_open(&self) -> bool {
        *self.0.queue.life().borrow() == Life::Open
    }
}

fn store() -> Store {
    Store::open(&StoreOptions::default()).unwrap()
}

fn setting(name: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put_setting(name, "value");
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_committer_fails_the_store_and_answers_everyone() {
    let store = store();
    store.append(setting("before")).await.unwrap();
    let mut panicking = Batch::new();
    // The batches behind it in the queue wait until the panic.
    panicking.put_setting("never", "value").operation(|_| {
        std::thread::sleep(Duration::from_millis(100));
        panic!("a step of a test")
    });
    let mut waiting = Vec::new();
    for batch in [panicking, setting("behind"), setting("behind as well")] {
        let store = store.clone();
        waiting.push(tokio::spawn(async move { store.append(batch).await }));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert!(matches!(answer, Err(AppendError::Storage(_))), "{answer:?}");
    }
    store.failed().await;
    assert!(store.is_failed());
    assert!(matches!(store.append(setting("later")).await, Err(AppendError::Storage(_))));
    let view = store.view();
    assert_eq!(view.setting("never").unwrap(), None);
    assert!(view.setting("before").unwrap().is_some());
    store.shutdown().await;
    assert!(store.is_failed());
}

/// A batch that holds the committer up: it says when it has begun, and ends when it is let go.
fn held(name: &str) -> (Batch, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((begin, begun), (let_go, ending)) = (mpsc::channel(), mpsc::channel());
    let mut batch = setting(name);
    batch.operation(move |_| {
        begin.send(()).unwrap();
        ending.recv().unwrap();
        Ok(())
    });
    (batch, begun, let_go)
}

#[test]
fn closing_writes_what_waits_and_refuses_the_rest() {
    let store = store();
    let append = |batch: Batch| {
        let store = store.clone();
        std::thread::spawn(move || store.append_blocking(batch))
    };
    let (batch, begun, let_go) = held("slow");
    let slow = append(batch);
    begun.recv().unwrap();
    let waiting = append(setting("waiting"));
    while store.waiting() == 0 {
        std::thread::yield_now();
    }
    let closing = std::thread::spawn({
        let store = store.clone();
        move || store.close()
    });
    while store.is_open() {
        std::thread::yield_now();
    }
    let_go.send(()).unwrap();
    closing.join().unwrap();
    assert_eq!(store.append_blocking(setting("late")), Err(AppendError::Closed));
    assert!(slow.join().unwrap().is_ok());
    assert!(waiting.join().unwrap().is_ok());
    store.close();
    assert!(!store.is_failed());
    let view = store.view();
    assert!(view.setting("waiting").unwrap().is_some());
    assert_eq!(view.setting("late").unwrap(), None);
}

#[tokio::test]
async fn whoever_waits_for_room_is_told_that_the_store_closed() {
    let store = Store::open(&StoreOptions { queue_length_max: 1, ..StoreOptions::default() }).unwrap();
    let append = |batch: Batch| {
        let store = store.clone();
        tokio::spawn(async move { store.append(batch).await })
    };
    let (slow, begun, let_go) = held("slow");
    let slow = append(slow);
    while begun.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    let queued = append(setting("queued"));
    while store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let without_room = append(setting("without room"));
    tokio::task::yield_now().await;
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.shutdown().await }
    });
    tokio::task::yield_now().await;
    let_go.send(()).unwrap();
    closing.await.unwrap();
    assert!(slow.await.unwrap().is_ok());
    assert!(queued.await.unwrap().is_ok());
    assert_eq!(without_room.await.unwrap(), Err(AppendError::Closed));
}

#[tokio::test]
async fn giving_up_does_not_undo() {
    let store = store();
    let mut slow = setting("slow");
    slow.operation(|_| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    });
    let given_up = tokio::time::timeout(Duration::from_millis(10), store.append(slow)).await;
    assert!(given_up.is_err());
    // It waits behind the one that was given up.
    store.append(setting("next")).await.unwrap();
    assert!(store.view().setting("slow").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_disk_that_hangs_is_told() {
    let stalled_after = Duration::from_millis(50);
    let store = Store::open(&StoreOptions { stalled_after, ..StoreOptions::default() }).unwrap();
    let append = |batch: Batch| {
        let store = store.clone();
        tokio::spawn(async move { store.append(batch).await })
    };
    let (batch, begun, let_go) = held("hanging");
    let hanging = append(batch);
    while begun.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    let behind = append(setting("behind"));
    // Both may or may not be written.
    for waiting in [hanging, behind] {
        assert_eq!(waiting.await.unwrap(), Err(AppendError::Stalled { is_queued: true }));
    }
    assert!(store.is_stalled() && !store.is_failed());
    // Later batches are not even queued.
    let refused = store.append(setting("refused")).await;
    assert_eq!(refused, Err(AppendError::Stalled { is_queued: false }));
    let_go.send(()).unwrap();
    while store.is_stalled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.append(setting("after")).await.unwrap();
    let view = store.view();
    for (name, is_there) in [("hanging", true), ("behind", true), ("refused", false), ("after", true)] {
        assert_eq!(view.setting(name).unwrap().is_some(), is_there, "{name}");
    }
}

#[test]
fn a_lone_append_waits_for_no_timer() {
    let store = store();
    let started = Instant::now();
    for _ in 0..200 {
        store.append_blocking(setting("one")).unwrap();
    }
    // Ten milliseconds for each would take longer.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
