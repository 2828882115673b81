//! Changes to one field of a structure, at random.

use mls_forge::{
    Capabilities, Commit, Credential, Extension, ExternalSender, FramedContent, GroupContext, GroupInfo,
    HpkeCiphertext, KeyPackage, LeafNode, LeafNodeSource, Lifetime, ParentNode, PreSharedKeyId, Proposal,
    ProposalOrRef, Psk, ReInit, RequiredCapabilities, Sender, Tls, UpdatePath, UpdatePathNode, extension,
};

use crate::{clients::GREASE, dice::Dice};

/// Values that occur in a group, with which others are replaced.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Keys, hashes and names.
    pub(crate) values: Vec<Vec<u8>>,
    /// Leaf indexes.
    pub(crate) leaves: Vec<u32>,
}

/// Where changes come from.
pub(crate) struct Source<'a> {
    pub(crate) dice: &'a mut Dice,
    pub(crate) pool: &'a Pool,
}

pub(crate) trait Mutate {
    /// Changes one thing; says which, and how.
    fn mutate(&mut self, source: &mut Source<'_>) -> String;
}

fn done(what: impl Into<String>) -> String {
    what.into()
}

impl Mutate for u16 {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        let dice = &mut *source.dice;
        *self = match dice.below(5) {
            0 => dice.below(12) as Self,
            1 => *dice.pick(&GREASE),
            2 => 0xf001 + dice.below(3) as Self,
            3 => self.wrapping_add(1),
            _ => dice.number() as Self,
        };
        format!("={self:#06x}")
    }
}

impl Mutate for u32 {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        *self = match source.dice.below(5) {
            0 => self.wrapping_add(1),
            1 => 1 << source.dice.below(32),
            2 => Self::MAX,
            _ if source.pool.leaves.is_empty() => 0,
            _ => *source.dice.pick(&source.pool.leaves),
        };
        format!("={self}")
    }
}

impl Mutate for u64 {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        *self = match source.dice.below(6) {
            0 => self.wrapping_add(1),
            1 => self.wrapping_sub(1),
            2 => 0,
            3 => Self::MAX,
            4 => self.wrapping_add(400 * 86_400),
            _ => source.dice.number(),
        };
        format!("={self}")
    }
}

impl Mutate for Vec<u8> {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        let Source { dice, pool } = source;
        match dice.below(8) {
            0 => self.clear(),
            1 => drop(self.pop()),
            2 => self.push(dice.number() as u8),
            3 if !self.is_empty() => {
                let at = dice.below(self.len());
                self[at] ^= 1 << dice.below(8);
            }
            4 => self.iter_mut().for_each(|byte| *byte = 0),
            5 => {
                let length = dice.below(70);
                *self = dice.bytes(length);
            }
            _ if !pool.values.is_empty() => self.clone_from(dice.pick(&pool.values)),
            _ => self.clear(),
        }
        format!("=[{}]", self.len())
    }
}

impl<T: Mutate + Clone> Mutate for Vec<T> {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        if self.is_empty() {
            return done(" is empty");
        }
        let at = source.dice.below(self.len());
        match source.dice.below(6) {
            0 => {
                self.remove(at);
                format!("[{at}] dropped")
            }
            1 => {
                let again = self[at].clone();
                let to = source.dice.below(self.len() + 1);
                self.insert(to, again);
                format!("[{at}] repeated")
            }
            2 => {
                let other = source.dice.below(self.len());
                self.swap(at, other);
                format!("[{at}] and [{other}] swapped")
            }
            _ => format!("[{at}]{}", self[at].mutate(source)),
        }
    }
}

/// Implements [`Mutate`] for structures: one of these fields is changed.
macro_rules! structures {
    ($($name:ident { $($field:ident),+ })+) => {$(
        impl Mutate for $name {
            fn mutate(&mut self, source: &mut Source<'_>) -> String {
                let mut fields: Vec<(&str, &mut dyn Mutate)> = vec![$((stringify!($field), &mut self.$field)),+];
                let at = source.dice.below(fields.len());
                let (name, field) = &mut fields[at];
                format!(".{name}{}", field.mutate(source))
            }
        }
    )+};
}

structures! {
    Capabilities { versions, cipher_suites, extensions, proposals, credentials }
    Lifetime { not_before, not_after }
    RequiredCapabilities { extension_types, proposal_types, credential_types }
    ExternalSender { signature_key, credential }
    LeafNode { encryption_key, signature_key, credential, capabilities, source, extensions }
    KeyPackage { version, cipher_suite, init_key, leaf_node, extensions }
    PreSharedKeyId { psk, psk_nonce }
    ReInit { group_id, version, cipher_suite, extensions }
    HpkeCiphertext { kem_output, ciphertext }
    UpdatePathNode { encryption_key, encrypted_path_secret }
    UpdatePath { leaf_node, nodes }
    Commit { proposals }
    FramedContent { group_id, epoch, sender, authenticated_data }
    GroupContext { version, cipher_suite, group_id, epoch, tree_hash, confirmed_transcript_hash, extensions }
    GroupInfo { group_context, extensions, confirmation_tag, signer }
    ParentNode { encryption_key, parent_hash, unmerged_leaves }
}

