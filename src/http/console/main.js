// The console: signing in, the views, and the state of the connection.

import { el, setText } from "./dom.js";
import { groupView } from "./group.js";
import { applicationsView, clientsView, groupsView, peersView } from "./lists.js";
import { overview } from "./overview.js";
import { ask, forget, keep, readiness, recall, watch } from "./session.js";

const at = (name) => document.getElementById(name);
const [main, navigation, announcement, notice] = ["main", "navigation", "announcement", "notice"].map(at);
const [health, connection, version, signOut] = ["health", "connection", "version", "sign-out"].map(at);

const VIEWS = [
  ["overview", "Overview", overview],
  ["applications", "Applications", applicationsView],
  ["groups", "Groups", (rest) => (rest.length > 1 ? groupView(rest) : groupsView(rest))],
  ["clients", "Clients", clientsView],
  ["peers", "Peers", peersView],
];

let view = null;
let feed = null;
let countdown = null;
let wasReady = null;

/** Says something to screen readers: changes of state, never samples. */
function announce(text) {
  announcement.textContent = text;
}

function showHealth(isReady, reason) {
  health.className = `pill ${isReady ? "good" : "bad"}`;
  setText(health, isReady ? "Ready" : "Not ready");
  health.title = isReady ? "Requests are answered" : reason ?? "/readyz fails";
  if (wasReady !== null && wasReady !== isReady) announce(isReady ? "The gateway is ready." : "The gateway is not ready.");
  wasReady = isReady;
}

function place() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const known = VIEWS.find(([known]) => known === name) ?? VIEWS[0];
  return { known, rest };
}

function show(moveFocus) {
  const { known: [name, , make], rest } = place();
  view?.stop?.();
  view = make(rest);
  main.replaceChildren(view.element);
  document.title = `${view.title} · MIMI gateway console`;
  for (const link of navigation.querySelectorAll("a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (last) view.sample?.(last);
  if (moveFocus) {
    main.querySelector("h1")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

let last = null;

function onSample(sample) {
  last = sample;
  setText(version, sample.version);
  showHealth(sample.isReady);
  view?.sample?.(sample);
}

function onState(state) {
  clearInterval(countdown);
  connection.hidden = false;
  const isLost = state.kind === "lost";
  connection.className = `pill ${state.kind === "live" ? "live" : isLost ? "bad" : ""}`;
  setText(connection, { live: "Live", lost: "Not live", connecting: "Connecting", refused: "Not live" }[state.kind]);
  if (state.kind === "refused") return refused(state.error);
  document.body.classList.toggle("stale", isLost || (state.kind === "connecting" && document.body.classList.contains("stale")));
  if (state.kind === "live") {
    if (!notice.hidden) announce("The connection is back.");
    notice.hidden = true;
    notice.replaceChildren();
  }
  if (isLost) {
    const seconds = el("span", { class: "tabular" });
    const left = () => setText(seconds, `${Math.max(0, Math.ceil((state.until - Date.now()) / 1000))} s`);
    left();
    countdown = setInterval(left, 250);
    if (notice.hidden) announce(`The connection is lost: ${state.reason} It is opened again in a moment.`);
    // A retry that has the focus keeps it.
    const hadFocus = notice.contains(document.activeElement);
    const retry = el("button", { type: "button", onclick: () => feed?.tryNow() }, "Try now");
    notice.replaceChildren(el("p", {}, el("strong", {}, "Connection lost. "), `${state.reason} What is shown is old. Next try in `, seconds, "."), retry);
    notice.hidden = false;
    if (hadFocus) retry.focus();
    checkHealth();
  }
}

async function checkHealth() {
  const { isReady, reason } = await readiness();
  showHealth(isReady, reason);
}

function leave() {
  feed?.stop();
  view?.stop?.();
  clearInterval(countdown);
  feed = view = last = null;
  forget();
  navigation.hidden = signOut.hidden = notice.hidden = connection.hidden = true;
  document.body.classList.remove("stale");
}

function refused(error) {
  leave();
  signIn(error.status === 403 ? "This token does not allow reading." : "The gateway no longer accepts the token. Sign in with another one.");
}

function enter() {
  navigation.replaceChildren(el("ul", {}, VIEWS.map(([name, title]) => el("li", {}, el("a", { href: `#/${name}`, "data-view": name }, title)))));
  navigation.hidden = signOut.hidden = false;
  show(true);
  feed = watch(onSample, onState);
}

function signIn(message) {
  document.title = "Sign in · MIMI gateway console";
  checkHealth();
  const input = el("input", { id: "token", type: "password", required: true, autocomplete: "current-password", spellcheck: "false", autocapitalize: "none", "aria-describedby": "token-help token-error" });
  const forTab = el("input", { id: "for-tab", type: "checkbox" });
  const error = el("p", { id: "token-error", class: "error", role: "alert" }, message ?? "");
  const button = el("button", { type: "submit", class: "primary" }, "Sign in");
  const form = el("form", { class: "sign-in card", onsubmit: async (event) => {
    event.preventDefault();
    const given = input.value.trim();
    button.disabled = true;
    error.textContent = "";
    try {
      if (!/^[\x21-\x7e]+$/.test(given)) throw Object.assign(new Error(), { status: 401 });
      await ask("/applications", { given });
      keep(given, forTab.checked);
      enter();
    } catch (problem) {
      error.textContent = problem.status === 401 ? "The gateway does not accept this token." : `${problem.message} Try again.`;
      input.setAttribute("aria-invalid", "true");
      input.select();
      input.focus();
    }
    button.disabled = false;
  } },
    el("h1", { tabindex: "-1" }, "Sign in"),
    el("p", { class: "field-help" }, "The console shows what the gateway does, and needs a token of an operator. A token for reading is enough."),
    // For password managers, which keep tokens under a name.
    el("input", { type: "text", name: "username", autocomplete: "username", value: "operator", hidden: true, "aria-label": "Name" }),
    el("div", { class: "field" },
      el("label", { for: "token" }, "Token of an operator"), input,
      el("p", { id: "token-help", class: "note" }, "The first start without a configuration prints one after “operator token”.")),
    error,
    el("div", { class: "check" }, forTab, el("label", { for: "for-tab" }, "Keep it until this tab is closed")),
    button);
  main.replaceChildren(form);
  input.focus();
}

signOut.addEventListener("click", () => {
  leave();
  signIn();
  announce("Signed out.");
});
document.addEventListener("token-refused", (event) => refused(event.detail));
addEventListener("hashchange", () => { if (feed && location.hash !== "#main") show(true); });
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

if (recall()) enter();
else signIn();
