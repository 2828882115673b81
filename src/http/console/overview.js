// The overview: what the gateway does now, from the stream of samples.

import { badge, el, empty, facts, id, setText, table } from "./dom.js";
import { ago, bytes, count, milliseconds, rate, short } from "./format.js";
import { bar, spark } from "./spark.js";

/** The share of free disk below which it is shown as a warning. */
const LITTLE_FREE = 0.1;

function tile(title, unit, classes, second) {
  const value = el("span", { class: "value" }, "–");
  const other = second ? el("span", { class: "other" }, "–") : null;
  const chart = spark(classes);
  return {
    element: el("section", { class: "tile", "aria-label": title },
      el("h2", {}, title),
      el("p", { class: "figure" }, value, " ", el("span", { class: "unit" }, unit)),
      other ? el("p", { class: "second" }, el("span", { class: `key ${classes[1] ?? ""}` }), `${second} `, other) : null,
      chart.element),
    show(text, otherText, ...points) {
      setText(value, text);
      if (other) setText(other, otherText);
      chart.push(...points);
    },
  };
}

function card(title, note) {
  const body = el("div", { class: "card-body" });
  const element = el("section", { class: "card" }, el("div", { class: "card-head" }, el("h2", {}, title), note ? el("p", { class: "note" }, note) : null), body);
  let shown = null;
  return {
    element,
    /** Shows content that `make` makes, unless it is what is shown. */
    show(key, make) {
      const text = JSON.stringify(key);
      if (text === shown) return;
      // Whoever is in this card with the keyboard stays where they are until they leave.
      if (body.contains(document.activeElement)) return;
      shown = text;
      body.replaceChildren(make());
    },
  };
}

export function overview() {
  const tiles = {
    commits: tile("Commits", "a second", ["c0", "c1"], "conflicts"),
    proposals: tile("Proposals", "a second", ["c2"]),
    keyPackages: tile("Key packages given out", "a second", ["c4"]),
    requests: tile("Requests", "a second", ["c3", "c1"], "failures"),
    commitTimes: tile("Time of a commit", "median", ["c0", "c5"], "99th percentile"),
    requestTimes: tile("Time of a request", "median", ["c3", "c5"], "99th percentile"),
  };
  const busiest = card("Busiest groups", "commits in the last minute");
  const queues = card("Key queues that run low", "key packages left");
  const peers = card("Peers", "gateways of other domains");
  const storage = card("Storage");
  const load = card("Load");
  const element = el("div", { class: "overview" },
    el("h1", { tabindex: "-1" }, "Overview"),
    el("div", { class: "tiles" }, Object.values(tiles).map((one) => one.element)),
    el("div", { class: "cards" },
      el("div", { class: "column" }, busiest.element, queues.element),
      el("div", { class: "column" }, storage.element, peers.element, load.element)));

  function showTile(one, times) {
    one.show(times ? milliseconds(times.p50Ms) : "–", times ? milliseconds(times.p99Ms) : "–", times?.p50Ms ?? null, times?.p99Ms ?? null);
  }

  return {
    title: "Overview",
    element,
    sample(sample) {
      const { rates, busiestGroups, lowQueues, disk, snapshots, backups } = sample;
      if (rates) {
        tiles.commits.show(rate(rates.commits), rate(rates.conflicts), rates.commits, rates.conflicts);
        tiles.proposals.show(rate(rates.proposals), "", rates.proposals);
        tiles.keyPackages.show(rate(rates.keyPackages), "", rates.keyPackages);
        tiles.requests.show(rate(rates.requests), rate(rates.failures), rates.requests, rates.failures);
      }
      showTile(tiles.commitTimes, sample.commitTimes);
      showTile(tiles.requestTimes, sample.requestTimes);

      const most = busiestGroups[0]?.commits ?? 1;
      busiest.show(busiestGroups, () => busiestGroups.length === 0
        ? empty("No commits in the last minute", "Groups appear here as their members commit.")
        : table("Busiest groups", [
          { head: "Group", cell: (group) => id(group.groupId, `#/groups/${group.applicationId}/${group.groupId}`) },
          { head: "Application", wide: true, cell: (group) => el("code", { title: group.applicationId }, short(group.applicationId)) },
          { head: "Epoch", number: true, cell: (group) => count(group.epochId) },
          { head: "Commits", number: true, cell: (group) => el("span", { class: "with-bar" }, bar(group.commits / most), count(group.commits)) },
        ], busiestGroups));

      queues.show(lowQueues, () => lowQueues.length === 0
        ? empty("No queue has run low", "A queue that does appears here until it is filled.")
        : table("Key queues that run low", [
          { head: "Client", cell: (queue) => el("span", { class: "handle" }, queue.clientHandle) },
          { head: "Application", wide: true, cell: (queue) => el("code", { title: queue.applicationId }, short(queue.applicationId)) },
          { head: "Queue", wide: true, cell: (queue) => el("code", { title: queue.keyQueueId }, short(queue.keyQueueId)) },
          { head: "Left", number: true, cell: (queue) => queue.keyPackagesAvailable === 0 ? badge("bad", "none") : count(queue.keyPackagesAvailable) },
        ], lowQueues));

      peers.show(sample.peers.map(({ lastContact, ...rest }) => rest), () => sample.peers.length === 0
        ? empty("No peers", "This gateway federates with nobody.")
        : table("Peers", [
          { head: "Domain", cell: (peer) => el("a", { href: "#/peers" }, peer.domain) },
          { head: "State", cell: (peer) => peer.isReachable ? badge("good", "answers") : badge("bad", "does not answer") },
          { head: "Lacks", number: true, cell: (peer) => `${count(peer.lagEntries)} entries` },
        ], sample.peers));

      const isFull = disk && disk.freeBytes < LITTLE_FREE * disk.totalBytes;
      const snapshot = snapshots.newestAt ? ago(snapshots.newestAt, sample.at) : "none since the start";
      const backup = backups.newestAt ? ago(backups.newestAt, sample.at) : "no backup";
      storage.show([disk, snapshot, snapshots.failing, backup, backups.failed], () => el("div", {},
        disk ? el("div", { class: "disk" }, bar(1 - disk.freeBytes / disk.totalBytes, isFull ? "bad" : "")) : null,
        facts([
          disk ? ["Data directory", bytes(disk.usedBytes)] : ["Data directory", "none: nothing is kept"],
          disk && ["Free on its disk", isFull ? badge("bad", `${bytes(disk.freeBytes)} of ${bytes(disk.totalBytes)}`) : `${bytes(disk.freeBytes)} of ${bytes(disk.totalBytes)}`],
          ["Newest snapshot", snapshot],
          snapshots.failing > 0 && ["Snapshots that fail", badge("bad", count(snapshots.failing))],
          ["Last backup", backup],
          backups.failed > 0 && ["Backups that failed", badge("bad", count(backups.failed))],
        ])));

      const { groupsAwake, keyQueuesAwake, requestsInFlight, eventStreams, writesWaiting } = sample.load;
      load.show(sample.load, () => facts([
        ["Groups in memory", count(groupsAwake)],
        ["Key queues in memory", count(keyQueuesAwake)],
        ["Requests in flight", count(requestsInFlight)],
        ["Event streams", count(eventStreams)],
        ["Writes waiting for the disk", count(writesWaiting)],
      ]));
    },
  };
}
