// The settings in force: what the service is asked with, what is filtered here, and the link that carries both.
import { facts } from "./facts.js";

// Asked once as low and as many as this; higher and fewer are filtered in the browser.
export const FLOOR = Math.min(0.01, facts.confidence);
export const MOST = 1000;

export function defaults() {
  const { confidence: conf, iou, maxDetections: maxDet } = facts;
  return { model: "", compare: "", conf, iou, maxDet, agnostic: false, hidden: new Set() };
}

// A model as the page names it: `name`, or `name/version`.
const parts = (model) => model.split("/");

function common(choices, model) {
  const query = new URLSearchParams();
  const [name, version] = parts(model);
  if (name) query.set("model", name);
  if (version) query.set("version", version);
  query.set("iou", choices.iou);
  if (choices.agnostic) query.set("agnostic_nms", "true");
  return query;
}

// What a run is asked with; two that are equal have one answer.
export function asked(choices, model) {
  const query = common(choices, model);
  query.set("conf", FLOOR);
  query.set("max_det", MOST);
  return query.toString();
}

// The request that gives what is shown. `labels` are all those of the model.
export function inForce(choices, labels) {
  const query = common(choices, choices.model);
  query.set("conf", choices.conf);
  query.set("max_det", choices.maxDet);
  const wanted = labels.filter((label) => !choices.hidden.has(label));
  if (wanted.length < labels.length && wanted.length) query.set("classes", listed(wanted));
  return query;
}

function listed(labels) {
  const plain = labels.every((label) => /^[\p{L}_][\p{L}\p{N}_ -]*$/u.test(label));
  return plain ? labels.join(",") : JSON.stringify(labels);
}

// Settings only, behind the #: not even this service gets to see them.
export function toHash(choices) {
  const start = defaults();
  const query = new URLSearchParams();
  for (const name of ["model", "compare", "conf", "iou", "maxDet", "agnostic"]) {
    if (choices[name] !== start[name]) query.set(name, choices[name]);
  }
  for (const label of [...choices.hidden].sort()) query.append("hide", label);
  return query.size ? `#${query}` : "";
}

export function fromHash(hash) {
  const query = new URLSearchParams(hash.slice(1));
  const choices = defaults();
  const number = (name, least, most) => {
    const value = Number(query.get(name) || NaN);
    if (value >= least && value <= most) choices[name] = value;
  };
  number("conf", FLOOR, 1);
  number("iou", 0, 1);
  number("maxDet", 1, MOST);
  choices.maxDet = Math.round(choices.maxDet);
  choices.model = query.get("model") ?? "";
  choices.compare = query.get("compare") ?? "";
  choices.agnostic = query.get("agnostic") === "true";
  choices.hidden = new Set(query.getAll("hide"));
  return choices;
}
