// The filmstrip: every picture of this visit, with how far it is.
import { byId, make } from "./dom.js";

export class Strip {
  constructor(select, remove) {
    Object.assign(this, { select, remove, tiles: new Map() });
  }

  show(items, current, stateOf) {
    const kept = new Map(items.map((item) => [item, this.tiles.get(item) ?? this.#tile(item)]));
    this.tiles = kept;
    const order = [...kept.values()].map((tile) => tile.element);
    const list = byId("strip");
    if (order.length !== list.children.length || order.some((each, index) => list.children[index] !== each)) list.replaceChildren(...order);
    list.hidden = items.length < 2;
    for (const [item, { button, image, state }] of kept) {
      if (image.src !== item.url) image.src = item.url;
      button.setAttribute("aria-current", item === current);
      state.textContent = stateOf(item);
    }
  }

  #tile(item) {
    const state = make("span", { className: "tile-state" });
    const image = make("img", { src: item.url, alt: "", width: 88, height: 60, decoding: "async" });
    image.onerror = () => image.classList.add("undrawn");
    image.onload = () => image.classList.remove("undrawn");
    const button = make("button", { type: "button", className: "tile", onclick: () => this.select(item) }, image);
    button.append(make("span", { className: "tile-name" }, item.name), state);
    const away = make("button", { type: "button", className: "away", "aria-label": `Remove ${item.name}`, title: "Remove" }, "×");
    away.onclick = () => this.remove(item);
    return { element: make("li", {}, button, away), button, image, state };
  }
}
