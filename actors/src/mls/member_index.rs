//! Index of a group's members and keys: what a commit has to compare with all members takes one look for each of its own
//! values.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};
use snapshots::{ClientHandle, DomainName, Timestamp};

use super::{
    UnknownKind,
    group::Member,
    leaf::LeafNode,
    ratchet_tree::{Leaf, Replaced},
};

/// The first bytes of a SHA-256: enough to tell the keys of a group apart, whoever chose them.
type Fingerprint = [u8; 16];

fn fingerprint(parts: &[&[u8]]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut begin = [0; 16];
    begin.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    begin
}

fn of_client(handle: &ClientHandle, domain: Option<&DomainName>) -> Fingerprint {
    // No domain contains a zero byte.
    fingerprint(&[domain.map_or("", DomainName::as_str).as_bytes(), &[0], handle.as_bytes()])
}

/// Values with the number of nodes or members that have them.
type Occurrences<K> = HashMap<K, u32>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberIndex {
    /// The leaf of each client.
    clients: HashMap<Fingerprint, u32>,
    encryption_keys: Occurrences<Fingerprint>,
    signature_keys: Occurrences<Fingerprint>,
    /// What members support, by their capabilities.
    supported: Occurrences<(UnknownKind, u16)>,
    /// The types of the members' credentials.
    credential_types: Occurrences<u16>,
    /// When credentials end, with the members' leaves.
    ends: BTreeSet<(Timestamp, u32)>,
}

/// The difference that a commit makes.
#[derive(Debug, Default)]
pub(super) struct IndexChange {
    encryption_keys: HashMap<Fingerprint, i64>,
    signature_keys: HashMap<Fingerprint, i64>,
    clients: HashMap<Fingerprint, i64>,
    supported: HashMap<(UnknownKind, u16), i64>,
    credential_types: HashMap<u16, i64>,
}

/// A value that two members or nodes would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SharedValue {
    EncryptionKey,
    SignatureKey,
    Client,
}

/// The types that a leaf supports, each once.
fn supported_by(leaf: &LeafNode<'_>) -> impl Iterator<Item = (UnknownKind, u16)> {
    [
        (UnknownKind::Extension, leaf.supported_extensions),
        (UnknownKind::Proposal, leaf.supported_proposals),
        (UnknownKind::Credential, leaf.supported_credentials),
    ]
    .into_iter()
    .flat_map(|(kind, numbers)| numbers.distinct().into_iter().map(move |number| (kind, number)))
}

impl IndexChange {
    pub(super) fn of(replaced: &Replaced) -> Self {
        let mut change = Self::default();
        for (leaves, by) in [(&replaced.leaves_out, -1), (&replaced.leaves_in, 1)] {
            for (_, leaf) in leaves {
                change.add_leaf(leaf, by);
            }
        }
        for (parents, by) in [(&replaced.parents_out, -1), (&replaced.parents_in, 1)] {
            for parent in parents {
                *change.encryption_keys.entry(fingerprint(&[&parent.encryption_key])).or_default() += by;
            }
        }
        change
    }

    fn add_leaf(&mut self, leaf: &Leaf, by: i64) {
        let Some(node) = leaf.node() else { return };
        let Member { handle, domain, .. } = &leaf.member;
        *self.clients.entry(of_client(handle, domain.as_ref())).or_default() += by;
        *self.encryption_keys.entry(fingerprint(&[node.encryption_key])).or_default() += by;
        *self.signature_keys.entry(fingerprint(&[node.signature_key])).or_default() += by;
        *self.credential_types.entry(node.credential.credential_type.0).or_default() += by;
        for supported in supported_by(&node) {
            *self.supported.entry(supported).or_default() += by;
        }
    }
}

fn count_after<K: std::hash::Hash + Eq>(counts: &Occurrences<K>, change: &HashMap<K, i64>, of: &K) -> i64 {
    let before = counts.get(of).copied().map_or(0, i64::from);
    before + change.get(of).copied().unwrap_or_default()
}

fn apply<K: std::hash::Hash + Eq>(counts: &mut Occurrences<K>, change: HashMap<K, i64>) {
    for (value, by) in change {
        let after = counts.get(&value).copied().map_or(0, i64::from) + by;
        match u32::try_from(after) {
            Ok(1..) => drop(counts.insert(value, u32::try_from(after).unwrap_or(u32::MAX))),
            Ok(0) | Err(_) => drop(counts.remove(&value)),
        }
    }
}

impl MemberIndex {
    /// Whether a node has an encryption key.
    pub(super) fn has_encryption_key(&self, key: &[u8]) -> bool {
        self.encryption_keys.contains_key(&fingerprint(&[key]))
    }

    /// How many members support a type.
    pub(super) fn supporting(&self, kind: UnknownKind, number: u16) -> usize {
        self.supported.get(&(kind, number)).map_or(0, |count| *count as usize)
    }

