// Which part of the picture is seen: x, y of its corner on the stage and the scale, all in CSS pixels.

const MOST_SCALE = 32;
const STEP = 1.25;
const PAN = 48;

export class View {
  constructor() {
    this.listeners = new Set();
    Object.assign(this, { stage: { width: 1, height: 1 }, picture: { width: 1, height: 1 }, scale: 1, x: 0, y: 0, fitted: true });
  }

  get fit() {
    const { stage, picture } = this;
    return Math.min(stage.width / picture.width, stage.height / picture.height);
  }

  measure(stage, picture = this.picture) {
    Object.assign(this, { stage, picture });
    if (this.fitted) this.reset();
    else this.#move(this.x, this.y);
  }

  reset() {
    this.fitted = true;
    this.scale = this.fit;
    this.#move(0, 0);
  }

  zoom(factor, x = this.stage.width / 2, y = this.stage.height / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.fit), Math.max(MOST_SCALE, this.fit));
    const ratio = scale / this.scale;
    this.scale = scale;
    this.fitted = scale === this.fit;
    this.#move(x - (x - this.x) * ratio, y - (y - this.y) * ratio);
  }

  pan(dx, dy) {
    this.#move(this.x + dx, this.y + dy);
  }

  // Brings a box of the picture into the middle, large enough to look at.
  show({ x1, y1, x2, y2 }) {
    const { stage } = this;
    const wanted = 0.5 * Math.min(stage.width / Math.max(x2 - x1, 1), stage.height / Math.max(y2 - y1, 1));
    this.scale = Math.min(Math.max(wanted, this.fit), 8);
    this.fitted = false;
    this.#move(stage.width / 2 - ((x1 + x2) / 2) * this.scale, stage.height / 2 - ((y1 + y2) / 2) * this.scale);
  }

  toPicture(x, y) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  #move(x, y) {
    const { stage, picture, scale } = this;
    this.x = held(x, stage.width, picture.width * scale);
    this.y = held(y, stage.height, picture.height * scale);
    for (const listener of this.listeners) listener();
  }
}

// Centred where it is smaller than the stage, and never pushed off it where it is larger.
function held(at, room, size) {
  return size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, at));
}

export function steer(stage, view) {
  const fingers = new Map();
  stage.addEventListener("wheel", (event) => wheel(event, stage, view), { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, at(event));
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => moved(event, stage, view, fingers));
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => fingers.delete(event.pointerId));
  stage.addEventListener("dblclick", (event) => {
    const { x, y } = within(stage, event);
    if (view.fitted) view.zoom(3, x, y);
    else view.reset();
  });
}

function wheel(event, stage, view) {
  if (view.fitted && event.deltaY > 0) return; // nothing to zoom out of: the page scrolls
  event.preventDefault();
  const { x, y } = within(stage, event);
  const pixels = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
  view.zoom(Math.exp(-Math.max(-200, Math.min(200, pixels)) / (event.ctrlKey ? 100 : 300)), x, y);
}

function moved(event, stage, view, fingers) {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
  const now = at(event);
  fingers.set(event.pointerId, now);
  if (!others.length) return view.pan(now.x - before.x, now.y - before.y);
  const box = stage.getBoundingClientRect();
  const [other] = others;
  const [x, y] = [(now.x + other.x) / 2 - box.x, (now.y + other.y) / 2 - box.y];
  view.zoom(apart(now, other) / Math.max(apart(before, other), 1), x, y);
  view.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
}

const at = (event) => ({ x: event.clientX, y: event.clientY });
const apart = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);

export function within(stage, event) {
  const box = stage.getBoundingClientRect();
  return { x: event.clientX - box.x, y: event.clientY - box.y };
}

// Whether the key was one of the view's.
export function steerByKey(key, view) {
  const moves = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] };
  if (key === "+" || key === "=") view.zoom(STEP);
  else if (key === "-") view.zoom(1 / STEP);
  else if (key === "0") view.reset();
  else if (moves[key] && !view.fitted) view.pan(...moves[key]);
  else return false;
  return true;
}
