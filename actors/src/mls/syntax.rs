//! The syntax of MLS messages (RFC 9420): the first field of an unreadable message that is wrong.
//!
//! The walk goes once over the bytes, structure by structure, in the TLS presentation language (RFC 9420 §2), and stops
//! at the first field that does not fit. It computes nothing, keeps nothing but the types of the extensions in
//! the list it is in, and goes no deeper than the structures are nested, whatever the bytes say: no structure contains
//! itself. The readers of messages decide whether one can be read; this module explains their *no*.

mod cursor;

use std::{collections::BTreeSet, fmt};

use self::cursor::{Cursor, PathStep, Walk, WalkError};
use super::{CipherSuite, extensions::Home};

/// The first field of a message that does not fit, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The path to the field, by RFC 9420's names: `GroupInfo.extensions[1].external_pub`.
    pub(crate) field: String,
    /// Where the field begins, in bytes from the start.
    pub(crate) offset: usize,
    pub(crate) cause: Cause,
}

/// Why a field does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The bytes are not what RFC 9420 says.
    Fault(Fault),
    /// A type that this gateway does not know, so that what follows cannot be read.
    UnknownKind { kind: UnknownKind, value: u16 },
    /// A cipher suite that this gateway does not know, where it would have to use it.
    UnknownSuite(u16),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, offset, cause } = self;
        write!(f, "{field}, at byte {offset}, {cause}")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::UnknownKind { kind: UnknownKind::Proposal, value: PSK } => {
                f.write_str("is psk (4), with a type of key that this gateway does not know")
            }
            Self::UnknownKind { kind, value } => {
                write!(f, "is {value:#06x}, a type of {kind} that this gateway does not know")
            }
            Self::UnknownSuite(suite) => {
                write!(f, "is {suite:#06x}, a cipher suite that this gateway does not know")
            }
        }
    }
}

/// What is wrong with a field; the text continues the field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("is cut short")]
    CutShort,
    #[error("says that it is longer than what follows")]
    TooLong,
    #[error("has a length that is not in its shortest form (RFC 9420 section 2.1.2)")]
    PaddedLength,
    #[error("cannot be {0}")]
    Value(u64),
    #[error("is not greater than the one before it")]
    Order,
    #[error("is of a type that does not belong here (RFC 9420 section 17.3)")]
    Misplaced,
    #[error("is of a type that is in the list before (RFC 9420 section 13.4)")]
    Repeated,
    #[error("is followed by bytes that do not belong to it")]
    Followed,
    #[error("is a {found}, where a {expected} belongs")]
    Unexpected { found: &'static str, expected: &'static str },
    #[error("cannot be read")]
    Unreadable,
}

/// A registry of RFC 9420 §17 in which a message uses a number that the gateway does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnknownKind {
    /// A ProposalType.
    Proposal,
    /// An ExtensionType.
    Extension,
    /// A CredentialType.
    Credential,
}

impl UnknownKind {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposal => "proposal",
            Self::Extension => "extension",
            Self::Credential => "credential",
        }
    }
}

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the gateway knows a ProposalType: those of RFC 9420, and AppDataUpdate, AppEphemeral and SelfRemove.
pub(crate) fn is_known_proposal(value: u16) -> bool {
    matches!(value, 1..=10)
}

/// Whether the gateway knows an ExtensionType: those of RFC 9420 and `last_resort`.
pub(crate) fn is_known_extension(value: u16) -> bool {
    matches!(value, 1..=5 | LAST_RESORT)
}

/// Whether the gateway knows a CredentialType: those of RFC 9420.
pub(crate) fn is_known_credential(value: u16) -> bool {
    matches!(value, 1..=2)
}

/// `psk` (RFC 9420 §12.1.4).
const PSK: u16 = 4;
/// `self_remove`, of the MLS extensions draft.
const SELF_REMOVE: u16 = 0x000a;
/// `last_resort`, of the MLS extensions draft.
pub(super) const LAST_RESORT: u16 = 0x000a;

/// The first field of an MLSMessage that does not fit. There is always an answer, since the message could not be read: if the
/// walk finds nothing, it is the message itself.
pub(crate) fn misfit_in_message(bytes: &[u8]) -> Misfit {
    misfit(bytes, "MLSMessage", message)
}

/// The first field of an `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3) that does not fit; as
/// [`misfit_in_message`].
pub(crate) fn misfit_in_ratchet_tree(bytes: &[u8]) -> Misfit {
    misfit(bytes, "ratchet_tree", |cursor| cursor.list("ratchet_tree", optional_node))
}

