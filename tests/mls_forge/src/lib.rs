//! A writer of MLS messages (RFC 9420) for tests: well signed, and wrong in just the place that a test wants.
//!
//! An observer of a group checks signatures, hashes and lists; it holds no key, so it can check no MAC and no ciphertext.
//! A forger therefore needs no key schedule and no HPKE: it signs and hashes, and fills tags and ciphertexts with bytes of
//! the right length. Groups of any size and of all seven cipher suites of RFC 9420 §17.1 are made in a moment. Members
//! cannot decrypt anything in them.
//!
//! The code is written from RFC 9420 alone and shares none with the gateway, so that it can be its oracle. It is simple
//! rather than fast: the tree is an array, and each hash is computed anew.
//!
//! ```
//! use mls_forge::{Client, Group, Proposal, Suite};
//!
//! let mut group = Group::create(Client::new(Suite::Ed25519, "alice"));
//! let (info, tree) = (group.group_info().to_message(), group.tree_bytes());
//! // An observer is opened with these. Alice adds Bob:
//! let bob = Client::new(Suite::Ed25519, "bob");
//! let add = group.add(&bob);
//! let forged = group.commit(0).with(add).sign();
//! let (commit, welcome) = (forged.commit_bytes(), forged.welcome_bytes());
//! group.apply(&forged);
//! // Bob removes her; the commit has a leaf that says so of another parent.
//! let mut draft = group.commit(1).with(Proposal::Remove(0)).draft();
//! draft.leaf_mut().source = mls_forge::LeafNodeSource::Commit(vec![7; 32]);
//! draft.keep.parent_hash = true;
//! let wrong = draft.sign();
//! # assert_ne!((info, tree, commit, welcome), Default::default());
//! # assert_ne!(wrong.commit_bytes(), forged.commit_bytes());
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

mod client;
mod commit;
mod crypto;
mod group;
mod messages;
mod tls;
mod tree;

pub use self::{
    client::{Client, Randomness},
    commit::{CommitDraft, CommitPlan, Forged, Keep, PathChoice},
    crypto::{Invalid, SigningKey, Suite},
    group::{Group, Pending, SharedTree},
    messages::*,
    tls::{Malformed, Reader, Tls},
    tree::{Node, ParentNode, Tree, math},
};
