// The picture with its boxes: the browser scales the picture, the canvas above it draws boxes only, so that a
// photograph of any size moves smoothly.
import { make } from "./dom.js";
import { draw } from "./overlay.js";
import { View, steer, steerByKey, within } from "./view.js";

const HELP = "Plus and minus zoom, 0 fits, arrows move, N and P step through the boxes";

export class Stage {
  // `pointed` is called with the detection that the pointer or a key chose, null for none.
  constructor(pointed) {
    this.view = new View();
    this.image = make("img", { alt: "", draggable: false });
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.element = make("div", { className: "stage", tabIndex: 0, role: "application" }, this.image, this.canvas);
    Object.assign(this, { pointed, detections: [], hot: null, frame: 0 });
    this.view.listeners.add(() => this.redraw());
    new ResizeObserver(() => this.#measure()).observe(this.element);
    steer(this.element, this.view);
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#point(event));
    this.element.addEventListener("click", (event) => this.#point(event));
    this.element.addEventListener("pointerleave", () => this.pointed(null));
  }

  // False where the browser cannot draw the file; the boxes are then shown on an empty ground.
  async show(picture, size) {
    const drawn = await this.#load(picture.url);
    if (this.image.src !== picture.url) return true;
    const natural = { width: this.image.naturalWidth || 640, height: this.image.naturalHeight || 480 };
    this.image.hidden = !drawn;
    this.#measure(size ?? natural);
    return drawn;
  }

  // A file that was cut is drawn as far as it goes.
  #load(url) {
    if (this.image.src !== url) {
      this.view.fitted = true;
      this.loaded = new Promise((resolve) => {
        this.image.onload = () => resolve(true);
        this.image.onerror = () => resolve(false);
      });
      this.image.src = url;
    }
    return this.loaded;
  }

  boxes(detections, hot) {
    Object.assign(this, { detections, hot });
    this.redraw();
  }

  describe(text) {
    this.element.setAttribute("aria-label", `${text}. ${HELP}`);
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  #measure(picture = this.view.picture) {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    const dense = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: Math.round(width * dense), height: Math.round(height * dense) });
    Object.assign(this.canvas, { drawnWidth: width, drawnHeight: height });
    Object.assign(this.image.style, { width: `${picture.width}px`, height: `${picture.height}px` });
    this.view.measure({ width, height }, picture);
  }

  #draw() {
    const { x, y, scale, fitted } = this.view;
    this.image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.image.classList.toggle("is-magnified", scale > 2);
    this.element.classList.toggle("is-zoomed", !fitted);
    const context = this.canvas.getContext("2d");
    const dense = this.canvas.width / (this.canvas.drawnWidth || 1);
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, this.canvas.drawnWidth, this.canvas.drawnHeight);
    const font = this.element.clientWidth < 400 ? 11 : 12;
    draw(context, this.detections, this.hot, { x, y, scale }, { font, line: 2 });
  }

  #point(event) {
    const { x, y } = this.view.toPicture(...Object.values(within(this.element, event)));
    const hit = this.detections.filter(({ box }) => box.x1 <= x && x <= box.x2 && box.y1 <= y && y <= box.y2);
    const area = ({ box }) => (box.x2 - box.x1) * (box.y2 - box.y1);
    this.pointed(hit.sort((a, b) => area(a) - area(b))[0] ?? null);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { n: 1, p: -1 }[event.key.toLowerCase()];
    if (step && this.detections.length) {
      const at = this.detections.indexOf(this.hot);
      const next = at < 0 ? (step > 0 ? 0 : -1) : (at + step) % this.detections.length;
      this.pointed(this.detections.at(next), true);
    } else if (!steerByKey(event.key, this.view)) return;
    event.preventDefault();
  }
}
