// Views that load: while they do, when they fail, and page by page.

import { el } from "./dom.js";
import { Refused } from "./session.js";

function failure(error, again) {
  const isKnown = error instanceof Refused;
  return el("div", { class: "failure", role: "alert" },
    el("p", { class: "empty-title" }, isKnown ? error.title : "The console has failed"),
    el("p", {}, isKnown ? error.detail : String(error)),
    isKnown && error.requestId ? el("p", { class: "note" }, "Request ", el("code", {}, error.requestId), " in the log") : null,
    el("button", { type: "button", onclick: again }, "Try again"));
}

function loading() {
  return el("div", { class: "loading", "aria-hidden": "true" }, el("span"), el("span"), el("span"));
}

/** Reports a refused token to the console, which asks for another. */
function isRefused(error, element) {
  const isIt = error instanceof Refused && (error.status === 401 || error.status === 403);
  if (isIt) element.dispatchEvent(new CustomEvent("token-refused", { bubbles: true, detail: error }));
  return isIt;
}

/**
 * A view whose content `load(signal)` fetches. With `every`, it is fetched anew after so many samples, unless the keyboard is in
 * it or the last try failed.
 */
export function loaded(title, load, { every = 0, heading = title } = {}) {
  const body = el("div", { class: "view-body" });
  const element = el("div", {}, el("h1", { tabindex: "-1" }, heading), body);
  const control = new AbortController();
  let samples = 0;
  let isIdle = true;

  async function run(isQuiet) {
    isIdle = false;
    if (!isQuiet) {
      body.setAttribute("aria-busy", "true");
      body.replaceChildren(loading());
    }
    try {
      const content = await load(control.signal);
      body.replaceChildren(...[content].flat().filter(Boolean));
      isIdle = true;
    } catch (error) {
      if (control.signal.aborted || isRefused(error, element)) return;
      body.replaceChildren(failure(error, () => run(false)));
    }
    body.removeAttribute("aria-busy");
  }

  run(false);
  return {
    title,
    element,
    stop: () => control.abort(),
    sample() {
      samples += 1;
      const isInUse = body.contains(document.activeElement);
      if (every > 0 && samples % every === 0 && isIdle && !isInUse) run(true);
    },
  };
}

/** A list in pages: `load(cursor, signal)` answers the content of a page, and the cursor of the next one. */
export function pages(load, what) {
  const card = el("div", { class: "card" });
  const before = [];
  let cursor;

  async function show(focus) {
    card.setAttribute("aria-busy", "true");
    if (!card.hasChildNodes()) card.append(loading());
    try {
      const { content, next } = await load(cursor);
      // Both are disabled until the page is there: a second press would be one of the page after it.
      const turn = (move, focused) => {
        [back, on].forEach((button) => { button.disabled = true; });
        move();
        show(focused);
      };
      const back = el("button", { type: "button", disabled: before.length === 0, onclick: () => turn(() => { cursor = before.pop(); }, "back") }, "Previous page");
      const on = el("button", { type: "button", disabled: next === undefined, onclick: () => turn(() => { before.push(cursor); cursor = next; }, "on") }, "Next page");
      const number = el("p", { class: "note", role: "status" }, `Page ${before.length + 1} of ${what}`);
      const hasPages = before.length > 0 || next !== undefined;
      card.replaceChildren(content, ...(hasPages ? [el("div", { class: "pager" }, back, number, on)] : []));
      if (focus) [on, back].find((button) => !button.disabled)?.focus();
      if (focus === "back" && !back.disabled) back.focus();
    } catch (error) {
      if (!isRefused(error, card)) card.replaceChildren(failure(error, () => show()));
    }
    card.removeAttribute("aria-busy");
  }

  show();
  return card;
}