fn misfit(bytes: &[u8], whole: &'static str, walk: impl FnOnce(&mut Cursor<'_>) -> Walk) -> Misfit {
    let mut cursor = Cursor { bytes, at: 0 };
    let of_whole = |offset, fault| Misfit { field: whole.to_owned(), offset, cause: Cause::Fault(fault) };
    match walk(&mut cursor) {
        Err(stop) => Misfit { field: stop.field(), offset: stop.offset, cause: stop.cause },
        Ok(()) if cursor.is_at_end() => of_whole(0, Fault::Unreadable),
        Ok(()) => of_whole(cursor.at, Fault::Followed),
    }
}

/// `opaque a<V>; opaque b<V>; …`
fn opaques(cursor: &mut Cursor<'_>, names: &[&'static str]) -> Walk {
    names.iter().try_for_each(|name| cursor.field(name, Cursor::opaque))
}

/// `uint16 name<V>`: a list of registered numbers.
fn numbers(cursor: &mut Cursor<'_>, name: &'static str) -> Walk {
    cursor.list(name, |cursor| cursor.u16().map(drop))
}

/// §6.
fn message(cursor: &mut Cursor<'_>) -> Walk {
    let format = cursor.field("MLSMessage", |cursor| {
        cursor.field("version", |cursor| cursor.one_of::<2>(1..=1))?;
        cursor.field("wire_format", |cursor| cursor.one_of::<2>(1..=5))
    })?;
    match format {
        1 => cursor.field("PublicMessage", public_message),
        2 => cursor.field("PrivateMessage", private_message),
        3 => cursor.field("Welcome", welcome),
        4 => cursor.field("GroupInfo", group_info),
        _ => cursor.field("KeyPackage", |cursor| {
            // It is of the version of its message.
            let mut ahead = *cursor;
            ahead.field("version", |cursor| cursor.one_of::<2>(1..=1))?;
            key_package(cursor)
        }),
    }
}

/// §6.1, §6.2.
fn public_message(cursor: &mut Cursor<'_>) -> Walk {
    let (sender, content) = cursor.field("content", framed_content)?;
    cursor.field("auth", |cursor| {
        let names: &[_] =
            if content == CONTENT_COMMIT { &["signature", "confirmation_tag"] } else { &["signature"] };
        opaques(cursor, names)
    })?;
    if sender == SENDER_MEMBER { cursor.field("membership_tag", Cursor::opaque) } else { Ok(()) }
}

const SENDER_MEMBER: u64 = 1;
const CONTENT_COMMIT: u64 = 3;

/// §6; answers the type of its sender and that of its content.
fn framed_content(cursor: &mut Cursor<'_>) -> Walk<(u64, u64)> {
    cursor.field("group_id", Cursor::opaque)?;
    cursor.field("epoch", Cursor::number::<8>)?;
    let sender = cursor.field("sender", |cursor| {
        let kind = cursor.field("sender_type", |cursor| cursor.one_of::<1>(1..=4))?;
        match kind {
            SENDER_MEMBER => drop(cursor.field("leaf_index", Cursor::number::<4>)?),
            2 => drop(cursor.field("sender_index", Cursor::number::<4>)?),
            _ => {}
        }
        Ok(kind)
    })?;
    cursor.field("authenticated_data", Cursor::opaque)?;
    let content = cursor.field("content_type", |cursor| cursor.one_of::<1>(1..=3))?;
    match content {
        1 => cursor.field("application_data", Cursor::opaque)?,
        2 => cursor.field("proposal", proposal)?,
        _ => cursor.field("commit", commit)?,
    }
    Ok((sender, content))
}

/// §6.3.
fn private_message(cursor: &mut Cursor<'_>) -> Walk {
    cursor.field("group_id", Cursor::opaque)?;
    cursor.field("epoch", Cursor::number::<8>)?;
    cursor.field("content_type", |cursor| cursor.one_of::<1>(1..=3))?;
    opaques(cursor, &["authenticated_data", "encrypted_sender_data", "ciphertext"])
}

/// §12.4.3.1.
fn welcome(cursor: &mut Cursor<'_>) -> Walk {
    cursor.field("cipher_suite", known_suite)?;
    cursor.list("secrets", |cursor| {
        cursor.field("new_member", Cursor::opaque)?;
        cursor.field("encrypted_group_secrets", hpke_ciphertext)
    })?;
    cursor.field("encrypted_group_info", Cursor::opaque)
}

/// §7.6.
fn hpke_ciphertext(cursor: &mut Cursor<'_>) -> Walk {
    opaques(cursor, &["kem_output", "ciphertext"])
}

/// §12.4.3.
fn group_info(cursor: &mut Cursor<'_>) -> Walk {
    cursor.field("group_context", group_context)?;
    extensions(cursor, Home::GroupInfo)?;
    cursor.field("confirmation_tag", Cursor::opaque)?;
    cursor.field("signer", Cursor::number::<4>)?;
    cursor.field("signature", Cursor::opaque)
}

