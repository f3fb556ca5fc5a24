// The bar at the top: whether the service is ready, and the key.
import { Problem, ask, models, setKey } from "./api.js";
import { byId, debounced } from "./dom.js";
import { facts } from "./facts.js";

const AGAIN_MILLISECONDS = 5_000;

// `came` is called when the service is ready, which it need not be at first.
export async function readiness(came) {
  const again = () => setTimeout(readiness, AGAIN_MILLISECONDS, came);
  if (document.hidden) return again();
  const state = await ask("/readyz").then(() => "ready", (error) => (error instanceof Problem ? "not ready" : "unreachable"));
  byId("ready").textContent = state;
  byId("ready").dataset.state = state;
  if (state === "ready") came();
  else again();
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
