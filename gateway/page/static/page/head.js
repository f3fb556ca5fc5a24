// The bar at the top: whether the service is ready, and the key.
import { Problem, ask, models, setKey } from "./api.js";
import { byId, debounced } from "./dom.js";
import { facts } from "./facts.js";

const AGAIN_MILLISECONDS = 5_000;

export async function readiness() {
  if (document.hidden) return setTimeout(readiness, AGAIN_MILLISECONDS);
  const state = await ask("/readyz").then(() => "ready", (error) => (error instanceof Problem ? "not ready" : "unreachable"));
  byId("ready").textContent = state;
  byId("ready").dataset.state = state;
  if (state !== "ready") setTimeout(readiness, AGAIN_MILLISECONDS);
}

// The list of models, asked for until it comes; `offer` shows it, `used` is called once a key was given.
export function keyed(offer, used) {
  byId("key-box").hidden = !facts.needsKey;
  byId("key-box").open = facts.needsKey;
  const list = () => models().then(offer, (error) => (byId("models-say").textContent = error.message));
  const entered = debounced(400, () => {
    byId("models-say").textContent = "";
    list();
    used();
  });
  byId("key").oninput = (event) => {
    setKey(event.target.value);
    if (event.target.value) entered();
  };
  if (!facts.needsKey) list();
}
