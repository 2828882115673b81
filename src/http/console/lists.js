// Lists of applications, groups, clients and peers.

import { badge, el, empty, id, table } from "./dom.js";
import { ago, bounded, count, short } from "./format.js";
import { ask } from "./session.js";
import { loaded, pages } from "./loading.js";

/** The applications, which most views need. */
const applications = async (signal) => (await ask("/applications", { signal })).applications;

let looked;

/** The application that a view shows: the one it names, else the one that was looked at last, else the one with the most groups. */
function chosen(list, given) {
  const known = list.find(({ id: app }) => app === looked);
  const most = [...list].sort((one, other) => other.groups.count - one.groups.count)[0];
  looked = given ?? (known ?? most)?.id;
  return looked;
}

/** A choice of the application, where there are several. */
function applicationChoice(list, shown, view) {
  if (list.length < 2) return null;
  const options = list.map(({ id: app }) => el("option", { value: app, selected: app === shown }, app));
  const select = el("select", { id: "application", onchange: () => { location.hash = `#/${view}/${select.value}`; } }, options);
  return el("div", { class: "field" }, el("label", { for: "application" }, "Application"), select);
}

export function applicationsView() {
  return loaded("Applications", async (signal) => {
    const list = await applications(signal);
    if (list.length === 0) return empty("No applications", "Name one in the configuration: docs/operating.md says how.");
    return el("div", { class: "card" }, table("Applications", [
      { head: "Application", cell: (app) => id(app.id) },
      { head: "Groups", number: true, cell: (app) => el("a", { href: `#/groups/${app.id}`, "aria-label": `Groups of ${app.id}: ${bounded(app.groups)}` }, bounded(app.groups)) },
      { head: "Clients", number: true, cell: (app) => el("a", { href: `#/clients/${app.id}`, "aria-label": `Clients of ${app.id}: ${bounded(app.clients)}` }, bounded(app.clients)) },
      { head: "Key packages", number: true, wide: true, cell: (app) => bounded(app.keyPackages) },
      { head: "Federates with", wide: true, cell: (app) => app.federatesWith.join(", ") || "nobody" },
    ], list));
  });
}

export function groupsView([given]) {
  return loaded("Groups", async (signal) => {
    const list = await applications(signal);
    const app = chosen(list, given);
    if (app === undefined) return empty("No applications", "There can be no groups yet.");
    const input = el("input", { id: "group-id", name: "group", type: "text", required: true, pattern: "[A-Za-z0-9_\\-]+", title: "base64url without padding", autocomplete: "off", spellcheck: "false", placeholder: "QNBghvOM41LRjcWAL2y8VA" });
    const find = el("form", { class: "toolbar", role: "search", onsubmit: (event) => {
      event.preventDefault();
      location.hash = `#/groups/${app}/${encodeURIComponent(input.value.trim())}`;
    } },
      applicationChoice(list, app, "groups"),
      el("div", { class: "field grow" }, el("label", { for: "group-id" }, "Find a group by its id"), input),
      el("button", { type: "submit" }, "Show"));
    const rows = pages(async (cursor, pageSignal) => {
      const page = await ask(`/applications/${encodeURIComponent(app)}/groups?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal: pageSignal });
      return {
        next: page.nextCursor,
        content: page.groups.length === 0 ? empty("No groups", "This application has created none.") : table("Groups", [
          { head: "Group", cell: (group) => id(group.groupId, `#/groups/${app}/${group.groupId}`) },
          { head: "Epoch", number: true, cell: (group) => count(group.epochId) },
          { head: "Ordered by", wide: true, cell: (group) => group.hubDomain ?? "this gateway" },
        ], page.groups),
      };
    }, "groups");
    return [find, rows];
  });
}

export function clientsView([given]) {
  return loaded("Clients", async (signal) => {
    const list = await applications(signal);
    const app = chosen(list, given);
    if (app === undefined) return empty("No applications", "There can be no clients yet.");
    const choice = applicationChoice(list, app, "clients");
    const rows = pages(async (cursor, pageSignal) => {
      const page = await ask(`/applications/${encodeURIComponent(app)}/clients?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal: pageSignal });
      const left = ({ keyQueues, keyPackagesAvailable }) => keyQueues > 0 && keyPackagesAvailable === 0 ? badge("bad", "none") : count(keyPackagesAvailable);
      return {
        next: page.nextCursor,
        content: page.clients.length === 0 ? empty("No clients", "This application has registered none.") : table("Clients", [
          { head: "Handle", cell: (client) => el("span", { class: "handle" }, client.clientHandle) },
          { head: "Domain", wide: true, cell: (client) => client.domain ?? "–" },
          { head: "Tags", wide: true, cell: (client) => el("span", { class: "handle" }, client.tags.join(", ") || "–") },
          { head: "Queues", number: true, cell: (client) => count(client.keyQueues) },
          { head: "Packages left", number: true, cell: left },
          { head: "Id", wide: true, cell: (client) => el("code", { title: client.clientId }, short(client.clientId)) },
        ], page.clients),
      };
    }, "clients");
    return [choice ? el("div", { class: "toolbar" }, choice) : null, rows];
  });
}

// Whether the peer trusts the same in the clients of each application, as far as it has told.
function trustOf(peer) {
  if (peer.trust.length === 0) return "–";
  const differing = peer.trust.filter(({ differs }) => differs.length > 0);
  if (differing.length === 0) return badge("good", "the same");
  const title = differing.map(({ application, differs }) => `${application}: ${differs.join(", ")}`).join("\n");
  return el("span", { title }, badge("bad", `differs: ${[...new Set(differing.flatMap(({ differs }) => differs))].join(", ")}`));
}

export function peersView() {
  return loaded("Peers", async (signal) => {
    const { peers } = await ask("/peers", { signal });
    if (peers.length === 0) return empty("No peers", "This gateway federates with nobody.");
    return el("div", { class: "card" }, table("Peers", [
      { head: "Domain", cell: (peer) => peer.domain },
      { head: "State", cell: (peer) => peer.isReachable ? badge("good", "answers") : badge("bad", "does not answer") },
      { head: "Last answer", wide: true, cell: (peer) => peer.lastContact ? ago(peer.lastContact, Date.now()) : "never" },
      { head: "Groups behind", number: true, cell: (peer) => count(peer.lagGroups) },
      { head: "Entries behind", number: true, cell: (peer) => count(peer.lagEntries) },
      { head: "Refusals", number: true, wide: true, cell: (peer) => count(peer.refusals) },
      { head: "Trust", wide: true, cell: trustOf },
    ], peers));
  }, { every: 10 });
}
