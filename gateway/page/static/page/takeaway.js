// What can be taken along: the boxes that are shown as a file, the picture, the request that gives them, the link.
import { inForce } from "./choices.js";
import { announce, byId, make } from "./dom.js";
import { filtered } from "./filter.js";
import { coco, csv, yolo } from "./formats.js";
import { annotated } from "./overlay.js";
import { languages } from "./snippets.js";

const FORMS = { coco: [coco, "application/json", "json"], yolo: [yolo, "text/plain", "txt"], csv: [csv, "text/csv", "csv"] };

export class TakeAway {
  constructor(now) {
    this.now = now;
    this.language = "curl";
    for (const form of Object.keys(FORMS)) byId(`take-${form}`).onclick = () => this.#file(form);
    byId("take-picture").onclick = () => this.#picture();
    byId("copy-link").onclick = () => copy(location.href, "The link", byId("copy-link"));
    byId("copy-request").onclick = () => copy(byId("request").textContent, "The request", byId("copy-request"));
    const tabs = Object.keys(languages).map((name) => make("button", { type: "button", role: "tab", onclick: () => this.#speak(name) }, name));
    byId("languages").replaceChildren(...tabs);
    byId("languages").addEventListener("keydown", (event) => this.#key(event));
  }

  show(choices, labels) {
    this.query = inForce(choices, labels);
    this.#speak(this.language);
    const { run } = this.now();
    for (const each of document.querySelectorAll("#files button")) each.disabled = !run?.result;
  }

  #speak(language) {
    this.language = language;
    for (const tab of byId("languages").children) {
      const chosen = tab.textContent === language;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
    }
    const text = languages[language](this.query);
    if (byId("request").textContent !== text) byId("request").textContent = text; // a selection stays
  }

  #key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...byId("languages").children];
    const next = tabs.at((tabs.findIndex((tab) => tab.textContent === this.language) + step) % tabs.length);
    this.#speak(next.textContent);
    next.focus();
  }

  #file(form) {
    const { item, run, choices } = this.now();
    const [write, type, suffix] = FORMS[form];
    const text = write(run.task.task_id, run.result, filtered(run.result, choices));
    save(new Blob([text], { type }), `${stem(item.name)}.${suffix}`);
  }

  async #picture() {
    const { item, run, choices, image } = this.now();
    try {
      save(await annotated(image, run.result.image, filtered(run.result, choices)), `${stem(item.name)}-boxes.jpg`);
    } catch (error) {
      announce(error.message);
    }
  }
}

const stem = (name) => name.replace(/\.[^.]+$/, "") || "picture";

function save(blob, download) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

// Pages that did not come over https have no clipboard of the new kind: the text is selected for the old one.
async function copy(text, what, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text, className: "visually-hidden" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  announce(`${what} is copied.`);
  const before = button.textContent;
  if (before === "Copied") return;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = before), 1500);
}
