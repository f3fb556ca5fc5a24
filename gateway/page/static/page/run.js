// One picture and one model: from the upload to the end of the task.
import { Offline, Problem, cancel, follow, onlyOnce, submit } from "./api.js";
import { pause } from "./dom.js";
import { facts } from "./facts.js";

const TRIES = 6;
const LONGEST_PAUSE_SECONDS = 15;
const ENDED = new Set(["succeeded", "failed", "canceled"]);

export class Run {
  // `changed` is called at each change; `query` holds the parameters that only the service can answer to.
  constructor(picture, query, changed) {
    Object.assign(this, { picture, query, changed, phase: "waiting", task: null, result: null, problem: null });
    this.notice = "";
    this.begunAt = this.roundTrip = 0;
    this.abort = new AbortController();
  }

  get open() {
    return !["done", "failed", "canceled"].includes(this.phase);
  }

  async start() {
    if (!this.open) return;
    this.begunAt = performance.now();
    try {
      checkSize(this.picture.blob);
      await this.#accepted(onlyOnce());
      await this.#followed();
    } catch (error) {
      if (this.open) this.#fail(error);
    }
  }

  // Takes the task out of the queue. One that a worker has begun goes on, and so does this.
  async cancel() {
    this.notice = "";
    if (!this.task) {
      this.#set("canceled");
      this.abort.abort();
      return;
    }
    try {
      await cancel(this.task.task_id);
      if (this.open) this.#set("canceled");
      this.abort.abort();
    } catch (error) {
      if (this.open) this.#set(this.phase, error.message);
    }
  }

  // For a picture that leaves the page: its result need not stay on the service.
  forget() {
    if (this.phase === "waiting" || this.phase === "sending") return this.cancel();
    if (!this.task || this.phase === "canceled") return;
    this.abort.abort();
    cancel(this.task.task_id).catch(() => {});
    if (this.open) this.phase = "canceled";
  }

  async #accepted(once) {
    for (let left = TRIES; ; left -= 1) {
      this.#set("sending");
      try {
        this.task = await submit(this.picture.blob, this.picture.name, this.query, once, this.abort.signal);
        return;
      } catch (error) {
        const seconds = this.#worthWaiting(error, TRIES - left);
        if (!seconds || left <= 1) throw error;
        this.#set("paused", `${error.message}. Trying again in ${seconds} s.`);
        await pause(seconds * 1000, this.abort.signal);
      }
    }
  }

  #worthWaiting(error, tries) {
    if (error instanceof Offline) return Math.min(2 ** tries, LONGEST_PAUSE_SECONDS);
    const busy = error instanceof Problem && [429, 503].includes(error.status) && error.retryAfter > 0;
    return busy ? Math.min(error.retryAfter, LONGEST_PAUSE_SECONDS) : 0;
  }

  async #followed() {
    for (let tries = 0; ; ) {
      try {
        for await (const view of follow(this.task.task_id, this.abort.signal)) {
          tries = 0;
          if (this.#ended(view)) return;
        }
      } catch (error) {
        const temporary = error instanceof Offline || [429, 503].includes(error.status);
        if (!temporary) throw error;
        this.#set(this.phase, "The connection is lost. The task goes on; looking again.");
      }
      await pause(Math.min(2 ** tries++ * 500, 10_000), this.abort.signal);
    }
  }

  #ended(view) {
    this.task = view;
    if (!ENDED.has(view.state)) {
      this.#set(view.state);
      return false;
    }
    this.roundTrip = performance.now() - this.begunAt;
    if (view.state === "succeeded") this.result = view.result;
    if (view.state === "failed") return this.#fail(new Problem(view.error)), true;
    this.#set(view.state === "succeeded" ? "done" : "canceled");
    return true;
  }

  #fail(error) {
    this.problem = error;
    this.#set("failed");
  }

  #set(phase, notice = "") {
    Object.assign(this, { phase, notice });
    this.changed(this);
  }
}

// A service that refuses a body early closes the connection, of which a browser says only that it was lost.
function checkSize({ size }) {
  if (size <= facts.maxImageBytes) return;
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const detail = `the picture has ${megabytes(size)} MB; this service takes at most ${megabytes(facts.maxImageBytes)} MB`;
  throw new Problem({ status: 413, title: "The image is too large", detail, code: "image_too_large", request_id: "" });
}

// At most `limit` at a time: a browser has six connections to a host, and a run that is followed holds one.
export class Pool {
  constructor(limit) {
    Object.assign(this, { free: limit, waiting: [] });
  }

  add(run) {
    this.waiting.push(run);
    this.#next();
  }

  async #next() {
    if (!this.free || !this.waiting.length) return;
    this.free -= 1;
    await this.waiting.shift().start();
    this.free += 1;
    this.#next();
  }
}
