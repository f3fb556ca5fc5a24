// A switch for each class of the answers, with the boxes that it has.
import { make } from "./dom.js";
import { colourOf } from "./facts.js";

export class Classes {
  constructor(list, changed) {
    Object.assign(this, { list, changed, rows: new Map() });
    list.addEventListener("change", () => this.changed(this.#hidden()));
  }

  show(classes, hidden) {
    const kept = new Map(classes.map((each) => [each.label, this.rows.get(each.label) ?? rowOf(each)]));
    const order = [...kept.values()];
    const focused = document.activeElement;
    if (order.some((row, index) => this.list.children[index] !== row.element) || this.list.children.length !== order.length) {
      this.list.replaceChildren(...order.map((row) => row.element));
      if (this.list.contains(focused)) focused.focus();
    }
    this.rows = kept;
    for (const { label, count } of classes) {
      const row = kept.get(label);
      row.box.checked = !hidden.has(label);
      row.count.textContent = count;
      row.element.classList.toggle("is-none", !count);
    }
  }

  all(shown) {
    this.changed(shown ? new Set() : new Set(this.rows.keys()));
  }

  #hidden() {
    return new Set([...this.rows].filter(([, row]) => !row.box.checked).map(([label]) => label));
  }
}

function rowOf({ label, classId }) {
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = colourOf(classId).ground;
  const box = make("input", { type: "checkbox" });
  const count = make("span", { className: "count" });
  const name = make("span", { className: "class-name" }, label);
  return { element: make("li", {}, make("label", {}, box, swatch, name, count)), box, count };
}