    /// How many members support a type after a change.
    pub(super) fn supporting_after(&self, change: &IndexChange, kind: UnknownKind, number: u16) -> usize {
        usize::try_from(count_after(&self.supported, &change.supported, &(kind, number))).unwrap_or_default()
    }

    /// The types of the members' credentials.
    pub(super) fn credential_types(&self) -> BTreeSet<u16> {
        self.credential_types.keys().copied().collect()
    }

    /// The types of the members' credentials after a change.
    pub(super) fn credential_types_after(&self, change: &IndexChange) -> BTreeSet<u16> {
        let kinds = self.credential_types.keys().chain(change.credential_types.keys());
        let is_used = |kind: &&u16| count_after(&self.credential_types, &change.credential_types, *kind) > 0;
        kinds.filter(is_used).copied().collect()
    }

    /// The leaves whose credentials ended before a moment, ascending.
    pub(super) fn ended(&self, at: Timestamp) -> Vec<u32> {
        let mut leaves: Vec<u32> = self.ends.range(..(at, 0)).map(|(_, leaf)| *leaf).collect();
        leaves.sort_unstable();
        leaves
    }

    /// A value among those that come in which two members or nodes would have, and the leaf that brings it in as the second.
    /// `None` for a leaf if only parent nodes do.
    pub(super) fn shared_after(
        &self,
        change: &IndexChange,
        replaced: &Replaced,
    ) -> Option<(SharedValue, Option<u32>)> {
        let is_shared = |counts: &Occurrences<Fingerprint>, change: &HashMap<Fingerprint, i64>| {
            change.iter().any(|(value, by)| *by > 0 && count_after(counts, change, value) > 1)
        };
        let shared = if is_shared(&self.signature_keys, &change.signature_keys) {
            SharedValue::SignatureKey
        } else if is_shared(&self.encryption_keys, &change.encryption_keys) {
            SharedValue::EncryptionKey
        } else if change.clients.iter().any(|(client, by)| *by > 0 && self.clients_after(change, client) > 1)
        {
            SharedValue::Client
        } else {
            return None;
        };
        let value_of = |leaf: &Leaf| {
            Some(match shared {
                SharedValue::SignatureKey => fingerprint(&[leaf.node()?.signature_key]),
                SharedValue::EncryptionKey => fingerprint(&[leaf.node()?.encryption_key]),
                SharedValue::Client => of_client(&leaf.member.handle, leaf.member.domain.as_ref()),
            })
        };
        let brought_in: Vec<(u32, Fingerprint)> =
            replaced.leaves_in.iter().filter_map(|(index, leaf)| Some((*index, value_of(leaf)?))).collect();
        let mut left: HashMap<Fingerprint, i64> = HashMap::new();
        for (_, value) in &brought_in {
            let after = match shared {
                SharedValue::SignatureKey => count_after(&self.signature_keys, &change.signature_keys, value),
                SharedValue::EncryptionKey => {
                    count_after(&self.encryption_keys, &change.encryption_keys, value)
                }
                SharedValue::Client => self.clients_after(change, value),
            };
            left.entry(*value).or_insert(after);
        }
        for (_, value) in &brought_in {
            left.entry(*value).and_modify(|left| *left -= 1);
        }
        // A leaf brings its value in as the second if a node that stays has it, or a leaf before it.
        let second = brought_in.iter().find(|(_, value)| {
            left.get_mut(value).is_some_and(|left| std::mem::replace(left, *left + 1) > 0)
        });
        Some((shared, second.map(|(leaf, _)| *leaf)))
    }

    /// How many leaves a client has after a change.
    fn clients_after(&self, change: &IndexChange, client: &Fingerprint) -> i64 {
        i64::from(self.clients.contains_key(client)) + change.clients.get(client).copied().unwrap_or_default()
    }

    pub(super) fn apply(&mut self, change: IndexChange, replaced: &Replaced) {
        for (index, leaf) in &replaced.leaves_out {
            let Member { handle, domain, valid_until } = &leaf.member;
            self.clients.remove(&of_client(handle, domain.as_ref()));
            if let Some(end) = valid_until {
                self.ends.remove(&(*end, *index));
            }
        }
        for (index, leaf) in &replaced.leaves_in {
            let Member { handle, domain, valid_until } = &leaf.member;
            self.clients.insert(of_client(handle, domain.as_ref()), *index);
            if let Some(end) = valid_until {
                self.ends.insert((*end, *index));
            }
        }
        apply(&mut self.encryption_keys, change.encryption_keys);
        apply(&mut self.signature_keys, change.signature_keys);
        apply(&mut self.supported, change.supported);
        apply(&mut self.credential_types, change.credential_types);
    }

    /// How many clients there are.
    pub(super) fn clients_count(&self) -> usize {
        self.clients.len()
    }

    /// How many values it holds.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
            + self.encryption_keys.len()
            + self.signature_keys.len()
            + self.supported.len()
            + self.ends.len()
    }
}
