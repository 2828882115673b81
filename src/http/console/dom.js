// Elements. Whatever comes from the gateway becomes text or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** An HTML element with attributes, listeners (`onclick`) and children. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Changes a text, if it is another one, so that nothing is selected or read anew for no reason. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = String(text);
}

/** An identifier: as much of it as fits, whole in its title. */
export function id(text, href) {
  const code = el("code", { class: "id", title: text }, text);
  return href ? el("a", { href, class: "id-link" }, code) : code;
}

/**
 * A table. A column has a `head`, a `cell` that makes the content for a row, and perhaps `number` (aligned to the right) or
 * `wide` (left out on small screens). The first column heads its row.
 */
export function table(caption, columns, rows) {
  const of = (column) => [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null;
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col", class: of(column) }, column.head)));
  const body = rows.map((row) =>
    el("tr", {}, columns.map((column, place) =>
      place === 0 ? el("th", { scope: "row", class: of(column) }, column.cell(row)) : el("td", { class: of(column) }, column.cell(row)))));
  return el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, head), el("tbody", {}, body)));
}

/** A list of facts: pairs of a name and its content. */
export function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, content]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, content))));
}

/** A text for when there is nothing to show. */
export function empty(title, text) {
  return el("div", { class: "empty" }, el("p", { class: "empty-title" }, title), text ? el("p", {}, text) : null);
}

export function badge(kind, text) {
  return el("span", { class: `badge ${kind}` }, text);
}