/// §8.1.
fn group_context(cursor: &mut Cursor<'_>) -> Walk {
    cursor.field("version", Cursor::u16)?;
    cursor.field("cipher_suite", known_suite)?;
    cursor.field("group_id", Cursor::opaque)?;
    cursor.field("epoch", Cursor::number::<8>)?;
    opaques(cursor, &["tree_hash", "confirmed_transcript_hash"])?;
    extensions(cursor, Home::GroupContext)
}

/// A suite that something is to be computed with.
fn known_suite(cursor: &mut Cursor<'_>) -> Walk {
    let start = *cursor;
    let suite = cursor.u16()?;
    match CipherSuite::from_number(suite) {
        Some(_) => Ok(()),
        None => Err(WalkError::new(start.at, Cause::UnknownSuite(suite))),
    }
}

/// §10.
fn key_package(cursor: &mut Cursor<'_>) -> Walk {
    cursor.field("version", Cursor::u16)?;
    cursor.field("cipher_suite", known_suite)?;
    cursor.field("init_key", Cursor::opaque)?;
    cursor.field("leaf_node", leaf_node)?;
    extensions(cursor, Home::KeyPackage)?;
    cursor.field("signature", Cursor::opaque)
}

/// §7.2.
fn leaf_node(cursor: &mut Cursor<'_>) -> Walk {
    opaques(cursor, &["encryption_key", "signature_key"])?;
    cursor.field("credential", credential)?;
    cursor.field("capabilities", |cursor| {
        ["versions", "cipher_suites", "extensions", "proposals", "credentials"]
            .into_iter()
            .try_for_each(|name| numbers(cursor, name))
    })?;
    match cursor.field("leaf_node_source", |cursor| cursor.one_of::<1>(1..=3))? {
        1 => cursor.field("lifetime", |cursor| {
            cursor.field("not_before", Cursor::number::<8>)?;
            cursor.field("not_after", Cursor::number::<8>).map(drop)
        })?,
        2 => {}
        _ => cursor.field("parent_hash", Cursor::opaque)?,
    }
    extensions(cursor, Home::LeafNode)?;
    cursor.field("signature", Cursor::opaque)
}

/// §5.3.
fn credential(cursor: &mut Cursor<'_>) -> Walk {
    let start = *cursor;
    match cursor.field("credential_type", Cursor::u16)? {
        1 => cursor.field("identity", Cursor::opaque),
        2 => cursor.list("certificates", |cursor| cursor.field("cert_data", Cursor::opaque)),
        value => {
            let kind = UnknownKind::Credential;
            Err(WalkError::new(start.at, Cause::UnknownKind { kind, value })
                .inside(PathStep::Field("credential_type")))
        }
    }
}

/// §13.4; a type is in a list once.
fn extensions(cursor: &mut Cursor<'_>, home: Home) -> Walk {
    let mut seen = BTreeSet::new();
    cursor.list("extensions", |cursor| {
        let start = *cursor;
        let kind = cursor.field("extension_type", |cursor| {
            let kind = cursor.u16()?;
            let belongs = home.admits(kind);
            match (belongs, seen.insert(kind)) {
                (true, true) => Ok(kind),
                (false, _) => start.fault(Fault::Misplaced),
                (true, false) => start.fault(Fault::Repeated),
            }
        })?;
        match kind {
            1 => extension_data(cursor, |cursor| cursor.field("application_id", Cursor::opaque)),
            2 => extension_data(cursor, |cursor| cursor.list("ratchet_tree", optional_node)),
            3 => extension_data(cursor, |cursor| {
                cursor.field("required_capabilities", |cursor| {
                    ["extension_types", "proposal_types", "credential_types"]
                        .into_iter()
                        .try_for_each(|name| numbers(cursor, name))
                })
            }),
            4 => extension_data(cursor, |cursor| cursor.field("external_pub", Cursor::opaque)),
            5 => extension_data(cursor, |cursor| {
                cursor.list("external_senders", |cursor| {
                    cursor.field("signature_key", Cursor::opaque)?;
                    cursor.field("credential", credential)
                })
            }),
            LAST_RESORT => extension_data(cursor, |_| Ok(())),
            _ => cursor.field("extension_data", Cursor::opaque),
        }
    })
}

/// The data of a known extension, which fill their vector.
fn extension_data(cursor: &mut Cursor<'_>, read: impl FnOnce(&mut Cursor<'_>) -> Walk) -> Walk {
    let mut ahead = *cursor;
    ahead.field("extension_data", Cursor::opaque)?;
    cursor.content(|cursor| {
        read(cursor)?;
        if cursor.is_at_end() {
            Ok(())
        } else {
            cursor.field("extension_data", |cursor| cursor.fault(Fault::Followed))
        }
    })
}

