// Small line charts of the last minutes. They repeat what the numbers beside them say, so screen readers skip them.

import { svg } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 44;
const POINTS = 60;

/** A chart of one or two series; `push` adds a value for each, `null` for none. */
export function spark(classes) {
  const series = classes.map((name) => ({
    values: [],
    line: svg("polyline", { class: `line ${name}` }),
    area: svg("polygon", { class: `area ${name}` }),
  }));
  const element = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }),
    series.map(({ area }) => area), series.map(({ line }) => line));

  function draw() {
    const all = series.flatMap(({ values }) => values.filter((value) => value !== null));
    const top = Math.max(1e-9, ...all);
    for (const { values, line, area } of series) {
      const first = POINTS - values.length;
      const points = values
        .map((value, place) => value === null ? null : [((first + place) / (POINTS - 1)) * WIDTH, HEIGHT - 2 - (value / top) * (HEIGHT - 5)])
        .filter(Boolean);
      const text = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
      line.setAttribute("points", text);
      const closed = points.length > 1 ? `${points[0][0].toFixed(1)},${HEIGHT - 1} ${text} ${points.at(-1)[0].toFixed(1)},${HEIGHT - 1}` : "";
      area.setAttribute("points", closed);
    }
  }

  return {
    element,
    push(...values) {
      series.forEach((one, place) => {
        one.values.push(values[place] ?? null);
        if (one.values.length > POINTS) one.values.shift();
      });
      draw();
    },
  };
}

/** A bar for a part of a whole, beside the number that it shows. */
export function bar(part, kind = "") {
  const width = Math.max(0, Math.min(1, part)) * 100;
  return svg("svg", { class: `bar-chart ${kind}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    svg("rect", { class: "bar-back", width: 100, height: 6 }), svg("rect", { class: "bar-part", width: width.toFixed(1), height: 6 }));
}
