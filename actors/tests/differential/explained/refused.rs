//! Messages that the gateway's observer refuses and libraries accept.

use super::{ANYTHING, Explained, refused};
use crate::ledger::Library;

const KEYS: &str = "RFC 9420 §5.1.1: HPKE public keys have the format of RFC 9180 §4, which fixes their length and has \
     points be on the curve; by RFC 9180 §7.1.4 nobody can encrypt to an X25519 point of low order";
const CAPABILITIES: &str = "RFC 9420 §7.2: versions and cipher_suites list what the client supports, those of its group \
     included; §7.3: all members support the credential type, the leaf's own client among them";
const LISTS: &str = "RFC 9420 §12.2: a list is invalid with several Updates or Removes of one leaf, several Adds of one \
     client, one pre-shared key twice, or an Update or Remove of the committer";
const UNSUPPORTED: &str = "RFC 9420 §12.1.7, §12.2: proposal types and GroupContext extensions that not every member supports \
     are invalid";
const PACKAGE: &str =
    "RFC 9420 §10.1, §12.1.1: cipher suite and version of a key package are those of the group";
const IDENTITY: &str = "RFC 9420 §5.3.1: the application decides which credentials are valid: here basic ones, with names of \
     1 to 1024 bytes";
const SIGNATURES: &str = "RFC 9420 §7.3, §10.1: the signatures of leaf nodes and key packages verify";
const TREE: &str = "RFC 9420 §12.4.3.1: each unmerged leaf is a non-blank leaf below the node, and every non-blank node \
     between them lists it; §7.9.2: parent hashes are valid";
const SYNTAX: &str = "RFC 9420 §5.3.3, §11.1, §12.1.8.1, §12.4.3.2, §13.4: extension_data is the structure of its type, \
     and nothing follows it";

