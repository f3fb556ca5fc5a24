// Boxes and labels on a canvas, in the colours and the manner of the annotated picture of the service.
import { colourOf } from "./facts.js";

// Labels of the best boxes take at most this much of the picture; the others have theirs when they are pointed at.
const MOST_LABELLED = 0.1;
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

// `place` maps the picture to the canvas: x, y, scale. `pen` has the width of lines and the size of text.
export function draw(context, detections, hot, place, pen) {
  context.font = `500 ${pen.font}px ${FONT}`;
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const each of [...detections].reverse()) if (each !== hot) outline(context, each, place, pen.line);
  const taken = [];
  if (hot) {
    outline(context, hot, place, pen.line * 1.75, true);
    label(context, hot, place, pen, taken);
  }
  const { width, height } = roomOf(context.canvas);
  let left = MOST_LABELLED * width * height;
  for (const each of detections) {
    if (left <= 0) return;
    if (each !== hot) left -= label(context, each, place, pen, taken);
  }
}

function outline(context, { box, class_id: classId }, place, line, filled = false) {
  const [x, y, width, height] = rectangle(box, place);
  const { ground } = colourOf(classId);
  if (filled) {
    context.fillStyle = `${ground}33`;
    context.fillRect(x, y, width, height);
  }
  for (const [style, wide] of [["#000000b3", line + 2], [ground, line]]) {
    context.strokeStyle = style;
    context.lineWidth = wide;
    context.strokeRect(x, y, width, height);
  }
}

// The pixels that it takes: none where every place for it is taken.
function label(context, { box, class_id: classId, label: name, score }, place, pen, taken) {
  const text = `${name} ${score.toFixed(2)}`;
  const [x, y, , height] = rectangle(box, place);
  const size = { width: context.measureText(text).width + pen.font * 0.7, height: pen.font * 1.5 };
  const spot = [y - size.height, y + height, y].map((top) => inside(context.canvas, x - pen.line / 2, top, size));
  const free = spot.find((each) => each && !taken.some((other) => overlap(each, other)));
  if (!free) return 0;
  taken.push(free);
  const { ground, ink } = colourOf(classId);
  context.fillStyle = ground;
  context.fillRect(free.x, free.y, size.width, size.height);
  context.fillStyle = ink;
  context.fillText(text, free.x + pen.font * 0.35, free.y + size.height / 2 + 0.5);
  return size.width * size.height;
}

const rectangle = ({ x1, y1, x2, y2 }, { x, y, scale }) => [x + x1 * scale, y + y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale];

// A canvas on a dense screen has more pixels than it is wide.
const roomOf = (canvas) => ({ width: canvas.drawnWidth ?? canvas.width, height: canvas.drawnHeight ?? canvas.height });

function inside(canvas, x, y, { width, height }) {
  const room = roomOf(canvas);
  if (y < 0 || y + height > room.height || x > room.width || x + width < 0) return null;
  return { x: Math.max(0, Math.min(x, room.width - width)), y, width, height };
}

const overlap = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

// The picture as a file, with what is shown drawn in, as large as the picture is.
export async function annotated(image, { width, height }, detections) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  const font = Math.round(10 + (width + height) / 200);
  draw(context, detections, null, { x: 0, y: 0, scale: 1 }, { font, line: Math.max(2, Math.round(font / 10)) });
  return new Promise((resolve, reject) => {
    const done = (blob) => (blob ? resolve(blob) : reject(new Error("this browser cannot draw a picture of that size")));
    canvas.toBlob(done, "image/jpeg", 0.92);
  });
}
