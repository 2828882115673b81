/** A person's device: an MLS client with its keys and its state of one group. It sends nothing itself. */

import {
  type CiphersuiteImpl,
  type ClientState,
  type KeyPackage,
  type MLSMessage,
  type PrivateKeyPackage,
  type Proposal,
  acceptAll,
  createCommit,
  createGroup,
  createProposal,
  decodeMlsMessage,
  defaultCapabilities,
  defaultLifetime,
  emptyPskIndex,
  encodeMlsMessage,
  generateKeyPackage,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  processPublicMessage,
} from "ts-mls";
import { createGroupInfoWithRatchetTree } from "ts-mls/createCommit.js";

/** A commit, as the gateway takes it. */
export interface Commit {
  commitPacket: string;
  welcomePacket?: string;
}

export class Device {
  private group?: ClientState;
  /** The group as it will be once the gateway has accepted this device's commit. */
  private next?: ClientState;

  private constructor(
    readonly handle: string,
    private readonly suite: CiphersuiteImpl,
    private readonly packet: KeyPackage,
    private readonly keys: PrivateKeyPackage,
  ) {}

  /** A device with new keys. Its credential names its handle. */
  static async create(handle: string): Promise<Device> {
    const suite = await getCiphersuiteImpl(getCiphersuiteFromName("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"));
    const credential = { credentialType: "basic" as const, identity: new TextEncoder().encode(handle) };
    const made = await generateKeyPackage(credential, defaultCapabilities(), defaultLifetime, [], suite);
    return new Device(handle, suite, made.publicPackage, made.privatePackage);
  }

  keyPackage(): string {
    return toBase64({ version: "mls10", wireformat: "mls_key_package", keyPackage: this.packet });
  }

  /** Creates a group with this device alone. Returns its group info, which includes the ratchet tree. */
  async createGroup(): Promise<string> {
    const id = crypto.getRandomValues(new Uint8Array(16));
    const group = await createGroup(id, this.packet, this.keys, [], this.suite);
    this.group = group;
    const { groupContext, confirmationTag, ratchetTree } = group;
    const groupInfo = await createGroupInfoWithRatchetTree(groupContext, confirmationTag, group, ratchetTree, [], this.suite);
    return toBase64({ version: "mls10", wireformat: "mls_group_info", groupInfo });
  }

  async join(welcome: string): Promise<void> {
    const message = fromBase64(welcome);
    if (message.wireformat !== "mls_welcome") throw new Error("not a welcome");
    this.group = await joinGroup(message.welcome, this.packet, this.keys, emptyPskIndex, this.suite);
  }

  /** Commits to the proposals that it has received and, if one is given, to the addition of a key package. */
  async commit(added?: string): Promise<Commit> {
    const extraProposals: Proposal[] = [];
    if (added !== undefined) {
      const message = fromBase64(added);
      if (message.wireformat !== "mls_key_package") throw new Error("not a key package");
      extraProposals.push({ proposalType: "add", add: { keyPackage: message.keyPackage } });
    }
    const options = { extraProposals, ratchetTreeExtension: true, wireAsPublicMessage: true };
    const made = await createCommit({ state: this.joined(), cipherSuite: this.suite }, options);
    this.next = made.newState;
    const welcome = made.welcome && toBase64({ version: "mls10", wireformat: "mls_welcome", welcome: made.welcome });
    return { commitPacket: toBase64(made.commit), welcomePacket: welcome };
  }

  /** The gateway has accepted this device's commit: the device moves to the epoch that it created. */
  commitAccepted(): void {
    this.group = this.next;
    this.next = undefined;
  }

  /** The gateway has refused this device's commit: the device stays in its epoch. */
  commitRefused(): void {
    this.next = undefined;
  }

  /** Proposes to remove this device. Another member has to commit to it. */
  async proposeToLeave(): Promise<string> {
    const removed = this.joined().privatePath.leafIndex;
    const made = await createProposal(this.joined(), true, { proposalType: "remove", remove: { removed } }, this.suite);
    this.group = made.newState;
    return toBase64(made.message);
  }

  /** Processes a proposal or commit of another member. */
  async receive(packet: string): Promise<void> {
    const message = fromBase64(packet);
    if (message.wireformat !== "mls_public_message") throw new Error("not a public message");
    const read = await processPublicMessage(this.joined(), message.publicMessage, emptyPskIndex, this.suite, acceptAll);
    this.group = read.newState;
  }

  epoch(): number {
    return Number(this.joined().groupContext.epoch);
  }

  isMember(): boolean {
    return this.joined().groupActiveState.kind === "active";
  }

  /** A secret that only the members of an epoch share (RFC 9420, section 8.7). */
  epochAuthenticator(): string {
    return Buffer.from(this.joined().keySchedule.epochAuthenticator).toString("hex");
  }

  private joined(): ClientState {
    if (this.group === undefined) throw new Error(`${this.handle} is in no group`);
    return this.group;
  }
}

function toBase64(message: MLSMessage): string {
  return Buffer.from(encodeMlsMessage(message)).toString("base64");
}

function fromBase64(text: string): MLSMessage {
  const [message] = decodeMlsMessage(Buffer.from(text, "base64"), 0) ?? [];
  if (message === undefined) throw new Error("not an MLS message");
  return message;
}
