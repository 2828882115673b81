//! Index of a group's members and keys: what a commit has to compare with all members takes one look for each of its own
//! values.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
    sync::LazyLock,
};

use snapshots::{ClientHandle, DomainName, Timestamp};

use super::{
    UnknownKind,
    group::Member,
    leaf::{LeafNode, Numbers},
    ratchet_tree::{Leaf, Replaced},
};

/// Tells the keys and clients of a group apart, whoever chose them: 128 bits by two keyed hashes, whose keys are random, are
/// never told, and last as long as the process. Nobody can look for two values with the same fingerprint, and among a million
/// values there are two by chance once in 10²⁶ groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint([u64; 2]);

fn fingerprint(parts: &[&[u8]]) -> Fingerprint {
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    Fingerprint(KEYS.each_ref().map(|key| {
        let mut hasher = key.build_hasher();
        parts.iter().for_each(|part| hasher.write(part));
        hasher.finish()
    }))
}

/// A fingerprint is evenly distributed already: half of it is its hash.
impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self([half, _]) = self;
        state.write_u64(*half);
    }
}

/// The hasher of fingerprints.
#[derive(Clone, Copy, Debug, Default)]
struct FirstHalf(u64);

impl Hasher for FirstHalf {
    /// Fingerprints do not come this way.
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A value for each of many keys or clients.
type ByFingerprint<T> = HashMap<Fingerprint, T, BuildHasherDefault<FirstHalf>>;

fn of_client(handle: &ClientHandle, domain: Option<&DomainName>) -> Fingerprint {
    // No domain contains a zero byte.
    fingerprint(&[domain.map_or("", DomainName::as_str).as_bytes(), &[0], handle.as_bytes()])
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberIndex {
    /// The leaf of each client.
    clients: ByFingerprint<u32>,
    encryption_keys: ByFingerprint<u32>,
    signature_keys: ByFingerprint<u32>,
    /// What members support, by their capabilities.
    supported: HashMap<(UnknownKind, u16), u32>,
    /// The types of the members' credentials.
    credential_types: HashMap<u16, u32>,
    /// When credentials end, with the members' leaves.
    ends: BTreeSet<(Timestamp, u32)>,
}

/// The difference that a commit makes.
#[derive(Debug, Default)]
pub(super) struct IndexChange {
    encryption_keys: ByFingerprint<i64>,
    signature_keys: ByFingerprint<i64>,
    clients: ByFingerprint<i64>,
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

/// The capabilities of a leaf that are counted, by what they are of.
type Counted<'a> = [(UnknownKind, Numbers<'a>); 3];

impl IndexChange {
    pub(super) fn of(replaced: &Replaced) -> Self {
        let Replaced { leaves_out, leaves_in, parents_out, parents_in } = replaced;
        let mut change = Self::default();
        let leaves = leaves_out.len() + leaves_in.len();
        change.clients.reserve(leaves);
        change.signature_keys.reserve(leaves);
        change.encryption_keys.reserve(leaves + parents_out.len() + parents_in.len());
        // Leaves mostly have the same capabilities as those that they replace, or as each other.
        let mut capabilities: BTreeMap<(u16, &[u8]), (i64, Counted<'_>)> = BTreeMap::new();
        for (leaves, by) in [(leaves_out, -1), (leaves_in, 1)] {
            for (_, leaf) in leaves {
                let Some(node) = leaf.node() else { continue };
                change.add_client(leaf, &node, by);
                let of_leaf = (node.credential.credential_type.0, node.capabilities);
                let counted = [
                    (UnknownKind::Extension, node.supported_extensions),
                    (UnknownKind::Proposal, node.supported_proposals),
                    (UnknownKind::Credential, node.supported_credentials),
                ];
                capabilities.entry(of_leaf).or_insert((0, counted)).0 += by;
            }
        }
        for ((credential_type, _), (by, counted)) in capabilities {
            if by != 0 {
                change.add_capabilities(credential_type, counted, by);
            }
        }
        for (parents, by) in [(parents_out, -1), (parents_in, 1)] {
            for parent in parents {
                *change.encryption_keys.entry(fingerprint(&[parent.encryption_key()])).or_default() += by;
            }
        }
        change
    }

    fn add_client(&mut self, leaf: &Leaf, node: &LeafNode<'_>, by: i64) {
        let Member { handle, domain, .. } = &leaf.member;
        *self.clients.entry(of_client(handle, domain.as_ref())).or_default() += by;
        *self.encryption_keys.entry(fingerprint(&[node.encryption_key])).or_default() += by;
        *self.signature_keys.entry(fingerprint(&[node.signature_key])).or_default() += by;
    }

    fn add_capabilities(&mut self, credential_type: u16, counted: Counted<'_>, by: i64) {
        *self.credential_types.entry(credential_type).or_default() += by;
        for (kind, numbers) in counted {
            for number in numbers.distinct() {
                *self.supported.entry((kind, number)).or_default() += by;
            }
        }
    }
}

fn count_after<K: Hash + Eq, S: BuildHasher>(
    counts: &HashMap<K, u32, S>,
    change: &HashMap<K, i64, S>,
    of: &K,
) -> i64 {
    let before = counts.get(of).copied().map_or(0, i64::from);
    before + change.get(of).copied().unwrap_or_default()
}

fn apply<K: Hash + Eq, S: BuildHasher>(counts: &mut HashMap<K, u32, S>, change: HashMap<K, i64, S>) {
    let after = |before: u32, by: i64| u32::try_from((i64::from(before) + by).max(0)).unwrap_or(u32::MAX);
    for (value, by) in change {
        match counts.entry(value) {
            Entry::Occupied(mut counted) => match after(*counted.get(), by) {
                0 => drop(counted.remove()),
                after => *counted.get_mut() = after,
            },
            Entry::Vacant(place) => {
                if by > 0 {
                    place.insert(after(0, by));
                }
            }
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
        let is_shared = |counts: &ByFingerprint<u32>, change: &ByFingerprint<i64>| {
            let count = |value| counts.get(value).copied().map_or(0, i64::from);
            change.iter().any(|(value, by)| *by > 0 && count(value) + by > 1)
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
        let mut left: ByFingerprint<i64> = HashMap::default();
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
