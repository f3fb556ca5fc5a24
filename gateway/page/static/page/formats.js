// The forms of a result as /result/<task_id>?format= writes them: the same digits, the same order.

// A number with this many places. Ties go to the even digit as in Python; toFixed takes the larger.
export function fixed(value, places) {
  const text = value.toFixed(places);
  const scaled = value * 2 ** (places + 1);
  const isTie = Number.isInteger(scaled) && scaled % 2 === 1;
  const last = text.charCodeAt(text.length - 1);
  return isTie && last % 2 ? text.slice(0, -1) + String.fromCharCode(last - 1) : text;
}

const rounded = (value) => Number(fixed(value, 2));

export function coco(taskId, result, detections) {
  const { width, height } = result.image;
  const labels = new Map(detections.map((each) => [each.class_id, each.label]));
  const dataset = {
    info: { description: `detections of ${result.model.name} version ${result.model.version}` },
    images: [{ id: 1, file_name: taskId, width, height }],
    annotations: detections.map(annotation),
    categories: [...labels].sort(([a], [b]) => a - b).map(([id, name]) => ({ id, name, supercategory: "" })),
    licenses: [],
  };
  return JSON.stringify(dataset);
}

function annotation({ class_id: classId, score, box }, index) {
  const [width, height] = [box.x2 - box.x1, box.y2 - box.y1];
  return {
    id: index + 1,
    image_id: 1,
    category_id: classId,
    bbox: [box.x1, box.y1, rounded(width), rounded(height)],
    area: rounded(width * height),
    score,
    segmentation: [],
    iscrowd: 0,
  };
}

export function yolo(taskId, result, detections) {
  const { width, height } = result.image;
  return detections
    .map(({ class_id: classId, box }) => {
      const columns = [
        (box.x1 + box.x2) / 2 / width,
        (box.y1 + box.y2) / 2 / height,
        (box.x2 - box.x1) / width,
        (box.y2 - box.y1) / height,
      ];
      return `${classId} ${columns.map((column) => fixed(column, 6)).join(" ")}\n`;
    })
    .join("");
}

const COLUMNS = "task_id,label,class_id,score,x1,y1,x2,y2,image_width,image_height,model,version";

export function csv(taskId, result, detections) {
  const rows = detections.map(({ label, class_id: classId, score, box }) => [
    ...[taskId, noFormula(label), classId],
    ...[score, box.x1, box.y1, box.x2, box.y2].map(float),
    ...[result.image.width, result.image.height, result.model.name, result.model.version],
  ]);
  return [COLUMNS, ...rows.map((row) => row.map(quoted).join(","))].map((line) => `${line}\r\n`).join("");
}

// As Python writes a float.
const float = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));

const noFormula = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
