// The bar at the top: whether the service is ready, and the key.
import { Problem, ask, models, setKey } from "./api.js";
import { byId, debounced } from "./dom.js";
import { facts } from "./facts.js";

const SOON = 5_000;
const LATER = 15_000;

// Looks whether the service is ready: until it is, when `came` is called, and again while tasks take long.
export class Readiness {
  constructor(came, busy) {
    Object.assign(this, { came, busy, timer: 0, state: "" });
    this.#look();
  }

  // A task has begun: should it take long, the reason may be here.
  wake() {
    this.timer ||= setTimeout(() => this.#look(), LATER);
  }

  async #look() {
    const before = this.state;
    if (!document.hidden) await this.#ask();
    const isReady = this.state === "ready";
    this.timer = isReady && !this.busy() ? 0 : setTimeout(() => this.#look(), isReady ? LATER : SOON);
    if (isReady && before !== "ready") this.came();
  }

  async #ask() {
    const failed = (error) => (error instanceof Problem ? "not ready" : "unreachable");
    this.state = await ask("/status").then(() => "ready", failed);
    byId("ready").textContent = this.state;
    byId("ready").dataset.state = this.state;
  }
}

// Asks for the key where the service does; `used` is called once one was given.
export function keyed(used) {
  byId("key-box").hidden = !facts.needsKey;
  byId("key-box").open = facts.needsKey;
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    byId("key-box").open = false;
  };
  const entered = debounced(400, used);
  byId("key").oninput = (event) => {
    setKey(event.target.value);
    if (event.target.value) entered();
  };
}

export async function listModels(offer) {
  if (!hasKey()) return;
  byId("models-say").textContent = "";
  try {
    offer(await models());
  } catch (error) {
    byId("models-say").textContent = error.message;
  }
}

const hasKey = () => !facts.needsKey || byId("key").value !== "";