impl Mutate for Credential {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        let mut name = match self {
            Self::Basic(name) | Self::Other(_, name) => name.clone(),
            Self::X509(_) => Vec::new(),
        };
        *self = match source.dice.below(4) {
            0 => Self::Other(*source.dice.pick(&[0, 3, 0x5a5a, 0xf0f0]), name),
            1 => Self::X509(vec![name]),
            _ => {
                name.mutate(source);
                Self::Basic(name)
            }
        };
        format!("={:#06x}", self.kind())
    }
}

impl Mutate for LeafNodeSource {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        match self {
            Self::KeyPackage(lifetime) if source.dice.once_in(2) => return lifetime.mutate(source),
            Self::Commit(hash) if source.dice.once_in(2) => return hash.mutate(source),
            _ => {}
        }
        *self = match source.dice.below(3) {
            0 => Self::KeyPackage(Lifetime { not_before: 0, not_after: u64::MAX }),
            1 => Self::Update,
            _ => Self::Commit(source.dice.bytes(32)),
        };
        done(" of another source")
    }
}

impl Mutate for Extension {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        if source.dice.once_in(3) {
            return format!(".type{}", self.kind.mutate(source));
        }
        if self.kind == extension::REQUIRED_CAPABILITIES
            && source.dice.once_in(2)
            && let Some(said) = mutate_inside::<RequiredCapabilities>(&mut self.data, source)
        {
            return said;
        }
        if self.kind == extension::EXTERNAL_SENDERS
            && source.dice.once_in(2)
            && let Some(said) = mutate_inside::<Vec<ExternalSender>>(&mut self.data, source)
        {
            return format!(".external_senders{said}");
        }
        format!("({:#06x}).data{}", self.kind, self.data.mutate(source))
    }
}

/// Changes a structure that is serialised; `None` if the bytes are not one.
fn mutate_inside<T: Mutate + Tls>(bytes: &mut Vec<u8>, source: &mut Source<'_>) -> Option<String> {
    let mut inside = T::from_bytes(bytes).ok()?;
    let said = inside.mutate(source);
    *bytes = inside.to_bytes();
    Some(said)
}

impl Mutate for Psk {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        *self = match (source.dice.below(5), &*self) {
            (0, Self::External(id)) => Self::External(source.dice.pick(&[vec![], id.clone()]).clone()),
            (0 | 1, _) => Self::Resumption {
                usage: *source.dice.pick(&[0, 1, 2, 3, 4]),
                psk_group_id: source.dice.bytes(8),
                psk_epoch: source.dice.number(),
            },
            (2, _) => Self::Application { component_id: 7, psk_id: vec![1] },
            _ => Self::External(source.dice.bytes(4)),
        };
        format!("={self:?}").chars().take(40).collect()
    }
}

impl Mutate for Sender {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        *self = match (source.dice.below(6), *self) {
            (0, _) => Self::External(source.dice.below(3) as u32),
            (1, _) => Self::NewMemberProposal,
            (2, _) => Self::NewMemberCommit,
            (_, Self::Member(mut leaf)) => {
                leaf.mutate(source);
                Self::Member(leaf)
            }
            _ => Self::Member(source.dice.below(4) as u32),
        };
        format!("={self:?}")
    }
}

impl Mutate for Proposal {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        let mut data: Vec<u8> = Vec::new();
        let said = match self {
            Self::Add(package) => package.mutate(source),
            Self::Update(leaf) => leaf.mutate(source),
            Self::Remove(leaf) => leaf.mutate(source),
            Self::PreSharedKey(psk) => psk.mutate(source),
            Self::ReInit(reinit) => reinit.mutate(source),
            Self::ExternalInit(bytes) => bytes.mutate(source),
            Self::GroupContextExtensions(extensions) => extensions.mutate(source),
            Self::AppDataUpdate { component_id, .. } | Self::AppEphemeral { component_id, .. } => {
                component_id.mutate(source)
            }
            Self::SelfRemove => data.mutate(source),
            Self::Other(kind, _) => kind.mutate(source),
        };
        format!("{}{said}", crate::history::kind_of(self))
    }
}

impl Mutate for ProposalOrRef {
    fn mutate(&mut self, source: &mut Source<'_>) -> String {
        match self {
            Self::Proposal(proposal) => format!(" {}", proposal.mutate(source)),
            Self::Reference(reference) => format!(" reference{}", reference.mutate(source)),
        }
    }
}
