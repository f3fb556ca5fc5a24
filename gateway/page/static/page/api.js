// The requests of the page. The key is in this module's memory and nowhere else.
import { eventsOf } from "./sse.js";

let key = "";

export const setKey = (value) => (key = value.trim());

// What the service, or something on the way to it, refused.
export class Problem extends Error {
  constructor({ status, title, detail, code, request_id: requestId }, retryAfter = 0) {
    super(detail || title);
    Object.assign(this, { status, title, code, requestId, retryAfter });
  }
}

export class Offline extends Error {
  constructor() {
    super("the service cannot be reached");
  }
}

export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key) headers.set("X-API-Key", key);
  const answer = await reached(path, { ...options, headers });
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function reached(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new Offline();
  }
}

async function problemOf(answer) {
  const retryAfter = Number(answer.headers.get("retry-after")) || 0;
  const requestId = answer.headers.get("x-request-id") ?? "";
  const plain = { status: answer.status, title: `HTTP ${answer.status} ${answer.statusText}`, code: "", request_id: requestId };
  const told = (answer.headers.get("content-type") ?? "").includes("json") ? await answer.json().catch(() => ({})) : {};
  return new Problem({ ...plain, ...told, request_id: told.request_id || requestId }, retryAfter);
}

export async function submit(blob, name, query, once, signal) {
  const body = new FormData();
  body.append("image", blob, name);
  const answer = await ask(`/predict?${query}`, { method: "POST", body, signal, headers: { "Idempotency-Key": once } });
  return answer.json();
}

// Each state of the task as it comes. Ends early where the connection does.
export async function* follow(taskId, signal) {
  const answer = await ask(`/result/${taskId}/events`, { signal, headers: { Accept: "text/event-stream" } });
  try {
    for await (const event of eventsOf(answer.body)) if (event.type === "state") yield JSON.parse(event.data);
  } catch (error) {
    signal.throwIfAborted();
    throw new Offline();
  }
}

// The picture as the service draws it, upright and with no boxes: no score is above 1.
export async function plainPicture({ blob, name }) {
  const body = new FormData();
  body.append("image", blob, name);
  const task = await (await ask("/predict?conf=1&annotate=true&wait=30", { method: "POST", body })).json();
  return (await ask(`/result/${task.task_id}/image`)).blob();
}

export const cancel = (taskId) => ask(`/result/${taskId}`, { method: "DELETE" });

export const models = async () => (await ask("/models")).json();

// Random also where the page did not come over https, which crypto.randomUUID asks for.
export function onlyOnce() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
