/**
 * An application server: alice invites bob to a group, both commit at the same time, bob leaves.
 *
 * Start a gateway, set the three variables that it prints, and run `npm ci && npm start`.
 */

import assert from "node:assert/strict";
import { Device } from "./device.js";
import { Gateway, type GatewayEvent, Problem } from "./gateway.js";

/** MLS 1.0, and the cipher suite of the devices (RFC 9420, section 17.1). */
const ATTRIBUTES = { protocolVersion: 1, cipherSuite: 1 };

async function story(gateway: Gateway): Promise<void> {
  const events = await gateway.events();

  const [alice, bob] = [await Device.create("alice"), await Device.create("bob")];
  const [aliceId, bobId] = [await register(gateway, alice), await register(gateway, bob)];
  console.log("alice and bob are registered");

  const queue = await keyQueue(gateway, bobId);
  const upload = { keyPackages: [bob.keyPackage()], isReset: true };
  await gateway.send("PATCH", `/clients/${bobId}/queues/${queue}`, upload);
  console.log("bob has uploaded a key package");

  const { groupId } = await gateway.send("PUT", "/groups", { groupInfo: await alice.createGroup() });
  console.log(`alice has created the group ${groupId}`);

  const wanted = `protocolVersion=1&cipherSuite=1&receiverClientId=${aliceId}`;
  const { keyPackage } = await gateway.send("GET", `/clients/${bobId}/keyPackage?${wanted}`);
  await gateway.send("PUT", `/groups/${groupId}/epochs`, await alice.commit(keyPackage));
  alice.commitAccepted();
  console.log(`alice has invited bob: epoch ${alice.epoch()}`);

  const { id } = await next(events, "welcome", groupId);
  const { joinInfos } = await gateway.send("GET", "/clients/bob/welcome-msgs?ratchetTree=false");
  await bob.join(joinInfos.find((info: { id: string }) => info.id === id).welcome);
  await gateway.send("DELETE", `/clients/bob/welcome-msgs/${id}`);
  assert.equal(bob.epochAuthenticator(), alice.epochAuthenticator());
  console.log("bob has joined, and shares the keys of the epoch with alice");

  // Both commit in the same epoch. The gateway accepts the first commit only.
  const [first, second] = [await alice.commit(), await bob.commit()];
  await gateway.send("PUT", `/groups/${groupId}/epochs`, first);
  alice.commitAccepted();
  const refusal = await gateway.send("PUT", `/groups/${groupId}/epochs`, second).catch((error) => error);
  if (!(refusal instanceof Problem && refusal.is("stale-epoch"))) throw refusal;
  bob.commitRefused();
  console.log(`alice and bob have committed at once: alice won epoch ${alice.epoch()}, bob got ${refusal.status} stale-epoch`);

  // The member that lost catches up, and commits again.
  await catchUp(gateway, groupId, bob);
  await gateway.send("PUT", `/groups/${groupId}/epochs`, await bob.commit());
  bob.commitAccepted();
  await catchUp(gateway, groupId, alice);
  assert.equal(bob.epochAuthenticator(), alice.epochAuthenticator());
  console.log(`bob has caught up and committed again: epoch ${bob.epoch()}`);

  const history = await gateway.send("GET", `/groups/${groupId}/control-msgs?startEpochId=1`);
  const epochs = history.epochs.map((epoch: { epochId: number }) => epoch.epochId);
  console.log(`the history has the epochs ${epochs.join(", ")}`);

  // A member cannot remove itself: it proposes that, and another member commits to the proposal.
  await gateway.send("PUT", `/groups/${groupId}/proposals`, { packet: await bob.proposeToLeave() });
  await next(events, "proposal", groupId);
  const { messages } = await gateway.send("GET", `/groups/${groupId}/proposals`);
  for (const proposal of messages) await alice.receive(proposal);
  await gateway.send("PUT", `/groups/${groupId}/epochs`, await alice.commit());
  alice.commitAccepted();
  await catchUp(gateway, groupId, bob);
  assert.equal(bob.isMember(), false);
  const { members } = await gateway.send("GET", `/groups/${groupId}`);
  const handles = members.map((member: { clientHandle: string }) => member.clientHandle);
  console.log(`bob has left; the members in epoch ${alice.epoch()} are: ${handles.join(", ")}`);
}

/** Registers a device. If that was done before, the problem document has its clientId. */
async function register(gateway: Gateway, device: Device): Promise<string> {
  const client = { clientHandle: device.handle, tags: [`account:${device.handle}`] };
  return (await createOrFind(gateway, "/clients", client, "client-handle-taken")).clientId;
}

/** Creates a key queue. If that was done before, the problem document has its keyQueueId. */
async function keyQueue(gateway: Gateway, clientId: string): Promise<string> {
  const queue = { ...ATTRIBUTES, appLabel: "" };
  return (await createOrFind(gateway, `/clients/${clientId}/queues`, queue, "key-queue-exists")).keyQueueId;
}

async function createOrFind(gateway: Gateway, path: string, body: object, exists: string): Promise<any> {
  try {
    return await gateway.send("POST", path, body);
  } catch (error) {
    if (error instanceof Problem && error.is(exists)) return error.members;
    throw error;
  }
}

/** Waits for an event of a group. */
async function next(events: AsyncGenerator<GatewayEvent, void>, kind: string, groupId: string): Promise<any> {
  for (;;) {
    const { value: event, done } = await events.next();
    if (done) throw new Error("the gateway has closed the event stream");
    if (event.kind === kind && event.data.groupId === groupId) return event.data;
  }
}

/** Brings a device to the group's current epoch. */
async function catchUp(gateway: Gateway, groupId: string, device: Device): Promise<void> {
  let answer;
  do {
    const missed = `startEpochId=${device.epoch() + 1}`;
    answer = await gateway.send("GET", `/groups/${groupId}/control-msgs?${missed}`);
    // A device that has not received the proposals that a commit refers to takes them from here; in this story, it has.
    for (const { commit } of answer.epochs) await device.receive(commit);
    // Only a part of a long history fits into one answer.
  } while (answer.nextEpochId !== undefined);
}

async function main(): Promise<void> {
  const { GATEWAY, APP, TOKEN } = process.env;
  if (!GATEWAY || !APP || !TOKEN) {
    throw new Error("set GATEWAY, APP and TOKEN as the gateway prints them when it starts for the first time");
  }
  await story(new Gateway(GATEWAY, APP, TOKEN));
}

main().then(
  // The event stream, which is still open, would keep the process alive.
  () => process.exit(0),
  (error) => {
    const isUnreachable = error instanceof TypeError && error.message === "fetch failed";
    console.error(isUnreachable ? `the gateway at ${process.env.GATEWAY} cannot be reached; is it running?` : error.message);
    process.exit(1);
  },
);
