// All that the canvas says, as a table. A row is made once for each box; a filter only hides it.
import { make } from "./dom.js";
import { colourOf } from "./facts.js";

const HEADS = ["Class", "Score", "x1", "y1", "x2", "y2"];

export class Table {
  // `pointed` as for a Stage; `chosen` when a row is pressed.
  constructor(pointed, chosen) {
    Object.assign(this, { pointed, chosen, rows: new Map(), result: null, hot: null });
    this.caption = make("caption", { className: "visually-hidden" });
    this.body = make("tbody");
    const heads = HEADS.map((text, index) => make("th", { scope: "col", className: index ? "number" : "" }, text));
    const table = make("table", { className: "boxes" }, this.caption, make("thead", {}, make("tr", {}, ...heads)), this.body);
    this.empty = make("p", { className: "faint empty", hidden: true });
    this.element = make("div", { className: "table-box", tabIndex: 0, role: "region", "aria-label": "Boxes" }, table, this.empty);
    this.body.addEventListener("pointerover", (event) => this.pointed(this.#of(event.target)));
    this.element.addEventListener("pointerleave", () => this.pointed(null));
    this.body.addEventListener("focusin", (event) => this.pointed(this.#of(event.target)));
    this.body.addEventListener("click", (event) => this.#of(event.target) && this.chosen(this.#of(event.target)));
    this.body.addEventListener("keydown", (event) => this.#key(event));
  }

  show(result, detections, title) {
    if (this.result !== result) this.#fill(result);
    const shown = new Set(detections);
    for (const [each, row] of this.rows) row.hidden = !shown.has(each);
    this.#rove(detections.includes(this.hot) ? this.hot : detections[0]);
    this.caption.textContent = `Boxes in ${title}, best first, in pixels from the top left corner`;
    this.empty.hidden = detections.length > 0;
    this.empty.textContent = result.detections.length
      ? `No box above the threshold; ${result.detections.length} below it or of hidden classes.`
      : "The model found nothing here.";
  }

  mark(hot, scroll) {
    this.rows.get(this.hot)?.classList.remove("is-hot");
    this.hot = hot;
    const row = this.rows.get(hot);
    if (!row) return;
    row.classList.add("is-hot");
    if (scroll) this.element.scrollTop = row.offsetTop - this.element.clientHeight / 2;
  }

  #fill(result) {
    Object.assign(this, { result, hot: null, rows: new Map(result.detections.map((each) => [each, rowOf(each)])) });
    this.body.replaceChildren(...this.rows.values());
  }

  // One stop of the Tab key for all rows; the arrows go from row to row.
  #rove(to) {
    for (const row of this.rows.values()) row.tabIndex = -1;
    if (to) this.rows.get(to).tabIndex = 0;
  }

  #of(target) {
    const row = target.closest("tr");
    for (const [each, own] of this.rows) if (own === row) return each;
    return null;
  }

  #key(event) {
    const shown = [...this.rows].filter(([, row]) => !row.hidden);
    const at = shown.findIndex(([, row]) => row === event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this.chosen(shown[at][0]);
    else if (!shown[to]) return;
    else {
      this.#rove(shown[to][0]);
      shown[to][1].focus();
    }
    event.preventDefault();
  }
}

function rowOf({ label, class_id: classId, score, box }) {
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = colourOf(classId).ground;
  const number = (value, places) => make("td", { className: "number" }, value.toFixed(places));
  const name = make("th", { scope: "row" }, swatch, label);
  return make("tr", {}, name, number(score, 4), ...[box.x1, box.y1, box.x2, box.y2].map((side) => number(side, 1)));
}
