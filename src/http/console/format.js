// Numbers and times as text.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);

/** A number that the gateway counts up to a bound. */
export const bounded = ({ count: number, isMore }) => (isMore ? `more than ${whole.format(number)}` : whole.format(number));

/** A rate: one digit after the point below 100. */
export function rate(number) {
  return number >= 100 ? whole.format(number) : number === 0 ? "0" : tenths.format(number);
}

export function milliseconds(number) {
  if (number >= 1000) return `${tenths.format(number / 1000)} s`;
  return `${number >= 100 ? whole.format(number) : number >= 10 ? tenths.format(number) : number.toFixed(2)} ms`;
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let place = 0;
  while (number >= 1000 && place < units.length - 1) {
    number /= 1000;
    place += 1;
  }
  return `${place === 0 || number >= 100 ? whole.format(number) : tenths.format(number)} ${units[place]}`;
}

/** A time span in its largest unit, or its two largest. */
export function span(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export const ago = (at, now) => (now - at < 1000 ? "just now" : `${span(now - at)} ago`);

/** A moment: in UTC, as the gateway's log has it. */
export function moment(at) {
  return new Date(at).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

/** The time of day of a moment, in UTC, with milliseconds. */
export const timeOfDay = (at) => new Date(at).toISOString().slice(11, 23);

const SUITES = {
  1: "X25519, AES-128-GCM, Ed25519",
  2: "P-256, AES-128-GCM",
  3: "X25519, ChaCha20-Poly1305, Ed25519",
  4: "X448, AES-256-GCM, Ed448",
  5: "P-521, AES-256-GCM",
  6: "X448, ChaCha20-Poly1305, Ed448",
  7: "P-384, AES-256-GCM",
};

/** A cipher suite (RFC 9420, section 17.1). */
export const suite = (number) => (SUITES[number] ? `${number}: ${SUITES[number]}` : String(number));

/** The beginning of an application's id, which tells applications apart. */
export const short = (text) => text.slice(0, 8);
