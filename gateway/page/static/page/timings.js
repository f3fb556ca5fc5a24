// Where the time went, as a bar and as a list: both say the same.
import { make } from "./dom.js";

// Triton's own means are parts of `triton`, not steps beside it.
const STEPS = { queue: "waiting", decode: "decoding", letterbox: "letterbox", triton: "Triton", nms: "NMS", annotate: "drawing" };

export function timingsOf(run) {
  const { timings_ms: timings } = run.result;
  const parts = Object.keys(STEPS).filter((name) => name in timings).map((name) => [STEPS[name], timings[name]]);
  const between = timings.total - parts.reduce((sum, [, milliseconds]) => sum + milliseconds, 0);
  const way = run.roundTrip - timings.total;
  return [...parts, ["other", Math.max(between, 0)], ["network and browser", Math.max(way, 0)]];
}

export function bar(run) {
  const parts = timingsOf(run);
  const all = parts.reduce((sum, [, milliseconds]) => sum + milliseconds, 0) || 1;
  const pieces = parts.map(([, milliseconds], index) => {
    const piece = make("span", { className: `piece piece-${index}` });
    piece.style.flexGrow = milliseconds / all;
    return piece;
  });
  const items = parts.map(([name, milliseconds], index) =>
    make("li", {}, make("span", { className: `swatch piece-${index}` }), `${name} `, make("b", {}, `${shown(milliseconds)} ms`)),
  );
  return [make("div", { className: "bar-of-time", "aria-hidden": "true" }, ...pieces), make("ul", { className: "times" }, ...items)];
}

const shown = (milliseconds) => (milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds));
