// The operator's token, and requests with it. The token is in memory, and in the tab's session storage if the operator wants
// that; it is in no URL, no cookie and no local storage.

const KEPT_AS = "mimi-gateway-operator-token";
/** The gateway writes at least every 12 s. */
const SILENCE_MS = 30_000;
const PAUSES_MS = [1000, 2000, 4000, 8000, 15_000, 30_000];
const BLOCK_CHARS_MAX = 4 << 20;

let token = null;

/** A request that was not answered as it should be. `status` is 0 if there was no answer at all. */
export class Refused extends Error {
  constructor(status, title, detail, requestId) {
    super(detail || title);
    Object.assign(this, { status, title, detail, requestId });
  }
}

export function keep(given, forTheTab) {
  token = given;
  try {
    if (forTheTab) sessionStorage.setItem(KEPT_AS, given);
    else sessionStorage.removeItem(KEPT_AS);
  } catch {
    // Storage is turned off: the token is in memory alone.
  }
}

export function recall() {
  try {
    token = sessionStorage.getItem(KEPT_AS);
  } catch {
    token = null;
  }
  return token !== null;
}

export function forget() {
  keep(null, false);
}

async function send(path, signal, given = token) {
  let response;
  try {
    response = await fetch(path, {
      headers: given === null ? {} : { Authorization: `Bearer ${given}` },
      cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer", signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "No answer", "The gateway cannot be reached.");
  }
  if (response.ok) return response;
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Something in front of the gateway answered.
  }
  throw new Refused(response.status, problem.title ?? `Status ${response.status}`, problem.detail ?? "", problem.requestId);
}

/** The JSON of an answer under `/operator/v1`. */
export async function ask(path, { signal, given } = {}) {
  return (await send(`/operator/v1${path}`, signal, given)).json();
}

/** Whether `/readyz` succeeds; it needs no token. */
export async function readiness() {
  try {
    await send("/readyz", undefined, null);
    return { isReady: true };
  } catch (error) {
    return { isReady: false, reason: error.detail || error.message };
  }
}

/**
 * Reads samples until `stop` is called: `onSample(sample)` for each, `onState(state)` when the connection changes. A lost
 * connection is opened again after pauses that grow.
 */
export function watch(onSample, onState) {
  let stopped = false;
  let failures = 0;
  let current = null;
  let wake = null;

  async function readOnce() {
    current = new AbortController();
    let silence = setTimeout(() => current.abort(), SILENCE_MS);
    try {
      const response = await send("/operator/v1/activity", current.signal);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        text += value;
        let end;
        while ((end = text.indexOf("\n\n")) >= 0) {
          // A stream that is kept alive without samples is as good as lost.
          if (take(text.slice(0, end))) {
            clearTimeout(silence);
            silence = setTimeout(() => current.abort(), SILENCE_MS);
          }
          text = text.slice(end + 2);
        }
        if (text.length > BLOCK_CHARS_MAX) throw new Refused(0, "Not a stream of a gateway", "");
      }
    } finally {
      clearTimeout(silence);
      current.abort();
    }
  }

  function take(block) {
    const fields = block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]);
    const data = fields.filter(([name]) => name === "data").map(([, value]) => value).join("\n");
    if (stopped || !fields.some(([name, value]) => name === "event" && value === "sample")) return false;
    if (failures >= 0) onState({ kind: "live" });
    failures = -1;
    onSample(JSON.parse(data));
    return true;
  }

  async function run() {
    while (!stopped) {
      let reason = "The connection was closed.";
      try {
        await readOnce();
      } catch (error) {
        if (stopped) return;
        if (error instanceof Refused) {
          if (error.status === 401 || error.status === 403) return onState({ kind: "refused", error });
          reason = error.message;
        }
      }
      if (stopped) return;
      failures = Math.max(failures, 0) + 1;
      const pause = PAUSES_MS[Math.min(failures, PAUSES_MS.length) - 1];
      onState({ kind: "lost", reason, until: Date.now() + pause });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        wake = () => { clearTimeout(timer); resolve(); };
      });
      if (!stopped) onState({ kind: "connecting" });
    }
  }

  onState({ kind: "connecting" });
  run();
  return {
    stop() { stopped = true; current?.abort(); wake?.(); },
    tryNow() { wake?.(); },
  };
}
