// Puts the parts together: pictures, the runs that they need, and what is shown of them.
import { plainPicture } from "./api.js";
import * as camera from "./camera.js";
import { asked, fromHash, toHash } from "./choices.js";
import { Controls } from "./controls.js";
import { byId, debounced, plural } from "./dom.js";
import { filtered } from "./filter.js";
import { Readiness, keyed, listModels } from "./head.js";
import * as intake from "./intake.js";
import { annotated } from "./overlay.js";
import { Pane } from "./pane.js";
import { Pool, Run } from "./run.js";
import { Strip } from "./strip.js";
import { TakeAway } from "./takeaway.js";
import { upright } from "./upright.js";

const AT_A_TIME = 3;

class App {
  constructor() {
    Object.assign(this, { choices: fromHash(location.hash), items: [], current: null, labels: new Map(), frame: 0 });
    this.pool = new Pool(AT_A_TIME);
    const actions = {
      cancel: (run) => run.cancel(),
      again: (run) => this.#again(run),
      remove: (item) => this.remove(item),
      asJpeg: (run, image) => this.#asJpeg(run, image),
      plain: (run) => this.#plain(run),
    };
    this.panes = [new Pane(actions), new Pane(actions)];
    this.panes[1].stage.view.listeners.add(() => this.#follow(1, 0));
    this.panes[0].stage.view.listeners.add(() => this.#follow(0, 1));
    byId("panes").append(...this.panes.map((pane) => pane.element));
    this.controls = new Controls((change) => this.change(change));
    this.takeaway = new TakeAway(() => this.#now());
    this.strip = new Strip((item) => this.select(item), (item) => this.remove(item));
    this.remember = debounced(300, () => history.replaceState(null, "", toHash(this.choices) || location.pathname));
    window.addEventListener("hashchange", () => this.change(fromHash(location.hash)));
  }

  async add(files) {
    const added = await Promise.all(files.map(itemOf));
    if (!added.length) return;
    this.items.push(...added);
    this.select(added[0]);
    for (const item of added) this.#ask(item);
  }

  select(item) {
    this.current = item;
    this.#ask(item);
    this.update();
  }

  remove(item) {
    const at = this.items.indexOf(item);
    this.items.splice(at, 1);
    for (const run of item.runs.values()) run.forget();
    URL.revokeObjectURL(item.url);
    if (item === this.current) this.current = this.items[Math.min(at, this.items.length - 1)] ?? null;
    if (this.current) this.#ask(this.current);
    this.update();
  }

  change(change) {
    Object.assign(this.choices, change);
    this.remember();
    for (const item of this.items) this.#ask(item, item === this.current);
    this.update();
  }

  busy() {
    return this.items.some((item) => [...item.runs.values()].some((run) => run.open));
  }

  offer(listing) {
    this.labels = new Map(listing.models.map(({ name, labels }) => [name, labels]));
    this.defaultModel = listing.default;
    this.controls.offer(listing);
    this.update();
  }

  keyGiven() {
    for (const item of this.items) {
      for (const run of [...item.runs.values()]) if (run.problem?.status === 401) this.#again(run);
    }
  }

  update() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#show();
    });
  }

  #models() {
    return this.choices.compare ? [this.choices.model, this.choices.compare] : [this.choices.model];
  }

  // The runs that the settings need: made where `need` says so, and those that they no longer need are withdrawn.
  #ask(item, need = true) {
    const wanted = new Set(this.#models().map((model) => asked(this.choices, model)));
    for (const [query, run] of item.runs) {
      if (wanted.has(query) || !run.open) continue;
      item.runs.delete(query);
      run.cancel();
      need = true;
    }
    if (need) for (const query of wanted) if (!item.runs.has(query)) this.#run(item, query);
  }

  #run(item, query) {
    const run = new Run(item, query, () => this.update());
    item.runs.set(query, run);
    this.pool.add(run);
    this.readiness?.wake();
  }

  #again(run) {
    this.#run(run.picture, run.query);
    this.update();
  }

  // A type that this browser draws and the service does not read.
  async #asJpeg(run, image) {
    const item = run.picture;
    item.blob = await annotated(image, { width: image.naturalWidth, height: image.naturalHeight }, []);
    this.#again(run);
  }

  // The service draws what this browser cannot.
  async #plain(run) {
    const item = run.picture;
    if (item.isAsked) return;
    item.isAsked = true;
    const blob = await plainPicture(item).catch(() => null);
    if (!blob || !this.items.includes(item)) return;
    URL.revokeObjectURL(item.url);
    item.url = URL.createObjectURL(blob);
    this.update();
  }

  #runsOf(item) {
    return this.#models().map((model) => item.runs.get(asked(this.choices, model)));
  }

  #now() {
    const { current: item, choices } = this;
    return { item, choices, run: item && this.#runsOf(item)[0], image: this.panes[0].stage.image };
  }

  #show() {
    byId("work").hidden = !this.current;
    byId("intake").classList.toggle("is-compact", Boolean(this.current));
    this.strip.show(this.items, this.current, (item) => this.#stateOf(item));
    const runs = this.current ? this.#runsOf(this.current) : [];
    byId("panes").classList.toggle("is-double", runs.length > 1);
    this.panes.forEach((pane, index) => {
      pane.element.hidden = !runs[index];
      if (runs[index]) pane.show(this.current, runs[index], this.choices);
    });
    const results = runs.map((run) => run.result).filter(Boolean);
    this.controls.show(this.choices, results);
    this.takeaway.show(this.choices, this.#labels(results[0]));
  }

  #labels(result) {
    const name = this.choices.model.split("/")[0] || this.defaultModel;
    return this.labels.get(name) ?? [...new Set(result?.detections.map((each) => each.label))];
  }

  #stateOf(item) {
    const runs = this.#runsOf(item).filter(Boolean);
    if (!runs.length) return "other settings";
    if (runs.some((run) => run.phase === "failed")) return "failed";
    if (runs.some((run) => run.phase === "canceled")) return "canceled";
    if (runs.some((run) => run.open)) return runs.some((run) => run.phase !== "waiting") ? "…" : "waits";
    return plural(filtered(runs[0].result, this.choices).length, "box", "boxes");
  }

  // Two pictures side by side move as one.
  #follow(from, to) {
    const [a, b] = [this.panes[from].stage.view, this.panes[to].stage.view];
    if (!this.choices.compare || (a.x === b.x && a.y === b.y && a.scale === b.scale)) return;
    Object.assign(b, { x: a.x, y: a.y, scale: a.scale, fitted: a.fitted });
    this.panes[to].stage.redraw();
  }
}

async function itemOf(file) {
  return { name: file.name, blob: file, url: URL.createObjectURL(await upright(file)), runs: new Map() };
}

const app = new App();
intake.listen((files) => app.add(files));
camera.listen((files) => app.add(files));
const list = () => listModels((listing) => app.offer(listing));
keyed(() => {
  list();
  app.keyGiven();
});
app.readiness = new Readiness(list, () => app.busy());
app.update();
