//! The store against a small model: after any appends, refusals and reopenings, both show the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use snapshots::{
    AppendError, Batch, Bytes, ClientHandle, ClientRow, CountedBy, DeliveryId, Durability, Epoch, Invitation,
    Inviter, JoinInfoRow, KeyPackageRef, KeyPackageRow, KeyQueueId, LogId, QueueRow, ShareId, Store,
    StoreOptions, Timestamp, Unmet, UsedRow, WelcomeLimits,
};

use crate::fixtures::*;

/// One step of a batch, with small numbers for everything, so that steps often meet.
#[derive(Debug, Clone)]
enum Op {
    CreateLog(u8),
    /// After a record that is this far from where the log stands.
    AppendRecord(u8, u64, u8),
    PutSnapshot(u8, u64, u8),
    DeleteLog(u8),
    CreateClient(ClientRow),
    /// From the present row, or from one that was never written.
    ReplaceClient(ClientRow, bool),
    DeleteClient(u8, bool),
    CreateQueue(QueueRow),
    RelabelQueue(QueueRow, bool),
    DeleteQueue(u8, bool),
    PutKeyPackage(u8, u8, u64),
    DeleteKeyPackage(u8, u8),
    UseKeyPackage(u8, u64),
    /// By the inviter of this number; see [`invitation_by`].
    PutWelcome(u8, u64, Vec<&'static str>, u8),
    Acknowledge(&'static str, u64),
}

const NAMES: [&str; 3] = ["a", "ab", "b"];
const LABELS: [&str; 3] = ["", "a", "ab"];
const DOMAINS: [Option<&str>; 2] = [None, Some("example.com")];

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

fn a_client() -> impl Strategy<Value = ClientRow> {
    let tags = prop::collection::btree_set(prop::sample::select(&LABELS[..]), 0..3);
    (1..4_u128, name(), prop::sample::select(&DOMAINS[..]), tags).prop_map(|(id, name, of, tags)| ClientRow {
        domain: of.map(domain),
        ..tagged(&client_row(id, name), &tags.into_iter().collect::<Vec<_>>())
    })
}

fn a_queue() -> impl Strategy<Value = QueueRow> {
    let label = prop::sample::select(&LABELS[..]);
    (1..5_u128, 1..4_u128, label).prop_map(|(id, of, label)| queue_row(id, of, label))
}

fn op() -> impl Strategy<Value = Op> {
    // Mostly the record that is there.
    let off = prop_oneof![9 => Just(0_u64), 1 => Just(1)];
    let stale = || prop::bool::weighted(0.1);
    prop_oneof![
        2 => (1..3_u8).prop_map(Op::CreateLog),
        8 => (1..3_u8, off, any::<u8>()).prop_map(|(log, off, byte)| Op::AppendRecord(log, off, byte)),
        3 => (1..3_u8, 0..8_u64, any::<u8>()).prop_map(|(log, back, byte)| Op::PutSnapshot(log, back, byte)),
        1 => (1..3_u8).prop_map(Op::DeleteLog),
        6 => a_client().prop_map(Op::CreateClient),
        4 => (a_client(), stale()).prop_map(|(row, stale)| Op::ReplaceClient(row, stale)),
        1 => (1..4_u8, stale()).prop_map(|(id, stale)| Op::DeleteClient(id, stale)),
        6 => a_queue().prop_map(Op::CreateQueue),
        3 => (a_queue(), stale()).prop_map(|(row, stale)| Op::RelabelQueue(row, stale)),
        1 => (1..5_u8, stale()).prop_map(|(id, stale)| Op::DeleteQueue(id, stale)),
        6 => (1..5_u8, 1..4_u8, 0..3_u64).prop_map(|(queue, id, end)| Op::PutKeyPackage(queue, id, end)),
        2 => (1..5_u8, 1..4_u8).prop_map(|(queue, id)| Op::DeleteKeyPackage(queue, id)),
        1 => (1..20_u8, 0..3_u64).prop_map(|(id, end)| Op::UseKeyPackage(id, end)),
        4 => (1..3_u8, 1..4_u64, prop::collection::vec(name(), 0..4), 0..5_u8)
            .prop_map(|(group, epoch, names, by)| Op::PutWelcome(group, epoch, names, by)),
        4 => (name(), 0..6_u64).prop_map(|(name, nth)| Op::Acknowledge(name, nth)),
    ]
}

#[derive(Debug, Clone, Default)]
struct Log {
    head: u64,
    snapshot: Option<(u64, u8)>,
    records: BTreeMap<u64, u8>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    logs: BTreeMap<LogId, Log>,
    clients: BTreeMap<u128, ClientRow>,
    queues: BTreeMap<u128, QueueRow>,
    held: BTreeMap<(u128, KeyPackageRef), KeyPackageRow>,
    used: BTreeMap<KeyPackageRef, UsedRow>,
    join_infos: BTreeMap<(ClientHandle, DeliveryId), JoinInfoRow>,
    deliveries: u64,
}

/// Four inviters with narrow limits: two without a reserve, one with its own and one with that of its domain; and
/// another gateway.
fn invitation_by(number: u8) -> Invitation {
    let reserve = match number {
        0 => return Invitation::AcceptedElsewhere,
        3 => Some(ShareId::new([3; 16])),
        4 => Some(ShareId::new([99; 16])),
        _ => None,
    };
    let limits = WelcomeLimits {
        per_client_max: 3,
        per_inviter_max: 2,
        reserved_max: 1,
        elsewhere_window: std::time::Duration::MAX,
    };
    Invitation::Accepted { by: Inviter { reserve, ..inviter(number) }, limits }
}

fn number(id: &uuid::Uuid) -> u128 {
    id.as_u128()
}

/// The group logs by odd numbers, the logs of the queues by even ones.
fn log_id(number: u8) -> LogId {
    if number % 2 == 1 { group_log(number) } else { LogId::KeyQueue(APP, queue(1)) }
}

impl Model {
    /// What the step does to the model, and the step itself into the batch.
    fn run(&mut self, op: &Op, batch: &mut Batch) -> Result<(), Unmet> {
        match op {
            Op::CreateLog(of) => {
                let of = log_id(*of);
                batch.create_log(&of);
                self.create_log(of)
            }
            Op::AppendRecord(of, off, byte) => {
                let of = log_id(*of);
                let after = self.logs.get(&of).map_or(0, |log| log.head) + off;
                batch.append_record(&of, after, [*byte]);
                let log = self.logs.get_mut(&of).ok_or(Unmet::LogMoved { at: None })?;
                if log.head != after {
                    return Err(Unmet::LogMoved { at: Some(log.head) });
                }
                log.head += 1;
                log.records.insert(log.head, *byte);
                Ok(())
            }
            Op::PutSnapshot(of, back, byte) => {
                let of = log_id(*of);
                let at = (self.logs.get(&of).map_or(0, |log| log.head) + 1).saturating_sub(*back);
                batch.put_snapshot(&of, at, [*byte]);
                let log = self.logs.get_mut(&of).ok_or(Unmet::LogMoved { at: None })?;
                if at > log.head {
                    return Err(Unmet::LogMoved { at: Some(log.head) });
                }
                if log.snapshot.is_none_or(|(older, _)| older <= at) {
                    log.snapshot = Some((at, *byte));
                    log.records.retain(|sequence, _| *sequence > at);
                }
                Ok(())
            }
            Op::DeleteLog(of) => {
                // That of a queue goes with the queue.
                batch.delete_log(&group_log(*of));
                self.logs.remove(&group_log(*of));
                Ok(())
            }
            Op::CreateClient(row) => {
                batch.create_client(APP, row);
                let id = number(row.client_id.as_uuid());
                if self.clients.contains_key(&id) {
                    return Err(Unmet::ClientExists);
                }
                self.require_free(row)?;
                self.clients.insert(id, row.clone());
                Ok(())
            }
            Op::ReplaceClient(row, stale) => {
                let id = number(row.client_id.as_uuid());
                let old = self.client(id, *stale);
                batch.replace_client(APP, &old, row);
                self.require_client(id, &old)?;
                self.require_free(row)?;
                self.clients.insert(id, row.clone());
                Ok(())
            }
            Op::DeleteClient(id, stale) => {
                let id = u128::from(*id);
                let old = self.client(id, *stale);
                batch.delete_client(APP, &old);
                self.require_client(id, &old)?;
                self.clients.remove(&id);
                let queues: Vec<_> =
                    self.queues.values().filter(|row| row.client_id == old.client_id).collect();
                for queue in queues.into_iter().map(|row| number(row.queue_id.as_uuid())).collect::<Vec<_>>()
                {
                    self.delete_queue(queue);
                }
                if self.clients.values().all(|row| row.handle != old.handle) {
                    self.join_infos.retain(|(handle, _), _| *handle != old.handle);
                }
                Ok(())
            }
            Op::CreateQueue(row) => {
                batch.create_queue(APP, row);
                if !self.clients.contains_key(&number(row.client_id.as_uuid())) {
                    return Err(Unmet::ClientMissing);
                }
                self.require_label(row, None)?;
                self.create_log(LogId::KeyQueue(APP, row.queue_id))?;
                self.queues.insert(number(row.queue_id.as_uuid()), row.clone());
                Ok(())
            }
            Op::RelabelQueue(row, stale) => {
                let id = number(row.queue_id.as_uuid());
                let old = self.queue(id, *stale);
                let new = QueueRow { client_id: old.client_id, ..row.clone() };
                batch.relabel_queue(APP, &old, &new);
                self.require_queue(id, &old)?;
                self.require_label(&new, Some(new.queue_id))?;
                self.queues.insert(id, new);
                Ok(())
            }
            Op::DeleteQueue(id, stale) => {
                let id = u128::from(*id);
                let old = self.queue(id, *stale);
                batch.delete_queue(APP, &old);
                self.require_queue(id, &old)?;
                self.delete_queue(id);
                Ok(())
            }
            Op::PutKeyPackage(of, id, not_after) => {
                let row = key_package_row(*not_after);
                batch.put_key_package(APP, queue(u128::from(*of)), &reference(*id), &row);
                if !self.queues.contains_key(&u128::from(*of)) {
                    return Err(Unmet::QueueMissing);
                }
                self.held.insert((u128::from(*of), reference(*id)), row);
                Ok(())
            }
            Op::DeleteKeyPackage(of, id) => {
                batch.delete_key_package(APP, queue(u128::from(*of)), &reference(*id));
                self.held.remove(&(u128::from(*of), reference(*id)));
                Ok(())
            }
            Op::UseKeyPackage(id, not_after) => {
                batch.use_key_package(APP, &reference(*id), false, &used_row(*not_after));
                if self.used.contains_key(&reference(*id)) {
                    return Err(Unmet::KeyPackageUsed { reference: reference(*id) });
                }
                self.used.insert(reference(*id), used_row(*not_after));
                self.held.retain(|(_, held), _| *held != reference(*id));
                Ok(())
            }
            Op::PutWelcome(of, epoch, names, by) => {
                let handles: Vec<_> = names.iter().map(|name| handle(name)).collect();
                let invitation = invitation_by(*by);
                let clients = invited(&handles);
                batch.put_welcome(APP, &group(*of), Epoch(*epoch), &welcome_row(1), &clients, invitation);
                let counted_by = match invitation {
                    Invitation::Accepted { by, .. } => {
                        CountedBy::Inviter { share: by.share, reserve: by.reserve }
                    }
                    Invitation::AcceptedElsewhere => CountedBy::Nobody,
                };
                for handle in handles {
                    self.require_room(&handle, invitation)?;
                    self.deliveries += 1;
                    let (group, epoch) = (group(*of), Epoch(*epoch));
                    let row = JoinInfoRow { group, epoch, timestamp: Timestamp(1), domain: None, counted_by };
                    self.join_infos.insert((handle, DeliveryId(self.deliveries)), row);
                }
                Ok(())
            }
            Op::Acknowledge(name, nth) => {
                let id = DeliveryId(self.deliveries.saturating_sub(*nth));
                batch.acknowledge(APP, &handle(name), id);
                self.join_infos.remove(&(handle(name), id));
                Ok(())
            }
        }
    }

    /// The shares that the join infos of a handle count in, once for each; `None` is all shares together.
    fn shares(&self, of: &ClientHandle) -> Vec<Option<ShareId>> {
        let rows = self.join_infos.iter().filter(|((handle, _), _)| handle == of);
        let shares = |(_, row): (_, &JoinInfoRow)| match row.counted_by {
            CountedBy::Inviter { share, reserve } => {
                let shares: BTreeSet<_> = [Some(share), reserve].into_iter().flatten().collect();
                shares.into_iter().map(Some).chain([None]).collect()
            }
            CountedBy::Unknown | CountedBy::Nobody => Vec::new(),
        };
        rows.flat_map(shares).collect()
    }

    fn require_room(&self, of: &ClientHandle, invitation: Invitation) -> Result<(), Unmet> {
        let Invitation::Accepted { by, limits } = invitation else { return Ok(()) };
        let shares = self.shares(of);
        let held = |share: Option<ShareId>| shares.iter().filter(|held| **held == share).count() as u64;
        let refused = |of_inviter, max| {
            Err(Unmet::TooManyWelcomes {
                handle: of.clone(),
                domain: None,
                of_inviter,
                max,
                counted_until: None,
            })
        };
        let is_reserved = by.reserve.is_some_and(|reserve| held(Some(reserve)) < limits.reserved_max);
        if held(Some(by.share)) >= limits.per_inviter_max {
            refused(true, limits.per_inviter_max)
        } else if held(None) >= limits.per_client_max && !is_reserved {
            refused(false, limits.per_client_max)
        } else {
            Ok(())
        }
    }

    fn create_log(&mut self, of: LogId) -> Result<(), Unmet> {
        if self.logs.contains_key(&of) {
            return Err(Unmet::LogExists);
        }
        self.logs.insert(of, Log::default());
        Ok(())
    }

    fn client(&self, id: u128, stale: bool) -> ClientRow {
        let row = self.clients.get(&id).cloned().unwrap_or_else(|| client_row(id, "nobody"));
        if stale { ClientRow { handle_generation: 99, ..row } } else { row }
    }

    fn require_client(&self, id: u128, old: &ClientRow) -> Result<(), Unmet> {
        match self.clients.get(&id) {
            Some(row) if row == old => Ok(()),
            Some(_) => Err(Unmet::ClientChanged),
            None => Err(Unmet::ClientMissing),
        }
    }

    fn require_free(&self, new: &ClientRow) -> Result<(), Unmet> {
        let same = |row: &&ClientRow| (&row.handle, &row.domain) == (&new.handle, &new.domain);
        match self.clients.values().find(same) {
            Some(row) if row.client_id != new.client_id => Err(Unmet::HandleTaken { client: row.client_id }),
            Some(_) | None => Ok(()),
        }
    }

    fn queue(&self, id: u128, stale: bool) -> QueueRow {
        let row = self.queues.get(&id).cloned().unwrap_or_else(|| queue_row(id, 1, "nobody's"));
        if stale { QueueRow { cipher_suite: 99, ..row } } else { row }
    }

    fn require_queue(&self, id: u128, old: &QueueRow) -> Result<(), Unmet> {
        match self.queues.get(&id) {
            Some(row) if row == old => Ok(()),
            Some(_) => Err(Unmet::QueueChanged),
            None => Err(Unmet::QueueMissing),
        }
    }

    fn require_label(&self, new: &QueueRow, own: Option<KeyQueueId>) -> Result<(), Unmet> {
        let same = |row: &&QueueRow| (row.client_id, &row.app_label) == (new.client_id, &new.app_label);
        match self.queues.values().find(same) {
            Some(row) if Some(row.queue_id) != own => Err(Unmet::QueueExists { queue: row.queue_id }),
            Some(_) | None => Ok(()),
        }
    }

    fn delete_queue(&mut self, id: u128) {
        self.queues.remove(&id);
        self.logs.remove(&LogId::KeyQueue(APP, queue(id)));
        self.held.retain(|(of, _), _| *of != id);
    }

    /// How many rows the store has for this.
    fn rows(&self) -> Vec<(&'static str, u64)> {
        let tags: usize = self.clients.values().map(|row| row.tags.len() + 1).sum();
        let is_of_group = |log: &&LogId| matches!(log, LogId::Group(..));
        let (groups, queues): (Vec<_>, Vec<_>) = self.logs.keys().partition(is_of_group);
        let records: usize = queues.iter().map(|log| self.logs[log].records.len()).sum();
        // A snapshot leaves them.
        let entries: u64 = groups.iter().map(|log| self.logs[log].head).sum();
        let snapshots = self.logs.values().filter(|log| log.snapshot.is_some()).count();
        let welcomes: BTreeSet<_> = self.join_infos.values().map(|row| (&row.group, row.epoch)).collect();
        let shares: BTreeSet<_> = self
            .join_infos
            .keys()
            .flat_map(|(of, _)| self.shares(of).into_iter().map(move |id| (of, id)))
            .collect();
        let counts = [
            ("log_heads", self.logs.len()),
            ("records", records),
            ("actor_snapshots", snapshots),
            ("clients", self.clients.len()),
            ("client_handles", self.clients.len()),
            ("client_tags", tags),
            ("queues", self.queues.len()),
            ("queue_owners", self.queues.len()),
            ("queue_labels", self.queues.len()),
            ("key_packages", self.held.len()),
            ("queue_key_packages", self.held.len()),
            ("used_key_packages", self.used.len()),
            ("welcomes", welcomes.len()),
            ("welcome_readers", welcomes.len()),
            ("join_infos", self.join_infos.len()),
            ("expiries", self.held.len() + self.used.len()),
            ("log_entries", usize::try_from(entries).unwrap()),
            ("welcome_shares", shares.len()),
        ];
        counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(table, count)| (table, count as u64))
            .collect()
    }

    fn check(&self, store: &Store) {
        assert_eq!(rows(store), self.rows());
        let view = store.view();
        view.check_rows(|fault| assert!(!fault.contains("usage"), "{fault}")).unwrap();
        let logs: Vec<_> = self.logs.keys().cloned().collect();
        assert_eq!(view.logs(None, 99).unwrap(), logs);
        for (of, log) in &self.logs {
            let found = view.load_log(of).unwrap().unwrap();
            assert_eq!(found.head, log.head);
            assert_eq!(found.snapshot, log.snapshot.map(|(at, byte)| (at, Bytes::from(vec![byte]))));
            let records: Vec<_> =
                log.records.iter().map(|(at, byte)| (*at, Bytes::from(vec![*byte]))).collect();
            assert_eq!(found.records, records);
        }
        for of in DOMAINS {
            let of = of.map(domain);
            let listed = |filter: &dyn Fn(&ClientRow) -> bool| -> Vec<ClientRow> {
                self.clients.values().filter(|row| row.domain == of && filter(row)).cloned().collect()
            };
            assert_eq!(view.clients(APP, of.as_ref(), None, None, 99).unwrap(), listed(&|_| true));
            for tag in LABELS {
                let found = view.clients(APP, of.as_ref(), Some(tag), None, 99).unwrap();
                assert_eq!(found, listed(&|row| row.tags.contains(tag)));
            }
            for name in NAMES {
                let found = view.client_by_handle(APP, of.as_ref(), &handle(name)).unwrap();
                assert_eq!(found.into_iter().collect::<Vec<_>>(), listed(&|row| row.handle == handle(name)));
            }
        }
        for of in 1..4 {
            let owned = |row: &&QueueRow| row.client_id == client(of);
            let queues: Vec<_> = self.queues.values().filter(owned).cloned().collect();
            assert_eq!(view.queues(APP, client(of)).unwrap(), queues);
            for label in LABELS {
                let found = view.queue_matching(APP, client(of), 1, 1, label).unwrap();
                assert_eq!(found.as_ref(), queues.iter().find(|row| row.app_label == label));
            }
        }
        for id in 1..20 {
            let held = self.held.iter().filter(|((_, held), _)| *held == reference(id));
            let held: Vec<_> =
                held.map(|((of, _), row)| (queue(*of), self.queues[of].client_id, row.clone())).collect();
            assert_eq!(view.queues_holding(APP, &reference(id)).unwrap(), held);
            assert_eq!(view.used(APP, &reference(id)).unwrap().as_ref(), self.used.get(&reference(id)));
        }
        for name in NAMES {
            let mine = self.join_infos.iter().filter(|((of, _), _)| *of == handle(name));
            let mine: Vec<_> = mine.map(|((_, id), row)| (*id, row.clone())).collect();
            assert_eq!(view.join_infos(APP, &handle(name), None, 999).unwrap(), mine);
            for (_, row) in mine {
                assert!(view.welcome(APP, &row.group, row.epoch).unwrap().is_some());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4,
        max_shrink_iters: 50,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_shows_what_the_model_shows(
        sessions in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(op(), 1..4), 20..120),
            1..4,
        ),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions { durability: Durability::Buffer, ..options(directory.path()) };
        let mut model = Model::default();
        for session in sessions {
            let store = Store::open(&options).unwrap();
            model.check(&store);
            for (nth, ops) in session.into_iter().enumerate() {
                let mut next = model.clone();
                let mut batch = Batch::new();
                // What comes after a step that is refused is put into the batch and never run.
                let mut expected = Ok(());
                for op in &ops {
                    let outcome = next.run(op, &mut batch);
                    expected = expected.and(outcome);
                }
                match (store.append_blocking(batch), expected) {
                    (Ok(appended), Ok(())) => {
                        let given: Vec<u64> = appended.deliveries.iter().map(|id| id.0).collect();
                        prop_assert_eq!(given, (model.deliveries + 1..=next.deliveries).collect::<Vec<_>>());
                        model = next;
                    }
                    (Err(AppendError::Precondition(found)), Err(unmet)) => prop_assert_eq!(found, unmet),
                    (found, expected) => panic!("{found:?} where {expected:?} was expected of {ops:?}"),
                }
                if nth % 20 == 0 {
                    model.check(&store);
                }
            }
            model.check(&store);
        }
    }
}
