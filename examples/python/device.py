"""A person's device: an MLS client with its keys and its state of one group. It sends nothing itself.

rfc9420 1.3.0 can create and join groups, process commits, and make commits that only add members. It cannot make a valid
commit with an update path (RFC 9420, section 12.4), so it can neither renew keys nor remove members; another member has to
use another MLS library for that.
"""

import base64
import os
import time
from dataclasses import replace
from typing import Any

from rfc9420 import CipherSuiteId, DefaultCryptoProvider, GroupConfig, MemoryStorageProvider, MLSGroup, StagedCommit
from rfc9420.extensions.extensions import (
    ExtensionType,
    build_capabilities_data,
    deserialize_extensions,
    serialize_extensions,
)
from rfc9420.messages.data_structures import Credential, GroupInfo, Signature, Welcome
from rfc9420.messages.key_packages import KeyPackage, LeafNode
from rfc9420.messages.messages import MLSMessage, MLSPlaintext, ProtocolVersion, WireFormat

CIPHER_SUITE = CipherSuiteId.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
LIFETIME_SECONDS = 90 * 24 * 60 * 60
# Devices whose clocks are a little behind accept the key package too.
DATED_BACK_SECONDS = 60 * 60


class Device:
    def __init__(self, handle: str) -> None:
        """A device with new keys. Its credential names its handle."""
        self.handle = handle
        self.crypto = DefaultCryptoProvider(CIPHER_SUITE)
        self.config = GroupConfig(self.crypto, MemoryStorageProvider())
        self.signature_key = os.urandom(32)
        self.init_key, init_public = self.crypto.generate_key_pair()
        _, encryption_public = self.crypto.generate_key_pair()
        self.package = self._sign_key_package(init_public, encryption_public)
        self.group: MLSGroup
        self.staged: StagedCommit

    def key_package(self) -> str:
        return _to_base64(WireFormat.KEY_PACKAGE, self.package)

    def create_group(self) -> str:
        """Creates a group with this device alone. Returns its group info, which includes the ratchet tree."""
        self.group = MLSGroup.create(self.config, os.urandom(16), self.package)
        info = GroupInfo.deserialize(self.group._inner.export_group_info(self.signature_key))
        # The extension external_pub, as rfc9420 1.3.0 writes it, is malformed. Only joiners without a welcome need it.
        kept = [e for e in deserialize_extensions(info.extensions) if e.ext_type == ExtensionType.RATCHET_TREE]
        info = replace(info, extensions=serialize_extensions(kept))
        signature = self.crypto.sign_with_label(self.signature_key, b"GroupInfoTBS", info.tbs_serialize())
        return _to_base64(WireFormat.GROUP_INFO, replace(info, signature=Signature(signature)))

    def join(self, welcome: str) -> None:
        message = Welcome.deserialize(_from_base64(welcome))
        self.group = MLSGroup.join_from_welcome(self.config, message, self.init_key, self.package)

    def propose_to_add(self, key_package: str) -> str:
        """Proposes to add a device. The proposal is uploaded before a commit that refers to it."""
        package = KeyPackage.deserialize(_from_base64(key_package))
        proposal = self.group.add(package, self.signature_key)
        self.group.process_proposal(proposal, self.group.own_leaf_index)
        return _to_base64(WireFormat.PUBLIC_MESSAGE, proposal)

    def propose_to_leave(self) -> str:
        """Proposes to remove this device. Another member has to commit to it."""
        proposal = self.group.remove(self.group.own_leaf_index, self.signature_key)
        return _to_base64(WireFormat.PUBLIC_MESSAGE, proposal)

    def commit(self) -> dict[str, str]:
        """Commits to the proposals that this device has made or received."""
        self.staged = self.group.create_commit(self.signature_key)
        [welcome] = self.staged.welcomes
        return {
            "commitPacket": _to_base64(WireFormat.PUBLIC_MESSAGE, self.staged.commit_message),
            "welcomePacket": _to_base64(WireFormat.WELCOME, welcome),
        }

    def commit_accepted(self) -> None:
        """The gateway has accepted this device's commit: the device moves to the epoch that it created."""
        self.group.apply_staged_commit(self.staged)

    def follow(self, epoch: dict[str, Any]) -> None:
        """Applies a commit of another member, and the proposals that it refers to."""
        for packet in epoch["proposals"]:
            proposal = MLSPlaintext.deserialize(_from_base64(packet))
            self.group.process_proposal(proposal, proposal.auth_content.tbs.framed_content.sender.sender)
        self.group.process_commit(MLSPlaintext.deserialize(_from_base64(epoch["commit"])))
        # The proposals of an epoch end with it. rfc9420 1.3.0 keeps them, and would put them into the next commit.
        self.group._inner._pending_proposals.clear()
        self.group._inner._proposal_cache.clear()

    def exported_secret(self) -> bytes:
        """A secret that only the members of an epoch share (RFC 9420, section 8.5)."""
        return self.group.export_secret(b"example", b"", 32)

    def _sign_key_package(self, init_key: bytes, encryption_key: bytes) -> KeyPackage:
        signature_public = self.crypto.signature_public_from_private(self.signature_key)
        now = int(time.time())
        leaf = LeafNode(
            encryption_key=encryption_key,
            signature_key=signature_public,
            credential=Credential(self.handle.encode(), signature_public),
            capabilities=build_capabilities_data([CIPHER_SUITE], []),
            lifetime_not_before=now - DATED_BACK_SECONDS,
            lifetime_not_after=now + LIFETIME_SECONDS,
        )
        leaf = replace(leaf, signature=self._sign(b"LeafNodeTBS", leaf.tbs_serialize()))
        package = KeyPackage(init_key=init_key, leaf_node=leaf)
        return replace(package, signature=self._sign(b"KeyPackageTBS", package.tbs_serialize()))

    def _sign(self, label: bytes, content: bytes) -> Signature:
        return Signature(self.crypto.sign_with_label(self.signature_key, label, content))


def _to_base64(wire_format: WireFormat, content: Any) -> str:
    message = MLSMessage(ProtocolVersion.MLS10, wire_format, content.serialize())
    return base64.b64encode(message.serialize()).decode()


def _from_base64(text: str) -> bytes:
    """The content of an MLSMessage, without its version and its wire format."""
    return base64.b64decode(text)[4:]
