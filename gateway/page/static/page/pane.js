// One picture as one model sees it: the stage, how far the task is, where the time went, the table.
import { announce, make, plural } from "./dom.js";
import { counted, filtered } from "./filter.js";
import { Stage } from "./stage.js";
import { Table } from "./table.js";
import { bar } from "./timings.js";

export class Pane {
  // `actions` has cancel(run), again(run), remove(item), asJpeg(run, image) and plain(run)
  constructor(actions) {
    this.actions = actions;
    this.detections = [];
    this.title = make("h2", { className: "pane-title" });
    this.summary = make("p", { className: "summary faint" });
    this.stage = new Stage((each, byKey) => this.point(each, byKey, true));
    this.table = new Table((each) => this.point(each), (each) => this.stage.view.show(each.box));
    this.progress = make("div", { className: "progress", hidden: true });
    this.problem = make("div", { className: "problem", role: "alert", hidden: true });
    this.convert = make("button", { type: "button", hidden: true }, "Send it as JPEG");
    this.warnings = make("ul", { className: "warnings" });
    this.times = make("div", { className: "timing", hidden: true });
    const head = make("header", { className: "pane-head" }, make("div", {}, this.title, this.summary), this.#tools());
    this.frame = make("div", { className: "frame" }, this.stage.element, this.progress);
    const parts = [head, this.problem, this.frame, this.warnings, this.times, this.table.element];
    this.element = make("section", { className: "pane" }, ...parts);
  }

  async show(item, run, choices) {
    const model = run.result ? `${run.result.model.name} ${run.result.model.version}` : "";
    this.title.textContent = [item.name, model].filter(Boolean).join(" · ");
    this.#progress(run);
    this.#problem(run);
    this.#found(item, run, choices);
    if (run.phase !== "failed") this.frame.hidden = false;
    item.drawn = await this.stage.show(item, run.result?.image);
    if (this.run !== run) return;
    this.warnings.replaceChildren(...this.#warnings(item, run));
    this.frame.hidden = run.phase === "failed" && !item.drawn;
    this.convert.hidden = run.problem?.code !== "unsupported_image" || !item.drawn;
    if (run.result && !item.drawn) this.actions.plain(run);
  }

  point(each, byKey = false, fromStage = byKey) {
    this.stage.boxes(this.detections, each);
    this.table.mark(each, fromStage);
    if (each && byKey) announce(spoken(each));
  }

  #found(item, run, choices) {
    const isNew = this.run !== run || this.result !== run.result;
    Object.assign(this, { run, result: run.result });
    this.detections = run.result ? filtered(run.result, choices) : [];
    this.times.hidden = this.table.element.hidden = !run.result;
    this.summary.textContent = run.result ? summaryOf(run.result, this.detections) : "";
    const hot = this.detections.includes(this.stage.hot) ? this.stage.hot : null;
    this.stage.boxes(this.detections, hot);
    this.stage.describe(`${item.name}: ${this.summary.textContent || "no answer yet"}`);
    if (!run.result) return;
    this.table.show(run.result, this.detections, item.name);
    if (isNew) this.times.replaceChildren(...bar(run));
    const classes = counted([run.result], choices).filter(({ count }) => count);
    const named = classes.slice(0, 5).map(({ label, count }) => `${count} ${label}`);
    announce(`${item.name}: ${[this.summary.textContent, ...named].join(", ")}`);
  }

  #warnings(item, run) {
    const lines = [...(run.result?.warnings ?? [])];
    if (!item.drawn) lines.push("This browser cannot draw the file.");
    return lines.map((line) => make("li", {}, line));
  }

  #progress(run) {
    this.leaving = !run.open && this.progress.contains(document.activeElement);
    this.progress.hidden = !run.open;
    if (!run.open) return;
    const text = make("p", {}, make("b", {}, stateOf(run)), make("br"), outlookOf(run));
    const stop = make("button", { type: "button", onclick: () => this.actions.cancel(run) }, "Cancel");
    const focused = this.progress.contains(document.activeElement);
    this.progress.replaceChildren(make("div", { className: "runner", "aria-hidden": "true" }), text, stop);
    if (focused) stop.focus();
    announce(`${stateOf(run)} ${outlookOf(run)}`);
  }

  #problem(run) {
    const text = run.phase === "canceled" ? "Canceled." : run.phase === "failed" ? run.problem.message : "";
    if (this.problem.dataset.told === text && this.run === run) return;
    this.problem.dataset.told = text;
    this.problem.hidden = !text;
    if (!text) return this.problem.replaceChildren();
    const { title, code, requestId } = run.problem ?? {};
    const names = [code, requestId && `request ${requestId}`].filter(Boolean).join(" · ");
    const again = make("button", { type: "button", onclick: () => this.actions.again(run) }, "Try again");
    const lines = [title && make("b", {}, title), make("p", {}, text), names && make("p", { className: "names" }, names), again];
    this.convert.onclick = () => this.actions.asJpeg(run, this.stage.image);
    this.problem.replaceChildren(...lines.filter(Boolean), " ", this.convert);
    if (this.leaving) again.focus();
  }

  #tools() {
    const { view } = this.stage;
    const tool = (text, name, onclick) => make("button", { type: "button", className: "tool", "aria-label": name, title: name, onclick }, text);
    return make(
      "div",
      { className: "tools" },
      tool("−", "Zoom out", () => view.zoom(1 / 1.5)),
      tool("+", "Zoom in", () => view.zoom(1.5)),
      tool("Fit", "Fit the picture", () => view.reset()),
      tool("×", "Remove the picture", () => this.actions.remove(this.run.picture)),
    );
  }
}

function summaryOf(result, detections) {
  const all = result.detections.length;
  if (!all) return "no boxes found";
  return `${plural(detections.length, "box", "boxes")} shown of ${all} found`;
}

const spoken = ({ label, score, box }) =>
  `${label}, ${Math.round(score * 100)} percent, at ${Math.round(box.x1)}, ${Math.round(box.y1)} to ${Math.round(box.x2)}, ${Math.round(box.y2)}`;

const STATES = {
  waiting: "Waiting for its turn",
  sending: "Sending",
  paused: "Waiting",
  queued: "In the queue",
  started: "Being looked at",
  retrying: "Trying again: a worker was lost",
};
const stateOf = (run) => STATES[run.phase] ?? run.phase;

function outlookOf(run) {
  if (run.notice) return run.notice;
  const { position, ready_in_seconds: seconds } = run.task ?? {};
  if (position === undefined || run.phase === "started") return "";
  const place = position === 0 ? "next" : `${plural(position, "task")} before it`;
  return seconds === undefined ? place : `${place}, ready in about ${Math.max(1, Math.round(seconds))} s`;
}