pub(super) const REFUSED: &[Explained] = &[
    refused("is not an X25519 key of 32 bytes", KEYS),
    refused("is an X25519 point of low order", KEYS),
    refused("is not an uncompressed P-256 point", KEYS),
    refused("is not a point on the curve P-256", KEYS),
    refused(
        "ciphertexts, its resolution needs",
        "RFC 9420 §7.6: one ciphertext for each node of the resolution of the copath child, without the \
         leaves that the commit adds",
    ),
    refused("a proposal is referenced more than once", LISTS),
    refused("is updated or removed twice, or is the committer's own", LISTS),
    refused(
        "a ReInit must be the only proposal of its commit",
        "RFC 9420 §12.2: a list is invalid with a ReInit and any other proposal",
    ),
    refused(
        "no member has the leaf that is to be removed",
        "RFC 9420 §12.1.3: removed is the index of a non-blank leaf",
    ),
    refused("the nonce of a pre-shared key has", "RFC 9420 §8.4, §12.1.4: psk_nonce has the length KDF.Nh"),
    refused("neither this gateway nor every member knows it", UNSUPPORTED),
    refused("a type of proposal that this gateway does not know", UNSUPPORTED),
    refused("not every member supports this type of proposal", UNSUPPORTED),
    refused(
        "an ExternalInit is only valid inside an external commit",
        "RFC 9420 §12.2, §12.4.3.2: an ExternalInit comes by value in an external commit",
    ),
    refused("is not among its capabilities", CAPABILITIES),
    refused(
        "a leaf may only be replaced by one of the same client",
        "RFC 9420 §5.3.1: the application decides which credential is a valid successor: here an equal \
         one",
    ),
    refused("cannot be a client handle", IDENTITY),
    refused("this gateway does not know it", IDENTITY),
    refused("which this gateway does not know", IDENTITY),
    refused("the key package is of the cipher suite", PACKAGE),
    refused("the key package is of the protocol version", PACKAGE),
    refused("its cipher suite is", PACKAGE),
    refused(
        "the confirmed_transcript_hash has not the length of a hash",
        "RFC 9420 §8.2, §11: it is empty in a new group, and a hash of the cipher suite later",
    ),
    refused(
        "an external commit has one ExternalInit and at most one Remove",
        "RFC 9420 §12.2: an external commit has one ExternalInit and at most one Remove",
    ),
    refused(
        "a signature key would belong to two members",
        "RFC 9420 §7.3: signature keys are unique among the members",
    ),
    refused(
        "an encryption key would belong to two nodes of the tree",
        "RFC 9420 §7.3: encryption keys are unique among the members; §12.4.2: no key of the path appears \
         in any node of the new tree",
    ),
    refused(
        "a leaf does not support the extension",
        "RFC 9420 §7.3, §12.1.7: a leaf supports the GroupContext's extensions, and lists what these \
         require",
    ),
    refused(
        "which the group requires",
        "RFC 9420 §7.3, §11.1, §12.1.7: a leaf lists what required_capabilities name",
    ),
    refused(
        "is of a type that does not belong here",
        "RFC 9420 §17.3, table 7: an extension appears in the structures that its row names",
    ),
    refused(
        "an external sender cannot make this proposal",
        "RFC 9420 §12.1.8: external senders propose Adds, Removes, pre-shared keys, ReInits and \
         GroupContextExtensions",
    ),
    refused(
        "the leaf node source of an Update is not update",
        "RFC 9420 §7.3: the leaf_node_source of an Update is update",
    ),
    refused(
        "the leaf node source of a key package is not key_package",
        "RFC 9420 §7.3: the leaf_node_source of a key package is key_package",
    ),
    refused(
        "which its capabilities do not list",
        "RFC 9420 §7.3, §10.1: a leaf's capabilities list the extensions of the leaf and of its key \
         package",
    ),
    refused(
        "there is more than one GroupContextExtensions proposal",
        "RFC 9420 §12.2: a list is invalid with several GroupContextExtensions",
    ),
    refused(
        "a resumption key of usage reinit or branch",
        "RFC 9420 §11.2, §11.3, §12.1.4: these usages belong to the first commit of another group",
    ),
    refused(
        "the encryption key of the Update is one of the group's",
        "RFC 9420 §7.3: encryption keys are unique, and that of an Update is new",
    ),
    refused(
        "a leaf that replaces another must have a new encryption key",
        "RFC 9420 §12.2: the leaf of a resync meets the criteria of an Update; §7.3: among them a new \
         encryption key",
    ),
    refused(
        "the leaf's signature_key is",
        "RFC 9420 §5.1.1: a signature key has the format of its scheme (RFC 8032 §5.1.5); with one of low \
         order anybody can sign",
    ),
    refused("the signature of the leaf is not its own", SIGNATURES),
    refused(
        "not_before is later than not_after",
        "RFC 9420 §7.2: a lifetime is an interval in which the key package is valid",
    ),
    refused(
        "a ReInit cannot go back to an older version",
        "RFC 9420 §12.1.5: the version is not less than the group's",
    ),
    refused(
        "would be in the group twice",
        "RFC 9420 §12.2: the Adds of a list are of distinct clients that are not members already, which \
         the application tells",
    ),
    refused(
        "one client is in the tree twice",
        "RFC 9420 §5.3.1, §12.2: a client is in a group once, which the application tells",
    ),
    refused(
        "do not support each other's credential types",
        "RFC 9420 §7.3: every member supports the credential types that are in use",
    ),
    refused(
        "is that of a node that the path replaces",
        "RFC 9420 §12.4.2: the key of the path's leaf differs from the committer's present one, and no \
         key of the path appears in the tree into which it is merged",
    ),
    refused("the signature of the key package's leaf is not its own", SIGNATURES),
    refused(
        "a group id has",
        "RFC 9420 §8.1, §11: the creator chooses the group_id. Those of this gateway have 1 to 255 bytes, \
         by which it finds them",
    ),
    refused(
        "has one encryption key at two nodes",
        "RFC 9420 §7.3, §12.4.3.1: the encryption key of a node appears in no other node",
    ),
    refused("as unmerged at node", TREE),
    refused("unmerged_leaves", "RFC 9420 §7.1: unmerged_leaves is in increasing order"),
    refused("application_id", SYNTAX),
    refused("external_pub", SYNTAX),
    refused("external_senders", SYNTAX),
    refused("required_capabilities", SYNTAX),
    refused("is followed by bytes that do not belong to it", SYNTAX),
    Explained {
        library: None,
        what: "of the draft",
        ours: "a referenced proposal was not accepted in this epoch",
        theirs: "",
        because: "the MLS extensions draft defines this proposal. The libraries read it as one vector, and references behind it as part of it",
    },
    Explained {
        library: Some(Library::MlsRs),
        what: "of the draft",
        ours: ANYTHING,
        theirs: "",
        because: "the MLS extensions draft defines this proposal. mls-rs reads it as one vector, and what follows as something else",
    },
    Explained {
        library: None,
        what: "parent hashes do not hold",
        ours: "has no valid parent hash for node",
        theirs: "",
        because: TREE,
    },
    Explained {
        library: None,
        what: "a proposal of another type=0x00",
        ours: "Malformed",
        theirs: "",
        because: "the MLS extensions draft: the types 0x0008 to 0x000a have a form of their own, which is not that of one vector",
    },
    Explained {
        library: None,
        what: "a proposal of another type=0x00",
        ours: "a cipher suite that this gateway does not know",
        theirs: "",
        because: "the same; a proposal that follows then begins elsewhere",
    },
];
