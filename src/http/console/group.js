// One group: its sizes, its followers, and its epochs as a timeline.

import { badge, el, empty, facts, table } from "./dom.js";
import { ago, bytes, count, moment, span, suite, timeOfDay } from "./format.js";
import { ask } from "./session.js";
import { bar } from "./spark.js";
import { loaded } from "./loading.js";

const EPOCHS_AT_ONCE = 50;

export function groupView([app, group]) {
  const path = `/applications/${encodeURIComponent(app)}/groups/${encodeURIComponent(group)}`;
  let older = [];
  // The newest epochs that were fetched last, once older ones are open.
  let shown = [];
  const heading = ["Group ", el("code", { class: "heading-id" }, group)];
  const view = loaded(`Group ${group}`, async (signal) => {
    const [about, newest] = await Promise.all([ask(path, { signal }), ask(`${path}/epochs?limit=${EPOCHS_AT_ONCE}`, { signal })]);
    const now = Date.now();
    const followers = about.followers.length === 0
      ? empty("No followers", about.hubDomain ? "The gateway that orders the group delivers it." : "No other gateway has this group.")
      : table("Followers", [
        { head: "Domain", cell: (follower) => follower.domain },
        { head: "Position", number: true, cell: (follower) => el("span", { class: "with-bar" },
          bar(1 - follower.lagEntries / (about.logEntries + 1), follower.lagEntries > 0 ? "bad" : ""),
          `${count(Math.max(0, about.logEntries + 1 - follower.lagEntries))} of ${count(about.logEntries + 1)}`) },
        { head: "Behind", number: true, cell: (follower) => follower.lagEntries === 0 ? badge("good", "has all") : badge("bad", `${count(follower.lagEntries)} entries`) },
      ], about.followers);
    return [
      el("p", { class: "crumbs" }, el("a", { href: `#/groups/${app}` }, "All groups of the application"), " ", el("code", {}, app)),
      el("div", { class: "cards" },
        el("section", { class: "card" }, el("div", { class: "card-head" }, el("h2", {}, "State")), facts([
          ["Epoch", count(about.epochId)],
          ["Members", count(about.members)],
          ["Proposals that wait", count(about.proposals)],
          ["Ordered by", about.hubDomain ?? "this gateway"],
          ["Created", el("time", { datetime: new Date(about.createdAt).toISOString(), title: moment(about.createdAt) }, ago(about.createdAt, now))],
          ["Cipher suite", suite(about.cipherSuite)],
          ["Ratchet tree", bytes(about.ratchetTreeBytes)],
          ["Log entries", count(about.logEntries)],
          ["Epochs kept", about.oldestEpochId === undefined ? "none" : `from ${count(about.oldestEpochId)}`],
        ])),
        el("section", { class: "card" }, el("div", { class: "card-head" }, el("h2", {}, "Followers")), followers)),
      timeline(path, newest.epochs, signal),
    ];
  }, { every: 5, heading });
  return view;

  function timeline(path, newest, signal) {
    // Older epochs that were opened stay open when the newest are fetched anew.
    const oldest = newest.at(-1)?.epochId ?? 0;
    older = [...shown, ...older].filter(({ epochId }) => epochId < oldest);
    // Nothing is shown below a gap: more epochs came than are fetched at once.
    if (older.length > 0 && older[0].epochId !== oldest - 1) older = [];
    shown = older.length > 0 ? newest : [];
    const body = el("div");
    const more = el("button", { type: "button" }, "Older epochs");
    const status = el("p", { class: "note", role: "status" });

    function draw() {
      const epochs = [...newest, ...older];
      body.replaceChildren(epochs.length === 0
        ? empty("Epoch 0", "No member has committed yet.")
        : epochTable(epochs));
      more.hidden = epochs.length === 0 || epochs.at(-1).epochId <= 1;
    }

    more.addEventListener("click", async () => {
      more.disabled = true;
      try {
        const before = [...newest, ...older].at(-1).epochId;
        const { epochs } = await ask(`${path}/epochs?limit=${EPOCHS_AT_ONCE}&before=${before}`, { signal });
        older.push(...epochs);
        shown = newest;
        status.textContent = epochs.length === 0 ? "Older epochs are no longer kept." : `${epochs.length} older epochs added.`;
        draw();
        if (epochs.length === 0) more.hidden = true;
      } catch (error) {
        status.textContent = `The older epochs cannot be read: ${error.message}`;
      }
      more.disabled = false;
    });

    draw();
    return el("section", { class: "card timeline" },
      el("div", { class: "card-head" }, el("h2", {}, "Epochs"), el("p", { class: "note" }, "the newest first, times in UTC")),
      body, el("div", { class: "pager" }, more, status));
  }
}

function epochTable(epochs) {
  const largest = Math.max(...epochs.map(({ commitBytes }) => commitBytes), 1);
  const before = new Map(epochs.slice(1).map((epoch, place) => [epochs[place].epochId, epoch]));
  return table("Epochs", [
    { head: "Epoch", cell: ({ epochId }) => el("span", { class: "dot" }, count(epochId)) },
    { head: "Created", cell: ({ timestamp }) => el("time", { datetime: new Date(timestamp).toISOString(), title: moment(timestamp) },
      el("span", { class: "day" }, `${new Date(timestamp).toISOString().slice(0, 10)} `), timeOfDay(timestamp)) },
    { head: "After", number: true, wide: true, cell: ({ epochId, timestamp }) => before.has(epochId) ? span(timestamp - before.get(epochId).timestamp) : "" },
    { head: "Committer", cell: committer },
    { head: "Proposals", number: true, wide: true, cell: ({ proposals }) => count(proposals) },
    { head: "Size", number: true, wide: true, cell: ({ commitBytes }) => el("span", { class: "with-bar" }, bar(commitBytes / largest), bytes(commitBytes)) },
    { head: "Lost the race", cell: losers },
  ], epochs);
}

function committer({ committerLeafIndex, committerHandle }) {
  if (committerLeafIndex === undefined) return badge("", "external commit");
  const leaf = `leaf ${count(committerLeafIndex)}`;
  return committerHandle === undefined ? leaf : [el("span", { class: "handle" }, committerHandle), el("span", { class: "note" }, ` ${leaf}`)];
}

/** The commits for the same epoch that came too late. */
function losers({ losers: late, timestamp }) {
  if (!late?.length) return el("span", { class: "note" }, "–");
  return el("ul", { class: "losers" }, late.map(({ leafIndex, at }) => el("li", { class: "badge warn", title: moment(at) },
    `${leafIndex === undefined ? "external" : `leaf ${count(leafIndex)}`} +${span(at - timestamp)}`)));
}