/// §12.4.3.3.
fn optional_node(cursor: &mut Cursor<'_>) -> Walk {
    cursor.optional(|cursor| match cursor.field("node_type", |cursor| cursor.one_of::<1>(1..=2))? {
        1 => cursor.field("leaf_node", leaf_node),
        _ => cursor.field("parent_node", |cursor| {
            opaques(cursor, &["encryption_key", "parent_hash"])?;
            let mut before = None;
            cursor.list("unmerged_leaves", |cursor| {
                let start = *cursor;
                let leaf = cursor.number::<4>()?;
                match before.replace(leaf) {
                    Some(before) if before >= leaf => start.fault(Fault::Order),
                    Some(_) | None => Ok(()),
                }
            })
        }),
    })
}

/// §12.4.
fn commit(cursor: &mut Cursor<'_>) -> Walk {
    cursor.list("proposals", |cursor| match cursor.field("type", |cursor| cursor.one_of::<1>(1..=2))? {
        1 => cursor.field("proposal", proposal),
        _ => cursor.field("reference", Cursor::opaque),
    })?;
    cursor.field("path", |cursor| {
        cursor.optional(|cursor| {
            cursor.field("leaf_node", leaf_node)?;
            cursor.list("nodes", |cursor| {
                cursor.field("encryption_key", Cursor::opaque)?;
                cursor.list("encrypted_path_secret", hpke_ciphertext)
            })
        })
    })
}

/// §12.1, and the MLS extensions draft. Where a proposal of another type ends cannot be told.
fn proposal(cursor: &mut Cursor<'_>) -> Walk {
    let start = *cursor;
    let unknown = |value| {
        let kind = UnknownKind::Proposal;
        WalkError::new(start.at, Cause::UnknownKind { kind, value }).inside(PathStep::Field("proposal_type"))
    };
    match cursor.field("proposal_type", Cursor::u16)? {
        1 => cursor.field("add", |cursor| cursor.field("key_package", key_package)),
        2 => cursor.field("update", |cursor| cursor.field("leaf_node", leaf_node)),
        3 => cursor.field("remove", |cursor| cursor.field("removed", Cursor::number::<4>).map(drop)),
        PSK => {
            // Types of keys that came later.
            let mut ahead = *cursor;
            if ahead.u8().is_ok_and(|kind| kind > 3) {
                return Err(unknown(PSK));
            }
            cursor.field("psk", |cursor| cursor.field("psk", pre_shared_key_id))
        }
        5 => cursor.field("reinit", reinit),
        6 => cursor.field("external_init", |cursor| cursor.field("kem_output", Cursor::opaque)),
        7 => cursor.field("group_context_extensions", |cursor| extensions(cursor, Home::GroupContext)),
        8 => cursor.field("app_data_update", app_data_update),
        9 => cursor.field("app_ephemeral", |cursor| {
            cursor.field("component_id", Cursor::u16)?;
            cursor.field("data", Cursor::opaque)
        }),
        SELF_REMOVE => Ok(()),
        value => Err(unknown(value)),
    }
}

/// *Updating Application Data in the GroupContext* of the MLS extensions draft.
fn app_data_update(cursor: &mut Cursor<'_>) -> Walk {
    cursor.field("component_id", Cursor::u16)?;
    match cursor.field("op", |cursor| cursor.one_of::<1>(1..=2))? {
        1 => cursor.field("update", Cursor::opaque),
        _ => Ok(()),
    }
}

/// §12.1.5. The suite is for the members to use.
fn reinit(cursor: &mut Cursor<'_>) -> Walk {
    cursor.field("group_id", Cursor::opaque)?;
    cursor.field("version", Cursor::u16)?;
    cursor.field("cipher_suite", Cursor::u16)?;
    extensions(cursor, Home::GroupContext)
}

/// §8.4, and the MLS extensions draft.
fn pre_shared_key_id(cursor: &mut Cursor<'_>) -> Walk {
    match cursor.field("psktype", |cursor| cursor.one_of::<1>(1..=3))? {
        1 => cursor.field("psk_id", Cursor::opaque)?,
        3 => {
            cursor.field("component_id", Cursor::u16)?;
            cursor.field("psk_id", Cursor::opaque)?;
        }
        _ => {
            cursor.field("usage", |cursor| cursor.one_of::<1>(1..=3))?;
            cursor.field("psk_group_id", Cursor::opaque)?;
            cursor.field("psk_epoch", Cursor::number::<8>)?;
        }
    }
    cursor.field("psk_nonce", Cursor::opaque)
}
