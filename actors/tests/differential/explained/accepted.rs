//! Messages that the gateway's observer accepts and libraries refuse.

use super::{ANYTHING, Explained, accepted};
use crate::ledger::Library::{MlsRs, OpenMls};

const RESUMED: &str =
    "RFC 9420 §11.2, §11.3: the first commit of a group that succeeds another has a key of that one";
const NEWCONTEXT: &str = "RFC 9420 §12.3, §12.4.2: GroupContextExtensions are applied first, and the leaves are judged by the \
     new context";
const DRAFT: &str = "the MLS extensions draft defines this proposal or pre-shared key, and all members support it (RFC \
     9420 §12.2, §13.1)";
const REINIT: &str =
    "RFC 9420 §12.1.5: cipher_suite is that of the new group, which its members have to support";
const EXTERNAL: &str = "RFC 9420 §12.1.8: external senders may propose pre-shared keys and ReInits";

pub(super) const ACCEPTED: &[Explained] = &[
    accepted(
        MlsRs,
        "",
        "ExtensionNotInCapabilities(ExtensionType(1))",
        "RFC 9420 §7.2: default extensions, application_id among them, are not listed in capabilities",
    ),
    accepted(OpenMls, "by an external sender", "UnsupportedProposalType", EXTERNAL),
    accepted(OpenMls, "sender=External", "UnsupportedProposalType", EXTERNAL),
    accepted(
        OpenMls,
        "",
        "ExtensionNotInRequiredCapabilities",
        "RFC 9420 §12.1.7: every member supports the extensions, whether or not these are required",
    ),
    accepted(
        OpenMls,
        "",
        "InitEncryptionKeyCollision",
        "RFC 9420 §10.1: the init_key differs from the encryption_key of its own leaf",
    ),
    accepted(
        MlsRs,
        "",
        "DefaultValueListed",
        "RFC 9420 §7.2 forbids clients to list default types; §7.3 does not have others refuse a leaf \
         that does",
    ),
    accepted(
        MlsRs,
        "self-removal",
        "UnexpectedEOF",
        "the MLS extensions draft: self_remove is the type 0x000a and has no body",
    ),
    accepted(MlsRs, "of the draft", ANYTHING, DRAFT),
    accepted(OpenMls, "of the draft", ANYTHING, DRAFT),
    accepted(
        MlsRs,
        "_types[0]=0x000",
        "Required",
        "RFC 9420 §7.2: every client supports the default types, and none lists them",
    ),
    accepted(OpenMls, "commit", "UsageMismatch", RESUMED),
    accepted(MlsRs, "commit", "InvalidTypeOrUsageInPreSharedKeyProposal", RESUMED),
    accepted(OpenMls, "commit", "LeafNodeValidation(UnsupportedProposals)", NEWCONTEXT),
    accepted(OpenMls, "pre-shared key.psk=Application", "UnknownValue(3)", DRAFT),
    accepted(MlsRs, "pre-shared key.psk=Application", "UnsupportedEnumDiscriminant", DRAFT),
    accepted(OpenMls, "a re-initialisation.cipher_suite", "UnknownValue", REINIT),
    accepted(
        OpenMls,
        "keys are distinct",
        "Duplicate",
        "RFC 9420 §7.3, §12.3, §12.4.2: keys are unique in the new tree, from which the commit may have \
         taken others",
    ),
    accepted(
        MlsRs,
        "commit",
        "UnsupportedCustomProposal",
        "RFC 9420 §12.2: every member that processes the commit lists the type, and none has to where the \
         only one comes back; mls-rs has to be told of it",
    ),
    accepted(
        OpenMls,
        "commit",
        "ProposalValidationError(UnsupportedProposalType)",
        "RFC 9420 §12.2: every member that processes the commit lists the type; openmls keeps GREASE \
         types apart and finds none listed",
    ),
    accepted(
        MlsRs,
        "context extensions",
        "UnsupportedGroupExtension",
        "RFC 9420 §12.1.7: every member supports the extension; mls-rs has to be told of it",
    ),
    accepted(
        MlsRs,
        "",
        "RequiredCredentialNotFound",
        "RFC 9420 §7.2, §7.3: members support the credential types of the leaves; §5.3.1: credentials of \
         external senders are the application's to judge",
    ),
    accepted(
        MlsRs,
        "context extensions",
        "BasicIdentityProviderError",
        "RFC 9420 §5.3.1, §12.1.8.1: the application decides which credentials of external senders are \
         valid; the key, which a member has set, counts here",
    ),
    accepted(
        OpenMls,
        "",
        "UnsupportedExtension",
        "RFC 9420 §13.5: leaves and key packages may have extensions of GREASE types that the \
         capabilities list",
    ),
];
