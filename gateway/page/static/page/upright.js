// Every browser turns a JPEG as its EXIF says. Not every one turns WebP and PNG, and the service does.

const TURNED_SIDEWAYS = 5;
// Two pixels beside each other, stored one above the other: which it is shows whether this browser turns that type.
const PROBES = {
  "image/webp":
    "UklGRloAAABXRUJQVlA4WAoAAAAIAAAAAAAAAQAAVlA4TA4AAAAvAEAAAAcQEf0PRET/A0VYSUYmAAAASUkqAAgAAAACAA8BAgABAAAAAAAAABIBAwABAAAABgAAAAAAAAA=",
  "image/png":
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAACCAIAAAAW4yFwAAAAJmVYSWZJSSoACAAAAAIADwECAAEAAAAAAAAAEgEDAAEAAAAGAAAAAAAAAP+HWCAAAAAKSURBVAgdY4ACAAAIAAGMN7cvAAAAAElFTkSuQmCC",
};

// The file as it is, or a picture of it that stands upright in this browser.
export async function upright(file) {
  if (!(file.type in PROBES)) return file;
  const turn = orientation(new DataView(await file.arrayBuffer()));
  if (turn === 1 || (await turnsItself(file.type))) return file;
  const bitmap = await createImageBitmap(file).catch(() => null);
  return bitmap ? drawn(bitmap, turn) : file;
}

async function turnsItself(type) {
  const image = new Image();
  image.src = `data:${type};base64,${PROBES[type]}`;
  await image.decode().catch(() => {});
  return image.naturalWidth === 2;
}

function drawn(bitmap, turn) {
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  const sideways = turn >= TURNED_SIDEWAYS;
  Object.assign(canvas, { width: sideways ? height : width, height: sideways ? width : height });
  const context = canvas.getContext("2d");
  context.setTransform(...matrix(turn, width, height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// From the stored picture to the upright one, https://www.w3.org/TR/png-3/#eXIf and EXIF 2.32, 4.6.4 A.
const matrix = (turn, width, height) =>
  ({
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  })[turn];

function orientation(view) {
  try {
    const at = view.getUint32(0) === 0x52494646 ? chunk(view, 12, "EXIF", true) : chunk(view, 8, "eXIf", false);
    return at ? ofTiff(view, at) : 1;
  } catch {
    return 1; // cut: shown as it is stored
  }
}

// Where the content of a chunk begins; 0 for none. RIFF has name, length, content, an even number of bytes;
// PNG has length, name, content, checksum.
function chunk(view, start, wanted, riff) {
  for (let at = start; at + 8 <= view.byteLength; ) {
    const length = view.getUint32(riff ? at + 4 : at, riff);
    const name = riff ? at : at + 4;
    if ([...wanted].every((letter, index) => view.getUint8(name + index) === letter.charCodeAt(0))) return at + 8;
    at += riff ? 8 + length + (length % 2) : 12 + length;
  }
  return 0;
}

function ofTiff(view, start) {
  if (view.getUint32(start) === 0x45786966) start += 6; // "Exif\0\0", which some writers leave before it
  const little = view.getUint16(start) === 0x4949;
  const entries = start + view.getUint32(start + 4, little);
  const count = view.getUint16(entries, little);
  for (let index = 0; index < count; index += 1) {
    const entry = entries + 2 + 12 * index;
    if (view.getUint16(entry, little) !== 0x0112) continue;
    const turn = view.getUint16(entry + 8, little);
    return turn >= 1 && turn <= 8 ? turn : 1;
  }
  return 1;
}
