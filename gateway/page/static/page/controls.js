// The settings aside: those that filter here, and those that ask anew.
import { FLOOR } from "./choices.js";
import { Classes } from "./classes.js";
import { byId, debounced, make } from "./dom.js";
import { counted, doubts } from "./filter.js";

export class Controls {
  // `changed` is called with the settings that are new.
  constructor(changed) {
    this.changed = changed;
    this.classes = new Classes(byId("classes"), (hidden) => changed({ hidden }));
    byId("all-classes").onclick = () => this.classes.all(true);
    byId("no-classes").onclick = () => this.classes.all(false);
    byId("conf").min = byId("conf-number").min = FLOOR;
    for (const id of ["conf", "conf-number"]) this.#number(id, "input", (conf) => changed({ conf }));
    this.#number("max-det", "input", (maxDet) => changed({ maxDet: Math.round(maxDet) }));
    this.#number("iou", "change", debounced(250, (iou) => changed({ iou })));
    byId("iou").addEventListener("input", () => (byId("iou-value").textContent = Number(byId("iou").value).toFixed(2)));
    byId("agnostic").onchange = (event) => changed({ agnostic: event.target.checked });
    byId("model").onchange = (event) => changed({ model: event.target.value });
    byId("compare").onchange = (event) => changed({ compare: event.target.value });
    this.says = debounced(50, (lines) => byId("doubts").replaceChildren(...lines.map((line) => make("li", {}, line))));
  }

  show(choices, results) {
    put("conf", choices.conf);
    put("conf-number", choices.conf);
    put("max-det", choices.maxDet);
    put("iou", choices.iou);
    byId("iou-value").textContent = choices.iou.toFixed(2);
    byId("agnostic").checked = choices.agnostic;
    for (const name of ["model", "compare"]) select(byId(name), choices[name]);
    const classes = counted(results, choices);
    this.classes.show(classes, choices.hidden);
    byId("classes-none").hidden = classes.length > 0;
    this.says([...new Set(results.flatMap((result) => doubts(result, choices)))]);
    histogram(byId("histogram"), results, choices);
  }

  // The choices of model; the first of each select stays.
  offer(listing) {
    const values = listing.models.flatMap(valuesOf);
    for (const name of ["model", "compare"]) {
      const chosen = byId(name).value;
      byId(name).replaceChildren(byId(name).options[0], ...values.map((value) => make("option", { value }, value)));
      select(byId(name), chosen);
    }
    byId("model").options[0].textContent = `Default (${listing.default})`;
  }

  #number(id, event, use) {
    byId(id).addEventListener(event, ({ target }) => {
      if (target.value !== "" && target.validity.valid) use(Number(target.value));
    });
  }
}

function valuesOf({ name, versions }) {
  const ready = versions.filter(({ state }) => state === "READY").map(({ version }) => version);
  return ready.length > 1 ? [name, ...ready.map((version) => `${name}/${version}`)] : [name];
}

function put(id, value) {
  const input = byId(id);
  if (Number(input.value) !== value && input !== document.activeElement) input.value = value;
}

// Also a model that a link names and that nobody has listed yet.
function select(list, value) {
  if (![...list.options].some((option) => option.value === value)) list.append(make("option", { value }, value));
  list.value = value;
}

const BINS = 48;

// How many boxes each score has: where a threshold would cut. On a scale of roots, so that one box is seen beside 300.
function histogram(canvas, results, choices) {
  const bins = new Array(BINS).fill(0);
  for (const { score } of results.flatMap((result) => result.detections)) bins[Math.min(BINS - 1, Math.floor(score * BINS))] += 1;
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  Object.assign(canvas, { width: width * dense, height: height * dense });
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  const style = getComputedStyle(canvas);
  const most = Math.sqrt(Math.max(...bins, 1));
  bins.forEach((count, index) => {
    const tall = count ? Math.max(2, (Math.sqrt(count) / most) * height) : 0;
    context.fillStyle = (index + 1) / BINS > choices.conf ? style.getPropertyValue("--accent") : style.getPropertyValue("--line");
    context.fillRect((index * width) / BINS, height - tall, width / BINS - 1, tall);
  });
}
