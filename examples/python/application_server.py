"""An application server: alice invites bob to a group, both commit at the same time, bob leaves.

Start a gateway, set the three variables that it prints, and run this.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from device import CIPHER_SUITE, Device
from gateway import Gateway, Problem

# MLS 1.0 (RFC 9420, section 6).
PROTOCOL_VERSION = 1


def story(gateway: Gateway) -> None:
    events = gateway.events()

    alice, bob = Device("alice"), Device("bob")
    alice_id, bob_id = register(gateway, alice), register(gateway, bob)
    print("alice and bob are registered")

    queue = key_queue(gateway, bob_id)
    upload = {"keyPackages": [bob.key_package()], "isReset": True}
    gateway.send("PATCH", f"/clients/{bob_id}/queues/{queue}", upload)
    print("bob has uploaded a key package")

    group = gateway.send("PUT", "/groups", {"groupInfo": alice.create_group()})["groupId"]
    print(f"alice has created the group {group}")

    wanted = f"protocolVersion={PROTOCOL_VERSION}&cipherSuite={CIPHER_SUITE}&receiverClientId={alice_id}"
    key_package = gateway.send("GET", f"/clients/{bob_id}/keyPackage?{wanted}")["keyPackage"]
    propose_to_add(gateway, group, alice, key_package)
    gateway.send("PUT", f"/groups/{group}/epochs", alice.commit())
    alice.commit_accepted()
    print(f"alice has invited bob: epoch {alice.group.epoch}")

    join(gateway, events, group, bob)
    assert bob.exported_secret() == alice.exported_secret()
    print("bob has joined, and shares the keys of the epoch with alice")

    # Both add their tablets in the same epoch. The gateway accepts the first commit only.
    alices_tablet, bobs_tablet = Device("alice/tablet"), Device("bob/tablet")
    propose_to_add(gateway, group, alice, alices_tablet.key_package())
    propose_to_add(gateway, group, bob, bobs_tablet.key_package())
    first, second = alice.commit(), bob.commit()
    gateway.send("PUT", f"/groups/{group}/epochs", first)
    alice.commit_accepted()
    try:
        gateway.send("PUT", f"/groups/{group}/epochs", second)
        raise RuntimeError("the gateway has accepted two commits in one epoch")
    except Problem as refusal:
        if not refusal.is_of("stale-epoch"):
            raise
        won = alice.group.epoch
        print(f"alice and bob have committed at once: alice won epoch {won}, bob got {refusal.status} stale-epoch")

    # The member that lost catches up, and commits again.
    catch_up(gateway, group, bob)
    propose_to_add(gateway, group, bob, bobs_tablet.key_package())
    gateway.send("PUT", f"/groups/{group}/epochs", bob.commit())
    bob.commit_accepted()
    catch_up(gateway, group, alice)
    assert bob.exported_secret() == alice.exported_secret()
    print(f"bob has caught up and committed again: epoch {bob.group.epoch}")

    history = gateway.send("GET", f"/groups/{group}/control-msgs?startEpochId=1")
    print("the history has the epochs", ", ".join(str(epoch["epochId"]) for epoch in history["epochs"]))

    # A member cannot remove itself: it proposes that, and another member commits to the proposal. That commit needs an
    # update path, which rfc9420 cannot make, so this story ends with the proposal.
    gateway.send("PUT", f"/groups/{group}/proposals", {"packet": bob.propose_to_leave()})
    next_event(events, "proposal", group)
    waiting = gateway.send("GET", f"/groups/{group}/proposals")["messages"]
    print(f"bob has proposed to leave; {len(waiting)} proposal waits for a member whose MLS library can commit to it")


def register(gateway: Gateway, device: Device) -> str:
    """Registers a device. If that was done before, the problem document has its clientId."""
    client = {"clientHandle": device.handle, "tags": [f"account:{device.handle}"]}
    return create_or_find(gateway, "/clients", client, "client-handle-taken")["clientId"]


def key_queue(gateway: Gateway, client: str) -> str:
    """Creates a key queue. If that was done before, the problem document has its keyQueueId."""
    queue = {"protocolVersion": PROTOCOL_VERSION, "cipherSuite": CIPHER_SUITE, "appLabel": ""}
    return create_or_find(gateway, f"/clients/{client}/queues", queue, "key-queue-exists")["keyQueueId"]


def create_or_find(gateway: Gateway, path: str, body: object, exists: str) -> dict[str, str]:
    try:
        created: dict[str, str] = gateway.send("POST", path, body)
        return created
    except Problem as refusal:
        if refusal.is_of(exists):
            return refusal.members
        raise


def propose_to_add(gateway: Gateway, group: str, member: Device, key_package: str) -> None:
    gateway.send("PUT", f"/groups/{group}/proposals", {"packet": member.propose_to_add(key_package)})


def join(gateway: Gateway, events: Iterator[tuple[str, Any]], group: str, device: Device) -> None:
    """Waits until a welcome is there, and joins the group by it."""
    welcome = next_event(events, "welcome", group)
    path = f"/clients/{quote(device.handle, safe='')}/welcome-msgs"
    waiting = gateway.send("GET", f"{path}?ratchetTree=false")["joinInfos"]
    device.join(next(info["welcome"] for info in waiting if info["id"] == welcome["id"]))
    gateway.send("DELETE", f"{path}/{welcome['id']}")


def next_event(events: Iterator[tuple[str, Any]], kind: str, group: str) -> Any:
    """Waits for an event of a group."""
    for event, data in events:
        if event == kind and data["groupId"] == group:
            return data
    raise RuntimeError("the gateway has closed the event stream")


def catch_up(gateway: Gateway, group: str, device: Device) -> None:
    """Brings a device to the group's current epoch."""
    while True:
        missed = f"startEpochId={device.group.epoch + 1}"
        answer = gateway.send("GET", f"/groups/{group}/control-msgs?{missed}")
        for epoch in answer["epochs"]:
            device.follow(epoch)
        # Only a part of a long history fits into one answer.
        if "nextEpochId" not in answer:
            return


def main() -> None:
    try:
        url, app, token = (os.environ[name] for name in ("GATEWAY", "APP", "TOKEN"))
    except KeyError:
        sys.exit("set GATEWAY, APP and TOKEN as the gateway prints them when it starts for the first time")
    try:
        story(Gateway(url, app, token))
    except OSError:
        sys.exit(f"the gateway at {url} cannot be reached; is it running?")
    except (Problem, RuntimeError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
