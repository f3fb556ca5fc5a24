// A result, and the settings that need no new request. NMS takes boxes best first, so a higher threshold afterwards
// keeps what it would have kept at once.
import { MOST } from "./choices.js";

export function filtered(result, choices) {
  const kept = result.detections.filter((each) => each.score > choices.conf && !choices.hidden.has(each.label));
  return kept.slice(0, choices.maxDet);
}

// Each class of the answer with the boxes it has above the threshold, most first.
export function counted(results, choices) {
  const classes = new Map();
  for (const each of results.flatMap((result) => result.detections)) {
    const known = classes.get(each.label) ?? { label: each.label, classId: each.class_id, count: 0 };
    known.count += each.score > choices.conf;
    classes.set(each.label, known);
  }
  return [...classes.values()].sort((a, b) => b.count - a.count || a.label.localeCompare(b.label));
}

// Why the service might answer otherwise to these very settings; empty where it cannot.
export function doubts(result, choices) {
  const found = [];
  const weakest = result.detections.at(-1)?.score ?? 0;
  if (result.detections.length >= MOST && weakest >= choices.conf) {
    found.push(`Cut: the service gives at most ${MOST} boxes (max_det), the weakest here has ${weakest}. Below it there may be more.`);
  }
  if (result.detections.some((each) => each.score === choices.conf)) {
    found.push(`A score equals the threshold to the four places it is given with: the service may count that box in or out.`);
  }
  if (choices.agnostic && choices.hidden.size) {
    found.push("Classes suppress each other (agnostic_nms): asked for these classes alone, the service may keep more boxes.");
  }
  return found;
}
